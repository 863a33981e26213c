"""What the steps of an epoch read on one rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from clusterseg.spec.model import TrainSpec
from clusterseg.train.assembly import Assembly
from clusterseg.train.feeder import Feeder
from clusterseg.train.feeding import feed, next_step
from clusterseg.train.sampling import samples_of_epoch, training_indices


@dataclass(frozen=True)
class StepBatch:
    """What one step reads: its tensors, the real images of each micro-batch."""

    images: tf.Tensor
    labels: tf.Tensor
    real: list[int]


def no_batch(assembly: Assembly) -> StepBatch:
    """What a rank without data takes a void step with: of the right shape, and nothing in it."""
    shares = assembly.batching.shares
    shape = [shares * assembly.batching.batch, *assembly.size]
    return StepBatch(tf.zeros([*shape, 3]), tf.zeros(shape, tf.int32), [0] * shares)


def step_batches(
    spec: TrainSpec, assembly: Assembly, *, epoch: int, first: int, rank: int
) -> Feeder[StepBatch]:
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
    return Feeder(_by_steps(elements, shares), len(indices) // shares)


def sweep_batches(
    spec: TrainSpec, assembly: Assembly, *, steps: int, rank: int
) -> Feeder[StepBatch]:
    """One for each of `steps`: the training order from its begin, over as many epochs as needed."""
    return Feeder(_of_epochs(spec, assembly, steps, rank), steps)


def _by_steps(elements: Iterator[Any], shares: int) -> Iterator[StepBatch]:
    while True:
        yield StepBatch(*next_step(elements, shares))


def _of_epochs(spec: TrainSpec, assembly: Assembly, steps: int, rank: int) -> Iterator[StepBatch]:
    part, batching = assembly.dataset.train, assembly.batching
    epoch = 0
    while steps > 0:
        now = min(steps, assembly.steps_per_epoch)
        indices = training_indices(
            seed=spec.seed,
            epoch=epoch,
            count=len(part),
            first=0,
            last=samples_of_epoch(now, len(part), batching.global_batch),
            batching=batching,
            rank=rank,
        )
        elements = feed(part, indices, spec, assembly, epoch=epoch, augment=spec.augment)
        for _ in range(now):
            yield StepBatch(*next_step(elements, batching.shares))
        steps -= now
        epoch += 1
