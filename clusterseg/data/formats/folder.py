"""Folders of pictures and of masks, which belong together by name.

    images/<stem>.{jpg,jpeg,png,bmp,gif}   masks/<stem>.{png,bmp,gif}       the training part
    validation_images/   validation_masks/
    test_images/         test_masks/
    label_colors.txt                          lines `R G B name`, class 0 first; not needed

All names of folders can be given. A mask holds the number of the class: in its only channel (grey,
or as indices of a palette), or in the blue channel of three.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterseg.data.colormap import default_colors
from clusterseg.data.dataset import (
    Color,
    Dataset,
    MaskKind,
    Part,
    Sample,
    label_table,
)
from clusterseg.data.faults import NOTHING, STRICT, Faults
from clusterseg.data.formats.camvid import read_colors
from clusterseg.data.listing import (
    MASKS,
    PICTURES,
    by_stem,
    file_names,
    first_size,
    no_samples,
    paired,
    split_off,
)
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.spec.model import DataSpec

_FOLDERS = {
    "images": "images",
    "masks": "masks",
    "validation_images": "validation_images",
    "validation_masks": "validation_masks",
}
_TABLE = "label_colors.txt"
_LOSSY = frozenset({".jpg", ".jpeg"})


def open_dataset(
    spec: DataSpec, root: Path, ignore: int | None, faults: Faults = STRICT
) -> Dataset:
    """The folders below `root`, with the classes that `data.classes` counts or `data.names` names,
    else those of `label_colors.txt`.

    Pixels with the value `ignore` count nowhere. Without the validation folders
    `validation_split` of the training samples are taken.
    """
    options = spec.options
    names, colors = _classes(_with_table(options, root / _TABLE))
    kind: MaskKind = options.get("labels", "values")
    table = label_table(len(names), ignored_values=(), ignore=ignore)
    folders = {key: root / options.get(key, default) for key, default in _FOLDERS.items()}
    train = faults.part(lambda: _samples(folders["images"], folders["masks"], faults), NOTHING)
    own = folders["validation_images"], folders["validation_masks"]
    train, validation = faults.part(lambda: _validation(spec, own, train, faults), (train, NOTHING))
    test = (root / "test_images", root / "test_masks")
    return Dataset(
        name="folder",
        class_names=names,
        colors=colors,
        size=spec.size or first_size(train, skip=spec.on_unreadable == "skip"),
        train=Part("train", train, table, kind),
        validation=Part("validation", validation, table, kind),
        test=(lambda: Part("test", _samples(*test, faults), table, kind))
        if all(folder.is_dir() for folder in test)
        else None,
    )


def _validation(
    spec: DataSpec, own: tuple[Path, Path], train: tuple[Sample, ...], faults: Faults
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    named = any(key in spec.options for key in ("validation_images", "validation_masks"))
    if named or any(folder.exists() for folder in own):
        if spec.validation_split is not None:
            raise ClustersegError(
                f"data.validation_split is given, but {own[0]} holds a validation part",
                code="two-validation-parts",
                help="remove validation_split, or the folder",
            )
        return train, _samples(*own, faults)
    if spec.validation_split is None:
        raise ClustersegError(
            f"{own[0]}: no validation part (there is no such folder)",
            code="no-validation",
            help="give data.validation_images and data.validation_masks, or "
            "data.validation_split, e.g. 0.1, to split it off the training part",
        )
    return split_off(train, spec.validation_split)


def _samples(pictures: Path, masks: Path, faults: Faults) -> tuple[Sample, ...]:
    images, labels = by_stem(pictures, PICTURES), by_stem(masks, MASKS)
    if not images:
        raise no_samples(pictures, "pictures")
    lossy = [name for name in file_names(masks) if Path(name).suffix.lower() in _LOSSY]
    if lossy:
        error = ClustersegError(
            f"{masks / lossy[0]}: a JPEG can't be a mask: its numbers come out changed",
            code="lossy-mask",
            help="save masks as PNG",
        )
        faults.files(error, [(masks / name, "a JPEG") for name in lossy])
        told = {Path(name).stem for name in lossy} - set(labels)
        images = {stem: path for stem, path in images.items() if stem not in told}
    return paired(images, labels, where=f"{pictures} and {masks}", faults=faults)


def _with_table(options: Mapping[str, Any], table: Path) -> Mapping[str, Any]:
    if "classes" in options or "names" in options or not table.exists():
        return options
    read = read_colors(table)
    return {"names": [name for name, _ in read], "colors": [color for _, color in read], **options}


def _classes(options: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    names = tuple(options.get("names", ()))
    count = options.get("classes", len(names))
    if not count:
        raise ClustersegError(
            "the data format `folder` does not know how many classes there are",
            code="no-classes",
            help=f"give data.classes, or data.names, one name a class, or a {_TABLE} with a line "
            "`R G B name` a class",
        )
    if names and len(names) != count:
        raise ClustersegError(
            f"data.names has {len(names)} names, data.classes is {count}",
            code="classes",
            help="give as many names as there are classes, or leave one of the two out",
        )
    colors = tuple((int(r), int(g), int(b)) for r, g, b in options.get("colors", ()))
    if colors and len(colors) != count:
        raise ClustersegError(
            f"data.colors has {len(colors)} colours for {count} classes",
            code="classes",
            help="give one [red, green, blue] a class",
        )
    return names or tuple(f"class {number}" for number in range(count)), colors or default_colors(
        count
    )
