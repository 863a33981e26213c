"""The layers of the heads beside their formulas, and saved and loaded."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from clusterseg.models.dilated import ShiftedMaxPool
from clusterseg.models.heads.encnet import Encoding
from clusterseg.models.heads.ocr import ObjectAttention, ObjectRegions

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
def test_layers_are_their_formulas_and_the_same_when_loaded(tmp_path: Path) -> None:
    features, logits = keras.Input((4, 5, 6)), keras.Input((4, 5, 3))
    regions = ObjectRegions(name="regions")([logits, features])
    model = keras.Model(
        [features, logits],
        [
            Encoding(4, name="encoding")(features),
            regions,
            ObjectAttention(name="attention")([features, regions, regions]),
            ShiftedMaxPool(2, (-2, 0), name="pool")(features),
        ],
    )
    draw = np.random.default_rng(0)
    shapes = ((2, 4, 5, 6), (2, 4, 5, 3))
    inputs = [draw.normal(size=shape).astype(np.float32) for shape in shapes]
    got = [output.numpy() for output in model(inputs)]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(got, loaded(inputs), strict=True):
        np.testing.assert_array_equal(one, other)

    def softmax(x: np.ndarray, axis: int) -> np.ndarray:
        powers = np.exp(x - x.max(axis=axis, keepdims=True))
        return powers / powers.sum(axis=axis, keepdims=True)

    pixels = inputs[0].reshape(2, 20, 6)
    words, smoothing = (weight.numpy() for weight in model.get_layer("encoding").weights)
    residuals = pixels[:, :, np.newaxis] - words
    weights = softmax(smoothing * np.square(residuals).sum(axis=3), 2)
    encoding = (weights[..., np.newaxis] * residuals).sum(axis=1)
    np.testing.assert_allclose(got[0], encoding.transpose(0, 2, 1), atol=1e-5)

    means = np.einsum("npk,npc->nkc", softmax(inputs[1].reshape(2, 20, 3), 1), pixels)
    np.testing.assert_allclose(got[1][:, :, 0], means, atol=1e-6)
    alike = softmax(np.einsum("npc,nkc->npk", pixels, means) / np.sqrt(6), 2)
    mixed = np.einsum("npk,nkc->npc", alike, means).reshape(2, 4, 5, 6)
    np.testing.assert_allclose(got[2], mixed, atol=1e-6)
