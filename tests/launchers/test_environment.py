"""Variables and arguments arrive byte for byte: job.yaml, script, supervisor, launcher, rank."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clusterseg.shipped import shipped_folder
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
            assert rank["stop_file"] == str(job.run.stop_file(0))  # the last that is set

    arrives()


@pytest.mark.parametrize("name", ["mpich", "intelmpi"])
def test_only_what_is_named_gets_to_another_host(
    name: str, mpi_prefix: Callable[[str], Path], hosts: Callable[..., Hosts], tmp_path: Path
) -> None:
    """Hydra would hand everything on. A user's own definition, whose list lacks a name, shows that
    nothing else carries a variable there; on this host ranks inherit all."""
    mpi = Mpi(name, name, "", str(mpi_prefix(name) / "bin"))
    told, secret = named(["a", "b"]), {"TOLD_TOKEN": "not to be told"}
    far = Job(
        mpi, tmp_path / "far", hosts=hosts(2), counts=(1, 1), variables=told, inherited=secret
    )
    near = Job(mpi, tmp_path / "near", ranks=1, variables=told, inherited=secret)
    shipped = (shipped_folder("launchers") / f"{name}.yaml").read_text()
    for job in (far, near):
        own = job.folder / "config" / "launchers" / f"{name}.yaml"
        own.parent.mkdir(parents=True)
        names = "CLUSTERSEG_RUN_DIR,CLUSTERSEG_ATTEMPT,MPI4PY_LIBMPI,OMP_NUM_THREADS,PATH,TOLD_0"
        own.write_text(shipped.replace('"{names}"', f'"{names}"'))
        assert names in own.read_text()
    assert [rank["environment"] for rank in far.done()] == [hexadecimal(named(["a"]))] * 2
    assert [rank["environment"] for rank in near.done()] == [hexadecimal(told | secret)]


def named(values: Sequence[str]) -> dict[str, str]:
    return {f"TOLD_{number}": value for number, value in enumerate(values)}


def hexadecimal(variables: dict[str, str]) -> dict[str, str]:
    return {name: os.fsencode(value).hex() for name, value in variables.items()}
