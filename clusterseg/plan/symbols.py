"""Symbols in a launch line: `{run_dir}` and `{hostfile}` stand for paths known later. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MOUNTS = "--container-mounts="  # of pyxis: FROM:TO,... in one word


def filled_line(
    line: Sequence[str], command: Sequence[str] | None, symbols: Mapping[str, str]
) -> tuple[str, ...]:
    """`line` with the values of `symbols` in their places.

    A symbol is a whole word, or stands in clusterseg's own list of mounts. Words of the user's own
    `command`, with which the line ends, are never touched.
    """
    ours = len(line) - len(command or ())
    return (*(_filled(word, symbols) for word in line[:ours]), *line[ours:])


def _filled(word: str, symbols: Mapping[str, str]) -> str:
    if word.startswith(MOUNTS):
        for symbol, value in symbols.items():
            word = word.replace(symbol, value)
        return word
    return symbols.get(word, word)
