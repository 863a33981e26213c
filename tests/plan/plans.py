"""Plans for a machine that tests describe: no path or host of the real one is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clusterseg.plan.dialect import Dialect
from clusterseg.plan.dialect_reader import read_dialect
from clusterseg.plan.model import Host, LauncherPair, Plan
from clusterseg.plan.planner import make_plan
from clusterseg.plan.site import Site, read_site
from clusterseg.plan.slurm_plan import symbolic_hosts
from clusterseg.plan.wrapped import Inner
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
    "mpich": LauncherPair(
        name="mpich",
        version="4.3.2",
        program="/opt/mpich/bin/mpiexec",
        libmpi="/opt/mpich/lib/libmpi.so.12",
        where="on PATH",
    ),
    "intelmpi": LauncherPair(
        name="intelmpi",
        version="2021.18.1",
        program="/opt/intel/bin/mpiexec",
        libmpi="/opt/intel/lib/libmpi.so.12",
        where="on PATH",
    ),
    "spectrum": LauncherPair(
        name="spectrum",
        version="10.4.0.03",
        program="/opt/ibm/spectrum_mpi/bin/mpirun",
        libmpi="/opt/ibm/spectrum_mpi/lib/libmpi_ibm.so.3",
        where="on PATH",
    ),
    "horovodrun": LauncherPair(
        name="horovodrun",
        version="0.28.1",
        program="/home/ada/env/bin/horovodrun",
        libmpi="/home/ada/env/lib/libmpi.so.40",
        where="beside this Python",
    ),
    "srun": LauncherPair(
        name="srun",
        version="23.02.7",
        program="/usr/bin/srun",
        libmpi="/home/ada/env/lib/libmpi.so.40",
        mpi="pmix",
    ),
    "local": LauncherPair(name="local", version="", program=""),
}
SITE = """
title: Example
partitions:
  cpu: {max_time: 1-00, max_nodes: 8, cores: 32, sockets: 2, memory: 240G}
  ht: {cores: 16, threads_per_core: 2}
  gpu: {cores: 32, gpus: 4, qos: fast, account: gpus}
  spot: {cores: 32, preemptible: true}
  told: {cores: 32, preemptible: true, notice: true}
default_partition: cpu
account: abc
"""
TEMPLATE = (shipped_folder("slurm") / "batch.sh.j2").read_text()


def job(text: str = "", *, environ: dict[str, str] | None = None) -> JobSpec:
    """A job that runs a command, with further keys as YAML text."""
    head = "name: demo\n"
    if "command:" not in text and "train:" not in text:
        head += "command: [python, fit.py]\n"
    return parse_job(head + text, "job.yaml", environ=environ or {}).spec


def shipped(name: str) -> Dialect:
    file = shipped_folder("launchers") / f"{name}.yaml"
    return read_dialect(name, file.read_text(), str(file))


def site(text: str = SITE, name: str = "example") -> Site:
    return read_site(name, text, f"{name}.yaml", {})


def slurm_plan(
    spec: JobSpec | str = "", launcher: str = "srun", at: Site | None = None, **other: Any
) -> Plan:
    """A plan for Slurm at `at`, else at the site of `SITE`."""
    read = job(spec) if isinstance(spec, str) else spec
    at = at or site()
    hosts = symbolic_hosts(read, at)
    return plan(read, launcher, hosts=hosts, site=at, template=TEMPLATE, **other)


def inner(launcher: str) -> Inner:
    """What horovodrun is to call."""
    return Inner(shipped(launcher), PAIRS[launcher])


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
