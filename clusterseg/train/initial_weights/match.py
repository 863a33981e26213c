"""Which tensor of a file belongs to which variable of the network. Pure.

By names, never by shape alone: two layers of one shape would trade their weights unseen. A shape
is only compared once the names have spoken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from clusterseg.spec.errors import clip

_SHOWN = 1000  # unused tensors of a file that are named: it may hold any number of them
_Key = TypeVar("_Key")


class Member(NamedTuple):
    """One of the `of` tensors of a layer, by its place in Keras' order of a layer's variables."""

    layer: str
    number: int
    of: int


@dataclass(frozen=True)
class Item:
    """A tensor of the file, or a variable of the network, and by what it can be found.

    `name` is for people and unique. `path` is the path of the layer and the variable's own name.
    `own` has the layer's own name; `place` has the layer's class and its number among the layers
    of that class (`conv2d#3`), which is all that Keras' own files tell without names.
    """

    name: str
    shape: tuple[int, ...]
    path: str | None = None
    own: Member | None = None
    place: Member | None = None


@dataclass(frozen=True)
class Misshapen:
    """A variable whose tensor in the file has another shape."""

    name: str
    there: tuple[int, ...]
    here: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """`loaded`: variable → tensor of the file. The others keep what they were drawn with."""

    loaded: dict[str, str]
    misshapen: tuple[Misshapen, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def misfits(self) -> list[str]:
        """A line for each tensor that was not loaded, or not used."""
        lines = [
            f"{one.name} is {list(one.there)} there, {list(one.here)} here: kept as drawn"
            for one in self.misshapen
        ]
        lines += [f"{name} is not there: kept as drawn" for name in self.missing]
        lines += [f"{clip(name, 300)} of the file is not used" for name in self.unused[:_SHOWN]]
        more = len(self.unused) - _SHOWN
        return lines + ([f"… and {more} more of the file are not used"] if more > 0 else [])

    def counts(self) -> str:
        """All of it in numbers: `70 of 80 tensors; 2 have another shape there, …`."""
        every = len(self.loaded) + len(self.misshapen) + len(self.missing)
        parts = [
            f"{len(self.misshapen)} {_verb(self.misshapen, 'has', 'have')} another shape there",
            f"{len(self.missing)} {_verb(self.missing, 'is', 'are')} not there",
            f"{len(self.unused)} of the file's {_verb(self.unused, 'is', 'are')} not used",
        ]
        return f"{len(self.loaded)} of {every} tensors; {', '.join(parts)}"

    @property
    def whole(self) -> bool:
        """Whether the file and the network hold the same tensors."""
        return not (self.misshapen or self.missing or self.unused)


def match(source: Sequence[Item], target: Sequence[Item]) -> Report:
    """Finds the tensor of the file (`source`) for each variable of the network (`target`).

    By path; then by the layer's own name, where it has as many tensors in the file as here. If no
    name at all is known, by place, and only if the file's layers are this network's, class by
    class: in another network the same place is another layer. A name that the file holds twice
    finds nothing.
    """
    found = _by_name(source, target) or _by_place(source, target)
    shapes = {one.name: one.shape for one in target}
    fits = {name: one for name, one in found.items() if one.shape == shapes[name]}
    taken = {one.name for one in found.values()}
    return Report(
        loaded={name: one.name for name, one in fits.items()},
        misshapen=tuple(
            Misshapen(one.name, found[one.name].shape, one.shape)
            for one in target
            if one.name in found and one.name not in fits
        ),
        missing=tuple(one.name for one in target if one.name not in found),
        unused=tuple(one.name for one in source if one.name not in taken),
    )


def _by_name(source: Sequence[Item], target: Sequence[Item]) -> dict[str, Item]:
    paths = _unique(source, lambda one: one.path)
    found = {one.name: paths[one.path] for one in target if one.path in paths}
    taken = {one.name for one in found.values()}
    members = _unique((one for one in source if one.name not in taken), lambda one: one.own)
    known = _unique(target, lambda one: one.own)
    for member, one in known.items():
        if one.name not in found and member in members:
            found[one.name] = members[member]
    return found


def _by_place(source: Sequence[Item], target: Sequence[Item]) -> dict[str, Item]:
    there, here = (_unique(items, lambda one: one.place) for items in (source, target))
    if there.keys() != here.keys() or len(here) != len(target):
        return {}
    return {one.name: there[place] for place, one in here.items()}


def _unique(items: Iterable[Item], key: Callable[[Item], _Key | None]) -> dict[_Key, Item]:
    """The items by a key of theirs; those without one, or that share one, are left out."""
    found: dict[_Key, Item] = {}
    twice: set[_Key] = set()
    for one in items:
        value = key(one)
        if value is None:
            continue
        if value in found:
            twice.add(value)
        found[value] = one
    return {value: one for value, one in found.items() if value not in twice}


def _verb(what: Sequence[object], one: str, several: str) -> str:
    return one if len(what) == 1 else several
