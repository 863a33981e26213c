"""The plan of a learning rate range test, from that of the job."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from clusterseg.errors import ClustersegError
from clusterseg.plan.lr_find import chosen_optimizers, lr_find_plan
from clusterseg.plan.model import LrRange, Plan
from clusterseg.spec.tables import OPTIMIZERS
from tests.plan.plans import slurm_plan

TRAIN = """
train:
  model: {name: unet}
  data: {format: camvid, root: /data, size: [32, 48]}
  optimizer: {name: adam}
"""
READY = tuple(name for name, known in OPTIMIZERS.items() if known.ready)


def test_only_the_task_differs_and_what_a_time_limit_may_cost() -> None:
    plan = slurm_plan(TRAIN)
    made = lr_find_plan(plan, ("sgd", "adam"))
    assert (plan.task, made.task) == ("train", "lr-find")
    assert made.lr_find == LrRange(optimizers=("sgd", "adam"))
    before, after = msgspec.to_builtins(plan), msgspec.to_builtins(made)
    assert {key for key in before if before[key] != after[key]} == {"task", "lr_find", "spec"}
    assert after["spec"].pop("restart") == {**before["spec"].pop("restart"), "time_limit": 1}
    assert after["spec"] == before["spec"]
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made


@pytest.mark.parametrize(
    ("budget", "optimizers", "wanted"),
    [("20", 1, 0), ("20", 2, 1), ("0", 2, 0), ("unlimited", 2, 1)],
)
def test_no_start_after_a_time_limit_that_could_bring_no_sweep(
    budget: str, optimizers: int, wanted: int
) -> None:
    plan = slurm_plan(f"{TRAIN}restart: {{time_limit: {budget}}}\n")
    made = lr_find_plan(plan, ("adam", "sgd")[:optimizers])
    assert made.spec.restart.time_limit == wanted


def test_optimizers_are_the_jobs_own_or_those_asked_for_each_once() -> None:
    assert chosen_optimizers((), "adam") == ("adam",)
    assert chosen_optimizers(("sgd", "adam", "sgd"), "adam") == ("sgd", "adam")
    assert chosen_optimizers(("all",), "adam") == READY
    first = chosen_optimizers(("adam", "all"), "sgd")
    assert first[0] == "adam" and sorted(first) == sorted(READY)


def test_what_is_no_optimizer_or_not_ready_is_named_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ClustersegError, match="adom: there is no such optimizer; did") as error:
        chosen_optimizers(("adom",), "sgd")
    assert error.value.help is not None and all(name in error.value.help for name in READY)
    later = {**OPTIMIZERS, "adam": dataclasses.replace(OPTIMIZERS["adam"], ready=False)}
    monkeypatch.setattr("clusterseg.plan.lr_find.OPTIMIZERS", later)
    with pytest.raises(ClustersegError, match="adam is not there yet"):
        chosen_optimizers(("adam",), "sgd")
    assert "adam" not in chosen_optimizers(("all",), "sgd")


def test_a_job_that_does_not_train_or_is_several_is_refused() -> None:
    with pytest.raises(ClustersegError, match="this job has `command:`"):
        lr_find_plan(slurm_plan(), ())
    with pytest.raises(ClustersegError, match=r"slurm\.array"):
        lr_find_plan(slurm_plan(f"{TRAIN}slurm: {{array: 0-3}}\n"), ())
