"""TFRecord shards with the keys of research/deeplab's data sets, read at random.

    train-00000-of-00012.tfrecord …  val-00000-of-00002.tfrecord …  test-… where there is one
    label_colors.txt                     lines `R G B name`, class 0 first; not needed
    label_ids.txt                        lines `id name`: what submissions hold; not needed

A record is a sample: `image/encoded` (JPEG, PNG, …), `image/segmentation/class/encoded` (the mask,
one channel), `image/filename`. Where each record begins is found when the set is opened, so samples
are read in any order, as from files.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from clusterseg.data.colormap import default_colors
from clusterseg.data.dataset import Color, Dataset, Part, Sample, label_table
from clusterseg.data.faults import NOTHING, STRICT, Faults
from clusterseg.data.formats.camvid import read_colors
from clusterseg.data.listing import split_off, text_lines
from clusterseg.data.sources import image_data
from clusterseg.data.tfrecords.shard import walk
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.spec.model import DataSpec

COLORS = "label_colors.txt"
IDS = "label_ids.txt"
_TRAIN, _VALIDATION, _TEST = "train-*.tfrecord", "val-*.tfrecord", "test-*.tfrecord"
_OF = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>.*)")


def open_dataset(
    spec: DataSpec, root: Path, ignore: int | None, faults: Faults = STRICT
) -> Dataset:
    """The shards below `root` that the options `train`, `validation` and `test` (patterns) name.

    The number of classes is that of `label_colors.txt`, or the option `classes`; `ignore_value`
    (255) in a mask counts nowhere. Without validation shards, `validation_split` of the training
    samples are taken.
    """
    options: dict[str, Any] = dict(spec.options)
    names, colors = _classes(root, options.get("classes"))
    values = label_table(
        len(names), ignored_values=[options.get("ignore_value", 255)], ignore=ignore
    )
    pattern = options.get("train", _TRAIN)
    train = faults.part(lambda: _training(root, pattern, faults), NOTHING)
    own = options.get("validation", _VALIDATION)
    train, validation = faults.part(
        lambda: _validation(spec, root, train, own, faults), (train, NOTHING)
    )
    rest = options.get("test", _TEST)
    return Dataset(
        name="tfrecord",
        class_names=names,
        colors=colors,
        size=spec.size or _size(train[0]),
        train=Part("train", train, values),
        validation=Part("validation", validation, values),
        test=(lambda: Part("test", _samples(root, rest, faults), values))
        if any(root.glob(rest))
        else None,
        label_ids=_ids(root / IDS, len(names)),
    )


def _training(root: Path, pattern: str, faults: Faults) -> tuple[Sample, ...]:
    train = _samples(root, pattern, faults)
    if not train:
        raise ClustersegError(
            f"{root}: no records in {pattern!r}",
            code="empty-list",
            help="give data.train, a pattern like 'train_fine-*', or another folder",
        )
    return train


def _validation(
    spec: DataSpec, root: Path, train: tuple[Sample, ...], pattern: str, faults: Faults
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    own = _samples(root, pattern, faults)
    if own and spec.validation_split is not None:
        raise ClustersegError(
            f"data.validation_split is given, but {root} has shards {pattern!r}",
            code="two-validation-parts",
            help="remove validation_split, or give another data.validation",
        )
    if own:
        return train, own
    if spec.validation_split is None:
        raise ClustersegError(
            f"{root}: no records in {pattern!r}",
            code="no-validation",
            help="give data.validation, a pattern like 'val_fine-*', or "
            "data.validation_split, e.g. 0.1",
        )
    return split_off(train, spec.validation_split)


def _samples(root: Path, pattern: str, faults: Faults) -> tuple[Sample, ...]:
    shards = sorted(path for path in root.glob(pattern) if path.is_file())
    _refuse_gaps(shards, faults)
    samples: list[Sample] = []
    for shard in shards:
        try:
            for sample in _of_shard(shard):
                samples.append(sample)
        except ClustersegError as error:
            faults.files(error, [(shard, error.message.removeprefix(f"{shard}: "))])
    return tuple(samples)


def _of_shard(shard: Path) -> Iterator[Sample]:
    for number, (record, name) in enumerate(walk(shard)):
        shown = shard / (name.lstrip("/") or f"{number:08d}")
        mask = shown.with_name(f"{shown.name} (mask)")
        yield Sample(shown, mask, record=record)


def _refuse_gaps(shards: list[Path], faults: Faults) -> None:
    """Names like `train-00003-of-00010.tfrecord` tell how many there should be."""
    there, missing = frozenset(shards), dict[Path, Path]()
    for shard in shards:
        found = _OF.fullmatch(shard.name)
        if found is None:
            continue
        for number in range(int(found["count"])):
            name = f"{found['name']}-{number:05d}-of-{found['count']}{found['end']}"
            if shard.with_name(name) not in there:
                missing.setdefault(shard.with_name(name), shard)
    for path, shard in list(missing.items())[:1]:
        error = ClustersegError(
            f"{path} is not there, but {shard.name} is",
            code="missing-file",
            help="copy the whole set; what is left of an older one must go",
        )
        faults.files(error, [(lost, f"{one.name} is there") for lost, one in missing.items()])


def _classes(root: Path, given: int | None) -> tuple[tuple[str, ...], tuple[Color, ...]]:
    path = root / COLORS
    if not path.exists():
        if given is None:
            raise ClustersegError(
                f"{root}: how many classes these shards have is not said",
                code="no-classes",
                help=f"give data.classes, or a {COLORS} with a line `R G B name` a class",
            )
        return tuple(f"class {number}" for number in range(given)), default_colors(given)
    table = read_colors(path)
    if given is not None and given != len(table):
        raise ClustersegError(
            f"data.classes is {given}, but {path} has {len(table)}",
            code="bad-list",
            help="leave the option out",
        )
    return tuple(name for name, _ in table), tuple(color for _, color in table)


def _ids(path: Path, classes: int) -> tuple[int, ...] | None:
    if not path.exists():
        return None
    help = "each line is a class, the first one is class 0: 7 road; or remove the file"
    ids = []
    for number, line in enumerate(text_lines(path, kind="a list of ids", help=help), start=1):
        word = line.split(maxsplit=1)[0] if line.strip() else ""
        if not (word.isascii() and word.isdigit() and int(word) < 2**16):
            raise ClustersegError(
                f"{path}:{number}: expected `id name`, found {line.strip()[:80]!r}",
                code="bad-list",
                help=help,
            )
        ids.append(int(word))
    if len(ids) != classes:
        raise ClustersegError(
            f"{path} has {len(ids)} classes, but there are {classes}", code="bad-list", help=help
        )
    return tuple(ids)


def _size(sample: Sample) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(image_data(sample))) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ClustersegError(
            f"{sample.image}: not readable as a picture",
            code="unreadable-picture",
            help="give data.size, or repair it",
        ) from error
