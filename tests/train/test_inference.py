"""Scales, mirror images, tiles and samples: what they may change, and what they must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.models import build_model
from clusterseg.models.refine import refine
from clusterseg.spec.model import TrainSpec
from clusterseg.train.inference import device as inference_device
from clusterseg.train.inference import network as inference_network
from clusterseg.train.inference import predictor
from clusterseg.train.inference.device import Prepared
from clusterseg.train.inference.how import How, check, scaled, tiles
from clusterseg.train.inference.inputs import Input, find
from clusterseg.train.inference.network import Network
from clusterseg.train.inference.parts import frame_name, joined, shared_out
from clusterseg.train.inference.predictor import Predictor
from clusterseg.train.inference.source import Source
from clusterseg.train.inference.task import predict_files
from tests.train.films import film
from tests.train.runs import job

CLASSES = 3
SIZE = (12, 16)


class PixelNetwork:
    """Each pixel's logits follow from its colour alone, as those of 1x1 convolutions, or with
    `column` also from where it is."""

    divisor = 1
    can_sample = False

    def __init__(self, column: float = 0.0) -> None:
        self.classes = _Classes(SIZE)
        self.column = column
        self.seen: list[tuple[int, int]] = []
        self._kernel = np.random.default_rng(7).normal(size=(3, CLASSES)).astype(np.float32)

    def prepared(self, image: tf.Tensor, size: tuple[int, int] | None) -> tf.Tensor:
        image = tf.cast(image, tf.float32)
        return image if size is None else tf.image.resize(image, size)

    def logits(self, image: tf.Tensor, **_: Any) -> tf.Tensor:
        height, width, _ = image.shape
        self.seen.append((height, width))
        place = tf.range(width, dtype=tf.float32)[tf.newaxis, :, tf.newaxis]
        first = tf.one_hot(0, CLASSES)
        return image / 50 @ self._kernel + self.column * place * first


class _Classes:
    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __len__(self) -> int:
        return CLASSES


def picture(size: tuple[int, int] = SIZE, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def predicted(how: How, image: Any, network: Any = None) -> Any:
    return Predictor(network or PixelNetwork(), how).predict(image, "a")


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.floats(0, 0.95),
)
def test_tiles_cover_every_pixel_and_overlap_as_asked(more, tile, overlap):
    size = tile[0] + more[0] - 1, tile[1] + more[1] - 1
    covered = np.zeros(size, int)
    places = list(tiles(size, tile, overlap))
    for top, left in places:
        part = covered[top : top + tile[0], left : left + tile[1]]
        assert part.shape == tile
        part += 1
    assert covered.min() >= 1
    for side in (0, 1):
        starts = sorted({place[side] for place in places})
        gaps = np.diff(starts)
        assert (gaps <= max(1, int(tile[side] * (1 - overlap))) + 1).all()
    assert list(tiles(tile, tile, overlap)) == [(0, 0)]


def test_scaled_sizes_fit_the_network():
    assert scaled((100, 200), 0.5, 16) == (48, 96)
    assert scaled((100, 200), 0.01, 16) == (16, 16)
    assert scaled((97, 33), 1.0, 1) == (97, 33)


@pytest.mark.parametrize("strip", [1, 1 << 24])
def test_tiles_of_a_network_that_looks_at_single_pixels_change_nothing(monkeypatch, strip):
    monkeypatch.setattr(predictor, "_STRIP", strip)
    image = picture()
    whole = predicted(How(), image)
    for tile, overlap in (((5, 7), 0.0), ((5, 7), 0.5), ((12, 16), 0.25), ((30, 30), 0.25)):
        cut = predicted(How(tile=tile, overlap=overlap), image)
        np.testing.assert_array_equal(cut.classes, whole.classes)
        np.testing.assert_allclose(cut.confidence, whole.confidence, atol=1e-5)


def test_tiles_are_of_the_picture_at_its_own_size():
    network = PixelNetwork()
    predicted(How(tile=(10, 10)), picture((20, 30)), network)
    assert set(network.seen) == {(10, 10)}
    assert len(network.seen) == 3 * 4  # a quarter or more of each side is seen twice


class Recording(PixelNetwork):
    """Keeps what it is shown."""

    def logits(self, image: tf.Tensor, **more: Any) -> tf.Tensor:
        self.shown = [*getattr(self, "shown", []), image.numpy()]
        return super().logits(image, **more)


def test_a_small_picture_in_a_tile_keeps_its_scale_and_gets_a_margin():
    """As research/deeplab evaluates: the margin is resized and mirrored with the picture."""
    image = picture((8, 6))
    network = Recording()
    how = How(tile=(10, 12), scales=(1.0, 0.5, 1.5), flip=True)
    found = predicted(how, image, network)
    assert [one.shape[:2] for one in network.shown] == [
        (10, 12), (10, 12), (5, 6), (5, 6), (15, 18), (15, 18),
    ]  # fmt: skip
    for first, (height, width) in ((0, (8, 6)), (2, (4, 3)), (4, (12, 9))):
        plain, mirrored = network.shown[first : first + 2]
        np.testing.assert_array_equal(mirrored, plain[:, ::-1])
        np.testing.assert_array_equal(
            plain[:height, :width], network.prepared(image, (height, width))
        )
        assert not plain[height:].any() and not plain[:, width:].any()
    assert found.classes.shape == (8, 6)
    # A pixel's class follows from its colour, wherever the margin is.
    whole = predicted(How(tile=(10, 12)), image, PixelNetwork())
    again = predicted(How(tile=(10, 12), flip=True), image, PixelNetwork())
    np.testing.assert_array_equal(whole.classes, again.classes)
    np.testing.assert_array_equal(
        whole.classes, np.argmax(PixelNetwork().logits(tf.cast(image, tf.float32)), axis=-1)
    )


def test_mirrored_pictures_are_mirrored_back():
    """Where the place does not matter nothing changes; where it does, the two are averaged."""
    image = picture()
    plain, mirrored = predicted(How(), image), predicted(How(flip=True), image)
    np.testing.assert_array_equal(mirrored.classes, plain.classes)
    leaning = PixelNetwork(column=0.5)
    both = predicted(How(flip=True), image, leaning).confidence
    one = tf.nn.softmax(leaning.logits(leaning.prepared(image, None)))
    other = tf.nn.softmax(leaning.logits(leaning.prepared(image[:, ::-1], None)))[:, ::-1]
    np.testing.assert_allclose(both, np.max((one + other) / 2, axis=-1), atol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(both, predicted(How(), image, leaning).confidence, atol=1e-3)


def test_scales_are_averaged_as_probabilities_at_the_size_of_the_file():
    image = picture((9, 20))
    network = PixelNetwork()
    found = predicted(How(scales=(0.5, 1.0)), image, network)
    assert network.seen == [(6, 8), SIZE]
    parts = [
        tf.nn.softmax(tf.image.resize(network.logits(network.prepared(image, size)), (9, 20)))
        for size in ((6, 8), SIZE)
    ]
    mean = (parts[0] + parts[1]) / 2
    np.testing.assert_array_equal(found.classes, np.argmax(mean, axis=-1))
    np.testing.assert_allclose(found.confidence, np.max(mean, axis=-1), atol=1e-5)


def test_borders_are_mended_after_the_best_class_is_taken():
    image = picture((24, 30))
    plain, mended = predicted(How(), image), predicted(How(refine=1), image)
    expected = refine(plain.classes, plain.confidence, 1)
    np.testing.assert_array_equal(mended.classes, expected)
    assert not How(refine=1).is_plain


@pytest.mark.parametrize(
    ("how", "divisor", "said"),
    [
        (How(scales=()), 1, "scales are numbers"),
        (How(scales=(0.0,)), 1, "scales are numbers"),
        (How(scales=(float("nan"),)), 1, "scales are numbers"),
        (How(scales=(1.0, 1.0)), 1, "twice"),
        (How(overlap=1.0), 1, "overlap"),
        (How(samples=1), 1, "one sample"),
        (How(refine=51), 1, "1 to 50"),
        (How(tile=(33, 32)), 16, "33x32"),
        (How(tile=(0, 32)), 1, "0x32"),
    ],
)
def test_what_can_not_be_done_is_told(how, divisor, said):
    with pytest.raises(ClustersegError, match=said):
        check(how, divisor)


def test_samples_need_a_network_that_drops():
    with pytest.raises(ClustersegError, match="drops nothing") as caught:
        Predictor(PixelNetwork(), How(samples=2))
    assert caught.value.is_lasting


@pytest.fixture(scope="module")
def source(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A Fast-SCNN with drawn weights, in a file of Keras'."""
    values = job(data)["train"]
    values["model"]["options"]["dropout"] = 0.5
    spec = msgspec.convert(values, TrainSpec)
    keras.utils.set_random_seed(3)
    model = build_model("fastscnn", 11, (32, 48), **spec.model.options)
    weights = tmp_path_factory.mktemp("weights") / "drawn.weights.h5"
    model.save_weights(weights)
    return Source(train=spec, directory=str(data), weights=str(weights))


