"""Augmentations as listed in job.yaml: `augment: [{flip_horizontal: 0.5}, {scale: [0.5, 2.0]}]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from clusterseg import registry
from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    import tensorflow as tf

    Change = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], tuple["tf.Tensor", "tf.Tensor"]]

_AUGMENTATIONS = "clusterseg.data.augmentations"
_MOST_PIXELS = 16384


@dataclass(frozen=True)
class Context:
    """What an augmentation may need to know: the size it works for, and what to fill holes with.

    `size` is (height, width); `fill` a colour (RGB, 0 to 255); `no_label` the label of filled
    pixels.
    """

    size: tuple[int, int]
    fill: tuple[float, float, float]
    no_label: int


@dataclass(frozen=True)
class Augmentation:
    """`change(image, labels, draws)` with image float32 [h, w, 3] in 0 to 255, labels int32 [h, w].

    `draws` are `count` float32 numbers, uniform in [0, 1). `resizes`: the result has the
    context's size whatever came in. `reshapes`: it may have another size than what came in.
    All others keep the size. `before`: the names of those that resize and may follow one that
    resizes, and what that one is then.
    """

    change: Change
    count: int
    resizes: bool = False
    reshapes: bool = False
    before: Mapping[str, Augmentation] = field(default_factory=dict)


def build_augmentations(
    listed: Sequence[Mapping[str, Any]], context: Context
) -> tuple[Augmentation, ...]:
    """The augmentations of job.yaml, in their order.

    Raises ClustersegError: unknown name, an entry that is not one `name: value`, a value out of
    range, or two that resize (but for those that may follow one another).
    """
    built: list[Augmentation] = []
    names: list[str] = []
    for entry in listed:
        if len(entry) != 1:
            raise bad_value(f"an entry must be one `name: value`, not {dict(entry)!r}")
        ((name, value),) = entry.items()
        module = registry.load(_AUGMENTATIONS, "augmentation", name)
        built.append(module.build(value, context))
        names.append(name)
    resizing = [number for number, one in enumerate(built) if one.resizes]
    if len(resizing) > 1:
        first, second = resizing[:2]
        if len(resizing) > 2 or names[second] not in built[first].before:
            raise bad_value(
                "only one augmentation may bring pictures to the size, "
                "or resize_range and then scale_file"
            )
        built[first] = built[first].before[names[second]]
    return tuple(built)


def augmentation_names() -> list[str]:
    """All names that an entry of `augment` may have, sorted."""
    return registry.names(_AUGMENTATIONS)


def number(name: str, value: Any, low: float, high: float) -> float:
    """`value` as a number from low to high; ClustersegError that names the augmentation if not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise bad_value(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def interval(name: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """`value` as [min, max], both from low to high; ClustersegError that names the augmentation."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise bad_value(f"{name} must be [min, max], not {value!r}")
    least, most = (number(name, one, low, high) for one in value)
    if least > most:
        raise bad_value(f"{name} must be [min, max] with min at most max, not {value!r}")
    return least, most


def pixels(name: str, value: Any, least: int = 1) -> int:
    """`value` as a whole number of pixels from `least` to 16384."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST_PIXELS:
        raise bad_value(
            f"{name} must be a whole number of pixels from {least} to {_MOST_PIXELS}, not {value!r}"
        )
    return value


def side_pair(name: str, value: Any) -> tuple[int, int]:
    """`value` as [height, width] in pixels."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise bad_value(f"{name} must be [height, width], not {value!r}")
    height, width = (pixels(name, one) for one in value)
    return height, width


def options(name: str, value: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with what the mapping `value` changes; ClustersegError for any other key."""
    if not isinstance(value, Mapping):
        raise bad_value(f"{name} must be a mapping of {', '.join(defaults)}, not {value!r}")
    for key in value:
        if key not in defaults:
            raise bad_value(f"{name} has no option {key!r}; it has {', '.join(defaults)}")
    return {**defaults, **value}


def bad_value(message: str) -> ClustersegError:
    return ClustersegError(
        f"train.augment: {message}",
        code="bad-augmentation",
        help="docs/data.md lists the augmentations and their values",
    )
