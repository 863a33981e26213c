"""Sweeps and arrays: which runs there are, and a sweep without Slurm."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterseg.cluster.local import job_process
from clusterseg.cluster.look import look
from clusterseg.errors import ClustersegError
from clusterseg.runs import store
from clusterseg.runs.claims import read_claims
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import State
from clusterseg.submit.array import _ranges, tasks_of, throttle_of
from clusterseg.submit.cancellation import ask_to_stop
from clusterseg.submit.resumption import is_unfinished
from clusterseg.submit.submission import start
from clusterseg.submit.sweep import combinations, plan_sweep, submit_sweep

JOB = """\
name: swept
command: [bash, -c, "echo $V; sleep 1"]
launcher: local
scheduler: local
resources: {ranks: 1}
environment: {variables: {V: zero}}
"""


def test_every_combination_once() -> None:
    assert combinations(["a=1,2", "b.c=x"]) == [("a=1", "b.c=x"), ("a=2", "b.c=x")]
    assert combinations(['a=[1,2],{x: 1, y: 2},"p,q"']) == [
        ("a=[1,2]",),
        ("a={x: 1, y: 2}",),
        ('a="p,q"',),
    ]


@pytest.mark.parametrize("over", [["a"], ["a="], ["=1"], ["a=1,,2"], ["a=1,1"], ["a=1", "a=2"]])
def test_what_is_no_sweep(over: list[str]) -> None:
    with pytest.raises(ClustersegError) as caught:
        combinations(over)
    assert caught.value.exit_code == 2


def test_too_many_combinations() -> None:
    values = ",".join(map(str, range(40)))
    with pytest.raises(ClustersegError, match="more than 1000"):
        combinations([f"a={values}", f"b={values}"])


@pytest.mark.parametrize(
    ("array", "tasks", "throttle"),
    [
        ("0", [0], None),
        ("0-3", [0, 1, 2, 3], None),
        ("0-7:3%2", [0, 3, 6], 2),
        ("5,1-2,2", [1, 2, 5], None),
    ],
)
def test_the_tasks_of_an_array(array: str, tasks: list[int], throttle: int | None) -> None:
    assert tasks_of(array) == tasks
    assert throttle_of(array) == throttle


@pytest.mark.parametrize("array", ["5-1", "0-99999999999"])
def test_arrays_that_are_none(array: str) -> None:
    with pytest.raises(ClustersegError, match=r"slurm\.array"):
        tasks_of(array)


@given(st.sets(st.integers(0, 60), min_size=1))
def test_ranges_are_the_tasks(tasks: set[int]) -> None:
    assert tasks_of(",".join(_ranges(sorted(tasks)))) == sorted(tasks)


def until(condition: Callable[[], object], what: str) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"never: {what}")


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, list]]:
    """Starts a sweep over three values; the job that does it, and the runs."""
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "job.yaml"
    job.write_text(JOB)

    def begin(parallel: int | None = None) -> tuple[str, list[RunPaths]]:
        members = plan_sweep(job, ["environment.variables.V=a,b,c"], (), os.environ)
        job_id, started = submit_sweep(members, parallel, JOB, tmp_path / "runs", os.environ)
        return job_id, [RunPaths(one.run_dir) for one in started]

    return begin


@pytest.mark.slow
def test_a_sweep_without_slurm_goes_one_after_the_other(
    swept: Callable[..., tuple[str, list[RunPaths]]],
) -> None:
    _, runs = swept()
    until(lambda: look(runs[0]).verdict.state is State.RUNNING, "the first")
    waiting = look(runs[2])
    assert (waiting.verdict.state, waiting.verdict.not_started) == (State.QUEUED, False)
    assert not is_unfinished(waiting, os.environ)  # its turn comes
    ask_to_stop(look(runs[1]), now=False)
    assert look(runs[1]).verdict.state is State.STOPPED
    until(lambda: look(runs[2]).verdict.over, "the last")
    assert [look(run).verdict.state for run in runs] == [State.DONE, State.STOPPED, State.DONE]
    assert not read_claims(runs[1])
    first, last = (read_claims(run)[0] for run in (runs[0], runs[2]))
    assert last.t - first.t > 1
    assert [run.attempt(0).log(0).read_text() for run in (runs[0], runs[2])] == ["a\n", "c\n"]


@pytest.mark.slow
def test_a_killed_sweep_leaves_runs_to_resume(
    swept: Callable[..., tuple[str, list[RunPaths]]],
) -> None:
    job_id, runs = swept()
    process = job_process(job_id)
    assert process is not None
    until(lambda: look(runs[0]).verdict.state is State.RUNNING, "the first")
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: look(runs[2]).verdict.not_started, "told")
    until(lambda: look(runs[0]).verdict.over, "the first goes on")
    assert is_unfinished(look(runs[1]), os.environ)
    start(runs[1], runs[1].submission(0), os.environ)
    until(lambda: look(runs[1]).verdict.state is State.DONE, "the second")
    assert store.read_job_id(runs[2].submission(0)) is None


def test_a_sweep_has_one_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "job.yaml"
    job.write_text(JOB)
    with pytest.raises(ClustersegError, match="array by itself"):
        plan_sweep(job, ["notes=x,y"], ["slurm.array=0-3"], os.environ)
