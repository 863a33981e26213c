"""One checkpoint as bytes: a safetensors file that proves its own integrity.

`checkpoint_layout` has what stands where in it; here files are read, hashed and written.
Standard library and msgspec only, so that the supervisor can read checkpoints cheaply.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from clusterseg.runs.checkpoint_layout import (
    DTYPE_BYTES,
    CheckpointError,
    Layout,
    bad,
    parse,
)
from clusterseg.runs.direct import read_pieces, write_pieces
from clusterseg.runs.records import CheckpointHeader

# What its functions raise and return belongs to them.
__all__ = [
    "CheckpointError",
    "Layout",
    "Tensor",
    "file_size",
    "read_layout",
    "read_verified",
    "verify",
    "write_file",
]

_NO_HASH = "0" * 64


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


def read_layout(path: Path) -> Layout:
    """Reads and checks the header alone: cheap, and safe on files from outside.

    Raises CheckpointError; nothing is allocated beyond the header's real size.
    """
    try:
        with path.open("rb") as file:
            return parse(path, file.read(8), file.read, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise bad(path, f"cannot be read: {error.strerror or error}") from error


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
                    raise bad(path, "changed while it was read")
                begin = begin[known:]
                digest.update(piece[known:])
    except OSError as error:
        raise bad(path, f"cannot be read: {error.strerror or error}") from error
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
        raise bad(path, f"cannot be read: {error.strerror or error}") from error
    lap("read")
    layout = parse(
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
    return sorted(tensors, key=lambda one: (-DTYPE_BYTES[one.dtype], one.name))


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


def _length_and_header(layout: Layout) -> bytes:
    return len(layout.raw_header).to_bytes(8, "little") + layout.raw_header


def _hash_of_header(layout: Layout) -> Any:
    zeroed = layout.raw_header.replace(layout.sha256.encode(), _NO_HASH.encode())
    digest = hashlib.sha256(len(layout.raw_header).to_bytes(8, "little"))
    digest.update(zeroed)
    return digest


def _compare(path: Path, layout: Layout, actual: str, expected: str | None) -> None:
    if actual != layout.sha256:
        raise bad(
            path,
            f"is damaged: its SHA-256 is {actual[:12]}…, its header says {layout.sha256[:12]}…",
        )
    if expected is not None and expected != layout.sha256:
        raise bad(
            path,
            f"is another file than the one that was accepted: SHA-256 {layout.sha256[:12]}…, "
            f"accepted {expected[:12]}…",
        )
