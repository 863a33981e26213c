"""The event log: what is written is read back, and damage costs only what it damaged."""

from __future__ import annotations

import io
import math
import os
from itertools import accumulate
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.runs import eventlog
from clusterseg.runs.eventlog import (
    LONGEST_LINE,
    EventTail,
    EventWriter,
    Tally,
    iter_batches,
    iter_events,
)
from clusterseg.runs.records import (
    Checkpoint,
    Epoch,
    Event,
    Phase,
    RankEnd,
    RankStart,
    Steps,
    Stop,
    Stragglers,
)


def steps(step: int) -> Steps:
    return Steps(t=1e9 + step, rank=3, epoch=0, step=step, count=1, images=4, seconds=0.25)


EVERY_KIND: list[Event] = [
    RankStart(t=1.0, rank=3, attempt=0, world_size=8, host="n1", cpus=[0, 1]),
    Phase(t=2.0, rank=3, name="startup", seconds=0.5, parts={"python": 0.1, "connect": 0.4}),
    steps(1),
    Epoch(t=3.0, rank=0, epoch=1, step=1, val_accuracy=0.5),
    Checkpoint(t=4.0, rank=0, epoch=1, step=1, file="weights-0001-0.5000.safetensors"),
    Stragglers(t=4.5, rank=0, epoch=1, step=1, seconds_per_step=0.5, scores={"3": 0.6}),
    Stop(t=5.0, rank=3, reason="cancel", step=1),
    RankEnd(t=6.0, rank=3, status="stopped", step=1, peak_bytes=1 << 30),
]


def line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def read(data: bytes, piece: int = 1 << 20) -> tuple[list[Event], Tally]:
    """Reads `data` as a stream that gives at most `piece` bytes at a time."""

    class Drip(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(piece, size if size and size > 0 else piece))

    tally = Tally()
    return list(iter_events(Drip(data), tally)), tally


def test_every_kind_is_read_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "00003.jsonl"
    with EventWriter(path) as writer:
        for event in EVERY_KIND:
            writer.write(event)
    assert list(iter_events(path)) == EVERY_KIND
    assert [event for batch in iter_batches(path) for event in batch] == EVERY_KIND


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_the_file_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        EventWriter(tmp_path / "e.jsonl").close()
    finally:
        os.umask(before)
    assert (tmp_path / "e.jsonl").stat().st_mode & 0o777 == 0o600


