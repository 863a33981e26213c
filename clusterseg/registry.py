"""Registries that grow by adding a file: one module a name in a folder of the package.

A model called `deeplabv3+` is the module `deeplabv3_plus` in `clusterseg/models/networks`, and
so on for losses, data formats and augmentations. Only the module asked for is imported, so a
folder may hold things that need libraries which are not installed.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from clusterseg.errors import ClustersegError


def names(package: str) -> list[str]:
    """The names that `package` (dotted) holds, sorted; imports none of them."""
    folder = importlib.import_module(package)
    modules = (module.name for module in pkgutil.iter_modules(folder.__path__))
    return sorted(name.replace("_plus", "+") for name in modules)


def load(package: str, kind: str, name: str) -> ModuleType:
    """The module of `name`; `kind` ("model", "loss", ...) is for the message.

    Raises ClustersegError (`unknown-<kind>`) that lists every name and the nearest one.
    """
    known = names(package)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ClustersegError(
            f"unknown {kind} {name!r}",
            code=f"unknown-{kind.replace(' ', '-')}",
            help=f"{hint}known: {', '.join(known)}",
        )
    return importlib.import_module(f"{package}.{name.replace('+', '_plus')}")


def check_options(
    kind: str, name: str, build: Callable[..., Any], given: Mapping[str, Any]
) -> None:
    """Refuses options that `build` does not take as keyword-only arguments."""
    parameters = inspect.signature(build).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in given:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            listed = ", ".join(known) or "it takes none"
            raise ClustersegError(
                f"unknown option {option!r} of {kind} {name!r}",
                code="unknown-option",
                help=f"{hint}options: {listed}",
            )
