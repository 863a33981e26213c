"""What exactness is proved with: places to stop and to kill a run at, and what it leaves behind,
compared bit by bit."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from clusterseg.runs.checkpoint_file import read_verified
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.records import CheckpointHeader
from clusterseg.train.state import TrainState
from tests.train.attempts import Attempts, Killed, StopAt
from tests.train.exact_settings import (
    BAD,
    EPOCHS,
    STEPS,
    WARMUP,
    Setting,
    is_statistic,
    job_of,
)
from tests.train.runs import Run


class Look(NamedTuple):
    """A moment at which a rank asks to stop: after step `step` of the run, or, where `batch` is
    a number, in the validation that follows it, before that batch; or after the last one, where
    only a kill is heeded: what is computed is not thrown away for a stop."""

    step: int
    batch: int | None


class Interruption(NamedTuple):
    """At the look `place` of the run, counted from 0."""

    place: int
    kill: bool


@dataclass(frozen=True)
class Looks:
    """All looks of a run whose validations have `batches` batches; but for the one with which
    each attempt begins."""

    batches: int

    @property
    def of_an_epoch(self) -> int:
        return STEPS + self.batches + 1

    def all(self) -> list[Look]:
        return [
            one
            for epoch in range(EPOCHS)
            for one in [
                *(Look(epoch * STEPS + step + 1, None) for step in range(STEPS)),
                *(Look((epoch + 1) * STEPS, batch) for batch in range(self.batches + 1)),
            ]
        ]

    def next_of(self, header: CheckpointHeader | None) -> int:
        """The place of the first look that an attempt takes which goes on from there."""
        if header is None:
            return 0
        behind = header.epoch * self.of_an_epoch + header.step_in_epoch
        return behind if header.validated else behind - self.batches - 1

    def interruptions(self, seed: int) -> list[Interruption]:
        """Stops in the warm-up, twice inside one epoch, at the end of one, and in a validation;
        between them kills, each at a place drawn anew."""
        draw = random.Random(seed)
        twice, end, validation = draw.sample(range(EPOCHS), EPOCHS)
        inside = draw.sample(range(WARMUP - 1, STEPS - 1), 2)
        whole = self.of_an_epoch
        stops = {
            draw.randrange(WARMUP - 1),
            *(twice * whole + step for step in inside),
            end * whole + STEPS - 1,
            validation * whole + STEPS + draw.randrange(self.batches),
        }
        found, last = [], -1
        for place in sorted(stops):
            if last + 1 < place and draw.random() < 0.5:
                found.append(Interruption(draw.randrange(last + 1, place), kill=True))
            found.append(Interruption(place, kill=False))
            last = place
        return found


class KillAt(StopAt):
    """Dies at the n-th look."""

    def flags(self) -> list[bool]:
        if any(super().flags()):
            raise Killed
        return [False] * 3


class Saved(NamedTuple):
    """A checkpoint without what is another in another run: times, and the attempt."""

    tensors: dict[str, bytes]
    header: dict[str, Any]


def saved(path: Path) -> Saved:
    layout, data = read_verified(path)
    header = msgspec.to_builtins(layout.header)
    for name in ("t", "times", "attempt"):
        del header[name]
    del header["epoch_sums"]["seconds"]
    for entry in header["history"]:
        del entry["seconds"], entry["images_per_second"], entry["straggler_score"]
    return Saved(
        {name: bytes(data[one.begin : one.end]) for name, one in layout.tensors.items()}, header
    )


def trail(run: Run) -> dict[tuple[int, bool], Saved]:
    """All checkpoints that a run left, by step and whether the epoch behind was validated."""
    files = list_checkpoints(run.paths.checkpoints)
    return {(one.header.step, one.header.validated): saved(one.path) for one in files}


def scale_changes(found: dict[tuple[int, bool], Saved]) -> set[float]:
    """By what the scale of the loss was multiplied from one checkpoint to the next."""
    saved = [found[place].tensors["scale/value"] for place in sorted(found)]
    values = [float(np.frombuffer(one, np.float32)[0]) for one in saved]
    return {later / earlier for earlier, later in pairwise(values)}


def differences(found: dict[Any, Saved], wanted: dict[Any, Saved]) -> list[str]:
    """What differs, in the checkpoints that both runs have: `<step> <tensor or key>`."""
    if max(found) not in wanted:
        return [f"the end, {max(found)}"]
    return [
        f"{place[0]} {name}"
        for place in sorted(found.keys() & wanted.keys())
        for one, other in zip(found[place], wanted[place], strict=True)
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def piece_of(name: str) -> str:
    """The piece of state that the tensor `name` belongs to: one slot, the kernels, …"""
    first, second, *rest = name.split("/")
    match first:
        case "generator":
            return first
        case "optimizer" | "scale":
            return f"{first}/{second}"
        case _:
            return f"{first}/{rest[-1]}"


def without(
    piece: str, built: dict[str, np.ndarray] | None = None
) -> Callable[[TrainState, str, Any, memoryview], None]:
    """`TrainState.load` that leaves a piece as a new process has it: as `built`, or as it is."""
    load = TrainState.load

    def partial(self: TrainState, name: str, layout: Any, data: memoryview) -> None:
        left = {key: one for key, one in self.variables.items() if piece_of(key) == piece}
        kept = {key: np.array(one.numpy()) if built is None else built[key]
                for key, one in left.items()}  # fmt: skip
        load(self, name, layout, data)
        assert any(not np.array_equal(one.numpy(), kept[key]) for key, one in left.items())
        for key, one in left.items():
            one.assign(kept[key])

    return partial


@dataclass
class Subject:
    """A setting with its assembly, and the tensors of a process that has read no checkpoint."""

    setting: Setting
    attempts: Callable[[str], Attempts]
    built: dict[str, np.ndarray]
    looks: Looks

    @cached_property
    def whole(self) -> dict[tuple[int, bool], Saved]:
        """The trail of a run that nobody disturbs, saved after every step."""
        run = self.attempts("whole")
        run.run.spec = {**run.run.spec, "checkpoint": {"every": {"steps": 1}, "keep_last": 100}}
        assert run.attempt() is None
        found = trail(run.run)
        assert {step for step, _ in found} == set(range(1, EPOCHS * STEPS + 1))
        return found

    def stopped(self, name: str, look: Look) -> Attempts:
        return self.interrupted(name, [Interruption(self.looks.all().index(look), kill=False)])

    def copy(self, of: Attempts, name: str) -> Attempts:
        """A run that stands where `of` was stopped."""
        run = self.attempts(name)
        shutil.copytree(of.run.root, run.run.root)
        run.run.attempt, run.run.claims = of.run.attempt, list(of.run.claims)
        return run

    def interrupted(self, name: str, interruptions: list[Interruption]) -> Attempts:
        """Stopped and killed at these looks, and not gone on with after the last of them."""
        run = self.attempts(name)
        for one in interruptions:
            newest = list_checkpoints(run.run.paths.checkpoints)
            away = one.place - self.looks.next_of(newest[-1].header if newest else None)
            try:
                reason = run.attempt((KillAt if one.kill else StopAt)(away + 1))
            except Killed:
                assert one.kill
                continue
            assert reason == "SIGUSR1" and not one.kill
            header = list_checkpoints(run.run.paths.checkpoints)[-1].header
            look = self.looks.all()[one.place]
            assert header.step == look.step
            assert header.validated == (header.step % STEPS > 0)
        return run


def subject(setting: Setting, data: Path, root: Path) -> Subject:
    """Builds it, in this process, on one rank."""
    from clusterseg.spec.model import TrainSpec
    from clusterseg.train import wishes
    from clusterseg.train.assembly import assemble
    from clusterseg.train.communicator.solo import SoloCommunicator
    from tests.train.test_not_finite import poison

    spec = job_of(setting, data)
    train = msgspec.convert(spec["train"], TrainSpec)
    assembly = assemble(train, SoloCommunicator(), flags=wishes.COUNT, threads=1)
    if "nan" in setting.on.split():
        assembly = replace(assembly, train_step=poison(assembly.train_step, set(BAD)))
    built = {name: np.array(one.numpy()) for name, one in assembly.state.variables.items()}
    first = dict(built)
    if "frozen" in setting.on.split():  # as from a file: what is frozen is not as it was built
        draw = np.random.default_rng(0)
        for name in filter(is_statistic, built):
            noise = draw.uniform(0, 0.5, built[name].shape).astype(built[name].dtype)
            first[name] = built[name] + noise

    def attempts(name: str) -> Attempts:
        return Attempts(Run(root / name, spec), assembly, first)

    return Subject(setting, attempts, built, Looks(-(-9 // train.batch_size)))
