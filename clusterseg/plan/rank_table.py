"""Ascend's rank table: which device of which host is which rank, for HCCL. Pure.

The form is the older one of two that HCCL reads (CANN, "Preparing the Ranktable Resource
Configuration File", template 2), as the training recipes of Ascend's model zoo write it. Not tried
on Ascend hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

from clusterseg.errors import ClustersegError
from clusterseg.hostlist import twice_named
from clusterseg.plan.devices import RANK_TABLE
from clusterseg.plan.model import Plan
from clusterseg.plan.symbols import is_symbolic
from clusterseg.plan.words import counted
from clusterseg.spec.model import JobSpec

_KEY = "resources.device_addresses"


def rank_table_of(plan: Plan) -> str | None:
    """The rank table of a plan whose hosts are known; None if it needs none.

    Raises ClustersegError (`rank-table`).
    """
    addresses = plan.spec.resources.device_addresses
    if not wants_table(plan.spec, plan.ranks) or addresses is None:
        return None
    return rank_table(plan.hosts, addresses)


def wants_table(spec: JobSpec, ranks: int) -> bool:
    """Whether ranks are to find each other by a table, and the job does not bring one along."""
    own = RANK_TABLE in spec.environment.variables
    return spec.resources.accelerator == "npu" and ranks > 1 and not own


def check_table(spec: JobSpec, hosts: Mapping[str, int], ranks: int) -> list[str]:
    """What a person should know of the rank table of a job on `hosts`, which may be symbolic.

    Raises ClustersegError (`rank-table`) for addresses that can't be right.
    """
    addresses = spec.resources.device_addresses
    if addresses is not None:
        _check_addresses(addresses)
    if not wants_table(spec, ranks):
        return []
    if addresses is None:
        return [
            f"there is no rank table for HCCL: {_KEY} is not given, and no /etc/hccn.conf of this "
            "host is used"
        ]
    if len(hosts) > 1 and spec.placement.map_by == "node":
        raise ClustersegError(
            "placement.map_by: node numbers ranks in turns over the hosts, but a rank table has "
            "all of a host together",
            code="rank-table",
            help="use map_by: socket or core",
        )
    if not any(map(is_symbolic, hosts)):
        rank_table(hosts, addresses)
    return []


def rank_table(hosts: Mapping[str, int], addresses: Mapping[str, Sequence[str]]) -> str:
    """The table as JSON: ranks a host, each with the next device of its host, from device 0 on.

    `addresses` are those of a host's devices, by their numbers. Ranks are numbered in the order of
    the table. Raises ClustersegError (`rank-table`).
    """
    _check_addresses(addresses)
    instances = []
    for host, count in hosts.items():
        own = _addresses_of(host, hosts, addresses)
        if len(own) < count:
            raise _refusal(
                f"{host} has {counted(count, 'rank')}, but the addresses of "
                f"{counted(len(own), 'device')}"
            )
        alone = len(hosts) == 1
        instances.append(
            {
                "devices": [
                    {"device_id": str(number), "device_ip": address}
                    for number, address in enumerate(own[:count])
                ],
                # Both must differ from host to host.
                "pod_name": f"npu{count}p" if alone else f"npu{count}p-{host}",
                "server_id": "127.0.0.1" if alone else host,
            }
        )
    table = {
        "group_count": "1",
        "group_list": [
            {
                "group_name": "worker",
                "device_count": str(sum(hosts.values())),
                "instance_count": str(len(hosts)),
                "instance_list": instances,
            }
        ],
        "status": "completed",
    }
    return msgspec.json.format(msgspec.json.encode(table), indent=1).decode() + "\n"


def _addresses_of(
    host: str, hosts: Mapping[str, int], addresses: Mapping[str, Sequence[str]]
) -> Sequence[str]:
    if host in addresses:
        return addresses[host]
    names = [name for name in addresses if twice_named((host, name)) is not None]
    if len(names) == 1:
        return addresses[names[0]]
    if len(hosts) == 1 and "localhost" in addresses:
        return addresses["localhost"]
    raise _refusal(f"{host} is not among them: {', '.join(addresses)}")


def _check_addresses(addresses: Mapping[str, Sequence[str]]) -> None:
    seen: dict[IPv4Address | IPv6Address, str] = {}
    for host, own in addresses.items():
        for number, address in enumerate(own):
            here = f"device {number} of {host}"
            try:
                known = ip_address(address)
            except ValueError:
                raise _refusal(f"{address!r}, {here}, is no IP address") from None
            if known in seen:
                raise _refusal(f"{address} is both {seen[known]} and {here}")
            seen[known] = here


def _refusal(what: str) -> ClustersegError:
    return ClustersegError(
        f"{_KEY}: {what}",
        code="rank-table",
        help="give every host the address of each of its devices, in their order "
        "(/etc/hccn.conf has them)",
    )
