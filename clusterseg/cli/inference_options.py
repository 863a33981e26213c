"""How pictures are predicted, as options of `evaluate` and `predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clusterseg.cli.sizes import size_of
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.spec.model import TrainSpec
    from clusterseg.train.inference.how import How

Scales = Annotated[
    str,
    typer.Option(
        "--scales",
        metavar="S,S,…",
        help="Average over pictures resized by these: 0.75,1,1.25.",
    ),
]
Flip = Annotated[bool, typer.Option("--flip", help="Average over mirrored pictures, too.")]
Tile = Annotated[
    str | None,
    typer.Option(
        "--tile",
        metavar="HxW",
        help="Cut pictures, at their own size, into tiles of this height and width.",
        show_default=False,
    ),
]
Overlap = Annotated[
    float, typer.Option("--overlap", help="By how much of their sides tiles overlap, at least.")
]
Samples = Annotated[
    int,
    typer.Option(
        "--samples", help="Monte Carlo dropout: predict so many times, each with others dropped."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="What --samples draws from.", min=0)]

Refine = Annotated[
    int, typer.Option("--refine", help="Mend borders so many pixels deep, from inside of regions.")
]


def how(
    scales: str,
    flip: bool,
    *,
    tile: str | None,
    overlap: float,
    samples: int,
    seed: int,
    refine: int,
) -> How:
    """Raises ClustersegError for what is none; `check_network` tells what the network can't do."""
    from clusterseg.train.inference.how import How, check

    asked = How(
        scales=_numbers(scales),
        flip=flip,
        tile=None if tile is None else size_of(tile, "--tile"),
        overlap=overlap,
        samples=samples,
        seed=seed,
        refine=refine,
    )
    check(asked, 1)
    return asked


def check_network(asked: How, train: TrainSpec) -> None:
    """Raises ClustersegError for sizes that the network can't take, before anything is started."""
    from clusterseg.spec.tables import MODELS
    from clusterseg.train.inference.how import check

    check(asked, MODELS[train.model.name].divides_size)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise ClustersegError(
            f"--scales {text}: not numbers", code="usage", help="--scales 0.75,1,1.25"
        ) from None
