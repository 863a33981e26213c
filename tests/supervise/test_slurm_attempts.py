"""Attempts inside of real Slurm jobs: every notice, every kill.

Both launchers where they differ; the whole table is that of docs/proof.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.devcluster import DevCluster
from tests.supervise.runs import PROGRAM
from tests.supervise.slurm_runs import LAUNCHERS, SlurmRun

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

RESUMING = ("--resume", "--steps", "400")  # 20 s
EVERY = 10  # steps between two saves of the rank program


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_preempted_with_notice(
    slurm_cluster_signal: DevCluster, tmp_path: Path, launcher: str
) -> None:
    notes = tmp_path / "notes"
    note = f'echo "$CLUSTERSEG_EVENT $CLUSTERSEG_STATE" >> {notes}'
    job = SlurmRun.submit(
        slurm_cluster_signal, tmp_path, *RESUMING, launcher=launcher, notify=["sh", "-c", note]
    )
    job.until_steps()
    job.preempt()
    end = job.until_end(0)
    assert (end["cause"], end["will_restart"], end["exit_code"]) == ("preempted", True, 75)
    ends = job.until_done()
    assert [one["cause"] for one in ends] == ["preempted", "done"]
    stopped = job.stopped_at()
    assert len(stopped) == 2
    assert ends[1]["first_step"] == min(stopped) + 1, "nothing that all ranks have done is lost"
    assert [job.claim(number)["restart_count"] for number in (0, 1)] == [0, 1]
    job.until(lambda: notes.read_text() == "requeue queued\nend done\n", "both are told")
    assert job.claim(1)["job_id"] == job.claim(0)["job_id"] == job.job
    assert job.left() == []


def test_preempted_before_there_is_anybody_to_listen(
    slurm_cluster_signal: DevCluster, tmp_path: Path
) -> None:
    setup = 'test "$SLURM_RESTART_COUNT" || { touch begun; sleep 5; touch awake; }'
    job = SlurmRun.submit(
        slurm_cluster_signal, tmp_path, "--steps", "3", environment={"setup": [setup]}
    )
    job.until((tmp_path / "begun").exists, "the script has begun")
    job.preempt()
    end = job.until_end(0)
    assert (tmp_path / "awake").exists()
    assert (end["cause"], end["will_restart"]) == ("preempted", True)
    assert not job.run.attempt(0).events(0).exists()
    assert [one["cause"] for one in job.until_done()] == ["preempted", "done"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_preempted_without_notice(slurm_cluster: DevCluster, tmp_path: Path, launcher: str) -> None:
    """srun: TERM reaches the ranks. mpirun: its daemons get TERM and the ranks die at once."""
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING, launcher=launcher)
    job.until_steps()
    job.preempt()
    end = job.until_end(0)
    assert (end["cause"], end["will_restart"]) == ("preempted", True)
    ends = job.until_done()
    assert [one["cause"] for one in ends] == ["preempted", "done"]
    stopped = job.stopped_at()
    if launcher == "srun":
        assert len(stopped) == 2
        assert ends[1]["first_step"] == min(stopped) + 1
    else:
        assert job.done_by_all() - ends[1]["first_step"] + 1 <= EVERY
    assert job.left() == []


def test_the_time_limit_requeues(slurm_cluster: DevCluster, tmp_path: Path) -> None:
    # The smallest limit is a minute; the stop comes half of it before the end.
    steps = ("--resume", "--steps", "700")
    job = SlurmRun.submit(slurm_cluster, tmp_path, *steps, resources={"time": "1:00"})
    end = job.until_end(0, 90)
    assert (end["cause"], end["will_restart"], end["exit_code"]) == ("time_limit", True, 75)
    ends = job.until_done(120)
    assert [one["cause"] for one in ends] == ["time_limit", "done"]
    assert ends[1]["first_step"] == min(job.stopped_at()) + 1


def test_requeued_by_hand(slurm_cluster: DevCluster, tmp_path: Path) -> None:
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING)
    job.until_steps()
    slurm_cluster.scontrol("requeue", job.job)
    ends = job.until_done()
    assert [one["cause"] for one in ends] == ["preempted", "done"]
    assert ends[0]["will_restart"] is True
    assert job.claim(1)["restart_count"] == 1  # it was not queued a second time
    assert job.left() == []


def test_a_start_that_fails_on_a_node_holds_the_job_until_resume(
    slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING)
    job.until_steps()
    # Where slurmd wants to make the job's folder there is a file.
    folder = slurm_cluster.slurm_conf.parent.parent
    blocks = [folder / f"spool-{node}" / f"job{int(job.job):05}" for node in slurm_cluster.nodes]
    assert any(block.is_dir() for block in blocks)
    slurm_cluster.run("scancel", "--batch", "--signal=USR1", job.job)
    assert job.until_end(0)["will_restart"]
    job.until(lambda: not any(block.exists() for block in blocks), "this life is over")
    try:
        for block in blocks:
            block.touch()
        job.until(lambda: "held" in slurm_cluster.job(job.job)["Reason"], "Slurm holds it")
    finally:
        for block in blocks:
            block.unlink(missing_ok=True)
    job.until(lambda: "holds it" in (job.status()["note"] or ""), "status says so")
    shown = slurm_cluster.run("clusterseg", "status", job.run.root)
    assert "its start on a node failed" in shown.stdout
    assert "clusterseg resume" in shown.stdout
    refused = slurm_cluster.run(
        "clusterseg", "resume", job.run.root, "--set", "notes=x", check=False
    )
    assert refused.returncode == 2
    assert "held" in refused.stderr
    slurm_cluster.run("clusterseg", "resume", job.run.root)
    assert [one["cause"] for one in job.until_done()] == ["preempted", "done"]
    assert job.claim(1)["job_id"] == job.job


def test_scancel_is_final(slurm_cluster: DevCluster, tmp_path: Path) -> None:
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING, launcher="openmpi5")
    job.until_steps()
    slurm_cluster.run("scancel", job.job)
    end = job.until_end(0)
    assert (end["cause"], end["will_restart"]) == ("cancelled", False)
    fields = slurm_cluster.wait_until(job.job)
    assert (fields["JobState"], fields["Restarts"]) == ("CANCELLED", "0")
    assert job.status()["state"] == "stopped"
    assert job.left() == []


def test_a_killed_rank_is_restarted_in_the_allocation(
    slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    fault = ("--fail", "kill:1:15:1")
    job = SlurmRun.submit(slurm_cluster, tmp_path, "--resume", "--steps", "60", *fault)
    ends = job.until_done()
    assert [one["cause"] for one in ends] == ["crash", "done"]
    assert (ends[0]["failed_rank"], ends[0]["signal"]) == (1, 9)
    assert ends[0]["failed_host"] in slurm_cluster.nodes
    assert job.claim(1)["restart_count"] == 0
    assert ends[1]["first_step"] == EVERY + 1
    assert job.left() == []


def test_of_ranks_that_srun_had_to_kill_none_is_blamed(
    slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    fault = ("--deaf", "--steps", "400", "--fail", "exit3:2:15")
    job = SlurmRun.submit(slurm_cluster, tmp_path, *fault, per_node=2, restart={"crash": 0})
    end = job.until_end(0)
    assert (end["failed_rank"], end["signal"]) == (2, None)
    assert end["error"].startswith("rank 2 on n2 exited with code 3")


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(
    ("kind", "said"), [("kill", "was killed by signal 9"), ("abort", "exited with code 7")]
)
def test_of_ranks_that_lose_each_other_the_first_is_named(
    slurm_cluster: DevCluster, tmp_path: Path, launcher: str, kind: str, said: str
) -> None:
    """Those that are left abort by themselves, since their connections break."""
    command = [sys.executable, str(PROGRAM.with_name("mpi_program.py")), f"{kind}:2"]
    once = {"launcher": launcher, "restart": {"crash": 0}}
    job = SlurmRun.submit(slurm_cluster, tmp_path, per_node=2, command=command, **once)
    end = job.until_end(0)
    assert (end["cause"], end["failed_rank"], end["failed_host"]) == ("crash", 2, "n2")
    error = end["error"]
    if launcher == "srun" and kind == "abort" and "killed by signal 9" in error:
        # Slurm kills the ranks of a step that one aborts, also this one before it has ended.
        said = "was killed by signal 9"
        assert "before aborting" in error
    assert error.startswith(f"rank 2 on n2 {said}"), error


def test_a_killed_launcher_leaves_nothing_on_other_nodes(
    slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING, launcher="openmpi5")
    job.until_steps()
    assert len(job.left(attempt=0)) >= 3
    for child in job.children(job.supervisor()):
        os.kill(child, signal.SIGKILL)
    job.until_steps(1)
    assert job.left(attempt=0) == []
    ends = job.until_done()
    assert [one["cause"] for one in ends] == ["crash", "done"]
    assert (ends[0]["signal"], job.claim(1)["restart_count"]) == (9, 0)


def test_a_killed_supervisor_is_started_anew(slurm_cluster: DevCluster, tmp_path: Path) -> None:
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING, launcher="openmpi5")
    job.until_steps()
    os.kill(job.supervisor(), signal.SIGKILL)
    ends = job.until_done()
    assert ends[0] == {}
    assert [one.get("cause") for one in ends] == [None, "done"]
    assert job.claim(1)["restart_count"] == 0
    assert slurm_cluster.wait_until(job.job)["JobState"] == "COMPLETED"
    assert job.left() == []


def test_a_killed_supervisor_without_budget(slurm_cluster: DevCluster, tmp_path: Path) -> None:
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING, restart={"crash": 0})
    job.until_steps()
    os.kill(job.supervisor(), signal.SIGKILL)
    end = job.until_end(1)
    assert (end["cause"], end["will_restart"]) == ("unknown", False)
    assert "restart.crash is 0" in end["error"]
    assert not job.run.attempt(1).log(0).exists()
    assert slurm_cluster.wait_until(job.job)["ExitCode"] == "1:0"
    assert job.status()["state"] == "failed"


def test_preempted_without_budget(slurm_cluster_signal: DevCluster, tmp_path: Path) -> None:
    job = SlurmRun.submit(slurm_cluster_signal, tmp_path, *RESUMING, restart={"preemption": 0})
    job.until_steps()
    job.preempt()
    end = job.until_end(0)
    assert (end["cause"], end["will_restart"]) == ("preempted", False)
    fields = slurm_cluster_signal.wait_until(job.job)
    assert (fields["Restarts"], fields["ExitCode"]) == ("0", "75:0")
    assert job.status()["state"] == "stopped"


def test_a_node_lost_without_budget(slurm_cluster: DevCluster, tmp_path: Path) -> None:
    """Slurm queues the job again whatever the run says: the next life starts no ranks."""
    program = ("--resume", "--steps", "4000")
    job = SlurmRun.submit(slurm_cluster, tmp_path, *program, restart={"node": 0})
    job.until_steps()
    lost = list(job.claim(0)["hosts"])[1]
    with slurm_cluster.broken(lost, "kill-slurmd", "start-slurmd"):
        end = job.until_end(0, 120)
    assert (end["cause"], end["will_restart"]) == ("node_fail", False)
    end = job.until_end(1, 120)
    assert (end["cause"], end["will_restart"]) == ("node_fail", False)
    assert end["error"] == "not started: restart.node is 0: not restarted"
    assert not job.run.attempt(1).log(0).exists()
    assert slurm_cluster.wait_until(job.job)["ExitCode"] == "1:0"
    assert job.status()["state"] == "failed"


def test_cancel_is_no_preemption(slurm_cluster: DevCluster, tmp_path: Path) -> None:
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING)
    job.until_steps()
    slurm_cluster.run("clusterseg", "cancel", job.run.root, "--json")
    end = job.until_end(0)
    assert (end["cause"], end["will_restart"]) == ("cancelled", False)
    assert slurm_cluster.wait_until(job.job)["Restarts"] == "0"
    assert job.status()["state"] == "stopped"


def test_held_twins_are_cancelled_and_duplicates_touch_nothing(
    slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    """An sbatch that was accepted late, after its submission had got another job."""
    others = slurm_cluster.sbatch("-p", "high", "-N4", "--exclusive", "--wrap", "sleep 60")
    job = SlurmRun.submit(slurm_cluster, tmp_path, *RESUMING)
    script = job.run.submission(0).batch_script
    key = json.loads(job.run.submission(0).intent.read_bytes())["key"]
    marks = (f"--comment=clusterseg:{key}", f"--job-name=t.{key[:12]}")
    twin = slurm_cluster.sbatch("--hold", *marks, script, cwd=tmp_path)
    slurm_cluster.run("scancel", str(others))
    job.until_steps()
    assert slurm_cluster.wait_until(twin)["JobState"] == "CANCELLED"
    # One that runs all the same finds the run held by a job that lives.
    duplicate = slurm_cluster.sbatch(*marks, script, cwd=tmp_path)
    assert slurm_cluster.wait_until(duplicate)["ExitCode"] == "0:0"
    assert [one.get("cause") for one in job.until_done()] == ["done"]


@pytest.mark.proof
@pytest.mark.parametrize("wakes_first", ["supervisor", "srun"])
def test_one_that_slept_while_its_node_was_written_off_harms_nobody(
    slurm_cluster: DevCluster, tmp_path: Path, wakes_first: str
) -> None:
    """It wakes when the same job runs elsewhere: its ranks end, and nobody else's do.

    An srun that is quicker than its supervisor may see that the node has failed, and have Slurm end
    the step of this number, which is the other attempt's by then: that is Slurm's doing, and costs
    that attempt a restart (docs/supervision.md). Nothing else may.
    """
    job = SlurmRun.submit(slurm_cluster, tmp_path, "--resume", "--steps", "600", nodes=1)
    job.until_steps(ranks=1)
    (host,) = job.claim(0)["hosts"]
    asleep = [job.supervisor(), *job.children(job.supervisor()), *job.left(0)]
    launcher = [pid for pid in asleep if Path(f"/proc/{pid}/comm").read_text() == "srun\n"]
    assert launcher
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        slurm_cluster.fault(host, "kill-slurmd")
        job.until_steps(attempt=1, ranks=1, seconds=120)
        late = launcher if wakes_first == "supervisor" else []
        for pid in reversed([pid for pid in asleep if pid not in late]):
            os.kill(pid, signal.SIGCONT)
        log = job.run.attempt(0).supervisor_log
        job.until(lambda: "was claimed by another" in log.read_text(), "it sees the other", 30)
        job.until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in launcher),
            "its launcher is killed",
            30,
        )
    finally:
        for pid in asleep:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    job.until(lambda: job.left(0) == [], "the first attempt's processes end", 30)
    ends = job.until_done()
    causes = [one.get("cause") for one in ends]
    if wakes_first == "srun" and causes == [None, "crash", "done"]:
        other = job.run.attempt(1).supervisor_log.read_text()
        assert re.search(r"STEP \d+\.0 ON \S+ CANCELLED", other)
    else:
        assert causes == [None, "done"]
    assert [job.claim(number)["restart_count"] for number in (0, 1)] == [0, 1]
    assert list(job.claim(1)["hosts"]) != [host]
    assert job.left() == []
