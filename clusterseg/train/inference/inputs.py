"""Which pictures and videos are meant by the arguments of `predict`. No TensorFlow."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from PIL import Image, UnidentifiedImageError

from clusterseg.errors import ClustersegError

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv"})
_MAY_MOVE = frozenset({".png", ".gif", ".tif", ".tiff", ".webp"})


class Input(Struct, frozen=True, kw_only=True):
    """A file; `name` is where its results go, below the folder of each kind, without a suffix.

    `moves`: it has several frames. `is_video`: those are no pictures of Pillow's.
    """

    path: str
    name: str
    moves: bool = False
    is_video: bool = False


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
        if argument.is_dir():
            for path in _below(argument, beside.absolute()):
                if path.suffix.lower() in PICTURES | VIDEOS:
                    found.append(_input(path, path.relative_to(argument)))
                else:
                    others += 1
        elif argument.is_file():
            found.append(_input(argument, Path(argument.name)))
        else:
            raise ClustersegError(
                f"{argument}: no such file or folder", code="no-input", help="name pictures"
            )
    if not found:
        listed = ", ".join(sorted(PICTURES | VIDEOS))
        raise ClustersegError(
            f"no pictures in {', '.join(map(str, arguments))}",
            code="no-input",
            help=f"files are known by their suffix: {listed}",
        )
    return _named_apart(found), others


def _input(path: Path, place: Path) -> Input:
    suffix = path.suffix.lower()
    video = suffix in VIDEOS
    return Input(
        path=str(path.absolute()),
        name=str(place.with_suffix(""))
        if place.suffix.lower() in PICTURES | VIDEOS
        else str(place),
        moves=video or (suffix in _MAY_MOVE and _frames(path) > 1),
        is_video=video,
    )


def _frames(path: Path) -> int:
    """1 for what can't be read, too: that is told when it is predicted."""
    try:
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1


def _named_apart(found: list[Input]) -> list[Input]:
    """Two files of one folder that differ in their suffix keep it in their names."""
    times = Counter(one.name for one in found)
    apart = [
        one
        if times[one.name] == 1
        else Input(
            path=one.path,
            name=one.name + Path(one.path).suffix,
            moves=one.moves,
            is_video=one.is_video,
        )
        for one in found
    ]
    twice = [name for name, count in Counter(one.name for one in apart).items() if count > 1]
    if twice:
        paths = [one.path for one in apart if one.name == twice[0]]
        raise ClustersegError(
            f"{paths[0]} and {paths[1]} would be written to the same files",
            code="same-name",
            help="predict them into folders of their own",
        )
    return apart


def _below(root: Path, beside: Path) -> Iterator[Path]:
    """All files, by name; hidden ones and hidden folders are left alone, and `beside`."""
    for folder, below, names in os.walk(root):
        if Path(folder).absolute() == beside:
            below.clear()
            continue
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)
