"""`${VAR}`, `${VAR:-default}` and `$${` in scalars, after YAML was parsed.

A value can therefore never change the structure of the file. `$VAR` without braces and `$(...)`
stay as they are: they belong to bash, where a `setup` line runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from clusterseg.spec.errors import Place, Problem, clip, nearest
from clusterseg.spec.nodes import Scalar

_LONGEST = 4 * 2**20  # characters of all expanded scalars together
_FORM = re.compile(
    r"\$\$\{"  # a literal ${
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-(?P<text>[^}]*))?\}"
    r"|\$\{[^}]*\}?"  # anything else that begins like one
)


class Expander:
    """Expands scalars from one environment and collects what can't be expanded."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._length = 0

    def expand(self, scalar: Scalar) -> Scalar | list[Problem]:
        """The scalar with its variables' values, or what is wrong with them."""
        if "${" not in scalar.text:
            return scalar
        problems: list[Problem] = []

        def value(found: re.Match[str]) -> str:
            if found.group() == "$${":
                return "${"
            got = self._value(found, scalar)
            if isinstance(got, Problem):
                problems.append(got)
                return ""
            self._length += len(got)
            return got if self._length <= _LONGEST else ""

        text = _FORM.sub(value, scalar.text)
        if self._length > _LONGEST:
            return [Problem("too-large", "the variables' values are too long", scalar.place)]
        return problems or replace(scalar, text=text)

    def _value(self, found: re.Match[str], scalar: Scalar) -> str | Problem:
        name = found["name"]
        if name is None:
            return Problem(
                "expansion",
                f"`{clip(found.group())}` can't be expanded",
                _place(found, scalar),
                note="expected ${NAME} or ${NAME:-default}",
                help="write $${ for a literal ${",
            )
        value = self._environ.get(name)
        if found["default"] is not None:
            value = value or found["text"]
        if value is None:
            near = nearest(name, list(self._environ))
            hint = f", did you mean `{near}`?" if near else ""
            return Problem(
                "unset-variable",
                f"the environment variable `{name}` is not set",
                _place(found, scalar),
                note=f"not set{hint}",
                help=f"export {name}=..., or give a default: ${{{name}:-...}}",
            )
        try:
            value.encode()
        except UnicodeEncodeError:  # what os.environ makes of bytes that are no UTF-8
            return Problem(
                "encoding", f"the value of `{name}` is not valid UTF-8", _place(found, scalar)
            )
        return value


def _place(found: re.Match[str], scalar: Scalar) -> Place:
    """Where the variable stands in the source; the whole scalar if escapes hide it."""
    written = scalar.source.text[scalar.start : scalar.end]
    before = scalar.text[: found.start()].count(found.group())
    at = -1
    for _ in range(before + 1):
        at = written.find(found.group(), at + 1)
        if at < 0:
            return scalar.place
    start = scalar.start + at
    return scalar.source.place(start, start + len(found.group()))
