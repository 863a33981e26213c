"""A real rank is killed at every stage of a save in the background, or its host loses power there:
the next attempt stands on the old or the new state, and the run ends as if nothing had been."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import CheckpointError, CheckpointInfo, list_checkpoints, verify
from clusterseg.runs.choice import newest_acceptable
from clusterseg.runs.records import Checkpoint
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.keep import to_delete
from tests.train.forked_ranks import FIRST, WRITER, ForkedRanks, Order
from tests.train.runs import Run, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # a rank starts for each kill
STEPS = 36  # 4 epochs of 9; saved after each
KEEP = {"keep_best": 1, "keep_last": 2}
MAIN = "MainThread"

# In the order of a save: the thread that comes there, and whether the save counts from there on,
# after a kill and after a loss of power.
STAGES = {
    "before the copy": (MAIN, False, False),
    "after the copy": (MAIN, False, False),
    "before the first byte": (WRITER, False, False),
    "inside the header": (WRITER, False, False),
    "inside a tensor": (WRITER, False, False),
    "before the hash": (WRITER, False, False),
    "before the fsync": (WRITER, False, False),
    "after the fsync": (WRITER, False, False),
    "before it has its name": (WRITER, False, False),
    "after it has its name": (WRITER, True, False),
    "before the folder's fsync": (WRITER, True, False),
    "after the folder's fsync": (WRITER, True, True),
    "before the prune": (WRITER, True, True),
    "before an old one goes": (WRITER, True, True),
    "after an old one went": (WRITER, True, True),
    "after the prune": (WRITER, True, True),
    "before the reply is taken": (MAIN, True, True),
    "before the event": (MAIN, True, True),
    "after the event": (MAIN, True, True),
}
UNSYNCED = (  # where something is written, or has a name, or lost one, that may not last
    "inside a tensor",
    "before the fsync",
    "after the fsync",
    "after it has its name",
    "before the folder's fsync",
    "after the folder's fsync",
    "after an old one went",
    "after the event",
)


@pytest.fixture(scope="module")
def ranks() -> Iterator[ForkedRanks]:
    with ForkedRanks() as ranks:
        yield ranks


def small(data: Path, root: Path, **keep: int) -> Run:
    model = {"name": "unet", "options": {"base_filters": 2, "dropout": 0, "head_filters": None}}
    spec = job(data, model=model, epochs=4)
    spec["checkpoint"] = {"every": {"steps": 1}, **keep}
    return Run(root, spec)


@pytest.fixture(scope="module")
def undisturbed(data: Path, ranks: ForkedRanks, tmp_path_factory) -> list[CheckpointInfo]:
    """The checkpoints of all steps of a run that nothing happened to."""
    run = small(data, tmp_path_factory.mktemp("whole") / "run", keep_last=1000)
    run.claim()
    assert ranks.run(Order(str(run.root), 0)) == 0, run.log()
    found = list_checkpoints(run.paths.checkpoints)
    assert [one.header.step for one in found] == list(range(1, STEPS + 1))
    return found


def state(info: CheckpointInfo) -> tuple[bytes, list[dict[str, Any]]]:
    """All tensors, and the history without times."""
    layout, tensors = read_verified(info.path)
    history = layout.header.history
    return bytes(tensors), [{**one, "seconds": 0, "images_per_second": 0} for one in history]


def kept(undisturbed: list[CheckpointInfo], step: int) -> set[str]:
    """What the rules keep when step `step` is the newest."""
    until = [one for one in undisturbed if one.header.step <= step]
    names = frozenset(one.name for one in until)
    return names - set(to_delete(until, CheckpointSpec(**KEEP), own=names))


def kill(ranks: ForkedRanks, run: Run, stage: str, *, power_loss: bool, twin: str = "") -> int:
    """The next attempt, killed at `stage`; the step of the save that it was in."""
    claim = run.claim()
    order = Order(str(run.root), claim.attempt, stage, power_loss=power_loss, twin=twin)
    assert ranks.run(order) == -signal.SIGKILL, (stage, run.log())
    thread, saves = (run.root / "killed-in").read_text().split(":")
    assert thread == STAGES[stage][0] and int(saves) >= FIRST, stage
    return claim.resume_step + int(saves)


def wrong(run: Run, undisturbed: list[CheckpointInfo], step: int, *, counts: bool) -> list[str]:
    """What the next attempt would miss after a kill in the save of `step`."""
    told = [one.step for one in run.events() if isinstance(one, Checkpoint)]
    try:
        choice = newest_acceptable(run.paths, run.claims[-1])
    except CheckpointError as error:
        return [error.message]
    found, newest = list(choice.messages), choice.newest
    if newest is None:
        return [*found, "no checkpoint is left"]
    if newest.header.step != (step if counts else step - 1):
        found.append(f"it would go on from step {newest.header.step}")
    if max(told, default=0) > newest.header.step:
        found.append(f"step {max(told)} was said to be saved")
    if state(newest) != state(undisturbed[newest.header.step - 1]):
        found.append("the state is another one")
    there = {one.name for one in run.paths.checkpoints.iterdir()}
    if missing := kept(undisturbed, newest.header.step) - there:
        found.append(f"deleted: {missing}")
    if rest := there - set(choice.accepted):
        found.append(f"left behind: {rest}")
    for name, sha256 in choice.accepted.items():
        verify(run.paths.checkpoints / name, sha256)
    return found


def survives(
    ranks: ForkedRanks,
    run: Run,
    undisturbed: list[CheckpointInfo],
    stages: tuple[str, ...],
    *,
    power_loss: bool,
) -> None:
    for stage in stages:
        step = kill(ranks, run, stage, power_loss=power_loss)
        counts = STAGES[stage][2 if power_loss else 1]
        assert wrong(run, undisturbed, step, counts=counts) == [], stage
    claim = run.claim()
    assert claim.resume_step > 0
    assert ranks.run(Order(str(run.root), claim.attempt)) == 0, run.log()
    assert state(list_checkpoints(run.paths.checkpoints)[-1]) == state(undisturbed[-1])
    assert {one.name for one in run.paths.checkpoints.iterdir()} == kept(undisturbed, STEPS)
    assert [one for one in run.root.rglob("*") if "tmp" in one.name] == []


@pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.proof)])
def test_killed_at_any_stage_of_a_save_a_rank_loses_no_step_that_was_saved(
    ranks: ForkedRanks, undisturbed: list[CheckpointInfo], data: Path, tmp_path: Path, half: int
) -> None:
    run = small(data, tmp_path / "run", **KEEP)
    survives(ranks, run, undisturbed, tuple(STAGES)[half::2], power_loss=False)


@pytest.mark.proof
def test_a_host_that_loses_its_power_in_a_save_loses_no_step_that_was_saved(
    ranks: ForkedRanks, undisturbed: list[CheckpointInfo], data: Path, tmp_path: Path
) -> None:
    run = small(data, tmp_path / "run", **KEEP)
    survives(ranks, run, undisturbed, UNSYNCED, power_loss=True)


@pytest.mark.parametrize(
    ("twin", "stage", "noticed"),
    [
        ("no fsync", "after the folder's fsync", "is truncated: 0 bytes"),
        ("event first", "before it has its name", "was said to be saved"),
    ],
)
def test_a_promise_that_is_broken_is_noticed(  # noqa: PLR0917 (fixtures)
    ranks: ForkedRanks,
    undisturbed: list[CheckpointInfo],
    data: Path,
    tmp_path: Path,
    twin: str,
    stage: str,
    noticed: str,
) -> None:
    """The negative twins."""
    run = small(data, tmp_path / "run", **KEEP)
    step = kill(ranks, run, stage, power_loss=True, twin=twin)
    found = wrong(run, undisturbed, step, counts=STAGES[stage][2])
    assert any(noticed in one for one in found)
