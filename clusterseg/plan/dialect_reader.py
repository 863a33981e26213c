"""The text of a launcher definition -> Dialect; mistakes are told as those in a job.yaml are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

from clusterseg.plan.definition_reader import Mistake, read_definition
from clusterseg.plan.dialect import (
    HOSTFILE_PLACEHOLDERS,
    MAP_PLACEHOLDERS,
    MEANINGS,
    PLACEHOLDERS,
    Dialect,
    Meaning,
    placeholders,
)
from clusterseg.plan.model import Definition
from clusterseg.spec.errors import nearest
from clusterseg.spec.fields import BindTo, MapBy
from clusterseg.spec.findings import Path

_HELP = "docs/launchers.md explains every key"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNSET = re.compile(r"[A-Za-z_*][A-Za-z0-9_*]*")


def read_dialect(name: str, text: str, file: str) -> Dialect:
    """The launcher `name` as `text` defines it; `file` is named in errors.

    Raises SpecError with everything that is wrong, each with its line and column.
    """
    definition = read_definition(
        Definition, text, file, code="launcher", help=_HELP, mistakes=_mistakes
    )
    fields = {field: getattr(definition, field) for field in Definition.__struct_fields__}
    return Dialect(name=name, **fields)


def _mistakes(definition: Definition) -> Iterator[Mistake]:
    yield from _detection_mistakes(definition)
    yield from _template_mistakes(definition)
    said = {*definition.flags, *definition.variables}
    if "ranks" not in said:
        yield ("flags",), "nothing says how many `ranks` to start", ""
    if not any(meaning.startswith("bind_") for meaning in said):
        yield ("flags",), "no `bind_...` says how ranks are bound", ""
    yield from _mapping_mistakes(definition)
    for index, name in enumerate(definition.not_passed):
        if not _VARIABLE.fullmatch(name):
            note = "expected the name of a variable"
            yield ("not_passed", str(index)), f"`{name}` in `not_passed`", note
    for index, pattern in enumerate(definition.unset):
        if not _UNSET.fullmatch(pattern):
            yield ("unset", str(index)), f"`{pattern}` in `unset`", "expected a name, `*` for any"


def _mapping_mistakes(definition: Definition) -> Iterator[Mistake]:
    ways, binds = get_args(MapBy), get_args(BindTo)
    known = f"known: {', '.join(ways)}"
    for key, word in definition.map.items():
        if key not in ways:
            yield ("map", key), f"`{key}` in `map`", known
        for unknown in sorted(placeholders(word) - MAP_PLACEHOLDERS):
            yield ("map", key), f"`{{{unknown}}}` in `map`", "known here: cpus"
    for key, flags in definition.order.items():
        if key not in ways:
            yield ("order", key), f"`{key}` in `order`", known
        named = ((index, name) for index, flag in enumerate(flags) for name in placeholders(flag))
        for index, name in sorted(named):
            yield ("order", key, str(index)), f"`{{{name}}}` in `order`", "known here: none"
    listed = [("equal_only", definition.equal_only), ("numa_first", definition.numa_first)]
    for name, index, key in ((n, i, key) for n, keys in listed for i, key in enumerate(keys)):
        if key not in ways:
            yield (name, str(index)), f"`{key}` in `{name}`", known
    for name in ("cannot", "only_one"):
        for key, bound in getattr(definition, name).items():
            if key not in ways or not set(bound) <= set(binds):
                note = f"expected map_by ({', '.join(ways)}): [bind_to ({', '.join(binds)})]"
                yield (name, key), f"`{key}` in `{name}`", note


def _detection_mistakes(definition: Definition) -> Iterator[Mistake]:
    programs, detect = definition.programs, definition.detect
    if not programs:
        if definition.program is not None:
            yield ("program",), "`program` names none", "expected a name to look for on PATH"
        return
    for program in programs:
        if not program or "/" in program:
            yield ("program",), f"`{program}` for `program`", "expected a name to look for on PATH"
    if detect is None:
        yield ("program",), "`detect` is missing: how is this program recognised?", ""
    elif (detect.pattern is None) == (detect.package is None):
        yield ("detect",), "`detect` needs either a `pattern` or a `package`", ""
    elif detect.pattern is not None:
        try:
            groups = re.compile(detect.pattern).groups
        except re.error as error:
            yield ("detect", "pattern"), f"`detect.pattern` is no regular expression: {error}", ""
            return
        if groups != 1:
            yield ("detect", "pattern"), "`detect.pattern` needs one group, the version", ""


def _template_mistakes(definition: Definition) -> Iterator[Mistake]:
    templates: list[tuple[Path, Meaning, str]] = []
    for section in ("flags", "variables"):
        for written, said in getattr(definition, section).items():
            meaning = next((known for known in MEANINGS if known == written), None)
            if meaning is None:
                near = nearest(written, MEANINGS)
                note = f"did you mean `{near}`?" if near else f"known: {', '.join(MEANINGS)}"
                yield (section, written), f"`{written}` in `{section}`", note
                continue
            pairs = said.items() if isinstance(said, dict) else enumerate(said)
            templates += [((section, meaning, str(key)), meaning, text) for key, text in pairs]
    for path, meaning, text in templates:
        allowed = PLACEHOLDERS[meaning]
        for unknown in sorted(placeholders(text) - allowed):
            note = f"known here: {', '.join(sorted(allowed)) or 'none'}"
            yield path, f"`{{{unknown}}}` in `{meaning}`", note
        if path[0] == "variables" and not _VARIABLE.fullmatch(path[2]):
            yield path, f"`{path[2]}` is not the name of a variable", ""
    used = {name for _, _, text in templates for name in placeholders(text)}
    packaged = definition.detect is not None and definition.detect.package is not None
    if packaged != bool(definition.wraps):
        yield ("wraps",), "`wraps` and `detect.package` go together: one of them is missing", ""
    if ("inner" in used) != bool(definition.wraps):
        yield ("wraps",), "`wraps` and `{inner}` go together: one of them is missing", ""
    if "map" in used and not definition.map:
        yield ("map",), "`{map}` is used, but `map` translates nothing", ""
    if "hostfile" in used and definition.hostfile is None:
        yield ("hostfile",), "`{hostfile}` is used, but `hostfile` does not say its format", ""
    if definition.hostfile is not None:
        line = placeholders(definition.hostfile.line)
        if "host" not in line or line - HOSTFILE_PLACEHOLDERS:
            yield (
                ("hostfile", "line"),
                "`hostfile.line` must name {host}, and may name {count}, and no other",
                "",
            )
