"""`export`: a trained network as files for other programs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterseg.cli.export_view import show
from clusterseg.cli.output import AsJson, RunsDir, note, safe
from clusterseg.cli.progress import ProgressLine
from clusterseg.cli.quiet import quiet
from clusterseg.cli.sizes import size_of
from clusterseg.errors import ClustersegError
from clusterseg.export.folder import refuse_existing
from clusterseg.export.formats import FORMATS, TOLERANCE, check_wishes

if TYPE_CHECKING:
    from clusterseg.export.write import Export
    from clusterseg.train.exporting import Trained
    from clusterseg.train.inference.source import Source

app = typer.Typer(rich_markup_mode=None)


@app.command()
def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|WEIGHTS",
            help="A run, or with --job a file of weights.",
            show_default=False,
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to make.")],
    to: Annotated[
        list[str], typer.Option("--to", metavar="FORMAT", help=f"{', '.join(FORMATS)}; repeatable.")
    ] = ["onnx"],  # noqa: B006 (Typer copies it)
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="This one of the run: a name in its checkpoints/, or a path; else the best.",
            show_default=False,
        ),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(
            "--job", metavar="FILE", help="The job.yaml of the weights.", show_default=False
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of --job; repeatable."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="HEIGHTxWIDTH; else that of the job.", show_default=False),
    ] = None,
    batch: Annotated[
        str, typer.Option("--batch", metavar="N", help="Pictures at a time, or dynamic.")
    ] = "1",
    argmax: Annotated[
        bool, typer.Option("--argmax", help="Give int32 labels instead of logits.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Take uint8 RGB, and normalise in the graph.")
    ] = False,
    integer_io: Annotated[
        bool, typer.Option("--integer-io", help="tflite-int8: int8 input and output, too.")
    ] = False,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=1, metavar="N", help="Pictures to calibrate and to compare with."
        ),
    ] = 100,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            min=1e-7,
            max=1,
            metavar="X",
            help="How far logits of float32 files may be from the network's.",
        ),
    ] = TOLERANCE,
    flips: Annotated[
        float | None,
        typer.Option(
            "--flips",
            min=0,
            max=1,
            metavar="SHARE",
            help="Of pixels that may be of another class (0.01), where a network decides on the "
            "way: by quantised activations, or places of pooling.",
        ),
    ] = None,
    benchmark: Annotated[
        bool, typer.Option("--benchmark", help="Measure latency and pictures a second here.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Of the runtimes; else every core at hand."),
    ] = None,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Write a trained network as files for other programs, each checked by running it.

    A meta.yaml (classes, colours, size, preprocessing) and a run.py that segments pictures with it
    go with every export.
    """
    count = _batch(batch)
    check_wishes(
        to, batch=count, raw=raw, argmax=argmax, integer_io=integer_io, tolerance=tolerance,
        flips=flips,
    )  # fmt: skip
    wanted = size_of(size, "--size") if size else None
    output = Path(os.path.expanduser(output)).absolute()  # noqa: PTH111 (never raises)
    refuse_existing(output)
    chosen, origin = (
        _of_weights(source, job, overrides or [], checkpoint)
        if job
        else _of_run(source, checkpoint, overrides or [], runs_dir)
    )
    cores = threads or len(os.sched_getaffinity(0))
    with quiet(), ProgressLine() as progress:
        from clusterseg.train import exporting

        trained = exporting.load(chosen, size=wanted, threads=cores)
        if trained.missing:
            note(f"note: the data set can't be opened ({safe(trained.missing)})")
        if trained.note:
            note(f"note: {safe(trained.note)}")
        done = _exported(
            chosen,
            trained,
            output,
            origin=origin,
            formats=tuple(to),
            form={"batch": count, "raw": raw, "argmax": argmax},
            more={
                "integer_io": integer_io,
                "benchmark": benchmark,
                "threads": cores,
                "tolerance": tolerance,
                "flips": flips,
            },
            samples=samples,
            progress=progress,
        )
    show(done, as_json=as_json)


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 4096:
        return int(text)
    raise ClustersegError(
        f"--batch {text!r} is no batch", code="usage", help="a number from 1 to 4096, or dynamic"
    )


def _of_weights(
    weights: str, job: Path, overrides: list[str], checkpoint: str | None
) -> tuple[Source, dict[str, Any]]:
    """What to export, and where it is from."""
    from clusterseg.spec.reader import open_job
    from clusterseg.train.inference.source import of_weights

    if checkpoint is not None:
        raise ClustersegError(
            "--checkpoint names one of a run; with --job the file of weights is the argument",
            code="usage",
            help="clusterseg export WEIGHTS --job job.yaml",
        )
    spec = open_job(job, overrides=overrides, environ=os.environ).spec
    path = Path(os.path.expanduser(weights))  # noqa: PTH111 (never raises)
    return of_weights(path, spec), {"weights": path.name, "job": spec.name}


def _of_run(
    reference: str, checkpoint: str | None, overrides: list[str], runs_dir: Path | None
) -> tuple[Source, dict[str, Any]]:
    """What to export, and where it is from."""
    from clusterseg.runs.store import resolve_run, runs_root
    from clusterseg.train.evaluation import choose
    from clusterseg.train.inference.source import of_checkpoint

    if overrides:
        raise ClustersegError(
            "--set is about the job.yaml that --job names; a run's own stays as it is",
            code="usage",
            help="clusterseg export WEIGHTS --job RUN_DIR/submissions/000/job.yaml --set ...",
        )
    if Path(reference).is_file():
        raise ClustersegError(
            f"{reference} is a file: weights alone do not tell what they are of",
            code="usage",
            help=f"clusterseg export {reference} --job job.yaml",
        )
    run = resolve_run(reference, runs_root(runs_dir))
    (chosen,), messages = choose(run, file=checkpoint)
    for message in messages:
        note(f"note: {safe(message)}")
    origin = {
        "run": run.run_id,
        "weights": chosen.path.rpartition("/")[2],
        "sha256": chosen.sha256,
    }
    return of_checkpoint(run, chosen), origin


def _exported(
    source: Source,
    trained: Trained,
    output: Path,
    *,
    origin: dict[str, Any],
    formats: tuple[str, ...],
    form: dict[str, Any],
    more: dict[str, Any],
    samples: int,
    progress: ProgressLine,
) -> Export:
    from clusterseg.export.graph import Form
    from clusterseg.export.network import Network
    from clusterseg.export.samples import drawn, of_part
    from clusterseg.export.write import Wishes, export
    from clusterseg.models import normalisation_of

    model, data, ignore = source.train.model, trained.dataset, source.train.loss.ignore
    network = Network(
        name=model.name,
        model=trained.model,
        normalisation=normalisation_of(model.name, model.options),
        class_names=trained.classes.names,
        colors=trained.classes.colors,
        class_ids=trained.classes.ids,
        size=trained.size,
        options=model.options,
        origin=origin,
    )
    seen = calibration = None
    if data is not None:
        seen = of_part(data.validation or data.train, samples, size=trained.size, ignore=ignore)
        calibration = of_part(data.train, samples, size=trained.size, ignore=ignore)
    return export(
        network,
        Wishes(formats, Form(**form), **more),
        output,
        samples=seen or drawn(4, size=trained.size),
        calibration=calibration,
        ignore=ignore,
        say=lambda what: progress.show(safe(what)),
    )
