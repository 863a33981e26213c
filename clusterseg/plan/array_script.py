"""The script of a job array whose tasks are runs: each runs the batch script of its own. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clusterseg import __version__
from clusterseg.plan.script import quote
from clusterseg.plan.slurm_directives import directive


def array_script(
    options: Sequence[str], scripts: Mapping[int, str], outputs: Mapping[int, str]
) -> str:
    """What sbatch is given with `options`.

    By task number, `scripts` are the paths of the runs' own batch scripts, and `outputs` the files
    that take what these print. (What Slurm itself has to say of a task goes to the array's output.)
    """
    cases = [
        f"    {task}) script={quote(script)} output={quote(outputs[task])} ;;"
        for task, script in sorted(scripts.items())
    ]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# {len(scripts)} runs, each a task of one array",
            f"# written by clusterseg {__version__} for the scheduler slurm",
            *(f"#SBATCH {directive(option)}" for option in options),
            "",
            "set -e",
            "trap '' USR1",  # as in each run's own script
            "",
            "case $SLURM_ARRAY_TASK_ID in",
            *cases,
            '    *) echo "this array has no run for task $SLURM_ARRAY_TASK_ID" >&2; exit 1 ;;',
            "esac",
            "",
            "# The same process goes on, so that what Slurm signals is the supervisor.",
            'exec bash "$script" >> "$output" 2>&1',
            "",
        ]
    )
