"""The batch script for Slurm, from the template `slurm/batch.sh.j2`. Pure; loads Jinja2."""

from __future__ import annotations

from functools import cache

import jinja2

from clusterseg.plan.model import Plan
from clusterseg.plan.script import launch_lines, quote, scrubbing, summary
from clusterseg.plan.slurm_directives import directive


def slurm_script(plan: Plan) -> str:
    """The script that starts the supervisor of `plan`; the run directory may be symbolic."""
    return slurm_script_of(plan, launch_lines(plan, plan.run_dir))


def slurm_script_of(plan: Plan, launch: str) -> str:
    """The script that ends with `exec` and the command `launch`, which is bash."""
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
        launch=launch,
    )


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
