"""Weights of Keras' applications, of TF-slim and of the seeds: found, and the same network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from clusterseg.errors import ClustersegError
from clusterseg.models import build_model
from clusterseg.models.backbones.resnet_slim import resnet_slim
from clusterseg.spec.model import OptimizerSpec
from clusterseg.train.initial_weights import load
from clusterseg.train.initial_weights.adapters import adapt
from clusterseg.train.initial_weights.load import load_initial_weights
from clusterseg.train.initial_weights.match import Item, Member, match
from clusterseg.train.initial_weights.source import Source
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.state import TrainState
from tests.models.test_backbones import encoder, pictures, scramble
from tests.train import seed_fastscnn, slim
from tests.train.test_initial_weights import keras_2

pytestmark = pytest.mark.slow

SIZE = (71, 97)  # the smallest side that Keras takes for Xception
UNITS = (2, 2, 2, 3)  # of slim's blocks: all that longer ones have


def state_of(model: keras.Model) -> TrainState:
    return TrainState(model, build_optimizer(OptimizerSpec(), model.trainable_variables))


def padded(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Keras' layer, but that Xception's first two convolutions are padded, as ours are."""
    settings = layer.get_config()
    if layer.name in ("block1_conv1", "block1_conv2"):
        settings["padding"] = "same"
    return type(layer).from_config(settings)


