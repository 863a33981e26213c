"""Memory of one picture for the next one."""

from __future__ import annotations

import ctypes

# Parameters and their limits: mallopt(3), malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_BLOCK = 32 << 20  # bytes; glibc takes no more
_KEPT = 256 << 20  # bytes that may lie idle at the end of a heap


def keep_freed_memory() -> bool:
    """Lets this process keep blocks of up to 32 MB that it frees; whether it does now.

    As it is, the C library gives much of what a picture took back to the system, which clears and
    maps as much for the next, 4 KB at a time: a quarter of the time of scoring, and threads wait
    for each other meanwhile. Some 10 MB a thread lie idle instead. Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, _KEPT))
