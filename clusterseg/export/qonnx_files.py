"""QONNX, for FPGA tools (FINN, hls4ml): bits stay bits instead of being worked into float numbers.

Built from the network's layers, not converted from TensorFlow's graph, in which quantisers have
become arithmetic. The format is ONNX with operators for quantisation in the domain
`qonnx.custom_op.general` (Pappalardo et al. 2022, arXiv:2206.07527). The file also defines these
two in ONNX' own operators, as functions: so onnxruntime runs it, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from clusterseg.errors import ClustersegError
from clusterseg.export.graph import INPUT, Form
from clusterseg.export.network import Network
from clusterseg.export.onnx_files import OPSET
from clusterseg.export.runtimes import need
from clusterseg.models.quantise import (
    STEPS,
    DepthToSpace,
    QuantConv2D,
    SpaceToDepth,
    TwoBit,
    binary,
)

DOMAIN = "qonnx.custom_op.general"
_IR = 8  # of ONNX 1.12, which opset 17 came with


def save_qonnx(network: Network, form: Form, path: Path) -> None:
    """Writes one .onnx file; input and output are [n, channels, height, width], as FPGA tools want.

    Raises ClustersegError for a network that has other layers than a quantised chain.
    """
    onnx = need("onnx")
    graph = _Graph(onnx.helper, onnx.numpy_helper)
    height, width = network.size
    batch = "n" if form.batch is None else form.batch
    here = INPUT
    for layer in _chain(network):
        here = graph.add(layer, here)
    graph.node("Identity", [here], form.output)
    tensor, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    built = onnx.helper.make_graph(
        graph.nodes,
        network.name,
        [tensor(INPUT, kind, [batch, 3, height, width])],
        [tensor(form.output, kind, [batch, network.classes, height, width])],
        initializer=graph.constants,
    )
    model = onnx.helper.make_model(
        built,
        producer_name="clusterseg",
        ir_version=_IR,
        opset_imports=[onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, 1)],
        functions=_functions(onnx.helper),
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _chain(network: Network) -> list[Any]:
    """The layers, each of which takes what the one before gives; raises ClustersegError."""
    layers = [one for one in network.model.layers if not isinstance(one, keras.layers.InputLayer)]
    known = (
        QuantConv2D,
        keras.layers.BatchNormalization,
        TwoBit,
        keras.layers.ReLU,
        SpaceToDepth,
        DepthToSpace,
    )
    for layer in layers:
        ends = isinstance(layer, keras.layers.Activation) and layer is layers[-1]
        if not (isinstance(layer, known) or ends):
            raise ClustersegError(
                f"{network.name} can't be written as QONNX: it has {layer.name}, a "
                f"{type(layer).__name__}, and nothing that is quantised",
                code="no-qonnx",
                help="qonnx is for lmsegnet; int8 of any network is --to tflite-int8",
            )
    return [one for one in layers if isinstance(one, known)]


class _Graph:
    """Nodes and constants of a chain of layers."""

    def __init__(self, helper: Any, arrays: Any) -> None:
        self._helper = helper
        self._arrays = arrays
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, layer: Any, here: str) -> str:
        """Adds what `layer` does to the tensor `here`; returns the name of what comes out."""
        name = layer.name
        if isinstance(layer, QuantConv2D):
            return self._convolution(layer, here)
        if isinstance(layer, keras.layers.BatchNormalization):
            parts = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
            names = ("gamma", "beta", "mean", "variance")
            inputs = [
                self.constant(f"{name}_{what}", np.asarray(part))
                for what, part in zip(names, parts, strict=True)
            ]
            return self.node("BatchNormalization", [here, *inputs], name, epsilon=layer.epsilon)
        if isinstance(layer, TwoBit):
            return self._two_bit(layer, here)
        if isinstance(layer, keras.layers.ReLU):
            return self.node("Relu", [here], name)
        # Both order channels as TensorFlow does: by row and column of the square, then channel.
        kind = "SpaceToDepth" if isinstance(layer, SpaceToDepth) else "DepthToSpace"
        return self.node(kind, [here], name, blocksize=2)

    def node(
        self, kind: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any
    ) -> str:
        self.nodes.append(
            self._helper.make_node(kind, inputs, [output], output, domain=domain, **attributes)
        )
        return output

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(self._arrays.from_array(np.asarray(values, np.float32), name))
        return name

    def _convolution(self, layer: Any, here: str) -> str:
        kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1)  # out, in, rows, columns
        weights = self.constant(f"{layer.name}_kernel", kernel)
        if layer.quantize:
            bits = np.asarray(binary(tf.convert_to_tensor(layer.kernel)))
            scale = self.constant(f"{layer.name}_scale", np.abs(bits).max())
            weights = self.node(
                "BipolarQuant", [weights, scale], f"{layer.name}_bits", domain=DOMAIN
            )
        rows, columns = kernel.shape[2:]
        around = [rows // 2, columns // 2]
        return self.node(
            "Conv", [here, weights], layer.name, kernel_shape=[rows, columns], pads=around * 2
        )

    def _two_bit(self, layer: Any, here: str) -> str:
        name = layer.name
        scale = self.constant(f"{name}_scale", np.float32(layer.most / STEPS))
        zero = self.constant(f"{name}_zero", np.float32(0))
        bits = self.constant(f"{name}_bits", np.float32(2))
        inputs = [here, scale, zero, bits]
        return self.node(
            "Quant", inputs, name, domain=DOMAIN, signed=0, narrow=0, rounding_mode="ROUND"
        )


def _functions(helper: Any) -> list[Any]:
    """The two quantisers by ONNX' own operators, as far as they are used here: unsigned, the whole
    range, rounded to the nearest (halves to the even one)."""
    node, version = helper.make_node, [helper.make_opsetid("", OPSET)]

    def constant(name: str, value: float) -> Any:
        return node("Constant", [], [name], value_float=value)

    bipolar = helper.make_function(
        DOMAIN,
        "BipolarQuant",
        ["x", "scale"],
        ["y"],
        [
            constant("zero", 0.0),
            constant("one", 1.0),
            constant("minus", -1.0),
            node("GreaterOrEqual", ["x", "zero"], ["positive"]),
            node("Where", ["positive", "one", "minus"], ["sign"]),
            node("Mul", ["sign", "scale"], ["y"]),
        ],
        version,
    )
    quant = helper.make_function(
        DOMAIN,
        "Quant",
        ["x", "scale", "zero_point", "bits"],
        ["y"],
        [
            constant("zero", 0.0),
            constant("one", 1.0),
            constant("two", 2.0),
            node("Pow", ["two", "bits"], ["values"]),
            node("Sub", ["values", "one"], ["most"]),
            node("Div", ["x", "scale"], ["scaled"]),
            node("Add", ["scaled", "zero_point"], ["moved"]),
            node("Round", ["moved"], ["rounded"]),
            node("Max", ["rounded", "zero"], ["above"]),
            node("Min", ["above", "most"], ["within"]),
            node("Sub", ["within", "zero_point"], ["back"]),
            node("Mul", ["back", "scale"], ["y"]),
        ],
        version,
        attributes=["signed", "narrow", "rounding_mode"],
    )
    return [bipolar, quant]
