"""Encoders: their maps' sizes, the same values at every output stride, and Keras' own nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from clusterseg.models import dilated
from clusterseg.models.backbones.mobilenetv2 import mobilenetv2
from clusterseg.models.backbones.resnet import resnet
from clusterseg.models.backbones.resnet_slim import resnet_slim
from clusterseg.models.backbones.xception import xception

pytestmark = pytest.mark.slow

SIZE = (58, 97)  # 58, 29, 15, 8, 4, 2 and 97, 49, 25, 13, 7, 4: even and odd sides are halved

ENCODERS: dict[str, Callable[[Any, int], Any]] = {
    "mobilenetv2": mobilenetv2,
    "xception": xception,
    "resnet50": lambda image, stride: resnet(image, 50, stride),
    # Blocks of two and three units have all that longer ones have.
    "resnet_slim": lambda image, stride: resnet_slim(
        image, stride, beta=True, units=(2, 2, 2, 3), multi_grid=(1, 2, 1)
    ),
}


def encoder(name: str, output_stride: int, size: tuple[int, int] = SIZE) -> keras.Model:
    image = keras.Input((*size, 3))
    return keras.Model(image, list(ENCODERS[name](image, output_stride)))


def scramble(model: keras.Model, seed: int = 0) -> None:
    """Numbers in batch norms as after training: with those of a fresh one, much is 0."""
    draw = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.gamma.assign(draw.uniform(0.5, 1.0, shape))
            layer.beta.assign(draw.normal(0, 0.3, shape))
            layer.moving_mean.assign(draw.normal(0, 0.3, shape))
            layer.moving_variance.assign(draw.uniform(0.5, 1.5, shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(draw.normal(0, 0.3, layer.bias.shape))


def pictures(size: tuple[int, int] = SIZE) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(1, *size, 3)).astype(np.float32)


def halved(side: int, stride: int) -> int:
    return -(-side // stride)


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def strided(request: pytest.FixtureRequest) -> tuple[str, keras.Model]:
    """An encoder of stride 32."""
    keras.utils.set_random_seed(0)
    model = encoder(request.param, 32)
    scramble(model)
    return request.param, model


def test_without_strides_the_same_values_stand_among_others(
    strided: tuple[str, keras.Model],
) -> None:
    """À trous, to the pixel and to the border, at sides that halve to even and odd ones."""
    name, model = strided
    coarse = model(pictures())[-1].numpy()
    assert coarse.shape[1:3] == (2, 4)
    for stride in (16, 8):
        fine_model = encoder(name, stride)
        fine_model.set_weights(model.get_weights())
        fine = fine_model(pictures())[-1].numpy()
        assert fine.shape[1:3] == tuple(halved(side, stride) for side in SIZE)
        every = 32 // stride
        np.testing.assert_allclose(
            fine[:, ::every, ::every], coarse, atol=1e-4 * np.abs(coarse).max()
        )


def test_symmetric_padding_would_shift_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the test above."""
    keras.utils.set_random_seed(0)
    model = encoder("mobilenetv2", 32)
    scramble(model)
    coarse = model(pictures())[-1].numpy()
    sound = dilated.pads
    monkeypatch.setattr(
        dilated,
        "pads",
        lambda side, step: (step.dilation,) * 2 if step.stride == 1 else sound(side, step),
    )
    shifted = encoder("mobilenetv2", 16)
    shifted.set_weights(model.get_weights())
    fine = shifted(pictures())[-1].numpy()
    assert np.abs(fine[:, ::2, ::2] - coarse).max() > 0.01 * np.abs(coarse).max()


@pytest.mark.parametrize("name", ["mobilenetv2", "xception", "resnet50"])
def test_the_decoders_map_has_a_stride_of_4(name: str) -> None:
    model = encoder(name, 16)
    low = model.outputs[0]
    assert tuple(low.shape[1:]) == (
        halved(SIZE[0], 4),
        halved(SIZE[1], 4),
        {"mobilenetv2": 144, "xception": 256, "resnet50": 256}[name],
    )


def test_pooling_without_its_stride_is_exact() -> None:
    """Beside the definition, with negative values, and on maps smaller than its reach."""
    draw = np.random.default_rng(0)
    for side, dilation, first in [(7, 1, 0), (6, 2, -2), (9, 2, 0), (3, 4, -4), (2, 4, 0)]:
        x = draw.normal(-5, 1, size=(2, side, side, 3)).astype(np.float32)
        expected = np.full_like(x, -np.inf)
        for i in range(side):
            for j in range(side):
                rows = [r for t in range(3) if 0 <= (r := i + first + t * dilation) < side]
                columns = [c for t in range(3) if 0 <= (c := j + first + t * dilation) < side]
                expected[:, i, j] = x[:, rows][:, :, columns].max(axis=(1, 2))
        pool = dilated.ShiftedMaxPool(dilation, (first, first))
        np.testing.assert_array_equal(pool(x), expected)
