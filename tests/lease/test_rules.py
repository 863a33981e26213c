"""What a claimer and a holder may do, case by case, without clocks or other processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from clusterseg.runs import checkpoints, takeover
from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.checkpoints import (
    CheckpointInfo,
    checkpoint_name,
    commit_checkpoint,
    counting_checkpoints,
    list_checkpoints,
    reject,
)
from clusterseg.runs.choice import newest_acceptable
from clusterseg.runs.claims import claim_next, may_prune, read_claims, read_end, write_end
from clusterseg.runs.control import StopReason, read_stop, request_stop
from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, CheckpointHeader, Claim, End
from clusterseg.runs.takeover import Verdict, judge
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.keep import to_delete
from tests.runs.claiming import QUICK, World, wanted


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "run")
    paths.checkpoints.mkdir(parents=True)
    return paths


def claim(run: RunPaths, world: World | None = None, pid: int = 100, **who: object) -> Claim:
    found = claim_next(run, wanted(pid=pid, **who), world or World(process=False), QUICK)  # type: ignore[arg-type]
    assert found is not None
    return found


def save(run: RunPaths, holder: Claim, step: int, content: bytes = b"12345678") -> CheckpointInfo:
    header = CheckpointHeader(
        epoch=0, step=step, step_in_epoch=step, attempt=holder.attempt, t=1.0
    )  # fmt: skip
    return commit_checkpoint(
        run.checkpoints,
        checkpoint_name(0, 0.0, step),
        header,
        [Tensor("x", "U8", (len(content),), memoryview(content))],
        accepted=holder.accepted,
    )


def an_end(attempt: int, cause: Cause = Cause.CRASH, *, again: bool = False) -> End:
    return End(t=time.time(), attempt=attempt, cause=cause, will_restart=again)


def test_who_lost_the_run_writes_no_end(run: RunPaths) -> None:
    claim(run)
    claim(run, pid=200)
    assert write_end(run, an_end(0, Cause.DONE)) is False
    assert read_end(run, 0) is None
    assert write_end(run, an_end(1, Cause.DONE)) is True


def test_who_lost_the_run_claims_no_more(run: RunPaths) -> None:
    """Neither over a living successor, nor over one that failed; nor is that one asked to stop."""
    claim(run, pid=100)
    claim(run, pid=200)
    alive = World(process=None, job=True)
    assert claim_next(run, wanted(pid=100), alive, QUICK) is None
    assert read_stop(run.stop_file(1)) is None
    write_end(run, an_end(1, again=True))
    assert claim_next(run, wanted(pid=100), alive, QUICK) is None
    assert [one.attempt for one in read_claims(run)] == [0, 1]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_two_starts_of_a_job_the_later_one_may_ask_the_earlier_to_stop(
    run: RunPaths, count: int
) -> None:
    from dataclasses import replace

    previous = claim_next(run, replace(wanted(), restart_count=1), World(), QUICK)
    verdict = judge(
        previous, None, replace(wanted(pid=200), restart_count=count),
        process_lives=None, job_lives=True,
    )  # fmt: skip
    assert verdict is (Verdict.OBSERVE if count == 0 else Verdict.FENCE)


def test_a_claimer_that_slept_looks_again_before_it_believes(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumps beyond the grace in one look, and the holder was beating all the time."""
    claim(run)
    writer = HeartbeatWriter(run.attempt(0).heartbeat)
    writer.beat()
    clock = [0.0]
    monkeypatch.setattr(takeover, "boot_clock", lambda: clock[0])
    looks = []

    def sleeps_and_the_other_beats() -> None:
        looks.append(1)
        clock[0] += 1000.0
        if len(looks) <= 5:
            writer.beat()

    claim(run, World(process=None, job=True, on_pause=sleeps_and_the_other_beats), pid=200)
    assert len(looks) >= 6


