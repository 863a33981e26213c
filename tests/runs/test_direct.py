"""Large files past the system's cache: every byte, in order, whatever the file system refuses."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusterseg.runs import direct
from clusterseg.runs.checkpoint_file import (
    CheckpointError,
    Tensor,
    read_layout,
    read_verified,
    verify,
    write_file,
)
from clusterseg.runs.records import CheckpointHeader

PIECE = 8192
SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 7]


def is_direct(descriptor: int) -> bool:
    return bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "PIECE", PIECE)


@pytest.fixture(
    params=["taken", "flag refused", "call refused", "short"],
)
def refusal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a file system says to O_DIRECT: nothing, no, no to the first block, or half of it."""
    set_flags, write, readv = fcntl.fcntl, os.write, os.readv
    kind = str(request.param)

    def no_flag(descriptor: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return set_flags(descriptor, command, flags)

    def refuses(call: Callable[[], int], descriptor: int) -> int:
        if is_direct(descriptor):
            raise OSError(errno.EINVAL, "Invalid argument")
        return call()

    if kind == "flag refused":
        monkeypatch.setattr(fcntl, "fcntl", no_flag)
    elif kind == "call refused":
        monkeypatch.setattr(os, "write", lambda fd, data: refuses(lambda: write(fd, data), fd))
        monkeypatch.setattr(os, "readv", lambda fd, into: refuses(lambda: readv(fd, into), fd))
    elif kind == "short":  # the next one would begin in the midst of a block
        half = PIECE // 2 + 512
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:half]))
        monkeypatch.setattr(os, "readv", lambda fd, into: readv(fd, [into[0][:half]]))
    return kind


def written(path: Path, parts: list[bytes]) -> bytes:
    """Writes them; what was seen of them."""
    seen = bytearray()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        direct.write_pieces(descriptor, map(memoryview, parts), seen.extend)
    finally:
        os.close(descriptor)
    return bytes(seen)


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_is_written_and_seen_in_order(tmp_path: Path, size: int, refusal: str) -> None:
    content = os.urandom(size)
    parts = [content[:5], b"", content[5:6000], content[6000:]]
    assert written(tmp_path / "file", parts) == content
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("from_disk", [True, False])
def test_every_byte_is_read_once(tmp_path: Path, size: int, from_disk: bool, refusal: str) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb", buffering=0) as file:
        found = b"".join(
            bytes(one) for one in direct.read_pieces(file.fileno(), from_disk=from_disk)
        )
    assert found == content


def test_whole_pieces_pass_the_cache_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[tuple[bool, int]] = []
    write = os.write

    def noted(descriptor: int, data: memoryview) -> int:
        modes.append((is_direct(descriptor), len(data)))
        return write(descriptor, data)

    if not takes_direct(tmp_path):
        pytest.skip("the file system of the tests' folder knows no O_DIRECT")
    monkeypatch.setattr(os, "write", noted)
    written(tmp_path / "file", [bytes(2 * PIECE + 7)])
    assert modes == [(True, PIECE), (True, PIECE), (False, 7)]


def takes_direct(folder: Path) -> bool:
    try:
        os.close(os.open(folder / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_what_is_no_refusal_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(descriptor: int, data: object) -> int:
        raise OSError(number, os.strerror(number))

    (tmp_path / "read").write_bytes(bytes(3 * PIECE))
    monkeypatch.setattr(os, "write", fails)
    monkeypatch.setattr(os, "readv", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        written(tmp_path / "written", [bytes(3 * PIECE)])
    with (tmp_path / "read").open("rb") as file, pytest.raises(OSError, match=os.strerror(number)):
        list(direct.read_pieces(file.fileno(), from_disk=True))


def checkpoint(path: Path) -> bytes:
    """Of several pieces, its header alone is longer than one; the bytes of its tensors."""
    content = [os.urandom(400) for _ in range(200)]
    tensors = [
        Tensor(f"tensor-{number:04d}", "U8", (400,), memoryview(data))
        for number, data in enumerate(content)
    ]
    header = CheckpointHeader(epoch=0, step=1, step_in_epoch=1, attempt=0, t=1.0)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        write_file(descriptor, header, tensors)
    finally:
        os.close(descriptor)
    return b"".join(content)


@pytest.mark.parametrize("from_disk", [True, False])
def test_a_checkpoint_of_many_pieces_is_verified(
    tmp_path: Path, from_disk: bool, refusal: str
) -> None:
    path = tmp_path / "file"
    content = checkpoint(path)
    layout = verify(path, from_disk=from_disk)
    assert layout.data_offset > PIECE and layout.file_size > 8 * PIECE
    assert bytes(read_verified(path)[1]) == content


@pytest.mark.parametrize("from_disk", [True, False])
def test_a_flip_in_any_piece_is_noticed(tmp_path: Path, from_disk: bool) -> None:
    path = tmp_path / "file"
    checkpoint(path)
    good = path.read_bytes()
    for place in flips(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match="file "):
            verify(path, from_disk=from_disk)
    path.write_bytes(good)
    assert verify(path, from_disk=from_disk) == read_layout(path)


def flips(size: int) -> Iterator[int]:
    for start in range(0, size, PIECE):
        yield from (start, min(start + PIECE, size) - 1)
