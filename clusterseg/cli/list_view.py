"""Runs as rows of `list`: values first, then a table."""

from __future__ import annotations

from pathlib import Path

import msgspec

from clusterseg.cli.output import clock, table
from clusterseg.cluster.look import look_at
from clusterseg.errors import ClustersegError
from clusterseg.runs.records import Cause, State
from clusterseg.runs.store import LR_FIND, find_runs, read_identity


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One run in `list --json`. `created` is unix seconds."""

    run: str
    run_dir: str
    name: str
    task: str
    state: State
    cause: Cause | None
    note: str | None
    attempts: int
    ranks: int | None
    created: float
    job_id: str | None


def list_rows(root: Path, limit: int | None) -> tuple[list[RunRow], list[str]]:
    """The runs below `root`, newest first, and what could not be read."""
    identities, problems = [], []
    for run in find_runs(root):
        try:
            identities.append((run, read_identity(run)))
        except ClustersegError as error:
            problems.append(error.message)
    identities.sort(key=lambda entry: (entry[1].created, entry[0].run_id), reverse=True)
    shown = identities[:limit]
    rows = []
    for (run, identity), snapshot in zip(shown, look_at([run for run, _ in shown]), strict=True):
        if isinstance(snapshot, ClustersegError):
            problems.append(snapshot.message)
            continue
        attempt = snapshot.attempt
        claim = attempt.claim if attempt else None
        rows.append(
            RunRow(
                run=run.run_id,
                run_dir=str(run.root),
                name=identity.name,
                task=identity.task,
                state=snapshot.verdict.state,
                cause=snapshot.verdict.cause,
                note=snapshot.verdict.note,
                attempts=attempt.number + 1 if attempt else 0,
                ranks=claim.ranks if claim else None,
                created=identity.created,
                job_id=snapshot.job_id,
            )
        )
    return rows, problems


def list_table(rows: list[RunRow]) -> list[str]:
    """The rows as a table."""
    cells = [
        [
            row.run,
            row.state,
            row.cause if row.cause and row.cause != row.state.value else "",
            str(row.attempts),
            "-" if row.ranks is None else str(row.ranks),
            clock(row.created),
            "; ".join(filter(None, (row.task if row.task == LR_FIND else None, row.note))),
        ]
        for row in rows
    ]
    return table(("RUN", "STATE", "CAUSE", "ATTEMPTS", "RANKS", "CREATED", ""), cells)
