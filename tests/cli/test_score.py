"""`evaluate --predictions`: files against files, whatever their trees look like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Done

Cli = Callable[..., Done]

CLASSES = 19
KEYS = {
    "mean_iou",
    "mean_niou",
    "classes",
    "categories",
    "mean_category_iou",
    "mean_category_niou",
    "pictures",
}


def save(path: Path, values: object, dtype: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype)).save(path)
    return path


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two pictures: half of the road of the second is called car."""
    truth, guesses = tmp_path / "gtFine" / "val", tmp_path / "predictions"
    road, mixed = [[7, 7, 26, 26]], [[7, 26, 26, 26]]
    for city, frame, prediction in (("ulm", 19, road), ("bonn", 190, mixed)):
        name = f"{city}_000001_{frame:06d}"
        save(truth / city / f"{name}_gtFine_labelIds.png", road)
        ids = [[7, 7, 26000, 26000]]
        save(truth / city / f"{name}_gtFine_instanceIds.png", ids, np.uint16)
        save(truth / city / f"{name}_gtFine_color.png", np.zeros((1, 4, 3)))
        save(guesses / "a" / city / f"{name}_leftImg8bit.png", prediction)
    return guesses, truth


def asked(cli: Cli, trees: tuple[Path, Path], *more: str) -> Done:
    guesses, truth = trees
    where = ("--predictions", guesses, "--ground-truth", truth, "--format", "cityscapes")
    return cli("evaluate", *where, *more)


def test_scores_as_json(cli: Cli, trees: tuple[Path, Path]) -> None:
    done = asked(cli, trees, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.json.keys() == KEYS
    assert done.json["pictures"] == 2
    assert len(done.json["classes"]) == CLASSES
    assert done.json["classes"]["road"] == {"iou": 3 / 4, "niou": None}
    assert done.json["classes"]["car"]["iou"] == 4 / 5
    assert done.json["mean_iou"] == pytest.approx((3 / 4 + 4 / 5) / 2, rel=1e-15)
    assert set(done.json["categories"]) == {
        "flat",
        "construction",
        "object",
        "nature",
        "sky",
        "human",
        "vehicle",
    }
    assert done.json["categories"]["vehicle"]["iou"] == 4 / 5


def test_scores_as_text(cli: Cli, trees: tuple[Path, Path]) -> None:
    done = asked(cli, trees)
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines() if line)
    assert rows["road"].split() == ["0.75", "-"]
    assert rows["flat"].split() == ["0.75", "-"]
    assert rows["class"].split() == rows["category"].split() == ["iou", "niou"]


def test_the_plot_shows_the_scores_that_are_told(
    cli: Cli, trees: tuple[Path, Path], tmp_path: Path
) -> None:
    """Labels that count nowhere, in the truth or predicted, are no classes there either."""
    guesses, truth = trees
    save(next(guesses.rglob("ulm*.png")), [[7, 4, 26, 29]])
    save(next(truth.rglob("bonn*labelIds.png")), [[9, 7, 26, 29]])
    save(next(guesses.rglob("bonn*.png")), [[9, 26, 26, 26]])
    plot = tmp_path / "confusion.png"
    done = asked(cli, trees, "--plot", plot, "--json")
    assert done.code == 0, done.err
    with Image.open(plot) as picture:
        assert picture.info["Title"].endswith(f"mean IoU {done.json['mean_iou']:.4f}")
    gone = asked(cli, trees, "--plot", tmp_path / "gone" / "confusion.png")
    assert (gone.code, gone.out) == (2, "") and "no folder" in gone.err


def test_scores_are_told_where_the_plot_can_not_be_written(
    cli: Cli, trees: tuple[Path, Path]
) -> None:
    done = asked(cli, trees, "--plot", "/proc/confusion.png", "--json")
    assert (done.code, done.json["pictures"]) == (1, 2)
    assert "/proc/confusion.png can't be written" in done.err
    folder = asked(cli, trees, "--plot", trees[0])
    assert (folder.code, folder.out) == (2, "") and "is a folder" in folder.err


def test_without_instances_there_is_no_niou_and_it_is_said(
    cli: Cli, trees: tuple[Path, Path]
) -> None:
    for path in trees[1].rglob("*instanceIds.png"):
        path.unlink()
    done = asked(cli, trees, "--json")
    assert done.code == 0
    assert "no nIoU" in done.err
    assert done.json["mean_niou"] is None and done.json["mean_iou"] > 0.7


def test_linked_folders_and_files_that_are_none_of_ours(cli: Cli, trees: tuple[Path, Path]) -> None:
    guesses, truth = trees
    (guesses / "again").symlink_to(guesses / "a")  # each folder counts once
    (guesses / "around").symlink_to(guesses)
    (guesses / "notes.txt").write_text("")
    save(guesses / "rome_000001_000001_leftImg8bit.png", [[7]])  # no truth: left alone
    elsewhere = truth.parent / "linked"
    elsewhere.mkdir()
    (elsewhere / "val").symlink_to(truth)
    done = asked(cli, (guesses, elsewhere), "--json")
    assert (done.code, done.json["pictures"]) == (0, 2)


def test_a_frame_is_not_one_whose_number_goes_on(cli: Cli, trees: tuple[Path, Path]) -> None:
    guesses, _ = trees
    save(guesses / "ulm_000001_0000190.png", [[0, 0, 0, 0]])
    assert asked(cli, trees, "--json").json["classes"]["road"]["iou"] == 3 / 4


