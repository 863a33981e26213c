"""Run directories as a hard life leaves them, written by hand: no writer of clusterseg is used."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

CAUSES = ["done", "preempted", "time_limit", "cancelled", "crash", "hang", "node_fail", "unknown"]


def make_run(
    root: Path, rng: Random, *, attempts: int = 5, ranks: int = 4, windows: int = 12
) -> None:
    """Attempts that build on each other: kills, replays, logs that are torn or gone.

    At most so many ranks, and windows an attempt.
    """
    (root / "attempts").mkdir(parents=True)
    epoch_length = rng.randint(2, 9)
    number = rng.choice([0, 0, 0, 0, 1])
    reached = 0
    t = 1e9
    for _ in range(attempts):
        resume = rng.choice([reached, reached, rng.randint(0, reached)])
        t += rng.uniform(0, 50)
        one = _Attempt(
            folder=root / "attempts" / f"{number:03d}",
            rng=rng,
            number=number,
            resume=resume,
            epoch_length=epoch_length,
            t=t,
            ranks=rng.randint(1, ranks),
            windows=rng.randint(0, windows),
        )
        t = one.write()
        reached = max(resume, one.last_step)
        number += rng.choice([1, 1, 1, 1, 2])


@dataclass
class _Attempt:
    folder: Path
    rng: Random
    number: int
    resume: int
    epoch_length: int
    t: float
    ranks: int
    windows: int
    last_step: int = 0

    def write(self) -> float:
        """Writes the attempt; returns its last time."""
        rng = self.rng
        self.folder.mkdir()
        if rng.random() < 0.9:
            self._write("claim.json", self._claim())
            if rng.random() < 0.1:  # killed before its ranks began
                self.last_step = self.resume
                return self.t
        cuts = self._cuts()
        self.last_step = cuts[-1][0] if cuts else self.resume
        (self.folder / "ranks").mkdir()
        ends = [self.t]
        for rank in range(self.ranks):
            log = _Log(self, rank)
            log.write(cuts if rng.random() < 0.8 else cuts[: rng.randint(0, len(cuts))])
            ends.append(log.t)
            if rng.random() < 0.93:
                (self.folder / "ranks" / f"{rank:05d}.jsonl").write_bytes(log.bytes())
        t = max(ends) + rng.uniform(0, 5)
        if rng.random() < 0.6:
            self._write("end.json", self._end(t, cuts))
        return t

    def _cuts(self) -> list[tuple[int, int]]:
        """(last step, count) of the windows: the first step alone, and cut at epochs' ends."""
        cuts = []
        step = self.resume
        for index in range(self.windows):
            room = self.epoch_length - step % self.epoch_length
            count = 1 if index == 0 else min(room, self.rng.randint(1, 5))
            step += count
            cuts.append((step, count))
        return cuts

    def _claim(self) -> dict[str, Any]:
        hosts = {"n1": self.ranks} if self.rng.random() < 0.5 else {"n1": 1, "n2": self.ranks}
        return {
            "t": self.t,
            "attempt": self.number,
            "submission": 0,
            "key": "k",
            "uid": 1000,
            "job_id": "77",
            "restart_count": 0,
            "host": "n1",
            "boot_id": "b",
            "pid": 1,
            "pid_start": 2,
            "nonce": "x",
            "hosts": hosts,
            "ranks": self.ranks,
            "argv": ["mpirun", "clusterseg", "train"],
            "resume_from": None,
            "resume_step": self.resume,
            "accepted": {},
        }

    def _end(self, t: float, cuts: list[tuple[int, int]]) -> dict[str, Any]:
        return {
            "t": t,
            "attempt": self.number,
            "cause": self.rng.choice(CAUSES),
            "exit_code": 1,
            "signal": None,
            "failed_rank": None,
            "failed_host": None,
            "error": None,
            "first_step": self.resume + 1 if cuts else None,
            "last_step": cuts[-1][0] if cuts else None,
            "will_restart": self.rng.random() < 0.5,
        }

    def _write(self, name: str, record: dict[str, Any]) -> None:
        (self.folder / name).write_text(json.dumps(record))


