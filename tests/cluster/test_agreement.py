"""Two ranks tell whether a launcher and a library fit; nothing of them is ever left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from clusterseg.cluster.agreement import MPI4PY, Agreement, Ending, ask_two_ranks, judge
from clusterseg.cluster.brief import run_briefly
from clusterseg.cluster.processes import processes_with_environment

MARK = "CLUSTERSEG_RUN_DIR"
EMBEDDED = Path(sys.executable).parent / "mpirun"
LIBMPI = Path(sys.executable).parent.parent / "lib" / "libmpi.so.40"
embedded = pytest.mark.skipif(not EMBEDDED.exists(), reason="no mpirun beside this Python")


def script(folder: Path, text: str) -> Path:
    """A stand-in for a launcher."""
    file = folder / "launcher"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return file


def line_of(launcher: Path, *flags: str) -> Callable[[Sequence[str], Path], list[str]]:
    return lambda argv, _folder: [str(launcher), *flags, *argv]


def ask(launcher: Path, *flags: str, patience: float = 60.0, libmpi: Path = LIBMPI) -> Agreement:
    environ = {**os.environ, "MPI4PY_LIBMPI": str(libmpi)}
    line = line_of(launcher, *flags)
    return ask_two_ranks(line, environ, MPI4PY, sys.executable, patience=patience)


@embedded
@pytest.mark.slow
def test_a_pair_agrees() -> None:
    flags = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    flags += ["-np", "2", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", "-x", MARK]
    found = ask(EMBEDDED, *flags)
    assert found.problem is None
    assert found.size == 2
    assert found.library.startswith("Open MPI v5.")
    (loaded,) = found.loaded
    assert Path(loaded).samefile(LIBMPI)
    assert 0 < found.seconds < 60


def test_a_launcher_keeps_its_files_apart_from_those_of_others(tmp_path: Path) -> None:
    """Else Open MPI 5's does not always come up beside another."""
    found = ask(script(tmp_path, 'test -d "$TMPDIR" && echo "in $TMPDIR"; exit 3'))
    assert found.problem is not None
    assert "in /" in found.problem
    assert "clusterseg-doctor-" in found.problem


@embedded
@pytest.mark.slow
def test_ranks_that_end_well_but_never_met_do_not_agree(tmp_path: Path) -> None:
    """What Hydra makes of Open MPI 5's ranks: two worlds, and exit code 0."""
    found = ask(script(tmp_path, '"$@" & "$@" && wait'))
    assert found.size == 1
    assert found.problem is not None
    assert "each rank is alone, in a world of 1" in found.problem
    assert "load the libmpi of this launcher" in found.problem


def test_a_library_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = ask(script(tmp_path, '"$@" & "$@"; wait'), libmpi=tmp_path / "libmpi.so.40")
    assert found.size is None
    assert found.problem is not None
    assert found.problem.startswith("mpi4py: ")
    assert str(tmp_path / "libmpi.so.40") in found.problem


def test_a_launcher_that_fails_is_told_by_what_it_says(tmp_path: Path) -> None:
    noise = "echo; echo ----------; echo The value of a is b"
    found = ask(script(tmp_path, f"{noise}; echo 'Error: no such host'; echo bye; exit 7"))
    assert found.problem is not None
    assert "two ranks ended with exit code 7" in found.problem
    assert found.problem.endswith("it says: Error: no such host")


def test_a_launcher_that_starts_nothing_does_not_agree(tmp_path: Path) -> None:
    found = ask(script(tmp_path, "echo done"))
    assert found.problem == "0 of two ranks answered, though the launcher ended well; it says: done"


def test_a_launcher_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    found = ask(tmp_path / "mpirun")
    assert found.problem == f"{tmp_path}/mpirun can't be started: No such file or directory"


def left(mark: str) -> list[int]:
    return [process.pid for process in processes_with_environment({MARK: mark})]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("sleep 60", id="waits"),
        pytest.param("trap '' TERM; while :; do sleep 0.1; done", id="ignores TERM"),
        pytest.param("sleep 60 & setsid sleep 60 & wait", id="has children"),
        pytest.param("setsid sh -c \"trap '' TERM; sleep 60; sleep 60\" & wait", id="deaf child"),
        pytest.param("exec yes", id="prints without an end"),
    ],
)
def test_what_hangs_is_ended_with_all_it_started(tmp_path: Path, text: str) -> None:
    start = time.monotonic()
    found = ask(script(tmp_path, f'echo "${MARK}" > {tmp_path}/mark\n{text}'), patience=1.5)
    assert time.monotonic() - start < 20
    assert found.problem is not None
    assert "had not ended after 1.5 s, and were killed" in found.problem
    assert left((tmp_path / "mark").read_text().strip()) == []


