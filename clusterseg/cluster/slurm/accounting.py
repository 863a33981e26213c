"""How jobs ended that the controller has forgotten: one sacct for all of them.

Many sites have no accounting: sacct then fails, and is left alone for a while.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping

import msgspec
from msgspec import Struct

from clusterseg.cluster.slurm.answers import AccountFacts, Garbled, account_format, read_accounts
from clusterseg.cluster.slurm.cache import CacheFile, cache_folder, cluster_mark
from clusterseg.cluster.slurm.commands import Slurm, SlurmError, random_mark
from clusterseg.cluster.slurm.jobs import is_over

PATIENCE = 15.0  # seconds for an answer: databases are slower than the controller
NONE_HERE = 3600.0  # seconds that a site without accounting is not asked again
_MOST = 4000  # ids in one call: the kernel takes 128 KiB in one argument
_FINAL, _PASSING = 3600.0, 30.0  # seconds that an end, and any other answer, is believed
_SETTLED = 120.0  # seconds after a job's end until its record is whole
_REMEMBERED = 20_000
_A_DAY = 86400.0
_PAUSE, _LONGEST_PAUSE = 30.0, 600.0  # seconds after failures


class Looked(Struct, frozen=True):
    """What sacct said of one id, and when (unix seconds); `facts` None: it does not know it."""

    when: float
    facts: AccountFacts | None


class Book(Struct, frozen=True, kw_only=True):
    """What sacct has said so far. It is not asked before `not_before` (unix seconds)."""

    looked: dict[str, Looked] = {}
    not_before: float = 0.0
    failures: int = 0


class Accounting:
    """Asks sacct, or gives what another process was told."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        *,
        slurm: Slurm | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        folder = cache_folder(environ)
        name = cluster_mark(environ)
        self._file = CacheFile(folder / f"{name}-accounts.json" if folder else None)
        self._slurm = slurm or Slurm(environ, patience=PATIENCE)
        self._clock = clock

    def look_up(self, wanted: Mapping[str, float]) -> dict[str, AccountFacts]:
        """What is known of these ids; each with its earliest submission (unix seconds, 0: ever).

        Never raises: an id that nobody can tell of is left out.
        """
        if not wanted:
            return {}
        book, now = self._file.load(Book) or Book(), self._clock()
        due = [name for name in wanted if _is_due(book.looked.get(name), now)]
        if due and not (book.not_before - _LONGEST_PAUSE - NONE_HERE <= now < book.not_before):
            book = self._ask(book, due[-_MOST:], min(wanted[name] for name in due))
            self._file.save(book)
        found = ((name, book.looked.get(name)) for name in wanted)
        return {name: one.facts for name, one in found if one is not None and one.facts is not None}

    def _ask(self, book: Book, ids: Collection[str], since: float) -> Book:
        now, mark = self._clock(), random_mark()
        options = ["--noheader", "--parsable2", "--allocations", f"--delimiter={mark}"]
        # From a day before: the clocks of this host and of the database are two.
        begin = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(max(0.0, since - _A_DAY)))
        try:
            said = self._slurm.run(
                "sacct",
                *options,
                f"--user={os.getuid()}",
                f"--starttime={begin}",
                f"--format={account_format()}",
                f"--jobs={','.join(ids)}",
                patience=PATIENCE,
            )
            facts = {one.id: one for one in read_accounts(said, mark)}
        except (SlurmError, Garbled) as error:
            return _failed(book, str(error), now)
        looked = {**book.looked, **{name: Looked(now, facts.get(name)) for name in ids}}
        kept = sorted(looked.items(), key=lambda item: item[1].when)[-_REMEMBERED:]
        return Book(looked=dict(kept))


def _is_due(looked: Looked | None, now: float) -> bool:
    if looked is None or looked.when > now:
        return True
    return now - looked.when >= (_FINAL if _is_final(looked) else _PASSING)


def _is_final(looked: Looked) -> bool:
    """Just after a job's end its record is not whole: it is called "allocation" (Slurm 22.05)."""
    facts = looked.facts
    if facts is None or not is_over(facts.state) or facts.end is None:
        return False
    return looked.when - facts.end >= _SETTLED


def _failed(book: Book, error: str, now: float) -> Book:
    is_none = "accounting storage is disabled" in error or "no sacct" in error
    failures = book.failures + 1
    pause = NONE_HERE if is_none else min(_LONGEST_PAUSE, _PAUSE * 2.0 ** min(failures - 1, 10))
    return msgspec.structs.replace(book, not_before=now + pause, failures=failures)
