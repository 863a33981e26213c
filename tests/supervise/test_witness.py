"""What a claim is told about the job that held the run before."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from clusterseg.runs import files
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Claim, Intent
from clusterseg.supervise.journal import Journal
from clusterseg.supervise.scheduler import NoScheduler
from clusterseg.supervise.signals import Wakeups
from clusterseg.supervise.witness import Onlooker


class Forgetful(NoScheduler):
    """A scheduler that knows another job of that id."""

    def job_lives(self, claim: Claim) -> bool | None:
        return False


@pytest.mark.parametrize(
    ("asked", "own", "lives"),
    [
        ("one", "one", False),
        ("one", "other", None),
        (None, "other", False),
        ("one", None, False),
    ],
)
def test_a_job_of_another_cluster_is_never_known_to_be_over(
    tmp_path: Path, asked: str | None, own: str | None, lives: bool | None
) -> None:
    run = RunPaths(tmp_path)
    intent = Intent(
        t=1.0, key="k", submission=0, scheduler="slurm", host="h", uid=os.getuid(), cluster=asked
    )
    files.make_private_dir(run.submission(0).folder)
    files.commit_new(run.submission(0).intent, msgspec.json.encode(intent))
    with Wakeups() as wakeups:
        onlooker = Onlooker(
            run, "12", Forgetful(None), wakeups, Journal(), cleanup=1.0, cluster=own
        )
        assert onlooker.job_lives(claim()) is lives


def claim() -> Claim:
    return Claim(
        t=1.0,
        attempt=0,
        submission=0,
        key="k",
        uid=os.getuid(),
        job_id="12",
        host="h",
        boot_id="b",
        pid=1,
        pid_start=1,
        nonce="n",
        hosts={"h": 1},
        ranks=1,
        argv=[],
    )
