"""TFLite files for LiteRT: float32, float16 weights, or int8 throughout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from clusterseg.export.graph import Form, frozen
from clusterseg.export.network import Network
from clusterseg.export.runtimes import need
from clusterseg.models.quantise import constant_kernels
from clusterseg.models.unpool import by_window

Kind = Literal["float32", "float16", "int8"]


def save_tflite(
    network: Network,
    form: Form,
    path: Path,
    *,
    kind: Kind = "float32",
    samples: Iterable[NDArray[Any]] = (),
    integer_io: bool = False,
) -> list[str]:
    """Writes one .tflite file; `form.batch` must be a number.

    float16 halves the file, its computation stays float32 on CPUs. int8 needs `samples`, read
    again and again: pictures of the data set as the input takes them, [1, height, width, 3] each,
    from which the converter learns the range of every layer (Jacob et al. 2018, arXiv:1712.05877,
    with a scale for each channel of a kernel). `integer_io`: its input and output are int8, too.

    Returns the operators of an int8 file that have no int8 kernel and compute in float.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)  # it advises the way that gives NaN
    with by_window(network.model), constant_kernels(network.model):
        computation = frozen(network, form)
    if kind != "int8":
        path.write_bytes(_converter(computation, kind).convert())
        return []
    converter = _converter(computation, kind)
    converter.representative_dataset = _calibrating(samples, int(computation.inputs[0].shape[0]))
    if integer_io:
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    try:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        path.write_bytes(converter.convert())
        return []
    except (RuntimeError, ValueError, tf.errors.OpError):
        converter.target_spec.supported_ops += [tf.lite.OpsSet.TFLITE_BUILTINS]
        path.write_bytes(converter.convert())
        return float_operators(path)


def _converter(computation: Any, kind: Kind) -> Any:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([computation])
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter


def _calibrating(
    samples: Iterable[NDArray[Any]], batch: int
) -> Callable[[], Iterator[list[NDArray[Any]]]]:
    def each() -> Iterator[list[NDArray[Any]]]:
        for picture in samples:
            yield [np.repeat(picture, batch, axis=0)]

    return each


def float_operators(path: Path) -> list[str]:
    """Names, sorted, of the operators of a quantised file that compute in float32."""
    litert = need("ai_edge_litert.interpreter")
    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # a delegate hides what it runs
    interpreter = litert.Interpreter(str(path), experimental_op_resolver_type=plain)
    kinds = {one["index"]: one["dtype"] for one in interpreter.get_tensor_details()}
    return sorted(
        {
            operator["op_name"]
            for operator in interpreter._get_ops_details()
            if operator["op_name"] not in ("QUANTIZE", "DEQUANTIZE")
            and any(kinds.get(index) == np.float32 for index in operator["inputs"])
        }
    )
