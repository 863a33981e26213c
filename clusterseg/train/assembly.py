"""Builds what the loop works with: data, model, optimizer, steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from clusterseg.data import Dataset, class_counts, open_dataset
from clusterseg.data.dataset import names_digest
from clusterseg.data.normalisation import Normalisation
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.losses import Loss, build_loss, with_auxiliary
from clusterseg.models import auxiliary_weights, build_model, normalisation_of
from clusterseg.spec.model import TrainSpec
from clusterseg.train import batch_norm, wishes
from clusterseg.train.batching import Batching, fresh
from clusterseg.train.communicator import Communicator
from clusterseg.train.identity import identity
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.phases import ignore
from clusterseg.train.precision import policy
from clusterseg.train.sampling import epoch_steps, samples_of_epoch
from clusterseg.train.state import TrainState
from clusterseg.train.step import (
    EvaluationStep,
    TrainStep,
    build_evaluation_step,
    build_train_step,
)
from clusterseg.train.unreadable import Unreadable
from clusterseg.train.update import build_update


@dataclass(frozen=True)
class Assembly:
    """Everything that stays the same during an attempt. `size` is (height, width)."""

    dataset: Dataset
    size: tuple[int, int]
    classes: int
    steps_per_epoch: int
    batching: Batching
    threads: int
    state: TrainState
    train_step: TrainStep
    evaluation_step: EvaluationStep
    normalisation: Normalisation
    identity: dict[str, str]
    unreadable: Unreadable = field(default_factory=Unreadable)

    @property
    def epoch_samples(self) -> int:
        """How many samples of the training part an epoch reads."""
        return samples_of_epoch(
            self.steps_per_epoch, len(self.dataset.train), self.batching.global_batch
        )


def assemble(
    spec: TrainSpec,
    communicator: Communicator,
    *,
    flags: int,
    threads: int,
    batching: Batching | None = None,
    lap: Callable[[str], None] = ignore,
    alive: Callable[[], None] = lambda: None,
) -> Assembly:
    """Builds everything; weights are those of a fresh run with the spec's seed.

    `flags` is `wishes.COUNT`, or 0 where no step is trained; `threads` decode pictures,
    `batching` is that of a fresh run if none is given, `lap` ends the part "data",
    `alive` is called again and again where that may take long. Raises ClustersegError for what
    does not fit together.
    """
    keras.utils.set_random_seed(spec.seed % 2**32)
    dataset = open_dataset(spec.data, spec.loss.ignore)
    classes = spec.model.classes or dataset.classes
    if classes < dataset.classes:
        raise ClustersegError(
            f"train.model.classes is {classes}, but the data set has {dataset.classes} classes",
            code="classes",
            help=f"give {dataset.classes}, or leave it out",
            exit_code=ExitCode.FAILED,
        )
    size = dataset.size
    batching = batching or fresh(spec, communicator.size)
    loss, validation_loss = _losses(spec, dataset, classes, communicator, alive)
    lap("data")
    with policy(spec.precision):
        model = build_model(spec.model.name, classes, size, **spec.model.options)
    if spec.freeze_batch_norm:
        batch_norm.freeze(model)
    if spec.sync_batch_norm:
        batch_norm.synchronise(model, communicator)
    optimizer = build_optimizer(spec.optimizer, model.trainable_variables)
    state = TrainState(model, optimizer, ema=spec.ema, scaled=spec.precision == "float16")
    return Assembly(
        dataset=dataset,
        size=size,
        classes=classes,
        steps_per_epoch=epoch_steps(
            spec.steps_per_epoch, len(dataset.train), batching.global_batch
        ),
        batching=batching,
        threads=threads,
        state=state,
        train_step=build_train_step(
            model,
            _of_all_outputs(loss, model, spec),
            build_update(optimizer, state, spec.optimizer),
            state,
            communicator,
            batch=batching.batch,
            shares=batching.shares,
            size=size,
            flags=flags,
            void=wishes.VOID if flags else None,
        ),
        evaluation_step=build_evaluation_step(
            model,
            validation_loss,
            batch=batching.batch,
            size=size,
            classes=classes,
            ignore=spec.loss.ignore,
            averages=state.averages,
        ),
        normalisation=normalisation_of(spec.model.name, spec.model.options),
        identity=identity(
            spec,
            classes=classes,
            size=size,
            samples=len(dataset.train),
            listed=names_digest(dataset.train, Path(spec.data.root)),
        ),
    )


def _of_all_outputs(loss: Loss, model: keras.Model, spec: TrainSpec) -> Loss:
    auxiliary = len(model.outputs) - 1
    if not auxiliary:
        return loss
    weights = auxiliary_weights(spec.model.name)
    if spec.loss.aux_weight is not None:
        weights = (spec.loss.aux_weight,) * auxiliary
    return with_auxiliary(loss, weights)


def count_classes(
    spec: TrainSpec,
    dataset: Dataset,
    classes: int,
    communicator: Communicator,
    alive: Callable[[], None],
) -> list[int]:
    """Pixels of each class in the training part; all ranks must call this together.

    Every mask is read for this: by each rank its share. `alive` is called after each.
    """
    share = range(communicator.rank, len(dataset.train), communicator.size)
    skip = spec.data.on_unreadable == "skip"
    own = class_counts(dataset.train, classes, share, skip=skip, counted=alive)
    return [int(count) for count in communicator.sum(np.asarray(own, np.int64))]


def _losses(
    spec: TrainSpec,
    dataset: Dataset,
    classes: int,
    communicator: Communicator,
    alive: Callable[[], None],
) -> tuple[Loss, Loss]:
    """That of training and that of validation, in which ranks don't wait for each other."""
    counts = None
    if spec.loss.class_weights == "balanced":
        counts = count_classes(spec, dataset, classes, communicator, alive)
    loss = build_loss(spec.loss, classes, class_counts=counts)
    if spec.loss.class_weights != "batch" or communicator.size == 1:
        return loss, loss
    return build_loss(spec.loss, classes, over_ranks=communicator.sum_with_gradient), loss
