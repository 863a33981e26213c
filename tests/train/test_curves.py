"""The trainer's own curves: stopped and killed anywhere they are those of a run that was not."""

from __future__ import annotations

import csv
import io
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.records import Checkpoint, Event, Steps
from clusterseg.train.board.board import Board
from tests.train.attempts import Attempts, Killed, KilledAt, StopAt
from tests.train.records import read_board
from tests.train.runs import Run, job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS, STEPS = 3, 27
OF_EPOCHS = {"epoch", "val_loss", "val_accuracy", "val_mean_iou"}
PICTURES = {"input", "label", "prediction", "overlay"}


@pytest.fixture(scope="module")
def fresh(assembly) -> dict[str, Any]:
    return {name: np.array(variable.numpy()) for name, variable in assembly.state.variables.items()}


@pytest.fixture
def attempts(data: Path, assembly, fresh, tmp_path: Path) -> Callable[..., Attempts]:
    def make(every: int = 1000) -> Attempts:
        spec = job(data)
        spec["checkpoint"] = {"every": {"steps": every}}
        return Attempts(Run(tmp_path / "run", spec), assembly, fresh)

    return make


@pytest.fixture(scope="module")
def undisturbed(data: Path, assembly, fresh, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("whole") / "run", job(data))
    assert Attempts(run, assembly, fresh).attempt(board=True) is None
    return run


def curves(run: Run) -> dict[str, list[tuple[int, Any]]]:
    return read_board(run.paths.tensorboard)


def rows(run: Run) -> list[dict[str, str]]:
    """curves.csv without times."""
    found = list(csv.DictReader(io.StringIO(run.paths.curves.read_text())))
    for row in found:
        assert float(row.pop("seconds")) > 0 and float(row.pop("images_per_second")) > 0
    return found


def counting_windows(run: Run) -> list[Steps]:
    """The windows that no later attempt did anew."""
    found: list[Steps] = []
    for number, claim in enumerate(run.claims):
        found = [one for one in found if one.step <= claim.resume_step]
        found += run.windows(attempt=number)
    return found


def check(run: Run, undisturbed: Run) -> None:
    check_steps(run)
    found, whole = curves(run), curves(undisturbed)
    assert set(found) == set(whole)
    for tag, points in found.items():
        if tag in OF_EPOCHS or tag.startswith("iou/"):
            assert points == whole[tag]
    assert rows(run) == rows(undisturbed)


def check_steps(run: Run) -> None:
    """No curve goes back, and each window that counts has its points."""
    found, windows = curves(run), counting_windows(run)
    for tag, points in found.items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), f"{tag} goes back"
    assert [step for step, _ in found["learning_rate"]] == [one.step for one in windows]
    assert found["loss"] == [(one.step, np.float32(one.loss)) for one in windows]


def test_an_undisturbed_run_shows_everything(undisturbed: Run, assembly) -> None:
    found = curves(undisturbed)
    names = assembly.dataset.class_names
    assert OF_EPOCHS | {"learning_rate", "loss", "images_per_second"} < set(found)
    assert {tag for tag in found if tag.startswith("iou/")} <= {f"iou/{name}" for name in names}
    assert [step for step, _ in found["iou/road"]] == [9, 18, 27]
    # Each IoU is one of those that the mean is of.
    for step, mean in found["val_mean_iou"]:
        each = [dict(found[tag]).get(step) for tag in found if tag.startswith("iou/")]
        assert mean == pytest.approx(np.mean([one for one in each if one is not None]), abs=1e-5)
    assert {tag for tag in found if tag.startswith("sample_")} == {
        f"sample_{number}/{kind}" for number in range(4) for kind in PICTURES
    }
    assert [step for step, _ in found["sample_3/overlay"]] == [9, 18, 27]
    picture = Pillow.open(io.BytesIO(found["sample_3/overlay"][-1][1]))
    assert picture.size == (48, 32)
    table = rows(undisturbed)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert float(table[0]["learning_rate"]) > float(table[2]["learning_rate"]) > 0
    assert f"{float(table[1]['iou/road']):.6f}" == f"{found['iou/road'][1][1]:.6f}"


