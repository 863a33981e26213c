"""Records as another program may have written them, read for reporting.

Our own writers never need this; it is what `collect` falls back to when the strict reading
fails: NaN (which Python's json writes and JSON forbids), null or nothing where a field has a
default, 3.0 for 3, "7" for 7 and the other way round, host names without their slots.
Nothing decides by such a record: claims that a lease rests on are read strictly.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_origin

import msgspec

Record = TypeVar("Record", bound=msgspec.Struct)


def decode(
    data: bytes, kinds: Mapping[str, type[Record]] | type[Record], needed: frozenset[str]
) -> Record:
    """One record. `kinds` is its type, or the types by the value of its field `kind`.

    A field that can't be read gets its default; one without a default gets a neutral value of
    its type, unless it is among `needed`. Raises msgspec.DecodeError.
    """
    try:
        value = json.loads(data, parse_constant=lambda name: None)
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
    if not isinstance(value, dict):
        raise msgspec.DecodeError("not an object")
    if isinstance(kinds, Mapping):
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            raise msgspec.DecodeError("not of a known kind")
        return _build(value, kinds[kind], needed)
    return _build(value, kinds, needed)


def _build(value: dict[str, Any], kind: type[Record], needed: frozenset[str]) -> Record:
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        given = value.get(field.name)
        try:
            fields[field.name] = _converted(given, field.type)
        except (msgspec.ValidationError, OverflowError):
            if not field.required:
                continue
            if field.name in needed:
                raise msgspec.DecodeError(f"no readable `{field.name}`") from None
            fields[field.name] = _neutral(field.type)
    return kind(**fields)


def _converted(given: Any, kind: Any) -> Any:
    if kind is str and isinstance(given, int | float) and not isinstance(given, bool):
        return str(given)
    if get_origin(kind) is dict and isinstance(given, list):
        given = {name: given.count(name) for name in given if isinstance(name, str)}
    return msgspec.convert(given, kind, strict=False)


def _neutral(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind("unknown")
    return (get_origin(kind) or kind)()
