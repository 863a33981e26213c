"""The input pipeline of one rank: files -> decoded, augmented, normalised batches.

A sample's augmentation is drawn from (seed, epoch, sample index) alone: it is the same on any
rank, with any number of ranks, and after a resume inside the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.data.augment import Augmentation, Context, build_augmentations
from clusterseg.data.dataset import INVALID, MaskKind, Part
from clusterseg.data.files import check_sample, is_of_the_file
from clusterseg.data.geometry import normalise, resize_image, resize_labels
from clusterseg.data.masks import decode_mask
from clusterseg.data.normalisation import IMAGENET, Normalisation
from clusterseg.data.order import PADDING
from clusterseg.data.sources import located
from clusterseg.data.tfrecords.graph import read_pair as read_record
from clusterseg.errors import ClustersegError

NO_LABEL = -1
"""Label of padding where the job ignores no label, and around masks of their files' sizes; losses
and metrics never count it."""


def batches(
    part: Part,
    indices: NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    augment: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    ignore: int | None,
    threads: int,
    normalisation: Normalisation = IMAGENET,
    stand_in: int = 0,
    prefetch: int = 2,
    file_masks: bool = False,
) -> tf.data.Dataset:
    """The batches of `indices` [steps, batch] (`order.rank_slice`), in their order.

    Elements: images float32 [batch, height, width, 3], normalised; labels int32
    [batch, height, width]; valid bool [batch]. Pictures are resized to `size` (height, width),
    bilinearly, masks by the nearest pixel. Where `indices` holds PADDING, valid is False, no
    pixel has a label (`ignore`, or NO_LABEL without it), and the picture is another of the same
    batch, so that batch norm's statistics see pictures rather than a flat colour; where it has
    none, sample `stand_in`.

    With `file_masks` (for which nothing may be augmented) two more: masks int32 [batch, H, W], the
    labels at their files' sizes, with NO_LABEL right of and below those that are smaller than the
    largest of the batch; sizes int32 [batch, 2], each one's own (height, width). Where valid is
    False the mask is one pixel of NO_LABEL.

    `threads` decode in parallel, besides the one that takes the batches, `prefetch` batches ahead;
    the order stays. A file that can't be used ends the iteration with a tf.errors.OpError:
    `explain` says which.
    """
    steps, batch = indices.shape
    flat, valid = _without_padding(indices, stand_in)
    places = np.array([located(sample) for sample in part.samples], dtype=object).reshape(-1, 2)
    images, masks = places[:, 0], places[:, 1]
    records = any(sample.record is not None for sample in part.samples)
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64).view(np.int64)[0]
    no_label = NO_LABEL if ignore is None else ignore
    # As text, which can be the key of a cache.
    listed = json.dumps([dict(entry) for entry in augment])
    if file_masks and augment:
        raise ValueError("the masks of files don't fit augmented pictures")
    read = _reader(
        part.label_table,
        listed,
        size,
        no_label,
        normalisation,
        kind=part.mask_kind,
        file_masks=file_masks,
        records=records,
    )

    dataset = tf.data.Dataset.from_tensor_slices(
        (
            tf.constant(images[flat].tolist(), tf.string, [steps * batch]),
            tf.constant(masks[flat].tolist(), tf.string, [steps * batch]),
            tf.stack([tf.fill([steps * batch], key), tf.constant(flat, tf.int64)], axis=1),
            tf.constant(valid, tf.bool),
        )
    )
    dataset = dataset.map(read, num_parallel_calls=max(1, threads), deterministic=True)
    if file_masks:
        none = (0.0, tf.constant(no_label), False, tf.constant(NO_LABEL), 0)
        dataset = dataset.padded_batch(batch, padding_values=none, drop_remainder=True)
    else:
        dataset = dataset.batch(batch, drop_remainder=True)
    dataset = dataset.prefetch(prefetch)
    options = tf.data.Options()
    options.threading.private_threadpool_size = max(1, threads)
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    options.deterministic = True
    return dataset.with_options(options)


def explain(error: tf.errors.OpError, part: Part, indices: Iterable[int]) -> ClustersegError:
    """The error of the first of the samples `indices` that can't be used, with its file named.

    For what a dataset of `batches` raised: pass the row of `indices` that it was reading. Reads
    those files again with Pillow.
    """
    read = [int(index) for index in indices if index != PADDING]
    for index in read:
        try:
            check_sample(part, index)
        except ClustersegError as found:
            found.is_lasting = is_of_the_file(found)
            return found
    first = part.samples[read[0]].image if read else "nothing"
    return ClustersegError(
        f"{part.name} part: reading {len(read)} samples from {first} on failed: "
        f"{(error.message or '').splitlines()[0][:300] if error.message else error!r}",
        code="unreadable-picture",
    )


def _without_padding(
    indices: NDArray[np.int64], stand_in: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(indices, valid), flat; padding shows the first sample of its row, else `stand_in`."""
    valid = indices != PADDING
    first = np.where(
        valid.any(axis=1), indices[np.arange(len(indices)), valid.argmax(axis=1)], stand_in
    )
    return np.where(valid, indices, first[:, np.newaxis]).reshape(-1), valid.reshape(-1)


