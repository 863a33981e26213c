"""Masks of 0 and 255 where 255 is ignored: training says so, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from clusterseg.spec.model import TrainSpec
from clusterseg.train.first_masks import ignored_foreground
from tests.train.runs import Run, job


def labels(*masks: list[int]) -> Any:
    return np.array(masks, np.int32)[:, np.newaxis]


SUSPICIOUS = labels([0, 255], [255, 255], [0, 0])


def test_zero_and_255_alone_are_told() -> None:
    said = ignored_foreground(SUSPICIOUS, classes=2, ignore=255)
    assert said is not None
    assert said.startswith("the masks read first (2) show class 0 and 255, which counts nowhere")
    assert "data check" in said


@pytest.mark.parametrize(
    ("shown", "classes", "ignore"),
    [
        (labels([0, 255], [255, 1]), 2, 255),  # class 1 is there
        (labels([0, 0], [255, 255]), 2, 255),  # a mask of padding, not a pixel of its own
        (labels([255, 255]), 2, 255),
        (labels([1, 255]), 2, 255),
        (labels([0, 0]), 2, 255),
        (SUSPICIOUS, 3, 255),
        (SUSPICIOUS, 2, None),
        (labels([0, 9]), 2, 9),
    ],
)
def test_anything_else_is_not(shown: Any, classes: int, ignore: int | None) -> None:
    assert ignored_foreground(shown, classes=classes, ignore=ignore) is None


@pytest.mark.slow
def test_a_training_says_it_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from clusterseg.train import wishes
    from clusterseg.train.assembly import assemble
    from clusterseg.train.communicator.solo import SoloCommunicator
    from tests.train.attempts import Attempts

    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(6):
        picture = random.integers(0, 256, (16, 32, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"data/images/{n}.png")
        mask = np.zeros((16, 32), np.uint8)
        mask[4:9, 3:20] = 255
        Image.fromarray(mask).save(tmp_path / f"data/masks/{n}.png")
    unet = {"name": "unet", "options": {"base_filters": 2}}
    spec = job(tmp_path / "data", model=unet, augment=[], batch_size=1, epochs=2)
    spec["train"]["data"] |= {"format": "folder", "size": [16, 32], "validation_split": 0.4}
    spec["train"]["data"]["options"] = {"classes": 2}
    assembly = assemble(
        msgspec.convert(spec["train"], TrainSpec),
        SoloCommunicator(),
        flags=wishes.COUNT,
        threads=1,
    )
    fresh = {name: np.array(one.numpy()) for name, one in assembly.state.variables.items()}
    run = Run(tmp_path / "run", spec)
    assert Attempts(run, assembly, fresh).attempt() is None
    said = capfd.readouterr().err
    assert said.count("warning: the masks read first (1) show class 0 and 255") == 1
