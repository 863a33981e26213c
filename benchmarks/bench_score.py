"""Scoring label maps of 1024x2048 as Cityscapes does, beside the benchmark's own scripts.

The scripts are cityscapesScripts as PyPI has it, one wheel of pure Python (its Cython is not in it,
and pip doesn't build it), in the old environment that they need (tools/cityscapes.sh). Both read
the same files, in turns, and must come to the same mean IoU: on one core, by the processor time it
takes, and as whole processes, on all cores there are (the scripts use one). Synthetic streets,
predicted a few pixels beside their place and wrongly in patches, are like what a network gives;
noise, of which no two pixels are alike, is the worst there can be.
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
from scorer import Lists, Process

from clusterseg.data.synth.city import city_scene
from clusterseg.metrics.cityscapes import judge, tally
from clusterseg.metrics.files import read_values, score_files
from clusterseg.metrics.memory import keep_freed_memory
from clusterseg.metrics.pairing import Pair

TOP = Path(__file__).resolve().parent.parent
SIZE = (1024, 2048)
FILES, MANY, NOISE = 20, 60, 4
ROUNDS, WHOLE_ROUNDS = 5, 3
TIMES = 10  # a matrix takes milliseconds: one figure is of so many
SHIFT = 3  # pixels
PATCH, WRONG = 16, 0.04  # pixels; share of the patches
LABELS = 34

Maps = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # truth, prediction, instances
Clock = Callable[[], float]  # seconds


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
        keep_freed_memory()  # as the command does
        streets = [street(number) for number in range(FILES)]
        listed = written(folder / "streets", streets)
        noises = written(folder / "noise", [noise(number) for number in range(NOISE)])
        for what, lists in (("a street", listed), ("noise", noises)):
            matrix_alone(what, lists, scripts, options.rounds)
        whole("streets", listed, scripts, options.rounds, aim=10)
        whole("maps of noise", noises, scripts, options.rounds, aim=None)
        many = copied(folder / "more", listed, MANY)
        whole_processes(many, scripts, min(options.rounds, WHOLE_ROUNDS))
        memory(listed, many, scripts)


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
    predictions, truths = names(folder, len(streets))
    for number, (truth, prediction, instances) in enumerate(streets):
        Image.fromarray(truth).save(truths[number])
        Image.fromarray(prediction).save(predictions[number])
        Image.fromarray(instances).save(instance_file(truths[number]))
    return predictions, truths


def names(folder: Path, count: int) -> Lists:
    """Files in folders that this makes: one for the predictions, one for the ground truths."""
    folders = folder / "predictions", folder / "gtFine"
    for one in folders:
        one.mkdir(parents=True)
    keys = [f"street_{number:06d}_000019" for number in range(count)]
    predictions, truths = ([str(one / key) for key in keys] for one in folders)
    return (
        [f"{name}_prediction.png" for name in predictions],
        [f"{name}_gtFine_labelIds.png" for name in truths],
    )


def copied(folder: Path, listed: Lists, count: int) -> Lists:
    """`count` files of the same contents."""
    predictions, truths = names(folder, count)
    for number in range(count):
        prediction, truth = (paths[number % len(paths)] for paths in listed)
        os.link(prediction, predictions[number])
        os.link(truth, truths[number])
        os.link(instance_file(truth), instance_file(truths[number]))
    return predictions, truths


def instance_file(truth: str) -> str:
    return truth.replace("labelIds", "instanceIds")


def matrix_alone(what: str, lists: Lists, scripts: Path, rounds: int) -> None:
    """Of the first picture; of the scripts it is their own function, on pictures that are read."""
    one = lists[0][:1], lists[1][:1]
    prediction, truth = (read_values(Path(paths[0])) for paths in one)
    mine, theirs = [], []
    with official(scripts, TOP / "benchmarks" / "official_matrix.py", "seconds") as their:
        for number in range(rounds + 1):
            start = time.process_time()
            for _ in range(TIMES):
                tally(truth, prediction, None)
            found = (time.process_time() - start) / TIMES, their.score(one)
            if number:
                mine.append(found[0])
                theirs.append(found[1])
    report(
        f"confusion matrix alone, {what}, one core",
        *(statistics.median(seconds) for seconds in (mine, theirs)),
        "the benchmark's scripts",
        aim=10,
    )


def whole(what: str, lists: Lists, scripts: Path, rounds: int, *, aim: float | None) -> None:
    files = len(lists[0])
    with ours() as mine, official(scripts) as their:
        one, other = mine.score(lists), their.score(lists)
        if abs(one - other) > 1e-9:
            sys.exit(f"not the same mean IoU of {what}: {one} and {other}")
        seconds = in_turns(
            lambda: mine.score(lists), lambda: their.score(lists), rounds, (mine.spent, their.spent)
        )
    report(
        f"all scores of {files} {what} ({kilobytes(lists)}), one core, a picture",
        *(one / files for one in seconds),
        "the benchmark's scripts",
        aim=aim,
    )


def kilobytes(lists: Lists) -> str:
    """Of a file of each kind, on average."""
    kinds = *lists, [instance_file(truth) for truth in lists[1]]
    sizes = (sum(Path(one).stat().st_size for one in paths) / len(paths) / 1e3 for paths in kinds)
    return " + ".join(f"{size:.0f}" for size in sizes) + " KB"


def whole_processes(lists: Lists, scripts: Path, rounds: int) -> None:
    """The command beside the scripts, from start to end."""
    folders = [str(Path(paths[0]).parent) for paths in lists]
    words = "evaluate", "--predictions", folders[0], "--ground-truth", folders[1], "--json"
    program = Path(sys.executable).parent / "clusterseg"

    def command() -> float:
        done = subprocess.run([program, *words], check=True, capture_output=True, text=True)
        return float(json.loads(done.stdout)["mean_iou"])

    def the_scripts() -> float:
        with official(scripts) as their:
            return their.score(lists)

    one, other = command(), the_scripts()
    if abs(one - other) > 1e-9:
        sys.exit(f"not the same mean IoU of whole processes: {one} and {other}")
    seconds = in_turns(command, the_scripts, rounds)
    cores, files = len(os.sched_getaffinity(0)), len(lists[0])
    report(
        f"`evaluate` of {files} streets, {cores} cores, start included, a picture",
        *(one / files for one in seconds),
        "the benchmark's scripts, one core",
        aim=10,
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


def ours() -> Process:
    return Process([sys.executable, __file__, "--serve"], "mean_iou")


def official(
    scripts: Path,
    program: Path = TOP / "tests" / "metrics" / "official.py",
    key: str = "averageScoreClasses",
) -> Process:
    command = [scripts / "python", "-S", "-E", program, scripts / "packages"]
    return Process([str(word) for word in command], key)


def serve() -> None:
    keep_freed_memory()
    for line in sys.stdin:
        predictions, truths = json.loads(line)
        pairs = [
            Pair(truth, Path(prediction), Path(truth), Path(instance_file(truth)))
            for prediction, truth in zip(predictions, truths, strict=True)
        ]
        found = judge(score_files(pairs, threads=1))
        print(json.dumps({"mean_iou": found.mean_classes.iou}), flush=True)


def in_turns(
    one: Callable[[], object],
    other: Callable[[], object],
    rounds: int,
    clocks: tuple[Clock, Clock] = (time.perf_counter, time.perf_counter),
) -> tuple[float, float]:
    """Medians of the seconds by each one's clock, after a round that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for call, found, clock in zip((one, other), seconds, clocks, strict=True):
            start = clock()
            call()
            if number:
                found.append(clock() - start)
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
