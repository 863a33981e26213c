"""How pictures and films are shared out into tasks of about equal work. Pure; no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from clusterseg.train.inference.inputs import Input

_TOGETHER = 8  # pictures a task: enough to be worth its overhead, few enough to see progress
# Of a film. Each part decodes it from its beginning: with many more, decoding a film would take
# the cluster longer than predicting it.
_MOST = 32
_FRAME = re.compile(r"(.*)/frame-(\d{6,})")


def shared_out(found: Sequence[Input], *, slots: int, every: int) -> list[tuple[Input, ...]]:
    """Files to be predicted together: first pictures, some a task, then films, or ranges of their
    frames, each alone.

    `slots` tasks run at once; of a film every `every`-th frame is predicted. Ranges hold as many
    of those as their film lets them, and the last one has no end: whatever the header of a film
    says of its length, each of its frames is in one range.
    """
    still = [one for one in found if not one.moves]
    films = [one for one in found if one.moves]
    wanted = [-(-(one.frames or 0) // every) for one in films]
    each = max(_TOGETHER, -(-sum(wanted) // slots))
    tasks = [tuple(still[first : first + _TOGETHER]) for first in range(0, len(still), _TOGETHER)]
    for film, count in zip(films, wanted, strict=True):
        pieces = max(1, min(-(-count // each), _MOST))
        cuts = [count * number // pieces * every for number in range(pieces)]
        for first, stop in pairwise([*cuts, None]):
            tasks.append((msgspec.structs.replace(film, first=first, stop=stop),))
    return tasks


def name_of(part: Sequence[Input]) -> str:
    """What a task is called where something is said of it."""
    first = part[0]
    if part[1:]:
        return f"{first.name} to {part[-1].name}"
    if first.first == 0 and first.stop is None:
        return first.name
    until = "on" if first.stop is None else f"to {first.stop - 1}"
    return f"{first.name}, frames {first.first} {until}"


def frame_name(name: str, number: int) -> str:
    """What frame `number` (from 0) of the film `name` is called."""
    return f"{name}/frame-{number:06d}"


def joined(values: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
    """(records, failures) of all tasks as if one had done it all: records by name, frames by
    number; a film that can't be read is told once, not by each of its parts."""
    pictures = sorted((one for value in values for one in value["pictures"]), key=_place)
    failures: dict[str, Any] = {}
    for one in (one for value in values for one in value["failures"]):
        failures.setdefault(one["file"], one)
    return pictures, list(failures.values())


def _place(record: Mapping[str, Any]) -> tuple[str, int]:
    name: str = record["name"]
    frame = _FRAME.fullmatch(name)
    return (frame[1], int(frame[2])) if frame else (name, -1)
