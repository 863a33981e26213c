"""One squeue for all runs and all processes of a user, asked no more often than it is good for.

Of many processes one asks, the others use its answer. The lock between them is only advice: who
hangs with it in his hand holds nobody up for long.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import msgspec
from msgspec import Struct

from clusterseg.cluster.slurm.cache import CacheFile, cache_folder, cluster_mark
from clusterseg.cluster.slurm.commands import Slurm, SlurmError
from clusterseg.cluster.slurm.jobs import JobFacts, key_begins, later

FRESH = 5.0  # seconds that an answer is good for, at least
GAP = 2.0  # seconds between two questions, whoever needs a newer answer
PATIENCE = 10.0  # seconds for an answer; a controller that is stopped is noticed after 10
_SHARE = 10  # an answer that took a second is good for ten
_JOBS_A_SECOND = 500  # an answer of 10,000 jobs is good for 20 seconds
_LONGEST = 60.0  # seconds that an answer is good for, at most; also between two failing questions
_HUNG = 3 * PATIENCE  # seconds after which who asks is taken for hung
_WAIT = 12.0  # seconds to wait for the answer of another process, if there is no earlier one
_WAIT_SHORT = 2.0  # if there is
_LOOK = 0.1
NO_SQUEUE = "there is no squeue on the PATH"
_REMEMBERED = 2000  # jobs that were seen to be over, and that Slurm has forgotten


class Answer(Struct, frozen=True, kw_only=True):
    """What is known of the queue. Times are unix seconds by this user's login nodes.

    `asked`: when the last squeue that answered was started, 0 if none did. `ended`: jobs of ours
    that an earlier answer saw over. `failures` in a row since `silent_since`, the last one over
    at `tried`. `outdated`: somebody has changed the queue since.
    """

    asked: float = 0.0
    tried: float = 0.0
    took: float = 0.0
    jobs: dict[str, JobFacts] = {}
    ended: dict[str, JobFacts] = {}
    failures: int = 0
    silent_since: float | None = None
    error: str | None = None
    outdated: bool = False


class QueueCache:
    """Asks squeue, or gives what another process was told a moment ago."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        slurm: Slurm | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        folder = cache_folder(environ)
        name = cluster_mark(environ)
        self._file = CacheFile(folder / f"{name}.json" if folder else None)
        self._lock = folder / f"{name}.lock" if folder else None
        self._slurm = slurm or Slurm(environ, patience=PATIENCE)
        self._clock = clock

    def answer(self, *, max_age: float = FRESH, newer_than: float = 0.0) -> Answer:
        """The queue as of at most about `max_age` seconds ago; never raises.

        `newer_than`: unix seconds; an answer from before is no use, if a newer one can be had.
        It may be older all the same: then Slurm does not answer (`silent_since`), or is being
        asked by another process.
        """
        known = self._known()
        if not is_due(known, self._clock(), max_age, newer_than):
            return known
        if not self._slurm.has("squeue"):
            # Only this host (or its PATH) lacks it: no news for the others.
            return msgspec.structs.replace(known, silent_since=known.asked, error=NO_SQUEUE)
        with self._turn() as is_mine:
            if not is_mine:
                return self._wait(known, max_age, newer_than)
            known = self._known()
            if is_due(known, self._clock(), max_age, newer_than):
                known = self._ask(known)
                self._file.save(known)
            return known

    def outdate(self) -> None:
        """Has the next look ask anew: a job was submitted, released or cancelled."""
        self._file.save(msgspec.structs.replace(self._known(), outdated=True))

    def _known(self) -> Answer:
        return self._file.load(Answer) or Answer()

    def _ask(self, known: Answer) -> Answer:
        began = self._clock()
        try:
            jobs = self._slurm.mine()
        except SlurmError as error:
            return msgspec.structs.replace(
                known,
                tried=self._clock(),  # a pause begins when the failure is over
                failures=known.failures + 1,
                silent_since=began if known.silent_since is None else known.silent_since,
                error=error.message.partition("\n")[0][:200],
            )
        return merged(known, jobs, began, self._clock() - began)

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """True for who may ask: the holder of the lock, or anyone if the holder hangs."""
        if self._lock is None:
            yield True
            return
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._lock, flags, 0o600)
        except OSError:
            yield True
            return
        try:
            yield self._is_our_turn(descriptor)
        finally:
            os.close(descriptor)  # and with it the lock; so does a kill

    def _is_our_turn(self, descriptor: int) -> bool:
        now = self._clock()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if 0 <= now - _time_in(descriptor) < _HUNG:
                return False
        except OSError:
            pass  # a file system without locks: everybody asks for himself
        with suppress(OSError):
            os.pwrite(descriptor, f"{now:017.3f}\n".encode(), 0)
        return True

    def _wait(self, known: Answer, max_age: float, newer_than: float) -> Answer:
        """The answer that another process is about to get, or what is known."""
        patience = _WAIT_SHORT if known.asked else _WAIT
        end = time.monotonic() + patience
        while time.monotonic() < end:
            time.sleep(_LOOK)
            now = self._known()
            if now.tried != known.tried or not is_due(now, self._clock(), max_age, newer_than):
                return now
        return known


def is_due(known: Answer, now: float, max_age: float, newer_than: float = 0.0) -> bool:
    """Whether to ask again. All times in seconds."""
    since_try = now - known.tried
    if since_try < 0:  # the clock was set back
        return True
    if known.failures:
        return since_try >= pause_after(known.failures)
    if known.outdated or now - known.asked >= good_for(known, max_age):
        return True
    return known.asked < newer_than <= now and since_try >= GAP


def good_for(known: Answer, max_age: float) -> float:
    """Seconds that an answer is used: longer where it is long, or the controller slow."""
    cost = max(_SHARE * known.took, len(known.jobs) / _JOBS_A_SECOND)
    return max(max_age, min(cost, _LONGEST))


def pause_after(failures: int) -> float:
    """Seconds until the next question after so many failures in a row."""
    return min(_LONGEST, FRESH * 2.0 ** min(failures - 1, 10))


def merged(known: Answer, jobs: list[JobFacts], asked: float, took: float) -> Answer:
    """What is known after a new answer: no job goes back, and an end once seen is kept."""
    now = {facts.id: _believed(known, facts) for facts in jobs}
    ended = {**known.ended, **{name: facts for name, facts in known.jobs.items() if facts.is_over}}
    ended = {name: facts for name, facts in ended.items() if name not in now and key_begins(facts)}
    kept = sorted(ended.values(), key=lambda facts: facts.end or 0.0)[-_REMEMBERED:]
    return Answer(
        asked=asked,
        tried=asked,
        took=took,
        jobs=now,
        ended={facts.id: facts for facts in kept},
    )


def _believed(known: Answer, facts: JobFacts) -> JobFacts:
    before = known.jobs.get(facts.id) or known.ended.get(facts.id)
    if before is None or (before.key, before.name) != (facts.key, facts.name):
        return facts  # a new job, or one that got an id that was used before
    is_newer = later(before.progress, facts.progress) == facts.progress
    return facts if is_newer else before


def _time_in(descriptor: int) -> float:
    try:
        return float(os.pread(descriptor, 32, 0))
    except (OSError, ValueError):
        return 0.0
