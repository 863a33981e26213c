"""The layout of Pascal VOC 2012, and the further masks of the Semantic Boundaries Dataset (SBD).

    JPEGImages/<id>.jpg
    SegmentationClass/<id>.png                      palette; 255 around each object
    ImageSets/Segmentation/{train,val}.txt          lines `id`
    SegmentationClassAug/<id>.png                   grey; those of SBD and VOC together
    ImageSets/Segmentation/trainaug.txt             or in the root; lines `id`, or `image mask`

The root is VOC2012, or a folder that has it in VOCdevkit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clusterseg.data.colormap import default_colors
from clusterseg.data.dataset import ClassTable, Dataset, Part, Sample, value_table
from clusterseg.data.faults import NOTHING, STRICT, Faults
from clusterseg.data.listing import (
    file_names,
    first_size,
    names_of,
    no_samples,
    refuse_missing,
    refuse_split,
    text_lines,
)
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.spec.model import DataSpec

CLASSES = names_of(
    """
    background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable,
    dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
    """
)

_BORDER = 255
_COLORS = default_colors(256)
_PICTURES, _MASKS, _AUGMENTED = "JPEGImages", "SegmentationClass", "SegmentationClassAug"
_LISTS = "ImageSets/Segmentation"
_HELP = "each line is the id of a picture: 2007_000032"


def open_dataset(
    spec: DataSpec, root: Path, ignore: int | None, faults: Faults = STRICT
) -> Dataset:
    """VOC 2012 below `root`: background and 20 classes.

    The borders of objects (255) become `ignore`; with `ignore: null` they are one more class.
    `data.augmented: true` trains on trainaug.txt. Validation is val.txt with VOC's own masks.
    """
    refuse_split(spec.validation_split, "VOC 2012")
    root = next(
        (one for one in (root / "VOCdevkit" / "VOC2012", root / "VOC2012") if one.is_dir()), root
    )
    train = faults.part(lambda: _training(spec, root, faults), NOTHING)
    validation = faults.part(
        lambda: _read(root, root / _LISTS / "val.txt", (_MASKS,), faults), NOTHING
    )
    table = value_table(range(len(CLASSES)), void=[_BORDER], ignore=ignore)
    classes = own_classes(ignore)
    return Dataset(
        name="voc2012",
        class_names=classes.names,
        colors=classes.colors,
        size=spec.size or first_size(train, skip=spec.on_unreadable == "skip"),
        train=Part("train", train, table),
        validation=Part("validation", validation, table),
        label_ids=classes.ids,
    )


def own_classes(ignore: int | None) -> ClassTable:
    """Background and the 20, and with `ignore: null` the border."""
    names = (*CLASSES, "border") if ignore is None else CLASSES
    ids = (*range(len(CLASSES)), _BORDER)[: len(names)]
    return ClassTable(names, tuple(_COLORS[one] for one in ids), ids)


def _training(spec: DataSpec, root: Path, faults: Faults) -> tuple[Sample, ...]:
    if spec.options.get("augmented", False):
        return _read(root, _trainaug(root), (_AUGMENTED, _MASKS), faults)
    return _read(root, root / _LISTS / "train.txt", (_MASKS,), faults)


def _trainaug(root: Path) -> Path:
    for path in (root / _LISTS / "trainaug.txt", root / "trainaug.txt"):
        if path.is_file():
            return path
    raise ClustersegError(
        f"{root / _LISTS / 'trainaug.txt'}: no such file",
        code="no-data",
        help="data.augmented needs that list and the masks in SegmentationClassAug; without them "
        "leave it out, to train on train.txt",
    )


def _read(root: Path, path: Path, folders: tuple[str, ...], faults: Faults) -> tuple[Sample, ...]:
    """The samples of a list; masks are looked for in the `folders`, in this order."""
    present = {
        folder: frozenset(file_names(root / folder))
        for folder in (_PICTURES, *folders)
        if (root / folder).is_dir()
    }
    samples: list[Sample] = []
    missing: list[tuple[Path, str]] = []
    for number, line in enumerate(
        text_lines(path, kind="a VOC 2012 data set", help=_HELP), start=1
    ):
        words = line.split()
        if not words:
            continue
        if len(words) > 2:
            raise ClustersegError(
                f"{path}:{number}: expected an id, found {line.strip()[:80]!r}",
                code="bad-list",
                help=_HELP,
            )
        # `image mask`, as some trainaug lists have it: the names say all that their folders do.
        picture, labels = Path(words[0]).name, Path(words[-1]).name
        image, has_image = _located(root, (_PICTURES,), f"{_id(picture)}.jpg", present)
        mask, has_mask = _located(root, folders, f"{_id(labels)}.png", present)
        found = ((image, has_image), (mask, has_mask))
        missing += [(file, f"{path}:{number}") for file, is_there in found if not is_there]
        if has_image and has_mask:
            samples.append(Sample(image, mask))
    if missing:
        refuse_missing(missing, faults, help=_help_missing(root, folders))
    elif not samples:
        raise no_samples(path, "ids")
    return tuple(samples)


def _id(name: str) -> str:
    return name.removesuffix(".jpg").removesuffix(".png")


def _located(
    root: Path,
    folders: tuple[str, ...],
    name: str,
    present: dict[str, frozenset[str]],
) -> tuple[Path, bool]:
    """(the file in the first of the folders that has it, whether one has it)."""
    for folder in folders:
        if name in present.get(folder, ()):
            return root / folder / name, True
    return root / folders[0] / name, False


def _help_missing(root: Path, folders: tuple[str, ...]) -> str:
    if _AUGMENTED in folders and any(root.glob("**/dataset/cls/*.mat")):
        return (
            "SBD's masks are there as .mat files: write GTcls.Segmentation of each as a grey PNG "
            f"into {_AUGMENTED}"
        )
    return "put it there, or take out its line"
