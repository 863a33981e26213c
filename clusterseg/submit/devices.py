"""What a job without a scheduler needs of this host's accelerators, looked at before it starts."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from clusterseg.cluster.devices import count_devices, device_addresses
from clusterseg.cluster.topology import is_here
from clusterseg.errors import ClustersegError
from clusterseg.plan.devices import DEVICES, VISIBLE, seen_devices
from clusterseg.plan.model import Plan
from clusterseg.spec.model import JobSpec


def with_addresses(spec: JobSpec, here: str) -> JobSpec:
    """`spec` with the addresses of the Ascend devices of this host, `here`, where it gives none
    and this is the only host that it uses."""
    resources = spec.resources
    elsewhere = [name for name in resources.hosts or () if not is_here(name, here)]
    if resources.accelerator != "npu" or resources.device_addresses or elsewhere:
        return spec
    own = device_addresses()
    if not own:
        return spec
    host = next(iter(resources.hosts or (here,)))
    return replace(spec, resources=replace(resources, device_addresses={host: own}))


def require_devices(plan: Plan, here: str, environ: Mapping[str, str]) -> None:
    """Refuses a plan whose ranks on this host want more accelerators than it shows.

    What the job sets up before its ranks start may change what they see: then nothing is said.
    Raises ClustersegError (`devices`).
    """
    kind, _, count = plan.environment.get(DEVICES, "").partition(":")
    setup = plan.spec.environment
    if not count or setup.setup or setup.modules:
        return
    ranks = sum(number for host, number in plan.hosts.items() if is_here(host, here))
    visible, where = seen_devices(kind, environ, count_devices(kind))
    if ranks * int(count) > len(visible):
        raise ClustersegError(
            f"resources.accelerator: ranks × accelerators_per_rank = {ranks} × {count} = "
            f"{ranks * int(count)} of kind {kind}, but this host shows {len(visible)} ({where})",
            code="devices",
            help=f"ask for fewer, or name those that are there in {VISIBLE[kind]}",
        )
