"""What a data set is to the rest of the program, whatever its layout on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

INVALID = -1
"""Entry of a label table for a mask value that must not occur."""

Color = tuple[int, int, int]

MaskKind = Literal["values", "blue", "palette", "grey"]
"""Where a mask holds its classes: `values`, in its only channel, be that grey or palette indices;
or strictly in the blue channel of a picture of three, in palette indices, in grey values."""


@dataclass(frozen=True)
class Record:
    """Where in a TFRecord file a sample is: the first byte of its record, and the bytes of data in
    it."""

    shard: Path
    offset: int
    length: int


@dataclass(frozen=True)
class Sample:
    """One picture and its mask (one value a pixel), and where the layout has one, the map of its
    instances. With `record` both are there, and `image` and `mask` are names for people, below
    that of the shard: `clusterseg.data.sources` reads either."""

    image: Path
    mask: Path
    instances: Path | None = None
    record: Record | None = None


@dataclass(frozen=True)
class Part:
    """The training or validation samples, and what the values in their masks mean.

    `label_table` has 256 entries (65536 where masks have 16 bits): mask value -> class (0 to
    classes - 1), the ignored label, or INVALID, which every value beyond it is too.
    """

    name: str
    samples: tuple[Sample, ...]
    label_table: tuple[int, ...] = field(repr=False)
    mask_kind: MaskKind = "values"

    def __len__(self) -> int:
        return len(self.samples)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a layout that has its own, whether a set is there or not: their names,
    colours (RGB, 0 to 255), and values in the layout's own masks, which submissions hold."""

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """An opened data set. `size` is (height, width) in pixels, of what the network sees.

    `class_names` and `colors` (RGB, 0 to 255) have one entry a class, in the order of the labels.
    `test` opens a third part, where the layout has one with masks: training does without, and
    must not fail for it. `label_ids`: class -> its value in
    the layout's own masks, as submissions want it, where that is not the class's number.
    """

    name: str
    class_names: tuple[str, ...]
    colors: tuple[Color, ...]
    size: tuple[int, int]
    train: Part
    validation: Part
    test: Callable[[], Part] | None = None
    label_ids: tuple[int, ...] | None = None

    @property
    def classes(self) -> int:
        return len(self.class_names)


def names_digest(part: Part, root: Path) -> str:
    """16 hex digits of a SHA-256 over the names of its pictures in their order, below `root`: the
    same where the set is moved to. Of a picture that lies elsewhere the last two parts count, by
    which a list's absolute names are looked for. A second or two for a million.
    """
    folder = Path(os.path.expanduser(root))  # noqa: PTH111 (never raises)
    prefix = f"{folder}/" if folder != Path() else ""
    below = (_below(prefix, str(sample.image)) for sample in part.samples)
    return hashlib.sha256("\n".join(below).encode(errors="surrogateescape")).hexdigest()[:16]


def _below(prefix: str, name: str) -> str:
    inside = name.startswith(prefix) if prefix else not name.startswith("/")
    return name.removeprefix(prefix) if inside else "/".join(name.split("/")[-2:])


def value_table(
    values: Sequence[int], *, void: Sequence[int], ignore: int | None
) -> tuple[int, ...]:
    """A table for masks in which class c is written as values[c].

    The values `void` become `ignore`, or, where nothing is ignored, one more class.
    """
    table = [INVALID] * 256
    for number, value in enumerate(values):
        table[value] = number
    for value in void:
        table[value] = len(values) if ignore is None else ignore
    return tuple(table)


def label_table(
    classes: int, *, ignored_values: Sequence[int], ignore: int | None
) -> tuple[int, ...]:
    """A table for masks that hold class numbers: value v < classes is class v.

    `ignored_values` and the value `ignore` itself become `ignore`; all others are INVALID. 256
    entries, or 65536 where one of these numbers only fits into 16 bits.
    """
    wide = max(classes - 1, *ignored_values, ignore or 0) > 255
    table = [value if value < classes else INVALID for value in range(2**16 if wide else 256)]
    if ignore is not None:
        for value in (*ignored_values, ignore):
            if 0 <= value < len(table):
                table[value] = ignore
    return tuple(table)
