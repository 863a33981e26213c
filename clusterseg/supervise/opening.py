"""What a supervisor needs to know before it claims: the run, its submission, its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from clusterseg.cluster.processes import ProcessId, local_job_id, this_process
from clusterseg.cluster.slurm.allocation import Allocation
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.model import RUN_DIR, Plan
from clusterseg.plan.planner import place
from clusterseg.plan.words import counted
from clusterseg.runs import files, store
from clusterseg.runs.paths import RunPaths, SubmissionPaths

_LARGEST_PLAN = 16 << 20  # bytes


@dataclass(frozen=True)
class Opening:
    """A run as this process found it, and this process as a job.

    `plan` has the hosts of this job, `argv` is its launch line with symbols for the files of an
    attempt. `key` is that of the submission. `job` is None for a job without a scheduler.
    """

    run: RunPaths
    key: str
    submission: int
    plan: Plan
    argv: tuple[str, ...]
    me: ProcessId
    job_id: str
    restart_count: int
    job: Allocation | None


def open_run(run: RunPaths, argv: Sequence[str], environ: Mapping[str, str]) -> Opening:
    """`argv` is the launch line as the batch script shows it, empty for the plan's own.

    Raises ClustersegError if the run can't be read, or if its plan needs a Slurm job and this
    process is in none; OSError if the run's files can't be read.
    """
    me = this_process()
    job = Allocation.from_environ(environ)
    submission = _own_submission(run, {local_job_id(me), job.job_id if job else ""})
    planned = _read_plan(submission)
    plan = planned
    if planned.scheduler != "slurm":
        job = None  # a job of our own inside of somebody's allocation
    elif job is None:
        raise ClustersegError(
            f"{run.run_id} is planned for Slurm, and this process is in no Slurm job",
            code="no-allocation",
            help="`clusterseg resume` or sbatch starts it; --set scheduler=local plans for here",
            exit_code=ExitCode.CLUSTER,
        )
    else:
        plan = place(planned, job.hosts)
        refuse_unless_room(plan, job)
    intent = store.read_intent(submission)
    return Opening(
        run=run,
        key=intent.key if intent is not None else store.read_identity(run).key,
        submission=submission.number,
        plan=plan,
        # A line that nobody changed is that of the plan, whose hosts are known by now.
        argv=tuple(argv) if argv and tuple(argv) != planned.argv else plan.argv,
        me=me,
        job_id=job.job_id if job else local_job_id(me),
        restart_count=job.restart_count if job else 0,
        job=job,
    )


def refuse_unless_room(plan: Plan, job: Allocation) -> None:
    """Raises ClustersegError (`allocation`) for an allocation with fewer cores than the plan uses.

    `sbatch -n1` of a script for two ranks: srun would refuse in every attempt, and mpirun would
    run both ranks on one core. SLURM_TASKS_PER_NODE is no witness: it repeats the script's wish.
    """
    if plan.spec.placement.oversubscribe or {"--overcommit", "-O"} & {*plan.spec.launcher_args}:
        return
    for host, ranks in plan.hosts.items():
        had = job.cpus.get(host)
        # Where a core has several threads it counts as several: only too few are surely too few.
        if had is None or ranks * plan.threads <= had:
            continue
        raise ClustersegError(
            f"{host} gives this job {counted(had, 'core')}, and the plan runs "
            f"{counted(ranks, 'rank')} × {counted(plan.threads, 'core')} there",
            code="allocation",
            help="submit the job with `clusterseg submit`, or give sbatch the script as it is; "
            "for other sizes change job.yaml (placement.oversubscribe: true shares cores)",
            exit_code=ExitCode.FAILED,
        )


def _own_submission(run: RunPaths, job_ids: set[str]) -> SubmissionPaths:
    """The submission that started this job, else the newest one."""
    if run.root.name == RUN_DIR:
        raise ClustersegError(
            f"this script is for reading: {RUN_DIR} stands for a run that nobody made",
            code="no-plan",
            help="`clusterseg submit job.yaml` starts the job; "
            "`clusterseg render job.yaml -o FILE` writes a script for sbatch",
            exit_code=ExitCode.FAILED,
        )
    submissions = [one for one in store.iter_submissions(run) if one.plan.exists()]
    if not submissions:
        raise ClustersegError(
            f"{run.root} holds no submission with a plan",
            code="no-plan",
            help="`clusterseg submit job.yaml` makes a run",
            exit_code=ExitCode.FAILED,
        )
    mine = [one for one in submissions if store.read_job_id(one) in job_ids]
    return (mine or submissions)[-1]


def _read_plan(submission: SubmissionPaths) -> Plan:
    try:
        data = files.read_capped(submission.plan, _LARGEST_PLAN)
        return msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClustersegError(
            f"{submission.plan} can't be read: {error}",
            code="bad-plan",
            exit_code=ExitCode.FAILED,
        ) from None
