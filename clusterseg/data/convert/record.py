"""A sample as a record with the keys of research/deeplab's data sets."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clusterseg.data.synth.encode import png
from clusterseg.data.tfrecords.example import encode
from clusterseg.data.tfrecords.shard import IMAGE, MASK, NAME, framed

NOTHING = 255
"""What stands in a mask for pixels that count nowhere."""

_KEPT = {"JPEG": "jpeg", "PNG": "png"}


def record(name: str, image: bytes, labels: NDArray[np.integer], ignore: int | None) -> bytes:
    """The framed record of a picture's file and its labels (classes, and `ignore`).

    JPEG and PNG stay as they are, byte for byte; other pictures become PNG.
    """
    with Image.open(io.BytesIO(image)) as picture:
        height, width, kind = picture.height, picture.width, _KEPT.get(picture.format or "")
        if kind is None:
            kind, image = "png", png(np.asarray(picture.convert("RGB")))
    values = labels if ignore is None else np.where(labels == ignore, NOTHING, labels)
    features: dict[str, bytes | int] = {
        IMAGE: image,
        NAME: name.encode(),
        "image/format": kind.encode(),
        "image/height": height,
        "image/width": width,
        "image/channels": 3,
        MASK: png(values.astype(np.uint8)),
        "image/segmentation/class/format": b"png",
    }
    return framed(encode(features))


def shard_name(part: str, number: int, count: int) -> str:
    """As research/deeplab names them."""
    return f"{part}-{number:05d}-of-{count:05d}.tfrecord"


def shares(samples: int, shards: int) -> list[range]:
    """Which samples each of `shards` has, in their order, the numbers as equal as can be; no more
    shards than samples."""
    count = min(shards, samples)
    return [range(samples * i // count, samples * (i + 1) // count) for i in range(count)]
