"""The batch script of a plan: bash as a careful person would write it.

Every value from job.yaml goes through `quote`; only `environment.setup` is bash by intention and
stands as it was written.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from clusterseg import __version__
from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.plan.words import counted
from clusterseg.spec.errors import visible

_WIDTH = 96


def batch_script(plan: Plan) -> str:
    """The script that starts the supervisor of `plan`; the run directory may be symbolic."""
    if plan.slurm is not None:
        from clusterseg.plan.slurm_script import slurm_script  # noqa: PLC0415  # it imports this

        return slurm_script(plan)
    parts = [
        f"#!/usr/bin/env bash\n{summary(plan)}set -e\n",
        f"cd {quote(plan.directory)}\n",
        scrubbing(plan.unset, plan.own),
        "".join(f"export {name}={quote(value)}\n" for name, value in plan.environment.items()),
        "".join(f"module load {quote(name)}\n" for name in plan.spec.environment.modules),
        "".join(line.rstrip("\n") + "\n" for line in plan.spec.environment.setup),
        _path_line(plan.first_on_path),
        "exec " + launch_lines(plan, plan.run_dir) + "\n",
    ]
    return "\n".join(part for part in parts if part)


def _path_line(folder: str | None) -> str:
    if folder is None:
        return ""
    comment = "# The launcher calls the first mpirun of PATH.\n"
    return f'{comment}export PATH={quote(folder)}"${{PATH:+:$PATH}}"\n'


def launch_lines(plan: Plan, *run: str) -> str:
    """The supervisor's command line with the launch line, over several lines.

    `run` are the words that say which run it is: the run directory.
    """
    launched = len(plan.argv) - plan.rank_words
    lines = [
        *_wrapped((*plan.program, "attempt", *run, "--")),
        *_wrapped(plan.argv[:launched]),
        *_wrapped(plan.argv[launched:]),
    ]
    return " \\\n    ".join(lines)


def quote(word: str) -> str:
    """`word` as one word of bash, without a character that a terminal would act on."""
    if all(character.isprintable() or character == "\n" for character in word):
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def check_runs_folder(folder: str) -> None:
    """Refuses a folder of runs, or a run directory, that scripts and records can't name."""
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise ClustersegError(
            f"the folder of the runs has a name that is not UTF-8: {folder!a}",
            code="runs-dir",
            help="give another one: --runs-dir, or CLUSTERSEG_RUNS",
        ) from None


def _escaped(character: str) -> str:
    """A character within $'...' (bash manual, section 3.1.2.4)."""
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


def summary(plan: Plan) -> str:
    """Two lines of comment: what is started, and who wrote the script."""
    nodes, ranks, cpus = plan.geometry.nodes, plan.ranks, plan.geometry.cpus_per_rank
    version = f" {plan.launcher_version}" if plan.launcher_version else ""
    return (
        f"# {visible(plan.name)}: {counted(ranks, 'rank')} on {counted(nodes, 'node')}, "
        f"{counted(cpus, 'core')} a rank, launcher {visible(plan.launcher + version)}\n"
        f"# written by clusterseg {__version__} for the scheduler {plan.scheduler}\n"
    )


def scrubbing(patterns: Sequence[str], own: Sequence[str] = ()) -> str:
    """bash that unsets the variables whose names match.

    With `own`, so it does with every variable of Slurm that is not among these.
    """
    if not patterns:
        return ""
    slurm = f"        {_cases(own)}) ;;\n        SLURM_*)\n" + _UNSET if own else ""
    return (
        "# What an outer job left behind must not reach the ranks.\n"
        "for leftover in $(compgen -e); do\n"
        "    case $leftover in\n"
        f"        {_cases(patterns)})\n{_UNSET}{slurm}"
        "    esac\n"
        "done\n"
    )


_UNSET = '            unset "$leftover" ;;\n'


def _cases(patterns: Sequence[str]) -> str:
    """Patterns of one case, in lines of at most `_WIDTH`."""
    lines = [""]
    for pattern in patterns:
        joined = f"{lines[-1]} | {pattern}" if lines[-1] else pattern
        if len(joined) + 8 > _WIDTH:
            lines.append(pattern)
        else:
            lines[-1] = joined
    return " | \\\n        ".join(lines)


def _wrapped(words: Sequence[str]) -> list[str]:
    """The words, quoted, in lines of at most `_WIDTH`; a flag stays with the values it has."""
    groups: list[str] = []
    for number, word in enumerate(words):
        follows_flag = number > 0 and words[number - 1].startswith("-")
        if follows_flag and not word.startswith("-"):
            groups[-1] += f" {quote(word)}"
        else:
            groups.append(quote(word))
    lines: list[str] = []
    for group in groups:
        if lines and len(lines[-1]) + 1 + len(group) <= _WIDTH:
            lines[-1] += f" {group}"
        else:
            lines.append(group)
    return lines
