"""Plans for a machine that tests describe: no path or host of the real one is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterseg.plan.dialect import Dialect
from clusterseg.plan.dialect_reader import read_dialect
from clusterseg.plan.model import Host, LauncherPair, Plan
from clusterseg.plan.planner import make_plan
from clusterseg.shipped import shipped_folder
from clusterseg.spec.model import JobSpec
from clusterseg.spec.reader import parse_job

HERE = Host(name="login1", cores=32, sockets=2, numa_nodes=2, here=True)
PAIRS = {
    "openmpi4": LauncherPair(
        name="openmpi4",
        version="4.1.8",
        program="/opt/ompi4/bin/mpirun",
        libmpi="/opt/ompi4/lib/libmpi.so.40",
        where="on PATH",
    ),
    "openmpi5": LauncherPair(
        name="openmpi5",
        version="5.0.11",
        program="/home/ada/env/bin/mpirun",
        libmpi="/home/ada/env/lib/libmpi.so.40",
        where="beside this Python",
    ),
    "local": LauncherPair(name="local", version="", program=""),
}


def job(text: str = "", *, environ: dict[str, str] | None = None) -> JobSpec:
    """A job that runs a command, with further keys as YAML text."""
    head = "name: demo\n"
    if "command:" not in text and "train:" not in text:
        head += "command: [python, fit.py]\n"
    return parse_job(head + text, "job.yaml", environ=environ or {}).spec


def shipped(name: str) -> Dialect:
    file = shipped_folder("launchers") / f"{name}.yaml"
    return read_dialect(name, file.read_text(), str(file))


def plan(
    spec: JobSpec | str = "",
    launcher: str = "openmpi5",
    *,
    hosts: Sequence[Host] = (HERE,),
    **other: Any,
) -> Plan:
    return make_plan(
        job(spec) if isinstance(spec, str) else spec,
        **{
            "dialect": shipped(launcher),
            "pair": PAIRS[launcher],
            "hosts": hosts,
            "program": ("/home/ada/env/bin/clusterseg",),
            "as_root": False,
            "directory": "/home/ada/camvid",
            **other,
        },
    )