def test_label_ids_beside_colours_are_taken(cli: Cli, trees: tuple[Path, Path]) -> None:
    """As `predict` and the data set itself write them."""
    guesses, truth = trees
    assert asked(cli, (truth, truth), "--json").json["mean_iou"] == 1
    for path in list(guesses.rglob("*_leftImg8bit.png")):
        path.rename(path.with_name(path.name.replace("leftImg8bit", "labelIds")))
        save(path.with_name(path.name.replace("leftImg8bit", "color")), np.zeros((1, 4, 3)))
    assert asked(cli, trees, "--json").json["classes"]["road"]["iou"] == 3 / 4


def missing(guesses: Path, truth: Path) -> None:
    next(guesses.rglob("bonn*.png")).unlink()


def twice(guesses: Path, truth: Path) -> None:
    save(guesses / "b" / "bonn_000001_000190.png", [[7, 7, 7, 7]])


def truth_twice(guesses: Path, truth: Path) -> None:
    save(truth / "bonn_000001_000190_gtCoarse_labelIds.png", [[7, 7, 7, 7]])


def one_without_instances(guesses: Path, truth: Path) -> None:
    next(truth.rglob("bonn*instanceIds.png")).unlink()


def no_truth(guesses: Path, truth: Path) -> None:
    for path in truth.rglob("*labelIds.png"):
        path.unlink()


def train_ids(guesses: Path, truth: Path) -> None:
    save(next(guesses.rglob("bonn*.png")), [[0, 13, 13, 255]])


def colours(guesses: Path, truth: Path) -> None:
    save(next(guesses.rglob("bonn*.png")), np.zeros((1, 4, 3)))


def another_size(guesses: Path, truth: Path) -> None:
    save(next(guesses.rglob("bonn*.png")), [[7, 7]])


def torn(guesses: Path, truth: Path) -> None:
    path = next(truth.rglob("bonn*labelIds.png"))
    path.write_bytes(path.read_bytes()[:45])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing, ["no prediction for 1 of 2 pictures", "bonn_000001_000190"]),
        (twice, ["several predictions of bonn_000001_000190"]),
        (truth_twice, ["several ground truths of bonn_000001_000190"]),
        (one_without_instances, ["no *_instanceIds.png beside it", "bonn"]),
        (no_truth, ["holds no ground truth", "gtFine/val"]),
        (train_ids, ["bonn_000001_000190", "255", "these look like train ids"]),
        (colours, ["bonn_000001_000190", "3 channels"]),
        (another_size, ["bonn_000001_000190", "1x2", "1x4"]),
        (torn, ["bonn_000001_000190_gtFine_labelIds.png", "not readable"]),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_is_wrong_is_named(
    cli: Cli,
    trees: tuple[Path, Path],
    spoil: Callable[[Path, Path], None],
    said: list[str],
) -> None:
    spoil(*trees)
    done = asked(cli, trees)
    assert (done.code, done.out) == (2, "")
    assert all(one in done.err for one in said), done.err
    errors = msgspec.json.decode(asked(cli, trees, "--json").out)["errors"]
    assert errors[0]["message"] in done.err


def test_half_a_request_is_told(cli: Cli, trees: tuple[Path, Path]) -> None:
    guesses, truth = trees
    assert "--ground-truth is missing" in cli("evaluate", "--predictions", guesses).err
    assert "--predictions is missing" in cli("evaluate", "--ground-truth", truth).err
    assert "needs a run" in cli("evaluate").err
    both = cli("evaluate", "some-run", "--predictions", guesses, "--ground-truth", truth)
    assert both.code == 2 and "no run" in both.err
    other = (*("--predictions", guesses), *("--ground-truth", truth), *("--format", "voc"))
    assert "cityscapes" in cli("evaluate", *other).err
    gone = cli("evaluate", "--predictions", guesses / "x", "--ground-truth", truth)
    assert gone.code == 2 and "does not exist" in gone.err
    long = cli("evaluate", "--predictions", "x" * 300, "--ground-truth", truth)
    assert long.code == 2 and "may not be looked at" in long.err


@pytest.mark.parametrize(
    "option",
    [
        ("--scales", "0.5,1"),
        ("--flip",),
        ("--tile", "32x32"),
        ("--overlap", "0.5"),
        ("--samples", "2"),
        ("--seed", "1"),
        ("--refine", "1"),
        ("--part", "test"),
        ("--executor", "local"),
        ("--runs-dir", "runs"),
    ],
    ids=lambda one: one[0],
)
def test_options_that_would_do_nothing_are_refused(
    cli: Cli, trees: tuple[Path, Path], option: tuple[str, ...]
) -> None:
    done = asked(cli, trees, *option)
    assert (done.code, done.out) == (2, "")
    assert option[0] in done.err


def test_train_ids_without_255_are_noted(cli: Cli, trees: tuple[Path, Path]) -> None:
    """All of them are label ids, too: the scores alone would not tell."""
    for path, values in zip(sorted(trees[0].rglob("*.png")), ([0, 0], [13, 13]), strict=True):
        save(path, [values * 2])
    done = asked(cli, trees, "--json")
    assert (done.code, done.json["mean_iou"]) == (0, 0)
    assert "train ids" in done.err
    save(path, [[0, 0, 0, 26]])
    assert "train ids" not in asked(cli, trees, "--json").err
    for truth in trees[1].rglob("*Ids.png"):
        save(truth, [[7, 7, 11, 11]])
    save(path, [[7, 7, 7, 11]])
    assert asked(cli, trees, "--json").err == ""


def test_tensorflow_is_not_loaded(trees: tuple[Path, Path]) -> None:
    guesses, truth = trees
    heavy = {"tensorflow", "keras", "matplotlib", "h5py"}
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(sorted({heavy} & set(sys.modules))))\n"
        "from clusterseg.cli.main import main\n"
        f"main(['evaluate', '--predictions', {str(guesses)!r}, '--ground-truth', {str(truth)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
