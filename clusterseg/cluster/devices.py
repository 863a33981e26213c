"""Accelerators of this host, as far as its files and variables tell: no driver is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

# By kind the device files of its drivers, the newer ones first.
_FILES: Mapping[str, tuple[str, ...]] = {
    "cuda": ("nvidia[0-9]*",),
    "hpu": ("accel/accel[0-9]*", "hl[0-9]*"),
    "npu": ("davinci[0-9]*",),
}
_ADDRESS = re.compile(r"\s*address_(\d+)\s*=\s*(\S+)\s*")


def count_devices(kind: str, folder: Path = Path("/dev")) -> int:
    """How many accelerators of a kind the host shows by its device files."""
    for pattern in _FILES[kind]:
        found = [file for file in folder.glob(pattern) if file.name[-1:].isdigit()]
        if found:
            return len(found)
    return 0


def device_addresses(file: Path = Path("/etc/hccn.conf")) -> tuple[str, ...]:
    """The addresses of this host's Ascend devices, from device 0 on; none without the file.

    The file has a line `address_0=192.168.100.101` for each; those after a gap are left out.
    """
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = {int(line[1]): line[2] for line in map(_ADDRESS.fullmatch, lines) if line}
    addresses: list[str] = []
    while (address := found.get(len(addresses))) is not None:
        addresses.append(address)
    return tuple(addresses)
