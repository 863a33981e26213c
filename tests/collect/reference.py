"""The summary, slowly and obviously: every window is taken apart into single steps.

Written from docs/summary.md alone; shares no code with clusterseg. Everything is held in
memory, nothing is clever.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = {"rank_start", "steps", "phase", "epoch", "checkpoint", "stragglers", "stop", "rank_end"}


@dataclass
class Attempt:
    number: int
    claim: dict[str, Any] | None
    end: dict[str, Any] | None
    logs: dict[int, list[dict[str, Any]]]  # the readable events of each rank

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for log in self.logs.values() for event in log]

    @property
    def start(self) -> float | None:
        if self.claim:
            return self.claim["t"]
        return min((event["t"] for event in self.events), default=None)

    @property
    def resume_step(self) -> int | None:
        if self.claim:
            return self.claim["resume_step"]
        firsts = [e["step"] - e["count"] for e in self.events if e["kind"] == "steps"]
        return min(firsts, default=None)

    def windows(self) -> dict[int, dict[int, dict[str, Any]]]:
        """{last step of the window: {rank: what it wrote}}, in order."""
        found: dict[int, dict[int, dict[str, Any]]] = {}
        for rank, log in self.logs.items():
            for event in log:
                if event["kind"] == "steps":
                    found.setdefault(event["step"], {})[rank] = event
        return dict(sorted(found.items()))


@dataclass
class Step:
    """One optimizer step of one attempt: its share of its window."""

    attempt: int
    number: int
    in_first_window: bool
    images: float
    seconds: float


def summarize(root: Path, state: str) -> dict[str, Any]:
    attempts = read(root)
    steps = [step for attempt in attempts for step in single_steps(attempt)]
    counted = [step for step in steps if not replayed(step.attempt, step.number, attempts)]
    rated = [step for step in counted if not step.in_first_window]
    seconds = sum(step.seconds for step in rated)
    history = epochs(attempts)
    stepped = [attempt for attempt in attempts if attempt.windows()]
    last = stepped[-1] if stepped else None
    return {
        "run": root.name,
        "state": state,
        "ranks": rank_count(last) if last else None,
        "per_rank": per_rank(last, attempts) if last else [],
        "attempts": [describe(attempt) for attempt in attempts],
        "steps": {"completed": len(counted), "replayed": len(steps) - len(counted)},
        "images_per_second": sum(s.images for s in rated) / seconds if seconds > 0 else None,
        "val_accuracy": last_known(history, "val_accuracy"),
        "val_mean_iou": last_known(history, "val_mean_iou"),
        "best": best(history, attempts),
        "goodput": goodput(attempts, sum(step.seconds for step in counted)),
        "history": history,
    }


def read(root: Path) -> list[Attempt]:
    attempts = []
    for folder in sorted((root / "attempts").glob("[0-9]*"), key=lambda one: int(one.name)):
        claim, end = read_json(folder / "claim.json"), read_json(folder / "end.json")
        logs = {int(f.stem): read_log(f) for f in sorted((folder / "ranks").glob("*.jsonl"))}
        if claim or (folder / "ranks").is_dir():
            attempts.append(Attempt(int(folder.name), claim, end, logs))
    return attempts


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def read_log(path: Path) -> list[dict[str, Any]]:
    events = []
    for line in path.read_bytes().split(b"\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("kind") in KINDS:
            events.append({key: known(value) for key, value in event.items()})
    return events


def known(value: Any) -> Any:
    """NaN is no figure."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def single_steps(attempt: Attempt) -> list[Step]:
    steps = []
    for index, (last, by_rank) in enumerate(attempt.windows().items()):
        count = max(event["count"] for event in by_rank.values())
        images = sum(event["images"] for event in by_rank.values())
        slowest = max(event["seconds"] for event in by_rank.values())
        for number in range(last - count + 1, last + 1):
            share = Step(attempt.number, number, index == 0, images / count, slowest / count)
            steps.append(share)
    return steps


def replayed(attempt: int, step: int, attempts: list[Attempt]) -> bool:
    """Steps of attempt <= N beyond claim N+1's resume step, for every N there is."""
    return any(
        attempt < later.number and later.resume_step is not None and step > later.resume_step
        for later in attempts
    )


