"""A small data set on disk, and one assembly that all in-process attempts share."""

from __future__ import annotations

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
