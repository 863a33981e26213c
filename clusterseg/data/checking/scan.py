"""One pass over the files of a part, in parallel: what can be said of each sample alone."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from clusterseg.data.dataset import Color, Part, Sample
from clusterseg.data.files import mask_values
from clusterseg.data.sources import image_data, mask_data
from clusterseg.errors import ClustersegError

# What Pillow raises for files that are none of its pictures, or broken ones.
_FAILED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_CHANNELS = {"blue": 3}  # of a mask, by its kind; one where it is not named
_DEEP = ("I;16", "I;16B", "I")
_MODES = {"palette": ("P",), "grey": ("L", "1", *_DEEP)}
_ORIENTATION = 0x0112  # of EXIF: 1, or nothing, is upright


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file. `text` says what, without the file's name."""

    code: str
    path: Path
    text: str


@dataclass(frozen=True)
class Facts:
    """What was found in one sample; what could not be found out is empty, and a problem says why.

    `size` is (height, width) of the picture. `digest` is one of the bytes of its file. `values` are
    the pixels of each value in the mask, `palette` the colours of those values where it has one.
    """

    part: str
    sample: Sample
    size: tuple[int, int] | None = None
    picture_kind: str = ""
    upright: bool = True
    digest: bytes = b""
    mask_kind: str = ""
    values: tuple[tuple[int, int], ...] = ()
    palette: tuple[tuple[int, Color], ...] = ()
    problems: tuple[Problem, ...] = ()


def scan(part: Part, *, workers: int, pictures: bool = True) -> Iterator[Facts]:
    """The facts of each sample, in their order. Without `pictures` only masks are read.

    Raises nothing for what is wrong with a file. Threads do: decoding lets go of Python's lock.
    """
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        yield from pool.map(lambda sample: _facts(part, sample, pictures), part.samples)
    finally:  # also where the caller stops early: nobody wants the rest
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Picture:
    size: tuple[int, int]
    kind: str
    upright: bool
    digest: bytes


@dataclass(frozen=True)
class _Mask:
    size: tuple[int, int]
    kind: str
    values: tuple[tuple[int, int], ...]
    palette: tuple[tuple[int, Color], ...]


def _facts(part: Part, sample: Sample, pictures: bool) -> Facts:
    found: list[Problem] = []
    try:
        picture = _picture(sample, found) if pictures else None
        mask = _mask(sample, part, found)
    except ClustersegError as error:  # of a record, which has both
        found.append(Problem(error.code, sample.image, error.message))
        return Facts(part.name, sample, problems=tuple(found))
    if picture is not None and mask is not None and picture.size != mask.size:
        found.append(_differ(sample.mask, mask.size, picture.size))
    if pictures and sample.instances is not None:
        _instances(sample.instances, mask, found)
    return Facts(
        part.name,
        sample,
        size=picture.size if picture else None,
        picture_kind=picture.kind if picture else "",
        upright=picture.upright if picture else True,
        digest=picture.digest if picture else b"",
        mask_kind=mask.kind if mask else "",
        values=mask.values if mask else (),
        palette=mask.palette if mask else (),
        problems=tuple(found),
    )


def _picture(sample: Sample, found: list[Problem]) -> _Picture | None:
    path = sample.image
    try:
        data = image_data(sample)
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            upright = picture.getexif().get(_ORIENTATION, 1) in (0, 1)
            if np.asarray(picture).dtype not in (np.uint8, np.bool_):
                found.append(Problem("bad-picture", path, "more than 8 bits a channel"))
            kind = f"{picture.format} {picture.mode}"
            digest = hashlib.blake2b(data, digest_size=16).digest()
            return _Picture((picture.height, picture.width), kind, upright, digest)
    except _FAILED as error:
        found.append(_unreadable("unreadable-picture", path, error))
        return None


def _mask(sample: Sample, part: Part, found: list[Problem]) -> _Mask | None:
    path = sample.mask
    try:
        with Image.open(io.BytesIO(mask_data(sample))) as picture:
            picture.load()
            if picture.format == "JPEG":
                text = "a JPEG: what is written is not what is read, labels come out changed"
                found.append(Problem("lossy-mask", path, text))
                return None
            try:
                values = mask_values(picture, part.mask_kind)
            except ValueError as error:
                found.append(Problem("bad-mask", path, f"{error}{_shown(picture)}"))
                return None
            if values.size and (values.min() < 0 or values.max() >= 1 << 16):
                found.append(Problem("bad-mask", path, "values of more than 16 bits"))
                return None
            size, kind = (picture.height, picture.width), f"{picture.format} {picture.mode}"
            counts = np.bincount(values.reshape(-1))
            seen = np.flatnonzero(counts)
            palette = _palette(picture, seen)
    except _FAILED as error:
        found.append(_unreadable("unreadable-mask", path, error))
        return None
    listed = tuple((int(value), int(counts[value])) for value in seen)
    return _Mask(size, kind, listed, palette)


def _palette(picture: Image.Image, seen: NDArray[np.intp]) -> tuple[tuple[int, Color], ...]:
    flat = picture.getpalette("RGB") if picture.mode == "P" else None
    if flat is None:
        return ()
    colors = [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat) - 2, 3)]
    return tuple((int(value), colors[value]) for value in seen if value < len(colors))


def _instances(path: Path, mask: _Mask | None, found: list[Problem]) -> None:
    """Ids are label x 1000 + number, or the label itself for what has no instances."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            ids = np.asarray(picture)
    except _FAILED as error:
        found.append(_unreadable("unreadable-instances", path, error))
        return
    if ids.ndim != 2:
        found.append(Problem("bad-instances", path, f"{ids.shape[2]} channels instead of one"))
        return
    if mask is None:
        return
    if ids.shape != mask.size:
        found.append(_differ(path, (ids.shape[0], ids.shape[1]), mask.size))
        return
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << 16):
        found.append(Problem("bad-instances", path, "ids of more than 16 bits"))
        return
    counts = np.bincount(ids.reshape(-1))
    numbers = np.flatnonzero(counts)
    labels = np.where(numbers >= 1000, numbers // 1000, numbers)
    known = dict(mask.values)
    for label in sorted(set(labels.tolist())):
        if known.get(label, 0) != int(counts[numbers[labels == label]].sum()):
            text = f"its instances of label {label} cover other pixels than the mask's"
            found.append(Problem("bad-instances", path, text))
            return


def _differ(path: Path, own: tuple[int, int], others: tuple[int, int]) -> Problem:
    text = f"{own[0]}x{own[1]}, but its picture is {others[0]}x{others[1]} (height x width)"
    return Problem("bad-mask-size", path, text)


def _unreadable(code: str, path: Path, error: Exception) -> Problem:
    if isinstance(error, FileNotFoundError):
        return Problem("missing-file", path, "no such file")
    if isinstance(error, UnidentifiedImageError):
        return Problem(code, path, "no picture of a known kind")
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Problem(code, path, said.partition("\n")[0][:200] or type(error).__name__)


def _shown(picture: Image.Image) -> str:
    """The colours of a mask of several channels, if they are few enough to stand for classes."""
    pixels = np.asarray(picture)
    if pixels.ndim != 3:
        return ""
    some = pixels.reshape(-1, pixels.shape[-1])[:: max(1, pixels.size // 2**20)]
    colors = np.unique(some, axis=0)
    return f"; it shows {len(colors)} colours" if len(colors) <= 256 else ""
