"""CITYSCAPES_DATASET stands for the root that a job leaves out."""

from __future__ import annotations

import pytest

from clusterseg.spec.errors import SpecError
from clusterseg.spec.frozen import frozen_overrides
from clusterseg.spec.reader import parse_job

JOB = "name: a\ntrain:\n  model: {name: unet}\n  data: {format: cityscapes}\n"
SET = {"CITYSCAPES_DATASET": "/data/city"}


def root(text: str, environ: dict[str, str], *overrides: str) -> str:
    train = parse_job(text, "job.yaml", overrides=overrides, environ=environ).spec.train
    assert train is not None
    return train.data.root


def test_the_variable_is_taken_where_root_is_left_out() -> None:
    assert root(JOB, SET) == "/data/city"
    assert root(JOB.replace("cityscapes", "cityscapes, root: /other"), SET) == "/other"
    assert root(JOB, SET, "train.data.root=/third") == "/third"
    assert root(JOB.replace("cityscapes", "camvid, root: x"), SET, "train.data.format=cityscapes",
                "train.data.root=y") == "y"  # fmt: skip


def test_a_variable_in_its_value_is_no_variable_again() -> None:
    assert root(JOB, {"CITYSCAPES_DATASET": "/data/${HOME}"}) == "/data/${HOME}"


@pytest.mark.parametrize("environ", [{}, {"CITYSCAPES_DATASET": ""}])
def test_without_it_both_are_named_where_the_format_stands(environ: dict[str, str]) -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(JOB, "job.yaml", environ=environ)
    (problem,) = caught.value.problems
    assert problem.code == "missing-key"
    assert "train.data.root" in problem.message and "CITYSCAPES_DATASET" in problem.message
    assert problem.place is not None and problem.place.line == 3  # from 0


def test_other_layouts_want_a_root() -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(JOB.replace("cityscapes", "ade20k"), "job.yaml", environ=SET)
    assert [one.code for one in caught.value.problems] == ["missing-key"]


@pytest.mark.parametrize(
    "text",
    [
        "name: a\ntrain: []\n",
        "name: a\ntrain:\n  data: [1]\n",
        "name: a\ntrain:\n  data: {format: [cityscapes]}\n",
    ],
)
def test_nothing_is_filled_into_what_is_no_section(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(text, "job.yaml", environ={})
    assert not any("CITYSCAPES" in one.message for one in caught.value.problems)


def test_a_frozen_job_reads_the_same_elsewhere() -> None:
    """What a batch script or a sweep keeps does not depend on where it runs."""
    frozen = frozen_overrides(JOB, (), SET)
    assert frozen == ["train.data.root=/data/city"]
    assert root(JOB, {}, *frozen) == "/data/city"


@pytest.mark.parametrize(("written", "value"), [("true", True), ("false", False), ("only", "only")])
def test_coarse_is_yes_no_or_only(written: str, value: object) -> None:
    text = JOB.replace("cityscapes", f"cityscapes, coarse: {written}")
    train = parse_job(text, "job.yaml", environ=SET).spec.train
    assert train is not None and train.data.coarse == value


def test_coarse_is_of_cityscapes() -> None:
    text = JOB.replace("cityscapes", "camvid, root: x, coarse: true")
    with pytest.raises(SpecError, match="no coarse annotations"):
        parse_job(text, "job.yaml", environ={})
    text = JOB.replace("cityscapes", "cityscapes, coarse: both")
    with pytest.raises(SpecError, match="coarse"):
        parse_job(text, "job.yaml", environ=SET)
