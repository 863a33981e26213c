"""Exactly resumed, with everything that is state: interrupted anywhere, any number of times, a run
is bit-equal to one that never was, in every checkpoint; and each piece of state that a resume
would leave out shows in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from clusterseg.spec.tables import OPTIMIZERS, SCHEDULES
from clusterseg.train import batches, feeding, loop, waiting
from clusterseg.train.failures import TrainingError
from clusterseg.train.progress import Progress
from clusterseg.train.state import TrainState
from tests.train.attempts import Attempts, StopAt
from tests.train.exact import (
    Look,
    Looks,
    Subject,
    differences,
    piece_of,
    scale_changes,
    subject,
    trail,
    without,
)
from tests.train.exact_settings import (
    BAD,
    EPOCHS,
    SETTINGS,
    STEPS,
    SWITCHES,
    WARMUP,
    Setting,
    is_statistic,
    small_networks,
)

pytestmark = pytest.mark.timeout(900)

INSIDE = Look(7, None)  # in the second epoch: there are history and best, and a place in the data
VALIDATING = Look(12, 1)
UNTIL = Look(13, None)
# Set before each step: what they hold is lost with no harm, and how they are set has its own twin.
SET_ANEW = {"generator", "optimizer/learning_rate"}

SCALED, FROZEN, MASKED = SETTINGS[0], SETTINGS[3], SETTINGS[8]


def test_the_settings_have_everything_and_every_pair_of_switches() -> None:
    assert {one.optimizer for one in SETTINGS} == {n for n, one in OPTIMIZERS.items() if one.ready}
    assert {one.schedule for one in SETTINGS} == {n for n, one in SCHEDULES.items() if one.ready}
    on = [set(one.on.split()) for one in SETTINGS]
    assert set().union(*on) == set(SWITCHES)
    for one, other in combinations(SWITCHES, 2):
        assert len({(one in each, other in each) for each in on}) == 4, (one, other)
    for switch in SWITCHES:
        kinds = {(one.precision, switch in each) for one, each in zip(SETTINGS, on, strict=True)}
        assert len(kinds) == 6, switch
    assert {"ema", "nan"} < set(SCALED.on.split()) and SCALED.precision == "float16"
    assert {"ema", "nan", "frozen", "augment", "warmup"} < set(FROZEN.on.split())
    assert FROZEN.precision == "float32" and "dropout" in MASKED.on.split()


@pytest.mark.parametrize("seed", range(50))
def test_interruptions_are_of_every_kind(seed: int) -> None:
    looks = Looks(batches=2)
    drawn = looks.interruptions(seed)
    assert drawn == looks.interruptions(seed)  # fixed
    places = [one.place for one in drawn]
    assert places == sorted(set(places))
    stops = [looks.all()[one.place] for one in drawn if not one.kill]
    steps = [one.step for one in stops if one.batch is None]
    assert min(steps) < WARMUP
    inside = [(step - 1) // STEPS for step in steps if step % STEPS]
    assert max(inside.count(epoch) for epoch in inside) >= 2
    assert any(step % STEPS == 0 for step in steps)
    assert any(one.batch is not None for one in stops)
    assert any(one.kill for number in range(8) for one in looks.interruptions(seed + number))


@pytest.fixture(autouse=True)
def _agree_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a validation: by the clock, looks could not be counted."""
    monkeypatch.setattr(waiting, "CADENCE", 0.0)


@pytest.fixture(scope="module")
def subjects(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Setting], Subject]]:
    with small_networks():
        yield cache(lambda setting: subject(setting, data, tmp_path_factory.mktemp("exact")))


def check_that_it_has_what_it_says(one: Subject) -> None:
    """What is to come back from a checkpoint has moved at all."""
    end, on = one.whole[max(one.whole)], one.setting.on.split()
    assert len(end.header["history"]) == EPOCHS and end.header["best"] is not None
    assert ("ema/three/kernel" in end.tensors) == ("ema" in on)
    if one.setting.precision == "float16":
        assert scale_changes(one.whole) == {0.5, 1.0, 2.0}
    elif "nan" in on:
        assert end.header["skipped"] == sorted(BAD)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(number, marks=pytest.mark.proof) for number in range(1, 5))]
)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_interrupted_anywhere_every_checkpoint_is_bit_equal(
    subjects, setting: Setting, seed: int
) -> None:
    one = subjects(setting)
    check_that_it_has_what_it_says(one)
    drawn = one.looks.interruptions(seed * len(SETTINGS) + SETTINGS.index(setting))
    run = one.interrupted(f"cut-{seed}", drawn)
    assert run.run.attempt == len(drawn) - 1 >= 4
    assert run.attempt() is None
    found = trail(run.run)
    assert len(found) >= 6 and max(found) == max(one.whole)
    assert differences(found, one.whole) == []


