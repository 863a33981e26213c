"""What `predict` finds, reads and writes."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clusterseg.data.cityscapes import TRAIN_TO_ID
from clusterseg.errors import ClustersegError
from clusterseg.metrics.uncertainty import Running
from clusterseg.train.inference.classes import Classes, distinct_color
from clusterseg.train.inference.frames import frames, read_picture
from clusterseg.train.inference.inputs import find
from clusterseg.train.inference.kinds import check_kinds
from clusterseg.train.inference.predictor import Prediction
from clusterseg.train.inference.writers import record, write

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9), (250, 250, 0)]


def flat(color: Any, size: tuple[int, int] = (16, 24)) -> Any:
    return np.full((*size, 3), color, np.uint8)


def save(path: Path, pixels: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_folders_are_searched_and_files_named_by_their_place(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for name in ("b.png", "a/x.jpg", "a/deep/y.PNG", ".hidden/z.png", "out/ids/b.png"):
        save(root / name, flat((1, 2, 3)))
    (root / "notes.txt").write_text("")
    (root / "film.mp4").write_bytes(b"")
    single = save(tmp_path / "single.bmp", flat((1, 2, 3)))
    found, others = find([root, single], beside=root / "out")
    assert [one.name for one in found] == ["b", "film", "a/x", "a/deep/y", "single"]
    assert [one.name for one in found if one.moves] == ["film"]
    assert others == 1


def test_equal_names_keep_their_suffix_or_are_refused(tmp_path: Path) -> None:
    for name in ("one/a.png", "one/a.jpg", "two/a.png"):
        save(tmp_path / name, flat((1, 2, 3)))
    found, _ = find([tmp_path / "one"], beside=tmp_path / "out")
    assert [one.name for one in found] == ["a.jpg", "a.png"]
    with pytest.raises(ClustersegError, match="would be written to the same files"):
        find([tmp_path / "one" / "a.png", tmp_path / "two"], beside=tmp_path / "out")


def test_nothing_to_predict_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClustersegError, match="no pictures"):
        find([tmp_path], beside=tmp_path / "out")
    with pytest.raises(ClustersegError, match="no such file"):
        find([tmp_path / "gone.png"], beside=tmp_path / "out")


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    save(tmp_path / "disk" / "a.png", flat((1, 2, 3)))
    root = tmp_path / "in"
    save(root / "b.png", flat((1, 2, 3)))
    (root / "drive").symlink_to(tmp_path / "disk")
    (root / "drive" / "back").symlink_to(root)
    assert [one.name for one in find([root], beside=tmp_path / "out")[0]] == ["b", "drive/a"]


def test_a_name_without_letters_is_told_before_anything_is_started(tmp_path: Path) -> None:
    """JSON has no words for it: results could not be told."""
    path = save(tmp_path / "in" / "a.png", flat((1, 2, 3)))
    path.rename(os.fsdecode(os.fsencode(path.parent) + b"/\xff.png"))
    with pytest.raises(ClustersegError, match=r"xff\.png.*no UTF-8"):
        find([tmp_path / "in"], beside=tmp_path / "out")
    save(path, flat((1, 2, 3)))
    with pytest.raises(ClustersegError, match="no UTF-8"):
        find([path], beside=tmp_path / os.fsdecode(b"\xff"))


def test_a_folder_that_can_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not just left out. (Root may read all: scandir says what it says to others.)"""
    save(tmp_path / "in" / "a.png", flat((1, 2, 3)))
    locked = tmp_path / "in" / "locked"
    locked.mkdir()
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path) == str(locked):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(ClustersegError, match="locked can't be read: Permission denied"):
        find([tmp_path / "in"], beside=tmp_path / "out")
    with pytest.raises(ClustersegError, match="not to be looked at"):
        find([tmp_path / ("x" * 300)], beside=tmp_path / "out")


def moving(path: Path) -> Path:
    pictures = [Image.fromarray(flat(color)) for color in COLORS]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".tiff", ".png", ".webp"])
def test_frames_of_moving_pictures(tmp_path: Path, suffix: str) -> None:
    (one,) = find([moving(tmp_path / f"film{suffix}")], beside=tmp_path / "out")[0]
    assert one.moves and not one.is_video
    read = list(frames(Path(one.path), is_video=False))
    assert [number for number, _ in read] == [0, 1, 2, 3, 4]
    for (_, frame), color in zip(read, COLORS, strict=True):
        assert frame.shape == (16, 24, 3) and frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - color).max() <= 8  # WebP is lossy
    assert [number for number, _ in frames(Path(one.path), is_video=False, every=2)] == [0, 2, 4]


