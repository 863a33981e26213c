"""Who may import whom: the table of docs/architecture.md, and what the light commands load."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent

# Libraries of the ranks and of `collect --plot`: seconds of start-up, and useless on a login node.
HEAVY = {"tensorflow", "keras", "numpy", "mpi4py", "horovod", "matplotlib", "submitit"}
# Typer carries its own click; the PyPI one would be loaded beside it, at the same cost again.
DOUBLE = {"click"}

RUN = """
import atexit, json, sys
out = sys.argv.pop(1)
atexit.register(lambda: open(out, "w").write(json.dumps(sorted(sys.modules))))
from clusterseg.cli.main import main
main(sys.argv[1:])
"""

JOB = """
name: rooms
command: ["true"]
resources: {nodes: 1, ranks_per_node: 1, cpus_per_rank: 1}
placement: {bind_to: none, oversubscribe: true}
scheduler: local
"""


def test_the_rooms_import_only_what_the_table_names() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_stands_in_the_contracts() -> None:
    rooms = {
        f"clusterseg.{folder.parent.name}" for folder in (TOP / "clusterseg").glob("*/__init__.py")
    }
    config = tomllib.loads((TOP / "pyproject.toml").read_text())
    contracts = {c["id"]: c for c in config["tool"]["importlinter"]["contracts"]}
    assert rooms == set(contracts["top"]["forbidden_modules"])
    bound = {room for c in contracts.values() for room in c["source_modules"]}
    assert rooms <= bound | {"clusterseg.cli"}


def modules_loaded_by(arguments: list[str], folder: Path) -> tuple[set[str], str]:
    """Top-level modules that `clusterseg ARGUMENTS` loads, and what it printed."""
    out = folder / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(out), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"clusterseg {arguments}: {done.stdout}{done.stderr}"
    return {name.partition(".")[0] for name in json.loads(out.read_text())}, done.stdout


@pytest.fixture
def job(tmp_path: Path) -> str:
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    return str(file)


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["schema"], ["list"]])
def test_commands_without_a_run_stay_light(
    command: list[str], tmp_path: Path, runs_dir: Path
) -> None:
    loaded, _ = modules_loaded_by(command, tmp_path)
    assert not loaded & (HEAVY | DOUBLE)
    assert "clusterseg" in loaded


@pytest.mark.parametrize("command", ["check", "render"])
def test_planning_stays_light(command: str, job: str, tmp_path: Path) -> None:
    loaded, _ = modules_loaded_by([command, job], tmp_path)
    assert not loaded & (HEAVY | DOUBLE)


def test_looking_at_the_machine_stays_light(tmp_path: Path) -> None:
    loaded, _ = modules_loaded_by(["doctor", "--no-ranks", "--json"], tmp_path)
    assert not loaded & (HEAVY | DOUBLE)


@pytest.mark.slow
def test_asking_ranks_loads_none_of_their_libraries(tmp_path: Path) -> None:
    """What two ranks load (mpi4py, TensorFlow with Horovod) they load for themselves."""
    loaded, printed = modules_loaded_by(["doctor", "--json"], tmp_path)
    assert json.loads(printed)["works"]
    assert not loaded & (HEAVY | DOUBLE)


@pytest.mark.slow
def test_submitting_and_looking_stay_light(job: str, tmp_path: Path, runs_dir: Path) -> None:
    loaded, printed = modules_loaded_by(["submit", job, "--json"], tmp_path)
    assert not loaded & (HEAVY | DOUBLE)
    run = json.loads(printed)["run"]
    for command in (["wait", run], ["status", run], ["logs", run], ["list", "--json"]):
        loaded, _ = modules_loaded_by(command, tmp_path)
        assert not loaded & (HEAVY | DOUBLE), command


def test_the_demo_is_planned_without_the_libraries_of_the_ranks(tmp_path: Path) -> None:
    """The table of known models and losses is read without the models and losses."""
    loaded, _ = modules_loaded_by(["render", str(TOP / "jobs" / "demo.yaml"), "--json"], tmp_path)
    assert not loaded & (HEAVY | DOUBLE)
