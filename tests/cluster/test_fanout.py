"""Fan-out over submitit's real local executor."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from clusterseg.cluster.fanout import (
    Failure,
    FanOut,
    Fault,
    Progress,
    Task,
    fan_out,
    is_tried_again,
)
from clusterseg.cluster.fanout_folder import Folder, Outcome, Share
from clusterseg.cluster.fanout_jobs import Job, load_submitit
from clusterseg.cluster.fanout_local import LocalJobs
from clusterseg.cluster.processes import processes_with_environment
from clusterseg.errors import ClustersegError
from clusterseg.runs.paths import RunPaths

TOP = Path(__file__).resolve().parents[2]
TASKS = "tests.cluster.fanout_tasks"


@pytest.fixture(autouse=True)
def _jobs_find_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(TOP))


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    folder = tmp_path / "it's a run"
    folder.mkdir(mode=0o700)
    return RunPaths(folder)


def tasks(count: int, **arguments: object) -> list[Task]:
    return [Task(name=f"no. {n}", arguments={"n": n, **arguments}) for n in range(count)]


def behaving(marks: Path, *how: str) -> list[Task]:
    return [
        Task(name=f"no. {n}", arguments={"n": n, "how": one, "marks": str(marks)})
        for n, one in enumerate(how)
    ]


def test_values_come_in_order_and_nothing_is_left(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a pickle was loaded")

    monkeypatch.setattr(load_submitit().core.utils, "pickle_load", never)
    seen: list[Progress] = []
    done = fan_out(run, f"{TASKS}:double", tasks(5), LocalJobs(), progress=seen.append)
    assert done == FanOut(values=tuple({"twice": 2 * n} for n in range(5)))
    assert list(run.root.iterdir()) == []
    assert (seen[0].done, seen[-1].done, seen[-1].total) == (0, 5, 5)


LOADS = """
import io, os
from absl import logging as of_tensorflow
stream = io.StringIO()  # stderr as it was when TensorFlow was loaded
of_tensorflow.get_absl_handler().python_handler.stream = stream
{how}
assert "SUBMITIT_LOG_LEVEL" not in os.environ
raise SystemExit(3 if stream.closed else 0)
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("from clusterseg.cluster.fanout_jobs import load_submitit; load_submitit()", 0),
        ("import submitit", 3),  # the twin: once this is 0, load_submitit is not needed any more
    ],
)
def test_loading_submitit_closes_no_stream(how: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LOADS.format(how=how)], cwd=TOP, check=False)
    assert done.returncode == code


def test_no_tasks_are_done_at_once(run: RunPaths) -> None:
    assert fan_out(run, f"{TASKS}:double", [], LocalJobs()) == FanOut(values=())
    assert list(run.root.iterdir()) == []


