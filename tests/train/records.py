"""Reads event files without TensorFlow's reader: TFRecord framing, every checksum looked at."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected: RFC 3720, appendix B.4


def _row(value: int) -> int:
    for _ in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = [_row(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """As TFRecord files have it (tensorflow/core/lib/hash/crc32c.h)."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path) -> list[bytes]:
    """Raises ValueError for anything but whole, sound records."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        head = content[at : at + 8]
        (length,) = struct.unpack("<Q", head)
        data = content[at + 12 : at + 12 + length]
        sums = (content[at + 8 : at + 12], content[at + 12 + length : at + 16 + length])
        if sums != tuple(struct.pack("<I", masked(one)) for one in (head, data)):
            raise ValueError(f"{path}: the record at byte {at} is torn or damaged")
        found.append(data)
        at += 16 + length
    return found


def read_board(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """tag -> (step, value) in the order that a reader meets them: by name, then by place.

    A picture's value is its PNG.
    """
    from tensorflow.compat.v1 import Event

    curves: dict[str, list[tuple[int, Any]]] = {}
    for path in sorted(folder.iterdir()):
        if "tfevents" not in path.name:  # what TensorBoard goes by
            continue
        first, *events = [Event.FromString(record) for record in read_records(path)]
        assert first.file_version == "brain.Event:2"
        for event in events:
            for value in event.summary.value:
                is_image = value.HasField("image")
                found = value.image.encoded_image_string if is_image else value.simple_value
                curves.setdefault(value.tag, []).append((event.step, found))
    return curves
