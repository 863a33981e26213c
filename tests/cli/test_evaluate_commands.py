"""`clusterseg evaluate`, from a submitted run on."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from clusterseg.runs.attempts import iter_attempts
from clusterseg.runs.eventlog import iter_events
from clusterseg.runs.paths import RunPaths
from clusterseg.runs.records import Epoch
from clusterseg.runs.store import find_runs
from tests.cli.conftest import Done
from tests.devcluster import DevCluster

Cli = Callable[..., Done]
CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))

JOB = """
name: scored
train:
  model: {name: fastscnn, width: 0.25}
  data: {format: camvid, root: data, size: [32, 48]}
  optimizer: {name: sgd, learning_rate: 0.02}
  epochs: 2
  batch_size: 4
checkpoint: {every: 10m, keep_last: 5}
resources: {nodes: 1, ranks_per_node: 1, cpus_per_rank: 1}
placement: {oversubscribe: true}
scheduler: local
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run of two epochs, done; its job.yaml names its data by a relative path."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "job.yaml").write_text(JOB)
    synth = "data synth data --format camvid --size 32x48 --train 24 --val 5 --test 0"
    for line in (synth, "submit --wait --runs-dir runs job.yaml"):
        done = subprocess.run(
            [CLUSTERSEG, *line.split()], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    (run,) = find_runs(folder / "runs")
    return run


def epochs(run: RunPaths) -> list[Epoch]:
    (attempt,) = iter_attempts(run)
    return [
        event
        for _, stream in attempt.events()
        for event in iter_events(stream)
        if isinstance(event, Epoch)
    ]


def truth(run: RunPaths) -> dict[str, str]:
    """Every file of the run but evaluation.json, with its content."""
    return {
        str(path.relative_to(run.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.root.rglob("*")
        if path.is_file() and path != run.evaluation
    }


def scores(one: Any) -> tuple[Any, ...]:
    """Of an epoch event, or of an entry of the answer."""
    values = one if isinstance(one, dict) else msgspec.to_builtins(one)
    names = ("epoch", "step", "val_loss", "val_accuracy", "val_mean_iou")
    return tuple(values[name] for name in names)


@pytest.mark.timeout(900)  # trains, and evaluates each checkpoint in processes of its own
@pytest.mark.slow
def test_all_checkpoints_have_the_figures_of_their_epochs(cli: Cli, run: RunPaths) -> None:
    before = truth(run)
    done = cli("evaluate", run.root, "--all-checkpoints", "--json")
    assert done.code == 0, done.err
    told = {scores(event) for event in epochs(run)}
    assert {scores(one) for one in done.json["checkpoints"]} == told
    assert len(told) == 2
    accuracies = [one["val_accuracy"] for one in done.json["checkpoints"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert (done.json["failures"], done.json["folder"]) == ([], None)
    assert done.json["problem"] is None
    written = msgspec.json.decode(run.evaluation.read_bytes())
    assert written["checkpoints"] == done.json["checkpoints"]
    assert truth(run) == before
    assert not run.fanout.exists()


@pytest.mark.slow
def test_one_that_fails_is_named_and_the_file_keeps_the_others(
    cli: Cli, run: RunPaths, tmp_path: Path
) -> None:
    good = sorted(run.checkpoints.glob("weights-*"))[0]
    bad = tmp_path / good.name
    content = bytearray(good.read_bytes())
    content[-1] ^= 1
    bad.write_bytes(content)
    run.evaluation.write_text('{"run": "old"}')
    before = truth(run)
    done = cli("evaluate", run.root, "--checkpoint", bad)
    assert done.code == 1
    assert done.out == ""
    assert good.name in done.err and "tried 2 times" in done.err
    assert run.evaluation.read_text() == '{"run": "old"}'
    kept = {name for name in truth(run) if name not in before}
    assert kept and all(name.startswith("fanout/") for name in kept)
    assert {name: sha for name, sha in truth(run).items() if name in before} == before


@pytest.mark.slow
@pytest.mark.slurm
def test_the_best_one_through_slurm(
    cli: Cli, run: RunPaths, slurm_cluster: DevCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm_cluster.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/")
    done = cli("evaluate", run.root, "--executor", "slurm")
    assert done.code == 0, done.err
    best = max(epochs(run), key=lambda event: event.val_accuracy or 0)
    header, line = done.out.splitlines()[:2]
    names = ["file", "epoch", "step", "val_loss", "val_accuracy", "val_mean_iou"]
    assert header.split() == names
    assert line.split()[1:4] == [str(best.epoch), str(best.step), f"{best.val_loss:.4g}"]


@pytest.mark.slow
@pytest.mark.slurm
def test_a_film_through_slurm_after_a_job_was_killed_and_the_rest_interrupted(
    run: RunPaths, slurm_cluster: DevCluster, tmp_path: Path
) -> None:
    """Called again, it ends with every frame once, and nothing else."""
    values = np.random.default_rng(0).integers(0, 256, (16, 32, 48, 3), np.uint8)
    first, *rest = [Image.fromarray(one) for one in values]
    first.save(tmp_path / "film.gif", save_all=True, append_images=rest, duration=40)
    output = tmp_path / "out"
    line = f"predict {run.root} {tmp_path / 'film.gif'} --what ids --output {output}"
    command = [CLUSTERSEG, *line.split(), "--executor", "slurm", "--json"]
    environ = {**os.environ, **slurm_cluster.environ}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:

        def wait_for(count: int, pattern: str) -> None:
            while len(list(output.glob(pattern))) < count:
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)

        wait_for(2, ".work/fanout/*/results/*.begun")
        job, _ = slurm_cluster.squeue("-r", "-t", "R", "-o", "%i")
        # At once: asked to end first, it might come to its end before.
        slurm_cluster.run("scancel", "--full", "--signal=KILL", job)
        wait_for(1, "ids/film/*.png")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    answer = msgspec.json.decode(out)
    parts = {"film, frames 0 to 7", "film, frames 8 on"}
    assert answer["jobs"] and {one["name"] for one in answer["jobs"]} <= parts
    assert 0 < len(list(output.glob("ids/film/*.png"))) <= 8

    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = msgspec.json.decode(done.stdout)
    numbers = range(16)
    assert [one["name"] for one in answer["pictures"]] == [f"film/frame-{n:06d}" for n in numbers]
    assert (answer["failures"], answer["jobs"], answer["interrupted"]) == ([], [], False)
    names = [str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()]
    assert sorted(names) == [*(f"ids/film/frame-{n:06d}.png" for n in numbers), "predictions.json"]
    written = msgspec.json.decode((output / "predictions.json").read_bytes())
    assert written["pictures"] == answer["pictures"]
    for one in answer["pictures"]:
        ids = np.asarray(Image.open(output / "ids" / f"{one['name']}.png"))
        assert sum(one["classes"].values()) == ids.size == 32 * 48
        assert len(one["classes"]) == len(np.unique(ids))


def begun(run: RunPaths) -> list[Path]:
    return list(run.fanout.glob("*/results/*.begun"))


@pytest.mark.slow
def test_interrupted_it_says_so(run: RunPaths) -> None:
    """Ctrl-C on a terminal reaches the whole process group, the jobs too."""
    before = set(run.fanout.glob("*"))
    with subprocess.Popen(
        [CLUSTERSEG, "evaluate", str(run.root), "--all-checkpoints", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while not [one for one in begun(run) if one.parents[1] not in before]:
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    answer = msgspec.json.decode(out)
    assert answer["interrupted"]
    assert {one["error"] for one in answer["failures"]} <= {"cancelled"} and answer["failures"]
    assert "Traceback" not in err


@pytest.mark.slow
def test_mistakes_are_told(cli: Cli, run: RunPaths, tmp_path: Path) -> None:
    both = cli("evaluate", run.root, "--all-checkpoints", "--checkpoint", "x")
    assert both.code == 2 and "exclude each other" in both.err
    missing = cli("evaluate", run.root, "--checkpoint", "weights-0009-0.9.safetensors")
    assert missing.code == 2 and "weights-0009" in missing.err
    run.root.chmod(0o770)
    try:
        loose = cli("evaluate", run.root)
    finally:
        run.root.chmod(0o700)
    assert loose.code == 2 and "untrusted-folder" in loose.err
    command = tmp_path / "command"
    (command / "submissions" / "000").mkdir(parents=True)
    (command / "run.json").write_text("{}")
    plan = msgspec.json.decode(run.submission(0).plan.read_bytes())
    plan["spec"] |= {"train": None, "command": ["true"]}
    (command / "submissions" / "000" / "plan.json").write_bytes(msgspec.json.encode(plan))
    program = cli("evaluate", command)
    assert program.code == 2 and "command:" in program.err
    plan = msgspec.json.decode(run.submission(0).plan.read_bytes())
    plan["spec"]["train"]["model"] = {"name": "unet", "classes": 11}
    (command / "submissions" / "000" / "plan.json").write_bytes(msgspec.json.encode(plan))
    tiles = cli("evaluate", command, "--tile", "50x50")
    assert tiles.code == 2 and "divisible by 16" in tiles.err


@pytest.mark.slow
def test_weights_that_do_not_fit_are_a_mistake_of_the_run_not_of_a_picture(
    cli: Cli, run: RunPaths, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run.root, other, ignore=shutil.ignore_patterns("fanout", "tensorboard"))
    other.chmod(0o700)
    file = other / "submissions" / "000" / "plan.json"
    plan = msgspec.json.decode(file.read_bytes())
    plan["spec"]["train"]["model"]["options"]["width"] = 0.5
    file.write_bytes(msgspec.json.encode(plan))
    picture = sorted(Path(plan["directory"], "data", "train").iterdir())[0]
    (tmp_path / "out" / ".work" / "fanout" / "of-one-that-was-killed").mkdir(parents=True)
    done = cli("predict", other, picture, "--output", tmp_path / "out")
    assert (done.code, done.out) == (1, "")
    error, help = done.err.splitlines()
    assert error.startswith("error[bad-checkpoint]: weights-")
    assert "downsample_0_conv/kernel is [3, 3, 3, 8], expected [3, 3, 3, 16]" in error
    assert picture.stem not in error and "tried" not in error
    assert help == "help: give weights of this very network, or the job.yaml of theirs"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.timeout(900)  # two fan-outs
@pytest.mark.slow
def test_what_is_predicted_is_what_is_evaluated(cli: Cli, run: RunPaths, tmp_path: Path) -> None:
    """On another part, and at the pictures' own size; a picture that can't be read is named."""
    before = truth(run)
    data = run.root.parents[1] / "data"
    plot = tmp_path / "confusion.png"
    evaluated = cli("evaluate", run.root, "--part", "train", "--plot", plot, "--json")
    assert evaluated.code == 0, evaluated.err
    (scores,) = evaluated.json["checkpoints"]
    assert (scores["part"], scores["how"]) == ("train", None)
    assert plot.read_bytes().startswith(b"\x89PNG")
    pictures, output = tmp_path / "pictures", tmp_path / "out"
    shutil.copytree(data / "train", pictures)
    (pictures / "damaged.png").write_bytes(b"\x89PNG")
    done = cli("predict", run.root, pictures, "--output", output, "--json")
    assert done.code == 1 and "damaged.png: not readable" in done.err
    assert [Path(one["file"]).name for one in done.json["failures"]] == ["damaged.png"]
    assert len(done.json["pictures"]) == 24
    assert sorted(path.name for path in output.iterdir()) == [
        "color",
        "ids",
        "overlay",
        "predictions.json",
    ]
    right = labelled = 0
    for path in (output / "ids").iterdir():
        found = np.asarray(Image.open(path))
        true = np.asarray(Image.open(data / "trainannot" / path.name))
        right += int((found == true)[true < 11].sum())
        labelled += int((true < 11).sum())
    # Convolutions of another batch may round otherwise.
    assert right / labelled == pytest.approx(scores["val_accuracy"], abs=1e-3)
    iou = [one["iou"] for one in scores["classes"].values() if one["iou"] is not None]
    assert scores["val_mean_iou"] == pytest.approx(sum(iou) / len(iou))
    assert truth(run) == before


# A stand-in for what only a host with the hardware can have: says that it was opened, and whether
# TensorFlow was there already when it came.
NPU = """
import os, pathlib, sys
early = "tensorflow" not in sys.modules
class Device:
    def __init__(self, number): self.number = number
    def as_default(self): pathlib.Path(os.environ["OPENED"]).write_text(f"{self.number} {early}")
open = Device
"""


@pytest.mark.timeout(900)  # two fan-outs
@pytest.mark.slow
def test_they_compute_on_the_accelerator_of_the_run_where_there_is_one(
    cli: Cli, run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = RunPaths(tmp_path / run.root.name)
    shutil.copytree(run.root, copy.root)
    plan = msgspec.json.decode(copy.submission(0).plan.read_bytes())
    plan["spec"]["resources"]["accelerator"] = "npu"
    copy.submission(0).plan.write_bytes(msgspec.json.encode(plan))
    picture = sorted((run.root.parents[1] / "data" / "val").iterdir())[0]
    done = cli("predict", copy.root, picture, "--output", tmp_path / "out", "--what", "ids")
    assert done.code == 0, done.err
    assert "note: computed on the CPU: the job wants accelerator: npu, but" in done.err
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "npu_device.py").write_text(NPU)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setenv("OPENED", str(tmp_path / "opened"))
    done = cli("evaluate", copy.root)
    assert done.code == 0, done.err
    assert (tmp_path / "opened").read_text() == "0 True"
    assert "computed on the CPU" not in done.err


@pytest.mark.slow
def test_options_are_recorded_with_the_figures(cli: Cli, run: RunPaths) -> None:
    """And what the network can't do is told before anything is started."""
    run.evaluation.unlink(missing_ok=True)
    options = ("--scales", "0.5,1", "--flip", "--samples", "2")
    done = cli("evaluate", run.root, *options, "--json")
    assert done.code == 0, done.err
    (written,) = msgspec.json.decode(run.evaluation.read_bytes())["checkpoints"]
    how = written["how"]
    assert (how["scales"], how["flip"], how["samples"]) == ([0.5, 1.0], True, 2)
    assert written["val_loss"] is None and written["val_accuracy"] > 0
    for wrong, said in (
        (("--scales", "x"), "not numbers"),
        (("--overlap", "1.5"), "overlap"),
        (("--samples", "1"), "one sample"),
    ):
        refused = cli("evaluate", run.root, *wrong)
        assert refused.code == 2 and said in refused.err
    none = cli("predict", run.root, run.root / "gone.png", "--output", run.root.parent / "out")
    assert none.code == 2 and "no such file" in none.err
    kind = cli("predict", run.root, ".", "-o", run.root.parent / "out", "--what", "entropy")
    assert kind.code == 2 and "--samples" in kind.err
    job = cli("predict", "w.h5", ".", "-o", "out", "--job", "job.yaml", "--checkpoint", "x")
    assert job.code == 2 and "exclude" not in job.err
