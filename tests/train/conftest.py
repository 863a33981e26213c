"""A small data set on disk, and one assembly that all in-process attempts share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.runs import job


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 training and 9 validation pictures of 32x48 pixels: 9 is odd, its last batch padded."""
    from clusterseg.data.synth.recipe import Recipe
    from clusterseg.data.synth.write import write_dataset

    root = tmp_path_factory.mktemp("data") / "camvid"
    recipe = Recipe(format="camvid", train=36, val=9, test=1, size=(32, 48), seed=0)
    write_dataset(recipe, root)
    return root


@pytest.fixture(scope="session")
def assembly(data: Path):
    """Model, optimizer and steps for `job(data)`, built once; attempts scramble it first."""
    import msgspec

    from clusterseg.spec.model import TrainSpec
    from clusterseg.train import wishes
    from clusterseg.train.assembly import assemble
    from clusterseg.train.communicator.solo import SoloCommunicator

    spec = msgspec.convert(job(data)["train"], TrainSpec)
    return assemble(spec, SoloCommunicator(), flags=wishes.COUNT, threads=1)


@pytest.fixture(scope="session")
def fresh(assembly) -> dict[str, Any]:
    """The weights that a run of `job(data)` begins with."""
    return {name: np.array(variable.numpy()) for name, variable in assembly.state.variables.items()}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """small_disk(size, inodes): a folder that is a real file system of so many bytes."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mounted: list[Path] = []

    def make(size: int, inodes: int | None = None) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        options = f"size={size}" + (f",nr_inodes={inodes}" if inodes else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    try:
        yield make
    finally:
        for folder in mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
