"""Fills in a template: the few statements of Jinja that `slurm/batch.sh.j2` is written in. Pure.

Loading Jinja2 takes a fifth of the time that submitting a job does, and a script needs three of its
statements. A test holds that Jinja2 makes the same of the template:

    {{ name }}  {{ name | filter }}     a value, as it is or through a filter
    {% for name in name %} ... {% endfor %}      {% for key, value in name.items() %}
    {% if name %} ... {% endif %}

A statement in `{% %}` has a line of its own, and none in what comes out (Jinja's `trim_blocks` and
`lstrip_blocks`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Filters = Mapping[str, Callable[[Any], str]]

_NAME = r"[a-z_]+"
_FOR = re.compile(rf"for ({_NAME}(?:, {_NAME})?) in ({_NAME})(\.items\(\))?")
_IF = re.compile(rf"if ({_NAME})")
_STATEMENT = re.compile(r"\s*\{% (.+) %\}\n?")
_VALUE = re.compile(rf"\{{\{{ ({_NAME})(?: \| ({_NAME}))? \}}\}}")


def fill_in(template: str, values: Mapping[str, Any], filters: Filters) -> str:
    """`template` with `values`. Raises KeyError for a name, ValueError for a statement unknown."""
    lines = template.splitlines(keepends=True)
    return "".join(_block(lines, values, filters))


def _block(lines: Sequence[str], values: Mapping[str, Any], filters: Filters) -> Iterator[str]:
    at = 0
    while at < len(lines):
        statement = _STATEMENT.fullmatch(lines[at])
        if statement is None:
            yield _filled(lines[at], values, filters)
            at += 1
            continue
        end = _end(lines, at, statement[1].split()[0])
        for scope in _scopes(statement[1], values):
            yield from _block(lines[at + 1 : end], scope, filters)
        at = end + 1


def _scopes(statement: str, values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What the names mean each time that the inside of a statement is filled in."""
    if found := _FOR.fullmatch(statement):
        names = found[1].split(", ")
        items = values[found[2]]
        for item in items.items() if found[3] else items:
            yield {**values, **dict(zip(names, item if len(names) > 1 else [item], strict=True))}
    elif found := _IF.fullmatch(statement):
        if values[found[1]]:
            yield values
    else:
        raise ValueError(f"a statement that this template may not have: {statement}")


def _end(lines: Sequence[str], start: int, word: str) -> int:
    """The index of the line that ends the statement `word` of the line `start`."""
    depth = 0
    for at in range(start, len(lines)):
        statement = _STATEMENT.fullmatch(lines[at])
        first = statement[1].split()[0] if statement else ""
        depth += (first == word) - (first == f"end{word}")
        if depth == 0:
            return at
    raise ValueError(f"{{% {word} %}} without an end")


def _filled(line: str, values: Mapping[str, Any], filters: Filters) -> str:
    def value(found: re.Match[str]) -> str:
        made = values[found[1]]
        return str(filters[found[2]](made) if found[2] else made)

    return _VALUE.sub(value, line)
