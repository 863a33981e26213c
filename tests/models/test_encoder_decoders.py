"""The networks that go down and up again: sizes, parameters, weights of others, and learning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from clusterseg.errors import ClustersegError
from clusterseg.models import build_model, normalisation_of
from clusterseg.models.layers import BatchNormalization
from clusterseg.models.unpool import by_window
from clusterseg.spec.model import OptimizerSpec
from clusterseg.train.initial_weights.load import load_initial_weights
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.state import TrainState
from tests.models.overfitting import remembered
from tests.models.small import SMALL

OWN = ("separable_unet", "segnet", "bayes_segnet", "vgg_segnet", "lmsegnet", "fastscnn-seed")


def small(name: str, size: tuple[int, int] | None = None, classes: int = 4) -> keras.Model:
    fits, options = SMALL[name]
    return build_model(name.removesuffix("-seed"), classes, size or fits, **options)


def pictures(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(*shape, 3)).astype(np.float32)


def count(weights: list[Any]) -> int:
    return sum(int(np.prod(one.shape)) for one in weights)


@pytest.mark.parametrize(
    ("name", "classes", "options", "trainable", "total"),
    [
        ("separable_unet", 20, {}, 345_570, 348_998),
        ("segnet", 19, {}, 29_481_299, 29_497_299),
        ("bayes_segnet", 19, {}, 29_481_299, 29_497_299),
        ("vgg_segnet", 12, {}, 11_552_652, 12_931_724),
        ("vgg_segnet", 12, {"upsampling": "nearest"}, 11_552_652, 11_554_572),
        ("lmsegnet", 11, {}, 2_559_126, 2_562_060),
        ("fastscnn", 20, {"pyramid": "seed"}, 1_760_892, 1_784_452),
        ("fastscnn", 19, {"pyramid": "seed"}, 1_760_761, 1_784_319),
    ],
)
def test_numbers_of_parameters(
    name: str, classes: int, options: dict[str, Any], trainable: int, total: int
) -> None:
    """As the seeds and papers have them; the total counts moving statistics and frozen layers."""
    size = (32, 64)
    model = build_model(name, classes, size, **options)
    weights = [one for one in model.weights if "seed_generator" not in one.path]
    assert (count(model.trainable_weights), count(weights)) == (trainable, total)
    assert model.output_shape == (None, *size, classes)


LONG = pytest.mark.proof


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("size", [(33, 65), (1, 1), pytest.param((360, 480), marks=LONG)])
def test_logits_have_the_size_of_the_picture_or_it_says_which_sizes_fit(
    name: str, size: tuple[int, int]
) -> None:
    try:
        model = small(name, size)
    except ClustersegError as error:
        assert error.code == "bad-size"
        assert "divisible by" in error.message
        assert "e.g. [" in (error.help or "")
        divisor = int(error.message.rpartition(" ")[2])
        assert size[0] % divisor or size[1] % divisor
        return
    logits = model(pictures(1, *size))
    assert (tuple(logits.shape), logits.dtype) == ((1, *size, 4), tf.float32)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    "name",
    [*OWN[2:5], *(pytest.param(name, marks=LONG) for name in (*OWN[:2], OWN[5]))],
)
def test_what_is_built_twice_and_saved_is_the_same(name: str, tmp_path: Path) -> None:
    first = small(name)
    keras.layers.Conv2D(3, 3)  # advances Keras' process-wide counter
    paths = [one.path for one in first.weights]
    assert paths == [one.path for one in small(name).weights]
    assert len(set(paths)) == len(paths)
    norms = [o for o in first._flatten_layers() if isinstance(o, keras.layers.BatchNormalization)]
    assert norms
    assert all(isinstance(one, BatchNormalization) for one in norms)  # sync and freeze take them
    first.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = pictures(2, *SMALL[name][0])
    assert np.array_equal(first(x), loaded(x))


@pytest.fixture
def bfloat16() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.usefixtures("bfloat16")
def test_logits_are_float32_under_mixed_precision(name: str) -> None:
    logits = small(name)(pictures(1, *SMALL[name][0]))
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("separable_unet", {"base_filters": 0}),
        ("separable_unet", {"head_filters": 0}),
        ("separable_unet", {"dropout": 1.0}),
        ("segnet", {"width": 0.0}),
        ("segnet", {"dropout": 0.5}),
        ("bayes_segnet", {"dropout": 0.0}),
        ("vgg_segnet", {"encoder_level": 0}),
        ("vgg_segnet", {"upsampling": "bilinear"}),
        ("lmsegnet", {"max_value": 0.0}),
        ("fastscnn", {"pyramid": "thesis"}),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ClustersegError) as caught:
        build_model(name, 4, (32, 32), **options)
    assert next(iter(options)) in caught.value.message


# SegNet


def test_unpooling_by_windows_gives_the_same_network() -> None:
    model = small("segnet", (33, 47))
    x = pictures(2, 33, 47)
    expected = model(x, training=False)
    with by_window(model):
        assert np.array_equal(model(x, training=False), expected)


# VGG16


def keras_2(model: keras.Model, path: Path) -> Path:
    """Its weights as the file that Keras offers for download has them: of Keras 1, with weights
    named by its old convention, and groups for layers that have none."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{kind}_1:0" for kind in "Wb"[: len(layer.weights)]]
            group.attrs["weight_names"] = np.array([name.encode() for name in names], "S")
            for name, weight in zip(names, layer.weights, strict=True):
                group.create_dataset(name, data=weight.numpy())
    return path