def test_frames_of_a_video(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: clusterseg[video]")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "yuv420p"
        for color in COLORS:
            for packet in stream.encode(av.VideoFrame.from_ndarray(flat(color), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    read = list(frames(path, is_video=True))
    assert [number for number, _ in read] == [0, 1, 2, 3, 4]
    for (_, frame), color in zip(read, COLORS, strict=True):
        assert frame.shape == (16, 24, 3)
        assert np.abs(frame.mean(axis=(0, 1)) - color).max() < 24  # lossy
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ClustersegError, match=r"damaged\.mp4: not readable"):
        list(frames(damaged, is_video=True))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_pictures_are_read_as_colours_and_damage_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, flat((10, 20, 30)))
    assert np.abs(read_picture(path).astype(int) - (10, 20, 30)).max() <= 4
    grey = save(tmp_path / f"grey-{name}", np.full((4, 6), 77, np.uint8))
    assert read_picture(grey).shape == (4, 6, 3)
    for content in (path.read_bytes()[:30], b"junk"):
        path.write_bytes(content)
        with pytest.raises(ClustersegError, match=f"{name}: not readable") as caught:
            read_picture(path)
        for address in ("{{", "Op:", " at 0x"):
            assert address not in caught.value.message


def predicted(classes: Any, samples: Running | None = None) -> Prediction:
    classes = np.array(classes, np.int32)
    return Prediction(classes, np.full(classes.shape, 0.5, np.float32), samples)


CITY = Classes(
    tuple(map(str, range(19))), tuple(map(distinct_color, range(19))), TRAIN_TO_ID, (16, 24)
)


def test_ids_are_those_of_the_data_set_and_colours_those_of_the_classes(tmp_path: Path) -> None:
    found = predicted([[0, 13, 18]])
    write(
        tmp_path,
        name="a/b",
        kinds=("ids", "color", "overlay", "confidence"),
        picture=flat((100, 100, 100), (1, 3)),
        found=found,
        of=CITY,
    )
    ids_file = tmp_path / "ids" / "a" / "b.png"
    by_anybody = tmp_path / "by_anybody"
    by_anybody.touch()
    assert ids_file.stat().st_mode == by_anybody.stat().st_mode  # others may read it as any file
    with Image.open(ids_file) as ids:
        assert ids.mode == "L"
        assert np.asarray(ids).tolist() == [[7, 26, 33]]
    with Image.open(tmp_path / "color" / "a" / "b.png") as colors:
        assert np.asarray(colors).tolist() == [[0, 13, 18]]
        shown = np.asarray(colors.convert("RGB")).tolist()
    assert shown == [[list(CITY.colors[one]) for one in (0, 13, 18)]]
    with Image.open(tmp_path / "overlay" / "a" / "b.jpg") as overlay:
        assert overlay.size == (3, 1)
    with Image.open(tmp_path / "confidence" / "a" / "b.png") as sure:
        assert np.asarray(sure).tolist() == [[128, 128, 128]]
    assert record("a/b", "f", found, CITY)["classes"] == {"0": 1, "13": 1, "18": 1}


def test_many_classes_need_more_bits(tmp_path: Path) -> None:
    count = 300
    many = Classes(
        tuple(map(str, range(count))),
        tuple(distinct_color(one) for one in range(count)),
        tuple(range(count)),
        (1, 1),
    )
    write(
        tmp_path,
        name="a",
        kinds=("ids", "color"),
        picture=flat(0, (1, 2)),
        found=predicted([[0, 299]]),
        of=many,
    )
    with Image.open(tmp_path / "ids" / "a.png") as ids:
        assert np.asarray(ids).tolist() == [[0, 299]]
    with Image.open(tmp_path / "color" / "a.png") as colors:
        assert np.asarray(colors).tolist() == [[[0, 0, 0], list(many.colors[299])]]


def test_maps_of_samples_come_back_as_numbers(tmp_path: Path) -> None:
    running = Running()
    for one in ([[[1.0, 0.0], [0.5, 0.5]]], [[[0.0, 1.0], [0.5, 0.5]]]):
        running.add(np.array(one, np.float32))
    two = Classes(("a", "b"), ((0, 0, 0), (9, 9, 9)), (0, 1), (1, 2))
    write(
        tmp_path,
        name="a",
        kinds=("maps", "entropy", "mutual_information"),
        picture=flat(0, (1, 2)),
        found=predicted([[0, 0]], running),
        of=two,
    )
    maps = np.load(io.BytesIO((tmp_path / "maps" / "a.npz").read_bytes()), allow_pickle=False)
    np.testing.assert_allclose(maps["mean"], [[[0.5, 0.5], [0.5, 0.5]]])
    np.testing.assert_allclose(maps["mutual_information"], [[np.log(2), 0]], atol=1e-3)
    for kind, values in (("entropy", [[255, 255]]), ("mutual_information", [[255, 0]])):
        with Image.open(tmp_path / kind / "a.png") as picture:
            assert np.asarray(picture).tolist() == values


def test_kinds_are_checked() -> None:
    assert check_kinds(["ids", "ids", "color"], samples=0) == ("ids", "color")
    with pytest.raises(ClustersegError, match="masks"):
        check_kinds(["masks"], samples=0)
    with pytest.raises(ClustersegError, match="entropy"):
        check_kinds(["entropy"], samples=0)
    with pytest.raises(ClustersegError, match="nothing"):
        check_kinds([], samples=0)


def test_colours_of_unnamed_classes_differ() -> None:
    assert len({distinct_color(number) for number in range(256)}) == 256
    assert [distinct_color(number) for number in (0, 1, 2, 3, 8)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (64, 0, 0),
    ]


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("a file")
    with pytest.raises(ClustersegError, match="can't be written"):
        write(tmp_path, name="a", kinds=("ids",), picture=flat(0), found=predicted([[0]]), of=CITY)
