"""Looking at a run while it changes: "dead" is only believed with the records written since."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from clusterseg.runs import files
from clusterseg.runs.control import StopReason, request_stop
from clusterseg.runs.making import SubmissionFiles, add_submission, create_run
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, End, Identity, Intent, State
from clusterseg.runs.snapshot import JobKey, NobodyKnows, Sight, take
from clusterseg.runs.state import Life


def intent(number: int) -> Intent:
    return Intent(t=1.0, key="k", submission=number, scheduler="local", host="n1", uid=os.getuid())


def submit(run: RunPaths, number: int, *, started: bool = True) -> None:
    submission = SubmissionFiles("name: x\n", b"{}", "", intent(number))
    if number == 0:
        create_run(run, Identity(key="k", uid=os.getuid(), name="x", created=1.0), submission)
    else:
        add_submission(run, submission)
    if started:
        files.commit_new(run.submission(number).job_id, b"local-n1-1-1\n")


def claim(run: RunPaths, number: int, submission: int = 0) -> None:
    record = Claim(
        t=2.0,
        attempt=number,
        submission=submission,
        key="k",
        uid=os.getuid(),
        job_id="local-n1-1-1",
        host="n1",
        boot_id="b",
        pid=1,
        pid_start=1,
        nonce="n",
        hosts={"n1": 1},
        ranks=1,
        argv=[],
    )
    files.make_private_dir(run.attempt(number).folder)
    files.make_empty(run.stop_file(number))
    files.commit_new(run.attempt(number).claim, msgspec.json.encode(record))


def end(run: RunPaths, number: int, cause: Cause, *, will_restart: bool = False) -> None:
    record = End(t=3.0, attempt=number, cause=cause, will_restart=will_restart)
    files.commit_new(run.attempt(number).end, msgspec.json.encode(record))


class Lives:
    """Answers as told; runs `meanwhile` once, when it is first asked."""

    def __init__(self, job: Life = Life.DEAD, holder: Life = Life.DEAD) -> None:
        self.answers = (job, holder)
        self.asked = 0
        self.meanwhile = lambda: None

    def expect(self, jobs: Iterable[JobKey]) -> None:
        self.expected = list(jobs)

    def job(self, run: RunPaths, job: JobKey) -> Sight:
        self._ask()
        return Sight(self.answers[0])

    def holder(self, run: RunPaths, claim: Claim) -> Sight:
        self._ask()
        return Sight(self.answers[1])

    def _ask(self) -> None:
        self.asked += 1
        if self.asked == 1:
            self.meanwhile()


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "x-1")
    submit(paths, 0)
    return paths


def test_an_end_written_while_the_holder_is_looked_up_counts(run: RunPaths) -> None:
    claim(run, 0)
    lives = Lives()
    lives.meanwhile = lambda: end(run, 0, Cause.DONE)
    assert take(run, lives).verdict.state is State.DONE


def test_a_claim_written_while_the_job_is_looked_up_counts(run: RunPaths) -> None:
    lives = Lives(job=Life.DEAD, holder=Life.ALIVE)
    lives.meanwhile = lambda: claim(run, 0)
    assert take(run, lives).verdict.state is State.RUNNING


def test_a_restart_written_while_the_holder_is_looked_up_counts(run: RunPaths) -> None:
    claim(run, 0)
    end(run, 0, Cause.CRASH, will_restart=True)
    lives = Lives()

    def restart_and_finish() -> None:
        claim(run, 1)
        end(run, 1, Cause.DONE)

    lives.meanwhile = restart_and_finish
    snapshot = take(run, lives)
    assert snapshot.verdict.state is State.DONE
    assert snapshot.attempt is not None
    assert snapshot.attempt.number == 1


def test_a_submission_added_meanwhile_counts(run: RunPaths) -> None:
    claim(run, 0)
    lives = Lives()
    lives.meanwhile = lambda: submit(run, 1, started=False)
    verdict = take(run, lives).verdict
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)


def test_a_run_that_is_over_asks_nobody(run: RunPaths) -> None:
    claim(run, 0)
    end(run, 0, Cause.PREEMPTED)
    lives = Lives()
    assert take(run, lives).verdict.state is State.STOPPED
    assert lives.asked == 0


def test_a_resumed_run_is_queued_again(run: RunPaths) -> None:
    claim(run, 0)
    end(run, 0, Cause.PREEMPTED)
    submit(run, 1)
    assert take(run, Lives(job=Life.ALIVE)).verdict.state is State.QUEUED


def test_without_a_witness_nothing_is_dead(run: RunPaths) -> None:
    assert take(run, NobodyKnows()).verdict.state is State.QUEUED
    claim(run, 0)
    assert take(run, NobodyKnows()).verdict.state is State.RUNNING


def test_cancel_now_of_a_killed_supervisor_is_told_from_a_failure(run: RunPaths) -> None:
    claim(run, 0)
    assert take(run, Lives()).verdict.state is State.FAILED
    request_stop(run.stop_file(0), StopReason.CANCEL_NOW)
    assert take(run, Lives()).verdict.state is State.CANCELLED


def test_a_damaged_claim_is_judged_by_its_job(run: RunPaths) -> None:
    claim(run, 0)
    run.attempt(0).claim.write_bytes(b"{")
    assert take(run, Lives(job=Life.ALIVE)).verdict.state is State.RUNNING
    assert take(run, Lives(job=Life.DEAD)).verdict.state is State.FAILED


def test_a_run_without_submissions_is_not_started(run: RunPaths) -> None:
    run.submissions.rename(run.root / "gone")
    verdict = take(run, Lives()).verdict
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)
