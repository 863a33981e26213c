"""The curves of a run: each point once, whatever happened to its attempts; and never in the way."""

from __future__ import annotations

import csv
import io
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Pillow

from clusterseg.data.normalisation import Normalisation
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim, Steps
from clusterseg.train.board import board as board_module
from clusterseg.train.board.board import Board, Subject
from clusterseg.train.board.curves import table
from clusterseg.train.board.event_file import EventFile, trim
from clusterseg.train.board.pictures import Look, Painter
from clusterseg.train.board.points import class_labels, iou_by_class, limits, pictures_due
from clusterseg.train.board.scribe import Scribe
from tests.train import disks
from tests.train.records import crc32c, read_board

PAINTER = Painter([(200, 0, 0), (0, 200, 0)], 2, 255)
WHOLE = 60  # steps of the runs here, 10 an epoch, a window every 2
EVERY = 2


def claim(attempt: int, resume_step: int = 0) -> Claim:
    return Claim(
        t=0.0, attempt=attempt, submission=0, key="k", uid=os.getuid(), job_id="local",
        host="h", boot_id="b", pid=1, pid_start=1, nonce="n", hosts={"h": 1}, ranks=1, argv=[],
        resume_step=resume_step,
    )  # fmt: skip


def window(step: int) -> Steps:
    return Steps(
        t=float(step), rank=0, epoch=(step - 1) // 10, step=step, count=EVERY, images=8,
        seconds=0.5, loss=1 / step, learning_rate=step / 100, all_images=8, skipped_steps=step % 3,
        loss_scale=float(2**step), gradient_norm=step / 10,
    )  # fmt: skip


def history(step: int) -> list[dict[str, Any]]:
    """After `step` steps."""
    return [
        {
            "epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "val_loss": 2 / epoch,
            "val_accuracy": epoch / 10, "val_mean_iou": epoch / 20, "seconds": 1.0,
            "learning_rate": 0.1, "images_per_second": 40.0, "iou/road": epoch / 30,
            "skipped_steps": epoch, "loss_scale": 8.0, "straggler_score": 1 / epoch,
        }
        for epoch in range(1, step // 10 + 1)
    ]  # fmt: skip


class Life:
    """A run's attempts, without a trainer: the events first, then the board, as the loop does."""

    def __init__(self, root: Path) -> None:
        self.paths = RunPaths(root)

    def board(self, attempt: int, resume_step: int) -> Board:
        folder = self.paths.attempt(attempt)
        folder.ranks.mkdir(parents=True)
        held = claim(attempt, resume_step)
        folder.claim.write_bytes(msgspec.json.encode(held))
        board = Board(Subject(self.paths, held, PAINTER))
        board.begin(history(resume_step))
        return board

    def attempt(self, attempt: int, resume_step: int, until: int, *, written: int = WHOLE) -> None:
        """From `resume_step` to `until`; of what is after `written` only the events are left."""
        board = self.board(attempt, resume_step)
        with EventWriter(self.paths.attempt(attempt).events(0)) as events:
            for step in range(resume_step + EVERY, until + 1, EVERY):
                events.write(window(step))
                if step <= written:
                    board.window(window(step))
                if step <= written and step % 10 == 0:
                    board.epoch(history(step), None)
        board.close()

    def curves(self) -> dict[str, list[tuple[int, Any]]]:
        return read_board(self.paths.tensorboard)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, Any]]]:
    life = Life(tmp_path_factory.mktemp("undisturbed"))
    life.attempt(0, 0, WHOLE)
    curves = life.curves()
    assert set(curves) == {
        "learning_rate", "loss", "images_per_second", "epoch", "val_loss", "val_accuracy",
        "val_mean_iou", "iou/road", "skipped_steps", "loss_scale", "gradient_norm",
        "straggler_score",
    }  # fmt: skip
    assert [step for step, _ in curves["loss"]] == list(range(2, 61, 2))
    assert [step for step, _ in curves["iou/road"]] == [10, 20, 30, 40, 50, 60]
    assert curves["images_per_second"][0] == (2, 16.0)
    return curves


def test_the_reader_knows_its_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C


