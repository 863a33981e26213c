"""A job array whose tasks are runs: made together, submitted under one key, known one by one.

Every run is made before sbatch is called, the one that holds what they share (the leader) as
the last: where it is missing, nothing was submitted. The job is one for `slurm_protocol`; each run
notes its task of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from clusterseg.errors import ClustersegError
from clusterseg.plan.array_script import array_script
from clusterseg.plan.model import Plan
from clusterseg.plan.planner import fill
from clusterseg.plan.variables import OUTER_ARRAY
from clusterseg.runs import making, store
from clusterseg.runs.paths import RunPaths
from clusterseg.submit.array_record import ArrayRecord
from clusterseg.submit.code import gather
from clusterseg.submit.submission import (
    Submitted,
    job_before,
    new_identity,
    new_intent,
    start,
    submission_files,
)


class Member(Struct, frozen=True):
    """One run of an array. `plan` is that of the run by itself, `overrides` its `--set`."""

    task: int
    plan: Plan
    overrides: tuple[str, ...]


def task_members(plan: Plan, overrides: Sequence[str]) -> list[Member]:
    """The runs of a plan with `slurm.array`: one a task, which by itself is an array of one."""
    if plan.slurm is None or plan.slurm.array is None:
        raise ClustersegError(
            "slurm.array: this job is not Slurm's",
            code="array",
            help="clusterseg sweep runs several jobs one after the other",
        )
    return [
        Member(task, _with_array(plan, str(task)), (*overrides, f"slurm.array={task}"))
        for task in tasks_of(plan.slurm.array)
    ]


def tasks_of(array: str) -> list[int]:
    """The task numbers of `0-7:2,9%3`, in order. Raises ClustersegError for a range of none."""
    tasks: set[int] = set()
    for part in array.partition("%")[0].split(","):
        bounds, _, step = part.partition(":")
        first, _, last = bounds.partition("-")
        numbers = range(int(first), int(last or first) + 1, int(step or 1) or 1)
        if not numbers:
            raise ClustersegError(f"slurm.array: {part} has no task", code="array")
        if len(numbers) > _MOST or len(tasks) > _MOST:
            raise ClustersegError(f"slurm.array: more than {_MOST} tasks", code="array")
        tasks.update(numbers)
    return sorted(tasks)


_MOST = 10_000  # runs; Slurm's MaxArraySize is 1001 by default


def throttle_of(array: str | None) -> int | None:
    """How many tasks may run at a time: the number after `%`."""
    number = (array or "").partition("%")[2]
    return int(number) if number else None


def submit_array(
    members: Sequence[Member],
    throttle: int | None,
    text: str,
    root: Path,
    environ: Mapping[str, str],
    *,
    say: Callable[[str], None] = lambda text: None,
    patience: float | None = None,
) -> list[Submitted]:
    """Makes a run of each member and submits them as one array. Raises ClustersegError."""
    _refuse_too_large(max(member.task for member in members), environ)
    runs, leader = make_runs(members, throttle, text, root, environ)
    try:
        started = start(
            leader, leader.submission(0), environ, fresh=True, say=say, patience=patience
        )
    except ClustersegError as error:
        # Refused. The leader goes first: without it, nobody can submit the others any more.
        if getattr(error, "clean", False) and not _withdraw(leader, runs):
            error.help = f"another process went on with it: clusterseg status {leader.run_id}"
        raise
    base = started.job_id.partition("_")[0]
    return [
        Submitted(run.run_id, run.root, f"{base}_{member.task}")
        for run, member in zip(runs, members, strict=True)
    ]


def _refuse_too_large(last: int, environ: Mapping[str, str]) -> None:
    """Before a thousand folders are made for an array that Slurm will refuse."""
    from clusterseg.cluster.slurm.facts import cluster_facts  # noqa: PLC0415 (arrays alone)

    facts = cluster_facts(environ)
    most = None if facts is None else facts.max_array_size
    if most is not None and last >= most:
        raise ClustersegError(
            f"the array has a task {last}, and this cluster allows {most - 1} at most "
            "(MaxArraySize)",
            code="array",
            help="submit it in parts",
        )


def _withdraw(leader: RunPaths, runs: Sequence[RunPaths]) -> bool:
    """Removes runs of which nothing was started; False: something was, and all are left.

    Who notes the ids of an array begins with its first run, and ends with the leader.
    """
    if any(store.read_job_id(run.submission(0)) for run in runs) or not making.withdraw_run(leader):
        return False
    for run in runs:
        if run is not leader:
            making.withdraw_run(run)
    return True


def make_runs(
    members: Sequence[Member],
    throttle: int | None,
    text: str,
    root: Path,
    environ: Mapping[str, str],
) -> tuple[list[RunPaths], RunPaths]:
    """The runs of the members, on the disk, and the one that leads them.

    Those that were made are removed if one can't be. Raises ClustersegError.
    """
    now, key = time.time(), os.urandom(16).hex()
    first = members[0].plan
    code = gather(first, environ)
    after = job_before(first, root)
    runs = _choose_runs(root, first.name, now, len(members))
    leader = runs[-1]
    made: list[RunPaths] = []
    try:
        for run, member in zip(runs, members, strict=True):
            intent = replace(
                new_intent(member.plan, submission=0, overrides=member.overrides, now=now),
                key=key,
                task=member.task,
                leader=leader.run_id,
            )
            shared = _shared(runs, members, throttle, after) if run is leader else None
            plan = _knowing_its_task(member.plan)
            written = submission_files(run, plan, text, intent, code, after=after)
            identity = new_identity(member.plan, replace(intent, key=os.urandom(16).hex()), now)
            making.create_run(run, identity, replace(written, array=shared), code.copy)
            made.append(run)
    except BaseException:
        for run in made:
            making.withdraw_run(run)
        raise
    return runs, leader


def _shared(
    runs: Sequence[RunPaths], members: Sequence[Member], throttle: int | None, after: str
) -> making.ArrayFiles:
    """What the leader holds of the array."""
    plan = members[0].plan
    options: tuple[str, ...] = ()
    script = ""
    submissions = {
        member.task: run.submission(0) for run, member in zip(runs, members, strict=True)
    }
    if plan.slurm is not None:
        limit = f"%{throttle}" if throttle else ""
        whole = _with_array(plan, ",".join(_ranges(list(submissions))) + limit)
        output = runs[-1].submission(0).array_output("task")
        filled = fill(whole, run_dir=str(runs[-1].root), output=str(output), after=after)
        if filled.slurm is not None:
            options = tuple(
                option.replace("array-task.log", "array-%a.log")
                if option.startswith("--output=")
                else option
                for option in filled.slurm.options
            )
        script = array_script(
            options,
            {task: str(one.batch_script) for task, one in submissions.items()},
            {task: str(one.output) for task, one in submissions.items()},
        )
    record = ArrayRecord(
        name=plan.name,
        directory=plan.directory,
        options=options,
        tasks={str(member.task): run.run_id for run, member in zip(runs, members, strict=True)},
        throttle=throttle,
    )
    return making.ArrayFiles(script=script, record=msgspec.json.encode(record) + b"\n")


def _with_array(plan: Plan, array: str) -> Plan:
    """`plan` as an array with these tasks."""
    if plan.slurm is None:
        return plan
    options = [one for one in plan.slurm.options if not one.startswith("--array=")]
    return replace(
        plan,
        slurm=replace(plan.slurm, array=array, options=(*options, f"--array={array}")),
        spec=replace(plan.spec, slurm=replace(plan.spec.slurm, array=array)),
    )


def _knowing_its_task(plan: Plan) -> Plan:
    """`plan` for a task of an array: its script keeps the variables that say which."""
    kept = tuple(pattern for pattern in plan.unset if pattern != OUTER_ARRAY)
    return replace(plan, unset=kept)


def _ranges(tasks: Sequence[int]) -> list[str]:
    """`[0, 1, 2, 5]` -> `["0-2", "5"]`."""
    ranges: list[list[int]] = []
    for task in sorted(tasks):
        if ranges and task == ranges[-1][1] + 1:
            ranges[-1][1] = task
        else:
            ranges.append([task, task])
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]


def _choose_runs(root: Path, name: str, now: float, count: int) -> list[RunPaths]:
    chosen: dict[Path, RunPaths] = {}
    while len(chosen) < count:
        run = making.choose_run(root, name, now)
        chosen.setdefault(run.root, run)
    return list(chosen.values())
