"""Training's validation counts the pixels of the files, whatever size the network sees."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from clusterseg.data import class_counts
from clusterseg.spec.model import TrainSpec
from clusterseg.train.assembly import assemble
from clusterseg.train.communicator.solo import SoloCommunicator
from clusterseg.train.feeding import validation_batches
from clusterseg.train.validation import Validation, validate
from tests.train.runs import job


def validated(data: Path, batch: int) -> Validation:
    """Of fresh weights; files are 32x48, the network sees 16x32."""
    values = job(data, batch_size=batch)["train"]
    values["data"]["size"] = [16, 32]
    spec = msgspec.convert(values, TrainSpec)
    assembly = assemble(spec, SoloCommunicator(), flags=0, threads=1)
    with validation_batches(spec, assembly, rank=0, world_size=1) as batches:
        found = validate(
            batches,
            assembly.evaluation_step,
            SoloCommunicator(),
            classes=assembly.classes,
            agree=lambda *wishes: (False, list(wishes)),
            leave=lambda waited: False,
        )
    assert found is not None
    true = class_counts(assembly.dataset.validation, assembly.classes)
    np.testing.assert_array_equal(found.matrix.sum(axis=1), true)
    return found


@pytest.mark.slow
def test_every_labelled_pixel_of_the_files_counts_once(data: Path) -> None:
    """9 pictures in batches of 4 and of 1: what pads a batch adds nothing."""
    one, other = validated(data, 4), validated(data, 1)
    assert one.accuracy == pytest.approx(other.accuracy, abs=1e-3)
