"""What the steps of an epoch read on one rank."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import tensorflow as tf

from clusterseg.spec.model import TrainSpec
from clusterseg.train.assembly import Assembly
from clusterseg.train.feeding import feed, next_step
from clusterseg.train.sampling import training_indices


@dataclass(frozen=True)
class StepBatch:
    """What one step reads: its tensors, the real images of each micro-batch, seconds waited."""

    images: tf.Tensor
    labels: tf.Tensor
    real: list[int]
    waited: float


def step_batches(
    spec: TrainSpec, assembly: Assembly, *, epoch: int, first: int, rank: int
) -> Iterator[StepBatch]:
    """One for each step of `epoch` (from 0) after its first `first` samples, augmented."""
    indices = training_indices(
        seed=spec.seed,
        epoch=epoch,
        count=len(assembly.dataset.train),
        first=first,
        last=assembly.epoch_samples,
        batching=assembly.batching,
        rank=rank,
    )
    part, shares = assembly.dataset.train, assembly.batching.shares
    elements = feed(part, indices, spec, assembly, epoch=epoch, augment=spec.augment)
    for _ in range(len(indices) // shares):
        began = time.perf_counter()
        images, labels, real = next_step(elements, shares)
        yield StepBatch(images, labels, real, time.perf_counter() - began)
