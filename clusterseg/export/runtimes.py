"""What runs an exported file: onnxruntime, LiteRT, TensorFlow, Keras. Each is loaded when used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterseg.errors import ClustersegError, ExitCode

Run = Callable[[NDArray[Any]], NDArray[Any]]
"""From pictures as the file takes them, [n, height, width, 3], to its output."""


def need(name: str) -> Any:
    """The module `name` of the extra `export`; raises ClustersegError if it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ClustersegError(
            f"this export needs {name.partition('.')[0]}, which can't be loaded: {error}",
            code="no-export-extra",
            help="install the extra: pip install 'clusterseg[export]'",
            exit_code=ExitCode.FAILED,
        ) from error


def open_file(path: Path, *, threads: int) -> Run:
    """Runs the file `path` (.onnx, .tflite, .keras, or the folder of a SavedModel) on the CPU.

    Of TensorFlow's threads those of the process are used; `threads` hold for the other two.
    """
    if path.name.endswith(".qonnx.onnx"):
        return _channels_first(_onnx(path, threads))
    if path.suffix == ".onnx":
        return _onnx(path, threads)
    if path.suffix == ".tflite":
        return _tflite(path, threads)
    return _keras(path) if path.suffix == ".keras" else _saved_model(path)


def _onnx(path: Path, threads: int) -> Run:
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(pictures: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(session.run(None, {name: np.ascontiguousarray(pictures)})[0])

    return run


def _channels_first(run: Run) -> Run:
    """What takes and gives [n, channels, height, width], for [n, height, width, channels]."""
    return lambda pictures: run(pictures.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


def _tflite(path: Path, threads: int) -> Run:
    interpreter = need("ai_edge_litert.interpreter").Interpreter(
        model_path=str(path), num_threads=threads
    )
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(pictures: NDArray[Any]) -> NDArray[Any]:
        interpreter.set_tensor(taken["index"], quantised(pictures, taken))
        interpreter.invoke()
        return dequantised(interpreter.get_tensor(given["index"]), given)

    return run


def quantised(pictures: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
    """Normalised pictures as the integers that an int8 input takes; others as they are."""
    scale, zero = detail["quantization"]
    if detail["dtype"] != np.int8:
        return pictures
    steps = np.rint(pictures / np.float32(scale)) + zero
    return np.asarray(np.clip(steps, -128, 127), np.int8)


def dequantised(values: NDArray[Any], detail: dict[str, Any]) -> NDArray[Any]:
    """An int8 output as float32 logits; others as they are."""
    scale, zero = detail["quantization"]
    if detail["dtype"] != np.int8:
        return values
    return np.asarray((values.astype(np.float32) - zero) * np.float32(scale))


def _saved_model(path: Path) -> Run:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    infer = loaded.signatures["serving_default"]

    def run(pictures: NDArray[Any]) -> NDArray[Any]:
        (found,) = infer(tf.constant(pictures)).values()
        return np.asarray(found)

    run.keep = loaded  # type: ignore[attr-defined]  # the function holds its variables weakly
    return run


def _keras(path: Path) -> Run:
    import tensorflow as tf

    from clusterseg.models.saved import load_saved

    model = load_saved(path)
    infer = tf.function(lambda pictures: model(pictures, training=False), reduce_retracing=True)

    def run(pictures: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(infer(tf.constant(pictures)))

    return run
