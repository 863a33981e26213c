"""One trained network, exported once to every format."""

from __future__ import annotations

import pytest

from clusterseg.export.formats import FORMATS
from clusterseg.export.graph import Form
from clusterseg.export.network import Network
from clusterseg.export.write import Export, Wishes, export
from tests.export.networks import labelled, trained


@pytest.fixture(scope="session")
def network() -> Network:
    return trained()


@pytest.fixture(scope="session")
def exported(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Every format, by its ordinary form: one normalised picture in, logits out."""
    return export(
        network,
        Wishes(tuple(name for name in FORMATS if name != "qonnx"), Form(), benchmark=True),
        tmp_path_factory.mktemp("export") / "all",
        samples=labelled(4),
        calibration=labelled(4),
    )
