"""One squeue for everybody: how often it is asked, what outlives a failure, who waits for whom."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.slurm import queue as queue_module
from clusterseg.cluster.slurm.accounting import NONE_HERE, Accounting
from clusterseg.cluster.slurm.commands import Slurm, SlurmUnreachable
from clusterseg.cluster.slurm.jobs import JobFacts, JobState
from clusterseg.cluster.slurm.queue import (
    GAP,
    Answer,
    QueueCache,
    good_for,
    is_due,
    merged,
    pause_after,
)
from tests.cluster.slurm_shims import Shims, queue_line, queue_text

KEY = "0123456789abcdef" * 2


class FakeSlurm(Slurm):
    """Answers as told, and counts."""

    def __init__(self) -> None:
        super().__init__({})
        self.jobs: list[JobFacts] | None = []
        self.asked = 0
        self.meanwhile: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def has(self, program: str) -> bool:
        return True

    def mine(self) -> list[JobFacts]:
        with self._lock:
            self.asked += 1
        self.meanwhile()
        if self.jobs is None:
            raise SlurmUnreachable("squeue", "silent for 10 s")
        return self.jobs


def facts(number: int, state: str = "RUNNING", **more: object) -> JobFacts:
    return JobFacts(id=str(number), number=number, state=JobState(state), key=KEY, **more)  # type: ignore[arg-type]


class World:
    """A folder, a clock that is moved by hand, a Slurm."""

    def __init__(self, folder: Path) -> None:
        self.environ = {"XDG_CACHE_HOME": str(folder)}
        self.now = 1000.0
        self.slurm = FakeSlurm()

    def cache(self) -> QueueCache:
        """As another process has it."""
        return QueueCache(self.environ, slurm=self.slurm, clock=lambda: self.now)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_answer_is_shared_and_asked_for_anew_when_it_is_old(world: World) -> None:
    world.slurm.jobs = [facts(1)]
    for _ in range(5):
        assert world.cache().answer().jobs["1"].state is JobState.RUNNING
    assert world.slurm.asked == 1
    world.now += 6
    assert world.cache().answer().asked == world.now
    assert world.slurm.asked == 2
    world.now += 6
    world.cache().answer(max_age=20)
    assert world.slurm.asked == 2


def test_a_newer_answer_can_be_wanted_but_not_all_the_time(world: World) -> None:
    world.cache().answer()
    world.now += GAP / 2
    world.cache().answer(newer_than=world.now)
    assert world.slurm.asked == 1
    world.now += GAP
    world.cache().answer(newer_than=world.now)
    assert world.slurm.asked == 2
    world.now += GAP
    world.cache().answer(newer_than=world.now + 100)  # nobody can know that yet
    assert world.slurm.asked == 2


def test_what_was_changed_is_asked_for_at_once(world: World) -> None:
    world.cache().answer()
    world.cache().outdate()
    world.cache().answer(max_age=60)
    world.cache().answer(max_age=60)
    assert world.slurm.asked == 2


def test_failures_keep_the_last_answer_and_are_repeated_ever_more_rarely(world: World) -> None:
    world.slurm.jobs = [facts(1)]
    world.cache().answer()
    world.slurm.jobs = None
    start = world.now + 6
    for _ in range(600):
        world.now += 1
        answer = world.cache().answer()
        assert answer.jobs["1"].state is JobState.RUNNING
    assert answer.silent_since == start - 1
    assert answer.error is not None
    assert 10 <= world.slurm.asked <= 17  # 5, 10, 20, 40, 60, 60 … seconds between them
    world.slurm.jobs = [facts(1), facts(2)]
    world.now += 60
    answer = world.cache().answer()
    assert (answer.failures, answer.silent_since, set(answer.jobs)) == (0, None, {"1", "2"})


def test_a_host_without_squeue_knows_nothing_and_spoils_nothing(world: World) -> None:
    world.slurm.jobs = [facts(1)]
    world.cache().answer()
    world.now += 10
    answer = QueueCache({**world.environ, "PATH": "/nowhere"}, clock=lambda: world.now).answer()
    assert answer.error == "there is no squeue on the PATH"
    assert answer.silent_since is not None
    assert set(answer.jobs) == {"1"}
    assert world.cache().answer().silent_since is None


def test_an_end_is_kept_when_slurm_forgets_it_and_a_new_job_of_that_id_is_not_it(
    world: World,
) -> None:
    world.slurm.jobs = [facts(1, "TIMEOUT", submitted=10.0), facts(2)]
    world.cache().answer()
    world.now += 10
    world.slurm.jobs = []
    answer = world.cache().answer()
    assert (set(answer.jobs), set(answer.ended)) == (set(), {"1"})
    world.now += 10
    stranger = JobFacts(id="1", number=1, state=JobState.PENDING, key="f" * 32)
    world.slurm.jobs = [stranger]
    answer = world.cache().answer()
    assert answer.jobs["1"] == stranger
    assert answer.ended == {}


def test_a_controller_that_lost_its_state_moves_no_job_back() -> None:
    known = merged(Answer(), [facts(1, "RUNNING", submitted=10.0, start=20.0)], 100.0, 0.1)
    again = merged(known, [facts(1, "PENDING", submitted=10.0)], 110.0, 0.1)
    assert again.jobs["1"].state is JobState.RUNNING
    requeued = merged(known, [facts(1, "PENDING", submitted=105.0)], 110.0, 0.1)
    assert requeued.jobs["1"].state is JobState.PENDING


@given(
    st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 100), st.integers(0, 30), st.floats(0, 60)
)
def test_the_rate_is_limited_whatever_happens(
    asked: float, now: float, took: float, failures: int, max_age: float
) -> None:
    known = Answer(asked=asked, tried=asked, took=took, failures=failures)
    assert max_age <= good_for(known, max_age) <= max(60.0, max_age)
    assert 5.0 <= pause_after(failures or 1) <= 60.0
    if 0 <= now - asked < min(GAP, max_age):
        assert not is_due(known, now, max_age, newer_than=now)
    if now < asked:  # the clock was set back: nothing is waited for
        assert is_due(known, now, max_age)


def test_large_and_slow_answers_are_good_for_longer() -> None:
    assert good_for(Answer(took=3.0), 5.0) == 30.0
    assert good_for(Answer(jobs={str(n): facts(n) for n in range(10_000)}), 5.0) == 20.0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"asked": "x"}', b'{"jobs": {"1": {"id": 1}}}']
)
def test_a_damaged_file_is_no_file(world: World, content: bytes) -> None:
    world.cache().answer()
    (file,) = (Path(world.environ["XDG_CACHE_HOME"]) / "clusterseg/slurm").glob("*.json")
    file.write_bytes(content)
    world.slurm.jobs = [facts(7)]
    assert "7" in world.cache().answer().jobs


def test_the_files_are_private_whatever_the_umask(world: World) -> None:
    before = os.umask(0)
    try:
        world.cache().answer()
    finally:
        os.umask(before)
    folder = Path(world.environ["XDG_CACHE_HOME"]) / "clusterseg/slurm"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = list(folder.iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert sorted(file.suffix for file in files) == [".json", ".lock"]


def test_a_link_in_place_of_the_file_is_not_followed(world: World, tmp_path: Path) -> None:
    world.cache().answer()
    (file,) = (tmp_path / "clusterseg/slurm").glob("*.json")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(json.dumps({"asked": world.now, "tried": world.now}).encode())
    file.unlink()
    file.symlink_to(elsewhere)
    world.slurm.jobs = [facts(3)]
    assert "3" in world.cache().answer().jobs
    assert b'"3"' not in elsewhere.read_bytes()


@pytest.mark.parametrize("environ", [{}, {"HOME": "/proc/nowhere"}, {"XDG_CACHE_HOME": "x"}])
def test_without_a_folder_each_process_remembers_for_itself(environ: dict[str, str]) -> None:
    slurm = FakeSlurm()
    cache = QueueCache(environ, slurm=slurm, clock=lambda: 1000.0)
    cache.answer()
    cache.answer()
    assert slurm.asked == 1


def test_of_many_at_once_one_asks(world: World) -> None:
    world.slurm.jobs = [facts(1)]
    world.slurm.meanwhile = lambda: time.sleep(0.5)
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: world.cache().answer(), range(30)))
    assert world.slurm.asked == 1
    assert all("1" in answer.jobs for answer in answers)


def test_who_comes_when_another_has_just_asked_does_not_ask_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = world.cache()
    turn = late._turn

    def a_moment_later() -> object:
        world.cache().answer()
        return turn()

    monkeypatch.setattr(late, "_turn", a_moment_later)
    late.answer()
    assert world.slurm.asked == 1


def test_who_hangs_holds_nobody_up_who_has_an_older_answer(world: World) -> None:
    world.cache().answer()
    world.now += 10
    release = threading.Event()
    world.slurm.meanwhile = lambda: release.wait(60)
    hung = threading.Thread(target=world.cache().answer)
    hung.start()
    try:
        while world.slurm.asked < 2:
            time.sleep(0.01)
        began = time.monotonic()
        assert world.cache().answer().asked == 1000.0
        assert time.monotonic() - began < 30
        assert world.slurm.asked == 2
        # After a while it is taken for hung, and somebody else asks.
        world.now += 31
        world.slurm.meanwhile = lambda: None
        world.slurm.jobs = [facts(4)]
        assert "4" in world.cache().answer().jobs
        assert world.slurm.asked == 3
    finally:
        release.set()
        hung.join()


def test_a_file_system_without_locks_is_no_obstacle(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(queue_module.fcntl, "flock", refused)
    world.slurm.jobs = [facts(1)]
    assert "1" in world.cache().answer().jobs


# Through real programs: the shims stand for a Slurm that misbehaves.


@pytest.fixture
def shims(tmp_path: Path) -> Shims:
    return Shims(tmp_path / "shims")


def environ_of(shims: Shims, tmp_path: Path) -> dict[str, str]:
    return {"PATH": shims.path, "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.mark.parametrize("fault", ["empty", "fail", "refuse", "garbage"])
def test_no_answer_of_squeue_takes_a_job_away(shims: Shims, tmp_path: Path, fault: str) -> None:
    shims.record("squeue", queue_text(queue_line("12", key=KEY, state="RUNNING")))
    now = [1000.0]
    cache = QueueCache(environ_of(shims, tmp_path), clock=lambda: now[0])
    assert cache.answer().jobs["12"].key == KEY
    shims.fault("squeue", fault)
    now[0] += 10
    answer = cache.answer()
    assert answer.jobs["12"].state is JobState.RUNNING
    assert (answer.failures, answer.silent_since) == (1, 1010.0)
    assert shims.calls("squeue") == 2


def test_squeue_that_hangs_is_ended(shims: Shims, tmp_path: Path) -> None:
    shims.fault("squeue", "hang")
    environ = environ_of(shims, tmp_path)
    answer = QueueCache(environ, slurm=Slurm(environ, patience=0.5)).answer()
    assert answer.failures == 1
    assert "silent" in (answer.error or "")


def test_thousands_of_jobs_are_one_call(shims: Shims, tmp_path: Path) -> None:
    lines = [queue_line(f"{number}_{number % 7}", key=KEY) for number in range(5000)]
    shims.record("squeue", queue_text(*lines))
    cache = QueueCache(environ_of(shims, tmp_path))
    assert len(cache.answer().jobs) == 5000
    assert shims.calls("squeue") == 1


def test_a_site_without_accounting_is_left_alone(shims: Shims, tmp_path: Path) -> None:
    shims.fault("sacct", "disabled")
    now = [1000.0]
    accounting = Accounting(environ_of(shims, tmp_path), clock=lambda: now[0])
    for _ in range(30):
        assert accounting.look_up({"1": 0.0, "2_3": 0.0}) == {}
        now[0] += 100
    assert shims.calls("sacct") == 1
    now[0] += NONE_HERE
    accounting.look_up({"1": 0.0})
    assert shims.calls("sacct") == 2


def test_accounts_are_one_call_and_ends_are_remembered(shims: Shims, tmp_path: Path) -> None:
    fields = ["12", "12", "x\ny", "1700000000", "1700000001", "1700000002", "0:15"]
    shims.record("sacct", "<mark>".join([*fields, "CANCELLED by 1000"]) + "\n")
    now = [1.8e9]
    accounting = Accounting(environ_of(shims, tmp_path), clock=lambda: now[0])
    for _ in range(3):
        found = accounting.look_up({"12": 1.7e9, "13": 1.7e9})
        assert set(found) == {"12"}
        assert (found["12"].state, found["12"].end) == (JobState.CANCELLED, 1700000002.0)
    assert shims.calls("sacct") == 1
    now[0] += 60
    accounting.look_up({"12": 1.7e9})
    assert shims.calls("sacct") == 1
    accounting.look_up({"13": 1.7e9})  # what it did not know it may know by now
    assert shims.calls("sacct") == 2
    assert accounting.look_up({}) == {}


@pytest.mark.parametrize("fault", ["empty", "fail", "garbage"])
def test_a_failing_sacct_says_nothing(shims: Shims, tmp_path: Path, fault: str) -> None:
    shims.fault("sacct", fault)
    assert Accounting(environ_of(shims, tmp_path)).look_up({"1": 0.0}) == {}
