"""Writes what was predicted: ids, colours, overlays, maps; each file whole or not at all."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.files import replace
from clusterseg.train.inference.classes import Classes
from clusterseg.train.inference.predictor import Prediction

Picture = NDArray[np.uint8]
_QUALITY = 90  # of JPEG


def write(
    output: Path,
    *,
    name: str,
    kinds: tuple[str, ...],
    picture: Picture,
    found: Prediction,
    of: Classes,
) -> None:
    """A file a kind: `output/<kind>/<name>.<suffix>`. Raises ClustersegError if it can't be."""
    for kind in kinds:
        suffix, encode = _KINDS[kind]
        path = output / kind / f"{name}{suffix}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace(path, encode(picture, found, of), private=False)
        except OSError as error:
            raise ClustersegError(
                f"{error.filename or path} can't be written: {error.strerror or error}",
                code="no-output",
                exit_code=ExitCode.FAILED,
            ) from None


def record(name: str, path: str, found: Prediction, of: Classes) -> dict[str, Any]:
    """What predictions.json says of one picture."""
    height, width = found.classes.shape
    pixels = np.bincount(found.classes.reshape(-1), minlength=len(of))
    said = {
        "name": name,
        "file": path,
        "height": height,
        "width": width,
        "confidence": float(found.confidence.mean()),
        "classes": {of.names[one]: int(pixels[one]) for one in np.flatnonzero(pixels)},
    }
    if found.samples is not None:
        said["entropy"] = float(found.samples.entropy.mean())
        said["mutual_information"] = float(found.samples.mutual_information.mean())
    return said


def _ids(_: Picture, found: Prediction, of: Classes) -> bytes:
    """What the masks of the data set hold: 8 bits, or 16 if they don't suffice."""
    dtype = np.uint8 if max(of.ids) < 256 else np.uint16
    return _png(Image.fromarray(np.array(of.ids, dtype)[found.classes]))


def _color(_: Picture, found: Prediction, of: Classes) -> bytes:
    """The classes by number, with their colours as palette; RGB where there are more than 256."""
    if len(of) > 256:
        return _png(Image.fromarray(_palette(of)[found.classes]))
    picture = Image.fromarray(found.classes.astype(np.uint8), "L")
    picture.putpalette(_palette(of).tobytes())
    return _png(picture)


def _overlay(picture: Picture, found: Prediction, of: Classes) -> bytes:
    """Half picture, half colour."""
    colors = _palette(of)[found.classes]
    mixed = (picture.astype(np.uint16) + colors + 1) // 2
    stream = io.BytesIO()
    Image.fromarray(mixed.astype(np.uint8)).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def _confidence(_: Picture, found: Prediction, of: Classes) -> bytes:
    return _grey(found.confidence, 1.0)


def _entropy(_: Picture, found: Prediction, of: Classes) -> bytes:
    return _grey(_samples(found).entropy, math.log(len(of)))


def _mutual_information(_: Picture, found: Prediction, of: Classes) -> bytes:
    return _grey(_samples(found).mutual_information, math.log(len(of)))


def _maps(_: Picture, found: Prediction, of: Classes) -> bytes:
    """All maps as numbers: float16, for numpy.load."""
    samples = _samples(found)
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        mean=samples.mean.astype(np.float16),
        entropy=samples.entropy.astype(np.float16),
        mutual_information=samples.mutual_information.astype(np.float16),
    )
    return stream.getvalue()


def _samples(found: Prediction) -> Any:
    if found.samples is None:
        raise ValueError("no samples were drawn")
    return found.samples


def _grey(values: NDArray[np.float32], most: float) -> bytes:
    """0 to `most` as 0 to 255."""
    scaled = np.rint(np.clip(values / most, 0, 1) * 255)
    return _png(Image.fromarray(scaled.astype(np.uint8)))


def _palette(of: Classes) -> NDArray[np.uint8]:
    return np.array(of.colors, np.uint8)


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


_Encode = Callable[[Picture, Prediction, Classes], bytes]
_KINDS: Mapping[str, tuple[str, _Encode]] = MappingProxyType(
    {
        "ids": (".png", _ids),
        "color": (".png", _color),
        "overlay": (".jpg", _overlay),
        "confidence": (".png", _confidence),
        "entropy": (".png", _entropy),
        "mutual_information": (".png", _mutual_information),
        "maps": (".npz", _maps),
    }
)
