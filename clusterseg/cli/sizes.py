"""Sizes of pictures as they are given on a command line."""

from __future__ import annotations

import re

from clusterseg.errors import ClustersegError


def size_of(text: str, option: str) -> tuple[int, int]:
    """(height, width) of `360x480`; raises ClustersegError that names the option."""
    match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text)
    if match is None:
        raise ClustersegError(
            f"{option} {text!r} is not a size", code="usage", help="write HEIGHTxWIDTH: 360x480"
        )
    return int(match[1]), int(match[2])
