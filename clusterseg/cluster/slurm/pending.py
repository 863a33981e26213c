"""The jobs that wait in a partition, by one squeue."""

from __future__ import annotations

from msgspec import Struct

from clusterseg.cluster.slurm.answers import unix_time
from clusterseg.cluster.slurm.commands import Slurm, SlurmError, random_mark

PATIENCE = 4.0  # seconds for one question


class Row(Struct, frozen=True, kw_only=True):
    """A pending job in squeue; an array's tasks that wait are one row. `start` as Slurm expects."""

    id: str
    priority: int
    reason: str = ""
    start: float | None = None
    dependency: str = ""


def ask_queue(slurm: Slurm, partition: str) -> list[Row] | None:
    """The jobs that wait there (of every partition if it is empty); None if Slurm does not say."""
    mark = random_mark()
    only = ["-p", partition] if partition else []
    try:
        said = slurm.run(
            *("squeue", "--all", "-h", "-t", "PENDING", *only, "-o", rows_format(mark)),
            patience=PATIENCE,
        )
    except SlurmError:
        return None
    return read_rows(said, mark)


def read_rows(said: str, mark: str) -> list[Row]:
    """The rows in what squeue printed with `rows_format(mark)`; what is none is passed over."""
    rows = []
    for line in said.split(mark + "\n"):
        fields = line.split(mark)
        if len(fields) != _FIELDS.count("%") or not fields[1].isdigit():
            continue
        job_id, priority, start, reason, dependency = fields
        rows.append(
            Row(
                id=job_id.strip(),
                priority=int(priority),
                reason=reason.strip(),
                start=unix_time(start),
                dependency="" if dependency == "(null)" else dependency[:200],
            )
        )
    return rows


_FIELDS = "%F %Q %S %r %E"


def rows_format(mark: str) -> str:
    """squeue's --format for `read_rows`."""
    return mark.join(_FIELDS.split(" ")) + mark
