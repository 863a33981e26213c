"""Pictures to compare, calibrate and measure with: of the data set, or drawn for want of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterseg.data.dataset import Part
from clusterseg.data.normalisation import Normalisation

_AS_THEY_ARE = Normalisation(mean=(0, 0, 0), deviation=(1, 1, 1))

Sample = tuple[NDArray[np.float32], NDArray[np.int32] | None]


@dataclass(frozen=True)
class Samples:
    """Pictures at the network's size, read one after the other each time they are asked for.

    Iterating gives pixels, float32 [height, width, 3], RGB in 0 to 255, each with its labels,
    int32 [height, width], or None where nobody knows them. `what` names them for a person.
    """

    what: str
    count: int
    read: Callable[[], Iterator[Sample]]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return self.read()

    @property
    def labelled(self) -> bool:
        """Whether the labels are known."""
        return next(iter(self))[1] is not None


def of_part(part: Part, count: int, *, size: tuple[int, int], ignore: int | None) -> Samples:
    """At most `count` samples of `part`, spread evenly over its list, as validation sees them.

    Reading raises ClustersegError for a file that can't be used.
    """
    count = min(count, len(part))
    chosen = np.linspace(0, len(part) - 1, count).round().astype(np.int64)

    def read() -> Iterator[Sample]:
        import tensorflow as tf

        from clusterseg.data.pipeline import batches, explain

        found = batches(
            part,
            chosen[:, np.newaxis],
            seed=0,
            epoch=0,
            augment=(),
            size=size,
            ignore=ignore,
            threads=1,
            normalisation=_AS_THEY_ARE,
        ).as_numpy_iterator()
        for index in chosen:
            try:
                pictures, labels, *_ = next(found)
            except tf.errors.OpError as error:
                raise explain(error, part, [int(index)]) from error
            yield pictures[0], labels[0]

    return Samples(f"{part.name} part", count, read)


def drawn(count: int, *, size: tuple[int, int]) -> Samples:
    """Pictures of soft blots of colour, the same each time: where there is no data set at hand."""

    def read() -> Iterator[Sample]:
        generator = np.random.default_rng(0)
        height, width = size
        for _ in range(count):
            coarse = generator.uniform(0, 255, (7, 7, 3))
            rows = np.linspace(0, 5.999, height)
            columns = np.linspace(0, 5.999, width)
            picture = _between(_between(coarse, rows).swapaxes(0, 1), columns).swapaxes(0, 1)
            noisy = picture + generator.normal(0, 8, picture.shape)
            yield np.clip(noisy, 0, 255).astype(np.float32), None

    return Samples("drawn pictures", count, read)


def _between(values: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """Linear interpolation along the first axis."""
    low = places.astype(np.int64)
    share = (places - low)[:, np.newaxis, np.newaxis]
    return values[low] * (1 - share) + values[low + 1] * share
