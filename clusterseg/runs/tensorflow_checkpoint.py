"""Tells a checkpoint of TensorFlow 1 by its files, without TensorFlow.

One is `model.ckpt.index` with `model.ckpt.data-00000-of-00001` beside it, and people call it
`model.ckpt`, which is no file. One of version 1 is a single file.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path

INDEX = ".index"
# The end of a table file, of which both an index and version 1 are made (lib/io/format.h).
_MAGIC = bytes.fromhex("57fb808b247547db")
_DATA = re.compile(r"\.data-[0-9]{5}-of-[0-9]{5}")


class Incomplete(Exception):
    """Part of a checkpoint. `what` goes on after the path; `help` is what to do."""

    def __init__(self, what: str, help: str) -> None:
        super().__init__(what)
        self.what = what
        self.help = help


def tensorflow_checkpoint(path: Path) -> str | None:
    """What TensorFlow calls the checkpoint that `path` names: by its prefix, by its index, or by
    its one file. None if `path` names something else, or nothing.

    Raises Incomplete for a file with data alone and for an index without data; OSError.
    """
    data = _DATA.search(path.name)
    if data and data.end() == len(path.name) and path.is_file():
        index = f"{path.name[: data.start()]}{INDEX}"
        raise Incomplete("holds the data of a checkpoint without their names", f"give {index}")
    if path.is_file() and path.suffix != INDEX:
        return str(path) if _is_table(path) else None
    index_file = path if path.suffix == INDEX else path.with_name(f"{path.name}{INDEX}")
    if not index_file.is_file() or not _is_table(index_file):
        return None
    prefix = index_file.name.removesuffix(INDEX)
    if not any(index_file.parent.glob(f"{glob.escape(prefix)}.data-?????-of-?????")):
        raise Incomplete(
            f"has no {prefix}.data-00000-of-00001 beside it", "copy all files of the checkpoint"
        )
    return str(index_file.with_name(prefix))


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < len(_MAGIC):
            return False
        file.seek(size - len(_MAGIC))
        return file.read() == _MAGIC
