"""One checkpoint as bytes: a safetensors file that proves its own integrity.

Layout (https://huggingface.co/docs/safetensors, section "Format"): 8 bytes little-endian length
of the header, the header as JSON, then the tensors without gaps. `__metadata__` holds
`clusterseg` (a `CheckpointHeader` as JSON) and `sha256`: the hash of the whole file with those
64 hex digits written as zeros. The safetensors library accepts flipped bits in the tensors and
duplicate keys; this reader does not.

Standard library and msgspec only, so that the supervisor can read checkpoints cheaply.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.direct import read_pieces, write_pieces
from clusterseg.runs.records import CheckpointHeader

FORMAT = 1
MAX_HEADER = 100_000_000  # bytes; the safetensors library's own limit
_NO_HASH = "0" * 64
_DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


class CheckpointError(ClustersegError):
    """A checkpoint that cannot be used; the message names the file and what is wrong.

    `details` are all the single faults, where the message has room for some of them only.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "bad-checkpoint",
        help: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(message, code=code, help=help, exit_code=ExitCode.FAILED)
        self.details = tuple(details)


@dataclass(frozen=True)
class Tensor:
    """A tensor to write: `dtype` as safetensors names it, `data` its bytes in C order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    @property
    def size(self) -> int:
        return self.data.nbytes


@dataclass(frozen=True)
class Slot:
    """Where a tensor stands: bytes `begin` to `end` of the file's data part."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Layout:
    """A file's header, checked for consistency but not yet against its hash."""

    header: CheckpointHeader
    sha256: str
    tensors: dict[str, Slot]
    data_offset: int
    file_size: int
    raw_header: bytes


def read_layout(path: Path) -> Layout:
    """Reads and checks the header alone: cheap, and safe on files from outside.

    Raises CheckpointError; nothing is allocated beyond the header's real size.
    """
    try:
        with path.open("rb") as file:
            return _parse(path, file.read(8), file.read, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror or error}") from error


def verify(path: Path, expected: str | None = None, *, from_disk: bool = False) -> Layout:
    """Reads the whole file and compares its SHA-256 with its header (and with `expected`).

    `from_disk`: not what the system's cache holds of it. Raises CheckpointError naming what is
    wrong. Memory: the header and 8 MiB.
    """
    layout = read_layout(path)
    try:
        with path.open("rb", buffering=0) as file:
            digest = _hash_of_header(layout)
            begin = _length_and_header(layout)
            for piece in read_pieces(file.fileno(), from_disk=from_disk):
                known = len(begin[: len(piece)])
                if piece[:known] != begin[:known]:
                    raise _bad(path, "changed while it was read")
                begin = begin[known:]
                digest.update(piece[known:])
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror or error}") from error
    _compare(path, layout, digest.hexdigest(), expected)
    return layout


def read_verified(
    path: Path, expected: str | None = None, *, lap: Callable[[str], None] = lambda part: None
) -> tuple[Layout, memoryview]:
    """The layout and the data part of a file, from one read, so that what is used is what
    was verified. `lap` is called with "read" and "hash" after each. Raises CheckpointError."""
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise _bad(path, f"cannot be read: {error.strerror or error}") from error
    lap("read")
    layout = _parse(
        path, bytes(content[:8]), lambda size: bytes(content[8 : 8 + size]), len(content)
    )
    data = content[layout.data_offset :]
    digest = _hash_of_header(layout)
    digest.update(data)
    _compare(path, layout, digest.hexdigest(), expected)
    lap("hash")
    return layout, data


def write_file(descriptor: int, header: CheckpointHeader, tensors: Iterable[Tensor]) -> str:
    """Writes a checkpoint to an open, empty file and returns its SHA-256; does not fsync.

    The hash is taken while writing and then put into its place in the header. Raises OSError.
    """
    ordered = _ordered(tensors)
    raw = _raw_header(header, ordered)
    digest = hashlib.sha256()
    write_pieces(descriptor, _parts(raw, ordered), digest.update)
    sha256 = digest.hexdigest()
    place = 8 + raw.index(_NO_HASH.encode())
    if os.pwrite(descriptor, sha256.encode(), place) != len(sha256):
        raise OSError("short write of the hash")
    return sha256


def file_size(header: CheckpointHeader, tensors: Iterable[Tensor]) -> int:
    """How many bytes `write_file` writes for these."""
    tensors = _ordered(tensors)
    return 8 + len(_raw_header(header, tensors)) + sum(one.size for one in tensors)


