"""The recipes of the seeds as clusterseg trains them: checked, rendered, and two steps and a
validation of all that they compute."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from clusterseg.cli.main import app
from clusterseg.plan.devices import VISIBLE
from clusterseg.plan.model import Host, Plan
from clusterseg.shipped import shipped_folder
from clusterseg.spec.model import JobSpec, TrainSpec
from clusterseg.spec.pending import not_yet
from clusterseg.spec.reader import parse_job
from clusterseg.submit import devices, request
from tests.plan.plans import plan, site, slurm_plan

FOLDER = shipped_folder("jobs")
TOPAZ = (shipped_folder("slurm") / "sites" / "topaz.yaml").read_text()
PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"
HOST = Host(name="n", cores=32, sockets=2, here=True)

HABANA = [f"habana-{ranks}-{kind}" for ranks in (1, 8) for kind in ("bf16", "fp32")]
CITYSCAPES = [
    f"cityscapes-{name}"
    for name in ("unet", "separable-unet", "bayes-segnet", "fastscnn", "deeplabv3plus", "hrnet-ocr")
]
VOC = [
    f"voc-deeplabv3-{model}-{part}-{cards}p"
    for model in ("s16", "s8")
    for part in ("r1", "r2")
    for cards in (1, 8)
]
RECIPES = [*HABANA, *CITYSCAPES, *VOC, "camvid-lmsegnet"]

# Two steps are taken of these; every other one computes the same as one of them with other numbers.
STEPPED = [
    *("habana-1-bf16", "habana-1-fp32", *CITYSCAPES),
    *("voc-deeplabv3-s16-r1-1p", "voc-deeplabv3-s8-r1-1p", "camvid-lmsegnet"),
]
CHEAP = {"camvid-lmsegnet"}  # the others' take long
# What may be another in two steps than in the recipe: how much there is of it, and where.
SMALL: dict[str, list[str]] = {
    "habana": ["train.data.size=[32, 48]", "train.model.width=0.25"],
    "cityscapes": ["train.data.size=[32, 64]"],
    "cityscapes-bayes-segnet": ["train.model.width=0.25"],
    "cityscapes-hrnet-ocr": ["train.model.width=18"],
    "voc": ["train.data.size=[33, 33]"],
    "camvid": ["train.data.size=[40, 48]"],
}
FEW = ["train.epochs=4", "train.steps_per_epoch=2", "train.batch_size=2"]
# Further steps at rate 0, which move but the statistics of batch norm. After two those of HRNet are
# still nearly of no picture, and what no batch norm holds outgrows float32 over its hundred layers.
SETTLING = {"cityscapes-hrnet-ocr": 15}
# The folders of Habana's sample set, as a synthetic set names them.
SYNTHETIC = [
    *("train.data.images=images", "train.data.masks=masks"),
    *("train.data.validation_images=validation_images",),
    *("train.data.validation_masks=validation_masks",),
]


def read(name: str, *overrides: str) -> JobSpec:
    file = FOLDER / f"{name}.yaml"
    return parse_job(file.read_text(), str(file), overrides=overrides, environ={}).spec


def train_of(name: str) -> TrainSpec:
    train = read(name).train
    assert train is not None
    return train


def rendered(name: str) -> Plan:
    if name.startswith("cityscapes"):
        return slurm_plan(read(name), at=site(TOPAZ, "topaz"))
    return plan(read(name), "openmpi5", hosts=(HOST,))


@pytest.mark.parametrize("name", RECIPES)
def test_each_can_be_done_and_is_planned_for_its_accelerators(name: str) -> None:
    spec = read(name)
    assert spec.name == name
    assert not_yet(spec, "slurm") == []
    made = rendered(name)
    ranks = 1 if name.endswith("-1p") or "-1-" in name or name.startswith("camvid") else 8
    assert made.ranks == ranks
    kind = {"habana": "hpu", "cityscapes": "cuda", "voc": "npu", "camvid": "cuda"}
    assert made.environment["CLUSTERSEG_DEVICES"] == f"{kind[name.partition('-')[0]]}:1"
    assert made.argv[-2:] == ("train", "{run_dir}")


# A cluster's programs, of which planning asks nothing but whether they are there.
PROGRAM = "#!/bin/sh\necho slurm 23.02.7\n"


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 64 cores and 8 accelerators, from which a cluster can be used."""
    monkeypatch.setattr(
        request, "this_host", lambda: Host(name="n", cores=64, sockets=2, here=True)
    )
    monkeypatch.setattr(devices, "count_devices", lambda kind: 8)
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(PROGRAM)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for key in (*VISIBLE.values(), "SLURM_CONF"):
        monkeypatch.delenv(key, raising=False)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.usefixtures("machines")
