"""Each definition of docs/summary.md by an example that can be checked in one's head."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from clusterseg.collect.figures import replay_limits
from clusterseg.collect.summary import AttemptSummary, StepCounts
from clusterseg.runs.records import State
from tests.collect.hand import (
    checkpoint,
    claim,
    end,
    epoch,
    log,
    start,
    summary,
    window,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "demo-20260101-000000-abcd"


def test_a_run_of_one_attempt(run: Path) -> None:
    """Ten steps of one second, the first alone and slow; claimed at 100, over at 125."""
    claim(run, 0, 100)
    log(run, 0, 0, start(101), window(106, 1, 1, 5.0), window(116, 10, 9, 9.0))
    end(run, 0, 125, "done")
    found = summary(run)
    assert found.run == run.name
    assert found.steps == StepCounts(completed=10, replayed=0)
    assert found.images_per_second == 4.0  # 36 images in 9 s; the slow first window is left out
    assert found.goodput == (5 + 9) / 25  # but its seconds are those of a step that counts
    assert found.attempts == [
        AttemptSummary(attempt=0, ranks=1, first_step=1, last_step=10, seconds=25.0, cause="done")
    ]
    assert (found.val_accuracy, found.best, found.history, found.missing) == (None, None, [], [])


def test_the_images_of_all_ranks_over_the_seconds_of_the_slowest(run: Path) -> None:
    claim(run, 0, 0, ranks=3)
    for rank, seconds in enumerate((2.0, 4.0, 3.0)):
        log(run, 0, rank, window(1, 1, 1, 1.0), window(9, 3, 2, seconds))
    end(run, 0, 10, "done")
    found = summary(run)
    assert found.images_per_second == 3 * 8 / 4.0
    assert found.goodput == (1 + 4) / 10


def test_a_window_that_one_rank_wrote_before_the_kill_counts_for_it_alone(run: Path) -> None:
    claim(run, 0, 0, ranks=2)
    log(run, 0, 0, window(1, 1, 1, 1.0), window(3, 3, 2, 2.0), window(6, 5, 2, 3.0))
    log(run, 0, 1, window(1, 1, 1, 1.0), window(3, 3, 2, 2.0))
    found = summary(run, State.FAILED)
    assert found.steps.completed == 5
    assert found.images_per_second == (8 + 8 + 8) / (2 + 3)


def test_steps_beyond_the_next_claims_step_are_replayed(run: Path) -> None:
    """Attempt 0 reached step 9 and attempt 1 resumed from 6: the window 5..8 is halved."""
    claim(run, 0, 0)
    log(run, 0, 0, window(1, 1, 1, 1.0), window(4, 4, 3, 3.0), window(8, 8, 4, 8.0))
    claim(run, 1, 20, resume_step=6)
    log(run, 1, 0, window(22, 7, 1, 2.0), window(25, 10, 3, 3.0))
    end(run, 1, 30, "done")
    found = summary(run)
    assert found.steps == StepCounts(completed=10, replayed=2)
    # 2..4 whole: 12 images, 3 s; 5..6 of 5..8: 8 images, 4 s; 8..10: 12 images, 3 s.
    assert found.images_per_second == pytest.approx(32 / 10)
    assert found.goodput == pytest.approx((1 + 3 + 4 + 2 + 3) / 30)


def test_a_later_claim_that_goes_back_further_makes_all_before_it_replayed(run: Path) -> None:
    claim(run, 0, 0)
    log(run, 0, 0, window(1, 1, 1, 1.0), window(10, 10, 9, 9.0))
    claim(run, 1, 20, resume_step=8)
    log(run, 1, 0, window(21, 9, 1, 1.0), window(25, 12, 3, 3.0))
    claim(run, 2, 30, resume_step=4)
    log(run, 2, 0, window(31, 5, 1, 1.0))
    assert summary(run).steps == StepCounts(completed=4 + 0 + 1, replayed=6 + 4)


@pytest.mark.parametrize(
    ("resumed_from", "limits"),
    [
        ([0], [None]),
        ([0, 8, 4], [4, 4, None]),
        ([0, 4, 8], [4, 8, None]),
        ([0, None, 8], [8, 8, None]),
        ([None, None], [None, None]),
    ],
)
def test_limits_look_at_all_later_claims(
    resumed_from: list[int | None], limits: list[int | None]
) -> None:
    assert replay_limits(resumed_from) == limits


def test_each_attempts_first_window_is_left_out_of_the_throughput(run: Path) -> None:
    claim(run, 0, 0)
    log(run, 0, 0, window(60, 1, 1, 60.0), window(62, 3, 2, 2.0))
    claim(run, 1, 70, resume_step=3)
    log(run, 1, 0, window(130, 4, 1, 60.0), window(132, 6, 2, 2.0))
    assert summary(run).images_per_second == 16 / 4


def test_no_throughput_without_a_second_window(run: Path) -> None:
    claim(run, 0, 0)
    log(run, 0, 0, window(60, 1, 1, 60.0))
    claim(run, 1, 70, resume_step=1)
    assert summary(run).images_per_second is None


def test_the_pause_before_a_resume_is_no_lost_time_but_a_restarts_is(run: Path) -> None:
    claim(run, 0, 0)
    log(run, 0, 0, window(10, 1, 1, 10.0))
    end(run, 0, 10, "crash", will_restart=True)
    claim(run, 1, 20, resume_step=1)
    log(run, 1, 0, window(30, 2, 1, 10.0))
    end(run, 1, 30, "preempted", will_restart=False)
    claim(run, 2, 1030, resume_step=2)
    log(run, 2, 0, window(1040, 3, 1, 10.0))
    assert summary(run).goodput == pytest.approx(30 / 40)


def test_time_runs_to_the_last_record_of_any_kind(run: Path) -> None:
    claim(run, 0, 0)
    log(run, 0, 0, window(10, 1, 1, 10.0), {"t": 40, "kind": "stop", "reason": "x", "step": 1})
    assert summary(run).goodput == 10 / 40
    end(run, 0, 50, "crash", will_restart=True)
    assert summary(run).goodput == 10 / 50
    claim(run, 1, 80, resume_step=1)
    assert summary(run).goodput == 10 / 80
    log(run, 1, 0, {"t": 100, "kind": "power", "watts": 3})  # of an unknown kind: not read
    assert summary(run).goodput == 10 / 80


def test_a_straggler_is_slow_in_computing_not_in_waiting_for_others(run: Path) -> None:
    claim(run, 0, 0, ranks=3)
    for rank, comm in enumerate((3.0, 2.0, 0.0)):  # all take 4 s for 2 steps
        log(run, 0, rank, window(1, 1, 1, 9.0), window(5, 3, 2, 4.0, comm=comm))
    log(run, 0, 2, window(1, 1, 1, 9.0), *(window(5, 3 + 2 * n, 2, 4.0) for n in range(4)))
    scores = [rank.straggler_score for rank in summary(run).per_rank]
    # Medians over windows: (9 + 0.5) / 2, (9 + 1) / 2, and 2 of 9, 2, 2, 2, 2.
    assert scores == pytest.approx([2 / 4.75, 2 / 5, 1.0])


def test_ranks_are_those_of_the_last_attempt_that_stepped(run: Path) -> None:
    claim(run, 0, 0, ranks=3)
    log(run, 0, 0, start(1, "old"), window(2, 1, 1, 1.0))
    claim(run, 1, 10, resume_step=1, ranks=2)
    log(run, 1, 0, start(11, "n7"), window(12, 2, 1, 1.0), window(14, 4, 2, 2.0))
    log(run, 1, 1, start(11, "n8"), window(12, 2, 1, 1.0), window(13, 4, 2, 1.0))
    claim(run, 2, 20, resume_step=3, ranks=1)
    log(run, 2, 0, start(21, "n9"))
    found = summary(run, State.RUNNING)
    assert found.ranks == 2
    assert [(r.rank, r.host) for r in found.per_rank] == [(0, "n7"), (1, "n8")]
    # By their own clocks, and of the two steps only the one that counts: the rate is the same.
    assert [r.images_per_second for r in found.per_rank] == [4.0, 8.0]
    assert [entry.ranks for entry in found.attempts] == [3, 2, 1]


def test_history_has_each_epoch_once_as_it_counts(run: Path) -> None:
    claim(run, 0, 0)
    log(run, 0, 0, window(1, 1, 1, 1.0), window(9, 10, 9, 9.0), epoch(10, 1, 10, 0.5),
        window(20, 20, 10, 9.0), epoch(21, 2, 20, 0.6), window(30, 30, 10, 9.0),
        epoch(31, 3, 30, 0.9))  # fmt: skip
    claim(run, 1, 40, resume_step=20)  # epoch 2 is validated again, epoch 3 is lost
    log(run, 1, 0, epoch(41, 2, 20, 0.7), window(42, 21, 1, 1.0))
    found = summary(run)
    assert [(e.epoch, e.attempt, e.val_accuracy) for e in found.history] == [
        (1, 0, 0.5),
        (2, 1, 0.7),
    ]
    assert found.val_accuracy == 0.7
    assert found.best is not None
    assert (found.best.epoch, found.best.val_accuracy) == (2, 0.7)


def test_the_last_figures_are_the_last_that_are_known(run: Path) -> None:
    claim(run, 0, 0)
    log(run, 0, 0, epoch(1, 1, 5, 0.5), epoch(2, 2, 10, 0.4), epoch(3, 3, 15, None))
    found = summary(run)
    assert (found.val_accuracy, found.val_mean_iou) == (0.4, 0.4)
    assert found.best is not None
    assert found.best.epoch == 1


def test_the_best_of_equals_is_the_first_and_its_file_is_of_the_epochs_end(run: Path) -> None:
    claim(run, 0, 0)
    log(
        run, 0, 0,
        epoch(1, 1, 10, 0.8), checkpoint(1, 1, 10, "weights-0001-0.8000.safetensors"),
        checkpoint(2, 1, 15, "weights-0001-0.8000-step-000000015.safetensors"),
        epoch(3, 2, 20, 0.8), checkpoint(3, 2, 20, "weights-0002-0.8000.safetensors"),
    )  # fmt: skip
    best = summary(run).best
    assert best is not None
    assert (best.epoch, best.file) == (1, "weights-0001-0.8000.safetensors")


def test_the_best_file_is_known_by_its_name_when_the_event_is_lost(run: Path) -> None:
    claim(run, 0, 0)
    inside = checkpoint(2, 1, 15, "weights-0001-0.8123-step-000000015.safetensors")
    log(run, 0, 0, epoch(1, 1, 10, 0.81234), inside)
    best = summary(run).best
    assert best is not None
    assert best.file is None
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "weights-0001-0.8123.safetensors").write_bytes(b"x")
    best = summary(run).best
    assert best is not None
    assert best.file == "weights-0001-0.8123.safetensors"


def test_epochs_and_checkpoints_are_taken_from_rank_0_alone(run: Path) -> None:
    claim(run, 0, 0, ranks=2)
    log(run, 0, 0, window(1, 1, 1, 1.0))
    log(run, 0, 1, window(1, 1, 1, 1.0), epoch(1, 1, 1, 0.9))
    assert summary(run).history == []


def test_a_running_attempt_has_no_cause_yet(run: Path) -> None:
    claim(run, 0, 0)
    claim(run, 1, 10)
    found = summary(run, State.RUNNING, alive=True)
    assert [entry.cause for entry in found.attempts] == ["unknown", None]
    assert [entry.seconds for entry in found.attempts] == [0.0, 0.0]


def test_an_attempt_whose_logs_are_lost_is_told_by_its_end(run: Path) -> None:
    claim(run, 0, 0, ranks=2)
    end(run, 0, 9, "crash")
    record = run / "attempts" / "000" / "end.json"
    fields = msgspec.json.decode(record.read_bytes())
    record.write_bytes(msgspec.json.encode(fields | {"first_step": 1, "last_step": 7}))
    found = summary(run, State.FAILED)
    assert (found.attempts[0].first_step, found.attempts[0].last_step) == (1, 7)
    assert found.steps == StepCounts(completed=0, replayed=0)  # nothing was read that did them
    assert found.ranks is None


def test_nothing_at_all_is_a_summary_too(run: Path) -> None:
    run.mkdir()
    found = summary(run, State.QUEUED)
    assert found.state is State.QUEUED
    assert (found.attempts, found.goodput, found.ranks, found.missing) == ([], None, None, [])
