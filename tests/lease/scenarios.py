"""What can happen to a run whose hosts see it late. Each scenario checks the truth at its end.

`broken` is given to the actor that the scenario is about: then it has to fail, and
tests/lease/test_stale.py holds it to that.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

from tests.lease.stage import Stage, check_truth

GOAL = 40
Scenario = Callable[[Stage, str | None], None]


def unreachable(stage: Stage, broken: str | None) -> None:
    """Slurm gave its node up and started the job elsewhere; it hears nothing and beats on.

    The next one waits as long as that goes, and asks it to stop in vain.
    """
    grace = stage.scale.patience["grace"]
    stage.start(0, goal=10**6, deaf=True, keep_last=1, step_seconds=grace / 8)
    stage.wait_until_noted("saved", 0)
    impatient = {**stage.scale.patience, "grace": 0.1} if broken == "does not wait" else None
    more = {"patience": impatient} if impatient else {}
    stage.start(1, restart_count=1, goal=GOAL, **more)
    time.sleep(1.5 * grace)
    assert not stage.noted("claimed", 1), "claimed while the first one was beating"
    stage.freeze(0)
    stage.wait_until_noted("claimed", 1)
    stage.wake(0)
    assert stage.outcome(0) == "superseded"
    assert stage.outcome(1) == "done"
    assert stage.noted("claimed", 1)[0]["step"] == stage.noted("saved", 0, attempt=0)[-1]["step"]
    check_truth(stage, GOAL)


def paused(stage: Stage, broken: str | None, *, point: str, nth: int, goal: int = GOAL) -> None:
    """One is paused at a point for longer than the lease, and wakes while the next one works."""
    stage.start(0, goal=goal, keep_last=1, stop_at={point: nth}, broken=broken)
    stage.wait_until_noted("paused", 0)
    stage.start(1, restart_count=1, goal=GOAL, keep_last=1)
    stage.wait_until_noted("claimed", 1)
    stage.wait_until_noted("saved", 1)
    stage.wake(0)
    assert stage.outcome(0) == "superseded"
    assert stage.outcome(1) == "done"
    assert len(stage.noted("claimed")) == 2, "the one that slept claimed again"
    check_truth(stage, GOAL)


def late_file(stage: Stage, broken: str | None) -> None:
    """It saves after the next one has looked at the checkpoints, and before its claim.

    The next one has not loaded yet what it builds on; later it is killed, and a third goes on.
    """
    theirs = broken == "takes everything"
    stage.start(
        0, goal=10**6, save_every=7, keep_last=1, deaf=True, stop_at={"save": 2},
        broken=None if theirs else broken,
    )  # fmt: skip
    stage.wait_until_noted("paused", 0)
    stage.start(
        1, restart_count=1, goal=GOAL, keep_last=3, stop_at={"claim": 1, "restore": 1}, save_every=3
    )
    stage.wait_until_noted("paused", 1, at="claim")
    stage.wake(0)
    stage.wait_until_noted("saved", 0, step=14)
    late = stage.noted("saved", 0, step=14)[0]["file"]
    stage.wait(lambda: stage.noted("spared", 0) or stage.noted("deleted", 0), "it has pruned")
    stage.wake(1)
    stage.wait_until_noted("paused", 1, at="restore")
    assert stage.outcome(0) == "superseded"
    assert (stage.run.checkpoints / late).exists(), "the scenario missed its point"
    stage.wake(1)
    stage.wait_until_noted("saved", 1)
    os.kill(stage.actors[1].pid, signal.SIGKILL)
    stage.actors[1].wait()
    stage.start(1, restart_count=2, goal=GOAL, broken=broken if theirs else None)
    assert stage.outcome(2) == "done"
    check_truth(stage, GOAL)
    assert not (stage.run.checkpoints / late).exists()


def between_attempts(stage: Stage, broken: str | None) -> None:
    """It is paused between two of its attempts; the one that took over must not be asked to stop.

    Slurm's restart count tells nothing here: the controller had lost it.
    """
    stage.start(0, goal=GOAL, crash_at=7, stop_at={"claim": 2}, broken=broken)
    stage.wait_until_noted("paused", 0)
    stage.start(1, goal=3 * GOAL)
    stage.wait_until_noted("claimed", 1)
    stage.wake(0)
    assert stage.outcome(0) == "duplicate"
    assert stage.outcome(1) == "done"
    check_truth(stage, 3 * GOAL)


def late_start(stage: Stage, broken: str | None) -> None:
    """The first start of a job comes only after its second one has taken the run."""
    stage.start(0, goal=4 * GOAL, restart_count=1)
    stage.wait_until_noted("saved", 0)
    stage.start(1, restart_count=1 if broken == "counts as the newest" else 0)
    assert stage.outcome(1) == "duplicate"
    assert stage.outcome(0) == "done"
    check_truth(stage, 4 * GOAL)


def race(stage: Stage, broken: str | None) -> None:
    """Two jobs on each host start at once; the scheduler can't say which of them live."""
    hosts = len(stage.mounts)
    patience = {**stage.scale.patience}
    if broken == "does not wait":
        patience["grace"] = 0.1
    long = 60 + round(15 * patience["grace"])
    for number in range(2 * hosts):
        stage.start(
            number % hosts, f"job-{number}", job_lives=None, goal=long, step_seconds=0.1,
            patience=patience,
        )  # fmt: skip
    outcomes = sorted(stage.outcome(number) for number in range(2 * hosts))
    assert outcomes == ["done"] + ["duplicate"] * (2 * hosts - 1)
    check_truth(stage, long)


