"""The jobs of a fan-out, whoever runs them: what the fan-out needs of an executor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from clusterseg.cluster.fanout_folder import Folder, Share
from clusterseg.runs.text import last_lines

if TYPE_CHECKING:
    from submitit import Job as SubmititJob

_LINES = 20


@dataclass(frozen=True, eq=False)
class Job:
    """One process or Slurm job that makes the tries of its share, one after the other."""

    id: str
    share: Share
    handle: SubmititJob[Any]

    def last_lines(self) -> tuple[str, ...]:
        """The end of what it printed."""
        paths = self.handle.paths
        return tuple(last_lines(paths.stderr, _LINES) or last_lines(paths.stdout, _LINES))


class Executor(Protocol):
    """Starts jobs and knows which of them have ended.

    `slots`: jobs at once. `note`: what a person who waits should know now, or nothing.
    """

    slots: int
    note: str

    def start(self, folder: Folder, shares: Sequence[Share]) -> list[Job]:
        """A job for each share. Raises ClustersegError with none left running."""
        ...

    def ended(self, jobs: Sequence[Job]) -> dict[str, str]:
        """The ids of those that surely have ended, whose results could be read if there were
        any, each with what is known of how."""
        ...

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Ends them, and whatever else was started but is not known by a job."""
        ...


def load_submitit() -> ModuleType:
    """submitit, imported without its set-up of logging (submitit 1.5, core/logger.py).

    That shuts down every handler of the process; absl's, there once TensorFlow is loaded, then
    closes the stream that was stderr when it was made.
    """
    with environment({**os.environ, "SUBMITIT_LOG_LEVEL": "NOCONFIG"}):
        import submitit.core.utils  # noqa: PLC0415 (a fifth of a second)
    return submitit


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """This process's variables are `wanted` alone: submitit gives its own to what it starts."""
    before = dict(os.environ)
    _set(wanted)
    try:
        yield
    finally:
        _set(before)


def _set(wanted: Mapping[str, str]) -> None:
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)
