"""What a checkpoint costs: how long it holds up the training, to be durable, and to come back.

A U-Net of 31 million parameters with SGD's momentum (250 MB) on one core, small pictures, so that
steps are short and saves large. A save's stall is the copy that the step waits for and by how
much the steps beside the write are longer than the median step; beside it is a save that all wait
for. Files are compared with those of Keras: `save_weights`, and the optimizer's variables into a
file of their own, both made durable by fsync as well.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from result import Result
from trainer import Trainer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZE, BATCH, ROUNDS, QUIET, EVERY = (32, 48), 2, 5, 6, 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder,
        Trainer(
            Path(folder),
            model="unet",
            size=SIZE,
            batch=BATCH,
            optimizer={"name": "sgd", "momentum": 0.9, "learning_rate": 0.001},
            checkpoint={"every": {"seconds": 3600}, "keep_last": 1, "keep_best": 0},
        ) as trainer,
    ):
        report(measure(trainer, Path(folder), options.rounds))


def measure(trainer: Trainer, folder: Path, rounds: int) -> dict[str, float]:
    """Medians in seconds."""
    step = Step(trainer)
    step.seconds()  # builds the graph
    quiet: list[float] = []
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        quiet += [step.seconds() for _ in range(QUIET)]
        usual = statistics.median(quiet)
        blocked, beside = in_background(trainer, step)
        seen = {
            "blocked": blocked,
            "stall": blocked + max(0.0, sum(beside) - usual * len(beside)),
            "waited": waited_for(trainer, step),
            "load": load(trainer),
            **keras_files(trainer, folder),
        }
        for name, value in seen.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def report(seconds: dict[str, float]) -> None:
    what = f"unet of 31 million parameters with momentum, {SIZE[0]}x{SIZE[1]}, one core"
    share = seconds["stall"] / EVERY
    Result(
        bench="checkpoint",
        what=f"{what}: a save in the background holds up",
        value=seconds["stall"],
        unit="s",
        beside=f"a save every {EVERY:.0f} s",
        ratio=share,
        aim="ratio <= 0.01",
        met=share <= 0.01,
    ).emit()
    for name, which, beside, label in (
        ("blocked", "the copy alone", "waited", "a save that all wait for"),
        (
            "waited",
            "durable when waited for",
            "keras save",
            "Keras save_weights + optimizer, fsync",
        ),
        ("load", "read, verified and loaded", "keras load", "Keras load_weights + optimizer"),
    ):
        ratio = seconds[name] / seconds[beside]
        Result(
            bench="checkpoint",
            what=f"{what}: {which}",
            value=seconds[name],
            unit="s",
            beside=label,
            ratio=ratio,
        ).emit()


class Step:
    """One optimizer step, counted in the trainer's progress."""

    def __init__(self, trainer: Trainer) -> None:
        import numpy as np

        from clusterseg.train import wishes
        from clusterseg.train.state import generator_seeds

        self._trainer = trainer
        self._flags = np.zeros(wishes.COUNT, np.float32)
        self._seeds = generator_seeds(0, 0, 0, len(trainer.assembly.state.generators))

    def seconds(self) -> float:
        images, labels = self._trainer.batch
        begin = time.perf_counter()
        self._trainer.assembly.train_step(
            images,
            labels,
            real=BATCH,
            learning_rate=0.001,
            seeds=self._seeds,
            flags=self._flags,
        )
        self._trainer.progress.advance(
            1.0, 1.0, global_batch=BATCH, epoch_samples=1_000_000 * BATCH
        )
        return time.perf_counter() - begin


def in_background(trainer: Trainer, step: Step) -> tuple[float, list[float]]:
    """Seconds that the next step waited, and those of the steps until the file was durable."""
    begin = time.perf_counter()
    trainer.saver.begin(trainer.progress)
    blocked = time.perf_counter() - begin
    beside: list[float] = []
    while trainer.saver._save is not None:
        beside.append(step.seconds())
        trainer.saver.poll()
    return blocked, beside


def waited_for(trainer: Trainer, step: Step) -> float:
    step.seconds()
    begin = time.perf_counter()
    trainer.saver.save(trainer.progress)
    return time.perf_counter() - begin


def load(trainer: Trainer) -> float:
    from clusterseg.runs.checkpoint_file import read_verified
    from clusterseg.runs.checkpoints import list_checkpoints

    newest = list_checkpoints(trainer.paths.checkpoints)[-1]
    begin = time.perf_counter()
    layout, data = read_verified(newest.path, newest.sha256)
    trainer.assembly.state.load(newest.name, layout, data)
    return time.perf_counter() - begin


def keras_files(trainer: Trainer, folder: Path) -> dict[str, float]:
    import h5py

    model, optimizer = peer(trainer.assembly.classes)
    weights, slots = folder / "peer.weights.h5", folder / "optimizer.h5"
    begin = time.perf_counter()
    model.save_weights(weights, overwrite=True)
    with h5py.File(slots, "w") as file:
        optimizer.save_own_variables(file)
    for path in (weights, slots):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    saved = time.perf_counter()
    model.load_weights(weights)
    with h5py.File(slots, "r") as file:
        optimizer.load_own_variables(file)
    loaded = time.perf_counter()
    return {"keras save": saved - begin, "keras load": loaded - saved}


@cache
def peer(classes: int) -> tuple[Any, Any]:
    """The same network and optimizer, which clusterseg knows nothing of."""
    import keras

    from clusterseg.models import build_model

    model = build_model("unet", classes, SIZE)
    optimizer = keras.optimizers.SGD(0.001, momentum=0.9)
    optimizer.build(model.trainable_variables)
    return model, optimizer


if __name__ == "__main__":
    main()
