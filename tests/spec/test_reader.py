"""What a good job.yaml becomes, and the shape and place of every error of a bad one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from clusterseg.errors import ClustersegError
from clusterseg.spec.errors import Problem, SpecError
from clusterseg.spec.model import JobSpec
from clusterseg.spec.reader import open_job, parse_job, read_job

from .reading import COMMAND, TRAIN, error, job, problem, where

# Every key of job.yaml, as docs/job-yaml.md shows them.
WHOLE = """
name: fastscnn-cityscapes
tags: [baseline]
notes: ""
train:
  model: {name: fastscnn, classes: 19}
  data: {format: cityscapes, root: "${CITYSCAPES_DATASET}", size: [1024, 2048],
         coarse: false, validation_split: null, on_unreadable: skip}
  augment: [{flip_horizontal: 0.5}, {scale: [0.5, 2.0]}]
  loss: {name: cross_entropy, class_weights: balanced, ignore: 255, aux_weight: null}
  optimizer: {name: sgd, momentum: 0.9, learning_rate: 0.045, scale_with_ranks: true,
              weight_decay: 0.0, clip_norm: null, bias_multiplier: 1.0}
  schedule: {name: polynomial, power: 0.9, warmup_epochs: 3}
  epochs: 500
  steps_per_epoch: null
  batch_size: 4
  accumulate: 1
  on_resize: keep
  precision: float32
  sync_batch_norm: false
  freeze_batch_norm: false
  ema: null
  initial_weights: null
  seed: 0
  deterministic: false
  on_nan: stop
  communicator: auto
checkpoint: {every: 10m, keep_best: 3, keep_last: 2, keep_every_epochs: null}
resources:
  nodes: 2
  ranks_per_node: 4
  cpus_per_rank: 8
  accelerator: cuda
  accelerators_per_rank: 1
  device_addresses: null
  memory: 64G
  time: 12:00:00
placement: {map_by: socket, bind_to: core, verify: warn, oversubscribe: false, allow_root: true}
scheduler: auto
launcher: auto
launcher_args: []
launcher_output: lines
slurm: {partition: gpu, account: abc, qos: null, constraint: null, mpi: null, site: null,
        after: null, array: null, extra: []}
environment: {modules: [cuda/12], variables: {NCCL_DEBUG: WARN}, setup: [], container: null}
restart: {preemption: unlimited, time_limit: 20, crash: 3, node: 10}
code: in-place
notify: []
"""


def test_every_key_is_read() -> None:
    spec = job(WHOLE, CITYSCAPES_DATASET="/data/cs")
    assert spec.train is not None
    assert spec.train.data.root == "/data/cs"
    assert spec.train.data.size == (1024, 2048)
    assert spec.train.augment == ({"flip_horizontal": 0.5}, {"scale": [0.5, 2.0]})
    assert spec.train.optimizer.learning_rate == 0.045
    assert spec.train.schedule.warmup_epochs == 3
    assert spec.checkpoint.every.seconds == 600
    assert spec.resources.time == 12 * 3600
    assert spec.resources.memory == 64 * 2**30
    assert spec.slurm.partition == "gpu"
    assert spec.environment.variables == {"NCCL_DEBUG": "WARN"}
    assert spec.restart.preemption == "unlimited"


def test_the_whole_example_names_every_key() -> None:
    """Each key of every struct stands in WHOLE (hosts and ranks are the other ways to say it)."""
    parsed = open_places(WHOLE)
    unnamed = {"train.model.options", "train.data.options", "train.loss.options"}
    unnamed |= {"train.optimizer.options", "train.schedule.options", "command"}
    unnamed |= {"resources.hosts", "resources.ranks"}
    keys = set(_keys(job(WHOLE, CITYSCAPES_DATASET="x")))
    assert keys - parsed == unnamed


def open_places(text: str) -> set[str]:
    file = parse_job(text, "job.yaml", environ={"CITYSCAPES_DATASET": "x"})
    return {".".join(path) for path in file.places}


def _keys(struct: msgspec.Struct, path: str = "") -> list[str]:
    found = []
    for name in struct.__struct_fields__:
        below = f"{path}.{name}".lstrip(".")
        found.append(below)
        value = getattr(struct, name)
        if isinstance(value, msgspec.Struct) and type(value).__name__.endswith("Spec"):
            found += _keys(value, below)
    return found


def test_what_is_not_given_is_the_default() -> None:
    assert job(COMMAND) == JobSpec(name="x", command=("prog",))


@pytest.mark.parametrize("text", [WHOLE, COMMAND, TRAIN])
def test_a_spec_survives_json(text: str) -> None:
    spec = job(text, CITYSCAPES_DATASET="/d")
    assert msgspec.json.decode(msgspec.json.encode(spec), type=JobSpec) == spec


def test_options_of_a_model_are_gathered() -> None:
    text = TRAIN.replace("{name: unet}", "{name: deeplabv3+, backbone: xception, output_stride: 8}")
    spec = job(text)
    assert spec.train is not None
    assert spec.train.model.options == {"backbone": "xception", "output_stride": 8}


# The shape of an error


def test_an_error_has_the_shape_of_a_compiler() -> None:
    found = error("name: x\nresources:\n  nodse: 2\ncommand: [a]\n")
    assert found.render() == (
        "error[unknown-key]: `nodse` in `resources`\n"
        "  --> job.yaml:3:3\n"
        " 3 |   nodse: 2\n"
        "   |   ^^^^^ did you mean `nodes`?\n"
        "help: clusterseg schema resources"
    )
    assert found.records() == [
        {
            "code": "unknown-key",
            "message": "`nodse` in `resources`",
            "file": "job.yaml",
            "line": 3,
            "column": 3,
            "length": 5,
            "note": "did you mean `nodes`?",
            "help": "clusterseg schema resources",
        }
    ]


BAD = """\
nmae: x
tags: {a: 1}
train:
  model: {name: fastcnn, clases: 19, backbone: x}
  data: {format: camvid, root: "${DATASE}", size: [1024]}
  augment: [{flip_horizntal: 0.5}, {scale: [2.5, 2.0]}, flip]
  epochs: 1.5
