"""From the plan of a job that trains to the plan of its learning rate range test. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import LrRange, Plan
from clusterseg.spec.errors import nearest
from clusterseg.spec.tables import OPTIMIZERS

EVERY = "all"


def lr_find_plan(plan: Plan, asked: Sequence[str]) -> Plan:
    """`plan` with a range test as its task, for the optimizers `asked`; none: the job's own.

    `all` means every optimizer that is ready. Raises ClustersegError for an optimizer that is not
    known or not ready, and for a job that doesn't train, or is several runs.
    """
    spec = plan.spec
    if spec.train is None:
        raise ClustersegError(
            "lr-find trains a model, and this job has `command:`, not `train:`",
            code="no-training",
            help="give a job.yaml with `train:`",
        )
    if spec.slurm.array is not None:
        raise ClustersegError(
            "slurm.array: lr-find is one run, and an array is several",
            code="array",
            help="leave it out: --set slurm.array=null",
        )
    optimizers = chosen_optimizers(asked, spec.train.optimizer.name)
    # Each start of the job begins with the first optimizer that has no whole sweep yet, and one
    # that brought none would bring none the next time.
    most, budget = len(optimizers) - 1, spec.restart.time_limit
    restart = replace(spec.restart, time_limit=most if budget == "unlimited" else min(most, budget))
    return replace(
        plan,
        spec=replace(spec, restart=restart),
        task="lr-find",
        lr_find=LrRange(optimizers=optimizers),
    )


def chosen_optimizers(asked: Sequence[str], own: str) -> tuple[str, ...]:
    """The optimizers by name, each once, in the order they were asked for."""
    ready = [name for name, known in OPTIMIZERS.items() if known.ready]
    chosen = [one for name in asked or (own,) for one in (ready if name == EVERY else (name,))]
    for name in chosen:
        if name in ready:
            continue
        if name in OPTIMIZERS:
            raise ClustersegError(
                f"--optimizer {name} is not there yet",
                code="not-yet",
                help=f"ready are {', '.join(ready)}",
            )
        near = nearest(name, [*ready, EVERY])
        raise ClustersegError(
            f"--optimizer {name}: there is no such optimizer"
            + (f"; did you mean {near}?" if near else ""),
            code="unknown-optimizer",
            help=f"ready are {', '.join(ready)}; {EVERY} means each of them",
        )
    return tuple(dict.fromkeys(chosen))
