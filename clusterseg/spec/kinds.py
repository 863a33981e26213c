"""Questions to msgspec's descriptions of types, for the reader and the JSON Schema alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from msgspec import inspect as types

from clusterseg.spec.nodes import Listing, Node, Scalar
from clusterseg.spec.nodes import Mapping as MappingNode


@cache
def type_of(annotation: Any) -> Any:
    """msgspec's description of an annotated type."""
    return types.type_info(annotation)


def unwrap(kind: Any) -> tuple[Any, dict[str, Any]]:
    """A type without the Meta around it, and what Meta(extra=...) said."""
    extra: dict[str, Any] = {}
    while isinstance(kind, types.Metadata):
        extra |= kind.extra or {}
        kind = kind.type
    return kind, extra


def extra_of(kind: Any) -> Mapping[str, Any]:
    return unwrap(kind)[1]


def members(kind: Any) -> list[Any]:
    """The types of a union without null; of any other type, itself."""
    bare = unwrap(kind)[0]
    if not isinstance(bare, types.UnionType):
        return [kind]
    return [member for member in bare.types if not isinstance(member, types.NoneType)]


def takes_null(kind: Any) -> bool:
    bare = unwrap(kind)[0]
    return isinstance(bare, types.UnionType) and any(
        isinstance(member, types.NoneType) for member in bare.types
    )


def takes(kind: Any, node: Node, extra: Mapping[str, Any]) -> bool:
    """Whether `kind` (no union) is written as this sort of node at all."""
    bare, inner = unwrap(kind)
    if "scalar" in {**extra, **inner}:
        return isinstance(node, Scalar)
    if "also" in inner and isinstance(node, Scalar):
        return True
    if isinstance(bare, types.StructType | types.DictType):
        return isinstance(node, MappingNode)
    if isinstance(bare, types.TupleType | types.VarTupleType):
        return isinstance(node, Listing)
    return isinstance(node, Scalar)


def struct_in(kind: Any) -> Any:
    """The struct that is written as a section where `kind` stands, or None."""
    if "scalar" in extra_of(kind):
        return None
    bare = [unwrap(member)[0] for member in members(kind)]
    return next((member for member in bare if isinstance(member, types.StructType)), None)


def options_field(fields: Mapping[str, Any]) -> tuple[str, str]:
    """The field that gathers options and the table that defines them; empty if there is none."""
    for name, field in fields.items():
        table = extra_of(field.type).get("options")
        if table:
            return name, table
    return "", ""


def naming_field(fields: Mapping[str, Any]) -> str:
    """The field whose value is the name that decides which options there are."""
    return next(name for name, field in fields.items() if "table" in extra_of(field.type))


def sections_with(root: Any, name: str) -> Sequence[str]:
    """The dotted paths of the sections below the struct `root` that have a key called `name`."""
    found = []
    queue = [("", root)]
    for path, kind in queue:
        for field in kind.fields:
            if field.encode_name == name and "options" not in extra_of(field.type):
                found.append(path)
            below = struct_in(field.type)
            if below is not None:
                queue.append((f"{path}.{field.encode_name}".lstrip("."), below))
    return found
