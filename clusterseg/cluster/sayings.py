"""What programs say of themselves (versions, abilities), remembered for a day.

To ask three of them takes as long as half of the planning of a job. An answer counts for the very
file that gave it, with the variables that such programs look at.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from clusterseg.cluster.slurm.cache import CacheFile, cache_folder

DAY = 86400.0  # seconds
_MOST = 64  # answers
_LONGEST = 8192  # characters of one that is worth remembering
_LOOKED_AT = ("PATH", "LD_LIBRARY_PATH", "SLURM_CONF", "MODULEPATH", "LOADEDMODULES")
_LOOKED_AT_LIKE = ("OPAL_", "OMPI_", "PRTE_", "PMIX_", "MPI", "I_MPI_")


class _Saying(Struct, frozen=True):
    t: float
    text: str


class _Sayings(Struct, frozen=True):
    said: dict[str, _Saying] = {}


def remembered(
    program: Path,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    ask: Callable[[], str],
    *,
    clock: Callable[[], float] = time.time,
) -> str:
    """What `program arguments...` said within the last day, else what `ask` gives now.

    An empty answer and an error of `ask` are not remembered.
    """
    folder = cache_folder(environ)
    if folder is None:
        return ask()
    cache, now = CacheFile(folder / "sayings.json"), clock()
    known = (cache.load(_Sayings) or _Sayings()).said
    key = _key(program, arguments, environ)
    found = known.get(key)
    if found is not None and 0 <= now - found.t < DAY:
        return found.text
    text = ask()
    if 0 < len(text) <= _LONGEST:
        newest = sorted(known.items(), key=lambda item: item[1].t)[-_MOST + 1 :]
        cache.save(_Sayings({**dict(newest), key: _Saying(now, text)}))
    return text


def _key(program: Path, arguments: Sequence[str], environ: Mapping[str, str]) -> str:
    """A name for the file as it is now, and for what may change its answer. Raises OSError."""
    status = program.stat()
    looked_at = {
        name: value
        for name, value in environ.items()
        if name in _LOOKED_AT or name.startswith(_LOOKED_AT_LIKE)
    }
    what = [
        str(program),
        str(program.resolve()),
        [status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size],
        list(arguments),
        sorted(looked_at.items()),
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()
