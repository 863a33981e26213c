"""Arrays of which one run is resumed, on a real Slurm: no other task starts once more."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterseg.cluster.slurm.commands import Slurm
from clusterseg.runs import store
from clusterseg.runs.claims import read_claims
from clusterseg.runs.paths import RunPaths
from tests.devcluster import DevCluster
from tests.submit.test_slurm_submission import Login, job_id

pytestmark = [pytest.mark.slow, pytest.mark.slurm]


@pytest.fixture
def login(slurm_cluster: DevCluster, tmp_path: Path) -> Login:
    return Login(slurm_cluster, tmp_path)


def until(condition: Callable[[], object], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def submitted(login: Login, array: str, line: str, *more: str) -> list[RunPaths]:
    path = login.job(line, "restart: {crash: 0}", *more)
    said = json.loads(login("submit", path, "--set", f"slurm.array={array}", "--json").stdout)
    return [RunPaths(Path(one["run_dir"])) for one in said["runs"]]


def killed_at_release(login: Login, array: str, line: str) -> list[RunPaths]:
    """The runs of an array that is noted and held: its client was killed."""
    shims = login.folder / "shims"
    shims.mkdir()
    (shims / "scontrol").write_text(
        '#!/bin/bash\n[ "$1" = release ] || exec /usr/bin/scontrol "$@"\nkill -9 $PPID\n'
    )
    (shims / "scontrol").chmod(0o755)
    env = {"PATH": f"{shims}:{login.cluster.environ['PATH']}"}
    login("submit", login.job(line), "--set", f"slurm.array={array}", code=-9, env=env)
    runs = sorted(login.all_runs, key=lambda run: job_id(run).partition("_")[2])
    assert len({job_id(run).partition("_")[0] for run in runs}) == 1
    return runs


def test_a_task_that_slurm_forgot_is_resumed_alone(
    make_devcluster: Callable[..., DevCluster], tmp_path: Path
) -> None:
    login = Login(make_devcluster(nodes=1, conf=["MinJobAge=2"]), tmp_path)
    runs = submitted(
        login, "0-2%1", f"echo $SLURM_ARRAY_TASK_ID >> {tmp_path}/ran; sleep 2; exit 1"
    )
    ids = [job_id(run) for run in runs]
    login.cluster.run("scancel", ids[2])
    for run in runs[:2]:
        login.until(run, "failed")
    slurm = Slurm(login.cluster.environ)
    until(lambda: slurm.show(ids[2].partition("_")[0]) is None, seconds=200)
    login.until(runs[2], "queued")
    assert "does not know job" in login("status", runs[2].root).stdout
    login("resume", runs[2].root, "--wait", code=1)
    assert (tmp_path / "ran").read_text().split() == ["0", "1", "2"]
    assert [job_id(run) for run in runs] == ids
    assert [len(read_claims(run)) for run in runs] == [1, 1, 1]
    assert job_id(runs[2], 1).endswith("_2")


@pytest.mark.parametrize("noted", [0, 1, 2])
def test_ids_that_a_killed_client_has_not_noted_are_noted_by_the_next(
    login: Login, noted: int
) -> None:
    runs = killed_at_release(login, "0-1", "true")
    for run in runs[noted:]:
        run.submission(0).job_id.unlink()
    login("resume", runs[0].root, "--wait")
    login.until(runs[1], "done")
    assert [job_id(run).partition("_")[2] for run in runs] == ["0", "1"]
    assert [len(read_claims(run)) for run in runs] == [1, 1]
    assert [len(store.iter_submissions(run)) for run in runs] == [1, 1]


def test_a_task_that_a_person_holds_is_released_alone(login: Login) -> None:
    runs = submitted(login, "0-3%1", "sleep 3")
    for run in runs[2:]:
        login.cluster.scontrol("hold", job_id(run))
    login.until(runs[0], "running", "done")
    assert "held" in login("status", runs[2].root).stdout
    login("resume", runs[2].root)
    assert "Held" in login.cluster.job(job_id(runs[3]))["Reason"]
    login.until(runs[2], "done")
    assert len(read_claims(runs[2])) == 1
    assert login.state(runs[3]) == "queued"


def test_a_task_that_waits_with_others_is_known_by_itself(login: Login) -> None:
    login.cluster.scontrol("update", "partitionname=low", "state=down")
    try:
        runs = submitted(login, "0-2", "true", "slurm: {partition: low}")
        slurm = Slurm(login.cluster.environ)
        intent = store.read_intent(runs[1].submission(0))
        detail = slurm.show(job_id(runs[1]))
        assert intent is not None
        assert detail is not None
        assert detail.key == intent.key
        assert slurm.show(f"{job_id(runs[1])}7") is None
    finally:
        login.cluster.scontrol("update", "partitionname=low", "state=up")
