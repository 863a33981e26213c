"""The Cityscapes scores of a run are those of its predictions in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from clusterseg.data import open_dataset
from clusterseg.data.cityscapes import TRAIN_TO_ID
from clusterseg.data.files import picture_size
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.metrics.cityscapes import judge
from clusterseg.metrics.files import score_files
from clusterseg.metrics.pairing import pair
from clusterseg.spec.model import DataSpec
from clusterseg.train.evaluate import _counting


@pytest.mark.parametrize("batch", [1, 2])
def test_counting_batches_is_scoring_files(tmp_path: Path, batch: int) -> None:
    """Three pictures in batches that are padded, in width and in number."""
    root = tmp_path / "data"
    write_dataset(Recipe(format="cityscapes", train=1, val=3, test=0, size=(32, 64), seed=0), root)
    dataset = open_dataset(DataSpec(format="cityscapes", root=str(root)), 255)
    part = dataset.validation
    counting = _counting(dataset, part)
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


def test_other_data_sets_have_no_such_scores(data: Path) -> None:
    dataset = open_dataset(DataSpec(format="camvid", root=str(data)), 255)
    assert _counting(dataset, dataset.validation) is None
