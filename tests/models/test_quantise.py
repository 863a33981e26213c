"""One bit a weight, two bits an activation, and gradients that go through."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from clusterseg.models.quantise import (
    DepthToSpace,
    QuantConv2D,
    SpaceToDepth,
    TwoBit,
    binary,
    two_bit,
)
from clusterseg.models.sums import ordered_sum

NUMBERS = st.floats(-4, 4, width=32, allow_subnormal=False)


def grads(function: Any, x: Any) -> Any:
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x, output_gradients=tf.ones_like(x) * 7).numpy()


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=4, max_side=5), elements=NUMBERS))
def test_a_weight_is_its_sign_times_the_mean_size(weights: np.ndarray[Any, Any]) -> None:
    found = binary(tf.constant(weights)).numpy()
    scale = np.abs(weights.astype(np.float64)).mean()
    np.testing.assert_allclose(found, np.where(weights >= 0, scale, -scale), rtol=1e-5, atol=1e-30)
    assert len(np.unique(np.abs(found))) == 1
    assert (grads(binary, weights) == 7).all()


def test_an_activation_is_one_of_four_numbers() -> None:
    x = [-1.0, 0.0, 0.3, 0.34, 0.99, 1.01, 1.66, 1.67, 2.0, 5.0]
    third = np.float32(2 / 3)
    expected = [0, 0, 0, third, third, 2 * third, 2 * third, 2, 2, 2]
    np.testing.assert_allclose(two_bit(tf.constant(x)), expected, rtol=1e-6)
    assert grads(two_bit, x).tolist() == [0, 0, 7, 7, 7, 7, 7, 7, 0, 0]


@given(st.lists(NUMBERS, min_size=1), st.floats(0.5, 8, width=32))
def test_two_bits_are_the_nearest_step(x: list[float], most: float) -> None:
    found = two_bit(tf.constant(x, tf.float32), most).numpy().astype(np.float64)
    steps = np.arange(4) * most / 3
    nearest = np.abs(np.clip(x, 0, most)[:, None] - steps).min(axis=1)
    assert np.abs(found[:, None] - steps).min(axis=1).max() < 1e-5 * most
    np.testing.assert_allclose(np.abs(found - np.clip(x, 0, most)), nearest, atol=1e-5 * most)


def test_the_kernel_that_is_kept_is_in_floating_point() -> None:
    layer = QuantConv2D(5, 3, padding="same", name="one")
    x = tf.random.stateless_normal([2, 6, 7, 4], [0, 1])
    y = layer(x)
    (kernel,) = layer.weights
    assert (kernel.path, kernel.dtype) == ("one/kernel", "float32")
    assert len(np.unique(np.abs(kernel.numpy()))) > 2
    expected = tf.nn.conv2d(x, binary(tf.convert_to_tensor(kernel)), 1, "SAME")
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    plain = keras.layers.Conv2D(5, 3, padding="same", use_bias=False, name="one")
    plain.build(x.shape)
    assert [(w.path, w.shape) for w in plain.weights] == [(w.path, w.shape) for w in layer.weights]


def test_without_quantisation_it_is_keras_own() -> None:
    x = tf.random.stateless_normal([1, 5, 5, 3], [0, 1])
    layer = QuantConv2D(4, 3, quantize=False)
    expected = keras.layers.Conv2D(4, 3, use_bias=False)
    layer.build(x.shape)
    expected.build(x.shape)
    expected.kernel.assign(layer.kernel)
    assert np.array_equal(layer(x), expected(x))


def test_the_mean_is_taken_before_numbers_are_made_short() -> None:
    """A bfloat16 kernel would have another scale."""
    draw = np.random.default_rng(0)
    kernel = draw.normal(size=(1, 1, 64, 8)).astype(np.float32)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer, activation = QuantConv2D(8, 1), TwoBit()
        layer.build((1, 1, 1, 64))
        layer.kernel.assign(kernel)
        one = layer(tf.one_hot([[[3]]], 64))
        activated = activation(tf.constant([0.34]))
    finally:
        keras.config.set_dtype_policy(before)
    assert one.dtype == activated.dtype == tf.bfloat16
    scale = tf.cast(np.abs(kernel.astype(np.float64)).mean(), tf.bfloat16)
    assert np.array_equal(tf.abs(one), tf.fill(one.shape, scale))


def test_layers_are_made_again_from_their_configuration() -> None:
    image = keras.Input((4, 6, 3))
    x = SpaceToDepth(name="down")(image)
    x = QuantConv2D(16, 3, padding="same", quantize=False, name="conv")(x)
    x = TwoBit(1.5, name="act")(x)
    model = keras.Model(image, DepthToSpace(name="up")(x))
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    assert np.array_equal(model(x), again(x))
    assert model(x).shape == (2, 4, 6, 4)
    assert (again.get_layer("act").most, again.get_layer("conv").quantize) == (1.5, False)


@pytest.mark.parametrize("count", [1, 4096, 4097, 10_000])
def test_a_sum_in_order_is_the_sum(count: int) -> None:
    x = np.random.default_rng(count).normal(size=count)
    assert float(ordered_sum(tf.constant(x))) == pytest.approx(x.sum(), rel=1e-12, abs=1e-12)
