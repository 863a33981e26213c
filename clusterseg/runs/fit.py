"""Whether a checkpoint fits a job, by what its header says of itself: decided before a tensor is
read, and as far as job.yaml tells without TensorFlow.

A header's `identity` names what its tensors and its place in the data mean, by the keys of
job.yaml. What only the opened data set tells (classes, size, number and names of samples, where the
job does not say) is added by the ranks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterseg.runs.checkpoint_file import CheckpointError
from clusterseg.runs.records import CheckpointHeader

if TYPE_CHECKING:
    from clusterseg.spec.model import TrainSpec

SAMPLES = "data samples"
LIST = "data list"

# The order of an epoch's samples follows from these: inside an epoch its position means nothing
# with another one.
_ORDER = frozenset({"data.format", SAMPLES, LIST, "seed"})
# The tensors are the same with others of these.
_SAME_TENSORS = _ORDER | {"data.size", "loss.ignore", "precision"}
# What a file means that was written before there was the key; None: it does not tell.
_BEFORE: dict[str, str | None] = {
    "ema": "false",
    "freeze_batch_norm": "false",
    "optimizer.momentum": None,
    LIST: None,
}

_WORDS = {
    ("ema", "true"): "a decay",
    ("ema", "false"): "null",
    ("loss.ignore", "None"): "null",
}


@dataclass(frozen=True)
class Difference:
    """A key in which a checkpoint and a job differ. `there` is None if the file has no such key.

    `forceable`: going on all the same makes sense to who asks for it, since the tensors fit.
    `inside`: it matters because the checkpoint is one of the middle of an epoch.
    """

    key: str
    there: str | None
    now: str
    forceable: bool = False
    inside: bool = False

    def __str__(self) -> str:
        where = ", in the middle of an epoch" if self.inside else ""
        if self.key == LIST:  # a digest tells nobody anything
            return f"train.data.root: another list of samples there, or in another order{where}"
        there = "missing" if self.there is None else self._word(self.there)
        return f"{self.key} is {there} there, {self._word(self.now)} now{where}"

    def _word(self, value: str) -> str:
        """The value as job.yaml has it, where a file has it otherwise."""
        return _WORDS.get((self.key, value), value)


Fits = Callable[[CheckpointHeader], Sequence[Difference]]
"""What keeps a job from going on from a checkpoint; nothing: it fits."""


def spec_identity(spec: TrainSpec) -> dict[str, str]:
    """What must be the same for a run to go on, by the keys of job.yaml, as far as it says."""
    said = {
        "model.name": spec.model.name,
        "model.options": json.dumps(spec.model.options, sort_keys=True),
        "optimizer.name": spec.optimizer.name,
        "data.format": spec.data.format,
        "loss.ignore": str(spec.loss.ignore),
        "precision": spec.precision,
        "seed": str(spec.seed),
        "ema": _truth(spec.ema is not None),  # whichever decay: the averages are there or not
        "freeze_batch_norm": _truth(spec.freeze_batch_norm),
    }
    if spec.optimizer.name.startswith("sgd"):  # without momentum it has no slots
        said["optimizer.momentum"] = "0" if spec.optimizer.momentum == 0 else "above 0"
    if spec.model.classes is not None:
        said["model.classes"] = str(spec.model.classes)
    if spec.data.size is not None:
        said["data.size"] = size_text(spec.data.size)
    return said


def size_text(size: tuple[int, int]) -> str:
    """(height, width) as an identity has it."""
    return f"{size[0]}x{size[1]}"


def differences(header: CheckpointHeader, wanted: Mapping[str, str]) -> list[Difference]:
    """Every key of `wanted` in which the checkpoint differs.

    Keys that the file has and `wanted` has not are left out: they are not known here. Of a list of
    samples that is longer or shorter only that is said.
    """
    inside = header.step_in_epoch > 0
    found = []
    for key, now in wanted.items():
        there = header.identity.get(key, _BEFORE.get(key))
        if there == now or (there is None and key in _BEFORE):
            continue
        barred = inside and key in _ORDER
        # The loss scale of float16 is state, and no other precision has it.
        scaled = key == "precision" and "float16" in (there, now)
        forceable = key in _SAME_TENSORS and there is not None and not barred and not scaled
        found.append(Difference(key, there, now, forceable=forceable, inside=barred))
    if any(one.key == SAMPLES for one in found):
        found = [one for one in found if one.key != LIST]
    return found


def fits_of(spec: TrainSpec | None, *, force: bool, data: Mapping[str, str] | None = None) -> Fits:
    """What a job says of a checkpoint; a `command` (None) says nothing.

    `force`: differences that make sense to who asks for it keep nobody. `data` is what the opened
    data set adds, where somebody has seen it.
    """
    if spec is None:
        return fits_all
    wanted = {**spec_identity(spec), **(data or {})}
    return lambda header: [
        one for one in differences(header, wanted) if not (force and one.forceable)
    ]


def fits_all(header: CheckpointHeader) -> Sequence[Difference]:
    """Every checkpoint fits."""
    return ()


def advice(found: Sequence[Difference]) -> str:
    """What a person can do about differences that keep a run from going on."""
    passed = [one.key for one in found if one.forceable]
    if len(passed) == len(found):
        return "resume with the settings of the run, or with --force if it is meant so"
    barred = [one.key for one in found if one.inside and one.key in _ORDER]
    help = "resume with the settings of the run, or submit a new one"
    if passed:
        help += f"; --force would pass {', '.join(passed)}, and nothing else of it"
    if barred:
        help += f"; --force passes {', '.join(barred)} at an epoch's end only"
    return help


def mismatch(name: str, found: Sequence[Difference]) -> CheckpointError:
    """The error that names every key in which the checkpoint `name` differs."""
    return CheckpointError(
        f"{name} does not fit this job: " + "; ".join(map(str, found)),
        code="checkpoint-mismatch",
        help=advice(found),
    )


def _truth(value: bool) -> str:
    return "true" if value else "false"
