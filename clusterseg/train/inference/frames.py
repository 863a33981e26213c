"""Reads pictures and the frames of videos as uint8 [height, width, 3], RGB."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from clusterseg.errors import ClustersegError

Picture = NDArray[np.uint8]

_TENSORFLOW = frozenset({".png", ".jpg", ".jpeg", ".bmp"})
# What TensorFlow 2.21 puts around its words: `{{function_node ...}} ... [Op:DecodeImage] name: `.
_OF_THE_GRAPH = re.compile(r"\A\{\{.*?\}\}|\[Op:\w+\](?: name:.*)?\s*\Z")
_OF_PILLOW = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
)


def read_picture(path: Path) -> Picture:
    """As the trainer's input pipeline reads it; what TensorFlow does not know, by Pillow.

    Raises ClustersegError that names the file.
    """
    try:
        return decoded(path.read_bytes(), path)
    except OSError as error:
        raise _unreadable(path, error) from None


def decoded(data: bytes, path: Path) -> Picture:
    """As `read_picture`, of the bytes of the file `path`, or what is called so."""
    try:
        if path.suffix.lower() in _TENSORFLOW:
            image = tf.io.decode_image(data, channels=3, expand_animations=False)
            pixels: Picture = image.numpy()
            return pixels
        with Image.open(io.BytesIO(data)) as picture:
            return _rgb(picture)
    except tf.errors.ResourceExhaustedError:  # of memory: that is not the file's fault
        raise
    except (*_OF_PILLOW, tf.errors.OpError) as error:
        raise _unreadable(path, error) from None


def frames(
    path: Path, *, is_video: bool, every: int = 1, first: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Picture]]:
    """(number from 0, frame) of every `every`-th frame, one at a time; of those from number
    `first` on and before `stop`.

    Frames are decoded from the beginning and counted, never looked up: a container leads to the
    key frame before a time at best, and where times are missing or wrong, to another frame. So a
    frame has the same number and pixels in whichever range it is read.

    GIF, APNG, WebP and TIFF are read by Pillow, other videos by PyAV. Raises ClustersegError: not
    readable, or PyAV is not installed.
    """
    try:
        for number, picture in enumerate(islice(_video(path) if is_video else _moving(path), stop)):
            if number >= first and number % every == 0:
                yield number, picture()
    except _OF_PILLOW as error:
        raise _unreadable(path, error) from None


class _Frame:
    """One that is turned into pixels only if it is wanted."""

    def __init__(self, frame: object) -> None:
        self._frame = frame

    def __call__(self) -> Picture:
        if isinstance(self._frame, Image.Image):
            return _rgb(self._frame)
        pixels: Picture = self._frame.to_ndarray(format="rgb24")  # type: ignore[attr-defined]
        return pixels


def _moving(path: Path) -> Iterator[_Frame]:
    with Image.open(path) as picture:
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            yield _Frame(picture)


def _video(path: Path) -> Iterator[_Frame]:
    try:
        import av
    except ImportError:
        raise ClustersegError(
            f"{path}: PyAV reads videos, and is not installed",
            code="no-video",
            help="pip install 'clusterseg[video]', or give the frames as pictures",
        ) from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("it has no pictures")
            for frame in container.decode(video=0):
                yield _Frame(frame)
    except av.FFmpegError as error:  # not all are an OSError or a ValueError: no decoder is neither
        raise ValueError(str(error)) from None


def _rgb(picture: Image.Image) -> Picture:
    return np.asarray(picture.convert("RGB"))


def _unreadable(path: Path, error: Exception) -> ClustersegError:
    said = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    # Pillow says an address in memory there.
    unknown = isinstance(error, UnidentifiedImageError)
    text = "of no known kind" if unknown else _OF_THE_GRAPH.sub("", said).strip()
    why = text.splitlines()[0][:300] if text else type(error).__name__
    return ClustersegError(
        f"{path}: not readable ({why})",
        code="unreadable-picture",
        help="it is damaged, or not what its suffix says",
    )
