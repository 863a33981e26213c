"""Calls the user's own command when a run ends, is requeued or given up (`notify:`)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from clusterseg.supervise.journal import Journal

PATIENCE = 30.0  # seconds that the command may take
HURRY = 5.0  # the same before a requeue, which may have to be done within a grace time


def notify(argv: Sequence[str], run_id: str, event: str, state: str, journal: Journal) -> None:
    """Runs `argv` with CLUSTERSEG_RUN, CLUSTERSEG_EVENT and CLUSTERSEG_STATE.

    `event` is end, requeue or give-up. A failure is only logged: it changes nothing about the
    run.
    """
    if not argv:
        return
    variables = {
        "CLUSTERSEG_RUN": run_id,
        "CLUSTERSEG_EVENT": event,
        "CLUSTERSEG_STATE": str(state),
    }
    try:
        done = subprocess.run(
            list(argv),
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=HURRY if event == "requeue" else PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        journal.say(f"notify failed: {error}")
        return
    if done.returncode != 0:
        journal.say(f"notify: {argv[0]} ended with exit code {done.returncode}")
