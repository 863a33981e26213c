"""What an exported file computes, beside the network that it is of."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from clusterseg.errors import ClustersegError
from clusterseg.export.check import compare
from clusterseg.export.formats import FLIPS, FORMATS, Bound, bound_of
from clusterseg.export.graph import Form, normalised
from clusterseg.export.network import Network
from clusterseg.export.onnx_files import save_onnx
from clusterseg.export.runtimes import need, open_file
from clusterseg.export.samples import drawn
from clusterseg.export.tflite_files import save_tflite
from clusterseg.export.write import Export, Exported, Wishes, export
from clusterseg.models.quantise import QuantConv2D, TwoBit
from tests.export.networks import SIZE, labelled, labels_of

PICTURES = 4


def logits(network: Network) -> tuple[NDArray[Any], NDArray[Any]]:
    """(normalised pictures, the network's logits for them)."""
    pictures = normalised(
        np.stack([pixels for pixels, _ in labelled(PICTURES)]), network.normalisation
    )
    return pictures, np.asarray(network.model(pictures, training=False))


def entry(exported: Export, name: str) -> Exported:
    (found,) = (one for one in exported.files if one.format == name)
    return found


def test_the_network_has_learned_something(network: Network) -> None:
    """Else equal labels would mean little."""
    _, found = logits(network)
    truth = np.stack([labels for _, labels in labelled(PICTURES)])
    assert (found.argmax(-1) == truth).mean() > 0.8
    assert len(np.unique(found.argmax(-1))) == network.classes
    assert np.abs(found).max() > 2


@pytest.mark.parametrize("name", ["onnx", "tflite", "saved-model", "keras"])
def test_float_files_give_the_networks_logits(
    exported: Export, network: Network, name: str
) -> None:
    pictures, wanted = logits(network)
    run = open_file(exported.folder / FORMATS[name].file, threads=1)
    found = np.concatenate([run(pictures[n : n + 1]) for n in range(PICTURES)])
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 1e-4
    seen = entry(exported, name).comparison
    assert seen.largest_difference == pytest.approx(np.abs(found - wanted).max(), abs=1e-5)
    assert seen.equal_labels == 1


def test_a_file_of_half_floats_is_half_as_large_and_nearly_the_same(
    exported: Export, network: Network
) -> None:
    whole, half = entry(exported, "tflite"), entry(exported, "tflite-float16")
    assert half.bytes < 0.7 * whole.bytes
    difference = half.comparison.largest_difference
    assert difference is not None
    assert 0 < difference < 1e-2 * np.abs(logits(network)[1]).max()


def test_an_int8_file_is_calibrated_and_its_loss_of_accuracy_is_what_is_reported(
    exported: Export, network: Network
) -> None:
    """Measured here by another way: LiteRT by hand, accuracy by counting."""
    one = entry(exported, "tflite-int8")
    assert one.float_operators == ()
    assert one.bytes < 0.7 * entry(exported, "tflite").bytes
    pictures, wanted = logits(network)
    interpreter = need("ai_edge_litert.interpreter").Interpreter(
        str(exported.folder / "model-int8.tflite")
    )
    interpreter.allocate_tensors()
    found = []
    for picture in pictures:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[np.newaxis])
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    labels = np.stack(found).argmax(-1)
    truth = np.stack([labels_of(pixels) for pixels, _ in labelled(PICTURES)])
    equal = (labels == wanted.argmax(-1)).mean()
    assert equal > 0.9
    assert one.comparison.equal_labels == pytest.approx(equal, abs=1e-3)
    lost = (wanted.argmax(-1) == truth).mean() - (labels == truth).mean()
    assert one.comparison.lost_accuracy == pytest.approx(lost, abs=1e-3)


def test_the_ranges_of_int8_come_from_the_samples(network: Network, tmp_path: Path) -> None:
    """The twin of the test above: calibrated with black pictures, bright ones are cut off."""
    black = [np.full((1, *SIZE, 3), -2.1, np.float32)] * 2
    path = tmp_path / "black.tflite"
    save_tflite(network, Form(), path, kind="int8", samples=black)
    seen = compare(
        network,
        Form(),
        open_file(path, threads=1),
        labelled(2),
        bound=None,
        ignore=None,
        file=path.name,
    )
    assert seen.equal_labels < 0.9


