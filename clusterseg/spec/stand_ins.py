"""Required keys that an environment variable stands for where they are left out.

They are put into the tree as `${NAME}`, as if they had been written: so they are expanded, frozen
and, where the variable is not set, refused like any other.
"""

from __future__ import annotations

from dataclasses import replace

from clusterseg.spec.nodes import Mapping, Node, Scalar
from clusterseg.spec.tables import DATA_FORMATS


def filled_in(root: Mapping) -> Mapping:
    """The tree of a job.yaml with those keys of `train.data`."""
    train = _below(root, "train")
    data = _below(train, "data")
    layout = None if data is None else data.entries.get("format")
    if train is None or data is None or layout is None or not isinstance(layout[1], Scalar):
        return root
    known = DATA_FORMATS.get(layout[1].text)
    if known is None:
        return root
    entries = dict(data.entries)
    for key, variable in known.variables.items():
        if key not in entries:
            # At the format's place: that is why it is looked for.
            text = replace(layout[1], text=f"${{{variable}}}", plain=True)
            entries[key] = (replace(layout[0], text=key), text)
    filled = _with(train, "data", replace(data, entries=entries))
    return _with(root, "train", filled)


def _below(node: Mapping | None, key: str) -> Mapping | None:
    found = None if node is None else node.entries.get(key)
    return found[1] if found is not None and isinstance(found[1], Mapping) else None


def _with(node: Mapping, key: str, value: Node) -> Mapping:
    return replace(node, entries={**node.entries, key: (node.entries[key][0], value)})
