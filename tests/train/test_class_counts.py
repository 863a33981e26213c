"""The pixels of each class are counted by all ranks together, every mask by one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.train.runs import job

pytestmark = pytest.mark.slow


class Counted:
    """Ranks that are asked one after the other: `sum` adds up what they said so far."""

    def __init__(self, rank: int, size: int, before: Any = 0) -> None:
        self.rank, self.size, self.before = rank, size, before

    def sum(self, array: Any) -> Any:
        self.before = self.before + array
        return self.before


@pytest.mark.parametrize("size", [1, 3, 50])
def test_every_mask_is_counted_by_one_rank(
    size: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """36 masks; with 50 ranks some have none."""
    from clusterseg.data import class_counts, open_dataset
    from clusterseg.spec.model import TrainSpec
    from clusterseg.train import assembly

    values = job(data, loss={"class_weights": "balanced"})["train"]
    spec = msgspec.convert(values, TrainSpec)
    dataset = open_dataset(spec.data, spec.loss.ignore)
    whole = class_counts(dataset.train, dataset.classes)
    given: list[list[int]] = []
    read: list[int] = []

    def counting(
        part: Any, classes: int, numbers: Any, *, skip: bool, counted: Any
    ) -> tuple[int, ...]:
        read.extend(numbers)
        return class_counts(part, classes, numbers, skip=skip, counted=counted)

    def building(spec: Any, classes: int, *, class_counts: list[int]) -> Any:
        given.append(class_counts)

    monkeypatch.setattr(assembly, "class_counts", counting)
    monkeypatch.setattr(assembly, "build_loss", building)
    before: Any = 0
    alive: list[int] = []
    for rank in range(size):
        ranks: Any = Counted(rank, size, before)
        assembly._losses(spec, dataset, dataset.classes, ranks, lambda: alive.append(len(alive)))
        before = ranks.before
        assert len(alive) == len(read)  # whoever watches a rank sees each mask
    assert given[-1] == list(whole) and all(type(one) is int for one in given[-1])
    assert sorted(read) == list(range(36))
    if size > 1:  # the twin: one rank's share is not the whole
        assert given[0] != list(whole)
