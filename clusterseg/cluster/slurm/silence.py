"""Whether a heartbeat has stood still for so long that its supervisor must be gone.

Asked only where the scheduler has forgotten the job. A reader needs two looks at a counter to
see it stand still, and `status` looks once: looks are remembered for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from clusterseg.cluster.slurm.cache import CacheFile, cache_folder
from clusterseg.runs.heartbeat import Heartbeat, read_heartbeat
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim

QUIET = 900.0  # seconds of silence after which a supervisor may be called dead
BETWEEN = 60.0  # seconds between the two looks, at least: caches show old data for so long
CERTAIN = 3600.0  # seconds of silence that one look can tell
_FORGET = 30 * 86400.0


class Look(Struct, frozen=True):
    """A counter, and since when (unix seconds) it was seen to stand there."""

    count: int
    since: float


class Looks(Struct, frozen=True):
    """The looks at attempts, by run directory and number."""

    looks: dict[str, Look] = {}


class Silences:
    """What was seen of the heartbeats of runs whose jobs are forgotten."""

    def __init__(
        self, environ: Mapping[str, str], *, clock: Callable[[], float] = time.time
    ) -> None:
        folder = cache_folder(environ)
        self._file = CacheFile(folder / "heartbeats.json" if folder else None)
        self._clock = clock

    def look(self, run: RunPaths, claim: Claim) -> tuple[float, bool]:
        """Seconds since the last beat, by its writer's clock, and whether that means dead."""
        beat = last_beat(run, claim)
        now = self._clock()
        if now - beat.t >= CERTAIN:  # nothing to remember, of however many runs
            return now - beat.t, True
        looks = (self._file.load(Looks) or Looks()).looks
        name = f"{run.root}:{claim.attempt}"
        seen = looks.get(name)
        if seen is None or seen.count != beat.count or seen.since > now:
            seen = Look(beat.count, now)
            kept = {key: one for key, one in looks.items() if now - one.since < _FORGET}
            self._file.save(Looks({**kept, name: seen}))
        return max(0.0, now - beat.t), is_dead(now - beat.t, now - seen.since)


def is_dead(age: float, still: float) -> bool:
    """The rule. `age`: seconds since the last beat by its writer's clock; `still`: seconds that
    the counter has been seen to stand by ours.

    The clocks of a cluster's hosts agree within five minutes, or munge lets nothing through.
    """
    return age >= CERTAIN or still >= QUIET or (age >= QUIET and still >= BETWEEN)


def last_beat(run: RunPaths, claim: Claim) -> Heartbeat:
    """The last beat of an attempt; before the first one, its claim stands for it."""
    try:
        beat = read_heartbeat(run.attempt(claim.attempt).heartbeat)
    except OSError:
        beat = None
    return beat or Heartbeat(count=0, t=claim.t)
