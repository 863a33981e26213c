"""What comes later is read, and named before anything is started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusterseg.spec import pending
from clusterseg.spec.model import JobSpec
from clusterseg.spec.pending import LATER, not_yet
from clusterseg.spec.tables import AUGMENTATIONS, TABLES

from .reading import COMMAND, TRAIN, job
from .test_reader import WHOLE


def keys(spec: JobSpec) -> list[str | None]:
    return [problem.key for problem in not_yet(spec)]


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day on which some names are known, and not there yet."""
    some = {"models": "segnet", "data_formats": "cityscapes", "losses": "dice"}
    tables = {name: dict(table) for name, table in TABLES.items()}
    for table, name in some.items():
        tables[table][name] = replace(tables[table][name], ready=False)
    rotate = replace(AUGMENTATIONS["rotate"], ready=False)
    monkeypatch.setattr(pending, "TABLES", tables)
    monkeypatch.setattr(pending, "AUGMENTATIONS", {**AUGMENTATIONS, "rotate": rotate})


def test_what_is_there_is_not_named() -> None:
    assert keys(job(TRAIN)) == []
    assert keys(job(COMMAND)) == []


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.model.name=segnet", "train.model.name"),
        ("train.data.format=cityscapes", "train.data.format"),
        ("train.loss.name=dice", "train.loss.name"),
        ("train.augment=[{flip_vertical: 1}, {rotate: 5}]", "train.augment.1.rotate"),
        ("environment.container=a.sif", "environment.container"),
    ],
)
@pytest.mark.usefixtures("early")
def test_what_comes_later_is_named(override: str, key: str) -> None:
    assert keys(job(TRAIN, override)) == [key]


def test_a_rank_that_trains_has_one_accelerator() -> None:
    assert keys(job(TRAIN, "resources.accelerator=cuda")) == []
    several = ("resources.accelerator=cuda", "resources.accelerators_per_rank=2")
    assert keys(job(COMMAND, *several)) == []
    (problem,) = not_yet(job(TRAIN, *several), "slurm")
    assert problem.key == "resources.accelerators_per_rank"
    assert "ask for more ranks" in problem.message


def test_under_slurm_there_is_more() -> None:
    asked = ("resources.memory=1G", "environment.container=a.sif", "resources.accelerator=cuda")
    assert keys(job(COMMAND, *asked)) == [
        "resources.memory",
        "environment.container",
    ]
    assert not_yet(job(COMMAND, *asked), "slurm") == []


@pytest.mark.usefixtures("early")
def test_all_that_comes_later_is_named_at_once() -> None:
    problems = not_yet(job(WHOLE, CITYSCAPES_DATASET="d"))
    assert {p.code for p in problems} == {"not-yet"}
    assert problems[0].message.startswith(
        "`train.data.format: cityscapes` is not there yet: ready are camvid"
    )
    assert "`resources.memory: 64G` is" in " ".join(p.message for p in problems)


def test_the_defaults_of_every_key_are_ready() -> None:
    """A key that is listed can be left out: its default is something that can be done."""
    spec = job(TRAIN)
    for key, (can, _) in LATER.items():
        value: object = spec
        for name in key.split("."):
            value = getattr(value, name)
        assert can(value), key


def test_a_job_needs_something_ready_of_everything() -> None:
    for name, table in TABLES.items():
        assert any(known.ready for known in table.values()), name
