"""Jobs that together hold every piece of state, and a network small enough to train them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import keras
from keras import layers

from clusterseg.models.layers import Dropout, Upsample, conv_bn_relu, depthwise_bn_relu
from clusterseg.train import assembly, precision
from tests.train.runs import job

EPOCHS, STEPS = 3, 6  # 36 pictures, 6 a step
WARMUP = 3  # steps
BAD = frozenset({2, 9})  # the steps whose pictures are NaN, where some are

# What a job can have on.
SWITCHES = (
    "warmup", "ema", "accumulate", "clip", "decay", "bias", "frozen", "dropout", "augment", "nan",
)  # fmt: skip


class Setting(NamedTuple):
    """One job: its optimizer, schedule, precision, and the switches that are on."""

    optimizer: str
    schedule: str
    precision: str
    on: str

    def __str__(self) -> str:
        return "-".join([self.optimizer, self.schedule, self.precision, *self.on.split()])


# Every two of the switches, and a switch and a precision, in all their combinations: after
# Plackett and Burman 1946, the design for twelve runs. test_exact holds that.
SETTINGS = (
    Setting("sgd", "polynomial", "float16", "warmup ema clip decay bias nan"),
    Setting("adam", "cosine", "bfloat16", "warmup accumulate clip decay augment"),
    Setting("nadam", "cyclic", "float16", "ema accumulate clip dropout nan"),
    Setting("adamw", "step", "float32", "warmup ema accumulate frozen augment nan"),
    Setting("sgd_nesterov", "three_step_decay", "bfloat16", "warmup ema bias dropout augment"),
    Setting("adamax", "constant", "bfloat16", "warmup decay frozen dropout nan"),
    Setting("adadelta", "polynomial", "bfloat16", "clip bias frozen augment nan"),
    Setting("adagrad", "cosine", "float16", "accumulate decay bias dropout augment nan"),
    Setting("rmsprop", "cyclic", "float32", "ema clip decay frozen dropout augment"),
    Setting("ftrl", "step", "float32", "warmup accumulate clip bias frozen dropout"),
    Setting("adam", "three_step_decay", "float16", "ema accumulate decay bias frozen"),
    Setting("sgd", "constant", "float32", ""),
)

_RATES = {"adadelta": 0.5, "adagrad": 0.05, "ftrl": 0.05, "sgd": 0.05, "sgd_nesterov": 0.05}
_SCHEDULES: dict[str, dict[str, float]] = {
    "polynomial": {"min_learning_rate": 0.001},
    "cosine": {"min_learning_rate": 0.001},
    "cyclic": {"cycle_epochs": 1.5},
    "step": {"every_epochs": 1, "factor": 0.5},
}


def job_of(setting: Setting, data: Path, **train: Any) -> dict[str, Any]:
    """The job as plain values; its network is to be `small_network`."""
    on = setting.on.split()
    optimizer: dict[str, Any] = {
        "name": setting.optimizer,
        "learning_rate": _RATES.get(setting.optimizer, 0.005),
        "clip_norm": 1.0 if "clip" in on else None,
        "weight_decay": 1e-3 if "decay" in on else 0.0,
        "bias_multiplier": 2.0 if "bias" in on else 1.0,
    }
    schedule = {
        "name": setting.schedule,
        "warmup_epochs": WARMUP / STEPS if "warmup" in on else 0,
        "options": _SCHEDULES.get(setting.schedule, {}),
    }
    augment = [{"flip_horizontal": 0.5}, {"scale": [0.8, 1.25]}, {"brightness": 0.1}]
    spec = job(
        data,
        **{
            "model": {"name": "fastscnn", "options": {"dropout": 0.3 * ("dropout" in on)}},
            "augment": augment if "augment" in on else [],
            "optimizer": optimizer,
            "schedule": schedule,
            "precision": setting.precision,
            "ema": 0.8 if "ema" in on else None,
            "epochs": EPOCHS,
            "batch_size": 3 if "accumulate" in on else 6,
            "accumulate": 2 if "accumulate" in on else 1,
            "freeze_batch_norm": "frozen" in on,
            "on_nan": "skip" if "nan" in on else "stop",
            **train,
        },
    )
    spec["train"]["data"]["size"] = [16, 24]
    spec["checkpoint"] = {"every": {"steps": 4}, "keep_last": 100}
    return spec


def small_network(
    name: str, classes: int, size: tuple[int, int], *, dropout: float = 0.0
) -> keras.Model:
    """In place of the network `name`: each kind of layer once or twice, traced in a second."""
    image = keras.Input((*size, 3))
    x = conv_bn_relu(image, 4, 3, stride=2, name="one")
    x = depthwise_bn_relu(x, name="two")
    x = Dropout(dropout, name="drop")(x)  # at a rate of 0 it draws as well, and masks nothing
    x = layers.Conv2D(classes, 1, name="three")(x)
    return keras.Model(image, Upsample(size, dtype="float32", name="up")(x))


@contextmanager
def small_networks() -> Iterator[None]:
    """Jobs that are assembled inside have the small network, and a scale of the loss that is too
    high at first, and soon doubled: it goes down and up."""
    with (
        mock.patch.object(assembly, "build_model", small_network),
        mock.patch.object(precision, "FIRST", 2.0**20),
        mock.patch.object(precision, "STEPS_TO_DOUBLE", 3),
    ):
        yield


def is_statistic(name: str) -> bool:
    return name.endswith(("moving_mean", "moving_variance", "gamma", "beta"))
