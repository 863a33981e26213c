"""What a supervisor needs to know before it claims: the run, its submission, its plan."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from clusterseg.cluster.processes import ProcessId, local_job_id, this_process
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.model import Plan
from clusterseg.runs import files, store
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Identity

_LARGEST_PLAN = 16 << 20  # bytes


@dataclass(frozen=True)
class Opening:
    """A run as this process found it, and this process as a job."""

    run: RunPaths
    identity: Identity
    submission: int
    plan: Plan
    me: ProcessId
    job_id: str


def open_run(run: RunPaths) -> Opening:
    """Raises ClustersegError if the run can't be read, OSError if its files can't."""
    me = this_process()
    job_id = local_job_id(me)
    submission = _own_submission(run, job_id)
    return Opening(
        run=run,
        identity=store.read_identity(run),
        submission=submission.number,
        plan=_read_plan(submission),
        me=me,
        job_id=job_id,
    )


def _own_submission(run: RunPaths, job_id: str) -> SubmissionPaths:
    """The submission that started this job, else the newest one."""
    submissions = [one for one in store.iter_submissions(run) if one.plan.exists()]
    if not submissions:
        raise ClustersegError(
            f"{run.root} holds no submission with a plan",
            code="no-plan",
            help="`clusterseg submit job.yaml` makes a run",
            exit_code=ExitCode.FAILED,
        )
    mine = [one for one in submissions if store.read_job_id(one) == job_id]
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
