"""The JSON Schema of job.yaml, for editors: made from the structs and tables, so it can't differ.

It stays in the part of draft 7 that the YAML servers of editors read. It describes the file as
YAML 1.2 reads it, before `${VAR}` is filled in: a key that is no text also takes a string with a
variable in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import inspect as types

from clusterseg.errors import ClustersegError
from clusterseg.spec.errors import clip, nearest
from clusterseg.spec.kinds import (
    extra_of,
    members,
    naming_field,
    options_field,
    takes_null,
    type_of,
    unwrap,
)
from clusterseg.spec.model import Every, JobSpec
from clusterseg.spec.tables import TABLES, Known, Table
from clusterseg.spec.units import format_interval

_DRAFT = "http://json-schema.org/draft-07/schema#"
_VARIABLE = r"\$\{"
_SCALARS: Mapping[str, dict[str, Any]] = {
    "time": {
        "type": ["integer", "string"],
        "minimum": 1,
        "pattern": rf"^([0-9]+-[0-9]+(:[0-9]+){{0,2}}|[0-9]+(:[0-9]+){{0,2}})$|{_VARIABLE}",
    },
    "size": {
        "type": ["integer", "string"],
        "minimum": 1,
        "pattern": rf"^[0-9]+[KMGTkmgt]?$|{_VARIABLE}",
    },
    "interval": {
        "type": "string",
        "pattern": r"^(auto|[0-9]+ *steps?|(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?)$"
        rf"|{_VARIABLE}",
    },
    "hosts": {
        "type": "string",
        "pattern": rf"^[A-Za-z0-9._\[\]:, -]+$|{_VARIABLE}",
    },
}


def schema(section: str = "") -> dict[str, Any]:
    """The schema of job.yaml, or of the key `section` (dotted, such as `train.optimizer`).

    Raises ClustersegError for a key that does not exist.
    """
    whole = _struct(type_of(JobSpec))
    whole["title"] = "clusterseg job.yaml"
    whole["oneOf"] = [{"required": ["train"]}, {"required": ["command"]}]
    found = whole
    for depth, name in enumerate(section.split(".") if section else ()):
        known = found.get("properties", {})
        if name not in known:
            raise _unknown(section, depth, list(known))
        found = known[name]
    return {"$schema": _DRAFT, **found}


def _unknown(section: str, depth: int, known: Sequence[str]) -> ClustersegError:
    names = section.split(".")
    where = f"`{clip('.'.join(names[:depth]))}`" if depth else "a job.yaml"
    near = nearest(names[depth], known)
    listed = f"known: {', '.join(known)}" if known else "it has no keys of its own"
    return ClustersegError(
        f"{where} has no key `{clip(names[depth])}`",
        code="unknown-key",
        help=f"did you mean `{near}`?" if near else listed,
    )


def _struct(kind: Any) -> dict[str, Any]:
    fields = {field.encode_name: field for field in kind.fields}
    gathering, named = options_field(fields)
    properties = {name: _field(field) for name, field in fields.items() if name != gathering}
    found: dict[str, Any] = {
        "type": "object",
        "description": (kind.cls.__doc__ or "").split("\n\n")[0].replace("\n    ", " "),
        "properties": properties,
        "additionalProperties": False,
    }
    # What an environment variable may stand for is required by the other names only.
    replaced = {key for known in TABLES.get(named or "", {}).values() for key in known.variables}
    required = [name for name, field in fields.items() if field.required and name not in replaced]
    if required:
        found["required"] = required
    if gathering:
        naming = naming_field(fields)
        options = {key for known in TABLES[named].values() for key in known.options}
        for key in sorted(options):
            properties[key] = {"description": _owners(key, TABLES[named])}
        if options:
            found["allOf"] = [
                _options_of(
                    name,
                    known,
                    naming,
                    default=fields[naming].default,
                    options=options,
                    replaced=replaced,
                )
                for name, known in TABLES[named].items()
            ]
    return found


def _owners(key: str, table: Table) -> str:
    """An option's description, and the names that have it."""
    owners = {name: known.options[key] for name, known in table.items() if key in known.options}
    texts = dict.fromkeys(_description(type_of(kind)) for kind in owners.values())
    return f"{'; '.join(texts)} ({', '.join(owners)})"


def _options_of(
    name: str, known: Known, naming: str, *, default: Any, options: set[str], replaced: set[str]
) -> dict[str, Any]:
    """What the options may be where the section's name is `name`, and what is required then."""
    condition: dict[str, Any] = {"properties": {naming: {"const": name}}}
    if default != name:  # without the key, the default is meant
        condition["required"] = [naming]
    allowed: dict[str, Any] = {key: _type(type_of(kind)) for key, kind in known.options.items()}
    then: dict[str, Any] = {"properties": {**dict.fromkeys(sorted(options), False), **allowed}}
    if replaced - set(known.variables):
        then["required"] = sorted(replaced - set(known.variables))
    return {"if": condition, "then": then}


