"""`clusterseg ranks` with real processes: what ranks see, how they end, what is left of them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from clusterseg.cluster.processes import process_state
from clusterseg.cluster.ranks import GRACE
from clusterseg.cluster.topology import this_host
from clusterseg.runs.text import ranges

CPUS = sorted(os.sched_getaffinity(0))
two_cores = pytest.mark.skipif((this_host().cores or 1) < 2, reason="one core can't be shared out")
LOOK = "import os; print(os.environ['CLUSTERSEG_RANK'], *sorted(os.sched_getaffinity(0)))"

PYTHON = f"{sys.executable} -c"
READY = """
place = sys.argv[2] + "/" + os.environ["CLUSTERSEG_RANK"]
open(place + "-new", "w").write(str(os.getpid()))
os.rename(place + "-new", place)
"""
# Programs that hear a signal; a shell's would come with the words of what it had started.
COUNTING = f"""
import os, signal, sys
heard = []
signal.signal(int(sys.argv[1]), lambda *_: heard.append(1))
signal.signal(signal.SIGTERM, lambda *_: (print("heard", len(heard)), sys.exit(0)))
{READY}
while True: signal.pause()
"""
SAVING = f"""
import os, signal, sys
signal.signal(int(sys.argv[1]), lambda *_: (print("saved"), sys.exit(75)))
{READY}
while True: signal.pause()
"""


def line(*words: str, ranks: int = 2, bind: str = "none") -> list[str]:
    head = [sys.executable, "-m", "clusterseg.cli.main", "ranks"]
    return [*head, "--ranks", str(ranks), "--bind-to", bind, "--", *words]


def run(argv: Sequence[str], **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    made = Started(tmp_path)
    yield made
    made.close()


class Started:
    """A launcher whose ranks each write their process id into a file when they are ready."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self, script: str, ranks: int = 2) -> subprocess.Popen[bytes]:
        """Each rank runs `script` (sh), which says `ready` once it can take signals."""
        ready = 'ready() { echo $$ > "$0/new-$CLUSTERSEG_RANK"; mv "$0/new-$CLUSTERSEG_RANK" '
        ready += '"$0/$CLUSTERSEG_RANK"; }; '
        words = line("sh", "-c", ready + script, str(self.folder), ranks=ranks)
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        until = time.monotonic() + 30
        while len(self.pids()) < ranks:
            assert time.monotonic() < until, "the ranks did not start"
            time.sleep(0.02)
        return self.process

    def pids(self) -> list[int]:
        return [int(file.read_text()) for file in sorted(self.folder.glob("[0-9]"))]

    def gone(self, within: float = 5.0) -> bool:
        until = time.monotonic() + within
        while any(process_state(pid) not in "Z gone" for pid in self.pids()):
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@two_cores
def test_each_rank_has_its_cores_and_knows_who_it_is() -> None:
    done = run(line(sys.executable, "-c", LOOK, bind="core"))
    assert done.returncode == 0, done.stderr
    seen = dict(text.split("] ", 1) for text in done.stdout.splitlines())
    assert seen.keys() == {"[0", "[1"}
    ranks = [seen["[0"].split(), seen["[1"].split()]
    assert [rank[0] for rank in ranks] == ["0", "1"]
    first, second = (set(map(int, rank[1:])) for rank in ranks)
    assert first
    assert second
    assert not first & second
    assert first | second <= set(CPUS)
    assert len(first) == len(second) == this_host().threads_per_core


@two_cores
def test_only_cpus_of_its_own_affinity_are_given_out() -> None:
    last = CPUS[-1]
    one = ["taskset", "-c", str(last), *line(sys.executable, "-c", LOOK, ranks=1, bind="core")]
    assert run(one).stdout.split() == ["0", str(last)]
    two = ["taskset", "-c", str(last), *line("true", bind="core")]
    done = run(two)
    assert done.returncode == 3
    assert "rank 1 of 2 is to have 1 core of socket 0, of which 0 are free" in done.stderr
    assert "Traceback" not in done.stderr


