"""Our job as Slurm's programs tell of it: those that hang, refuse or are not there are played."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from clusterseg.cluster.slurm.allocation import Allocation
from clusterseg.cluster.slurm.commands import Slurm
from clusterseg.plan.model import SlurmPlan
from clusterseg.runs.records import Cause, Claim
from clusterseg.supervise import slurm_scheduler
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.scheduler import Queued
from clusterseg.supervise.slurm_job import NO_WORD, Fate, Word
from clusterseg.supervise.slurm_scheduler import SlurmScheduler

KEY = "0123456789abcdef" * 2
JOB = Allocation(
    job_id="12",
    number=12,
    restart_count=1,
    tasks={"n1": 1, "n2": 1},
    cpus={"n1": 1, "n2": 1},
    partition="low",
)
SHOWN = (
    "JobId=12 JobName=t.0123 UserId=me(0) GroupId=me(0) MCS_label=N/A Priority=1 Nice=0 "
    "Account=(null) QOS=(null) JobState=RUNNING Reason=None Dependency=(null) Requeue=1 "
    "Restarts=1 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:01:04 TimeLimit=00:10:00 "
    "TimeMin=N/A SubmitTime=2026-11-21T03:00:00 EligibleTime=2026-11-21T03:00:00 "
    "StartTime=2026-11-21T03:00:00 EndTime=2036-11-21T03:10:00 Deadline=N/A PreemptTime=None "
    "Partition=low AllocNode:Sid=n1:1 ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] "
    f"BatchHost=n1 NumNodes=2 NumCPUs=2 Command=/batch.sh WorkDir=/ Comment=clusterseg:{KEY} "
    "StdErr=/dev/null Power="
)
# scontrol writes down what it was asked; `show` answers.
WELL = f"""echo "$@" >> "$0.asked"
case "$*" in *"show job"*) echo '{SHOWN}' ;; *"show partition"*) echo 'TotalNodes=4' ;; esac
"""


def scheduler(
    folder: Path, *, requeue: bool = True, adopted_as: str | None = None, **programs: str
) -> SlurmScheduler:
    """Over these shell scripts instead of Slurm's programs."""
    folder.mkdir(exist_ok=True)
    for name, script in programs.items():
        file = folder / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
    plan = SlurmPlan(
        options=("--signal=B:USR1@30",),
        site=None,
        metadata_delay=0.0,
        notice=None,
        accounting=None,
        requeue=requeue,
    )
    # The shells' own commands come after.
    slurm = Slurm({"PATH": f"{folder}:/nonexistent"}, patience=1.0)
    return SlurmScheduler(
        JOB, plan, slurm, Journal(), key=KEY, time_limit=600.0, adopted_as=adopted_as
    )


def asked(folder: Path) -> list[str]:
    file = folder / "scontrol.asked"
    return file.read_text().splitlines() if file.exists() else []


def test_the_real_end_is_that_of_slurm(tmp_path: Path) -> None:
    own = scheduler(tmp_path, scontrol=WELL)
    before = own.end_of_time
    assert before is not None
    assert before - time.monotonic() == pytest.approx(600, abs=5)
    assert own.ask().fate is Fate.RUNNING
    assert own.end_of_time is not None
    assert own.end_of_time > before


def test_it_is_asked_rarely(tmp_path: Path) -> None:
    own = scheduler(tmp_path, scontrol=WELL)
    own.ask()
    for _ in range(100):
        assert own.look() is None
        own.confirm_end()
        own.guess(15)
    assert len(asked(tmp_path)) == 1


