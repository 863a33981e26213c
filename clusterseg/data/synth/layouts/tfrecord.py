"""Writes street scenes as TFRecord shards, as `data convert` writes those of the CamVid layout."""

from __future__ import annotations

from collections.abc import Iterator

from clusterseg.data.convert.record import record, shard_name, shares
from clusterseg.data.formats.camvid import CLASSES
from clusterseg.data.formats.tfrecord import COLORS
from clusterseg.data.synth.encode import png
from clusterseg.data.synth.recipe import PARTS, Recipe, scene_key
from clusterseg.data.synth.street import VOID, street_scene

OPTIONS: frozenset[str] = frozenset()

_A_SHARD = 100  # samples: a shard is made in memory


def names(recipe: Recipe) -> list[str]:
    """Relative paths of all files, in the order of `files`."""
    shards = [shard_name(part, number, len(cut)) for part, cut in _cut(recipe)
              for number in range(len(cut))]  # fmt: skip
    return [COLORS, *shards]


def files(recipe: Recipe) -> Iterator[tuple[str, bytes]]:
    """(relative path, content) of every file, made one by one."""
    yield COLORS, "".join(f"{r} {g} {b} {name}\n" for name, (r, g, b) in CLASSES[:VOID]).encode()
    for part, cut in _cut(recipe):
        for number, numbers in enumerate(cut):
            content = b"".join(_record(recipe, part, n) for n in numbers)
            yield shard_name(part, number, len(cut)), content


def _cut(recipe: Recipe) -> Iterator[tuple[str, list[range]]]:
    for part in PARTS:
        count = recipe.count(part)
        yield part, shares(count, -(-count // _A_SHARD) or 1)


def _record(recipe: Recipe, part: str, number: int) -> bytes:
    image, labels = street_scene(scene_key(recipe, part, number), *recipe.size)
    return record(f"{part}/synth_{number:06d}.png", png(image), labels, VOID)
