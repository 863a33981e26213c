"""docs/job-yaml.md names every key and name, with its default, and marks what comes later."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from clusterseg.spec.pending import LATER
from clusterseg.spec.schema import schema
from clusterseg.spec.tables import TABLES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "job-yaml.md").read_text()
ROW = re.compile(r"^\| (`[^|]*) \| ([^|]*) \|", re.MULTILINE)
SECTIONS = ("train", "checkpoint", "resources", "placement", "restart")


def documented() -> dict[str, tuple[str, bool]]:
    """Dotted key -> its default as written, and whether it is marked as later."""
    found = {}
    for part in re.split(r"^##+ ", PAGE.partition("## Every key")[2], flags=re.MULTILINE):
        title = part.split("\n", 1)[0]
        prefix = f"{title}." if title in SECTIONS else ""
        for names, default in ROW.findall(part):
            for name, star in re.findall(r"`([a-z_.]+)`(\\\*)?", names):
                found[prefix + name] = (default.strip("` "), bool(star))
    return found


def keys(found: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """Every dotted key of the schema that is no section and no option of a name."""
    leaves = {}
    for name, below in found["properties"].items():
        if "properties" in below:
            leaves |= keys(below, f"{path}{name}.")
        elif set(below) != {"description"}:  # as an option has it, whose type the name decides
            leaves[path + name] = below
    return leaves


def test_every_key_is_documented_and_no_other() -> None:
    assert set(documented()) == set(keys(schema()))


@pytest.mark.parametrize("key", sorted(keys(schema())))
def test_the_default_is_as_documented(key: str) -> None:
    default = keys(schema())[key].get("default")
    if default is None:
        return
    written = documented()[key][0]
    if isinstance(default, float | int) and not isinstance(default, bool):
        assert float(written) == default
    else:
        assert written == (str(default).lower() if isinstance(default, bool) else default)


def test_keys_that_can_only_be_left_alone_are_marked() -> None:
    """A key is marked if the only value that can be done is its default."""
    marked = {key for key, (_, later) in documented().items() if later}
    assert marked == set(LATER)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_name_is_documented_as_ready_or_later(table: str) -> None:
    now, later = [], []
    for line in PAGE.splitlines():
        before, star, after = line.partition("later\\*")
        now += re.findall(r"`([a-z0-9_+-]+)`|\{([a-z_]+):", before)
        later += re.findall(r"`([a-z0-9_+-]+)`", after) if star else []
    ready_names = {name for pair in now for name in pair}
    for name, known in TABLES[table].items():
        assert name in (ready_names if known.ready else later), name
