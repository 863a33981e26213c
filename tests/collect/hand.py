"""Run directories with round numbers, written by hand for examples that can be checked by eye."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clusterseg.collect.summarize import collect
from clusterseg.collect.summary import Summary
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import State

HEAD = {
    "submission": 0,
    "key": "k",
    "uid": 0,
    "job_id": "77",
    "restart_count": 0,
    "host": "n0",
    "boot_id": "b",
    "pid": 1,
    "pid_start": 1,
    "nonce": "x",
    "argv": ["mpirun"],
    "resume_from": None,
    "accepted": {},
}


def claim(run: Path, attempt: int, t: float, resume_step: int = 0, ranks: int = 1) -> None:
    folder = run / "attempts" / f"{attempt:03d}"
    (folder / "ranks").mkdir(parents=True, exist_ok=True)
    own = {"t": t, "attempt": attempt, "resume_step": resume_step, "ranks": ranks}
    (folder / "claim.json").write_text(json.dumps({**HEAD, **own, "hosts": {"n0": ranks}}))


def end(run: Path, attempt: int, t: float, cause: str, will_restart: bool = False) -> None:
    record = {
        "t": t,
        "attempt": attempt,
        "cause": cause,
        "exit_code": 0,
        "signal": None,
        "failed_rank": None,
        "failed_host": None,
        "error": None,
        "first_step": None,
        "last_step": None,
        "will_restart": will_restart,
    }
    (run / "attempts" / f"{attempt:03d}" / "end.json").write_text(json.dumps(record))


def log(run: Path, attempt: int, rank: int, *events: dict[str, Any], tail: str = "\n") -> None:
    folder = run / "attempts" / f"{attempt:03d}" / "ranks"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"rank": rank, **event}) for event in events]
    (folder / f"{rank:05d}.jsonl").write_text("\n".join(lines) + tail)


def start(t: float, host: str = "n0", world_size: int = 1) -> dict[str, Any]:
    return {
        "t": t,
        "kind": "rank_start",
        "attempt": 0,
        "world_size": world_size,
        "host": host,
        "local_rank": 0,
        "pid": 1,
        "cpus": [0],
        "accelerator": None,
        "resumed_from": None,
        "epoch": 0,
        "step": 0,
    }


def window(
    t: float, step: int, count: int, seconds: float, *, images: int = 4, comm: float = 0.0
) -> dict[str, Any]:
    """A window of `count` steps that ends with `step`; `images` are those of one step."""
    return {
        "t": t,
        "kind": "steps",
        "epoch": 0,
        "step": step,
        "count": count,
        "comm": comm,
        "images": images * count,
        "seconds": seconds,
        "wait_data": 0.0,
        "loss": 0.5,
        "learning_rate": 0.1,
    }


def epoch(t: float, number: int, step: int, accuracy: float | None) -> dict[str, Any]:
    return {
        "t": t,
        "kind": "epoch",
        "epoch": number,
        "step": step,
        "loss": 0.5,
        "val_loss": 0.6,
        "val_accuracy": accuracy,
        "val_mean_iou": accuracy,
        "seconds": 1.0,
    }


def checkpoint(t: float, number: int, step: int, file: str) -> dict[str, Any]:
    return {
        "t": t,
        "kind": "checkpoint",
        "epoch": number,
        "step": step,
        "file": file,
        "bytes": 10,
        "blocked_seconds": 0.0,
        "write_seconds": 0.1,
    }


def summary(run: Path, state: State = State.DONE, *, alive: bool = False) -> Summary:
    return collect(RunPaths(run), state, alive=alive).summary