class _Log:
    """One rank's log."""

    def __init__(self, attempt: _Attempt, rank: int) -> None:
        self.attempt = attempt
        self.rank = rank
        self.rng = attempt.rng
        self.t = attempt.t
        self.lines: list[bytes] = []
        self.pace = self.rng.choice([1.0, 1.0, 1.6])
        self.last_line = b"\n"

    def bytes(self) -> bytes:
        return b"\n".join(self.lines) + self.last_line if self.lines else b""

    def write(self, cuts: list[tuple[int, int]]) -> None:
        rng, attempt = self.rng, self.attempt
        if rng.random() < 0.9:
            self._add("rank_start", **self._start())
        if rng.random() < 0.5:  # validated anew: the attempt before was killed before it could
            self._maybe_epoch(attempt.resume)
        for step, count in cuts:
            seconds = rng.uniform(0.01, 2.0) * count
            self.t += seconds
            self._add(
                "steps",
                epoch=step // attempt.epoch_length,
                step=step,
                count=count,
                images=rng.choice([4, 4, 3]) * count,
                seconds=seconds,
                wait_data=0.001,
                comm=rng.uniform(0, 1) * seconds / self.pace,
                loss=rng.choice([0.5, None, math.nan]),
                learning_rate=0.1,
            )
            self._maybe_checkpoint(step)
            self._maybe_epoch(step)
            self._maybe_checkpoint(step)
            self._maybe_noise()
        if rng.random() < 0.7:
            self._add("rank_end", status="stopped", step=cuts[-1][0] if cuts else 0, error=None)
        self._maybe_torn()

    def _start(self) -> dict[str, Any]:
        return {
            "attempt": self.attempt.number,
            "world_size": self.attempt.ranks,
            "host": f"n{1 + self.rank % 2}",
            "local_rank": self.rank // 2,
            "pid": 77,
            "cpus": [0],
            "accelerator": None,
            "resumed_from": None,
            "epoch": 0,
            "step": self.attempt.resume,
        }

    def _maybe_epoch(self, step: int) -> None:
        epoch, inside = divmod(step, self.attempt.epoch_length)
        if self.rank or inside or not epoch or self.rng.random() < 0.1:
            return
        self.t += 1.0
        self._add(
            "epoch",
            epoch=epoch,
            step=step,
            loss=self.rng.choice([0.7, math.nan]),
            val_loss=0.6,
            val_accuracy=self.rng.choice([0.5, 0.625, 0.75, 0.8, None, math.nan]),
            val_mean_iou=self.rng.choice([0.25, 0.375, None]),
            seconds=1.0,
        )

    def _maybe_checkpoint(self, step: int) -> None:
        if self.rank or self.rng.random() < 0.5:
            return
        epoch, inside = divmod(step, self.attempt.epoch_length)
        suffix = f"-step-{step:09d}" if inside else ""
        accuracy = self.rng.randint(0, 9999)
        self._add(
            "checkpoint",
            epoch=epoch,
            step=step,
            file=f"weights-{epoch:04d}-0.{accuracy:04d}{suffix}.safetensors",
            bytes=10,
            blocked_seconds=0.1,
            write_seconds=0.2,
        )

    def _maybe_noise(self) -> None:
        noise = [b"", b'{"t":9e9,"rank":0,"kind":"gpu_power","watts":300}', b"junk \xff", b"[1]"]
        if self.rng.random() < 0.1:
            self.lines.append(self.rng.choice(noise))

    def _maybe_torn(self) -> None:
        """A kill in the middle of the last line, or just before its end."""
        chance = self.rng.random()
        if chance < 0.15 and self.lines and self.lines[-1]:
            self.lines[-1] = self.lines[-1][: self.rng.randint(0, len(self.lines[-1]) - 1)]
        if chance < 0.25:
            self.last_line = b""

    def _add(self, kind: str, **fields: Any) -> None:
        record = {"t": self.t, "rank": self.rank, "kind": kind, **fields, "new_field": [1]}
        line = json.dumps(record).encode()
        if self.rng.random() < 0.03:  # the disk was full for a moment
            line = line[: self.rng.randint(0, len(line) - 1)]
        self.lines.append(line)