def of_keras(name: str) -> keras.Model:
    """Keras' own network without its top, with random numbers."""
    keras.utils.set_random_seed(3)
    build = {
        "mobilenetv2": keras.applications.MobileNetV2,
        "xception": keras.applications.Xception,
        "resnet50": keras.applications.ResNet50,
    }[name]
    model = build(weights=None, include_top=False, input_shape=(*SIZE, 3))
    if name == "xception":
        model = keras.models.clone_model(model, clone_function=padded)
    scramble(model)
    return model


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", ["mobilenetv2", "xception", "resnet50"])
def test_an_encoder_with_keras_weights_is_keras_network(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    theirs = of_keras(name)
    expected = theirs(pictures(SIZE)).numpy()
    theirs.save(tmp_path / "old.h5")  # names and layout of the files that Keras gives away
    theirs.save_weights(tmp_path / "new.weights.h5")
    ours = encoder(name, 32, SIZE)
    fresh = ours.get_weights()
    for file in ("old.h5", "new.weights.h5"):
        ours.set_weights(fresh)
        load_initial_weights(tmp_path / file, state_of(ours))
        got = ours(pictures(SIZE))[-1].numpy()
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
        said = capfd.readouterr().err
        assert "0 are not there, 0 of the file's are not used" in said
        assert "warning" not in said


def test_without_the_biases_it_would_be_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the test above: by the names alone, the kernels fit as well."""
    theirs = of_keras("resnet50")
    theirs.save_weights(tmp_path / "w.weights.h5")
    ours = encoder("resnet50", 32, SIZE)

    def unfolded(source: Source) -> Source:
        return Source(source.kind, adapt(source).items, source.read)

    monkeypatch.setattr(load, "adapt", unfolded)
    load_initial_weights(tmp_path / "w.weights.h5", state_of(ours))
    got, expected = ours(pictures(SIZE))[-1].numpy(), theirs(pictures(SIZE)).numpy()
    assert np.abs(got - expected).max() > 0.01 * np.abs(expected).max()


def slim_encoder(units: Sequence[int], *, beta: bool) -> keras.Model:
    image = keras.Input((*SIZE, 3))
    return keras.Model(image, resnet_slim(image, 32, beta=beta, units=units).block4)


@pytest.mark.parametrize(
    ("beta", "version", "given"), [(False, 1, "model.ckpt"), (True, 2, "model.ckpt.index")]
)
def test_an_encoder_with_slims_checkpoint_is_slims_network(
    beta: bool, version: int, given: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Beside slim's forward pass, written down by its definition."""
    tensors = slim.checkpoint(UNITS, beta=beta)
    slim.write(tensors, tmp_path / "model.ckpt", version=version)
    model = slim_encoder(UNITS, beta=beta)
    load_initial_weights(tmp_path / given, state_of(model))
    expected = slim.features(tensors, pictures(SIZE), UNITS, beta=beta).numpy()
    np.testing.assert_allclose(
        model(pictures(SIZE)).numpy(), expected, atol=1e-5 * np.abs(expected).max()
    )
    said = capfd.readouterr().err
    assert "0 have another shape there, 0 are not there, 3 of the file's are not used" in said
    for name in ("global_step", f"{slim.SCOPE}/logits/weights", "conv1/weights/Momentum"):
        assert f"{name} of the file is not used" in said


def names_of(model: keras.Model) -> set[str]:
    return {path for one in model.weights if "seed_generator" not in (path := one.path)}


def test_slims_names_are_those_of_deeplabv3s_whole_encoder() -> None:
    model = build_model("deeplabv3", 3, (33, 33))
    tensors = slim.checkpoint((3, 4, 23, 3), beta=True)
    source = adapt(
        Source("", tuple(Item(name, x.shape) for name, x in tensors.items()), tensors.__getitem__)
    )
    shapes = {one.path: tuple(one.shape) for one in model.weights}
    found = {item.path: item.shape for item in source.items if item.path in shapes}
    head = {path for path in names_of(model) if path.startswith(("aspp_", "logits"))}
    assert found.keys() == names_of(model) - head
    assert all(shapes[path] == shape for path, shape in found.items())


SEED = {
    "ASPP_conv1": ("aspp_image_conv", ["kernel"]),
    "ASPP_conv1_batch_norm": ("aspp_image_bn", ["gamma", "beta"]),
    "ASPP_conv1x1": ("aspp_1x1_conv", ["kernel"]),
    "ASPP_sep_conv3x3_d6": ("aspp_atrous_1_conv", ["depthwise", "pointwise", "bias"]),
    "ASPP_Sep_conv3x3_d12_batch_norm": ("aspp_atrous_2_bn", ["gamma", "beta"]),
    "ASPP_sep_conv3x3_d18": ("aspp_atrous_3_conv", ["depthwise", "pointwise", "bias"]),
    "ASPP_project_conv": ("aspp_project_conv", ["kernel"]),
    "decoder_conv1x1": ("decoder_low_conv", ["kernel"]),
    "decoder_conv1x1_batch_norm": ("decoder_low_bn", ["gamma", "beta"]),
    "decoder_conv1": ("decoder_0_conv", ["depthwise", "pointwise", "bias"]),
    "decoder_conv2": ("decoder_1_conv", ["depthwise", "pointwise", "bias"]),
    "decoder_conv2_batch_norm": ("decoder_1_bn", ["gamma", "beta"]),
    "Classification": ("logits_conv", ["kernel", "bias"]),
}


def test_the_seeds_deeplab_has_our_names() -> None:
    """Layer by layer, as the seed calls them; and each is one of the network's."""
    items = tuple(
        Item(f"{layer}/{part}", (), path=f"{layer}/{part}", own=Member(layer, i, len(parts)))
        for layer, (_, parts) in SEED.items()
        for i, part in enumerate(parts)
    )
    source = adapt(Source("a Keras 2 file", items, lambda _: np.zeros(())))
    targets = tuple(
        Item(f"{layer}/{part}", (), own=Member(layer, i, len(parts)))
        for layer, parts in SEED.values()
        for i, part in enumerate(parts)
    )
    report = match(source.items, targets)
    assert report.whole
    assert report.loaded == {
        f"{ours}/{part}": f"{layer}/{part}"
        for layer, (ours, parts) in SEED.items()
        for part in parts
    }
    model = build_model("deeplabv3+", 3, (33, 33))
    assert {ours for ours, _ in SEED.values()} <= {layer.name for layer in model.layers}


@pytest.mark.parametrize(
    ("first", "norm"), [("Conv1", "bn_Conv1"), ("block1_conv1", "block1_conv1_bn")]
)
def test_the_seeds_deeplab_saw_pictures_from_0_to_1(first: str, norm: str) -> None:
    """What its first batch norm takes the mean off is the same of ours, from -1 to 1."""
    draw = np.random.default_rng(0)
    members = [Member(layer, 0, 1) for layer in ("ASPP_project_conv", "decoder_conv1x1")]
    members += [Member("decoder_conv2", 0, 1), Member(first, 0, 1)]
    members += [Member(norm, i, 4) for i in range(4)]
    shapes = {first: (3, 3, 3, 32), norm: (32,)}
    items = tuple(
        Item(f"{one.layer}/{one.number}", shapes.get(one.layer, (1,)), own=one) for one in members
    )
    stored = {item.name: draw.normal(size=item.shape) for item in items}
    source = adapt(Source("a Keras 2 file", items, stored.__getitem__))
    x = draw.uniform(0, 1, (3, 3, 3, 1))
    kernel, mean = f"{first}/0", f"{norm}/2"
    theirs = (x * stored[kernel]).sum((0, 1, 2)) - stored[mean]
    ours = ((2 * x - 1) * source.read(kernel)).sum((0, 1, 2)) - source.read(mean)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    others = set(stored) - {kernel, mean}
    assert all(source.read(name) is stored[name] for name in others)

    wide = tuple(replace(one, shape=(1 << 20, *one.shape[1:])) for one in items)
    beyond = adapt(Source("a Keras 2 file", wide, stored.__getitem__))
    assert beyond.read(mean) is stored[mean]  # nothing of a shape that fits nowhere is read


@pytest.mark.proof
def test_the_seeds_fast_scnn_is_the_same_network(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the seed's, written down by its definition; and its file fits by its turns alone,
    which the two layers that have names would break."""
    side, path = 768, tmp_path / "weights-00-0.88-0.41-2020.hdf5"
    theirs = seed_fastscnn.network(5, side, width=0.25)
    scramble(theirs)
    keras_2(state_of(theirs), path)
    ours = build_model("fastscnn", 5, (side, side), width=0.25, pyramid="seed")
    load_initial_weights(path, state_of(ours))
    said = capfd.readouterr().err
    assert "0 are not there, 0 of the file's are not used" in said
    assert "warning" not in said
    expected = theirs(pictures((side, side))).numpy()
    got = ours(pictures((side, side))).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())

    monkeypatch.setattr(load, "adapt", lambda source: source)
    with pytest.raises(ClustersegError, match="fits no layer"):
        load_initial_weights(path, state_of(ours))


def test_another_file_stays_as_it_is() -> None:
    for layers in (["conv1_conv"], ["block1_conv1", "block14_sepconv2"], ["ASPP_conv1"], []):
        items = tuple(Item(layer, (1,), own=Member(layer, 0, 2)) for layer in layers)
        source = Source("a file", items, lambda _: np.zeros(1))
        assert adapt(source) is source


def test_keras_second_resnet_is_not_taken_for_the_first() -> None:
    """It has layers of the same names in another order."""
    names = ["conv1_conv", "conv2_block1_0_conv", "conv2_block1_1_bn", "conv2_block1_preact_bn"]
    items = tuple(Item(layer, (1,), own=Member(layer, 0, 2)) for layer in names)
    source = Source("a file", items, lambda _: np.zeros(1))
    assert adapt(source) is source


@pytest.fixture
def beta(tmp_path: Path) -> Path:
    tensors = {f"{slim.SCOPE}/conv1/weights": np.ones((1, 1, 3, 2), np.float32)}
    slim.write(tensors, tmp_path / "m.ckpt", version=2)
    return tmp_path / "m.ckpt"


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "given", "message"),
    [
        (lambda p: p.with_name("m.ckpt.data-00000-of-00001").unlink(), "m.ckpt", "has no m.ckpt"),
        (lambda p: None, "m.ckpt.data-00000-of-00001", "without their names"),
        (lambda p: p.with_name("m.ckpt.index").unlink(), "m.ckpt", "does not exist"),
        (lambda p: cut(p.with_name("m.ckpt.index"), 40), "m.ckpt.index", "no file of weights"),
        (
            lambda p: cut(p.with_name("m.ckpt.data-00000-of-00001"), 5),
            "m.ckpt",
            "is truncated or damaged",
        ),
        (lambda p: None, "m.ckpt", "fits no layer of this network"),
    ],
)
def test_a_broken_checkpoint_is_named(damage: Any, given: str, message: str, beta: Path) -> None:
    damage(beta)
    image = keras.Input((8, 8, 3))
    model = keras.Model(
        image, keras.layers.Conv2D(2, 1, name="conv1" if "truncated" in message else "c")(image)
    )
    with pytest.raises(ClustersegError, match=message) as caught:
        load_initial_weights(beta.with_name(given), state_of(model))
    assert given.removesuffix(".index") in caught.value.message
