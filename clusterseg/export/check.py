"""Whether a file computes what the network does: by running it on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.export.formats import FLIPS, Bound
from clusterseg.export.graph import Form, normalised
from clusterseg.export.network import Network
from clusterseg.export.runtimes import Run
from clusterseg.export.samples import Samples
from clusterseg.metrics.scores import mean_iou, pixel_accuracy


@dataclass(frozen=True)
class Scores:
    """Over the labelled pixels of the pictures, at the network's size."""

    pixel_accuracy: float
    mean_iou: float


@dataclass(frozen=True)
class Comparison:
    """A file beside its network, over `pictures` pictures of `of`.

    `largest_difference` is that of any logit; null where the file gives labels, or integers.
    `equal_labels` is the share of pixels that get the same class. `network` and `file` have the
    scores of both; null where the labels of the pictures are not known.
    """

    of: str
    pictures: int
    largest_difference: float | None
    bound: float | None
    equal_labels: float
    network: Scores | None = None
    file: Scores | None = None

    @property
    def lost_accuracy(self) -> float | None:
        """How much lower the file's pixel accuracy is; negative: higher."""
        if self.network is None or self.file is None:
            return None
        return self.network.pixel_accuracy - self.file.pixel_accuracy


@dataclass
class _Sums:
    """What is added up, picture by picture."""

    classes: int
    pixels: int = 0
    equal: int = 0
    values: int = 0
    outside: int = 0  # of `values`: logits beyond the bound, or labels where the network is clear
    difference: float = 0.0
    limit: float = 0.0
    matrices: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def count(self, name: str, labels: NDArray[Any], found: NDArray[Any], valid: Any) -> None:
        cells = labels[valid].astype(np.int64) * self.classes + found[valid]
        counts = np.bincount(cells, minlength=self.classes**2)
        matrix = counts.reshape(self.classes, self.classes).astype(np.int64)
        self.matrices[name] = self.matrices.get(name, 0) + matrix

    def scores(self, name: str) -> Scores | None:
        matrix = self.matrices.get(name)
        if matrix is None or not matrix.any():
            return None
        return Scores(pixel_accuracy(matrix), mean_iou(matrix))


def prepared(pixels: NDArray[np.float32], network: Network, form: Form) -> NDArray[Any]:
    """Pixels (RGB, 0 to 255) as the input that `form` says."""
    if form.raw:
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return normalised(pixels, network.normalisation)


@dataclass(frozen=True)
class Inputs:
    """Each of `samples` as a batch of one, as `form` says; read anew by every iteration."""

    samples: Samples
    network: Network
    form: Form

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for pixels, _ in self.samples:
            yield prepared(pixels[np.newaxis], self.network, self.form)


def compare(
    network: Network,
    form: Form,
    run: Run,
    samples: Samples,
    *,
    bound: Bound | None,
    ignore: int | None,
    file: str,
    flips: float = FLIPS,
) -> Comparison:
    """Runs `run` (the file called `file`) and the network on all of `samples`.

    Raises ClustersegError if a logit differs by more than `bound`, or, of a file that gives labels,
    one where the network's first two classes are further apart than twice that. Of a network that
    decides on the way (`Network.decides`) a share of `flips` of the values may, and as many of the
    pixels be of another class: where two are equal but for the last bit of a sum, that decides.
    `bound` None: nothing is too much, for integers.
    """
    sums = _Sums(network.classes)
    for pictures, labels in _batches(samples, form.batch or 2):
        count = len(labels)
        inputs = prepared(pictures, network, form)
        seen = normalised(inputs, network.normalisation) if form.raw else inputs
        logits = np.asarray(network.model(seen, training=False))
        found = run(inputs)
        if not np.isfinite(found).all():
            raise _wrong(file, "gives NaN or infinity where the network does not")
        _add(sums, logits[:count], found[:count], form=form, bound=bound)
        _score(sums, logits[:count], found[:count], labels, ignore)
    if bound is not None:
        _judge(sums, file, form, flips if network.decides else None)
    return Comparison(
        of=samples.what,
        pictures=len(samples),
        largest_difference=None if form.argmax else sums.difference,
        bound=None if form.argmax or bound is None else sums.limit,
        equal_labels=sums.equal / max(1, sums.pixels),
        network=sums.scores("network"),
        file=sums.scores("file"),
    )


