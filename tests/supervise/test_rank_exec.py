"""The wrapper of a `command:` rank: log, variables, first event, and the program's own end."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clusterseg.cluster.processes import process_state
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import AttemptPaths, RunPaths
from clusterseg.runs.records import RankEnd, RankStart

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


def line(attempt: AttemptPaths, *argv: str, watched: bool = False) -> list[str]:
    root = str(attempt.folder.parent.parent)
    more = ["--watched"] if watched else []
    return [sys.executable, "-m", "clusterseg.cli.main", "train", *more, root, "--", *argv]


def start(
    attempt: AttemptPaths, *argv: str, watched: bool = False, **environ: str
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **MPI, "CLUSTERSEG_ATTEMPT": "7", **environ}
    return subprocess.run(
        line(attempt, *argv, watched=watched),
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


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize(
    ("script", "code"), [("exit 75", 75), ("exit 3", 3), ("kill -9 $$", -9), ("kill -TERM $$", -15)]
)
def test_exit_codes_and_signals_pass_through(
    script: str, code: int, watched: bool, attempt: AttemptPaths
) -> None:
    assert start(attempt, "sh", "-c", script, watched=watched).returncode == code


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        ("exit 0", None, None),
        ("exit 75", "stopped", None),
        ("exit 3", "failed", "the program ended with exit code 3"),
        ("kill -9 $$", "failed", "the program ended with signal 9"),
    ],
)
def test_a_watched_program_that_is_not_done_is_written_down(
    script: str, status: str | None, error: str | None, attempt: AttemptPaths
) -> None:
    start(attempt, "sh", "-c", script, watched=True)
    _, *ends = iter_events(attempt.events(3))
    if status is None:
        assert not ends
    else:
        (end,) = ends
        assert isinstance(end, RankEnd)
        assert (end.rank, end.status, end.error) == (3, status, error)


@pytest.mark.parametrize("watched", [False, True])
def test_the_program_has_its_launchers_connection(watched: bool, attempt: AttemptPaths) -> None:
    """Hydra's is a descriptor whose number PMI_FD says, without which MPI_Init fails."""
    reading, writing = os.pipe()
    words = line(
        attempt, "sh", "-c", 'echo "over $PMI_FD" > "/proc/self/fd/$PMI_FD"', watched=watched
    )
    variables = {**os.environ, **MPI, "CLUSTERSEG_ATTEMPT": "7", "PMI_FD": str(writing)}
    subprocess.run(words, env=variables, pass_fds=[writing], check=True, timeout=60)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read() == f"over {writing}\n"


def test_what_a_watched_program_says_of_its_end_itself_stands(attempt: AttemptPaths) -> None:
    own = '{"kind":"rank_end","t":1.0,"rank":3,"status":"failed","step":8,"error":"no data"}'
    script = 'echo "$1" >> "$0"; exit 3'
    start(attempt, "sh", "-c", script, str(attempt.events(3)), own, watched=True)
    _, *ends = iter_events(attempt.events(3))
    assert [end.error for end in ends if isinstance(end, RankEnd)] == ["no data"]


def test_a_watched_program_hears_every_signal_once(attempt: AttemptPaths) -> None:
    program = """
import os, signal, sys
heard = []
numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGALRM, signal.SIGINT)
for number in numbers:
    signal.signal(number, lambda number, frame: heard.append(int(number)))
signal.signal(signal.SIGTERM, lambda *_: (print(sorted(heard)), sys.exit(4)))
os.mkdir(sys.argv[1])
while True: signal.pause()
"""
    ready = attempt.folder / "ready"
    words = line(attempt, sys.executable, "-c", program, str(ready), watched=True)
    sent = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGALRM, signal.SIGINT]
    with subprocess.Popen(words, env={**os.environ, **MPI, "CLUSTERSEG_ATTEMPT": "7"}) as process:
        while not ready.exists():
            assert process.poll() is None
            time.sleep(0.02)
        for number in (*sent, signal.SIGTERM):
            process.send_signal(number)
            time.sleep(0.1)
        assert process.wait(30) == 4
    assert attempt.log(3).read_text() == f"{sorted(map(int, sent))}\n"
    (event,) = iter_events(attempt.events(3))  # it was told to end: that is no failure of its own
    assert isinstance(event, RankStart)


