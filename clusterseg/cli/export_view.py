"""What `export` says at the end: a table of the files, or JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from clusterseg.cli.output import note, out, out_json, safe
from clusterseg.cli.output import table as aligned

if TYPE_CHECKING:
    from clusterseg.export.bench import Latency
    from clusterseg.export.write import Export, Exported

_COLUMNS = ("file", "MB", "largest difference", "equal labels", "accuracy", "mean IoU")
_MEASURED = ("p50 ms", "p90 ms", "FPS")


def show(done: Export, *, as_json: bool) -> None:
    """Prints each file with its check, and its latency if that was measured."""
    if as_json:
        out_json(
            {
                "folder": str(done.folder),
                "files": [asdict(one) for one in done.files],
                "latency": asdict(done.latency) if done.latency else None,
            }
        )
        return
    measured = done.latency is not None
    rows = [_row(one) for one in done.files]
    if done.latency:
        rows.append(["(TensorFlow)", "", "", "", "", "", *_latency(done.latency)])
    for line in aligned((*_COLUMNS, *(_MEASURED if measured else ())), rows):
        out(line)
    first = done.files[0].comparison
    note(f"compared with the network on {first.pictures} pictures of the {first.of}")
    for one in done.files:
        if one.float_operators:
            note(f"note: {one.file} computes in float32: {', '.join(one.float_operators)}")
    note(f"written: {safe(str(done.folder))}")


def _row(one: Exported) -> list[str]:
    seen = one.comparison
    difference = "-" if seen.largest_difference is None else f"{seen.largest_difference:.2g}"
    row = [one.file, f"{one.bytes / 1e6:.2f}", difference, f"{100 * seen.equal_labels:.3f} %"]
    if seen.network is None or seen.file is None:
        row += ["-", "-"]
    else:
        row.append(_change(seen.network.pixel_accuracy, seen.file.pixel_accuracy))
        row.append(_change(seen.network.mean_iou, seen.file.mean_iou))
    return row + (_latency(one.latency) if one.latency else [])


def _change(before: float, after: float) -> str:
    """A score of the file, and by how much it differs from the network's."""
    return f"{after:.4f} ({after - before:+.4f})"


def _latency(one: Latency) -> list[str]:
    return [f"{one.p50_ms:.2f}", f"{one.p90_ms:.2f}", f"{one.fps:.1f}"]
