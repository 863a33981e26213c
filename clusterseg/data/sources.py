"""The bytes of a sample's picture and mask, from two files or from one record."""

from __future__ import annotations

from clusterseg.data.dataset import Sample
from clusterseg.data.tfrecords.shard import read_pair


def image_data(sample: Sample) -> bytes:
    """The picture's file. Raises OSError, or ClustersegError for a record that is damaged."""
    return sample.image.read_bytes() if sample.record is None else read_pair(sample.record)[0]


def mask_data(sample: Sample) -> bytes:
    """The mask's file; raises as `image_data`."""
    return sample.mask.read_bytes() if sample.record is None else read_pair(sample.record)[1]


def located(sample: Sample) -> tuple[str, str]:
    """What the pipeline's graph reads it by: its two files, or its shard and the record's first
    byte there.
    """
    if sample.record is None:
        return str(sample.image), str(sample.mask)
    return str(sample.record.shard), str(sample.record.offset)
