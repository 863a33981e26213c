"""Which prediction belongs to which ground truth: files of two trees, paired by their names.

Cityscapes' names begin with `<city>_<sequence>_<frame>`. The ground truth are the files
`<city>_<sequence>_<frame>_<kind>_labelIds.png`, with `..._instanceIds.png` beside them; a
prediction is any PNG whose name begins alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterseg.errors import ClustersegError

_KEY = re.compile(r"(?P<key>[^_].*?_\d+_\d+)(?!\d).*\.png")
_TRUTH = "_labelIds.png"
_INSTANCES = "_instanceIds.png"
_LABEL_IDS = "labelIds.png"
_SHOWN = 8


@dataclass(frozen=True)
class Pair:
    """`key` is `<city>_<sequence>_<frame>`; without `instances` there is no nIoU."""

    key: str
    prediction: Path
    truth: Path
    instances: Path | None


def pair(predictions: Path, truth: Path) -> list[Pair]:
    """A pair for each ground truth, by key; both folders are searched with all below them.

    Predictions without a ground truth are left alone, as by the benchmark's scripts. Where several
    files of the predictions have one key, the one that is called `*labelIds.png` is taken, if there
    is just one. Raises ClustersegError, with the names: a folder that is none, no ground truth, two
    of one key, no prediction or several, or instance maps for some pictures only.
    """
    trues = _by_key(truth, _TRUTH, "ground truth")
    if not trues:
        raise ClustersegError(
            f"{truth} holds no ground truth: no file below it is called "
            f"<city>_<sequence>_<frame>_*{_TRUTH}",
            code="no-ground-truth",
            help="give a folder such as gtFine/val",
        )
    _refuse_several("ground truths", trues, truth)
    guesses = {
        key: _preferred(found) for key, found in _by_key(predictions, "", "predictions").items()
    }
    missing = sorted(trues.keys() - guesses.keys())
    if missing:
        raise ClustersegError(
            f"{predictions}: no prediction for {len(missing)} of {len(trues)} pictures "
            f"({_listed(missing)})",
            code="missing-prediction",
            help="a prediction is a PNG called <city>_<sequence>_<frame>*.png; give the ground "
            "truth of just the part that was predicted, such as gtFine/val",
        )
    wanted = {key: guesses[key] for key in trues}
    _refuse_several("predictions", wanted, predictions)
    pairs = [
        Pair(key, wanted[key][0], trues[key][0], _instances(trues[key][0])) for key in sorted(trues)
    ]
    without = [one.truth for one in pairs if one.instances is None]
    if without and len(without) < len(pairs):
        raise ClustersegError(
            f"{without[0]}: no *{_INSTANCES} beside it, nor beside {len(without) - 1} others",
            code="missing-instances",
            help="put them there; without any, only nIoU is left out",
        )
    return pairs


def _by_key(root: Path, ending: str, what: str) -> dict[str, list[Path]]:
    if not os.path.isdir(root):  # noqa: PTH112 (never raises)
        raise ClustersegError(
            f"the folder of the {what}, {root}, does not exist, is none, or may not be looked at",
            code="no-folder",
            help="give a folder; what is below it is found",
        )
    found: dict[str, list[Path]] = {}
    for path in _files(root):
        match = _KEY.fullmatch(path.name)
        if match and path.name.endswith(ending):
            found.setdefault(match["key"], []).append(path)
    return found


def _files(root: Path) -> Iterator[Path]:
    """All files, by name; linked folders are followed, each folder is read once."""
    seen: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        raise ClustersegError(
            f"{error.filename} can't be read: {error.strerror}",
            code="no-folder",
            help="give yourself the right to read it",
        ) from None

    for folder, below, names in os.walk(root, followlinks=True, onerror=failed):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below.sort()
        for name in sorted(names):
            yield Path(folder, name)


def _preferred(found: Sequence[Path]) -> Sequence[Path]:
    named = [one for one in found if one.name.endswith(_LABEL_IDS)]
    return named if len(named) == 1 else found


def _refuse_several(what: str, found: Mapping[str, Sequence[Path]], root: Path) -> None:
    several = {key: paths for key, paths in found.items() if len(paths) > 1}
    if several:
        key, paths = min(several.items())
        raise ClustersegError(
            f"{root}: several {what} of {key} ({_listed([str(one) for one in paths])})"
            + (f", and of {len(several) - 1} other pictures" if len(several) > 1 else ""),
            code="several-files",
            help="give a folder that holds one for each picture",
        )


def _instances(truth: Path) -> Path | None:
    beside = truth.with_name(truth.name.removesuffix(_TRUTH) + _INSTANCES)
    return beside if beside.is_file() else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
