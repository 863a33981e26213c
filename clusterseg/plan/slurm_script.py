"""The batch script for Slurm, from the template `slurm/batch.sh.j2`. Pure."""

from __future__ import annotations

from clusterseg.plan.model import Plan
from clusterseg.plan.script import launch_lines, quote, scrubbing, summary
from clusterseg.plan.slurm_directives import directive
from clusterseg.plan.template import fill_in

FILTERS = {"quote": quote, "directive": directive}


def slurm_script(plan: Plan) -> str:
    """The script that starts the supervisor of `plan`; the run directory may be symbolic."""
    return slurm_script_of(plan, launch_lines(plan, plan.run_dir))


def slurm_script_of(plan: Plan, launch: str) -> str:
    """The script that ends with `exec` and the command `launch`, which is bash."""
    slurm = plan.slurm
    if slurm is None:
        raise ValueError("a plan for another scheduler")
    own = plan.spec.environment
    values = {
        "options": slurm.options,
        "summary": summary(plan).rstrip("\n"),
        "directory": plan.directory,
        "scrubbing": scrubbing(plan.unset, plan.own).rstrip("\n"),
        "environment": plan.environment,
        "modules": (*slurm.modules, *own.modules),
        "setup": [line.rstrip("\n") for line in (*slurm.setup, *own.setup)],
        "launch": launch,
    }
    return fill_in(slurm.template, values, FILTERS)
