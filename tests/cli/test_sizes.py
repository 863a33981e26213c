"""Sizes on a command line: one reader for all options."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clusterseg.cli.sizes import size_of
from clusterseg.errors import ClustersegError
from tests.cli.conftest import Done

Cli = Callable[..., Done]


def test_a_size_is_height_and_width() -> None:
    assert [size_of(one, "--size") for one in ("360x480", "8X16", "7×9")] == [
        (360, 480),
        (8, 16),
        (7, 9),
    ]


@pytest.mark.parametrize("text", ["360", "x480", "360x", "-1x2", "1x2x3", "1000000x1", ""])
def test_what_is_none_is_told_with_its_option(text: str) -> None:
    with pytest.raises(ClustersegError, match=r"--tile .* is not a size"):
        size_of(text, "--tile")


def test_every_command_tells_it_alike(cli: Cli) -> None:
    for line in (
        "data synth out --size 5",
        "evaluate run --tile 5",
        "predict run in --output out --tile 5",
    ):
        done = cli(*line.split())
        assert done.code == 2 and "'5' is not a size" in done.err, line
