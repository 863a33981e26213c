"""The state of a run, with everybody asked who can know whether it lives."""

from __future__ import annotations

from clusterseg.cluster.local import LocalLives
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.snapshot import Snapshot, take


def look(run: RunPaths) -> Snapshot:
    """The state of a run, as it can be told from this host.

    Raises ClustersegError if the run directory can't be read.
    """
    try:
        return take(run, LocalLives())
    except OSError as error:
        raise ClustersegError(
            f"{error.filename or run.root} can't be read: {error.strerror or error}",
            code="run-dir",
            exit_code=ExitCode.FAILED,
        ) from None
