"""Renames the layers of a file."""

from __future__ import annotations

from dataclasses import replace

from clusterseg.train.initial_weights.match import Item


def layers_of(items: tuple[Item, ...]) -> set[str]:
    """The layers' own names, where the file has them."""
    return {item.own.layer for item in items if item.own}


def renamed(item: Item, layer: str) -> Item:
    """The same tensor of a layer called `layer`; only that name finds it."""
    assert item.own  # noqa: S101 (whoever renames has found the layer by it)
    return replace(item, path=None, own=item.own._replace(layer=layer), place=None)
