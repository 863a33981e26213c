"""The networks can be exported: their ONNX and TFLite files give their logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.export.formats import TOLERANCE
from clusterseg.export.graph import Form, normalised
from clusterseg.export.network import Network
from clusterseg.export.samples import drawn
from clusterseg.export.write import Wishes, export
from clusterseg.models import build_model, main_output, model_names, normalisation_of
from clusterseg.spec.tables import MODELS
from tests.models.settling import settle

SIZE = (64, 96)
CLASSES = 4

# What makes the large ones small, or shows more of them.
OPTIONS: dict[str, dict[str, Any]] = {
    "fastscnn": {"width": 0.25},
    "unet": {"base_filters": 8},
    "segnet": {"width": 0.25},
    "bayes_segnet": {"width": 0.25},
    "vgg_segnet": {"width": 0.25},
    # Rates that reach far past a map of this size take minutes.
    "deeplabv3": {"atrous_rates": (2, 4, 6)},
    "fastfcn": {"head": "psp"},
}
# Many layers of weights as they are drawn: rounding alone comes to more than an export may differ
# by unless it is told so.
TOLERANCES = {"deeplabv3+": 1e-3, "deeplabv3": 1e-2, "fastfcn": 1e-2}
BY_HAND = ("hrnetv2_ocr",)  # a thousand layers: a minute of one core at a width of 4


def network(name: str, **options: Any) -> Network:
    """With batch norms that have seen pictures: without them numbers grow from layer to layer."""
    keras.utils.set_random_seed(2)
    whole = build_model(name, CLASSES, SIZE, **options)
    model = main_output(whole)
    generator = np.random.default_rng(2)
    for variable in model.trainable_variables:
        if variable.name in ("beta", "bias"):
            variable.assign(generator.normal(0, 0.2, variable.shape))
    names = tuple(f"class {n}" for n in range(CLASSES))
    how = normalisation_of(name, options)
    # As unlike as can be: what varies little is blown up by its batch norm, rounding with it.
    plain = np.stack([pixels for pixels, _ in drawn(4, size=SIZE)])
    plain *= np.array([1, 0.1, 0.5, -1], np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    pictures = tf.constant(normalised(np.where(plain < 0, 255 + plain, plain), how))
    see = tf.function(lambda: model(pictures, training=True))
    if name in TOLERANCES:  # large: few passes
        settle(model, see)
    else:  # few would leave BayesSegNet the statistics of single draws of dropout
        for _ in range(30):
            see()
    return Network(name, model, how, names, ((0, 0, 0),) * CLASSES, SIZE)


@pytest.mark.proof
@pytest.mark.parametrize("name", sorted({*model_names()} - {*BY_HAND}))
def test_onnx_and_tflite_of_every_network(name: str, tmp_path: Path) -> None:
    """Raw pictures in: the normalisation is each network's own. The export itself compares; the
    negative twin is in test_files."""
    options = dict(OPTIONS.get(name, {}))
    if "aux" in MODELS[name].options:
        options["aux"] = True  # which must not come out
    one = network(name, **options)
    found = export(
        one,
        Wishes(
            ("onnx", "tflite"),
            Form(raw=True),
            tolerance=TOLERANCES.get(name, TOLERANCE),
        ),
        tmp_path / "out",
        samples=drawn(2, size=SIZE),
    )
    for file in found.files:
        assert file.comparison.largest_difference is not None
        if not one.decides:
            assert file.comparison.largest_difference <= file.comparison.bound
        assert file.comparison.equal_labels > 0.99
