"""The ranks of the last attempt as `status` lists them, a row each; of many the quietest."""

from __future__ import annotations

import msgspec

from clusterseg.cli.output import duration, number, table
from clusterseg.runs.progress import Progress

SHOWN_RANKS = 16


class RankRow(msgspec.Struct, frozen=True, kw_only=True):
    """One rank of the last attempt. `age`: seconds since its last event, by this host's clock."""

    rank: int
    host: str
    status: str
    step: int
    age: float | None
    images_per_second: float | None


def rank_rows(progress: Progress, now: float) -> list[RankRow]:
    """Their rows, by rank; `now` in unix seconds."""
    return [
        RankRow(
            rank=rank,
            host=view.host,
            status=view.status,
            step=view.step,
            age=None if view.seen is None else max(0.0, now - view.seen),
            images_per_second=view.images_per_second,
        )
        for rank, view in sorted(progress.ranks.items())
    ]


def rank_table(ranks: list[RankRow]) -> list[str]:
    """The ranks that spoke last first would hide the trouble: the quietest stand on top."""
    shown = ranks
    if len(ranks) > SHOWN_RANKS:
        shown = sorted(ranks, key=lambda row: -1.0 if row.age is None else -row.age)[:SHOWN_RANKS]
    cells = [
        [
            str(row.rank),
            row.host or "-",
            row.status,
            str(row.step),
            number(row.images_per_second),
            "-" if row.age is None else f"{duration(row.age)} ago",
        ]
        for row in shown
    ]
    lines = table(("RANK", "HOST", "STATUS", "STEP", "IMAGES/S", "LAST EVENT"), cells)
    if len(ranks) > len(shown):
        lines.append(f"and {len(ranks) - len(shown)} ranks that spoke later")
    return lines
