"""One save on its way to the disk: what is written, and what is told when that fails."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.records import CheckpointHeader
from clusterseg.train.failures import FailureKind, SaveFailure, save_failure, warn
from clusterseg.train.progress import Progress

Place = tuple[int, bool]
"""Where in the run: the step, and whether the last epoch is validated."""


@dataclass
class Save:
    """`tensors` are in the memory of the snapshot: good until the next one is taken. `blocked`:
    seconds that it held a step up. `is_epochs_end`: what the rules of the best epochs and of every
    n-th look at."""

    place: Place
    name: str
    header: CheckpointHeader
    tensors: list[Tensor]
    blocked: float
    is_epochs_end: bool

    def failure(self, error: BaseException) -> SaveFailure:
        """What `error` means; of a mistake of ours the traceback goes to the log."""
        failure = save_failure(error, self.header.step)
        if failure.kind is FailureKind.OTHER:
            warn("".join(traceback.format_exception(error)))
        return failure


def place_of(progress: Progress) -> Place:
    """Two saves of one place are of the same state."""
    return progress.step, progress.validated
