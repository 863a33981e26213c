"""The CamVid layout of the SegNet tutorial and of Blueoil's CamVid class.

    train.txt  val.txt  test.txt      lines `image mask`
    train/  trainannot/  val/  valannot/  test/  testannot/
    label_colors.txt                  lines `R G B name`, class 0 first, void last

Masks hold one channel with the number of the class; 0 to 10 are classes and 11 is void.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clusterseg.data.dataset import Color, Dataset, Part, Sample, label_table
from clusterseg.data.faults import NOTHING, STRICT, Faults
from clusterseg.data.listing import first_size, refuse_missing, split_off, text_lines
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.spec.model import DataSpec

# Names and colours of the SegNet tutorial's twelve.
CLASSES: tuple[tuple[str, Color], ...] = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
    ("void", (0, 0, 0)),
)
_VOID_NAMES = {"void", "unlabelled", "unlabeled", "ignore", "background"}
_LISTS = "each line names a picture and its mask: train/0001.png trainannot/0001.png"
_COLORS = "each line is a class, the first one is class 0: 128 64 128 road; or remove the file"


def open_dataset(
    spec: DataSpec, root: Path, ignore: int | None, faults: Faults = STRICT
) -> Dataset:
    """The CamVid data set below `root`.

    Void counts nowhere: its mask value becomes `ignore`, and the classes are those before it
    (11). With `ignore: null` void is a class like the others (12). Without `val.txt` (or with an
    empty one), `validation_split` of the training samples are taken for validation, by a fixed
    permutation that does not depend on the training's seed.
    """
    table = read_colors(root / "label_colors.txt")
    void = len(table) - 1 if table[-1][0].lower() in _VOID_NAMES else None
    has_void = void is not None and ignore is not None
    classes = table[:-1] if has_void else table
    values = label_table(
        len(classes), ignored_values=[void] if has_void and void is not None else [], ignore=ignore
    )

    train = faults.part(lambda: _training(root, faults), NOTHING)
    train, validation = faults.part(
        lambda: _validation(spec, root, train, faults), (train, NOTHING)
    )
    return Dataset(
        name="camvid",
        class_names=tuple(name for name, _ in classes),
        colors=tuple(color for _, color in classes),
        size=spec.size or first_size(train, skip=spec.on_unreadable == "skip"),
        train=Part("train", train, values),
        validation=Part("validation", validation, values),
        test=(lambda: Part("test", _samples(root, _listed(root, "test"), faults), values))
        if (root / "test.txt").exists()
        else None,
    )


def _training(root: Path, faults: Faults) -> tuple[Sample, ...]:
    listed = _listed(root, "train")
    if not listed:
        raise _empty(root / "train.txt")
    return _samples(root, listed, faults)


def _validation(
    spec: DataSpec, root: Path, train: tuple[Sample, ...], faults: Faults
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    own = _listed(root, "val") if (root / "val.txt").exists() else []
    if own and spec.validation_split is not None:
        raise ClustersegError(
            f"data.validation_split is given, but {root / 'val.txt'} names a validation part",
            code="two-validation-parts",
            help="remove validation_split, or the file",
        )
    if own:
        return train, _samples(root, own, faults)
    if spec.validation_split is None:
        raise ClustersegError(
            f"{root / 'val.txt'}: no validation part (the file is missing or empty)",
            code="no-validation",
            help="give data.validation_split, e.g. 0.1, to split it off the training part",
        )
    return split_off(train, spec.validation_split)


def _listed(root: Path, part: str) -> list[tuple[str, str, str]]:
    """(the place in the list, the names of a picture and its mask) of each line."""
    path = root / f"{part}.txt"
    listed = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        names = line.split()
        if len(names) != 2:
            raise ClustersegError(
                f"{where}: expected `image mask`, found {len(names)} words: {line.strip()[:80]!r}",
                code="bad-list",
                help=_LISTS,
            )
        listed.append((where, names[0], names[1]))
    return listed


def _samples(
    root: Path, listed: Sequence[tuple[str, str, str]], faults: Faults
) -> tuple[Sample, ...]:
    samples, missing = [], []
    folders: dict[Path, frozenset[str]] = {}
    for where, *names in listed:
        image, mask = (_locate(root, name, folders) for name in names)
        missing += [(path, where) for path, is_there in (image, mask) if not is_there]
        if image[1] and mask[1]:
            samples.append(Sample(image[0], mask[0]))
    refuse_missing(
        missing,
        faults,
        help="names are relative to the folder of the list; put it there, or take out its line",
    )
    return tuple(samples)


def _locate(root: Path, name: str, folders: dict[Path, frozenset[str]]) -> tuple[Path, bool]:
    """(the file that a list names, whether it is there).

    Relative to the root; an absolute name that does not exist here (the SegNet tutorial's
    `/SegNet/CamVid/train/x.png`) is looked for below the root by its last two parts. Folders are
    listed once instead of asking for each file: shared file systems answer that much faster.
    """
    path = Path(name)
    candidates = [path] if path.is_absolute() else [root / path]
    if path.is_absolute():
        candidates.append(root / path.parent.name / path.name)
    for candidate in candidates:
        folder = candidate.parent
        if folder not in folders:
            present = folder.iterdir() if folder.is_dir() else ()
            folders[folder] = frozenset(path.name for path in present)
        if candidate.name in folders[folder]:
            return candidate, True
    return candidates[-1], False


def read_colors(path: Path) -> tuple[tuple[str, Color], ...]:
    """(name, colour) of each class; CamVid's own twelve if the file does not exist."""
    if not path.exists():
        return CLASSES
    table = []
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if not words:
            continue
        numbers = [int(word) for word in words[:3] if word.isdecimal() and int(word) < 256]
        if len(numbers) != 3 or len(words) < 4:
            raise ClustersegError(
                f"{path}:{number}: expected `R G B name`, found {line.strip()[:80]!r}",
                code="bad-list",
                help=_COLORS,
            )
        table.append((" ".join(words[3:]), (numbers[0], numbers[1], numbers[2])))
    if len(table) < 2:
        raise ClustersegError(f"{path}: needs at least two classes", code="bad-list", help=_COLORS)
    if len(table) > 256:
        raise ClustersegError(
            f"{path}: {len(table)} classes, but 8-bit masks hold 256",
            code="bad-list",
            help=_COLORS,
        )
    return tuple(table)


def _lines(path: Path) -> list[str]:
    return text_lines(path, kind="a CamVid data set", help=_LISTS)


def _empty(path: Path) -> ClustersegError:
    return ClustersegError(
        f"{path}: names no samples",
        code="empty-list",
        help=_LISTS,
    )
