"""What a synthetic data set is made of; the same recipe makes the same files."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("train", "val", "test")
_LEAST, _MOST = 16, 8192


@dataclass(frozen=True)
class Recipe:
    """`size` is (height, width); `train`, `val`, `test` are numbers of pictures.

    `generator` is raised whenever the pictures of a recipe change.
    """

    format: str
    train: int
    val: int
    test: int
    size: tuple[int, int]
    seed: int
    generator: int = 1

    def problem(self) -> str | None:
        """What is wrong with the numbers, or None."""
        for side in self.size:
            if not _LEAST <= side <= _MOST:
                height, width = self.size
                return f"size {height}x{width}: each side must be {_LEAST} to {_MOST} pixels"
        for part in PARTS:
            if self.count(part) < 0:
                return f"--{part} can't be negative"
        if self.train < 1 or self.val < 1:
            return "--train and --val must be at least 1: a run needs both parts"
        if not 0 <= self.seed < 2**63:
            return "--seed must be 0 to 2^63 - 1"
        return None

    def count(self, part: str) -> int:
        return {"train": self.train, "val": self.val, "test": self.test}[part]