def test_unbound_ranks_may_use_all() -> None:
    done = run(line(sys.executable, "-c", LOOK))
    everything = " ".join(map(str, CPUS))
    assert sorted(done.stdout.splitlines()) == [f"[{n}] {n} {everything}" for n in (0, 1)]


def test_a_rank_gets_its_words_and_environment_as_they_are() -> None:
    odd = ["", " a  b ", "it's", "$(id)", "--", "--ranks", "two\nlines", "é→", "*", "\\"]
    show = "import os, sys; print(ascii([sys.argv[1:], os.environ['ODD'], os.environ['PMI_RANK']]))"
    done = run(line(sys.executable, "-c", show, *odd, ranks=2), ODD="\n".join(odd), PMI_RANK="7")
    expected = ascii([odd, "\n".join(odd), "7"])
    assert sorted(done.stdout.splitlines()) == [f"[0] {expected}", f"[1] {expected}"]


def test_a_lone_rank_takes_the_place_of_its_launcher() -> None:
    with subprocess.Popen(line("sh", "-c", "echo $$", ranks=1), stdout=subprocess.PIPE) as process:
        assert process.communicate(timeout=60)[0] == b"%d\n" % process.pid


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 75", 75),
        ("exit $((CLUSTERSEG_RANK * 75))", 75),  # one had nothing more to do
        ("exit $((CLUSTERSEG_RANK * 3))", 3),
        ("[ $CLUSTERSEG_RANK = 0 ] || kill -9 $$", 137),
        ("[ $CLUSTERSEG_RANK = 0 ] && exit 75; sleep 0.5; exit 4", 4),
    ],
)
def test_exit_codes(script: str, code: int) -> None:
    assert run(line("sh", "-c", script)).returncode == code


@pytest.mark.parametrize("how", ["exit 5", "kill -9 $$"])
def test_when_one_fails_the_others_are_ended(how: str, started: Started) -> None:
    script = (
        "trap 'echo told; exit 0' TERM; ready; "
        'others() { [ -e "$0/0" ] && [ -e "$0/2" ]; }; '
        f"[ $CLUSTERSEG_RANK = 1 ] && {{ until others; do sleep 0.1; done; {how}; }}; "
        "while :; do sleep 0.1; done"
    )
    process = started.begin(script, ranks=3)
    assert process.stdout is not None
    text = process.stdout.read().decode()
    assert process.wait(10) == (5 if "exit" in how else 137)
    assert started.gone()
    assert f"rank 1 (process {started.pids()[1]} on " in text
    assert ("ended with exit code 5" if "exit" in how else "was killed by signal 9") in text
    assert "[0] told" in text
    assert "[2] told" in text
    assert text.count("clusterseg ranks: ") == 1  # of those that it ended itself it says nothing


def test_those_that_do_not_heed_term_are_killed() -> None:
    script = (
        "trap '' TERM; [ $CLUSTERSEG_RANK = 0 ] && { sleep 1; exit 6; }; while :; do sleep 1; done"
    )
    # In a process of its own: it takes over the signals.
    code = (
        "import os, sys\nfrom clusterseg.cluster.ranks import start_ranks\n"
        "cpus = [frozenset(os.sched_getaffinity(0))] * 2\n"
        "sys.exit(start_ranks(sys.argv[1:], cpus, os.environ, grace=0.5))"
    )
    begun = time.monotonic()
    done = run([sys.executable, "-c", code, "sh", "-c", script])
    assert done.returncode == 6
    assert 1.5 <= time.monotonic() - begun < 1 + GRACE


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGALRM])
def test_ranks_hear_signals_once_and_go_on(number: signal.Signals, started: Started) -> None:
    process = started.begin(f'exec {PYTHON} {shlex.quote(COUNTING)} {int(number)} "$0"')
    process.send_signal(number)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert sorted(process.stdout.read().decode().splitlines()) == ["[0] heard 1", "[1] heard 1"]
    assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_ends_gives_ranks_their_own_end(
    number: signal.Signals, started: Started
) -> None:
    process = started.begin(f'exec {PYTHON} {shlex.quote(SAVING)} {int(number)} "$0"')
    process.send_signal(number)
    assert process.stdout is not None
    assert sorted(process.stdout.read().decode().splitlines()) == ["[0] saved", "[1] saved"]
    assert process.wait(10) == 75