def test_non_finite_numbers_become_null(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with EventWriter(path) as writer:
        writer.write(msgspec.structs.replace(steps(1), loss=math.nan, learning_rate=math.inf))
    (event,) = iter_events(path)
    assert isinstance(event, Steps)
    assert event.loss is None
    assert event.learning_rate is None


def test_a_writer_closes_the_torn_line_of_its_predecessor(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(line(steps(1)) + line(steps(2))[:20])
    with EventWriter(path) as writer:
        writer.write(steps(3))
    tally = Tally()
    assert list(iter_events(path, tally)) == [steps(1), steps(3)]
    assert (tally.unreadable, tally.torn) == (1, False)


def test_a_full_disk_is_reported_and_spoils_no_later_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.jsonl"
    real_write = os.write
    with EventWriter(path) as writer:
        writer.write(steps(1))
        answers = iter([lambda fd, data: real_write(fd, data[:10]), None])

        def nearly_full(fd: int, data: bytes) -> int:
            answer = next(answers)
            if answer is None:
                raise OSError(28, "No space left on device")
            return answer(fd, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", nearly_full)
            with pytest.raises(OSError, match="No space left"):
                writer.write(steps(2))
        writer.write(steps(3))
    assert list(iter_events(path)) == [steps(1), steps(3)]


def test_a_touch_changes_the_time_alone_and_not_at_every_call(tmp_path: Path) -> None:
    path = tmp_path / "events"
    writer = EventWriter(path)
    writer.write(steps(1))
    content = path.read_bytes()
    os.utime(path, ns=(0, 0))
    writer.touch()
    assert path.stat().st_mtime_ns > 0 and path.read_bytes() == content
    os.utime(path, ns=(0, 0))
    writer.touch()
    assert path.stat().st_mtime_ns == 0
    writer.close()
    closed = EventWriter(path)
    closed.close()
    closed.touch()  # raises nothing


def test_a_symbolic_link_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_bytes(b"")
    (tmp_path / "e.jsonl").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        EventWriter(tmp_path / "e.jsonl")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "e.jsonl")
    with pytest.raises(OSError, match="not a plain file"):
        list(iter_events(tmp_path / "e.jsonl"))


@given(cut=st.integers(0, sum(len(line(e)) for e in EVERY_KIND)), piece=st.integers(1, 400))
def test_a_log_cut_at_any_byte_gives_its_whole_lines(cut: int, piece: int) -> None:
    data = b"".join(line(event) for event in EVERY_KIND)[:cut]
    ends = accumulate(len(line(event)) for event in EVERY_KIND)
    whole = sum(end - 1 <= cut for end in ends)  # a line that lacks only its end is whole
    events, tally = read(data, piece)
    assert events == EVERY_KIND[:whole]
    assert tally.unreadable == 0
    begun = sum(len(line(event)) for event in EVERY_KIND[:whole])
    assert tally.torn == (cut > begun)


def test_a_log_of_another_program_is_read_leniently() -> None:
    foreign = (
        b'{"t": 5, "rank": "3", "kind": "steps", "epoch": 0, "step": 7.0, "count": 1,'
        b' "images": 4.0, "seconds": 1, "wait_data": null, "comm": null, "loss": NaN}\n'
        b'{"t": 6.5, "kind": "rank_start", "rank": 3, "attempt": 0, "world_size": 8, "host": "n1",'
        b' "accelerator": {"cuda": 1}, "cpus": "0-3", "local_rank": null}\n'
    )
    events, tally = read(foreign)
    assert events == [
        Steps(t=5.0, rank=3, epoch=0, step=7, count=1, images=4, seconds=1.0),
        RankStart(t=6.5, rank=3, attempt=0, world_size=8, host="n1"),
    ]
    assert tally.unreadable == 0


def test_a_window_without_its_time_is_not_made_up() -> None:
    events, tally = read(line(steps(1)).replace(b'"seconds":0.25', b'"seconds":NaN'))
    assert events == []
    assert tally.unreadable == 1


JUNK = [
    b"not json\n",
    b"\xff\xfe\xfd\n",
    b"\0" * 50 + b"\n",
    b"[" * 100_000 + b"\n",
    b'{"kind":"steps","t":1}\n',  # a field is missing
    b'{"kind":5}\n',
    b'{"t":1}\n',
    b'{"kind":"steps","t":"x","rank":0}\n',
    b'{"kind":"phase","t":1,"rank":0,"name":"save","seconds":1}{"kind":"phase"}\n',
]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: ascii(junk[:25]))
def test_junk_between_events_is_counted_and_skipped(junk: bytes) -> None:
    events, tally = read(line(steps(1)) + junk + line(steps(2)))
    assert events == [steps(1), steps(2)]
    assert (tally.events, tally.unreadable, tally.unknown) == (2, 1, 0)


def test_unknown_kinds_and_fields_are_no_damage() -> None:
    newer = b'{"kind":"gpu_power","t":1,"rank":0,"watts":300}\n'
    wider = line(steps(1)).replace(b"{", b'{"new_field":{"a":[1]},', 1)
    events, tally = read(newer + wider + b"\n" + b"  \n")
    assert events == [steps(1)]
    assert (tally.unreadable, tally.unknown) == (0, 1)


@pytest.mark.parametrize("piece", [1000, 1 << 16, 1 << 20])
@pytest.mark.parametrize("extra", [0, 1, LONGEST_LINE, 3 * LONGEST_LINE])
def test_lines_beyond_the_longest_are_skipped(extra: int, piece: int) -> None:
    long_line = b'{"kind":"phase","t":1,"rank":0,"seconds":1,"name":"' + b"x" * 100
    long_line = long_line + b"x" * (LONGEST_LINE - len(long_line) - 2 + extra) + b'"}\n'
    events, tally = read(line(steps(1)) + long_line + line(steps(2)), piece)
    kept = 0 if extra else 1
    assert len(events) == 2 + kept
    assert (events[0], events[-1]) == (steps(1), steps(2))
    assert tally.unreadable == 1 - kept


def test_a_line_without_end_takes_no_memory() -> None:
    class Endless:
        left = 2000

        def read(self, size: int, /) -> bytes:
            self.left -= 1
            return b"x" * size if self.left > 0 else b""

    decoder = eventlog.EventDecoder()
    stream = Endless()
    while chunk := stream.read(eventlog.CHUNK):
        decoder.feed(chunk)
        assert len(decoder._carry) <= LONGEST_LINE
    decoder.finish()
    assert decoder.tally.torn
    assert decoder.tally.unreadable == 1


def test_a_tail_gives_what_was_added_and_holds_back_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    tail = EventTail(path)
    assert tail.read() == []
    with path.open("ab", buffering=0) as file:
        file.write(line(steps(1)) + line(steps(2))[:30])
        assert tail.read() == [steps(1)]
        assert tail.read() == []
        file.write(line(steps(2))[30:])
        assert tail.read() == [steps(2)]
    path.unlink()
    assert tail.read() == []


@pytest.mark.parametrize("keep", [1, 10, 500, 5000, 10**6])
def test_a_tail_may_begin_near_the_end(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "e.jsonl"
    written = [*EVERY_KIND, *(steps(step) for step in range(100, 200))]
    path.write_bytes(b"".join(map(line, written)) + line(steps(200))[:9])
    tail = EventTail(path, keep=keep)
    events = tail.read()
    size = path.stat().st_size
    first = written if size <= keep else [written[0], *written[len(written) - len(events) + 1 :]]
    assert events == first
    if size > keep:
        assert sum(len(line(event)) for event in events[1:]) <= keep
    with path.open("ab") as file:
        file.write(line(steps(200))[9:] + line(steps(201)))
    assert tail.read()[-1] == steps(201)
    assert tail.tally.unreadable == 0


def test_a_device_is_refused_and_keeps_its_mode() -> None:
    before = Path(os.devnull).stat().st_mode
    with pytest.raises(OSError, match="not a regular file"):
        EventWriter(Path(os.devnull))
    assert Path(os.devnull).stat().st_mode == before
