"""Accelerators of a host by its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterseg.cluster.devices import count_devices, device_addresses


@pytest.mark.parametrize(
    ("kind", "files", "count"),
    [
        ("cuda", ["nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"], 3),
        ("cuda", ["nvidiactl"], 0),
        ("hpu", ["accel/accel0", "accel/accel1", "accel/accel_controlD0"], 2),
        ("hpu", ["hl0", "hl_controlD0"], 1),
        ("npu", ["davinci0", "davinci7", "davinci_manager"], 2),
        ("npu", [], 0),
    ],
)
def test_devices_are_counted_by_their_files(
    kind: str, files: list[str], count: int, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert count_devices(kind, tmp_path) == count


def test_addresses_of_ascend(tmp_path: Path) -> None:
    file = tmp_path / "hccn.conf"
    assert device_addresses(file) == ()
    file.write_text(
        "address_1=10.0.0.2\nnetmask_0=255.255.255.0\naddress_0 = 10.0.0.1\n"
        "# address_2=10.0.0.3\naddress_3=10.0.0.4\n"
    )
    assert device_addresses(file) == ("10.0.0.1", "10.0.0.2")
