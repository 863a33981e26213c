"""Optimizers by name, as Keras has them; their learning rate is set before every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from clusterseg.spec.model import OptimizerSpec

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")


def build_optimizer(spec: OptimizerSpec, variables: Sequence[Any]) -> keras.optimizers.Optimizer:
    """The optimizer for the trainable `variables`, with its slots made.

    Only SGD has `momentum`; the other constants are Keras' (3.15), which are the papers' but for
    epsilon: Adam, AdaMax, Nadam beta 0.9 and 0.999 (Kingma and Ba 2015, arXiv:1412.6980; Dozat
    2016), Adadelta rho 0.95 (Zeiler 2012, arXiv:1212.5701), RMSprop rho 0.9, Adagrad and FTRL
    (power -0.5) accumulators from 0.1, epsilon 1e-7. `adamw` is Adam: the decay is the update's
    (`clusterseg.train.update`), as are clipping and L2. `bias_multiplier` is a learning rate of
    their own for the biases; to multiply their gradient would mean nothing to Adam.
    """
    kind, options = _kind(spec)
    if spec.bias_multiplier != 1:
        biases = {id(one.value) for one in variables if _last_part(one) == "bias"}
        kind = _with_rate_of_their_own(kind, biases, spec.bias_multiplier)
    optimizer = kind(spec.learning_rate, **options)
    optimizer.build(variables)
    return optimizer


def is_kernel(variable: Any) -> bool:
    """Whether a variable is the kernel of a layer: what weight decay is for."""
    return _last_part(variable) in _KERNELS


def _kind(spec: OptimizerSpec) -> tuple[Any, dict[str, Any]]:
    """Keras' class, and what it is to be told beside the learning rate."""
    keras_has = keras.optimizers
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "sgd": (keras_has.SGD, {"momentum": spec.momentum}),
        "sgd_nesterov": (keras_has.SGD, {"momentum": spec.momentum, "nesterov": True}),
        "adam": (keras_has.Adam, {}),
        "adamw": (keras_has.Adam, {}),
        "adamax": (keras_has.Adamax, {}),
        "nadam": (keras_has.Nadam, {}),
        "adadelta": (keras_has.Adadelta, {}),
        "adagrad": (keras_has.Adagrad, {}),
        "rmsprop": (keras_has.RMSprop, {}),
        "ftrl": (keras_has.Ftrl, {}),
    }
    if spec.name not in kinds:
        raise ValueError(f"unknown optimizer {spec.name!r}")
    return kinds[spec.name]


def _with_rate_of_their_own(kind: Any, variables: set[int], factor: float) -> Any:
    """The class with the learning rate of some variables (by id) multiplied by `factor`."""

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        own = learning_rate * factor if id(variable) in variables else learning_rate
        kind.update_step(self, gradient, variable, own)

    return type(kind.__name__, (kind,), {"update_step": update_step})


def _last_part(variable: Any) -> str:
    return str(variable.path).rpartition("/")[2]


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
