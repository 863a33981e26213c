"""Finds the rank that hangs: the edge around `limits.find_hang`.

No launcher sees a rank that is stopped or stuck; it shows only in event files that do not change.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass, replace

from clusterseg.cluster.processes import (
    host_name,
    process_state,
    processes_with_environment,
    send_signal,
)
from clusterseg.runs.checkpoints import unfinished_bytes
from clusterseg.runs.paths import RunPaths
from clusterseg.supervise.cores import short_name
from clusterseg.supervise.launch import attempt_variables
from clusterseg.supervise.limits import Hang, Silence, find_hang
from clusterseg.supervise.watch import Watch


@dataclass(frozen=True)
class Found:
    """A hang: the rank to blame, and a sentence about it."""

    rank: int
    error: str


class HangWatch:
    """Judges the silence of one attempt's ranks. `train`: they are ranks of the trainer."""

    def __init__(
        self, run: RunPaths, attempt: int, watch: Watch, limits: Hang, *, train: bool
    ) -> None:
        self._run, self._attempt, self._watch = run, attempt, watch
        self._limits, self._train = limits, train
        self._unfinished: int | None = None
        self._save_grew = 0.0

    def find(self, now: float) -> Found | None:
        """The hang, if there is one; `now` is the clock of the watch."""
        if all(now - rank.grew <= self._limits.base for rank in self._watch.ranks):
            return None  # spares looking at processes
        if self._judge(now, self._limits) is None:
            return None
        # A closer look before the word is spoken: at ranks whose turn it was not, at a save that
        # is being written.
        limits = self._limits
        self._watch.look_at_all(now)
        with suppress(OSError):
            if self._sees_save(now):  # and fsync of a large file shows no growth
                limits = replace(limits, base=max(limits.base, limits.startup))
        rank = self._judge(now, limits)
        if rank is None:
            return None
        start = self._watch.ranks[rank.rank].start
        where = f" on {start.host}" if start else ""
        step = "before its first step" if rank.step is None else f"after step {rank.step}"
        how = " (its process is stopped)" if rank.process in ("T", "t") else ""
        return Found(rank.rank, f"rank {rank.rank}{where} hangs {step}{how}")

    def ask_for_stacks(self) -> bool:
        """Makes the trainer's ranks on this host write their stacks into their logs (SIGQUIT).

        False if there is none to ask. Programs of others are left alone: QUIT would end them.
        """
        if not self._train:
            return False
        ranks = {start.pid for start in self._watch.starts() if self._is_here(start.host)}
        asked = False
        for process in processes_with_environment(attempt_variables(self._run, self._attempt)):
            if process.pid in ranks and process_state(process.pid) not in ("T", "t"):
                asked |= send_signal(process, signal.SIGQUIT)
        return asked

    def _judge(self, now: float, limits: Hang) -> Silence | None:
        return find_hang(
            [self._silence(rank, now) for rank in range(self._watch.count)],
            limits,
            window=max(self._watch.window, self._watch.longest_save or 0.0),
            validation=self._watch.longest_validation,
            reports_steps=self._train,
        )

    def _silence(self, number: int, now: float) -> Silence:
        rank = self._watch.ranks[number]
        state = None
        if rank.start is not None and self._is_here(rank.start.host):
            state = process_state(rank.start.pid)
        return Silence(
            rank=number,
            silent=now - rank.grew,
            step=rank.step,
            last_t=rank.last_t,
            at_epoch_end=rank.at_epoch_end,
            starting=rank.starting,
            ended=rank.end is not None,
            process=state,
        )

    def is_saving(self, now: float) -> bool:
        """Whether a checkpoint is being written and has grown of late (its fsync may take time)."""
        with suppress(OSError):
            return self._sees_save(now) and now - self._save_grew < self._limits.base
        return False

    def _sees_save(self, now: float) -> bool:
        """A checkpoint that grows is life, of all ranks: the others wait for the one that saves."""
        written = unfinished_bytes(self._run.checkpoints, self._attempt)
        if written is not None and written != self._unfinished:
            self._save_grew = now
            for rank in self._watch.ranks:
                rank.grew = now
        self._unfinished = written
        return written is not None

    @staticmethod
    def _is_here(host: str) -> bool:
        return short_name(host) == short_name(host_name())
