"""The batch script for Slurm, from the template `slurm/batch.sh.j2`. Pure; loads Jinja2."""

from __future__ import annotations

from functools import cache

import jinja2

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.plan.script import launch_lines, quote, scrubbing, summary


def slurm_script(plan: Plan, run_dir: str) -> str:
    """The script that starts the supervisor of `plan` in `run_dir` (which may be symbolic)."""
    slurm = plan.slurm
    if slurm is None:
        raise ValueError("a plan for another scheduler")
    own = plan.spec.environment
    return _template(slurm.template).render(
        options=slurm.options,
        summary=summary(plan),
        directory=plan.directory,
        scrubbing=scrubbing(plan.unset),
        environment=plan.environment,
        modules=(*slurm.modules, *own.modules),
        setup=[line.rstrip("\n") for line in (*slurm.setup, *own.setup)],
        launch=launch_lines(plan, run_dir),
    )


def directive(option: str) -> str:
    """An option as one word of a `#SBATCH` line.

    sbatch (src/sbatch/opt.c, measured on 22.05) ends a word at a blank or `#`, and reads
    backslashes only within double quotes.
    """
    if "\n" in option or "\0" in option:
        raise ClustersegError(
            f"{option!a} can't be written as a directive of sbatch",
            code="directive",
            help="use a folder without a line break in its name",
        )
    if all(character.isalnum() or character in "-_=.,:;/+%@&|()[]*{}~" for character in option):
        return option
    name, _, value = option.partition("=")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}="{escaped}"'


@cache
def _template(text: str) -> jinja2.Template:
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # bash, not HTML: `quote` and `directive` escape
    )
    environment.filters |= {"quote": quote, "directive": directive}
    return environment.from_string(text)
