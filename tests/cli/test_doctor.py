"""`clusterseg doctor`: what is here, whether it works, and what is taken."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clusterseg.cli.main import app
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.submit import two_ranks
from clusterseg.submit.doctor import examine
from clusterseg.submit.two_ranks import ask_mpi4py

BESIDE = Path(sys.executable).parent
embedded = pytest.mark.skipif(
    not (BESIDE / "mpirun").exists(), reason="no mpirun beside this Python"
)
OPEN_MPI = "mpirun (Open MPI) 5.0.11"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Slurm, whose PATH is one folder; what is beside this Python stays."""
    folder = tmp_path / "opt" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CLUSTERSEG_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SLURM_CONF", "/nowhere/slurm.conf")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return folder


@pytest.fixture(autouse=True)
def _without_horovod(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that load TensorFlow take their time: only a test that is about them starts them."""
    if request.node.get_closest_marker("horovod") is None:
        monkeypatch.setattr("clusterseg.submit.doctor._questions", lambda _: [ask_mpi4py])


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is beside this Python, which the ranks still run."""
    monkeypatch.setattr(two_ranks, "RANK_PYTHON", sys.executable)
    monkeypatch.setattr("sys.executable", str(tmp_path / "env" / "bin" / "python"))


def install(folder: Path, does: str, says: str = OPEN_MPI) -> Path:
    """An mpirun that says what it is, and does what a test wants with what it is given."""
    program = folder / "mpirun"
    program.write_text(
        f"#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{says}'; exit; fi\n{does}\n"
    )
    program.chmod(0o700)
    if not (folder.parent / "lib").exists():
        # Ranks can load it; it is a real one.
        (folder.parent / "lib").symlink_to(BESIDE.parent / "lib")
    return program


# Drops the launcher's own flags, then starts the ranks without telling them of each other.
SINGLETONS = """
while [ "${1#*python}" = "$1" ]; do shift; done
"$@" & "$@"; wait
"""


def doctor(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def as_json(*arguments: str) -> tuple[int, dict[str, Any]]:
    code, output = doctor("--json", *arguments)
    return code, json.loads(output)


def row(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in report["launchers"] if one["name"] == name)


@embedded
@pytest.mark.slow
def test_the_embedded_mpi_is_proved_by_two_ranks() -> None:
    code, report = as_json()
    assert code == 0
    assert report["works"]
    seen = row(report, "openmpi5")
    assert seen["program"] == str(BESIDE / "mpirun")
    assert (seen["two_ranks"]["size"], seen["two_ranks"]["problem"]) == (2, None)
    assert seen["two_ranks"]["library"] == f"Open MPI v{seen['version']}"
    (loaded,) = seen["two_ranks"]["loaded"]
    assert Path(loaded).samefile(seen["libmpi"])
    assert report["chosen"]["launcher"] == "openmpi5"
    assert report["chosen"]["why"] == "it is the first MPI that is found, beside this Python"


@embedded
@pytest.mark.slow
@pytest.mark.horovod
def test_horovod_is_proved_by_two_ranks_too() -> None:
    code, report = as_json()
    seen = row(report, "openmpi5")
    assert code == 0
    assert seen["horovod_built"]
    assert (seen["horovod"]["size"], seen["horovod"]["problem"]) == (2, None)
    assert seen["horovod"]["library"] == f"Horovod {report['packages']['horovod']}"
    (loaded,) = seen["horovod"]["loaded"]
    assert Path(loaded).samefile(seen["libmpi"]), "of mpi4py and Horovod alike"
    _, shown = doctor("--no-ranks")
    assert f"horovod: {report['packages']['horovod']}, built for TensorFlow" in shown


@embedded
@pytest.mark.slow
def test_two_ranks_are_started_on_one_core() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        code, report = as_json()
    finally:
        os.sched_setaffinity(0, allowed)
    assert report["topology"]["cpus"] == [min(allowed)]
    assert report["topology"]["host"]["cores"] == 1
    assert (code, row(report, "openmpi5")["two_ranks"]["problem"]) == (0, None)


@embedded
@pytest.mark.slow
def test_an_outer_job_does_not_reach_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the allocation of a job, doctor starts its ranks here, and as ranks of nobody else."""
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_NODELIST", "n[1-4]")
    monkeypatch.setenv("SLURM_TASKS_PER_NODE", "1(x4)")
    monkeypatch.setenv("PMIX_RANK", "3")
    monkeypatch.setenv("OPAL_PREFIX", "/nowhere")
    code, report = as_json()
    assert (code, row(report, "openmpi5")["two_ranks"]["problem"]) == (0, None)


@embedded
@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_ranks_that_never_meet_make_it_fail(machine: Path) -> None:
    """Each of them ends with 0; only their world is too small."""
    install(machine, SINGLETONS)
    code, report = as_json()
    seen = row(report, "openmpi5")
    assert (code, report["works"]) == (3, False)
    assert seen["two_ranks"]["size"] == 1
    assert "each rank is alone" in seen["two_ranks"]["problem"]
    code, shown = doctor()
    assert code == 3
    assert "disagree" in shown
    assert "is taken by launcher: auto, but its ranks disagree; no launcher here works" in shown


@embedded
@pytest.mark.slow
def test_one_that_works_is_enough_and_named(machine: Path) -> None:
    """The first on PATH would be taken, and does not work: said, with what to do."""
    install(machine, "echo 'no route to host, error'; exit 4", "mpirun (Open MPI) 4.1.6")
    code, shown = doctor()
    assert code == 0
    assert "openmpi4 4.1.6: two ranks ended with exit code 4" in shown
    assert "it says: no route to host, error" in shown
    warning = "warning: openmpi4 4.1.6 is taken by launcher: auto, but its ranks disagree; "
    assert f"{warning}give launcher: openmpi5" in shown
    assert shown.splitlines()[-1].startswith("launcher: auto takes openmpi4 4.1.6 (")


@embedded
@pytest.mark.usefixtures("alone")
def test_a_launcher_that_hangs_is_given_up(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, "/bin/sleep 60 & wait")
    monkeypatch.setattr(two_ranks, "MPI4PY_PATIENCE", 0.5)
    code, report = as_json()
    problem = row(report, "openmpi5")["two_ranks"]["problem"]
    assert code == 3
    assert "had not ended after 0.5 s, and were killed" in problem


@embedded
@pytest.mark.usefixtures("alone")
def test_no_ranks_starts_none(machine: Path) -> None:
    install(machine, f"touch {machine}/started")
    code, report = as_json("--no-ranks")
    assert (code, report["works"]) == (0, True)
    assert row(report, "openmpi5")["two_ranks"] is None
    assert not (machine / "started").exists()
    assert "not asked" in doctor("--no-ranks")[1]


@pytest.mark.usefixtures("alone")
def test_without_a_launcher_it_fails_and_says_what_was_seen(machine: Path) -> None:
    for arguments in ((), ("--no-ranks",)):
        code, report = as_json(*arguments)
        assert (code, report["works"]) == (3, False)
        assert [seen["name"] for seen in report["launchers"]] == ["local"]
    install(machine, "", "Some MPI 9")
    code, report = as_json()
    assert code == 3
    (unusable,) = report["unusable"]
    assert unusable["program"] == str(machine / "mpirun")
    assert "Some MPI 9" in unusable["reason"]
    code, shown = doctor()
    assert f"not usable: {machine}/mpirun (on PATH) says 'Some MPI 9'" in shown
    assert "launcher: auto takes none: no " in shown
    assert shown.splitlines()[-1].startswith("help: load or install an MPI")


@embedded
@pytest.mark.usefixtures("alone")
def test_slurm_is_shown_with_what_srun_speaks(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=tall\n")
    srun = machine / "srun"
    srun.write_text(
        "#!/bin/sh\ncase $1 in\n--version) echo slurm 23.02.7;;\n"
        "--mpi=list) printf 'MPI plugin types are...\\n\\tnone\\n\\tpmix\\n'\n"
        "echo 'specific pmix plugin versions available: pmix_v4';;\nesac\n"
    )
    srun.chmod(0o700)
    (machine / "sbatch").symlink_to(srun)
    install(machine, "exit 1")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    _, report = as_json("--no-ranks")
    seen = row(report, "srun")
    assert seen["speaks"] == ["none", "pmix", "pmix_v4"]
    assert seen["two_ranks"] is None
    assert report["slurm"]["version"] == "23.02.7"
    assert (report["slurm"]["cluster"], report["slurm"]["site"]) == ("tall", "generic")
    assert report["chosen"]["scheduler"] == "slurm"
    assert report["chosen"]["launcher"] == "srun"
    _, shown = doctor("--no-ranks")
    assert "srun --mpi: none, pmix, pmix_v4" in shown
    assert f"slurm: 23.02.7, cluster tall ({tmp_path}/slurm.conf), site generic" in shown
    assert shown.splitlines()[-1].endswith(
        "because this is a job of Slurm, whose srun speaks pmix with Open MPI 5.0.11"
    )


def test_this_host_and_this_python_are_told() -> None:
    _, report = as_json("--no-ranks")
    assert report["topology"]["cpus"] == sorted(os.sched_getaffinity(0))
    assert report["topology"]["online"] == os.cpu_count()
    assert report["packages"]["executable"] == sys.executable
    assert report["packages"]["mpi4py"].startswith("4.")
    _, shown = doctor("--no-ranks")
    assert f"may use {len(os.sched_getaffinity(0))} of {os.cpu_count()} CPU" in shown


@pytest.mark.usefixtures("alone")
def test_what_a_launcher_says_can_not_drive_the_terminal(machine: Path) -> None:
    install(machine, "", "Evil \\033[2J MPI")
    assert "\x1b" not in doctor("--no-ranks")[1]


@pytest.mark.usefixtures("alone")
def test_a_definition_with_mistakes_is_refused_as_for_a_job(tmp_path: Path) -> None:
    folder = tmp_path / "config" / "launchers"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("title: Mine\nprogramme: mpirun\n")
    result = CliRunner().invoke(app, ["doctor", "--no-ranks"])
    assert isinstance(result.exception, ClustersegError)
    assert result.exception.exit_code == ExitCode.USAGE
    assert "programme" in str(result.exception)


@pytest.mark.usefixtures("alone")
def test_a_users_own_launcher_is_asked_as_any_other(machine: Path, tmp_path: Path) -> None:
    """Whatever its flags are: the ranks are started by its definition."""
    folder = tmp_path / "config" / "launchers"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "title: Mine\nprogram: minerun\ndetect: {pattern: 'Mine ([0-9]+)'}\n"
        "libmpi: [lib/libmpi.so]\nmap: {numa: domain}\n"
        "flags: {ranks: [--count, '{ranks}'], bind_none: [--by, '{map}']}\n"
    )
    (machine.parent / "lib").mkdir()
    (machine.parent / "lib" / "libmpi.so").touch()
    program = machine / "minerun"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo Mine 7 && exit\necho "$*" > {machine}/asked\n'
    )
    program.chmod(0o700)
    report = examine(os.environ, start_ranks=True)
    (mine,) = [seen for seen in report.launchers if seen.name == "mine"]
    assert mine.two_ranks is not None
    assert "0 of two ranks answered" in (mine.two_ranks.problem or "")
    assert (machine / "asked").read_text().startswith("--by domain --count 2 ")