@pytest.mark.slow
def test_no_more_run_at_once_than_there_are_cores_for(run: RunPaths) -> None:
    cores = len(os.sched_getaffinity(0))
    for cpus in (1, cores, cores + 1):
        executor = LocalJobs(cpus)
        assert 1 <= executor.slots <= max(1, cores // cpus)
        work = [Task(name="t", arguments={"seconds": 0.3})] * (2 * executor.slots + 1)
        values = fan_out(run, f"{TASKS}:interval", work, executor).values
        at_once = [sum(begin <= one[0] < end for begin, end in values) for one in values]
        assert max(at_once) <= executor.slots


@pytest.mark.slow
def test_failed_and_killed_tasks_are_tried_once_more_and_then_named(
    run: RunPaths, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    how = ("good", "raise once", "die once", "raise", "die", "good", "good")
    done = fan_out(run, f"{TASKS}:behave", behaving(tmp_path, *how), LocalJobs())
    assert done.values == (0, 1, 2, None, None, 5, 6)
    raised, died = done.failures
    assert (raised.number, raised.name, raised.tries) == (3, "no. 3", 2)
    assert raised.error == "ValueError: task 3 is no good"
    assert raised.last_lines[-1] == "ValueError: task 3 is no good"
    assert any("fanout_tasks.py" in line for line in raised.last_lines)
    assert (died.number, died.tries) == (4, 2)
    assert died.error.startswith("no result: it was killed")
    assert died.last_lines == ("task 4 is about to die",)
    # What the jobs left stays to be looked at, for nobody else.
    assert done.folder is not None
    kept = Path(done.folder)
    assert kept.parent == run.fanout
    assert all(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in (kept, kept.parent))
    assert stat.S_IMODE((kept / "work.json").stat().st_mode) == 0o600
    assert capfd.readouterr() == ("", "")


def test_what_surely_fails_again_is_tried_once(run: RunPaths, tmp_path: Path) -> None:
    seen: list[Progress] = []
    work = behaving(tmp_path, "good", "surely", "perhaps")
    done = fan_out(run, f"{TASKS}:refuse", work, LocalJobs(), progress=seen.append)
    assert done.values == (0, None, None)
    surely, perhaps = done.failures
    assert (surely.error, surely.tries, surely.last_lines) == ("1 surely", 1, ("help: mend it",))
    assert (perhaps.error, perhaps.tries) == ("2 perhaps", 2)
    assert [Path(tmp_path, str(n)).read_text() for n in range(3)] == [".", ".", ".."]
    # One is failed for good while the other is tried again.
    assert (1, 1, 1) in [(one.done, one.failed, one.again) for one in seen]
    assert (seen[-1].failed, seen[-1].again) == (2, 0)
    assert done.fault is None
    assert done.folder is not None


def test_a_fault_of_all_ends_all_and_is_told_as_it_is(run: RunPaths, tmp_path: Path) -> None:
    executor = LocalJobs()
    executor.slots = 2
    done = fan_out(run, f"{TASKS}:refuse", behaving(tmp_path, *["of all"] * 6), executor)
    assert done.fault == Fault(code="refused", message="0 of all", help="mend it", exit_code=1)
    assert done.values == (None,) * 6
    assert [one.error for one in done.failures] == ["0 of all", *["cancelled"] * 5]
    # The rest of its share was not begun, the other share was ended, and nothing is left.
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} <= {"0", "1"}
    assert (tmp_path / "0").read_text() == "."
    assert (done.folder, list(run.root.iterdir())) == (None, [])


FAILED = Outcome(error="e")


@pytest.mark.parametrize(
    ("outcome", "tries", "again"),
    [
        (None, 0, True),  # its job ended before its turn
        (Outcome(value=None), 1, False),
        (FAILED, 1, True),
        (FAILED, 2, False),
        (Outcome(error="e", is_lasting=True), 1, False),
        (msgspec.json.decode(b'{"value":null,"error":"e","trace":[]}', type=Outcome), 1, True),
        (msgspec.json.decode(b'{"value":3}', type=Outcome), 1, False),
    ],
)
def test_what_is_tried_again(outcome: Outcome | None, tries: int, again: bool) -> None:
    """The last two are files of before there was `is_lasting`."""
    assert is_tried_again(outcome, tries) == again


def test_values_that_are_no_json_are_failures(run: RunPaths) -> None:
    done = fan_out(run, f"{TASKS}:no_json", [Task(name="t")], LocalJobs())
    assert done.values == (None,)
    assert done.failures[0].error.startswith("TypeError: ")


def test_a_function_that_is_not_there_is_a_failure(run: RunPaths) -> None:
    done = fan_out(run, f"{TASKS}:nothing", [Task(name="t")], LocalJobs())
    assert done.failures[0].error.startswith("AttributeError: ")


def test_arguments_that_are_no_json_and_lambdas_are_refused(run: RunPaths) -> None:
    with pytest.raises(ClustersegError, match="no JSON"):
        fan_out(run, f"{TASKS}:double", [Task(name="t", arguments={"n": object()})], LocalJobs())
    for function in ("double", "tests.x", "a b:c", "a:b()", "../a:b", ":x", "a:<lambda>"):
        with pytest.raises(ValueError, match="is not `package"):
            fan_out(run, function, tasks(1), LocalJobs())
    assert list(run.root.iterdir()) == []


def test_nobody_sees_the_arguments(
    run: RunPaths, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not printed, and on no command line, which every user of the host can read."""
    seen = tmp_path / "seen"
    work = [Task(name="t", arguments={"n": 1, "secret": "hunter2-token"})]

    def look(_: Progress) -> None:
        deadline = time.monotonic() + 10
        with seen.open("ab") as file:
            # One that has just begun shows an empty command line at first.
            while b"submitit" not in seen.read_bytes() and time.monotonic() < deadline:
                for process in Path("/proc").glob("[0-9]*/cmdline"):
                    with contextlib.suppress(OSError):
                        file.write(process.read_bytes())
                file.flush()

    done = fan_out(run, f"{TASKS}:double", work, LocalJobs(), progress=look)
    assert "secret" in done.failures[0].error  # the name of an unknown argument, not its value
    assert b"submitit" in seen.read_bytes()
    assert b"hunter2-token" not in seen.read_bytes()
    assert "hunter2-token" not in "".join(capfd.readouterr()) + repr(done)


# The folder: pickles that others could write would be executed.


def refused(run: RunPaths) -> ClustersegError:
    before = sorted(run.root.iterdir()) if run.root.is_dir() else []
    with pytest.raises(ClustersegError) as caught:
        fan_out(run, f"{TASKS}:double", tasks(1), LocalJobs())
    assert (sorted(run.root.iterdir()) if run.root.is_dir() else []) == before
    return caught.value


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o720])
def test_a_run_directory_that_others_may_write_is_refused(run: RunPaths, mode: int) -> None:
    run.root.chmod(mode)
    error = refused(run)
    assert error.code == "untrusted-folder"
    assert f"{mode:04o}" in error.message


def test_links_are_refused(run: RunPaths, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(run.root)
    assert "symbolic link" in refused(RunPaths(link)).message
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run.fanout.symlink_to(elsewhere)
    assert "symbolic link" in refused(run).message
    assert list(elsewhere.iterdir()) == []


def test_a_fanout_folder_that_others_may_write_is_refused(run: RunPaths) -> None:
    run.fanout.mkdir()
    run.fanout.chmod(0o777)
    assert refused(run).code == "untrusted-folder"


def test_a_run_directory_below_one_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    inner = RunPaths(loose / "run")
    inner.root.mkdir(parents=True, mode=0o700)
    loose.chmod(0o777)
    assert str(loose) in refused(inner).message
    loose.chmod(0o1777)  # as /tmp: nobody can take our folder's place there
    assert fan_out(inner, f"{TASKS}:double", tasks(1), LocalJobs()).values == ({"twice": 0},)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_run_directory_of_another_user_is_refused(run: RunPaths) -> None:
    os.chown(run.root, 12345, 12345)
    assert "uid 12345" in refused(run).message
    os.chown(run.root, 0, 0)
    run.fanout.mkdir()
    os.chown(run.fanout, 12345, 12345)
    assert "uid 12345" in refused(run).message


@pytest.mark.parametrize("name", ["100%jobs", "a\\b", "a\nb"])
def test_a_path_that_slurm_would_fill_in_is_refused(tmp_path: Path, name: str) -> None:
    run = RunPaths(tmp_path / name)
    run.root.mkdir(mode=0o700)
    assert refused(run).code == "run-dir"


def test_a_missing_run_directory_is_named(tmp_path: Path) -> None:
    assert "No such file" in refused(RunPaths(tmp_path / "gone")).message


# Being interrupted.

STARTER = """
import sys, msgspec
from pathlib import Path
from clusterseg.cluster.fanout import Task, fan_out
from clusterseg.cluster.fanout_local import LocalJobs
from clusterseg.runs.paths import RunPaths
tasks = [Task(name=str(n), arguments={"n": n}) for n in range(4)]
jobs = LocalJobs()
jobs.slots = 2
done = fan_out(RunPaths(Path(sys.argv[1])), sys.argv[2], tasks, jobs,
               progress=lambda now: print(now.done, flush=True))
print(msgspec.json.encode(done).decode(), flush=True)
"""


@pytest.fixture
def starter(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A process that fans four tasks out over two jobs: the first is done, the others sleep."""
    monkeypatch.setenv("FANOUT_TEST", str(run.root))
    function = f"{TASKS}:sleep_unless_first"
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(run.root), function],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "1\n":
            assert process.poll() is None
        yield process
        if process.poll() is None:
            process.kill()


def left_of(run: RunPaths) -> list[int]:
    return [one.pid for one in processes_with_environment({"FANOUT_TEST": str(run.root)})]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_ends_its_jobs_and_returns_what_there_is(
    run: RunPaths, starter: subprocess.Popen[str], number: int
) -> None:
    starter.send_signal(number)
    out, _ = starter.communicate(timeout=60)
    done = msgspec.json.decode(out.splitlines()[-1], type=FanOut)
    assert done.interrupted
    assert done.values == (0, None, None, None)
    assert [(one.name, one.error) for one in done.failures] == [
        (name, "cancelled") for name in ("1", "2", "3")
    ]
    assert left_of(run) == []


class Impatient:
    """An executor whose user presses Ctrl-C at its start, and sends SIGTERM while it cancels."""

    slots, note = 1, ""

    def start(self, folder: Folder, shares: Sequence[Share]) -> list[Job]:
        raise KeyboardInterrupt

    def ended(self, jobs: Sequence[Job]) -> dict[str, str]:
        return {}

    def cancel(self, jobs: Sequence[Job]) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_interrupted_again_it_says_that_jobs_may_be_left(run: RunPaths) -> None:
    done = fan_out(run, f"{TASKS}:behave", tasks(1), Impatient())
    assert done.interrupted
    assert done.problem == "interrupted again while they were being cancelled"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.slow
def test_when_it_is_killed_its_jobs_end_by_themselves(
    run: RunPaths, starter: subprocess.Popen[str]
) -> None:
    assert left_of(run)
    starter.kill()
    starter.wait()
    deadline = time.monotonic() + 60
    while left_of(run):
        assert time.monotonic() < deadline
        time.sleep(0.2)


# Faults of an executor that can't be made with the real ones.


class Refusing:
    """Starts jobs as LocalJobs does, but for the second time."""

    note = ""

    def __init__(self) -> None:
        self._jobs = LocalJobs()
        self.slots = self._jobs.slots
        self.starts = 0

    def start(self, folder: Folder, shares: Sequence[Share]) -> list[Job]:
        self.starts += 1
        if self.starts > 1:
            raise ClustersegError("the cluster is closed")
        return self._jobs.start(folder, shares)

    def ended(self, jobs: Sequence[Job]) -> dict[str, str]:
        return self._jobs.ended(jobs)

    def cancel(self, jobs: Sequence[Job]) -> None:
        self._jobs.cancel(jobs)


def test_what_there_is_counts_when_no_second_try_can_be_started(
    run: RunPaths, tmp_path: Path
) -> None:
    executor = Refusing()
    done = fan_out(run, f"{TASKS}:behave", behaving(tmp_path, "good", "raise"), executor)
    assert executor.starts == 2
    assert done.values == (0, None)
    assert done.failures[0].error == "ValueError: task 1 is no good"


def test_when_nothing_can_be_started_nothing_is_left(run: RunPaths) -> None:
    executor = Refusing()
    executor.starts = 1
    with pytest.raises(ClustersegError, match="closed"):
        fan_out(run, f"{TASKS}:double", tasks(3), executor)
    assert list(run.root.iterdir()) == []


class Unwritable(LocalJobs):
    """submitit can't write into its folder."""

    def start(self, folder: Folder, shares: Sequence[Share]) -> list[Job]:
        folder.jobs.rmdir()
        folder.jobs.write_text("in its place")
        return super().start(folder, shares)


def test_a_folder_that_takes_no_jobs_is_told(run: RunPaths) -> None:
    with pytest.raises(ClustersegError, match=r"no job can be started: /.*: ") as caught:
        fan_out(run, f"{TASKS}:double", tasks(3), Unwritable())
    assert caught.value.code == "no-jobs"
    assert list(run.root.iterdir()) == []


class Stubborn(LocalJobs):
    """Can't be cancelled; Ctrl-C comes as soon as there are jobs."""

    jobs: Sequence[Job] = ()

    def ended(self, jobs: Sequence[Job]) -> dict[str, str]:
        self.jobs = list(jobs)
        raise KeyboardInterrupt

    def cancel(self, jobs: Sequence[Job]) -> None:
        raise ClustersegError("no answer")


def test_jobs_that_could_not_be_cancelled_are_told(run: RunPaths) -> None:
    executor = Stubborn()
    try:
        done = fan_out(
            run, f"{TASKS}:sleep_unless_first", [Task(name="t", arguments={"n": 1})], executor
        )
    finally:
        LocalJobs.cancel(executor, executor.jobs)
    assert done.problem == "no answer"
    assert done.failures == (Failure(number=0, name="t", error="cancelled"),)
    assert done.folder is not None


def test_a_damaged_result_is_a_failure(run: RunPaths) -> None:
    from clusterseg.cluster.fanout_folder import Work

    folder = Folder.make(run, Work(function=f"{TASKS}:double", tasks=tuple(tasks(1))))
    assert folder.outcome(0, 0) is None
    (folder.path / "results" / "00000-0.json").write_text('{"value": ')
    outcome = folder.outcome(0, 0)
    assert outcome is not None
    assert outcome.error is not None and "damaged" in outcome.error
