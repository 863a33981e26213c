"""What the spec calls ready is there, and what is there is ready."""

import inspect

import pytest

from clusterseg import registry
from clusterseg.data import format_names
from clusterseg.data.augment import augmentation_names
from clusterseg.errors import ClustersegError
from clusterseg.losses import loss_names
from clusterseg.models import model_names
from clusterseg.spec import tables


def ready(table):
    return sorted(name for name, known in table.items() if known.ready)


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (model_names, tables.MODELS),
        (loss_names, tables.LOSSES),
        (format_names, tables.DATA_FORMATS),
        (augmentation_names, tables.AUGMENTATIONS),
    ],
)
def test_ready_names_are_those_that_can_be_built(names, table):
    assert names() == ready(table)


@pytest.mark.parametrize("name", ready(tables.MODELS))
def test_models_take_the_options_that_the_spec_lists(name):
    build = registry.load("clusterseg.models.networks", "model", name).build
    parameters = inspect.signature(build).parameters.values()
    options = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert options == set(tables.MODELS[name].options)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ClustersegError) as caught:
        registry.load("clusterseg.losses.kinds", "loss", "../../etc/passwd")
    assert caught.value.code == "unknown-loss"
    assert "cross_entropy" in caught.value.help
