"""`tf.train.Example` messages as bytes (protocol buffers' wire format, TensorFlow's example.proto).

Example {1: Features {1: entry {1: key, 2: Feature}}}
Feature {1: bytes {1: value}} or {3: int64 {1: value}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Value = bytes | int
Place = tuple[int, int]  # first byte, and the one after the last

_VARINT, _EIGHT, _BLOCK, _FOUR = 0, 1, 2, 5  # wire types


def encode(features: Mapping[str, Value]) -> bytes:
    """An Example with one value a feature; keys are sorted: equal features are equal bytes."""
    entries = b""
    for key in sorted(features):
        value = features[key]
        if isinstance(value, bytes):
            feature = _block(1, _block(1, value))
        else:
            feature = _block(3, _block(1, _varint(value)))  # packed
        entries += _block(1, _block(1, key.encode()) + _block(2, feature))
    return _block(1, entries)


def places(data: memoryview) -> dict[str, Place]:
    """Where in `data` the first value of each feature of bytes stands; others are left out.

    Touches little more than the keys, so `data` may be mapped from a file. Raises ValueError if
    it is no Example.
    """
    found: dict[str, Place] = {}
    for features in _blocks(data, (0, len(data)), 1):
        for entry in _blocks(data, features, 1):
            keys = list(_blocks(data, entry, 1))
            for feature in _blocks(data, entry, 2):
                for listed in _blocks(data, feature, 1):
                    value = next(_blocks(data, listed, 1), None)
                    if keys and value is not None:
                        first, last = keys[-1]
                        found[str(data[first:last], "utf-8")] = value
    return found


def _blocks(data: memoryview, where: Place, wanted: int) -> Iterator[Place]:
    """The fields number `wanted` of a message that are blocks of bytes."""
    at, end = where
    while at < end:
        tag, at = _read_varint(data, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _read_varint(data, at, end)
        elif kind == _BLOCK:
            length, at = _read_varint(data, at, end)
            if length > end - at:
                raise ValueError("a field is longer than its message")
            if tag >> 3 == wanted:
                yield at, at + length
            at += length
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"wire type {kind}")


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number does not end")


def _varint(value: int) -> bytes:
    if value < 0:
        raise ValueError("only numbers from 0 on are written")
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _block(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BLOCK) + _varint(len(content)) + content
