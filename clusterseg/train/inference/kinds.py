"""What `predict` can write of a picture. No TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from clusterseg.errors import ClustersegError

ALWAYS = ("ids", "color", "overlay", "confidence")
OF_SAMPLES = ("entropy", "mutual_information", "maps")
"""They need several samples (Monte Carlo)."""
USUAL = ("ids", "color", "overlay")


def check_kinds(asked: Sequence[str], *, samples: int) -> tuple[str, ...]:
    """Those asked for, each once. Raises ClustersegError for an unknown one, and for those that
    need samples where there are none."""
    known = (*ALWAYS, *OF_SAMPLES)
    unknown = [one for one in asked if one not in known]
    if unknown or not asked:
        said = (
            f"{unknown[0]!r} is nothing that can be written" if unknown else "nothing is asked for"
        )
        raise ClustersegError(said, code="unknown-name", help=f"there are {', '.join(known)}")
    needy = [one for one in asked if one in OF_SAMPLES]
    if needy and not samples:
        raise ClustersegError(
            f"{needy[0]} is how several predictions differ: there is one",
            code="usage",
            help="--samples 8, with a network that has dropout",
        )
    return tuple(dict.fromkeys(asked))
