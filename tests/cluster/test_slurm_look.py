"""What `status` and `list` say of runs in a real Slurm, through all that can happen to it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clusterseg.cluster.look import Eyes
from clusterseg.cluster.processes import processes_with_environment
from clusterseg.cluster.slurm.commands import Slurm
from clusterseg.cluster.slurm.jobs import JobState, job_comment, job_name
from clusterseg.cluster.slurm.queue import QueueCache
from clusterseg.runs import files
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, State
from clusterseg.runs.snapshot import Snapshot
from clusterseg.runs.state import Verdict
from tests.cluster import slurm_runs
from tests.cluster.slurm_shims import Shims, queue_text
from tests.devcluster import DevCluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

SLEEP = "#!/bin/bash\nexec sleep 300\n"


class Site:
    """A cluster, and runs on it whose supervisors are played by the test."""

    def __init__(self, cluster: DevCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.environ = {**cluster.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        self._made = 0

    def submit(self, *options: str, script: str = SLEEP) -> tuple[RunPaths, str, str]:
        """A run whose job was submitted long ago; its directory, key and job id."""
        key = slurm_runs.new_key()
        self._made += 1
        name = f"--job-name={job_name('x', key)}"
        output = f"--output={self.folder}/%j.out"
        words = [name, f"--comment={job_comment(key)}", output, "--requeue", *options]
        job_id = str(self.cluster.sbatch(*words, script=script))
        run = slurm_runs.make_run(self.folder / "runs", f"x-{self._made}", key=key, job_id=job_id)
        return run, key, job_id

    def look(self, run: RunPaths) -> Snapshot:
        """By a new question."""
        QueueCache(self.environ).outdate()
        return Eyes(self.environ).look(run)

    def verdict(self, run: RunPaths) -> Verdict:
        return self.look(run).verdict

    def until(self, run: RunPaths, what: Callable[[Verdict], bool], seconds: float = 60) -> Verdict:
        """The first verdict of which this is true."""
        deadline = time.monotonic() + seconds
        while not what(verdict := self.verdict(run)):
            assert time.monotonic() < deadline, f"it stays {verdict}"
            time.sleep(0.3)
        return verdict

    def claim(self, run: RunPaths, number: int, key: str, job_id: str) -> None:
        """As a supervisor on the job's node does; it has beaten a moment ago."""
        slurm_runs.claim(run, number, key=key, job_id=job_id, t=time.time())
        slurm_runs.beat(run, number, count=1, t=time.time())


@pytest.fixture
def site(slurm_cluster: DevCluster, tmp_path: Path) -> Iterator[Site]:
    yield Site(slurm_cluster, tmp_path)


def test_held_released_running_requeued_cancelled(site: Site) -> None:
    run, key, job_id = site.submit("--hold")
    verdict = site.verdict(run)
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)
    assert verdict.note == f"job {job_id} is held in Slurm (JobHeldUser)"
    site.cluster.run("scontrol", "release", job_id)
    site.cluster.wait_until(job_id, "RUNNING")
    assert site.verdict(run) == Verdict(State.QUEUED)  # nobody has claimed it yet
    site.claim(run, 0, key, job_id)
    assert site.verdict(run) == Verdict(State.RUNNING)
    time.sleep(11)  # a claim as old as clocks may differ
    site.cluster.run("scontrol", "requeue", job_id)
    verdict = site.until(run, lambda verdict: verdict.state is State.QUEUED)
    assert not verdict.over
    site.cluster.wait_until(job_id, "RUNNING")
    assert site.verdict(run).state is State.QUEUED
    site.claim(run, 1, key, job_id)
    assert site.verdict(run) == Verdict(State.RUNNING)
    site.cluster.run("scancel", job_id)
    verdict = site.until(run, lambda verdict: verdict.over)
    assert (verdict.state, verdict.cause, verdict.exit_code) == (
        State.CANCELLED,
        Cause.CANCELLED,
        1,
    )
    assert f"Slurm says CANCELLED of job {job_id}" in (verdict.note or "")


def test_a_request_to_stop_makes_no_end_of_silence(site: Site) -> None:
    key = slurm_runs.new_key()
    run = slurm_runs.make_run(site.folder / "runs", "x-silent", key=key, job_id=None)
    files.replace(run.stop_file(0), b'{"reason": "cancel", "deadline": null}\n')
    with site.cluster.broken("controller", "stop", "cont"):
        verdict = site.verdict(run)
        assert (verdict.state, verdict.not_started) == (State.QUEUED, True)
        assert "Slurm has not answered" in (verdict.note or "")
    (site.folder / "cache" / "clusterseg").rename(site.folder / "forgotten")  # no pause for it
    assert site.verdict(run).state is State.STOPPED


