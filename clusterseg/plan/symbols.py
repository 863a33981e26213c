"""Symbols for what is known later: `{run_dir}`, `{hostfile}` and hosts as `{host0}`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_OWN = ("--container-mounts=", "--container-workdir=")  # of pyxis, with paths within one word
_HOST = re.compile(r"\{host[0-9]+\}")
_SHOWN = 4  # hosts named in a message


def symbolic_host(number: int) -> str:
    """What stands for the host `number`, from 0, that a scheduler is still to choose."""
    return f"{{host{number}}}"


def is_symbolic(host: str) -> bool:
    """Whether a scheduler is still to choose this host."""
    return _HOST.fullmatch(host) is not None


def placed_line(line: str, names: Mapping[str, str]) -> str:
    """`line` of a host file with the real names of its hosts, by symbol."""
    return _HOST.sub(lambda found: names[found[0]], line)


def shown_host(host: str) -> str:
    """A host for a person: one that is still to be chosen has no name yet."""
    return "a node" if is_symbolic(host) else host


def shown_hosts(hosts: Iterable[str]) -> str:
    """The first few of the hosts for a person, and how many there are besides."""
    names = list(dict.fromkeys("the nodes" if is_symbolic(host) else host for host in hosts))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def filled_line(
    line: Sequence[str], command: Sequence[str] | None, symbols: Mapping[str, str]
) -> tuple[str, ...]:
    """`line` with the values of `symbols` in their places.

    A symbol is a whole word, or the beginning of a path, or stands in what is said of a container.
    Words of the user's own `command`, with which the line ends, are never touched.
    """
    ours = len(line) - len(command or ())
    return (*(_filled(word, symbols) for word in line[:ours]), *line[ours:])


def _filled(word: str, symbols: Mapping[str, str]) -> str:
    for symbol, value in symbols.items():
        if word == symbol or word.startswith(f"{symbol}/"):
            return value + word.removeprefix(symbol)
        if word.startswith(_OWN):
            word = word.replace(symbol, value)
    return word
