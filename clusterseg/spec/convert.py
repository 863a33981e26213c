"""A tree of nodes to a struct: every scalar is read by the type of its key, and all that is
wrong is collected.

The types are those of `clusterseg.spec.model`, looked at through `msgspec.inspect`, and the
tables' options. YAML's own guesses (`no` is false, `12:00` is 720) are never asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from msgspec import inspect as types

from clusterseg.spec import describe, nodes
from clusterseg.spec.errors import Place, Problem, clip, nearest
from clusterseg.spec.expand import Expander
from clusterseg.spec.nodes import Listing, Node, Scalar
from clusterseg.spec.scalars import Refused, read_scalar
from clusterseg.spec.tables import TABLES, Known

MOST_PROBLEMS = 100  # enough to act on; a megabyte of junk would give as many as it has lines

Path = tuple[str, ...]


class _Bad:
    """What stands for a value that could not be read; its problems are in the list."""


class _Absent:
    """What stands for a section, list or mapping of which only the key was written."""


BAD: Final = _Bad()
ABSENT: Final = _Absent()


class TooMany(Exception):
    """MOST_PROBLEMS were found: what follows is not looked at."""


@dataclass(frozen=True)
class _At:
    """Where the walk stands: the path of keys, and the key's place (None at the top)."""

    path: Path
    key: Place | None = None

    def below(self, name: str, key: Place | None = None) -> _At:
        return _At((*self.path, name), key or self.key)

    def __str__(self) -> str:
        return clip(".".join(self.path), 120) if self.path else "the job"

    @property
    def help(self) -> str:
        """The command that shows the nearest section that has a schema of its own."""
        section = [name for name in self.path if not name.isdigit()]
        return " ".join(["clusterseg schema", ".".join(section[:2])]).strip()


@cache
def type_of(annotation: Any) -> Any:
    """msgspec's description of an annotated type."""
    return types.type_info(annotation)