def test_nodes_that_fail(site: Site) -> None:
    again, key, job_id = site.submit("--nodelist=n1")
    lost, lost_key, lost_id = site.submit("--nodelist=n2", "--no-requeue")
    for one in (job_id, lost_id):
        site.cluster.wait_until(one, "RUNNING")
    site.claim(again, 0, key, job_id)
    site.claim(lost, 0, lost_key, lost_id)
    assert site.verdict(lost) == Verdict(State.RUNNING)
    time.sleep(11)
    for node in ("n1", "n2"):
        site.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    assert site.until(again, lambda verdict: verdict.state is State.QUEUED).cause is Cause.UNKNOWN
    # It has beaten a moment ago: its node may only be out of reach.
    site.cluster.wait_until(lost_id, "NODE_FAIL")
    verdict = site.verdict(lost)
    assert verdict.state is State.RUNNING
    assert "NODE_FAIL" in (verdict.note or "")
    slurm_runs.beat(lost, 0, count=1, t=time.time() - 100)
    verdict = site.verdict(lost)
    assert (verdict.state, verdict.cause) == (State.FAILED, Cause.NODE_FAIL)


def test_a_controller_that_does_not_answer_changes_nothing(site: Site) -> None:
    run, key, job_id = site.submit()
    waiting, _, _ = site.submit("--begin=now+1hour")
    site.cluster.wait_until(job_id, "RUNNING")
    site.claim(run, 0, key, job_id)
    assert [site.verdict(each).state for each in (run, waiting)] == [State.RUNNING, State.QUEUED]
    never_seen, other_key, other_id = site.submit()
    site.cluster.wait_until(other_id, "RUNNING")
    site.claim(never_seen, 0, other_key, other_id)
    for breaking, mending in (("stop", "cont"), ("kill", "start")):
        with site.cluster.broken("controller", breaking, mending):
            for each, state in (
                (run, State.RUNNING),
                (waiting, State.QUEUED),
                (never_seen, State.RUNNING),
            ):
                verdict = site.verdict(each)
                assert (verdict.state, verdict.over) == (state, False)
                assert (verdict.note or "").startswith("Slurm has not answered for ")
        time.sleep(5)  # the pause after a failure
        site.until(run, lambda verdict: verdict == Verdict(State.RUNNING))


def test_a_munge_that_hangs_changes_nothing(site: Site) -> None:
    run, key, job_id = site.submit()
    site.cluster.wait_until(job_id, "RUNNING")
    site.claim(run, 0, key, job_id)
    with site.cluster.broken("munge", "stop", "cont"):
        began = time.monotonic()
        verdict = site.verdict(run)
        assert time.monotonic() - began < 60
        assert verdict.state is State.RUNNING
        assert (verdict.note or "").startswith("Slurm has not answered for ")


def test_an_id_that_went_to_another_job(site: Site) -> None:
    run, _, job_id = site.submit("--hold")
    site.cluster.run("scontrol", "update", f"JobId={job_id}", f"Comment={job_comment('f' * 32)}")
    verdict = site.verdict(run)
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)
    assert "does not carry this run's key" in (verdict.note or "")


def test_names_of_jobs_that_look_like_answers(site: Site) -> None:
    key = slurm_runs.new_key()
    forged = f"x\n1|RUNNING\n~{key}~ UserId=root(0) GroupId=root(0) JobState=COMPLETED"
    comment = f"--comment={job_comment(key)}"
    job_id = str(site.cluster.sbatch("--hold", f"--job-name={forged}", comment, script=SLEEP))
    slurm = Slurm(site.environ)
    (job,) = [one for one in slurm.mine() if one.id == job_id]
    assert (job.state, job.key, job.name, job.is_held) == (JobState.PENDING, key, forged, True)
    detail = slurm.show(job_id)
    assert detail is not None
    assert (detail.state, detail.key, detail.uid) == (JobState.UNKNOWN, None, None)
    assert slurm.show("99999999") is None


def test_tasks_of_an_array(site: Site) -> None:
    first, key, job_id = site.submit("--array=0-3%1")
    site.cluster.wait_until(f"{job_id}_0", "RUNNING")
    tasks = [
        slurm_runs.make_run(
            site.folder / "runs", f"task-{task}", key=key, job_id=f"{job_id}_{task}"
        )
        for task in range(4)
    ]
    site.claim(tasks[0], 0, key, f"{job_id}_0")
    assert [site.verdict(run).state for run in tasks] == [
        State.RUNNING,
        *[State.QUEUED] * 3,
    ]
    site.cluster.run("scancel", f"{job_id}_0")
    assert site.until(tasks[0], lambda verdict: verdict.over).state is State.CANCELLED
    site.cluster.run("scancel", f"{job_id}_2")
    # Of a task that waits Slurm leaves no trace (22.05): it is as if it had never been submitted.
    verdict = site.until(tasks[2], lambda verdict: verdict.not_started)
    assert verdict.note == f"Slurm does not know job {job_id}_2 (any more)"
    assert not site.verdict(tasks[1]).over
    assert not site.verdict(first).over


