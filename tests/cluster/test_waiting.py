"""Why a job waits: every reason in words, its place, and what would start sooner."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.slurm.alternatives import MOST, Limits, changes, read_start
from clusterseg.cluster.slurm.cache import CacheFile
from clusterseg.cluster.slurm.commands import Slurm, SlurmRefused, SlurmUnreachable
from clusterseg.cluster.slurm.jobs import JobFacts, JobState
from clusterseg.cluster.slurm.pending import Row, read_rows, rows_format
from clusterseg.cluster.slurm.reasons import explain
from clusterseg.cluster.slurm.trials import Request, Sooner
from clusterseg.cluster.slurm.waiting import (
    FRESH,
    FRESH_SOONER,
    MOST_A_MINUTE,
    Waiting,
    describe,
    place,
    why_waiting,
)
from tests.devcluster import DevCluster

# Slurm's own table, of 22.05 and of 26.11 together (src/common/job_state_reason.c).
CODES = Path(__file__).with_name("slurm_reasons.txt").read_text().split()


# In words.


def test_every_code_is_explained() -> None:
    assert len(CODES) > 200
    for code in CODES:
        reason = explain(code)
        assert reason.code == code
        assert "Slurm gives the reason" not in reason.text, code
        assert 10 <= len(reason.text) < 120, code
        assert code not in ("Priority", "Resources") or reason.movable


def test_what_no_node_has_may_be_its_cores() -> None:
    for key in ("ranks_per_node", "cpus_per_rank", "memory"):
        assert f"resources.{key}" in explain("BadConstraints").help


def test_codes_of_which_nobody_has_heard_are_shown() -> None:
    reason = explain("WaitForGodot")
    assert (reason.code, reason.text) == ("WaitForGodot", "Slurm gives the reason WaitForGodot")
    assert reason.help


@pytest.mark.parametrize(
    ("said", "code", "part"),
    [
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "ReqNodeNotAvail", "UnavailableNodes:n[1-2]"),
        ("(ReqNodeNotAvail,_UnavailableNodes:n1)", "ReqNodeNotAvail", "UnavailableNodes:n1"),
        ("ReqNodeNotAvail, Reserved for maintenance", "ReqNodeNotAvail", "maintenance"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority "
            "partitions",
            "NodeDown",
            "DRAINED",
        ),
        ("launch failed requeued held", "LaunchFailedHeld", "launch failed"),
        ("launch_failed_requeued_held", "LaunchFailedHeld", ""),
        ("launch failure limit exceeded requeued held", "JobHoldMaxRequeue", "limit"),
        ("job requeued in held state", "RequeuedHeld", ""),
        ("uid 5 not in group permitted to use this partition (x)", "AccountNotAllowed", "uid 5"),
        ("", "None", ""),
        ("(null)", "None", ""),
    ],
)
def test_what_slurm_adds_is_kept(said: str, code: str, part: str) -> None:
    reason = explain(said)
    assert reason.code == code
    assert part in reason.detail


def test_limits_name_who_and_what() -> None:
    assert "nodes" in explain("QOSMaxNodePerUserLimit").text
    assert "your jobs" in explain("QOSMaxNodePerUserLimit").text
    assert "quality of service" in explain("QOSGrpCpuLimit").text
    assert "account" in explain("AssocGrpGRES").text
    assert "wall time" in explain("AssocMaxWallDurationPerJobLimit").text
    assert explain("AssocMaxWallDurationPerJobLimit").help.endswith("ask for less")
    assert "× minutes" in explain("AssocGrpCPUMinutesLimit").text


@given(st.text())
def test_what_slurm_says_is_data(said: str) -> None:
    reason = explain(said)
    for text in (reason.code, reason.text, reason.detail):
        assert len(text) < 400
        assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in text if c != "\t")


# Its place.


def row(job: int, priority: int, reason: str = "Priority", start: float | None = None) -> Row:
    return Row(id=str(job), priority=priority, reason=reason, start=start)


def test_the_place_is_by_priority_and_then_by_age() -> None:
    rows = [row(5, 10), row(3, 10), row(4, 90, "Resources"), row(6, 1)]
    assert [place(rows, one) for one in rows] == [(3, 4), (2, 4), (1, 4), (4, 4)]


def test_who_may_not_start_stands_in_nobodys_way() -> None:
    rows = [
        row(1, 0, "JobHeldUser"),
        row(2, 99, "Dependency"),
        row(3, 99, "BeginTime"),
        row(4, 1),
    ]
    assert place(rows, rows[3]) == (1, 1)
    assert place(rows, rows[0]) == (None, None)
    assert place(rows, rows[1]) == (None, None)


@pytest.mark.parametrize(
    "reason",
    ["PartitionTimeLimit", "PartitionNodeLimit", "JobArrayTaskLimit", "QOSMaxNodePerUserLimit"],
)
def test_only_jobs_that_wait_for_nodes_have_a_place(reason: str) -> None:
    rows = [row(1, 99, reason), row(2, 9, "None"), row(3, 7, "Resources"), row(4, 1)]
    assert place(rows, rows[3]) == (3, 3)
    assert place(rows, rows[0]) == (None, None)


def test_what_does_not_start_as_it_is_has_no_expected_start() -> None:
    for code, priority in (("JobHeldUser", 0), ("Resources", 0), ("PartitionTimeLimit", 5)):
        one = row(7, priority, code, start=NOW + 2)
        job = JobFacts(id="7", number=7, state=JobState.PENDING, reason=code, start=NOW + 2)
        assert describe(job, one, [one]).expected_start is None
        if code != "Resources":  # squeue did not answer
            assert describe(job, None, []).expected_start is None
    begins = row(7, 5, "BeginTime", start=NOW + 2)
    job = JobFacts(id="7", number=7, state=JobState.PENDING, reason="BeginTime")
    assert describe(job, begins, [begins]).expected_start == NOW + 2


def test_reading_rows_passes_over_what_is_none() -> None:
    mark = "~0~"
    said = (
        f"12{mark}7{mark}1700000000{mark}Resources{mark}(null){mark}\n"
        f"13{mark}0{mark}N/A{mark}Dependency{mark}afterok:12(unfulfilled){mark}\n"
        f"x{mark}y\nsome words\n"
    )
    assert read_rows(said, mark) == [
        Row(id="12", priority=7, reason="Resources", start=1.7e9),
        Row(id="13", priority=0, reason="Dependency", dependency="afterok:12(unfulfilled)"),
    ]
    assert rows_format(mark).count(mark) == 5


# What to ask for instead.

OPTIONS = ("--nodes=8", "--ntasks=16", "--ntasks-per-node=2", "--time=2-00:00:00", "--partition=p")


def test_changes_are_fewer_nodes_less_time_and_other_partitions() -> None:
    found = changes(OPTIONS, ["p", "q", "r", "s"], own=["p"])
    assert [(one.text, one.options) for one in found] == [
        ("4 nodes in place of 8", ("--nodes=4", "--ntasks=8")),
        ("1 node in place of 8", ("--nodes=1", "--ntasks=2")),
        ("a time limit of 24:00 h in place of 48:00 h", ("--time=1440",)),
        ("partition q", ("--partition=q",)),
        ("partition r", ("--partition=r",)),
    ]


def test_what_is_beyond_a_limit_of_the_partition_is_cut_to_it() -> None:
    found = changes(OPTIONS, limits=Limits(nodes=3, minutes=60), own=["p"])
    assert [one.options for one in found] == [
        ("--nodes=3", "--ntasks=6"),
        ("--nodes=1", "--ntasks=2"),
        ("--time=60",),
    ]
    found = changes(OPTIONS, limits=Limits(nodes=8, minutes=2000), own=["p"])
    assert [one.options[0] for one in found] == [
        "--nodes=4",
        "--nodes=1",
        "--time=2000",
        "--time=1440",
    ]
    assert [one.options for one in changes(["--time=9"], limits=Limits(minutes=5), own=["p"])] == [
        ("--time=5",)
    ]


def test_what_can_not_be_changed_is_left() -> None:
    assert changes(["--nodes=1", "--time=5"], ["p"], own=["p"]) == []
    assert changes(["--nodes=4", "--nodelist=a,b,c,d"], own=["p"]) == []
    assert changes(["--nodes=2-4"], own=["p"]) == []
    assert [one.options for one in changes(["--nodes=2", "--ntasks=5"], own=["p"])] == [
        ("--nodes=1", "--ntasks=3")
    ]


@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(["--nodes=", "--time=", "--ntasks=", "--partition="]).flatmap(
                lambda name: st.text("0123456789-:ab,", max_size=8).map(lambda v: name + v)
            ),
        ),
        max_size=6,
    ),
    st.lists(st.text(max_size=5), max_size=6),
)
def test_changes_bear_any_options(options: list[str], partitions: list[str]) -> None:
    assert len(changes(options, partitions, own=["p"])) <= MOST


def test_reading_a_start() -> None:
    said = (
        "sbatch: Job 5 to start at 1795232624 using 6 processors on nodes n[1-3] in partition low"
    )
    assert read_start(said) == 1795232624
    assert read_start("sbatch: Job 5 to start at 2026-11-21T03:43:44 using 6 processors") is None
    assert read_start("allocation failure") is None


# What is asked, and how seldom.

NOW = 1_000_000.0


class Answers(Slurm):
    """Slurm whose answers are given; `log` has what was asked."""

    def __init__(
        self, queue: str = "", starts: Sequence[float | None] = (), seconds: float = 0.0
    ) -> None:
        super().__init__({})
        self.log: list[str] = []
        self.now = NOW
        self.silent = False
        self._queue, self._starts, self._seconds = queue, list(starts), seconds

    def run(self, program: str, *arguments: str, **_: object) -> str:  # type: ignore[override]
        self.log.append(program)
        assert program != "squeue" or "--all" in arguments  # else hidden partitions are left out
        self.now += self._seconds
        if self.silent:
            raise SlurmUnreachable(program, "silent")
        if program == "sinfo":
            return "up infinite 1-infinite p\nup 1-00:00:00 1 q\nup 30:00 1-2 t\ndown 30:00 1-2 r\n"
        if program == "sbatch":
            start = self._starts.pop(0) if self._starts else NOW + 1e6
            if start is None:
                raise SlurmRefused(program, "allocation failure: Requested time limit is invalid")
            return f"sbatch: Job 9 to start at {start:.0f} using 2 processors on nodes n"
        mark = arguments[-1].removeprefix("%F").partition("%")[0]
        return self._queue.replace("|", mark)

    def ask(self, cache: CacheFile, reason: str = "Resources", healthy: bool = True) -> Waiting:
        job = JobFacts(id="7", number=7, state=JobState.PENDING, reason=reason, partition="p")
        request = Request(("--nodes=2", "--partition=p"), Path("/x"))
        found = why_waiting(
            job, request, slurm=self, cache=cache, healthy=healthy, clock=lambda: self.now
        )
        assert found is not None
        return found


QUEUE = f"7|5|{NOW + 1000:.0f}|Resources|(null)|\n8|9|N/A|Priority|(null)|\n"


def test_what_would_start_sooner_than_the_job_itself() -> None:
    slurm = Answers(QUEUE, [NOW + 1000, NOW + 990, NOW + 10])
    found = slurm.ask(CacheFile(None))
    assert found.expected_start == NOW + 1000
    assert (found.position, found.of) == (2, 2)
    assert found.sooner == (Sooner("partition q", NOW + 10),)
    assert slurm.log == ["squeue", "sbatch", "sinfo", "sbatch", "sbatch", "sbatch"]


def test_another_partition_is_tried_for_a_job_in_the_default_one() -> None:
    job = JobFacts(id="7", number=7, state=JobState.PENDING, reason="Resources", partition="p")
    for partitions, change in (((), "partition q"), (("gone", "p", "r", "t"), "partition t")):
        slurm = Answers(QUEUE, [NOW + 1000, NOW + 10])
        request = Request(("--nodes=1",), Path("/x"), partitions)
        found = why_waiting(job, request, slurm=slurm, cache=CacheFile(None), clock=lambda: NOW)
        assert found is not None
        assert found.sooner == (Sooner(change, NOW + 10),)


def test_for_a_job_that_would_not_be_taken_any_start_is_sooner() -> None:
    slurm = Answers("7|5|N/A|PartitionNodeLimit|(null)|\n", [None, NOW + 9000])
    found = slurm.ask(CacheFile(None), reason="PartitionNodeLimit")
    assert found.sooner == (
        Sooner("1 node in place of 2", NOW + 9000),
        Sooner("partition q", NOW + 1e6),
        Sooner("partition t", NOW + 1e6),
    )


def test_answers_are_kept_for_a_while(tmp_path: Path) -> None:
    cache = CacheFile(tmp_path / "cache")
    slurm = Answers(QUEUE, [NOW + 10])
    first = slurm.ask(cache)
    asked = len(slurm.log)
    slurm.now = NOW + FRESH - 1
    assert slurm.ask(CacheFile(tmp_path / "cache")) == first
    assert len(slurm.log) == asked
    slurm.now = NOW + FRESH + 1
    assert slurm.ask(cache).sooner == first.sooner
    assert slurm.log[asked:] == ["squeue"]  # its place is asked again, the tests are not
    assert slurm.ask(cache, reason="JobHeldUser").reason != "JobHeldUser"  # squeue knows better
    slurm.now = NOW + FRESH_SOONER + 1
    slurm.ask(cache)
    assert slurm.log[-1] == "sbatch"


def test_the_jobs_of_a_user_share_the_answers_and_the_questions(tmp_path: Path) -> None:
    rows = "".join(f"{n}|5|{NOW + 1000:.0f}|Resources|(null)|\n" for n in range(1, 6))
    slurm = Answers(rows, [NOW + 1000, NOW + 10])

    def ask(number: int, *options: str) -> Waiting | None:
        job = JobFacts(
            id=str(number), number=number, state=JobState.PENDING, reason="Resources", partition="p"
        )
        cache = CacheFile(tmp_path / "cache")  # each call is another process
        request = Request(options, Path(f"/{number}"))
        return why_waiting(job, request, slurm=slurm, cache=cache, clock=lambda: slurm.now)

    alike = [ask(number, "--nodes=2", f"--job-name=x.{number}") for number in range(1, 6)]
    assert [one.position for one in alike if one] == [1, 2, 3, 4, 5]
    assert {one.sooner for one in alike if one} == {(Sooner("1 node in place of 2", NOW + 10),)}
    assert slurm.log == ["squeue", "sbatch", "sinfo", "sbatch", "sbatch", "sbatch"]
    for number in range(1, 6):  # each asks for something else: too many questions for a minute
        assert ask(number, f"--nodes={number + 2}") is not None
    assert len(slurm.log) <= MOST_A_MINUTE
    slurm.now += 61
    before = len(slurm.log)
    assert ask(1, "--nodes=3") is not None
    assert slurm.log[before : before + 2] == ["squeue", "sbatch"]


def test_a_slow_or_silent_controller_is_left_in_peace() -> None:
    slow = Answers(QUEUE, [NOW + 10], seconds=1.5)
    assert slow.ask(CacheFile(None)).sooner == ()
    assert slow.log == ["squeue"]
    unwell = Answers(QUEUE)
    assert unwell.ask(CacheFile(None), healthy=False).text
    assert unwell.log == []
    silent = Answers(QUEUE)
    silent.silent = True
    assert silent.ask(CacheFile(None)).position is None
    assert silent.log == ["squeue"]


def test_where_asking_for_less_is_no_help_nothing_is_tested() -> None:
    slurm = Answers("7|0|N/A|JobHeldUser|(null)|\n")
    found = slurm.ask(CacheFile(None), reason="JobHeldUser")
    assert (found.position, found.of, found.sooner) == (None, None, ())
    assert slurm.log == ["squeue"]


def test_a_job_that_does_not_wait() -> None:
    job = JobFacts(id="7", number=7, state=JobState.RUNNING)
    assert why_waiting(job, None, slurm=Answers(), cache=CacheFile(None)) is None


# On a real cluster.

SLEEP = "#!/bin/bash\n#SBATCH --output=/dev/null\nsleep 600\n"


def waiting_for(
    cluster: DevCluster, job: int, reason: str, script: Path, *options: str, timeout: float = 30
) -> Waiting:
    """Why a job waits, once Slurm gives this reason and has estimated what it can."""
    slurm = Slurm(cluster.environ)
    deadline = time.monotonic() + timeout
    while True:
        facts = next(one for one in slurm.mine() if one.number == job)
        request = Request(options, script)
        found = why_waiting(facts, request, slurm=slurm, cache=CacheFile(None))
        if found is not None and found.reason == reason:
            return found
        assert time.monotonic() < deadline, f"job {job}: {found}"
        time.sleep(0.5)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.sh"
    path.write_text(SLEEP)
    return path


@pytest.fixture
def full(slurm_cluster: DevCluster, script: Path) -> Iterator[DevCluster]:
    """Three of the four nodes are taken for ten minutes."""
    busy = slurm_cluster.sbatch("--nodes=3", "--ntasks-per-node=2", "--time=10", script)
    slurm_cluster.wait_until(busy, "RUNNING")
    yield slurm_cluster


@pytest.mark.slow
@pytest.mark.slurm
def test_fewer_nodes_would_start_sooner(full: DevCluster, script: Path) -> None:
    options = ("--nodes=2", "--ntasks-per-node=2", "--time=8", "--partition=low")
    job = full.sbatch(*options, script)
    end = time.monotonic() + 30
    while True:  # the estimate comes with a pass of the backfill scheduler
        found = waiting_for(full, job, "Resources", script, *options)
        if found.expected_start is not None or time.monotonic() > end:
            break
        time.sleep(0.5)
    now = time.time()
    assert found.expected_start is not None
    assert found.expected_start > now + 400
    starts = {one.change: one.start for one in found.sooner}
    assert starts["1 node in place of 2"] < found.expected_start - 60
    assert starts["partition high"] < now + 60  # it would preempt
    assert (found.position, found.of) == (1, 1)

    behind = full.sbatch("--nodes=4", "--ntasks-per-node=2", "--time=20", script)
    found = waiting_for(full, behind, "Priority", script)
    assert (found.position, found.of) == (2, 2)


@pytest.mark.slow
@pytest.mark.slurm
def test_reasons_that_are_the_jobs_own(full: DevCluster, script: Path) -> None:
    first = full.sbatch("--hold", script)
    found = waiting_for(full, first, "JobHeldUser", script)
    assert found.expected_start is None
    after = full.sbatch(f"--dependency=afterok:{first}", script)
    assert f"afterok:{first}" in waiting_for(full, after, "Dependency", script).text
    later = full.sbatch("--begin=now+1hour", script)
    begin = waiting_for(full, later, "BeginTime", script)
    assert begin.expected_start is not None
    assert begin.expected_start > time.time() + 3000
    full.run("scancel", str(first))
    never = waiting_for(full, after, "DependencyNeverSatisfied", script)
    assert never.help is not None
    assert "cancel" in never.help


@pytest.mark.slow
@pytest.mark.slurm
def test_reasons_that_lie_with_the_site(slurm_cluster: DevCluster, script: Path) -> None:
    cluster = slurm_cluster
    cluster.scontrol("update", "NodeName=n1", "State=DOWN", "Reason=test")
    down = cluster.sbatch("--nodelist=n1", script)
    assert "n1" in waiting_for(cluster, down, "ReqNodeNotAvail", script).text
    long = cluster.sbatch("--time=30", "--hold", script)
    limits = cluster.scontrol("-o", "show", "partition", "low")
    before = next(word for word in limits.split() if word.startswith("MaxTime="))
    try:
        cluster.scontrol("update", "PartitionName=low", "MaxTime=5")
        cluster.scontrol("release", str(long))
        found = waiting_for(cluster, long, "PartitionTimeLimit", script)
        assert found.help is not None
        assert "resources.time" in found.help
        cluster.scontrol("update", "PartitionName=low", before, "State=DOWN")
        waiting_for(cluster, long, "PartitionDown", script)
    finally:
        cluster.scontrol("update", "PartitionName=low", before, "State=UP")


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_beyond_its_partition_learns_what_would_start(
    slurm_cluster: DevCluster, script: Path
) -> None:
    cluster = slurm_cluster
    options = ("--nodes=2", "--ntasks=2", "--time=3:00:00", "--partition=low")
    job = cluster.sbatch("--hold", *options, script)
    before = next(
        word
        for word in cluster.scontrol("-o", "show", "partition", "low").split()
        if word.startswith("MaxTime=")
    )
    try:
        cluster.scontrol("update", "PartitionName=low", "MaxTime=1:00:00")
        cluster.scontrol("release", str(job))
        found = waiting_for(cluster, job, "PartitionTimeLimit", script, *options)
    finally:
        cluster.scontrol("update", "PartitionName=low", before)
    changes = [one.change for one in found.sooner]
    assert changes == ["a time limit of 1:00 h in place of 3:00 h", "partition high"]


@pytest.mark.slow
@pytest.mark.slurm
def test_limits_of_accounting(make_devcluster: Callable[..., DevCluster], script: Path) -> None:
    enforce = "AccountingStorageEnforce=associations,limits,qos"
    cluster = make_devcluster(nodes=1, accounting=True, conf=[enforce])
    cluster.run("sacctmgr", "-i", "modify", "qos", "normal", "set", "MaxJobsPerUser=1")
    cluster.wait_until(cluster.sbatch("--ntasks=1", script), "RUNNING")
    second = cluster.sbatch("--ntasks=1", script)
    found = waiting_for(cluster, second, "QOSMaxJobsPerUserLimit", script)
    assert "running jobs" in found.text


@pytest.mark.slow
@pytest.mark.slurm
def test_status_says_why_a_submitted_run_waits(full: DevCluster, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "name: waits\n"
        "command: ['true']\n"
        "scheduler: slurm\n"
        "resources: {nodes: 2, ranks_per_node: 2, cpus_per_rank: 1, time: 8}\n"
    )
    runs = ["--runs-dir", str(tmp_path / "runs")]
    said = full.run("clusterseg", "submit", "job.yaml", "--json", *runs, cwd=tmp_path).stdout
    run = json.loads(said)["run"]

    def status(cache: int, *options: str) -> str:
        env = {"XDG_CACHE_HOME": str(tmp_path / f"cache-{cache}")}
        return full.run("clusterseg", "status", run, *options, *runs, env=env).stdout

    end = time.monotonic() + 60
    for number in itertools.count():  # each time with nothing remembered
        waiting = json.loads(status(number, "--json"))["waiting"]
        if waiting and waiting["reason"] == "Resources" and waiting["expected_start"]:
            break
        assert time.monotonic() < end, waiting
    assert waiting["text"] == explain("Resources").text
    assert (waiting["position"], waiting["of"]) == (1, 1)
    assert waiting["expected_start"] > time.time() + 300
    assert {"1 node in place of 2", "partition high"} <= {
        one["change"] for one in waiting["sooner"]
    }
    page = status(number)
    assert f"waiting       {waiting['text']}\n" in page
    assert "place         1 of 1 that wait" in page
    assert "sooner        with " in page