class Converter:
    """Reads nodes by types. `problems` grows; `launchers` are names that files of the user add."""

    def __init__(self, expander: Expander, extra_names: Mapping[str, Sequence[str]]) -> None:
        self.problems: list[Problem] = []
        self.places: dict[Path, Place] = {}
        self._expander = expander
        self._extra_names = extra_names

    def convert(self, node: Node, kind: Any, path: Path = (), key: Place | None = None) -> Any:
        """The value of `node`, or BAD (with the reasons in `problems`), or ABSENT."""
        return self._convert(node, kind, _At(path, key))

    def _convert(self, node: Node, kind: Any, at: _At) -> Any:
        self.places[at.path] = node.place if isinstance(node, Scalar) else at.key or node.place
        if isinstance(node, Scalar):
            expanded = self._expander.expand(node)
            if isinstance(expanded, list):
                for problem in expanded:
                    self._add(problem)
                return BAD
            node = expanded
        return self._typed(node, kind, at, {})

    def _typed(self, node: Node, kind: Any, at: _At, extra: Mapping[str, Any]) -> Any:
        """`node` by `kind`; `extra` is what Meta(extra=...) of the types around it said."""
        while isinstance(kind, types.Metadata):
            extra = {**extra, **(kind.extra or {})}
            kind = kind.type
        if isinstance(kind, types.UnionType):
            return self._union(node, kind, at, extra)
        if "entry" in extra:
            return self._entry(node, TABLES[extra["entry"]], at)
        if "scalar" not in extra:
            if isinstance(kind, types.StructType):
                return self._struct(node, kind, at)
            if isinstance(kind, types.VarTupleType | types.TupleType):
                return self._tuple(node, kind, at, extra)
            if isinstance(kind, types.DictType):
                return self._dict(node, kind, at)
        return self._scalar(node, (kind,), at, extra)

    # scalars

    def _scalar(self, node: Node, kinds: Sequence[Any], at: _At, extra: Mapping[str, Any]) -> Any:
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
        self._add(Problem("value", f"{written} for `{at}`", node.place, note=note, help=at.help))
        return BAD

    def _name(self, value: str, node: Scalar, at: _At, extra: Mapping[str, Any]) -> Any:
        """Checks that a name stands in its table."""
        table = extra["table"]
        known = [*TABLES[table], *self._extra_names.get(table, ())]
        if value in known:
            return value
        near = nearest(value, known)
        self._add(
            Problem(
                "unknown-name",
                f"unknown {describe.NOUNS[table]} `{clip(value)}` in `{at}`",
                node.place,
                note=f"did you mean `{near}`?" if near else "",
                help=f"known: {', '.join(known)}",
            )
        )
        return BAD

    def _union(self, node: Node, kind: Any, at: _At, extra: Mapping[str, Any]) -> Any:
        members = [member for member in kind.types if not isinstance(member, types.NoneType)]
        if len(members) < len(kind.types) and isinstance(node, Scalar) and node.is_null:
            return None
        fitting = [member for member in members if _takes(member, node, extra)]
        if len(fitting) == 1:
            return self._typed(node, fitting[0], at, extra)
        if isinstance(node, Scalar) and fitting:
            bare, inner = _unwrapped(fitting)
            return self._scalar(node, bare, at, {**extra, **inner})
        return self._wrong_shape(node, at, describe.types(members, extra))

    # collections

    def _struct(self, node: Node, kind: Any, at: _At) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            return ABSENT
        if not isinstance(node, nodes.Mapping):
            return self._wrong_shape(node, at, "a section of keys")
        fields = {field.encode_name: field for field in kind.fields}
        gathered = {name: _extra(field.type).get("options") for name, field in fields.items()}
        options_field, named = next(
            ((f, table) for f, table in gathered.items() if table), ("", "")
        )
        table = TABLES[named] if named else {}
        known = self._known(node, table, fields)
        keys = [name for name in fields if name != options_field]
        values: dict[str, Any] = {}
        options: dict[str, Any] = {}
        bad = False
        for name, (key, child) in node.entries.items():
            below = at.below(name, key.place)
            if name in keys:
                value = self._convert(child, fields[name].type, below)
                if value is ABSENT and fields[name].required:
                    bad = True
                    self._missing([name], below)
                elif value is not ABSENT:
                    values[name] = value
            elif known.get(name) is Any:
                value = BAD
            elif name in known:
                value = options[name] = self._convert(child, type_of(known[name]), below)
            else:
                value = BAD
                self._unknown(name, key, [*keys, *known], table, at)
            bad = bad or value is BAD
        meant = {nearest(name, keys) for name in node.entries if name not in keys}
        missing = [n for n in keys if fields[n].required and n not in {*node.entries, *meant}]
        if missing:
            self._missing(missing, at if at.key else _At(at.path, node.place))
        if bad or missing:  # a misspelt required key is among the bad ones
            return BAD
        if options_field:
            values[options_field] = _plain(options)
        return kind.cls(**values)

    def _known(
        self, node: nodes.Mapping, table: Mapping[str, Known], fields: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Options of the entry that the section's `name` (or `format`) names.

        All options of the table, of any type, if the name itself is wrong: one error is enough.
        """
        if not table:
            return {}
        naming = next(name for name, f in fields.items() if "table" in _extra(f.type))
        entry = node.entries.get(naming)
        written: str | None = fields[naming].default if entry is None else None
        if entry is not None and isinstance(entry[1], Scalar):
            expanded = self._expander.expand(entry[1])
            written = expanded.text if isinstance(expanded, Scalar) else None
        if written is not None and written in table:
            return table[written].options
        return {key: Any for known in table.values() for key in known.options}

    def _entry(self, node: Node, table: Mapping[str, Known], at: _At) -> Any:
        """A mapping of one name in `table` to its setting."""
        if not isinstance(node, nodes.Mapping) or len(node.entries) != 1:
            return self._wrong_shape(node, at, "one name and its setting: {flip_horizontal: 0.5}")
        ((name, (key, child)),) = node.entries.items()
        known = table.get(name)
        if known is None:
            near = nearest(name, list(table))
            self._add(
                Problem(
                    "unknown-name",
                    f"unknown augmentation `{clip(name)}`",
                    key.place,
                    note=f"did you mean `{near}`?" if near else "",
                    help=f"known: {', '.join(table)}",
                )
            )
            return BAD
        below = at.below(name, key.place)
        if known.value is not None:
            value = self._convert(child, type_of(known.value), below)
        else:
            value = self._options(child, known.options, below)
        if value is BAD or value is ABSENT:
            return BAD
        return _plain({name: value})

    def _options(self, node: Node, options: Mapping[str, Any], at: _At) -> Any:
        if not isinstance(node, nodes.Mapping):
            return self._wrong_shape(node, at, f"a mapping of {', '.join(options)}")
        values: dict[str, Any] = {}
        for name, (key, child) in node.entries.items():
            if name in options:
                below = at.below(name, key.place)
                values[name] = self._convert(child, type_of(options[name]), below)
            else:
                values[name] = BAD
                self._unknown(name, key, list(options), {}, at)
        return BAD if BAD in values.values() else values

    def _tuple(self, node: Node, kind: Any, at: _At, extra: Mapping[str, Any]) -> Any:
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
            self._add(Problem("value", f"`{at}` goes down", node.place, note="expected [min, max]"))
            return BAD
        return tuple(items)

    def _dict(self, node: Node, kind: Any, at: _At) -> Any:
        if isinstance(node, Scalar) and node.is_null and not kind.min_length:
            return ABSENT
        expected = describe.types((kind,), {})
        if not isinstance(node, nodes.Mapping) or len(node.entries) < (kind.min_length or 0):
            return self._wrong_shape(node, at, expected)
        values: dict[str, Any] = {}
        for name, (key, child) in node.entries.items():
            below = at.below(name, key.place)
            note = describe.refused_key(name, kind.key_type)
            if note:
                self._add(Problem("key", f"`{clip(name)}` in `{at}`", key.place, note=note))
            value = self._convert(child, kind.value_type, below)
            values[name] = BAD if note else value
        return BAD if BAD in values.values() else values

    # problems

    def _add(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
        if len(self.problems) >= MOST_PROBLEMS:
            raise TooMany

    def _unknown(
        self,
        name: str,
        key: Scalar,
        known: Sequence[str],
        table: Mapping[str, Known],
        at: _At,
    ) -> None:
        owners = [entry for entry, what in table.items() if name in what.options]
        near = nearest(name, known)
        if owners:
            note = f"an option of {', '.join(owners)} only"
        else:
            note = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
        where = f"in `{at}`" if at.path else "at the top"
        self._add(
            Problem("unknown-key", f"`{clip(name)}` {where}", key.place, note=note, help=at.help)
        )

    def _missing(self, names: Sequence[str], at: _At) -> None:
        listed = ", ".join(f"`{name}`" for name in names)
        where = f"in `{at}`" if at.path else "at the top"
        self._add(
            Problem(
                "missing-key",
                f"{listed} {'is' if len(names) == 1 else 'are'} missing {where}",
                at.key,
                help=at.help,
            )
        )

    def _wrong_shape(self, node: Node, at: _At, expected: str) -> _Bad:
        self._add(
            Problem(
                "value",
                f"{describe.shape(node)} for `{at}`",
                node.place,
                note=f"expected {expected}",
                help=at.help,
            )
        )
        return BAD


def _takes(kind: Any, node: Node, extra: Mapping[str, Any]) -> bool:
    """Whether `kind` is written as this sort of node at all."""
    bare, inner = _unwrapped([kind])
    if "scalar" in {**extra, **inner}:
        return isinstance(node, Scalar)
    if isinstance(bare[0], types.StructType | types.DictType):
        return isinstance(node, nodes.Mapping)
    if isinstance(bare[0], types.TupleType | types.VarTupleType):
        return isinstance(node, Listing)
    return isinstance(node, Scalar)


def _unwrapped(kinds: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    extra: dict[str, Any] = {}
    bare = []
    for kind in kinds:
        inner = kind
        while isinstance(inner, types.Metadata):
            extra |= inner.extra or {}
            inner = inner.type
        bare.append(inner)
    return bare, extra


def _extra(kind: Any) -> Mapping[str, Any]:
    return _unwrapped([kind])[1]


def _plain(value: Any) -> Any:
    """Tuples as lists: options are held untyped, and come back from JSON as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
