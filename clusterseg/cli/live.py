"""The live view on a terminal, drawn by Rich: bar, numbers, health of the ranks.

Everything shown is `Text`, never markup: host names and errors come from outside.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clusterseg.cli.output import duration, number, safe
from clusterseg.runs.records import State

if TYPE_CHECKING:
    from clusterseg.cli.follow import Watch
    from clusterseg.runs.progress import RankView

DOTS = 64  # ranks that are drawn one by one
SILENT = 5  # silent ranks that are named

_STATE_STYLES = {
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.STOPPED: "yellow",
    State.FAILED: "red",
    State.CANCELLED: "yellow",
    State.QUEUED: "blue",
}


class LiveView:
    """A picture that is redrawn; news scroll by above it."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, markup=False, highlight=False, emoji=False)
        # Redrawn by `show` alone: no thread, no busy loop.
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.__exit__(None, None, None)

    def show(self, watch: Watch, news: list[str]) -> None:
        for line in news:
            self._console.print(Text(safe(line)))
        self._live.update(picture(watch), refresh=True)


def picture(watch: Watch) -> RenderableType:
    """The state of a run as a few lines."""
    lines: list[RenderableType] = [_title(watch)]
    if watch.goal.spec.train is not None:
        lines += [_bar(watch), _numbers(watch)]
    if watch.progress.ranks:
        lines += _health(watch)
    return Group(*lines)


def _title(watch: Watch) -> Text:
    text = Text(safe(watch.run.run_id), style="bold")
    if watch.snapshot is not None:
        state = watch.snapshot.verdict.state
        text.append(f"  {state}", style=_STATE_STYLES[state])
    if watch.attempt is not None:
        restarts = f", {watch.attempt} before it" if watch.attempt else ""
        text.append(f"  attempt {watch.attempt}{restarts}", style="not bold")
    if watch.started is not None:
        text.append(f"  {duration(time.time() - watch.started)}", style="not bold dim")
    return text


def _bar(watch: Watch) -> RenderableType:
    total, step = watch.steps, watch.progress.step
    grid = Table.grid(padding=(0, 1))
    left = duration(watch.seconds_left)
    grid.add_row(
        ProgressBar(total=total, completed=step, width=40, pulse=total is None and step > 0),
        Text(f"step {step}" + (f"/{total}" if total else "")),
        Text(f"{left} left" if left != "-" else "", style="dim"),
    )
    return grid


def _numbers(watch: Watch) -> RenderableType:
    progress, goal = watch.progress, watch.goal
    last = next((epoch for epoch in reversed(watch.epochs) if epoch.val_accuracy is not None), None)
    cells = {
        "epoch": f"{progress.epoch}" + (f"/{goal.epochs}" if goal.epochs else ""),
        "loss": number(progress.loss),
        "learning rate": number(progress.learning_rate),
        "images/s": number(progress.images_per_second),
        "val accuracy": number(last.val_accuracy if last else None),
    }
    text = Text()
    for name, value in cells.items():
        text.append(f"{name} ", style="dim").append(f"{value}   ")
    return text


def _health(watch: Watch) -> list[RenderableType]:
    ranks = [view for _, view in sorted(watch.progress.ranks.items())]
    text = Text("ranks ", style="dim")
    for view in ranks[:DOTS]:
        text.append("●", style=_dot_style(watch, view))
    silent = [view for view in ranks if watch.is_stale(view)]
    if len(ranks) > DOTS:
        text.append(f" and {len(ranks) - DOTS} more", style="dim")
    oldest = max((watch.silence(view) for view in ranks), default=0.0)
    text.append(f"  last heard of each within {duration(oldest)}", style="dim")
    lines: list[RenderableType] = [text]
    for view in sorted(silent, key=watch.silence, reverse=True)[:SILENT]:
        where = f" on {safe(view.host)}" if view.host else ""
        said = f"rank {view.rank}{where}: silent for {duration(watch.silence(view))}"
        lines.append(Text(said, style="red"))
    return lines


def _dot_style(watch: Watch, view: RankView) -> str:
    if view.status == "failed" or watch.is_stale(view):
        return "red"
    if view.status == "done":
        return "green"
    return "dim" if view.status == "starting" else "cyan"
