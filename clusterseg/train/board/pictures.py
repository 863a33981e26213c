"""Pictures of a few validation samples: input, label, prediction, and prediction over input."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image as Pillow

from clusterseg.data.dataset import Color
from clusterseg.data.normalisation import IMAGENET, Normalisation
from clusterseg.train.board.event_file import Image

SAMPLES = 4
_LONGEST = 512  # pixels of the longer side: to look at, and some 300 kB as a PNG at most
_UNKNOWN = (160, 160, 160)  # classes of the model that the data set has no colour for
_NO_LABEL = (0, 0, 0)


class Look:
    """Takes the first samples out of the batches of a validation, on rank 0.

    What it keeps is made small at once: a picture by the mean of its pixels, class numbers by
    taking one of them.
    """

    def __init__(self, most: int = SAMPLES, longest: int = _LONGEST) -> None:
        self._left = most
        self._longest = longest
        self.samples: list[tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]] = []

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, predictions: tf.Tensor, valid: tf.Tensor
    ) -> None:
        """One batch: float32 [batch, height, width, 3], int32 [batch, height, width] twice, and
        bool [batch], False for padding."""
        if not self._left:
            return
        rows = np.flatnonzero(np.asarray(valid))[: self._left]
        if not len(rows):
            return
        self._left -= len(rows)
        _, height, width, _ = images.shape
        step = -(-max(height, width) // self._longest)
        small = tf.nn.avg_pool2d(tf.gather(images, rows), step, step, "SAME").numpy()
        truth, found = (
            tf.gather(maps, rows)[:, ::step, ::step].numpy() for maps in (labels, predictions)
        )
        self.samples += zip(small, truth, found, strict=True)


class Painter:
    """Draws samples in the colours of a data set with `classes` classes."""

    def __init__(
        self,
        colors: Sequence[Color],
        classes: int,
        ignore: int | None,
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        listed = [*colors[:classes], *[_UNKNOWN] * (classes - len(colors)), _NO_LABEL]
        self._palette = np.array(listed, np.uint8)
        self._classes = classes
        self._ignore = ignore
        self._normalisation = normalisation

    def paint(self, look: Look) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """(tag, uint8 [height, width, 3]) of every picture.

        Black is what has no label. The overlay is half picture, half colour of the prediction.
        """
        for number, (image, labels, predictions) in enumerate(look.samples):
            seen = self._seen(image)
            colored = self._palette[predictions]
            mixed = (seen.astype(np.uint16) + colored + 1) // 2
            yield f"sample_{number}/input", seen
            yield f"sample_{number}/label", self._palette[self._known(labels)]
            yield f"sample_{number}/prediction", colored
            yield f"sample_{number}/overlay", mixed.astype(np.uint8)

    def _seen(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        rgb = image[..., ::-1] if self._normalisation.order == "bgr" else image
        pixels = rgb * self._normalisation.deviation + self._normalisation.mean
        rounded: NDArray[np.uint8] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return rounded

    def _known(self, labels: NDArray[np.int32]) -> NDArray[Any]:
        """Class numbers; the last row of the palette where there is no label."""
        known = (labels >= 0) & (labels < self._classes)
        if self._ignore is not None:
            known &= labels != self._ignore
        return np.where(known, labels, self._classes)


def encode(pixels: NDArray[np.uint8]) -> Image:
    """As PNG."""
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    height, width, _ = pixels.shape
    return Image(stream.getvalue(), height, width)
