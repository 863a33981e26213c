"""One scalar by one type."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import inspect as types

from clusterseg.spec import describe, units
from clusterseg.spec.errors import nearest
from clusterseg.spec.hosts import parse_hosts
from clusterseg.spec.nodes import Scalar

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")
_LARGEST = 2**63 - 1  # what other programs that read the plan can hold
_SCALARS: Mapping[str, Callable[[str], Any]] = {
    "time": units.parse_time,
    "size": units.parse_size,
    "interval": units.parse_interval,
    "hosts": parse_hosts,
}


class Refused(ValueError):
    """The scalar is not of that type; the text says what was expected."""


def read_scalar(scalar: Scalar, kind: Any, extra: Mapping[str, Any]) -> Any:
    """The value of `scalar` as `kind` (a type of msgspec.inspect, without Metadata around it).

    Quotes make no difference but for text, where a bare `null` or nothing is no text.
    """
    text = scalar.text
    form = extra.get("scalar") or extra.get("also")
    if form is not None:
        try:
            return _SCALARS[form](text)
        except ValueError as error:
            raise Refused(str(error)) from None
    if isinstance(kind, types.StrType):
        return _text(scalar, kind, extra)
    if isinstance(kind, types.LiteralType):
        return _literal(text, kind)
    expected = f"expected {describe.types((kind,), extra)}"
    if isinstance(kind, types.BoolType):
        if text.lower() not in _TRUE + _FALSE:
            raise Refused(expected)
        return text.lower() in _TRUE
    if isinstance(kind, types.IntType):
        return _within(_integer(text, expected), kind, expected)
    if isinstance(kind, types.FloatType):
        number = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(number):
            raise Refused(expected)
        return _within(number, kind, expected)
    raise TypeError(f"no way to read {kind}")


def _integer(text: str, expected: str) -> int:
    # Python refuses to convert thousands of digits; so does every reader of the plan.
    if not _INTEGER.fullmatch(text):
        raise Refused(expected)
    if len(text) > 20 or abs(int(text)) > _LARGEST:
        raise Refused("expected a whole number that 64 bits can hold")
    return int(text)


def _within(number: float, kind: Any, expected: str) -> float:
    fits = (
        (kind.ge is None or number >= kind.ge)
        and (kind.gt is None or number > kind.gt)
        and (kind.le is None or number <= kind.le)
        and (kind.lt is None or number < kind.lt)
    )
    if not fits:
        raise Refused(expected)
    return number


def _text(scalar: Scalar, kind: Any, extra: Mapping[str, Any]) -> str:
    if scalar.is_null:
        raise Refused('expected text; "" is empty text' if not scalar.text else "quote it")
    if kind.pattern is not None and not re.fullmatch(kind.pattern, scalar.text):
        raise Refused(f"expected {extra['expect']}")
    return scalar.text


def _literal(text: str, kind: Any) -> Any:
    for value in kind.values:
        if str(value) == text:
            return value
    words = [str(value) for value in kind.values]
    near = nearest(text, words)
    expected = f"expected {describe.types((kind,), {})}"
    raise Refused(f"did you mean `{near}`? {expected}" if near else expected)
