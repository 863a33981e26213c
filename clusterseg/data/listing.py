"""What the layouts share: lists and folders of files, pairs of them, parts that are split off."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clusterseg.data.dataset import Sample
from clusterseg.data.faults import NO_MASKS, STRICT, Faults
from clusterseg.data.files import is_of_the_file, picture_size
from clusterseg.data.order import epoch_order
from clusterseg.errors import ClustersegError

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif"})
MASKS = frozenset({".png", ".bmp", ".gif"})
"""Suffixes in small letters. A JPEG changes the numbers that it is given, so it is no mask."""

_MOST_BYTES = 64 * 2**20  # a list file beyond this is none
_SHOWN = 5  # names in a message


def names_of(text: str) -> tuple[str, ...]:
    """The names between commas."""
    return tuple(" ".join(name.split()) for name in text.split(","))


def text_lines(path: Path, *, kind: str, help: str) -> list[str]:
    """The lines of a list; `kind` ("a CamVid data set") is what is none without it.

    Raises ClustersegError: missing, too large, not UTF-8.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ClustersegError(
                f"{path}: too large for a list of files", code="bad-list", help=help
            )
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ClustersegError(
            f"{path}: no such file; not {kind}",
            code="no-data",
            help="the layout is described in docs/data.md",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ClustersegError(
            f"{path}: not readable as text ({error})",
            code="bad-list",
            help="save it as UTF-8, and make it readable for whoever trains",
        ) from error


def first_size(samples: Sequence[Sample], *, skip: bool) -> tuple[int, int]:
    """(height, width) of the first picture; with `skip`, of the first one that can be read."""
    for sample in samples[:-1] if skip else ():
        try:
            return picture_size(sample.image)
        except ClustersegError as error:
            if not is_of_the_file(error):
                raise
    return picture_size(samples[-1 if skip else 0].image)


def split_off(
    samples: tuple[Sample, ...], fraction: float
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(kept, split off): at least one sample each, both in the samples' order.

    By a fixed permutation that does not depend on the training's seed. Of no samples, none.
    """
    if not samples:
        return (), ()
    count = min(max(1, round(len(samples) * fraction)), len(samples) - 1)
    if count < 1:
        raise ClustersegError(
            "one sample can't be split in two parts",
            code="no-validation",
            help="give the set a validation part, or more samples",
        )
    chosen = set(epoch_order(0, 0, len(samples))[:count].tolist())
    kept = tuple(s for i, s in enumerate(samples) if i not in chosen)
    return kept, tuple(s for i, s in enumerate(samples) if i in chosen)


def file_names(folder: Path) -> list[str]:
    """The names of a folder's files, sorted, without hidden ones; raises ClustersegError if it
    can't be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and not entry.is_dir()
            )
    except OSError as error:
        raise ClustersegError(
            f"{folder}: {error.strerror or error}",
            code="no-data",
            help="the layouts are described in docs/data.md",
        ) from error


def by_stem(folder: Path, suffixes: Iterable[str], *, ending: str = "") -> dict[str, Path]:
    """Stem -> file of those with one of the `suffixes`; of each the stem loses `ending`, and those
    without it are left out. Raises ClustersegError for two files of one stem."""
    found: dict[str, Path] = {}
    wanted = frozenset(suffixes)
    for name in file_names(folder):
        stem, suffix = Path(name).stem, Path(name).suffix
        if suffix.lower() not in wanted or not stem.endswith(ending):
            continue
        key = stem.removesuffix(ending)
        if key in found:
            raise ClustersegError(
                f"{folder}: {found[key].name} and {name} have the same name but for their kind",
                code="double-name",
                help="pictures and masks belong together by name: remove or rename one of them",
            )
        found[key] = folder / name
    return found


def paired(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    *,
    where: str,
    instances: Mapping[str, Path] | None = None,
    faults: Faults = STRICT,
) -> tuple[Sample, ...]:
    """A sample for each key, in their order; those without a partner are `faults`. Raises
    ClustersegError where there are no masks at all. `where` says what was looked at."""
    if images and not masks:
        raise ClustersegError(
            f"{where}: {len(images)} pictures, and no mask",
            code=NO_MASKS,
            help="a picture and its mask have the same name; docs/data.md describes the layouts",
        )
    alone = [images[key] for key in images if key not in masks]
    lost = [masks[key] for key in masks if key not in images]
    if alone or lost:
        parts = [
            f"{what} ({len(files)}): {_some(files)}"
            for files, what in (
                (alone, "pictures without a mask"),
                (lost, "masks without a picture"),
            )
            if files
        ]
        error = ClustersegError(
            f"{where}: {'; '.join(parts)}",
            code="missing-pair",
            help="a picture and its mask have the same name; add the missing ones, or take the "
            "others away",
        )
        told = [(path, "a picture without a mask") for path in alone]
        faults.files(error, told + [(path, "a mask without a picture") for path in lost])
    ids = instances or {}
    both = sorted(key for key in images if key in masks)
    return tuple(Sample(images[key], masks[key], ids.get(key)) for key in both)


def refuse_missing(missing: Sequence[tuple[Path, str]], faults: Faults, *, help: str) -> None:
    """The `faults` of files that a list names and that are not there, each with its place
    (file:line) in the list."""
    if missing:
        path, where = missing[0]
        more = f"; nor do {len(missing) - 1} more that are named" if len(missing) > 1 else ""
        faults.files(
            ClustersegError(
                f"{where}: {path} does not exist{more}", code="missing-file", help=help
            ),
            missing,
        )


def _some(files: Sequence[Path]) -> str:
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return ", ".join(str(file) for file in files[:_SHOWN]) + more


def pictures_and_masks(pictures: Path, masks: Path, faults: Faults = STRICT) -> tuple[Sample, ...]:
    """Those of two folders whose files have equal stems; `faults` as those of `paired`. Raises
    ClustersegError as it does, and for no picture at all."""
    images = by_stem(pictures, PICTURES)
    if not images:
        raise no_samples(pictures, "pictures")
    where = f"{pictures} and {masks}"
    return paired(images, by_stem(masks, MASKS), where=where, faults=faults)


def no_samples(where: Path, wanted: str) -> ClustersegError:
    """The error of a part in which nothing was found."""
    return ClustersegError(
        f"{where}: no {wanted}", code="empty-part", help="docs/data.md describes the layouts"
    )


def refuse_split(fraction: float | None, layout: str) -> None:
    """Raises ClustersegError where `validation_split` is given for a set that has its own part."""
    if fraction is not None:
        raise ClustersegError(
            f"data.validation_split is given, but {layout} has a validation part",
            code="two-validation-parts",
            help="remove validation_split",
        )