def test_stopped_and_killed_anywhere_each_point_is_there_once(undisturbed, tmp_path: Path) -> None:
    draw = random.Random(0)
    life = Life(tmp_path)
    resume, attempt = 0, 0
    while resume < WHOLE:
        until = min(WHOLE, resume + draw.randrange(0, 30, EVERY))
        # Killed: what was still queued is lost, and it goes on from a save before the end.
        life.attempt(attempt, resume, until, written=draw.randrange(resume, until + 1))
        resume, attempt = max(resume, until - draw.choice([0, 0, 4, 12])), attempt + 1
    life.attempt(attempt, WHOLE, WHOLE)
    assert attempt > 3
    assert life.curves() == undisturbed


def test_without_the_cut_the_curves_overlap(
    undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative twin of the test above."""
    monkeypatch.setattr(Board, "_cut", lambda self, counting: None)
    life = Life(tmp_path)
    life.attempt(0, 0, 30)
    life.attempt(1, 20, WHOLE)
    steps = [step for step, _ in life.curves()["loss"]]
    assert steps != sorted(set(steps))


def test_without_the_events_what_was_queued_is_missing(
    undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative twin for what a kill takes."""
    monkeypatch.setattr(Board, "_missing", lambda self, counting: iter(()))
    life = Life(tmp_path)
    life.attempt(0, 0, 30, written=24)
    life.attempt(1, 30, WHOLE)
    missing = set(undisturbed["loss"]) - set(life.curves()["loss"])
    assert {step for step, _ in missing} == {26, 28, 30}


def test_a_file_cut_at_any_byte_is_mended(undisturbed, tmp_path: Path) -> None:
    life = Life(tmp_path / "run")
    life.attempt(0, 0, 40)
    path = life.paths.board_file(0)
    content = path.read_bytes()
    draw = random.Random(1)
    cuts = [0, 1, 11, 12, len(content) - 1, *(draw.randrange(len(content)) for _ in range(15))]
    for number, cut in enumerate(cuts, start=1):
        path.write_bytes(content[:cut])
        life.board(number, 30).close()
        limited = {tag: [p for p in points if p[0] <= 30] for tag, points in undisturbed.items()}
        assert life.curves() == limited, cut
        life.paths.board_file(number).unlink()


def test_damage_inside_a_file_costs_no_curve_either(undisturbed, tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.attempt(0, 0, 40)
    path = life.paths.board_file(0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 8
    path.write_bytes(content)
    life.attempt(1, 40, WHOLE)
    assert life.curves() == undisturbed


def test_who_lost_the_run_goes_on_writing_in_vain(undisturbed, tmp_path: Path) -> None:
    life = Life(tmp_path)
    zombie = life.board(0, 0)
    with EventWriter(life.paths.attempt(0).events(0)) as events:
        for step in range(2, 41, 2):
            events.write(window(step))
            zombie.window(window(step))
    successor = life.board(1, 20)
    for step in range(42, 51, 2):
        zombie.window(window(step))  # it does not know yet
    zombie.write_table = None  # type: ignore[method-assign, assignment]
    for step in range(22, WHOLE + 1, 2):
        successor.window(window(step))
        if step % 10 == 0:
            successor.epoch(history(step), None)
    zombie.close()
    successor.close()
    assert life.curves() == undisturbed
    with pytest.raises(board_module.Superseded):
        Board(zombie._subject).write_table(history(40))
    with pytest.raises(board_module.Superseded):
        Board(zombie._subject).begin(history(20))


def test_what_a_kill_left_of_a_copy_is_removed_and_no_reader_takes_it(
    undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(copy: Path | None, path: Path) -> None:
        raise Killed

    life = Life(tmp_path)
    life.attempt(0, 0, 30)
    monkeypatch.setattr(board_module, "_put_in_place", die)
    with pytest.raises(Killed):
        life.board(1, 20)
    monkeypatch.undo()
    assert len(list(life.paths.tensorboard.iterdir())) == 2
    assert [step for step, _ in life.curves()["loss"]] == list(range(2, 31, 2))
    life.attempt(2, 20, WHOLE)
    assert {one.name for one in life.paths.tensorboard.iterdir()} == {
        life.paths.board_file(0).name, life.paths.board_file(2).name,
    }  # fmt: skip
    assert life.curves() == undisturbed


def test_files_are_private_and_a_restart_from_nothing_leaves_none_of_before(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.attempt(0, 0, 30)
    assert life.paths.tensorboard.stat().st_mode & 0o777 == 0o700
    assert life.paths.board_file(0).stat().st_mode & 0o777 == 0o600
    life.paths.curves.write_text("epoch\n1\n")
    life.attempt(1, 0, 4)  # the first checkpoint never came
    assert not life.paths.board_file(0).exists()
    assert [step for step, _ in life.curves()["loss"]] == [2, 4]
    assert life.paths.curves.read_text().count("\n") == 1


def test_tensorboards_own_reader_agrees(undisturbed, tmp_path: Path) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the package tensorboard is not installed",
    )
    life = Life(tmp_path)
    life.attempt(0, 0, 30, written=24)
    life.attempt(1, 20, WHOLE)
    reader = accumulators.EventAccumulator(str(life.paths.tensorboard), {"scalars": 0})
    reader.Reload()
    found = {tag: [(p.step, p.value) for p in reader.Scalars(tag)] for tag in undisturbed}
    assert found == undisturbed


def test_points_never_go_back(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "tfevents", {"a": 5}, 0.0)
    for step in (4, 5, 6, 6, 3, 8):
        file.add(step, 0.0, {"a": float(step), "b": 1.0})
    file.close()
    curves = read_board(tmp_path)
    assert [step for step, _ in curves["a"]] == [6, 8]
    assert [step for step, _ in curves["b"]] == [4, 5, 6, 8]


def test_limits_fall_back_with_every_restart_that_lost_steps() -> None:
    claims = [claim(0), claim(1, 30), claim(2, 20), claim(3, 20), claim(4, 50)]
    assert limits(claims, claim(5, 60)) == {0: 20, 1: 20, 2: 20, 3: 50, 4: 60}
    assert limits([], claim(2, 7)) == {0: 7, 1: 7}


def test_the_table_has_a_row_an_epoch_also_with_entries_of_before() -> None:
    old = {"epoch": 1, "step": 10, "loss": 0.5, "val_loss": None, "seconds": 2.0}
    rows = list(csv.DictReader(io.StringIO(table([old, *history(20)[1:]]))))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert rows[0]["val_loss"] == rows[0]["iou/road"] == rows[0]["learning_rate"] == ""
    assert rows[1]["iou/road"] == repr(2 / 30)
    assert list(rows[1]) == [
        "epoch", "step", "learning_rate", "loss", "val_loss", "val_accuracy", "val_mean_iou",
        "iou/road", "images_per_second", "seconds", "skipped_steps", "loss_scale",
        "straggler_score",
    ]  # fmt: skip


def test_classes_have_names_of_their_own() -> None:
    assert class_labels(["road", "car", "car"], 5) == [
        "road", "car", "car (2)", "class 3", "class 4",
    ]  # fmt: skip
    assert list(iou_by_class(["a"], [0.25, float("nan")])) == ["iou/a", "iou/class 1"]


@pytest.mark.parametrize("epochs", [1, 4, 50, 51, 500, 12345])
def test_pictures_are_of_the_first_and_last_epoch_and_never_many(epochs: int) -> None:
    due = [epoch for epoch in range(1, epochs + 1) if pictures_due(epoch, epochs)]
    assert due[0] == 1 and due[-1] == epochs and len(due) <= 52
    assert epochs > 50 or due == list(range(1, epochs + 1))


def sample_batch() -> tuple[Any, ...]:
    """Two pictures of 4x6 pixels, the second one padding: mean grey, classes 0, 1 and no label."""
    import tensorflow as tf

    labels = np.array([[[0, 0, 1, 1, 255, 255]] * 4] * 2, np.int32)
    found = np.array([[[0, 1, 1, 0, 0, 1]] * 4] * 2, np.int32)
    images = np.zeros((2, 4, 6, 3), np.float32)
    return (*map(tf.constant, (images, labels, found)), tf.constant([True, False]))


def test_pictures_show_what_was_seen_meant_and_found() -> None:
    look = Look()
    look(*sample_batch())
    look(*sample_batch())
    painted = dict(PAINTER.paint(look))
    assert set(painted) == {
        f"sample_{number}/{kind}"
        for number in (0, 1)
        for kind in ("input", "label", "prediction", "overlay")
    }
    assert painted["sample_0/input"].tolist()[0][0] == [124, 116, 104]  # ImageNet's mean
    red, green, black = [200, 0, 0], [0, 200, 0], [0, 0, 0]
    assert painted["sample_0/label"].tolist()[3] == [red, red, green, green, black, black]
    assert painted["sample_0/prediction"].tolist()[3] == [red, green, green, red, red, green]
    assert painted["sample_0/overlay"].tolist()[3][0] == [162, 58, 52]


def test_a_look_takes_no_more_than_asked_and_makes_it_small() -> None:
    import tensorflow as tf

    look = Look(most=3, longest=50)
    for _ in range(2):
        maps = tf.zeros([2, 90, 101], tf.int32)
        look(tf.ones([2, 90, 101, 3]), maps, maps, tf.constant([True, True]))
    assert len(look.samples) == 3
    for image, labels, predictions in look.samples:
        assert labels.shape == predictions.shape == (30, 34)
        assert image.shape == (30, 34, 3) and np.all(image == 1)


def test_input_and_label_are_written_once_prediction_and_overlay_each_time(tmp_path: Path) -> None:
    life = Life(tmp_path)
    for attempt, resume in ((0, 0), (1, 20)):
        board = life.board(attempt, resume)
        for step in (resume + 10, resume + 20):
            look = Look()
            look(*sample_batch())
            board.epoch(history(step), look)
        board.close()
    curves = life.curves()
    for kind, steps in (("input", [10]), ("label", [10]), ("overlay", [10, 20, 30, 40])):
        assert [step for step, _ in curves[f"sample_0/{kind}"]] == steps
    picture = Pillow.open(io.BytesIO(curves["sample_0/overlay"][0][1]))
    assert picture.format == "PNG" and picture.size == (6, 4)


# The thread.


@pytest.fixture
def scribe(tmp_path: Path) -> Iterator[Callable[..., Scribe]]:
    started = []

    def start(board: Any = None, **how: Any) -> Scribe:
        life = Life(tmp_path / "run")
        folder = life.paths.attempt(0)
        folder.ranks.mkdir(parents=True)
        folder.claim.write_bytes(msgspec.json.encode(claim(0)))
        subject = Subject(life.paths, claim(0), PAINTER)
        started.append(Scribe(board or Board(subject), [], epochs=6, **how))
        return started[-1]

    yield start
    for one in started:
        one.close()


def train_with(scribe: Scribe) -> None:
    for step in range(2, WHOLE + 1, 2):
        scribe.window(window(step))
        if step % 10 == 0:
            scribe.look(step // 10)
            scribe.epoch(history(step))


def test_a_picture_that_cannot_be_made_ends_no_rank_and_is_said_once(
    scribe, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    def no_memory(*args: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "no memory for it")

    one = scribe()
    monkeypatch.setattr(Look, "__call__", no_memory)
    for epoch in (1, 6):
        if look := one.look(epoch):
            for _ in range(2):
                look(*sample_batch())
        one.epoch(history(10 * epoch))
    one.close(60)
    said = capfd.readouterr().err
    assert said.count("warning:") == 1 and "without further pictures" in said
    assert "no memory for it" in said
    monkeypatch.undo()
    assert one.look(6) is None


def test_the_thread_writes_all_of_it(scribe, undisturbed, tmp_path: Path, capfd) -> None:
    one = scribe()
    train_with(one)
    one.close()
    curves = read_board(tmp_path / "run" / "tensorboard")
    assert curves["loss"] == undisturbed["loss"] and curves["iou/road"] == undisturbed["iou/road"]
    assert (tmp_path / "run" / "curves.csv").read_text() == table(history(WHOLE))
    assert "warning" not in capfd.readouterr().err


def test_a_disk_that_hangs_holds_nobody_up(scribe, capfd) -> None:
    free = threading.Event()

    class Hanging:
        def begin(self, history: object) -> None:
            free.wait()

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: None

    one = scribe(Hanging(), waiting=5)
    train_with(one)  # returns, though nothing is written
    one.close(patience=0.2)
    err = capfd.readouterr().err
    assert err.count("warning:") == 1 and "too slow" in err
    free.set()


def test_who_waits_for_an_epoch_waits_until_it_is_on_the_disk_or_never_will_be(scribe) -> None:
    free = threading.Event()
    done: list[int] = []

    class Slow:
        def epoch(self, known: list[Any], look: object) -> None:
            free.wait()
            done.append(len(known))
            if len(known) == 3:
                raise OSError("full")

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments: None

    one = scribe(Slow())
    one.settle(0.0)  # nothing to wait for
    for step in (10, 20):
        one.epoch(history(step))
    began = time.monotonic()
    one.settle(0.2)  # no longer than it may take
    assert done == [] and 0.2 <= time.monotonic() - began < 60
    threading.Timer(0.2, free.set).start()
    one.settle(60)
    assert done == [1, 2]
    for step in (30, 40):
        one.epoch(history(step))
    one.settle(60)  # the board is given up after the first of these
    assert done == [1, 2, 3] and time.monotonic() - began < 60


def test_a_folder_that_cannot_be_written_is_said_once(scribe, tmp_path: Path, capfd) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("in the way")
    one = scribe()
    train_with(one)
    one.close()
    err = capfd.readouterr().err
    assert err.count("warning:") == 1 and "tensorboard" in err and "Traceback" not in err
    assert (tmp_path / "run" / "curves.csv").read_text() == table(history(WHOLE))


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB at the place of the run directory."""
    root = tmp_path / "run"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield root
    subprocess.run(["umount", str(root)], check=True)


def test_a_full_disk_is_said_once_and_mended_by_the_next_attempt(
    scribe, tiny: Path, undisturbed, capfd
) -> None:
    one = scribe()
    ballast = tiny / "ballast"
    one._queue.put(lambda: fill(ballast))
    with EventWriter(tiny.parent / "events") as events:
        for step in range(2, WHOLE + 1, 2):
            events.write(window(step))
    train_with(one)
    one.close()
    err = capfd.readouterr().err
    assert err.count("warning:") == 1 and "No space left" in err
    ballast.unlink()
    RunPaths(tiny).attempt(0).events(0).write_bytes((tiny.parent / "events").read_bytes())
    life = Life(tiny)
    life.attempt(1, WHOLE, WHOLE)
    assert life.curves() == undisturbed
    assert life.paths.curves.read_text() == table(history(WHOLE))


def fill(path: Path) -> None:
    with path.open("wb") as stream:
        try:
            while True:
                stream.write(bytes(512))
                stream.flush()
        except OSError:
            pass


def test_a_copy_that_a_full_disk_cuts_leaves_no_half(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(1 << 20)
    path, copy = disk / "tfevents", disk / "copy"
    file = EventFile(path, {}, 0.0)
    for step in range(3000):
        file.add(step, 0.0, {"a": 0.5})
    file.close()
    disks.fill(disk, left=path.stat().st_size // 2)
    with pytest.raises((OSError, tf.errors.OpError)):
        trim(path, 3000, {}, copy)
    assert not copy.exists()
    assert path.exists()


def test_pictures_are_seen_as_they_were_whatever_the_network_wants() -> None:
    pixels = np.array([[[10, 20, 250], [90, 130, 0]]], np.float32)
    caffe = Normalisation((123.68, 116.779, 103.939), (1, 1, 1), order="bgr")
    shown = (pixels - np.array(caffe.mean, np.float32))[..., ::-1]
    labels = np.zeros((1, 2), np.int32)
    look = Look()
    look.samples.append((shown, labels, labels))
    pictures = dict(Painter([(200, 0, 0)], 1, 255, caffe).paint(look))
    np.testing.assert_array_equal(pictures["sample_0/input"], pixels.astype(np.uint8))