@lru_cache(maxsize=16)
def _reader(
    table: tuple[int, ...],
    listed: str,
    size: tuple[int, int],
    no_label: int,
    normalisation: Normalisation,
    *,
    kind: MaskKind,
    file_masks: bool,
    records: bool,
) -> Any:
    """The graph that reads one sample; kept, so that an epoch does not trace it again."""
    read_pair = read_record if records else _read_files
    context = Context(size, normalisation.mean, no_label)
    augmentations = build_augmentations(json.loads(listed), context)
    classes = tf.constant(table, tf.int32)

    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec([], tf.string),
            tf.TensorSpec([], tf.string),
            tf.TensorSpec([2], tf.int64),
            tf.TensorSpec([], tf.bool),
        ]
    )
    def read(
        image_path: tf.Tensor, mask_path: tf.Tensor, key: tf.Tensor, valid: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        image, mask = _decode(*read_pair(image_path, mask_path), classes, kind)
        labels = mask
        sized = any(one.resizes or one.reshapes for one in augmentations)
        if not sized:
            image, labels = _fit(image, labels, size)
        image, labels = _augmented(image, labels, augmentations, key)
        if sized:
            image, labels = _fit(image, labels, size)
        image = normalise(image, normalisation)
        labels = tf.cond(valid, lambda: labels, lambda: tf.fill(size, no_label))
        element = tf.ensure_shape(image, (*size, 3)), tf.ensure_shape(labels, size), valid
        if not file_masks:
            return element
        mask = tf.cond(valid, lambda: mask, lambda: tf.fill([1, 1], NO_LABEL))
        return *element, tf.ensure_shape(mask, (None, None)), tf.shape(mask)

    return read


def _read_files(image_path: tf.Tensor, mask_path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.io.read_file(image_path), tf.io.read_file(mask_path)


def _decode(
    image_data: tf.Tensor, mask_data: tf.Tensor, classes: tf.Tensor, kind: MaskKind
) -> tuple[tf.Tensor, tf.Tensor]:
    """(float32 [h, w, 3] in 0 to 255, int32 [h, w] labels)."""
    image = tf.io.decode_image(image_data, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, (None, None, 3))
    values = decode_mask(mask_data, kind)
    # A GPU's gather would give 0 for what is beyond the table.
    tf.debugging.Assert(tf.reduce_max(values) < tf.size(classes), ["class id out of range"])
    labels = tf.gather(classes, values)
    tf.debugging.Assert(tf.reduce_all(tf.shape(image)[:2] == tf.shape(labels)), ["sizes differ"])
    tf.debugging.Assert(tf.reduce_min(labels) > INVALID, ["class id out of range"])
    return tf.cast(image, tf.float32), labels


def _fit(image: tf.Tensor, labels: tf.Tensor, size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    wanted = tf.constant(size)
    image, labels = tf.cond(
        tf.reduce_all(tf.shape(labels) == wanted),
        lambda: (image, labels),
        lambda: (resize_image(image, wanted), resize_labels(labels, wanted)),
    )
    return image, labels


def _augmented(
    image: tf.Tensor, labels: tf.Tensor, augmentations: Sequence[Augmentation], key: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    total = sum(one.count for one in augmentations)
    # The generator is named: the default may differ from device to device.
    draws = tf.random.stateless_uniform([total], key, alg="philox")
    start = 0
    for one in augmentations:
        image, labels = one.change(image, labels, draws[start : start + one.count])
        start += one.count
    return image, labels
