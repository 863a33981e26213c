"""The input pipeline alone, in images/s: files to batches of one rank, on one thread.

Synthetic pictures on a local disk, read again and again, so files come from the page cache: it
shows what the processor does, not the disk. The peer is decoding alone: TensorFlow's own
`decode_png` of picture and mask in a tf.data map of the same threads, without labels' checks,
augmentation, normalisation or batches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from result import Result

from clusterseg.data import Part, open_dataset
from clusterseg.data.pipeline import batches
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.spec.model import DataSpec

ROUNDS = 7
# size -> (pictures, how often each is read in a round)
SIZES = {(96, 128): (96, 10), (360, 480): (24, 4), (1024, 2048): (4, 4)}
BATCH = 4
AUGMENT = [{"flip_horizontal": 0.5}, {"scale": [0.5, 2.0]}, {"brightness": 0.1}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="decoding threads")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    for size, (count, repeats) in SIZES.items():
        with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
            order = np.tile(np.arange(count, dtype=np.int64), repeats).reshape(-1, BATCH)
            part = written(Path(folder) / "data", size, count)
            measure(part, size, order, options.threads, options.rounds)


def written(root: Path, size: tuple[int, int], count: int) -> Part:
    print(f"writing {count} pictures of {size[0]}x{size[1]}", file=sys.stderr)
    write_dataset(Recipe("camvid", train=count, val=1, test=0, size=size, seed=0), root)
    return open_dataset(DataSpec(format="camvid", root=str(root)), 255).train


def measure(
    part: Part, size: tuple[int, int], indices: NDArray[np.int64], threads: int, rounds: int
) -> None:
    def ours(augment: list[dict[str, Any]]) -> Iterable[Any]:
        return batches(
            part,
            indices,
            seed=0,
            epoch=0,
            augment=augment,
            size=size,
            ignore=255,
            threads=threads,
        )

    files = [(str(part.samples[i].image), str(part.samples[i].mask)) for i in indices.reshape(-1)]
    sources: dict[str, Callable[[], Iterable[Any]]] = {
        "decode alone": lambda: decode_alone(files, threads),
        "not augmented": lambda: ours([]),
        "flip, scale, brightness": lambda: ours(AUGMENT),
    }
    speeds: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(rounds + 1):  # in turns, so that a busy moment spoils one round of all
        for name, source in sources.items():
            speed = speed_of(source(), indices.size)
            if number > 0:  # the first one warms caches and traces graphs
                speeds[name].append(speed)
    peer = statistics.median(speeds["decode alone"])
    for name, measured in speeds.items():
        value = statistics.median(measured)
        Result(
            bench="input",
            what=f"{size[0]}x{size[1]}, {threads} thread(s): {name}",
            value=value,
            unit="images/s",
            beside="" if name == "decode alone" else "decode alone",
            ratio=None if name == "decode alone" else value / peer,
        ).emit()


def decode_alone(files: list[tuple[str, str]], threads: int) -> Iterable[Any]:
    def decode(names: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_png(tf.io.read_file(names[0]), channels=3)
        return image, tf.io.decode_png(tf.io.read_file(names[1]), channels=1)

    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(files))
    dataset = dataset.map(decode, num_parallel_calls=threads, deterministic=True).prefetch(8)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    return dataset.with_options(options)


def speed_of(source: Iterable[Any], images: int) -> float:
    start = time.perf_counter()
    for _ in source:
        pass
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
