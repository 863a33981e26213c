"""A rank that falls silent writes its stacks, and does so before the supervisor ends it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.runs.eventlog import EventWriter, iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Checkpoint, Epoch, Event, Phase, RankEnd, RankStart, Steps
from clusterseg.supervise.limits import Hang, Silence, allowed_silence
from clusterseg.supervise.watch import Watch
from clusterseg.train.watchdog import LIMITS, Limits, Pace, Watchdog, WatchedEvents

RANKS = 3
SECONDS = st.lists(st.floats(0, 1000), min_size=RANKS, max_size=RANKS)
ROUNDS = st.lists(
    st.tuples(st.sampled_from(["steps", "epoch_end", "validate", "save", "startup"]), SECONDS),
    max_size=12,
)


@dataclass
class Ranks:
    """What the ranks of an attempt write: the same at the same steps, each by its own clock."""

    folder: Path
    step: int = 0
    epoch: int = 0
    written: list[list[Event]] = field(default_factory=lambda: [[] for _ in range(RANKS)])

    def play(self, kind: str, seconds: list[float], ranks: int = RANKS) -> None:
        self.step += kind in ("steps", "epoch_end")
        self.epoch += kind == "epoch_end"
        for rank in range(ranks):
            event = self._event(kind, rank, seconds[rank])
            if event is not None:
                self.written[rank].append(event)

    def _event(self, kind: str, rank: int, seconds: float) -> Event | None:
        if kind in ("steps", "epoch_end"):
            return Steps(
                t=1.0, rank=rank, epoch=self.epoch, step=self.step, count=1, images=1,
                seconds=seconds,
            )  # fmt: skip
        if kind == "save":
            if rank:
                return None
            return Checkpoint(
                t=1.0, rank=0, epoch=self.epoch, step=self.step, file="f",
                blocked_seconds=seconds, write_seconds=seconds / 2,
            )  # fmt: skip
        return Phase(t=1.0, rank=rank, name=kind, seconds=seconds)

    def bears(self) -> list[float]:
        """How long the supervisor lets each rank be silent."""
        run = RunPaths(self.folder)
        run.attempt(0).ranks.mkdir(parents=True)
        for rank, events in enumerate(self.written):
            with EventWriter(run.attempt(0).events(rank)) as writer:
                for event in events:
                    writer.write(event)
        watch = Watch(run.attempt(0), RANKS, 0.0)
        watch.look_at_all(0.0)
        return [
            allowed_silence(
                Silence(
                    one.rank, 0.0, one.step, at_epoch_end=one.at_epoch_end,
                    starting=one.starting, ended=one.end is not None,
                ),
                Hang(),
                window=max(watch.window, watch.longest_save or 0.0),
                validation=watch.longest_validation,
            )
            for one in watch.ranks
        ]  # fmt: skip


def allowed(events: list[Event], limits: Limits) -> float:
    pace = Pace(limits)
    for event in events:
        pace.note(event)
    return pace.allowed()


def shortest_lead(rounds: list[tuple[str, list[float]]], cut: int, limits: Limits) -> float:
    """How much earlier a rank speaks than the supervisor does, in the worst case of all ranks.

    The first `cut` ranks have done one step more than the others.
    """
    with TemporaryDirectory() as folder:
        ranks = Ranks(Path(folder) / "run")
        for rank in range(RANKS):
            ranks.written[rank].append(
                RankStart(t=0.0, rank=rank, attempt=0, world_size=RANKS, host="h")
            )
        for kind, seconds in rounds:
            ranks.play(kind, seconds)
        if cut:
            ranks.play("steps", [0.1] * RANKS, cut)
        bears = ranks.bears()
        own = [allowed(events, limits) for events in ranks.written]
        return min(bear - one for bear, one in zip(bears, own, strict=True))


@settings(max_examples=60, deadline=None)
@given(ROUNDS, st.integers(0, RANKS - 1))
def test_every_rank_speaks_before_the_supervisor_ends_it(
    rounds: list[tuple[str, list[float]]], cut: int
) -> None:
    assert shortest_lead(rounds, cut, LIMITS) >= 10


@pytest.mark.parametrize(
    ("limits", "kinds"),
    [
        (Limits(base=61), ["steps", "steps"]),
        (Limits(factor=5.1), ["steps", "steps"]),
        (Limits(startup=301), []),
        (Limits(validation=1801), ["steps", "epoch_end"]),
    ],
)
def test_with_any_limit_above_the_supervisors_it_would_not(
    limits: Limits, kinds: list[str]
) -> None:
    rounds = [(kind, [300.0] * RANKS) for kind in kinds]
    if limits.base > LIMITS.base:
        rounds = [(kind, [0.0] * RANKS) for kind in kinds]
    assert shortest_lead(rounds, 0, LIMITS) >= 10
    assert shortest_lead(rounds, 0, limits) < 0


def test_all_ranks_bear_a_save_as_long_as_rank_0_has_seen(tmp_path: Path) -> None:
    """The others see no save before the one at the end, which they wait for; and still they speak
    before the supervisor, which has read of the same one."""
    ranks = Ranks(tmp_path / "run")
    for kind in ("steps", "steps", "save"):
        ranks.play(kind, [40.0] * RANKS)  # 60 s with the write
    first, *others = (Pace(LIMITS) for _ in range(RANKS))
    for pace, events in zip((first, *others), ranks.written, strict=True):
        for event in events:
            pace.note(event)
    seen = first.allowed()
    assert all(one.allowed() < seen for one in others)
    for one in (first, *others):
        one.expect_save(60.0)
        assert one.allowed() == seen == 45 + 3 * 60.0
    assert all(bear - seen >= 10 for bear in ranks.bears())


def test_the_end_of_a_rank_has_the_base() -> None:
    assert allowed([RankEnd(t=0.0, rank=0, status="done")], LIMITS) == LIMITS.base


def test_an_epoch_that_is_done_is_training_again() -> None:
    validating: list[Event] = [
        Steps(t=0.0, rank=0, epoch=0, step=1, count=1, images=1, seconds=9.0),
        Steps(t=0.0, rank=0, epoch=1, step=2, count=1, images=1, seconds=2.0),
    ]
    assert allowed(validating, LIMITS) == LIMITS.validation
    assert allowed([*validating, Epoch(t=0.0, rank=0, epoch=1, step=2)], LIMITS) == 45 + 3 * 2.0


def test_a_silent_rank_writes_the_stacks_of_its_threads_and_says_so_when_it_goes_on(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    quick = Limits(startup=2.0, base=2.0)
    event = Phase(t=0.0, rank=0, name="startup", seconds=1.0)
    with log.open("w") as stream:
        with WatchedEvents(tmp_path / "events", Watchdog(stream, quick)) as events:
            for _ in range(6):  # events in time: nothing is written
                time.sleep(0.5)
                events.write(event)
            said = log.read_text()
            time.sleep(3.0)
            silent = log.read_text()
            events.write(event)
            on = log.read_text()
        time.sleep(2.5)
        closed = log.read_text()
    assert "Timeout" in silent and Path(__file__).name in silent
    assert "goes on" in on and "goes on" not in silent
    assert closed == on  # the watchdog ends with the log
    assert said == ""


def test_a_log_on_a_full_disk_ends_no_rank(tmp_path: Path) -> None:
    path = tmp_path / "events"
    quick = Limits(startup=0.2, base=0.2)
    with (
        Path("/dev/full").open("w", buffering=1) as full,
        WatchedEvents(path, Watchdog(full, quick)) as events,
    ):
        time.sleep(0.5)
        events.write(Phase(t=1.0, rank=0, name="startup", seconds=1.0))  # goes on, and says so
        events.write(RankEnd(t=2.0, rank=0, status="done"))
        with suppress(OSError):  # what it holds back
            full.close()
    assert [one.t for one in iter_events(path)] == [1.0, 2.0]


def test_a_hang_at_the_end_is_seen_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    quick = Limits(startup=60, base=0.2)
    with log.open("w") as stream:
        with WatchedEvents(tmp_path / "events", Watchdog(stream, quick)) as events:
            events.write(RankEnd(t=0.0, rank=0, status="done"))
            time.sleep(0.6)
        assert "Timeout" in log.read_text()
