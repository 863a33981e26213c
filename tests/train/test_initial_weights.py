"""A fresh run starts with the weights of a file; what does not fit is named and stays as drawn."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import ml_dtypes
import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from clusterseg.errors import ClustersegError
from clusterseg.models import build_model
from clusterseg.runs.checkpoints import list_checkpoints
from clusterseg.spec.model import OptimizerSpec, TrainSpec
from clusterseg.train import wishes
from clusterseg.train.assembly import assemble
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.failures import TrainingError
from clusterseg.train.initial_weights.load import load_initial_weights
from clusterseg.train.initial_weights.read import open_source
from clusterseg.train.optimizers import build_optimizer
from clusterseg.train.state import TrainState
from tests.train.attempts import Attempts, StopAt
from tests.train.runs import Run, job

pytestmark = pytest.mark.slow

HEAD = {"model/classifier_logits/kernel", "model/classifier_logits/bias"}
OTHER = 19  # classes of the net that the weights come from
Values = dict[str, np.ndarray[Any, Any]]


def values(state: TrainState) -> Values:
    return {name: np.array(variable.numpy()) for name, variable in state.variables.items()}


def of_model(state: TrainState) -> set[str]:
    return {name for name in state.variables if name.startswith("model/")}


def equal(one: Values, other: Values) -> set[str]:
    return {name for name in one if np.array_equal(one[name], other[name])}


@pytest.fixture(scope="module")
def drawn(assembly) -> Values:
    return values(assembly.state)


@pytest.fixture(scope="module")
def source(data: Path, tmp_path_factory) -> tuple[Path, Values, keras.Model]:
    """A checkpoint of the same net with other classes, after some steps; its state; its model."""
    spec = job(data, seed=7)
    spec["train"]["model"]["classes"] = OTHER
    train = msgspec.convert(spec["train"], TrainSpec)
    assembly = assemble(train, SoloCommunicator(), flags=wishes.COUNT, threads=1)
    run = Run(tmp_path_factory.mktemp("source") / "run", spec)
    attempts = Attempts(run, assembly, values(assembly.state))
    assert attempts.attempt(StopAt(4)) == "SIGUSR1"
    (saved,) = list_checkpoints(run.paths.checkpoints)
    return saved.path, values(assembly.state), assembly.state.model


@pytest.fixture
def attempts(data: Path, assembly, drawn: Values, tmp_path: Path) -> Callable[[Path], Attempts]:
    def make(weights: Path | None, name: str = "run") -> Attempts:
        spec = job(data, **({} if weights is None else {"initial_weights": str(weights)}))
        return Attempts(Run(tmp_path / name, spec), assembly, drawn)

    return make


@pytest.fixture
def small() -> TrainState:
    return network()


def network(classes: int = 3) -> TrainState:
    model = build_model("fastscnn", classes, (32, 32), width=0.1)
    return TrainState(model, build_optimizer(OptimizerSpec(), model.trainable_variables))


def scrambled(classes: int = 3) -> TrainState:
    """Other numbers in every variable, so that each tensor can be told from all others."""
    state = network(classes)
    draw = np.random.default_rng(classes)
    for name in of_model(state):
        variable = state.variables[name]
        variable.assign(draw.uniform(0.5, 1.5, variable.shape).astype(np.float32))
    return state


def copy_of(path: Path, folder: Path) -> Path:
    """A copy that a test may take away."""
    copy = folder / "weights.safetensors"
    copy.write_bytes(path.read_bytes())
    return copy


def test_a_run_starts_from_a_checkpoint_with_other_classes(
    attempts, source, drawn: Values, capfd: pytest.CaptureFixture[str]
) -> None:
    path, trained, _ = source
    run = attempts(path)
    assert run.attempt(StopAt(0)) == "SIGUSR1"  # before the first step
    got = values(run.assembly.state)
    body = of_model(run.assembly.state) - HEAD
    assert {name for name in body if np.array_equal(got[name], trained[name])} == body
    # Only what was loaded differs from what was drawn: neither the head nor any slot does.
    assert equal(got, drawn) >= set(drawn) - body
    kernels = {name for name in body if name.endswith("/kernel")}
    assert not kernels & equal(got, drawn)
    said = capfd.readouterr().err
    assert (
        f"model/classifier_logits/kernel is [1, 1, 32, {OTHER}] there, [1, 1, 32, 11] here: "
        "kept as drawn" in said
    )
    assert f"model/classifier_logits/bias is [{OTHER}] there, [11] here" in said
    count = len(body) + len(HEAD)
    assert said.count("warning:") == 1
    assert (
        f"(a checkpoint) gave {count - 2} of {count} tensors; 2 have another shape there, "
        "0 are not there, 0 of the file's are not used" in said
    )


def test_the_file_is_not_read_again_by_what_resumes(attempts, source, tmp_path: Path) -> None:
    copy = copy_of(source[0], tmp_path)
    whole = attempts(copy, "whole")
    assert whole.attempt(StopAt(9)) == "SIGUSR1"
    run = attempts(copy)
    assert run.attempt(StopAt(3)) == "SIGUSR1"
    copy.unlink()
    assert run.attempt(StopAt(6)) == "SIGUSR1"  # looks 1 to 6: steps 4 to 9
    assert run.final()[0] == whole.final()[0]
    # Twin: the weights of the file are what made that end.
    plain = attempts(None, "plain")
    assert plain.attempt(StopAt(9)) == "SIGUSR1"
    assert plain.final()[0] != whole.final()[0]


def test_without_its_file_a_fresh_run_ends_agreed_and_says_why(attempts, tmp_path: Path) -> None:
    run = attempts(tmp_path / "nowhere.safetensors")
    with pytest.raises(TrainingError, match=r"^initial weights: .*nowhere\S* does not") as caught:
        run.attempt()
    assert caught.value.agreed
    assert "train.initial_weights" in (caught.value.help or "")


def test_real_ranks_start_from_what_rank_0_read(data: Path, source, tmp_path: Path) -> None:
    """All ranks get it, or they would end as diverged; rank 0 alone reads and reports."""
    path, trained, _ = source
    loaded = len([name for name in trained if name.startswith("model/")]) - len(HEAD)
    spec = job(data, initial_weights=str(path), epochs=1, steps_per_epoch=1)
    run = Run(tmp_path / "run", spec, ranks=2, communicator="mpi")
    assert run.run() == 0, run.log()
    assert f"(a checkpoint) gave {loaded} of" in run.log(0)
    assert "initial weights" not in run.log(1)


def test_keras_weights_of_the_same_net_start_a_run(attempts, source, tmp_path: Path) -> None:
    _, trained, model = source
    path = tmp_path / "same.weights.h5"
    model.save_weights(path)
    run = attempts(path)
    assert run.attempt(StopAt(0)) == "SIGUSR1"
    got = values(run.assembly.state)
    body = of_model(run.assembly.state) - HEAD
    assert {name for name in body if np.array_equal(got[name], trained[name])} == body


# What each kind of file does to a small network. `names` are tensors that must come through.
def keras_3(state: TrainState, path: Path) -> None:
    state.model.compile(optimizer="adam")  # its optimizer is in the file as well
    state.model.optimizer.build(state.trainable)
    state.model.save_weights(path)


def keras_3_without_names(state: TrainState, path: Path) -> None:
    keras_3(state, path)
    with h5py.File(path, "r+") as file:
        for group in file["layers"].values():
            del group["vars"].attrs["name"]


def keras_2_whole(state: TrainState, path: Path) -> None:
    state.model.save(path)
    with h5py.File(path, "r") as file:
        assert "model_config" in file.attrs  # never looked at


def keras_2(state: TrainState, path: Path, number: Callable[[str], str] = str) -> None:
    """As Keras 2 writes `save_weights("x.hdf5")`: `:0` behind, and kernels of depthwise
    convolutions by another name than Keras 3's; `number` names the layers."""
    with h5py.File(path, "w") as file:
        names = []
        for layer in state.model.layers:
            name = number(layer.name)
            names.append(name.encode())
            group = file.create_group(name)
            written = []
            for variable in layer.weights:
                if "seed" in variable.path:
                    continue
                own = variable.name
                if isinstance(layer, keras.layers.DepthwiseConv2D):
                    own = f"depthwise_{own}"
                group[f"{name}/{own}:0"] = variable.numpy()
                written.append(f"{name}/{own}:0".encode())
            group.attrs["weight_names"] = np.array(written or [], "S")
        half = len(names) // 2
        file.attrs["layer_names0"] = np.array(names[:half])  # as Keras cuts a long list
        file.attrs["layer_names1"] = np.array(names[half:])
        file.attrs["keras_version"] = b"2.9.0"


