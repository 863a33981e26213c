"""CRC-32C (Castagnoli), the checksum of TFRecord files, in numpy.

A checksum runs byte by byte. Here the data are cut into lanes of equal length, whose sums run side
by side, eight bytes at a time (slicing-by-8: Kounavis and Berry, ISCC 2005), and are then joined
two by two: the sum of AB is that of A, carried over |B| zero bytes, xor that of B.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reflected
_STEP = 8  # bytes
_MOST_LANES, _FEWEST_LANES = 4096, 16
_MASK = 0xA282EAD8

Words = NDArray[np.uint32]


def crc32c(data: bytes | memoryview) -> int:
    """The checksum, 32 bits; of b"123456789" it is 0xe3069283 (RFC 3720, B.4 has others)."""
    state = 0xFFFFFFFF
    rest = np.frombuffer(data, np.uint8)
    lanes = _MOST_LANES
    while lanes >= _FEWEST_LANES:
        steps = len(rest) // (lanes * _STEP)
        if steps:
            used = steps * lanes * _STEP
            state = _side_by_side(rest[:used], lanes, steps, state)
            rest = rest[used:]
        lanes //= 16
    table = _serial_table()
    for byte in rest.tolist():
        state = table[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """As it stands in the file: rotated and moved, since sums of data with sums in them are weak
    (TensorFlow, core/lib/hash/crc32c.h).
    """
    return ((checksum >> 15 | checksum << 17) + _MASK) & 0xFFFFFFFF


def _side_by_side(data: NDArray[np.uint8], lanes: int, steps: int, state: int) -> int:
    # [steps, 2 words, lanes], so that each step reads what lies together
    words = data.view("<u4").astype(np.uint32, copy=False).reshape(lanes, steps, 2)
    words = np.ascontiguousarray(words.transpose(1, 2, 0))
    tables = _tables()
    sums = np.zeros(lanes, np.uint32)
    sums[0] = state
    for first, second in words:
        sums = _looked_up(tables[7:3:-1], first ^ sums) ^ _looked_up(tables[3::-1], second)
    carry = _carry(steps * _STEP)
    while len(sums) > 1:
        sums = _looked_up(carry, sums[0::2]) ^ sums[1::2]
        carry = _after(carry, carry)
    return int(sums[0])


def _looked_up(tables: Words, words: Words) -> Words:
    """A linear map of 32 bits, as a table for each byte."""
    low, high = words & 0xFF, words >> 24
    found: Words = tables[0][low] ^ tables[3][high]
    found ^= tables[1][words >> 8 & 0xFF]
    found ^= tables[2][words >> 16 & 0xFF]
    return found


@lru_cache(maxsize=1)
def _tables() -> Words:
    """[8, 256]: what a byte becomes when 0 to 7 bytes follow it."""
    first = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        first = np.where(first & 1, first >> 1 ^ np.uint32(_POLYNOMIAL), first >> 1)
    tables = [first]
    for _ in range(_STEP - 1):
        tables.append(first[tables[-1] & 0xFF] ^ tables[-1] >> 8)
    return np.stack(tables)


@lru_cache(maxsize=1)
def _serial_table() -> list[int]:
    table: list[int] = _tables()[0].tolist()
    return table


@lru_cache(maxsize=64)
def _carry(count: int) -> Words:
    """The map that carries a sum over `count` zero bytes, as tables [4, 256]."""
    if count == 1:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return _map_of(_tables()[0][bits & 0xFF] ^ bits >> 8)
    half = _carry(count // 2)
    whole = _after(half, half)
    return _after(whole, _carry(1)) if count % 2 else whole


def _after(second: Words, first: Words) -> Words:
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    return _map_of(_looked_up(second, _looked_up(first, bits)))


def _map_of(images: Words) -> Words:
    """Tables [4, 256] of the linear map that takes bit i to `images[i]`."""
    tables = np.zeros((4, 256), np.uint32)
    values = np.arange(256)
    for place in range(4):
        for bit in range(8):
            tables[place] ^= np.where(values >> bit & 1, images[8 * place + bit], np.uint32(0))
    return tables
