"""What of a plan is Slurm's: options of sbatch, site knowledge, warnings. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from clusterseg.plan.dialect import Dialect
from clusterseg.plan.model import Geometry, Host, SlurmPlan
from clusterseg.plan.site import GENERIC, Partition, Site
from clusterseg.plan.slurm_options import may_requeue, sbatch_options
from clusterseg.plan.symbols import symbolic_host
from clusterseg.spec.errors import nearest
from clusterseg.spec.model import JobSpec


def symbolic_hosts(spec: JobSpec, site: Site) -> list[Host]:
    """Hosts for the planner: those that the job names, else as many as it may need, by number."""
    partition = site.partition(spec.slurm.partition)[1]
    resources = spec.resources
    if resources.hosts is not None:
        return [_host(name, partition) for name in resources.hosts]
    count = resources.nodes or resources.ranks or 1
    return [_host(symbolic_host(number), partition) for number in range(count)]


def slurm_plan(
    spec: JobSpec, geometry: Geometry, site: Site, *, directory: str, template: str
) -> SlurmPlan:
    """Raises ClustersegError for what the site's profile knows to be impossible."""
    name, partition = site.partition(spec.slurm.partition)
    return SlurmPlan(
        options=sbatch_options(spec, geometry, site, directory=directory),
        site=site.name,
        metadata_delay=site.metadata_delay,
        notice=site.gives_notice(partition),
        accounting=site.accounting,
        requeue=may_requeue(spec),
        partition=name,
        array=spec.slurm.array,
        modules=site.modules,
        setup=site.setup,
        template=template,
    )


def slurm_warnings(
    spec: JobSpec, geometry: Geometry, dialect: Dialect, site: Site
) -> Sequence[str]:
    """What a person should know before the job waits for hours."""
    asked = spec.slurm.partition
    name, partition = site.partition(asked)
    warnings = []
    if asked and "," not in asked and site.partitions and asked not in site.partitions:
        near = nearest(asked, list(site.partitions))
        hint = f"; did you mean {near}?" if near else ""
        warnings.append(f"the profile {site.name} knows no partition {asked}{hint}")
    wanted = max(geometry.hosts.values()) * geometry.cpus_per_rank
    if spec.placement.oversubscribe and partition.cores is None and wanted > 1:
        warnings.append(
            "placement.oversubscribe does nothing: how many cores a node has is not known, so "
            f"Slurm is asked for {wanted} a node, and waits for ever where no node has them; say "
            "`cores` in the profile of the site (docs/sites.md), or ask for fewer ranks or cores"
        )
    notice = site.gives_notice(partition)
    # None: who is preempted depends on more than the partition (preempt/qos), or nothing is known.
    if_so = partition.preemptible is None and notice is False
    if ((partition.preemptible and notice is not True) or if_so) and not dialect.starts_any_mpi:
        where = "this site" if site.name == GENERIC else site.title
        what = "if it preempts a job" if if_so else "of preemption"
        warnings.append(
            f"{where} gives no notice {what} in the {_named(name)}; "
            "at most one checkpoint interval is lost"
        )
    return warnings


def _named(partition: str | None) -> str:
    return f"partition {partition}" if partition else "default partition"


def _host(name: str, partition: Partition) -> Host:
    return Host(
        name=name,
        cores=partition.cores,
        sockets=partition.sockets,
        numa_nodes=partition.numa_nodes or partition.sockets,
        threads_per_core=partition.threads_per_core,
    )
