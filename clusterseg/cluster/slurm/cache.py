"""Small private files in which processes of one user share what they learned. Never the truth.

Whatever is wrong with such a file (missing, torn, another's, of another version), it is as if
there were none; whatever can't be written is only not shared.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from clusterseg.cluster.slurm.configuration import cluster_name, configuration_file

LARGEST = 64 << 20  # bytes; ten thousand jobs are some three million

Value = TypeVar("Value")

# Clusters of one name (the documentation's example) are told apart by their controllers.
_CONTROLLER = re.compile(r"(?im)^[ \t]*(?:SlurmctldHost|ControlMachine)[ \t]*=[ \t]*([^\s#]+)")


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """This user's folder for answers of Slurm, made if need be; None where there can be none."""
    base = environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the specification wants relative paths ignored
        home = environ.get("HOME", "")
        if not home.startswith("/"):
            return None
        base = f"{home}/.cache"
    folder = Path(base, "clusterseg", "slurm")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_own:
        return None
    if found.st_mode & 0o077:
        with suppress(OSError):
            folder.chmod(0o700)
    return folder


def cluster_mark(environ: Mapping[str, str]) -> str:
    """A name for the cluster that commands reach with this environment.

    Of several clusters that share a home, each has its own ids of jobs.
    """
    file = configuration_file(environ)
    said = [environ.get("SLURM_CLUSTERS", ""), cluster_name(file) or os.uname().nodename]
    if file is not None:
        with suppress(OSError), file.open(encoding="utf-8", errors="replace") as stream:
            said += _CONTROLLER.findall(stream.read(1 << 20))
    return hashlib.sha256("\0".join(said).encode(errors="surrogateescape")).hexdigest()[:16]


class CacheFile:
    """One value of a type, replaced as a whole. Nowhere (`None`) it lives in this process only."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._value: object = None

    def load(self, kind: type[Value]) -> Value | None:
        """The value last saved by anybody; None if there is none that can be used."""
        if self.path is None:
            return self._value if isinstance(self._value, kind) else None
        try:
            descriptor = os.open(
                self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )
        except OSError:
            return self._value if isinstance(self._value, kind) else None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            version = (found.st_ino, found.st_mtime_ns, found.st_size)
            if version == self._seen and isinstance(self._value, kind):
                return self._value
            if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
                return None
            try:
                value = msgspec.json.decode(file.read(LARGEST), type=kind)
            except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None
        self._seen, self._value = version, value
        return value

    def save(self, value: object) -> None:
        """Replaces the value for everybody, or for this process where it can't be written."""
        self._seen, self._value = None, value
        if self.path is None:
            return
        temporary = self.path.with_name(f".{self.path.name}-{os.getpid()}-{os.urandom(4).hex()}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(msgspec.json.encode(value))
            temporary.rename(self.path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
