"""Which checkpoints of a run are evaluated, and evaluation.json. Light: no TensorFlow."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs import files
from clusterseg.runs.attempts import last_attempt, read_attempt
from clusterseg.runs.checkpoint_file import CheckpointError, read_layout
from clusterseg.runs.checkpoints import CheckpointInfo, counts, list_checkpoints
from clusterseg.runs.lock import Taken, held
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim
from clusterseg.train.inference.how import How

_LARGEST = 64 << 20  # bytes of evaluation.json
_PATIENCE = 30.0  # s


class Evaluation(Struct, frozen=True, kw_only=True):
    """The scores of one checkpoint over a part of the data; null where nothing is labelled.

    `epoch` and `step` are those completed when it was saved, `t` is when it was evaluated. `how`:
    None as training validates; else there is no loss. `classes`: `iou`, `f1`, `accuracy` by the
    name of the class. `cityscapes`: the benchmark's own scores, of a run on that data set.
    """

    file: str
    epoch: int
    step: int
    val_loss: float | None
    val_accuracy: float | None
    val_mean_iou: float | None
    sha256: str
    t: float
    val_mean_accuracy: float | None = None
    val_mean_f1: float | None = None
    val_frequency_weighted_iou: float | None = None
    part: str = "validation"
    how: How | None = None
    classes: dict[str, dict[str, float | None]] = {}
    cityscapes: dict[str, Any] | None = None


class Evaluations(Struct, frozen=True, kw_only=True):
    """evaluation.json: `checkpoints` from the best on."""

    run: str
    checkpoints: tuple[Evaluation, ...] = ()
    split: str = "validation"


class Chosen(Struct, frozen=True, kw_only=True):
    """A checkpoint to evaluate, with the submission under whose job.yaml it was made."""

    path: str
    sha256: str
    submission: int


def choose(
    run: RunPaths, *, file: str | None = None, every: bool = False
) -> tuple[list[Chosen], list[str]]:
    """The checkpoints to evaluate, oldest first, and messages about those left out.

    `file`: a name in checkpoints/, or a path. `every`: all that count. Neither: the best
    validated one, or the newest if none is. Raises ClustersegError if there is none.
    """
    messages: list[str] = []
    last = last_attempt(run)
    claim = last.claim if last else None

    def unreadable(path: Path, error: CheckpointError) -> None:
        messages.append(f"{path.name} is left out: {error.message}")

    if file is not None:
        chosen = [_named(run, file)]
    else:
        chosen = []
        for info in list_checkpoints(run.checkpoints, unreadable):
            if _counts(info, claim):
                chosen.append(info)
            else:
                messages.append(f"{info.name} is left out: no attempt builds on it")
        if not chosen:
            raise ClustersegError(
                f"{run.run_id} has no checkpoint to evaluate" + "".join(f"; {m}" for m in messages),
                code="no-checkpoint",
                help=f"clusterseg status {run.run_id}",
                exit_code=ExitCode.FAILED,
            )
        if not every:
            chosen, messages = [best(chosen)], []
    return [_with_submission(run, info, claim) for info in chosen], messages


def best(checkpoints: list[CheckpointInfo]) -> CheckpointInfo:
    """The one with the highest validated accuracy (the first of equals, as the trainer counts),
    else the newest. `checkpoints` is from oldest to newest and not empty."""
    validated = [
        one
        for one in checkpoints
        if one.header.validated and one.header.step_in_epoch == 0 and one.header.history
    ]
    if not validated:
        return checkpoints[-1]
    return max(validated, key=lambda one: one.header.val_accuracy)


def best_first(evaluations: Iterable[Evaluation]) -> tuple[Evaluation, ...]:
    """By accuracy, then mean IoU, then the earlier one; what has no score comes last."""
    worst = float("-inf")
    return tuple(
        sorted(
            evaluations,
            key=lambda one: (
                -(worst if one.val_accuracy is None else one.val_accuracy),
                -(worst if one.val_mean_iou is None else one.val_mean_iou),
                one.step,
                one.file,
            ),
        )
    )


def record(run: RunPaths, found: Iterable[Evaluation]) -> None:
    """Writes evaluation.json, durably: what was found now, and what was before of other files.

    An entry is replaced by one of the same file, part and `how`. Who writes at the same time waits,
    so that neither loses what the other found. Raises OSError.
    """
    try:
        with held(run.evaluation.with_suffix(".lock"), wait=_PATIENCE):
            merged = {_key(one): one for one in _before(run)}
            merged |= {_key(one): one for one in found}
            whole = Evaluations(run=run.run_id, checkpoints=best_first(merged.values()))
            data = msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"
            files.replace(run.evaluation, data)
    except Taken as taken:
        raise OSError(errno.EBUSY, "another evaluate has been writing it all the time") from taken


def _key(one: Evaluation) -> tuple[str, str, str, str]:
    return one.file, one.sha256, one.part, repr(one.how)


def _before(run: RunPaths) -> tuple[Evaluation, ...]:
    """What evaluation.json holds; one that can't be read is written anew."""
    try:
        data = files.read_capped(run.evaluation, _LARGEST)
        return msgspec.json.decode(data, type=Evaluations).checkpoints
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()


def _named(run: RunPaths, file: str) -> CheckpointInfo:
    path = run.checkpoints / file if "/" not in file else Path(file).absolute()
    if not path.is_file() and Path(file).is_file():
        path = Path(file).absolute()
    try:
        layout = read_layout(path)
    except CheckpointError as error:
        raise ClustersegError(
            error.message,
            code="no-checkpoint",
            help=f"name a file in {run.checkpoints}, or give the path of another",
        ) from None
    return CheckpointInfo(path.name, path, layout.header, layout.sha256, layout.file_size)


def _counts(info: CheckpointInfo, last: Claim | None) -> bool:
    """Whether the run builds on it: the last attempt wrote it, or accepted it in its claim."""
    return last is None or counts(info, last)


def _with_submission(run: RunPaths, info: CheckpointInfo, last: Claim | None) -> Chosen:
    claim = last
    if last is None or info.header.attempt != last.attempt:
        attempt = read_attempt(run.attempt(info.header.attempt))
        claim = (attempt.claim if attempt else None) or last
    return Chosen(
        path=str(info.path), sha256=info.sha256, submission=claim.submission if claim else 0
    )
