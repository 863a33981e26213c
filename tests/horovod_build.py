"""Whether Horovod can be used here, read as clusterseg itself reads it: without importing it."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path


def why_no_horovod() -> str | None:
    """Why tests of Horovod can't run, or None where they can."""
    if (Path(sysconfig.get_path("purelib")) / "horovod_build.json").is_file():
        return None
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        return "Horovod is not built: there is no C++ compiler on the PATH"
    return "Horovod is not built: run `make horovod`"
