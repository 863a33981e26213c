"""Hosts that share a file system as NFS shares one: each sees the others' changes late, or hangs.

Every host has a bindfs mount of one folder, whose kernel caches attributes, names and the absence
of names for a while. That is worse than NFS, which asks for a file's size at every open.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import pytest


@contextmanager
def stale_mounts(folder: Path, hosts: int, stale: float) -> Iterator[list[Path]]:
    """One folder, mounted once for each host; what a host has looked up it believes for `stale` s.

    Skips the test, with the reason, where such mounts can't be made.
    """
    if which("bindfs") is None:
        pytest.skip("needs bindfs")
    real = folder / "real"
    real.mkdir(parents=True)
    options = f"attr_timeout={stale},entry_timeout={stale},negative_timeout={stale}"
    points = [folder / f"host{number}" for number in range(hosts)]
    running: list[subprocess.Popen[str]] = []
    try:
        for point in points:
            point.mkdir()
            running.append(_mount(real, point, options))
        yield points
    finally:
        for point, process in zip(points, running, strict=False):
            _unmount(point, process)


@dataclass(frozen=True)
class Storage:
    """A mount that can `hang`: who writes there waits inside of the kernel until it may `answer`.

    `real` is the same folder for those who must not wait.
    """

    point: Path
    real: Path
    hang: Callable[[], object]
    answer: Callable[[], object]


@contextmanager
def stopped_daemon(folder: Path) -> Iterator[Storage]:
    """One whose daemon is stopped, as a server that is gone. Skips where there can be none."""
    if which("bindfs") is None:
        pytest.skip("needs bindfs")
    real, point = folder / "real", folder / "mount"
    for made in (real, point):
        made.mkdir(parents=True)
    process = _mount(real, point, "attr_timeout=0,entry_timeout=0")
    try:
        yield Storage(
            point,
            real,
            hang=lambda: process.send_signal(signal.SIGSTOP),
            answer=lambda: process.send_signal(signal.SIGCONT),
        )
    finally:
        process.send_signal(signal.SIGCONT)
        _unmount(point, process)


@contextmanager
def frozen(folder: Path) -> Iterator[Storage]:
    """A file system that is frozen: no signal reaches who waits for it, not even KILL."""
    image, point = folder / "image", folder / "mount"
    point.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(64 << 20)
    # Where the tools of file systems are, which a user's PATH may not have.
    environ = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, point]):
        found = which(str(command[0]), path=environ["PATH"])
        if found is None or subprocess.run(command, env=environ, check=False).returncode:
            pytest.skip(f"`{command[0]}` does not work here")

    def freeze(option: str) -> None:
        subprocess.run(["fsfreeze", option, point], env=environ, check=True)

    try:
        yield Storage(point, point, hang=lambda: freeze("-f"), answer=lambda: freeze("-u"))
    finally:
        subprocess.run(["fsfreeze", "-u", point], env=environ, check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", point], check=False)


def _unmount(point: Path, process: subprocess.Popen[str]) -> None:
    subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    process.terminate()
    process.wait()
    if process.stderr:
        process.stderr.close()


def _mount(real: Path, point: Path, options: str) -> subprocess.Popen[str]:
    before = point.stat().st_dev
    process = subprocess.Popen(
        ["bindfs", "-f", "-o", options, str(real), str(point)], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 10
    while point.stat().st_dev == before:
        if process.poll() is not None or time.monotonic() > until:
            process.terminate()
            pytest.skip(f"bindfs can't mount here: {process.communicate()[1].strip()}")
        time.sleep(0.02)
    return process
