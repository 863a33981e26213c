"""A program that runs inside of another: what it inherits. How it ends: tests of rank_exec."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, sys
from clusterseg.cluster.children import run_inside

reading, writing = os.pipe()
os.set_inheritable(writing, True)
ended = run_inside(["sh", "-c", f"echo arrived >&{writing}"], os.environ)
os.close(writing)
print(ended.code, os.read(reading, 100))
"""


def test_an_inherited_descriptor_stays_open() -> None:
    """By one of them Hydra speaks with its ranks (PMI_FD)."""
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    assert said.stdout == b"0 b'arrived\\n'\n", said.stderr
