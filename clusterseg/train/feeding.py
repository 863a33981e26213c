"""Batches of samples for the steps, in training and in validation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.data.dataset import Part
from clusterseg.data.pipeline import batches, explain
from clusterseg.spec.model import TrainSpec
from clusterseg.train.assembly import Assembly
from clusterseg.train.sampling import validation_indices


def validation_batches(
    spec: TrainSpec, assembly: Assembly, *, rank: int, world_size: int
) -> Iterator[Any]:
    """A rank's share of the validation part, the same in every epoch, without augmentation."""
    part = assembly.dataset.validation
    indices = validation_indices(
        count=len(part), batch=spec.batch_size, rank=rank, world_size=world_size
    )
    return feed(part, indices, spec, assembly, epoch=0, augment=())


def feed(
    part: Part,
    indices: NDArray[Any],
    spec: TrainSpec,
    assembly: Assembly,
    *,
    epoch: int,
    augment: tuple[Any, ...],
) -> Iterator[Any]:
    """(images, labels, valid) a row of `indices`; errors name the file."""
    elements = iter(
        batches(
            part,
            indices,
            seed=spec.seed,
            epoch=epoch,
            augment=augment,
            size=assembly.size,
            ignore=spec.loss.ignore,
            threads=assembly.threads,
        )
    )
    for row in indices:
        try:
            element = next(elements)
        except tf.errors.OpError as error:
            raise explain(error, part, row) from error
        yield element
