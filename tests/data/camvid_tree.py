"""Writes small CamVid trees for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

COLORS = "\n".join(f"{10 * i} {20 * i} {i} class{i}" for i in range(11)) + "\n0 0 0 Void\n"


def write_tree(root: Path, train: int = 3, val: int = 2, size=(8, 12), seed: int = 0) -> Path:
    """A CamVid tree of noise, with `train` and `val` pairs of `size` (height, width)."""
    random = np.random.default_rng(seed)
    for part, count in (("train", train), ("val", val)):
        lines = []
        for i in range(count):
            write_pair(root, part, i, random.integers(0, 12, size), random)
            lines.append(f"{part}/{i}.png {part}annot/{i}.png\n")
        (root / f"{part}.txt").write_text("".join(lines))
    (root / "label_colors.txt").write_text(COLORS)
    return root


def write_pair(root: Path, part: str, number: int, labels, random) -> None:
    image = random.integers(0, 256, (*labels.shape, 3))
    write(root / part / f"{number}.png", image)
    write(root / f"{part}annot" / f"{number}.png", labels)


def write(path: Path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)
