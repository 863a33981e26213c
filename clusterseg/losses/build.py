"""Builds a loss by name. A loss is a file in `clusterseg/losses/kinds`.

A loss gives a pair (loss sum, weight sum) rather than a mean: the mean over all ranks is the sum
of the sums divided by the sum of the weights, whatever the number of labelled pixels on each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from clusterseg import registry
from clusterseg.data.balance import balanced_weights
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    import tensorflow as tf

    from clusterseg.spec.model import LossSpec


class Loss(Protocol):
    """(labels int32 [n, h, w], logits [n, h, w, classes]) -> (loss sum, weight sum).

    Both are float32 scalars. The weight sum follows from the labels alone. `step` is the number of
    the optimizer step, a float32 scalar, for losses that change over the training; None: as at its
    end, which validation asks for.
    """

    def __call__(
        self, labels: tf.Tensor, logits: tf.Tensor, step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]: ...


@dataclass(frozen=True)
class ClassWeights:
    """One number a class: `table`, or None for those of each batch, 1 - the class's share of its
    labelled pixels, which `over_ranks` counts on all ranks (None: on this one alone)."""

    classes: int
    table: tuple[float, ...] | None
    over_ranks: Callable[[tf.Tensor], tf.Tensor] | None = None


_KINDS = "clusterseg.losses.kinds"


def build_loss(
    spec: LossSpec,
    classes: int,
    *,
    class_counts: Sequence[int] | None = None,
    over_ranks: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> Loss:
    """The loss that `spec` asks for, for labels 0 to classes - 1 and `spec.ignore`.

    Ignored pixels count in neither sum; any other label outside 0 to classes - 1 is an error of
    the data, which the input pipeline finds. `class_counts` are the pixels a class has in the
    training part (`clusterseg.data.class_counts`), needed for `class_weights: balanced` only.
    `over_ranks` sums a float32 vector over all ranks, which then must call the loss together; None
    where the batch is a rank's own.

    Raises ClustersegError: unknown loss, or weights that don't fit the classes.
    """
    module = registry.load(_KINDS, "loss", spec.name)
    registry.check_options("loss", spec.name, module.build, spec.options)
    weights = _weights(spec, classes, class_counts, over_ranks)
    loss: Loss = module.build(classes, weights, spec.ignore, **spec.options)
    return loss


def with_auxiliary(loss: Loss, weights: Sequence[float]) -> Loss:
    """The loss of a list of logits: that of the main ones, which are first, and the others' times
    their `weights`. Each has the same weight sum, which is the labels'."""

    def summed(
        labels: tf.Tensor, logits: Sequence[tf.Tensor], step: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        loss_sum, weight_sum = loss(labels, logits[0], step)
        for weight, auxiliary in zip(weights, logits[1:], strict=True):
            loss_sum += weight * loss(labels, auxiliary, step)[0]
        return loss_sum, weight_sum

    return summed


def loss_names() -> list[str]:
    """All names that `build_loss` takes, sorted."""
    return registry.names(_KINDS)


def _weights(
    spec: LossSpec,
    classes: int,
    class_counts: Sequence[int] | None,
    over_ranks: Callable[[tf.Tensor], tf.Tensor] | None,
) -> ClassWeights | None:
    if spec.class_weights is None:
        return None
    if spec.class_weights == "batch":
        return ClassWeights(classes, None, over_ranks)
    if spec.class_weights == "balanced":
        if class_counts is None:
            raise ValueError("class_weights: balanced needs class_counts")
        weights = balanced_weights(class_counts)
    else:
        weights = tuple(spec.class_weights)
    if len(weights) != classes:
        raise ClustersegError(
            f"loss.class_weights has {len(weights)} numbers, but there are {classes} classes",
            code="bad-class-weights",
            help=f"give {classes} numbers, in the order of the classes",
        )
    # `not >=` is also true for nan.
    if any(not weight >= 0 or weight == float("inf") for weight in weights) or not any(weights):
        raise ClustersegError(
            "loss.class_weights must be finite, not below 0, and not all 0",
            code="bad-class-weights",
        )
    return ClassWeights(classes, weights)
