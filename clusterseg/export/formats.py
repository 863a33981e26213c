"""The formats that a network can be exported to. Light: read before TensorFlow is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clusterseg.errors import ClustersegError


@dataclass(frozen=True)
class Bound:
    """How far a file's logits may be from the network's without being wrong.

    `difference` holds where the largest logit is between 1 and `steady`: below it is in proportion,
    lest small logits hide a fault, and above, where the numbers' own precision ends.
    """

    difference: float
    steady: float

    def limit(self, magnitude: float) -> float:
        """The largest difference; `magnitude` is the largest logit."""
        return self.difference * max(min(magnitude, 1.0), magnitude / self.steady)


# float32 has 24 bits: 6e-6 at 100, times what a few hundred layers add up to.
TOLERANCE = 1e-4
FLIPS = 0.01
"""The share of what a network decides (`Network.decides`) that a file may decide otherwise."""
_FLOAT32 = Bound(TOLERANCE, steady=100.0)
_FLOAT16 = Bound(1e-2, steady=1.0)  # kernels of 11 bits


@dataclass(frozen=True)
class Format:
    """`file` is its name in the export's folder, `kind` what opens it (meta.yaml, run.py).

    `bound` None: a file that computes with integers, whose accuracy is reported instead.
    """

    file: str
    kind: str
    bound: Bound | None = _FLOAT32


FORMATS = {
    "onnx": Format("model.onnx", "onnx"),
    "tflite": Format("model.tflite", "tflite"),
    "tflite-float16": Format("model-float16.tflite", "tflite", bound=_FLOAT16),
    "tflite-int8": Format("model-int8.tflite", "tflite", bound=None),
    "saved-model": Format("saved_model", "saved-model"),
    "keras": Format("model.keras", "keras"),
    "qonnx": Format("model.qonnx.onnx", "qonnx"),
}


def bound_of(name: str, tolerance: float = TOLERANCE) -> Bound | None:
    """That of the format `name`; `tolerance` is the difference allowed where logits are float32."""
    bound = FORMATS[name].bound
    return replace(bound, difference=tolerance) if bound == _FLOAT32 else bound


def check_wishes(
    formats: Sequence[str],
    *,
    batch: int | None,
    raw: bool,
    argmax: bool,
    integer_io: bool,
    tolerance: float = TOLERANCE,
    flips: float | None = None,
) -> None:
    """Raises ClustersegError for what does not go together. `batch` None: any number."""
    for option, value in (("--tolerance", tolerance), ("--flips", flips)):
        if value is not None and math.isnan(value):  # no difference is above it
            raise ClustersegError(f"{option} nan is no number", code="usage", help="give a number")
    for name in formats:
        if name not in FORMATS:
            raise ClustersegError(
                f"no format {name!r}", code="usage", help=f"there are: {', '.join(FORMATS)}"
            )
    if integer_io and "tflite-int8" not in formats:
        raise ClustersegError(
            "--integer-io is about tflite-int8, which is not among the formats",
            code="usage",
            help="add --to tflite-int8",
        )
    if integer_io and raw:
        raise ClustersegError(
            "--integer-io and --raw exclude each other: one input is int8, the other uint8",
            code="usage",
            help="give one",
        )
    fixed = [name for name in formats if FORMATS[name].kind == "tflite"]
    if batch is None and fixed:
        raise ClustersegError(
            f"{', '.join(fixed)} can't have a dynamic batch",
            code="usage",
            help="give a number: --batch 1",
        )
    if (raw or argmax) and "qonnx" in formats:
        raise ClustersegError(
            "--raw and --argmax don't go with qonnx: what is not quantised has no place on an FPGA",
            code="usage",
            help="leave them out, or export to qonnx by itself",
        )
    if (raw or argmax) and tuple(formats) == ("keras",):
        raise ClustersegError(
            "--raw and --argmax change nothing in a .keras file, which is the network as it is",
            code="usage",
            help="leave them out, or export to another format: --to saved-model",
        )