def test_a_heartbeat_that_cannot_be_read_does_not_stand_still(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(run)
    HeartbeatWriter(run.attempt(0).heartbeat).beat()
    real, bad = takeover.read_heartbeat, [8]

    def fails_now_and_then(path: Path) -> object:
        bad[0] -= 1
        if bad[0] in range(1, 6):
            raise OSError(116, "Stale file handle")
        return real(path)

    monkeypatch.setattr(takeover, "read_heartbeat", fails_now_and_then)
    assert claim(run, World(process=None, job=True), pid=200).attempt == 1
    monkeypatch.setattr(
        takeover, "read_heartbeat", lambda path: (_ for _ in ()).throw(OSError(5, "EIO"))
    )
    with pytest.raises(OSError, match="EIO"):
        claim(run, World(process=None, job=True), pid=300)
    assert len(read_claims(run)) == 2


def test_a_holder_that_wakes_while_its_checkpoints_are_verified_keeps_the_run(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterseg.runs import claims

    holder = claim(run)
    writer = HeartbeatWriter(run.attempt(0).heartbeat)
    writer.beat()
    save(run, holder, 10)
    real, times = newest_acceptable, []

    def wakes_once(*arguments: object) -> object:
        times.append(1)
        if len(times) == 1:
            writer.beat()
            save(run, holder, 20)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(claims, "newest_acceptable", wakes_once)
    following = claim(run, World(process=None, job=True), pid=200)
    assert len(times) == 2
    assert following.resume_step == 20


def test_a_persons_cancel_survives_the_attempt_that_got_it(run: RunPaths) -> None:
    """The attempt was killed before it could stop; Slurm starts the job anew."""
    claim(run)
    request_stop(run.stop_file(0), StopReason.CANCEL)
    claim(run, World(process=None, job=True), pid=200)
    for number in (0, 1):
        request = read_stop(run.stop_file(number))
        assert request is not None
        assert request.reason == StopReason.CANCEL
    resumed = claim(run, World(process=False), pid=300, submission=1)
    assert read_stop(run.stop_file(resumed.attempt)) is None, "`resume` takes it back"


def test_pruning_ends_when_the_next_one_asks(run: RunPaths) -> None:
    holder = claim(run)
    assert may_prune(run, holder)
    for ours in (StopReason.PREEMPTED, StopReason.TIME_LIMIT):
        request_stop(run.stop_file(0), ours)
        assert may_prune(run, holder), "its own supervisor's request leaves the run with it"
    request_stop(run.stop_file(0), StopReason.SUPERSEDED)
    assert not may_prune(run, holder)
    request_stop(run.stop_file(0), StopReason.CANCEL)
    claim(run, pid=200)
    assert not may_prune(run, holder)


@pytest.mark.parametrize("cancel", [StopReason.CANCEL, StopReason.CANCEL_NOW])
def test_the_next_one_asks_by_a_cancel_that_stands_there(run: RunPaths, cancel: str) -> None:
    """It leaves a person's request, so that this must keep the old holder from deleting."""
    holder = claim(run)
    request_stop(run.stop_file(0), cancel)
    claim(run, World(process=None, job=True), pid=200)
    request = read_stop(run.stop_file(0))
    assert request is not None and request.reason == cancel
    run.attempt(1).claim.unlink()  # as the old holder's host may see it, for a minute
    assert not may_prune(run, holder)


def test_a_late_file_takes_no_good_files_place(run: RunPaths) -> None:
    """Of two to keep one is the last accepted, though a lost attempt's file is newer."""
    zombie = claim(run)
    accepted = save(run, zombie, 10)
    holder = claim(run, pid=200)
    late = save(run, zombie, 15)
    own = save(run, holder, 20)
    rules = CheckpointSpec(keep_last=2, keep_best=0)
    names = frozenset({accepted.name, own.name})
    assert to_delete(counting_checkpoints(run, holder), rules, own=names) == []
    assert to_delete(list_checkpoints(run.checkpoints), rules, own=names) == [accepted.name], (
        "without the rule the accepted one would go"
    )
    choice = newest_acceptable(run, holder)
    assert set(choice.accepted) == {accepted.name, own.name}
    assert not late.path.exists()


def test_one_file_that_goes_while_all_are_listed_hides_none(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = claim(run)
    kept, pruned = save(run, holder, 10), save(run, holder, 20)
    real = os.listdir

    def goes_meanwhile(path: Path) -> list[str]:
        names = real(path)
        pruned.path.unlink(missing_ok=True)
        return names

    monkeypatch.setattr(checkpoints.os, "listdir", goes_meanwhile)
    assert [one.name for one in list_checkpoints(run.checkpoints)] == [kept.name]


def test_who_judged_another_file_puts_back_what_he_moved(run: RunPaths) -> None:
    """Paused between judging and moving; meanwhile the name is a good file's."""
    zombie = claim(run)
    judged = save(run, zombie, 10)
    judged.path.unlink()
    good = save(run, zombie, 10, b"another!")
    assert reject(judged.path, "no claim accepts it", sha256=judged.sha256) == judged.path
    assert [one.sha256 for one in list_checkpoints(run.checkpoints)] == [good.sha256]
    assert not list(run.rejected.glob("*.safetensors"))
    assert reject(good.path, "bad", sha256=good.sha256).parent == run.rejected


def test_a_holder_asks_whether_it_holds_before_the_file_gets_its_name(run: RunPaths) -> None:
    holder = claim(run)
    with pytest.raises(checkpoints.CheckpointError) as refused:
        commit_checkpoint(
            run.checkpoints,
            checkpoint_name(0, 0.0, 5),
            CheckpointHeader(epoch=0, step=5, step_in_epoch=5, attempt=0, t=1.0),
            [],
            accepted=holder.accepted,
            holds=lambda: False,
        )
    assert refused.value.code == "superseded"
    assert list(run.checkpoints.iterdir()) == []


def test_a_request_is_never_empty_while_it_is_replaced(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(run)
    request_stop(run.stop_file(0), StopReason.SUPERSEDED, deadline=12345678.9)
    seen = []
    real = os.write

    def looks(descriptor: int, data: bytes) -> int:
        seen.append(run.stop_file(0).read_bytes())
        written = real(descriptor, data)
        seen.append(run.stop_file(0).read_bytes())
        return written

    monkeypatch.setattr(os, "write", looks)
    request_stop(run.stop_file(0), StopReason.CANCEL_NOW)
    monkeypatch.undo()
    assert all(seen)
    request = read_stop(run.stop_file(0))
    assert request is not None
    assert request.reason == StopReason.CANCEL_NOW
