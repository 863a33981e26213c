"""What `resume` asks of a run's checkpoints before it submits, without a rank and TensorFlow."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from clusterseg.errors import ClustersegError
from clusterseg.plan.model import Plan
from clusterseg.runs.attempts import Attempt
from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.runs.checkpoints import checkpoint_name, commit_checkpoint
from clusterseg.runs.fit import SAMPLES, spec_identity
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import CheckpointHeader, Claim
from clusterseg.runs.snapshot import Snapshot
from clusterseg.spec.model import JobSpec, OptimizerSpec, TrainSpec
from clusterseg.submit.fitting import with_force
from clusterseg.submit.request import read_request

JOB = """
name: fitting
train:
  model: {name: unet, classes: 11}
  data: {format: camvid, root: data, size: [32, 48]}
resources: {ranks: 1}
launcher: local
scheduler: local
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "job.yaml").write_text(JOB)
    return read_request(tmp_path / "job.yaml")


def changed(plan: Plan, **keys: Any) -> Plan:
    assert plan.spec.train is not None
    return replace(plan, spec=replace(plan.spec, train=replace(plan.spec.train, **keys)))


def save(
    run: RunPaths, spec: TrainSpec | None, step: int, inside: int = 0, samples: int = 24
) -> None:
    assert spec is not None
    commit_checkpoint(
        run.checkpoints,
        checkpoint_name(1, 0.5, step),
        CheckpointHeader(
            epoch=1,
            step=step,
            step_in_epoch=inside,
            attempt=0,
            t=1,
            identity={**spec_identity(spec), SAMPLES: str(samples)},
            global_batch=8,
            world_size=2,
        ),
        [Tensor("a", "F32", (0,), memoryview(b"").cast("B"))],
        accepted={},
    )


