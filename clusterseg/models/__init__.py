"""Segmentation networks: `build_model(name, classes, size, **options)`."""

from clusterseg.models.build import (
    auxiliary_weights,
    build_model,
    main_output,
    model_names,
    normalisation_of,
)

__all__ = ["auxiliary_weights", "build_model", "main_output", "model_names", "normalisation_of"]
