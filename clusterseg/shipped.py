"""Finds the data folders `launchers`, `slurm` and `jobs`, shipped with the program or a user's.

In a checkout they stand at the top; in an installed wheel below `clusterseg/_shipped`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(name: str) -> Path:
    """The shipped data folder `name`; raises FileNotFoundError if the installation lacks it."""
    for folder in (_PACKAGE / "_shipped" / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"clusterseg's data folder {name!r} is missing from {_PACKAGE}")


def search_path(name: str, environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Folders in which definitions called `name` (launchers, sites) are looked for, first wins.

    A user's own files come first: `$CLUSTERSEG_CONFIG/<name>`, else
    `$XDG_CONFIG_HOME/clusterseg/<name>`, else `~/.config/clusterseg/<name>`.
    """
    own = environ.get("CLUSTERSEG_CONFIG")
    if own:
        user = Path(own)
    else:
        base = environ.get("XDG_CONFIG_HOME")
        user = (Path(base) if base else Path.home() / ".config") / "clusterseg"
    shipped = shipped_folder("slurm") / "sites" if name == "sites" else shipped_folder(name)
    return [user / name, shipped]
