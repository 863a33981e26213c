"""DeepLabV3, DeepLabV3+, FastFCN and HRNetV2 with OCR."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.data.normalisation import IMAGENET
from clusterseg.errors import ClustersegError
from clusterseg.models import build_model, main_output, normalisation_of
from clusterseg.models.layers import BatchNormalization
from clusterseg.train import batch_norm
from clusterseg.train.communicator.solo import SoloCommunicator
from tests.models.overfitting import remembered

pytestmark = pytest.mark.slow

SIZE = (33, 65)


class Case(NamedTuple):
    """`trainable` and `whole`: parameters without and with moving statistics, where known."""

    name: str
    classes: int
    options: dict[str, Any]
    trainable: int | None = None
    whole: int | None = None
    outputs: int = 1

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


JPU = 19_735_552
RESNET50 = 23_508_032
CASES = [
    Case("deeplabv3+", 20, {}, whole=4_428_740),
    Case("deeplabv3+", 20, {"backbone": "xception"}, whole=24_041_388),
    Case("deeplabv3", 21, {}, trainable=58_164_437),
    Case("fastfcn", 19, {"aux": True}, outputs=2),
    Case("hrnetv2_ocr", 19, {"aux": True}, trainable=70_372_678, outputs=2),
]
MORE_CASES = [
    Case("deeplabv3+", 20, {"backbone": "resnet50", "aux": True, "separable": False}, outputs=2),
    Case("deeplabv3", 21, {"backbone": "resnet101", "multi_grid": (1, 2, 4)}, trainable=58_040_661),
    Case("fastfcn", 19, {"head": "psp"}),
    Case("fastfcn", 19, {"head": "encnet"}),
    Case("hrnetv2_ocr", 19, {"ocr": False}, trainable=65_859_379),
]


def count(weights: list[Any]) -> int:
    return sum(int(np.prod(weight.shape)) for weight in weights if "seed" not in weight.path)


@pytest.fixture(
    scope="module",
    params=[*CASES, *(pytest.param(case, marks=pytest.mark.proof) for case in MORE_CASES)],
    ids=str,
)
def built(request: pytest.FixtureRequest) -> Iterator[tuple[Case, keras.Model]]:
    """Under mixed precision: that may not change sizes, numbers and names."""
    case = request.param
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        yield case, build_model(case.name, case.classes, SIZE, **case.options)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
        keras.backend.clear_session()


def test_the_number_of_parameters_is_the_known_one(built: tuple[Case, keras.Model]) -> None:
    case, model = built
    if case.trainable is not None:
        assert count(model.trainable_weights) == case.trainable
    if case.whole is not None:
        assert count(model.weights) == case.whole
    if case.name == "fastfcn":
        of_jpu = [weight for weight in model.trainable_weights if weight.path.startswith("jpu_")]
        encoder = [w for w in model.trainable_weights if re.match("conv[1-5]_", w.path)]
        assert (count(of_jpu), count(encoder)) == (JPU, RESNET50)


def test_logits_are_float32_of_an_odd_input_size(built: tuple[Case, keras.Model]) -> None:
    case, model = built
    outputs = tf.nest.flatten(model(np.zeros((1, *SIZE, 3), np.float32)))
    assert len(outputs) == case.outputs
    for logits in outputs:
        assert logits.shape == (1, *SIZE, case.classes)
        assert logits.dtype == tf.float32
        assert np.isfinite(logits).all()
    main = main_output(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras warns where a model wants its input in a list
        assert main(np.zeros((1, *SIZE, 3), np.float32)).shape == (1, *SIZE, case.classes)


def test_every_batch_norm_can_be_synchronised(built: tuple[Case, keras.Model]) -> None:
    _, model = built
    batch_norm.synchronise(model, SoloCommunicator())
    norms = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    assert norms
    assert all(type(one) is BatchNormalization for one in norms)


def test_names_are_unique_and_none_is_counted_by_keras(built: tuple[Case, keras.Model]) -> None:
    _, model = built
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths)
    kinds = {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(one).__name__).lower() for one in model.layers
    }
    automatic = re.compile(rf"({'|'.join(kinds)}|re_lu|conv2d)(_\d+)?")
    assert [one.name for one in model.layers if automatic.fullmatch(one.name)] == []


@pytest.mark.parametrize(("height", "width"), [(1, 1), (97, 131)])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_deeplabv3_plus_takes_any_size_at_every_stride(
    stride: int, height: int, width: int
) -> None:
    model = build_model("deeplabv3+", 3, (height, width), output_stride=stride)
    assert model.get_layer("out_relu").output.shape[1:3] == (
        -(-height // stride),
        -(-width // stride),
    )
    assert model.get_layer("decoder_concat").output.shape[1:3] == (-(-height // 4), -(-width // 4))
    rates = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}[stride]
    assert rates == tuple(
        model.get_layer(f"aspp_atrous_{i}_conv").dilation_rate[0] for i in (1, 2, 3)
    )
    assert model.output_shape == (None, height, width, 3)


def test_given_rates_win_and_the_decoder_can_be_left_out() -> None:
    model = build_model(
        "deeplabv3+", 3, SIZE, atrous_rates=[2, 5], decoder=False, dropout=0.0, output_stride=8
    )
    names = [layer.name for layer in model.layers]
    assert model.get_layer("aspp_atrous_2_conv").dilation_rate == (5, 5)
    assert "aspp_atrous_3_conv" not in names
    assert not [name for name in names if name.startswith("decoder") or "dropout" in name]


def test_fastfcn_has_the_rates_of_stride_8_unless_others_are_given() -> None:
    for given, rates in ({}, (12, 24, 36)), ({"atrous_rates": [2, 4]}, (2, 4)):
        model = build_model("fastfcn", 3, SIZE, **given)
        found = [
            layer.dilation_rate[0]
            for layer in model.layers
            if layer.name.startswith("aspp_atrous_") and layer.name.endswith("_conv")
        ]
        assert tuple(found) == rates


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deeplabv3+", {"backbone": "vgg16"}),
        ("deeplabv3+", {"output_stride": 4}),
        ("deeplabv3+", {"atrous_rates": [0, 6]}),
        ("deeplabv3+", {"atrous_rates": []}),
        ("deeplabv3+", {"dropout": 1.0}),
        ("deeplabv3", {"backbone": "resnet50"}),
        ("deeplabv3", {"output_stride": 32}),
        ("deeplabv3", {"multi_grid": [1, 2]}),
        ("deeplabv3", {"dropout": -0.1}),
        ("fastfcn", {"backbone": "xception"}),
        ("fastfcn", {"head": "ocr"}),
        ("fastfcn", {"atrous_rates": [0]}),
        ("fastfcn", {"atrous_rates": [2, 4], "head": "psp"}),
        ("fastfcn", {"dropout": 1.0}),
        ("hrnetv2_ocr", {"width": 0}),
        ("hrnetv2_ocr", {"aux": True, "ocr": False}),
        ("hrnetv2_ocr", {"dropout": 1.0}),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ClustersegError) as caught:
        build_model(name, 19, (64, 64), **options)
    assert next(iter(options)) in caught.value.message


def test_pictures_are_normalised_as_the_encoders_weights_want_it() -> None:
    """Beside what Keras' own applications do with a picture."""
    picture = np.random.default_rng(0).uniform(0, 255, (1, 4, 5, 3)).astype(np.float32)
    applications = keras.applications
    for name, options, theirs in [
        ("deeplabv3+", {}, applications.mobilenet_v2),
        ("deeplabv3+", {"backbone": "xception", "output_stride": 8}, applications.xception),
        ("deeplabv3+", {"backbone": "resnet101"}, applications.resnet),
        ("fastfcn", {"head": "psp"}, applications.resnet),
    ]:
        ours = normalisation_of(name, options)
        ready = (picture - ours.mean) / ours.deviation
        ready = ready[..., ::-1] if ours.order == "bgr" else ready
        np.testing.assert_allclose(ready, theirs.preprocess_input(picture.copy()), atol=1e-4)
    assert normalisation_of("deeplabv3", {}) == normalisation_of("deeplabv3+", {})
    assert normalisation_of("deeplabv3", {"backbone": "resnet101"}).mean == (123.15, 115.9, 103.06)
    assert normalisation_of("hrnetv2_ocr", {}) == IMAGENET


def test_deeplabv3_plus_overfits_two_pictures() -> None:
    assert remembered("deeplabv3+", {"dropout": 0.0}, steps=60, rate=0.003) > 0.97


@pytest.mark.proof
@pytest.mark.parametrize(
    ("name", "options"),
    [
        (
            "deeplabv3",
            {"atrous_rates": (2, 4, 6)},
        ),  # its own reach past a map of 3x4, and take long
        ("fastfcn", {"head": "encnet", "aux": True}),
        ("hrnetv2_ocr", {"width": 18, "aux": True}),
    ],
)
def test_overfits_two_pictures(name: str, options: dict[str, Any]) -> None:
    options = {**options, "dropout": 0.0}
    assert remembered(name, options, steps=15, rate=0.001, settled=True) > 0.97


@pytest.mark.proof
def test_deeplabv3_plus_with_xception_overfits_two_pictures() -> None:
    options = {"backbone": "xception", "dropout": 0.0}
    assert remembered("deeplabv3+", options, steps=40, rate=0.001) > 0.97
