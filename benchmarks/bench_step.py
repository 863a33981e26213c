"""A step with all that clusterseg does around it, beside the bare step of model and optimizer.

The same network, loss, optimizer and batch on one core: the trainer's own step (finite check over
all gradients, guarded update, seeds, flags, window and event log, watchdog, stop sources) and a
`tf.function` of forward pass, gradients and update. They take turns, round after round. The cost
of the agreement alone (asking for stops, packing and reading the flags) is counted apart.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from result import Result
from trainer import Trainer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZE, BATCH, ROUNDS, STEPS = (96, 128), 4, 15, 10
OPTIMIZER = {"name": "sgd", "momentum": 0.9, "learning_rate": 0.001}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder,
        Trainer(
            Path(folder),
            model="fastscnn",
            size=SIZE,
            batch=BATCH,
            optimizer=OPTIMIZER,
            checkpoint={"every": {"seconds": 3600}},
        ) as trainer,
    ):
        measure(trainer, options.rounds)


def measure(trainer: Trainer, rounds: int) -> None:
    from clusterseg.train.batches import StepBatch

    images, labels = trainer.batch
    batch = StepBatch(images, labels, [BATCH])
    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: trainer.loop._step(batch),
        "bare": bare_step(trainer),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for step in contenders.values():
        step()  # builds the graph
        step()
    for _ in range(rounds):
        for name, step in contenders.items():
            for _ in range(STEPS):
                begin = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["ours"] / medians["bare"]
    what = f"fastscnn, {SIZE[0]}x{SIZE[1]}, batch {BATCH}, one core"
    Result(
        bench="step",
        what=f"{what}: all guards on",
        value=medians["ours"],
        unit="s",
        beside="tf.function of model and optimizer",
        ratio=ratio,
        aim="ratio <= 1.03",
        met=ratio <= 1.03,
    ).emit()
    share = agreement(trainer) / medians["ours"]
    Result(
        bench="step",
        what=f"{what}: the agreement alone",
        value=share * medians["ours"],
        unit="s a step",
        beside="the step",
        ratio=share,
        aim="ratio < 0.005",
        met=share < 0.005,
    ).emit()


def bare_step(trainer: Trainer) -> Callable[[], Any]:
    """The same on a model of its own, as short as TensorFlow's guide writes it."""
    import keras
    import tensorflow as tf

    from clusterseg.losses import build_loss
    from clusterseg.models import build_model

    spec = trainer.spec.train
    assert spec is not None
    classes = trainer.assembly.classes
    loss = build_loss(spec.loss, classes)
    model = build_model(spec.model.name, classes, SIZE)
    optimizer = keras.optimizers.SGD(OPTIMIZER["learning_rate"], momentum=OPTIMIZER["momentum"])
    optimizer.build(model.trainable_variables)
    images, labels = trainer.batch

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss_sum, weight_sum = loss(labels, model(images, training=True))
            mean = loss_sum / weight_sum
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(mean, [one.value for one in variables]), variables)
        return mean

    return lambda: step(images, labels).numpy()


def agreement(trainer: Trainer) -> float:
    """Seconds a step: this rank's wishes into the vector, and what all want out of it."""
    import numpy as np

    from clusterseg.train import wishes

    count = 10_000
    begin = time.perf_counter()
    for _ in range(count):
        flags = wishes.pack(trainer.stops.flags(), cut=False, save=False)
        wishes.unpack(flags.astype(np.float64))
    return (time.perf_counter() - begin) / count


if __name__ == "__main__":
    main()
