"""Latency of exported files: Fast-SCNN at 512x1024 and 360x480, one picture at a time, one thread.

Keras' `predict`, the network in a `tf.function`, onnxruntime, LiteRT with float32 and int8, all in
one process of one core, in turns, round after round; medians count. The weights are drawn: they
don't matter to the time. The int8 file is calibrated on synthetic pictures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from result import Result

CLASSES, ROUNDS = 19, 15
SIZES = ((512, 1024), (360, 480))
NAMES = {"onnx": "onnxruntime", "tflite": "LiteRT", "tflite-int8": "LiteRT int8"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    # Before the libraries are loaded: what they make threads for is asked of the process.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
        for size in SIZES:
            report(size, measure(size, Path(folder) / f"{size[0]}", options.rounds))


def measure(size: tuple[int, int], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds a picture, of each contender and round."""
    from clusterseg.train.devices import prepare_tensorflow

    prepare_tensorflow(1, deterministic=False)
    import numpy as np

    from clusterseg.export.formats import FORMATS
    from clusterseg.export.graph import Form, function
    from clusterseg.export.network import Network
    from clusterseg.export.runtimes import open_file
    from clusterseg.export.samples import drawn
    from clusterseg.export.write import Wishes, export
    from clusterseg.models import build_model, normalisation_of

    print(f"exporting for {size[0]}x{size[1]}", file=sys.stderr)
    model = build_model("fastscnn", CLASSES, size)
    names = tuple(f"class {number}" for number in range(CLASSES))
    how = normalisation_of("fastscnn", {})
    network = Network("fastscnn", model, how, names, ((0, 0, 0),) * CLASSES, size)
    pictures = drawn(2, size=size)
    export(
        network,
        Wishes(tuple(NAMES), Form()),
        folder,
        samples=pictures,
        calibration=pictures,
    )
    infer = function(network, Form())
    contenders: dict[str, Callable[[Any], Any]] = {
        "Keras predict": lambda batch: model.predict(batch, verbose=0),
        "tf.function": lambda batch: np.asarray(infer(batch)),
    }
    for kind, name in NAMES.items():
        contenders[name] = open_file(folder / FORMATS[kind].file, threads=1)
    batch = np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32)
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 2):  # the first two allocate, and count nowhere
        for name, run in contenders.items():
            start = time.perf_counter()
            run(batch)
            if number >= 2:
                found[name].append(1000 * (time.perf_counter() - start))
    return found


def report(size: tuple[int, int], found: dict[str, list[float]]) -> None:
    tensorflow = statistics.median(found["tf.function"])
    for name, taken in found.items():
        p50, p90 = statistics.median(taken), statistics.quantiles(taken, n=10)[-1]
        ratio = tensorflow / p50
        aimed = name == "onnxruntime"
        Result(
            bench="export",
            what=f"fastscnn {size[0]}x{size[1]}, {name}, p90 {p90:.0f} ms, {1000 / p50:.1f} FPS",
            value=p50,
            unit="ms",
            beside="the network in a tf.function",
            ratio=ratio,
            aim="ratio >= 1" if aimed else "",
            met=ratio >= 1 if aimed else None,
        ).emit()


if __name__ == "__main__":
    main()
