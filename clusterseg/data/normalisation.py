"""How pixels become a network's input. Done in the input pipeline, not in the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Normalisation:
    """(RGB in 0 to 255 - mean) / deviation, a channel each; both are given in the order RGB.

    `order` is that of the channels as the network sees them.
    """

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    order: Literal["rgb", "bgr"] = "rgb"

    def linear(self) -> tuple[list[float], list[float]]:
        """(factors, offsets), in the order RGB: what is seen is pixel x factor + offset."""
        factors = [1 / deviation for deviation in self.deviation]
        offsets = [-mean * one for mean, one in zip(self.mean, factors, strict=True)]
        return factors, offsets


# Means and deviations of ImageNet's training pictures, as torchvision gives them, times 255.
IMAGENET = Normalisation(mean=(123.675, 116.28, 103.53), deviation=(58.395, 57.12, 57.375))
