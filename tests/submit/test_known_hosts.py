"""Hosts that a job names and nobody knows are told before anything starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.submit import known_hosts
from clusterseg.submit.known_hosts import refuse_unknown_hosts, unknown_hosts
from clusterseg.submit.request import read_request
from tests.plan.plans import plan, slurm_plan

KNOWN = {"n1", "10.0.0.7"}


def resolve(name: str) -> object:
    if name == "slow":
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    if name not in KNOWN:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return name


@pytest.mark.parametrize(
    ("name", "ssh", "is_unknown"),
    [
        ("n1", "n1", False),
        ("n2", "n2", True),
        ("slow", "slow", False),  # the name server does not answer: who knows
        ("alias", "10.0.0.7", False),
        ("alias", "n9", True),
        ("behind", None, False),  # over a proxy, which knows it
    ],
)
def test_who_is_known(name: str, ssh: str | None, is_unknown: bool) -> None:
    found = unknown_hosts([name], resolve=resolve, ssh_name=lambda host: ssh)
    assert found == ([name] if is_unknown else [])


def test_a_few_are_enough_and_a_slow_name_server_is_not_waited_for() -> None:
    names = [f"m{number}" for number in range(1000)]
    assert unknown_hosts(names, resolve=resolve, ssh_name=str) == names[:4]
    assert unknown_hosts(names, resolve=resolve, ssh_name=str, patience=-1) == []


FAR = "resources: {hosts: {no-such-host.invalid: 2}, cpus_per_rank: 1}\n"


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that says no to every name but those of `KNOWN`, as some say yes to all."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, port: resolve(name))
    monkeypatch.setattr(known_hosts, "_ssh_name", str)  # nor does ~/.ssh/config


@pytest.mark.usefixtures("no_names")
def test_a_host_that_is_not_there_is_refused() -> None:
    with pytest.raises(ClustersegError, match=r"no-such-host\.invalid: no such host") as caught:
        refuse_unknown_hosts(plan(FAR), {})
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.help


@pytest.mark.usefixtures("no_names")
def test_it_is_refused_at_its_place(tmp_path: Path) -> None:
    mpirun = tmp_path / "mpi" / "bin" / "mpirun"
    (tmp_path / "mpi" / "lib").mkdir(parents=True)
    (tmp_path / "mpi" / "lib" / "libmpi.so.40").touch()
    mpirun.parent.mkdir()
    mpirun.write_text("#!/bin/sh\necho 'mpirun (Open MPI) 4.1.6'\n")
    mpirun.chmod(0o700)
    job = tmp_path / "job.yaml"
    job.write_text(f"name: x\ncommand: ['true']\nscheduler: local\n{FAR}")
    with pytest.raises(ClustersegError, match="no such host") as caught:
        read_request(job, (), {"PATH": str(mpirun.parent), "HOME": str(tmp_path)})
    assert f"--> {job}:4:13" in caught.value.render()


@pytest.mark.usefixtures("no_names")
def test_a_launcher_that_was_told_how_to_reach_hosts_knows_better() -> None:
    refuse_unknown_hosts(plan(FAR + "launcher_args: [--mca, plm_rsh_agent, /opt/agent]\n"), {})
    refuse_unknown_hosts(plan(FAR), {"HYDRA_LAUNCHER_EXEC": "/opt/agent"})
    refuse_unknown_hosts(slurm_plan(FAR), {})


@pytest.mark.usefixtures("no_names")
def test_this_host_needs_no_name_server() -> None:
    here = os.uname().nodename
    refuse_unknown_hosts(plan(f"resources: {{hosts: {{{here}: 1}}, cpus_per_rank: 1}}\n"), {})
