"""Stop files and heartbeats: one host writes, others read by fresh opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterseg.runs import files
from clusterseg.runs.control import StopReason, read_stop, request_stop
from clusterseg.runs.heartbeat import HeartbeatWriter, read_heartbeat
from clusterseg.runs.records import StopRequest


def test_stop_file_asks_only_once_written(tmp_path: Path) -> None:
    path = tmp_path / "stop-000"
    assert read_stop(path) is None
    with pytest.raises(FileNotFoundError):
        request_stop(path, StopReason.CANCEL)  # there is no such attempt
    files.make_empty(path)
    assert read_stop(path) is None
    inode = path.stat().st_ino
    request_stop(path, StopReason.CANCEL, deadline=12.5)
    assert read_stop(path) == StopRequest(reason="cancel", deadline=12.5)
    request_stop(path, StopReason.CANCEL_NOW)
    assert read_stop(path) == StopRequest(reason="cancel_now", deadline=None)
    assert path.stat().st_ino == inode  # the same inode for readers that cached it


@pytest.mark.parametrize("content", [b"stop\n", b"\xff\xfe", b'{"reason": "ca', b"[" * 5000, b"0"])
def test_any_content_is_a_request(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "stop-000"
    path.write_bytes(content)
    assert read_stop(path) == StopRequest(reason="cancel")


def test_heartbeat_counts(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat"
    assert read_heartbeat(path) is None
    writer = HeartbeatWriter(path)
    for count in (1, 2, 3):
        writer.beat()
        beat = read_heartbeat(path)
        assert beat is not None
        assert beat.count == count
    assert len(path.read_bytes()) == 39


@pytest.mark.parametrize("content", [b"", b"\0" * 39, b"00000", b"a b\n"])
def test_torn_heartbeat_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "heartbeat").write_bytes(content)
    assert read_heartbeat(tmp_path / "heartbeat") is None