def keras_2_automatic(state: TrainState, path: Path) -> None:
    """Layers by Keras' automatic names, which count from anywhere."""
    kinds = {layer.name: type(layer).__name__.lower() for layer in state.model.layers}
    turns = dict.fromkeys(kinds.values(), 16)
    automatic: dict[str, str] = {}
    for name, kind in kinds.items():
        turns[kind] += 1
        spelled = {"batchnormalization": "batch_normalization"}.get(kind, kind)
        spelled = spelled.replace("depthwiseconv", "depthwise_conv")
        automatic[name] = f"{spelled}_{turns[kind]}"
    keras_2(state, path, automatic.__getitem__)


def safetensors(state: TrainState, path: Path) -> None:
    save_file({v.path: v.numpy() for v in state.model.variables if "seed" not in v.path}, path)


WRITERS = [
    keras_3, keras_3_without_names, keras_2_whole, keras_2, keras_2_automatic, safetensors,
]  # fmt: skip
_ENDINGS = {"keras_3": ".weights.h5", "keras_3_without_names": ".weights.h5"}


@pytest.mark.parametrize("write", WRITERS, ids=lambda one: one.__name__)
def test_every_tensor_of_every_kind_of_file_comes_to_its_place(
    write: Callable[[TrainState, Path], None],
    small: TrainState,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    there = scrambled()
    path = tmp_path / f"x{_ENDINGS.get(write.__name__, '.h5')}"
    write(there, path)
    load_initial_weights(path, small)
    assert of_model(small) <= equal(values(small), values(there))
    said = capfd.readouterr().err
    assert "warning" not in said
    count = len(of_model(small))
    assert f"{count} of {count} tensors" in said


@pytest.mark.parametrize("write", WRITERS, ids=lambda one: one.__name__)
def test_a_head_for_other_classes_is_left_out_of_every_kind_of_file(
    write: Callable[[TrainState, Path], None],
    small: TrainState,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before, there = values(small), scrambled(5)
    path = tmp_path / f"x{_ENDINGS.get(write.__name__, '.h5')}"
    write(there, path)
    load_initial_weights(path, small)
    got = values(small)
    assert {
        name for name in of_model(small) if np.array_equal(got[name], values(there)[name])
    } == of_model(small) - HEAD
    assert equal(got, before) == set(before) - (of_model(small) - HEAD)
    said = capfd.readouterr().err
    assert "model/classifier_logits/bias is [5] there, [3] here: kept as drawn" in said


def test_half_precision_is_taken(small: TrainState, tmp_path: Path) -> None:
    there = values(scrambled())
    kernel, gamma = "model/downsample_0_conv/kernel", "model/downsample_0_bn/gamma"
    logits = "model/classifier_logits/bias"
    path = tmp_path / "half.safetensors"
    halves = {
        kernel: there[kernel].astype(np.float16),
        gamma: there[gamma].astype(ml_dtypes.bfloat16),
        logits: there[logits].astype(np.float64),
    }
    save_file(halves, path)
    load_initial_weights(path, small)
    for name, half in halves.items():
        assert np.array_equal(small.variables[name].numpy(), half.astype(np.float32)), name

    keras.config.set_dtype_policy("bfloat16")
    try:
        half_model = build_model("fastscnn", 3, (32, 32), width=0.1)
    finally:
        keras.config.set_dtype_policy("float32")
    half_model.save_weights(tmp_path / "half.weights.h5")
    load_initial_weights(tmp_path / "half.weights.h5", small)
    (there_kernel,) = (v for v in half_model.variables if f"model/{v.path}" == kernel)
    wanted = np.asarray(there_kernel.value).astype(np.float32)
    assert np.array_equal(small.variables[kernel].numpy(), wanted)


# What no second try can change, whatever ails the file system.
SURE = ("fits no layer of this network", "is an archive", "holds NaN or infinity")


def refusal(path: Path, state: TrainState) -> str:
    """The one error that a file must give; nothing else is raised, and it names the file."""
    with pytest.raises(ClustersegError) as caught:
        load_initial_weights(path, state)
    assert path.name in caught.value.message
    assert caught.value.is_lasting == any(sure in caught.value.message for sure in SURE)
    return caught.value.message


def test_a_file_of_another_network_is_an_error(small: TrainState, tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3)])
    other.save_weights(tmp_path / "other.weights.h5")
    assert "fits no layer of this network" in refusal(tmp_path / "other.weights.h5", small)
    wide = build_model("fastscnn", 3, (32, 32), width=1.0)
    wide.save_weights(tmp_path / "wide.weights.h5")
    with h5py.File(tmp_path / "wide.weights.h5", "r+") as file:
        for layer in file["layers"].values():
            if "1" in layer["vars"] and layer["vars/1"].shape == (3,):
                del layer["vars/1"]  # what fits any width: the head's bias
    assert "is [3, 3, 3, 32] there, [3, 3, 3, 8] here" in refusal(
        tmp_path / "wide.weights.h5", small
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is damaged, or no file of weights"),
        (b"x" * 1000, "is damaged, or no file of weights"),
        (b"\xff" * 8 + b"{}", "is damaged, or no file of weights"),
        (b"PK\x03\x04" + b"x" * 100, "is an archive"),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 100, "is truncated or damaged"),
        (b"\x80\x04cposix\nsystem\n.", "is damaged, or no file of weights"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(
    small: TrainState, tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    assert said in refusal(path, small)


def test_a_folder_is_refused(small: TrainState, tmp_path: Path) -> None:
    assert "is no plain file" in refusal(tmp_path, small)


def test_a_damaged_checkpoint_is_refused(source, small: TrainState, tmp_path: Path) -> None:
    content = bytearray(source[0].read_bytes())
    content[-100] ^= 4
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    assert "its SHA-256 is" in refusal(path, small)
    path.write_bytes(source[0].read_bytes()[:-100])
    assert "is damaged" in refusal(path, small)


def test_numbers_that_are_none_are_refused(small: TrainState, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    bias = "classifier_logits/bias"
    for numbers in (np.array([0, np.nan, 1]), np.array([0, 1e300, 1])):
        save_file({bias: numbers}, path)
        assert f"holds NaN or infinity in {bias}" in refusal(path, small)
    save_file({bias: np.arange(3)}, path)
    assert "as I64, not as floating point" in refusal(path, small)


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    path = tmp_path / "x.weights.h5"
    keras_3(scrambled(), path)
    return path


def replaced(path: Path, how: Callable[[h5py.Group], object]) -> None:
    """Lets `how` put another thing in the place of the head's bias."""
    with h5py.File(path, "r+") as file:
        for layer in file["layers"].values():
            if layer["vars"].attrs["name"] == "classifier_logits":
                del layer["vars/1"]
                how(layer["vars"])


def soft_link(group: h5py.Group) -> None:
    group["1"] = h5py.SoftLink("/layers/batch_normalization/vars/0")


def external_link(group: h5py.Group) -> None:
    group["1"] = h5py.ExternalLink("/etc/hostname", "/x")


def external_storage(group: h5py.Group) -> None:
    group.create_dataset("1", (3,), np.float32, external=[("/etc/hostname", 0, 12)])


def virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (3,))
    group.create_virtual_dataset("1", layout)


def never_written(group: h5py.Group) -> None:
    group.create_dataset("1", (3,), np.float32)


def half_written(group: h5py.Group) -> None:
    group.create_dataset("1", (3,), np.float32, chunks=(2,))[:2] = 1


def huge_chunk(group: h5py.Group) -> None:
    group.create_dataset(
        "1", (3,), np.float32, chunks=(1 << 28,), maxshape=(None,), compression="gzip"
    )


def other_filter(group: h5py.Group) -> None:
    group.create_dataset("1", data=np.ones(3, np.float32), chunks=(3,), compression="lzf")


def texts(group: h5py.Group) -> None:
    group["1"] = ["a", "b", "c"]


def no_shape(group: h5py.Group) -> None:
    group["1"] = h5py.Empty(np.float32)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (soft_link, "is a link to another place"),
        (external_link, "is a link to another place"),
        (external_storage, "is stored in other files"),
        (virtual, "is stored in other files"),
        (never_written, "declares [3], and holds less"),
        (half_written, "declares [3], and holds less"),
        (huge_chunk, "has chunks of [268435456]"),
        (other_filter, "filter 32000"),
        (texts, "not floating point"),
        (no_shape, "has no shape"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_hdf5_can_do_beyond_holding_tensors_is_refused(
    keras_file: Path, small: TrainState, how: Callable[[h5py.Group], object], said: str
) -> None:
    replaced(keras_file, how)
    assert said in refusal(keras_file, small)


def test_a_compressed_file_is_taken(keras_file: Path, small: TrainState) -> None:
    data = np.array([1, 2, 3], np.float32)
    replaced(
        keras_file,
        lambda group: group.create_dataset(
            "1", data=data, chunks=(2,), compression="gzip", shuffle=True, fletcher32=True
        ),
    )
    load_initial_weights(keras_file, small)
    assert np.array_equal(small.variables["model/classifier_logits/bias"].numpy(), data)


def test_a_huge_declared_shape_is_a_misfit_and_is_not_allocated(
    keras_file: Path, small: TrainState, capfd: pytest.CaptureFixture[str]
) -> None:
    side = 1 << 40
    replaced(
        keras_file,
        lambda group: group.create_dataset("1", (side,), np.float32, chunks=(1024,), fillvalue=1),
    )
    load_initial_weights(keras_file, small)
    assert f"model/classifier_logits/bias is [{side}] there, [3] here" in capfd.readouterr().err


def test_a_whole_models_configuration_is_never_looked_at(small: TrainState, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    keras_2_whole(scrambled(), path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = '{"class_name": "Lambda", "config": {"function": "bad'
    load_initial_weights(path, small)


def tiny(path: Path) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "stem"
        group["0"] = np.ones((3, 3, 2, 4), np.float32)
        group.create_dataset("1", data=np.ones(4, np.float32), chunks=(2,), compression="gzip")


def test_a_file_on_which_the_library_turns_for_ever_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "endless.h5"
    tiny(path)
    content = bytearray(path.read_bytes())
    # The first object of the global heap that holds the layers' names claims 178 bytes, not 4.
    content[content.index(b"GCOL") + 24] = 178
    path.write_bytes(content)
    said = r"endless.h5 is damaged: the HDF5 library does not get through it \(signal 24\)"
    with pytest.raises(ClustersegError, match=said), open_source(path):
        pass


@pytest.mark.parametrize("seed", range(2))
def test_a_file_damaged_anywhere_loads_or_gives_the_one_error(tmp_path: Path, seed: int) -> None:
    whole, damaged = tmp_path / "whole.h5", tmp_path / "damaged.h5"
    tiny(whole)
    content, draw = whole.read_bytes(), random.Random(seed)
    refused = 0
    for _ in range(12):  # each starts a process
        changed = bytearray(content)
        if draw.random() < 0.2:
            del changed[draw.randrange(8, len(changed)) :]
        for _ in range(8):
            changed[draw.randrange(8, len(changed))] = draw.randrange(256)
        damaged.write_bytes(changed)
        try:
            with open_source(damaged) as opened:
                for item in opened.items:
                    if item.shape in {(3, 3, 2, 4), (4,)}:
                        assert opened.read(item.name).shape == item.shape
        except ClustersegError as error:
            assert damaged.name in error.message
            refused += 1
    assert refused
