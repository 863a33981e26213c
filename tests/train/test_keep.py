"""Which checkpoints stay."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from clusterseg.runs.checkpoints import CheckpointInfo, checkpoint_name
from clusterseg.runs.records import CheckpointHeader
from clusterseg.spec.model import CheckpointSpec
from clusterseg.train.keep import to_delete


def info(
    step: int, *, accuracy: float = 0.0, epoch: int = 0, inside: int = 0, validated: bool = True,
    attempt: int = 0,
) -> CheckpointInfo:  # fmt: skip
    header = CheckpointHeader(
        epoch=epoch, step=step, step_in_epoch=inside, attempt=attempt, t=0,
        val_accuracy=accuracy, validated=validated,
    )  # fmt: skip
    number = step if inside or not validated else None
    name = checkpoint_name(epoch, accuracy, number)
    return CheckpointInfo(name, Path(name), header, "0" * 64, 1)


def deleted(checkpoints: list[CheckpointInfo], **spec: int) -> list[str]:
    own = frozenset(one.name for one in checkpoints)
    return to_delete(checkpoints, CheckpointSpec(**spec), own=own)


def test_the_three_rules_are_a_union() -> None:
    accuracy = {1: 0.3, 2: 0.9, 3: 0.8, 4: 0.2, 5: 0.1, 6: 0.4}
    epochs = [info(10 * n, epoch=n, accuracy=value) for n, value in accuracy.items()]
    gone = deleted(epochs, keep_best=2, keep_last=1, keep_every_epochs=4)
    kept = {one.header.epoch for one in epochs if one.name not in gone}
    assert kept == {2, 3, 4, 6}


def test_a_save_inside_an_epoch_is_not_among_the_best() -> None:
    end = info(10, epoch=1, accuracy=0.8)
    inside = [info(10 + n, epoch=1, accuracy=0.8, inside=n) for n in (1, 2, 3)]
    unvalidated = info(20, epoch=2, accuracy=0.8, validated=False)
    gone = deleted([end, *inside, unvalidated], keep_best=1, keep_last=1)
    assert gone == [one.name for one in inside]


def test_among_equals_the_earlier_is_the_best() -> None:
    epochs = [info(10 * n, epoch=n, accuracy=0.5) for n in (1, 2, 3)]
    assert deleted(epochs, keep_best=1, keep_last=1) == [epochs[1].name]


def test_a_resumed_run_keeps_the_best_of_before() -> None:
    best = info(10, epoch=1, accuracy=0.9, attempt=0)
    worse = [info(10 * n, epoch=n, accuracy=0.5, attempt=1) for n in (2, 3, 4)]
    assert best.name not in deleted([best, *worse], keep_best=1, keep_last=1)


def test_files_of_others_are_never_deleted() -> None:
    epochs = [info(10 * n, epoch=n, accuracy=0.5) for n in (1, 2, 3, 4)]
    own = frozenset({epochs[2].name})
    assert to_delete(epochs, CheckpointSpec(keep_best=0, keep_last=1), own=own) == [epochs[2].name]


@given(
    best=st.integers(0, 3),
    last=st.integers(1, 3),
    every=st.none() | st.integers(1, 3),
    made=st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=12),
)
def test_the_newest_stays_and_deleting_twice_changes_nothing(
    best: int, last: int, every: int | None, made: list[tuple[bool, float]]
) -> None:
    checkpoints = [
        info(n, epoch=n, accuracy=accuracy, inside=int(inside))
        for n, (inside, accuracy) in enumerate(made, 1)
    ]
    rules = {"keep_best": best, "keep_last": last, "keep_every_epochs": every}
    own = frozenset(one.name for one in checkpoints)
    gone = to_delete(checkpoints, CheckpointSpec(**rules), own=own)  # type: ignore[arg-type]
    left = [one for one in checkpoints if one.name not in gone]
    assert checkpoints[-last:] == left[-last:]
    assert len(left) >= min(len(checkpoints), last)
    assert to_delete(left, CheckpointSpec(**rules), own=own) == []  # type: ignore[arg-type]
    ends = [one for one in checkpoints if not one.header.step_in_epoch]
    if best and ends:
        top = max(one.header.val_accuracy for one in ends)
        assert top in {one.header.val_accuracy for one in left if not one.header.step_in_epoch}


def kept_by(
    steps: int, spec: CheckpointSpec, really: set[int], **known: frozenset[str]
) -> tuple[set[int], set[int]]:
    """The good ones among `steps` saves, before and after the rules."""
    checkpoints = [info(n, inside=n) for n in range(1, steps + 1)]
    gone = to_delete(checkpoints, spec, own=frozenset(one.name for one in checkpoints), **known)
    left = {one.header.step for one in checkpoints if one.name not in gone}
    return really & set(range(1, steps + 1)), really & left


@given(
    last=st.integers(1, 3),
    steps=st.integers(1, 12),
    good=st.sets(st.integers(1, 12), min_size=1),
)
def test_one_that_is_known_to_be_good_always_stays(last: int, steps: int, good: set[int]) -> None:
    spec = CheckpointSpec(keep_best=0, keep_last=last)
    names = frozenset(info(n, inside=n).name for n in good)
    before, after = kept_by(steps, spec, good, good=names)
    assert not before or after
    assert len(after) <= max(last, 1)
    assert not before or max(before) in after


def test_rules_that_do_not_know_what_is_good_may_keep_only_the_bad_one() -> None:
    """The negative twin: the newest is bad, and it alone stays."""
    spec = CheckpointSpec(keep_best=0, keep_last=1)
    assert kept_by(2, spec, {1}) == ({1}, set())
    assert kept_by(2, spec, {1}, good=frozenset({info(1, inside=1).name})) == ({1}, {1})
