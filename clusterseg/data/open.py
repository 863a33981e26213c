"""Opens a data set by its format. A format is a file in `clusterseg/data/formats`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clusterseg import registry
from clusterseg.data.dataset import ClassTable, Dataset, Part
from clusterseg.data.faults import STRICT, Faults
from clusterseg.data.files import is_of_the_file, read_labels
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.spec.model import DataSpec

_FORMATS = "clusterseg.data.formats"


def open_dataset(spec: DataSpec, ignore: int | None, faults: Faults = STRICT) -> Dataset:
    """The data set of `spec`; `ignore` is the label that counts nowhere (`loss.ignore`).

    Looks at lists, file names and one picture's header, not at every file: what is wrong inside
    a file shows when it is read (`clusterseg.data.pipeline.explain`). Raises ClustersegError:
    unknown format, missing root, empty or malformed list, missing file.

    With `faults` of another kind, what is wrong with files and parts is given to them, and the set
    is what is left; `spec.size` must be given then, as there may be no picture to take it from.
    """
    if faults is not STRICT and spec.size is None:
        raise ValueError("a set that may have lost pictures needs a size")
    module = registry.load(_FORMATS, "data format", spec.format)
    root = Path(os.path.expanduser(spec.root))  # noqa: PTH111 (never raises)
    try:
        there = root.is_dir()
    except OSError as error:  # a folder above that may not be searched, a name that is too long
        raise ClustersegError(
            f"the data set's folder {spec.root!r} can't be looked at: {error.strerror}",
            code="no-data",
            help="set train.data.root to a folder that you may read",
        ) from None
    if not there:
        made = f"clusterseg data synth --format {spec.format} {spec.root}"
        raise ClustersegError(
            f"the data set's folder {spec.root!r} does not exist",
            code="no-data",
            help=f"set train.data.root, or write a synthetic set: {made}",
        )
    dataset: Dataset = module.open_dataset(spec, root, ignore, faults)
    return dataset


def own_classes(name: str, ignore: int | None) -> ClassTable | None:
    """Those of every set of the format `name`; None if each set has its own. `ignore` is that of
    `open_dataset`. Nothing on disk is looked at."""
    module = registry.load(_FORMATS, "data format", name)
    of: Callable[[int | None], ClassTable] | None = getattr(module, "own_classes", None)
    return None if of is None else of(ignore)


def format_names() -> list[str]:
    """All names that `data.format` takes, sorted."""
    return registry.names(_FORMATS)


def class_counts(
    part: Part,
    classes: int,
    numbers: Iterable[int] | None = None,
    *,
    skip: bool = False,
    counted: Callable[[], None] = lambda: None,
) -> tuple[int, ...]:
    """Pixels of each class in the masks of `part`, at the files' size; ignored ones are left out.

    Reads every mask, or those of the samples `numbers` (8 at a time); raises ClustersegError as
    `read_labels` does. `skip`: masks that can't be used are left out. `counted` is
    called after each mask.
    """

    def count(number: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        try:
            labels = read_labels(part, number)
        except ClustersegError as error:
            if skip and is_of_the_file(error):
                return np.zeros(classes, np.int64)
            raise
        return np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)

    total = np.zeros(classes, np.int64)
    with ThreadPoolExecutor(8) as pool:
        for counts in pool.map(count, range(len(part)) if numbers is None else numbers):
            total += counts
            counted()
    return tuple(int(n) for n in total)
