"""The live view: it tells what happens, over restarts, and drives no terminal but its own."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clusterseg.cli import ending, follow
from clusterseg.cli.follow import PlainView, Watch, follow_run, step_line
from clusterseg.cli.live import LiveView, picture
from clusterseg.cluster.look import look
from clusterseg.runs.attempts import pack_attempt
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.placement import PlacementCheck, write_check
from clusterseg.runs.records import Cause, Epoch, Event, RankEnd, RankStart, State, Steps
from tests.runs import synthetic


def start(rank: int, host: str = "n1") -> RankStart:
    return RankStart(t=1.0, rank=rank, attempt=0, world_size=2, host=host)


def window(rank: int, step: int, *, loss: float = 0.5) -> Steps:
    return Steps(
        t=2.0,
        rank=rank,
        epoch=step // 100,
        step=step,
        count=10,
        images=40,
        seconds=1.0,
        loss=loss,
        learning_rate=0.01,
    )


def epoch(number: int) -> Epoch:
    return Epoch(
        t=3.0, rank=0, epoch=number, step=100 * number, loss=0.4, val_accuracy=0.8, val_mean_iou=0.6
    )


@pytest.fixture
def run(runs_dir: Path) -> RunPaths:
    run = synthetic.make_run(runs_dir, "demo-x")
    synthetic.claim(run, 0, alive=True)
    return run


def read(watch: Watch) -> list[str]:
    return watch.read(look(watch.run))


def write(run: RunPaths, attempt: int, *events: Event) -> None:
    for event in events:
        synthetic.write_events(run, attempt, event.rank, [event])


def test_only_what_is_new_is_told(run: RunPaths) -> None:
    watch = Watch(run)
    assert read(watch) == ["attempt 0: 2 ranks on n1 x2"]
    assert read(watch) == []
    write(run, 0, start(0), start(1), window(0, 10), window(1, 10))
    assert read(watch) == []
    assert (watch.progress.step, watch.progress.loss) == (10, 0.5)
    write(run, 0, epoch(1))
    assert read(watch) == ["epoch 1: step 100, loss 0.4, val accuracy 0.8, mean IoU 0.6"]
    assert read(watch) == []


def test_the_goal_is_known_from_the_spec_or_after_an_epoch(runs_dir: Path) -> None:
    plan = {"ranks": 2, "spec": {"train": {"epochs": 4}}}
    run = synthetic.make_run(runs_dir, "demo-y", plan=plan)
    synthetic.claim(run, 0, alive=True)
    watch = Watch(run)
    write(run, 0, start(0), window(0, 10))
    read(watch)
    assert watch.steps is None
    assert "step 10  epoch 0/4" in step_line(watch)
    write(run, 0, epoch(1))
    read(watch)
    assert watch.steps == 400
    assert "val accuracy 0.8000" in step_line(watch)


def test_restarts_are_followed_and_what_was_learnt_is_kept(run: RunPaths) -> None:
    watch = Watch(run)
    write(run, 0, start(0), window(0, 10), epoch(1))
    read(watch)
    write(run, 0, RankEnd(t=4.0, rank=1, status="failed", error="out of luck", step=10))
    synthetic.end(run, 0, Cause.CRASH, error="rank 1 failed", will_restart=True)
    synthetic.claim(run, 1, alive=True)
    news = read(watch)
    assert news == [
        "rank 1 failed: out of luck",
        "attempt 0 ended as crash: rank 1 failed; it is started again",
        "attempt 1: 2 ranks on n1 x2",
    ]
    assert watch.attempt == 1
    assert watch.progress.step == 0
    assert [one.epoch for one in watch.epochs] == [1]


@pytest.mark.parametrize("what", [{"train": {"epochs": 4}}, {"command": ["fit"]}])
def test_ranks_that_are_not_where_they_should_be_are_told_of_once_an_attempt(
    runs_dir: Path, what: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a command, whose logs are followed too, as of a training."""
    run = synthetic.make_run(runs_dir, "demo-y", plan={"ranks": 2, "spec": what})
    synthetic.claim(run, 0, alive=True)
    watch = Watch(run)
    write(run, 0, start(0), start(1))
    read(watch)
    check = PlacementCheck(t=1.0, problems=["ranks 0 and 1 on n1 share core 3"], ranks=[0, 1])
    write_check(run.attempt(0), check)
    assert read(watch) == ["attempt 0: placement: ranks 0 and 1 on n1 share core 3"]
    assert read(watch) == []
    synthetic.end(run, 0, Cause.CRASH, will_restart=True)
    synthetic.claim(run, 1, alive=True)
    write_check(run.attempt(1), check)
    assert "attempt 1: placement: ranks 0 and 1 on n1 share core 3" in read(watch)
    assert "placement" not in capsys.readouterr().err


