"""The JSON Schema says what the reader does, as far as a schema can."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.spec.errors import SpecError
from clusterseg.spec.reader import parse_job
from clusterseg.spec.schema import schema
from clusterseg.spec.tables import AUGMENTATIONS, DATA_FORMATS, MODELS, TABLES

from .reading import COMMAND, TRAIN
from .test_reader import BAD, WHOLE

TOP = Path(__file__).resolve().parents[2]
CLUSTERSEG = Path(sys.executable).with_name("clusterseg")
VALIDATOR = jsonschema.Draft7Validator(schema())


class Yaml12(yaml.SafeLoader):
    """The core schema of YAML 1.2 (section 10.3), which editors read."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for tag, pattern, first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)
Yaml12.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node), 10)
)
Yaml12.add_constructor(
    "tag:yaml.org,2002:float", lambda loader, node: float(loader.construct_scalar(node))
)


def fits(text: str) -> bool:
    """Whether an editor would underline nothing."""
    return VALIDATOR.is_valid(yaml.load(text, Loader=Yaml12))  # a SafeLoader


def reads(text: str) -> bool:
    try:
        parse_job(text, "job.yaml", environ={"CITYSCAPES_DATASET": "d", "N": "2"})
    except SpecError:
        return False
    return True


def test_it_is_a_schema_of_draft_7() -> None:
    jsonschema.Draft7Validator.check_schema(schema())
    assert schema()["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_every_key_is_described() -> None:
    def walk(found: Any, path: str) -> None:
        for name, below in found.get("properties", {}).items():
            assert below.get("description"), f"{path}.{name}"
            walk(below, f"{path}.{name}")

    walk(schema(), "")


def test_jobs_of_the_project_fit() -> None:
    files = sorted((TOP / "jobs").glob("*.yaml"))
    assert TOP / "jobs" / "demo.yaml" in files
    for file in files:
        assert fits(file.read_text()), file.name
        assert reads(file.read_text()), file.name


@pytest.mark.parametrize(
    "body",
    [
        "resources: {time: 08:00:00}",
        "resources: {time: 90}",
        "resources: {time: 1-12}",
        "resources: {time: '1-12:30:00'}",
        "resources: {memory: 64G, cpus_per_rank: auto}",
        "resources: {hosts: {n1: 4, n2: 2}}",
        'resources: {nodes: "${N}"}',
        "resources:",
        "slurm: {account: null, extra: [--exclusive]}",
        "tags:",
        "tags: [2024, yes, a]",
        "notes: no",
        "environment: {variables: {OMP_NUM_THREADS: 4, FLAG: true}}",
        "checkpoint: {every: 500 steps}",
        "checkpoint: {every: auto}",
        "checkpoint: {every: 1h30m}",
        "launcher: mympi5",
        "restart: {crash: unlimited, node: 0}",
        "placement: {verify: off, bind_to: none, oversubscribe: true}",
    ],
)
def test_what_is_right_fits(body: str) -> None:
    assert fits(f"{COMMAND}{body}\n")


@pytest.mark.parametrize(
    "body",
    [
        "resources: {nodse: 2}",
        "resources: {nodes: 0}",
        "resources: {nodes: 1.5}",
        "resources: {nodes: two}",
        "resources: {nodes: [2]}",
        "resources: {time: 12h}",
        "resources: {time: 0}",
        "resources: {memory: 64GB}",
        "resources: {hosts: {}}",
        "resources: {hosts: {'n;1': 2}}",
        "resources: {hosts: {n1: 0}}",
        "resources: {accelerator: gpu}",
        'slurm: {partition: "a\\nb"}',
        "environment: {variables: {A-B: 1}}",
        "environment: {variables: {A: null}}",
        "checkpoint: {every: 10}",
        "checkpoint: {every: ''}",
        "scheduler: pbs",
        "name: a b",
        "command: prog",
        "command: []",
        "train: {model: {name: unet}, data: {format: camvid, root: d}}",
        "x: 1",
    ],
)
def test_what_is_wrong_does_not_fit(body: str) -> None:
    key = body.split(":", maxsplit=1)[0]
    kept = "".join(f"{line}\n" for line in COMMAND.splitlines() if not line.startswith(f"{key}:"))
    assert not fits(f"{kept}{body}\n")
    assert not reads(f"{kept}{body}\n")


@pytest.mark.parametrize(
    ("model", "right"),
    [
        ("{name: unet}", True),
        ("{name: unet, classes: 19}", True),
        ("{name: deeplabv3+, backbone: xception, output_stride: 8}", True),
        ("{name: deeplabv3+, backbone: resnet101_beta}", False),
        ("{name: deeplabv3, backbone: resnet101_beta, output_stride: 32}", False),
        ("{name: unet, output_stride: 8}", False),
        ("{name: unett}", False),
        ("{classes: 19}", False),
        ("", False),
    ],
)
def test_options_go_with_their_model(model: str, right: bool) -> None:
    text = TRAIN.replace("{name: unet}", model)
    assert fits(text) == reads(text) == right


@pytest.mark.parametrize(
    ("schedule", "right"),
    [
        ("{warmup_epochs: 1}", True),
        ("{cycle_epochs: 1}", False),  # the default schedule has none
        ("{name: cyclic, cycle_epochs: 1}", True),
        ("{name: polynomial, cycle_epochs: 1}", False),
    ],
)
def test_options_of_a_name_that_has_a_default(schedule: str, right: bool) -> None:
    text = f"{TRAIN}  schedule: {schedule}\n"
    assert fits(text) == reads(text) == right


@pytest.mark.parametrize("text", [WHOLE, COMMAND, TRAIN])
def test_good_jobs_fit(text: str) -> None:
    assert fits(text)
    assert reads(text)


def test_a_bad_one_does_not() -> None:
    errors = list(VALIDATOR.iter_errors(yaml.load(BAD, Loader=Yaml12)))
    assert len(errors) > 5


def test_sections_can_be_asked_for() -> None:
    assert schema("resources")["properties"] == schema()["properties"]["resources"]["properties"]
    assert "learning_rate" in schema("train.optimizer")["properties"]
    assert schema("resources.nodes")["minimum"] == 1
    for key in ("resorces", "train.optimiser", "resources.nodes.x", "resources.", "."):
        with pytest.raises(ClustersegError) as caught:
            schema(key)
        assert caught.value.exit_code == 2
        assert caught.value.help


def test_the_sections_that_errors_name_exist() -> None:
    """`help: clusterseg schema KEY` must not lead nowhere."""
    with pytest.raises(SpecError) as caught:
        parse_job(BAD, "job.yaml", environ={})
    keys = [p.help.removeprefix("clusterseg schema").strip() for p in caught.value.problems]
    named = [key for key, p in zip(keys, caught.value.problems, strict=True) if "schema" in p.help]
    assert len(named) > 5
    for key in named:
        assert schema(key)["$schema"]


def test_the_command_prints_it() -> None:
    done = subprocess.run(
        [CLUSTERSEG, "schema", "resources"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == schema("resources")
    wrong = subprocess.run(
        [CLUSTERSEG, "schema", "resorces"], capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean `resources`?" in wrong.stderr


# Specs made at random


WORD = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
HOST = st.from_regex(r"[a-z]([a-z0-9.-]{0,8}[0-9])?", fullmatch=True)
COUNT = st.integers(1, 64)
SIZES = st.lists(COUNT.map(lambda n: 16 * n), min_size=2, max_size=2)  # any model takes them


def section(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


TIMES = st.one_of(
    COUNT,
    st.builds("{}-{}:{}".format, COUNT, COUNT, COUNT),
    st.builds("{:02}:{:02}:{:02}".format, COUNT, COUNT, COUNT),
)
SPECS = st.fixed_dictionaries(
    {
        "name": WORD,
        "train": st.fixed_dictionaries(
            {
                "model": st.fixed_dictionaries(
                    {"name": st.sampled_from(sorted(MODELS))},
                    optional={"classes": st.one_of(st.none(), st.integers(2, 99))},
                ),
                "data": st.fixed_dictionaries(
                    {"format": st.sampled_from(sorted(DATA_FORMATS)), "root": WORD},
                    optional={"size": SIZES},
                ),
            },
            optional={
                "augment": st.lists(
                    st.sampled_from(["flip_horizontal", "flip_vertical", "brightness"]).flatmap(
                        lambda name: st.fixed_dictionaries({name: st.floats(0, 1)})
                    )
                ),
                "optimizer": section(
                    name=st.sampled_from(sorted(TABLES["optimizers"])),
                    learning_rate=st.floats(1e-9, 1e3),
                    clip_norm=st.one_of(st.none(), st.floats(1e-3, 10)),
                ),
                "loss": section(class_weights=st.sampled_from(["balanced", None])),
                "epochs": COUNT,
                "precision": st.sampled_from(["float32", "bfloat16"]),
                "deterministic": st.booleans(),
            },
        ),
    },
    optional={
        "resources": section(
            nodes=COUNT,
            ranks=st.one_of(st.none(), COUNT),
            hosts=st.dictionaries(HOST, st.none() | COUNT, min_size=1, max_size=3)
            | st.builds("{}:{}".format, HOST, COUNT),
            cpus_per_rank=st.one_of(COUNT, st.just("auto")),
            memory=st.builds("{}{}".format, COUNT, st.sampled_from(["", "K", "M", "G", "T"])),
            time=TIMES,
        ),
        "checkpoint": section(
            every=st.builds("{}{}".format, COUNT, st.sampled_from(["s", "m", "h", " steps"])),
            keep_best=st.integers(0, 9),
        ),
        "environment": section(
            variables=st.dictionaries(WORD, st.one_of(st.integers(), st.booleans(), WORD)),
            modules=st.lists(WORD, max_size=3),
        ),
        "restart": section(crash=st.one_of(COUNT, st.just("unlimited"))),
    },
)


@given(SPECS)
@settings(max_examples=60, deadline=None)
def test_good_specs_made_at_random_fit_and_are_read(spec: dict[str, Any]) -> None:
    for text in (yaml.safe_dump(spec), json.dumps(spec)):
        assert fits(text)
        assert reads(text)


def test_the_table_of_augmentations_is_in_the_schema() -> None:
    items = schema("train.augment")["items"]
    assert set(items["properties"]) == set(AUGMENTATIONS)
