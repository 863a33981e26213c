"""The Cityscapes scores of a run are those of its predictions in files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from clusterseg.data import open_dataset
from clusterseg.data.cityscapes import ID_TO_TRAIN, TRAIN_TO_ID
from clusterseg.data.convert.write import convert
from clusterseg.data.files import picture_size
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.metrics.cityscapes import Tally, judge
from clusterseg.metrics.files import score_files
from clusterseg.metrics.pairing import pair
from clusterseg.models import build_model
from clusterseg.runs.checkpoint_file import write_file
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import DataSpec, JobSpec, TrainSpec
from clusterseg.train import evaluate
from clusterseg.train.benchmark import benchmark_scores, counting_of
from clusterseg.train.inference import device as inference_device
from clusterseg.train.inference.classes import classes_of
from clusterseg.train.inference.device import Prepared
from clusterseg.train.inference.inputs import find
from clusterseg.train.inference.source import Source
from clusterseg.train.inference.task import predict_files
from clusterseg.train.state import tensor_of
from tests.train.runs import job


@pytest.mark.parametrize("batch", [1, 2])
def test_counting_batches_is_scoring_files(tmp_path: Path, batch: int) -> None:
    """Three pictures in batches that are padded, in width and in number."""
    root = tmp_path / "data"
    write_dataset(Recipe(format="cityscapes", train=1, val=3, test=0, size=(32, 64), seed=0), root)
    dataset = open_dataset(DataSpec(format="cityscapes", root=str(root)), 255)
    part = dataset.validation
    counting = counting_of(dataset, part)
    assert counting is not None
    random = np.random.default_rng(0)
    found = []
    for sample in part.samples:
        size = picture_size(sample.image)
        ids = np.asarray(Image.open(sample.mask))
        right = np.array([TRAIN_TO_ID.index(one) if one in TRAIN_TO_ID else 0 for one in range(34)])
        noise = random.integers(0, 19, size)
        found.append(np.where(random.random(size) < 0.7, right[ids], noise).astype(np.int32))
        path = tmp_path / "out" / f"{sample.image.stem}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.array(TRAIN_TO_ID, np.uint8)[found[-1]]).save(path)
    for first in range(0, 4 if batch == 2 else 3, batch):
        rows = [
            found[n] if n < 3 else np.zeros((1, 1), np.int32) for n in range(first, first + batch)
        ]
        padded = [np.pad(one, [(0, 40 - one.shape[0]), (0, 70 - one.shape[1])]) for one in rows]
        counting.batch(
            tf.constant(np.stack(padded)),
            tf.constant([one.shape for one in rows], tf.int32),
            tf.constant([n < 3 for n in range(first, first + batch)]),
        )
    scores = judge(counting.total)
    assert scores == judge(score_files(pair(tmp_path / "out", root / "gtFine" / "val")))
    assert scores.mean_classes.iou is not None and 0.3 < scores.mean_classes.iou < 0.9
    assert scores.mean_classes.niou is not None


@pytest.fixture
def by_train_ids(tmp_path: Path) -> tuple[Path, Path]:
    """(a tree with labelIds, the same one with labelTrainIds alone)."""
    roots = tmp_path / "ids", tmp_path / "train_ids"
    for root in roots:
        recipe = Recipe(format="cityscapes", train=1, val=3, test=0, size=(32, 64), seed=0)
        write_dataset(recipe, root)
    for path in roots[1].rglob("*_labelIds.png"):
        ids = np.asarray(Image.open(path))
        train_ids = path.with_name(path.name.replace("labelIds", "labelTrainIds"))
        Image.fromarray(np.array(ID_TO_TRAIN).astype(np.uint8)[ids]).save(train_ids)
        path.unlink()
    return roots


@pytest.mark.parametrize("instances", [True, False])
def test_masks_of_train_ids_give_the_same_scores(
    by_train_ids: tuple[Path, Path], instances: bool
) -> None:
    totals = []
    for root in by_train_ids:
        if not instances:
            for path in root.rglob("*_instanceIds.png"):
                path.unlink()
        dataset = open_dataset(DataSpec(format="cityscapes", root=str(root)), 255)
        counting = counting_of(dataset, dataset.validation)
        assert counting is not None
        random = np.random.default_rng(0)
        for number in range(3):
            counting.add(number, random.integers(0, 19, (32, 64)))
        totals.append(counting.total)
    scores = judge(totals[0])
    assert judge(totals[1]) == scores
    assert scores.mean_classes.iou is not None
    assert (scores.mean_classes.niou is not None) is instances


def test_ids_are_label_ids_whatever_the_masks_hold(by_train_ids: tuple[Path, Path]) -> None:
    for root in by_train_ids:
        train = {"model": {"name": "fastscnn"}, "data": {"format": "cityscapes", "root": str(root)}}
        assert classes_of(msgspec.convert(train, TrainSpec), {}).ids == TRAIN_TO_ID


def test_instances_are_put_together_once(
    by_train_ids: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with every picture again: a part of thousands would take hours."""
    dataset = open_dataset(DataSpec(format="cityscapes", root=str(by_train_ids[0])), 255)
    counting = counting_of(dataset, dataset.validation)
    assert counting is not None
    moved = []
    total = Tally.total

    def counted(tallies: Iterable[Tally]) -> Tally:
        found = total(tallies)
        assert found.instances is not None
        moved.append(len(found.instances))
        return found

    monkeypatch.setattr(Tally, "total", counted)
    for number in [0, 1, 2] * 3:
        counting.add(number, np.zeros((32, 64), np.int32))
    rows = counting.total.instances
    assert rows is not None and moved == [len(rows)] and moved[0] > 9


