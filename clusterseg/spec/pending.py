"""What a job.yaml may say already and clusterseg can't do yet.

The reader takes every key of the design; the planner refuses those that `not_yet` names. Building
one of them means deleting its line here, or setting `ready` in `clusterseg.spec.tables`. Some keys
only mean something to Slurm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from clusterseg.spec.errors import Problem
from clusterseg.spec.model import JobSpec
from clusterseg.spec.tables import AUGMENTATIONS, TABLES, Table
from clusterseg.spec.units import format_size

# key -> (whether its value can be done today, what is missing)
LATER: dict[str, tuple[Callable[[Any], bool], str]] = {}
# The same, of what is there under Slurm alone.
_WITHOUT_SLURM: dict[str, tuple[Callable[[Any], bool], str]] = {
    "resources.memory": (lambda size: size is None, "a memory limit without Slurm"),
    "environment.container": (lambda image: image is None, "containers without Slurm"),
}
# The same, of what a `command` may ask for, and a job that trains may not yet.
_TRAINING: dict[str, tuple[Callable[[Any], bool], str]] = {
    "resources.accelerators_per_rank": (
        lambda count: count in (None, 0, 1),
        "a rank trains on one: ask for more ranks",
    ),
}

# key of a name -> its table in clusterseg.spec.tables
_NAMES = {
    "train.model.name": "models",
    "train.data.format": "data_formats",
    "train.loss.name": "losses",
    "train.optimizer.name": "optimizers",
    "train.schedule.name": "schedules",
    "launcher": "launchers",
}


def not_yet(spec: JobSpec, scheduler: str = "local") -> list[Problem]:
    """One problem (code `not-yet`, with its key) for all that `spec` asks for too early.

    `scheduler` is the one that the job will run under.
    """
    return [
        Problem("not-yet", f"`{key}: {_written(key, value)}` is not there yet: {what}", key=key)
        for key, value, what in _early(spec, scheduler)
    ]


def _early(spec: JobSpec, scheduler: str) -> Iterator[tuple[str, Any, str]]:
    for key, table in _NAMES.items():
        name = _value(spec, key)
        # A launcher that is in no table is one of the user's own files.
        if name is not None and name in TABLES[table] and not TABLES[table][name].ready:
            yield key, name, f"ready are {_ready(TABLES[table])}"
    ready = f"ready are {_ready(AUGMENTATIONS)}"
    for number, entry in enumerate(spec.train.augment if spec.train else ()):
        for name, setting in entry.items():
            if not AUGMENTATIONS[name].ready:
                yield f"train.augment.{number}.{name}", setting, ready
    later = LATER if spec.train is None else LATER | _TRAINING
    if scheduler != "slurm":
        later = later | _WITHOUT_SLURM
    for key, (can, what) in later.items():
        value = _value(spec, key)
        if not (key.startswith("train.") and spec.train is None) and not can(value):
            yield key, value, what


def _value(spec: JobSpec, key: str) -> Any:
    """The value at a dotted key; None below a section that is not given."""
    value: Any = spec
    for name in key.split("."):
        value = getattr(value, name) if value is not None else None
    return value


def _ready(table: Table) -> str:
    return ", ".join(name for name, known in table.items() if known.ready)


def _written(key: str, value: Any) -> str:
    """The value much as it stands in the file."""
    if isinstance(value, str):
        return value
    if key == "resources.memory":
        return format_size(value)
    return msgspec.json.encode(value).decode()
