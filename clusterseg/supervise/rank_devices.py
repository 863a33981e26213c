"""The accelerators of one rank: what it is to see, as the plan and its host have it."""

from __future__ import annotations

from collections.abc import Mapping

from clusterseg.cluster.devices import count_devices
from clusterseg.plan.devices import (
    DEVICES,
    VISIBLE,
    device_variables,
    own_devices,
    seen_devices,
)
from clusterseg.runs.paths import AttemptPaths
from clusterseg.runs.rank_files import RankDevices, RankPlace


def rank_devices(
    attempt: AttemptPaths, place: RankPlace, environ: Mapping[str, str]
) -> RankDevices:
    """Raises ClustersegError (`devices`) where the host shows too few."""
    kind, _, count = environ.get(DEVICES, "").partition(":")
    if kind not in VISIBLE:
        return RankDevices()
    if not (count.isascii() and count.isdigit()):  # the launcher or the job has set them
        return RankDevices(kind, environ.get("DEVICE_ID" if kind == "npu" else VISIBLE[kind], ""))
    visible, where = seen_devices(kind, environ, count_devices(kind))
    devices = own_devices(visible, int(count), place.local_rank, kind=kind, where=where)
    table = str(attempt.rank_table) if attempt.rank_table.exists() else None
    variables = device_variables(kind, devices, place.rank, place.world_size, table)
    return RankDevices(kind, ",".join(devices), variables)