def test_kernels_of_one_bit_in_int8(network: Network, tmp_path: Path) -> None:
    """LmSegNet's: the runtime takes the file, and its logits are the network's but for steps."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    seen = TwoBit()(QuantConv2D(16, 3, padding="same", quantize=False)(image))
    seen = TwoBit()(QuantConv2D(16, 3, padding="same")(seen))
    model = keras.Model(image, QuantConv2D(4, 1, padding="same", quantize=False)(seen))
    small = dataclasses.replace(network, name="lmsegnet", model=model, size=(16, 16))
    pictures = np.random.default_rng(0).normal(0, 1, (4, 1, 16, 16, 3)).astype(np.float32)
    path = tmp_path / "small.tflite"
    save_tflite(small, Form(), path, kind="int8", samples=list(pictures))
    wanted, found = np.asarray(model(pictures[0])), open_file(path, threads=1)(pictures[0])
    assert np.corrcoef(wanted.ravel(), found.ravel())[0, 1] > 0.9
    assert (wanted == np.asarray(model(pictures[0]))).all()


def test_integers_in_and_out(network: Network, tmp_path: Path) -> None:
    """For devices that have nothing but int8; `open_file` scales on both sides."""
    path = tmp_path / "whole.tflite"
    samples = [normalised(pixels[np.newaxis], network.normalisation) for pixels, _ in labelled(4)]
    save_tflite(network, Form(), path, kind="int8", samples=samples, integer_io=True)
    interpreter = need("ai_edge_litert.interpreter").Interpreter(str(path))
    for detail in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert detail["dtype"] == np.int8
    pictures, wanted = logits(network)
    found = open_file(path, threads=1)(pictures[:1])
    assert (found.argmax(-1) == wanted[:1].argmax(-1)).mean() > 0.9


def test_raw_pictures_in_any_number_and_labels_out(network: Network, tmp_path: Path) -> None:
    """Of a network that wants its channels turned around, which is the graph's task then."""
    turned = dataclasses.replace(
        network, normalisation=dataclasses.replace(network.normalisation, order="bgr")
    )
    path = tmp_path / "labels.onnx"
    save_onnx(turned, Form(batch=None, raw=True, argmax=True), path)
    runtime = need("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, given.name, given.type) == (
        "image", "tensor(uint8)", "labels", "tensor(int32)",
    )  # fmt: skip
    raw = np.stack([pixels.round().astype(np.uint8) for pixels, _ in labelled(3)])
    plain = normalised(raw, network.normalisation)
    wanted = np.asarray(network.model(plain[..., ::-1], training=False)).argmax(-1)
    for count in (1, 3):
        (found,) = session.run(None, {"image": raw[:count]})
        assert found.shape == (count, *SIZE)
        assert (found == wanted[:count]).mean() > 0.9999
    straight = np.asarray(network.model(plain, training=False)).argmax(-1)
    assert (found == straight).mean() < 0.9


def test_a_file_that_computes_something_else_is_refused(network: Network) -> None:
    """What a converter's fault looks like: a little off, labels off, or NaN."""
    bound = FORMATS["onnx"].bound

    def check(wrong: Any, form: Form = Form()) -> None:  # noqa: B008 (it is frozen)
        def run(pictures: NDArray[Any]) -> NDArray[Any]:
            right = np.asarray(network.model(pictures, training=False))
            return np.asarray(wrong(right.argmax(-1) if form.argmax else right))

        compare(network, form, run, drawn(2, size=SIZE), bound=bound, ignore=None, file="x.onnx")

    def at_one_place(found: NDArray[Any]) -> NDArray[Any]:
        found = found.copy()
        found.reshape(-1)[7] += 2e-4
        return found

    check(lambda found: found)
    check(lambda found: found, Form(argmax=True))
    for wrong, form in (
        (at_one_place, Form()),
        (lambda found: found + 2e-4, Form()),
        (lambda found: np.where(found > 0, np.nan, found), Form()),
        (lambda found: (found + 1) % network.classes, Form(argmax=True)),
    ):
        with pytest.raises(ClustersegError, match=r"x\.onnx .*nothing was written"):
            check(wrong, form)


