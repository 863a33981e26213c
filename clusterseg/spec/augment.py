"""What must hold of a list of augmentations as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clusterseg.spec.errors import Problem
from clusterseg.spec.tables import AUGMENTATIONS


def problems_of(augment: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Of `train.augment`, whose entries are each right by themselves."""
    named = [(number, name) for number, entry in enumerate(augment) for name in entry]
    return [*_second_sizes(named), *_factors(augment)]


def _second_sizes(named: Sequence[tuple[int, str]]) -> list[Problem]:
    """Pictures are brought to the size once."""
    resizing = [(number, name) for number, name in named if AUGMENTATIONS[name].resizes]
    match [name for _, name in resizing]:
        case [first, second] if second in AUGMENTATIONS[first].before:
            return []
    return [
        Problem(
            "conflict",
            "a second augmentation that changes the size",
            note="only one can, or `resize_range` and then `scale_file`",
            help="remove one of them",
            key=f"train.augment.{number}.{name}",
        )
        for number, name in resizing[1:]
    ]


def _factors(augment: Sequence[Mapping[str, Any]]) -> list[Problem]:
    problems = []
    for number, entry in enumerate(augment):
        value = entry.get("resize_range")
        if isinstance(value, Mapping) and 1 < value["factor"] >= value["sides"][1]:
            problems.append(
                Problem(
                    "conflict",
                    f"no side of 1 + a multiple of {value['factor']} is within {value['sides'][1]}",
                    note="`factor` is smaller than the longest side",
                    help="give a smaller factor, or larger sides",
                    key=f"train.augment.{number}.resize_range.factor",
                )
            )
    return problems
