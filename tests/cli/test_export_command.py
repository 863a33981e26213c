"""`clusterseg export`, from a run and from a file of weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from clusterseg.models import build_model
from tests.cli.conftest import Done

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))
JOB = """
name: exported
train:
  model: {name: fastscnn, width: 0.25}
  data: {format: camvid, root: data, size: [32, 48]}
  epochs: 1
  batch_size: 4
  ema: 0.9
resources: {nodes: 1, ranks_per_node: 1, cpus_per_rank: 1}
placement: {oversubscribe: true, bind_to: none}
scheduler: local
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job, its data, and weights of its network."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "job.yaml").write_text(JOB)
    synth = "data synth data --format camvid --size 40x60 --train 12 --val 5 --test 0"
    subprocess.run([CLUSTERSEG, *synth.split()], cwd=folder, check=True, capture_output=True)
    keras.utils.set_random_seed(0)
    model = build_model("fastscnn", 11, (32, 48), width=0.25)
    model.save_weights(folder / "right.weights.h5")
    build_model("fastscnn", 11, (32, 48), width=0.5).save_weights(folder / "wrong.weights.h5")
    return folder


def clusterseg(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLUSTERSEG, *line.split()], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_weights_and_their_job(folder: Path) -> None:
    line = "export right.weights.h5 --job job.yaml -o out --to onnx --samples 3 --json"
    done = clusterseg(folder, f"{line} --set resources.accelerator=npu")
    assert done.returncode == 0, done.stderr
    # There is none here.
    assert "note: computed on the CPU: the job wants accelerator: npu, but" in done.stderr
    said = json.loads(done.stdout)
    assert said["folder"] == str(folder / "out")
    (file,) = said["files"]
    assert file["comparison"]["of"] == "validation part"
    assert file["comparison"]["pictures"] == 3
    assert file["comparison"]["largest_difference"] <= 1e-4
    assert file["comparison"]["network"] == file["comparison"]["file"]
    meta = yaml.safe_load((folder / "out" / "meta.yaml").read_text())
    assert meta["size"] == [32, 48]
    assert [one["name"] for one in meta["classes"]][:3] == ["sky", "building", "pole"]
    assert meta["origin"] == {"weights": "right.weights.h5", "job": "exported"}
    assert {path.name for path in (folder / "out").iterdir()} == {
        "meta.yaml", "run.py", "requirements.txt", "model.onnx",
    }  # fmt: skip
    assert "Traceback" not in done.stderr


@pytest.mark.proof
def test_a_run_gives_its_best_checkpoint_with_the_averages(folder: Path) -> None:
    """At another size than it was trained at; another checkpoint gives other logits."""
    done = clusterseg(folder, "submit --wait --runs-dir runs job.yaml")
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    line = f"export {run.name} --runs-dir runs -o of-run --size 40x60 --to onnx --samples 2 --json"
    done = clusterseg(folder, line)
    assert done.returncode == 0, done.stderr
    meta = yaml.safe_load((folder / "of-run" / "meta.yaml").read_text())
    assert meta["size"] == [40, 60]
    assert meta["origin"]["run"] == run.name

    import onnx
    from safetensors.numpy import load_file

    (checkpoint,) = (run / "checkpoints").glob("*.safetensors")
    assert meta["origin"]["weights"] == checkpoint.name
    tensors = load_file(checkpoint)
    name = "classifier_logits/kernel"
    averaged, last = tensors[f"ema/{name}"], tensors[f"model/{name}"]
    stored = [
        onnx.numpy_helper.to_array(one)
        for one in onnx.load(str(folder / "of-run" / "model.onnx")).graph.initializer
    ]
    kernels = [one.squeeze() for one in stored if one.size == averaged.size]
    wanted = averaged.squeeze().T
    assert any(np.allclose(one, wanted, atol=1e-7) for one in kernels if one.shape == wanted.shape)
    assert np.abs(averaged - last).max() > 1e-5


@pytest.mark.slow
def test_weights_of_another_network_leave_nothing(folder: Path) -> None:
    done = clusterseg(folder, "export wrong.weights.h5 --job job.yaml -o wrong")
    assert done.returncode != 0
    assert "error[bad-weights]: " in done.stderr
    assert "wrong.weights.h5: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "wrong").exists()
    assert not list(folder.glob(".*partial*"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nothing.h5 --job job.yaml -o new", "nothing.h5: no such file"),
        ("right.weights.h5 -o new", "weights alone do not tell what they are of"),
        ("right.weights.h5 --job job.yaml -o data", "data is there already"),
        ("right.weights.h5 --job job.yaml -o new --to onxx", "no format 'onxx'"),
        ("right.weights.h5 --job job.yaml -o new --batch 0", "--batch '0' is no batch"),
        ("right.weights.h5 --job job.yaml -o new --size 12", "--size '12' is not a size"),
        ("right.weights.h5 --job job.yaml -o new --checkpoint x", "--checkpoint names one"),
        ("nosuchrun -o new --set train.epochs=3", "--set is about the job.yaml that --job names"),
    ],
)
def test_mistakes_are_told_at_once(
    cli: Callable[..., Done],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    done = cli("export", *line.split())
    assert done.code == 2
    assert message in done.err
    assert not (folder / "new").exists()