def test_a_job_that_made_its_run_keeps_trying_to_have_its_key_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its start Slurm was silent; a requeue finds the run only by the key."""
    bare = WELL.replace(f"clusterseg:{KEY}", "(null)")
    refuses = f"[ -e {tmp_path}/away ] && exit 1\n{bare}"
    kept = f"update JobId=12 Comment=clusterseg:{KEY}"
    (tmp_path / "away").touch()
    own = scheduler(tmp_path, adopted_as="t", scontrol=refuses, squeue="exit 1")
    own.claimed()
    assert kept not in asked(tmp_path)
    (tmp_path / "away").unlink()
    monkeypatch.setattr(slurm_scheduler, "EVERY", 0.0)
    own.look()
    assert asked(tmp_path).count(kept) == 1
    own.look()
    own.claimed()
    assert asked(tmp_path).count(kept) == 1


@pytest.mark.parametrize("adopted_as", [None, "t"])
def test_a_key_that_is_kept_is_left_alone(tmp_path: Path, adopted_as: str | None) -> None:
    own = scheduler(tmp_path, adopted_as=adopted_as, scontrol=WELL, squeue="exit 1")
    own.claimed()
    own.claimed()
    assert asked(tmp_path) == ["-o show job 12"] * (adopted_as is not None)


def test_one_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    own = scheduler(tmp_path, scontrol="exec /bin/sleep 100", squeue="exec /bin/sleep 100")
    own.begin()
    assert own.ask() == NO_WORD
    assert own.end_of_time is not None  # that of job.yaml
    assert own.meaning(15) is Cause.PREEMPTED
    assert own.lost_hosts(["n1", "n2"]) == []
    assert own.queue_again(Cause.PREEMPTED, NO_WORD, ()) is Queued.UNANSWERED


def test_one_that_slurms_own_term_killed_is_asked_again(tmp_path: Path) -> None:
    """TERM goes to all processes of the batch step; the requeue must not look like a crash."""
    once = f'test -e "$0.killed" || {{ : > "$0.killed"; kill -TERM $$; }}\n{WELL}'
    own = scheduler(tmp_path, scontrol=once.replace("Restarts=1", "Restarts=2"))
    assert own.ask().fate is Fate.REQUEUED
    always = scheduler(tmp_path, scontrol="kill -TERM $$")
    assert always.ask() == NO_WORD


def test_a_refusal_is_final(tmp_path: Path) -> None:
    own = scheduler(tmp_path, scontrol="echo 'Job requeue is disabled' >&2; exit 1")
    assert own.queue_again(Cause.PREEMPTED, NO_WORD, ()) is Queued.REFUSED


def test_without_scontrol_only_slurm_itself_queues_again(tmp_path: Path) -> None:
    own = scheduler(tmp_path)
    assert own.can_queue_again(Cause.PREEMPTED)
    assert not own.can_queue_again(Cause.TIME_LIMIT)
    assert own.queue_again(Cause.PREEMPTED, NO_WORD, ()) is Queued.BY_ITSELF
    assert not scheduler(tmp_path, requeue=False).can_queue_again(Cause.PREEMPTED)


def test_a_requeue_names_the_job_and_the_hosts_to_avoid(tmp_path: Path) -> None:
    own = scheduler(tmp_path, scontrol=WELL)
    word = Word(Fate.RUNNING, excluded="n4")
    assert own.queue_again(Cause.NODE_FAIL, word, ["n2"]) is Queued.YES
    assert asked(tmp_path) == [
        "requeue 12",
        "-o show partition low",
        "update JobId=12 ExcNodeList=n4,n2",
    ]


def test_the_bare_number_of_a_task_is_no_whole_array(tmp_path: Path) -> None:
    task = SHOWN.replace("JobId=12 ", "JobId=12 ArrayJobId=12 ArrayTaskId=2 ")
    own = scheduler(tmp_path, scontrol=WELL.replace(SHOWN, task))
    assert own.queue_again(Cause.TIME_LIMIT, own.ask(), ["n2"]) is Queued.YES
    assert asked(tmp_path) == [
        "-o show job 12",
        "requeue 12_2",
        "-o show partition low",
        "update JobId=12_2 ExcNodeList=n2",
    ]


def test_no_host_is_avoided_that_cannot_be_done_without(tmp_path: Path) -> None:
    own = scheduler(tmp_path, scontrol=WELL)
    own.queue_again(Cause.NODE_FAIL, Word(Fate.RUNNING, excluded="n[3-4]"), ["n2"])
    assert asked(tmp_path) == ["requeue 12", "-o show partition low"]


def test_what_is_queued_already_is_not_queued_twice(tmp_path: Path) -> None:
    own = scheduler(tmp_path, scontrol=WELL)
    assert own.queue_again(Cause.PREEMPTED, Word(Fate.REQUEUED), ()) is Queued.YES
    assert asked(tmp_path) == []


def test_a_job_that_must_not_be_requeued_by_slurm_can_be_by_us(tmp_path: Path) -> None:
    own = scheduler(tmp_path, requeue=False, scontrol=WELL, squeue="")
    own.queue_again(Cause.TIME_LIMIT, Word(Fate.RUNNING, may_requeue=False), ())
    assert asked(tmp_path) == ["update JobId=12 Requeue=1", "requeue 12"]
    own.begin()  # the next life
    assert asked(tmp_path)[-1] == "update JobId=12 Requeue=0"


def claim(**fields: object) -> Claim:
    known: dict[str, object] = {
        "t": 0.0,
        "attempt": 0,
        "submission": 0,
        "key": KEY,
        "uid": 0,
        "job_id": "12",
        "host": "n1",
        "boot_id": "b",
        "pid": 1,
        "pid_start": 1,
        "nonce": "",
        "hosts": {},
        "ranks": 2,
        "argv": [],
    }
    return Claim(**{**known, **fields})  # type: ignore[arg-type]


def test_why_a_life_was_killed(tmp_path: Path) -> None:
    line = "12|PREEMPTED|2026-11-21T03:00:00|n1"
    own = scheduler(tmp_path, sacct=f"echo '{line}'")
    assert own.cause_of_kill(claim(restart_count=0)) is Cause.PREEMPTED
    # Killed in this very life: nobody but its guardian has started it anew.
    assert own.cause_of_kill(claim(restart_count=1)) is Cause.UNKNOWN
    assert own.cause_of_kill(claim(job_id="11")) is Cause.UNKNOWN


@pytest.mark.parametrize("sacct", ["exit 1", "", "echo '12|PREEMPTED|1|n1\n12|TIMEOUT|2|n1'"])
def test_without_a_whole_accounting_it_is_not_known(sacct: str, tmp_path: Path) -> None:
    own = scheduler(tmp_path, sacct=sacct)
    assert own.cause_of_kill(claim(restart_count=0)) is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("shown", "lives"),
    [
        (SHOWN, True),
        (SHOWN.replace("JobState=RUNNING", "JobState=PENDING"), True),
        (SHOWN.replace("JobState=RUNNING", "JobState=COMPLETING"), None),
        (SHOWN.replace("JobState=RUNNING", "JobState=COMPLETED"), False),
        (SHOWN.replace(KEY, "f" * 32), False),  # the id is another's now
        (SHOWN.replace(f"clusterseg:{KEY}", "(null)"), None),
    ],
)
def test_whether_another_job_lives(shown: str, lives: bool | None, tmp_path: Path) -> None:
    own = scheduler(tmp_path, scontrol=f"echo '{shown}'")
    assert own.job_lives(claim()) is lives


def test_a_job_that_slurm_forgot_may_still_run(tmp_path: Path) -> None:
    said = "slurm_load_jobs error: Invalid job id specified"
    own = scheduler(tmp_path, scontrol=f"echo '{said}' >&2; exit 1")
    assert own.job_lives(claim()) is None
    assert own.job_lives(claim(job_id="local-n1-1-1")) is None


@pytest.mark.parametrize(
    "told",
    [
        SHOWN.replace(KEY, "f" * 32),
        SHOWN.replace("UserId=me(0)", "UserId=other(4711)"),
    ],
)
def test_a_job_that_got_our_id_is_left_alone(tmp_path: Path, told: str) -> None:
    """The controller crashed and forgot ours."""
    stranger = WELL.replace(SHOWN, told)
    scancel = 'echo "$@" >> "$0.asked"'
    own = scheduler(tmp_path, scontrol=stranger, squeue="echo 12.0", scancel=scancel)
    assert own.ask() == NO_WORD
    assert not own.can_queue_again(Cause.PREEMPTED)
    assert own.queue_again(Cause.PREEMPTED, NO_WORD, ["n1"]) is Queued.REFUSED
    own.end_steps()
    assert all("show job" in call for call in asked(tmp_path))
    assert not (tmp_path / "scancel.asked").exists()


@pytest.mark.parametrize(
    "told",
    [SHOWN.replace("Restarts=1", "Restarts=2"), SHOWN.replace("BatchHost=n1", "BatchHost=n3")],
)
def test_steps_of_a_later_life_are_not_ended(tmp_path: Path, told: str) -> None:
    """Our node was written off; this process slept, and the job runs on another one."""
    scancel = 'echo "$@" >> "$0.asked"'
    own = scheduler(
        tmp_path, scontrol=WELL.replace(SHOWN, told), squeue="echo 12.0", scancel=scancel
    )
    own.end_steps()
    assert not (tmp_path / "scancel.asked").exists()


def test_between_two_silences_of_slurm_there_is_a_beat(tmp_path: Path) -> None:
    """Each holds the supervisor up for a while, and the lease goes by its heartbeat."""
    beats: list[None] = []
    own = scheduler(tmp_path, scontrol="exit 1", squeue='echo "$@" >> "$0.asked"; exit 1')
    own.end_steps(beat=lambda: beats.append(None))
    assert len(beats) == 1
    own = scheduler(tmp_path, scontrol=WELL, squeue="echo 12.0", scancel="exit 0")
    own.end_steps(wait=False, beat=lambda: beats.append(None))
    assert len(beats) == 1  # nothing was silent


def test_a_count_that_leaked_from_another_job_is_none(tmp_path: Path) -> None:
    """An sbatch inside a job that was queued again hands its variable on."""
    own = scheduler(tmp_path, scontrol=WELL.replace("Restarts=1", "Restarts=0"))
    assert own.restart_count == JOB.restart_count == 1
    assert own.ask().fate is Fate.RUNNING
    assert own.restart_count == 0
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{WELL}")
    assert own.ask().fate is Fate.REQUEUED
    assert own.restart_count == 0


def test_own_steps_that_are_left_are_ended(tmp_path: Path) -> None:
    scancel = 'echo "$@" >> "$0.asked"'
    own = scheduler(tmp_path, scontrol=WELL, squeue="echo 12.0", scancel=scancel)
    own.end_steps(wait=False)
    assert (tmp_path / "scancel.asked").read_text() == "12.0\n"
