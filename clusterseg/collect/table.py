"""The summary for a terminal, as Rich renderables. Nothing in it is read as markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clusterseg.collect.summary import STRAGGLER, EpochSummary, RankSummary, Summary
from clusterseg.runs.text import one_line

# Rows shown of long lists; --json has all of them.
_RANKS = 16
_EPOCHS = 10
_ATTEMPTS = 12

_COLOURS = {
    "queued": "cyan",
    "running": "blue",
    "done": "green",
    "stopped": "yellow",
    "failed": "red",
    "cancelled": "magenta",
}


def render(summary: Summary) -> Iterator[RenderableType]:
    """The parts of the report, to be printed one after the other."""
    yield _head(summary)
    if summary.attempts:
        yield _attempts(summary)
    if summary.per_rank:
        yield _ranks(summary)
    if summary.history:
        yield _history(summary)
    if summary.missing:
        yield _missing(summary.missing)


def _head(summary: Summary) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    ranks = "" if summary.ranks is None else f", {_counted(summary.ranks, 'rank')}"
    state = Text(summary.state, style=f"bold {_COLOURS[summary.state]}")
    grid.add_row("run", _plain(summary.run))
    grid.add_row("state", state + Text(ranks))
    steps = f"{summary.steps.completed} completed"
    if summary.steps.replayed:
        steps += f", {summary.steps.replayed} replayed"
    grid.add_row("steps", _plain(steps))
    grid.add_row("throughput", _plain(f"{number(summary.images_per_second)} images/s"))
    grid.add_row("goodput", _plain(_percent(summary.goodput)))
    grid.add_row("val accuracy", _plain(figure(summary.val_accuracy)))
    grid.add_row("val mean IoU", _plain(figure(summary.val_mean_iou)))
    if summary.best is not None:
        best = f"{figure(summary.best.val_accuracy)} in epoch {summary.best.epoch}"
        grid.add_row("best", _plain(f"{best}, {summary.best.file or 'checkpoint not known'}"))
    return grid


def _attempts(summary: Summary) -> RenderableType:
    table = _table("attempt", "ranks", "steps", "time")
    table.add_column("cause")
    for entry in summary.attempts[-_ATTEMPTS:]:
        steps = "-" if entry.first_step is None else f"{entry.first_step}-{entry.last_step}"
        cause = entry.cause or "(goes on)"
        table.add_row(
            str(entry.attempt),
            _or_dash(entry.ranks),
            steps,
            duration(entry.seconds),
            Text(cause, style="" if cause in ("done", "(goes on)") else "yellow"),
        )
    return _section("attempts", table, len(summary.attempts) - _ATTEMPTS, "earlier attempts")


def _ranks(summary: Summary) -> RenderableType:
    table = _table("rank")
    table.add_column("host")
    table.add_column("images/s", justify="right")
    table.add_column("pace", justify="right")
    table.add_column("")
    shown = _notable(summary.per_rank)
    for entry in shown:
        slow = is_straggler(entry)
        table.add_row(
            str(entry.rank),
            _plain(entry.host or "-"),
            number(entry.images_per_second),
            figure(entry.straggler_score, 2),
            Text("straggler", style="bold red") if slow else "",
        )
    rest = len(summary.per_rank) - len(shown)
    return _section("ranks of the last attempt that stepped", table, rest, "more, none a straggler")


def _notable(ranks: Sequence[RankSummary]) -> list[RankSummary]:
    """All ranks if they are few; else all stragglers and the first others."""
    slow = [entry for entry in ranks if is_straggler(entry)]
    others = [entry for entry in ranks if not is_straggler(entry)]
    shown = slow + others[: max(0, _RANKS - len(slow))]
    return sorted(shown, key=lambda entry: entry.rank)


def _history(summary: Summary) -> RenderableType:
    table = _table("epoch", "step", "loss", "val loss", "val accuracy", "val mean IoU", "time")
    for entry in summary.history[-_EPOCHS:]:
        table.add_row(*_history_row(entry, summary))
    return _section("history", table, len(summary.history) - _EPOCHS, "earlier epochs")


def _history_row(entry: EpochSummary, summary: Summary) -> list[str | Text]:
    best = summary.best is not None and summary.best.epoch == entry.epoch
    return [
        str(entry.epoch),
        str(entry.step),
        figure(entry.loss),
        figure(entry.val_loss),
        Text(figure(entry.val_accuracy), style="bold green" if best else ""),
        figure(entry.val_mean_iou),
        duration(entry.seconds),
    ]


def _missing(sentences: Sequence[str]) -> RenderableType:
    lines = Text("\nmissing: not all of this run could be read", style="bold red")
    for sentence in sentences:
        lines.append(f"\n  {one_line(sentence, 500)}", style="not bold")
    return lines


def is_straggler(entry: RankSummary) -> bool:
    """True if the rank's pace is below the threshold of the design."""
    return entry.straggler_score is not None and entry.straggler_score < STRAGGLER


def _table(*numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _section(title: str, table: Table, rest: int, what: str) -> RenderableType:
    parts: list[RenderableType] = [Text(f"\n{title}", style="bold"), table]
    if rest > 0:
        parts.append(Text(f"and {rest} {what}", style="dim"))
    return Group(*parts)


def _plain(text: str) -> Text:
    return Text(one_line(text, 200))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def number(value: float | None) -> str:
    """A rate with as many digits as tell something."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def figure(value: float | None, digits: int = 4) -> str:
    """A figure with fixed decimals, a dash if it isn't known."""
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """`8.3s`, `2m05s`, `1h02m`."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"
