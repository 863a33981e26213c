"""Types and nodes in words, for messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import inspect

from clusterseg.spec import units
from clusterseg.spec.hosts import HOSTS_FORM
from clusterseg.spec.nodes import Listing, Node, Scalar

NOUNS = {
    "models": "model",
    "losses": "loss",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "data_formats": "data format",
    "augmentations": "augmentation",
    "launchers": "launcher",
}

_SCALARS = {
    "time": units.TIME_FORMS,
    "size": units.SIZE_FORMS,
    "interval": units.INTERVAL_FORMS,
}
_ALSO = {"hosts": HOSTS_FORM}


def types(kinds: Sequence[Any], extra: Mapping[str, Any]) -> str:
    """What is expected where one of `kinds` may stand: `a whole number from 1 or `auto``."""
    return " or ".join(_one(kind, extra) for kind in kinds)


def shape(node: Node) -> str:
    """What a node is, as the subject of a message."""
    if isinstance(node, Scalar):
        return "a single value"
    if isinstance(node, Listing):
        return f"a list of {len(node.items)}" if node.items else "an empty list"
    return "a mapping" if node.entries else "an empty mapping"


def refused_key(name: str, kind: Any) -> str:
    """Why `name` can't be a key of a mapping whose keys are of `kind`; empty if it can."""
    extra: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata):
        extra |= kind.extra or {}
        kind = kind.type
    if kind.pattern is None or re.fullmatch(kind.pattern, name):
        return ""
    return f"expected {extra['expect']}"


def _one(kind: Any, extra: Mapping[str, Any]) -> str:  # noqa: PLR0911  # a line a type
    while isinstance(kind, inspect.Metadata):
        extra = {**extra, **(kind.extra or {})}
        kind = kind.type
    if "scalar" in extra:
        return _SCALARS[extra["scalar"]]
    if isinstance(kind, inspect.UnionType):
        return types([k for k in kind.types if not isinstance(k, inspect.NoneType)], extra)
    if isinstance(kind, inspect.LiteralType):
        return _alternatives([f"`{value}`" for value in kind.values])
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.IntType):
        return f"a whole number{_bounds(kind)}"
    if isinstance(kind, inspect.FloatType):
        return f"a number{_bounds(kind)}"
    if isinstance(kind, inspect.TupleType):
        return f"a list of {len(kind.item_types)}, each {_one(kind.item_types[0], {})}"
    if isinstance(kind, inspect.VarTupleType):
        return f"a list, each item {_one(kind.item_type, {})}"
    if isinstance(kind, inspect.DictType):
        mapping = f"a mapping of names, each to {_one(kind.value_type, {})}"
        return f"{mapping}, or {_ALSO[extra['also']]}" if "also" in extra else mapping
    if isinstance(kind, inspect.StructType):
        return "a section of keys"
    return str(extra.get("expect", "text"))


def _bounds(kind: Any) -> str:
    low = f"from {kind.ge:g}" if kind.ge is not None else ""
    low = f"above {kind.gt:g}" if kind.gt is not None else low
    high = f"to {kind.le:g}" if kind.le is not None else ""
    high = f"below {kind.lt:g}" if kind.lt is not None else high
    words = " ".join(word for word in (low, high) if word)
    return f" {words}" if words else ""


def _alternatives(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
