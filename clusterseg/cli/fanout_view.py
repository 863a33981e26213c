"""Fan-out of work beside a run, as commands ask for it and tell of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from clusterseg.cli.output import note, safe
from clusterseg.errors import ClustersegError, ExitCode

if TYPE_CHECKING:
    from clusterseg.cluster.fanout import Executor, FanOut
    from clusterseg.plan.model import Plan
    from clusterseg.runs.paths import RunPaths


class Where(StrEnum):
    """Who does the work."""

    AUTO = "auto"
    LOCAL = "local"
    SLURM = "slurm"


RunBy = Annotated[
    Where,
    typer.Option(
        "--executor", help="auto: Slurm for a run of Slurm's, unless inside a job; else here."
    ),
]


def plan_of(run: RunPaths) -> Plan:
    """The plan of the newest submission: what it asks of the cluster holds here, too."""
    from clusterseg.plan.model import Plan
    from clusterseg.runs.files import read_capped
    from clusterseg.runs.store import iter_submissions
    from clusterseg.submit.resumption import LARGEST_PLAN

    submissions = iter_submissions(run)
    why = "there is no submission"
    if submissions:
        try:
            data = read_capped(submissions[-1].plan, LARGEST_PLAN)
            plan = msgspec.json.decode(data, type=Plan)
        except OSError as error:
            why = f"{submissions[-1].plan}: {error.strerror or error}"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = f"{submissions[-1].plan} is damaged ({error})"
        else:
            if plan.spec.train is not None:
                return plan
            raise ClustersegError(
                f"{run.run_id} runs a program of its own (`command:`): clusterseg can't tell how "
                "its checkpoints are evaluated",
                code="no-training",
            )
    raise ClustersegError(
        f"the plan of {run.run_id} can't be read: {why}", code="bad-run", exit_code=ExitCode.FAILED
    )


def executor_for(where: Where, plan: Plan, what: str) -> Executor:
    """Who runs the tasks of a fan-out, with what one rank of the run has; `what` names the jobs."""
    variables = plan.spec.environment.variables
    inside_job = "SLURM_JOB_ID" in os.environ
    if where is Where.SLURM or (
        where is Where.AUTO and plan.scheduler == "slurm" and not inside_job
    ):
        from clusterseg.cluster.fanout_slurm import GRACE, SlurmJobs
        from clusterseg.plan.one_task import one_task_options, one_task_setup

        delay = plan.slurm.metadata_delay if plan.slurm else 0.0
        return SlurmJobs(
            f"{plan.name}-{what}",
            one_task_options(plan),
            setup=one_task_setup(plan),
            grace=GRACE + delay,
        )
    from clusterseg.cluster.fanout_local import LocalJobs

    return LocalJobs(plan.threads, {**os.environ, **variables})


def tell_devices(values: Iterable[Mapping[str, Any]]) -> None:
    """Tells why it was computed on the CPU, where the run trains on an accelerator."""
    for why in sorted({value["device"] for value in values if value["device"]}):
        note(f"note: {safe(why)}")


def complain(done: FanOut, of: str) -> None:
    """Tells what failed, each way of failing once, and what is left of it.

    `of` is what all tasks are about: where all fail in one way, that is said of it.
    """
    alike: dict[tuple[str, tuple[str, ...], int], list[str]] = {}
    for failure in done.failures:
        how = (failure.error, failure.last_lines, failure.tries)
        alike.setdefault(how, []).append(failure.name)
    for (error, last_lines, tries), names in alike.items():
        times = f" (tried {tries} times)" if tries > 1 else ""
        note(f"{safe(_heading(names, len(done.values), of, error))}{safe(error)}{times}")
        for line in last_lines:
            note(f"    {safe(line)}")
    if done.folder and not done.interrupted:
        note(f"what its jobs left: {safe(done.folder)}")
    if done.problem:
        note(f"jobs may still be there: {safe(done.problem)}")


def raise_fault(done: FanOut) -> None:
    """Raises what is wrong with all tasks alike as the command's own error, if anything is."""
    if done.fault is None:
        return
    if done.problem:
        note(f"jobs may still be there: {safe(done.problem)}")
    raise ClustersegError(
        done.fault.message,
        code=done.fault.code,
        help=done.fault.help,
        exit_code=done.fault.exit_code,
    )


def _heading(names: list[str], tasks: int, of: str, error: str) -> str:
    """Whose failure it is: of some of so many tasks."""
    if len(names) == tasks > 1:
        return f"{of}: "
    if len(names) > 1:
        return f"{names[0]} and {len(names) - 1} more: "
    return "" if error.startswith(names[0]) else f"{names[0]}: "
