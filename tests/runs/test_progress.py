"""How far a run is: from the ends of long logs, of packed attempts, of damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterseg.runs.attempts import pack_attempt, read_attempt
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.progress import Goal, Progress, look_at, read_goal
from clusterseg.runs.records import Epoch, Event, RankStart, Steps
from tests.runs import synthetic


def window(rank: int, step: int, *, images: int = 10, seconds: float = 1.0) -> Steps:
    return Steps(
        t=1e9 + step,
        rank=rank,
        epoch=step // 1000,
        step=step,
        count=1,
        images=images,
        seconds=seconds,
        loss=1.0 / step,
    )


def start(rank: int) -> RankStart:
    return RankStart(t=1e9, rank=rank, attempt=0, world_size=2, host=f"host{rank}")


def epoch(number: int, step: int, accuracy: float | None = None) -> Epoch:
    return Epoch(t=1e9, rank=0, epoch=number, step=step, val_accuracy=accuracy)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    run = synthetic.make_run(tmp_path, "demo-x")
    synthetic.claim(run, 0)
    return run


def progress_of(run: RunPaths) -> Progress:
    attempt = read_attempt(run.attempt(0))
    assert attempt is not None
    return look_at(attempt)


def test_of_a_long_log_the_start_and_the_end_count(run: RunPaths) -> None:
    for rank in (0, 1):
        events: list[Event] = [start(rank), *(window(rank, step) for step in range(1, 2001))]
        if rank == 0:
            events.insert(1001, epoch(1, 1000, 0.5))
        synthetic.write_events(run, 0, rank, events)
    assert run.attempt(0).events(1).stat().st_size > 3 << 16
    progress = progress_of(run)
    assert (progress.step, progress.epoch) == (2000, 2)
    assert [progress.ranks[rank].host for rank in (0, 1)] == ["host0", "host1"]
    assert progress.images_per_second == pytest.approx(20.0)
    assert progress.loss == pytest.approx(1 / 2000)
    assert progress.validated == epoch(1, 1000, 0.5)


def test_the_first_window_which_compiles_is_no_measure(run: RunPaths) -> None:
    events = [start(0), window(0, 1, seconds=60.0)]
    synthetic.write_events(run, 0, 0, events)
    assert progress_of(run).images_per_second is None
    synthetic.write_events(run, 0, 0, [window(0, 2, images=30)])
    assert progress_of(run).images_per_second == pytest.approx(30.0)


def test_ranks_that_wrote_nothing_are_there(run: RunPaths) -> None:
    synthetic.write_events(run, 0, 1, [start(1), window(1, 5)])
    progress = progress_of(run)
    assert progress.ranks[0].status == "starting"
    assert progress.ranks[0].seen is None
    assert progress.ranks[1].step == 5


def test_a_packed_attempt_is_known_by_its_first_rank(run: RunPaths) -> None:
    for rank in (0, 1):
        synthetic.write_events(run, 0, rank, [start(rank), window(rank, 7)])
    synthetic.end(run, 0, synthetic.Cause.DONE)
    pack_attempt(run.attempt(0))
    assert progress_of(run).step == 7


def test_a_claim_with_an_absurd_rank_count_is_borne(tmp_path: Path) -> None:
    run = synthetic.make_run(tmp_path, "demo-x")
    synthetic.claim(run, 0, ranks=10**12)
    synthetic.write_events(run, 0, 0, [start(0), window(0, 3)])
    assert progress_of(run).step == 3


@pytest.mark.parametrize(
    ("steps_per_epoch", "epochs", "steps"),
    [
        (100, [], 400),
        (None, [], None),
        (None, [epoch(1, 30)], 120),
        (None, [epoch(1, 30), epoch(2, 60)], 120),
        (None, [epoch(0, 0)], None),
    ],
)
def test_the_goal_in_steps(
    steps_per_epoch: int | None, epochs: list[Epoch], steps: int | None, tmp_path: Path
) -> None:
    plan = {"spec": {"train": {"epochs": 4, "steps_per_epoch": steps_per_epoch}}}
    run = synthetic.make_run(tmp_path, "demo-x", plan=plan)
    goal = read_goal(run.submission(0))
    assert goal.epochs == 4
    assert goal.steps(epochs) == steps


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"spec": 3}', b"[" * 100_000])
def test_without_a_readable_plan_there_is_no_goal(tmp_path: Path, data: bytes) -> None:
    run = synthetic.make_run(tmp_path, "demo-x")
    run.submission(0).plan.write_bytes(data)
    goal = read_goal(run.submission(0))
    assert (goal.epochs, goal.steps([])) == (None, None)
    assert read_goal(None) == Goal()


def test_a_range_test_has_no_epochs_and_at_most_so_many_steps(tmp_path: Path) -> None:
    run = synthetic.make_run(tmp_path, "demo-x")
    run.submission(0).plan.write_text(
        '{"spec": {"train": {"epochs": 9, "steps_per_epoch": 5}}, "task": "lr-find",'
        ' "lr_find": {"optimizers": ["sgd", "adam"], "steps": 141}}'
    )
    goal = read_goal(run.submission(0))
    assert (goal.epochs, goal.steps([])) == (None, 282)
