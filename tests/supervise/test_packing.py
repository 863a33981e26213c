"""Old attempts are packed; what people look into, and what may still be written, is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from clusterseg.runs.archive import members
from clusterseg.runs.attempts import attempt_numbers, iter_attempts
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, RankStart
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.packing import KEPT_OPEN, pack_old_attempts
from tests.runs import synthetic


def run_with(tmp_path: Path, count: int, *, without_end: int) -> RunPaths:
    run = RunPaths(tmp_path / "demo-1")
    run.root.mkdir()
    for number in range(count):
        synthetic.claim(run, number)
        start = RankStart(t=1e9, rank=0, attempt=number, world_size=2, host="n1")
        synthetic.write_events(run, number, 0, [start])
        if number not in (without_end, count - 1):
            synthetic.end(run, number, Cause.CRASH, will_restart=True)
    return run


def test_old_ended_attempts_are_packed_and_read_alike(tmp_path: Path) -> None:
    newest = KEPT_OPEN + 3
    run = run_with(tmp_path, newest + 1, without_end=1)
    beats: list[int] = []
    pack_old_attempts(run, newest, Journal(), lambda: beats.append(len(beats)))
    folders = sorted(path.name for path in run.attempts.iterdir() if path.is_dir())
    packed = sorted(path.name for path in run.attempts.iterdir() if path.is_file())
    assert packed == ["000.tar.zst", "002.tar.zst"]
    assert len(beats) == 2, "a holder that packs must not look dead"
    assert folders == ["001", *(f"{number:03d}" for number in range(3, newest + 1))]
    assert attempt_numbers(run) == list(range(newest + 1))
    read = next(iter_attempts(run))
    assert read.claim is not None and read.claim.attempt == 0
    assert read.end is not None and read.end.cause is Cause.CRASH


def test_what_the_launcher_wrote_is_packed_too(tmp_path: Path) -> None:
    newest = KEPT_OPEN + 1
    run = run_with(tmp_path, newest + 1, without_end=newest)
    written = run.attempt(0).launcher / "1" / "rank.0" / "stdout"
    written.parent.mkdir(parents=True)
    written.write_text("a line\n")
    pack_old_attempts(run, newest, Journal(), lambda: None)
    assert not run.attempt(0).folder.exists()
    found = {name: stream.read(99) for name, stream in members(run.attempt(0).packed)}
    assert found["launcher/1/rank.0/stdout"] == b"a line\n"


def test_what_cannot_be_packed_is_said_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = KEPT_OPEN + 1
    run = run_with(tmp_path, newest + 1, without_end=newest)

    def full_disk(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    journal, log = Journal(), tmp_path / "log"
    journal.open(log)
    pack_old_attempts(run, newest, journal, lambda: None)
    journal.close()
    assert "attempt 0 can't be packed" in log.read_text()
    assert run.attempt(0).claim.exists()
    assert not run.attempt(0).packed.exists()
