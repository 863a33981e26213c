"""Requests to stop an attempt: the file `control/stop-NNN`, empty until somebody asks.

It is made empty together with the claim and written in its place, so that no cache of any
host holds "there is no such file" or an older inode. Whoever looks at it opens it afresh, at
most once a second. Any content means: stop; the content says why and until when.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from clusterseg.runs import files
from clusterseg.runs.records import StopRequest

_LARGEST = 4096


class StopReason(StrEnum):
    """Why an attempt is to stop. CANCEL_NOW asks for no save: the ranks are ended at once."""

    CANCEL = "cancel"
    CANCEL_NOW = "cancel_now"
    PREEMPTED = "preempted"
    TIME_LIMIT = "time_limit"
    SUPERSEDED = "superseded"  # the next attempt waits for this one to end


def request_stop(path: Path, reason: str, deadline: float | None = None) -> None:
    """Asks the attempt of this stop file to stop by `deadline` (unix seconds; None: no hurry).

    A later request replaces an earlier one (`cancel --now` after `cancel`). Raises
    FileNotFoundError if the attempt was never claimed, or another OSError.
    """
    request = StopRequest(reason=str(reason), deadline=deadline)
    files.overwrite(path, msgspec.json.encode(request) + b"\n")


def read_stop(path: Path) -> StopRequest | None:
    """The request in a stop file, None if there is none (or no file). Raises OSError.

    Content that is no request (a person's `echo stop >`, a torn write) still asks for a stop;
    its reason is then "cancel".
    """
    try:
        data = files.read_capped(path, _LARGEST)
    except FileNotFoundError:
        return None
    if not data:
        return None
    try:
        return msgspec.json.decode(data, type=StopRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return StopRequest(reason=StopReason.CANCEL)
