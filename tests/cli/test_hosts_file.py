"""`--hosts FILE`: the hosts of a job from a file that an MPI reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.errors import ExitCode
from clusterseg.runs import store
from tests.cli.conftest import Done

Cli = Callable[..., Done]
HERE = os.uname().nodename
COMMANDS = (["check"], ["render"], ["submit"], ["sweep", "--over", "notes=a,b"], ["lr-find"])


@pytest.fixture
def job(tmp_path: Path, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: tiny\ncommand: ['true']\nscheduler: local\nresources: {cpus_per_rank: 1}\n"
        "placement: {oversubscribe: true}\n"
    )
    return path


def test_check_and_render_take_the_hosts_of_a_file(cli: Cli, job: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"# two\n{HERE} slots=2\n")
    checked = cli("check", job, "--hosts", hosts, "--json")
    assert checked.json["geometry"]["hosts"] == {HERE: 2}
    rendered = cli("render", job, "--hosts", hosts, "--json")
    assert rendered.json["hosts"] == {HERE: 2}
    other = f"resources.hosts={HERE}:3"
    assert (
        cli("check", job, "--hosts", hosts, "--set", other, "--json").json["geometry"]["ranks"] == 3
    )


def test_hosts_may_be_called_by_numbers(cli: Cli, job: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("1 slots=2\n2 slots=2\n")
    other = "launcher_args=[--mca, plm_rsh_agent, my-ssh]"  # who knows these hosts
    checked = cli("check", job, "--hosts", hosts, "--set", other, "--json")
    assert checked.json["geometry"]["hosts"] == {"1": 2, "2": 2}


def test_a_mistake_in_the_file_is_told_with_its_place(cli: Cli, job: Path, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("n1:2\nn2:many\n")
    for command in COMMANDS:
        done = cli(*command, job, "--hosts", hosts)
        assert done.code == ExitCode.USAGE
        assert f"--> {hosts}:2:4" in done.err
    assert cli("check", job, "--hosts", tmp_path / "none").code == ExitCode.USAGE


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_every_command_that_plans_a_job_plans_it_for_these_hosts(
    cli: Cli, job: Path, tmp_path: Path, command: list[str]
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{HERE} slots=1\n")
    done = cli(*command, job, "--hosts", hosts, "--set", "resources.ranks=3")
    assert done.code == ExitCode.USAGE
    assert f"hosts gives {HERE} 1 rank, but ranks = 3" in done.err


@pytest.mark.slow
def test_the_run_keeps_the_hosts(cli: Cli, job: Path, tmp_path: Path, runs_dir: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{HERE} slots=1\n")
    done = cli("submit", job, "--hosts", hosts, "--set", "launcher=local", "--wait")
    assert done.code == 0, done.err
    (run,) = store.find_runs(runs_dir)
    assert f"resources.hosts={HERE}:1" in run.submission(0).job_yaml.read_text()
    hosts.unlink()
    intent = store.read_intent(run.submission(0))
    assert intent is not None
    assert intent.overrides[0] == f"resources.hosts={HERE}:1"
