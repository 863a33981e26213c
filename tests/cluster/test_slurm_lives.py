"""From Slurm's answers to the state of a run: what may be concluded, and what never."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.look import Eyes
from clusterseg.cluster.slurm.jobs import JobFacts, JobState
from clusterseg.cluster.slurm.queue import Answer, QueueCache
from clusterseg.cluster.slurm.sights import Known, holder_sight, job_sight
from clusterseg.cluster.slurm.silence import is_dead
from clusterseg.runs.control import StopReason, request_stop
from clusterseg.runs.heartbeat import Heartbeat
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Cause, Claim, State
from clusterseg.runs.snapshot import JobKey, Snapshot
from clusterseg.runs.state import Life, Verdict
from tests.cluster import slurm_runs
from tests.cluster.slurm_shims import Shims, queue_line, queue_text

KEY = "0123456789abcdef" * 2
NOW = 1e9


class Site:
    """A cluster whose squeue and sacct say what the test wants."""

    def __init__(self, folder: Path) -> None:
        self.shims = Shims(folder / "shims")
        self.environ = {"PATH": self.shims.path, "XDG_CACHE_HOME": str(folder / "cache")}
        self.runs = folder / "runs"
        self.shims.fault("sacct", "disabled")
        self.queue()

    def queue(self, *lines: str) -> None:
        self.shims.record("squeue", queue_text(*lines))

    def account(self, job_id: str, state: str, name: str = f"x.{KEY[:12]}") -> None:
        fields = [job_id, job_id.partition("_")[0], name, "1", "2", "3", "0:0", state]
        self.shims.record("sacct", "<mark>".join(fields) + "\n")

    def verdict(self, run: RunPaths) -> Verdict:
        """By a question that is asked now."""
        return self.look(run).verdict

    def look(self, run: RunPaths) -> Snapshot:
        QueueCache(self.environ).outdate()
        return Eyes(self.environ).look(run)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_waiting_and_held_jobs_are_queued(site: Site) -> None:
    run = slurm_runs.make_run(site.runs, "x-1", key=KEY, job_id="12")
    site.queue(queue_line("12", key=KEY, reason="Resources"))
    assert site.verdict(run) == Verdict(State.QUEUED)
    site.queue(queue_line("12", key=KEY, reason="JobHeldUser"))
    verdict = site.verdict(run)
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)
    assert verdict.note == "job 12 is held in Slurm (JobHeldUser)"
    site.queue(queue_line("12", key=KEY, reason="JobHeldAdmin"))
    assert not site.verdict(run).not_started


def test_a_submission_whose_client_died_before_it_noted_the_id(site: Site) -> None:
    run = slurm_runs.make_run(site.runs, "x-1", key=KEY, job_id=None)
    verdict = site.verdict(run)
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)
    assert verdict.note == "it was never started"
    site.queue(queue_line("12", key=KEY, reason="JobHeldUser"))
    verdict = site.verdict(run)
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)
    assert verdict.note == "its submission was not finished: job 12 waits for it"


def test_where_the_site_rewrites_comments_the_name_tells_whose_a_job_is(site: Site) -> None:
    def line(**more: str) -> str:
        return queue_line("12", key=KEY, **more).replace(f"clusterseg:{KEY}", "the site's own")

    unfinished = slurm_runs.make_run(site.runs, "x-1", key=KEY, job_id=None)
    site.queue(line(reason="JobHeldUser"))
    verdict = site.verdict(unfinished)
    assert verdict.note == "its submission was not finished: job 12 waits for it"
    run = slurm_runs.make_run(site.runs, "x-2", key=KEY, job_id="12")
    site.queue(line(state="TIMEOUT"))
    ended = site.verdict(run)
    assert ended.cause is Cause.TIME_LIMIT
    site.queue()
    assert site.verdict(run) == ended  # seen, and not forgotten


def test_a_submission_that_is_going_on_is_called_so(site: Site) -> None:
    run = slurm_runs.make_run(site.runs, "x-1", key=KEY, job_id=None, age=3.0)
    assert site.verdict(run).note == "it is being submitted, or its client was killed"


def test_a_job_younger_than_the_answer_is_not_lost(site: Site) -> None:
    run = slurm_runs.make_run(site.runs, "x-1", key=KEY, job_id="12", age=1.0)
    assert site.verdict(run) == Verdict(State.QUEUED)
    old = slurm_runs.make_run(site.runs, "x-2", key=KEY, job_id="13", age=60.0)
    verdict = site.verdict(old)
    assert verdict.note == "Slurm does not know job 13 (any more)"
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)


def test_a_forgotten_job_whose_script_has_run_was_not_lost(site: Site) -> None:
    run = slurm_runs.make_run(site.runs, "x-1", key=KEY, job_id="12")
    run.submission(0).output.write_text("no such module\n")
    assert site.verdict(run).state is State.FAILED


def test_an_id_that_carries_another_key_is_not_ours(site: Site) -> None:
    run = slurm_runs.make_run(site.runs, "x-1", key=KEY, job_id="12")
    site.queue(queue_line("12", key="f" * 32, state="RUNNING"))
    verdict = site.verdict(run)
    assert verdict.note == "job 12 of Slurm is another one: it does not carry this run's key"
    assert (verdict.state, verdict.not_started) == (State.QUEUED, True)
    slurm_runs.claim(run, 0, key=KEY, job_id="12", t=time.time() - 60)
    slurm_runs.beat(run, 0, count=3, t=time.time() - 2)
    verdict = site.verdict(run)
    assert verdict.state is State.RUNNING
    assert "another one" in (verdict.note or "")


def test_a_script_that_a_person_gave_to_sbatch_may_carry_no_key(site: Site) -> None:
    run = slurm_runs.make_run(site.runs, "x-j12-0a1b2c", key=KEY, job_id="12")
    site.queue(queue_line("12", key=None, state="RUNNING"))
    slurm_runs.claim(run, 0, key=KEY, job_id="12", t=time.time() - 60)
    assert site.verdict(run) == Verdict(State.RUNNING)
    site.queue(queue_line("12", key="f" * 32, state="RUNNING"))
    assert "another one" in (site.verdict(run).note or "")


def running(site: Site, *, claimed: float = 600.0, beaten: float = 2.0) -> RunPaths:
    """A run whose attempt was claimed and has beaten so many seconds ago."""
    run = slurm_runs.make_run(site.runs, "x-1", key=KEY, job_id="12")
    slurm_runs.claim(run, 0, key=KEY, job_id="12", t=time.time() - claimed)
    slurm_runs.beat(run, 0, count=9, t=time.time() - beaten)
    return run


def test_a_running_job_runs(site: Site) -> None:
    run = running(site)
    start = str(int(time.time() - 700))
    site.queue(queue_line("12", key=KEY, state="RUNNING", start=start))
    snapshot = site.look(run)
    assert snapshot.verdict == Verdict(State.RUNNING)
    assert snapshot.holder is Life.ALIVE


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING"])
def test_a_requeued_job_is_queued(site: Site, state: str) -> None:
    run = running(site, beaten=100.0)
    site.queue(queue_line("12", key=KEY, state=state))
    assert site.verdict(run).state is State.QUEUED


def test_a_requeued_job_that_has_started_but_not_claimed_is_queued(site: Site) -> None:
    run = running(site, beaten=100.0)
    site.queue(queue_line("12", key=KEY, state="RUNNING", start=str(int(time.time() - 5))))
    assert site.verdict(run).state is State.QUEUED


def test_what_still_writes_on_a_lost_node_is_told(site: Site) -> None:
    run = running(site, beaten=2.0)
    site.queue(queue_line("12", key=KEY, state="PENDING", reason="BeginTime"))
    verdict = site.verdict(run)
    assert verdict.state is State.QUEUED
    assert verdict.note == "Slurm queued job 12 again; attempt 0 still writes"
    site.queue(queue_line("12", key=KEY, state="NODE_FAIL"))
    verdict = site.verdict(run)
    assert verdict.state is State.RUNNING
    assert "still writes" in (verdict.note or "")


def test_an_attempt_that_has_ended_writes_no_more(site: Site) -> None:
    run = running(site, beaten=2.0)
    slurm_runs.end(run, 0, Cause.PREEMPTED, will_restart=True)
    site.queue(queue_line("12", key=KEY, state="PENDING", reason="BeginTime"))
    assert site.verdict(run) == Verdict(State.QUEUED, cause=Cause.PREEMPTED)


ENDS = {
    "PREEMPTED": (State.STOPPED, Cause.PREEMPTED),
    "TIMEOUT": (State.STOPPED, Cause.TIME_LIMIT),
    "DEADLINE": (State.STOPPED, Cause.TIME_LIMIT),
    "NODE_FAIL": (State.FAILED, Cause.NODE_FAIL),
    "BOOT_FAIL": (State.FAILED, Cause.NODE_FAIL),
    "OUT_OF_MEMORY": (State.FAILED, Cause.OUT_OF_MEMORY),
    "CANCELLED": (State.CANCELLED, Cause.CANCELLED),
    "FAILED": (State.FAILED, Cause.UNKNOWN),
    "COMPLETED": (State.FAILED, Cause.UNKNOWN),
}


@pytest.mark.parametrize("said", ENDS)
@pytest.mark.parametrize("by", ["squeue", "sacct"])
def test_a_job_over_without_an_end_record_ended_as_slurm_says(
    site: Site, said: str, by: str
) -> None:
    run = running(site, beaten=200.0)
    if by == "squeue":
        site.queue(queue_line("12", key=KEY, state=said))
    else:
        site.account("12", "CANCELLED by 0" if said == "CANCELLED" else said)
    verdict = site.verdict(run)
    assert (verdict.state, verdict.cause) == ENDS[said]
    assert f"Slurm says {said} of job 12" in (verdict.note or "")


def test_an_account_of_another_job_of_that_id_is_not_believed(site: Site) -> None:
    run = running(site, beaten=200.0)
    site.account("12", "COMPLETED", name="a-strangers-job")
    assert site.verdict(run).state is State.RUNNING


def test_cancel_then_scancel_is_stopped(site: Site) -> None:
    run = running(site, beaten=200.0)
    request_stop(run.stop_file(0), StopReason.CANCEL)
    site.queue(queue_line("12", key=KEY, state="CANCELLED"))
    assert site.verdict(run).state is State.STOPPED


def test_between_attempts(site: Site) -> None:
    run = running(site, beaten=200.0)
    slurm_runs.end(run, 0, Cause.PREEMPTED, will_restart=True)
    site.queue(queue_line("12", key=KEY, reason="BeginTime"))
    assert site.verdict(run).state is State.QUEUED
    site.queue(queue_line("12", key=KEY, state="CANCELLED"))
    verdict = site.verdict(run)
    assert (verdict.state, verdict.cause) == (State.STOPPED, Cause.PREEMPTED)
    assert "CANCELLED" in (verdict.note or "")


@pytest.mark.parametrize("fault", ["empty", "fail", "refuse", "garbage"])
@pytest.mark.parametrize("before", [True, False], ids=["known before", "never known"])
def test_without_an_answer_nothing_is_dead(site: Site, fault: str, before: bool) -> None:
    run = running(site, beaten=7200.0)
    waiting = slurm_runs.make_run(site.runs, "x-2", key="a" * 32, job_id="13")
    if before:
        site.queue(queue_line("12", key=KEY, state="RUNNING"), queue_line("13", key="a" * 32))
        site.verdict(run)
    site.shims.fault("squeue", fault)
    verdict = site.verdict(run)
    assert verdict.state is State.RUNNING
    assert (verdict.note or "").startswith("Slurm has not answered for ")
    verdict = site.verdict(waiting)
    assert (verdict.state, verdict.not_started) == (State.QUEUED, False)
    assert (verdict.note or "").startswith("Slurm has not answered for ")


def test_a_state_that_nobody_knows_kills_nobody(site: Site) -> None:
    run = running(site, beaten=7200.0)
    site.queue(queue_line("12", key=KEY, state="TELEPORTED"))
    assert site.verdict(run).state is State.RUNNING


def test_a_forgotten_job_lives_by_its_heartbeat(site: Site) -> None:
    run = running(site, claimed=1200.0, beaten=30.0)
    verdict = site.verdict(run)
    assert verdict.state is State.RUNNING
    assert "does not know job 12" in (verdict.note or "")
    slurm_runs.beat(run, 0, count=10, t=time.time() - 1000.0)
    assert site.verdict(run).state is State.RUNNING  # it may stand still since this look only
    slurm_runs.beat(run, 0, count=10, t=time.time() - 4000.0)
    verdict = site.verdict(run)
    assert (verdict.state, verdict.cause) == (State.FAILED, Cause.UNKNOWN)
    assert "heartbeat is 67 min old" in (verdict.note or "")


def test_the_two_looks_at_a_heartbeat() -> None:
    assert not is_dead(age=899.0, still=0.0)
    assert not is_dead(age=1000.0, still=59.0)
    assert is_dead(age=1000.0, still=60.0)
    assert is_dead(age=0.0, still=900.0)  # a writer whose clock is wrong
    assert not is_dead(age=-500.0, still=899.0)
    assert is_dead(age=3600.0, still=0.0)


def test_a_run_that_is_over_asks_nobody(site: Site) -> None:
    run = running(site)
    slurm_runs.end(run, 0, Cause.DONE)
    assert site.verdict(run).state is State.DONE
    assert site.shims.calls("squeue") == 0


def test_many_runs_are_one_squeue_and_one_sacct(site: Site) -> None:
    keys = [f"{number:032x}" for number in range(200)]
    runs = [
        slurm_runs.make_run(site.runs, f"x-{number}", key=key, job_id=str(number))
        for number, key in enumerate(keys)
    ]
    site.queue(*(queue_line(str(n), key=key) for n, key in enumerate(keys) if n % 2))
    site.account("0", "TIMEOUT", name=f"x.{keys[0][:12]}")
    found = Eyes(site.environ).look_at(runs)
    assert (site.shims.calls("squeue"), site.shims.calls("sacct")) == (1, 1)
    states = [snapshot.verdict.state for snapshot in found if not isinstance(snapshot, Exception)]
    assert states[0] is State.STOPPED
    assert set(states[1:]) == {State.QUEUED}


def test_array_tasks_are_told_apart(site: Site) -> None:
    runs = [
        slurm_runs.make_run(site.runs, f"x-{task}", key=KEY, job_id=f"12_{task}")
        for task in range(3)
    ]
    site.queue(
        queue_line("12_0", key=KEY, state="CANCELLED"),
        queue_line("12_1", key=KEY, state="RUNNING"),
    )
    site.account("12_2", "OUT_OF_MEMORY")
    states = [site.verdict(run).state for run in runs]
    assert states == [State.CANCELLED, State.QUEUED, State.FAILED]


def test_a_task_whose_id_was_not_recorded_is_found_by_its_number(site: Site) -> None:
    runs = [slurm_runs.make_run(site.runs, f"x-{n}", key=KEY, job_id=None, task=n) for n in (1, 2)]
    site.queue(
        queue_line("12_1", key=KEY, state="CANCELLED"),
        queue_line("12_2", key=KEY, reason="JobHeldUser"),
    )
    assert site.verdict(runs[0]).note == "it was never started"
    assert "job 12_2 waits for it" in (site.verdict(runs[1]).note or "")


@pytest.mark.parametrize(
    ("elsewhere", "note"),
    [({"uid": 12345}, "another user (uid 12345)"), ({"cluster": "far"}, "the cluster far")],
)
def test_jobs_that_this_slurm_can_not_know_are_not_lost(
    site: Site, tmp_path: Path, elsewhere: dict[str, Any], note: str
) -> None:
    (tmp_path / "slurm.conf").write_text("ClusterName=near\n")
    site.environ["SLURM_CONF"] = str(tmp_path / "slurm.conf")
    for job_id in (None, "12"):
        run = slurm_runs.make_run(site.runs, f"x-{job_id}", key=KEY, job_id=job_id, **elsewhere)
        verdict = site.verdict(run)
        assert verdict.state is State.QUEUED
        assert note in (verdict.note or "")
        assert verdict.not_started is (job_id is None)
    slurm_runs.claim(run, 0, key=KEY, job_id="12", t=time.time() - 9000, **elsewhere)
    verdict = site.verdict(run)
    assert verdict.state is State.RUNNING
    assert note in (verdict.note or "")
    assert site.shims.calls("sacct") == 0


# The rules alone, over everything that Slurm may say.

job_states = st.sampled_from(JobState)
times = st.one_of(st.none(), st.floats(NOW - 1e4, NOW + 1e4))


def answers() -> st.SearchStrategy[Answer]:
    def build(state: JobState, key: str | None, there: bool, ok: bool, asked: float) -> Answer:
        job = JobFacts(id="12", number=12, state=state, key=key)
        silent = None if ok else NOW - 40
        return Answer(
            asked=asked, jobs={"12": job} if there else {}, silent_since=silent, failures=not ok
        )

    keys = st.sampled_from([KEY, "f" * 32, None])
    return st.builds(
        build, job_states, keys, st.booleans(), st.booleans(), st.floats(NOW - 900, NOW)
    )


a_claim: Callable[[float], Claim] = lambda t: Claim(  # noqa: E731
    t=t, attempt=0, submission=0, key=KEY, uid=0, job_id="12", host="n1", boot_id="b", pid=1,
    pid_start=1, nonce="n", hosts={"n1": 1}, ranks=1, argv=[],
)  # fmt: skip


@given(answers(), st.floats(NOW - 1e4, NOW), st.floats(NOW - 1e4, NOW))
def test_dead_is_only_what_slurm_says_is_over_or_queued_again(
    answer: Answer, claimed: float, beaten: float
) -> None:
    known = Known(answer, {}, NOW)
    facts = known.find("12", KEY, adopted=False)
    sight = holder_sight(a_claim(claimed), facts, Heartbeat(count=1, t=beaten), known)
    if sight.life is Life.DEAD:
        assert facts is not None
        assert facts.key == KEY
        assert (
            facts.is_over
            or facts.state in ("PENDING", "CONFIGURING")
            or facts.is_held
            or (facts.state.startswith("REQUEUE"))
        )
        assert claimed <= answer.asked
    if facts is None:
        assert sight.life is Life.UNKNOWN


@pytest.mark.parametrize("state", list(JobState))
def test_an_answer_says_nothing_of_a_claim_that_came_after_it(state: JobState) -> None:
    answer = Answer(asked=NOW - 10, jobs={"12": JobFacts(id="12", number=12, state=state, key=KEY)})
    known = Known(answer, {}, NOW)
    beat = Heartbeat(count=1, t=NOW - 100)
    sight = holder_sight(a_claim(NOW - 5), answer.jobs["12"], beat, known)
    assert sight.life is Life.UNKNOWN


@given(answers(), st.floats(NOW - 1e4, NOW))
def test_a_job_is_dead_only_if_it_is_over_and_lost_only_if_slurm_answers(
    answer: Answer, since: float
) -> None:
    known = Known(answer, {}, NOW)
    sight = job_sight(JobKey("12", KEY, is_local=False, since=since), known)
    facts = known.find("12", KEY, adopted=False)
    if sight.life is Life.DEAD and not sight.lost:
        assert facts is not None
        assert facts.is_over
    if sight.lost:
        assert facts is None
        assert answer.silent_since is None
        assert answer.asked > since
        assert sight.note
