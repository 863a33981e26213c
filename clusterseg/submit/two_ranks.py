"""Two ranks on this host by the very plan that a job would have, to ask what they find."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from clusterseg.cluster.agreement import HOROVOD, MPI4PY, RANKS, Agreement, ask_two_ranks
from clusterseg.cluster.topology import this_host
from clusterseg.errors import ClustersegError
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.model import HOSTFILE, LauncherPair, Plan
from clusterseg.plan.planner import make_plan
from clusterseg.spec.fields import MapBy
from clusterseg.spec.model import JobSpec, PlacementSpec, ResourcesSpec

RANK_PYTHON = sys.executable
MPI4PY_PATIENCE = 60.0  # seconds for two ranks to start, meet and end; some 2 s are usual
HOROVOD_PATIENCE = 240.0  # they load TensorFlow, from a cold network file system too
_MAPS: tuple[MapBy, ...] = ("socket", "core", "numa", "node")  # the first that it can say
# What the ranks get besides what the plan sets; an attempt has others in their place.
_ATTEMPT = {"CLUSTERSEG_ATTEMPT": "0", "CLUSTERSEG_STOP_FILE": os.devnull}


def ask_mpi4py(
    dialect: Dialect,
    pair: LauncherPair,
    environ: Mapping[str, str],
) -> Agreement:
    """Whether two ranks that this `pair` starts on this host meet through mpi4py."""
    return _ask(dialect, pair, environ, program=MPI4PY, patience=MPI4PY_PATIENCE)


def ask_horovod(
    dialect: Dialect,
    pair: LauncherPair,
    environ: Mapping[str, str],
) -> Agreement:
    """The same through Horovod, which has its own way to libmpi. The ranks load TensorFlow."""
    return _ask(dialect, pair, environ, program=HOROVOD, patience=HOROVOD_PATIENCE)


def _ask(
    dialect: Dialect,
    pair: LauncherPair,
    environ: Mapping[str, str],
    *,
    program: str,
    patience: float,
) -> Agreement:
    try:
        plan = _plan(dialect, pair)
    except ClustersegError as error:
        return Agreement(None, "", (), f"two ranks can't be planned: {error.message}", 0.0)

    def line(argv: Sequence[str], folder: Path) -> list[str]:
        words = plan.argv[: len(plan.argv) - plan.rank_words]
        if plan.hostfile is not None:
            file = folder / "hostfile"
            file.write_text(plan.hostfile)
            words = tuple(word.replace(HOSTFILE, str(file)) for word in words)
        return [*words, *argv]

    environment = rank_environment(plan, environ)
    return ask_two_ranks(line, environment, program, RANK_PYTHON, patience=patience)


def _plan(dialect: Dialect, pair: LauncherPair) -> Plan:
    """A job of two ranks that asks for nothing: it must start on a host of one core, too."""
    map_by = next((one for one in _MAPS if one in dialect.map), _MAPS[0])
    spec = JobSpec(
        name="doctor",
        command=("true",),
        resources=ResourcesSpec(ranks=RANKS, cpus_per_rank=1),
        placement=PlacementSpec(
            map_by=map_by,
            bind_to="none",
            verify="off",
            oversubscribe=True,
        ),
        scheduler="local",
    )
    return make_plan(
        spec,
        dialect=dialect,
        pair=pair,
        hosts=[this_host()],
        program=["clusterseg"],
        as_root=os.geteuid() == 0,
        directory="/",
    )


def rank_environment(plan: Plan, environ: Mapping[str, str]) -> dict[str, str]:
    """What the script of `plan` leaves of `environ`, and sets."""
    kept = {
        name: value
        for name, value in environ.items()
        if not any(fnmatchcase(name, pattern) for pattern in plan.unset)
    }
    return {**kept, **plan.environment, **_ATTEMPT}
