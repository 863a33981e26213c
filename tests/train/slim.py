"""TF-slim's ResNet v1 by its definition: names and shapes of a checkpoint, and the forward pass.

From slim's `resnet_v1.py`, `resnet_utils.py` and research/deeplab's `resnet_v1_beta.py`, in plain
TensorFlow operations: nothing of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

SCOPE = "resnet_v1_101"
Tensors = dict[str, np.ndarray[Any, Any]]
_STRIDES = (2, 2, 2, 1)


def checkpoint(units: Sequence[int], *, beta: bool, seed: int = 0) -> Tensors:
    """Random tensors under the names of a checkpoint that was trained with momentum."""
    draw = np.random.default_rng(seed)
    tensors: Tensors = {}

    def layer(name: str, kernel: int, into: int, out: int) -> None:
        deviation = (2 / (kernel * kernel * into)) ** 0.5
        shape = (kernel, kernel, into, out)
        tensors[f"{SCOPE}/{name}/weights"] = draw.normal(0, deviation, shape).astype(np.float32)
        norm = f"{SCOPE}/{name}/BatchNorm"
        tensors[f"{norm}/gamma"] = draw.uniform(0.5, 1.0, out).astype(np.float32)
        tensors[f"{norm}/beta"] = draw.normal(0, 0.3, out).astype(np.float32)
        tensors[f"{norm}/moving_mean"] = draw.normal(0, 0.3, out).astype(np.float32)
        tensors[f"{norm}/moving_variance"] = draw.uniform(0.5, 1.5, out).astype(np.float32)

    if beta:
        layer("conv1_1", 3, 3, 64)
        layer("conv1_2", 3, 64, 64)
        layer("conv1_3", 3, 64, 128)
    else:
        layer("conv1", 7, 3, 64)
    into = 128 if beta else 64
    for block, count in enumerate(units, start=1):
        base = 32 << block
        for unit in range(1, count + 1):
            name = f"block{block}/unit_{unit}/bottleneck_v1"
            if into != 4 * base:
                layer(f"{name}/shortcut", 1, into, 4 * base)
            layer(f"{name}/conv1", 1, into, base)
            layer(f"{name}/conv2", 3, base, base)
            layer(f"{name}/conv3", 1, base, 4 * base)
            into = 4 * base
    some = f"{SCOPE}/block1/unit_1/bottleneck_v1/conv1/weights"
    tensors[f"{some}/Momentum"] = np.zeros_like(tensors[some])
    tensors[f"{SCOPE}/logits/weights"] = np.zeros((1, 1, 2048, 10), np.float32)
    tensors["global_step"] = np.array(30_000, np.int64)
    return tensors


def write(tensors: Tensors, path: Path, *, version: int) -> None:
    """As `tf.train.Saver` of version 1 (one file) or 2 (index and data) writes it."""
    names = sorted(tensors)
    values = [tf.constant(tensors[name]) for name in names]
    if version == 1:
        tf.raw_ops.Save(filename=str(path), tensor_names=names, data=values)
    else:
        tf.raw_ops.SaveV2(
            prefix=str(path),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=values,
        )


def features(tensors: Tensors, image: tf.Tensor, units: Sequence[int], *, beta: bool) -> tf.Tensor:
    """The end of the last block, at slim's own stride of 32."""

    def conv(x: tf.Tensor, name: str, stride: int = 1, *, relu: bool = True) -> tf.Tensor:
        kernel = tensors[f"{SCOPE}/{name}/weights"]
        size = kernel.shape[0]
        if stride > 1 and size > 1:  # conv2d_same
            before = (size - 1) // 2
            around = [before, size - 1 - before]
            x = tf.nn.conv2d(tf.pad(x, [[0, 0], around, around, [0, 0]]), kernel, stride, "VALID")
        else:
            x = tf.nn.conv2d(x, kernel, stride, "SAME")
        norm = f"{SCOPE}/{name}/BatchNorm"
        x = tf.nn.batch_normalization(
            x,
            tensors[f"{norm}/moving_mean"],
            tensors[f"{norm}/moving_variance"],
            tensors[f"{norm}/beta"],
            tensors[f"{norm}/gamma"],
            1e-5,
        )
        return tf.nn.relu(x) if relu else x

    if beta:
        x = conv(conv(conv(image, "conv1_1", 2), "conv1_2"), "conv1_3")
    else:
        x = conv(image, "conv1", 2)
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    for block, count in enumerate(units, start=1):
        for unit in range(1, count + 1):
            stride = _STRIDES[block - 1] if unit == count else 1
            name = f"block{block}/unit_{unit}/bottleneck_v1"
            if f"{SCOPE}/{name}/shortcut/weights" in tensors:
                beside = conv(x, f"{name}/shortcut", stride, relu=False)
            else:
                beside = x[:, ::stride, ::stride]
            x = conv(conv(x, f"{name}/conv1"), f"{name}/conv2", stride)
            x = tf.nn.relu(beside + conv(x, f"{name}/conv3", relu=False))
    return x
