"""Which accelerators of its host a rank may see: dealt out by local rank. Pure.

Ranks learn what is to be dealt out by one variable, CLUSTERSEG_DEVICES: `cuda:2` are two each of
those that the host shows, `cuda` says that somebody else has set them already. Not tried on real
accelerators.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from clusterseg.errors import ClustersegError

DEVICES = "CLUSTERSEG_DEVICES"
# By kind the variable that limits what a process sees, and that a host, a container or a site may
# have set already. CUDA programming guide, "CUDA Environment Variables"; Habana's "Runtime
# Environment Variables"; CANN's "Environment Variables".
VISIBLE: Mapping[str, str] = {
    "cuda": "CUDA_VISIBLE_DEVICES",
    "hpu": "HABANA_VISIBLE_MODULES",
    "npu": "ASCEND_RT_VISIBLE_DEVICES",
}
# What a process of Ascend is told instead: its device by an older and a newer name, who it is, and
# the table of all ranks.
RANK_TABLE = "RANK_TABLE_FILE"
_ASCEND = ("DEVICE_ID", "ASCEND_DEVICE_ID", "RANK_ID", "RANK_SIZE")
_NONE = ("", "NoDevFiles", "none", "void")  # how Slurm and container tools write that there is none


def device_words(kind: str, count: int, own: Collection[str], *, given: bool) -> dict[str, str]:
    """What tells the ranks of a job about their accelerators, `count` each.

    `own` are the variables that the job itself sets for its ranks, `given` that the launcher gives
    them theirs: then nothing is dealt out. Raises ClustersegError (`devices`) for a number that
    can't be.
    """
    if kind == "none" or count == 0:
        return {}
    names = (VISIBLE[kind], *(_ASCEND if kind == "npu" else ()))
    if given or not set(names).isdisjoint(own):
        return {DEVICES: kind}
    if kind == "npu" and count > 1:
        raise ClustersegError(
            f"resources.accelerators_per_rank: {count}, but a process of Ascend has one NPU",
            code="devices",
            help="ask for more ranks with one each",
        )
    return {DEVICES: f"{kind}:{count}"}


def device_warnings(kind: str, count: int | None) -> list[str]:
    """What a person should know of a number of accelerators of which there is no kind."""
    if kind != "none" or not count:
        return []
    return [
        f"resources.accelerators_per_rank: {count} says nothing without resources.accelerator, "
        "their kind: ranks get none"
    ]


def listed_devices(value: str) -> list[str]:
    """The devices that a variable such as CUDA_VISIBLE_DEVICES names: numbers or UUIDs.

    As CUDA reads it, what follows a negative number is not seen. Raises ClustersegError
    (`devices`) for one that is named twice, by which two ranks would share it.
    """
    names: list[str] = []
    if value.strip() in _NONE:
        return names
    for name in (part.strip() for part in value.split(",")):
        if not name or name.startswith("-"):
            break
        if name in names:
            raise ClustersegError(
                f"the visible accelerators {value!r} name {name} twice", code="devices"
            )
        names.append(name)
    return names


def seen_devices(kind: str, environ: Mapping[str, str], files: int) -> tuple[list[str], str]:
    """The devices that a process with these variables may deal out, and how that is known.

    `files` is how many device files its host has: all of them are seen where no variable says
    otherwise. Devices of Ascend are numbered from 0 among those that are seen.
    """
    value = environ.get(VISIBLE[kind])
    if value is None:
        return [str(number) for number in range(files)], f"{files} device files in /dev"
    names = listed_devices(value)
    if kind == "npu":
        names = [str(number) for number in range(len(names))]
    return names, f"{VISIBLE[kind]}={value}"


def own_devices(
    visible: Sequence[str], count: int, local_rank: int, *, kind: str, where: str
) -> tuple[str, ...]:
    """The `count` devices of a rank, of those that its host shows; `where` says how that is known.

    Raises ClustersegError (`devices`) if there are too few.
    """
    first, end = local_rank * count, (local_rank + 1) * count
    if end > len(visible):
        raise ClustersegError(
            f"local rank {local_rank} is to have {_these(first, end)} of kind {kind}, counted from "
            f"0, but there are {len(visible)} ({where})",
            code="devices",
            help=f"ask for fewer ranks on a host or fewer accelerators_per_rank, or name those "
            f"that are there in {VISIBLE[kind]}",
        )
    return tuple(visible[first:end])


def device_variables(
    kind: str, devices: Sequence[str], rank: int, world_size: int, table: str | None
) -> dict[str, str]:
    """The variables by which a rank sees its `devices` and no others; `table` is the path of the
    rank table, None where there is none."""
    if kind != "npu":
        return {VISIBLE[kind]: ",".join(devices)}
    return {
        "DEVICE_ID": devices[0],
        "ASCEND_DEVICE_ID": devices[0],
        "RANK_ID": str(rank),
        "RANK_SIZE": str(world_size),
        **({RANK_TABLE: table} if table is not None else {}),
    }


def _these(first: int, end: int) -> str:
    return f"accelerator {first}" if end - first == 1 else f"accelerators {first} to {end - 1}"
