"""Our Cityscapes scores beside those of the benchmark's own scripts, on any label maps."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clusterseg.metrics import cityscapes
from clusterseg.metrics.files import score_files
from clusterseg.metrics.pairing import pair
from tests.apart import command

pytestmark = pytest.mark.cityscapes

IDS = range(34)
WITH_INSTANCES = range(24, 34)

Tree = Callable[[np.random.Generator], list[tuple[Any, Any, Any]]]
Official = Callable[[list[str], list[str]], dict[str, Any]]


@pytest.fixture(scope="module")
def official() -> Iterator[Official]:
    """official(predictions, truths): what the scripts say of these files."""
    what = "the scripts of the Cityscapes benchmark"
    with subprocess.Popen(
        command("cityscapes.sh", "tests/metrics/official.py", what),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def ask(predictions: list[str], truths: list[str]) -> dict[str, Any]:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps([predictions, truths]) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

        yield ask
        assert process.stdin
        process.stdin.close()


def blocks(random: np.random.Generator, values: Any, shape: tuple[int, int], side: int) -> Any:
    coarse = random.choice(values, (shape[0] // side + 1, shape[1] // side + 1))
    return np.kron(coarse, np.ones((side, side), np.int64))[: shape[0], : shape[1]]


def scene(
    random: np.random.Generator,
    shape: tuple[int, int],
    *,
    labels: Any = IDS,
    predicted: Any = IDS,
    right: float = 0.7,
    side: int = 4,
    groups: float = 0.2,
    instance_side: int = 3,
) -> tuple[Any, Any, Any]:
    """(prediction, truth, instances): blocks of labels, of which `right` are predicted so; of what
    can be counted a part is a group."""
    truth = blocks(random, labels, shape, side)
    other = blocks(random, predicted, shape, max(1, side // 2))
    prediction = np.where(random.random(shape) < right, truth, other)
    number = blocks(random, range(30), shape, instance_side)
    counted = np.isin(truth, WITH_INSTANCES) & (number >= 30 * groups)
    instances = np.where(counted, truth * 1000 + number, truth)
    return prediction, truth, instances


def any_labels(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    shapes = ((37, 61), (64, 40), (5, 3))
    return [scene(random, shape) for shape in shapes]


def mostly_void(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    labels = [0, 1, 2, 3, 4, 5, 6, 0, 0, 3, 3, 7, 26]
    return [scene(random, (40, 50), labels=labels) for _ in range(2)]


def void_predicted(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    return [scene(random, (40, 50), labels=[7, 8, 24, 26], predicted=[0, 4, 9, 14], right=0.5)]


def only_predicted(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    """Bicycles are nowhere, but predicted; trains are there, but never predicted."""
    return [scene(random, (40, 50), labels=[7, 21, 31], predicted=[7, 33, 29], right=0.6)]


def nothing_counts(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    return [scene(random, (20, 20), labels=[0, 3, 14], predicted=[0, 3, 14, 7])]


def single_pixels(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    """Noise: runs and instances of one pixel."""
    return [
        scene(random, (50, 70), side=1, instance_side=1, groups=0.0, labels=WITH_INSTANCES),
        scene(random, (50, 70), side=1, right=0.0),
    ]


def long_runs(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    return [scene(random, (64, 300), side=32, right=1.0, instance_side=16)]


def all_groups(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    return [scene(random, (40, 50), labels=WITH_INSTANCES, groups=1.0)]


def caravans(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    """Ignored labels that have instances, in the truth and in the prediction."""
    return [scene(random, (60, 60), labels=[26, 29, 30, 33], predicted=[26, 29, 30, 28], right=0.4)]


def instances_of_other_labels(random: np.random.Generator) -> list[tuple[Any, Any, Any]]:
    """The instance map alone says what an instance is; ids of void labels are left out."""
    prediction, truth, _ = scene(random, (40, 50))
    ids = [24001, 25999, 26000, 33042, 29003, 30000, 1001, 6999, 14001, 1000, 999, 0]
    return [(prediction, truth, blocks(random, ids, truth.shape, 3))]


CASES: list[Tree] = [
    any_labels,
    mostly_void,
    void_predicted,
    only_predicted,
    nothing_counts,
    single_pixels,
    long_runs,
    all_groups,
    caravans,
    instances_of_other_labels,
]


def write(folder: Path, scenes: list[tuple[Any, Any, Any]], deep: bool) -> tuple[Path, Path]:
    guesses, truths = folder / "predictions", folder / "gtFine"
    for number, (prediction, truth, instances) in enumerate(scenes):
        city = ("aachen", "bochum", "ulm")[number % 3]
        name = f"{city}_{number:06d}_000019"
        for place in (guesses, truths):
            (place / city).mkdir(parents=True, exist_ok=True)
        guess = guesses / city / f"{name}_leftImg8bit.png" if deep else guesses / f"{name}.png"
        Image.fromarray(prediction.astype(np.uint8)).save(guess)
        for kind, values in (
            ("labelIds", truth.astype(np.uint8)),
            ("instanceIds", instances.astype(np.uint16)),
        ):
            Image.fromarray(values).save(truths / city / f"{name}_gtFine_{kind}.png")
    return guesses, truths


def both(official: Official, guesses: Path, truths: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    pairs = pair(guesses, truths)
    ours = cityscapes.judge(score_files(pairs, threads=2)).record()
    theirs = official([str(one.prediction) for one in pairs], [str(one.truth) for one in pairs])
    return ours, theirs


def flat(ours: dict[str, Any]) -> dict[str, float | None]:
    """Ours by their names."""
    found = {
        "averageScoreClasses": ours["mean_iou"],
        "averageScoreInstClasses": ours["mean_niou"],
        "averageScoreCategories": ours["mean_category_iou"],
        "averageScoreInstCategories": ours["mean_category_niou"],
    }
    for table, plain, instance in (
        ("classes", "classScores", "classInstScores"),
        ("categories", "categoryScores", "categoryInstScores"),
    ):
        for name, score in ours[table].items():
            found[f"{plain}/{name}"] = score["iou"]
            found[f"{instance}/{name}"] = score["niou"]
    return found


def named(theirs: dict[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key, value in theirs.items():
        if isinstance(value, dict):
            found |= {f"{key}/{name}": one for name, one in value.items()}
        else:
            found[key] = value
    return found


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    mine, wanted = flat(ours), named(theirs)
    assert mine.keys() <= wanted.keys()
    # What we leave out has no score: labels that are ignored, and the category of nothing else.
    assert {wanted[name] for name in wanted.keys() - mine.keys()} <= {None}
    for name, value in mine.items():
        other = wanted[name]
        assert (value is None) == (other is None), name
        if value is not None and other is not None:
            assert value == pytest.approx(other, abs=1e-12, rel=1e-12), name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_all_scores_are_those_of_the_scripts(
    official: Official, case: Tree, seed: int, tmp_path: Path
) -> None:
    guesses, truths = write(tmp_path, case(np.random.default_rng(seed)), deep=seed % 2 == 0)
    assert_equal(*both(official, guesses, truths))


def test_another_weight_would_be_seen(
    official: Official, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guesses, truths = write(tmp_path, any_labels(np.random.default_rng(0)), deep=False)
    sizes = {**cityscapes.AVERAGE_INSTANCE_PIXELS, "car": 12794.02}
    monkeypatch.setattr(cityscapes, "AVERAGE_INSTANCE_PIXELS", sizes)
    with pytest.raises(AssertionError, match="Inst"):
        assert_equal(*both(official, guesses, truths))
