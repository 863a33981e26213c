"""Every network trained on synthetic street scenes, to the accuracy that is stated here.

A job a network, by `clusterseg submit` on this machine: one rank on one core, CamVid's layout at
64x96, the same pictures for all. What is validated last has to reach the floors of `CASES`; a case
that stays below, or fails, makes exit code 1. The accuracy stands beside that of the most frequent
class everywhere.

The whole sweep takes the better part of an hour. `--only NAME` trains those named; with `--folder`
the results are kept there, one folder a case, and a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from result import Result

from clusterseg.runs.checkpoint_file import read_layout

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))
TRAIN, VALIDATION, SIZE, BATCH = 160, 32, (64, 96), 4
STEPS = TRAIN // BATCH  # of an epoch
_MEANS = "optimizer/momentums/"


@dataclass(frozen=True)
class Case:
    """A network, how long it trains, and what it has to reach in the validation part.

    `accuracy` and `mean_iou` are floors, 0.04 and more below what the case came to: another
    processor adds up in another order, which these few steps show.
    """

    name: str
    model: str
    epochs: int
    accuracy: float
    mean_iou: float
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.001

    def job(self, data: Path) -> dict[str, Any]:
        return {
            "name": "accuracy",
            "train": {
                "model": {"name": self.model, **self.options},
                "data": {"format": "camvid", "root": str(data), "size": list(SIZE)},
                "augment": [{"flip_horizontal": 0.5}],
                "optimizer": {
                    "name": "adam",
                    "learning_rate": self.rate,
                    "scale_with_ranks": False,
                },
                "schedule": {"name": "cosine", "warmup_epochs": 0.5},
                "epochs": self.epochs,
                "batch_size": BATCH,
                "deterministic": True,
                "communicator": "solo",
            },
            "checkpoint": {"every": "1h", "keep_best": 0, "keep_last": 1},
            "resources": {"nodes": 1, "ranks_per_node": 1, "cpus_per_rank": 1},
            "placement": {"bind_to": "none"},
            "scheduler": "local",
            "launcher": "local",
        }


_SMALL_UNET = {"base_filters": 8, "head_filters": None}
_MOBILE = {"backbone": "mobilenetv2"}
_NEAR = {"atrous_rates": [2, 4, 6]}  # on a map of 8x12, those of 12 and more mostly miss it
_SLIM = {"backbone": "resnet101", **_NEAR}
CASES = (
    # Name, model, epochs, floors of accuracy and mean IoU, options. What learns nothing has 0.30
    # and 0.03.
    Case("fastscnn", "fastscnn", 12, 0.68, 0.24, {"width": 0.5}),
    Case("fastscnn-seed", "fastscnn", 12, 0.68, 0.29, {"width": 0.5, "pyramid": "seed"}),
    Case("unet", "unet", 6, 0.72, 0.26, _SMALL_UNET),
    Case("separable_unet", "separable_unet", 18, 0.65, 0.24, _SMALL_UNET),
    Case("segnet", "segnet", 12, 0.69, 0.24, {"width": 0.25}),
    Case("bayes_segnet", "bayes_segnet", 12, 0.68, 0.22, {"width": 0.25}),
    Case("vgg_segnet", "vgg_segnet", 6, 0.74, 0.31, {"width": 0.25}),
    Case("lmsegnet", "lmsegnet", 4, 0.73, 0.32, {"quantize": True}),
    Case("lmsegnet-float", "lmsegnet", 3, 0.73, 0.32, {"quantize": False}),
    Case("deeplabv3+", "deeplabv3+", 3, 0.70, 0.28, _MOBILE),
    Case("deeplabv3+-aux", "deeplabv3+", 3, 0.71, 0.29, {**_MOBILE, "aux": True}),
    Case("deeplabv3+-xception", "deeplabv3+", 2, 0.74, 0.33, {"backbone": "xception"}),
    Case("deeplabv3+-resnet50", "deeplabv3+", 2, 0.72, 0.30, {"backbone": "resnet50"}),
    Case("deeplabv3", "deeplabv3", 2, 0.61, 0.15, {"backbone": "resnet101_beta"}),
    Case("deeplabv3-aux", "deeplabv3", 2, 0.62, 0.16, {**_SLIM, "aux": True}),
    Case("fastfcn", "fastfcn", 2, 0.67, 0.24, {**_NEAR, "aux": True}),
    Case("fastfcn-psp", "fastfcn", 2, 0.67, 0.22, {"head": "psp"}),
    Case("fastfcn-encnet", "fastfcn", 2, 0.68, 0.24, {"head": "encnet"}),
    Case("hrnetv2", "hrnetv2_ocr", 2, 0.64, 0.20, {"width": 18, "ocr": False}),
    Case("hrnetv2_ocr", "hrnetv2_ocr", 2, 0.63, 0.18, {"width": 18, "aux": True}),
)


@dataclass(frozen=True)
class Outcome:
    """What a case came to. `common`: the accuracy of the most frequent class everywhere."""

    case: str
    parameters: int
    steps: int
    accuracy: float
    mean_iou: float
    common: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, default=[])
    parser.add_argument("--folder", type=Path, help="where results are kept")
    options = parser.parse_args()
    wanted = [case for case in CASES if case.name in (options.only or names)]
    with tempfile.TemporaryDirectory(prefix="clusterseg-bench-") as made:
        ended = sweep(wanted, options.folder or Path(made))
    print(markdown(ended), file=sys.stderr)
    sys.exit(0 if reached(wanted, ended) else 1)


def sweep(cases: list[Case], folder: Path) -> dict[str, Outcome]:
    """Name -> outcome, of the cases whose job did not fail; what is kept is not done again."""
    data = folder / "data"
    made = ["data", "synth", "--format", "camvid", str(data), "--train", str(TRAIN)]
    made += ["--val", str(VALIDATION), "--test", "0", "--size", f"{SIZE[0]}x{SIZE[1]}"]
    subprocess.run([CLUSTERSEG, *made], check=True, capture_output=True)
    common = most_frequent(data)
    found = {}
    for case in cases:
        print(f"{case.name}: {case.epochs * STEPS} steps", file=sys.stderr, flush=True)
        outcome = kept(case, folder / case.name, data, common)
        if outcome is not None:
            found[case.name] = outcome
            report(case, outcome)
    return found


def reached(cases: list[Case], outcomes: dict[str, Outcome]) -> bool:
    """Whether every case has an outcome, and none is below its floors."""
    return all(case.name in outcomes and holds(case, outcomes[case.name]) for case in cases)


def holds(case: Case, outcome: Outcome) -> bool:
    return outcome.accuracy >= case.accuracy and outcome.mean_iou >= case.mean_iou


def report(case: Case, outcome: Outcome) -> None:
    Result(
        bench="accuracy",
        what=f"{case.name}, {outcome.steps} steps: pixel accuracy",
        value=outcome.accuracy,
        unit="",
        beside="the most frequent class everywhere",
        ratio=outcome.accuracy / outcome.common,
        aim=f">= {case.accuracy:.2f}",
        met=outcome.accuracy >= case.accuracy,
    ).emit()
    Result(
        bench="accuracy",
        what=f"{case.name}, {outcome.steps} steps: mean IoU",
        value=outcome.mean_iou,
        unit="",
        aim=f">= {case.mean_iou:.2f}",
        met=outcome.mean_iou >= case.mean_iou,
    ).emit()


def kept(case: Case, folder: Path, data: Path, common: float) -> Outcome | None:
    """The outcome in `folder`, if it is of this very job; else that of training it now."""
    path = folder / "outcome.json"
    job = case.job(data)
    if path.exists():
        known = json.loads(path.read_text())
        if known["job"] == job:
            return Outcome(**known["outcome"])
    outcome = trained(case, folder, job, common)
    if outcome is not None:
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"job": job, "outcome": asdict(outcome)}, indent=1) + "\n")
        part.replace(path)
    return outcome


def trained(case: Case, folder: Path, job: dict[str, Any], common: float) -> Outcome | None:
    """None, and what was said on stderr, if the job failed."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "job.yaml"
    file.write_text(json.dumps(job, indent=1) + "\n")  # JSON is YAML
    submit = [CLUSTERSEG, "submit", str(file), "--wait", "--json"]
    began = time.monotonic()
    done = subprocess.run(
        [*submit, "--runs-dir", str(folder / "runs")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    if done.returncode != 0:
        print(f"{case.name} failed ({done.returncode}):\n{done.stderr}", file=sys.stderr)
        return None
    run = json.loads(done.stdout.splitlines()[0])["run_dir"]
    summary = json.loads(printed("collect", run, "--json"))
    checkpoints = list((Path(run) / "checkpoints").glob("*.safetensors"))
    count = parameters(checkpoints[0])
    for checkpoint in checkpoints:
        checkpoint.unlink()  # up to 0.7 GB, and nobody reads it
    return Outcome(
        case=case.name,
        parameters=count,
        steps=case.epochs * STEPS,
        accuracy=summary["val_accuracy"],
        mean_iou=summary["val_mean_iou"],
        common=common,
        seconds=seconds,
    )


def most_frequent(data: Path) -> float:
    """The share of the validation part's labelled pixels that its most frequent class has."""
    stats = json.loads(
        printed("data", "stats", str(data), "--format", "camvid", "--part", "validation", "--json")
    )
    pixels = [entry["pixels"] for entry in stats["classes"]]
    return float(max(pixels) / sum(pixels))


def printed(*words: str) -> str:
    return subprocess.run([CLUSTERSEG, *words], check=True, capture_output=True, text=True).stdout


def parameters(checkpoint: Path) -> int:
    """Of the network that the job trained: Adam has one mean of gradients for each."""
    layout = read_layout(checkpoint)
    means = [slot.shape for name, slot in layout.tensors.items() if name.startswith(_MEANS)]
    return sum(math.prod(shape) for shape in means)


def markdown(outcomes: dict[str, Outcome]) -> str:
    """The table of docs/benchmarks.md."""
    rows = [
        "| case | options | parameters | steps | accuracy | floor | mean IoU | floor | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        if case.name not in outcomes:
            continue
        one = outcomes[case.name]
        options = ", ".join(f"`{key}: {json.dumps(case.options[key])}`" for key in case.options)
        cells = (f"`{case.name}`", options.replace('"', ""), f"{one.parameters:,}", f"{one.steps}",
                 f"{one.accuracy:.3f}", f"{case.accuracy:.2f}", f"{one.mean_iou:.3f}",
                 f"{case.mean_iou:.2f}", f"{one.seconds:.0f}")  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