@pytest.fixture(scope="module")
def network(source: Source) -> Network:
    return Network(source)


@pytest.mark.slow
def test_a_network_is_the_same_at_every_size(network: Network, source: Source) -> None:
    """The same weights, at another size than that which it was built for first."""
    size = (64, 32)
    keras.utils.set_random_seed(9)
    model = build_model("fastscnn", 11, size, **source.train.model.options)
    model.load_weights(source.weights)
    image = network.prepared(tf.constant(picture((40, 50))), size)
    assert image.shape == (*size, 3) and network.classes.size == (32, 48)
    expected = model(image[tf.newaxis], training=False)[0]
    np.testing.assert_allclose(network.logits(image), expected, atol=1e-5)
    assert network.classes.names[0] == "sky" and network.classes.ids == tuple(range(11))


@pytest.mark.slow
def test_samples_follow_from_the_name_and_the_seed_alone(network: Network) -> None:
    image = picture((32, 48))
    sampled = Predictor(network, How(samples=3)).predict(image, "a")
    again = Predictor(network, How(samples=3)).predict(image, "a")
    assert sampled.samples is not None and again.samples is not None
    np.testing.assert_array_equal(sampled.samples.mean, again.samples.mean)
    assert sampled.samples.mutual_information.max() > 0
    np.testing.assert_array_equal(sampled.classes, sampled.samples.mean.argmax(-1))
    for other in (
        Predictor(network, How(samples=3)).predict(image, "b"),
        Predictor(network, How(samples=3, seed=1)).predict(image, "a"),
    ):
        assert other.samples is not None
        assert not np.array_equal(other.samples.mean, sampled.samples.mean)
    plain = Predictor(network, How()).predict(image, "a")  # drops nothing, before and after
    np.testing.assert_array_equal(
        plain.confidence, Predictor(network, How()).predict(image, "b").confidence
    )


