"""One run as the page of `status`: values first, then lines of text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from clusterseg.cli.ending import end_sentence, last_words, next_hints
from clusterseg.cli.lr_find_view import lr_find_table
from clusterseg.cli.output import clock, duration, number, safe, state_text, table
from clusterseg.cli.placement_view import placement_lines
from clusterseg.cli.rank_view import RankRow, rank_rows, rank_table
from clusterseg.cli.waiting_view import waiting_facts
from clusterseg.errors import ClustersegError
from clusterseg.runs.attempts import Attempt, iter_attempts
from clusterseg.runs.choice import trouble
from clusterseg.runs.heartbeat import read_heartbeat
from clusterseg.runs.lr_find import LrFind, read_lr_find
from clusterseg.runs.placement import Placement, placement, read_check
from clusterseg.runs.progress import Progress, look_at, read_goal
from clusterseg.runs.records import Cause, State
from clusterseg.runs.snapshot import Snapshot
from clusterseg.runs.store import LR_FIND, read_identity

if TYPE_CHECKING:
    from clusterseg.cluster.slurm.waiting import Waiting


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt in `status --json`. Times are unix seconds."""

    attempt: int
    submission: int | None
    job_id: str | None
    host: str | None
    ranks: int | None
    started: float | None
    ended: float | None
    cause: Cause | None
    error: str | None
    failed_rank: int | None
    failed_host: str | None
    resume_from: str | None
    first_step: int | None
    last_step: int | None
    will_restart: bool | None
    problems: tuple[str, ...]


class ProgressView(msgspec.Struct, frozen=True, kw_only=True):
    """How far the run is. `epochs` and `steps` are the goal, None where it isn't known."""

    epoch: int
    epochs: int | None
    step: int
    steps: int | None
    loss: float | None
    learning_rate: float | None
    images_per_second: float | None
    val_accuracy: float | None
    val_mean_iou: float | None
    checkpoint: str | None


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """`status --json`."""

    run: str
    run_dir: str
    name: str | None
    state: State
    exit_code: int | None
    cause: Cause | None
    note: str | None
    sentence: str
    job_id: str | None
    created: float | None
    attempts: list[AttemptView]
    progress: ProgressView | None
    ranks: list[RankRow]
    heartbeat_age: float | None
    last_words: list[str]
    problems: list[str]
    next: list[str]
    waiting: Waiting | None = None
    task: str = "train"
    lr_find: LrFind | None = None
    placement: Placement | None = None


def status_view(snapshot: Snapshot, waiting: Waiting | None = None) -> StatusView:
    """All that `status` says about a run; `waiting`: why its job does not start."""
    run, verdict, last = snapshot.run, snapshot.verdict, snapshot.attempt
    problems: list[str] = []
    try:
        identity = read_identity(run)
    except ClustersegError as error:
        identity = None
        problems.append(error.message)
    attempts = [_attempt_view(attempt) for attempt in iter_attempts(run)]
    progress: Progress | None = None
    if last is not None:
        try:
            progress = look_at(last)
        except OSError as error:
            problems.append(str(error))
    saved = progress.checkpoint if progress else None
    # While it runs, on another host, a name may not be seen here for a minute.
    if saved and verdict.over and (wrong := trouble(run, saved.file)):
        problems.append(wrong)
    now = time.time()
    return StatusView(
        run=run.run_id,
        run_dir=str(run.root),
        name=identity.name if identity else None,
        state=verdict.state,
        exit_code=verdict.exit_code,
        cause=verdict.cause,
        note=verdict.note,
        sentence=end_sentence(snapshot),
        job_id=snapshot.job_id,
        created=identity.created if identity else None,
        attempts=attempts,
        progress=_progress_view(snapshot, progress) if progress else None,
        ranks=rank_rows(progress, now) if progress else [],
        heartbeat_age=None if verdict.over else _heartbeat_age(last, now),
        last_words=last_words(snapshot),
        problems=problems,
        next=[command for command, _ in next_hints(snapshot)],
        waiting=waiting,
        task=identity.task if identity else "train",
        lr_find=read_lr_find(run) if identity and identity.task == LR_FIND else None,
        placement=_placement(last, progress) if last and progress else None,
    )


def status_lines(view: StatusView) -> list[str]:
    """The page of `status`."""
    lines = [f"{safe(view.run)}  {state_text(view.state)}"]
    if view.sentence != f"{view.run} is {view.state}":
        lines.append(view.sentence)
    lines.append("")
    lines += _facts(view)
    if view.attempts:
        header = ("ATTEMPT", "STARTED", "LASTED", "RANKS", "STEPS", "ENDED AS", "")
        lines += ["", *table(header, [_attempt_cells(attempt, view) for attempt in view.attempts])]
    if view.lr_find is not None:
        lines += ["", *lr_find_table(view.lr_find)]
    if view.ranks and view.exit_code is None:
        lines += ["", *rank_table(view.ranks)]
    if view.placement is not None:
        lines += ["", *placement_lines(view.placement)]
    if view.last_words:
        lines += ["", "last words:", *(f"  | {line}" for line in view.last_words)]
    lines += [f"note: {safe(problem)}" for problem in view.problems]
    lines += [f"note: {safe(text)}" for attempt in view.attempts for text in attempt.problems]
    return lines


