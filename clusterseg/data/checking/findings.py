"""What is wrong with a data set, from the facts of its samples: pure, nothing is read here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from clusterseg.data.checking.scan import Facts
from clusterseg.data.dataset import INVALID, Color, Dataset, Part
from clusterseg.data.faults import FileFault

Severity = Literal["error", "warning"]

MOST_FILES = 100  # that a finding names
_PLAIN = ("RGB", "L")  # picture modes that need no word
_TRAIN_IDS = 19  # of Cityscapes; its `labelIds` go on to 33

# code -> (severity, what it means, what to do)
_KNOWN: dict[str, tuple[Severity, str, str]] = {
    "missing-file": ("error", "files that are named are not there",
        "put them back, or take their lines out of the lists"),
    "missing-pair": ("error", "pictures or masks without their partner",
        "a picture and its mask have the same name; add the missing ones, or take the others away"),
    "unreadable-picture": ("error", "pictures that can't be read",
        "repair them, or leave them out: train.data.on_unreadable: skip"),
    "unreadable-mask": ("error", "masks that can't be read",
        "repair them, or leave them out: train.data.on_unreadable: skip"),
    "damaged-record": ("error", "records that don't match their checksums",
        "copy or write the shards anew; or leave such samples out: "
        "train.data.on_unreadable: skip"),
    "bad-record": ("error", "records that lack a picture or a mask", "write the shards anew"),
    "unreadable-shard": ("error", "shards that can't be read", "make them readable"),
    "bad-picture": ("error", "pictures of more than 8 bits a channel", "convert them to 8 bits"),
    "bad-mask": ("error", "masks that hold no classes where they should",
        "masks hold one value a pixel, the number of the class; colours must be converted first; "
        "where it stands in the blue of three channels: format folder, train.data.labels=blue"),
    "lossy-mask": ("error", "masks in a lossy format", "save masks as PNG"),
    "bad-mask-size": ("error", "masks of another size than their pictures",
        "give both one size"),
    "bad-class-id": ("error", "masks hold values that are no class",
        "correct the masks, or the classes that the data set is said to have"),
    "bad-instances": ("error", "instances that don't belong to their masks",
        "make both files anew from one annotation"),
    "unreadable-instances": ("error", "instance files that can't be read", "repair them"),
    "ignored-foreground": ("error", "masks hold 0 and 255 only, and 255 counts nowhere",
        "write the foreground as 1; or, if 255 is a class, give loss.ignore another number"),
    "shared-picture": ("error", "pictures that are trained on are in another part, too",
        "take them out of one of the two: scores of what was trained on mean nothing"),
    "train-ids": ("error", "masks hold no id above 18: these look like train ids",
        "Cityscapes' masks are its `labelIds`, 0 to 33"),
    "duplicate-picture": ("warning", "pictures with the same bytes",
        "remove the copies, unless they are meant to count twice"),
    "shared-test-picture": ("warning", "validation and test share pictures",
        "take them out of one of the two: what was chosen by the validation scores better on them"),
    "listed-twice": ("warning", "pictures that are named more than once",
        "remove the lines, unless they are meant to count twice"),
    "no-label": ("warning", "masks without any labelled pixel", "leave such samples out"),
    "absent-class": ("warning", "classes that the training part never shows",
        "a network can't learn them; balanced weights give them 0"),
    "absent-in-validation": ("warning", "classes that the validation part never shows",
        "they count in no score"),
    "palette-order": ("warning", "palettes show a class in another class's colour",
        "the numbers count, not the colours: see whether they were written in another order"),
    "mixed-masks": ("warning", "masks of several kinds", "see whether they hold the same numbers"),
    "same-color": ("warning", "classes with the same colour in the colour map",
        "colour masks of them can't be told apart"),
    "turned-picture": ("warning", "pictures that a camera marked as turned",
        "the mark is not followed: turn the pixels themselves, if the mask is turned"),
    "picture-kind": ("warning", "pictures that are neither RGB nor grey",
        "they are read as RGB; alpha is dropped"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """`count` files (or classes) have it; `files` are the first of them, `details` what was found
    in each."""

    code: str
    severity: Severity
    message: str
    count: int
    files: tuple[str, ...]
    details: tuple[str, ...]
    help: str


@dataclass
class PartSurvey:
    """What the samples of a part have together. `class_pixels` and `class_pictures` have an entry
    a class: its pixels, and the masks that show it."""

    name: str
    class_pixels: list[int]
    class_pictures: list[int]
    samples: int = 0
    ignored: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    picture_kinds: Counter[str] = field(default_factory=Counter)
    mask_kinds: Counter[str] = field(default_factory=Counter)

    def values(self) -> dict[str, Any]:
        """As plain values, for `--json`."""
        counters = {name: dict(one) for name, one in vars(self).items() if isinstance(one, Counter)}
        return {**vars(self), **counters}


class Survey:
    """Takes facts one by one and keeps what is needed of them; the same whatever their order
    within a part.
    """

    def __init__(self, dataset: Dataset, ignore: int | None) -> None:
        self._dataset, self._ignore = dataset, ignore
        self.parts: dict[str, PartSurvey] = {}
        self._tables: dict[str, tuple[int, ...]] = {}
        self._found: dict[str, list[tuple[str, str]]] = {}
        self._helps: dict[str, str] = {}
        self._blank: dict[str, list[tuple[str, str]]] = {}  # part -> its masks without a label
        self._digests: dict[bytes, list[tuple[str, Path]]] = {}
        self._values: Counter[int] = Counter()
        self._first: dict[tuple[str, str], str] = {}  # (part, kind of mask) -> a file of it

    def begin(self, part: Part) -> None:
        """The facts of this part's samples come next."""
        classes = self._dataset.classes
        self.parts[part.name] = PartSurvey(part.name, [0] * classes, [0] * classes)
        self._blank[part.name] = []
        self._tables[part.name] = part.label_table
        for path, times in Counter(sample.image for sample in part.samples).items():
            if times > 1:
                self._add("listed-twice", path, f"{times} times")

    def add(self, facts: Facts) -> None:
        """One sample of the part that was begun."""
        part = self.parts[facts.part]
        part.samples += 1
        for problem in facts.problems:
            self._add(problem.code, problem.path, problem.text)
        if facts.size is not None:
            part.sizes[f"{facts.size[0]}x{facts.size[1]}"] += 1
            part.picture_kinds[facts.picture_kind] += 1
            self._digests.setdefault(facts.digest, []).append((facts.part, facts.sample.image))
            if facts.picture_kind.partition(" ")[2] not in _PLAIN:
                self._add("picture-kind", facts.sample.image, facts.picture_kind)
        if not facts.upright:
            self._add("turned-picture", facts.sample.image, "")
        if facts.mask_kind:
            part.mask_kinds[facts.mask_kind] += 1
            self._first.setdefault((part.name, facts.mask_kind), str(facts.sample.mask))
            self._labels(part, facts)

    def lack(self, lost: Sequence[FileFault], helps: Mapping[str, str]) -> None:
        """What the set was opened without; `helps`: code -> what to do about it."""
        for fault in lost:
            self._add(fault.code, fault.path, fault.text)
        self._helps.update(helps)

    def findings(self) -> tuple[Finding, ...]:
        """Errors first, each sort once; after the last `add`."""
        found = {code: list(entries) for code, entries in self._found.items()}
        together = (self._copies(), self._unlabelled(), self._of_values(), self._of_classes())
        for code, path, text in chain.from_iterable(together):
            found.setdefault(code, []).append((path, text))
        order = {code: place for place, code in enumerate(_KNOWN)}
        return tuple(
            _finding(code, found[code], self._helps.get(code))
            for code in sorted(found, key=order.__getitem__)
        )

    def _labels(self, part: PartSurvey, facts: Facts) -> None:
        table = self._tables[part.name]
        labelled, wrong = 0, []
        for value, pixels in facts.values:
            self._values[value] += pixels
            label = table[value] if value < len(table) else INVALID
            if label == INVALID:
                wrong.append(value)
            elif label == self._ignore:
                part.ignored += pixels
            else:
                part.class_pixels[label] += pixels
                part.class_pictures[label] += 1
                labelled += pixels
        if wrong:
            listed = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
            self._add("bad-class-id", facts.sample.mask, listed)
        elif labelled == 0:
            self._blank[part.name].append((str(facts.sample.mask), ""))
        if text := _other_color(facts.palette, table, self._dataset.colors):
            self._add("palette-order", facts.sample.mask, text)

    def _copies(self) -> Iterator[tuple[str, str, str]]:
        order = list(self.parts)
        for copies in self._digests.values():
            (first, path), *others = sorted(
                {(order.index(part), str(path)) for part, path in copies}
            )
            elsewhere = [(part, other) for part, other in others if part != first]
            if elsewhere:
                code = "shared-test-picture" if first else "shared-picture"
                also = ", ".join(f"{other} ({order[part]})" for part, other in elsewhere[:3])
                yield code, path, f"{order[first]}; also {also}"
            elif others:
                yield "duplicate-picture", path, f"also {', '.join(one for _, one in others[:3])}"

    def _unlabelled(self) -> Iterator[tuple[str, str, str]]:
        for name, part in self.parts.items():
            # The test part of a benchmark is published so.
            if name != "test" or len(self._blank[name]) < part.mask_kinds.total():
                yield from (("no-label", *entry) for entry in self._blank[name])

    def _of_values(self) -> Iterator[tuple[str, str, str]]:
        """What shows only where the masks of all parts are seen together."""
        seen = set(self._values)
        tables = (self._tables[name] for name, part in self.parts.items() if part.samples)
        any_table = next(tables, ())
        label = any_table[255] if len(any_table) > 255 else INVALID
        if seen == {0, 255} and label in (INVALID, self._ignore):
            share = self._values[255] / self._values.total()
            yield "ignored-foreground", "", f"255 is {share:.1%} of all pixels"
        # A table of train ids is read on purpose: the set has `labelTrainIds` files.
        is_city = self._dataset.name == "cityscapes" and any_table[:_TRAIN_IDS] != tuple(
            range(_TRAIN_IDS)
        )
        if is_city and seen and max(seen - {255}, default=0) < _TRAIN_IDS:
            yield "train-ids", "", f"found: {', '.join(map(str, sorted(seen)))}"
        for name, part in self.parts.items():
            kinds = sorted(part.mask_kinds)
            if len({kind.partition(" ")[2] for kind in kinds}) > 1:
                for kind in kinds:
                    yield "mixed-masks", self._first[name, kind], kind

    def _of_classes(self) -> Iterator[tuple[str, str, str]]:
        names, parts = self._dataset.class_names, list(self.parts.values())
        if parts and parts[0].samples:
            for number, pixels in enumerate(parts[0].class_pixels):
                if pixels == 0:
                    yield "absent-class", "", f"{number} {names[number]}"
        for part in (one for one in parts[1:2] if one.samples):
            for number, pixels in enumerate(part.class_pixels):
                if pixels == 0 and parts[0].class_pixels[number] > 0:
                    yield "absent-in-validation", "", f"{number} {names[number]}"
        for color, times in Counter(self._dataset.colors).items():
            if times > 1:
                alike = [n for n, c in zip(names, self._dataset.colors, strict=True) if c == color]
                yield "same-color", "", f"{color}: {', '.join(alike)}"

    def _add(self, code: str, path: Path, text: str) -> None:
        self._found.setdefault(code, []).append((str(path), text))


def _other_color(
    palette: Sequence[tuple[int, Color]], table: Sequence[int], colors: Sequence[Color]
) -> str:
    """Where a palette has, for one class, the colour that the colour map gives to another."""
    for value, color in palette:
        label = table[value] if value < len(table) else INVALID
        if 0 <= label < len(colors) and color != colors[label] and color in colors:
            return f"value {value} has the colour of class {colors.index(color)}"
    return ""


def _finding(code: str, entries: Sequence[tuple[str, str]], help: str | None) -> Finding:
    severity, message, remedy = _KNOWN[code]
    shown = sorted(entries, key=lambda entry: entry[0])[:MOST_FILES]  # classes stay in their order
    return Finding(
        code,
        severity,
        message,
        len(entries),
        tuple(path for path, _ in shown),
        tuple(text for _, text in shown),
        help or remedy,
    )