def test_where_a_network_decides_one_pixel_in_a_hundred_may_be_another(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(every: int, flips: float = FLIPS) -> None:
        def run(pictures: NDArray[Any]) -> NDArray[Any]:
            found = np.array(network.model(pictures, training=False))
            pixels = found.reshape(-1, network.classes)
            pixels[::every] = np.roll(pixels[::every], 1, axis=-1)
            return found

        bound = bound_of("onnx")
        compare(
            network, Form(), run, drawn(2, size=SIZE), bound=bound, ignore=None, file="x.onnx",
            flips=flips,
        )  # fmt: skip

    with pytest.raises(ClustersegError, match=r"x\.onnx .*nothing was written"):
        check(200)
    monkeypatch.setattr(Network, "decides", True)
    check(200)
    with pytest.raises(
        ClustersegError, match="gives another class at 246 of 12288 pixels"
    ) as refused:
        check(50)
    assert refused.value.help is not None and "--flips 0.03" in refused.value.help
    check(50, flips=0.03)
    with pytest.raises(ClustersegError, match="nothing was written"):
        check(200, flips=0.001)


def test_flips_are_allowed_only_where_a_network_decides(network: Network, tmp_path: Path) -> None:
    wishes = Wishes(("onnx",), Form(), flips=0.02)
    with pytest.raises(ClustersegError, match="--flips"):
        export(network, wishes, tmp_path / "out", samples=drawn(1, size=SIZE))
    assert list(tmp_path.iterdir()) == []


def test_the_difference_allowed_is_1e_4_unless_another_is_given() -> None:
    assert bound_of("onnx") == Bound(1e-4, steady=100)
    assert bound_of("keras", 1e-3) == Bound(1e-3, steady=100)
    assert bound_of("tflite-float16", 1e-6) == bound_of("tflite-float16")
    assert bound_of("tflite-int8", 1e-6) is None


def test_small_logits_do_not_hide_a_difference() -> None:
    bound = Bound(1e-4, steady=100)
    assert bound.limit(1e-3) == pytest.approx(1e-7)
    assert bound.limit(1) == bound.limit(30) == bound.limit(100) == pytest.approx(1e-4)
    assert bound.limit(1000) == pytest.approx(1e-3)


def test_latencies_are_measured_by_the_runtimes_themselves(exported: Export) -> None:
    for one in (*exported.files, exported):
        assert one.latency is not None
        assert 0 < one.latency.p50_ms <= one.latency.p90_ms
        assert one.latency.fps == pytest.approx(1000 / one.latency.p50_ms)


WITHOUT_US = """
import json, sys
import importlib.abc
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "clusterseg":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
pictures = np.load(sys.argv[2])
np.save(sys.argv[3], loaded.signatures["serving_default"](tf.constant(pictures))["logits"].numpy())
"""


@pytest.mark.proof
def test_a_saved_model_needs_nothing_of_ours(
    exported: Export, network: Network, tmp_path: Path
) -> None:
    pictures, wanted = logits(network)
    np.save(tmp_path / "in.npy", pictures[:1])
    subprocess.run(
        [
            sys.executable, "-c", WITHOUT_US, str(exported.folder / "saved_model"),
            str(tmp_path / "in.npy"), str(tmp_path / "out.npy"),
        ],
        check=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert np.abs(np.load(tmp_path / "out.npy") - wanted[:1]).max() < 1e-4


def test_meta_says_what_was_found(exported: Export) -> None:
    text = (exported.folder / "meta.yaml").read_text()
    yaml = pytest.importorskip("yaml")
    values = yaml.safe_load(text)
    assert values["size"] == list(SIZE)
    for one in exported.files:
        (said,) = (file for file in values["files"] if file["format"] == one.format)
        assert said["check"] == json.loads(json.dumps(dataclasses.asdict(one.comparison)))
        assert (exported.folder / said["file"]).exists()


def test_onnx_is_made_without_copies_of_the_whole_graph(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tf2onnx would make dozens, each with all weights: of a large network gigabytes."""
    copied = []
    graph = need("tf2onnx.graph").Graph

    def copy(self: Any, memo: Any) -> Any:
        copied.append(self)
        return self

    monkeypatch.setattr(graph, "__deepcopy__", copy, raising=False)
    monkeypatch.setenv("TF2ONNX_CATCH_ERRORS", "TRUE")
    save_onnx(network, Form(), tmp_path / "model.onnx")
    assert not copied
    assert os.environ["TF2ONNX_CATCH_ERRORS"] == "TRUE"
    assert not [one for one in gc.get_objects() if isinstance(one, graph)]  # with their weights
