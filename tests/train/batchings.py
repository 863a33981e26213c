"""Batchings for tests that ask for no job.yaml."""

from __future__ import annotations

from clusterseg.train.batching import Batching


def shared(global_batch: int, world_size: int) -> Batching:
    """That of a run which always had these."""
    batch = global_batch // world_size
    return Batching(batch=batch, shares=1, world_size=world_size, asked=batch, base=batch)


ALONE = shared(1, 1)
"""One rank that reads one image a step."""