def relay(stage: Stage, broken: str | None) -> None:
    """Whoever holds the run is killed; three rounds of claimers on all hosts race to go on."""
    hosts = len(stage.mounts)
    for turn in range(3):
        first = len(stage.actors)
        for host in range(hosts):
            stage.start(host, f"job-{turn}-{host}", job_lives=None, goal=10**6)
        racing = range(first, first + hosts)

        def holders(racing: range = racing) -> list[int]:
            return [number for number in racing if stage.noted("saved", number)]

        stage.wait(holders, "one of them works")
        stage.wait(
            lambda racing=racing: [stage.actors[one].poll() for one in racing].count(None) == 1,
            "the others give up",
        )
        assert len(holders()) == 1
        stage.actors[holders()[0]].kill()
        stage.actors[holders()[0]].wait()
    last = max(line["step"] for line in stage.noted("saved"))
    goal = last + GOAL
    stage.start(0, "job-last", job_lives=False, goal=goal)
    assert stage.outcome(len(stage.actors) - 1) == "done"
    check_truth(stage, goal)


SCENARIOS: dict[str, Scenario] = {
    "unreachable": unreachable,
    "late file": late_file,
    "between attempts": between_attempts,
    "late start": late_start,
    "race": race,
    "relay": relay,
    "paused before a beat": partial(paused, point="beat", nth=8),
    "paused before a commit": partial(paused, point="commit", nth=2),
    "paused before it asks whether to prune": partial(paused, point="prune", nth=2),
    "paused before it lists what to prune": partial(paused, point="listed", nth=2),
    "paused before a deletion": partial(paused, point="delete", nth=1),
    "paused before its end": partial(paused, point="end", nth=1, goal=8),
    "paused before it loads": partial(paused, point="restore", nth=1),
}
# What is broken, and the scenario that has to notice.
TWINS: dict[str, tuple[str, str]] = {
    "unreachable, without waiting": ("unreachable", "does not wait"),
    "late file, pruned without asking": ("late file", "prunes without asking"),
    "late file, taken by the next": ("late file", "takes everything"),
    "paused before its end, never looks": ("paused before its end", "never looks at claims"),
    "paused before a beat, never looks": ("paused before a beat", "never looks at claims"),
    "between attempts, forgetful": ("between attempts", "forgets that it held the run"),
    "late start, counts as the newest": ("late start", "counts as the newest"),
}
