"""Batches of samples for the steps, in training and in validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.data.dataset import Part
from clusterseg.data.files import check_sample, is_of_the_file
from clusterseg.data.order import PADDING
from clusterseg.data.pipeline import batches, explain
from clusterseg.errors import ClustersegError
from clusterseg.spec.model import TrainSpec
from clusterseg.train.assembly import Assembly
from clusterseg.train.feeder import Feeder
from clusterseg.train.sampling import validation_indices


def validation_batches(
    spec: TrainSpec, assembly: Assembly, *, rank: int, world_size: int
) -> Feeder[Any]:
    """A rank's share of the validation part, the same in every epoch, without augmentation: with
    the masks at their files' sizes."""
    part = assembly.dataset.validation
    indices = validation_indices(
        count=len(part), batch=assembly.batching.batch, rank=rank, world_size=world_size
    )
    elements = feed(part, indices, spec, assembly, epoch=0, augment=(), file_masks=True)
    return Feeder(elements, len(indices))


def next_step(elements: Iterator[Any], shares: int) -> tuple[tf.Tensor, tf.Tensor, list[int]]:
    """(images, labels, real): the next `shares` micro-batches, one after the other, and of each the
    number of pictures that are no padding."""
    pieces = [next(elements) for _ in range(shares)]
    real = [int(np.count_nonzero(valid)) for _, _, valid in pieces]  # some may be left out
    if shares == 1:
        return *pieces[0][:2], real
    images, labels = (tf.concat([piece[part] for piece in pieces], 0) for part in (0, 1))
    return images, labels, real


def feed(
    part: Part,
    indices: NDArray[Any],
    spec: TrainSpec,
    assembly: Assembly,
    *,
    epoch: int,
    augment: tuple[Any, ...],
    file_masks: bool = False,
) -> Iterator[Any]:
    """(images, labels, valid) a row of `indices`, and with `file_masks` (masks, sizes) after them
    (`clusterseg.data.pipeline.batches`); errors name the file.

    With `data.on_unreadable: skip` a sample that can't be used is padding instead.
    """
    read = partial(
        batches,
        part,
        seed=spec.seed,
        epoch=epoch,
        augment=augment,
        size=assembly.size,
        ignore=spec.loss.ignore,
        threads=assembly.threads,
        normalisation=assembly.normalisation,
        file_masks=file_masks,
        prefetch=1,  # the feeder's thread holds another one
    )
    skip, unreadable = spec.data.on_unreadable == "skip", assembly.unreadable
    row, elements, stand_in = 0, None, 0
    while row < len(indices):
        if elements is None:
            if skip:
                indices = unreadable.without(part, indices)
                stand_in = unreadable.stand_in(part)
            elements = iter(read(indices[row:], stand_in=stand_in))
        try:
            element = next(elements)
        except tf.errors.OpError as error:
            shown = [int(index) for index in indices[row] if index != PADDING] or [stand_in]
            bad = _bad(part, shown, read) if skip else []
            if not bad:
                raise explain(error, part, shown) from error
            for index, why in bad:
                unreadable.leave_out(part, index, why)
            elements = None  # anew from this row on, without them
        else:
            yield element
            row += 1


def _bad(
    part: Part, indices: list[int], read: Callable[..., tf.data.Dataset]
) -> list[tuple[int, ClustersegError]]:
    """Which of the samples can't be used, and why. Raises for what is not their own fault: it
    may be otherwise after a resume.
    """
    found = []
    for index in dict.fromkeys(indices):
        try:
            next(iter(read(np.array([[index]]))))
        except tf.errors.OpError as error:
            why, own = _cause(error, part, index)
            if not own:
                raise why from error
            found.append((index, why))
    return found


def _cause(error: tf.errors.OpError, part: Part, index: int) -> tuple[ClustersegError, bool]:
    """Why sample `index` can't be used, and whether its own files are at fault."""
    try:
        check_sample(part, index)
    except ClustersegError as why:
        return why, is_of_the_file(why)
    # Pillow takes it: TensorFlow can't decode it, or could not read it just now.
    return explain(error, part, [index]), isinstance(error, tf.errors.InvalidArgumentError)
