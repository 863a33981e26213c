"""The header of a checkpoint file: what it must say, and where its tensors stand.

Layout (https://huggingface.co/docs/safetensors, section "Format"): 8 bytes little-endian length
of the header, the header as JSON, then the tensors without gaps. `__metadata__` holds
`clusterseg` (a `CheckpointHeader` as JSON) and `sha256`: the hash of the whole file with those
64 hex digits written as zeros. The safetensors library accepts flipped bits in the tensors and
duplicate keys; this reader does not. Files may come from anywhere: nothing is believed of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import msgspec

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.records import CheckpointHeader

FORMAT = 1
MAX_HEADER = 100_000_000  # bytes; the safetensors library's own limit
DTYPE_BYTES = {
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


def parse(path: Path, prefix: bytes, read: Callable[[int], bytes], file_size: int) -> Layout:
    """The header of the file `path`, of `file_size` bytes, of which `prefix` are the first 8.

    `read` gives the bytes that follow, as many as it is asked for. Raises CheckpointError.
    """
    if len(prefix) < 8:
        raise bad(path, f"is truncated: {file_size} bytes")
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_HEADER, file_size - 8):
        raise bad(path, f"is truncated or not a checkpoint: its header claims {length} bytes")
    raw = read(length)
    if len(raw) != length:
        raise bad(path, "is truncated in its header")
    try:
        entries = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise bad(path, f"has a damaged header: {error}") from error
    metadata = entries.pop("__metadata__", None) if isinstance(entries, dict) else None
    if not isinstance(metadata, dict) or "clusterseg" not in metadata:
        raise bad(path, "is not a checkpoint of clusterseg: it has no clusterseg header")
    sha256 = metadata.get("sha256")
    if not _is_hex_digest(sha256) or raw.count(sha256.encode()) != 1:
        raise bad(path, "has no valid SHA-256 in its header")
    slots = _slots(path, entries, file_size - 8 - length)
    return Layout(_header(path, metadata), sha256, slots, 8 + length, file_size, raw)


def _header(path: Path, metadata: dict[str, Any]) -> CheckpointHeader:
    text = metadata["clusterseg"]
    with suppress(msgspec.DecodeError, UnicodeEncodeError):
        version = msgspec.json.decode(text, type=_Version).format
        if version > FORMAT:
            raise bad(
                path,
                f"has format {version}; this clusterseg reads up to {FORMAT}",
                help="use the clusterseg that wrote it, or a newer one",
            )
    try:
        header = msgspec.json.decode(text, type=CheckpointHeader)
    except (msgspec.DecodeError, TypeError, UnicodeEncodeError) as error:
        raise bad(path, f"has a damaged clusterseg header: {error}") from error
    if min(header.epoch, header.step, header.step_in_epoch, header.attempt) < 0:
        raise bad(path, "has a negative position in its header")
    return header


class _Version(msgspec.Struct):
    format: int = 1


def _slots(path: Path, entries: dict[str, Any], data_size: int) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    for name, entry in entries.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            size = DTYPE_BYTES[dtype]
            for length in shape:
                if type(length) is not int or length < 0:
                    raise ValueError("a length is not a natural number")
                size *= length
            if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
                raise ValueError("its offsets are not natural numbers")
        except (KeyError, TypeError, ValueError) as error:
            raise bad(path, f"describes tensor {name[:200]!r} wrongly: {error}") from error
        if end - begin != size or end > data_size:
            raise bad(
                path,
                f"is truncated or damaged: tensor {name[:200]!r} ({dtype} {shape}) stands at "
                f"bytes {begin} to {end} of {data_size}",
            )
        slots[name] = Slot(dtype, tuple(shape), begin, end)
    position = 0
    for slot in sorted(slots.values(), key=lambda one: (one.begin, one.end)):
        if slot.begin != position:
            raise bad(path, f"has a gap or an overlap between its tensors at byte {position}")
        position = slot.end
    if position != data_size:
        raise bad(path, f"has {data_size} bytes of tensors, its header describes {position}")
    return slots


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key stands twice")
    return entries


def _is_hex_digest(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def bad(path: Path, what: str, help: str | None = None) -> CheckpointError:
    """What is wrong with a checkpoint; `what` goes on after its name."""
    return CheckpointError(f"{path.name} {what}", help=help)
