"""One job for each combination of values: of Slurm as one array, without it one after another."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clusterseg.cluster.local import LocalJob, start_job
from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.plan.variables import ATTEMPT_VARIABLES
from clusterseg.runs import files
from clusterseg.submit.array import Member, make_runs, submit_array
from clusterseg.submit.request import read_request
from clusterseg.submit.submission import Submitted

_MOST = 1000  # combinations
_OPENING, _CLOSING = "[{(", "]})"


def combinations(over: Sequence[str]) -> list[tuple[str, ...]]:
    """`["a=1,2", "b=x"]` -> `[("a=1", "b=x"), ("a=2", "b=x")]`; the last one varies fastest.

    Raises ClustersegError for what is no `key=value,value`.
    """
    axes: list[list[str]] = []
    for argument in over:
        key, equals, values = argument.partition("=")
        split = _split(values)
        if not key or not equals or not all(split):
            raise _bad(argument, "is not KEY=VALUE,VALUE,…")
        if len(set(split)) < len(split):
            raise _bad(argument, "names a value twice")
        axes.append([f"{key}={value}" for value in split])
    keys = [axis[0].partition("=")[0] for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise _bad(key, "is given twice")
    found = list(itertools.islice(itertools.product(*axes), _MOST + 1))
    if len(found) > _MOST:
        raise ClustersegError(f"more than {_MOST} combinations", code="sweep")
    return found


def plan_sweep(
    job: Path, over: Sequence[str], overrides: Sequence[str], environ: Mapping[str, str]
) -> list[Member]:
    """The runs of a sweep. Raises ClustersegError where they do not fit one allocation."""
    members = []
    for task, values in enumerate(combinations(over)):
        plan = read_request(job, [*overrides, *values], environ)
        members.append(Member(task, plan, (*overrides, *values)))
    first = members[0]
    if first.plan.spec.slurm.array is not None:
        raise ClustersegError(
            "slurm.array: a sweep makes an array by itself",
            code="sweep",
            help="leave it out, or: clusterseg submit",
        )
    for member in members:
        _refuse_other_allocation(first.plan, member.plan, member.overrides[len(overrides) :])
    return members


def submit_sweep(
    members: Sequence[Member],
    parallel: int | None,
    text: str,
    root: Path,
    environ: Mapping[str, str],
    *,
    say: Callable[[str], None] = lambda text: None,
    patience: float | None = None,
) -> tuple[str, list[Submitted]]:
    """Starts a sweep; the id of the job that does it, and the runs. Raises ClustersegError."""
    if members[0].plan.slurm is not None:
        started = submit_array(members, parallel, text, root, environ, say=say, patience=patience)
        return started[0].job_id.partition("_")[0], started
    runs, leader = make_runs(members, parallel, text, root, environ)
    submission = leader.submission(0)
    job = LocalJob(
        argv=(sys.executable, "-m", "clusterseg.submit.sequence", str(leader.root)),
        directory=leader.root,
        environ={name: value for name, value in environ.items() if name not in ATTEMPT_VARIABLES},
        output=submission.array_output("sequence"),
    )
    job_id = start_job(
        job, lambda name: files.commit_new(submission.array_job_id, f"{name}\n".encode())
    )
    return job_id, [Submitted(run.run_id, run.root, job_id) for run in runs]


def _refuse_other_allocation(first: Plan, other: Plan, values: Sequence[str]) -> None:
    if first.scheduler != other.scheduler:
        raise _other(values, f"scheduler {other.scheduler}, not {first.scheduler}")
    if first.slurm is None or other.slurm is None:
        return
    differing = [option for option in other.slurm.options if option not in first.slurm.options]
    missing = [option for option in first.slurm.options if option not in other.slurm.options]
    if differing or missing:
        raise _other(values, f"{' '.join(differing) or 'without'} instead of {' '.join(missing)}")
    if (first.slurm.template, first.name) != (other.slurm.template, other.name):
        raise _other(values, f"the name {other.name}, not {first.name}")


def _other(values: Sequence[str], what: str) -> ClustersegError:
    return ClustersegError(
        f"--over: {', '.join(values)} asks for another allocation: {what}",
        code="sweep",
        help="the runs of a sweep are tasks of one array, which all get the same; submit these "
        "as jobs of their own",
    )


def _bad(argument: str, what: str) -> ClustersegError:
    return ClustersegError(
        f"--over {argument}: it {what}",
        code="sweep",
        help="--over train.optimizer.learning_rate=0.01,0.02",
    )


def _split(values: str) -> list[str]:
    """At commas that stand outside of brackets and quotes."""
    parts, depth, quoted = [""], 0, ""
    for character in values:
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "'\"":
            quoted = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += character
    return parts
