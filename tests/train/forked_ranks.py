"""Real ranks, each a process of its own that is killed at a stage of a save.

`python -m tests.train.forked_ranks` loads TensorFlow once and forks a rank for each line of its
input. That is safe because nothing was computed yet: TensorFlow has no thread before (looked at).
The stages are calls of the operating system and of the trainer, looked at from outside: the rank
kills itself with SIGKILL when it comes to one. With `power_loss` it first takes away what a host
that loses its power takes: what was written and not fsynced, names in a folder that was not.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

WRITER = "checkpoint writer"  # the thread
FIRST = 2  # of an attempt's saves that it may be killed in: one is to come through


@dataclass(frozen=True)
class Order:
    """Run attempt `attempt` of the run directory `root`, and where it is killed, if it is.

    `twin` is a broken promise: "no fsync" of the file, "event first" before it has its name.
    """

    root: str
    attempt: int
    stage: str = ""
    power_loss: bool = False
    twin: str = ""


class ForkedRanks:
    """The process that forks them; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.forked_ranks"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip

    def __enter__(self) -> ForkedRanks:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def run(self, order: Order) -> int:
        """Its exit code; minus the signal if it was killed by one."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(asdict(order)), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


def main() -> None:
    import tensorflow  # noqa: F401

    from clusterseg.train.rank import run

    threads = os.listdir("/proc/self/task")  # noqa: PTH208
    assert len(threads) == 1, "a fork would take one of them"
    for line in sys.stdin:
        order = Order(**json.loads(line))
        child = os.fork()
        if child == 0:
            os.environ |= {
                "CLUSTERSEG_RUN_DIR": order.root,
                "CLUSTERSEG_ATTEMPT": str(order.attempt),
                "CLUSTERSEG_STOP_FILE": str(Path(order.root) / "control" / "none"),
            }
            if order.stage:
                _Death(order).lie_in_wait()
            os._exit(run(Path(order.root)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


class _Death:
    """Watches the saves of this process, from the FIRST on, and ends it at a stage."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._folder = Path(order.root) / "checkpoints"
        self._saves = 0
        self._writes = 0
        self._unsynced: set[str] = set()
        self._unsynced_names: dict[str, str] = {}  # target -> the temporary file it is

    def lie_in_wait(self) -> None:
        from clusterseg.runs import direct
        from clusterseg.runs.eventlog import EventWriter
        from clusterseg.runs.records import Checkpoint
        from clusterseg.train.saving import Saver
        from clusterseg.train.snapshot import Snapshot
        from clusterseg.train.store import CheckpointStore
        from clusterseg.train.watchdog import WatchedEvents

        self._around(Snapshot, "take", "the copy", begins=True)
        self._around(CheckpointStore, "_prune", "the prune")
        self._around(
            WatchedEvents, "write", "the event", when=lambda _, event: isinstance(event, Checkpoint)
        )
        self._around(
            Saver, "_take", "the reply is taken", when=lambda _, outcome: outcome is not None
        )
        # So that the header (40 kB) and the tensors are written in several; half of one, a page, is
        # what the disk takes past the cache.
        direct.PIECE = 2 * mmap.PAGESIZE
        os.write = self._write(os.write)
        os.fsync = self._fsync(os.fsync)
        os.link = self._link(os.link)
        os.unlink = self._unlink(os.unlink)
        os.pwrite = self._pwrite(os.pwrite)
        if self._order.twin == "event first":
            start = Saver._start

            def start_and_tell(saver: Any, save: Any, reserve: int) -> None:
                header, name = save.header, save.name
                event = Checkpoint(t=0, rank=0, epoch=header.epoch, step=header.step, file=name)
                EventWriter.write(saver._events, event)
                start(saver, save, reserve)

            Saver._start = start_and_tell  # type: ignore[method-assign]

    def at(self, stage: str) -> None:
        if self._saves < FIRST or stage != self._order.stage:
            return
        thread = threading.current_thread().name
        Path(self._order.root, "killed-in").write_text(f"{thread}:{self._saves}")
        if self._order.power_loss:
            self._lose_power()
        os.kill(os.getpid(), signal.SIGKILL)

    def _lose_power(self) -> None:
        for name in self._unsynced:
            if Path(name).exists():
                os.truncate(name, 0)
        for target, temporary in self._unsynced_names.items():
            if Path(temporary).exists():  # two names of one file: a rename would do nothing
                Path(target).unlink()
            else:
                Path(target).rename(temporary)

    def _around(
        self,
        owner: type,
        name: str,
        what: str,
        *,
        begins: bool = False,
        when: Callable[..., bool] = lambda *arguments: True,
    ) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any) -> Any:
            if not when(*arguments):
                return original(*arguments)
            self._saves += begins
            self._writes = 0 if begins else self._writes
            self.at(f"before {what}")
            result = original(*arguments)
            self.at(f"after {what}")
            return result

        setattr(owner, name, watched)

    def _is_ours(self, path: str) -> bool:
        """A file or folder that the writer's thread saves with."""
        ours = Path(path) == self._folder or Path(path).parent == self._folder
        return ours and threading.current_thread().name == WRITER

    def _write(self, call: Callable[[int, Any], int]) -> Callable[[int, Any], int]:
        def write(descriptor: int, data: Any) -> int:
            if not self._is_ours(path := _path(descriptor)):
                return call(descriptor, data)
            self._unsynced.add(path)
            self._writes += 1
            if self._writes == 1:
                self.at("before the first byte")
            elif self._writes == 2:
                self.at("inside the header")
            elif self._writes == 8:
                call(descriptor, data[: len(data) // 2])
                self.at("inside a tensor")
                return call(descriptor, data[len(data) // 2 :]) + len(data) // 2
            return call(descriptor, data)

        return write

    def _pwrite(self, call: Callable[..., int]) -> Callable[..., int]:
        def pwrite(descriptor: int, *arguments: Any) -> int:
            self.at("before the hash")
            return call(descriptor, *arguments)

        return pwrite

    def _fsync(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            path = _path(descriptor)
            if not self._is_ours(path):
                return call(descriptor)
            is_folder = Path(path) == self._folder
            what = "the folder's fsync" if is_folder else "the fsync"
            self.at(f"before {what}")
            if is_folder:
                self._unsynced_names.clear()
            elif self._order.twin != "no fsync":
                self._unsynced.discard(path)
            call(descriptor)
            return self.at(f"after {what}")

        return fsync

    def _link(self, call: Callable[..., None]) -> Callable[..., None]:
        def link(source: Any, target: Any, **how: Any) -> None:
            if not self._is_ours(str(target)):
                return call(source, target, **how)
            self.at("before it has its name")
            call(source, target, **how)
            self._unsynced_names[str(target)] = str(source)
            if str(source) in self._unsynced:
                self._unsynced.add(str(target))
            return self.at("after it has its name")

        return link

    def _unlink(self, call: Callable[..., None]) -> Callable[..., None]:
        def unlink(path: Any, **how: Any) -> None:
            if not self._is_ours(str(path)) or str(path).endswith(".tmp"):
                return call(path, **how)
            self.at("before an old one goes")
            call(path, **how)
            return self.at("after an old one went")

        return unlink


def _path(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


if __name__ == "__main__":
    main()
