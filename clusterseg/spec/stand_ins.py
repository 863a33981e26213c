"""Required keys that an environment variable stands for where they are left out.

They are put into the tree as `${NAME}`, as if they had been written: so they are expanded and
frozen like any other.
"""

from __future__ import annotations

from collections import abc
from dataclasses import replace

from clusterseg.spec.errors import Problem
from clusterseg.spec.nodes import Mapping, Node, Scalar
from clusterseg.spec.tables import DATA_FORMATS


def filled_in(root: Mapping, environ: abc.Mapping[str, str]) -> tuple[Mapping, list[Problem]]:
    """The tree of a job.yaml with those keys of `train.data`, and which of their variables are not
    set in `environ`."""
    train = _below(root, "train")
    data = _below(train, "data")
    layout = None if data is None else data.entries.get("format")
    if train is None or data is None or layout is None or not isinstance(layout[1], Scalar):
        return root, []
    known = DATA_FORMATS.get(layout[1].text)
    if known is None:
        return root, []
    entries, problems = dict(data.entries), []
    for key, variable in known.variables.items():
        if key in entries:
            continue
        if not environ.get(variable):
            problems.append(
                Problem(
                    "missing-key",
                    f"`train.data.{key}` is left out, and `{variable}` is not set",
                    layout[1].place,
                    note=f"{key} is missing",
                    help=f"give `{key}`, or export {variable}=...",
                )
            )
        # At the format's place: that is why it is looked for. One error is enough.
        text = "." if problems else f"${{{variable}}}"
        entries[key] = (replace(layout[0], text=key), replace(layout[1], text=text, plain=True))
    filled = _with(train, "data", replace(data, entries=entries))
    return _with(root, "train", filled), problems


def _below(node: Mapping | None, key: str) -> Mapping | None:
    found = None if node is None else node.entries.get(key)
    return found[1] if found is not None and isinstance(found[1], Mapping) else None


def _with(node: Mapping, key: str, value: Node) -> Mapping:
    return replace(node, entries={**node.entries, key: (node.entries[key][0], value)})