def test_a_killed_wrapper_takes_its_program_along(attempt: AttemptPaths) -> None:
    words = line(attempt, "sh", "-c", "echo $$; exec sleep 600", watched=True)
    with subprocess.Popen(words, env={**os.environ, **MPI, "CLUSTERSEG_ATTEMPT": "7"}) as process:
        while not (attempt.log(3).exists() and attempt.log(3).read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        pid = int(attempt.log(3).read_text())
        process.kill()
    until = time.monotonic() + 10
    while process_state(pid) not in "Z gone":
        assert time.monotonic() < until
        time.sleep(0.02)


def test_signals_reach_the_program_itself(attempt: AttemptPaths) -> None:
    """The process is the program: nobody stands between the launcher and it."""
    done = start(attempt, "sh", "-c", "echo $$")
    assert done.returncode == 0
    (event,) = iter_events(attempt.events(3))
    assert isinstance(event, RankStart)
    assert attempt.log(3).read_text() == f"{event.pid}\n"


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize(
    ("program", "code", "why"),
    [("/no/such/program", 127, "No such file"), ("/etc/passwd", 126, "Permission denied")],
)
def test_a_program_that_can_not_be_started(
    program: str, code: int, why: str, watched: bool, attempt: AttemptPaths
) -> None:
    assert start(attempt, program, watched=watched).returncode == code
    ends = [one for one in iter_events(attempt.events(3)) if isinstance(one, RankEnd)]
    assert len(ends) == watched
    text = attempt.log(3).read_text()
    assert program in text
    assert why in text
    assert "Traceback" not in text


SHOW = "import os; print(*(os.environ.get(n, '-') for n in ('DEVICE_ID', 'RANK_ID', 'RANK_SIZE', "
SHOW += "'RANK_TABLE_FILE', 'CUDA_VISIBLE_DEVICES', 'CLUSTERSEG_DEVICES')))"


@pytest.mark.parametrize(
    ("environ", "printed", "device"),
    [
        ({"CLUSTERSEG_DEVICES": "cuda:1", "CUDA_VISIBLE_DEVICES": "4,5"}, "- - - - 5 -", "5"),
        (
            {"CLUSTERSEG_DEVICES": "cuda:2", "CUDA_VISIBLE_DEVICES": "4,5,6,7"},
            "- - - - 6,7 -",
            "6,7",
        ),
        ({"CLUSTERSEG_DEVICES": "cuda", "CUDA_VISIBLE_DEVICES": "4,5"}, "- - - - 4,5 -", "4,5"),
        ({"CLUSTERSEG_DEVICES": "npu:1", "ASCEND_RT_VISIBLE_DEVICES": "0,1"}, "1 3 4 - - -", "1"),
        ({}, "- - - - - -", ""),
    ],
)
def test_a_rank_sees_its_own_accelerators(
    environ: dict[str, str],
    printed: str,
    device: str,
    attempt: AttemptPaths,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert start(attempt, sys.executable, "-c", SHOW, **environ).returncode == 0
    assert attempt.log(3).read_text() == f"{printed}\n"
    (event,) = iter_events(attempt.events(3))
    assert isinstance(event, RankStart)
    kind = environ.get("CLUSTERSEG_DEVICES", "").partition(":")[0]
    assert (event.accelerator, event.device) == (kind or None, device)


def test_ranks_of_ascend_find_the_table_of_their_attempt(attempt: AttemptPaths) -> None:
    attempt.rank_table.write_text("{}")
    seen = {"CLUSTERSEG_DEVICES": "npu:1", "ASCEND_RT_VISIBLE_DEVICES": "0,1"}
    start(attempt, sys.executable, "-c", SHOW, **seen)
    assert attempt.log(3).read_text().split()[3] == str(attempt.rank_table)


def test_too_few_accelerators_are_said_before_the_program_starts(attempt: AttemptPaths) -> None:
    few = {"CLUSTERSEG_DEVICES": "cuda:1", "CUDA_VISIBLE_DEVICES": "4"}
    assert start(attempt, "touch", str(attempt.folder / "ran"), **few).returncode == 1
    assert not (attempt.folder / "ran").exists()
    log = attempt.log(3).read_text()
    assert "local rank 1 is to have accelerator 1 of kind cuda" in log
    assert "CUDA_VISIBLE_DEVICES=4" in log
    assert "Traceback" not in log
    (end,) = iter_events(attempt.events(3))
    assert isinstance(end, RankEnd)
    assert end.error is not None
    assert "accelerator 1" in end.error


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
