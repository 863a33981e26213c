"""Films in parts: each frame in one of them, as in one pass, and joined in order again."""

from __future__ import annotations

import math
import random
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clusterseg.train.inference.frames import Picture, frames
from clusterseg.train.inference.inputs import Input, find
from clusterseg.train.inference.parts import frame_name, joined, name_of, shared_out
from tests.train.films import COUNT, FILMS, MOVING, film


def read(part: Input, every: int = 1) -> list[tuple[int, Picture]]:
    return list(
        frames(
            Path(part.path),
            is_video=part.is_video,
            every=every,
            first=part.first,
            stop=part.stop,
        )
    )


@pytest.mark.parametrize("suffix", [*FILMS, *MOVING])
@pytest.mark.parametrize("every", [1, 2])
def test_parts_are_the_frames_of_one_pass(tmp_path: Path, suffix: str, every: int) -> None:
    (whole,), _ = find([film(tmp_path / f"film{suffix}")], beside=tmp_path / "out")
    assert whole.frames is not None
    assert whole.frames == COUNT or suffix == ".mpg"  # whose time is not quite that of its frames
    parts = [one for (one,) in shared_out([whole], slots=9, every=every)]
    assert len(parts) == math.ceil(math.ceil(whole.frames / every) / 8) > 1
    once = read(whole, every)
    again = [one for part in parts for one in read(part, every)]
    assert [number for number, _ in again] == [number for number, _ in once]
    assert [number for number, _ in once] == list(range(0, COUNT, every))
    for (_, frame), (_, expected) in zip(again, once, strict=True):
        np.testing.assert_array_equal(frame, expected)
    assert len({frame.tobytes() for _, frame in once}) == len(once)  # another would be noticed


@pytest.mark.parametrize("suffix", FILMS)
def test_a_part_that_is_looked_up_would_begin_elsewhere(tmp_path: Path, suffix: str) -> None:
    """Why parts are counted from the beginning: the time of frame 7 leads to an earlier one."""
    path = film(tmp_path / f"film{suffix}")
    ((_, seventh),) = list(frames(path, is_video=True, first=7, stop=8))
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        container.seek(round(7 / 25 / stream.time_base) + (stream.start_time or 0), stream=stream)
        found = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert not np.array_equal(found, seventh)


def test_what_no_header_tells_is_one_part_and_what_no_decoder_reads_is_named(
    tmp_path: Path,
) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed: clusterseg[video]")
    path = film(tmp_path / "film.avi")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZZZ"))
    with av.open(str(path)) as container, pytest.raises(av.FFmpegError) as refused:
        next(container.decode(video=0))
    assert not isinstance(refused.value, OSError | ValueError)
    with pytest.raises(Exception, match=r"film\.avi: not readable"):
        list(frames(path, is_video=True))
    (tmp_path / "damaged.mkv").write_bytes(b"\x1a\x45")
    (one,), _ = find([tmp_path / "damaged.mkv"], beside=tmp_path / "out")
    assert one.moves and one.frames is None
    assert shared_out([one], slots=9, every=1) == [(one,)]


LENGTHS = st.none() | st.integers(0, 3000)


@given(
    films=st.lists(st.tuples(LENGTHS, st.integers(0, 3000)), max_size=4),
    pictures=st.integers(0, 30),
    slots=st.integers(1, 200),
    every=st.integers(1, 40),
)
def test_each_frame_is_in_one_part_whatever_the_header_says(
    films: list[tuple[int | None, int]], pictures: int, slots: int, every: int
) -> None:
    """Of films by what their headers say and how many frames they have."""
    found = [Input(path="p", name=f"still {n}") for n in range(pictures)]
    found += [
        Input(path="p", name=f"film {n}", moves=True, frames=said)
        for n, (said, _) in enumerate(films)
    ]
    tasks = shared_out(found, slots=slots, every=every)
    stills = [one.name for part in tasks for one in part if not one.moves]
    assert stills == [one.name for one in found if not one.moves]
    for n, (said, count) in enumerate(films):
        mine = [part for part in tasks if part[0].name == f"film {n}"]
        assert all(len(part) == 1 for part in mine)
        numbers = [
            [number for number in range(count)[one.first : one.stop] if number % every == 0]
            for (one,) in mine
        ]
        assert list(chain.from_iterable(numbers)) == list(range(0, count, every))
        if said == count:  # a header that is right makes parts of equal work
            sizes = [len(one) for one in numbers]
            assert max(sizes) - min(sizes) <= 1
            assert len(mine) <= min(slots, 32)
    wanted = [-(-(said or 0) // every) for said, _ in films]
    moving = sum(part[0].moves for part in tasks)
    assert moving <= slots + len(films)
    if wanted and max(wanted) >= 16 and slots > 1 and len(wanted) == 1:
        assert moving > 1


def test_the_parts_are_called_by_their_pictures_and_frames() -> None:
    still = [Input(path=name, name=name) for name in "abcdefghi"]
    assert [name_of(part) for part in shared_out(still, slots=1, every=1)] == ["a to h", "i"]
    one = Input(path="p", name="a/film", moves=True, frames=16)
    assert [name_of(part) for part in shared_out([one], slots=2, every=1)] == [
        "a/film, frames 0 to 7",
        "a/film, frames 8 on",
    ]
    assert [name_of(part) for part in shared_out([one], slots=1, every=1)] == ["a/film"]


def test_records_are_joined_by_name_and_number_and_failures_told_once() -> None:
    names = ["a", "film", *(frame_name("film", n) for n in (0, 9, 10, 999_999, 1_000_000)), "films"]
    values = [{"pictures": [{"name": name}], "failures": []} for name in names]
    values += [{"pictures": [], "failures": [{"file": "x", "error": "bad"}]}] * 3
    random.Random(1).shuffle(values)
    pictures, failures = joined(values)
    assert [one["name"] for one in pictures] == names
    assert failures == [{"file": "x", "error": "bad"}]


def test_a_film_beside_a_folder_of_its_name_keeps_its_suffix(tmp_path: Path) -> None:
    """Its frames would take the places of those in the folder."""
    root = tmp_path / "in"
    (root / "drive").mkdir(parents=True)
    film(root / "drive.gif")
    Image.new("RGB", (4, 4)).save(root / "drive" / "frame-000000.png")
    Image.new("RGB", (4, 4)).save(root / "other.png")
    found, _ = find([root], beside=tmp_path / "out")
    assert [one.name for one in found] == ["drive.gif", "other", "drive/frame-000000"]
    assert found[0].frames == COUNT
