"""Unpooling puts each maximum back where it was, however large the map is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.models.unpool import MaxPoolWithIndices, MaxUnpool, by_window

Array = np.ndarray[Any, Any]


def back(x: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    return MaxUnpool(size)(MaxPoolWithIndices()(x))


def pooled_and_back(x: Array) -> Array:
    """The same in plain loops."""
    found = np.zeros_like(x)
    pictures, height, width, channels = x.shape
    for n in range(pictures):
        for i in range(0, height, 2):
            for j in range(0, width, 2):
                for c in range(channels):
                    window = x[n, i : i + 2, j : j + 2, c]
                    row, column = np.unravel_index(np.argmax(window), window.shape)
                    found[n, i + row, j + column, c] = window.max()
    return found


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (3, 7, 7, 3))), seed=st.integers(0, 2**32)
)
def test_each_maximum_comes_back_to_its_place(shape: tuple[int, ...], seed: int) -> None:
    """Also of odd sizes, in each picture of a batch, and the first of equal ones."""
    x = np.random.default_rng(seed).integers(-3, 3, shape).astype(np.float32)
    x[x == 0] = 0.5  # a maximum of 0 could not be seen
    assert np.array_equal(back(x, shape[1:3]), pooled_and_back(x))


def a_one_beyond_float32() -> tuple[tf.Tensor, int]:
    """A map of more than 2^24 elements, whose only one stands where float32 has no number."""
    place = 2**24 + 1
    height, width = 4100, 4096
    flat = np.zeros(height * width, np.float32)
    flat[place] = 1
    return tf.constant(flat.reshape(1, height, width, 1)), place


def test_places_beyond_two_to_the_24th_are_exact() -> None:
    x, place = a_one_beyond_float32()
    found = tf.reshape(back(x, x.shape[1:3]), [-1])
    assert np.flatnonzero(found).tolist() == [place]


def test_places_as_float32_are_others() -> None:
    """The negative twin: what the seed's layer did."""
    x, place = a_one_beyond_float32()
    values, places = MaxPoolWithIndices()(x)
    rounded = tf.cast(tf.cast(places, tf.float32), tf.int64)
    found = tf.reshape(MaxUnpool(x.shape[1:3])([values, rounded]), [-1])
    assert found[place] == 0


def network(size: tuple[int, int], channels: int) -> keras.Model:
    image = keras.Input((*size, channels))
    values, places = MaxPoolWithIndices(name="pool")(image)
    smaller, inner = MaxPoolWithIndices(name="pool_2")(values)
    values = MaxUnpool(values.shape[1:3], name="unpool_2")([smaller * 2, inner])
    return keras.Model(image, MaxUnpool(size, name="unpool")([values, places]))


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (1, 2), (5, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_counting_within_windows_gives_the_same_bits(size: tuple[int, int], dtype: str) -> None:
    model = network(size, 3)
    draw = np.random.default_rng(1)
    x = tf.cast(draw.integers(-2, 3, (2, *size, 3)), dtype)  # with many equal ones
    whole = tf.function(lambda x: model(x, training=False))
    expected = whole(x)
    with by_window(model):
        graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(
            tf.TensorSpec([2, *size, 3], x.dtype)
        )
    assert np.array_equal(tf.cast(graph(x), tf.float32), tf.cast(expected, tf.float32))
    operations = {one.type for one in graph.graph.get_operations()}
    assert not {"MaxPoolWithArgmax", "ScatterNd"} & operations
    assert not any(layer.by_window for layer in model.layers if hasattr(layer, "by_window"))


def test_the_gradient_goes_to_the_places() -> None:
    x = tf.Variable([[[[1.0], [4.0]], [[3.0], [2.0]]]])
    weights = tf.constant([[[[10.0], [20.0]], [[30.0], [40.0]]]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(back(x.value(), (2, 2)) * weights)
    assert tf.reshape(tape.gradient(total, x), [-1]).numpy().tolist() == [0, 20, 0, 0]


def test_places_stay_whole_numbers_under_mixed_precision() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        values, places = MaxPoolWithIndices()(tf.zeros([1, 4, 4, 2]))
        (symbolic,) = (one.dtype for one in MaxPoolWithIndices()(keras.Input((4, 4, 2)))[1:])
    finally:
        keras.config.set_dtype_policy(before)
    assert (values.dtype, places.dtype, symbolic) == (tf.bfloat16, tf.int64, "int64")
