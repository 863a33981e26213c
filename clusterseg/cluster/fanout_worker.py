"""What a job of a fan-out does: calls the function for its tasks, one after the other.

Each result is written as soon as it is there: a job that is killed loses only the task that it
was at.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from clusterseg.cluster.fanout_folder import Fault, Folder, Outcome, Share, Task
from clusterseg.cluster.processes import ProcessId, is_alive
from clusterseg.errors import ClustersegError
from clusterseg.runs.text import one_line

_LOOK = 2.0  # s
_TRACE = 20  # lines
_LONGEST = 400  # characters of one
_MESSAGE = 2000  # characters


def run_tasks(folder: str, share: Share, starter: ProcessId | None = None) -> None:
    """Makes the tries of `share`; those that have a result are not made again (the job was
    requeued), and none after a fault of all. With `starter` this process ends when that one does.
    """
    # submitit's handler would requeue the job; Slurm does that where it is wanted.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if starter is not None:
        threading.Thread(target=_end_with, args=(starter,), daemon=True).start()
    desk = Folder(Path(folder))
    work = desk.work()
    for number, turn in share:
        outcome = desk.outcome(number, turn)
        if outcome is None:
            desk.begin(number, turn)
            outcome = _called(work.function, work.tasks[number])
            desk.put(number, turn, outcome)
        if outcome.fault is not None:
            return


def _called(function: str, task: Task) -> Outcome:
    try:
        value = _imported(function)(**task.arguments)
        return Outcome(value=msgspec.Raw(msgspec.json.encode(value)))
    except (Exception, SystemExit) as error:
        return _failed(error)


def _failed(error: BaseException) -> Outcome:
    traceback.print_exception(error)
    sys.stderr.flush()
    if isinstance(error, ClustersegError):  # for a person: where it was raised says nothing
        message = one_line(error.message, _MESSAGE)
        help = one_line(error.help, _MESSAGE) if error.help else None
        fault = Fault(code=error.code, message=message, help=help, exit_code=error.exit_code)
        return Outcome(
            error=message,
            trace=(f"help: {help}",) if help else (),
            is_lasting=error.is_lasting,
            fault=fault if error.is_lasting and error.is_of_all else None,
        )
    lines = [line for part in traceback.format_exception(error) for line in part.splitlines()]
    return Outcome(
        error=one_line(f"{type(error).__name__}: {error}", _MESSAGE),
        trace=tuple(one_line(line, _LONGEST) for line in lines[-_TRACE:]),
    )


def _imported(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _end_with(starter: ProcessId) -> None:
    """Ends this process when the one that wants its result is gone (a kill asks nobody)."""
    while is_alive(starter) is not False:
        time.sleep(_LOOK)
    os._exit(1)
