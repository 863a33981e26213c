"""What the classes of a network are called, look like and are in a submission.

The data set says so. It need not be there any more where a network is used: then what its format,
the job and the checkpoint say must do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clusterseg.data import open_dataset
from clusterseg.data.dataset import ClassTable, Color
from clusterseg.data.open import own_classes
from clusterseg.errors import ClustersegError
from clusterseg.spec.model import TrainSpec


@dataclass(frozen=True)
class Classes:
    """`ids`: what the masks of the data set, and submissions, hold for each class. `size` is
    (height, width) of what the network was trained on. `unknown`: why the data set was not asked,
    where nothing else says what its classes are.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ids: tuple[int, ...]
    size: tuple[int, int]
    unknown: str | None = None

    def __len__(self) -> int:
        return len(self.names)


def classes_of(spec: TrainSpec, identity: Mapping[str, str]) -> Classes:
    """Of the network of `spec`, one of whose checkpoints has the `identity` (empty: none is known).

    Raises ClustersegError where neither the data set nor the checkpoint tells how many classes
    there are, and what size.
    """
    try:
        dataset = open_dataset(spec.data, spec.loss.ignore)
    except ClustersegError as error:
        count, size = _told(spec, identity)
        if count is None or size is None:
            raise
        own = own_classes(spec.data.format, spec.loss.ignore)
        if own is not None and len(own.ids) <= count:
            return _of_table(own, count, size)
        return Classes(
            tuple(f"class {number}" for number in range(count)),
            tuple(distinct_color(number) for number in range(count)),
            tuple(range(count)),
            size,
            unknown=f"{error.message}; ids are class numbers",
        )
    ids = dataset.label_ids or tuple(range(dataset.classes))
    table = ClassTable(dataset.class_names, dataset.colors, ids)
    return _of_table(table, spec.model.classes or dataset.classes, dataset.size)


def distinct_color(number: int) -> Color:
    """A colour for class `number`, far from those of its neighbours: the bits of the number, three
    by three, from the highest bit of red, green and blue down (as PASCAL VOC's palette)."""
    red = green = blue = 0
    for bit in range(7, -1, -1):
        red |= (number & 1) << bit
        green |= (number >> 1 & 1) << bit
        blue |= (number >> 2 & 1) << bit
        number >>= 3
    return red, green, blue


def _of_table(table: ClassTable, count: int, size: tuple[int, int]) -> Classes:
    """Of `count` classes: those of the table, and what a network has beyond them."""
    more = range(len(table.ids), count)
    return Classes(
        (*table.names, *(f"class {number}" for number in more)),
        (*table.colors, *(distinct_color(number) for number in more)),
        (*table.ids, *(max(table.ids) + 1 + number for number in range(len(more)))),
        size,
    )


def _told(
    spec: TrainSpec, identity: Mapping[str, str]
) -> tuple[int | None, tuple[int, int] | None]:
    count, size = spec.model.classes, spec.data.size
    if count is None and identity.get("model.classes", "").isdigit():
        count = int(identity["model.classes"])
    sides = identity.get("data.size", "").split("x")
    if size is None and len(sides) == 2 and all(side.isdigit() for side in sides):
        size = int(sides[0]), int(sides[1])
    return count, size
