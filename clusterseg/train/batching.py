"""How a step's pictures are shared out, and what becomes of that with another number of ranks.

Pure: from the job, the number of ranks and the header of the checkpoint that a run goes on from.
"""

from __future__ import annotations

from dataclasses import dataclass

from clusterseg.runs.records import CheckpointHeader
from clusterseg.runs.resizing import batch_of_rank, share_of_rank
from clusterseg.spec.model import TrainSpec


@dataclass(frozen=True)
class Batching:
    """Each of `world_size` ranks reads `shares` micro-batches of `batch` images a step.

    `asked` is what job.yaml asks of a rank and step; `base` what it asked for when the run began:
    the learning rate of job.yaml is that of so many images.
    """

    batch: int
    shares: int
    world_size: int
    asked: int
    base: int

    @property
    def rank_batch(self) -> int:
        """Images of a rank and step."""
        return self.batch * self.shares

    @property
    def global_batch(self) -> int:
        """Images of all ranks in a step."""
        return self.rank_batch * self.world_size

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied by if `scale_with_ranks`: the number of ranks in a
        run that always had so many, and the same for the same global batch.

        Linear scaling: Goyal et al. 2017, arXiv:1706.02677, section 2.1.
        """
        return self.global_batch / self.base

    def first_of(self, rank: int) -> int:
        """The place of a rank's first picture in the global batch."""
        return rank * self.rank_batch


def fresh(spec: TrainSpec, world_size: int) -> Batching:
    """That of a run which begins."""
    asked = spec.batch_size * spec.accumulate
    return Batching(
        batch=spec.batch_size,
        shares=spec.accumulate,
        world_size=world_size,
        asked=asked,
        base=asked,
    )


def choose(spec: TrainSpec, world_size: int, header: CheckpointHeader | None) -> Batching:
    """That of an attempt which goes on from the checkpoint with `header`, if there is one.

    What job.yaml asks for holds if it asks for something else than before; with another number of
    ranks alone, `train.on_resize` says whether the global batch stays as it was. Raises
    ClustersegError if it can't.
    """
    natural = fresh(spec, world_size)
    if header is None or not header.global_batch:
        return natural
    share = share_of_rank(spec, world_size, header)
    return Batching(
        batch=share.batch,
        shares=share.shares,
        world_size=world_size,
        asked=natural.asked,
        base=header.base_batch or batch_of_rank(header),
    )


def news(batching: Batching, header: CheckpointHeader | None) -> str | None:
    """What to tell of a batching that is not that of the checkpoint."""
    size, ranks = batching.global_batch, batching.world_size
    if (
        header is None
        or not header.global_batch
        or (size, ranks)
        == (
            header.global_batch,
            header.world_size,
        )
    ):
        return None
    became = "stays" if size == header.global_batch else f"was {header.global_batch}, is now"
    each = f"{batching.batch} images"
    if batching.shares > 1:
        each = f"{batching.shares} batches of {each}"
    if header.micro_batch not in {0, batching.batch}:
        each += (
            f", and no more {header.micro_batch} at once: batch norm, if there is any, sees these"
        )
    return (
        f"{_ranks(ranks)}, there were {header.world_size}: the global batch {became} {size} "
        f"({_ranks(ranks)} × {each})"
    )


def _ranks(number: int) -> str:
    return f"{number} rank{'s' * (number != 1)}"