def epochs(attempts: list[Attempt]) -> list[dict[str, Any]]:
    names = ("epoch", "step", "loss", "val_loss", "val_accuracy", "val_mean_iou", "seconds")
    entries = {}
    for attempt in attempts:
        for event in attempt.logs.get(0, []):
            if event["kind"] == "epoch" and not replayed(attempt.number, event["step"], attempts):
                entry = {name: event[name] for name in names}
                entries[event["epoch"]] = entry | {"attempt": attempt.number}
    return [entries[epoch] for epoch in sorted(entries)]


def last_known(history: list[dict[str, Any]], name: str) -> float | None:
    values = [entry[name] for entry in history if entry[name] is not None]
    return values[-1] if values else None


def best(history: list[dict[str, Any]], attempts: list[Attempt]) -> dict[str, Any] | None:
    validated = [entry for entry in history if entry["val_accuracy"] is not None]
    if not validated:
        return None
    top = max(entry["val_accuracy"] for entry in validated)
    entry = next(entry for entry in validated if entry["val_accuracy"] == top)
    files = [
        event["file"]
        for attempt in attempts
        for event in attempt.logs.get(0, [])
        if event["kind"] == "checkpoint"
        and (event["epoch"], event["step"]) == (entry["epoch"], entry["step"])
        and not replayed(attempt.number, event["step"], attempts)
    ]
    file = files[-1] if files else None
    return {"epoch": entry["epoch"], "val_accuracy": top, "file": file}


def goodput(attempts: list[Attempt], productive: float) -> float | None:
    starts = [attempt.start for attempt in attempts if attempt.start is not None]
    if not starts:
        return None
    times = [event["t"] for attempt in attempts for event in attempt.events]
    times += [attempt.claim["t"] for attempt in attempts if attempt.claim]
    times += [attempt.end["t"] for attempt in attempts if attempt.end]
    span = max(times) - starts[0]
    for index, attempt in enumerate(attempts):
        later = [one.start for one in attempts[index + 1 :] if one.start is not None]
        if attempt.end and not attempt.end["will_restart"] and later:
            span -= max(0.0, later[0] - attempt.end["t"])
    return productive / span if span > 0 else None


def rank_count(attempt: Attempt) -> int | None:
    if attempt.claim:
        return attempt.claim["ranks"]
    told = [e["world_size"] for e in attempt.events if e["kind"] == "rank_start"]
    return max(told, default=len(attempt.logs) or None)


def per_rank(attempt: Attempt, attempts: list[Attempt]) -> list[dict[str, Any]]:
    first = next(iter(attempt.windows()))
    medians = {}
    rates = {}
    for rank, log in attempt.logs.items():
        own = [event for event in log if event["kind"] == "steps"]
        if own:
            compute = [(e["seconds"] - e["comm"]) / e["count"] for e in own]
            medians[rank] = statistics.median(compute)
        images = seconds = 0.0
        for event in own:
            for number in range(event["step"] - event["count"] + 1, event["step"] + 1):
                if event["step"] != first and not replayed(attempt.number, number, attempts):
                    images += event["images"] / event["count"]
                    seconds += event["seconds"] / event["count"]
        rates[rank] = images / seconds if seconds > 0 else None
    rows = []
    for rank, log in sorted(attempt.logs.items()):
        hosts = [event["host"] for event in log if event["kind"] == "rank_start"]
        if not hosts and attempt.claim and len(attempt.claim["hosts"]) == 1:
            hosts = list(attempt.claim["hosts"])
        score = None
        if medians.get(rank):
            score = min(medians.values()) / medians[rank]
        if log:
            rows.append(
                {
                    "rank": rank,
                    "host": hosts[-1] if hosts else None,
                    "images_per_second": rates[rank],
                    "straggler_score": score,
                }
            )
    return rows


def describe(attempt: Attempt) -> dict[str, Any]:
    covered = [step.number for step in single_steps(attempt)]
    end = attempt.end
    times = [event["t"] for event in attempt.events]
    times += [attempt.claim["t"]] if attempt.claim else []
    until = end["t"] if end else max(times, default=None)
    return {
        "attempt": attempt.number,
        "ranks": rank_count(attempt),
        "first_step": min(covered) if covered else (end or {}).get("first_step"),
        "last_step": max(covered) if covered else (end or {}).get("last_step"),
        "seconds": None if None in (attempt.start, until) else until - attempt.start,
        "cause": end["cause"] if end else "unknown",
    }
