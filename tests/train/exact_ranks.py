"""A rank of `test_exact_ranks`: attempts of several runs one after the other, since each start of
a rank loads TensorFlow; and what is done to them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from tests.train.runs import Run

PROGRAM = "from tests.train.exact_ranks import main; main()"
FIRST_SCALE, STEPS_TO_DOUBLE = (
    2.0**20,
    3,
)  # too high at first, and soon doubled: it goes down and up


class Part(msgspec.Struct):
    """One attempt of the run in `root`, which is claimed.

    `kill`: the rank that dies by SIGKILL, and before which of its steps and validation batches,
    counted together from 0. `left_out`: a piece of state that is not restored. `same_masks`: the
    dropout of every rank is that of the first. `samples`: where what is read is written, in a file
    for each rank.
    """

    root: str
    attempt: int
    kill: tuple[int, int] | None = None
    left_out: str = ""
    same_masks: bool = False
    samples: str = ""


def part(run: Run, **what: Any) -> Part:
    """Claims the next attempt of the run."""
    return Part(str(run.root), run.claim().attempt, **what)


def main() -> None:
    """The parts in the environment; ends with the code of the first that is not done."""
    from clusterseg.train.communicator.mpi import MpiCommunicator
    from clusterseg.train.rank import run
    from tests.train.exact_settings import small_networks

    close, code = MpiCommunicator.close, 0
    with small_networks(), mock.patch.object(MpiCommunicator, "close", MpiCommunicator.barrier):
        for one in msgspec.json.decode(os.environ["EXACT_PARTS"], type=list[Part]):
            os.environ["CLUSTERSEG_ATTEMPT"] = str(one.attempt)
            os.environ.pop("CLUSTERSEG_STOP_FILE", None)
            with done_to(one):
                code = run(Path(one.root))
            if code:
                break
    close(MpiCommunicator(0))  # MPI is finalised once
    sys.exit(code)


@contextmanager
def done_to(one: Part) -> Iterator[None]:
    """What the part says is done to the attempt that runs inside."""
    from clusterseg.train import rank
    from clusterseg.train.batching import Batching
    from clusterseg.train.state import TrainState
    from tests.train.exact import without

    own, prepare = int(os.environ["OMPI_COMM_WORLD_RANK"]), rank._prepare

    def mortal(*arguments: Any, **named: Any) -> Any:
        loop = prepare(*arguments, **named)
        if one.kill is not None and one.kill[0] == own:
            dies = dying(one.kill[1])
            loop._assembly = replace(
                loop._assembly,
                train_step=dies(loop._assembly.train_step),
                evaluation_step=dies(loop._assembly.evaluation_step),
            )
        return loop

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(rank, "_prepare", mortal))
        if one.left_out:
            stack.enter_context(mock.patch.object(TrainState, "load", without(one.left_out)))
        if one.same_masks:
            stack.enter_context(mock.patch.object(Batching, "first_of", lambda self, rank: 0))
        if one.samples:
            stack.enter_context(samples_told(Path(f"{one.samples}-{own}.samples")))
        yield


def dying(after: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wraps functions, of which the call number `after` of all kills this process instead."""
    calls = 0

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            if calls == after:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return function(*arguments, **named)

        return call

    return wrapped


@contextmanager
def samples_told(path: Path) -> Iterator[None]:
    """Every step of training inside adds [epoch, its samples] to the file, a line each."""
    from clusterseg.train import batches
    from clusterseg.train.feeder import Feeder

    indices, next_step, done = batches.training_indices, batches.next_step, Feeder.done
    rows: list[tuple[int, list[int]]] = []
    fetched: list[str] = []  # the feeder's thread is one step ahead

    def told(*, epoch: int, **others: Any) -> Any:
        found = indices(epoch=epoch, **others)
        rows[:] = [(epoch, [int(one) for one in row if one >= 0]) for row in found]
        fetched.clear()
        return found

    def stepped(elements: Any, shares: int) -> Any:
        now = [rows.pop(0) for _ in range(shares)]
        fetched.append(json.dumps([now[0][0], [one for _, row in now for one in row]]) + "\n")
        return next_step(elements, shares)

    def used(self: Feeder[Any]) -> None:
        if isinstance(self._current, batches.StepBatch):
            with path.open("a") as file:
                file.write(fetched.pop(0))
        done(self)

    with (
        mock.patch.object(batches, "training_indices", told),
        mock.patch.object(batches, "next_step", stepped),
        mock.patch.object(Feeder, "done", used),
    ):
        yield


def samples(*paths: Path) -> list[tuple[int, list[int]]]:
    """What all ranks together read in each step: (epoch, samples in ascending order)."""
    ranks = [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]
    return [
        (together[0][0], sorted(int(one) for _, read in together for one in read))
        for together in zip(*ranks, strict=True)
    ]


def values(tensors: dict[str, bytes]) -> dict[str, np.ndarray]:
    """The float32 ones of a checkpoint of the small network."""
    return {
        name: np.frombuffer(data, np.float32)
        for name, data in tensors.items()
        if name.startswith(("model/", "ema/", "optimizer/momentums", "optimizer/velocities"))
    }
