"""Slurm's short forms of host lists and counts, and lists with a number for each host. Pure.

`n[1-3,07-09],login` names seven hosts; `2(x3),1` (SLURM_TASKS_PER_NODE) four counts;
`n[1-3]:4,login:2` is ours: 4 on each of three hosts, and 2 on another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

MOST_HOSTS = 200_000  # more than any machine has; a larger list is a mistake or an attack

_PIECE = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")  # the width of all, too
_COUNT = re.compile(r"([0-9]{1,18})(?:\(x([0-9]{1,18})\))?")
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})")
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


def expand(text: str) -> list[str]:
    """The hosts of a host list, in its order. Raises ValueError for what is none."""
    hosts: list[str] = []
    for item in _split(text):
        hosts += _expand_item(item, MOST_HOSTS - len(hosts))
    return hosts


def compress(hosts: Iterable[str]) -> str:
    """The short form of `hosts`, in their order: `n1, n2, n3` is `n[1-3]`."""
    groups: list[tuple[str, list[str]]] = []  # prefix, numbers as they are written
    for host in hosts:
        found = _NUMBERED.fullmatch(host)
        prefix, number = (found[1], found[2]) if found else (host, "")
        if groups and groups[-1][0] == prefix and number and groups[-1][1][0]:
            groups[-1][1].append(number)
        else:
            groups.append((prefix, [number]))
    return ",".join(_group(prefix, numbers) for prefix, numbers in groups)


def counts(text: str) -> list[int]:
    """One number a host of `2(x3),1`. Raises ValueError for what is none."""
    found: list[int] = []
    for item in text.split(","):
        match = _COUNT.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"{text!r} are no counts")
        repeated = int(match[2] or 1)
        if len(found) + repeated > MOST_HOSTS:
            raise ValueError(f"{text[:60]!r} has more than {MOST_HOSTS} counts")
        found += [int(match[1])] * repeated
    return found


def with_counts(text: str) -> dict[str, int | None]:
    """The hosts of `n[1-3]:4,login`, each with its number; None where it has none.

    Raises ValueError for what is no list, and for a host that is named twice.
    """
    found: dict[str, int | None] = {}
    named = 0
    for item in _split(text):
        names, colon, number = item.partition(":")
        if not names:
            raise ValueError(f"{item!r} names no host")
        if colon and not _NUMBER.fullmatch(number):
            raise ValueError(f"{item!r}: {number!r} is no number of ranks")
        hosts = _expand_item(names, MOST_HOSTS - named)
        named += len(hosts)
        found |= dict.fromkeys(hosts, int(number) if colon else None)
    if len(found) < named:
        raise ValueError(f"{text[:60]!r} names a host twice")
    return found


def compress_counts(counts: Mapping[str, int | None]) -> str:
    """The short form of hosts with their numbers, in their order: what `with_counts` reads."""
    groups: list[tuple[int | None, list[str]]] = []
    for host, number in counts.items():
        if groups and groups[-1][0] == number:
            groups[-1][1].append(host)
        else:
            groups.append((number, [host]))
    pieces = []
    for number, hosts in groups:
        suffix = "" if number is None else f":{number}"
        pieces += [f"{item}{suffix}" for item in _split(compress(hosts))]
    return ",".join(pieces)


def twice_named(hosts: Iterable[str]) -> tuple[str, str] | None:
    """Two of `hosts` that are one host (DNS tells no case apart, and knows `n1` as `n1.site`)."""
    by_short: dict[str, list[str]] = {}
    for host in hosts:
        by_short.setdefault(host.lower().partition(".")[0], []).append(host)
    return next(filter(None, map(_same, by_short.values())), None)


def _same(hosts: Sequence[str]) -> tuple[str, str] | None:
    """Two of these, which are alike but for case and domain, that are one host."""
    seen: dict[str, str] = {}
    for host in hosts:
        if host.lower() in seen:
            return seen[host.lower()], host
        seen[host.lower()] = host
    bare = next((host for host in hosts if "." not in host), None)
    return None if bare is None or len(hosts) == 1 else (bare, next(h for h in hosts if h != bare))


def _split(text: str) -> list[str]:
    """The items of a host list: commas inside of brackets do not part them."""
    items, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if depth not in (0, 1):
            raise ValueError(f"{text!r}: brackets do not match")
        if char == "," and depth == 0:
            items.append(text[start:at])
            start = at + 1
    if depth:
        raise ValueError(f"{text!r}: brackets do not match")
    items.append(text[start:])
    if not all(item and not item.isspace() for item in items):
        raise ValueError(f"{text!r} is no host list")
    return [item.strip() for item in items]


def _expand_item(item: str, room: int) -> list[str]:
    names = [""]
    at = 0
    for bracket in _PIECE.finditer(item):
        numbers = _numbers(bracket[1], item, room)
        if len(names) * len(numbers) > room:
            raise ValueError(f"{item!r} names more than {MOST_HOSTS} hosts")
        names = [
            f"{name}{item[at : bracket.start()]}{number}" for name in names for number in numbers
        ]
        at = bracket.end()
    if len(names) > room:
        raise ValueError(f"{item!r} names more than {MOST_HOSTS} hosts")
    return [f"{name}{item[at:]}" for name in names]


def _numbers(ranges: str, item: str, room: int) -> list[str]:
    found: list[str] = []
    for part in ranges.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{item!r}: [{ranges}] are no numbers")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= room:
            raise ValueError(f"{item!r}: {part} is no range of hosts")
        # Leading zeros of the first number are the width of all.
        found += [str(number).zfill(len(match[1])) for number in range(first, last + 1)]
    return found


def _group(prefix: str, numbers: list[str]) -> str:
    if len(numbers) == 1:
        return f"{prefix}{numbers[0]}"
    runs: list[list[str]] = []
    for number in numbers:
        if runs and _follows(runs[-1], number):
            runs[-1].append(number)
        else:
            runs.append([number])
    said = [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"{prefix}[{','.join(said)}]"


def _follows(run: list[str], number: str) -> bool:
    """Whether a range from the first of `run` to `number` would write it as it is."""
    return int(number) == int(run[-1]) + 1 and number == str(int(number)).zfill(len(run[0]))
