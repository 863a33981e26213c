"""Picture after picture is decoded and counted in the same memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Prints how often the system had to map a page (4 KB) for the pictures after the first two.
PROGRAM = """
import resource, sys
from pathlib import Path
from clusterseg.metrics.files import score_files
from clusterseg.metrics.memory import keep_freed_memory
from clusterseg.metrics.pairing import Pair

if sys.argv[2] == "keep":
    assert keep_freed_memory()
file = Path(sys.argv[1])
faults = []
for pictures in (2, 12):
    pairs = [Pair(str(number), file, file, file) for number in range(pictures)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    score_files(pairs, threads=2)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[1])
"""


def faults(file: Path, how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, str(file), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_picture_needs_no_new_memory(tmp_path: Path) -> None:
    file = tmp_path / "road.png"
    Image.fromarray(np.full((1024, 2048), 7, np.uint8)).save(file)
    maps = 12 * 3 * (1024 * 2048 // 4096)  # pages of three maps of twelve pictures
    # A thread may begin in a heap of its own, and without the setting some memory is kept, too.
    assert faults(file, "keep") < maps / 2 < faults(file, "as it is")
