"""What a rank computes on: its accelerator, or a clear word why there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusterseg.errors import ClustersegError
from clusterseg.runs.records import RankEnd, RankStart
from clusterseg.train.devices import own_gpu
from tests.train.runs import BIN, Run, job

SCRIPT = """
import json, os, sys
from clusterseg.errors import ClustersegError
from clusterseg.train.devices import prepare_tensorflow

for kind in sys.argv[1:]:
    try:
        prepare_tensorflow(2, deterministic=False, accelerator=kind)
    except ClustersegError as error:
        print(json.dumps([error.code, error.message, error.help]))
    else:
        print(json.dumps(os.environ.get("OPENED")))
"""
# A stand-in for what only a host with the hardware can have: which of the maker's functions are
# called, with what, and whether TensorFlow was there already when the module came.
NPU = """
import os, sys
early = "tensorflow" not in sys.modules
class Device:
    def __init__(self, number): self.number = number
    def as_default(self): os.environ["OPENED"] = f"npu {self.number} {early}"
open = Device
"""
HPU = """
import os
def load_habana_module(): os.environ["OPENED"] = "hpu"
"""
BROKEN = "raise RuntimeError('built for TensorFlow 2.12')"


def prepared(*kinds: str, folder: Path | None = None, **environ: str) -> list[object]:
    """What `prepare_tensorflow` does for each kind, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *kinds],
        env={**os.environ, "PYTHONPATH": f"{folder or ''}:{Path.cwd()}", **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_what_is_not_there_is_said_and_what_to_do() -> None:
    cuda, hpu, npu, none = prepared("cuda", "hpu", "npu", "none", CUDA_VISIBLE_DEVICES="3")
    assert none is None
    for found, words in (
        (cuda, ["accelerator: cuda", "finds no GPU (CUDA_VISIBLE_DEVICES=3)", "and-cuda"]),
        (hpu, ["accelerator: hpu", "habana-tensorflow is not installed"]),
        (npu, ["accelerator: npu", "npu_device) is not installed"]),
    ):
        assert isinstance(found, list)
        assert found[0] == "no-accelerator"
        assert all(word in " ".join(found[1:]) for word in words)


@pytest.mark.slow
def test_plug_ins_are_loaded_or_say_why_not(tmp_path: Path) -> None:
    (tmp_path / "npu_device.py").write_text(NPU)
    (tmp_path / "habana_frameworks").mkdir()
    module = tmp_path / "habana_frameworks" / "tensorflow.py"
    module.write_text(HPU)
    opened = prepared("npu", "hpu", folder=tmp_path, ASCEND_DEVICE_ID="5")
    assert opened == ["npu 5 True", "hpu"]
    module.write_text(BROKEN)
    (broken,) = prepared("hpu", folder=tmp_path)
    assert isinstance(broken, list)
    assert "could not be loaded: RuntimeError: built for TensorFlow 2.12" in broken[1]


def test_ranks_of_a_host_that_see_all_gpus_take_one_each() -> None:
    everyone = ["a", "b", "c", "d"]
    assert [own_gpu(everyone, rank, {}) for rank in range(4)] == everyone
    assert [own_gpu([one], rank, {}) for rank, one in enumerate(everyone)] == everyone


def test_no_gpu_is_an_error() -> None:
    with pytest.raises(ClustersegError, match="TensorFlow finds no GPU"):
        own_gpu([], 0, {})


@pytest.mark.slow
def test_a_rank_that_trains_is_dealt_its_device_and_says_if_it_can_not_use_it(
    data: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", job(data))
    run.claim()
    environ = {
        **os.environ,
        "CLUSTERSEG_RUN_DIR": str(run.root),
        "CLUSTERSEG_ATTEMPT": "0",
        "CLUSTERSEG_DEVICES": "cuda:1",
        "CUDA_VISIBLE_DEVICES": "6,7",
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": "1",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    }
    done = subprocess.run(
        [str(BIN / "clusterseg"), "train", str(run.root)], env=environ, check=False
    )
    assert done.returncode == 1
    start, end = (one for one in run.events() if isinstance(one, RankStart | RankEnd))
    assert (start.accelerator, start.device) == ("cuda", "7")
    assert "finds no GPU (CUDA_VISIBLE_DEVICES=7)" in end.error
    assert "Traceback" not in run.log()
