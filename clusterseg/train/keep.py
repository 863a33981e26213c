"""Which checkpoints to keep: a pure function of their headers."""

from __future__ import annotations

from collections.abc import Sequence

from clusterseg.runs.checkpoints import CheckpointInfo
from clusterseg.spec.model import CheckpointSpec


def to_delete(
    checkpoints: Sequence[CheckpointInfo],
    spec: CheckpointSpec,
    *,
    own: frozenset[str],
    good: frozenset[str] = frozenset(),
) -> list[str]:
    """Names to delete, oldest first: what none of the three rules keeps.

    `keep_last`: the newest by (attempt, step). `keep_best`: those with the highest validation
    accuracy, the earlier one first among equals; `keep_every_epochs`: every so many. The latter
    two look at validated checkpoints at an epoch's end only: one inside an epoch repeats the
    accuracy of the epoch before. Only names in `own` (written by this attempt or accepted in its
    claim) are ever deleted, and never the newest.

    `good` are those whose bytes were read and verified. One of them always stays: where the
    rules would let the last one go, the newest of them is kept beside what they keep.
    """
    ordered = sorted(checkpoints, key=lambda one: one.order)
    ends = [
        one
        for one in ordered
        if one.header.step_in_epoch == 0 and one.header.epoch > 0 and one.header.validated
    ]
    best = sorted(ends, key=lambda one: -one.header.val_accuracy)[: spec.keep_best]
    every = spec.keep_every_epochs
    kept = {one.name for one in ordered[-max(1, spec.keep_last) :]}
    kept |= {one.name for one in best}
    kept |= {one.name for one in ends if every and one.header.epoch % every == 0}
    known = [one.name for one in ordered if one.name in good]
    if known and not kept & good:
        kept.add(known[-1])
    return [one.name for one in ordered if one.name in own and one.name not in kept]
