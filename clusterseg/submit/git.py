"""Asking git, without letting it change, fetch or run anything."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

_SHOWN = 500  # characters of what git says, in a message
# These would make git look at another repository than the one that holds the folder.
_ELSEWHERE = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"),
    *("GIT_NAMESPACE", "GIT_PREFIX", "GIT_EXTERNAL_DIFF", "GIT_TRACE", "GIT_CONFIG_PARAMETERS"),
)
_QUIET = {
    "GIT_OPTIONAL_LOCKS": "0",  # nothing is written into the repository
    "GIT_NO_LAZY_FETCH": "1",  # a partial clone asks no server
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}


class GitFailed(Exception):
    """git said no, or nothing in time. The message is what it said."""


class Answer(Struct, frozen=True):
    """What git printed; `cut`: it had more to say."""

    data: bytes
    cut: bool


class Status(Struct, frozen=True):
    """A working tree. `commit` is None before the first one, `branch` where none is checked out.

    `changed` are the tracked files that differ from the commit, submodules as one each.
    """

    commit: str | None
    branch: str | None
    changed: tuple[str, ...]


def find_top(directory: Path) -> Path | None:
    """The nearest folder, from `directory` up, that looks like a working tree of git."""
    return next((one for one in (directory, *directory.parents) if (one / ".git").exists()), None)


class Git:
    """git in one working tree."""

    def __init__(self, top: Path, environ: Mapping[str, str]) -> None:
        """Raises GitFailed if there is no git."""
        program = shutil.which("git", path=environ.get("PATH", os.defpath))
        if program is None:
            raise GitFailed("there is no git on the PATH")
        self._prefix = [program, "-C", str(top), "-c", "core.fsmonitor=false"]
        kept = {name: value for name, value in environ.items() if name not in _ELSEWHERE}
        self._environ = {**kept, **_QUIET}

    def status(self, *, patience: float) -> Status:
        """Commit, branch and changed files; `patience` in seconds. Raises GitFailed."""
        answer = self.ask(
            *("status", "--porcelain=v2", "--branch", "-z"),
            *("--untracked-files=no", "--no-renames"),
            patience=patience,
        )
        return read_status(answer.data)

    def ask(self, *arguments: str, patience: float, largest: int = 64 << 20) -> Answer:
        """What git prints, at most `largest` bytes of it. Raises GitFailed."""
        until = time.monotonic() + patience
        with subprocess.Popen(
            [*self._prefix, *arguments],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                out, said = _read(process, until, largest)
                cut = len(out) > largest
                if cut:
                    process.kill()
                process.wait(max(0.1, until - time.monotonic()))
            except (TimeoutError, subprocess.TimeoutExpired):
                raise GitFailed(f"git {arguments[0]} took longer than {patience:g} s") from None
            finally:
                process.kill()
        if process.returncode != 0 and not cut:
            text = said.decode(errors="backslashreplace").strip()
            raise GitFailed(text[:_SHOWN] or f"git {arguments[0]} failed without a word")
        return Answer(bytes(out[:largest]), cut)


def read_status(data: bytes) -> Status:
    """The answer of `git status --porcelain=v2 --branch -z` (manual of git-status)."""
    commit = branch = None
    changed: list[str] = []
    records = iter(data.split(b"\0"))
    for record in records:
        kind, _, rest = record.partition(b" ")
        if record.startswith(b"# branch.oid "):
            oid = record.removeprefix(b"# branch.oid ").decode("ascii", "replace")
            commit = None if oid == "(initial)" else oid
        elif record.startswith(b"# branch.head "):
            head = os.fsdecode(record.removeprefix(b"# branch.head "))
            branch = None if head == "(detached)" else head
        elif kind in _FIELDS_BEFORE_PATH:
            changed.append(os.fsdecode(rest.split(b" ", _FIELDS_BEFORE_PATH[kind])[-1]))
            if kind == b"2":  # renamed: its old name is a record of its own
                next(records, None)
    return Status(commit, branch, tuple(changed))


_FIELDS_BEFORE_PATH = {b"1": 7, b"2": 8, b"u": 9}


def _read(
    process: subprocess.Popen[bytes], until: float, largest: int
) -> tuple[bytearray, bytearray]:
    """stdout, until its end or more than `largest`, and stderr. Raises TimeoutError."""
    out, err = bytearray(), bytearray()
    assert process.stdout is not None  # noqa: S101 (both are pipes)
    assert process.stderr is not None  # noqa: S101
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, out)
        selector.register(process.stderr, selectors.EVENT_READ, err)
        while selector.get_map() and len(out) <= largest:
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                piece = os.read(key.fd, 1 << 16)
                if not piece:
                    selector.unregister(key.fileobj)
                elif key.data is out or len(err) < _SHOWN * 4:
                    key.data.extend(piece)
    return out, err
