"""The wrapper of a `command:` rank: log, variables, first event, and the program's own end."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import AttemptPaths, RunPaths
from clusterseg.runs.records import RankStart

MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptPaths:
    paths = RunPaths(tmp_path / "run").attempt(7)
    paths.ranks.mkdir(parents=True)
    return paths


def start(attempt: AttemptPaths, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    root = attempt.folder.parent.parent
    variables = {**os.environ, **MPI, "CLUSTERSEG_ATTEMPT": "7", **environ}
    return subprocess.run(
        [sys.executable, "-m", "clusterseg.cli.main", "train", str(root), "--", *argv],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_program_gets_its_words_variables_and_log(attempt: AttemptPaths) -> None:
    script = (
        'printf "%s|" "$@"; echo "$CLUSTERSEG_RANK $CLUSTERSEG_LOCAL_RANK $CLUSTERSEG_WORLD_SIZE"'
    )
    script += "; echo oops >&2"
    done = start(attempt, "sh", "-c", script, "me", "a b", "--", "--json", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert attempt.log(3).read_text() == "a b|--|--json||3 1 4\noops\n"
    assert stat.S_IMODE(attempt.log(3).stat().st_mode) == 0o600
    (event,) = iter_events(attempt.events(3))
    assert isinstance(event, RankStart)
    assert (event.rank, event.world_size, event.local_rank, event.attempt) == (3, 4, 1, 7)
    assert event.cpus == sorted(os.sched_getaffinity(0))
    assert event.pid > 0


@pytest.mark.parametrize(
    ("script", "code"), [("exit 75", 75), ("exit 3", 3), ("kill -9 $$", -9), ("kill -TERM $$", -15)]
)
def test_exit_codes_and_signals_pass_through(script: str, code: int, attempt: AttemptPaths) -> None:
    assert start(attempt, "sh", "-c", script).returncode == code


def test_signals_reach_the_program_itself(attempt: AttemptPaths) -> None:
    """The process is the program: nobody stands between the launcher and it."""
    done = start(attempt, "sh", "-c", "echo $$")
    assert done.returncode == 0
    (event,) = iter_events(attempt.events(3))
    assert isinstance(event, RankStart)
    assert attempt.log(3).read_text() == f"{event.pid}\n"


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [("/no/such/program", 127, "No such file"), ("/etc/passwd", 126, "Permission denied")],
)
def test_a_program_that_can_not_be_started(
    program: str, code: int, why: str, attempt: AttemptPaths
) -> None:
    assert start(attempt, program).returncode == code
    text = attempt.log(3).read_text()
    assert program in text
    assert why in text
    assert "Traceback" not in text


def test_without_an_attempt_it_says_what_to_do(attempt: AttemptPaths) -> None:
    done = start(attempt, "true", CLUSTERSEG_ATTEMPT="")
    assert done.returncode == 2
    assert "clusterseg submit" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_heavy_library_is_loaded(attempt: AttemptPaths) -> None:
    """A thousand ranks start this way, from one file server."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "os.execvpe = lambda *words: os._exit(\n"
        "    len({'tensorflow', 'numpy', 'mpi4py', 'rich', 'jinja2'} & set(sys.modules)))\n"
        "from clusterseg.cli.main import main\n"
        "main(['train', sys.argv[1], '--', 'true'])"
    )
    root = attempt.folder.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)],
        env={**os.environ, **MPI, "CLUSTERSEG_ATTEMPT": "7"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