# The negative twins: each leaves one piece of state out, or goes by a wrong position.
def seen(twin: Attempts, one: Subject, first: Look = INSIDE) -> list[str]:
    """What is another thing in the checkpoints of a twin, which goes on into the third epoch."""
    looks = one.looks.all()
    # A validation begins anew, whichever batch it was stopped at.
    place = looks.index(first) + 1 if first.batch is None else looks.index(Look(first.step, 0))
    try:
        twin.attempt(StopAt(looks.index(UNTIL) - place + 1))
    except TrainingError as error:
        return [error.message]
    return differences(trail(twin.run), one.whole)


def pieces_to_show(one: Subject) -> list[str]:
    """The optimizer's; and the weights, averages and the scale, where there are all of them, and
    what is frozen, where something is."""

    def to_show(piece: str) -> bool:
        frozen = one.setting is FROZEN and piece.startswith("model/") and is_statistic(piece)
        return piece.startswith("optimizer/") or one.setting is SCALED or frozen

    return sorted(filter(to_show, {piece_of(name) for name in one.built} - SET_ANEW))


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting", {one.optimizer: one for one in reversed(SETTINGS)}.values(), ids=str
)
def test_each_piece_that_is_left_out_shows(
    subjects, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subjects(setting)
    stopped = one.stopped("stopped", INSIDE)
    assert seen(one.copy(stopped, "exact"), one) == []
    for piece in pieces_to_show(one):
        with monkeypatch.context() as patch:
            patch.setattr(TrainState, "load", without(piece, one.built))
            found = seen(one.copy(stopped, piece.replace("/", "-")), one)
        assert found, piece
        if piece.startswith(("optimizer/", "model/")) and piece != "optimizer/iteration":
            assert any(" model/" in each for each in found), (piece, found)  # not only in itself


def new_progress() -> dict[str, Any]:
    """Of each part of the position what a run has at its beginning."""
    return {
        each.name: each.default if each.default is not MISSING else each.default_factory()  # type: ignore[misc]
        for each in fields(Progress)
        if each.name != "seconds"  # another number in every run
    }


@pytest.mark.slow
def test_each_part_of_the_position_that_is_left_out_shows(
    subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subjects(FROZEN)
    inside, validating = one.stopped("at-step", INSIDE), one.stopped("at-batch", VALIDATING)
    assert seen(one.copy(validating, "exact-too"), one, VALIDATING) == []
    original = Progress.from_header.__func__  # type: ignore[attr-defined]
    for name, value in new_progress().items():

        def forgetful(cls: type[Progress], header: Any, name=name, value=value) -> Progress:
            progress: Progress = original(cls, header)
            assert getattr(progress, name) != value
            setattr(progress, name, value)
            return progress

        # These count, or are something, only between an epoch's last step and its validation.
        between = name in {"validated", "learning_rate", "skipped_steps"}
        first, place = (validating, VALIDATING) if between else (inside, INSIDE)
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "from_header", classmethod(forgetful))
            assert seen(one.copy(first, f"lost-{name}"), one, place), name


def counted_from_the_resume(key: str, original: Callable[..., Any], behind: int) -> Any:
    """Of the same signature; what it is told by the name of `key` is what was done since then."""

    def forgetful(*arguments: Any, **named: Any) -> Any:
        return original(*arguments, **{**named, key: max(0, named[key] - behind)})

    return forgetful


@pytest.mark.slow
def test_a_schedule_masks_order_and_augmentation_that_begin_anew_show(
    subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is a function of the position is in no checkpoint: it is to be one."""
    one = subjects(MASKED)
    stopped = one.stopped("to-begin-anew", INSIDE)
    seeds = loop.generator_seeds

    def of_the_attempt(seed: int, step: int, first: int, number: int) -> Any:
        return seeds(seed, step - INSIDE.step, first, number)

    twins = {
        "generator_seeds": (loop, of_the_attempt),
        "learning_rate": (
            loop,
            counted_from_the_resume("step", loop.learning_rate, INSIDE.step),
        ),
        "training_indices": (
            batches,
            counted_from_the_resume("epoch", batches.training_indices, 1),
        ),
        "batches": (feeding, counted_from_the_resume("epoch", feeding.batches, 1)),
    }
    for name, (module, forgetful) in twins.items():
        with monkeypatch.context() as patch:
            patch.setattr(module, name, forgetful)
            found = seen(one.copy(stopped, name), one)
        assert any(" model/" in each for each in found), name
