"""A submission that was written becomes a job of Slurm, exactly one (`slurm_protocol`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from clusterseg.cluster.slurm.commands import Slurm
from clusterseg.cluster.slurm.queue import QueueCache
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.variables import ATTEMPT_VARIABLES
from clusterseg.runs import files, store
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Intent
from clusterseg.submit.array_record import read_array
from clusterseg.submit.other_cluster import refuse_other_cluster
from clusterseg.submit.queueing_errors import Outdated
from clusterseg.submit.slurm_queueing import (
    PATIENCE,
    NotSubmitted,
    OutOfPatience,
    SpentTask,
    Wanted,
    have_queued,
)

_LARGEST = 16 << 20  # bytes of a plan


def start_in_slurm(
    run: RunPaths,
    submission: SubmissionPaths,
    environ: Mapping[str, str],
    *,
    fresh: bool,
    say: Callable[[str], None],
    patience: float | None = None,
) -> str:
    """Has a submission queued and released; returns the job's id, of an array its task's.

    Of an array, all of it is submitted, unless a task of it may have begun. `fresh`: no sbatch was
    called for it yet. `patience` in seconds. Raises NotSubmitted, JobGone, and ClustersegError
    where it is not finished: `resume` does.
    """
    intent = _intent(submission)
    if not fresh:
        refuse_other_cluster(run.run_id, intent.cluster, environ)
    members, wanted = _wanted(run, submission, intent, doubt=not fresh)

    def record(job_id: str) -> None:
        for member, task in members:
            files.replace(member.job_id, f"{_task_id(job_id, task)}\n".encode())

    # Of a job that submits another one, nothing may be taken for the new run's.
    clean = {name: value for name, value in environ.items() if name not in ATTEMPT_VARIABLES}
    try:
        job_id = have_queued(
            wanted,
            Slurm(clean),
            record,
            patience=PATIENCE if patience is None else patience,
            is_newest=lambda: all(_is_newest(member) for member, _ in members),
            say=say,
        )
    except OutOfPatience as error:
        raise ClustersegError(
            f"{error.message}\n{run.run_id} is kept, and its job is not started",
            code=error.code,
            help=f"clusterseg resume {run.run_id} finishes it once Slurm answers",
            exit_code=ExitCode.CLUSTER,
        ) from None
    except Outdated as error:
        error.help = f"clusterseg status {run.run_id} shows how it stands"
        raise
    except NotSubmitted as error:
        if not error.clean:
            error.help = f"clusterseg resume {run.run_id} tries again; {error.help or 'it is kept'}"
        raise
    except OSError as error:
        raise ClustersegError(
            f"{submission.folder} can't be written: {error.strerror or error}\n"
            "the job is in the queue, held: it can't run",
            code="run-dir",
            help=f"make room, then: clusterseg resume {run.run_id}",
            exit_code=ExitCode.FAILED,
        ) from None
    except KeyboardInterrupt:
        say(f"\nnot finished: clusterseg resume {run.run_id} does, without a second job")
        raise
    # The job may have got the id of one that was lost, or was seen held a moment ago.
    QueueCache(environ).outdate()
    return _task_id(job_id, intent.task)


def _wanted(
    run: RunPaths, submission: SubmissionPaths, intent: Intent, *, doubt: bool
) -> tuple[list[tuple[SubmissionPaths, int | None]], Wanted]:
    """The submissions that share the job, each with its task, and what is asked of Slurm."""
    recorded = store.read_job_id(submission)
    members: list[tuple[SubmissionPaths, int | None]] = [(submission, intent.task)]
    spent = None
    if intent.leader is None:
        plan = _plan(submission)
        script, options = submission.batch_script, plan.slurm.options
        name, directory = plan.name, plan.directory
    else:
        leader = RunPaths(run.root.with_name(intent.leader))
        array = read_array(leader)
        traces = array.traces(leader)
        if doubt and traces.spent and intent.task is not None:
            spent = SpentTask(intent.task, traces.some_job_id or None, not traces.touched)
        else:
            members = [*array.members(leader)]
            recorded = traces.job_id or None  # noted in all, or else once more
        script, options = leader.submission(0).array_script, array.options
        name, directory = array.name, array.directory
    return members, Wanted(
        name=name,
        key=intent.key,
        options=options,
        script=script,
        directory=Path(directory) if Path(directory).is_dir() else submission.folder,
        recorded=recorded if spent else recorded and recorded.partition("_")[0],
        doubt=doubt,
        task=spent,
        is_shared=intent.leader is not None,
    )


def _is_newest(submission: SubmissionPaths) -> bool:
    """Whether nobody has resumed the run since by a submission that follows this one."""
    run = RunPaths(submission.folder.parent.parent)
    return store.iter_submissions(run)[-1:] == [submission]


def _task_id(job_id: str, task: int | None) -> str:
    return job_id if task is None else f"{job_id.partition('_')[0]}_{task}"


class _Options(Struct, frozen=True):
    options: tuple[str, ...]


class _PlanPart(Struct, frozen=True):
    """What is needed of a plan."""

    name: str
    directory: str
    slurm: _Options


def _intent(submission: SubmissionPaths) -> Intent:
    intent = store.read_intent(submission)
    if intent is None:
        raise _damaged(submission.intent, "it is gone or damaged")
    return intent


def _plan(submission: SubmissionPaths) -> _PlanPart:
    try:
        return msgspec.json.decode(files.read_capped(submission.plan, _LARGEST), type=_PlanPart)
    except OSError as error:
        raise _damaged(submission.plan, error.strerror or str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(submission.plan, f"damaged ({error})") from None


def _damaged(path: Path, what: str) -> ClustersegError:
    return ClustersegError(
        f"{path} can't be read: {what}",
        code="bad-run",
        help="submit the job as a new run",
        exit_code=ExitCode.FAILED,
    )
