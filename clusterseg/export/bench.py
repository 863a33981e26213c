"""How long a file takes for a picture on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterseg.export.runtimes import Run

_WARM = 3


@dataclass(frozen=True)
class Latency:
    """Of `runs` calls with `batch` pictures each: milliseconds a call (median and ninth decile),
    and pictures a second at the median."""

    runs: int
    batch: int
    threads: int
    p50_ms: float
    p90_ms: float
    fps: float


def measure(
    run: Run, pictures: NDArray[Any], *, threads: int, runs: int = 50, seconds: float = 10.0
) -> Latency:
    """Calls `run` one after the other: `runs` times, or until `seconds` have passed (10 at least).

    The first three calls, which allocate, don't count. `threads` is what the file was opened
    with.
    """
    for _ in range(_WARM):
        run(pictures)
    taken: list[float] = []
    start = time.perf_counter()
    while len(taken) < runs and (len(taken) < 10 or time.perf_counter() - start < seconds):
        before = time.perf_counter()
        run(pictures)
        taken.append(time.perf_counter() - before)
    p50, p90 = (float(value) for value in np.percentile(taken, [50, 90]))
    return Latency(
        runs=len(taken),
        batch=len(pictures),
        threads=threads,
        p50_ms=1000 * p50,
        p90_ms=1000 * p90,
        fps=len(pictures) / p50,
    )
