"""What the documentation shows must hold: its jobs, its links, its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clusterseg.cli.main import COMMANDS
from clusterseg.spec.reader import read_job

TOP = Path(__file__).resolve().parent.parent
PAGES = [TOP / "README.md", TOP / "CHANGELOG.md", *sorted((TOP / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    broken = [
        link for link in links if "://" not in link and not (page.parent / link).resolve().exists()
    ]
    assert not broken


def test_the_job_of_the_readme_is_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(name: .*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    job = tmp_path / "job.yaml"
    job.write_text(block)
    spec = read_job(job, environ={"CAMVID": str(tmp_path)})
    assert spec.name == "fastscnn-camvid"
    assert spec.train is not None
    assert spec.train.data.size == (360, 480)


def test_the_index_names_every_page() -> None:
    index = (TOP / "docs" / "index.md").read_text()
    missing = [page.name for page in (TOP / "docs").glob("*.md") if f"({page.name})" not in index]
    assert missing in ([], ["index.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_targets_that_are_named_exist(page: Path) -> None:
    commands = set(re.findall(r"^clusterseg ([a-z][a-z-]*)", code_of(page), re.MULTILINE))
    assert commands <= set(COMMANDS)
    targets = set(re.findall(r"^([a-z-]+):", (TOP / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", code_of(page), re.MULTILINE)) <= targets


def code_of(page: Path) -> str:
    """What stands as code in a page, a line each: the lines of its blocks and its `spans`."""
    text = page.read_text()
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return "\n".join([*lines, *re.findall(r"`([^`\n]+)`", text)])
