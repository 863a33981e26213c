"""What a job could ask for in its place, so as to start sooner. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

MOST = 5  # changes: Slurm has to work for each answer
_LEAST_TIME = 600  # seconds: halving less gains nothing
_PARTITIONS = 2
# Options that pin a job to certain nodes, or give each of them a number of ranks of its own.
_PINNED = ("--nodelist", "--nodefile", "--exclusive-user", "--reservation", "--distribution")


class Change(Struct, frozen=True):
    """`text` completes "with …"; `options` are further ones for sbatch, the last one wins."""

    text: str
    options: tuple[str, ...]


class Limits(Struct, frozen=True):
    """What a partition allows one job: nodes, and minutes; None: without limit, or not known."""

    nodes: int | None = None
    minutes: int | None = None


_NO_LIMITS = Limits()


def changes(
    options: Sequence[str],
    partitions: Iterable[str] = (),
    limits: Limits = _NO_LIMITS,
    *,
    own: Sequence[str],
) -> list[Change]:
    """What could be asked for in place of `options` (words such as `--nodes=4`), best guess first.

    `partitions` are names of those that there are; `own` are the job's, also where it asked for
    none, and `limits` theirs. What still is beyond them is left out, and for a job beyond them
    they themselves come first.
    """
    given = _given(options)
    nodes = int(given["--nodes"]) if given.get("--nodes", "").isdigit() else 1
    found: list[Change] = []
    if nodes > 1 and not any(name in given for name in _PINNED):
        found += [
            _fewer(given, nodes, fewer) for fewer in _least(nodes, (nodes // 2, 1), limits.nodes)
        ]
    seconds = seconds_of(given.get("--time", ""))
    if seconds is not None:
        half = (math.ceil(seconds / 120),) if seconds > _LEAST_TIME else ()
        less = _least(math.ceil(seconds / 60), half, limits.minutes)
        found += [_shorter(seconds, minutes) for minutes in less]
    others = [name for name in dict.fromkeys(partitions) if name not in own]
    elsewhere = [_elsewhere(name) for name in others[:_PARTITIONS]]
    return found[: MOST - len(elsewhere)] + elsewhere


def read_start(said: str) -> float | None:
    """When `sbatch --test-only` says that the job would start, in unix seconds.

    It was asked with SLURM_TIME_FORMAT=%s (sbatch 22.05: "Job 5 to start at …, using …").
    """
    found = re.search(r"Job \d+ to start at (\d{1,12}) using ", said)
    return float(found[1]) if found else None


def seconds_of(text: str) -> int | None:
    """A time limit as sbatch takes it (its manual, --time): m, m:s, h:m:s, d-h, d-h:m, d-h:m:s.

    None for what is none ("infinite", as sinfo says).
    """
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if found is None:
        return None
    days, first, second, third = (None if part is None else int(part) for part in found.groups())
    if days is not None:
        return ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60 + (third or 0)
    if third is not None:
        return ((first or 0) * 60 + (second or 0)) * 60 + third
    return (first or 0) * 60 + (second or 0)


def _given(options: Sequence[str]) -> dict[str, str]:
    """Options by name; one without a value has an empty one."""
    pairs = (word.partition("=") for word in options if word.startswith("--"))
    return {name: value for name, _, value in pairs}


def _least(asked: int, less: Sequence[int], limit: int | None) -> list[int]:
    """The numbers to try in place of `asked`, the most first."""
    if limit is None or asked <= limit:
        return list(dict.fromkeys(less))
    return list(dict.fromkeys([limit, *(one for one in less if one < limit)])) if limit > 0 else []


def _shorter(seconds: int, minutes: int) -> Change:
    text = f"a time limit of {_limit(minutes * 60)} in place of {_limit(seconds)}"
    return Change(text, (f"--time={minutes}",))


def _fewer(given: dict[str, str], nodes: int, fewer: int) -> Change:
    options = [f"--nodes={fewer}"]
    if given.get("--ntasks", "").isdigit():
        per_node = given.get("--ntasks-per-node", "")
        each = int(per_node) if per_node.isdigit() else math.ceil(int(given["--ntasks"]) / nodes)
        options.append(f"--ntasks={each * fewer}")
    return Change(f"{fewer} node{'s' * (fewer != 1)} in place of {nodes}", tuple(options))


def _elsewhere(partition: str) -> Change:
    return Change(f"partition {partition}", (f"--partition={partition}",))


def _limit(seconds: int) -> str:
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes} min"
