"""A tree of nodes to a struct: every scalar is read by the type of its key, and all that is
wrong is collected.

The types are those of `clusterseg.spec.model`, looked at through `msgspec.inspect`, and the
tables' options. YAML's own guesses (`no` is false, `12:00` is 720) are never asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from msgspec import inspect as types
from msgspec.structs import asdict

from clusterseg.spec import describe, nodes
from clusterseg.spec.errors import Place, Problem, clip, nearest
from clusterseg.spec.expand import Expander
from clusterseg.spec.findings import At, Findings, Path
from clusterseg.spec.kinds import (
    members,
    naming_field,
    options_field,
    takes,
    takes_null,
    type_of,
    unwrap,
)
from clusterseg.spec.nodes import Listing, Node, Scalar
from clusterseg.spec.scalars import Refused, read_scalar
from clusterseg.spec.tables import TABLES, Known


class _Bad:
    """What stands for a value that could not be read; its problems are in the list."""


class _Absent:
    """What stands for a section, list or mapping of which only the key was written."""


BAD: Final = _Bad()
ABSENT: Final = _Absent()


class Converter:
    """Reads nodes by types.

    `extra_names`: table -> names that stand in no table, such as launchers of the user. `problems`
    grows; `places` holds where the value of each key path stands.
    """

    def __init__(self, expander: Expander, extra_names: Mapping[str, Sequence[str]]) -> None:
        self._found = Findings()
        self.places: dict[Path, Place] = {}
        self._expander = expander
        self._extra_names = extra_names

    @property
    def problems(self) -> list[Problem]:
        return self._found.problems

    def convert(self, node: Node, kind: Any, path: Path = (), key: Place | None = None) -> Any:
        """The value of `node`, or BAD (with the reasons in `problems`), or ABSENT."""
        self._found.root = kind
        return self._convert(node, kind, At(path, key))

    def _convert(self, node: Node, kind: Any, at: At) -> Any:
        self.places[at.path] = node.place if isinstance(node, Scalar) else at.key or node.place
        if isinstance(node, Scalar):
            expanded = self._expander.expand(node)
            if isinstance(expanded, list):
                for problem in expanded:
                    self._found.add(problem)
                return BAD
            node = expanded
        return self._typed(node, kind, at, {})

    def _typed(self, node: Node, kind: Any, at: At, around: Mapping[str, Any]) -> Any:
        """`node` by `kind`; `around` is what Meta(extra=...) of the types around it said."""
        kind, inner = unwrap(kind)
        extra = {**around, **inner}
        if isinstance(kind, types.UnionType):
            return self._union(node, kind, at, extra)
        if "entry" in extra:
            return self._entry(node, TABLES[extra["entry"]], at)
        is_text = "also" in extra and isinstance(node, Scalar) and not node.is_null
        if "scalar" not in extra and not is_text:
            if isinstance(kind, types.StructType):
                return self._struct(node, kind, at)
            if isinstance(kind, types.VarTupleType | types.TupleType):
                return self._tuple(node, kind, at, extra)
            if isinstance(kind, types.DictType):
                return self._dict(node, kind, at, extra)
        return self._scalar(node, (kind,), at, extra)

    # scalars

    def _scalar(self, node: Node, kinds: Sequence[Any], at: At, extra: Mapping[str, Any]) -> Any:
        expected = describe.types(kinds, extra)
        if not isinstance(node, Scalar):
            return self._wrong_shape(node, at, expected)
        notes = []
        for kind in kinds:
            try:
                value = read_scalar(node, kind, extra)
            except Refused as refused:
                notes.append(str(refused))
            else:
                return self._name(value, node, at, extra) if "table" in extra else value
        note = notes[0] if len(notes) == 1 else f"expected {expected}"
        written = f"`{clip(node.text)}`" if node.text else "nothing"
        self._found.add(
            Problem("value", f"{written} for `{at}`", node.place, note=note, help=at.help)
        )
        return BAD

    def _name(self, value: str, node: Scalar, at: At, extra: Mapping[str, Any]) -> Any:
        """Checks that a name stands in its table."""
        table = extra["table"]
        known = [*TABLES[table], *self._extra_names.get(table, ())]
        if value in known:
            return value
        self._found.unknown_name(value, node.place, describe.NOUNS[table], f" in `{at}`", known)
        return BAD

    def _union(self, node: Node, kind: Any, at: At, extra: Mapping[str, Any]) -> Any:
        if takes_null(kind) and isinstance(node, Scalar) and node.is_null:
            return None
        fitting = [member for member in members(kind) if takes(member, node, extra)]
        if len(fitting) == 1:
            return self._typed(node, fitting[0], at, extra)
        if isinstance(node, Scalar) and fitting:
            bare = [unwrap(member) for member in fitting]
            for _, inner in bare:
                extra = {**extra, **inner}
            return self._scalar(node, [kind for kind, _ in bare], at, extra)
        return self._wrong_shape(node, at, describe.types(members(kind), extra))

    def _wrong_shape(self, node: Node, at: At, expected: str) -> _Bad:
        self._found.wrong_shape(node, at, expected)
        return BAD

    # collections

    def _struct(self, node: Node, kind: Any, at: At) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            return ABSENT
        if not isinstance(node, nodes.Mapping):
            return self._wrong_shape(node, at, "a section of keys")
        fields = {field.encode_name: field for field in kind.fields}
        gathering, named = options_field(fields)
        table = TABLES[named] if named else {}
        known = self._known(node, table, fields)
        keys = [name for name in fields if name != gathering]
        values: dict[str, Any] = {}
        options: dict[str, Any] = {}
        bad = False
        for name, (key, child) in node.entries.items():
            below = at.below(name, key.place)
            if name in keys:
                value = self._convert(child, fields[name].type, below)
                if value is ABSENT and fields[name].required:
                    bad = True
                    self._found.missing_keys([name], below)
                elif value is not ABSENT:
                    values[name] = value
            elif known.get(name) is Any:
                value = BAD
            elif name in known:
                value = options[name] = self._convert(child, type_of(known[name]), below)
            else:
                value = BAD
                self._found.unknown_key(name, key, [*keys, *known], table, at)
            bad = bad or value is BAD
        meant = {nearest(name, keys) for name in node.entries if name not in keys}
        missing = [n for n in keys if fields[n].required and n not in {*node.entries, *meant}]
        if missing:
            self._found.missing_keys(missing, at if at.key else At(at.path, node.place))
        if bad or missing:  # a misspelt required key is among the bad ones
            return BAD
        if gathering:
            values[gathering] = _plain(options)
        return kind.cls(**values)

    def _known(
        self, node: nodes.Mapping, table: Mapping[str, Known], fields: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Options of the entry that the section's `name` (or `format`) names.

        All options of the table, of any type, if the name itself is wrong: one error is enough.
        """
        if not table:
            return {}
        naming = naming_field(fields)
        entry = node.entries.get(naming)
        written: str | None = fields[naming].default if entry is None else None
        if entry is not None and isinstance(entry[1], Scalar):
            expanded = self._expander.expand(entry[1])
            written = expanded.text if isinstance(expanded, Scalar) else None
        if written is not None and written in table:
            return table[written].options
        return {key: Any for known in table.values() for key in known.options}

    def _entry(self, node: Node, table: Mapping[str, Known], at: At) -> Any:
        """A mapping of one name in `table` to its setting."""
        if not isinstance(node, nodes.Mapping) or len(node.entries) != 1:
            return self._wrong_shape(node, at, "one name and its setting: {flip_horizontal: 0.5}")
        ((name, (key, child)),) = node.entries.items()
        known = table.get(name)
        if known is None:
            self._found.unknown_name(name, key.place, "augmentation", "", list(table))
            return BAD
        below = at.below(name, key.place)
        if known.value is not None:
            value = self._convert(child, type_of(known.value), below)
        else:
            value = self._options(child, known.options, below)
        if value is BAD or value is ABSENT:
            return BAD
        return _plain({name: value})

    def _options(self, node: Node, options: Mapping[str, Any], at: At) -> Any:
        if not isinstance(node, nodes.Mapping):
            return self._wrong_shape(node, at, f"a mapping of {', '.join(options)}")
        values: dict[str, Any] = {}
        for name, (key, child) in node.entries.items():
            if name in options:
                below = at.below(name, key.place)
                values[name] = self._convert(child, type_of(options[name]), below)
            else:
                values[name] = BAD
                self._found.unknown_key(name, key, list(options), {}, at)
        return BAD if BAD in values.values() else values

    def _tuple(self, node: Node, kind: Any, at: At, extra: Mapping[str, Any]) -> Any:
        fixed = kind.item_types if isinstance(kind, types.TupleType) else None
        if isinstance(node, Scalar) and node.is_null and fixed is None:
            return ABSENT
        size = len(node.items) if isinstance(node, Listing) else -1
        least = (kind.min_length or 0) if fixed is None else len(fixed)
        if not isinstance(node, Listing) or size < least or (fixed is not None and size > least):
            return self._wrong_shape(node, at, describe.types((kind,), {}))
        kinds = fixed or [kind.item_type] * size
        items = [
            self._convert(item, item_kind, at.below(str(index), item.place))
            for index, (item, item_kind) in enumerate(zip(node.items, kinds, strict=True))
        ]
        if any(item is BAD or item is ABSENT for item in items):
            return BAD
        if extra.get("ordered") and list(items) != sorted(items):
            self._found.add(
                Problem("value", f"`{at}` goes down", node.place, note="expected [min, max]")
            )
            return BAD
        return tuple(items)

    def _dict(self, node: Node, kind: Any, at: At, extra: Mapping[str, Any]) -> Any:
        if isinstance(node, Scalar) and node.is_null and not kind.min_length:
            return ABSENT
        expected = describe.types((kind,), extra)
        if not isinstance(node, nodes.Mapping) or len(node.entries) < (kind.min_length or 0):
            return self._wrong_shape(node, at, expected)
        values: dict[str, Any] = {}
        for name, (key, child) in node.entries.items():
            below = at.below(name, key.place)
            note = describe.refused_key(name, kind.key_type)
            if note:
                self._found.add(Problem("key", f"`{clip(name)}` in `{at}`", key.place, note=note))
            value = self._convert(child, kind.value_type, below)
            if value is ABSENT:  # of a section that is one of many, the key alone says too little
                value = self._wrong_shape(child, below, describe.types((kind.value_type,), {}))
            values[name] = BAD if note else value
        return BAD if BAD in values.values() else values


def _plain(value: Any) -> Any:
    """Tuples as lists, structs as mappings: options are held untyped, and are so in JSON."""
    if isinstance(value, Struct):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
