"""Data sets on disk, the order in which they are read, and the input pipeline."""

from clusterseg.data.dataset import Dataset, Part, Sample
from clusterseg.data.open import class_counts, format_names, open_dataset

__all__ = [
    "Dataset",
    "Part",
    "Sample",
    "class_counts",
    "format_names",
    "open_dataset",
]
