"""Reads single files with Pillow, to say exactly what is wrong with which one."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from clusterseg.data.dataset import INVALID, MaskKind, Part
from clusterseg.data.sources import image_data, mask_data
from clusterseg.errors import ClustersegError

_UNREADABLE = (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError)
# Pillow's modes in which a mask of a kind is read. What is I was I;16 to newer versions.
_ONE_CHANNEL = ("1", "L", "I;16", "I;16B", "I")
_MODES: dict[MaskKind, tuple[str, ...]] = {
    "values": (*_ONE_CHANNEL, "P"),
    "grey": _ONE_CHANNEL,
    "palette": ("P",),
    "blue": ("RGB",),
}
_MASK_HELP: dict[MaskKind, str] = {
    "values": "masks hold one channel (or a palette), with the number of the class; where it "
    "stands in the blue of three channels: data format folder, labels: blue",
    "grey": "masks hold one grey channel, with the number of the class (data.labels: grey)",
    "palette": "masks hold the class as indices of a palette (data.labels: palette)",
    "blue": "masks hold three channels, the class in the blue one (data.labels: blue); "
    "where they have one, leave data.labels out",
}
# Pillow's own errors are OSErrors without a number.
_OF_THE_FILE = (None, errno.EISDIR)


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from a picture's header; raises ClustersegError if it can't be read."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def read_labels(part: Part, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """int32 [height, width]: the mask of sample `number`, as classes and the ignored label.

    Raises ClustersegError that names the file: not readable, no mask of the part's kind, or a
    value that is no class.
    """
    path = part.samples[number].mask
    values = _mask(path, lambda: mask_data(part.samples[number]), part.mask_kind)
    table = np.array([*part.label_table, INVALID], np.int32)
    beyond = len(part.label_table)
    labels = table[np.where((values >= 0) & (values < beyond), values, beyond)]
    if (labels == INVALID).any():
        y, x = (int(i) for i in np.argwhere(labels == INVALID)[0])
        wrong = [int(v) for v in np.unique(values[labels == INVALID])]
        listed = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        raise ClustersegError(
            f"{path}: class id {int(values[y, x])} at row {y}, column {x} is out of range "
            f"(ids out of range in this file: {listed})",
            code="bad-class-id",
            help=f"ids that the data set defines: {_defined(part)}",
        )
    return labels


def check_sample(part: Part, number: int) -> None:
    """Reads sample `number` whole; raises ClustersegError that names the file that is wrong."""
    sample = part.samples[number]
    image = _pixels(sample.image, lambda: image_data(sample))
    labels = read_labels(part, number)
    if image.shape[:2] != labels.shape:
        raise ClustersegError(
            f"{sample.mask}: the mask is {labels.shape[0]}x{labels.shape[1]}, but its picture "
            f"{sample.image} is {image.shape[0]}x{image.shape[1]} (height x width)",
            code="bad-mask-size",
            help="give both one size, or leave such samples out: train.data.on_unreadable: skip",
        )


def is_of_the_file(error: ClustersegError) -> bool:
    """Whether what `check_sample` or `picture_size` raised will be so again whenever it is read:
    the file is at fault. False for a file system's bad moment (ESTALE, EMFILE, …), and for a
    file that is gone: with it the set can't be opened again.
    """
    cause = error.__cause__
    return not isinstance(cause, OSError) or cause.errno in _OF_THE_FILE


def mask_values(picture: Image.Image, kind: MaskKind) -> NDArray[np.int32]:
    """int32 [height, width]: what stands in the mask; ValueError, which says why, for what is none
    of this kind."""
    if picture.format == "JPEG":
        raise ValueError("the mask is a JPEG, which changes the numbers that it is given")
    if picture.mode not in _MODES[kind]:
        channels = len(picture.getbands())
        if kind == "blue":
            has = "one channel" if channels == 1 else f"{channels} channels"
            raise ValueError(f"the mask has {has} ({picture.mode}), not three")
        if channels > 1:
            raise ValueError(f"the mask has {channels} channels")
        raise ValueError(f"the mask is not {kind} (its mode is {picture.mode})")
    values = np.asarray(picture)
    return (values[..., 2] if kind == "blue" else values).astype(np.int32)


def _mask(path: Path, read: Callable[[], bytes], kind: MaskKind) -> NDArray[np.int32]:
    try:
        with Image.open(io.BytesIO(read())) as picture:
            picture.load()
            try:
                return mask_values(picture, kind)
            except ValueError as error:
                raise ClustersegError(
                    f"{path}: {error}", code="bad-mask", help=_MASK_HELP[kind]
                ) from error
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _pixels(
    path: Path, read: Callable[[], bytes]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    try:
        with Image.open(io.BytesIO(read())) as picture:
            pixels = np.asarray(picture)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if pixels.dtype != np.uint8:
        raise ClustersegError(
            f"{path}: not 8 bits a channel", code="bad-picture", help="convert it to 8 bits"
        )
    return pixels


def _unreadable(path: Path, error: Exception) -> ClustersegError:
    if isinstance(error, FileNotFoundError):
        return ClustersegError(
            f"{path}: no such file",
            code="missing-file",
            help="put it back, or take its line out of the list that names it",
        )
    why = "of no known kind" if isinstance(error, UnidentifiedImageError) else _first_line(error)
    return ClustersegError(
        f"{path}: not readable as a picture ({why})",
        code="unreadable-picture",
        help="repair it, or leave such samples out: train.data.on_unreadable: skip",
    )


def _first_line(error: Exception) -> str:
    """What Pillow or the system says of a file, without its path."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return said.partition("\n")[0][:200] or type(error).__name__


def _defined(part: Part) -> str:
    """The defined mask values as ranges: `0-11, 255`."""
    values = [v for v, label in enumerate(part.label_table) if label != INVALID]
    ranges: list[list[int]] = []
    for value in values:
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in ranges)
