"""A YAML text of launchers/ or slurm/sites/ to its struct; mistakes are told as in a job.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from clusterseg.spec.convert import Converter
from clusterseg.spec.errors import Place, Problem, Source, SpecError
from clusterseg.spec.expand import Expander
from clusterseg.spec.findings import Path, TooMany
from clusterseg.spec.kinds import type_of
from clusterseg.spec.nodes import parse

Mistake = tuple[Path, str, str]  # where, what is wrong, what stands beside the caret
Keys = TypeVar("Keys")


def read_definition(
    keys: type[Keys],
    text: str,
    file: str,
    *,
    code: str,
    help: str,
    mistakes: Callable[[Keys], Iterable[Mistake]],
    environ: Mapping[str, str] | None = None,
) -> Keys:
    """The struct `keys` as `text` writes it. `file` is named in errors, `environ` fills `${...}`.

    `mistakes` finds what is wrong with values that are each right by themselves; errors about
    them have the code `code`. Raises SpecError with everything, each with its line and column.
    """
    source = Source(file, text)
    tree, problems = parse(source)
    if tree is None:
        raise SpecError([Problem("value", "the file is empty", source_name=file, help=help)])
    converter = Converter(Expander(environ or {}), {})
    read = None
    with suppress(TooMany):
        read = converter.convert(tree, type_of(keys))  # type: ignore[arg-type]  # types are hashable
    problems += [replace(problem, help=help) for problem in converter.problems]
    if isinstance(read, keys):
        problems += [
            Problem(code, message, _nearest_place(converter, path), note=note, help=help)
            for path, message, note in mistakes(read)
        ]
    if problems or not isinstance(read, keys):
        raise SpecError(problems)
    return read


def _nearest_place(converter: Converter, path: Path) -> Place | None:
    while path and path not in converter.places:
        path = path[:-1]
    return converter.places.get(path)