command: []
resources:
  nodes: 0
  nodes: 1
  hosts: {n1: 4, "n;2": 2, n3: a}
  time: 12h
schedular: auto
launcher: openmpi6
"""


def test_all_errors_of_a_file_come_at_once() -> None:
    found = error(BAD, "resources.nodse=3", DATASET="/d")
    assert where(found.problems) == [
        ("unknown-key", 1, 1),
        ("value", 2, 7),
        ("unknown-name", 4, 17),
        ("unknown-key", 4, 26),
        ("unset-variable", 5, 33),
        ("value", 5, 51),
        ("unknown-name", 6, 14),
        ("value", 6, 44),
        ("value", 6, 57),
        ("value", 7, 11),
        ("value", 8, 10),
        ("value", 10, 10),
        ("duplicate-key", 11, 3),
        ("key", 12, 18),
        ("value", 12, 32),
        ("value", 13, 9),
        ("unknown-key", 14, 1),
        ("unknown-name", 15, 11),
        ("unknown-key", 1, 11),  # of the argument
    ]
    notes = " ".join(p.note for p in found.problems)
    for meant in ("name", "fastscnn", "classes", "DATASET", "flip_horizontal", "scheduler"):
        assert f"did you mean `{meant}`?" in notes
    assert found.render().count("error[") == len(found.problems) == len(found.records())


@pytest.mark.parametrize(
    ("body", "message", "note"),
    [
        ("nodes: 2\n", "`nodes` at the top", "it belongs in `resources`"),
        ("slurm: {time: 5}\n", "`time` in `slurm`", "it belongs in `resources`"),
        ("Resources: {}\n", "`Resources` at the top", "did you mean `resources`?"),
        ("launcher-args: []\n", "`launcher-args` at the top", "did you mean `launcher_args`?"),
        ("restart: {zzz: 1}\n", "`zzz` in `restart`", "known: preemption, time_limit, crash, node"),
        ("? nodes\n", "`nodes` at the top", "it belongs in `resources`"),
        ("yes: 1\n", "`yes` at the top", None),
        ("'': 1\n", "`` at the top", None),
    ],
)
def test_unknown_keys(body: str, message: str, note: str | None) -> None:
    found = problem(COMMAND + body)
    assert (found.code, found.message) == ("unknown-key", message)
    assert note is None or found.note == note


def test_an_option_of_another_model_is_named_as_such() -> None:
    found = problem(TRAIN.replace("{name: unet}", "{name: unet, output_stride: 8}"))
    assert found.note == "an option of deeplabv3, deeplabv3+ only"


@pytest.mark.parametrize(
    ("key", "wrong", "meant"),
    [
        ("model: {name: ", "unett", "unet"),
        ("data: {root: x, format: ", "camvd", "camvid"),
        ("loss: {name: ", "crossentropy", "cross_entropy"),
        ("optimizer: {name: ", "Adam", "adam"),
        ("schedule: {name: ", "poly", None),
    ],
)
def test_unknown_names_of_the_tables(key: str, wrong: str, meant: str | None) -> None:
    section = key.split(":", maxsplit=1)[0]
    kept = [line for line in TRAIN.splitlines() if not line.strip().startswith(f"{section}:")]
    found = problem("\n".join([*kept, f"  {key}{wrong}}}"]))
    assert found.code == "unknown-name"
    assert meant is None or found.note == f"did you mean `{meant}`?"
    assert found.help.startswith("known: ")


def test_a_wrong_name_does_not_make_its_options_wrong() -> None:
    found = problem(TRAIN.replace("{name: unet}", "{name: deeplab3, output_stride: 8}"))
    assert found.code == "unknown-name"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("name: x\n", "missing-key", "neither `train` nor `command` is given"),
        ("command: [a]\n", "missing-key", "`name` is missing at the top"),
        ("name: x\ntrain: {}\n", "missing-key", "`model`, `data` are missing in `train`"),
        ("name: x\ntrain: {model: , data: {format: camvid, root: x}}\n", "missing-key", "`model`"),
        (TRAIN + "command: [a]\n", "conflict", "`train` and `command` are both given"),
        (TRAIN + "  loss: {class_weights: [1, 2]}\n", None, ""),
        (
            TRAIN.replace("unet", "unet, classes: 3") + "  loss: {class_weights: [1, 2]}\n",
            "conflict",
            "2 class weights for 3 classes",
        ),
        (
            TRAIN + "  augment: [{scale: [1, 2]}, {flip_vertical: 1}, {scale: [1, 2]}]\n",
            "conflict",
            "a second augmentation that changes the size",
        ),
        (TRAIN + "  augment: [{resize_range: [64, 96]}, {scale_file: {}}]\n", None, ""),
        (
            TRAIN + "  augment: [{scale_file: {}}, {resize_range: [64, 96]}]\n",
            "conflict",
            "a second augmentation that changes the size",
        ),
        (
            TRAIN + "  augment: [{resize_range: {sides: [64, 96], factor: 96}}]\n",
            "conflict",
            "no side of 1 + a multiple of 96 is within 96",
        ),
        (TRAIN + "  freeze_batch_norm: true\n", None, ""),
        (
            TRAIN + "  freeze_batch_norm: true\n  sync_batch_norm: true\n",
            "conflict",
            "`freeze_batch_norm` and `sync_batch_norm` are both set",
        ),
        (TRAIN.replace("root: d", "root: d, size: [96, 128]"), None, ""),
        (
            TRAIN
            + "  optimizer: {learning_rate: 0.1}\n"
            + "  schedule: {name: cosine, min_learning_rate: 0.2}\n",
            "conflict",
            "a lowest learning rate of 0.2 and a highest of 0.1",
        ),
        (TRAIN + "  epochs: 3\n  schedule: {warmup_epochs: 3}\n", None, ""),
        (
            TRAIN + "  epochs: 3\n  schedule: {warmup_epochs: 3.5}\n",
            "conflict",
            "`train.schedule.warmup_epochs` is 3.5, `train.epochs` 3: the training would end",
        ),
        (
            TRAIN.replace("root: d", "root: d, size: [96, 100]"),
            "conflict",
            "unet can't take pictures of 96x100",
        ),
    ],
)
def test_what_must_be_there_and_fit(text: str, code: str | None, message: str) -> None:
    if code is None:
        job(text)
        return
    found = problem(text)
    assert found.code == code
    assert message in found.message
    assert found.place is not None


HOSTS = "expected a mapping of names, each to a whole number from 1"


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("tags: a\n", "expected a list, each item one line of text, not empty"),
        ("resources: [a]\n", "expected a section of keys"),
        ("resources: {nodes: [2]}\n", "expected a whole number from 1"),
        ("resources: {nodes: {a: 1}}\n", "expected a whole number from 1"),
        (
            "resources: {hosts: [n1]}\n",
            "expected a mapping of names, each to a whole number from 1, or hosts as Slurm writes "
            "them: `n[1-3]:4,m1:2`",
        ),
        (
            "resources: {hosts: {}}\n",
            "expected a mapping of names, each to a whole number from 1, or hosts as Slurm writes "
            "them: `n[1-3]:4,m1:2`",
        ),
        (
            "resources: {hosts: 'n[1-'}\n",
            "'n[1-': brackets do not match; expected hosts as Slurm writes them: `n[1-3]:4,m1:2`",
        ),
        (
            "resources: {hosts: 'n1;x:2'}\n",
            "`n1;x` is not a host name; expected hosts as Slurm writes them: `n[1-3]:4,m1:2`",
        ),
        ("resources: {cpus_per_rank: many}\n", "expected a whole number from 1 or `auto`"),
        ("resources: {time: {h: 1}}\n", "expected minutes, m:s, h:m:s, d-h, d-h:m or d-h:m:s"),
        ("resources: {time: UNLIMITED}\n", "to ask for no limit of your own, leave the key out"),
        ("scheduler: slrum\n", "did you mean `slurm`? expected `auto`, `local` or `slurm`"),
        ("placement: {allow_root: perhaps}\n", "expected true or false"),
    ],
)
def test_wrong_values_say_what_was_expected(body: str, note: str) -> None:
    found = problem(COMMAND + body)
    assert (found.code, found.note) == ("value", note)


@pytest.mark.parametrize(
    ("augment", "code"),
    [
        ("[flip_horizontal]", "value"),
        ("[{flip_horizontal: 0.5, scale: [1, 2]}]", "value"),
        ("[{}]", "value"),
        ("[{flip_horizontal: }]", "value"),
        ("[{flip_horizontal: 1.5}]", "value"),
        ("[{scale: 2}]", "value"),
        ("[{scale: [1, 2, 3]}]", "value"),
        ("[{scale: [2, 1]}]", "value"),
        ("[{rotat: 5}]", "unknown-name"),
        ("[{random_resized_crop: {scal: [0.5, 1]}}]", "unknown-key"),
        ("[{random_resized_crop: [0.5, 1]}]", "value"),
        ("{flip_horizontal: 0.5}", "value"),
        ("[{resize_range: 3}]", "value"),
        ("[{resize_range: {sides: [2, 1]}}]", "value"),
        ("[{resize_range: {sides: [1, 2], factor: 0}}]", "value"),
        ("[{resize_range: {sides: [1, 2], factr: 1}}]", "unknown-key"),
        ("[{resize_range: {factor: 16}}]", "missing-key"),
    ],
)
def test_augmentations(augment: str, code: str) -> None:
    assert problem(f"{TRAIN}  augment: {augment}\n").code == code


def test_an_augmentation_may_take_a_list_or_a_mapping() -> None:
    spec = job(
        f"{TRAIN}  augment: [{{resize_range: {{sides: [9, 9], factor: 4}}}}]\n",
        "train.augment.0.resize_range.factor=2",
    )
    assert spec.train is not None
    assert spec.train.augment == ({"resize_range": {"sides": [9, 9], "factor": 2}},)
    spec = job(f"{TRAIN}  augment: [{{resize_range: {{sides: [8, 9]}}}}, {{scale_file: {{}}}}]\n")
    assert spec.train is not None
    assert spec.train.augment[0] == {"resize_range": {"sides": [8, 9], "factor": 1}}
    spec = job(f"{TRAIN}  augment: [{{resize_range: [8, 9]}}]\n")
    assert spec.train is not None
    assert spec.train.augment == ({"resize_range": [8, 9]},)


def test_an_augmentation_may_take_a_mapping() -> None:
    spec = job(f"{TRAIN}  augment: [{{random_resized_crop: {{scale: [0.5, 1], ratio: [1, 2]}}}}]\n")
    assert spec.train is not None
    crop = {"random_resized_crop": {"scale": [0.5, 1.0], "ratio": [1.0, 2.0]}}
    assert spec.train.augment == (crop,)


def test_a_launcher_of_the_users_own_is_known(tmp_path: Path) -> None:
    (tmp_path / "launchers").mkdir()
    (tmp_path / "launchers" / "mympi.yaml").write_text("")
    text = COMMAND + "launcher: mympi\n"
    assert job(text, CLUSTERSEG_CONFIG=str(tmp_path)).launcher == "mympi"
    assert problem(text).code == "unknown-name"


# Variables


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${A}", "alpha"),
        ("x${A}y${A}", "xalphayalpha"),
        ("${NONE:-d}", "d"),
        ("${NONE:-}", ""),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""),
        ("${A:-d}", "alpha"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A $(x) $$ {A}", "$A $(x) $$ {A}"),
        ("${YAML}", 'a: [b, "c'),
        ("${NESTED}", "${A}"),
    ],
)
def test_variables_are_filled_in(written: str, expected: str) -> None:
    environ = {"A": "alpha", "EMPTY": "", "YAML": 'a: [b, "c', "NESTED": "${A}"}
    assert job(f"{COMMAND}notes: '{written}'\n", **environ).notes == expected


def test_variables_take_the_type_of_their_key() -> None:
    text = f'{COMMAND}resources: {{nodes: "${{N}}", time: "${{T}}"}}\nslurm:\n  account: ${{X:-}}\n'
    spec = job(text, N="4", T="08:00:00")
    assert (spec.resources.nodes, spec.resources.time) == (4, 8 * 3600)
    assert spec.slurm.account is None
    assert problem(text, N="four", T="1").note == "expected a whole number from 1"


def test_a_bare_variable_within_braces_gets_a_hint() -> None:
    found = problem(f"{COMMAND}resources: {{nodes: ${{N}}}}\n", N="4")
    assert found.code == "yaml"
    assert '"${NAME}"' in found.help


def test_keys_are_never_filled_in() -> None:
    spec = job(f"{COMMAND}environment: {{variables: {{A: 1}}}}\n", A="B")
    assert spec.environment.variables == {"A": "1"}
    assert problem(f"{COMMAND}'${{A}}': 1\n", A="notes").code == "unknown-key"


@pytest.mark.parametrize(
    ("written", "column", "length", "code"),
    [
        ("'${NO}'", 9, 5, "unset-variable"),
        ("a ${OK} ${NO}", 16, 5, "unset-variable"),
        ("${OK} ${OK", 14, 4, "expansion"),
        ("${1X}", 8, 5, "expansion"),
        ("${OK:+x}", 8, 8, "expansion"),
        ("${}", 8, 3, "expansion"),
        ('"\\x24{NO}"', 8, 10, "unset-variable"),
    ],
)
def test_a_variable_that_is_not_set_is_pointed_at(
    written: str, column: int, length: int, code: str
) -> None:
    found = problem(f"{COMMAND}notes: {written}\n", OK="1")
    assert where([found]) == [(code, 3, column)]
    assert found.place is not None
    assert found.place.length == length


def test_values_of_variables_are_checked_like_any_other() -> None:
    text = f"{COMMAND}slurm:\n  partition: ${{P}}\n"
    assert problem(text, P="gpu\n#SBATCH --uid=0").code == "value"
    assert problem(text, P=os.fsdecode(b"\xff")).code == "encoding"
    assert problem(f"{COMMAND}notes: {'${P}' * 100}\n", P="x" * 2**17).code == "too-large"


# Files


def test_a_file_is_read_and_named_as_given(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(COMMAND)
    assert read_job(file, environ={}) == job(COMMAND)
    file.write_text(COMMAND + "x: 1\n")
    with pytest.raises(SpecError) as caught:
        read_job(str(file), environ={})
    assert f"--> {file}:3:1" in caught.value.render()


def test_errors_of_other_rooms_find_their_place(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(COMMAND + "resources:\n  nodes: 2\n")
    opened = open_job(file, overrides=["resources.ranks=3"], environ={})

    def placed(error: ClustersegError) -> tuple[str, int] | None:
        (found,) = opened.placed(error).problems
        assert found.code == error.code
        return None if found.place is None else (found.place.source.name, found.place.line)

    assert placed(ClustersegError("resources: 2 is not 3", code="geometry")) == (str(file), 2)
    assert placed(ClustersegError("resources.nodes: 2", code="geometry")) == (str(file), 3)
    assert placed(ClustersegError("resources.hosts: none", code="geometry")) == (str(file), 2)
    assert placed(ClustersegError("no launcher was found", code="launcher")) is None
    by_key = SpecError([Problem("not-yet", "later", key="resources.ranks")])
    assert placed(by_key) == ("--set", 0)
    assert placed(SpecError([Problem("not-yet", "later", key="train.ema")])) == (str(file), 0)


@pytest.mark.parametrize("wrong", ["{a: 1}", "[[x], y]"])
def test_a_collection_is_underlined_whole(wrong: str) -> None:
    found = problem(f"{COMMAND}resources: {{nodes: {wrong}}}\n")
    assert found.place is not None
    assert found.place.length == len(wrong)


def test_a_collection_over_several_lines_is_underlined_on_its_first() -> None:
    found = problem(f"{COMMAND}tags:\n  a: 1\n  b: 2\n")
    assert where([found]) == [("value", 4, 3)]
    assert found.place is not None
    assert found.place.length == len("a: 1")


def test_hosts_are_a_mapping_or_written_as_slurm_does() -> None:
    long = job(COMMAND + "resources: {hosts: {n1: 4, n2: 4, m: 2}}\n").resources.hosts
    assert job(COMMAND + "resources: {hosts: 'n[1-2]:4,m:2'}\n").resources.hosts == long
    without = job(COMMAND + "resources:\n  hosts: n[1-2]\n").resources.hosts
    assert without == {"n1": None, "n2": None}
    assert job(COMMAND + "resources: {hosts: null}\n").resources.hosts is None
