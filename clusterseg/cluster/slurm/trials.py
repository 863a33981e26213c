"""What Slurm would start in place of a job, by `sbatch --test-only`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from clusterseg.cluster.slurm.alternatives import Limits, changes, read_start, seconds_of
from clusterseg.cluster.slurm.commands import Slurm, SlurmError
from clusterseg.cluster.slurm.pending import PATIENCE

BUDGET = 6.0  # seconds for all tests of one job
MOST_QUESTIONS = 7  # sinfo, the job as it is, and its changes


class Sooner(Struct, frozen=True):
    """`change` completes "with …"; `start` in unix seconds, as Slurm expects it."""

    change: str
    start: float


class Request(Struct, frozen=True):
    """What was submitted: sbatch's options, one word each, and the script.

    `partitions` are those that could be tried, as a site's profile has them; none: all of sinfo.
    """

    options: tuple[str, ...]
    script: Path
    partitions: tuple[str, ...] = ()


class Trials(Struct, frozen=True):
    """What the tests of jobs with the same options came to.

    `whole`: when a job as it is would start, None if it would not be taken. `starts`: whatever
    would be taken.
    """

    tested: float
    whole: float | None = None
    starts: tuple[Sooner, ...] = ()


def try_changes(
    slurm: Slurm, partition: str, request: Request, clock: Callable[[], float] = time.time
) -> Trials:
    """Asks for each change that may help; what can't be asked in time is left out."""
    now = clock()
    until = now + BUDGET
    whole: float | None = None
    starts: list[Sooner] = []
    try:
        whole = _start(slurm, request, ())
        there = _partitions(slurm)
        names = there if not request.partitions else [p for p in request.partitions if p in there]
        limits = there.get(partition, Limits())
        for change in changes(request.options, names, limits, own=partition.split(",")):
            if clock() >= until:
                break
            start = _start(slurm, request, change.options)
            if start is not None:
                starts.append(Sooner(change.text, start))
    except SlurmError:
        pass
    return Trials(now, whole, tuple(starts))


def _start(slurm: Slurm, request: Request, further: Sequence[str]) -> float | None:
    """When a job like this would start; None if Slurm would not take it."""
    said = slurm.test_only([*request.options, *further], request.script, patience=PATIENCE)
    return None if said is None else read_start(said)


def _partitions(slurm: Slurm) -> dict[str, Limits]:
    """Those that are up, with what they allow."""
    said = slurm.run("sinfo", "-h", "-o", "%a %l %s %R", patience=PATIENCE)
    found: dict[str, Limits] = {}
    for words in map(str.split, said.splitlines()):
        if len(words) == 4 and words[0] == "up":
            _, time_said, nodes, name = words
            seconds, most = seconds_of(time_said), nodes.rpartition("-")[2]
            found[name] = Limits(
                nodes=int(most) if most.isdecimal() else None,
                minutes=None if seconds is None else seconds // 60,
            )
    return found
