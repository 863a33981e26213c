"""Rank 0's checkpoints on the disk: written, and pruned by the rules of what to keep.

Everything here runs in the writer's thread, one call at a time.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.checkpoints import (
    CheckpointError,
    CheckpointInfo,
    commit_checkpoint,
    counting_checkpoints,
    superseded,
)
from clusterseg.runs.claims import is_superseded, may_prune
from clusterseg.runs.files import make_private_dir
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.failures import warn
from clusterseg.train.keep import to_delete
from clusterseg.train.state import not_finite


@dataclass(frozen=True)
class Written:
    """A checkpoint that is durable, and the seconds that took."""

    info: CheckpointInfo
    seconds: float


class CheckpointStore:
    """The checkpoints of the run whose attempt `claim` is."""

    def __init__(self, paths: RunPaths, claim: Claim, spec: CheckpointSpec) -> None:
        self._paths = paths
        self._claim = claim
        self._spec = spec
        self._own = set(claim.accepted)

    def write(self, name: str, header: CheckpointHeader, tensors: list[Tensor]) -> Written:
        """Returns when the file is durable; called again after a failure, it finishes.

        Raises OSError, or CheckpointError for what another try can't mend. What was there
        before is untouched then.
        """
        began = time.perf_counter()
        if not self._holds():  # before the work; asked again before the file gets its name
            raise superseded(self._claim.attempt)
        make_private_dir(self._paths.checkpoints)
        if bad := not_finite(tensors):
            raise CheckpointError(
                f"nan: {bad} is not finite after step {header.step}", code="not-finite"
            )
        info = commit_checkpoint(
            self._paths.checkpoints,
            name,
            header,
            tensors,
            accepted=self._claim.accepted,
            holds=self._holds,
        )
        self._own.add(info.name)
        seconds = time.perf_counter() - began
        try:
            self._prune()
        except OSError as error:  # the step is saved; a disk that fills up is noticed by a save
            warn(f"old checkpoints could not be deleted: {error}")
        return Written(info, seconds)

    def _holds(self) -> bool:
        return not is_superseded(self._paths, self._claim)

    def _prune(self) -> None:
        """Deletes what the keep rules let go; a file that is gone already is no error.

        The rules see only what counts: a file that an attempt wrote after it had lost the run
        must not take the place of a good one.
        """
        if not may_prune(self._paths, self._claim):
            return
        counting = counting_checkpoints(self._paths, self._claim)
        for name in to_delete(counting, self._spec, own=frozenset(self._own)):
            with suppress(FileNotFoundError):
                (self._paths.checkpoints / name).unlink()
