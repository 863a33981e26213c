"""The folder of one fan-out in a run directory, and what its files hold.

submitit hands work over as pickles, and whoever may write one makes the job that loads it execute
anything. So the folder is ours alone (0700, in a run directory that nobody else may write), and
its pickles name nothing but a function of this package. What a task gets and gives is JSON in
files beside them; what a job leaves as pickle is never loaded.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs import files
from clusterseg.runs.paths import RunPaths

_LARGEST = 1 << 30  # bytes of a file of ours
_RESULT = re.compile(r"\d{5,}-\d+")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


# Tries at tasks, each (number of the task, turn from 0), that one job makes one after the other.
Share = tuple[tuple[int, int], ...]


class Task(Struct, frozen=True, kw_only=True):
    """One call of the function. `name` is for people, `arguments` are keywords, JSON-able."""

    name: str
    arguments: dict[str, Any] = {}


class Work(Struct, frozen=True, kw_only=True):
    """work.json: what is to be done. `function` is `package.module:name`."""

    function: str
    tasks: tuple[Task, ...]


class Fault(Struct, frozen=True, kw_only=True):
    """What is wrong with all tasks alike: the fields of a ClustersegError."""

    code: str
    message: str
    help: str | None
    exit_code: int


class Outcome(Struct, frozen=True, kw_only=True):
    """How a try at a task ended: with a value, or with an `error` and the last lines of its
    traceback.

    `is_lasting`: another try would surely end so, too. `fault`: and every other task as well.
    """

    value: Any = None
    error: str | None = None
    trace: tuple[str, ...] = ()
    is_lasting: bool = False
    fault: Fault | None = None


class Folder:
    """`RUN_DIR/fanout/<utc>-<token>/`. `jobs` is submitit's, below it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, run: RunPaths, work: Work) -> Folder:
        """Makes the folder with its work.json.

        Raises ClustersegError if the run directory is not one that only we can write, or can't
        be written, or has a name that can't be given to submitit and Slurm.
        """
        try:
            data = msgspec.json.encode(work)
        except (TypeError, ValueError, RecursionError) as error:
            raise ClustersegError(
                f"arguments of a task are no JSON: {error}", code="not-json"
            ) from None
        _refuse_patterns(run.root)
        with _explained(run.root), _opened_run(run) as above:
            folder = cls(run.fanout / _make_in(above))
            files.make_private_dir(folder.jobs)
            files.make_private_dir(folder._results)
            files.commit_new(folder._work, data)
        return folder

    @property
    def jobs(self) -> Path:
        """submitit's pickles, scripts and logs."""
        return self.path / "jobs"

    @property
    def _results(self) -> Path:
        return self.path / "results"

    @property
    def _work(self) -> Path:
        return self.path / "work.json"

    def work(self) -> Work:
        return msgspec.json.decode(files.read_capped(self._work, _LARGEST), type=Work)

    def ended(self) -> set[tuple[int, int]]:
        """The tries that have an outcome: by one listing, however many there are."""
        names = (name.removesuffix(".json") for name in os.listdir(self._results))  # noqa: PTH208
        found = (name.split("-") for name in names if _RESULT.fullmatch(name))
        return {(int(number), int(turn)) for number, turn in found}

    def outcome(self, number: int, turn: int) -> Outcome | None:
        """What try `turn` at task `number` came to; None if it has not ended (or left nothing)."""
        try:
            data = files.read_capped(self._result(number, turn), _LARGEST)
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(data, type=Outcome)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Outcome(error=f"its result is damaged: {error}")

    def begin(self, number: int, turn: int) -> None:
        """Notes that a try has begun."""
        files.make_empty(self._result(number, turn).with_suffix(".begun"))

    def has_begun(self, number: int, turn: int) -> bool:
        return self._result(number, turn).with_suffix(".begun").exists()

    def put(self, number: int, turn: int, outcome: Outcome) -> None:
        """Writes an outcome, whole or not at all. Raises OSError."""
        files.replace(self._result(number, turn), msgspec.json.encode(outcome))

    def remove(self) -> None:
        """Removes it, and `fanout/` with it if it was the only one."""
        # Over NFS a log that is still open leaves a name behind; that is no reason to fail.
        shutil.rmtree(self.path, ignore_errors=True)
        with suppress(OSError):
            self.path.parent.rmdir()

    def _result(self, number: int, turn: int) -> Path:
        return self._results / f"{number:05d}-{turn}.json"


def _refuse_patterns(root: Path) -> None:
    """submitit and sbatch fill in `%j` and the like, and sbatch takes `\\` for an escape."""
    bad = sorted({c for c in str(root) if c in "%\\" or not c.isprintable()})
    if bad:
        raise ClustersegError(
            f"the path of {root.name!a} holds {', '.join(map(ascii, bad))}, which Slurm and "
            "submitit take for a pattern",
            code="run-dir",
            help="keep runs in a folder with a plain name (--runs-dir)",
        )


@contextmanager
def _opened_run(run: RunPaths) -> Iterator[int]:
    """A descriptor of the run directory, once it is known to be ours alone."""
    for folder in run.root.resolve().parents:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise _untrusted(folder, "is writable by everybody", f"chmod o-w {folder}")
    with _opened(run.root) as descriptor:
        yield descriptor


@contextmanager
def _opened(path: Path, *, above: int | None = None) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path if above is None else path.name, flags, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _untrusted(path, "is a symbolic link or no folder", "name the folder") from None
        raise
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise _untrusted(
                path, f"belongs to another user (uid {status.st_uid})", "submit a run of your own"
            )
        if status.st_mode & _OTHERS_WRITE:
            mode = stat.S_IMODE(status.st_mode)
            raise _untrusted(path, f"is writable by others (mode {mode:04o})", f"chmod 0700 {path}")
        yield descriptor
    finally:
        os.close(descriptor)


def _untrusted(path: Path, why: str, help: str) -> ClustersegError:
    return ClustersegError(
        f"{path} {why}: others could make this job execute anything",
        code="untrusted-folder",
        help=help,
    )


def _make_in(above: int) -> str:
    """Makes `fanout/<utc>-<token>` in the open run directory; returns the last part."""
    while True:
        name = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{os.urandom(4).hex()}"
        with suppress(FileExistsError):
            os.mkdir("fanout", files.FOLDER_MODE, dir_fd=above)
        with _opened(Path("fanout"), above=above) as parent:
            try:
                os.mkdir(name, files.FOLDER_MODE, dir_fd=parent)
            except FileNotFoundError:
                continue  # another fan-out ended and removed the empty folder
            os.chmod(name, files.FOLDER_MODE, dir_fd=parent)  # the umask may have taken bits
            return name


@contextmanager
def _explained(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ClustersegError(
            f"{error.filename or root} can't be written: {error.strerror or error}",
            code="run-dir",
            exit_code=ExitCode.FAILED,
        ) from None
