"""Scores predictions that lie in files, with numpy and Pillow alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from clusterseg.errors import ClustersegError
from clusterseg.metrics.cityscapes import Tally, tally
from clusterseg.metrics.pairing import Pair
from clusterseg.metrics.runs import Map

_TRAIN_IDS = range(19)


def score_files(
    pairs: Sequence[Pair], *, threads: int = 1, done: Callable[[int], None] = lambda _: None
) -> Tally:
    """What all pairs come to. Each of the `threads` holds one picture at a time: most of the work
    is decoding, during which Pillow lets the others run. `done` is told how many are.

    Raises ClustersegError that names the file: unreadable, several channels, another size than its
    ground truth, or a value that is no label id.
    """
    return Tally.total(_each(pairs, threads, done))


def look_like_train_ids(total: Tally) -> bool:
    """Whether the predictions hold nothing above the last train id, though the truth does. Where
    they hold 255, too, `score_files` refuses them."""
    true, predicted = (np.flatnonzero(total.matrix.sum(axis=axis)) for axis in (1, 0))
    return bool(true.size) and predicted[-1] <= _TRAIN_IDS[-1] < true[-1]


def _each(pairs: Sequence[Pair], threads: int, done: Callable[[int], None]) -> Iterator[Tally]:
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Tally]] = deque()
        number = 0
        try:
            for one in pairs:
                begun.append(pool.submit(_counted, one))
                if len(begun) > threads:
                    yield begun.popleft().result()
                    number += 1
                    done(number)
            while begun:
                yield begun.popleft().result()
                number += 1
                done(number)
        finally:
            for future in begun:
                future.cancel()


def _counted(one: Pair) -> Tally:
    truth = read_values(one.truth)
    prediction = read_values(one.prediction)
    instances = None if one.instances is None else read_values(one.instances)
    try:
        return tally(truth, prediction, instances)
    except ClustersegError as error:
        help = error.help
        if error.code == "bad-class-id" and _look_like_train_ids(prediction):
            help = "these look like train ids (0 to 18, and 255): predictions hold labelIds"
        raise ClustersegError(
            f"{one.prediction} on {one.truth.name}: {error.message}", code=error.code, help=help
        ) from None


def _look_like_train_ids(prediction: Map) -> bool:
    values = {int(one) for one in np.unique(prediction)}
    return 255 in values and values <= {*_TRAIN_IDS, 255}


def read_values(path: Path) -> Map:
    """As `values_of`, of a file."""
    return values_of(path, path)


def values_of(data: Path | BinaryIO, path: Path) -> Map:
    """The values of a picture of one channel, which `path` names in errors, as they stand in it:
    palettes are indices, and 16-bit greys what Pillow makes of them (int32 before Pillow 12,
    uint16 since). Raises ClustersegError: unreadable, or of several channels."""
    try:
        with Image.open(data) as picture:
            values = np.asarray(picture)
    except (
        OSError,
        UnidentifiedImageError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ClustersegError(
            f"{path}: not readable as a picture ({why})", code="unreadable-picture"
        ) from None
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.ndim != 2 or values.dtype.kind not in "ui":
        channels = f"{values.shape[2]} channels" if values.ndim == 3 else str(values.dtype)
        raise ClustersegError(
            f"{path}: a label map has one channel of whole numbers, this one has {channels}",
            code="bad-mask",
            help="give label ids, not colours",
        )
    return values
