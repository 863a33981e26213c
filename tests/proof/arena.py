"""Two clusters, slow data, and lanes on which cases run side by side.

The data lie on a file system that gives so many bytes a second: so the ranks mostly wait, as they
do for real data, and several cases share two cores.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

import pytest

from tests import devcluster
from tests.devcluster import DevCluster
from tests.proof.faults import AT_STEP, Fault, mended
from tests.proof.live import Live
from tests.proof.verdict import Outcome, measure, weights

PICTURES = 150  # of the set; two ranks read one each a step
EPOCH = PICTURES // 2  # steps
SHORT, LONG = 1, 5  # epochs
EVERY = 10  # steps between two checkpoints
BYTES_PER_SECOND = "60k"  # about four steps a second
PREPARED = 4  # slow mounts: one for each lane


@dataclass(frozen=True)
class Case:
    launcher: str
    fault: Fault | None  # None: undisturbed, to compare with

    @property
    def name(self) -> str:
        return f"{self.launcher}: {self.fault.name if self.fault else 'undisturbed'}"

    @property
    def epochs(self) -> int:
        return LONG if self.fault is not None and self.fault.long else SHORT


@dataclass
class Lane:
    """Some nodes of a cluster and a slow mount of the data, for one case at a time."""

    cluster: DevCluster
    nodes: tuple[str, ...]
    data: Path
    folder: Path


def job(case: Case, lane: Lane, epochs: int) -> dict[str, object]:
    """The real trainer on as little as it takes."""
    others = [node for node in lane.cluster.nodes if node not in lane.nodes]
    return {
        "name": "proof",
        "train": {
            "model": {"name": "unet", "base_filters": 2},
            "data": {"format": "camvid", "root": str(lane.data), "size": [16, 16]},
            "augment": [{"flip_horizontal": 0.5}],
            "optimizer": {"name": "sgd", "learning_rate": 0.01},
            "epochs": epochs,
            "batch_size": 1,
            "deterministic": True,
            "communicator": "mpi",
        },
        "checkpoint": {"every": f"{EVERY} steps", "keep_last": 3},
        "resources": {"nodes": 2, "ranks_per_node": 1, "cpus_per_rank": 1, "time": "20:00"},
        "slurm": {"extra": [f"--exclude={','.join(others)}"] if others else []},
        "launcher": "srun" if case.launcher == "srun" else "openmpi5",
    }


def play(case: Case, lane: Lane, undisturbed: bytes | None, epochs: int | None = None) -> Outcome:
    """Runs one case to its end and looks at what is left."""
    epochs = epochs or case.epochs
    number = len(list(lane.folder.glob("case-*")))
    folder = lane.folder / f"case-{number}-{threading.get_ident()}"
    folder.mkdir(parents=True)
    (folder / "job.yaml").write_text(json.dumps(job(case, lane, epochs)))
    live = Live(lane.cluster, folder / "runs", folder / "job.yaml", lane.nodes)
    live.submit()
    fault = case.fault
    if fault is None:
        live.wait_for_end()
        causes: tuple[str, ...] = ("done",)
    else:
        causes = fault.causes_with(case.launcher)
        live.wait_for_step(AT_STEP)
        with mended(fault, live):
            live.injected = time.time()
            fault.inject(live)
            live.wait_for_end()
    exact = fault is None or case.launcher in fault.exact
    return measure(
        live,
        case.launcher,
        fault.name if fault else "undisturbed",
        causes=causes,
        steps=epochs * EPOCH,
        may_replay=0 if exact else EVERY,
        undisturbed=undisturbed,
    )


@dataclass
class Arena:
    """`lanes` by cluster: on one that notifies of preemption, and on one that does not."""

    noticed: list[Lane]
    silent: list[Lane]
    undisturbed: dict[tuple[str, int], bytes | None] = field(default_factory=dict)

    def lanes(self, fault: Fault | None) -> list[Lane]:
        return self.noticed if fault is None or fault.signal else self.silent


@contextmanager
def arena(folder: Path, *, silent: bool = True) -> Iterator[Arena]:
    """Brings everything up; skips, with the reason, where it can't be.

    The mounts come first: a node sees only what was mounted before it was made.
    """
    if which("bindfs") is None:
        pytest.skip("needs bindfs")
    data = folder / "data"
    make_data(data)
    devcluster.remove_stale()
    with ExitStack() as stack:
        mounts = [stack.enter_context(slow(data, folder / f"slow{n}")) for n in range(PREPARED)]
        lanes = []
        for kind in ["notice"] + ["silent"] * silent:
            name = devcluster.session_name(kind)
            stack.callback(devcluster.stop, name)
            try:
                cluster = DevCluster.start(name, preempt_signal=kind == "notice")
            except devcluster.Unable as why:
                pytest.skip(f"no Slurm on this machine: {why}")
            for nodes in (cluster.nodes[:2], cluster.nodes[2:]):
                lanes.append(Lane(cluster, nodes, mounts.pop(), folder / f"lane{len(lanes)}"))
        yield Arena(lanes[:2], lanes[2:])


def make_data(folder: Path) -> None:
    from clusterseg.data.synth.recipe import Recipe
    from clusterseg.data.synth.write import write_dataset

    recipe = Recipe(format="camvid", train=PICTURES, val=4, test=0, size=(16, 16), seed=0)
    write_dataset(recipe, folder)


@contextmanager
def slow(real: Path, point: Path) -> Iterator[Path]:
    point.mkdir()
    before = point.stat().st_dev
    process = subprocess.Popen(
        ["bindfs", "-f", f"--read-rate={BYTES_PER_SECOND}", str(real), str(point)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until = time.monotonic() + 10
        while point.stat().st_dev == before:
            if process.poll() is not None or time.monotonic() > until:
                process.terminate()
                pytest.skip(f"bindfs can't mount here: {process.communicate()[1].strip()}")
            time.sleep(0.02)
        yield point
    finally:
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        process.terminate()
        process.wait()
        if process.stderr:
            process.stderr.close()


def whole(lanes: Sequence[Lane]) -> Lane:
    """A cluster's lanes as one, for a case that needs all nodes."""
    first = lanes[0]
    return Lane(first.cluster, first.cluster.nodes, first.data, first.folder)
