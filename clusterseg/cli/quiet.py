"""Libraries that print to stderr, held back."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from clusterseg.errors import ClustersegError


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what converters and runtimes print, from C++ too, for the traceback of an error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    before, terminal = sys.stderr, os.dup(2)
    with (
        tempfile.TemporaryFile() as said,
        os.fdopen(terminal, "w", errors="backslashreplace") as own,
    ):
        os.dup2(said.fileno(), 2)
        sys.stderr = own
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            if not isinstance(error, ClustersegError):
                said.seek(0)
                own.write(said.read().decode(errors="backslashreplace")[-10_000:])
            raise
        finally:
            own.flush()
            os.dup2(terminal, 2)
            sys.stderr = before
