"""Optimizers by name, as Keras has them; their learning rate is set before every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from clusterseg.spec.model import OptimizerSpec


def build_optimizer(spec: OptimizerSpec, variables: Sequence[Any]) -> keras.optimizers.Optimizer:
    """The optimizer for the trainable `variables`, with its slots made.

    `momentum` is that of SGD. Adam has the constants of its paper (Kingma and Ba 2015,
    arXiv:1412.6980, algorithm 1) but Keras' epsilon of 1e-7.
    """
    rate = spec.learning_rate
    if spec.name == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=spec.momentum)
    elif spec.name == "adam":
        optimizer = keras.optimizers.Adam(rate)
    else:
        raise ValueError(f"unknown optimizer {spec.name!r}")
    optimizer.build(variables)
    return optimizer


def slots(optimizer: keras.optimizers.Optimizer, count: int) -> dict[str, list[Any]]:
    """The optimizer's variables by slot (`momentums`, …), one for each of `count` variables.

    Keras names slot variables after the model's layers with a process-wide counter in front;
    the lists that hold them have stable names and the order of the trainable variables.
    """
    own = {id(variable) for variable in optimizer.variables}
    found: dict[str, list[Any]] = {}
    for attribute, value in vars(optimizer).items():
        if isinstance(value, list) and len(value) == count:
            held = [id(variable) for variable in value]
            if held and set(held) <= own and value is not optimizer._variables:
                found[attribute.lstrip("_")] = list(value)
    return found


# Keras' attribute -> the name in the file, where that is another one.
_RENAMED = {"iterations": "iteration"}


def singles(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """The optimizer's variables that belong to no trainable one: `iteration`, `learning_rate`, …

    By the attribute that holds them, since Keras names some by a process-wide counter: Nadam's
    `_u_product` is `variable`, `variable_1`, …
    """
    own = {id(variable) for variable in optimizer.variables}
    found = {
        attribute.lstrip("_"): held
        for attribute, held in vars(optimizer).items()
        if id(held) in own
    }
    return {_RENAMED.get(name, name): variable for name, variable in found.items()}
