"""What `data check` and `data stats` show."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clusterseg.cli.output import is_colourful, out, safe, table
from clusterseg.plan.words import counted

if TYPE_CHECKING:
    from rich.text import Text

    from clusterseg.data.checking.findings import Finding
    from clusterseg.data.checking.report import Checked, Stats

_SHOWN = 3  # files of a finding; --json names more
_COLOUR = re.compile("#[0-9a-f]{6}")
_STYLES = {"error": "bold red", "warning": "yellow"}


def show_checked(checked: Checked) -> None:
    """Parts, classes, findings, and the verdict on the last line."""
    _table(
        ("PART", "SAMPLES", "SIZE", "PICTURES", "MASKS", "WITHOUT CLASS"),
        [
            (
                part.name,
                str(part.samples),
                _most(part.sizes),
                _most(part.picture_kinds),
                _most(part.mask_kinds),
                _percent(part.ignored, part.ignored + sum(part.class_pixels)),
            )
            for part in checked.parts
        ],
    )
    out()
    header = ["CLASS", "NAME", "COLOUR"]
    for part in checked.parts:
        header += [part.name.upper(), "PICTURES"]
    rows = []
    for number, name in enumerate(checked.dataset.class_names):
        row = [str(number), name, "#{:02x}{:02x}{:02x}".format(*checked.dataset.colors[number])]
        for part in checked.parts:
            row += [
                _percent(part.class_pixels[number], sum(part.class_pixels)),
                str(part.class_pictures[number]),
            ]
        rows.append(row)
    _table(header, rows)
    show_findings(checked.findings)
    errors, warnings = checked.errors, len(checked.findings) - checked.errors
    out()
    if not checked.findings:
        out("nothing is wrong with it")
    else:
        out(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")


def show_findings(findings: Sequence[Finding]) -> None:
    """A table of them, then the first files of each and what to do."""
    if not findings:
        return
    out()
    _table(
        ("", "FOUND", "COUNT", "WHAT"),
        [(one.severity, one.code, str(one.count), one.message) for one in findings],
    )
    for one in findings:
        out()
        out(f"{one.code}: {one.message}")
        for path, detail in list(zip(one.files, one.details, strict=True))[:_SHOWN]:
            out("  " + safe(": ".join(part for part in (path, detail) if part)))
        if one.count > _SHOWN:
            out(f"  ... and {one.count - _SHOWN} more")
        out(f"  help: {one.help}")


def show_stats(stats: Stats) -> None:
    """The classes, and the line to paste into job.yaml."""
    _table(
        ("CLASS", "NAME", "PIXELS", "SHARE", "PICTURES", "BALANCED WEIGHT"),
        [
            (
                str(one.number),
                one.name,
                str(one.pixels),
                f"{one.share:.4%}",
                str(one.pictures),
                f"{one.weight:.6g}",
            )
            for one in stats.classes
        ],
    )
    out()
    out(f"{stats.part}: {counted(stats.samples, 'mask')}, {stats.ignored} pixels without a class")
    weights = ", ".join(f"{one.weight:.6g}" for one in stats.classes)
    out(f"loss: {{class_weights: [{weights}]}}")
    show_findings(stats.findings)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Folded to the terminal; in a pipe, aligned lines of any length."""
    if not sys.stdout.isatty():
        for line in table(header, rows):
            out(line)
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        shown.add_column(title, overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(cell) for cell in row))
    Console(
        markup=False, highlight=False, emoji=False, no_color=not is_colourful(sys.stdout)
    ).print(shown)


def _cell(cell: str) -> Text:
    from rich.text import Text

    if _COLOUR.fullmatch(cell):
        return Text.assemble(("██", cell), f" {cell}")
    return Text(safe(cell), style=_STYLES.get(cell, ""))


def _most(counts: Counter[str]) -> str:
    """`360x480` if all are; else the most frequent ones, with their numbers."""
    if len(counts) <= 1:
        return next(iter(counts), "-")
    shown = ", ".join(f"{what} ({count})" for what, count in counts.most_common(3))
    return shown + (", ..." if len(counts) > 3 else "")


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.3%}" if whole else "-"
