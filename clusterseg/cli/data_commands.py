"""`clusterseg data`: makes data sets."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import typer

from clusterseg.errors import ClustersegError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make data sets.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Make data sets."""


@app.command()
def synth(
    *,
    out: Path = typer.Argument(..., help="Folder to write; made if it does not exist."),
    layout: str = typer.Option("camvid", "--format", help="Layout on disk."),
    train: int = typer.Option(367, "--train", help="Pictures in the training part."),
    val: int = typer.Option(101, "--val", help="Pictures in the validation part."),
    test: int = typer.Option(233, "--test", help="Pictures in the test part."),
    size: str = typer.Option("360x480", "--size", help="HEIGHTxWIDTH in pixels."),
    extra: int = typer.Option(
        0, "--extra", help="Coarse pictures (cityscapes), or those of trainaug alone (voc2012)."
    ),
    labels: str = typer.Option(
        "grey", "--labels", help="What masks are (folder): grey, palette or blue."
    ),
    seed: int = typer.Option(0, "--seed", help="Another seed makes other scenes."),
    force: bool = typer.Option(False, "--force", help="Replace another synthetic set in OUT."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Write synthetic street scenes with labels; the same seed makes the same files.

    Running it again keeps a set that is there already.
    """
    from clusterseg.data.synth.recipe import Recipe
    from clusterseg.data.synth.write import write_dataset

    recipe = Recipe(layout, train, val, test, _size(size), seed, extra=extra, labels=labels)
    with _Progress() as progress:
        written = write_dataset(recipe, out, force=force, progress=progress.show)
    if as_json:
        record = {
            "root": str(written.root),
            "format": layout,
            "train": train,
            "val": val,
            "test": test,
            "extra": extra,
            "labels": labels,
            "size": list(recipe.size),
            "seed": seed,
            "kept": written.kept,
            "files": written.contents.files,
            "bytes": written.contents.bytes,
            "sha256": written.contents.sha256,
        }
        sys.stdout.write(json.dumps(record) + "\n")
        return
    counts = f"{train} + {val} + {test}" + (f" + {extra}" if extra else "")
    what = f"{counts} pictures of {recipe.size[0]}x{recipe.size[1]}"
    verb = "kept (the same set was there)" if written.kept else "written"
    typer.echo(f"{out}: {what}, {written.contents.bytes / 1e6:.1f} MB, {verb}")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", text)
    if match is None:
        raise ClustersegError(
            f"--size {text!r} is not a size", code="usage", help="write HEIGHTxWIDTH: 360x480"
        )
    return int(match[1]), int(match[2])


class _Progress:
    """A line on stderr that counts up on a terminal; into a pipe nothing is written."""

    def __init__(self) -> None:
        self._shown = -1
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def show(self, done: int, total: int) -> None:
        percent = 100 * done // total
        if self._terminal and percent != self._shown:
            sys.stderr.write(f"\rwriting {done} of {total} files ({percent} %)")
            sys.stderr.flush()
            self._shown = percent

    def __exit__(self, *error: object) -> None:
        if self._shown >= 0:
            sys.stderr.write("\r\x1b[K")
