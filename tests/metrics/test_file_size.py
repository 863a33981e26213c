"""Predictions at the files' sizes are what resizing whole logits would give, a strip at a time."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.metrics import file_size
from clusterseg.metrics.confusion import confusion_matrix
from clusterseg.metrics.file_size import predictions_at_file_size, resized_rows

CLASSES = 3
sides = st.integers(1, 9)


@settings(max_examples=20, deadline=None)
@given(sides, sides, sides, sides, st.integers(0, 2**32 - 1))
def test_rows_are_those_of_the_whole_resized_picture(h, w, height, width, seed):
    image = np.random.default_rng(seed).normal(size=(h, w, 2)).astype(np.float32)
    whole = tf.image.resize(image, (height, width), method="bilinear").numpy()
    for first in range(height):
        count = min(2, height - first)
        rows = resized_rows(tf.constant(image), tf.constant([height, width]), first, count)
        np.testing.assert_allclose(rows, whole[first : first + count], atol=1e-5)


def test_a_picture_of_the_networks_size_is_untouched():
    image = np.random.default_rng(0).normal(size=(7, 5, 4)).astype(np.float32)
    rows = resized_rows(tf.constant(image), tf.constant([7, 5]), 2, 4)
    np.testing.assert_array_equal(rows, image[2:6])


def batch(seed=0):
    """Two pictures in files of other sizes than the logits', padded to the larger."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(2, 4, 6, CLASSES)).astype(np.float32)
    sizes = [(9, 13), (5, 20)]
    masks = np.full((2, 9, 20), -1, np.int32)
    for mask, (height, width) in zip(masks, sizes, strict=True):
        mask[:height, :width] = random.choice([0, 1, 2, 255], (height, width))
    return logits, masks, np.array(sizes, np.int32)


def confusion_at_file_size(logits, masks, sizes, classes, ignore):
    found = predictions_at_file_size(logits, sizes, tf.shape(masks)[1:])
    return confusion_matrix(masks, found, classes, ignore)


graph = tf.function(confusion_at_file_size, autograph=False)


@pytest.mark.parametrize("strip", [1, 100, 1 << 24])
def test_the_confusion_is_that_of_each_picture_at_its_own_size(monkeypatch, strip):
    monkeypatch.setattr(file_size, "_STRIP", strip)
    logits, masks, sizes = batch()
    expected = np.zeros((CLASSES, CLASSES), np.int64)
    for one, mask, (height, width) in zip(logits, masks, sizes, strict=True):
        found = tf.argmax(tf.image.resize(one, (height, width)), axis=-1)
        expected += confusion_matrix(mask[:height, :width], found, CLASSES, 255).numpy()
    counted = tf.function(confusion_at_file_size, autograph=False)(*batch(), CLASSES, 255)
    np.testing.assert_array_equal(counted, expected)
    assert expected.sum() == sum(
        (mask[:h, :w] != 255).sum() for mask, (h, w) in zip(masks, sizes, strict=True)
    )


def test_the_batch_does_not_matter():
    logits, masks, sizes = batch()
    parts = sum(
        graph(logits[i : i + 1], masks[i : i + 1], sizes[i : i + 1], CLASSES, 255).numpy()
        for i in range(2)
    )
    np.testing.assert_array_equal(parts, graph(*batch(), CLASSES, 255))


def test_what_a_mask_that_is_shrunk_would_lose_counts():
    """A line of one pixel in a file of twice the size: at the network's size it is not there."""
    logits = np.zeros((1, 4, 4, 2), np.float32)
    logits[..., 0] = 1
    mask = np.zeros((1, 8, 8), np.int32)
    mask[:, 2] = 1
    matrix = graph(logits, mask, np.array([[8, 8]], np.int32), 2, None).numpy()
    np.testing.assert_array_equal(matrix, [[56, 0], [8, 0]])


def test_padding_pictures_count_nothing():
    logits = np.zeros((1, 4, 4, 2), np.float32)
    none = np.full((1, 9, 9), -1, np.int32)
    assert graph(logits, none, np.array([[1, 1]], np.int32), 2, None).numpy().sum() == 0
