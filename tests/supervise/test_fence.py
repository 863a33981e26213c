"""When the fence strikes, by a clock that the test moves; and the real one, on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterseg.cluster.processes import process_state
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.takeover import boot_clock
from clusterseg.supervise.fence import Fence
from clusterseg.supervise.launch import Launcher, attempt_variables
from clusterseg.supervise.limits import FenceTerms, Overdue, Timing, fence_terms
from clusterseg.supervise.schedulers import ANSWER, patience_of
from tests.supervise.runs import ranks_of, wait_until

TERMS = FenceTerms(silence=30.0, spare=10.0, terminate=8.0, cleanup=5.0)
QUICK = FenceTerms(silence=0.8, spare=2.0, terminate=0.5, cleanup=5.0)
# Where nothing may be struck: a loaded machine stalls a test for a second.
PATIENT = FenceTerms(silence=3.0, spare=2.0, terminate=0.5, cleanup=5.0)


def struck_at(looks: list[float], beats: list[float], terms: FenceTerms = TERMS) -> float | None:
    """The first look at which the beat was too old; `beats` are told as soon as they are made."""
    overdue = Overdue(terms, 0.0)
    for now in looks:
        if overdue.look(now, max(beat for beat in beats if beat <= now)):
            return now
    return None


def every_second(*spans: tuple[int, int]) -> list[float]:
    return [float(second) for first, last in spans for second in range(first, last + 1)]


@pytest.mark.parametrize(
    ("looks", "beats", "struck"),
    [
        pytest.param(every_second((1, 100)), every_second((0, 100)), None, id="beats"),
        pytest.param(every_second((1, 100)), [0.0, 29.0, 58.0, 87.0], None, id="slow beats"),
        pytest.param(every_second((1, 100)), [0.0], 31.0, id="no beat"),
        pytest.param(every_second((1, 100)), [0.0, 5.0, 10.0], 41.0, id="beats that stop"),
        # Asleep from 10 to 500, with everything else on the machine.
        pytest.param(every_second((1, 10), (500, 600)), [0.0], 510.0, id="slept, and no beat"),
        pytest.param(
            every_second((1, 10), (500, 600)), [0.0, 505.0], 536.0, id="slept, one beat, no more"
        ),
        pytest.param(every_second((1, 29), (35, 60)), [0.0], 45.0, id="a nap before it is too old"),
        pytest.param(every_second((1, 28), (30, 60)), [0.0], 31.0, id="a look that is late"),
    ],
)
def test_when_it_strikes(looks: list[float], beats: list[float], struck: float | None) -> None:
    assert struck_at(looks, beats) == struck


@pytest.mark.parametrize("delay", [0.0, 30.0, 60.0])
def test_a_silent_slurm_alone_never_makes_it_strike(delay: float) -> None:
    patience = patience_of(delay)
    terms = fence_terms(Timing(patience=patience))
    assert terms.silence == patience.grace / 2
    assert patience.interval + Timing().look + ANSWER < terms.silence
    # What is to be ended has ended before another may claim the run.
    assert terms.silence + terms.tick + terms.terminate < patience.grace


@contextmanager
def launched(run: RunPaths, *argv: str, attempt: int = 0) -> Iterator[Launcher]:
    """A launcher with the variables by which ranks are known."""
    environ = {**os.environ, **attempt_variables(run, attempt)}
    launcher = Launcher(argv, environ, "/", direct=False)
    try:
        yield launcher
    finally:
        launcher.end()
        launcher.close()
        for pid in ranks_of(run):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


def of_fence(fence: Fence) -> int:
    """The second process."""
    assert fence._child is not None
    return fence._child


def gone(pid: int) -> bool:
    return process_state(pid) in ("gone", "Z")


SLEEP = ("sh", "-c", "sleep 1000 & sleep 1000 & wait")
# A launcher that takes no TERM, and a rank that has left its process group.
STUBBORN = ("sh", "-c", "trap '' TERM; setsid sleep 1000 & while :; do sleep 0.1; done")


@pytest.mark.parametrize("argv", [SLEEP, STUBBORN])
def test_it_ends_the_ranks_when_no_beat_comes(argv: tuple[str, ...], run: RunPaths) -> None:
    with Fence(QUICK) as fence, launched(run, *argv) as launcher:
        fence.beaten(boot_clock())
        fence.guard(run, 0, launcher)
        wait_until(lambda: ranks_of(run) == [], "nothing is left", seconds=10)
        silent = fence.struck(0)
        assert silent is not None
        assert silent > QUICK.silence
        assert fence.struck(1) is None
        # Its memory is gone a moment before the kernel tells of its end.
        wait_until(launcher.ended, "the launcher has ended", seconds=10)


def test_it_says_so_though_nobody_reads(
    run: RunPaths, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    full, unread = os.pipe()
    os.set_blocking(unread, False)
    try:
        while True:
            os.write(unread, bytes(1 << 16))
    except BlockingIOError:
        os.set_blocking(unread, True)
    stderr = os.dup(2)
    os.dup2(unread, 2)
    try:
        with Fence(QUICK) as fence, launched(run, *SLEEP) as launcher:
            fence.guard(run, 0, launcher)
            wait_until(lambda: ranks_of(run) == [], "nothing is left", seconds=10)
    finally:
        os.dup2(stderr, 2)
        for descriptor in (stderr, full, unread):
            os.close(descriptor)
    with Fence(QUICK) as fence, launched(run, *SLEEP) as launcher:
        fence.guard(run, 0, launcher)
        wait_until(lambda: "ending the ranks" in capfd.readouterr().err, "it is said", seconds=10)


def test_beats_keep_it_quiet(run: RunPaths) -> None:
    with Fence(PATIENT) as fence, launched(run, *SLEEP) as launcher:
        fence.guard(run, 0, launcher)
        until = time.monotonic() + 2 * PATIENT.silence
        while time.monotonic() < until:
            fence.beaten(boot_clock())
            time.sleep(0.1)
        assert (fence.struck(0), launcher.ended()) == (None, False)
        fence.release()
        time.sleep(1.5 * PATIENT.silence)
        assert (fence.struck(0), launcher.ended()) == (None, False)


def test_it_strikes_in_every_attempt(run: RunPaths) -> None:
    with Fence(QUICK) as fence:
        for attempt in (0, 1):
            with launched(run, *SLEEP, attempt=attempt) as launcher:
                fence.beaten(boot_clock())
                fence.guard(run, attempt, launcher)
                wait_until(lambda one=launcher: one.ended(), f"attempt {attempt} has ended")
            wait_until(lambda one=attempt: fence.struck(one), "it says so")


def test_ranks_that_ended_by_themselves_were_not_struck(run: RunPaths) -> None:
    with Fence(PATIENT) as fence, launched(run, "sleep", "0.2") as launcher:
        fence.guard(run, 0, launcher)
        time.sleep(1.5 * PATIENT.silence)
        assert fence.struck(0) is None
        assert launcher.ended()


def test_one_that_slept_waits_for_the_supervisor(run: RunPaths) -> None:
    with Fence(QUICK) as fence, launched(run, *SLEEP) as launcher:
        fence.guard(run, 0, launcher)
        os.kill(of_fence(fence), signal.SIGSTOP)
        time.sleep(2 * QUICK.silence)
        os.kill(of_fence(fence), signal.SIGCONT)
        time.sleep(QUICK.spare / 2)
        assert (fence.struck(0), launcher.ended()) == (None, False)
        wait_until(lambda: fence.struck(0), "no beat came", seconds=10)


def test_a_killed_one_is_replaced(run: RunPaths) -> None:
    with Fence(QUICK) as fence, launched(run, *SLEEP) as launcher:
        fence.guard(run, 0, launcher)
        first = of_fence(fence)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: fence.struck(0), "the second one strikes", seconds=10)
        assert (of_fence(fence) != first, gone(first)) == (True, True)


def test_signals_for_the_supervisor_do_not_end_it(run: RunPaths) -> None:
    with Fence(QUICK) as fence, launched(run, *SLEEP) as launcher:
        for number in (
            signal.SIGTERM,
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGUSR1,
            signal.SIGTSTP,
        ):
            os.kill(of_fence(fence), number)
        fence.guard(run, 0, launcher)
        wait_until(lambda: fence.struck(0), "it strikes", seconds=10)


def test_it_never_outlives_the_supervisor(tmp_path: Path) -> None:
    with Fence(QUICK) as fence:
        child = of_fence(fence)
    assert gone(child)
    script = (
        "import os, sys, time; from clusterseg.supervise.fence import Fence\n"
        "from clusterseg.supervise.limits import FenceTerms\n"
        "fence = Fence(FenceTerms(100.0, 1.0, 1.0, 1.0)).__enter__()\n"
        "print(fence._child, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        wait_until(lambda: gone(child), "it has ended too", seconds=5)