def test_the_picture_of_a_prediction_is_what_the_confusion_matrix_counted(
    undisturbed: Run, assembly
) -> None:
    """The label's picture is the mask, so the right pixels of the two are the accuracy's."""
    found, colors = curves(undisturbed), np.array(assembly.dataset.colors)
    right = total = 0
    for number in range(4):
        label, prediction = (
            np.asarray(Pillow.open(io.BytesIO(found[f"sample_{number}/{kind}"][-1][1])))
            for kind in ("label", "prediction")
        )
        known = (label[..., None, :] == colors).all(-1).any(-1)
        assert (prediction[..., None, :] == colors).all(-1).any(-1).all()
        right += int((known & (label == prediction).all(-1)).sum())
        total += int(known.sum())
    assert abs(right / total - found["val_accuracy"][-1][1]) < 0.1  # 4 of 9 samples


@pytest.mark.parametrize("seed", range(2))
def test_stopped_and_killed_they_are_those_of_an_undisturbed_run(
    attempts, undisturbed: Run, seed: int
) -> None:
    draw = random.Random(seed)
    run = attempts(every=4)
    kills = stops = 0
    while True:
        try:
            if kills <= stops:
                at = partial(KilledAt, event=draw.randrange(8, 20))
                reason = run.attempt(events=at, board=True)
            else:
                reason = run.attempt(StopAt(draw.randrange(2, 15)), board=True)
        except Killed:
            kills += 1
            continue
        if reason is None:
            break
        stops += 1
    assert kills and stops
    assert list_checkpoints(run.run.paths.checkpoints)[-1].header.step == STEPS
    check(run.run, undisturbed)


@pytest.mark.parametrize("part", ["_cut", "_missing"])
def test_without_a_part_of_it_they_are_not(
    attempts, undisturbed: Run, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """The negative twins; `_missing` needs a kill that takes what was queued."""
    run = attempts(every=4)
    with monkeypatch.context() as patch:
        if part == "_missing":
            patch.setattr(Board, "window", lambda self, event: None)
        with pytest.raises(Killed):
            run.attempt(events=lambda path: KilledAt(path, 12), board=True)
    monkeypatch.setattr(Board, part, lambda self, counting: ())
    assert run.attempt(board=True) is None
    with pytest.raises(AssertionError):
        check(run.run, undisturbed)


def test_a_process_that_is_killed_and_one_that_goes_on(data: Path, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", job(data))
    run.spec["checkpoint"] = {"every": {"steps": 2}}
    process = run.start()
    while not any(isinstance(one, Checkpoint) and one.step >= 12 for one in run.events()):
        assert process.poll() is None, run.log()
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert run.run() == 0, run.log()
    assert 12 <= run.claims[1].resume_step < STEPS
    check_steps(run)
    assert [step for step, _ in curves(run)["epoch"]] == [9, 18, 27]
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert "warning: the training goes on" not in run.log()


def test_curves_that_cannot_be_written_stop_no_training(
    attempts, capfd: pytest.CaptureFixture[str]
) -> None:
    run = attempts()
    run.run.root.mkdir()
    run.run.paths.tensorboard.write_text("in the way")
    run.run.paths.curves.mkdir()
    assert run.attempt(board=True) is None
    assert list_checkpoints(run.run.paths.checkpoints)[-1].header.step == STEPS
    assert capfd.readouterr().err.count("warning: the training goes on") == 1


class KilledWhenSaved(EventWriter):
    """Keeps what is on the disk when the first checkpoint is said to be, and dies."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._run = path.parents[3]  # run/attempts/000/ranks/00000.jsonl

    def write(self, event: Event) -> None:
        if isinstance(event, Checkpoint):
            # What another thread writes just now has a name that goes away.
            unfinished = shutil.ignore_patterns(".tmp-*")
            shutil.copytree(self._run, self._run.with_name("left"), ignore=unfinished)
            raise Killed
        super().write(event)


def test_the_pictures_of_an_epoch_are_there_before_its_checkpoint(
    attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Board.epoch

    def slowly(board: Board, *arguments: Any) -> None:
        time.sleep(2)
        write(board, *arguments)

    run = attempts()
    with monkeypatch.context() as patch:
        patch.setattr(Board, "epoch", slowly)
        with pytest.raises(Killed):
            run.attempt(events=KilledWhenSaved, board=True)
    run.run.root = run.run.root.with_name("left")
    assert run.attempt(board=True) is None
    assert run.steps(1)[0] == 10
    for kind in ("prediction", "overlay"):
        assert [step for step, _ in curves(run.run)[f"sample_0/{kind}"]] == [9, 18, 27]