def test_an_attempt_that_is_packed_meanwhile_is_told_to_its_end_once(run: RunPaths) -> None:
    watch = Watch(run)
    write(run, 0, start(0), epoch(1))
    read(watch)
    write(run, 0, epoch(2))
    synthetic.end(run, 0, Cause.DONE)
    pack_attempt(run.attempt(0))
    assert read(watch) == [
        "epoch 2: step 200, loss 0.4, val accuracy 0.8, mean IoU 0.6",
        "attempt 0 ended as done",
    ]
    assert read(watch) == []


def test_it_ends_with_the_run_and_says_everything(run: RunPaths) -> None:
    write(run, 0, start(0), start(1), window(0, 10), window(1, 10), epoch(1))
    synthetic.end(run, 0, Cause.DONE)
    stream = io.StringIO()
    assert follow_run(run, stream).verdict.state is State.DONE
    lines = stream.getvalue().splitlines()
    assert lines[0] == "attempt 0: 2 ranks on n1 x2"
    assert lines[1].startswith("epoch 1:")
    assert lines[2] == "attempt 0 ended as done"
    assert lines[3].startswith("step 10/400  epoch 0/4  loss 0.5")


def test_it_does_not_wait_for_what_was_never_started(
    runs_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "NEVER_STARTED", 0.0)
    run = synthetic.make_run(runs_dir, "demo-z", started=False)
    assert follow_run(run, io.StringIO()).verdict.not_started


def test_a_silent_rank_is_stale_and_one_that_is_done_is_not(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(run)
    write(run, 0, start(0), start(1), RankEnd(t=3.0, rank=1, status="done", step=1))
    read(watch)
    ranks = watch.progress.ranks
    assert not watch.is_stale(ranks[0])
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + follow.STALE + 1)
    assert watch.is_stale(ranks[0])
    assert not watch.is_stale(ranks[1])
    assert "rank 0 on n1: silent for" in drawn(watch)


def drawn(watch: Watch) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=False, markup=False)
    console.print(picture(watch))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_the_picture_shows_step_epoch_loss_speed_and_ranks(run: RunPaths) -> None:
    watch = Watch(run)
    for step in (10, 20, 30):
        write(run, 0, window(0, step), window(1, step))
    write(run, 0, epoch(1))
    read(watch)
    text = drawn(watch)
    for expected in ("demo-x", "running", "attempt 0", "step 30/400", "epoch 0/4", "loss 0.5"):
        assert expected in text
    assert "images/s 80" in text
    assert "val accuracy 0.8" in text
    assert text.count("●") == 2


def test_a_thousand_ranks_fit(runs_dir: Path) -> None:
    run = synthetic.make_run(runs_dir, "wide-x")
    synthetic.claim(run, 0, ranks=1024, alive=True)
    watch = Watch(run)
    read(watch)
    text = drawn(watch)
    assert "and 960 more" in text
    assert len(text.splitlines()) < 10


HOSTILE = "\x1b[2J[/nope]\u202e\n"


@pytest.mark.parametrize("make", [PlainView, LiveView])
def test_hostile_names_and_errors_drive_no_terminal(
    run: RunPaths, make: Callable[[io.StringIO], PlainView | LiveView]
) -> None:
    watch = Watch(run)
    write(run, 0, start(0, HOSTILE), RankEnd(t=1.0, rank=0, status="failed", error=HOSTILE))
    synthetic.end(run, 0, Cause.CRASH, error=HOSTILE)
    stream = io.StringIO()
    with make(stream) as view:
        view.show(watch, read(watch))
    text = stream.getvalue()
    assert r"\x1b[2J[/nope]\u202e" in text
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_into_a_pipe_go_plain_lines(run: RunPaths) -> None:
    watch = Watch(run)
    write(run, 0, window(0, 10), epoch(1))
    stream = io.StringIO()
    with PlainView(stream) as view:
        for _ in range(3):
            view.show(watch, read(watch))
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert text.count("step 10/400") == 1
