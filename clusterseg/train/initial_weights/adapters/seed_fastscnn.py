"""The `.hdf5` files that the ImageSegmentation seed saved of its Fast-SCNN (`pyramid: seed` here).

All layers have automatic names, by whose turns they are found, but two: the separable convolutions
of the classifier, which come after the two at the network's beginning.
"""

from __future__ import annotations

from dataclasses import replace

from clusterseg.train.initial_weights.adapters.names import layers_of
from clusterseg.train.initial_weights.source import Source

_PLACES = {
    "DSConv1_classifier": "separable_conv2d#2",
    "DSConv2_classifier": "separable_conv2d#3",
}


def adapt(source: Source) -> Source | None:
    """The source with the turns of all layers; None if it is another file."""
    if not layers_of(source.items).issuperset(_PLACES):
        return None
    items = tuple(
        replace(item, place=item.own._replace(layer=_PLACES[item.own.layer]))
        if item.own and item.own.layer in _PLACES
        else item
        for item in source.items
    )
    return Source(f"{source.kind} of the ImageSegmentation seed's Fast-SCNN", items, source.read)
