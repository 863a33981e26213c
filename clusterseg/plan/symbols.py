"""Symbols in a launch line: `{run_dir}` and `{hostfile}` stand for paths known later. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_OWN = ("--container-mounts=", "--container-workdir=")  # of pyxis, with paths within one word


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
