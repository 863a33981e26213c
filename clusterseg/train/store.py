"""Rank 0's checkpoints on the disk: written, and pruned by the rules of what to keep.

Everything here runs in the writer's thread, one call at a time.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from clusterseg.runs.checkpoint_file import Tensor, file_size
from clusterseg.runs.checkpoints import (
    CheckpointError,
    CheckpointInfo,
    commit_checkpoint,
    counting_checkpoints,
    reject,
    superseded,
    verify,
)
from clusterseg.runs.claims import is_superseded, may_prune
from clusterseg.runs.files import make_private_dir
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from clusterseg.runs.space import space_in
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.failures import warn
from clusterseg.train.keep import to_delete
from clusterseg.train.saving_policy import foresee
from clusterseg.train.state import not_finite


@dataclass(frozen=True)
class Written:
    """A checkpoint that is durable, and the seconds that took."""

    info: CheckpointInfo
    seconds: float


class CheckpointStore:
    """The checkpoints of the run whose attempt `claim` is.

    `first` returns when what must be on the disk before a checkpoint is there.
    """

    def __init__(
        self,
        paths: RunPaths,
        claim: Claim,
        spec: CheckpointSpec,
        first: Callable[[], None] = lambda: None,
    ) -> None:
        self._paths = paths
        self._claim = claim
        self._spec = spec
        self._first = first
        self._own = set(claim.accepted)
        # Whoever claimed has verified it.
        self._good = {claim.resume_from} if claim.resume_from else set()

    def look_ahead(self, needed: int) -> None:
        """Warns if there is not twice the room for a file of about `needed` bytes."""
        if why := foresee(2 * needed, space_in(self._paths.root), reserve=0):
            warn(f"the next checkpoints may not fit: for two {why}")

    def write(
        self, name: str, header: CheckpointHeader, tensors: list[Tensor], *, reserve: int
    ) -> Written:
        """Returns when the file is durable; called again after a failure, it finishes.

        Not a byte is written where it would not fit, with `reserve` bytes left free. Raises
        OSError, or CheckpointError for what another try can't mend. What was there before is
        untouched then.
        """
        began = time.perf_counter()
        if not self._holds():  # before the work; asked again before the file gets its name
            raise superseded(self._claim.attempt)
        make_private_dir(self._paths.checkpoints)
        if bad := not_finite(tensors):
            raise CheckpointError(
                f"nan: {bad} is not finite after step {header.step}", code="not-finite"
            )
        self._find_room(file_size(header, tensors), reserve)
        info = commit_checkpoint(
            self._paths.checkpoints,
            name,
            header,
            tensors,
            accepted=self._claim.accepted,
            holds=self._may_commit,
        )
        self._own.add(info.name)
        seconds = time.perf_counter() - began
        self._prune()
        return Written(info, seconds)

    def _find_room(self, needed: int, reserve: int) -> None:
        why = foresee(needed, space_in(self._paths.checkpoints), reserve=reserve)
        if why is None:
            return
        self._prune()  # what could not be deleted before
        if why := foresee(needed, space_in(self._paths.checkpoints), reserve=reserve):
            raise OSError(errno.ENOSPC, f"foreseen: {why}", str(self._paths.checkpoints))

    def _may_commit(self) -> bool:
        self._first()
        return self._holds()

    def _holds(self) -> bool:
        return not is_superseded(self._paths, self._claim)

    def _prune(self) -> None:
        """Deletes what the keep rules let go; a file that is gone already is no error.

        The rules see only what counts: a file that an attempt wrote after it had lost the run
        must not take the place of a good one. Raises OSError if the newest file is bad.
        """
        try:
            if not may_prune(self._paths, self._claim):
                return
            counting = counting_checkpoints(self._paths, self._claim)
            gone = set(to_delete(counting, self._spec, own=frozenset(self._own)))
            left = [one.name for one in counting if one.name not in gone]
            if gone and self._good.isdisjoint(left):
                self._read_back(counting[-1])
            own, good = frozenset(self._own), frozenset(self._good)
            for name in to_delete(counting, self._spec, own=own, good=good):
                with suppress(FileNotFoundError):
                    (self._paths.checkpoints / name).unlink()
        except _BadFileError:
            raise
        except OSError as error:  # the step is saved; a disk that fills up is noticed by a save
            warn(f"old checkpoints could not be deleted: {error}")

    def _read_back(self, newest: CheckpointInfo) -> None:
        """Verifies it before older ones go, as the disk has it.

        Raises _BadFileError with the file set aside if that can be, OSError if it can't be read
        just now.
        """
        try:
            verify(newest.path, newest.sha256, from_disk=True)
        except CheckpointError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno != errno.EIO:
                raise cause from error  # says nothing about the file
            with suppress(OSError):  # where it stays, whoever goes on verifies it
                reject(
                    newest.path, error.message, folder=self._paths.rejected, sha256=newest.sha256
                )
            raise _BadFileError(errno.EIO, f"read back, {error.message}") from error
        self._good.add(newest.name)


class _BadFileError(OSError):
    """A file does not hold what was written to it."""
