"""The tables agree with what the other rooms can build."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from clusterseg import registry
from clusterseg.spec.tables import TABLES

TOP = Path(__file__).resolve().parents[2]


def ready(table: str) -> set[str]:
    return {name for name, known in TABLES[table].items() if known.ready}


@pytest.mark.parametrize(
    ("table", "package"),
    [
        ("models", "clusterseg.models.networks"),
        ("losses", "clusterseg.losses.kinds"),
        ("data_formats", "clusterseg.data.formats"),
        ("augmentations", "clusterseg.data.augmentations"),
    ],
)
def test_what_is_ready_can_be_built(table: str, package: str) -> None:
    assert ready(table) == set(registry.names(package))


@pytest.mark.parametrize(
    ("folder", "table", "name"),
    [("models/networks", "models", name) for name in sorted(ready("models"))]
    + [("losses/kinds", "losses", name) for name in sorted(ready("losses"))],
)
def test_the_options_of_a_name_are_those_it_takes(folder: str, table: str, name: str) -> None:
    """Read from the source: importing one imports TensorFlow."""
    module = name.replace("+", "_plus")
    source = TOP / "clusterseg" / folder / f"{module}.py"
    (build,) = (
        node
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "build"
    )
    assert {argument.arg for argument in build.args.kwonlyargs} == set(TABLES[table][name].options)


def test_launchers_that_are_ready_have_a_definition() -> None:
    files = {file.stem for file in (TOP / "launchers").glob("*.yaml")}
    assert ready("launchers") - {"auto"} == files


@pytest.mark.slow
def test_optimizers_and_schedules_that_are_ready_can_be_built() -> None:
    import keras

    from clusterseg.spec.model import OptimizerSpec, ScheduleSpec
    from clusterseg.train.optimizers import build_optimizer
    from clusterseg.train.schedule import learning_rate

    for name in TABLES["optimizers"]:
        if name in ready("optimizers"):
            build_optimizer(OptimizerSpec(name=name), [keras.Variable([1.0])])
        else:
            with pytest.raises(ValueError, match=name):
                build_optimizer(OptimizerSpec(name=name), [])
    for name in TABLES["schedules"]:
        spec = ScheduleSpec(name=name)
        if name in ready("schedules"):
            assert learning_rate(spec, 1.0, step=0, steps_per_epoch=2, epochs=2) > 0
        else:
            with pytest.raises(ValueError, match=name):
                learning_rate(spec, 1.0, step=0, steps_per_epoch=2, epochs=2)
