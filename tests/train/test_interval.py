"""How often to save: the formulae of the papers, and what is made of them."""

from __future__ import annotations

import math
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.runs.heartbeat import HeartbeatWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, End
from clusterseg.spec.model import Every
from clusterseg.train.interval import (
    PRIOR,
    Interval,
    Life,
    Slowdown,
    best_interval,
    daly,
    mean_time_between_failures,
    young,
)
from clusterseg.train.lives import cost_before, earlier_lives

COSTS = st.floats(1e-3, 1e4)
TIMES = st.floats(1.0, 1e7)
AUTO = Every(auto=True)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_youngs_formula_by_hand() -> None:
    assert young(2.0, 3600.0) == pytest.approx(120.0)  # sqrt(2 x 2 x 3600)
    assert young(0.5, 86_400.0) == pytest.approx(293.9388)


def test_dalys_formula_by_hand() -> None:
    # 120 x (1 + sqrt(2 / 7200) / 3 + 2 / 7200 / 9) - 2
    assert daly(2.0, 3600.0) == pytest.approx(118.670370)
    # M = 24 h, C = 5 min: 7200 x (1 + 1/72 + 1/5184) - 300
    assert daly(300.0, 86_400.0) == pytest.approx(7200 * (1 + 1 / 72 + 1 / 5184) - 300)
    assert daly(300.0, 86_400.0) == pytest.approx(7001.388889)
    assert daly(2 * 600.0, 600.0) == 600.0 == daly(1e6, 600.0)


@given(cost=COSTS, mtbf=TIMES)
def test_rarer_failures_and_dearer_saves_are_saved_for_less_often(cost: float, mtbf: float) -> None:
    assert 10 <= best_interval(cost, mtbf) <= 3600
    assert best_interval(cost, mtbf * 2) >= best_interval(cost, mtbf)
    if cost <= 180:
        assert cost / best_interval(cost, mtbf) <= 0.05 + 1e-9
    if cost < mtbf / 8:  # where both hold, they are near each other
        assert daly(cost, mtbf) == pytest.approx(young(cost, mtbf), rel=0.4)


@given(cost=st.floats(1e-2, 10), mtbf=st.floats(1e3, 1e6))
def test_dalys_interval_loses_the_least(cost: float, mtbf: float) -> None:
    """Of the run time that his model expects for an interval (equation 20, no restart time)."""

    def lost(interval: float) -> float:
        return mtbf * math.expm1((interval + cost) / mtbf) / interval

    best = daly(cost, mtbf)
    assert lost(best) <= min(lost(best * 0.8), lost(best * 1.25)) + 1e-12


def test_time_between_failures_begins_with_a_day_and_learns() -> None:
    assert mean_time_between_failures([]) == PRIOR == 86_400
    lives = [Life(3600.0, failed=True), Life(7200.0, failed=False), Life(1800.0, failed=True)]
    assert mean_time_between_failures(lives) == pytest.approx((86_400 + 12_600) / 3)


def test_by_time_it_is_due_when_the_time_is_over() -> None:
    clock = Clock()
    interval = Interval(Every(seconds=60), clock=clock)
    clock.now += 59
    assert not interval.due()
    clock.now += 1
    assert interval.due()
    interval.begun()
    assert not interval.due() and interval.news() is None


def test_by_steps_it_is_nobodys_wish() -> None:
    clock = Clock()
    interval = Interval(Every(steps=5), clock=clock)
    clock.now += 1e6
    for _ in range(100):
        interval.stepped()
    assert not interval.due() and interval.seconds is None


def test_auto_measures_early_and_then_follows_the_cost() -> None:
    clock = Clock()
    interval = Interval(AUTO, mtbf=3600.0, clock=clock)
    for _ in range(20):
        assert not interval.due()
        interval.stepped()
    assert interval.due()
    interval.begun()
    interval.saved(2.0)
    assert interval.seconds == pytest.approx(daly(2.0, 3600.0))
    news = interval.news()
    assert news is not None and "every 119 s: a save costs 2.00 s" in news
    assert interval.news() is None  # told once
    clock.now += 118
    assert not interval.due()
    clock.now += 1
    assert interval.due()
    interval.saved(32.0)
    assert interval.cost == 17.0 and interval.news() is not None


def test_auto_with_slow_steps_does_not_wait_for_twenty() -> None:
    clock = Clock()
    interval = Interval(AUTO, clock=clock)
    clock.now += 60  # the first step, graph and all
    interval.stepped()
    assert not interval.due()
    interval.stepped()
    interval.stepped()
    assert interval.due()


def test_auto_goes_on_with_what_the_attempt_before_measured() -> None:
    clock = Clock()
    interval = Interval(AUTO, mtbf=3600.0, cost=2.0, clock=clock)
    for _ in range(50):
        interval.stepped()
    assert not interval.due()
    clock.now += 119
    assert interval.due()


def test_a_write_costs_what_the_steps_beside_it_lose() -> None:
    slowdown = Slowdown()
    slowdown.step(9.0, saving=True)
    assert slowdown.take() == 0.0  # nothing to compare with
    for seconds in (1.0, 1.0, 50.0, 1.0, 1.0):
        slowdown.step(seconds, saving=False)
    slowdown.step(1.5, saving=True)
    slowdown.step(1.2, saving=True)
    assert slowdown.take() == pytest.approx(0.7)
    slowdown.step(0.5, saving=True)
    assert slowdown.take() == 0.0


def claimed(paths: RunPaths, attempt: int, t: float, resume_step: int, end: End | None) -> Claim:
    claim = Claim(
        t=t, attempt=attempt, submission=0, key="k", uid=0, job_id="j", host="h", boot_id="b",
        pid=1, pid_start=1, nonce="n", hosts={"h": 1}, ranks=1, argv=[], resume_step=resume_step,
    )  # fmt: skip
    own = paths.attempt(attempt)
    own.ranks.mkdir(parents=True)
    own.claim.write_bytes(msgspec.json.encode(claim))
    if end is not None:
        own.end.write_bytes(msgspec.json.encode(end))
    return claim


def test_a_killed_attempt_lived_until_its_last_beat(tmp_path: Path) -> None:
    """Not until somebody resumed it: M would be the longer the later that is."""
    paths = RunPaths(tmp_path)
    claimed(paths, 0, time.time() - 30.0, 0, None)
    HeartbeatWriter(paths.attempt(0).heartbeat).beat()
    now = claimed(paths, 1, time.time() + 86_400.0, 0, None)
    (life,) = earlier_lives(paths, now)
    # The beat is written in milliseconds.
    assert life.failed and 29.99 < life.seconds < 60.0


def test_the_lives_of_attempts(tmp_path: Path) -> None:
    """Killed; stopped with all saved; preempted with steps lost; and the one that runs."""
    paths = RunPaths(tmp_path)
    assert cost_before(paths, claimed(paths, 0, 1000.0, 0, None)) is None
    saved = End(t=1600.0, attempt=1, cause=Cause.TIME_LIMIT, last_step=30, will_restart=True)
    claimed(paths, 1, 1100.0, 10, saved)
    lost = End(t=1900.0, attempt=2, cause=Cause.PREEMPTED, last_step=50, will_restart=True)
    claimed(paths, 2, 1700.0, 30, lost)
    now = claimed(paths, 3, 2000.0, 40, None)
    assert earlier_lives(paths, now) == [
        Life(100.0, failed=True),
        Life(500.0, failed=False),
        Life(200.0, failed=True),
    ]