def test_what_is_left_when_the_launcher_ends_is_ended(tmp_path: Path) -> None:
    text = (
        f'echo "${MARK}" > {tmp_path}/mark\nsetsid sleep 60 >/dev/null 2>&1 &\nsleep 60 &\nexit 3'
    )
    found = ask(script(tmp_path, text))
    assert "exit code 3" in (found.problem or "")
    assert found.seconds < 30, "those that hold the output open are not waited for"
    mark = (tmp_path / "mark").read_text().strip()
    assert left(mark) == []
    assert not Path(mark).exists(), "nor is its folder left"


def test_a_child_without_the_mark_is_ended_by_its_group(tmp_path: Path) -> None:
    program = script(tmp_path, f"env -i sleep 60 & echo $! > {tmp_path}/pid; exit 0")
    code, _ = run_briefly([str(program)], os.environ, tmp_path, mark={MARK: "x"}, patience=30)
    assert code == 0
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while _runs(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return b" Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while doctor waits."""

    def interrupted(*_arguments: object) -> None:
        while not (tmp_path / "mark").exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr("clusterseg.cluster.brief._read_until", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ask(
            script(
                tmp_path,
                f'echo "${MARK}" > {tmp_path}/m; mv {tmp_path}/m {tmp_path}/mark; sleep 60',
            )
        )
    mark = (tmp_path / "mark").read_text().strip()
    assert left(mark) == []
    assert not Path(mark).exists()


ASKING = """
import os, sys
from clusterseg.cluster.agreement import MPI4PY, ask_two_ranks
ask_two_ranks(lambda argv, _folder: [sys.argv[1]], os.environ, MPI4PY, sys.executable)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_doctor_that_is_ended_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """By whoever started it: not even what does not heed TERM, nor the folder."""
    deaf = f"trap '' TERM HUP\necho \"${MARK}\" > {tmp_path}/m; mv {tmp_path}/m {tmp_path}/mark"
    program = script(tmp_path, f"{deaf}\nsleep 60; sleep 60")
    doctor = subprocess.Popen([sys.executable, "-c", ASKING, str(program)])
    try:
        until = time.monotonic() + 30
        while not (tmp_path / "mark").exists() and time.monotonic() < until:
            time.sleep(0.02)
        doctor.send_signal(number)
        assert doctor.wait(30) == 128 + number
    finally:
        doctor.kill()
    mark = (tmp_path / "mark").read_text().strip()
    assert left(mark) == []
    assert not Path(mark).exists()


def test_ranks_that_nobody_ends_end_themselves(tmp_path: Path) -> None:
    """As those of a Hydra that outlives a doctor that was killed."""
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("import time\ntime.sleep(60)\n")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    rank = [sys.executable, "-c", MPI4PY, str(tmp_path), "1"]
    assert subprocess.run(rank, env=environ, check=False, timeout=30).returncode == -signal.SIGALRM


def world(*sizes: int) -> list[dict[str, object]]:
    return [{"size": size, "library": "MPICH Version:      5.0.2\nMPICH Release"} for size in sizes]


@pytest.mark.parametrize(
    ("ending", "problem"),
    [
        (Ending(0, world(2, 2), ["some warning"]), None),
        (Ending(0, world(1, 1), []), "each rank is alone"),
        (Ending(0, world(2), []), "1 of two ranks answered"),
        (Ending(0, world(3, 3, 3), []), "3 of two ranks answered"),
        (Ending(1, world(2, 2), []), "exit code 1"),
        (Ending(-9, world(2, 2), []), "the launcher was killed by signal 9 (SIGKILL)"),
        (Ending(None, world(2, 2), []), "had not ended after 60 s"),
        (Ending(None, [], []), "had not ended after 60 s"),
        (Ending(15, [], ["[unset]: launcher not compatible with PMI1 client"]), "PMI1 client"),
        (Ending(1, [{"error": "mpi4py: No module named mpi4py"}], []), "No module named mpi4py"),
        (Ending(0, [{"size": 2, "loaded": ["/a", "/b"]}] * 2, []), "two MPIs, /a and /b"),
        (Ending(-11, [{"loaded": ["/a", "/b"]}] * 2, []), "two MPIs, /a and /b"),
        (Ending(0, [{"size": "2"}], []), "0 of two ranks answered"),
        (
            Ending(1, [{"error": "mpi4py: libmpi.so.12: cannot open shared object file: No"}], []),
            "make a link of that name",
        ),
    ],
)
def test_every_way_to_end_has_its_meaning(ending: Ending, problem: str | None) -> None:
    found = judge(ending, 1.0, 60)
    assert (found.problem is None) == (problem is None)
    assert (problem or "") in (found.problem or "")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("Open MPI v5.0.11, package: Open MPI root@build Distribution, …", "Open MPI v5.0.11"),
        ("MPICH Version:      5.0.2\nMPICH Release date: …", "MPICH 5.0.2"),
        ("Intel(R) MPI Library 2021.18 for Linux* OS\n\0", "Intel(R) MPI Library 2021.18"),
        ("", ""),
    ],
)
def test_a_library_is_told_by_name_and_version(says: str, told: str) -> None:
    found = judge(Ending(0, [{"size": 2, "library": says}] * 2, []), 1.0, 60)
    assert found.library == told
