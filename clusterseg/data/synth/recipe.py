"""What a synthetic data set is made of; the same recipe makes the same files."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("train", "val", "test")
EXTRA = "extra"
LABELS = ("grey", "palette", "blue")
_LEAST, _MOST = 16, 8192


@dataclass(frozen=True)
class Recipe:
    """`size` is (height, width); `train`, `val`, `test` and `extra` are numbers of pictures.

    `extra` are those of the part that only some layouts have: Cityscapes' `train_extra`, or what
    `trainaug.txt` of VOC names beyond `train.txt`. Only the layout `folder` has a choice of
    `labels`: where in a mask the classes stand ("grey", "palette", "blue"). `generator` is raised
    whenever the pictures of a recipe change.
    """

    format: str
    train: int
    val: int
    test: int
    size: tuple[int, int]
    seed: int
    generator: int = 1
    extra: int = 0
    labels: str = "grey"

    def problem(self) -> str | None:
        """What is wrong with the numbers, or None."""
        for side in self.size:
            if not _LEAST <= side <= _MOST:
                height, width = self.size
                return f"size {height}x{width}: each side must be {_LEAST} to {_MOST} pixels"
        for part in (*PARTS, EXTRA):
            if self.count(part) < 0:
                return f"--{part} can't be negative"
        if self.train < 1 or self.val < 1:
            return "--train and --val must be at least 1: a run needs both parts"
        if self.labels not in LABELS:
            return f"--labels {self.labels!r} is none of {', '.join(LABELS)}"
        if not 0 <= self.seed < 2**63:
            return "--seed must be 0 to 2^63 - 1"
        return None

    def count(self, part: str) -> int:
        """Pictures of one of PARTS, or EXTRA."""
        counts = {"train": self.train, "val": self.val, "test": self.test, EXTRA: self.extra}
        return counts[part]


def scene_key(recipe: Recipe, part: str, number: int) -> tuple[int, int]:
    """The key that picture `number` of a part is drawn from: no two pictures of a set share one."""
    return recipe.seed, (*PARTS, EXTRA).index(part) << 32 | number
