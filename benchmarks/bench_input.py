"""The input pipeline alone, in images/s: files to batches of one rank, on one thread.

CamVid's layout at three sizes; at Cityscapes' own size its layout, the same pictures as TFRecord
shards, and each augmentation by itself.

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
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from result import Result

from clusterseg.data import Dataset, Part, open_dataset
from clusterseg.data.convert.write import convert
from clusterseg.data.pipeline import batches
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.spec.model import DataSpec

ROUNDS = 7
# size -> (pictures, how often each is read in a round)
SIZES = {(96, 128): (96, 10), (360, 480): (24, 4), (1024, 2048): (4, 4)}
BATCH = 4
AUGMENT = [{"flip_horizontal": 0.5}, {"scale": [0.5, 2.0]}, {"brightness": 0.1}]
LARGE = (1024, 2048)
Sources = dict[str, Callable[[], Iterable[Any]]]
# Each as strong as in the recipes; those that make another size are followed by one to LARGE.
EACH: list[list[dict[str, Any]]] = [
    [{"flip_horizontal": 0.5}],
    [{"flip_vertical": 0.5}],
    [{"brightness": 0.1}],
    [{"brightness_factor": [0.75, 1.25]}],
    [{"contrast": 0.25}],
    [{"color": 0.25}],
    [{"sharpness": 0.25}],
    [{"hue": 0.04}],
    [{"rotate": 10}],
    [{"blur": 2.0}],
    [{"cutout": 0.25}],
    [{"erase": {"probability": 1.0, "area": [0.02, 0.2], "ratio": [0.5, 2.0]}}],
    [{"scale": [0.5, 2.0]}],
    [{"crop": [0.6, 1.0]}],
    [{"random_resized_crop": {"scale": [0.3, 1.0], "ratio": [1.5, 2.5]}}],
    [{"scale_file": {"factor": [0.5, 2.0], "step": 0.25}}],
    [{"resize_range": [1024, 2048]}],
    [{"pad": 32}, {"random_crop": [1024, 2048]}],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="decoding threads")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    for size in SIZES:
        camvid(size, options)
    cityscapes(options)


def camvid(size: tuple[int, int], options: argparse.Namespace) -> None:
    count, order = reading(size)
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
        part = written("camvid", Path(folder) / "data", size, count).train
        read = partial(ours, part, order, size, options.threads)
        sources: Sources = {
            "decode alone": partial(decode_alone, part, order, options.threads),
            "not augmented": read,
            "flip, scale, brightness": partial(read, AUGMENT),
        }
        measure(sources, order.size, f"{size[0]}x{size[1]}", options)


def cityscapes(options: argparse.Namespace) -> None:
    count, order = reading(LARGE)
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as folder:
        data, shards = Path(folder) / "data", Path(folder) / "shards"
        streets = written("cityscapes", data, LARGE, count)
        convert(streets, data, shards, 255, workers=2)
        records = open_dataset(DataSpec(format="tfrecord", root=str(shards)), 255).train
        read = partial(ours, streets.train, order, LARGE, options.threads)
        sources: Sources = {
            "decode alone": partial(decode_alone, streets.train, order, options.threads),
            "files": read,
            "TFRecord": partial(ours, records, order, LARGE, options.threads),
        }
        for augment in EACH:
            sources[", ".join(name for one in augment for name in one)] = partial(read, augment)
        measure(sources, order.size, f"cityscapes {LARGE[0]}x{LARGE[1]}", options)


def reading(size: tuple[int, int]) -> tuple[int, NDArray[np.int64]]:
    """(pictures, the order in which they are read)."""
    count, repeats = SIZES[size]
    return count, np.tile(np.arange(count, dtype=np.int64), repeats).reshape(-1, BATCH)


def written(layout: str, root: Path, size: tuple[int, int], count: int) -> Dataset:
    print(f"writing {count} pictures of {size[0]}x{size[1]}, {layout}", file=sys.stderr)
    write_dataset(Recipe(layout, train=count, val=1, test=0, size=size, seed=0), root)
    return open_dataset(DataSpec(format=layout, root=str(root)), 255)


def ours(
    part: Part,
    indices: NDArray[np.int64],
    size: tuple[int, int],
    threads: int,
    augment: Sequence[dict[str, Any]] = (),
) -> Iterable[Any]:
    return batches(
        part, indices, seed=0, epoch=0, augment=augment, size=size, ignore=255, threads=threads
    )


def measure(
    sources: Sources,
    images: int,
    what: str,
    options: argparse.Namespace,
) -> None:
    """Each source in turns, beside the one that decodes alone."""
    threads, rounds = options.threads, options.rounds
    speeds: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(rounds + 1):  # in turns, so that a busy moment spoils one round of all
        for name, source in sources.items():
            speed = speed_of(source(), images)
            if number > 0:  # the first one warms caches and traces graphs
                speeds[name].append(speed)
    peer = statistics.median(speeds["decode alone"])
    for name, measured in speeds.items():
        value = statistics.median(measured)
        Result(
            bench="input",
            what=f"{what}, {threads} thread(s): {name}",
            value=value,
            unit="images/s",
            beside="" if name == "decode alone" else "decode alone",
            ratio=None if name == "decode alone" else value / peer,
        ).emit()


def decode_alone(part: Part, indices: NDArray[np.int64], threads: int) -> Iterable[Any]:
    files = [(str(part.samples[i].image), str(part.samples[i].mask)) for i in indices.reshape(-1)]

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
