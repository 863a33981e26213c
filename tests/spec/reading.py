"""Short ways to read a job in a test."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clusterseg.spec.errors import Problem, SpecError
from clusterseg.spec.model import JobSpec
from clusterseg.spec.reader import parse_job

COMMAND = "name: x\ncommand: [prog]\n"
TRAIN = "name: x\ntrain:\n  model: {name: unet}\n  data: {format: camvid, root: d}\n"


def job(text: str, *overrides: str, **environ: str) -> JobSpec:
    """The job that `text` describes."""
    return parse_job(text, "job.yaml", overrides=overrides, environ=environ).spec


def error(text: str, *overrides: str, **environ: str) -> SpecError:
    """What reading `text` raises."""
    with pytest.raises(SpecError) as caught:
        job(text, *overrides, **environ)
    assert caught.value.exit_code == 2
    assert "Traceback" not in caught.value.render()
    return caught.value


def problem(text: str, *overrides: str, **environ: str) -> Problem:
    """The one thing that is wrong with `text`."""
    problems = error(text, *overrides, **environ).problems
    assert len(problems) == 1, [p.render() for p in problems]
    return problems[0]


def where(problems: Sequence[Problem]) -> list[tuple[str, int, int]]:
    """Code, line and column (from 1) of each."""
    return [
        (p.code, p.place.line + p.place.source.first_line, p.place.column + 1)
        for p in problems
        if p.place is not None
    ]
