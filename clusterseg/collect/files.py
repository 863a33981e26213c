"""The summary as files: summary.json, and summary.csv with one row an epoch."""

from __future__ import annotations

import csv
import io

import msgspec

from clusterseg.collect.summary import EpochSummary, Summary
from clusterseg.runs.files import replace
from clusterseg.runs.paths import RunPaths

COLUMNS = EpochSummary.__struct_fields__


def as_json(summary: Summary) -> bytes:
    """The summary as JSON text, ends with a newline; what is not finite is null."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def as_csv(summary: Summary) -> str:
    """The history as CSV: a header, then one row an epoch; a figure not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in summary.history:
        writer.writerow(msgspec.structs.astuple(entry))
    return text.getvalue()


def write_summary(run: RunPaths, summary: Summary) -> None:
    """Writes summary.json and summary.csv, durably. Raises OSError."""
    replace(run.summary_json, as_json(summary))
    replace(run.summary_csv, as_csv(summary).encode())
