"""What an export's run.py needs to be installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

_ALWAYS = ("numpy", "pillow")
_OF_KIND = {  # by the kind of a format's file
    "onnx": ("onnxruntime",),
    "qonnx": ("onnxruntime",),
    "tflite": ("ai-edge-litert",),
    "saved-model": ("tensorflow",),
    "keras": ("tensorflow", "keras", "clusterseg"),
}


def requirements(kinds: Iterable[str]) -> str:
    """The text of a requirements.txt for files of these `kinds`: each package in the version that
    the files were checked with, or a later one, since runtimes read what older ones did."""
    named = dict.fromkeys((*_ALWAYS, *(name for kind in kinds for name in _OF_KIND[kind])))
    return "".join(f"{_line(name)}\n" for name in named)


def _line(name: str) -> str:
    try:
        return f"{name}>={version(name).partition('+')[0]}"
    except PackageNotFoundError:  # run from its sources
        return name
