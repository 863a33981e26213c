"""QONNX of the quantised network: bits stay bits, and the numbers are the network's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from clusterseg.errors import ClustersegError
from clusterseg.export.graph import Form, normalised
from clusterseg.export.network import Network
from clusterseg.export.qonnx_files import DOMAIN, save_qonnx
from clusterseg.export.runtimes import need, open_file
from clusterseg.export.write import Wishes, export
from tests.apart import command
from tests.export.networks import labelled, quantised


@pytest.fixture(scope="module")
def lmsegnet() -> Network:
    return quantised()


@pytest.fixture(scope="module")
def written(lmsegnet: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qonnx") / "out"
    export(lmsegnet, Wishes(("qonnx",), Form()), folder, samples=labelled(2))
    return folder / "model.qonnx.onnx"


def test_it_gives_the_networks_logits(lmsegnet: Network, written: Path) -> None:
    pixels, _ = next(iter(labelled(1)))
    picture = normalised(pixels[np.newaxis], lmsegnet.normalisation)
    wanted = np.asarray(lmsegnet.model(picture, training=False))
    found = open_file(written, threads=1)(picture)
    assert np.abs(wanted).max() > 1
    assert len(np.unique(wanted.argmax(-1))) > 1
    assert (np.abs(found - wanted) <= 1e-4).mean() > 0.99


@pytest.mark.proof
def test_qonnx_own_executor_gives_the_networks_logits(
    lmsegnet: Network, written: Path, tmp_path: Path
) -> None:
    """By its operators for quantisation: the file's own definitions of them are taken away."""
    line = command("qonnx.sh", "tests/export/qonnx_executor.py", "QONNX' own tools")
    pixels, _ = next(iter(labelled(1)))
    picture = normalised(pixels[np.newaxis], lmsegnet.normalisation)
    taken, given = tmp_path / "image.npy", tmp_path / "logits.npy"
    np.save(taken, picture.transpose(0, 3, 1, 2))
    line += [written, taken, given]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(given).transpose(0, 2, 3, 1)
    wanted = np.asarray(lmsegnet.model(picture, training=False))
    assert np.abs(wanted).max() > 1
    assert (np.abs(found - wanted) <= 1e-4).mean() > 0.99


def test_weights_have_a_bit_and_activations_two(lmsegnet: Network, written: Path) -> None:
    """Nine of eleven kernels: the first and the last one are in float, as the network has them."""
    onnx = need("onnx")
    graph = onnx.load(str(written)).graph
    kinds = [node.op_type for node in graph.node if node.domain == DOMAIN]
    assert kinds.count("BipolarQuant") == 9
    assert kinds.count("Quant") == 10
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "BipolarQuant":
            kernel, scale = (constants[name] for name in node.input)
            assert scale == pytest.approx(np.abs(kernel).mean(), rel=1e-5)
        if node.op_type == "Quant":
            _, scale, zero, bits = node.input
            assert (constants[scale], constants[zero], constants[bits]) == (
                pytest.approx(2 / 3), 0, 2,
            )  # fmt: skip


def test_without_the_quantisers_the_numbers_are_others(
    lmsegnet: Network, written: Path, tmp_path: Path
) -> None:
    """What makes the comparison above tell something."""
    onnx = need("onnx")
    model = onnx.load(str(written))
    for node in model.graph.node:
        if node.op_type == "Quant":
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
    path = tmp_path / "plain.qonnx.onnx"
    onnx.save(model, str(path))
    pixels, _ = next(iter(labelled(1)))
    picture = normalised(pixels[np.newaxis], lmsegnet.normalisation)
    found = open_file(path, threads=1)(picture)
    assert (np.abs(found - lmsegnet.model(picture, training=False)) > 1e-2).mean() > 0.9


def test_other_networks_are_refused_with_the_layer_that_is_in_the_way(
    network: Network, tmp_path: Path
) -> None:
    with pytest.raises(ClustersegError, match=r"fastscnn can't be written as QONNX: it has \w+"):
        save_qonnx(network, Form(), tmp_path / "x.onnx")
