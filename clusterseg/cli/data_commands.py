"""`clusterseg data`: makes data sets, and looks into them."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from clusterseg.cli.data_source import (
    Layout,
    Overrides,
    SourceArgument,
    Workers,
    data_of,
    workers_or_cores,
)
from clusterseg.cli.output import AsJson, note, out_json, safe
from clusterseg.cli.sizes import size_of
from clusterseg.data.synth.write import layout_names
from clusterseg.errors import ClustersegError, ExitCode

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make and check data sets.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Make and check data sets."""


@app.command()
def synth(
    *,
    out: Path = typer.Argument(..., help="Folder to write; made if it does not exist."),
    layout: str = typer.Option(
        "camvid", "--format", metavar="NAME", help=f"Layout on disk: {', '.join(layout_names())}."
    ),
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

    recipe = Recipe(
        layout, train, val, test, size_of(size, "--size"), seed, extra=extra, labels=labels
    )
    with _Progress("writing", "files") as progress:
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
    more = " --set train.data.labels=blue" if labels == "blue" else ""
    note(f"look into it: clusterseg data check {shlex.quote(str(out))} --format {layout}{more}")


@app.command()
def check(
    source: SourceArgument = None,
    *,
    layout: Layout = None,
    overrides: Overrides = None,
    workers: Workers = None,
    strict: bool = typer.Option(False, "--strict", help="End with 1 for warnings, too."),
    as_json: AsJson = False,
) -> None:
    """Read every file of all parts of a data set, and say what is wrong with it.

    Ends with 0 if there are no errors, with 1 if there are, with 2 if there is no such data set.
    """
    from clusterseg.cli.data_view import show_checked, show_findings
    from clusterseg.data.checking import report
    from clusterseg.data.open import open_dataset

    data, ignore = data_of(source, layout, overrides)
    faults = report.gathered()
    try:
        dataset = open_dataset(data, ignore, faults)
    except ClustersegError as error:
        if error.code not in report.OF_THE_SET:
            raise
        found = report.not_opened(error)
        if as_json:
            out_json({"ok": False, "root": data.root, "format": data.format, "findings": [found]})
        else:
            show_findings([found])
        raise typer.Exit(ExitCode.FAILED) from error
    with _Progress("checking", "samples") as progress:
        checked = report.check(
            dataset,
            ignore,
            workers=workers_or_cores(workers),
            faults=faults,
            progress=progress.show,
        )
    bad = bool(checked.errors or (strict and checked.findings))
    if as_json:
        out_json({"ok": not bad, "root": data.root, "format": data.format, **checked.values()})
    else:
        show_checked(checked)
    if bad:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def stats(
    source: SourceArgument = None,
    *,
    layout: Layout = None,
    part: str = typer.Option("train", "--part", help="train or validation."),
    overrides: Overrides = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Count how often each class is in the masks, and give balanced weights for job.yaml.

    Ends with 1 if there are masks that can't be used: they are left out, and named.
    """
    from clusterseg.cli.data_view import show_stats
    from clusterseg.data.checking import report
    from clusterseg.data.open import open_dataset

    data, ignore = data_of(source, layout, overrides)
    dataset = open_dataset(data, ignore)
    parts = {"train": dataset.train, "validation": dataset.validation}
    if part not in parts:
        raise ClustersegError(f"--part {part!r}", code="usage", help="train or validation")
    with _Progress("counting", "masks") as progress:
        found = report.stats(
            dataset,
            parts[part],
            ignore,
            workers=workers_or_cores(workers),
            progress=progress.show,
        )
    if as_json:
        out_json({"root": data.root, "format": data.format, **asdict(found)})
    else:
        show_stats(found)
    if found.findings:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def convert(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    *,
    layout: Layout = None,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, max=99999, help="Shards a part; else one for 250 samples."),
    ] = None,
    overrides: Overrides = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Write a data set as TFRecord shards, with the keys of research/deeplab's.

    All parts, the test part too. The files are the same with any number of workers. OUT appears
    whole or not at all.
    """
    from clusterseg.data.convert.write import convert as write_shards
    from clusterseg.data.open import open_dataset

    data, ignore = data_of(source, layout, overrides)
    dataset = open_dataset(data, ignore)
    with _Progress("converting", "samples") as progress:
        written = write_shards(
            dataset,
            Path(data.root),
            out,
            ignore,
            shards=shards,
            workers=workers_or_cores(workers),
            skip=data.on_unreadable == "skip",
            progress=progress.show,
        )
    for left_out in written.skipped:
        note(f"left out: {safe(left_out)}")
    if as_json:
        out_json({**asdict(written), "root": str(written.root)})
        return
    counts = f"{written.train} + {written.validation}"
    samples = f"{counts}{f' + {written.test}' if written.test else ''} samples"
    typer.echo(f"{out}: {samples} in {written.shards} shards, {written.bytes / 1e6:.1f} MB")


class _Progress:
    """A line on stderr that counts up on a terminal; into a pipe nothing is written."""

    def __init__(self, doing: str, what: str) -> None:
        self._doing, self._what = doing, what
        self._shown = -1
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> _Progress:
        return self

    def show(self, done: int, total: int) -> None:
        percent = 100 * done // total
        if self._terminal and percent != self._shown:
            sys.stderr.write(f"\r{self._doing} {done} of {total} {self._what} ({percent} %)")
            sys.stderr.flush()
            self._shown = percent

    def __exit__(self, *error: object) -> None:
        if self._shown >= 0:
            sys.stderr.write("\r\x1b[K")
