"""Training images/s: one rank beside Keras `model.fit`, two ranks beside two that know nothing of
each other; one rank beside `model.fit` at 512x1024 too.

Fast-SCNN on synthetic street scenes on a local disk, the same files, model, batch, optimizer and
input pipeline for all, every process on one core. Ranks are those of `clusterseg submit`, their
figure that of `clusterseg collect`: the first step of a rank (TensorFlow builds its graph) counts
nowhere, nor does the first of `fit`. The contenders take turns, round after round; medians count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from result import Result

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))
ROUNDS, BATCH, RATE = 3, 4, 0.01


@dataclass(frozen=True)
class Case:
    """`size` is (height, width); `pairs`: two ranks are measured as well."""

    size: tuple[int, int]
    steps: int
    pairs: bool

    def __str__(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"


CASES = {str(case): case for case in (Case((96, 128), 150, True), Case((512, 1024), 12, False))}

JOB = """
name: bench
train:
  model: {{name: fastscnn}}
  data: {{format: camvid, root: {root}, size: [{height}, {width}]}}
  augment: [{{flip_horizontal: 0.5}}]
  optimizer: {{name: sgd, momentum: 0.9, learning_rate: {rate}, scale_with_ranks: false}}
  steps_per_epoch: {steps}
  batch_size: {batch}
  communicator: {communicator}
