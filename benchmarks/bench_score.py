"""Scoring label maps of 1024x2048 as Cityscapes does, beside the benchmark's own scripts.

The scripts run in the old environment that they need (tools/cityscapes.sh); both read the same
files, on one core, in turns, and must come to the same mean IoU. Synthetic streets, predicted a few
pixels beside their place and wrongly in patches, are like what a network gives; noise, of which no
two pixels are alike, is the worst there can be.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from result import Result

from clusterseg.data.synth.city import city_scene
from clusterseg.metrics.cityscapes import judge, tally
from clusterseg.metrics.files import score_files
from clusterseg.metrics.pairing import Pair

TOP = Path(__file__).resolve().parent.parent
SIZE = (1024, 2048)
FILES, MANY, NOISE = 20, 100, 4
ROUNDS = 5
SHIFT = 3  # pixels
PATCH, WRONG = 16, 0.04  # pixels; share of the patches
LABELS = 34

Maps = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # truth, prediction, instances
Lists = tuple[list[str], list[str]]  # predictions, ground truths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", action="store_true", help="score the files that stdin names")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    place = subprocess.run(
        [TOP / "tools" / "cityscapes.sh", "path"], capture_output=True, text=True, check=False
    )
    if place.returncode:
        sys.exit("the benchmark's scripts are not there: tools/cityscapes.sh gets them")
    scripts = Path(place.stdout.strip())
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as name:
        folder = Path(name)
        print(f"drawing {FILES} streets of {SIZE[0]}x{SIZE[1]}", file=sys.stderr)
        streets = [street(number) for number in range(FILES)]
        maps = {"streets": streets[0], "noise": noise(0)}
        for what, one in maps.items():
            matrix_alone(what, one, options.rounds)
        listed = written(folder / "streets", streets)
        noises = written(folder / "noise", [noise(number) for number in range(NOISE)])
        whole("streets", listed, scripts, options.rounds, aim=10)
        whole("maps of noise", noises, scripts, options.rounds, aim=None)
        memory(listed, copied(folder / "more", listed, MANY), scripts)


def street(number: int) -> Maps:
    """A street, and what a network may make of it."""
    scene = city_scene((0, number), *SIZE)
    other = city_scene((1, number), *SIZE).label_ids
    random = np.random.default_rng(number)
    patches = random.random((SIZE[0] // PATCH, SIZE[1] // PATCH)) < WRONG
    wrong = np.kron(patches, np.ones((PATCH, PATCH), bool))
    prediction = np.where(wrong, other, np.roll(scene.label_ids, SHIFT, axis=1))
    return scene.label_ids, prediction, scene.instance_ids


def noise(number: int) -> Maps:
    random = np.random.default_rng(number)
    truth, prediction = random.integers(0, LABELS, (2, *SIZE), np.uint8)
    counted = (truth >= 24) & (random.random(SIZE) < 0.8)
    instances = np.where(
        counted, 1000 * truth.astype(np.int32) + random.integers(0, 9, SIZE), truth
    )
    return truth, prediction, instances.astype(np.uint16)


def written(folder: Path, streets: list[Maps]) -> Lists:
    folder.mkdir()
    predictions, truths = [], []
    for number, (truth, prediction, instances) in enumerate(streets):
        name = f"{folder / 'street'}_{number:06d}_000019"
        truths.append(f"{name}_gtFine_labelIds.png")
        predictions.append(f"{name}_prediction.png")
        Image.fromarray(truth).save(truths[-1])
        Image.fromarray(prediction).save(predictions[-1])
        Image.fromarray(instances).save(instance_file(truths[-1]))
    return predictions, truths


def copied(folder: Path, listed: Lists, count: int) -> Lists:
    """`count` files of the same contents."""
    folder.mkdir()
    predictions, truths = [], []
    for number in range(count):
        name = f"{folder / 'street'}_{number:06d}_000019"
        predictions.append(f"{name}_prediction.png")
        truths.append(f"{name}_gtFine_labelIds.png")
        prediction, truth = (paths[number % len(paths)] for paths in listed)
        os.link(prediction, predictions[-1])
        os.link(truth, truths[-1])
        os.link(instance_file(truth), instance_file(truths[-1]))
    return predictions, truths


def instance_file(truth: str) -> str:
    return truth.replace("labelIds", "instanceIds")


def matrix_alone(what: str, maps: Maps, rounds: int) -> None:
    truth, prediction, _ = maps

    def as_the_scripts() -> object:
        return np.unique(truth.astype(np.int32) * LABELS + prediction, return_counts=True)

    ours, theirs = in_turns(lambda: tally(truth, prediction, None), as_the_scripts, rounds)
    report(f"confusion matrix, {what}", ours, theirs, "np.unique, as in the scripts", aim=None)


def whole(what: str, lists: Lists, scripts: Path, rounds: int, *, aim: float | None) -> None:
    files = len(lists[0])
    with ours() as mine, official(scripts) as their:
        one, other = mine.score(lists), their.score(lists)
        if abs(one - other) > 1e-9:
            sys.exit(f"not the same mean IoU of {what}: {one} and {other}")
        seconds = in_turns(lambda: mine.score(lists), lambda: their.score(lists), rounds)
    report(
        f"all scores of {files} {what}, one core, a file",
        *(one / files for one in seconds),
        "the benchmark's scripts",
        aim=aim,
    )


def memory(few: Lists, many: Lists, scripts: Path) -> None:
    for name, process in (("", ours), ("the benchmark's scripts: ", lambda: official(scripts))):
        peaks = []
        for lists in (few, many):
            with process() as scorer:
                scorer.score(lists)
                peaks.append(scorer.peak())
        Result(
            bench="score",
            what=f"{name}peak memory of {len(many[0])} files",
            value=peaks[1],
            unit="MB",
            beside=f"of {len(few[0])} files",
            ratio=peaks[1] / peaks[0],
            aim="" if name else "< 40 MB more",
            met=None if name else peaks[1] - peaks[0] < 40,
        ).emit()


class Process:
    """A scorer on the first core; lists go in as lines of JSON, results come out."""

    def __init__(self, command: list[str], key: str) -> None:
        self._key = key
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, {min(os.sched_getaffinity(0))})

    def __enter__(self) -> Process:
        return self

    def score(self, lists: Lists) -> float:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(lists) + "\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline())[self._key])

    def peak(self) -> float:
        """Megabytes that it has needed at most."""
        status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        (line,) = (line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1e3

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def ours() -> Process:
    return Process([sys.executable, __file__, "--serve"], "mean_iou")


def official(scripts: Path) -> Process:
    program = TOP / "tests" / "metrics" / "official.py"
    command = [scripts / "python", "-S", "-E", program, scripts / "packages"]
    return Process([str(word) for word in command], "averageScoreClasses")


def serve() -> None:
    for line in sys.stdin:
        predictions, truths = json.loads(line)
        pairs = [
            Pair(truth, Path(prediction), Path(truth), Path(instance_file(truth)))
            for prediction, truth in zip(predictions, truths, strict=True)
        ]
        found = judge(score_files(pairs, threads=1))
        print(json.dumps({"mean_iou": found.mean_classes.iou}), flush=True)


def in_turns(
    one: Callable[[], object], other: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Medians of the seconds, after a round that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for call, found in zip((one, other), seconds, strict=True):
            start = time.perf_counter()
            call()
            if number:
                found.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def report(what: str, mine: float, theirs: float, beside: str, *, aim: float | None) -> None:
    Result(
        bench="score",
        what=f"{what}, {SIZE[0]}x{SIZE[1]}",
        value=1e3 * mine,
        unit="ms",
        beside=f"{beside} ({1e3 * theirs:.0f} ms)",
        ratio=theirs / mine,
        aim="" if aim is None else f"{aim:g} times as fast",
        met=None if aim is None else theirs / mine >= aim,
    ).emit()


if __name__ == "__main__":
    main()
