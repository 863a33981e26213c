"""Variables and arguments arrive byte for byte: job.yaml, script, supervisor, launcher, rank."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.launchers.hosts import Hosts
from tests.launchers.jobs import Job, Mpi

NASTY = (
    *("", " ", " a  b ", "a,b,,c", "one\ntwo\n", "\r\n", "\t", "'", '"', 'it\'s "so"', "\\", "\\n"),
    *(
        "$(id)",
        "`id`",
        "$HOME",
        "${HOME}",
        "$${HOME}",
        "!!",
        "~",
        "*",
        "a;b&c|d>e<f",
        "#no",
        "%h %r",
    ),
    *(
        "=",
        "a=b",
        "-x",
        "--",
        "-np",
        "{ranks}",
        "{{ x }}",
        "żółć 🎉",
        "\x01\x1b[0m\x7f",
        "\x85\u2028",
    ),
    *("\ufeff", "\U0010ffff", "null", "0x10", "1e3", "yes", ":", "- a", "n" * 20_000),
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
VALUES = st.lists(TEXT, min_size=20, max_size=60)


@pytest.mark.parametrize("where", ["here", "there"])
def test_any_text_arrives(
    mpi: Mpi, where: str, hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    """On this host, and on one that is reached by ssh; the same values as arguments."""
    there = hosts(2) if where == "there" else None
    numbers = itertools.count()

    # Values of one start are many, as a start takes seconds. What fails is named by its value.
    @settings(
        max_examples=2,
        derandomize=True,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(VALUES)
    def arrives(values: list[str]) -> None:
        told = [*NASTY, *values]
        words = [word for word in told if word != ":"]  # refused: tests/plan/test_plans.py
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        job = Job(
            mpi, folder, words=words, ranks=1, hosts=there, counts=(1, 1), variables=named(told)
        )
        ranks = job.done()
        assert len(ranks) == (2 if there else 1)
        for rank in ranks:
            assert [bytes.fromhex(word) for word in rank["argv"]] == [os.fsencode(w) for w in words]
            assert rank["environment"] == hexadecimal(named(told))

    arrives()


def named(values: Sequence[str]) -> dict[str, str]:
    return {f"TOLD_{number}": value for number, value in enumerate(values)}


def hexadecimal(variables: dict[str, str]) -> dict[str, str]:
    return {name: os.fsencode(value).hex() for name, value in variables.items()}
