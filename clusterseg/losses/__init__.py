"""Losses: `build_loss(spec, classes)`."""

from clusterseg.data.balance import balanced_weights
from clusterseg.losses.build import (
    Loss,
    build_loss,
    loss_names,
    with_auxiliary,
)

__all__ = ["Loss", "balanced_weights", "build_loss", "loss_names", "with_auxiliary"]
