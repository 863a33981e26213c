"""Definitions that are files: their text, and the profile of this site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from clusterseg.cluster.slurm.configuration import cluster_name, configuration_file
from clusterseg.errors import ClustersegError
from clusterseg.plan.site import GENERIC, Site, read_site
from clusterseg.shipped import search_path, shipped_folder

_LARGEST = 2**20  # bytes of a definition


def find_site(name: str | None, environ: Mapping[str, str]) -> Site:
    """The profile called `name`; None: the one that fits this cluster's name, else the generic.

    A user's own files come first, whatever they are called. Raises SpecError for a profile with
    mistakes.
    """
    files = _files(environ)
    if name is not None:
        file = files.get(name)
        if file is None:
            raise ClustersegError(
                f"slurm.site: there is no profile of a site called {name!r}",
                code="site",
                help=f"known: {', '.join(files)}; docs/sites.md tells how to write one",
            )
        return _read(file, environ)
    cluster = cluster_name(configuration_file(environ))
    if cluster is not None:
        for file in files.values():
            if file.stem != GENERIC:
                site = _read(file, environ)
                if site.fits(cluster):
                    return site
    return find_site(GENERIC, environ)


def batch_template() -> str:
    """The text of the batch script's template."""
    return read_text(shipped_folder("slurm") / "batch.sh.j2", "template")


def read_text(file: Path, what: str) -> str:
    """The text of a definition; `what` it defines is for errors."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise ValueError(f"more than {_LARGEST} bytes")
        return raw.decode()
    except (OSError, ValueError) as error:
        raise ClustersegError(
            f"the {what} definition {file} can't be read: {error}",
            code=what,
            help="mend or remove the file",
        ) from None


def _read(file: Path, environ: Mapping[str, str]) -> Site:
    return read_site(file.stem, read_text(file, "site"), str(file), environ)


def _files(environ: Mapping[str, str]) -> dict[str, Path]:
    """The profiles by name, a user's own first; of one name, the first file counts."""
    files: dict[str, Path] = {}
    for folder in search_path("sites", environ):
        for file in sorted(folder.glob("*.yaml")):
            files.setdefault(file.stem, file)
    return files
