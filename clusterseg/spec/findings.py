"""What the conversion finds to be wrong, worded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clusterseg.spec import describe
from clusterseg.spec.errors import Place, Problem, clip, nearest
from clusterseg.spec.kinds import sections_with
from clusterseg.spec.nodes import Node, Scalar
from clusterseg.spec.tables import Known

MOST_PROBLEMS = 100  # enough to act on; a megabyte of junk would give as many as it has lines

Path = tuple[str, ...]


class TooMany(Exception):
    """MOST_PROBLEMS were found: what follows is not looked at."""


@dataclass(frozen=True)
class At:
    """Where the walk stands: the path of keys, and the key's place (None at the top)."""

    path: Path
    key: Place | None = None

    def below(self, name: str, key: Place | None = None) -> At:
        return At((*self.path, name), key or self.key)

    def __str__(self) -> str:
        return clip(".".join(self.path), 120) if self.path else "the job"

    @property
    def help(self) -> str:
        """The command that shows the nearest section that has a schema of its own."""
        section = [name for name in self.path if not name.isdigit()]
        return " ".join(["clusterseg schema", ".".join(section[:2])]).strip()


class Findings:
    """A list of problems that grows; `root` is the struct that is read, for hints."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.root: Any = None

    def add(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
        if len(self.problems) >= MOST_PROBLEMS:
            raise TooMany

    def unknown_key(
        self,
        name: str,
        key: Scalar,
        known: Sequence[str],
        table: Mapping[str, Known],
        at: At,
    ) -> None:
        owners = [entry for entry, what in table.items() if name in what.options]
        near = nearest(name, known)
        sections = sections_with(self.root, name)
        if owners:
            note = f"an option of {', '.join(owners)} only"
        elif 0 < len(sections) <= 2:
            named = [f"`{section}`" if section else "the top" for section in sections]
            note = f"it belongs in {' or '.join(named)}"
        else:
            note = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
        where = f"in `{at}`" if at.path else "at the top"
        self.add(
            Problem("unknown-key", f"`{clip(name)}` {where}", key.place, note=note, help=at.help)
        )

    def missing_keys(self, names: Sequence[str], at: At) -> None:
        listed = ", ".join(f"`{name}`" for name in names)
        where = f"in `{at}`" if at.path else "at the top"
        self.add(
            Problem(
                "missing-key",
                f"{listed} {'is' if len(names) == 1 else 'are'} missing {where}",
                at.key,
                help=at.help,
            )
        )

    def wrong_shape(self, node: Node, at: At, expected: str) -> None:
        self.add(
            Problem(
                "value",
                f"{describe.shape(node)} for `{at}`",
                node.place,
                note=f"expected {expected}",
                help=at.help,
            )
        )

    def unknown_name(
        self, value: str, place: Place, noun: str, where: str, known: Sequence[str]
    ) -> None:
        near = nearest(value, known)
        self.add(
            Problem(
                "unknown-name",
                f"unknown {noun} `{clip(value)}`{where}",
                place,
                note=f"did you mean `{near}`?" if near else "",
                help=f"known: {', '.join(known)}",
            )
        )
