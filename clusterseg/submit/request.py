"""The one way from a job.yaml to the plan that is shown, checked and submitted."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from clusterseg.cluster.horovod_record import horovod_fits
from clusterseg.cluster.slurm.configuration import configuration_file
from clusterseg.cluster.topology import is_here, this_host
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.dialect import Dialect
from clusterseg.plan.geometry import solve
from clusterseg.plan.model import CodeSource, Host, Plan
from clusterseg.plan.planner import make_plan, require_ready
from clusterseg.plan.site import ContainerTool, Site
from clusterseg.plan.slurm_plan import symbolic_hosts
from clusterseg.plan.wrapped import Inner
from clusterseg.spec.errors import SpecError
from clusterseg.spec.model import JobSpec, SlurmSpec
from clusterseg.spec.reader import JobFile, open_job, parse_job
from clusterseg.submit.definitions import batch_template, find_site
from clusterseg.submit.devices import require_devices, with_addresses
from clusterseg.submit.known_hosts import refuse_unknown_hosts
from clusterseg.submit.launchers import choose_launcher, read_definitions
from clusterseg.submit.seen import data_warnings
from clusterseg.submit.site_facts import informed
from clusterseg.submit.weights import look_at_weights


def read_request(
    path: Path | str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    text: str | None = None,
    inside: bool = False,
    begins: bool = True,
    code: CodeSource | None = None,
) -> Plan:
    """The plan of the job described by `path`, for this machine as it is now.

    `overrides` are `--set` arguments; `text` is the job's text where it was read already; `inside`
    says that this is a job of Slurm, where sbatch may be missing; `begins` that the run is a new
    one, whose ranks will read its initial weights; `code` is what the snapshot of a run was taken
    of, where there is one already. Raises SpecError for a job that can't be read or planned, and
    ClustersegError (exit code 3) where the scheduler or launcher that it needs is missing.
    """
    if text is None:
        file = open_job(path, overrides=overrides, environ=environ)
    else:
        file = parse_job(text, str(path), overrides=overrides, environ=environ)
    try:
        plan = _planned(file, environ, inside, code)
        if begins and not inside:
            refuse_unknown_hosts(plan, environ)
            seen = (*data_warnings(plan), *look_at_weights(plan))
            return replace(plan, warnings=(*plan.warnings, *seen))
        return plan
    except ClustersegError as error:
        raise file.placed(error) from None


def _planned(
    file: JobFile, environ: Mapping[str, str], inside: bool, code: CodeSource | None
) -> Plan:
    spec = _without_tilde(file.spec)
    slurm = inside or wants_slurm(spec, environ)
    require_ready(spec, "slurm" if slurm else "local")
    site = find_site(spec.slurm.site, environ) if slurm else None
    if site is not None and not inside:
        site = informed(site, spec.slurm.partition, environ)
    here = this_host()
    if site is None:
        spec = with_addresses(spec, here.name)
    hosts = _hosts(spec, here) if site is None else symbolic_hosts(spec, site)
    ranks = solve(spec.resources, hosts, spec.placement).ranks
    launcher = choose_launcher(spec.launcher, ranks, environ, site=site, mpi=spec.slurm.mpi)
    directory = _directory()
    if spec.code == "snapshot":
        code, code_warnings = _code(spec, code, directory, environ)
    else:
        code, code_warnings = None, ()
    plan = make_plan(
        spec,
        dialect=launcher.dialect,
        pair=launcher.pair,
        hosts=hosts,
        program=own_program(),
        as_root=os.geteuid() == 0,
        directory=directory,
        inner=Inner(launcher.inner, launcher.mpi) if launcher.inner and launcher.mpi else None,
        horovod=_asks_for_horovod(spec) and launcher.mpi is not None and horovod_fits(launcher.mpi),
        code=code,
        site=site,
        template="" if site is None else batch_template(),
        container_tool=None if site is None else _container_tool(spec, site, environ),
        launchers=lambda: _launchers(environ, slurm),
    )
    if site is None:
        require_devices(plan, here.name, environ)
    return replace(plan, why=launcher.why, warnings=(*plan.warnings, *code_warnings))


def _launchers(environ: Mapping[str, str], slurm: bool) -> Mapping[str, Dialect]:
    """The launchers that the job could ask for; none where a file of one has mistakes."""
    try:
        definitions = read_definitions(environ)
    except SpecError:
        return {}
    return {name: one for name, one in definitions.items() if slurm or not one.starts_any_mpi}


def _without_tilde(spec: JobSpec) -> JobSpec:
    """`spec` with the home in the paths of a container and of the data and weights that it has to
    see: the container's program, unlike ours, knows no `~`."""
    image = spec.environment.container
    if image is None:
        return spec
    home = os.path.expanduser
    spec = replace(spec, environment=replace(spec.environment, container=home(image)))
    if spec.train is None:
        return spec
    data = replace(spec.train.data, root=home(spec.train.data.root))
    weights = spec.train.initial_weights
    weights = None if weights is None else home(weights)
    return replace(spec, train=replace(spec.train, data=data, initial_weights=weights))


