"""The layout of Cityscapes, with its fine annotations, the coarse ones, or both.

    leftImg8bit/{train,val,test,train_extra}/<city>/<city>_<seq>_<frame>_leftImg8bit.png
    gtFine/{train,val,test}/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png
    gtCoarse/{train,train_extra,val}/<city>/<city>_<seq>_<frame>_gtCoarse_labelIds.png

Also as the archives unpack, each with a folder of its own around it. Where a part has
`labelTrainIds` files alone, which the benchmark's scripts make, those are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clusterseg.data.cityscapes import CLASSES, ID_TO_TRAIN, IGNORED
from clusterseg.data.dataset import INVALID, ClassTable, Color, Dataset, Part, Sample
from clusterseg.data.faults import NOTHING, STRICT, Faults
from clusterseg.data.listing import (
    file_names,
    first_size,
    no_samples,
    paired,
    refuse_split,
)
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.spec.model import DataSpec

_VOID: tuple[str, Color, int] = ("void", (0, 0, 0), 0)
_PICTURES = "leftImg8bit"
_END = "_leftImg8bit.png"
_IDS, _TRAIN_IDS = "labelIds", "labelTrainIds"
# Around each folder, as the archives have it: leftImg8bit_trainvaltest.zip and so on.
_AROUND = ("", "{}_trainvaltest", "{}_trainvaltest/{}_trainvaltest", "{}_trainextra", "{}")


def open_dataset(
    spec: DataSpec, root: Path, ignore: int | None, faults: Faults = STRICT
) -> Dataset:
    """Cityscapes below `root`: 19 classes in the order of their train ids.

    All other labels become `ignore`; with `ignore: null` they are one more class, void.
    `data.coarse: true` trains on train with its fine annotations and train_extra with its coarse
    ones; `only` on train_extra alone. Validation and test are fine ones always.
    """
    refuse_split(spec.validation_split, "Cityscapes")
    nothing = _IDS, NOTHING
    train_kind, train = faults.part(lambda: _training(spec, root, faults), nothing)
    kind, validation = faults.part(lambda: _samples(root, "gtFine", "val", faults), nothing)

    def test() -> Part:
        kind, samples = _samples(root, "gtFine", "test", faults)
        return Part("test", samples, _table(kind, ignore))

    classes = own_classes(ignore)
    return Dataset(
        name="cityscapes",
        class_names=classes.names,
        colors=classes.colors,
        size=spec.size or first_size(train, skip=spec.on_unreadable == "skip"),
        train=Part("train", train, _table(train_kind, ignore)),
        validation=Part("validation", validation, _table(kind, ignore)),
        test=test if _find(root, "gtFine", "test") else None,
        label_ids=classes.ids,
    )


def own_classes(ignore: int | None) -> ClassTable:
    """The 19, and with `ignore: null` void, whose id is that of unlabeled."""
    listed = [(one.name, one.color, one.id) for one in CLASSES]
    names, colors, ids = zip(*listed, *([_VOID] if ignore is None else []), strict=True)
    return ClassTable(names, colors, ids)


def _table(kind: str, ignore: int | None) -> tuple[int, ...]:
    classes = len(CLASSES)
    other = classes if ignore is None else ignore
    if kind == _TRAIN_IDS:
        own = [value if value < classes else INVALID for value in range(IGNORED)] + [IGNORED]
    else:
        own = list(ID_TO_TRAIN)
    return tuple(other if one == IGNORED else one for one in own)


def _training(spec: DataSpec, root: Path, faults: Faults) -> tuple[str, tuple[Sample, ...]]:
    wanted = [("gtFine", "train")] if spec.coarse != "only" else []
    if spec.coarse:
        wanted.append(("gtCoarse", "train_extra"))
    parts = [
        faults.part(partial(_samples, root, truth, part, faults), (_IDS, NOTHING))
        for truth, part in wanted
    ]
    kinds = {kind for kind, samples in parts if samples}
    if len(kinds) > 1:
        raise ClustersegError(
            f"{root}: one of train and train_extra has labelIds masks, the other labelTrainIds",
            code="mixed-masks",
            help="unpack the archives again: their labelIds are enough",
        )
    return next(iter(kinds), _IDS), tuple(sample for _, samples in parts for sample in samples)


def _samples(root: Path, truth: str, part: str, faults: Faults) -> tuple[str, tuple[Sample, ...]]:
    """(the kind of mask, the samples) of a part."""
    pictures, masks = _find(root, _PICTURES, part), _find(root, truth, part)
    if pictures is None or masks is None:
        missing = _PICTURES if pictures is None else truth
        archive = "trainextra" if part == "train_extra" else "trainvaltest"
        raise ClustersegError(
            f"{root}: no {missing}/{part}",
            code="no-data",
            help=f"unpack {missing}_{archive}.zip there"
            if missing == _PICTURES or truth == "gtFine"
            else "unpack gtCoarse.zip there",
        )
    images = dict(_files(pictures, _END))
    for kind in (_IDS, _TRAIN_IDS):
        labels = dict(_files(masks, f"_{truth}_{kind}.png"))
        if labels:
            break
    else:
        kind = _IDS
    if not images:
        raise no_samples(pictures, f"files <city>/*{_END}")
    instances = dict(_files(masks, f"_{truth}_instanceIds.png"))
    where = f"{pictures} and {masks} ({kind})"
    return kind, paired(images, labels, where=where, instances=instances, faults=faults)


def _find(root: Path, name: str, part: str) -> Path | None:
    for around in _AROUND:
        folder = root / around.format(name, name) / name / part
        if folder.is_dir():
            return folder
    return None


def _files(folder: Path, ending: str) -> Iterator[tuple[str, Path]]:
    """(<city>_<seq>_<frame>, file) of those with the ending, in the folders of all cities."""
    for city in sorted(path for path in folder.iterdir() if path.is_dir()):
        for name in file_names(city):
            if name.endswith(ending):
                yield name.removesuffix(ending), city / name
