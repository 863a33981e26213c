"""ONNX, by tf2onnx: for onnxruntime, TensorRT, OpenVINO and others."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clusterseg.export.graph import Form, function, signature
from clusterseg.export.network import Network
from clusterseg.export.runtimes import need
from clusterseg.models.unpool import by_window

OPSET = 17
"""Of 2022: what JetPack 5's TensorRT 8.5 reads; every operator needed is in it."""


def save_onnx(network: Network, form: Form, path: Path) -> None:
    """Writes one .onnx file with one input, `image`, and one output, `logits` or `labels`.

    Raises ClustersegError if the packages of the extra `export` are not there.
    """
    onnx = need("onnx")
    tf2onnx = need("tf2onnx")
    # tf2onnx 1.17 takes np.object, which numpy 2 has not; Keras' own export patches it likewise.
    need("keras.src.export.tf2onnx_lib").patch_tf2onnx()
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    # TensorRT's MaxPool gives no indices, and ONNX' own count otherwise than TensorFlow's.
    with by_window(network.model), _in_place():
        written, _ = tf2onnx.convert.from_function(
            function(network, form), [signature(network, form)], opset=OPSET
        )
    # tf2onnx' graphs refer to themselves, and hold the weights several times over: gigabytes, which
    # nothing would look for soon, since they are few objects.
    gc.collect()
    _name_output(written.graph, form.output)
    onnx.checker.check_model(written)
    onnx.save(written, str(path))


@contextmanager
def _in_place() -> Iterator[None]:
    """Has tf2onnx 1.17 optimize the graph itself, as it does large ones, and not a copy of it and
    all weights for each of a dozen passes, several times over: of HRNetV2 that is most of the
    time, and gigabytes. An optimization that fails fails the export."""
    name = need("tf2onnx.constants").ENV_TF2ONNX_CATCH_ERRORS
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _name_output(graph: object, name: str) -> None:
    """Gives the graph's one output its name, where the converter called it `Identity:0`."""
    (output,) = graph.output  # type: ignore[attr-defined]
    before = output.name
    output.name = name
    for node in graph.node:  # type: ignore[attr-defined]
        for names in (node.input, node.output):
            for place, one in enumerate(names):
                if one == before:
                    names[place] = name