@pytest.fixture(scope="module")
def keras_vgg(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    """Keras' own VGG16 with weights that were drawn, and their file as Keras offers it."""
    keras.utils.set_random_seed(3)
    model = keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 96, 3))
    path = tmp_path_factory.mktemp("vgg") / "vgg16_notop.weights.h5"
    model.save_weights(path)
    return model, path


def loaded(name: str, path: Path) -> keras.Model:
    model = build_model(name, 12, (64, 96))
    load_initial_weights(path, TrainState(model, build_optimizer(OptimizerSpec(), [])))
    return model


@pytest.mark.parametrize(("name", "old"), [("vgg_segnet", True), ("segnet", False)])
def test_the_weights_of_keras_vgg16_load_by_name(
    name: str, old: bool, keras_vgg: tuple[keras.Model, Path], tmp_path: Path
) -> None:
    theirs, path = keras_vgg
    ours = loaded(name, keras_2(theirs, tmp_path / "notop.h5") if old else path)
    blocks = 4 if name == "vgg_segnet" else 5
    names = [o.name for o in theirs.layers if "conv" in o.name and int(o.name[5]) <= blocks]
    assert len(names) == (10 if blocks == 4 else 13)
    for layer in names:
        for got, given in zip(
            ours.get_layer(layer).weights, theirs.get_layer(layer).weights, strict=True
        ):
            assert np.array_equal(got, given)


def test_the_encoder_is_keras_own_down_to_its_preprocessing(
    keras_vgg: tuple[keras.Model, Path],
) -> None:
    theirs, path = keras_vgg
    ours = loaded("vgg_segnet", path)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype(np.float32)
    how = normalisation_of("vgg_segnet", {})
    own = (image - np.float32(how.mean)) / np.float32(how.deviation)
    own = own[..., ::-1] if how.order == "bgr" else own
    expected = keras.applications.vgg16.preprocess_input(image.copy())
    np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-4)
    features = [
        keras.Model(model.inputs, model.get_layer("block4_pool").output)(own)
        for model in (ours, theirs)
    ]
    np.testing.assert_allclose(*features, rtol=1e-5, atol=1e-4)


def test_frozen_doublings_copy_pixels_and_stay_as_they_are() -> None:
    size, options = SMALL["vgg_segnet"]
    model = build_model("vgg_segnet", 4, size, **options)
    other = build_model("vgg_segnet", 4, size, **options, upsampling="nearest")
    weights = {one.path: one for one in model.weights}
    for one in other.weights:
        one.assign(weights[one.path])
    x = pictures(2, *size)
    np.testing.assert_allclose(model(x), other(x), rtol=1e-5, atol=1e-6)
    state = TrainState(model, build_optimizer(OptimizerSpec(), model.trainable_variables))
    frozen = [one for one in model.weights if "double" in one.path]
    assert len(frozen) == 6
    held = {id(one) for one in (*state.trainable, *state.statistics)}
    assert not held & {id(one) for one in frozen}


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_the_encoder_may_end_at_another_block(level: int) -> None:
    model = build_model("vgg_segnet", 4, (32, 48), width=0.1, encoder_level=level)
    assert model(pictures(1, 32, 48)).shape == (1, 32, 48, 4)
    convolutions = [o for o in model.layers if o.name.startswith("block") and "_conv" in o.name]
    assert max(int(one.name[5]) for one in convolutions) == level + 1


# LmSegNet


def test_logits_take_any_value_by_default() -> None:
    keras.utils.set_random_seed(0)
    logits = build_model("lmsegnet", 5, (32, 48))(pictures(1, 32, 48)).numpy()
    assert len(np.unique(logits)) > 1000


def test_a_quantised_last_layer_leaves_four_values() -> None:
    """The seed's fault, which is there for those who need its networks."""
    keras.utils.set_random_seed(0)
    model = build_model("lmsegnet", 5, (32, 48), quantize_last=True)
    logits = model(pictures(1, 32, 48), training=True).numpy()
    np.testing.assert_allclose(np.unique(logits), [0, 2 / 3, 4 / 3, 2], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "one_bit"),
    [
        ({}, range(2, 11)),
        ({"quantize_first": True, "quantize_last": True}, range(1, 12)),
        ({"quantize": False, "quantize_last": True}, ()),
    ],
)
def test_which_layers_have_one_bit_weights(options: dict[str, bool], one_bit: Any) -> None:
    model = build_model("lmsegnet", 5, (8, 8), **options)
    found = [n for n in range(1, 12) if model.get_layer(f"conv{n}_conv").quantize]
    assert found == list(one_bit)


# Learning

_LEARN = {
    "separable_unet": ({"base_filters": 8, "head_filters": None, "dropout": 0.0}, 100, 0.02),
    "fastscnn-seed": ({"pyramid": "seed", "width": 0.5, "dropout": 0.0}, 80, 0.01),
    "lmsegnet": ({}, 100, 0.01),
    "segnet": ({"width": 0.25}, 80, 0.003),
    "bayes_segnet": ({"width": 0.25, "dropout": 0.1}, 120, 0.003),
    "vgg_segnet": ({"width": 0.25}, 120, 0.003),
}


@pytest.mark.proof
@pytest.mark.parametrize("name", OWN)
def test_overfits_two_pictures(name: str) -> None:
    options, steps, rate = _LEARN[name]
    assert remembered(name.removesuffix("-seed"), options, steps=steps, rate=rate) > 0.97
