"""What a site's profile leaves open of nodes and preemption, filled in from Slurm itself."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from clusterseg.cluster.slurm.configuration import configuration_file
from clusterseg.plan.site import Partition, Site


def informed(site: Site, asked: str | None, environ: Mapping[str, str]) -> Site:
    """`site` with what its controller says of the partition that a job gets which asks for `asked`.

    The profile's own words stand; of nodes, all of them if it has any of `cores`. Where Slurm does
    not answer, or the job names several partitions, nothing is added. Slurm is asked once a day at
    most.
    """
    name, partition = site.partition(asked)
    is_open = partition.cores is None or (
        partition.preemptible is not False
        and (partition.preemptible is None or site.gives_notice(partition) is None)
    )
    if not is_open or "," in (name or "") or configuration_file(environ) is None:
        return site
    from clusterseg.cluster.slurm.facts import (  # noqa: PLC0415 (most need none)
        NodeFacts,
        cluster_facts,
    )

    def with_nodes(partition: Partition, node: NodeFacts | None) -> Partition:
        if partition.cores is not None or node is None:
            return partition
        return replace(
            partition,
            cores=node.cores,
            sockets=node.sockets,
            threads_per_core=node.threads_per_core,
        )

    facts = cluster_facts(environ)
    # sbatch takes a user's own default from this variable.
    found = facts.partition(name or environ.get("SBATCH_PARTITION") or None) if facts else None
    if facts is None or found is None:
        return site
    notice = site.gives_notice(partition)
    filled = replace(
        with_nodes(partition, found.node),
        preemptible=found.preemptible if partition.preemptible is None else partition.preemptible,
        notice=facts.warns(found) if notice is None else notice,
    )
    return replace(site, partitions={**site.partitions, name or "": filled})
