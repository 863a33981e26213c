"""Submitting: everything is on the disk before anything runs, and nothing runs twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clusterseg.cluster.look import look
from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.runs import files, store
from clusterseg.runs.control import StopReason
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, End, State, StopRequest
from clusterseg.runs.snapshot import Snapshot
from clusterseg.submit.request import read_request
from clusterseg.submit.resumption import (
    planned_directory,
    refuse_unless_own,
    refuse_unless_resumable,
    resume,
)
from clusterseg.submit.submission import start, submit

TEXT = """\
name: tiny
command: [echo, "it's a $(test) "]
launcher: local
resources: {ranks: 1}
environment:
  setup: ["echo ran >> ran", "exit 0"]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job.yaml whose batch script only says that it ran."""
    (tmp_path / "job.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plan(here: Path) -> Plan:
    return read_request(here / "job.yaml", ["notes=a\nb"], os.environ)


def over(run: RunPaths) -> Snapshot:
    for _ in range(400):
        snapshot = look(run)
        if snapshot.verdict.over:
            return snapshot
        time.sleep(0.05)
    raise AssertionError("the run did not end")


def times_run(here: Path) -> int:
    return (here / "ran").read_text().count("ran\n") if (here / "ran").exists() else 0


def test_what_a_submission_leaves(here: Path, plan: Plan) -> None:
    submitted = submit(plan, TEXT, ["notes=a\nb"], here / "runs", os.environ)
    run = RunPaths(submitted.run_dir)
    snapshot = over(run)
    assert times_run(here) == 1
    assert submitted.run == run.run_id
    submission = run.submission(0)
    kept = Plan.__struct_fields__
    recorded = msgspec.json.decode(submission.plan.read_bytes(), type=Plan)
    assert "{run_dir}" not in " ".join(recorded.argv)
    assert str(run.root) in recorded.argv
    assert recorded.script == submission.batch_script.read_text()
    assert recorded.spec == plan.spec
    assert "argv" in kept
    intent = store.read_intent(submission)
    assert intent is not None
    assert intent.overrides == ["notes=a\nb"]
    assert intent.key == store.read_identity(run).key
    assert store.read_job_id(submission) == submitted.job_id
    # The recorded text with the recorded overrides gives the same job again.
    again = read_request(submission.job_yaml, intent.overrides, os.environ)
    assert again.spec == plan.spec
    assert snapshot.verdict.note == "the batch script ended before it started an attempt"


def test_two_submissions_of_one_file_are_two_runs(here: Path, plan: Plan) -> None:
    first = submit(plan, TEXT, [], here / "runs", os.environ)
    second = submit(plan, TEXT, [], here / "runs", os.environ)
    assert first.run != second.run
    keys = {store.read_identity(RunPaths(one.run_dir)).key for one in (first, second)}
    assert len(keys) == 2
    for one in (first, second):
        over(RunPaths(one.run_dir))


def test_nothing_of_an_outer_attempt_reaches_the_job(here: Path) -> None:
    text = TEXT.replace("echo ran >> ran", "env > environment")
    (here / "job.yaml").write_text(text)
    plan = read_request(here / "job.yaml", (), os.environ)
    outer = {"CLUSTERSEG_RUN_DIR": "/outer", "CLUSTERSEG_ATTEMPT": "7", "KEPT": "yes"}
    submitted = submit(plan, text, [], here / "runs", dict(os.environ) | outer)
    over(RunPaths(submitted.run_dir))
    environment = (here / "environment").read_text()
    assert "KEPT=yes" in environment
    assert "/outer" not in environment
    assert "CLUSTERSEG_ATTEMPT" not in environment


def killed_client(step: int, act: Callable[[], object]) -> bool:
    """Runs `act` in a process that kills itself before its `step`-th change on disk.

    True if it was killed. What it started by then lives on.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status)
    try:
        client, count = os.getpid(), 0
        for owner, name in ((os, "fsync"), (os, "link"), (os, "fork"), (Path, "rename")):
            real = getattr(owner, name)

            def counted(*args: object, real: Callable[..., object] = real, **kw: object) -> object:
                nonlocal count
                count += os.getpid() == client
                if count == step:
                    os.kill(client, signal.SIGKILL)
                return real(*args, **kw)

            setattr(owner, name, counted)
        act()
    finally:
        os._exit(0)


@pytest.mark.parametrize("step", range(1, 41, 2))
def test_a_client_killed_at_any_step_leaves_nothing_or_a_run_to_finish(
    here: Path, plan: Plan, step: int
) -> None:
    root = here / "runs"
    killed = killed_client(step, lambda: submit(plan, TEXT, [], root, os.environ))
    found = store.find_runs(root)
    if not found:
        assert killed
        assert times_run(here) == 0
        return
    (run,) = found
    snapshot = look(run)
    if snapshot.verdict.not_started:
        refuse_unless_resumable(snapshot, changed=False)
        assert snapshot.submission is not None
        key = store.read_identity(run).key
        start(run, snapshot.submission, os.environ)
        assert len(store.iter_submissions(run)) == 1  # the same submission, the same key
        intent = store.read_intent(snapshot.submission)
        assert intent is not None
        assert intent.key == key
    over(run)
    assert times_run(here) == 1