@pytest.fixture
def over(tmp_path: Path, plan: Plan) -> Snapshot:
    """A run with one claimed attempt, which saved at step 9, at its epoch's end."""
    run = RunPaths(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    submission = run.submission(0)
    submission.folder.mkdir(parents=True)
    submission.plan.write_bytes(msgspec.json.encode(plan))
    save(run, plan.spec.train, 9)
    claim = Claim(
        t=time.time(), attempt=0, submission=0, key="k", uid=0, job_id="j", host="h", boot_id="b",
        pid=1, pid_start=1, nonce="n", hosts={"h": 1}, ranks=1, argv=[],
    )  # fmt: skip
    attempt = Attempt(run.attempt(0), packed=False, claim=claim, end=None)
    return Snapshot(
        run=run, verdict=None, submission=submission, job_id="j", attempt=attempt  # type: ignore[arg-type]
    )  # fmt: skip


def test_what_fits_goes_on_and_only_who_asks_forces(plan: Plan, over: Snapshot) -> None:
    assert with_force(changed(plan, epochs=9), over, force=False) == changed(plan, epochs=9)
    assert with_force(plan, over, force=True) == replace(plan, force=True)


def test_a_run_without_a_checkpoint_goes_on_as_anything(plan: Plan, over: Snapshot) -> None:
    other = changed(plan, optimizer=OptimizerSpec(name="adam"))
    assert with_force(other, replace(over, attempt=None), force=False) == other


@pytest.mark.parametrize("force", [False, True])
def test_another_optimizer_is_refused_with_exit_code_2(
    plan: Plan, over: Snapshot, force: bool
) -> None:
    with pytest.raises(ClustersegError) as caught:
        with_force(changed(plan, optimizer=OptimizerSpec(name="adam")), over, force=force)
    assert (caught.value.exit_code, caught.value.code) == (2, "checkpoint-mismatch")
    assert "optimizer.name is sgd there, adam now" in caught.value.message


def test_another_seed_is_forced_at_an_epochs_end_alone(plan: Plan, over: Snapshot) -> None:
    other, said = changed(plan, seed=5), []  # type: tuple[Plan, list[str]]
    with pytest.raises(ClustersegError, match="seed is 0 there, 5 now"):
        with_force(other, over, force=False)
    assert with_force(other, over, force=True, say=said.append).force
    assert said == ["warning: --force: seed is 0 there, 5 now (weights-0001-0.5000-step-000000009"
                    ".safetensors)"]  # fmt: skip
    save(over.run, plan.spec.train, 12, inside=3)
    with pytest.raises(ClustersegError, match="5 now, in the middle of an epoch"):
        with_force(other, over, force=True)


def test_a_stray_newest_of_another_model_is_left_to_the_supervisor(
    plan: Plan, over: Snapshot
) -> None:
    stray = replace(plan.spec.train, model=replace(plan.spec.train.model, name="fastscnn"))  # type: ignore[union-attr]
    save(over.run, stray, 99)
    assert with_force(plan, over, force=False) == plan
    # What is changed is still compared with the one that the run would go on from.
    with pytest.raises(ClustersegError, match=r"step-000000009.* seed is 0 there"):
        with_force(changed(plan, seed=5), over, force=False)


def test_going_back_to_older_settings_does_not_cost_the_steps_since(
    plan: Plan, over: Snapshot
) -> None:
    """An older checkpoint fits again: it must not be taken without a word."""
    forced = replace(changed(plan, seed=5), force=True)
    assert over.submission is not None
    over.submission.plan.write_bytes(msgspec.json.encode(forced))
    save(over.run, forced.spec.train, 18)
    with pytest.raises(ClustersegError, match="seed is 5 there, 0 now"):
        with_force(plan, over, force=False)


def test_a_command_has_nothing_to_force(plan: Plan, over: Snapshot) -> None:
    command = replace(plan, spec=JobSpec(name="c", command=(sys.executable,)))
    assert with_force(command, over, force=False) == command
    with pytest.raises(ClustersegError, match="checkpoints are its own"):
        with_force(command, over, force=True)


def test_ranks_that_can_not_share_the_global_batch_are_refused(plan: Plan, over: Snapshot) -> None:
    for ranks in (1, 2, 8):
        assert with_force(replace(plan, ranks=ranks), over, force=False).ranks == ranks
    for force in (False, True):
        with pytest.raises(ClustersegError, match="resources make 3 ranks now, 2 there") as caught:
            with_force(replace(plan, ranks=3), over, force=force)
        assert (caught.value.exit_code, caught.value.code) == (2, "resize")
        assert caught.value.help is not None and "1, 2, 4, 8 ranks" in caught.value.help
    scaled = replace(changed(plan, on_resize="scale"), ranks=3)
    assert with_force(scaled, over, force=False) == scaled


def test_data_with_another_number_of_samples_are_refused_where_they_are_seen(
    plan: Plan, over: Snapshot
) -> None:
    assert with_force(plan, over, force=False, data=lambda: {SAMPLES: "24"}) == plan
    more = {SAMPLES: "25", "model.classes": "11"}
    with pytest.raises(ClustersegError, match="data samples is 24 there, 25 now") as caught:
        with_force(plan, over, force=False, data=lambda: more)
    assert (caught.value.exit_code, caught.value.code) == (2, "checkpoint-mismatch")
    said: list[str] = []
    assert with_force(plan, over, force=True, data=lambda: more, say=said.append).force
    assert "data samples is 24 there, 25 now" in said[0]


def test_data_are_not_looked_at_where_there_is_nothing_to_compare_them_with(
    plan: Plan, over: Snapshot
) -> None:
    def opened() -> dict[str, str]:
        raise AssertionError

    assert with_force(plan, replace(over, attempt=None), force=False, data=opened) == plan


def test_initial_weights_are_needed_only_where_there_is_no_checkpoint(
    plan: Plan, over: Snapshot
) -> None:
    gone = changed(plan, initial_weights="gone.h5")
    assert with_force(gone, over, force=False) == gone
    with pytest.raises(ClustersegError, match=r"train.initial_weights: .*gone.h5 does not exist"):
        with_force(gone, replace(over, attempt=None), force=False)


def test_a_run_that_lost_its_checkpoints_is_refused_and_nothing_is_moved(
    plan: Plan, over: Snapshot
) -> None:
    (file,) = over.run.checkpoints.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ClustersegError, match=f"can be used: {file.name} is truncated") as caught:
        with_force(plan, over, force=False)
    assert (caught.value.exit_code, caught.value.code) == (2, "no-good-checkpoint")
    assert file.exists()
