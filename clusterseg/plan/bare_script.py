"""The batch script that needs no `submit`: job.yaml is in it, `sbatch FILE` is all. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import OUTPUT, Plan
from clusterseg.plan.script import check_runs_folder, launch_lines
from clusterseg.plan.site import GENERIC
from clusterseg.plan.slurm_script import slurm_script_of
from clusterseg.plan.variables import OUTER_ARRAY


def bare_script(plan: Plan, text: str, overrides: Sequence[str], root: str) -> str:
    """The script for a bare `sbatch`, from any folder, as often as wanted: each is a run.

    `text` is the job.yaml; `overrides` are all `--set` arguments that it is to be read with
    inside of the job, where the environment may be another one; `root` is the absolute folder of
    the run directories. Raises ClustersegError for a folder that Slurm can't write the output to,
    or that no script can name.
    """
    slurm = plan.slurm
    if slurm is None:
        raise ValueError("a plan for another scheduler")
    check_runs_folder(root)
    # A snapshot is taken when the job first starts: there is no copy to go to before.
    directory = plan.directory if plan.code is None else plan.code.directory
    job = "%A_%a" if slurm.array is not None else "%j"
    if "\\" in directory:  # measured with Slurm 22.05: the output file could not be opened
        raise ClustersegError(
            f"{directory} has a backslash, with which Slurm fills in no job id",
            code="directory",
            help="use another folder, or clusterseg submit",
        )
    output = f"{directory.replace('%', '%%')}/{plan.name}-{job}.out"
    places = {f"--output={OUTPUT}": f"--output={output}"}
    places |= {f"--chdir={plan.directory}": f"--chdir={directory}"}
    options = tuple(places.get(option, option) for option in slurm.options)
    made = replace(
        plan,
        directory=directory,
        slurm=replace(slurm, options=options),
        # It may be given to `sbatch --array`, and each task has to know which one it is. (What an
        # outer job's array left behind goes when the job is adopted.)
        unset=tuple(pattern for pattern in plan.unset if pattern != OUTER_ARRAY),
    )
    words = [word for override in (*overrides, *_decided(plan)) for word in ("--set", override)]
    launch = launch_lines(made, "--runs-dir", root, *words, "--job", "/dev/stdin")
    return slurm_script_of(made, f"{launch} {_here_document(text)}")


def _decided(plan: Plan) -> list[str]:
    """What was found out when the script was written, and might be found otherwise in the job."""
    decided = []
    if plan.spec.launcher == "auto":
        decided.append(f"launcher={plan.launcher}")
    if plan.slurm is not None and plan.spec.slurm.site is None and plan.slurm.site != GENERIC:
        decided.append(f"slurm.site={plan.slurm.site}")
    return decided


def _here_document(text: str) -> str:
    """`text` as bash's standard input; a last line gets its end if it lacks one.

    The other line breaks that YAML knows become the usual one: sbatch refuses a script with that
    of DOS ("Batch script contains DOS line breaks").
    """
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    body = plain if plain.endswith("\n") else plain + "\n"
    lines = set(body.split("\n"))
    mark = next(
        mark for number in range(len(lines) + 1) if (mark := f"JOB_YAML{number or ''}") not in lines
    )
    return f"<<'{mark}'\n{body}{mark}"