def test_the_sweep_reaches_every_outcome(here: Path, plan: Plan) -> None:
    """Else the test above could pass without ever having met the case it is about."""
    outcomes = set()
    for step in range(1, 60):
        root = here / f"runs-{step}"
        killed = killed_client(step, lambda root=root: submit(plan, TEXT, [], root, os.environ))
        found = store.find_runs(root)
        if not found:
            outcomes.add("no run")
        elif look(found[0]).verdict.not_started:
            outcomes.add("not started")
        else:
            over(found[0])
            outcomes.add("started and killed" if killed else "started")
        if not killed:
            break
    assert outcomes >= {"no run", "not started", "started"}


def end_attempt(run: RunPaths, cause: Cause) -> None:
    """Makes the run one that had an attempt."""
    claim = Claim(
        t=1.0,
        attempt=0,
        submission=0,
        key="k",
        uid=os.getuid(),
        job_id="x",
        host="h",
        boot_id="b",
        pid=1,
        pid_start=1,
        nonce="n",
        hosts={"h": 1},
        ranks=1,
        argv=[],
    )
    files.make_private_dir(run.attempt(0).folder)
    files.commit_new(run.attempt(0).claim, msgspec.json.encode(claim))
    files.commit_new(run.attempt(0).end, msgspec.json.encode(End(t=2.0, attempt=0, cause=cause)))


def test_resume_adds_a_submission_with_a_key_of_its_own(here: Path, plan: Plan) -> None:
    run = RunPaths(submit(plan, TEXT, ["a=1"], here / "runs", os.environ).run_dir)
    over(run)
    end_attempt(run, Cause.PREEMPTED)
    # A request from before must not stop what is started now.
    files.replace(run.stop_file(1), msgspec.json.encode(StopRequest(reason=StopReason.CANCEL)))
    text = run.submission(0).job_yaml.read_text()
    resumed = resume(look(run), plan, text, ["a=1", "b=2"], os.environ)
    assert resumed.run == run.run_id
    over(run)
    assert times_run(here) == 2
    keys = [store.read_intent(submission) for submission in store.iter_submissions(run)]
    assert len({intent.key for intent in keys if intent}) == 2
    kept = run.submission(1).job_yaml.read_text()
    assert kept.count("--set") == 2
    assert kept.endswith(TEXT)
    assert run.stop_file(1).read_bytes() == b""


def test_a_done_run_is_not_resumed(here: Path, plan: Plan) -> None:
    run = RunPaths(submit(plan, TEXT, [], here / "runs", os.environ).run_dir)
    over(run)
    end_attempt(run, Cause.DONE)
    with pytest.raises(ClustersegError, match="is done") as caught:
        refuse_unless_resumable(look(run), changed=False)
    assert "clusterseg submit" in (caught.value.help or "")


def test_a_live_run_is_not_resumed(here: Path) -> None:
    text = TEXT.replace("exit 0", "sleep 30; exit 0")
    (here / "job.yaml").write_text(text)
    plan = read_request(here / "job.yaml", (), os.environ)
    run = RunPaths(submit(plan, text, [], here / "runs", os.environ).run_dir)
    try:
        with pytest.raises(ClustersegError, match="is queued") as caught:
            refuse_unless_resumable(look(run), changed=False)
        assert "clusterseg cancel" in (caught.value.help or "")
    finally:
        from clusterseg.submit.cancellation import ask_to_stop

        ask_to_stop(look(run), now=False)
    assert over(run).verdict.state is State.STOPPED


def test_anothers_run_is_left_alone(
    here: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunPaths(submit(plan, TEXT, [], here / "runs", os.environ).run_dir)
    over(run)
    refuse_unless_own(run)
    monkeypatch.setattr(os, "geteuid", lambda: run.root.stat().st_uid + 1)
    with pytest.raises(ClustersegError, match="belongs to another user"):
        refuse_unless_own(run)


def test_where_a_submission_ran_is_known_or_its_loss_is_told(here: Path, plan: Plan) -> None:
    run = RunPaths(submit(plan, TEXT, [], here / "runs", os.environ).run_dir)
    over(run)
    assert planned_directory(run.submission(0)) == here
    gone = msgspec.json.decode(run.submission(0).plan.read_bytes())
    gone["directory"] = str(here / "gone")
    run.submission(0).plan.write_bytes(msgspec.json.encode(gone))
    with pytest.raises(ClustersegError, match="is gone"):
        planned_directory(run.submission(0))


def test_without_bash_nothing_is_started(here: Path, plan: Plan) -> None:
    with pytest.raises(ClustersegError, match="no bash") as caught:
        submit(plan, TEXT, [], here / "runs", {"PATH": str(here)})
    assert caught.value.exit_code == 3
    (run,) = store.find_runs(here / "runs")
    assert look(run).verdict.not_started
