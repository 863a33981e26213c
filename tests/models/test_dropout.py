"""Dropout of our own: a picture's mask does not depend on who reads it, nor with whom."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.models.layers import BatchNormalization, Dropout
from clusterseg.models.monte_carlo import draw, dropouts, monte_carlo

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


def uncertain() -> keras.Model:
    image = keras.Input((6, 8, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="conv")(image)
    x = BatchNormalization(name="bn")(x)
    x = Dropout(0.5, name="drop")(x)
    return keras.Model(
        image, keras.layers.Conv2D(4, 1, name="logits")(Dropout(0.2, name="last")(x))
    )


def test_the_same_name_and_sample_drop_the_same_and_others_do_not() -> None:
    model = uncertain()
    statistics = [one.numpy() for one in model.get_layer("bn").non_trainable_variables]
    x = tf.random.stateless_normal([1, 6, 8, 3], [0, 1])
    sure = model(x, training=False)
    with monte_carlo(model):
        graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(x)

    def sample(number: int, picture: str, seed: int = 0) -> np.ndarray:
        draw(model, seed=seed, sample=number, picture=picture)
        return graph(x).numpy()

    first = sample(0, "a.png")
    different = [sample(1, "a.png"), sample(0, "b.png"), sample(0, "a.png", seed=1), sure.numpy()]
    assert not any(np.array_equal(first, other) for other in different)
    assert np.array_equal(first, sample(0, "a.png"))
    # Batch norm did not notice, and the switch is off again.
    for before, now in zip(statistics, model.get_layer("bn").non_trainable_variables, strict=True):
        assert np.array_equal(before, now.numpy())
    assert np.array_equal(model(x, training=False), sure)


def test_a_network_that_drops_nothing_has_no_second_opinion() -> None:
    image = keras.Input(SHAPE)
    assert dropouts(keras.Model(image, Dropout(0.0, name="drop")(image))) == []
    assert len(dropouts(uncertain())) == 2
