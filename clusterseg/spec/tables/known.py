"""What a table holds of a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Known:
    """One name. `options`: key -> annotated type.

    `value` is the type of an augmentation's setting; None: a mapping of its options. `resizes`:
    it gives pictures another size, as only one augmentation of a list may; `before`: those that
    may follow it nonetheless, and do that in its stead. `divides_size`: what a model needs height
    and width to be divisible by. `variables`: required key of the section -> the environment
    variable that stands for it where it is left out.
    """

    summary: str
    ready: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    value: Any = None
    resizes: bool = False
    before: frozenset[str] = frozenset()
    divides_size: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)


Table = Mapping[str, Known]
