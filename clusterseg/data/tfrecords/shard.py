"""The records of a TFRecord file: found, read and written one by one.

A record is its length (8 bytes, little-endian), a checksum of those, the data, a checksum of them
(TensorFlow, core/lib/io/record_writer.h).
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from clusterseg.data.dataset import Record
from clusterseg.data.tfrecords.crc import crc32c, masked
from clusterseg.data.tfrecords.example import Place, places
from clusterseg.errors import ClustersegError

_LENGTH = struct.Struct("<Q")
_SUM = struct.Struct("<I")
_HEAD, _FOOT = _LENGTH.size + _SUM.size, _SUM.size

# Keys of research/deeplab's data sets (build_data.py there).
IMAGE = "image/encoded"
MASK = "image/segmentation/class/encoded"
NAME = "image/filename"


def walk(path: Path) -> Iterator[tuple[Record, str]]:
    """(record, its file's name or "") of each record, in order.

    Reads lengths and keys only; that the data are whole shows when they are read (`read_pair`).
    Raises ClustersegError if the file can't be read, is cut off, is no TFRecord file, or if a
    record has no picture or no mask.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield from _walk(path, mapped, size)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_pair(record: Record) -> tuple[bytes, bytes]:
    """The bytes of the picture's and of the mask's file; the whole record is checked against its
    checksum. Raises ClustersegError (`damaged-record`, `missing-file`, …).
    """
    try:
        with record.shard.open("rb") as file:
            file.seek(record.offset)
            whole = file.read(_HEAD + record.length + _FOOT)
    except OSError as error:
        raise _unreadable(record.shard, error) from error
    data = memoryview(whole)[_HEAD : _HEAD + record.length]
    if len(whole) != _HEAD + record.length + _FOOT or (
        masked(crc32c(data)) != _SUM.unpack_from(whole, len(whole) - _FOOT)[0]
    ):
        raise _damaged(record.shard, record.offset, "its data don't match their checksum")
    image, mask, _ = _parts(record.shard, record.offset, data)
    return bytes(data[slice(*image)]), bytes(data[slice(*mask)])


def framed(data: bytes) -> bytes:
    """A record, as it stands in a file."""
    head = _LENGTH.pack(len(data))
    return b"".join((head, _SUM.pack(masked(crc32c(head))), data, _SUM.pack(masked(crc32c(data)))))


def _walk(path: Path, mapped: mmap.mmap, size: int) -> Iterator[tuple[Record, str]]:
    at = 0
    while at < size:
        head = mapped[at : at + _HEAD]
        if len(head) < _HEAD:
            raise _damaged(path, at, "the file ends within it")
        (length,), (told,) = _LENGTH.unpack_from(head), _SUM.unpack_from(head, _LENGTH.size)
        if masked(crc32c(head[: _LENGTH.size])) != told:
            raise _damaged(path, at, "its length does not match its checksum")
        if length > size - at - _HEAD - _FOOT:
            raise _damaged(path, at, "the file ends within it")
        with memoryview(mapped) as whole, whole[at + _HEAD : at + _HEAD + length] as data:
            _, _, name = _parts(path, at, data)
            text = "" if name is None else str(data[slice(*name)], "utf-8", "replace")
        yield Record(path, at, length), text
        at += _HEAD + length + _FOOT


def _parts(path: Path, at: int, data: memoryview) -> tuple[Place, Place, Place | None]:
    try:
        found = places(data)
    except ValueError as error:
        raise _damaged(path, at, f"it is no tf.train.Example: {error}") from error
    for key in (IMAGE, MASK):
        if key not in found:
            raise ClustersegError(
                f"{path}: the record at byte {at} has no {key!r}",
                code="bad-record",
                help=f"it has: {', '.join(sorted(found)[:12]) or 'nothing'}; docs/data.md has the "
                "keys, and `clusterseg data convert` writes them",
            )
    return found[IMAGE], found[MASK], found.get(NAME)


def _damaged(path: Path, at: int, why: str) -> ClustersegError:
    return ClustersegError(
        f"{path}: the record at byte {at} is damaged: {why}",
        code="damaged-record",
        help="copy or write the shard anew; or leave such samples out: "
        "train.data.on_unreadable: skip",
    )


def _unreadable(path: Path, error: OSError) -> ClustersegError:
    gone = error.errno == errno.ENOENT
    return ClustersegError(
        f"{path}: {error.strerror or error}",
        code="missing-file" if gone else "unreadable-shard",
        help="put it back" if gone else "make it readable for whoever trains",
    )
