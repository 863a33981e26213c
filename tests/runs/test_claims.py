"""Claims: who may run, when an earlier holder is waited for, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import product
from pathlib import Path

import msgspec
import pytest

from clusterseg.errors import ClustersegError
from clusterseg.runs.claims import (
    Verdict,
    claim_next,
    is_superseded,
    judge,
    read_claims,
    read_end,
    write_end,
)
from clusterseg.runs.control import StopReason, read_stop, request_stop
from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, End
from tests.runs.claiming import QUICK, World, wanted


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    (tmp_path / "run").mkdir()
    return RunPaths(tmp_path / "run")


def end(attempt: int, cause: Cause = Cause.CRASH, *, again: bool = False) -> End:
    return End(t=time.time(), attempt=attempt, cause=cause, will_restart=again)


def claim(run: RunPaths, world: World | None = None, **who: object) -> Claim | None:
    return claim_next(run, wanted(**who), world or World(), QUICK)  # type: ignore[arg-type]


def names(run: RunPaths) -> list[str]:
    return sorted(str(path.relative_to(run.root)) for path in run.root.rglob("*"))


def test_the_first_claim(run: RunPaths) -> None:
    first = claim(run)
    assert first is not None
    assert (first.attempt, first.resume_from, first.resume_step, first.accepted) == (0, None, 0, {})
    assert first.argv == ["mpirun", "attempt-0"]
    assert read_claims(run) == [first]
    assert msgspec.json.decode(run.attempt(0).claim.read_bytes(), type=Claim) == first
    assert read_stop(run.stop_file(0)) is None
    assert run.stop_file(0).read_bytes() == b""
    assert run.attempt(0).ranks.is_dir()
    assert read_end(run, 0) is None
    assert len(first.nonce) == 32


def test_attempts_follow_each_other(run: RunPaths) -> None:
    for number in range(3):
        one = claim(run)
        assert one is not None
        assert one.attempt == number
        assert not is_superseded(run, one)
        write_end(run, end(number))
        assert read_end(run, number) == read_end(run, number)
    assert [one.attempt for one in read_claims(run)] == [0, 1, 2]
    assert is_superseded(run, read_claims(run)[1])


def test_an_end_is_written_once(run: RunPaths) -> None:
    claim(run)
    first = end(0)
    write_end(run, first)
    write_end(run, first)
    with pytest.raises(FileExistsError):
        write_end(run, end(0, Cause.DONE))
    assert read_end(run, 0) == first


# The rule, case by case: is there an end, will it restart, the same job, process, job -> verdict.
def expected(
    ended: bool, again: bool, same: bool, process: bool | None, job: bool | None
) -> Verdict:
    if process is False:
        return Verdict.FREE
    if ended and not again:
        return Verdict.FREE
    if ended and (same or job is False):
        return Verdict.FREE
    if same:
        return Verdict.FENCE
    return {True: Verdict.DUPLICATE, False: Verdict.FENCE, None: Verdict.OBSERVE}[job]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in product(
            [False, True], [False, True], [False, True], [None, True, False], [None, True, False]
        )
        if case[0] or not case[1]
    ],
)
def test_the_rule(case: tuple[bool, bool, bool, bool | None, bool | None], run: RunPaths) -> None:
    ended, again, same, process, job = case
    previous = claim(run)
    verdict = judge(
        previous,
        end(0, again=again) if ended else None,
        wanted("job-1" if same else "job-2", pid=200),
        process_lives=process,
        job_lives=job,
    )
    assert verdict is expected(*case)
    assert judge(None, None, wanted(), process_lives=None, job_lives=None) is Verdict.FREE


def test_one_own_attempt_without_an_end_is_over(run: RunPaths) -> None:
    """Its end could not be written; nobody has to be waited for."""
    claim(run)
    world = World(process=True, job=True)
    second = claim(run, world)
    assert second is not None
    assert (second.attempt, world.pauses) == (1, 0)


def test_a_duplicate_touches_nothing(run: RunPaths) -> None:
    claim(run)
    before = names(run)
    world = World(process=True, job=True)
    assert claim(run, world, job="job-2", pid=200) is None
    assert names(run) == before
    assert read_stop(run.stop_file(0)) is None
    assert world.cleaned == []
    assert "duplicate" in world.said[-1]


def test_a_dead_process_of_this_host_is_not_waited_for(run: RunPaths) -> None:
    claim(run)
    world = World(process=False)
    second = claim(run, world, job="job-2", pid=200)
    assert second is not None
    assert (second.attempt, world.pauses, world.cleaned) == (1, 0, [0])


def test_a_silent_holder_of_the_same_job_is_asked_and_waited_for(run: RunPaths) -> None:
    claim(run)
    HeartbeatWriter(run.attempt(0).heartbeat).beat()
    world = World(process=None, job=True)
    begun = time.monotonic()
    second = claim(run, world, pid=200)  # requeued: the same job id, elsewhere
    assert time.monotonic() - begun >= QUICK.grace
    assert second is not None
    request = read_stop(run.stop_file(0))
    assert request is not None
    assert request.reason == StopReason.SUPERSEDED


def test_a_zombie_that_still_beats_is_waited_for_until_it_stands_still(run: RunPaths) -> None:
    claim(run)
    writer = HeartbeatWriter(run.attempt(0).heartbeat)
    writer.beat()
    begun = time.monotonic()

    def beats_for_a_second() -> None:
        if time.monotonic() - begun < 1.0:
            writer.beat()

    world = World(process=None, job=False, on_pause=beats_for_a_second)
    second = claim(run, world, job="job-2", pid=200)
    assert second is not None
    assert time.monotonic() - begun >= 1.0 + QUICK.grace


def test_a_fenced_holder_that_writes_its_end_is_waited_for_no_longer(run: RunPaths) -> None:
    claim(run)
    writer = HeartbeatWriter(run.attempt(0).heartbeat)
    looks = []

    def ends_at_the_third_look() -> None:
        writer.beat()
        looks.append(1)
        if len(looks) == 3:
            assert read_stop(run.stop_file(0)) is not None
            write_end(run, end(0, Cause.PREEMPTED))

    world = World(process=None, job=True, on_pause=ends_at_the_third_look)
    assert claim(run, world, pid=200) is not None
    assert world.pauses == 3


def test_of_an_unknown_holder_the_heartbeat_decides(run: RunPaths) -> None:
    claim(run)
    writer = HeartbeatWriter(run.attempt(0).heartbeat)
    world = World(process=None, job=None, on_pause=writer.beat)
    assert claim(run, world, job="job-2", pid=200) is None
    assert read_stop(run.stop_file(0)) is None, "a living holder was asked to stop"
    silent = World(process=None, job=None)
    assert claim(run, silent, job="job-2", pid=200) is not None


def test_waiting_ends_with_what_the_pause_raises(run: RunPaths) -> None:
    claim(run)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        claim(run, World(on_pause=interrupted), pid=200)
    assert [one.attempt for one in read_claims(run)] == [0]


def test_a_stop_asked_for_before_the_claim_stays(run: RunPaths) -> None:
    run.control.mkdir()
    run.stop_file(0).write_bytes(b"")
    request_stop(run.stop_file(0), StopReason.CANCEL)
    claim(run)
    request = read_stop(run.stop_file(0))
    assert request is not None
    assert request.reason == StopReason.CANCEL


def test_a_damaged_claim_is_named_and_nothing_is_started(run: RunPaths) -> None:
    claim(run)
    run.attempt(0).claim.write_bytes(b'{"t": 1')
    with pytest.raises(ClustersegError, match="attempt 0"):
        claim(run)
    assert not run.attempt(1).folder.exists()


def test_a_claim_cut_short_is_taken_over(run: RunPaths) -> None:
    """Killed before link(): a folder, a stop file, a temporary file, no claim."""
    run.attempt(0).folder.mkdir(parents=True)
    (run.attempt(0).folder / ".tmp-claim.json-1-x").write_bytes(b"{")
    one = claim(run)
    assert one is not None
    assert one.attempt == 0


def test_of_many_claimers_one_wins(run: RunPaths) -> None:
    """All see the same state; the losers look again, find the winner alive, and are duplicates."""
    ready = threading.Barrier(8)
    got: list[Claim | None] = []

    def compete(number: int) -> None:
        ready.wait()
        got.append(claim(run, World(process=True, job=True), job=f"job-{number}", pid=number))

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [one for one in got if one is not None]
    assert len(winners) == 1
    assert read_claims(run) == winners


CALLS = ("openat", "mkdir", "chmod", "fchmod", "write", "fsync", "linkat", "unlink")
_SCRIPT = """
import sys
from pathlib import Path
from tests.runs.claiming import claim_once
claim_once(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_kill_at_any_system_call_leaves_a_claim_or_none(tmp_path: Path) -> None:
    """And the next claimer goes on from either: attempt 1 after a claim, 0 after none."""
    outcomes = set()
    for call in CALLS:
        for nth in range(1, 8):
            run = RunPaths(tmp_path / f"{call}-{nth}")
            run.root.mkdir()
            touched = [
                run.root,
                run.control,
                run.stop_file(0),
                run.attempts,
                run.attempt(0).folder,
                run.attempt(0).claim,
                run.attempt(0).folder / f".tmp-claim.json-1-{'00' * 8}",
                run.attempt(0).ranks,
            ]
            command = ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
            command += [part for path in touched for part in ("-P", str(path))]
            command += ["-e", f"inject={call}:signal=KILL:when={nth}"]
            process = subprocess.run(
                [*command, sys.executable, "-c", _SCRIPT, str(run.root)],
                timeout=60,
                check=False,
            )
            claims = read_claims(run)
            if process.returncode == 0:
                assert len(claims) == 1
                break
            assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
            outcomes.add(len(claims))
            following = claim_next(run, wanted(pid=200), World(process=False), QUICK)
            assert following is not None
            assert following.attempt == len(claims)
            assert run.stop_file(following.attempt).read_bytes() == b""
    assert outcomes == {0, 1}, "the sweep must meet both sides of the link"
