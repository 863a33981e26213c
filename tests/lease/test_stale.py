"""Attempts on hosts with stale views of one run directory: one truth, whatever wakes up late.

All scenarios run at once, each in a run of its own: they mostly wait.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lease.mounts import stale_mounts
from tests.lease.scenarios import SCENARIOS, TWINS
from tests.lease.stage import QUICK, REAL, Scale, Stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
Played = dict[str, "Future[None]"]


def play(stage: Stage, scenario: str, broken: str | None) -> None:
    try:
        SCENARIOS[scenario](stage, broken)
    finally:
        stage.end()


def played(folder: Path, scale: Scale) -> Iterator[Played]:
    """Every scenario, and every one that something broken must fail, begun."""
    wanted = {name: (name, None) for name in SCENARIOS} | TWINS
    with (
        stale_mounts(folder, 3, scale.stale) as mounts,
        ThreadPoolExecutor(len(wanted)) as pool,
    ):
        futures = {}
        for number, (name, (scenario, broken)) in enumerate(wanted.items()):
            stage = Stage(mounts, folder / "real", folder, scale, name=f"run{number}")
            futures[name] = pool.submit(play, stage, scenario, broken)
        yield futures


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    yield from played(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    yield from played(tmp_path_factory.mktemp("real"), REAL)


def fails(future: Future[None]) -> bool:
    """Whether a scenario found something wrong; an error of the scenario itself is raised."""
    error = future.exception()
    if error is not None and not isinstance(error, AssertionError):
        raise error
    print("".join(traceback.format_exception(error)) if error else "")
    return error is not None


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_truth(quick: Played, name: str) -> None:
    quick[name].result()


@pytest.mark.parametrize("name", TWINS)
def test_what_is_broken_is_noticed(quick: Played, name: str) -> None:
    assert fails(quick[name])


@pytest.mark.proof
@pytest.mark.parametrize("name", SCENARIOS)
def test_one_truth_with_caches_of_30_seconds(real: Played, name: str) -> None:
    real[name].result()


@pytest.mark.proof
@pytest.mark.parametrize("name", TWINS)
def test_what_is_broken_is_noticed_with_caches_of_30_seconds(real: Played, name: str) -> None:
    assert fails(real[name])
