"""How a picture is predicted: scales, mirror images, tiles, samples. Pure; no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from clusterseg.errors import ClustersegError


class How(Struct, frozen=True, kw_only=True):
    """Without anything the network sees a picture once, brought to the size that it was built for.

    `scales`: it sees the picture resized by each of these. `flip`: each also mirrored left and
    right. `tile` (height, width): the picture, at the size of its file, is cut into tiles that
    overlap by the fraction `overlap` of their sides; both are resized by the scale, and what is
    smaller than a tile gets a margin of the mean colour, right and below, before it is mirrored.
    `samples`: so many times, each
    with other channels dropped (Monte Carlo), drawn from `seed`. The probabilities of all are
    averaged. `refine`: borders are mended so many pixels deep (`clusterseg.models.refine`).
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    tile: tuple[int, int] | None = None
    overlap: float = 0.25
    samples: int = 0
    seed: int = 0
    refine: int = 0

    @property
    def is_plain(self) -> bool:
        """As training validates."""
        return self == How(overlap=self.overlap, seed=self.seed)

    def passes(self) -> Iterator[tuple[float, bool]]:
        """(scale, mirrored) of what the network sees, for one sample."""
        for scale in self.scales:
            yield scale, False
            if self.flip:
                yield scale, True


LARGEST_SCALE = 8.0
DEEPEST = 50  # pixels of a border


def check(how: How, divisor: int) -> None:
    """Raises ClustersegError for what can't be done; `divisor` divides all sides of the network's
    input."""
    if not how.scales or not all(0 < one <= LARGEST_SCALE for one in how.scales):
        raise _bad(f"scales are numbers above 0, up to {LARGEST_SCALE:g}", "--scales 0.75,1,1.25")
    if len(set(how.scales)) < len(how.scales):
        raise _bad("a scale is given twice", "each counts once")
    if not 0 <= how.overlap < 1:
        raise _bad(f"an overlap of {how.overlap:g} is no fraction below 1", "--overlap 0.25")
    if how.samples < 0 or how.samples == 1:
        raise _bad("one sample tells nothing of how samples differ", "--samples 8")
    if not 0 <= how.refine <= DEEPEST:
        raise _bad(f"borders are mended 1 to {DEEPEST} pixels deep", "--refine 3")
    if how.tile is not None and (min(how.tile) < 1 or any(side % divisor for side in how.tile)):
        raise _bad(
            f"the network can't take tiles of {how.tile[0]}x{how.tile[1]}",
            f"height and width must be divisible by {divisor}",
        )


def scaled(size: tuple[int, int], scale: float, divisor: int) -> tuple[int, int]:
    """`size` (height, width) times `scale`, to the nearest that `divisor` divides; never 0."""
    height, width = (max(1, round(side * scale / divisor)) * divisor for side in size)
    return height, width


def tiles(
    size: tuple[int, int], tile: tuple[int, int], overlap: float
) -> Iterator[tuple[int, int]]:
    """(top, left) of tiles that cover `size`, which is no smaller than one: as few as overlap by
    the fraction `overlap` at least, spread evenly."""
    rows, columns = (_places(whole, part, overlap) for whole, part in zip(size, tile, strict=True))
    for top in rows:
        for left in columns:
            yield top, left


def _places(whole: int, part: int, overlap: float) -> list[int]:
    most = max(1, int(part * (1 - overlap)))
    count = -(-(whole - part) // most) + 1
    return [round(number * (whole - part) / max(1, count - 1)) for number in range(count)]


def _bad(why: str, help: str) -> ClustersegError:
    return ClustersegError(why, code="usage", help=help)