def _ordered(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Largest items first, so that every tensor is aligned without gaps (as the library writes)."""
    return sorted(tensors, key=lambda one: (-_DTYPE_BYTES[one.dtype], one.name))


def _parts(raw: bytes, tensors: list[Tensor]) -> Iterator[memoryview]:
    yield memoryview(len(raw).to_bytes(8, "little"))
    yield memoryview(raw)
    for tensor in tensors:
        if tensor.data.nbytes:
            yield tensor.data.cast("B")


def _raw_header(header: CheckpointHeader, tensors: list[Tensor]) -> bytes:
    # The hash stands first: its zeros are found before any that the header's text could hold.
    entries: dict[str, Any] = {
        "__metadata__": {
            "sha256": _NO_HASH,
            "format": "np",  # what the library's own writers say; some readers ask for it
            "clusterseg": msgspec.json.encode(header).decode(),
        }
    }
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    if len(entries) != len(tensors) + 1:
        raise ValueError("two tensors of a checkpoint have the same name")
    raw = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return raw + b" " * (-len(raw) % 8)


def _parse(path: Path, prefix: bytes, read: Any, file_size: int) -> Layout:
    if len(prefix) < 8:
        raise _bad(path, f"is truncated: {file_size} bytes")
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_HEADER, file_size - 8):
        raise _bad(path, f"is truncated or not a checkpoint: its header claims {length} bytes")
    raw = read(length)
    if len(raw) != length:
        raise _bad(path, "is truncated in its header")
    try:
        entries = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"has a damaged header: {error}") from error
    metadata = entries.pop("__metadata__", None) if isinstance(entries, dict) else None
    if not isinstance(metadata, dict) or "clusterseg" not in metadata:
        raise _bad(path, "is not a checkpoint of clusterseg: it has no clusterseg header")
    sha256 = metadata.get("sha256")
    if not _is_hex_digest(sha256) or raw.count(sha256.encode()) != 1:
        raise _bad(path, "has no valid SHA-256 in its header")
    slots = _slots(path, entries, file_size - 8 - length)
    return Layout(_header(path, metadata), sha256, slots, 8 + length, file_size, raw)


def _header(path: Path, metadata: dict[str, Any]) -> CheckpointHeader:
    text = metadata["clusterseg"]
    with suppress(msgspec.DecodeError, UnicodeEncodeError):
        version = msgspec.json.decode(text, type=_Version).format
        if version > FORMAT:
            raise _bad(
                path,
                f"has format {version}; this clusterseg reads up to {FORMAT}",
                help="use the clusterseg that wrote it, or a newer one",
            )
    try:
        header = msgspec.json.decode(text, type=CheckpointHeader)
    except (msgspec.DecodeError, TypeError, UnicodeEncodeError) as error:
        raise _bad(path, f"has a damaged clusterseg header: {error}") from error
    if min(header.epoch, header.step, header.step_in_epoch, header.attempt) < 0:
        raise _bad(path, "has a negative position in its header")
    return header


class _Version(msgspec.Struct):
    format: int = 1


def _slots(path: Path, entries: dict[str, Any], data_size: int) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    for name, entry in entries.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            size = _DTYPE_BYTES[dtype]
            for length in shape:
                if type(length) is not int or length < 0:
                    raise ValueError("a length is not a natural number")
                size *= length
            if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
                raise ValueError("its offsets are not natural numbers")
        except (KeyError, TypeError, ValueError) as error:
            raise _bad(path, f"describes tensor {name[:200]!r} wrongly: {error}") from error
        if end - begin != size or end > data_size:
            raise _bad(
                path,
                f"is truncated or damaged: tensor {name[:200]!r} ({dtype} {shape}) stands at "
                f"bytes {begin} to {end} of {data_size}",
            )
        slots[name] = Slot(dtype, tuple(shape), begin, end)
    position = 0
    for slot in sorted(slots.values(), key=lambda one: (one.begin, one.end)):
        if slot.begin != position:
            raise _bad(path, f"has a gap or an overlap between its tensors at byte {position}")
        position = slot.end
    if position != data_size:
        raise _bad(path, f"has {data_size} bytes of tensors, its header describes {position}")
    return slots


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key stands twice")
    return entries


def _is_hex_digest(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _length_and_header(layout: Layout) -> bytes:
    return len(layout.raw_header).to_bytes(8, "little") + layout.raw_header


def _hash_of_header(layout: Layout) -> Any:
    zeroed = layout.raw_header.replace(layout.sha256.encode(), _NO_HASH.encode())
    digest = hashlib.sha256(len(layout.raw_header).to_bytes(8, "little"))
    digest.update(zeroed)
    return digest


def _compare(path: Path, layout: Layout, actual: str, expected: str | None) -> None:
    if actual != layout.sha256:
        raise _bad(
            path,
            f"is damaged: its SHA-256 is {actual[:12]}…, its header says {layout.sha256[:12]}…",
        )
    if expected is not None and expected != layout.sha256:
        raise _bad(
            path,
            f"is another file than the one that was accepted: SHA-256 {layout.sha256[:12]}…, "
            f"accepted {expected[:12]}…",
        )


def _bad(path: Path, what: str, help: str | None = None) -> CheckpointError:
    return CheckpointError(f"{path.name} {what}", help=help)
