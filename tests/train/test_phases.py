"""What a rank says of its own cost."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from clusterseg.train.phases import Laps, peak_bytes


def test_every_moment_belongs_to_one_part() -> None:
    times = iter([10.0, 12.0, 15.0, 15.5])
    laps = Laps(lambda: next(times))
    laps.add("python", 0.5)
    for part in ("data", "model", "data"):
        laps(part)
    assert laps.parts == {"python": 0.5, "data": 2.5, "model": 3.0}


IN_A_PROCESS = """
import mmap
from clusterseg.train.phases import peak_bytes

before = peak_bytes()
size = 64 << 20
with mmap.mmap(-1, size) as pages:
    assert peak_bytes() < before + size // 2, "nothing of it was touched yet"
    pages.write(b"x" * size)
assert peak_bytes() >= before + size // 2
"""


def test_the_peak_is_that_of_memory_in_use_also_after_it_was_given_back() -> None:
    """In a process of its own: that of the tests may have needed more before."""
    subprocess.run([sys.executable, "-c", IN_A_PROCESS], check=True, timeout=60)


@pytest.mark.parametrize("text", [None, "Name:\tpython\n", "VmHWM:\tmany kB\n"])
def test_without_the_kernels_number_there_is_another(text: str | None, tmp_path: Path) -> None:
    status = tmp_path / "status"
    if text is not None:
        status.write_text(text)
    assert peak_bytes(status) == 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_it_is_read_in_kilobytes(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 7 kB\n")
    assert peak_bytes(tmp_path / "status") == 2 << 20