def test_a_killed_launcher_leaves_none(started: Started) -> None:
    process = started.begin("trap '' TERM INT HUP; ready; exec sleep 600", ranks=4)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    assert started.gone()


def test_a_stopped_reader_does_not_keep_ranks_from_being_ended(started: Started) -> None:
    """Its output fills the pipe that nobody reads; signals and ends are heeded all the same."""
    process = started.begin("ready; exec yes")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert started.gone()


def test_lines_stay_whole_and_in_order_under_load() -> None:
    script = (
        "import os, sys\n"
        "for n in range(3000):\n"
        "    (sys.stdout if n % 2 else sys.stderr).write(f'{n} ' + 'x' * (n % 500) + '\\n')\n"
        "    (sys.stdout if n % 2 else sys.stderr).flush()\n"
        "sys.stdout.write('the end without a newline')"
    )
    done = run(line(sys.executable, "-c", script, ranks=4))
    assert done.returncode == 0
    seen: dict[str, list[str]] = {}
    for text in done.stdout.splitlines():
        tag, _, rest = text.partition(" ")
        seen.setdefault(tag, []).append(rest)
    expected = [f"{n} " + "x" * (n % 500) for n in range(3000)] + ["the end without a newline"]
    assert seen == {f"[{rank}]": expected for rank in range(4)}


def test_a_reader_that_goes_away_is_no_failure_of_the_ranks() -> None:
    words = line("sh", "-c", "seq 200000; sleep 0.2; exit 75")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(30) == 75


def test_what_outlives_a_rank_keeps_nobody_waiting() -> None:
    begun = time.monotonic()
    done = run(line("sh", "-c", "(sleep 20 & echo $!) ; echo done"))
    assert time.monotonic() - begun < 15
    assert done.stdout.count("done") == 2
    for text in done.stdout.splitlines():
        if not text.endswith("done"):
            os.kill(int(text.split()[1]), signal.SIGKILL)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("program", "code"), [("/no/such/program", 127), ("/etc/passwd", 126)])
def test_a_program_that_can_not_be_started(program: str, code: int, ranks: int) -> None:
    done = run(line(program, ranks=ranks))
    assert done.returncode == code
    assert done.stderr.count(program) == 1
    assert "Traceback" not in done.stderr


def test_the_report_names_each_ranks_cpus() -> None:
    words = line("true")
    words.insert(words.index("--"), "--report-bindings")
    done = run(words)
    shown = ranges(CPUS, between=",")
    assert done.stdout == f"rank 0 bound to CPUs {shown}\nrank 1 bound to CPUs {shown}\n"


def test_it_waits_without_work(started: Started) -> None:
    process = started.begin("ready; exec sleep 600")

    def ticks() -> int:
        stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(stat[11]) + int(stat[12])

    before = ticks()
    time.sleep(2)
    assert ticks() - before <= 1


def test_it_loads_no_heavy_library() -> None:
    script = (
        "import os, sys\n"
        "os.execvpe = lambda *words: os._exit(\n"
        "    len({'tensorflow', 'numpy', 'mpi4py', 'rich', 'jinja2', 'yaml'} & set(sys.modules)))\n"
        "from clusterseg.cli.main import main\n"
        "main(['ranks', '--', 'true'])"
    )
    assert run([sys.executable, "-c", script]).returncode == 0