def test_many_watchers_are_one_question(site: Site, tmp_path: Path) -> None:
    runs = [site.submit("--hold")[0] for _ in range(5)]
    shims = Shims(tmp_path / "shims", path=site.environ["PATH"])
    environ = {**site.environ, "PATH": shims.path}
    shims.fault("squeue", "late1")

    def watch(number: int) -> set[State]:
        found = Eyes(environ).look_at(runs)
        return {one.verdict.state for one in found if isinstance(one, Snapshot)}

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(watch, range(20))) == [{State.QUEUED}] * 20
    assert shims.calls("squeue") == 1


def test_nothing_of_ours_stays_on_the_login_node(site: Site) -> None:
    job = site.folder / "job.yaml"
    job.write_text(
        "name: stays\ncommand: [sleep, '60']\nscheduler: slurm\nlauncher: local\n"
        "resources: {ranks: 1, time: 0:05:00}\nslurm: {extra: ['--begin=now+1hour']}\n"
    )
    mark = {"WHO_STAYS": str(site.folder)}
    site.cluster.run(
        *("clusterseg", "submit", job, "--runs-dir", site.folder / "submitted"), env=mark
    )
    assert processes_with_environment(mark) == []
    assert len(site.cluster.squeue()) == 1


def test_accounts_of_jobs_that_slurm_has_forgotten(
    make_devcluster: Callable[..., DevCluster], tmp_path: Path
) -> None:
    site = Site(make_devcluster(nodes=1, accounting=True), tmp_path)
    failed, key, failed_id = site.submit(script="#!/bin/bash\nexit 3\n")
    cancelled, _, cancelled_id = site.submit("--hold")
    site.cluster.run("scancel", cancelled_id)
    site.claim(failed, 0, key, failed_id)
    for job_id in (failed_id, cancelled_id):  # at first the database calls it "allocation"
        while not site.cluster.run(
            *("sacct", "-n", "-X", "-P", "-o", "JobName,End", "-j", job_id)
        ).stdout.startswith("x.") or site.cluster.job(job_id)["JobState"] in ("PENDING", "RUNNING"):
            time.sleep(0.5)
    # Slurm forgets once a minute what is over for MinJobAge; here it has forgotten at once.
    shims = Shims(tmp_path / "shims", path=site.environ["PATH"])
    shims.record("squeue", queue_text())
    site.environ["PATH"] = shims.path
    verdict = site.until(failed, lambda verdict: verdict.over)
    assert (verdict.state, verdict.cause) == (State.FAILED, Cause.UNKNOWN)
    assert f"Slurm says FAILED of job {failed_id}" in (verdict.note or "")
    verdict = site.until(cancelled, lambda verdict: verdict.over)
    assert (verdict.state, verdict.cause) == (State.CANCELLED, Cause.CANCELLED)
    assert shims.calls("sacct") <= 6
    with site.cluster.broken("accounting", "stop", "cont"):
        site.environ["XDG_CACHE_HOME"] = str(tmp_path / "nothing-remembered")
        verdict = site.verdict(failed)
        assert verdict.state is State.RUNNING
        assert "Slurm does not know job" in (verdict.note or "")


def test_logs_and_wait_stay_with_a_run_from_before_its_start_over_a_requeue(
    site: Site, tmp_path: Path
) -> None:
    shims = Shims(tmp_path / "shims", path=site.environ["PATH"])
    environ = {**site.environ, "PATH": shims.path}
    job, runs = site.folder / "job.yaml", site.folder / "submitted"
    wait_or_end = "echo attempt $CLUSTERSEG_ATTEMPT; [ $CLUSTERSEG_ATTEMPT != 0 ] || sleep 300"
    job.write_text(
        f"name: again\ncommand: [bash, -c, '{wait_or_end}']\nscheduler: slurm\nlauncher: local\n"
        "resources: {ranks: 1, cpus_per_rank: 1, time: 0:05:00}\n"
        "environment: {setup: ['echo setting up', 'sleep 3']}\n"
        "slurm: {extra: ['--begin=now+2']}\n"
    )
    said = site.cluster.run("clusterseg", "submit", job, "--json", "--runs-dir", runs, env=environ)
    submitted = json.loads(said.stdout)
    run = RunPaths(Path(submitted["run_dir"]))
    programs = [
        subprocess.Popen(
            ["clusterseg", *words, str(run.root)], env=environ, stdout=subprocess.PIPE, text=True
        )
        for words in (("logs", "-f"), ("wait",))
    ]
    try:
        deadline = time.monotonic() + 60
        while b"attempt 0" not in (
            run.attempt(0).log(0).read_bytes() if run.attempt(0).log(0).exists() else b""
        ):
            assert time.monotonic() < deadline, run.submission(0).output.read_text()
            time.sleep(0.2)
        site.cluster.run("scontrol", "requeue", submitted["job_id"])
        logs, waited = (program.communicate(timeout=120)[0] for program in programs)
    finally:
        for program in programs:
            program.kill()
    assert programs[1].returncode == 0, waited
    lines = logs.splitlines()
    assert "[batch script] setting up" in lines
    assert any("attempt 0" in line for line in lines)
    assert any(line.endswith("attempt 1") for line in lines)
    # Two programs for half a minute or more, once a second: the queue was asked a few times.
    assert shims.calls("squeue") <= 8
