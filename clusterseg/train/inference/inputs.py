"""Which pictures and videos are meant by the arguments of `predict`. No TensorFlow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from PIL import Image, UnidentifiedImageError

from clusterseg.errors import ClustersegError

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
_MAY_MOVE = frozenset({".png", ".gif", ".tif", ".tiff", ".webp"})


class Input(Struct, frozen=True, kw_only=True):
    """A file; `name` is where its results go, below the folder of each kind, without a suffix.

    `moves`: it has several frames, about `frames` of them (None: its header does not say). Those
    from number `first` on, and before `stop`, are meant. `is_video`: they are no pictures of
    Pillow's.
    """

    path: str
    name: str
    moves: bool = False
    is_video: bool = False
    frames: int | None = None
    first: int = 0
    stop: int | None = None


def find(arguments: Sequence[Path], *, beside: Path) -> tuple[list[Input], int]:
    """The files of `arguments`, each a file or a folder that is searched with all below it, and
    how many files in folders are no pictures.

    What comes from a folder is named by its path in it, a file by its name. What lies in the folder
    `beside`, where results go, is no input. Raises ClustersegError: nothing there, nothing found,
    or two files with one name.
    """
    found: list[Input] = []
    others = 0
    for argument in arguments:
        if os.path.isdir(argument):  # noqa: PTH112 (never raises)
            for path in _below(argument, beside.absolute()):
                if path.suffix.lower() in PICTURES | VIDEOS:
                    found.append(_input(path, path.relative_to(argument)))
                else:
                    others += 1
        elif os.path.isfile(argument):  # noqa: PTH113 (never raises)
            found.append(_input(argument, Path(argument.name)))
        else:
            raise ClustersegError(
                f"{argument}: no such file or folder, or not to be looked at",
                code="no-input",
                help="name pictures",
            )
    if not found:
        listed = ", ".join(sorted(PICTURES | VIDEOS))
        raise ClustersegError(
            f"no pictures in {', '.join(map(str, arguments))}",
            code="no-input",
            help=f"files are known by their suffix: {listed}; what lies in {beside}, where the "
            "results go, is no input",
        )
    _refuse_unspeakable([str(beside), *(one.path for one in found)])
    return _named_apart(found), others


def _refuse_unspeakable(paths: Sequence[str]) -> None:
    """JSON, which tasks and predictions.json are, has no words for bytes that are no UTF-8."""
    bad = [path for path in paths if any("\ud800" <= letter <= "\udfff" for letter in path)]
    if bad:
        more = f", nor are those of {len(bad) - 1} others" if len(bad) > 1 else ""
        raise ClustersegError(
            f"{os.fsencode(bad[0])!r}: this name is no UTF-8{more}",
            code="bad-name",
            help="rename it, or the folder: predictions.json could not name it",
        )


def _input(path: Path, place: Path) -> Input:
    suffix = path.suffix.lower()
    video = suffix in VIDEOS
    frames: int | None = 1
    if video:
        frames = _frames_of_video(path)
    elif suffix in _MAY_MOVE:
        frames = _frames(path)
    return Input(
        path=str(path.absolute()),
        name=str(place.with_suffix(""))
        if place.suffix.lower() in PICTURES | VIDEOS
        else str(place),
        moves=video or frames != 1,
        is_video=video,
        frames=frames,
    )


def _frames(path: Path) -> int:
    """1 for what can't be read, too: that is told when it is predicted."""
    try:
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1


def _frames_of_video(path: Path) -> int | None:
    """As the header tells, which may err. None too for what can't be read, or not here: what
    predicts it will tell."""
    try:
        import av
    except ImportError:
        return None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.frames > 0:
                return stream.frames
            seconds = (container.duration or 0) / av.time_base
            return round(seconds * (stream.average_rate or 0)) or None
    except (OSError, ValueError, IndexError, av.FFmpegError):
        return None


def _named_apart(found: list[Input]) -> list[Input]:
    """Two files of one folder that differ in their suffix keep it in their names, and so does a
    film beside a folder of its name, such as one with its frames."""
    times = Counter(one.name for one in found)
    folders = _folders(found)
    apart = [
        msgspec.structs.replace(one, name=one.name + Path(one.path).suffix)
        if times[one.name] > 1 or (one.moves and one.name in folders)
        else one
        for one in found
    ]
    folders = _folders(apart)
    times = Counter(one.name for one in apart)
    for one in apart:
        if times[one.name] > 1 or (one.moves and one.name in folders):
            other = next(
                two
                for two in apart
                if two is not one and (two.name == one.name or two.name.startswith(f"{one.name}/"))
            )
            raise ClustersegError(
                f"{one.path} and {other.path} would be written to the same files",
                code="same-name",
                help="predict them into folders of their own",
            )
    return apart


def _folders(found: list[Input]) -> set[str]:
    """Those that the results of `found` lie in."""
    return {str(folder) for one in found for folder in Path(one.name).parents}


def _below(root: Path, beside: Path) -> Iterator[Path]:
    """All files, by name; hidden ones and hidden folders are left alone, and `beside`. Linked
    folders are followed, each folder is read once."""

    def failed(error: OSError) -> None:  # what is not seen would not be missed, either
        raise ClustersegError(
            f"{error.filename} can't be read: {error.strerror}",
            code="no-input",
            help="give yourself the right to read it, or name what is to be predicted",
        ) from None

    seen: set[tuple[int, int]] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=failed):
        status = Path(folder).stat()
        if Path(folder).absolute() == beside or (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)
