"""Fan-out over a real Slurm without accounting, and how its jobs' fate is judged."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.cluster.fanout import Progress, Task, fan_out
from clusterseg.cluster.fanout_slurm import SlurmJobs, Watch
from clusterseg.cluster.slurm.commands import SlurmMissing, SlurmRefused
from clusterseg.cluster.slurm.jobs import JobFacts, JobState
from clusterseg.errors import ClustersegError
from clusterseg.runs.paths import RunPaths
from tests.devcluster import DevCluster

TOP = Path(__file__).resolve().parents[2]
TASKS = "tests.cluster.fanout_tasks"
OPTIONS = {"partition": "low", "cpus-per-task": "2", "time": "5"}


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    folder = tmp_path / "it's a run"
    folder.mkdir(mode=0o700)
    return RunPaths(folder)


@pytest.fixture
def cluster(slurm_cluster: DevCluster, monkeypatch: pytest.MonkeyPatch) -> DevCluster:
    """This process is on the login node, in a shell that a job of other wishes left behind."""
    for name, value in slurm_cluster.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(TOP))
    monkeypatch.setenv("SLURM_CPU_BIND", "mask_cpu:0x1")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-99")
    monkeypatch.setenv("SBATCH_PARTITION", "nonsense")
    return slurm_cluster


@pytest.mark.slow
@pytest.mark.slurm
def test_an_array_gets_what_was_asked_for_and_nothing_of_an_outer_job(
    run: RunPaths, cluster: DevCluster
) -> None:
    jobs = SlurmJobs("fan", OPTIONS, setup=["export FANOUT_SETUP='a b'"])
    done = fan_out(run, f"{TASKS}:environment", [Task(name="t")] * 3, jobs)
    assert done.failures == ()
    assert list(run.root.iterdir()) == []
    assert len({value["SLURM_ARRAY_JOB_ID"] for value in done.values}) == 1
    assert [value["SLURM_ARRAY_TASK_ID"] for value in done.values] == ["0", "1", "2"]
    for value in done.values:
        assert value["SLURM_JOB_PARTITION"] == "low"
        assert value["cpus"] == 2
        assert value["SLURM_CONF"] == str(cluster.slurm_conf)
        assert value["FANOUT_SETUP"] == "a b"
        assert "SLURM_CPU_BIND" not in value
    assert os.environ["SLURM_CPU_BIND"] == "mask_cpu:0x1"  # ours is as it was


@pytest.mark.slow
@pytest.mark.slurm
def test_failed_and_killed_jobs_are_tried_once_more_and_then_named(
    run: RunPaths, cluster: DevCluster, tmp_path: Path
) -> None:
    how = ("good", "raise once", "die once", "raise", "die")
    tasks = [
        Task(name=f"no. {n}", arguments={"n": n, "how": one, "marks": str(tmp_path)})
        for n, one in enumerate(how)
    ]
    done = fan_out(run, f"{TASKS}:behave", tasks, SlurmJobs("fan", OPTIONS, grace=2))
    assert done.values == (0, 1, 2, None, None)
    raised, died = done.failures
    assert (raised.error, raised.tries) == ("ValueError: task 3 is no good", 2)
    assert (died.number, died.tries) == (4, 2)
    assert died.error.startswith("no result: ")
    assert any("task 4 is about to die" in line for line in died.last_lines)
    assert done.folder is not None and Path(done.folder).parent == run.fanout


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_that_was_cancelled_is_told_by_that(run: RunPaths, cluster: DevCluster) -> None:
    jobs = SlurmJobs("fan", OPTIONS, grace=2)
    done = fan_out(run, f"{TASKS}:cancel_itself", [Task(name="t")], jobs)
    assert done.failures[0].error == "no result: cancelled in Slurm"


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_that_slurm_queues_again_is_waited_for(run: RunPaths, cluster: DevCluster) -> None:
    jobs = SlurmJobs("fan", OPTIONS, grace=2)
    done = fan_out(run, f"{TASKS}:requeue_itself", [Task(name="t")] * 2, jobs)
    assert done.values == ({"restarts": "1"},) * 2


@pytest.mark.slow
@pytest.mark.slurm
def test_jobs_whose_comments_the_site_rewrites_are_still_ours(
    run: RunPaths, cluster: DevCluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    task = Task(name="t", arguments={"file": str(go)})
    numbers: set[str] = set()

    def begun(_: Progress) -> None:
        if not numbers:
            cluster.wait_until(cluster.squeue("-o", "%A")[0], "RUNNING")
            numbers.update(cluster.squeue("-r", "-o", "%A"))
            for number in numbers:
                cluster.scontrol("update", f"JobId={number}", "Comment=site")
            threading.Timer(12, go.touch).start()

    done = fan_out(
        run, f"{TASKS}:wait_for", [task] * 2, SlurmJobs("fan", OPTIONS, grace=0), progress=begun
    )
    assert done.values == ("seen", "seen")
    first = min(map(int, numbers))
    later = {one for one in cluster.squeue("-r", "-t", "all", "-o", "%A") if int(one) >= first}
    assert later == numbers  # there was no second try


@pytest.mark.slow
@pytest.mark.slurm
def test_results_are_found_while_the_controller_is_silent(
    run: RunPaths, cluster: DevCluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    task = Task(name="t", arguments={"file": str(go)})
    jobs = SlurmJobs("fan", OPTIONS, grace=0)
    silent: list[str] = []

    def begun(_: Progress) -> None:
        # Once the tasks run; the answers that are missed from now on end no job.
        deadline = time.monotonic() + 60
        while not silent and len(list(run.fanout.glob("*/results/*.begun"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if not silent:
            cluster.fault("controller", "stop")
            silent.append("yes")
            threading.Timer(8, go.touch).start()

    try:
        done = fan_out(run, f"{TASKS}:wait_for", [task] * 2, jobs, progress=begun)
    finally:
        cluster.fault("controller", "cont")
    assert done.values == ("seen", "seen")


@pytest.mark.slow
@pytest.mark.slurm
def test_interrupted_it_cancels_its_jobs_and_no_others(run: RunPaths, cluster: DevCluster) -> None:
    other = cluster.sbatch("--output=/dev/null", "--wrap", "sleep 600")

    def interrupt(now: Progress) -> None:
        if now.done:
            raise KeyboardInterrupt

    tasks = [Task(name=str(n), arguments={"n": n}) for n in range(12)]
    jobs = SlurmJobs("fan", OPTIONS)
    done = fan_out(run, f"{TASKS}:sleep_unless_first", tasks, jobs, progress=interrupt)
    assert done.interrupted and done.problem is None
    assert done.values == (0, *[None] * 11)
    assert {one.error for one in done.failures} == {"cancelled"}
    deadline = time.monotonic() + 60
    while (left := cluster.squeue("-r", "-o", "%A %T")) != [f"{other} RUNNING"]:
        assert all("COMPLETING" in line or line == f"{other} RUNNING" for line in left), left
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.slurm
def test_what_slurm_refuses_is_told_in_its_words_and_leaves_nothing(
    run: RunPaths, cluster: DevCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = SlurmJobs("fan", {"partition": "nowhere"})
    with pytest.raises(SlurmRefused, match="invalid partition specified: nowhere") as caught:
        fan_out(run, f"{TASKS}:environment", [Task(name="t")] * 2, jobs)
    assert caught.value.exit_code == 3
    assert list(run.root.iterdir()) == []
    assert cluster.squeue() == []
    assert capfd.readouterr() == ("", "")


def test_without_slurm_it_says_so(
    run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmMissing, match="no sbatch"):
        fan_out(run, f"{TASKS}:environment", [Task(name="t")], SlurmJobs("fan", {}))
    assert list(run.root.iterdir()) == []


def test_an_option_of_several_lines_is_refused() -> None:
    with pytest.raises(ClustersegError, match="several lines"):
        SlurmJobs("fan", {"account": "a\n#SBATCH --hold"})


# Judging, by answers of squeue as they come. Seconds of a clock that is moved.


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def job(state: JobState, job_id: str = "7_0") -> JobFacts:
    return JobFacts(id=job_id, number=7, state=state, reason="Priority")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(15.0, clock)


@pytest.fixture
def later(watch: Watch, clock: Clock) -> Callable[..., bool]:
    """The next answer, when it is due; whether job 7_0 is over then."""

    def see(*facts: JobFacts) -> bool:
        while not watch.is_due:
            clock.now += 0.5
        watch.see(["7_0"], facts)
        return "7_0" in watch.over

    return see


def test_one_empty_answer_is_no_end(later: Callable[..., bool], clock: Clock) -> None:
    for _ in range(20):
        assert not later(job(JobState.RUNNING))
        assert not later()
    assert not later()
    began = clock.now
    while not later():
        pass
    assert clock.now - began >= 15


def test_an_end_counts_when_it_still_holds_after_the_grace(
    later: Callable[..., bool], watch: Watch, clock: Clock
) -> None:
    assert not later(job(JobState.RUNNING))
    assert not later(job(JobState.OUT_OF_MEMORY))
    began = clock.now
    while not later(job(JobState.OUT_OF_MEMORY)):
        pass
    assert 15 <= clock.now - began <= 25
    assert watch.over == {"7_0": "out of memory"}


def test_a_job_that_is_queued_again_goes_on(later: Callable[..., bool]) -> None:
    for _ in range(5):
        assert not later(job(JobState.PREEMPTED))
        assert not later(job(JobState.PENDING))


def test_the_job_of_somebody_else_under_the_same_number_is_none_of_ours(
    later: Callable[..., bool],
) -> None:
    """Its key is another, so it is not among the facts: ours is lost."""
    while not later(job(JobState.RUNNING, "8_0")):
        pass


def test_slurm_is_asked_rarely_and_more_so_while_it_is_silent(watch: Watch, clock: Clock) -> None:
    asked = 0
    end = clock.now + 3600
    while clock.now < end:
        clock.now += 1
        if watch.is_due:
            asked += 1
            watch.see(["7_0"], [job(JobState.PENDING)])
    assert asked < 120
    assert watch.note == "1 waiting in the queue (Priority)"
    asked, end = 0, clock.now + 3600
    while clock.now < end:
        clock.now += 1
        if watch.is_due:
            asked += 1
            watch.see_nothing()
    assert asked <= 61
    assert not watch.over
