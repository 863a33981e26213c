"""The plot: it can be drawn of any run, and shows what it should."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from clusterseg.collect.plot import draw
from clusterseg.collect.summarize import collect
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import State
from tests.collect.hand import claim, epoch, log, window
from tests.collect.scenarios import make_run

RED = (0xD5, 0x5E, 0x00)  # what is replayed
BLUE = (0x00, 0x72, 0xB2)


def picture(root: Path) -> np.ndarray:
    """The plot of a run, height x width x RGB."""
    png = draw(collect(RunPaths(root), State.RUNNING, timeline=True))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def pixels(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((image == colour).all(axis=-1).sum())


def test_replayed_parts_are_marked(tmp_path: Path) -> None:
    run = tmp_path / "a$b_{x}"  # no mathematics
    claim(run, 0, 0)
    windows = [window(10 * n, n, 1, 8.0) for n in range(1, 20)]
    log(run, 0, 0, *windows, epoch(191, 1, 10, 0.5))
    lower = slice(460, 860)  # rows of the throughput
    before = picture(run)[lower]
    assert pixels(before, RED) == 0
    assert pixels(before, BLUE) > 100
    claim(run, 1, 200, resume_step=10)
    after = picture(run)[lower]
    assert pixels(after, RED) > 100
    assert 100 < pixels(after, BLUE) < 0.8 * pixels(before, BLUE)


@pytest.mark.parametrize("seed", range(3))
def test_any_run_can_be_drawn(seed: int, tmp_path: Path) -> None:
    root = tmp_path / "run"
    make_run(root, Random(f"plot {seed}"))
    assert picture(root).shape == (900, 1320, 3)


def test_a_run_without_anything_can_be_drawn(tmp_path: Path) -> None:
    assert picture(tmp_path).shape == (900, 1320, 3)
