"""Attempts of a solo run inside the test's process: fast enough to stop them anywhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.records import Epoch, Event
from clusterseg.spec.model import JobSpec
from clusterseg.train.assembly import Assembly
from clusterseg.train.board.scribe import start_scribe
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.loop import Loop
from clusterseg.train.restoring import restore
from clusterseg.train.saving import Saver
from clusterseg.train.saving_policy import SavingPatience
from clusterseg.train.stopping import StopSources
from tests.train.runs import Run


class StopAt(StopSources):
    """Asks to stop at the n-th look (from 0): once before the first step, at every step, and
    at every batch of a validation."""

    def __init__(self, look: int) -> None:
        super().__init__(None)
        self._left = look

    def flags(self) -> list[bool]:
        self._left -= 1
        return [False, self._left < 0, False]

    def asked(self) -> bool:
        return self._left < 0


class Killed(Exception):
    """Stands for a kill: nothing after it is executed."""


class KilledAt(EventWriter):
    """Dies instead of writing its n-th event (from 0)."""

    def __init__(self, path: Path, event: int) -> None:
        super().__init__(path)
        self._left = event

    def write(self, event: Event) -> None:
        self._left -= 1
        if self._left < 0:
            raise Killed
        super().write(event)


@dataclass
class Attempts:
    """Attempts of one run directory, one after the other, on a shared assembly."""

    run: Run
    assembly: Assembly
    fresh: dict[str, Any]

    def attempt(
        self,
        stops: StopSources | None = None,
        *,
        events: Callable[[Path], EventWriter] = EventWriter,
        seed: int = 0,
        left_out: frozenset[int] = frozenset(),
        board: bool = False,
        patience: SavingPatience | None = None,
    ) -> str | None:
        """Claims and runs the next attempt; None if it came to the end, else why it stopped.

        Begins with the fresh weights on the first attempt and with rubbish on later ones, so
        that what a checkpoint does not bring back can't be right by luck. With `board` its curves
        are written; one that is killed leaves its thread behind, as a process that is not dead yet.
        """
        claim = self.run.claim()
        rubbish = np.random.default_rng(self.run.attempt)
        for name, variable in self.assembly.state.variables.items():
            value = self.fresh[name]
            if claim.resume_from is not None:
                value = rubbish.uniform(1, 2, value.shape).astype(value.dtype)
            variable.assign(value)
        spec = msgspec.convert(self.run.spec, JobSpec)
        assert spec.train is not None
        communicator = SoloCommunicator()
        with events(self.run.paths.attempt(claim.attempt).events(0)) as writer:
            progress = restore(
                self.run.paths, claim, self.assembly.state, communicator,
                identity=self.assembly.identity,
                initial_weights=spec.train.initial_weights,
            )  # fmt: skip
            scribe = (
                start_scribe(self.run.paths, claim, spec.train, self.assembly, progress)
                if board else None
            )  # fmt: skip
            saver = Saver(
                paths=self.run.paths, claim=claim, spec=spec.checkpoint,
                state=self.assembly.state, communicator=communicator, events=writer,
                seed=spec.train.seed, batching=self.assembly.batching,
                identity=self.assembly.identity, schedule={}, patience=patience,
                on_nan=spec.train.on_nan,
                first=scribe.settle if scribe else lambda: None,
            )  # fmt: skip
            loop = Loop(
                spec=spec.train, checkpoint=spec.checkpoint, assembly=self.assembly,
                progress=progress, communicator=communicator, saver=saver, events=writer,
                stops=stops or StopAt(10**9), left_out=left_out, scribe=scribe,
            )  # fmt: skip
            try:
                reason = loop.run()
                if loop.scribe:
                    loop.scribe.close(60)
                return reason
            finally:  # a thread that a kill ends as well can't be ended here: it finishes
                with suppress(Killed):
                    saver.settle()

    def final(self) -> tuple[bytes, list[dict[str, Any]]]:
        """The newest checkpoint: all its tensors' bytes, and its history without times."""
        newest = list_checkpoints(self.run.paths.checkpoints)[-1]
        layout, data = read_verified(newest.path)
        history = [
            dict(entry, seconds=None, images_per_second=None) for entry in layout.header.history
        ]
        return bytes(data), history

    def steps(self, attempt: int) -> list[int]:
        """All steps that the windows of an attempt cover, in order."""
        windows = self.run.windows(attempt=attempt)
        return [
            step
            for window in windows
            for step in range(window.step - window.count + 1, window.step + 1)
        ]

    def epochs(self) -> list[int]:
        """The epochs that were reported, in all attempts."""
        return [
            event.epoch
            for attempt in range(self.run.attempt + 1)
            for event in self.run.events(attempt=attempt)
            if isinstance(event, Epoch)
        ]
