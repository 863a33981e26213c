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
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which

import pytest

from tests import devcluster
from tests.devcluster import DevCluster
from tests.proof.faults import AT_STEP, Fault, mended
from tests.proof.live import Live
from tests.proof.verdict import Outcome, left_behind, measure, weights

PICTURES = 150  # of the set; two ranks read one each a step
EPOCH = PICTURES // 2  # steps
SHORT, LONG = 1, 5  # epochs
EVERY = 10  # steps between two checkpoints
BEHIND = 5  # steps in which one is written, and more: about a second
BYTES_PER_SECOND = "60k"  # about four steps a second
PREPARED = 4  # slow mounts: one for each lane


@dataclass(frozen=True)
class Case:
    launcher: str
    fault: Fault | None  # None: undisturbed, to compare with

    long: bool = False

    @property
    def row(self) -> str:
        return self.fault.name if self.fault else f"undisturbed, {self.steps} steps"

    @property
    def epochs(self) -> int:
        return LONG if self.long or (self.fault is not None and self.fault.long) else SHORT

    @property
    def steps(self) -> int:
        return self.epochs * EPOCH


@dataclass
class Lane:
    """Some nodes of a cluster and a slow mount of the data, for one case at a time.

    `given_up` ends what runs on it.
    """

    cluster: DevCluster
    nodes: tuple[str, ...]
    data: Path
    folder: Path
    given_up: threading.Event


def job(case: Case, lane: Lane) -> dict[str, object]:
    """The real trainer on as little as it takes."""
    others = [node for node in lane.cluster.nodes if node not in lane.nodes]
    return {
        "name": "proof",
        "train": {
            "model": {"name": "unet", "base_filters": 2},
            "data": {"format": "camvid", "root": str(lane.data), "size": [16, 16]},
            "augment": [{"flip_horizontal": 0.5}],
            "optimizer": {"name": "sgd", "learning_rate": 0.01},
            "epochs": case.epochs,
            "batch_size": 1,
            "deterministic": True,
            "communicator": "mpi",
        },
        "checkpoint": {"every": f"{EVERY} steps", "keep_last": 3},
        "resources": {"nodes": 2, "ranks_per_node": 1, "cpus_per_rank": 1, "time": "20:00"},
        "slurm": {"extra": [f"--exclude={','.join(others)}"] if others else []},
        "launcher": "srun" if case.launcher == "srun" else "openmpi5",
    }


def play(cases: Sequence[Case], lanes: Sequence[Lane]) -> list[tuple[Outcome, bytes | None]]:
    """Runs cases of one fault to their ends, and looks at what is left of each.

    Several only where the fault is one for all: they then share their nodes.
    """
    fault = cases[0].fault
    lives = [start(case, lane) for case, lane in zip(cases, lanes, strict=True)]
    left: list[list[str]] = [[] for _ in lives]
    if fault is None:
        for live in lives:
            live.wait_for_end()
    else:
        for live in lives:
            live.wait_for_step(AT_STEP)
        assert all(live.hosts() == lives[0].hosts() for live in lives), "they share no nodes"
        with mended(fault, lives[0]):
            fault.inject(lives[0])
            for live in lives:
                live.wait_for_end()
            # Before the nodes are whole again: nobody there ends what does not end by itself.
            left = [left_behind(live, processes_of="run") for live in lives]
    outcomes = []
    for case, live, before in zip(cases, lives, left, strict=True):
        outcome = measure(
            live,
            case.launcher,
            case.row,
            causes=fault.causes if fault else ("done",),
            steps=case.steps,
            left=before,
            may_replay=0 if fault is None or case.launcher in fault.exact else EVERY + BEHIND,
        )
        outcomes.append((outcome, weights(live.run)))
    return outcomes


def start(case: Case, lane: Lane) -> Live:
    folder = lane.folder / case.launcher / case.row.replace(" ", "-")
    folder.mkdir(parents=True)
    (folder / "job.yaml").write_text(json.dumps(job(case, lane)))
    live = Live(lane.cluster, folder / "runs", folder / "job.yaml", lane.given_up)
    live.submit()
    return live


@dataclass
class Arena:
    """Two lanes of a cluster that gives notice of preemption, and of one that does not."""

    noticed: list[Lane]
    silent: list[Lane]
    given_up: threading.Event

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
        lanes, given_up = [], threading.Event()
        for kind in ["notice"] + ["silent"] * silent:
            name = devcluster.session_name(kind)
            stack.callback(devcluster.stop, name)
            try:
                cluster = DevCluster.start(
                    name, preempt_signal=kind == "notice", conf=["KillWait=30"]
                )
            except devcluster.Unable as why:
                pytest.skip(f"no Slurm on this machine: {why}")
            for nodes in (cluster.nodes[:2], cluster.nodes[2:]):
                place = folder / f"lane{len(lanes)}"
                lanes.append(Lane(cluster, nodes, mounts.pop(), place, given_up))
        yield Arena(lanes[:2], lanes[2:], given_up)


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


def whole(lane: Lane) -> Lane:
    """A lane with all nodes of its cluster, for a fault that takes one of them away."""
    return replace(lane, nodes=lane.cluster.nodes)