@pytest.mark.slow
def test_a_film_in_parts_is_predicted_as_in_one_pass(
    network: Network, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File by file and record by record, in any order, and where a part was done before."""
    # This process has both already.
    monkeypatch.setattr(inference_device, "prepare", lambda _: Prepared(1, None))
    monkeypatch.setattr(inference_network, "opened", lambda _: network)
    (whole,), _ = find([film(tmp_path / "film.gif", 12)], beside=tmp_path)
    parts = shared_out([whole], slots=9, every=1)

    def predicted(output: Path, *tasks: tuple[Input, ...]) -> tuple[list[Any], list[Any]]:
        told = msgspec.json.encode(source).decode()
        kinds = ["ids", "color", "overlay", "confidence"]
        return joined(
            [
                predict_files(
                    told,
                    how={},
                    output=str(output),
                    kinds=kinds,
                    files=msgspec.to_builtins(files),
                    every=1,
                )
                for files in tasks
            ]
        )

    def files(output: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(output)): path.read_bytes()
            for path in output.rglob("*")
            if path.is_file()
        }

    once = predicted(tmp_path / "once", (whole,))
    predicted(tmp_path / "parts", parts[1])
    assert len(files(tmp_path / "parts")) == 4 * 6
    assert predicted(tmp_path / "parts", *parts[::-1]) == once
    assert [one["name"] for one in once[0]] == [frame_name("film", number) for number in range(12)]
    assert files(tmp_path / "parts") == files(tmp_path / "once")
    assert len({one["confidence"] for one in once[0]}) == 12  # another frame would be noticed


@pytest.mark.slow
def test_weights_of_another_network_are_refused_for_good(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference_device, "prepare", lambda _: Prepared(1, None))
    monkeypatch.setattr(inference_network, "opened", Network)

    def refused(**changed: Any) -> ClustersegError:
        told = msgspec.json.encode(msgspec.structs.replace(source, **changed)).decode()
        with pytest.raises(ClustersegError) as caught:
            predict_files(told, how={}, output="gone", kinds=["ids"], files=[], every=1)
        return caught.value

    values = msgspec.to_builtins(source.train)
    values["model"]["options"]["width"] = 0.5
    misfit = refused(train=msgspec.convert(values, TrainSpec))
    assert "tensors" in misfit.message
    assert misfit.is_lasting and misfit.is_of_all
    gone = refused(weights=f"{source.weights}.gone")
    assert gone.is_of_all and not gone.is_lasting  # it may be seen the next time


@pytest.mark.slow
def test_a_data_set_that_is_gone_leaves_numbers(source: Source, tmp_path: Path) -> None:
    values = msgspec.to_builtins(source)
    values["train"]["data"]["root"] = str(tmp_path / "gone")
    with pytest.raises(ClustersegError, match="gone"):  # nothing tells how many classes
        Network(msgspec.convert(values, Source))
    values["train"]["model"]["classes"] = 11
    found = Network(msgspec.convert(values, Source)).classes
    assert found.names[10] == "class 10" and "gone" in str(found.unknown)
    assert len(set(found.colors)) == 11
