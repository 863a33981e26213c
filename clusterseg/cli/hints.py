"""Useful next commands, as every command that starts or leaves a run shows them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from clusterseg.cli.output import note
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.store import is_lr_find, runs_root

Hint = tuple[str, str]  # a command line, and what it is for


def reference(run: RunPaths) -> str:
    """How a command in this shell names the run: its id, or its directory from elsewhere."""
    return run.run_id if run.root.parent == runs_root(None) else shlex.quote(str(run.root))


def live_hints(run: RunPaths) -> list[Hint]:
    """For a run that goes on."""
    name = reference(run)
    stop = "stop it; what it found stays" if is_lr_find(run) else "stop it, resumably"
    return [
        (f"clusterseg status {name}", "how it stands"),
        (f"clusterseg logs -f {name}", "what the ranks print"),
        (f"clusterseg wait --follow {name}", "watch it again"),
        (f"clusterseg cancel {name}", stop),
    ]


def show_hints(hints: Sequence[Hint]) -> None:
    """Shows commands on stderr."""
    width = max(len(command) for command, _ in hints)
    for command, purpose in hints:
        note(f"  {command.ljust(width)}  # {purpose}")
