"""Exactly one effective run, on a real Slurm, whatever its programs and its controller do.

`ONCE_STORIES=500 ONCE_SEED=7 pytest tests/submit/test_exactly_once.py` plays more.
"""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from clusterseg.cluster.look import look
from clusterseg.cluster.slurm.commands import Slurm
from clusterseg.plan.model import Plan
from clusterseg.runs import store
from clusterseg.runs.claims import read_claims
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import State
from clusterseg.submit import slurm_protocol, slurm_queueing, slurm_submission
from clusterseg.submit.request import read_request
from clusterseg.submit.submission import start
from tests.devcluster import TOOL, DevCluster
from tests.submit.slurm_faults import FAULTS, Stage, Story, random_faults, until_idle

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

SEED = int(os.environ.get("ONCE_SEED", "20260101"))
STORIES = int(os.environ.get("ONCE_STORIES", "50"))

# The batch script says that it ran and ends before the supervisor: a job costs 10 ms then.
MARKING = """\
name: marked
command: ["true"]
launcher: local
resources: {{nodes: 1, ranks: 1, cpus_per_rank: 1, time: 5}}
environment: {{setup: ["echo $SLURM_JOB_ID >> {marker}", "exit 0"]}}
"""
WHOLE = """\
name: whole
command: ["true"]
launcher: local
resources: {nodes: 1, ranks: 1, cpus_per_rank: 1, time: 5}
"""
CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))


