"""Saves checkpoints: rank 0 writes and prunes, all ranks learn how it went."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from clusterseg.runs.checkpoints import (
    CheckpointError,
    commit_checkpoint,
    counting_checkpoints,
    superseded,
)
from clusterseg.runs.claims import is_superseded, may_prune
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.files import make_private_dir
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Claim, Phase
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.communicator import Communicator
from clusterseg.train.failures import TrainingError, describe_os_error
from clusterseg.train.keep import to_delete
from clusterseg.train.progress import Progress
from clusterseg.train.state import TrainState, not_finite

_CAUSES = ("disk full:", "i/o error:", "nan:")


class Saver:
    """`save` is called by all ranks at the same step; it returns when the file is durable.

    `fixed` are the parts of the header that are the same in all checkpoints of the attempt.
    """

    def __init__(
        self,
        *,
        paths: RunPaths,
        claim: Claim,
        spec: CheckpointSpec,
        state: TrainState,
        communicator: Communicator,
        events: EventWriter,
        seed: int,
        global_batch: int,
        identity: dict[str, str],
        schedule: dict[str, float | int | str],
    ) -> None:
        self._paths = paths
        self._claim = claim
        self._spec = spec
        self._state = state
        self._communicator = communicator
        self._events = events
        self._seed = seed
        self._global_batch = global_batch
        self._identity = identity
        self._schedule = schedule
        self._own = set(claim.accepted)
        self._last_write = 0.0
        self._last_time = time.monotonic()

    @property
    def seconds_since_save(self) -> float:
        """On this rank's clock; since the attempt's start if there was none."""
        return time.monotonic() - self._last_time

    def save(self, progress: Progress) -> None:
        """Raises TrainingError on all ranks alike if it could not be saved on rank 0."""
        begin = time.perf_counter()
        problem = ""
        if self._communicator.rank == 0:
            try:
                self._write(progress, begin)
            except OSError as error:
                problem = describe_os_error(error, f"saving step {progress.step}")
            except CheckpointError as error:
                problem = error.message
        problem = self._communicator.broadcast_text(problem)
        self._last_time = time.monotonic()
        if problem:
            raise TrainingError(
                problem if problem.startswith(_CAUSES) else f"save: {problem}",
                code="save-failed",
                agreed=True,
                help="the checkpoints saved before are untouched; `resume` goes on from them",
            )
        self._events.write(
            Phase(
                t=time.time(),
                rank=self._communicator.rank,
                name="save",
                seconds=time.perf_counter() - begin,
            )
        )

    def _write(self, progress: Progress, begin: float) -> None:
        if not self._holds():  # before the work; asked again before the file gets its name
            raise superseded(self._claim.attempt)
        make_private_dir(self._paths.checkpoints)
        tensors = self._state.tensors()
        if bad := not_finite(tensors):
            raise CheckpointError(f"nan: {bad} is not finite after step {progress.step}")
        copied = time.perf_counter()
        header = progress.to_header(
            attempt=self._claim.attempt,
            t=time.time(),
            seed=self._seed,
            global_batch=self._global_batch,
            world_size=self._communicator.size,
            identity=self._identity,
            schedule=self._schedule,
            times={"copy": copied - begin, "write_before": self._last_write},
        )
        info = commit_checkpoint(
            self._paths.checkpoints,
            progress.checkpoint_name,
            header,
            tensors,
            accepted=self._claim.accepted,
            holds=self._holds,
        )
        self._own.add(info.name)
        end = time.perf_counter()
        self._last_write = end - copied
        self._events.write(
            Checkpoint(
                t=time.time(),
                rank=0,
                epoch=progress.epoch,
                step=progress.step,
                file=info.name,
                bytes=info.bytes,
                blocked_seconds=end - begin,
                write_seconds=self._last_write,
            )
        )
        try:
            self._prune()
        except OSError as error:  # the step is saved; a disk that fills up is noticed by a save
            sys.stderr.write(f"old checkpoints could not be deleted: {error}\n")

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
