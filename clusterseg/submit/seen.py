"""What this machine sees of the files that a job's ranks will read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clusterseg.cluster.topology import is_here, this_host
from clusterseg.plan.model import Plan


def path_of_ranks(plan: Plan, path: str) -> Path:
    """Where the ranks of `plan` will look for a `path` of job.yaml.

    A relative one starts where they run; that of a snapshot is absolute by now
    (`clusterseg.plan.snapshot`).
    """
    return Path(plan.directory) / os.path.expanduser(path)  # noqa: PTH111 (never raises)


def run_here(plan: Plan) -> bool:
    """Whether all ranks run on this machine and see its files: what is missing here is missing
    there."""
    if plan.scheduler != "local" or plan.spec.environment.container is not None:
        return False
    here = this_host().name
    return all(is_here(name, here) for name in plan.hosts)


def data_warnings(plan: Plan) -> Sequence[str]:
    """What to tell of a data set that is not seen from here: said, and no error, since a job.yaml
    is checked on other machines, too, than the one it is for."""
    train = plan.spec.train
    if train is None:
        return ()
    root = path_of_ranks(plan, train.data.root)
    try:
        if root.is_dir():
            return ()
        what = "is no folder" if root.exists() else "does not exist"
    except OSError as error:
        what = f"can't be looked at ({error.strerror})"
    then = "the ranks will not find it" if run_here(plan) else "the ranks' hosts need it"
    return (f"train.data.root: {root} {what} on this machine, and {then}",)
