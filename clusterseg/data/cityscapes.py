"""The labels of Cityscapes (Cordts 2016), and every mapping that follows from them.

Three numberings are in use: ids, as the ground truth's `labelIds` files and submissions hold them;
train ids, which are the classes of a network; and, in `instanceIds` files, id x 1000 + number for
what can be counted, and the bare id for a group that can't be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from clusterseg.data.dataset import INVALID, Color

IGNORED = 255
"""Train id of what is no class: it counts neither in training nor in scores."""


class Label(NamedTuple):
    """`ignored`: pixels whose truth it is are left out of all scores. `color` is RGB, 0 to 255."""

    name: str
    id: int
    train_id: int
    category: str
    has_instances: bool
    ignored: bool
    color: Color


def _label(
    name: str, number: int, train_id: int | None, category: str, color: Color, *, many: bool = False
) -> Label:
    """Just those without a train id are ignored."""
    ignored = train_id is None
    return Label(
        name, number, IGNORED if train_id is None else train_id, category, many, ignored, color
    )


LABELS: tuple[Label, ...] = (
    _label("unlabeled", 0, None, "void", (0, 0, 0)),
    _label("ego vehicle", 1, None, "void", (0, 0, 0)),
    _label("rectification border", 2, None, "void", (0, 0, 0)),
    _label("out of roi", 3, None, "void", (0, 0, 0)),
    _label("static", 4, None, "void", (0, 0, 0)),
    _label("dynamic", 5, None, "void", (111, 74, 0)),
    _label("ground", 6, None, "void", (81, 0, 81)),
    _label("road", 7, 0, "flat", (128, 64, 128)),
    _label("sidewalk", 8, 1, "flat", (244, 35, 232)),
    _label("parking", 9, None, "flat", (250, 170, 160)),
    _label("rail track", 10, None, "flat", (230, 150, 140)),
    _label("building", 11, 2, "construction", (70, 70, 70)),
    _label("wall", 12, 3, "construction", (102, 102, 156)),
    _label("fence", 13, 4, "construction", (190, 153, 153)),
    _label("guard rail", 14, None, "construction", (180, 165, 180)),
    _label("bridge", 15, None, "construction", (150, 100, 100)),
    _label("tunnel", 16, None, "construction", (150, 120, 90)),
    _label("pole", 17, 5, "object", (153, 153, 153)),
    _label("polegroup", 18, None, "object", (153, 153, 153)),
    _label("traffic light", 19, 6, "object", (250, 170, 30)),
    _label("traffic sign", 20, 7, "object", (220, 220, 0)),
    _label("vegetation", 21, 8, "nature", (107, 142, 35)),
    _label("terrain", 22, 9, "nature", (152, 251, 152)),
    _label("sky", 23, 10, "sky", (70, 130, 180)),
    _label("person", 24, 11, "human", (220, 20, 60), many=True),
    _label("rider", 25, 12, "human", (255, 0, 0), many=True),
    _label("car", 26, 13, "vehicle", (0, 0, 142), many=True),
    _label("truck", 27, 14, "vehicle", (0, 0, 70), many=True),
    _label("bus", 28, 15, "vehicle", (0, 60, 100), many=True),
    _label("caravan", 29, None, "vehicle", (0, 0, 90), many=True),
    _label("trailer", 30, None, "vehicle", (0, 0, 110), many=True),
    _label("train", 31, 16, "vehicle", (0, 80, 100), many=True),
    _label("motorcycle", 32, 17, "vehicle", (0, 0, 230), many=True),
    _label("bicycle", 33, 18, "vehicle", (119, 11, 32), many=True),
    _label("license plate", -1, None, "vehicle", (0, 0, 142)),  # in polygons; in no mask
)
"""In the order of their ids; that of license plates, which no mask can hold, is last."""

CLASSES: tuple[Label, ...] = tuple(
    sorted((one for one in LABELS if not one.ignored), key=lambda one: one.train_id)
)
"""The 19 that are trained and scored, in the order of their train ids."""

TRAIN_TO_ID: tuple[int, ...] = tuple(one.id for one in CLASSES)
"""Class -> id, as submissions want it."""

ID_TO_TRAIN: tuple[int, ...] = tuple(
    {one.id: one.train_id for one in LABELS}.get(value, INVALID) for value in range(256)
)
"""Value of a `labelIds` mask -> class, IGNORED, or INVALID where there is no such id."""

CATEGORIES: tuple[str, ...] = tuple(dict.fromkeys(one.category for one in LABELS))
"""The 8 categories, `void` first."""

AVERAGE_INSTANCE_PIXELS: Mapping[str, float] = MappingProxyType(
    {
        "person": 3462.4756337644,
        "rider": 3930.4788056518,
        "car": 12794.0202738185,
        "truck": 27855.1264367816,
        "bus": 35732.1511111111,
        "caravan": 36771.8241758242,
        "trailer": 16926.9763313609,
        "train": 67583.7075812274,
        "motorcycle": 6298.7200839748,
        "bicycle": 4672.3249222261,
    }
)
"""Mean size of an instance in the training part, in pixels: the weights of the instance-level
scores (the benchmark's own numbers)."""
