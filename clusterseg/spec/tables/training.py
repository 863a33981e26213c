"""Losses, optimizers and schedules."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated

from msgspec import Meta

from clusterseg.spec.fields import AboveZero, Positive, about
from clusterseg.spec.tables.known import Known, Table

_SMOOTHING = {
    "label_smoothing": Annotated[
        Annotated[float, Meta(ge=0, lt=1)],
        about("part of each label that is spread over all classes"),
    ]
}

LOSSES: Table = MappingProxyType(
    {
        "cross_entropy": Known(
            "cross entropy over the labelled pixels", ready=True, options=_SMOOTHING
        ),
        "ohem": Known(
            "cross entropy of the hardest pixels of each picture",
            ready=True,
            options={
                "top_k": Annotated[
                    Annotated[float, Meta(gt=0, le=1)],
                    about("fraction of the labelled pixels that count"),
                ],
                "mining_steps": Annotated[
                    Annotated[int, Meta(ge=0)],
                    about("optimizer steps over which the fraction goes from 1 to top_k"),
                ],
                **_SMOOTHING,
            },
        ),
        "focal": Known(
            "focal loss (Lin 2017)",
            ready=True,
            options={
                "gamma": Annotated[AboveZero, about("how much easy pixels are played down")],
                "alpha": Annotated[AboveZero, about("factor of the loss")],
            },
        ),
        "dice": Known(
            "soft Dice loss",
            ready=True,
            options={
                "smooth": Annotated[
                    Annotated[float, Meta(ge=0)], about("added above and below, in pixels")
                ]
            },
        ),
        "lovasz": Known("Lovász-softmax (Berman 2018)", ready=True),
    }
)

OPTIMIZERS: Table = MappingProxyType(
    {
        "sgd": Known("stochastic gradient descent with momentum", ready=True),
        "sgd_nesterov": Known("the same with Nesterov's momentum", ready=True),
        "adam": Known("Adam", ready=True),
        "adamw": Known("Adam with decoupled weight decay", ready=True),
        "adamax": Known("AdaMax", ready=True),
        "nadam": Known("Nadam", ready=True),
        "adadelta": Known("AdaDelta", ready=True),
        "adagrad": Known("AdaGrad", ready=True),
        "rmsprop": Known("RMSprop", ready=True),
        "ftrl": Known("FTRL", ready=True),
    }
)

_MIN_LEARNING_RATE = {
    "min_learning_rate": Annotated[
        Annotated[float, Meta(ge=0)],
        about("learning rate that the schedule never goes below, of one rank"),
    ]
}

SCHEDULES: Table = MappingProxyType(
    {
        "constant": Known("the same learning rate throughout", ready=True),
        "polynomial": Known(
            "down along (1 - progress) ** power", ready=True, options=_MIN_LEARNING_RATE
        ),
        "cosine": Known("down along half a cosine", ready=True, options=_MIN_LEARNING_RATE),
        "cyclic": Known(
            "triangles between the lowest and the highest learning rate",
            ready=True,
            options={
                "cycle_epochs": Annotated[AboveZero, about("length of a triangle in epochs")],
                **_MIN_LEARNING_RATE,
            },
        ),
        "step": Known(
            "multiplied by a factor every so many epochs",
            ready=True,
            options={
                "every_epochs": Annotated[Positive, about("epochs between two steps")],
                "factor": Annotated[Annotated[float, Meta(gt=0, lt=1)], about("the factor")],
            },
        ),
        "three_step_decay": Known(
            "divided by 10 at 1/3, at 2/3 and one epoch before the end", ready=True
        ),
    }
)