def test_check_and_render_take_each(name: str) -> None:
    job = [str(FOLDER / f"{name}.yaml")]
    if name.startswith("cityscapes"):
        job += ["--set", "scheduler=slurm", "--set", "slurm.site=topaz"]
    checked = CliRunner().invoke(app, ["check", *job, "--json"])
    assert checked.exit_code == 0, checked.output
    summary = msgspec.json.decode(checked.stdout)
    assert summary["geometry"]["ranks"] == rendered(name).ranks
    shown = CliRunner().invoke(app, ["render", *job])
    assert shown.exit_code == 0, shown.output
    assert "clusterseg" in shown.stdout
    slurm = "#SBATCH --gres" in shown.stdout or "#SBATCH --gpus" in shown.stdout
    assert slurm == name.startswith("cityscapes")


@pytest.mark.parametrize("name", RECIPES)
def test_each_says_its_figure_and_what_differs_and_is_in_the_docs(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert "# Figure to be reached: " in text
    assert "# What differs: " in text or name == "cityscapes-hrnet-ocr"  # nobody's launch
    assert f"`{name}`" in PAGE.read_text()


# Published: learning rate of all ranks together, of the first step after the warm-up; pictures of
# all ranks in a step; steps in all, or epochs.
PUBLISHED: dict[str, tuple[str, float, int, int]] = {
    "habana-1-bf16": ("adam", 1e-5, 16, 125),
    "habana-1-fp32": ("adam", 1e-5, 16, 125),
    "habana-8-bf16": ("adam", 2e-5, 128, 125),
    "habana-8-fp32": ("adam", 2e-5, 128, 125),
    "cityscapes-unet": ("adam", 0.08, 64, 125),
    "cityscapes-separable-unet": ("sgd_nesterov", 0.024, 64, 125),
    "cityscapes-bayes-segnet": ("sgd", 0.008, 64, 125),
    "cityscapes-fastscnn": ("sgd", 0.36, 32, 500),
    "cityscapes-deeplabv3plus": ("sgd", 0.056, 64, 500),
    "cityscapes-hrnet-ocr": ("sgd", 0.01, 16, 484),
    "voc-deeplabv3-s16-r1-1p": ("sgd", 0.0035, 8, 15_000),
    "voc-deeplabv3-s16-r1-8p": ("sgd", 0.028, 64, 15_000),
    "voc-deeplabv3-s16-r2-1p": ("sgd", 0.00005, 8, 15_000),
    "voc-deeplabv3-s16-r2-8p": ("sgd", 0.0004, 64, 15_000),
    "voc-deeplabv3-s8-r1-1p": ("sgd", 0.002, 8, 15_000),
    "voc-deeplabv3-s8-r1-8p": ("sgd", 0.016, 64, 15_000),
    "voc-deeplabv3-s8-r2-1p": ("sgd", 0.0000375, 8, 10_000),
    "voc-deeplabv3-s8-r2-8p": ("sgd", 0.0003, 64, 10_000),
    "camvid-lmsegnet": ("adam", 0.001, 8, 1000),
}


@pytest.mark.parametrize("name", RECIPES)
def test_rates_batches_and_lengths_are_the_published_ones(name: str) -> None:
    optimizer, rate, batch, length = PUBLISHED[name]
    train, ranks = train_of(name), rendered(name).ranks
    own = train.optimizer.learning_rate * (ranks if train.optimizer.scale_with_ranks else 1)
    assert train.optimizer.name == optimizer
    assert own == pytest.approx(rate)
    assert train.batch_size * ranks == batch
    assert train.epochs * (train.steps_per_epoch or 1) == length


def test_the_rounds_of_ascend_differ_in_what_the_recipe_says() -> None:
    found = {
        name: (
            train.model.options["output_stride"],
            tuple(train.model.options["atrous_rates"]),
            train.optimizer.weight_decay,
        )
        for name in VOC
        if name.endswith("8p") and (train := train_of(name))
    }
    assert found == {
        "voc-deeplabv3-s16-r1-8p": (16, (6, 12, 18), 1e-4),
        "voc-deeplabv3-s16-r2-8p": (8, (12, 24, 36), 1e-4),
        "voc-deeplabv3-s8-r1-8p": (8, (12, 24, 36), 1e-4),
        "voc-deeplabv3-s8-r2-8p": (8, (12, 24, 36), 2e-5),
    }
    for name in VOC:
        train = train_of(name)
        # No more steps an epoch than SBD's 10,582 pictures have.
        assert (train.steps_per_epoch or 0) * PUBLISHED[name][2] <= 10_582
        assert train.optimizer.bias_multiplier == 2.0


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small synthetic data set in each layout, made once it is asked for."""
    from clusterseg.data.synth.recipe import Recipe
    from clusterseg.data.synth.write import write_dataset

    class Sets(dict[str, Path]):
        def __missing__(self, layout: str) -> Path:
            root = tmp_path_factory.mktemp("sets") / layout
            size = (64, 128) if layout == "cityscapes" else (48, 64)
            more: dict[str, Any] = {"labels": "blue"} if layout == "folder" else {}
            if layout == "voc2012":
                more = {"extra": 2}
            recipe = Recipe(format=layout, train=4, val=2, test=0, size=size, seed=1, **more)
            write_dataset(recipe, root)
            self[layout] = root
            return root

    return Sets()


def computed(name: str) -> dict[str, Any]:
    """The training section without the numbers that a step is given, and without its length."""
    train = msgspec.to_builtins(train_of(name))
    for key in ("learning_rate", "weight_decay"):
        del train["optimizer"][key]
    for key in ("epochs", "steps_per_epoch"):
        del train[key]
    found: dict[str, Any] = train
    return found


def test_steps_are_taken_of_all_that_is_computed() -> None:
    stepped = [computed(name) for name in STEPPED]
    assert [name for name in RECIPES if computed(name) not in stepped] == []


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in CHEAP else pytest.mark.proof) for n in STEPPED],
)
@pytest.mark.slow
@pytest.mark.timeout(1200)  # the graphs of HRNet and ResNet-101 are large
def test_two_steps_and_a_validation(name: str, sets: dict[str, Path]) -> None:
    from clusterseg.train import wishes
    from clusterseg.train.assembly import assemble
    from clusterseg.train.communicator.solo import SoloCommunicator
    from clusterseg.train.feeding import feed, next_step, validation_batches
    from clusterseg.train.state import generator_seeds
    from clusterseg.train.validation import validate

    layout = train_of(name).data.format
    small = [*SMALL.get(name.partition("-")[0], ()), *SMALL.get(name, ())]
    own = [*FEW, *small, *(SYNTHETIC if layout == "folder" else ())]
    spec = read(name, *own, f"train.data.root={sets[layout]}").train
    assert spec is not None
    assembly = assemble(spec, SoloCommunicator(), flags=wishes.COUNT, threads=1)
    state = assembly.state
    before = {key: np.array(one.numpy()) for key, one in state.variables.items()}
    pieces = iter(
        feed(
            assembly.dataset.train,
            np.array([[0, 1], [2, 3]]),
            spec,
            assembly,
            epoch=0,
            augment=spec.augment,
        )
    )
    batches = [next_step(pieces, 1) for _ in range(2)]
    for step in range(2 + SETTLING.get(name, 0)):
        images, labels, real = batches[step % 2]
        outcome = assembly.train_step(
            images,
            labels,
            real=real,
            learning_rate=spec.optimizer.learning_rate if step < 2 else 0.0,
            seeds=generator_seeds(spec.seed, step, 0, len(state.generators)),
            flags=np.zeros(wishes.COUNT, np.float32),
            step=step,
        )
        assert outcome.finite
        assert outcome.weight_sum > 0
    moved = [key for key, one in state.variables.items() if (one.numpy() != before[key]).any()]
    trainable = {f"model/{one.path}" for one in state.trainable if one.path.endswith("kernel")}
    assert trainable <= set(moved)
    with validation_batches(spec, assembly, rank=0, world_size=1) as validated:
        result = validate(
            validated,
            assembly.evaluation_step,
            SoloCommunicator(),
            classes=assembly.classes,
            agree=lambda *wishes: (False, list(wishes)),
            leave=lambda waited: False,
        )
    assert result is not None
    assert np.isfinite(result.loss)
    assert result.matrix.sum() > 0
