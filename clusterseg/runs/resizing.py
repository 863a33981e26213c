"""Whether a run can go on with another number of ranks, and how these share a step's pictures.

Pure, from the job, the number of ranks and a checkpoint's header: `resume` asks before anything is
submitted, and the ranks when they begin.
"""

from __future__ import annotations

from dataclasses import dataclass

from clusterseg.errors import ClustersegError
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import TrainSpec

_SHOWN = 12  # numbers of ranks that an error names


@dataclass(frozen=True)
class Share:
    """What a rank reads in a step: `shares` micro-batches of `batch` images."""

    batch: int
    shares: int


def share_of_rank(spec: TrainSpec, world_size: int, header: CheckpointHeader | None) -> Share:
    """That of an attempt which goes on from the checkpoint with `header`, if there is one.

    What job.yaml asks for holds if it asks for something else than before; with another number of
    ranks alone, `train.on_resize` says whether the global batch stays as it was. Raises
    ClustersegError (`resize`) if it can't.
    """
    share = Share(spec.batch_size, spec.accumulate)
    if header is None or not header.global_batch:
        return share
    asked = share.batch * share.shares
    keeps = spec.on_resize == "keep" and asked == (header.asked_batch or batch_of_rank(header))
    if keeps and asked * world_size != header.global_batch:
        return _kept(header, share.batch, world_size)
    now = asked * world_size
    if now != header.global_batch and header.step_in_epoch and spec.steps_per_epoch is not None:
        raise ClustersegError(
            f"train.steps_per_epoch counts steps of {header.global_batch} images in the epoch that "
            f"is in progress, and now a step would have {now}",
            code="resize",
            help="keep the global batch (`train.on_resize: keep`), or resume from an epoch's end",
        )
    return share


def batch_of_rank(header: CheckpointHeader) -> int:
    """Images of a rank and step as the file's attempt had them, equally many on every rank.

    Files from before there was a choice tell no more than this.
    """
    return header.global_batch // max(1, header.world_size)


def _kept(header: CheckpointHeader, most: int, world_size: int) -> Share:
    """A rank's part where all together are to have the global batch of `header`.

    Of `most` images at once if that can be: so much memory there is, and batch norm sees the same
    pictures together as before.
    """
    size = header.global_batch
    if size % world_size:
        fitting = [ranks for ranks in range(1, size + 1) if size % ranks == 0]
        shown = ", ".join(map(str, fitting[:_SHOWN])) + (", …" if fitting[_SHOWN:] else "")
        raise ClustersegError(
            f"resources make {world_size} rank{'s' * (world_size != 1)} now, {header.world_size} "
            f"there: {world_size} ranks can't share a global batch of {size} images equally "
            "(train.on_resize is keep)",
            code="resize",
            help=f"resume with {shown} ranks, or with `train.on_resize: scale`, which gives each "
            "rank what job.yaml says and another global batch",
        )
    of_a_rank = size // world_size
    batch = max(size for size in range(1, most + 1) if of_a_rank % size == 0)
    return Share(batch, of_a_rank // batch)
