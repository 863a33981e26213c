"""For which MPI the Horovod of this Python was built, without importing it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from clusterseg.plan.model import LauncherPair
from clusterseg.runs.files import same_file

_RECORD = "horovod_build.json"  # written by tools/build_horovod.py


@dataclass(frozen=True)
class HorovodBuild:
    """What Horovod was built for, and whether that TensorFlow is the installed one."""

    mpi_version: str
    libmpi: str
    tensorflow: str
    for_this_tensorflow: bool


def horovod_fits(pair: LauncherPair) -> bool:
    """Whether Horovod is installed for this Python and was built, and proved, for `pair`.

    Read from the record of its build, without importing it. A Horovod that came another way has
    no record: which MPI it is bound to can't be told before it runs, so it doesn't count.
    """
    built = horovod_build() if pair.libmpi is not None else None
    if built is None or built.mpi_version != pair.version:
        return False
    return built.for_this_tensorflow and same_file(pair.libmpi, built.libmpi)


def horovod_build() -> HorovodBuild | None:
    """For which MPI the Horovod of this Python was built, by the record of that."""
    for folder in map(Path, sys.path):
        if not (folder / "horovod" / "tensorflow").is_dir():
            continue
        try:
            record = json.loads((folder / _RECORD).read_text())
            return HorovodBuild(
                mpi_version=str(record["mpi_version"]),
                libmpi=str(record["libmpi"]),
                tensorflow=str(record["tensorflow"]),
                for_this_tensorflow=(
                    folder / f"tensorflow-{record['tensorflow']}.dist-info"
                ).is_dir(),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return None