checkpoint: {{every: 1h}}
resources: {{nodes: 1, ranks_per_node: {ranks}, cpus_per_rank: 1}}
placement: {{bind_to: {bind}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, help="steps of each contender")
    parser.add_argument("--size", choices=CASES, help="at this size alone")
    parser.add_argument("--fit", type=Path, help=argparse.SUPPRESS)  # this process is the peer
    options = parser.parse_args()
    cases = [CASES[options.size]] if options.size else list(CASES.values())
    if options.steps:
        cases = [replace(case, steps=options.steps) for case in cases]
    if options.fit:
        print(json.dumps(fit(options.fit, cases[0])))
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this benchmark needs two cores")
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
            measure(Path(folder), cores[:2], options.rounds, case)


def measure(folder: Path, cores: list[int], rounds: int, case: Case) -> None:
    data = folder / "data"
    count = (1 + case.pairs) * BATCH * case.steps  # one rank reads half of those for two
    print(f"writing {count} pictures of {case}", file=sys.stderr)
    made = ["data", "synth", "--format", "camvid", str(data), "--train", str(count)]
    made += ["--val", "1", "--test", "0", "--size", str(case)]
    subprocess.run([CLUSTERSEG, *made], check=True, capture_output=True)
    found: dict[str, list[float]] = {}
    kinds = ["mpi", *(["horovod"] if has_horovod() else [])] if case.pairs else []
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        seen = {"fit": finish_fit(start_fit(data, cores[0], case))}
        seen["one"] = finish(
            start(folder, data, case, communicator="solo", ranks=1, cores=cores[:1])
        )
        if kinds:
            apart = [
                start(folder, data, case, communicator="solo", ranks=1, cores=[core])
                for core in cores
            ]
            seen["apart"] = sum(finish(run) for run in apart)
        for kind in kinds:
            seen[kind] = finish(start(folder, data, case, communicator=kind, ranks=2, cores=cores))
        for name, value in seen.items():
            found.setdefault(name, []).append(value)
    report(case, {name: statistics.median(values) for name, values in found.items()})


def report(case: Case, medians: dict[str, float]) -> None:
    ratio = medians["one"] / medians["fit"]
    Result(
        bench="train",
        what=f"one rank on one core, {case}, batch {BATCH}",
        value=medians["one"],
        unit="images/s",
        beside="Keras model.fit",
        ratio=ratio,
        aim="ratio >= 1",
        met=ratio >= 1,
    ).emit()
    for kind in ("mpi", "horovod"):
        if kind not in medians:
            continue
        ratio = medians[kind] / medians["apart"]
        Result(
            bench="train",
            what=f"two ranks on two cores, {kind}",
            value=medians[kind],
            unit="images/s",
            beside="two single ranks, one core each",
            ratio=ratio,
            aim="ratio >= 0.9",
            met=ratio >= 0.9,
        ).emit()


def start(
    folder: Path, data: Path, case: Case, *, communicator: str, ranks: int, cores: list[int]
) -> subprocess.Popen[str]:
    """A job of its own on `cores`; `finish` waits for it."""
    job = folder / f"{communicator}-{cores[0]}.yaml"
    job.write_text(
        JOB.format(
            root=data,
            height=case.size[0],
            width=case.size[1],
            rate=RATE,
            steps=case.steps,
            batch=BATCH,
            communicator=communicator,
            ranks=ranks,
            bind="core" if ranks > 1 else "none",
        )
    )
    command = [CLUSTERSEG, "submit", str(job), "--wait", "--json"]
    return pinned([*command, "--runs-dir", str(folder / "runs")], cores)


def finish(submit: subprocess.Popen[str]) -> float:
    """Images/s of all ranks of the job."""
    printed, said = submit.communicate()
    if submit.returncode != 0:
        sys.exit(f"the job failed ({submit.returncode}):\n{said}")
    run = json.loads(printed.splitlines()[0])["run_dir"]
    collected = subprocess.run(
        [CLUSTERSEG, "collect", run, "--json"], check=True, capture_output=True, text=True
    )
    return float(json.loads(collected.stdout)["images_per_second"])


def start_fit(data: Path, core: int, case: Case) -> subprocess.Popen[str]:
    what = ["--fit", str(data), "--size", str(case), "--steps", str(case.steps)]
    return pinned([sys.executable, __file__, *what], [core])


def finish_fit(process: subprocess.Popen[str]) -> float:
    printed, said = process.communicate()
    if process.returncode != 0:
        sys.exit(f"fit failed ({process.returncode}):\n{said}")
    return float(json.loads(printed.splitlines()[-1]))


def pinned(command: list[str], cores: list[int]) -> subprocess.Popen[str]:
    """The command on `cores` alone, with what a rank has in its environment."""
    listed = ",".join(map(str, cores))
    variables = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        ["taskset", "--cpu-list", listed, *command],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def has_horovod() -> bool:
    code = "from mpi4py import MPI; import horovod.tensorflow as hvd; hvd.init()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    return done.returncode == 0


def fit(data: Path, case: Case) -> float:
    """Images/s of Keras' own loop, from the end of the first step to that of the last."""
    import keras
    import numpy as np
    import tensorflow as tf

    from clusterseg.data import open_dataset
    from clusterseg.data.order import epoch_order
    from clusterseg.data.pipeline import batches
    from clusterseg.losses import build_loss
    from clusterseg.models import build_model
    from clusterseg.spec.model import DataSpec, LossSpec

    size, steps = case.size, case.steps
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    dataset = open_dataset(DataSpec(format="camvid", root=str(data), size=size), 255)
    loss = build_loss(LossSpec(), dataset.classes)

    def mean_loss(labels: Any, logits: Any) -> Any:
        total, weight = loss(tf.cast(labels, tf.int32), logits)  # Keras has made them float32
        return total / weight

    class Times(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

    model = build_model("fastscnn", dataset.classes, size)
    model.compile(optimizer=keras.optimizers.SGD(RATE, momentum=0.9), loss=mean_loss)
    order = epoch_order(0, 0, len(dataset.train))[: steps * BATCH]
    read = batches(
        dataset.train,
        np.reshape(order, (steps, BATCH)),
        seed=0,
        epoch=0,
        augment=[{"flip_horizontal": 0.5}],
        size=size,
        ignore=255,
        threads=1,
    )
    times = Times()
    model.fit(read.map(lambda images, labels, _: (images, labels)), verbose=0, callbacks=[times])
    return (len(times.ends) - 1) * BATCH / (times.ends[-1] - times.ends[0])


if __name__ == "__main__":
    main()
