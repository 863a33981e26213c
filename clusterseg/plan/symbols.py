"""Symbols for what is known later: `{run_dir}`, `{hostfile}` and hosts as `{host0}`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from clusterseg.plan.model import Plan

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


def filled_line(line: Sequence[str], plan: Plan, symbols: Mapping[str, str]) -> tuple[str, ...]:
    """`line`, a launch line of `plan`, with the values of `symbols` in their places.

    In what the launcher's definition says a symbol may stand anywhere. After that, in what the job
    adds and in the rank's own words, it is a whole word or the beginning of a path. Words of the
    user's own command, with which the line ends, are never touched.
    """
    # A line that a person has changed may be shorter than the plan's.
    ours = max(0, len(line) - len(plan.spec.command or ()))
    said = max(0, min(ours, len(line) - plan.rank_words - len(plan.spec.launcher_args)))
    anywhere = re.compile("|".join(map(re.escape, symbols)) or "$.")  # which is nowhere
    return (
        *(anywhere.sub(lambda found: symbols[found[0]], word) for word in line[:said]),
        *(_filled(word, symbols) for word in line[said:ours]),
        *line[ours:],
    )


def _filled(word: str, symbols: Mapping[str, str]) -> str:
    for symbol, value in symbols.items():
        if word == symbol or word.startswith(f"{symbol}/"):
            return value + word.removeprefix(symbol)
    return word
