"""The lock of a folder, with processes of their own as holders."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterseg.runs.lock import Taken, held

HOLDS = """
import sys, time
from pathlib import Path
from clusterseg.runs.lock import held
with held(Path(sys.argv[1])) as has_lock:
    print(has_lock, flush=True)
    sys.stdin.read()
"""

# Each enters fifty times, alone: it makes a file that must not be there, and removes it.
CONTENDS = """
import sys
from pathlib import Path
from clusterseg.runs.lock import Taken, held
lock, mark = map(Path, sys.argv[1:])
count = 0
while count < 50:
    try:
        with held(lock) as has_lock:
            assert has_lock
            mark.touch(exist_ok=False)
            mark.unlink()
            count += 1
    except Taken:
        pass
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "work" / "lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_who_comes_second_is_told_who_has_it(lock: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(Taken) as caught, held(lock):
        pass
    found = caught.value.holder
    assert found is not None
    assert (found.host, found.pid) == (os.uname().nodename, holder.pid)
    assert abs(found.since - time.time()) < 600
    holder.communicate("")
    assert holder.returncode == 0
    assert not lock.parent.exists()  # nothing of it is left


def test_one_that_was_killed_blocks_nobody(lock: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert str(holder.pid) in lock.read_text()  # it had no time to tidy up
    with held(lock) as has_lock:
        assert has_lock
        with pytest.raises(Taken) as caught, held(lock):
            pass
        assert caught.value.holder is not None
        assert caught.value.holder.pid == os.getpid()
    assert not lock.parent.exists()


def test_others_things_in_the_folder_stay(lock: Path) -> None:
    with held(lock):
        (lock.parent / "kept").touch()
    assert [path.name for path in lock.parent.iterdir()] == ["kept"]


def test_no_two_have_it_though_it_comes_and_goes(lock: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-c", CONTENDS, str(lock), str(tmp_path / "mark")]
    processes = [subprocess.Popen(line) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gone", ["lock", "folder"])
def test_a_lock_that_goes_as_we_get_it_is_none(
    lock: Path, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder tidied up between our opening it and having it: others would find another one."""
    real, turns = fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        turns.append(how)
        if len(turns) == 1:
            lock.unlink()
            if gone == "folder":
                lock.parent.rmdir()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(lock) as has_lock:
        assert has_lock and len(turns) == 2
        with pytest.raises(Taken), held(lock):
            pass


def test_without_locks_it_says_so(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")  # Lustre without -o flock

    monkeypatch.setattr(fcntl, "flock", flock)
    with held(lock) as has_lock, held(lock):
        assert not has_lock
    assert not lock.parent.exists()


def test_a_link_in_its_place_is_not_followed(lock: Path, tmp_path: Path) -> None:
    lock.parent.mkdir()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), held(lock):
        pass
    assert not (tmp_path / "elsewhere").exists()
