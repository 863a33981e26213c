"""Segmentation networks: `build_model(name, classes, size, **options)`."""

from clusterseg.models.build import build_model, model_names

__all__ = ["build_model", "model_names"]