@pytest.fixture
def stage(
    slurm_cluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """A stage whose clients are as impatient as tests have to be."""
    yield set_up(slurm_cluster, tmp_path, monkeypatch)
    for job in slurm_cluster.squeue("-o", "%A"):
        slurm_cluster.run("scancel", job)


@pytest.fixture
def crashing(
    make_devcluster: Callable[..., DevCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    """A stage of its own: after a crash Slurm runs jobs again that were over, and takes long to
    see that others are."""
    stage = set_up(make_devcluster(nodes=1), tmp_path, monkeypatch)
    # Time enough for the crash: else the client would kill what makes it, half way.
    monkeypatch.setattr(slurm_submission, "Slurm", functools.partial(Slurm, patience=15))
    monkeypatch.setattr(slurm_queueing, "SHORT", 15.0)
    fault = f"{TOOL} fault --name {stage.cluster.name} controller"
    stage.crash.write_text(
        "#!/bin/bash\n"
        f"{fault} kill > /dev/null && {fault} start > /dev/null\n"
        "/usr/bin/scontrol reconfigure\n"  # else its nodes take seconds to come back
        "/usr/bin/sbatch --parsable --hold --job-name=stranger --wrap 'echo stranger'"
        ' > "$FAULTS/stranger"\n'
    )
    return stage


def set_up(cluster: DevCluster, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    for name, value in cluster.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr(slurm_protocol, "SETTLE", 0.2)
    monkeypatch.setattr(slurm_queueing, "PAUSES", (0.1, 0.2, 0.5, 1.0))
    monkeypatch.setattr(slurm_queueing, "SHORT", 0.8)
    monkeypatch.setattr(slurm_submission, "Slurm", functools.partial(Slurm, patience=0.8))
    monkeypatch.chdir(folder)
    return Stage(cluster, folder)


def marking(story: Story) -> tuple[Plan, str]:
    text = MARKING.format(marker=story.marker)
    path = story.folder / "job.yaml"
    path.write_text(text)
    return read_request(path, (), os.environ), text


def play_marked(stage: Stage, faults: Mapping[str, list[str]]) -> Story:
    story = stage.story(faults)
    return stage.play(story, *marking(story))


def judge(stage: Stage, stories: list[Story]) -> None:
    """Each story had one effective run; what else carries its key is held."""
    if any(call.endswith("late") for story in stories for call in story.calls):
        time.sleep(1.0)
    until_idle(stage.cluster)
    for story in stories:
        ran = story.marker.read_text().split() if story.marker.exists() else []
        if story.run is None:
            assert not ran, str(story)
            assert story.ends[0] in ("killed", "slurm-refused"), str(story)
            continue
        assert len(ran) == 1, f"ran {ran}: {story}"
        assert store.read_job_id(story.run.submission(0)) == ran[0], str(story)


def test_every_single_fault(stage: Stage) -> None:
    """Each fault of each program, at its first and at its second call."""
    stories = [
        play_marked(stage, {call: ["-"] * calls + [fault]})
        for call, faults in FAULTS.items()
        for fault in faults
        for calls in (0, 1)
    ]
    judge(stage, stories)
    assert {call for story in stories for call in story.injected} == {
        f"{call} {fault}" for call, faults in FAULTS.items() for fault in faults
    }


def test_random_faults(stage: Stage) -> None:
    stories = []
    for number in range(STORIES):
        chance = random.Random(f"{SEED}-{number}")
        stories.append(play_marked(stage, random_faults(chance)))
    judge(stage, stories)
    injected = sum(len(story.injected) for story in stories)
    print(f"seed {SEED}: {STORIES} submissions, {injected} faults")
    assert injected >= STORIES


def test_the_claim_is_the_last_fence(stage: Stage) -> None:
    """A held twin that a person releases finds the run claimed, and touches nothing."""
    plan = whole(stage)
    stories = [
        stage.play(stage.story({"sbatch": [fault]}), plan, WHOLE)
        for fault in ("late", "fail-after", "client-after")
    ]
    time.sleep(1.0)
    for line in stage.cluster.squeue("-t", "PD", "-o", "%A %r"):
        job, reason = line.split()
        if "JobHeld" in reason:
            stage.cluster.scontrol("release", job)
    until_idle(stage.cluster)
    for story in stories:
        judge_claims(stage, story)


COUNTING = """\
name: counting
command: [sh, -c, "echo ran >> $1; exit $2", sh, "{marker}", "3"]
launcher: local
resources: {{nodes: 1, ranks: 1, cpus_per_rank: 1, time: 5}}
restart: {{crash: 0}}
"""


def failed(stage: Stage) -> tuple[RunPaths, Path]:
    """A run that has failed for good, and the file that its program writes a line to."""
    story = stage.story({})
    marker = story.folder / "ran"
    path = story.folder / "counting.yaml"
    path.write_text(COUNTING.format(marker=marker))
    stage.play(story, read_request(path, (), os.environ), path.read_text())
    assert story.run is not None
    run = story.run
    until(lambda: look(run).verdict.over, stage.cluster)
    assert look(run).verdict.state is State.FAILED
    return run, marker


def sbatch_again(stage: Stage, run: RunPaths, submission: int) -> str:
    """A second job of a submission, as of an sbatch that was accepted much later."""
    key = store.read_intent(run.submission(submission)).key  # type: ignore[union-attr]
    script = run.submission(submission).batch_script
    twin = stage.cluster.sbatch(f"--comment=clusterseg:{key}", script, cwd=stage.folder)
    return stage.cluster.wait_until(twin)["ExitCode"]


def test_a_second_job_of_a_run_that_failed_runs_nothing(stage: Stage) -> None:
    run, marker = failed(stage)
    assert sbatch_again(stage, run, 0) == "0:0"
    assert marker.read_text() == "ran\n"
    assert [claim.attempt for claim in read_claims(run)] == [0]
    assert look(run).verdict.state is State.FAILED
    # The twin of this test: a person who has the job queued again wants it to run again.
    stage.cluster.scontrol("requeue", str(store.read_job_id(run.submission(0))))
    until(lambda: len(read_claims(run)) == 2, stage.cluster)
    until(lambda: look(run).verdict.over, stage.cluster)
    assert marker.read_text() == "ran\nran\n"


def test_a_late_job_of_an_older_submission_runs_nothing(stage: Stage) -> None:
    """Its client slept before it released it, and the run was resumed meanwhile."""
    run, marker = failed(stage)
    well = f'command=[sh, -c, "echo resumed >> {marker}"]'
    stage.cluster.run(CLUSTERSEG, "resume", run.root, "--set", well)
    until(lambda: look(run).verdict.over, stage.cluster)
    assert look(run).verdict.state is State.DONE
    assert sbatch_again(stage, run, 0) == "0:0"
    assert marker.read_text() == "ran\nresumed\n"
    assert [claim.submission for claim in read_claims(run)] == [0, 1]
    assert look(run).verdict.state is State.DONE


def test_a_controller_that_is_stopped_and_goes_on(stage: Stage) -> None:
    """Clients time out; what waited in its socket is accepted when it goes on."""
    stories = []
    for waits in (0.3, 2.0):
        story = stage.story({})
        plan, text = marking(story)
        stage.cluster.fault("controller", "stop")
        mender = subprocess.Popen(
            [
                "sh",
                "-c",
                f"sleep {waits}; exec {TOOL} fault --name {stage.cluster.name} controller cont",
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            stories.append(stage.play(story, plan, text))
        finally:
            mender.wait()
    time.sleep(1.0)  # what still waits in its socket
    judge(stage, stories)


@pytest.mark.parametrize("call", ["sbatch", "scontrol-release"])
def test_a_controller_that_crashes_after_its_answer(crashing: Stage, call: str) -> None:
    """It may lose the job, and give its id to a stranger's, which is left alone."""
    plan = whole(crashing)
    lost = 0
    for _ in range(2):
        story = crashing.play(crashing.story({call: ["crash"]}), plan, WHOLE)
        stranger = (story.folder / "faults" / "stranger").read_text().strip()
        job = crashing.cluster.job(stranger)
        assert (job["JobName"], job["JobState"]) == ("stranger", "PENDING"), str(story)
        assert job["Reason"] == "JobHeldUser"
        lost += sum(line.startswith("sbatch") for line in story.calls) - 1
        judge_claims(crashing, story)
    print(f"{lost} of 2 jobs were lost by the controller")


def test_a_job_lost_after_the_client_went_home_is_told_and_resumed(crashing: Stage) -> None:
    """No client can prevent it: the controller saves its state after it has answered."""
    plan = whole(crashing)
    ends = []
    for _ in range(2):
        story = crashing.play(crashing.story({}), plan, WHOLE)
        subprocess.run([crashing.crash], env=crashing.environ(story), check=True)
        assert story.run is not None
        run = story.run
        until(lambda run=run: is_told(run), crashing.cluster)
        ends.append(str(look(run).verdict.state))
        if look(run).verdict.state is not State.DONE:
            crashing.cluster.run(CLUSTERSEG, "resume", run.root)
        judge_claims(crashing, story)
    print(f"after the crash: {ends}")


def told(stage: Stage, run: RunPaths) -> str:
    """What `status` advises; Slurm is not asked twice within 2 s."""
    status = stage.cluster.run(CLUSTERSEG, "status", run.root)
    assert "queued" in status.stdout
    return status.stderr


def is_told(run: RunPaths) -> bool:
    verdict = look(run).verdict
    return verdict.over or verdict.not_started


def whole(stage: Stage) -> Plan:
    path = stage.folder / "job.yaml"
    path.write_text(WHOLE)
    return read_request(path, (), os.environ)


def judge_claims(stage: Stage, story: Story) -> None:
    """The run is done by its first attempt, whatever Slurm runs once more."""
    assert story.run is not None
    run = story.run
    until(lambda: look(run).verdict.over, stage.cluster)
    assert look(run).verdict.state is State.DONE, str(story)
    assert [claim.attempt for claim in read_claims(run)] == [0], str(story)


def until(condition: Callable[[], bool], cluster: DevCluster) -> None:
    for _ in range(450):
        if condition():
            return
        time.sleep(0.2)
    queue = cluster.squeue("-t", "all", "-o", "%i %j %T %r %N")
    raise AssertionError(f"never: {queue} {cluster.run('sinfo', '-N').stdout}")


# Calls of the kernel at which the client is killed: its N-th fsync, rename, new process.
KILLS = [
    *(("fsync", number) for number in (1, 4, 9, 10, 11)),
    *(("rename", number) for number in (1, 2)),
    *(("vfork,clone3,clone,fork", number) for number in (1, 2, 3, 4, 5, 6)),
]


@pytest.mark.parametrize(("calls", "number"), KILLS)
def test_a_client_killed_at_a_call_of_the_kernel(
    stage: Stage, calls: str, number: int, cli_strace: Callable[..., int]
) -> None:
    story = stage.story({})
    marking(story)
    code = cli_strace(calls, number, "submit", story.folder / "job.yaml", "--runs-dir", story.root)
    story.ends.append("done" if code == 0 else "killed")
    runs = store.find_runs(story.root)
    if runs:
        (story.run,) = runs
        start(story.run, story.run.submission(0), os.environ)  # as `resume`, whatever is there
    judge(stage, [story])


@pytest.fixture
def cli_strace(stage: Stage) -> Callable[..., int]:
    """Runs `clusterseg` so that it is killed at the N-th of some calls."""

    def run(calls: str, number: int, *arguments: object) -> int:
        done = subprocess.run(
            [
                *("strace", "-o", os.devnull, "-e", f"trace={calls}"),
                *("-e", f"inject={calls}:signal=KILL:when={number}"),
                *(CLUSTERSEG, *map(str, arguments)),
            ],
            env=dict(os.environ),
            capture_output=True,
            check=False,
        )
        return done.returncode

    return run


def test_a_killed_client_is_shown_and_resumed(stage: Stage) -> None:
    """As a person meets it: `list` and `status` tell, `resume` finishes, no second job."""
    for fault in ({"sbatch": ["client-after"]}, {"scontrol-release": ["client-before"]}):
        story = stage.story(fault)
        marking(story)
        environ = stage.environ(story)
        submitted = subprocess.run(
            [CLUSTERSEG, "submit", story.folder / "job.yaml", "--runs-dir", story.root],
            env=environ,
            capture_output=True,
            check=False,
        )
        assert submitted.returncode == -9
        (story.run,) = store.find_runs(story.root)
        hint = f"clusterseg resume {story.run.root}"
        until(lambda hint=hint, run=story.run: hint in told(stage, run), stage.cluster)
        resumed = stage.cluster.run(CLUSTERSEG, "resume", story.run.root)
        assert "resumed" in resumed.stderr
        judge(stage, [story])
        jobs = stage.cluster.squeue("-t", "all", "-o", "%j %T")
        key = store.read_identity(story.run).key[:12]
        assert len([job for job in jobs if key in job]) == 1
