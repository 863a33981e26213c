"""The options of sbatch for a job: what the batch script's directives say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import AFTER, OUTPUT, Geometry
from clusterseg.plan.sbatch_words import set_by_key
from clusterseg.plan.site import GpuStyle, Partition, Site
from clusterseg.spec.model import JobSpec
from clusterseg.spec.units import format_size, format_time

_LEAD = 120  # seconds before the time limit at which Slurm warns; it may be 60 s earlier


def sbatch_options(
    spec: JobSpec, geometry: Geometry, site: Site, *, directory: str
) -> tuple[str, ...]:
    """Every option, one word each; the output file and the job to wait for are symbolic.

    `directory` is where the script runs. Raises ClustersegError for what the site's profile
    knows to be impossible.
    """
    name, partition = site.partition(spec.slurm.partition)
    check_limits(spec, geometry, site)
    slurm = spec.slurm
    options = [
        f"--job-name={spec.name}",
        *_given("partition", name),
        *_given("account", slurm.account or partition.account or site.account),
        *_given("qos", slurm.qos or partition.qos),
        *_given("constraint", slurm.constraint),
        *_layout(spec, geometry, partition),
        *_given("mem", spec.resources.memory and format_size(spec.resources.memory)),
        *_accelerators(spec, geometry, site),
        *_given("time", spec.resources.time and format_time(spec.resources.time)),
        *_given("array", slurm.array),
        *([f"--dependency=afterany:{AFTER}"] if slurm.after is not None else []),
        f"--signal=B:USR1@{notice_lead(spec.resources.time)}",
        "--requeue" if may_requeue(spec) else "--no-requeue",
        "--open-mode=append",
        f"--output={OUTPUT}",
        f"--chdir={directory}",
        "--export=ALL",
    ]
    for key, words in (("site", site.options), ("slurm.extra", slurm.extra)):
        options = _merged(options, words, key)
    return tuple(options)


def notice_lead(time_limit: int | None) -> int:
    """Seconds before the time limit at which Slurm shall warn the batch script.

    A fallback: the supervisor asks Slurm for the end of the allocation, and keeps its own clock.
    """
    return _LEAD if time_limit is None else max(10, min(_LEAD, time_limit // 10))


def may_requeue(spec: JobSpec) -> bool:
    """Whether the job may ever be started again: some budget is left to do so."""
    restart = spec.restart
    return any(budget != 0 for budget in (restart.preemption, restart.time_limit, restart.node))


def check_limits(spec: JobSpec, geometry: Geometry, site: Site) -> None:
    """Refuses what the profile of the site knows that sbatch would refuse."""
    name, partition = site.partition(spec.slurm.partition)
    where = f"the partition {name} of {site.title}"
    time, memory = spec.resources.time, spec.resources.memory
    if time is not None and partition.max_time is not None and time > partition.max_time:
        raise _over("time", format_time(time), f"{where} allows {format_time(partition.max_time)}")
    if partition.max_nodes is not None and geometry.nodes > partition.max_nodes:
        raise _over("nodes", geometry.nodes, f"{where} allows {partition.max_nodes}")
    if memory is not None and partition.memory is not None and memory > partition.memory:
        most = format_size(partition.memory)
        raise _over("memory", format_size(memory), f"a node of {where} has {most}")
    wanted = accelerators_per_rank(spec) * max(geometry.hosts.values())
    if partition.gpus is not None and wanted > partition.gpus:
        most = f"a node of {where} has {partition.gpus}"
        raise _over("accelerators_per_rank", f"{wanted} a node", most)


def accelerators_per_rank(spec: JobSpec) -> int:
    """Accelerators of a rank; one, where only their kind is given."""
    if spec.resources.accelerator == "none":
        return 0
    given = spec.resources.accelerators_per_rank
    return 1 if given is None else given


def accelerator_style(spec: JobSpec, site: Site) -> GpuStyle:
    """How the accelerators of the job are asked for: Slurm's options for GPUs are for no others."""
    kind: str = getattr(site.gres, spec.resources.accelerator)
    return site.gpus if kind.partition(":")[0] == "gpu" else "gres"


def _layout(spec: JobSpec, geometry: Geometry, partition: Partition) -> list[str]:
    """Nodes, ranks and cores. Where nodes have unequal numbers of ranks, each gets the most."""
    per_node = max(geometry.hosts.values())
    cpus = geometry.cpus_per_rank * partition.threads_per_core
    if geometry.oversubscribed and partition.cores is not None:
        per_node = partition.cores // geometry.cpus_per_rank or 1  # the whole node
    return [
        f"--nodes={geometry.nodes}",
        f"--ntasks={geometry.nodes * per_node}",
        f"--ntasks-per-node={per_node}",
        f"--cpus-per-task={cpus}",
        *([f"--nodelist={','.join(geometry.hosts)}"] if spec.resources.hosts else []),
    ]


def _accelerators(spec: JobSpec, geometry: Geometry, site: Site) -> list[str]:
    count = accelerators_per_rank(spec)
    if count == 0:
        return []
    kind = getattr(site.gres, spec.resources.accelerator)
    on_node = count * max(geometry.hosts.values())
    style = accelerator_style(spec, site)
    if style == "gres":
        return [f"--gres={kind}:{on_node}"]
    type_ = kind.partition(":")[2]
    number = count if style == "gpus-per-task" else on_node
    return [f"--{style}={type_ + ':' if type_ else ''}{number}"]


def _merged(options: list[str], words: Sequence[str], key: str) -> list[str]:
    """`options` with `words` after them; one that was there before is replaced."""
    for word in words:
        owner = set_by_key(word)
        if owner is not None:
            raise ClustersegError(
                f"{key}: {word} is set by {owner}",
                code="sbatch-option",
                help=f"use {owner} of job.yaml" if owner != "clusterseg itself" else "leave it out",
            )
        name = word.partition("=")[0]
        options = [one for one in options if one.partition("=")[0] != name]
        options.append(word)
    return options


def _given(name: str, value: str | int | None) -> Iterable[str]:
    return () if value is None else (f"--{name}={value}",)


def _over(key: str, value: object, limit: str) -> ClustersegError:
    return ClustersegError(
        f"resources.{key}: {value}, but {limit}",
        code="site-limit",
        help="ask for less, or choose another slurm.partition",
    )
