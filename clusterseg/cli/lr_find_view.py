"""What a learning rate range test found, as lines for people."""

from __future__ import annotations

from clusterseg.cli.output import number, table
from clusterseg.runs.lr_find import LrFind, Sweep

_COLUMNS = ("OPTIMIZER", "LEARNING RATE", "FALLS FROM", "LOWEST AT", "ENDED", "")


def lr_find_table(found: LrFind) -> list[str]:
    """An optimizer a line; the learning rate is what job.yaml has to say."""
    return table(_COLUMNS, [_row(sweep) for sweep in found.sweeps])


def _row(sweep: Sweep) -> list[str]:
    ended = sweep.ended.replace("_", " ")
    rates = sweep.suggestion
    if rates is None:
        return [sweep.optimizer, "-", "-", "-", ended, f"no suggestion: {sweep.why}"]
    shown = (rates.setting, rates.begin, rates.minimum)
    return [sweep.optimizer, *(number(rate, 2) for rate in shown), ended, ""]
