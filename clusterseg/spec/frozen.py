"""A job.yaml that reads the same in another environment: its variables' values as overrides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from clusterseg.spec import nodes
from clusterseg.spec.errors import Source
from clusterseg.spec.expand import Expander
from clusterseg.spec.nodes import Listing, Node, Scalar
from clusterseg.spec.overrides import apply, read_overrides
from clusterseg.spec.stand_ins import filled_in

_YAML = ("[", "{", '"', "'")  # what begins so is read as YAML by `--set`
_IN_QUOTES = {'"': '\\"', "\\": "\\\\"}


def frozen_overrides(text: str, overrides: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """`overrides`, and one more for each value that holds a variable, with what it stands for.

    Only for a job that was read already without any error.
    """
    root, _ = nodes.parse(Source("job.yaml", text))
    if not isinstance(root, nodes.Mapping):
        raise ValueError("a job.yaml is a mapping of keys")
    tree, _ = apply(root, read_overrides(overrides)[0])
    tree, _ = filled_in(tree, environ)
    expander = Expander(environ)
    return [*overrides, *_frozen(tree, "", expander)]


def _frozen(node: Node, path: str, expander: Expander) -> Iterator[str]:
    if isinstance(node, Scalar):
        expanded = expander.expand(node)
        if isinstance(expanded, Scalar) and expanded is not node:
            yield f"{path}={_value(expanded)}"
    elif isinstance(node, Listing):
        for number, item in enumerate(node.items):
            yield from _frozen(item, _below(path, str(number)), expander)
    else:
        for name, (_, child) in node.entries.items():
            yield from _frozen(child, _below(path, name), expander)


def _below(path: str, key: str) -> str:
    word = f'"{key}"' if any(c in ".=" or c.isspace() for c in key) or not key else key
    return f"{path}.{word}" if path else word


def _value(scalar: Scalar) -> str:
    text = scalar.text.replace("${", "$${")  # it is expanded again
    if scalar.plain and not text.lstrip().startswith(_YAML):
        return text
    return '"' + "".join(map(_quoted, text)) + '"'


def _quoted(character: str) -> str:
    """A character within YAML's double quotes (YAML 1.2, section 5.7)."""
    if character in _IN_QUOTES:
        return _IN_QUOTES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\U{code:08x}"
