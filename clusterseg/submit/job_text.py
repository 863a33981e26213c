"""The text of a job.yaml that can be read only once: of a here-document, or a pipe."""

from __future__ import annotations

from pathlib import Path

from clusterseg.errors import ClustersegError

LARGEST = 2**20  # bytes, as `clusterseg.spec.reader` has it


def read_text(path: Path) -> str:
    """Raises ClustersegError if it can't be read, or is no text."""
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        return data.decode()
    except (OSError, ValueError) as error:
        raise ClustersegError(f"{path} can't be read: {error}", code="job-file") from None
