"""An event log on a disk that fills up: nothing raised, nothing torn, nothing twice."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from clusterseg.runs.eventlog import EventWriter, Tally, iter_events
from clusterseg.runs.records import Event, Phase, RankEnd
from clusterseg.train.patient_events import PatientEvents


class Disk:
    """Stands for os.write on a disk with `room` bytes left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1 << 30
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, bytes(data)[: self.room])
        self.room -= written
        return written


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def event(number: int) -> Phase:
    return Phase(t=float(number), rank=0, name="save", seconds=1.0)


def read(path: Path) -> tuple[list[float], Tally]:
    tally = Tally()
    return [one.t for one in iter_events(path, tally)], tally


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("room", range(0, 160, 13))
def test_what_did_not_fit_comes_later_whole_and_once(
    tmp_path: Path, disk: Disk, room: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path, clock = tmp_path / "events", Clock()
    with PatientEvents(path, clock=clock) as events:
        disk.room = room
        for number in range(10):
            clock.now += 0.4
            events.write(event(number))
        disk.room = 1 << 30
        clock.now += 1
        events.write(event(10))
    times, tally = read(path)
    assert times == list(range(11))
    assert (tally.torn, tally.unreadable, events.lost) == (False, 0, 0)
    said = capfd.readouterr().err
    assert said.count("events can't be written") == 1 and said.count("written again") == 1


def test_the_plain_writer_would_raise(tmp_path: Path, disk: Disk) -> None:
    """The negative twin."""
    with EventWriter(tmp_path / "events") as events:
        disk.room = 5
        with pytest.raises(OSError, match="No space"):
            events.write(event(0))


def test_a_full_disk_is_not_asked_more_than_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(descriptor: int, data: bytes) -> int:
        tried.append(len(data))
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    clock = Clock()
    with PatientEvents(tmp_path / "events", clock=clock) as events, monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for number in range(100):
            clock.now += 0.1
            events.write(event(number))
        assert len([one for one in tried if one > 30]) <= 11


def last(step: int) -> Event:
    return RankEnd(t=99.0, rank=0, status="failed", step=step, error="disk full: x")


def test_the_last_word_of_a_rank_is_always_tried(tmp_path: Path, disk: Disk) -> None:
    path, clock = tmp_path / "events", Clock()
    events = PatientEvents(path, clock=clock)
    disk.room = 0
    events.write(event(0))
    disk.room = 1 << 30
    events.write(last(7))  # at the same moment; the process may be ended before it closes
    assert read(path)[0] == [0.0, 99.0]
    events.close()


def test_closing_tries_once_more(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "events"
    events = PatientEvents(path)
    disk.room = 0
    events.write(event(0))
    disk.room = 1 << 30
    events.close()
    events.close()
    assert read(path)[0] == [0.0]


def test_memory_has_an_end_and_the_half_written_line_stays(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "events"
    with PatientEvents(path, most=4) as events:
        disk.room = 20
        for number in range(10):
            events.write(event(number))
        assert events.lost == 6
        disk.room = 1 << 30
    times, tally = read(path)
    assert times == [0, 7, 8, 9] and tally.unreadable == 0


def test_a_line_that_the_process_before_tore_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b'{"kind": "phase", "t": 1')
    with PatientEvents(path) as events:
        events.write(event(2))
    times, tally = read(path)
    assert times == [2.0] and tally.unreadable == 1
