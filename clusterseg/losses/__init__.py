"""Losses: `build_loss(spec, classes)`."""

from clusterseg.losses.build import (
    Loss,
    balanced_weights,
    build_loss,
    loss_names,
    with_auxiliary,
)

__all__ = ["Loss", "balanced_weights", "build_loss", "loss_names", "with_auxiliary"]
