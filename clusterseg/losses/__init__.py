"""Losses: `build_loss(spec, classes)`."""

from clusterseg.losses.build import Loss, balanced_weights, build_loss, loss_names

__all__ = ["Loss", "balanced_weights", "build_loss", "loss_names"]
