"""Options of sbatch as lines of a script. Pure."""

from __future__ import annotations

from clusterseg.errors import ClustersegError

_PLAIN = frozenset("-_=.,:;/+%@&|()[]*{}~")  # besides letters and digits


def directive(option: str) -> str:
    """An option as one word of a `#SBATCH` line.

    sbatch (src/sbatch/opt.c, measured on 22.05) ends a word at a blank or `#`, and reads
    backslashes only within double quotes.
    """
    if not option.isprintable():
        raise ClustersegError(
            f"{option!a} can't be written as a directive of sbatch",
            code="directive",
            help="use a folder without line breaks and control characters in its name",
        )
    if all(character in _PLAIN or character.isalnum() for character in option):
        return option
    name, _, value = option.partition("=")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'
