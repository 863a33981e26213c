"""Fills the small disks of the tests (the fixture `small_disk`)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from clusterseg.runs.space import space_in

FILLER = "of-somebody-else"


def fill(folder: Path, left: int) -> Path:
    """A file that leaves `left` bytes of the disk."""
    filler = folder / FILLER
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        while (free := space_in(folder).bytes or 0) > left:
            os.write(descriptor, bytes(min(free - left, 1 << 20)))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(descriptor)
    return filler
