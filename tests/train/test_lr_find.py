"""Real sweeps: alone in this process, and on two ranks under the real mpirun.

U-Net without dropout has no batch norm either, so that the number of ranks changes only the order
of sums.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from clusterseg.plan.model import LrRange
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.lr_find import Ending, LrFind, Sweep, read_lr_find
from clusterseg.runs.records import RankEnd, RankStart, Steps, Stop
from clusterseg.spec.model import TrainSpec
from clusterseg.spec.tables import OPTIMIZERS
from clusterseg.train.assembly import assemble
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.stopping import StopSources
from tests.train.attempts import StopAt
from tests.train.runs import Run, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 400  # seconds for something to happen on a busy machine
RANGE = LrRange(optimizers=("sgd", "adam"), lowest=1e-5, highest=10.0, steps=100)


def range_test(root: Path, data: Path, *, ranks: int = 1) -> Run:
    spec = job(data, batch_size=8 // ranks)
    options = {"base_filters": 4, "dropout": 0, "head_filters": None}
    spec["train"]["model"] = {"name": "unet", "options": options}
    communicator = "mpi" if ranks > 1 else "solo"
    return Run(root, spec, ranks=ranks, communicator=communicator, plan={"lr_find": RANGE})


def attempt(run: Run, stops: StopSources | None = None) -> str | None:
    """Claims and runs the next attempt in this process."""
    from clusterseg.train.job import read_job
    from clusterseg.train.lr_find import LrFinder

    number = run.claim().attempt
    environ = {"CLUSTERSEG_ATTEMPT": str(number)}
    with EventWriter(run.paths.attempt(number).events(0)) as events:
        rank_job = read_job(run.root, environ)
        stops = stops or StopSources(None)
        return LrFinder(rank_job, SoloCommunicator(), events, stops, threads=1).run()


def found(run: Run) -> LrFind:
    read = read_lr_find(run.paths)
    assert read is not None
    return read


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Run:
    run = range_test(tmp_path_factory.mktemp("lr-find") / "run", data)
    assert attempt(run) is None
    return run


def test_each_optimizer_begins_with_the_same_fresh_model_and_finds_a_rate(alone: Run) -> None:
    result = found(alone)
    assert (result.ranks, result.global_batch) == (1, 8)
    assert [one.optimizer for one in result.sweeps] == ["sgd", "adam"]
    sgd, adam = result.sweeps
    assert sgd.losses[0] == adam.losses[0]
    assert sgd.losses[1:5] != adam.losses[1:5]
    for sweep in result.sweeps:
        assert sweep.rates[0] == RANGE.lowest
        assert sweep.ended is Ending.DIVERGED or len(sweep.rates) == RANGE.steps
        assert sweep.suggestion is not None, sweep.why
        assert sweep.suggestion.setting == sweep.suggestion.learning_rate
        assert RANGE.lowest < sweep.suggestion.learning_rate < RANGE.highest


@pytest.fixture(scope="module")
def each(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Sweep]:
    """Of every optimizer that there is, one after the other; those of `alone` come last."""
    names = sorted(OPTIMIZERS, key=lambda name: name in RANGE.optimizers)
    run = range_test(tmp_path_factory.mktemp("each") / "run", data)
    run.plan["lr_find"] = msgspec.structs.replace(RANGE, optimizers=tuple(names))
    assert attempt(run) is None
    sweeps = found(run).sweeps
    assert [one.optimizer for one in sweeps] == names
    return {one.optimizer: one for one in sweeps}


@pytest.mark.proof
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_a_curve_that_falls_and_a_rate_that_makes_it_fall(
    each: dict[str, Sweep], name: str
) -> None:
    sweep = each[name]
    assert all(map(math.isfinite, sweep.losses)) and sweep.ended is not Ending.STOPPED
    first = sweep.losses[0]
    assert first == each["sgd"].losses[0]  # the same model, and the same batch
    assert sweep.losses[4] == pytest.approx(first, rel=0.2)  # the lowest rates do little
    assert min(sweep.smooth_losses) < 0.98 * first
    suggested = sweep.suggestion
    assert suggested is not None, sweep.why
    assert RANGE.lowest <= suggested.begin <= suggested.learning_rate < suggested.minimum
    assert suggested.minimum < RANGE.highest


def test_a_sweep_leaves_nothing_to_those_after_it(each: dict[str, Sweep], alone: Run) -> None:
    for sweep in found(alone).sweeps:
        assert each[sweep.optimizer].losses == sweep.losses
    assert each["adamw"].losses == each["adam"].losses  # without decay it is the same
    different = {name: tuple(sweep.losses[1:20]) for name, sweep in each.items()}
    assert len(set(different.values())) == len(OPTIMIZERS) - 1


@pytest.mark.proof
def test_two_ranks_find_what_one_does_with_other_optimizers(
    each: dict[str, Sweep], data: Path, tmp_path: Path
) -> None:
    names = ("sgd_nesterov", "adagrad")
    run = range_test(tmp_path / "run", data, ranks=2)
    run.plan["lr_find"] = msgspec.structs.replace(RANGE, optimizers=names)
    assert run.run() == 0, run.log()
    for name, right in zip(names, found(run).sweeps, strict=True):
        left = each[name]
        assert left.suggestion is not None and right.suggestion is not None
        count = sum(rate <= left.suggestion.learning_rate for rate in left.rates)
        assert count >= 15 and right.losses[:count] == pytest.approx(left.losses[:count], rel=1e-3)
        # Adagrad divides by the size of gradients, as Adam does: beyond that the curves differ.
        # Each suggests a rate at which the other's loss falls.
        both = (left.suggestion, right.suggestion)
        for one, other in (both, both[::-1]):
            assert other.begin <= one.learning_rate <= other.minimum
    nesterov = each["sgd_nesterov"].suggestion, found(run).sweeps[0].suggestion
    assert nesterov[0] is not None and nesterov[1] is not None
    assert nesterov[1].learning_rate == pytest.approx(nesterov[0].learning_rate, rel=1e-2)


def test_it_leaves_a_picture_and_events_and_no_checkpoint(alone: Run) -> None:
    assert alone.paths.lr_find_plot.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert alone.paths.lr_find.stat().st_mode & 0o777 == 0o600
    assert list(alone.paths.checkpoints.iterdir()) == []
    taken = [step for window in alone.windows() for step in steps_of(window)]
    assert taken == list(range(1, sum(len(one.rates) for one in found(alone).sweeps) + 1))
    rates = {rate for one in found(alone).sweeps for rate in one.rates}
    assert {window.learning_rate for window in alone.windows()} <= rates
    assert alone.windows()[0].count == 1


def steps_of(window: Steps) -> range:
    return range(window.step - window.count + 1, window.step + 1)


def test_stopped_it_keeps_whole_sweeps_and_the_next_attempt_does_the_rest(
    alone: Run, data: Path, tmp_path: Path
) -> None:
    first = len(found(alone).sweeps[0].rates)
    run = range_test(tmp_path / "run", data)
    # A look before each sweep and one at each step: in the 6th step of the second sweep.
    assert attempt(run, StopAt(1 + first + 1 + 5)) == "SIGUSR1"
    sgd, adam = found(run).sweeps
    assert (adam.ended, len(adam.rates), adam.suggestion) == (Ending.STOPPED, 6, None)
    assert run.paths.lr_find_plot.exists()
    assert attempt(run) is None
    assert [one.attempt for one in found(run).sweeps] == [0, 1]
    assert found(run).sweeps[0] == sgd
    assert [one.losses for one in found(run).sweeps] == [one.losses for one in found(alone).sweeps]
    taken = sum(window.count for window in run.windows())
    assert taken == len(found(run).sweeps[1].rates)


def test_asked_before_anything_begins_it_takes_no_step(data: Path, tmp_path: Path) -> None:
    run = range_test(tmp_path / "run", data)
    assert attempt(run, StopAt(0)) == "SIGUSR1"
    assert run.windows() == [] and not run.paths.lr_find.exists()


def test_a_loss_that_is_not_a_number_ends_the_sweep_and_the_next_one_begins_fresh(
    alone: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterseg.train import lr_find

    def poisoned(spec: Any, *arguments: Any, **options: Any) -> Any:
        """The optimizer sgd has weights that are no numbers after its 30th step."""
        whole = assemble(spec, *arguments, **options)
        taken = 0

        def step(*batch: Any, **options: Any) -> Any:
            nonlocal taken
            taken += 1
            outcome = whole.train_step(*batch, **options)
            if spec.optimizer.name == "sgd" and taken == 30:
                for variable in whole.state.trainable:
                    variable.assign(variable * math.nan)
            return outcome

        return replace(whole, train_step=step)

    assemble = lr_find.assemble
    monkeypatch.setattr(lr_find, "assemble", poisoned)
    run = range_test(tmp_path / "run", data)
    assert attempt(run) is None
    sgd, adam = found(run).sweeps
    assert (sgd.ended, len(sgd.losses)) == (Ending.NOT_FINITE, 30)
    assert adam.losses == found(alone).sweeps[1].losses
    data_ = msgspec.json.decode(run.paths.lr_find.read_bytes())  # JSON knows no NaN
    assert len(data_["sweeps"]) == 2


def test_two_ranks_stop_together_and_find_what_one_does(
    alone: Run, data: Path, tmp_path: Path
) -> None:
    run = range_test(tmp_path / "run", data, ranks=2)
    process = run.start()
    until = time.monotonic() + PATIENCE
    while not run.windows(0):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    (start,) = [one for one in run.events(1) if isinstance(one, RankStart)]
    os.kill(start.pid, signal.SIGUSR1)
    assert process.wait(PATIENCE) == 75, run.log()
    ends = [run.events(rank)[-2:] for rank in (0, 1)]
    for stop, end in ends:
        assert isinstance(stop, Stop) and isinstance(end, RankEnd)
        assert (stop.reason, end.status, end.step) == ("SIGUSR1", "stopped", ends[0][0].step)
    assert [one.ended for one in found(run).sweeps][-1] is Ending.STOPPED

    assert run.run() == 0, run.log()
    assert list(run.paths.checkpoints.iterdir()) == []
    one, two = found(alone), found(run)
    assert (two.ranks, two.global_batch, two.scale_with_ranks) == (2, 8, True)
    for left, right in zip(one.sweeps, two.sweeps, strict=True):
        # Whether the loss leaves the range before its end is decided at rates where all is chaos.
        assert left.optimizer == right.optimizer and Ending.STOPPED not in (left.ended, right.ended)
        assert left.suggestion is not None and right.suggestion is not None
        # Adam divides a gradient by its size: those that are nothing but rounding grow, too. What
        # differs in the last bit then differs more from step to step, sooner than with SGD.
        sane = left.suggestion.learning_rate if left.optimizer == "sgd" else 1e-4
        count = sum(rate <= sane for rate in left.rates)
        assert count >= 15 and right.rates[:count] == left.rates[:count]
        assert right.losses[:count] == pytest.approx(left.losses[:count], rel=1e-3)
        of_one = right.suggestion.learning_rate / 2
        assert right.suggestion.setting == pytest.approx(of_one)
    sgd = [result.sweeps[0].suggestion for result in (one, two)]
    assert sgd[0] is not None and sgd[1] is not None
    assert sgd[1].learning_rate == pytest.approx(sgd[0].learning_rate, rel=1e-2)


def test_a_sample_that_is_left_out_counts_in_no_sweep_and_no_class_weight(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    masks = sorted((root / "trainannot").iterdir())
    masks[3].write_bytes(b"no picture")
    run = range_test(tmp_path / "run", root)
    run.spec["train"]["data"]["on_unreadable"] = "skip"
    run.spec["train"]["loss"] = {"class_weights": "balanced"}
    run.plan["lr_find"] = msgspec.structs.replace(RANGE, highest=1e-3, steps=10)
    assert attempt(run) is None
    assert [len(one.rates) for one in found(run).sweeps] == [10, 10]
    # 36 samples in steps of 8: two epochs of 35, each in 5 steps, the last with padding.
    assert sum(window.images for window in run.windows()) == 2 * 2 * 35
    assert capfd.readouterr().err.count("left out") == 1  # not once a sweep


def test_each_sweep_begins_with_the_weights_that_the_job_begins_with(
    data: Path, tmp_path: Path
) -> None:
    run = range_test(tmp_path / "run", data)
    spec = msgspec.convert(run.spec["train"], TrainSpec)
    state = assemble(spec, SoloCommunicator(), flags=0, threads=1).state
    nothing = {
        name: np.zeros(variable.shape, np.float32)
        for name, variable in state.variables.items()
        if name.startswith("model/")
    }
    save_file(nothing, tmp_path / "zeros.safetensors")
    run.spec["train"]["initial_weights"] = str(tmp_path / "zeros.safetensors")
    run.plan["lr_find"] = msgspec.structs.replace(RANGE, highest=1e-4, steps=2)
    assert attempt(run) is None
    # All classes are alike to a network of zeros.
    evenly = math.log(state.model.output_shape[-1])
    assert [one.losses[0] for one in found(run).sweeps] == pytest.approx([evenly, evenly], abs=1e-4)


def test_a_gradient_that_is_not_finite_ends_the_sweep_since_nothing_was_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterseg.train import lr_find

    def overflowing(*arguments: Any, **options: Any) -> Any:
        """From the third step on: the loss is still a number."""
        whole = assemble(*arguments, **options)
        taken = iter(range(100))

        def step(*batch: Any, **options: Any) -> Any:
            return replace(whole.train_step(*batch, **options), finite=next(taken) < 2)

        return replace(whole, train_step=step)

    monkeypatch.setattr(lr_find, "assemble", overflowing)
    run = range_test(tmp_path / "run", data)
    run.plan["lr_find"] = LrRange(optimizers=("sgd",), lowest=1e-5, highest=1e-4, steps=5)
    assert attempt(run) is None
    (sweep,) = found(run).sweeps
    assert (sweep.ended, len(sweep.losses)) == (Ending.NOT_FINITE, 3)
