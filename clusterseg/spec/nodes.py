"""YAML text to a tree of nodes with places; nothing is interpreted.

The tree is built from libyaml's events, not by its composer: the composer calls itself for every
level (a megabyte of `[` overflows the C stack), and here anchors, tags and depth are refused at
the place where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import yaml

from clusterseg.spec.errors import Place, Problem, Source, SpecError, clip

MOST_NODES = 100_000  # a job with 10,000 hosts has 20,000
DEEPEST = 32  # a job.yaml is at most six deep

# What YAML 1.2 (section 5.1) does not allow in a text. The class beyond ASCII takes Python ten
# milliseconds to compile, so it is compiled only for a text that needs it.
_NOT_PRINTABLE_ASCII = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NOT_PRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"


@dataclass(frozen=True)
class Scalar:
    """A value as it was written; `plain` is true without quotes or block style.

    `start` and `end` are character offsets in the source, quotes included.
    """

    text: str
    plain: bool
    source: Source
    start: int
    end: int

    @property
    def place(self) -> Place:
        return self.source.place(self.start, self.end)

    @property
    def is_null(self) -> bool:
        """Nothing was written, or YAML's word for nothing."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Listing:
    """A YAML sequence. `start` and `end` as in Scalar."""

    items: list[Node]
    source: Source
    start: int
    end: int

    @property
    def place(self) -> Place:
        return self.source.place(self.start, self.end)


@dataclass(frozen=True)
class Mapping:
    """A YAML mapping: keys are scalars and unique. `start` and `end` as in Scalar."""

    entries: dict[str, tuple[Scalar, Node]]
    source: Source
    start: int
    end: int

    @property
    def place(self) -> Place:
        return self.source.place(self.start, self.end)


Node = Scalar | Listing | Mapping


def parse(source: Source, start: int = 0) -> tuple[Node | None, list[Problem]]:
    """The tree of a text's one document (None if it is empty) and the duplicate keys in it.

    What stands before the offset `start` is no part of the document.
    Raises SpecError at the first thing that makes the rest unreadable: syntax, characters that
    YAML does not allow, anchors, tags, several documents, too many levels or nodes.
    """
    pattern = _NOT_PRINTABLE_ASCII if source.text.isascii() else re.compile(_NOT_PRINTABLE)
    bad = pattern.search(source.text)
    if bad is not None:
        raise SpecError([_unprintable(source, bad)])
    return _Builder(source, start).build()


class _Builder:
    """Turns the events of one text into its tree, with a stack of its own."""

    def __init__(self, source: Source, offset: int) -> None:
        self.source = source
        self.offset = offset
        self.problems: list[Problem] = []
        self.root: Node | None = None
        # Open collections: the node and, in a mapping, the key that waits for its value.
        self.open: list[tuple[Listing | Mapping, list[Scalar]]] = []
        self.documents = 0
        self.count = 0

    def build(self) -> tuple[Node | None, list[Problem]]:
        for event in self._events():
            if isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    self._refuse(
                        event,
                        "several-documents",
                        "a second document starts here",
                        help="one file describes one job: remove `---`",
                    )
            elif isinstance(event, yaml.AliasEvent):
                self._refuse(event, "alias", "aliases are not read", help="write the value out")
            elif isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close(event)
        return self.root, self.problems

    def _events(self) -> Iterator[Any]:
        try:
            yield from yaml.parse(self.source.text[self.offset :], Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            raise SpecError([_syntax(self.source, self.offset, error)]) from None
        except yaml.YAMLError as error:
            raise SpecError([Problem("yaml", clip(str(error)), self.source.place(0, 1))]) from None

    def _node(self, event: Any) -> None:
        if event.anchor is not None:
            self._refuse(event, "anchor", "anchors are not read", help="write the value out")
        if event.tag is not None:
            self._refuse(
                event,
                "tag",
                f"the tag `{clip(event.tag)}` is not read",
                help="remove it: every value is read by the type of its key",
            )
        self.count += 1
        if self.count > MOST_NODES:
            self._refuse(event, "too-large", f"more than {MOST_NODES} values")
        start, end = self._span(event)
        if isinstance(event, yaml.ScalarEvent):
            plain = bool(event.implicit[0])
            self._place(Scalar(event.value, plain, self.source, start, end))
            return
        if len(self.open) >= DEEPEST:
            self._refuse(event, "too-deep", f"more than {DEEPEST} levels")
        if self._awaits_key():
            self._refuse(event, "key", "a key must be one word, not a list or a mapping")
        is_listing = isinstance(event, yaml.SequenceStartEvent)
        collection = (
            Listing([], self.source, start, end)
            if is_listing
            else Mapping({}, self.source, start, end)
        )
        self.open.append((collection, []))

    def _awaits_key(self) -> bool:
        return bool(self.open) and isinstance(self.open[-1][0], Mapping) and not self.open[-1][1]

    def _close(self, event: Any) -> None:
        collection, _ = self.open.pop()
        # Block collections end where the next line begins: point at their first line instead.
        end = self._span(event)[0] + 1
        self._place(replace(collection, end=end))

    def _place(self, node: Node) -> None:
        """Hangs a finished node into the collection that is open."""
        if not self.open:
            self.root = node
            return
        collection, waiting = self.open[-1]
        if isinstance(collection, Listing):
            collection.items.append(node)
        elif waiting:
            key = waiting.pop()
            first = collection.entries.get(key.text)
            if first is None:
                collection.entries[key.text] = (key, node)
                return
            line = first[0].place.line + self.source.first_line
            self.problems.append(
                Problem(
                    "duplicate-key",
                    f"`{clip(key.text)}` is given twice",
                    key.place,
                    note=f"first on line {line}",
                    help="keep one of them",
                )
            )
        elif isinstance(node, Scalar):  # all else was refused where it began
            waiting.append(node)

    def _span(self, event: Any) -> tuple[int, int]:
        return self.offset + event.start_mark.index, self.offset + event.end_mark.index

    def _refuse(self, event: Any, code: str, message: str, *, help: str = "") -> None:
        start, end = self._span(event)
        raise SpecError([Problem(code, message, self.source.place(start, end), help=help)])


def _unprintable(source: Source, found: re.Match[str]) -> Problem:
    place = source.place(found.start(), found.end())
    character = found.group()
    name = "a byte order mark" if character == "\ufeff" else f"the character U+{ord(character):04X}"
    return Problem(
        "character",
        f"{name} can't stand in YAML",
        place,
        help='remove it; within double quotes it can be written as an escape such as "\\x07"',
    )


def _syntax(source: Source, offset: int, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    start = min(offset + mark.index, len(source.text)) if mark is not None else offset
    place = source.place(start, start + 1)
    problem = clip(error.problem or "not YAML", 120)
    if source.text[start : start + 1] == "\t":
        return Problem(
            "tab", "a tab can't indent YAML", place, help="use spaces (two for each level)"
        )
    context = f" ({error.context})" if error.context else ""
    # `{nodes: ${N}}` is a mapping within a mapping for YAML.
    variable = "${" in source.lines[place.line]
    help = 'within { } or [ ], write variables in quotes: "${NAME}"' if variable else ""
    return Problem("yaml", f"not YAML: {problem}{context}", place, help=help)
