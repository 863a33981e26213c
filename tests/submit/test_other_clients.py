"""Several clients at one run: what one of them has done, another one does not undo or repeat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterseg.cluster.slurm.commands import SlurmRefused
from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.runs import store
from clusterseg.runs.paths import SubmissionPaths
from clusterseg.submit import array, slurm_protocol
from clusterseg.submit.array import submit_array, task_members
from clusterseg.submit.request import read_request
from clusterseg.submit.submission import submit
from tests.submit.played_slurm import EMPTY_QUEUE, REFUSAL, played

TEXT = """\
name: tiny
command: ["true"]
launcher: local
scheduler: slurm
resources: {nodes: 1, ranks: 1, cpus_per_rank: 1, time: 5}
"""
# While this client is refused, another one (`resume`) has its job accepted and notes the id.
QUICKER = f'for noted in runs/[!.]*/submissions/000; do echo 7 > "$noted/job_id"; done; {REFUSAL}'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm_protocol, "SETTLE", 0.0)
    (tmp_path / "job.yaml").write_text(TEXT)
    return tmp_path


def planned(folder: Path, environ: dict[str, str], *overrides: str) -> Plan:
    return read_request(folder / "job.yaml", overrides, environ)


@pytest.mark.parametrize("quicker", [False, True])
def test_a_refusal_takes_no_run_away_that_got_its_job_meanwhile(here: Path, quicker: bool) -> None:
    sbatch = QUICKER if quicker else REFUSAL
    environ = played(here / "bin", sbatch=sbatch, squeue=EMPTY_QUEUE, scontrol="exit 1")
    plan = planned(here, environ)
    with pytest.raises(ClustersegError, match="Invalid partition") as caught:
        submit(plan, TEXT, (), here / "runs", environ)
    runs = store.find_runs(here / "runs")
    if quicker:
        assert [store.read_job_id(run.submission(0)) for run in runs] == ["7"]
        assert f"another process went on with it: clusterseg status {runs[0].run_id}" in (
            caught.value.help or ""
        )
    assert len(list((here / "runs").iterdir())) == len(runs) == quicker


@pytest.mark.parametrize("quicker", [False, True])
def test_a_refused_array_takes_no_run_away_that_got_its_job_meanwhile(
    here: Path, quicker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(here, played(here / "bin"), "slurm.array=0-2")

    def start(*_: object, **__: object) -> None:
        runs = store.find_runs(here / "runs")
        first = next(run for run in runs if _task(run.submission(0)) == 0)
        if quicker:
            first.submission(0).job_id.write_text("7_0\n")
        error = SlurmRefused("sbatch", "Invalid partition name specified")
        error.clean = True  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(array, "start", start)
    with pytest.raises(ClustersegError, match="Invalid partition"):
        submit_array(task_members(plan, ()), None, TEXT, here / "runs", dict(os.environ))
    assert len(list((here / "runs").iterdir())) == 3 * quicker


def _task(submission: SubmissionPaths) -> int | None:
    intent = store.read_intent(submission)
    return intent.task if intent else None
