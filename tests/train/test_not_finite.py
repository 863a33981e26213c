"""A step that is not finite: skipped, left out after a rollback, or the end; and always told."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterseg.errors import ClustersegError
from clusterseg.runs.attempts import iter_attempts
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.eventlog import EventWriter, iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, NotFinite, RankEnd
from clusterseg.supervise.watch import Watch
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.failures import TrainingError
from clusterseg.train.not_finite import MOST_IN_A_ROW, OnNan, decide, left_out
from clusterseg.train.progress import Progress
from clusterseg.train.state import generator_seeds
from clusterseg.train.watchdog import LIMITS, Pace
from tests.train.attempts import Attempts, StopAt
from tests.train.runs import BIN, Run, job

STEPS = 27  # 3 epochs of 9
BATCH = 4


def test_what_follows_is_what_was_asked_for() -> None:
    for policy in ("stop", "rollback"):
        assert decide(policy, 7, []) == policy
    assert decide("skip", 7, []) is decide("skip", 7, [3, 6]) is OnNan.SKIP


def test_so_many_in_a_row_are_no_accident() -> None:
    row = list(range(20, 20 + MOST_IN_A_ROW))
    assert decide("skip", row[-1] + 1, row) is OnNan.STOP
    assert decide("skip", row[-1] + 1, row[1:]) is OnNan.SKIP
    assert decide("skip", row[-1] + 2, row) is OnNan.SKIP  # one between them was good
    assert decide("skip", row[-1], row[:-1]) is OnNan.SKIP


def poison(step: Callable[..., Any], steps: set[int], rank: int = 0) -> Callable[..., Any]:
    """A train step whose pictures are NaN at some steps, known by their seeds."""

    def poisoned(images: Any, labels: Any, *, seeds: Any, **others: Any) -> Any:
        for bad in steps:
            if np.array_equal(seeds, generator_seeds(0, bad - 1, rank * BATCH, len(seeds))):
                images = images * float("nan")
        return step(images, labels, seeds=seeds, **others)

    return poisoned


def overflow(assembly: Any, bad: int) -> Callable[..., Any]:
    """A train step that is finite and leaves a weight that is not, at one step."""

    def overflowing(images: Any, labels: Any, *, seeds: Any, **others: Any) -> Any:
        outcome = assembly.train_step(images, labels, seeds=seeds, **others)
        if np.array_equal(seeds, generator_seeds(0, bad - 1, 0, len(seeds))):
            weight = assembly.state.trainable[0]
            weight.assign(np.full(weight.shape, np.inf, np.float32))
        return outcome

    return overflowing


@pytest.fixture(scope="module")
def fresh(assembly) -> dict[str, Any]:
    return {name: np.array(one.numpy()) for name, one in assembly.state.variables.items()}


@pytest.fixture
def attempts(data: Path, assembly, fresh, tmp_path: Path) -> Callable[..., Attempts]:
    def make(
        name: str,
        on_nan: str = "stop",
        steps: set[int] = frozenset(),  # type: ignore[assignment]
        overflows: int = 0,
    ) -> Attempts:
        spec = job(data, on_nan=on_nan)
        spec["checkpoint"] = {"every": {"steps": 3}, "keep_last": 2}
        step = overflow(assembly, overflows) if overflows else assembly.train_step
        poisoned = replace(assembly, train_step=poison(step, steps))
        return Attempts(Run(tmp_path / name, spec), poisoned, fresh)

    return make


def told(run: Attempts) -> list[tuple[int, str, str]]:
    return [
        (one.step, one.what, one.action) for one in run.run.events() if isinstance(one, NotFinite)
    ]


def newest(run: Attempts) -> Any:
    return list_checkpoints(run.run.paths.checkpoints)[-1].header


@pytest.mark.slow
def test_skipped_stopped_and_rolled_back_all_end_as_if_the_step_had_been_left_out(
    attempts,
) -> None:
    clean = attempts("clean")
    assert clean.attempt(left_out=frozenset({7, 8})) is None
    assert clean.steps(0) == list(range(1, STEPS + 1))
    assert newest(clean).skipped == [7, 8] and told(clean) == []
    undisturbed = attempts("undisturbed")
    assert undisturbed.attempt() is None
    assert undisturbed.final() != clean.final()

    skips = attempts("skips", "skip", {7, 8})
    assert skips.attempt(StopAt(8)) == "SIGUSR1"  # after the step 8, which was skipped
    assert told(skips) == [(7, "loss", "skip"), (8, "loss", "skip")]
    assert (newest(skips).step, newest(skips).skipped) == (8, [7, 8])
    assert skips.attempt() is None
    assert skips.steps(0) + skips.steps(1) == list(range(1, STEPS + 1))
    assert skips.final() == clean.final()
    assert newest(skips).skipped == [7, 8]

    back = attempts("back", "rollback", {7, 8})
    for number, bad in enumerate((7, 8)):
        with pytest.raises(
            TrainingError, match=rf"^nan: .* step {bad} .*back to the last"
        ) as error:
            back.attempt(left_out=leaves_out(back))
        assert error.value.agreed
        assert told(back) == [(bad, "loss", "rollback")]
        assert newest(back).step == 6 and back.run.attempt == number  # never over a good one
    assert leaves_out(back) == {7, 8}
    assert back.attempt(left_out=leaves_out(back)) is None
    assert back.steps(2) == list(range(7, STEPS + 1))
    assert back.final() == clean.final()


def test_events_that_cannot_be_read_end_no_rank_though_the_log_is_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 alone would end, while the others wait for what it has to tell them."""

    def unreadable(run: RunPaths) -> Any:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    claim = Run(tmp_path / "run", job(tmp_path)).claim()
    monkeypatch.setattr("clusterseg.train.not_finite.iter_attempts", unreadable)
    found = None
    with (
        suppress(OSError),  # as it is closed
        Path("/dev/full").open("w", buffering=1) as full,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stderr", full)
        found = left_out(RunPaths(tmp_path / "run"), claim, SoloCommunicator())
    assert found == frozenset()


@pytest.mark.slow
def test_the_first_step_that_is_trained_may_compile_whatever_was_left_out_before_it(
    attempts, tmp_path: Path
) -> None:
    run = attempts("leads")
    assert run.attempt(StopAt(3), left_out=frozenset({1, 2})) == "SIGUSR1"
    (first,) = run.run.windows(attempt=0)
    assert (first.step, first.count, first.images) == (3, 3, BATCH)

    # Left out up to a save, at which a window ends.
    run = attempts("saves")
    assert run.attempt(StopAt(4), left_out=frozenset({1, 2, 3})) == "SIGUSR1"
    assert [(one.step, one.images) for one in run.run.windows(attempt=0)] == [(3, 0), (4, BATCH)]
    events = run.run.events()
    leading = events[: events.index(run.run.windows(attempt=0)[1])]
    pace = Pace(LIMITS)
    with EventWriter(tmp_path / "00000.jsonl") as writer:
        for event in leading:
            pace.note(event)
            writer.write(event)
    assert pace.allowed() == LIMITS.startup
    seen = RunPaths(tmp_path / "seen").attempt(0)
    seen.ranks.mkdir(parents=True)
    (tmp_path / "00000.jsonl").rename(seen.events(0))
    watch = Watch(seen, 1, begun=0.0)
    watch.look(0.0)
    assert watch.ranks[0].step == 3 and watch.ranks[0].starting


def leaves_out(run: Attempts) -> frozenset[int]:
    """What the next attempt does: its claim is as the last one's, one later."""
    if not run.run.claims:
        return frozenset()
    from msgspec.structs import replace as changed

    claim = changed(run.run.claims[-1], attempt=run.run.attempt + 1)
    other = changed(claim, submission=1)
    assert left_out(run.run.paths, other, SoloCommunicator()) == frozenset()
    return left_out(run.run.paths, claim, SoloCommunicator())


@pytest.mark.slow
def test_ranks_that_stop_at_such_a_step_stop_before_it_and_roll_back_the_next_time(
    attempts,
) -> None:
    run = attempts("asked", "rollback", {8})
    assert run.attempt(StopAt(8)) == "SIGUSR1"
    assert newest(run).step == 7 and run.steps(0) == list(range(1, 8)) and told(run) == []
    with pytest.raises(TrainingError, match=r"^nan: .* step 8 .*back to the last"):
        run.attempt()
    assert told(run) == [(8, "loss", "rollback")]
    assert run.attempt(left_out=leaves_out(run)) is None
    assert newest(run).skipped == [8]

    # Where nothing comes after it, it is told and ends, asked for or not.
    ends = attempts("ends", "stop", {8})
    with pytest.raises(TrainingError, match=r"^nan: the loss of step 8 is not finite$"):
        ends.attempt(StopAt(8))


@pytest.mark.slow
def test_the_step_that_left_infinite_weights_is_left_out_not_the_one_that_met_them(
    attempts,
) -> None:
    back = attempts("overflows", "rollback", overflows=7)
    with pytest.raises(TrainingError, match=r"^nan: model/.* after step 7: back to") as error:
        back.attempt()
    assert error.value.agreed
    assert told(back) == [(7, "weights", "rollback")] and leaves_out(back) == {7}
    assert back.attempt(left_out=leaves_out(back)) is None
    assert newest(back).skipped == [7]

    # Found as they are saved, before a further step.
    saves = attempts("saves it", "rollback", overflows=7)
    with pytest.raises(TrainingError, match=r"^nan: .* after step 7"):
        saves.attempt(StopAt(7))
    assert told(saves) == [(7, "weights", "rollback")] and leaves_out(saves) == {7}

    # Skipping can't mend them: it would skip all that follows, until it stops for another reason.
    skips = attempts("skips it", "skip", overflows=7)
    with pytest.raises(TrainingError, match=r"^nan: model/.* is not finite after step 7$"):
        skips.attempt()
    assert told(skips) == [(7, "weights", "stop")] and newest(skips).step == 6


@pytest.mark.slow
def test_it_stops_by_default_and_so_does_a_row_of_skipped_steps(attempts, monkeypatch) -> None:
    stops = attempts("stops", "stop", {7})
    with pytest.raises(TrainingError, match=r"^nan: the loss of step 7 is not finite$") as error:
        stops.attempt()
    assert isinstance(error.value, ClustersegError) and error.value.agreed
    assert told(stops) == [(7, "loss", "stop")] and newest(stops).step == 6
    assert stops.steps(0) == list(range(1, 7))

    # Those of the window that was open are told as well: the last save was after the step 6.
    later = attempts("later", "stop", {9})
    with pytest.raises(TrainingError, match=r"^nan: the loss of step 9 is not finite$"):
        later.attempt()
    assert later.steps(0) == list(range(1, 9))

    bad = set(range(5, 5 + MOST_IN_A_ROW + 1))
    row = attempts("row", "skip", bad)
    assert row.attempt(StopAt(10)) == "SIGUSR1"
    with pytest.raises(TrainingError, match=f"step {max(bad)} is not finite$"):
        row.attempt()  # the row goes on over the resume
    assert told(row)[-1][2] == "stop"

    # The negative twin: a header that forgets them begins the row anew.
    again = attempts("again", "skip", bad)
    assert again.attempt(StopAt(10)) == "SIGUSR1"
    original = Progress.from_header.__func__  # type: ignore[attr-defined]

    def forgetful(cls: type[Progress], header: Any) -> Progress:
        return replace(original(cls, header), skipped=[])

    monkeypatch.setattr(Progress, "from_header", classmethod(forgetful))
    assert again.attempt() is None


POISON = """
import os
if "CLUSTERSEG_STOP_FILE" in os.environ:
    import clusterseg.train.rank as rank
    prepare = rank._prepare

    def poisoned(job, *others, **named):
        from dataclasses import replace
        from tests.train.test_not_finite import poison
        loop = prepare(job, *others, **named)
        if job.place.rank == 1:
            step = poison(loop._assembly.train_step, {7}, rank=1)
            loop._assembly = replace(loop._assembly, train_step=step)
        return loop

    rank._prepare = poisoned
"""


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nan_on_one_of_two_ranks_is_rolled_back_by_the_supervisor(
    data: Path, tmp_path: Path
) -> None:
    """The real way: submitted, supervised, over MPI; rank 1's pictures of step 7 are NaN."""
    (tmp_path / "sitecustomize.py").write_text(POISON)
    top = Path(__file__).resolve().parents[2]
    spec = job(data, on_nan="rollback", epochs=2, communicator="mpi")
    spec["train"]["model"] = {"name": "fastscnn", "width": 0.25}
    spec |= {
        "checkpoint": {"every": "3 steps"},
        "scheduler": "local",
        "resources": {"ranks": 2},
        "placement": {"bind_to": "none", "oversubscribe": True},
        "environment": {"variables": {"PYTHONPATH": f"{tmp_path}:{top}", "OMP_NUM_THREADS": "1"}},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    argv = [str(BIN / "clusterseg"), "submit", "job.yaml", "--wait", "--json"]
    done = subprocess.run(
        [*argv, "--runs-dir", "runs"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    (folder,) = (tmp_path / "runs").glob("test-*")
    run = RunPaths(folder)
    first, second = iter_attempts(run)
    assert first.end is not None and second.end is not None and second.claim is not None
    assert [first.end.cause, second.end.cause] == [Cause.NAN, Cause.DONE], first.end.error
    assert done.returncode == 0 and first.end.will_restart
    assert (first.end.last_step, second.claim.resume_step) == (6, 6)
    events = {
        (attempt.number, rank): list(iter_events(stream))
        for attempt in (first, second)
        for rank, stream in attempt.events()
    }
    for rank in (0, 1):  # both met it in the same step
        end = events[0, rank][-1]
        assert isinstance(end, RankEnd) and (end.step, end.status) == (6, "failed")
    found = [one for one in events[0, 0] if isinstance(one, NotFinite)]
    assert [(one.step, one.action) for one in found] == [(7, "rollback")]
    header = list_checkpoints(run.checkpoints)[-1].header
    assert (header.step, header.skipped) == (10, [7])


ASK = """
import os
if "CLUSTERSEG_STOP_FILE" in os.environ:
    from pathlib import Path
    import clusterseg.train.rank as rank
    from clusterseg.runs.control import request_stop
    prepare = rank._prepare

    def asked(job, *others, **named):
        from dataclasses import replace
        from tests.train.test_not_finite import poison
        loop = prepare(job, *others, **named)
        step = poison(loop._assembly.train_step, {2})

        def late(*batch, **values):
            if loop.progress.step == 1:
                request_stop(Path(os.environ["CLUSTERSEG_STOP_FILE"]), "preempted")
            return step(*batch, **values)

        loop._assembly = replace(loop._assembly, train_step=late)
        return loop

    rank._prepare = asked
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stop_that_ranks_have_not_seen_as_they_meet_nan_is_why_the_run_stopped(
    data: Path, tmp_path: Path
) -> None:
    """Asked for after the ranks looked, so that they end for the step that is not finite."""
    (tmp_path / "sitecustomize.py").write_text(ASK)
    top = Path(__file__).resolve().parents[2]
    spec = job(data, on_nan="rollback", epochs=1) | {
        "checkpoint": {"every": "3 steps"},
        "scheduler": "local",
        "resources": {"ranks": 1},
        "environment": {"variables": {"PYTHONPATH": f"{tmp_path}:{top}", "OMP_NUM_THREADS": "1"}},
    }
    spec["train"]["model"] = {"name": "fastscnn", "width": 0.25}
    (tmp_path / "job.yaml").write_text(json.dumps(spec))
    argv = [str(BIN / "clusterseg"), "submit", "job.yaml", "--wait", "--runs-dir", "runs"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stdout + done.stderr
    (folder,) = (tmp_path / "runs").glob("test-*")
    (only,) = iter_attempts(RunPaths(folder))
    (events,) = (list(iter_events(stream)) for rank, stream in only.events())
    assert [one.action for one in events if isinstance(one, NotFinite)] == ["rollback"]
    assert only.end is not None and only.end.cause is Cause.PREEMPTED, only.end
    assert only.end.failed_rank is None and "step 2 is not finite" in str(only.end.error)