def _field(field: Any) -> dict[str, Any]:
    found = _type(field.type)
    # A section or list of which only the key is written is as good as none.
    if found.get("type") in ("object", "array") and not field.required:
        found = _or_null(found)
    default = field.default
    if isinstance(default, Every):
        default = format_interval(default)
    if isinstance(default, str | int | float) and default != "":
        found["default"] = default
    return found


def _type(kind: Any) -> dict[str, Any]:
    """The schema of one value, with the type's description."""
    extra = extra_of(kind)
    alternatives = [found for member in members(kind) for found in _alternatives(member, extra)]
    if takes_null(kind):
        if len(alternatives) == 1:
            alternatives = [_or_null(alternatives[0])]
        else:
            alternatives.append({"type": "null"})
    found = alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}
    description = _description(kind)
    return {**found, "description": description} if description else found


def _or_null(found: dict[str, Any]) -> dict[str, Any]:
    written = found["type"]
    return {**found, "type": [*(written if isinstance(written, list) else [written]), "null"]}


def _alternatives(kind: Any, around: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The ways in which a value of a type that is no union may be written."""
    bare, inner = unwrap(kind)
    extra = {**around, **inner}
    if "scalar" in extra:
        return [_SCALARS[extra["scalar"]]]
    if "table" in extra:
        return _names(extra["table"], bare)
    if "entry" in extra:
        return [_entry(TABLES[extra["entry"]])]
    if "also" in extra:
        return [_mapping(bare), _SCALARS[extra["also"]]]
    if isinstance(bare, types.LiteralType):
        return [{"enum": list(bare.values)}, {"type": "string", "pattern": _VARIABLE}]
    collections: dict[Any, Callable[[Any], dict[str, Any]]] = {
        types.StructType: _struct,
        types.DictType: _mapping,
        types.TupleType: _list,
        types.VarTupleType: _list,
    }
    return [collections.get(type(bare), _scalar)(bare)]


def _scalar(kind: Any) -> dict[str, Any]:
    if isinstance(kind, types.StrType):
        # Text that YAML takes for a number or a truth value is text here.
        text: dict[str, Any] = {"type": ["string", "number", "boolean"]}
        if kind.pattern is None:
            return text
        takes_variable = re.fullmatch(kind.pattern, "${NAME}")
        return {**text, "pattern": kind.pattern + ("" if takes_variable else f"|{_VARIABLE}")}
    if isinstance(kind, types.BoolType):
        return {"type": ["boolean", "string"], "pattern": _VARIABLE}
    bounds = {
        "minimum": kind.ge,
        "exclusiveMinimum": kind.gt,
        "maximum": kind.le,
        "exclusiveMaximum": kind.lt,
    }
    return {
        "type": ["integer" if isinstance(kind, types.IntType) else "number", "string"],
        **{name: bound for name, bound in bounds.items() if bound is not None},
        "pattern": _VARIABLE,
    }


def _names(table: str, kind: Any) -> list[dict[str, Any]]:
    """The names of a table, each with its summary; a pattern allows for a user's own ones."""
    found: list[dict[str, Any]] = [
        {"const": name, "description": known.summary} for name, known in TABLES[table].items()
    ]
    own = kind.pattern or _VARIABLE
    return [*found, {"type": "string", "pattern": own}]


def _entry(table: Table) -> dict[str, Any]:
    properties = {}
    for name, known in table.items():
        options = {key: _type(type_of(kind)) for key, kind in known.options.items()}
        value = (
            _type(type_of(known.value))
            if known.value is not None
            else {"type": "object", "properties": options, "additionalProperties": False}
        )
        about = value.pop("description", "")
        text = f"{known.summary}: {about}" if about else known.summary
        properties[name] = {"description": text, **value}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }


def _mapping(kind: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "additionalProperties": _type(kind.value_type)}
    key = unwrap(kind.key_type)[0]
    if key.pattern is not None:
        found["propertyNames"] = {"pattern": key.pattern}
    if kind.min_length:
        found["minProperties"] = kind.min_length
    return found


def _list(kind: Any) -> dict[str, Any]:
    if isinstance(kind, types.TupleType):
        size = len(kind.item_types)
        items = _type(kind.item_types[0])  # pairs and the like: all of one type
        return {"type": "array", "items": items, "minItems": size, "maxItems": size}
    least = {"minItems": kind.min_length} if kind.min_length else {}
    return {"type": "array", "items": _type(kind.item_type), **least}


def _description(kind: Any) -> str:
    """What Meta(description=...) around a type says; empty if it says nothing."""
    while isinstance(kind, types.Metadata):
        text = (kind.extra_json_schema or {}).get("description")
        if text:
            return str(text)
        kind = kind.type
    return ""