def _facts(view: StatusView) -> list[str]:
    facts = [("directory", view.run_dir), ("job", view.job_id or "-")]
    is_range_test = view.task == LR_FIND
    if is_range_test:
        facts.append(("task", "lr-find: a learning rate range test"))
    if view.created is not None:
        facts.append(("submitted", clock(view.created)))
    if view.waiting is not None:
        facts += waiting_facts(view.waiting)
    if view.heartbeat_age is not None:
        facts.append(("heartbeat", f"{duration(view.heartbeat_age)} ago"))
    if (progress := view.progress) is not None and progress.step:
        goal = f" of {progress.epochs}" if progress.epochs else ""
        most = "at most " if is_range_test else ""  # a sweep may end early
        steps = f" of {most}{progress.steps}" if progress.steps else ""
        epoch = "" if is_range_test else f"epoch {progress.epoch}{goal}, "
        facts.append(("progress", f"{epoch}step {progress.step}{steps}"))
        facts.append(("loss", number(progress.loss)))
        facts.append(("images/s", number(progress.images_per_second)))
        if progress.val_accuracy is not None:
            iou = f", mean IoU {progress.val_mean_iou:.4f}" if progress.val_mean_iou else ""
            facts.append(("val accuracy", f"{progress.val_accuracy:.4f}{iou}"))
        if progress.checkpoint:
            facts.append(("checkpoint", progress.checkpoint))
    return [f"{name:13} {safe(text)}" for name, text in facts]


def _attempt_cells(attempt: AttemptView, view: StatusView) -> list[str]:
    known = attempt.started is not None
    until = attempt.ended
    if until is None and view.state is State.RUNNING and attempt is view.attempts[-1]:
        until = time.time()
    lasted = until - attempt.started if known and until and attempt.started else None
    ended = attempt.cause or ("" if until else Cause.UNKNOWN)
    return [
        str(attempt.attempt),
        clock(attempt.started) if attempt.started is not None else "-",
        duration(lasted),
        "-" if attempt.ranks is None else str(attempt.ranks),
        f"{attempt.first_step}-{attempt.last_step}" if attempt.last_step else "-",
        ended,
        (attempt.error or "").strip().partition("\n")[0][:100],
    ]


def _attempt_view(attempt: Attempt) -> AttemptView:
    claim, end = attempt.claim, attempt.end
    return AttemptView(
        attempt=attempt.number,
        submission=claim.submission if claim else None,
        job_id=claim.job_id if claim else None,
        host=claim.host if claim else None,
        ranks=claim.ranks if claim else None,
        started=claim.t if claim else None,
        ended=end.t if end else None,
        cause=end.cause if end else None,
        error=end.error if end else None,
        failed_rank=end.failed_rank if end else None,
        failed_host=end.failed_host if end else None,
        resume_from=claim.resume_from if claim else None,
        first_step=end.first_step if end else None,
        last_step=end.last_step if end else None,
        will_restart=end.will_restart if end else None,
        problems=attempt.problems,
    )


def _progress_view(snapshot: Snapshot, progress: Progress) -> ProgressView:
    goal = read_goal(snapshot.submission)
    validated = progress.validated
    return ProgressView(
        epoch=progress.epoch,
        epochs=goal.epochs,
        step=progress.step,
        steps=goal.steps(progress.epochs),
        loss=progress.loss,
        learning_rate=progress.learning_rate,
        images_per_second=progress.images_per_second,
        val_accuracy=validated.val_accuracy if validated else None,
        val_mean_iou=validated.val_mean_iou if validated else None,
        checkpoint=progress.checkpoint.file if progress.checkpoint else None,
    )


def _placement(attempt: Attempt, progress: Progress) -> Placement | None:
    """Not of a packed attempt, of which only rank 0 is read."""
    if attempt.packed:
        return None
    starts = [view.start for view in progress.ranks.values() if view.start is not None]
    return placement(attempt.number, starts, read_check(attempt))


def _heartbeat_age(attempt: Attempt | None, now: float) -> float | None:
    if attempt is None or attempt.packed:
        return None
    try:
        beat = read_heartbeat(attempt.paths.heartbeat)
    except OSError:
        return None
    return None if beat is None else max(0.0, now - beat.t)