@pytest.mark.parametrize("ignore", [255, 254, None])
def test_shards_give_the_scores_that_need_no_instances(tmp_path: Path, ignore: int | None) -> None:
    """Equal to those of the files; what is ignored, or is a class of its own, counts nowhere."""
    root, shards = tmp_path / "files", tmp_path / "shards"
    write_dataset(Recipe(format="cityscapes", train=1, val=3, test=0, size=(32, 64), seed=0), root)
    files = open_dataset(DataSpec(format="cityscapes", root=str(root)), ignore)
    convert(files, root, shards, ignore)
    converted = open_dataset(DataSpec(format="tfrecord", root=str(shards)), ignore)
    scores = []
    for dataset in (files, converted):
        counting = counting_of(dataset, dataset.validation)
        assert counting is not None
        random = np.random.default_rng(0)
        for number in range(3):
            counting.add(number, random.integers(0, dataset.classes, (32, 64)))
        scores.append(judge(counting.total))
    assert scores[0].mean_categories.niou is not None
    for of_files, of_shards in (
        (scores[0].classes, scores[1].classes),
        (scores[0].categories, scores[1].categories),
    ):
        assert {name: one.iou for name, one in of_files.items()} == {
            name: one.iou for name, one in of_shards.items()
        }
        assert {one.niou for one in of_shards.values()} == {None}
    assert scores[1].mean_categories.iou == scores[0].mean_categories.iou is not None
    record = benchmark_scores(counting.total)
    assert (
        record is not None and record["mean_niou"] is None and record["mean_category_niou"] is None
    )


def test_shards_of_other_classes_have_no_such_scores(data: Path, tmp_path: Path) -> None:
    """Nor have those of 19 classes that nothing says are Cityscapes'."""
    camvid = open_dataset(DataSpec(format="camvid", root=str(data)), 255)
    convert(camvid, data, tmp_path / "camvid", 255)
    root = tmp_path / "files"
    write_dataset(Recipe(format="cityscapes", train=1, val=1, test=0, size=(32, 64), seed=0), root)
    city = open_dataset(DataSpec(format="cityscapes", root=str(root)), 255)
    convert(city, root, tmp_path / "city", 255)
    shards = DataSpec(format="tfrecord", root=str(tmp_path / "city"))
    assert counting_of(open_dataset(shards, 255), city.validation) is not None
    (tmp_path / "city" / "label_ids.txt").unlink()
    for name in ("camvid", "city"):
        dataset = open_dataset(DataSpec(format="tfrecord", root=str(tmp_path / name)), 255)
        assert counting_of(dataset, dataset.validation) is None


def test_other_data_sets_have_no_such_scores(data: Path) -> None:
    dataset = open_dataset(DataSpec(format="camvid", root=str(data)), 255)
    assert counting_of(dataset, dataset.validation) is None


@pytest.mark.slow
def test_several_scales_are_scored_as_what_they_predict_is_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the size of the ground truth, which is not the network's, with instances: every score of
    `evaluate` is that of `evaluate --predictions` for what `predict` writes."""
    monkeypatch.setattr(inference_device, "prepare", lambda _: Prepared(1, None))  # it is at work
    monkeypatch.setattr(evaluate, "prepare", lambda _: Prepared(1, None))
    root = tmp_path / "data"
    write_dataset(Recipe(format="cityscapes", train=1, val=3, test=0, size=(40, 72), seed=0), root)
    spec = job(root)
    spec["train"]["data"] = {"format": "cityscapes", "root": str(root), "size": [32, 64]}
    source = drawn(spec, tmp_path / "weights-0001-0.5000.safetensors")
    run = RunPaths(tmp_path / "run")
    run.submission(0).folder.mkdir(parents=True)
    run.submission(0).plan.write_bytes(
        msgspec.json.encode({"spec": msgspec.convert(spec, JobSpec), "directory": str(tmp_path)})
    )
    how = {"scales": [0.5, 1.0], "flip": True}
    evaluated = evaluate.evaluate_checkpoint(
        str(run.root), path=source.weights, sha256=source.sha256 or "", submission=0, how=how
    )
    for name, asked in (("as asked", how), ("at one scale", {})):
        found, _ = find([root / "leftImg8bit" / "val"], beside=tmp_path / name)
        predict_files(
            msgspec.json.encode(source).decode(),
            how=asked,
            output=str(tmp_path / name),
            kinds=["ids"],
            files=msgspec.to_builtins(found),
            every=1,
        )
    truth = root / "gtFine" / "val"
    scores = judge(score_files(pair(tmp_path / "as asked", truth))).record()
    assert evaluated["cityscapes"] == scores
    assert scores["mean_niou"] > 0 and scores["mean_category_niou"] > 0
    assert evaluated["val_mean_iou"] == pytest.approx(scores["mean_iou"])
    other = judge(score_files(pair(tmp_path / "at one scale", truth))).record()
    assert other["mean_niou"] != scores["mean_niou"]


def drawn(spec: dict[str, Any], file: Path) -> Source:
    """A checkpoint of drawn weights that find many classes."""
    train = msgspec.convert(spec["train"], TrainSpec)
    keras.utils.set_random_seed(3)
    model = build_model("fastscnn", 19, (32, 64), **train.model.options)
    header = CheckpointHeader(epoch=1, step=1, step_in_epoch=0, attempt=0, t=0.0)
    tensors = [tensor_of(f"model/{one.path}", one.numpy()) for one in model.variables]
    with file.open("w+b") as stream:
        sha256 = write_file(stream.fileno(), header, tensors)
    return Source(train=train, directory=str(file.parent), weights=str(file), sha256=sha256)
