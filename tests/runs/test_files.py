"""Durable writes: old state or new, private, nobody else's file touched, at every failure."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusterseg.runs import files

OLD = b"old " * 1000
NEW = b"new content " * 1000


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_private_whatever_the_umask(tmp_path: Path, umask: None) -> None:
    folder = tmp_path / "a" / "b"
    files.make_private_dir(folder)
    files.commit_new(folder / "new", b"1")
    files.replace(folder / "replaced", b"2")
    files.make_empty(folder / "empty")
    assert [mode(tmp_path / "a"), mode(folder)] == [0o700, 0o700]
    assert {name: mode(folder / name) for name in names(folder)} == {
        "new": 0o600,
        "replaced": 0o600,
        "empty": 0o600,
    }


@pytest.mark.parametrize(("mask", "left"), [(0o022, 0o644), (0o007, 0o660)])
def test_what_is_not_private_has_the_mode_that_the_umask_leaves(
    tmp_path: Path, mask: int, left: int
) -> None:
    before = os.umask(mask)
    try:
        files.replace(tmp_path / "picture", b"1", private=False)
    finally:
        os.umask(before)
    assert mode(tmp_path / "picture") == left


def test_make_private_dir_leaves_what_exists(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    files.make_private_dir(tmp_path)
    assert mode(tmp_path) == 0o755
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        files.make_private_dir(tmp_path / "file")


def test_commit_new_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    files.commit_new(path, iter([b"one", b" two"]))
    files.commit_new(path, b"one two")  # the same content: done before
    with pytest.raises(FileExistsError):
        files.commit_new(path, b"one twO")
    with pytest.raises(FileExistsError):
        files.commit_new(path, b"one two and more")
    assert path.read_bytes() == b"one two"
    assert names(tmp_path) == ["claim.json"]


def test_only_one_of_many_processes_commits(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from clusterseg.runs import files\n"
        "sys.stdin.read()\n"
        "files.commit_new(Path(sys.argv[1]), sys.argv[2].encode())"
    )
    path = tmp_path / "claim.json"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), f"process {number}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for number in range(6)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.close()
    codes = [process.wait(60) for process in processes]
    assert sorted(codes) == [0, 1, 1, 1, 1, 1]
    assert path.read_text() == f"process {codes.index(0)}"
    assert names(tmp_path) == ["claim.json"]


def test_lost_answer_of_link_is_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS: the link was made, its answer lost, the repeated request says EEXIST."""
    real = os.link

    def link_twice(*args: object, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]
        real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link_twice)
    files.commit_new(tmp_path / "claim.json", b"mine")
    assert (tmp_path / "claim.json").read_bytes() == b"mine"


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    files.commit_new(tmp_path / "a", NEW)
    files.replace(tmp_path / "b", NEW)
    files.make_empty(tmp_path / "c")
    files.overwrite(tmp_path / "c", NEW)
    for name in "abc":
        assert (tmp_path / name).read_bytes() == NEW


def test_read_capped(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(NEW)
    assert files.read_capped(tmp_path / "a", 5) == NEW[:5]
    assert files.read_capped(tmp_path / "a", 1 << 20) == NEW
    with pytest.raises(FileNotFoundError):
        files.read_capped(tmp_path / "b", 5)


class FailingCall:
    """Makes the N-th call of any of the named functions of `os` fail, as a full disk would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int, number: int) -> None:
        self.left = nth
        self.fired = False
        for name in ("open", "write", "fchmod", "fsync", "link", "rename"):
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name), number))
        # Path.rename and Path.mkdir call os.rename and os.mkdir.

    def _wrap(self, real: Callable[..., object], number: int) -> Callable[..., object]:
        def call(*args: object, **options: object) -> object:
            self.left -= 1
            if self.left == 0:
                self.fired = True
                raise OSError(number, os.strerror(number))
            return real(*args, **options)

        return call


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("operation", [files.commit_new, files.replace])
def test_any_failing_call_leaves_old_or_new(
    operation: Callable[[Path, bytes], None], number: int, tmp_path: Path
) -> None:
    fired = 0
    for nth in range(1, 20):
        folder = tmp_path / str(nth)
        folder.mkdir()
        path = folder / "file"
        (folder / "stranger").write_bytes(OLD)
        before = None if operation is files.commit_new else OLD
        if before:
            path.write_bytes(before)
        with pytest.MonkeyPatch.context() as patch:
            failing = FailingCall(patch, nth, number)
            try:
                operation(path, NEW)
                done = True
            except OSError as error:
                done = False
                assert error.errno == number
        fired += failing.fired
        assert done == (not failing.fired)
        after = path.read_bytes() if path.exists() else None
        assert after in ({NEW} if done else {before, NEW})
        assert (folder / "stranger").read_bytes() == OLD
        assert set(names(folder)) <= {"file", "stranger"}, "the temporary file stayed"
    assert fired >= 5, "the sweep must meet open, fchmod, write, fsync, link and the folder's fsync"


CALLS = ("openat", "fchmod", "write", "fsync", "close", "linkat", "rename", "unlink")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("operation", ["commit_new", "replace"])
def test_kill_at_any_system_call_leaves_old_or_new(operation: str, tmp_path: Path) -> None:
    """`kill -9` at the N-th call of each kind that touches the folder, in a real process."""
    script = (
        "import sys; from pathlib import Path; from clusterseg.runs import files\n"
        "files.os.getpid = lambda: 1; files.os.urandom = lambda n: bytes(n)\n"
        f"files.{operation}(Path(sys.argv[1]), {NEW!r})"
    )
    before = OLD if operation == "replace" else None
    killed = set()
    for call in CALLS:
        for nth in range(1, 5):
            folder = tmp_path / f"{call}-{nth}"
            folder.mkdir()
            path = folder / "file"
            if before:
                path.write_bytes(before)
            # -P: only calls on these files are counted.
            touched = (folder, path, folder / f"{files.TEMPORARY_PREFIX}file-1-{'00' * 8}")
            command = ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
            command += [part for name in touched for part in ("-P", str(name))]
            command += ["-e", f"inject={call}:signal=KILL:when={nth}"]
            process = subprocess.run(
                [*command, sys.executable, "-c", script, str(path)], timeout=60, check=False
            )
            after = path.read_bytes() if path.exists() else None
            if process.returncode == 0:
                assert after == NEW
                break
            assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
            killed.add(call)
            assert after in (before, NEW)
    final = {"linkat", "unlink"} if operation == "commit_new" else {"rename"}
    assert killed >= {"openat", "fchmod", "write", "fsync", "close"} | final
