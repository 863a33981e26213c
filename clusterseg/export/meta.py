"""meta.yaml: what a program must know to use the files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from clusterseg import __version__
from clusterseg.export.network import Network

FORMAT = 1

_HEAD = """\
# A network exported by clusterseg. Each key stands at the beginning of a line, its value is JSON
# (which is YAML, too), so that run.py reads it without a library.
"""


def meta(network: Network, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The values of meta.yaml; `files` has one entry an exported file."""
    names = list(zip(network.class_names, network.colors, strict=True))
    # A job may give the network more classes than the data set names.
    names += [(f"class {n}", (0, 0, 0)) for n in range(len(names), network.classes)]
    ids = network.class_ids or ()
    normalisation = network.normalisation
    return {
        "format": FORMAT,
        "made_by": f"clusterseg {__version__}",
        "model": network.name,
        "options": dict(network.options),
        "size": list(network.size),
        "preprocessing": {
            "resize": "bilinear, half-pixel centres, no antialiasing",
            "mean": list(normalisation.mean),
            "deviation": list(normalisation.deviation),
            "order": normalisation.order,
        },
        "monte_carlo": False,
        "classes": [
            {"name": name, "color": list(color), "id": ids[number] if number < len(ids) else number}
            for number, (name, color) in enumerate(names)
        ],
        "files": list(files),
        "origin": dict(network.origin),
    }


def as_yaml(values: Mapping[str, Any]) -> str:
    """The text of meta.yaml; lists of objects have one a line."""
    lines = [_HEAD]
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"  {_json(row)}" for row in value)
            lines.append(f"{key}: [\n{rows}\n  ]\n")
        else:
            lines.append(f"{key}: {_json(value)}\n")
    return "".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