def _container_tool(spec: JobSpec, site: Site, environ: Mapping[str, str]) -> ContainerTool | None:
    """The site's, else the first that is on the PATH; pyxis is known by its enroot."""
    if spec.environment.container is None or site.container is not None:
        return site.container
    programs: dict[str, ContainerTool] = {
        "apptainer": "apptainer",
        "singularity": "singularity",
        "enroot": "pyxis",
    }
    path = environ.get("PATH", os.defpath)
    found = (tool for program, tool in programs.items() if shutil.which(program, path=path))
    return next(found, None)


def wants_slurm(spec: JobSpec, environ: Mapping[str, str]) -> bool:
    """Whether the job is Slurm's. Raises ClustersegError if it has to be and there is no Slurm."""
    if spec.scheduler == "local":
        return False
    sbatch = shutil.which("sbatch", path=environ.get("PATH", os.defpath))
    if spec.scheduler == "slurm":
        if sbatch is None:
            raise _no_slurm("scheduler: slurm", "there is no sbatch on the PATH")
        if environ.get("SLURM_CONF") and configuration_file(environ) is None:
            # Without the variable sbatch may find its cluster by DNS; with it, it waits a minute.
            raise _no_slurm("scheduler: slurm", f"there is {_no_configuration(environ)}")
        return True
    if sbatch is not None and configuration_file(environ) is not None:
        return True
    asked = [key for key in SlurmSpec.__struct_fields__ if getattr(spec.slurm, key)]
    if asked:
        # On a login node whose Slurm is only not loaded, the job must not start right there.
        missing = "no sbatch on the PATH" if sbatch is None else _no_configuration(environ)
        raise _no_slurm(f"slurm.{asked[0]}", f"it is asked for, but there is {missing}")
    return False


def _no_configuration(environ: Mapping[str, str]) -> str:
    named = environ.get("SLURM_CONF")
    if named:
        return f"no file {named!r}, which SLURM_CONF names"
    return "no slurm.conf in the usual places (--set scheduler=slurm takes sbatch's word for it)"


def _no_slurm(key: str, what: str) -> ClustersegError:
    return ClustersegError(
        f"{key}: {what}",
        code="no-slurm",
        help="submit from a login node of the cluster, or load its module; "
        "--set scheduler=local runs the job on this machine",
        exit_code=ExitCode.CLUSTER,
    )


def _code(
    spec: JobSpec, known: CodeSource | None, directory: str, environ: Mapping[str, str]
) -> tuple[CodeSource, Sequence[str]]:
    """What a snapshot is taken of, and what will not be in it."""
    from clusterseg.submit.code import find_code, snapshot_warnings  # noqa: PLC0415 (seldom)

    if known is not None:
        return known, ()
    code = find_code(Path(directory), environ)
    seen = {**environ, **spec.environment.variables}
    return code, snapshot_warnings(code, spec.command or (), seen)


def own_program() -> tuple[str, ...]:
    """The argv prefix, absolute, that starts this very clusterseg."""
    script = Path(sys.executable).parent / "clusterseg"
    if os.access(script, os.X_OK):
        return (str(script),)
    return (sys.executable, "-m", "clusterseg.cli.main")


def _directory() -> str:
    """Where the ranks will run: where the command was given."""
    try:
        folder = str(Path.cwd())
        folder.encode()
    except FileNotFoundError:
        raise _bad_folder("the current folder is gone") from None
    except UnicodeEncodeError:
        raise _bad_folder(f"the current folder's name is not UTF-8: {folder!a}") from None
    return folder


def _bad_folder(what: str) -> ClustersegError:
    return ClustersegError(what, code="directory", help="go to another folder")


def _hosts(spec: JobSpec, here: Host) -> list[Host]:
    """The hosts that the local scheduler can use: this one, or those that the job names."""
    if spec.resources.hosts is None:
        return [here]
    names = list(spec.resources.hosts)
    same = [name for name in names if is_here(name, here.name)]
    if len(same) > 1:
        raise ClustersegError(
            f"resources.hosts: {' and '.join(same)} are the same host, this one",
            code="host-name",
            help="name it once",
        )
    return [
        replace(here, name=name) if name in same else Host(name=name, cores=None) for name in names
    ]


def _asks_for_horovod(spec: JobSpec) -> bool:
    return spec.train is not None and spec.train.communicator in ("auto", "horovod")
