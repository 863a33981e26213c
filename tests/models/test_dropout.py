"""Dropout of our own: a picture's mask does not depend on who reads it, nor with whom."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.models.layers import Dropout

RATE, SHAPE = 0.3, (5, 7, 6)


def masks(layer: Any, first: int, count: int, *, key: int = 11, known: bool = True) -> np.ndarray:
    """The layer's output for pictures of ones from `first` on."""
    state = layer.seed_generator.state
    state.assign([key, first])
    signature = tf.TensorSpec([count if known else None, *SHAPE], tf.float32)
    graph = tf.function(lambda x: layer(x, training=True), input_signature=[signature])
    return graph(tf.ones([count, *SHAPE])).numpy()


def in_pieces(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    whole = masks(layer, 0, 8)
    pieces = [masks(layer, first, 2) for first in (0, 2, 4, 6)]
    return whole, np.concatenate(pieces)


def test_pieces_of_a_batch_have_the_masks_of_the_whole() -> None:
    whole, pieces = in_pieces(Dropout(RATE))
    assert np.array_equal(whole, pieces)


def test_keras_own_masks_whole_batches() -> None:
    """The negative twin."""
    whole, pieces = in_pieces(keras.layers.Dropout(RATE))
    assert not np.array_equal(whole, pieces)


def test_an_unknown_batch_size_makes_no_difference() -> None:
    layer = Dropout(RATE)
    assert np.array_equal(masks(layer, 3, 4), masks(layer, 3, 4, known=False))


def test_the_rate_is_dropped_and_the_rest_made_larger() -> None:
    kept = masks(Dropout(RATE), 0, 64)
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1) / np.float32(1 - RATE)}
    assert (kept == 0).mean() == pytest.approx(RATE, abs=0.02)


def test_pictures_keys_and_batches_differ() -> None:
    layer = Dropout(RATE)
    first = masks(layer, 0, 4)
    assert len({picture.tobytes() for picture in first}) == 4
    assert not np.array_equal(first, masks(layer, 0, 4, key=12))
    # Where nobody sets the state, as under Keras' fit, the next batch has other masks.
    state = layer.seed_generator.state
    state.assign([11, 0])
    ones = tf.ones([4, *SHAPE])
    batches = [np.asarray(layer(ones, training=True)) for _ in range(2)]
    assert np.array_equal(batches[0], first)
    assert not np.array_equal(batches[0], batches[1])


def test_it_does_nothing_but_in_training() -> None:
    x = tf.random.stateless_uniform([2, *SHAPE], [0, 0])
    assert np.array_equal(Dropout(RATE)(x), x)
    assert np.array_equal(Dropout(RATE)(x, training=False), x)


def test_the_gradient_is_the_mask() -> None:
    layer = Dropout(RATE)
    expected = masks(layer, 0, 4)
    layer.seed_generator.state.assign([11, 0])
    x = tf.Variable(tf.ones([4, *SHAPE]))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(x, training=True))
    assert np.array_equal(tape.gradient(total, x), expected)


def test_a_model_with_it_is_made_again_from_its_configuration() -> None:
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, Dropout(RATE, name="drop")(inputs))
    again = keras.Model.from_config(model.get_config())
    assert again.get_layer("drop").rate == RATE
