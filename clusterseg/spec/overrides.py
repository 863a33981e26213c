"""`--set a.b=c`: a key path and a value, laid over the tree of the file.

The value becomes a node that knows its argument, so that a mistake in it is shown there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clusterseg.spec.errors import Problem, Source, SpecError, clip
from clusterseg.spec.nodes import Listing, Mapping, Node, Scalar, parse

_SEGMENT = re.compile(r'"([^"]*)"|([^."=\s]+)')


@dataclass(frozen=True)
class Override:
    """One argument: the keys from the top, and the node to put there."""

    keys: tuple[Scalar, ...]
    value: Node


def read_overrides(arguments: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """The arguments of all `--set` options in their order, and what is wrong with them."""
    overrides: list[Override] = []
    problems: list[Problem] = []
    for number, argument in enumerate(arguments, start=1):
        source = Source("--set", argument, first_line=number, argument=True)
        try:
            overrides.append(_read(source))
        except SpecError as error:
            problems += error.problems
    return overrides, problems


def apply(root: Mapping, overrides: Sequence[Override]) -> tuple[Mapping, list[Problem]]:
    """A new tree with the overrides in it, later ones over earlier ones."""
    problems: list[Problem] = []
    tree: Node = root
    for override in overrides:
        try:
            tree = _put(tree, override.keys, 0, override.value)
        except SpecError as error:
            problems += error.problems
    assert isinstance(tree, Mapping)  # noqa: S101  # a path has a key, so the top stays a mapping
    return tree, problems


def _read(source: Source) -> Override:
    keys: list[Scalar] = []
    at = 0
    text = source.text
    while True:
        found = _SEGMENT.match(text, at)
        if not found:
            raise SpecError([_malformed(source, at)])
        name = found[1] if found[1] is not None else found[2]
        keys.append(Scalar(name, False, source, at, found.end()))
        at = found.end()
        if text[at : at + 1] == "=":
            return Override(tuple(keys), _value(source, at + 1))
        if text[at : at + 1] != ".":
            raise SpecError([_malformed(source, at)])
        at += 1


def _value(source: Source, start: int) -> Node:
    """Quotes, lists and mappings are read as YAML; anything else is the text as it stands."""
    text = source.text[start:]
    if text.lstrip()[:1] not in ("[", "{", '"', "'"):
        return Scalar(text, True, source, start, len(source.text))
    node, duplicates = parse(source, start)
    if duplicates:
        raise SpecError(duplicates)
    assert node is not None  # noqa: S101  # the text has a bracket or a quote
    return node


def _malformed(source: Source, at: int) -> Problem:
    return Problem(
        "set",
        "--set takes KEY=VALUE",
        source.place(at, at + 1),
        note="expected a key" if at == 0 or source.text[at - 1 : at] == "." else "expected . or =",
        help="--set resources.nodes=2, --set train.augment.0='{scale: [0.5, 2.0]}'",
    )


def _put(node: Node | None, keys: Sequence[Scalar], depth: int, value: Node) -> Node:
    """`node` with `value` at the path `keys[depth:]`; what is not there yet is made."""
    if depth == len(keys):
        return value
    key = keys[depth]
    if node is None or (isinstance(node, Scalar) and node.is_null):
        node = Mapping({}, key.source, key.start, key.end)
    if isinstance(node, Mapping):
        old = node.entries.get(key.text)
        new = _put(old[1] if old else None, keys, depth + 1, value)
        # The key's place is the argument's: a wrong key is then shown there.
        owner = old[0] if old and depth + 1 < len(keys) else key
        return replace(node, entries={**node.entries, key.text: (owner, new)})
    if isinstance(node, Listing):
        return _put_item(node, keys, depth, value)
    raise SpecError(
        [
            Problem(
                "set",
                f"`{_path(keys[:depth])}` is a single value and has no `{clip(key.text)}`",
                key.place,
            )
        ]
    )


def _put_item(node: Listing, keys: Sequence[Scalar], depth: int, value: Node) -> Node:
    key = keys[depth]
    size = len(node.items)
    index = int(key.text) if re.fullmatch("[0-9]{1,6}", key.text) else -1
    if not 0 <= index <= size:
        raise SpecError(
            [
                Problem(
                    "set",
                    f"`{_path(keys[:depth])}` is a list of {size}",
                    key.place,
                    note=f"expected an index from 0 to {size} ({size} appends)",
                )
            ]
        )
    old = node.items[index] if index < size else None
    new = _put(old, keys, depth + 1, value)
    return replace(node, items=[*node.items[:index], new, *node.items[index + 1 :]])


def _path(keys: Sequence[Scalar]) -> str:
    return clip(".".join(key.text for key in keys), 120)