def _judge(sums: _Sums, file: str, form: Form, flips: float | None) -> None:
    """`flips` None: the network does not decide on the way."""
    other, few = sums.pixels - sums.equal, flips or 0.0
    share = max(other / max(1, sums.pixels), sums.outside / max(1, sums.values))
    if flips is not None and other > few * sums.pixels:
        raise _wrong(file, f"gives another class at {other} of {sums.pixels} pixels", share)
    if sums.outside <= few * sums.values:
        return
    if form.argmax:
        what = f"gives another class at {sums.outside} pixels where the network is clear"
    else:
        what = f"differs by up to {sums.difference:.3g} from the network, not {sums.limit:.3g}"
        if flips is not None:
            what += f", at {sums.outside} of {sums.values} logits"
    raise _wrong(file, what, None if flips is None else share)


def _add(
    sums: _Sums, logits: NDArray[Any], found: NDArray[Any], *, form: Form, bound: Bound | None
) -> None:
    classes, chosen = logits.argmax(-1), _labels(found)
    sums.pixels += classes.size
    sums.equal += int(np.count_nonzero(chosen == classes))
    limit = np.inf if bound is None else bound.limit(float(np.abs(logits).max()))
    sums.limit = max(sums.limit, limit)
    if form.argmax:
        pairs = np.partition(logits, -2, axis=-1)
        outside = (pairs[..., -1] - pairs[..., -2] > 2 * limit) & (chosen != classes)
    else:
        differences = np.abs(found - logits)
        sums.difference = max(sums.difference, float(differences.max()))
        outside = differences > limit
    sums.values += outside.size
    sums.outside += int(np.count_nonzero(outside))


def _score(
    sums: _Sums,
    logits: NDArray[Any],
    found: NDArray[Any],
    labels: list[NDArray[np.int32] | None],
    ignore: int | None,
) -> None:
    for truth, before, after in zip(labels, logits.argmax(-1), _labels(found), strict=True):
        if truth is not None:
            valid = truth >= 0 if ignore is None else (truth >= 0) & (truth != ignore)
            sums.count("network", truth, before, valid)
            sums.count("file", truth, after, valid)


def _labels(found: NDArray[Any]) -> NDArray[Any]:
    """Labels [n, height, width] of an output that has them or logits."""
    return found if found.ndim == 3 else found.argmax(-1)


def _batches(
    samples: Samples, batch: int
) -> Iterator[tuple[NDArray[np.float32], list[NDArray[np.int32] | None]]]:
    """(pixels [batch, ...], labels of those that count); the last is filled with its last one."""
    pixels: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int32] | None] = []
    for number, (picture, truth) in enumerate(samples, start=1):
        pixels.append(picture)
        labels.append(truth)
        if len(pixels) == batch or number == len(samples):
            pixels += [picture] * (batch - len(pixels))
            yield np.stack(pixels), labels
            pixels, labels = [], []


def _wrong(file: str, what: str, flipped: float | None = None) -> ClustersegError:
    """`flipped`: the share that a network which decides on the way would have to be allowed."""
    if flipped is None:
        why = "rounding in a very deep network: there --tolerance 1e-3 allows for it"
    else:
        why = "a network hardly trained, that decides by the last bit of its sums: there --flips "
        why += f"{math.ceil(flipped * 100) / 100:g} allows for it"
    return ClustersegError(
        f"{file} {what}; nothing was written",
        code="export-differs",
        help=f"weights of a training that diverged do this, and {why}; else it is a fault of the "
        "converter: try another format",
        exit_code=ExitCode.FAILED,
    )
