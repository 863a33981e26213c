"""Host files as MPIs read them -> hosts with their ranks. Pure.

One host a line: `n1`, `n1 slots=4 max_slots=8` (Open MPI), `n1:4` (Hydra), or one name a rank (a
machinefile). Blank lines and comments from `#` on are left out. What these launchers take without a
word, such as `n1:x` or `n1:2:3` (Hydra 4 and 5), is refused here with its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from clusterseg.hostlist import compress_counts, twice_named
from clusterseg.spec.errors import Place, Problem, Source, SpecError, clip
from clusterseg.spec.hosts import HOST_NAME

_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_WORD = re.compile(r"[^\s=]+(?:\s*=\s*[^\s=]*)?|=\S*")
# Open MPI's lexer (orte/util/hostfile/hostfile_lex.l) knows these spellings.
_SLOTS = ("slots", "slot")
_MOST = ("max_slots", "max-slots", "slots_max", "slots-max")
_MOST_PROBLEMS = 20
_FORMS = "a line is `n1`, `n1 slots=4` or `n1:4`"


@dataclass(frozen=True)
class _Line:
    host: str
    count: int | None
    place: Place


def read_hosts(text: str, file: str) -> dict[str, int | None]:
    """The hosts of a host file in their order, with the ranks of each; None: it names no number.

    A name that stands there several times without a number has so many ranks, as in a machinefile.
    `file` is named in errors. Raises SpecError with everything that is wrong, each with its place.
    """
    problems: list[Problem] = []
    lines: list[_Line] = []
    source = Source(file, text)
    for number, line in enumerate(source.lines):
        try:
            lines += _read(source, number, line.partition("#")[0])
        except SpecError as error:
            problems += error.problems
            if len(problems) >= _MOST_PROBLEMS:
                raise SpecError(problems, more=True) from None
    if problems:
        raise SpecError(problems)
    if not lines:
        raise SpecError([Problem("hosts", "the file names no host", source_name=file, help=_FORMS)])
    hosts = _together(lines)
    same = twice_named(hosts)
    if same is not None:
        place = next(line.place for line in lines if line.host == same[1])
        raise SpecError(
            [
                Problem(
                    "hosts",
                    f"{same[0]} and {same[1]} are the same host",
                    place,
                    help="name it once, or always by the same name",
                )
            ]
        )
    return hosts


def hosts_override(text: str, file: str) -> str:
    """The `--set` argument for the hosts of a host file: `resources.hosts=n[1-3]:4`."""
    hosts = compress_counts(read_hosts(text, file))
    # Hosts that are called 1, 2 and 3: YAML takes [1-3] without quotes for a list.
    return f'resources.hosts="{hosts}"' if hosts.startswith("[") else f"resources.hosts={hosts}"


def _together(lines: list[_Line]) -> dict[str, int | None]:
    """One entry a host. Raises SpecError for what contradicts."""
    counted = next((line for line in lines if line.count is not None), None)
    bare = next((line for line in lines if line.count is None), None)
    if counted is not None and bare is not None:
        problem = Problem(
            "hosts",
            f"{bare.host} has no number of ranks, {counted.host} has one",
            bare.place,
            help="give one to every host, or to none: what it means without differs between MPIs",
        )
        raise SpecError([problem])
    first: dict[str, _Line] = {}
    times: dict[str, int] = {}
    problems = []
    for line in lines:
        name = first.setdefault(line.host.lower(), line).host
        times[name] = times.get(name, 0) + 1
        if line.count is not None and times[name] > 1:
            problems.append(
                Problem(
                    "hosts",
                    f"{line.host} is named again: it stands in line "
                    f"{first[line.host.lower()].place.line + 1}",
                    line.place,
                    help="name a host once, with all its ranks",
                )
            )
    if problems:
        raise SpecError(problems[:_MOST_PROBLEMS], more=len(problems) > _MOST_PROBLEMS)
    if counted is not None:
        return {line.host: line.count for line in lines}
    if len(times) == len(lines):
        return dict.fromkeys(times)
    return dict(times)


def _read(source: Source, number: int, line: str) -> Iterator[_Line]:
    """The host of a line, or nothing. Raises SpecError."""

    def refuse(what: str, start: int, text: str) -> SpecError:
        place = Place(source, number, start, max(1, len(text)))
        return SpecError([Problem("hosts", what, place, help=_FORMS)])

    words = list(_WORD.finditer(line))
    if not words:
        return
    start = words[0].start()
    name, colon, written = words[0][0].partition(":")
    if not HOST_NAME.fullmatch(name):
        raise refuse(f"`{clip(name)}` is not a host name", start, name)
    place = Place(source, number, start, len(name))
    count = None
    if colon:
        if not _NUMBER.fullmatch(written):
            at = start + len(name) + 1
            raise refuse(f"`{clip(written)}` for the ranks of {name}", at, written)
        count = int(written)
    said: dict[str, int] = {}
    for word in words[1:]:
        key, equals, value = (part.strip() for part in word[0].partition("="))
        kind = "slots" if key in _SLOTS else "max_slots" if key in _MOST else None
        if kind is None or not equals:
            raise refuse(f"`{clip(word[0])}` after a host name", word.start(), word[0])
        if not _NUMBER.fullmatch(value):
            raise refuse(f"`{clip(value)}` for `{key}`", word.start(), word[0])
        if kind in said or (kind == "slots" and count is not None):
            raise refuse(f"`{key}` besides another number", word.start(), word[0])
        said[kind] = int(value)
    most = said.get("max_slots")
    count = said.get("slots", count)
    if most is not None and count is None:
        raise refuse(f"{name} has `max_slots`, but no `slots`", start, name)
    if most is not None and count is not None and count > most:
        raise refuse(f"{name} has {count} slots, but max_slots = {most}", start, name)
    yield _Line(name, count, place)
