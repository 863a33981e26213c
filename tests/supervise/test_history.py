"""What earlier attempts of a run tell the next one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from clusterseg.runs.attempts import pack_attempt
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Checkpoint, End, RankStart
from clusterseg.supervise.history import saves_before
from clusterseg.supervise.limits import Saves
from tests.runs import synthetic


def attempt(run: RunPaths, number: int, cause: Cause, exit_code: int, *saves: float) -> None:
    """One that ended so, whose saves took so long."""
    synthetic.claim(run, number)
    events = [
        Checkpoint(
            t=1e9, rank=0, epoch=0, step=step, file="w", blocked_seconds=1, write_seconds=took
        )
        for step, took in enumerate(saves)
    ]
    start = RankStart(t=1e9, rank=0, attempt=number, world_size=2, host="n1")
    synthetic.write_events(run, number, 0, [start, *events])
    end = End(t=1e9, attempt=number, cause=cause, exit_code=exit_code, will_restart=True)
    run.attempt(number).end.write_bytes(msgspec.json.encode(end))


def test_saves_of_earlier_attempts(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "demo-1")
    run.root.mkdir()
    attempt(run, 0, Cause.PREEMPTED, 75, 30.0, 7.0)
    attempt(run, 1, Cause.TIME_LIMIT, 75)
    attempt(run, 2, Cause.TIME_LIMIT, 137)
    synthetic.claim(run, 3)  # killed
    pack_attempt(run.attempt(0))
    shown = [Saves(31.0), Saves(), Saves(cut_off=True), Saves()]
    assert saves_before(run, 4, train=True) == shown
    assert saves_before(run, 2, train=True) == shown[:2]
    assert saves_before(run, 0, train=True) == []
    # A program of the user's may not save at a stop at all.
    assert saves_before(run, 3, train=False)[2] == Saves()


def test_damage_is_no_obstacle(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "demo-1")
    run.root.mkdir()
    attempt(run, 0, Cause.PREEMPTED, 75, 3.0)
    attempt(run, 1, Cause.PREEMPTED, 75, 3.0)
    run.attempt(0).events(0).unlink()
    run.attempt(0).events(0).mkdir()
    assert saves_before(run, 2, train=True)[-1] == Saves(4.0)
