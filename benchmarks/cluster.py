"""A devcluster of a benchmark's own, and programs as they are after an installation."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
DEVCLUSTER = str(TOP / "slurm" / "devcluster" / "devcluster")
CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))


@contextmanager
def devcluster(what: str, *options: str) -> Iterator[dict[str, str]]:
    """The environment of a cluster that is up for as long as the context is."""
    name = f"b{os.getpid()}-{what}"
    try:
        subprocess.run(
            [DEVCLUSTER, "up", "--name", name, *options], check=True, stdout=subprocess.DEVNULL
        )
        said = subprocess.run(
            [DEVCLUSTER, "env", "--name", name], check=True, capture_output=True, text=True
        ).stdout
        # It is bash, to be evaluated; the only sure way to read that is bash.
        script = f"{said}\nexec env -0"
        made = subprocess.run(["bash", "-c", script], check=True, capture_output=True).stdout
        pairs = (word.partition("=") for word in made.decode().split("\0") if word)
        yield {key: value for key, _, value in pairs}
    finally:
        subprocess.run([DEVCLUSTER, "down", "--name", name], check=False, capture_output=True)


@contextmanager
def compiled(environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """`environ` with a folder for compiled modules.

    An installed program is compiled once. A checkout that may not be written to, or a shell with
    PYTHONDONTWRITEBYTECODE, would have every module compiled anew in every process.
    """
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-pyc-") as folder:
        kept = {key: value for key, value in environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        yield {**kept, "PYTHONPYCACHEPREFIX": folder}
