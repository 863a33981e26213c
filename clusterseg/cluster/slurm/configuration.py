"""Slurm's configuration file, as far as it says where this is. No question to the controller."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

# Where Slurm's programs look (slurm.conf(5)): Debian had another place before 12, and a cluster
# without files of its own on every host keeps a copy in /run.
_PLACES = (
    "/etc/slurm/slurm.conf",
    "/etc/slurm-llnl/slurm.conf",
    "/run/slurm/conf/slurm.conf",
)
_LARGEST = 1 << 20  # characters that are looked at
_NAME = re.compile(r"(?im)^[ \t]*ClusterName[ \t]*=[ \t]*([^\s#]+)")
_INCLUDE = re.compile(r"(?im)^[ \t]*Include[ \t]+([^\s#]+)")


def configuration_file(environ: Mapping[str, str]) -> Path | None:
    """The slurm.conf that Slurm's programs use here, None if none can be seen."""
    named = environ.get("SLURM_CONF")
    places = [Path(named)] if named else [*map(Path, _PLACES), *_beside_sbatch(environ)]
    return next((place for place in places if os.path.isfile(place)), None)  # noqa: PTH113 (never raises)


def _beside_sbatch(environ: Mapping[str, str]) -> list[Path]:
    """Slurm built for a folder of its own (/opt/slurm, /usr/local) looks below that folder."""
    sbatch = shutil.which("sbatch", path=environ.get("PATH", os.defpath))
    if sbatch is None:
        return []
    prefix = Path(sbatch).resolve().parent.parent
    return [prefix / "etc" / "slurm.conf", prefix / "etc" / "slurm" / "slurm.conf"]


def present_cluster(environ: Mapping[str, str]) -> str | None:
    """The cluster that Slurm's programs ask from here, None if that is not known."""
    return cluster_name(configuration_file(environ))


def cluster_name(file: Path | None) -> str | None:
    """The cluster's name (ClusterName) by its slurm.conf and what it includes."""
    if file is None:
        return None
    text = _text(file)
    texts = [text, *(_text(file.parent / included) for included in _INCLUDE.findall(text))]
    found = next(filter(None, map(_NAME.search, texts)), None)
    return found[1].lower() if found else None  # Slurm itself writes it small


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_LARGEST)
    except OSError:
        return ""
