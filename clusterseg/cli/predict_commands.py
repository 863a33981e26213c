"""`predict`: what a trained network says of pictures and videos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from clusterseg.cli import inference_options
from clusterseg.cli.fanout_view import RunBy, Where, complain, executor_for, plan_of, tell_devices
from clusterseg.cli.output import AsJson, RunsDir, note, number, out, out_json, safe, table
from clusterseg.cli.progress import ProgressLine
from clusterseg.errors import ClustersegError, ExitCode

if TYPE_CHECKING:
    from clusterseg.cluster.fanout import Executor, FanOut, Task
    from clusterseg.train.inference.source import Source

app = typer.Typer(rich_markup_mode=None)

_SHOWN = 20
_RECORDS = "predictions.json"


@app.command()
def predict(
    network: Annotated[
        str,
        typer.Argument(
            metavar="RUN|WEIGHTS",
            help="A run, or with --job a file of weights.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT…", help="Pictures, videos, or folders of them.", show_default=False
        ),
    ],
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Where to write to.", show_default=False
        ),
    ],
    what: Annotated[
        str,
        typer.Option(
            "--what",
            metavar="KIND,KIND,…",
            help="ids (for submission), color, overlay, confidence; with --samples entropy, "
            "mutual_information, maps.",
        ),
    ] = "ids,color,overlay",
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="This one: a name in the run's checkpoints/, or a path. Else the best one.",
            show_default=False,
        ),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option(
            "--job", metavar="JOB.YAML", help="The job of the weights.", show_default=False
        ),
    ] = None,
    scales: inference_options.Scales = "1",
    flip: inference_options.Flip = False,
    tile: inference_options.Tile = None,
    overlap: inference_options.Overlap = 0.25,
    samples: inference_options.Samples = 0,
    seed: inference_options.Seed = 0,
    refine: inference_options.Refine = 0,
    every: Annotated[
        int, typer.Option("--every", help="Of a video, every so many frames.", min=1)
    ] = 1,
    executor: RunBy = Where.AUTO,
    as_json: AsJson = False,
    runs_dir: RunsDir = None,
) -> None:
    """Predict pictures, folders and videos with a trained network.

    Writes a folder for each kind below the output folder, and predictions.json.
    """
    from clusterseg.cluster.fanout import Task
    from clusterseg.train.inference.inputs import find
    from clusterseg.train.inference.kinds import check_kinds
    from clusterseg.train.inference.parts import joined, name_of, shared_out
    from clusterseg.train.inference.task import FUNCTION

    asked = inference_options.how(
        scales, flip, tile=tile, overlap=overlap, samples=samples, seed=seed, refine=refine
    )
    kinds = check_kinds([one for one in what.split(",") if one], samples=samples)
    source, running = _source(network, checkpoint, job, executor, runs_dir)
    inference_options.check_network(asked, source.train)
    found, others = find(inputs, beside=output)
    if others:
        note(f"note: {others} files are no pictures or videos, and are left alone")
    arguments = {
        "source": msgspec.json.encode(source).decode(),
        "how": msgspec.to_builtins(asked),
        "output": str(output.absolute()),
        "kinds": list(kinds),
        "every": every,
    }
    tasks = [
        Task(name=name_of(part), arguments={**arguments, "files": msgspec.to_builtins(part)})
        for part in shared_out(found, slots=running.slots, every=every)
    ]
    done = _done(output, FUNCTION, tasks, running)
    values = [value for value in done.values if value is not None]
    for why in sorted({value["unknown"] for value in values if value["unknown"]}):
        note(f"note: classes have no names and colours of their own: {safe(why)}")
    tell_devices(values)
    pictures, failures = joined(values)
    answer = {"output": str(output), "pictures": pictures, "failures": failures}
    written = _write(output, answer)
    if as_json:
        out_json({**answer, "interrupted": done.interrupted, "jobs": done.failures})
    elif pictures:
        _show(pictures, output)
    for failure in failures:
        note(safe(failure["error"]))
    complain(done)
    if done.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if done.failures or failures or not written:
        raise typer.Exit(ExitCode.FAILED)


def _source(
    network: str, checkpoint: str | None, job: Path | None, where: Where, runs_dir: Path | None
) -> tuple[Source, Executor]:
    from clusterseg.cluster.fanout_local import LocalJobs
    from clusterseg.runs.store import resolve_run, runs_root
    from clusterseg.train import evaluation
    from clusterseg.train.inference.source import of_checkpoint, of_weights

    if job is None:
        run = resolve_run(network, runs_root(runs_dir))
        plan = plan_of(run)
        chosen, _ = evaluation.choose(run, file=checkpoint)
        return of_checkpoint(run, chosen[0]), executor_for(where, plan, "predict")
    if checkpoint is not None:
        raise ClustersegError(
            "--checkpoint is one of a run; with --job the weights are named themselves",
            code="usage",
            help="clusterseg predict WEIGHTS INPUT… --job JOB.YAML --output DIR",
        )
    if where is Where.SLURM:
        raise ClustersegError(
            "--executor slurm submits as the run was submitted; weights alone have no run",
            code="usage",
            help="name a run",
        )
    from clusterseg.spec.reader import read_job

    source = of_weights(Path(network), read_job(job, environ=os.environ))
    cpus = len(os.sched_getaffinity(0))
    return source, LocalJobs(cpus)


def _done(output: Path, function: str, tasks: list[Task], executor: Executor) -> FanOut:
    """The fan-out, from a folder of its own in the output: the run is not touched."""
    import shutil
    from contextlib import suppress

    from clusterseg.cluster.fanout import Progress, fan_out
    from clusterseg.runs.files import make_private_dir
    from clusterseg.runs.paths import RunPaths

    work = output.absolute() / ".work"
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / _RECORDS).unlink(missing_ok=True)  # of a run before: what is written now is not
        make_private_dir(work)
    except OSError as error:
        raise ClustersegError(
            f"{error.filename or output} can't be written: {error.strerror or error}",
            code="no-output",
            exit_code=ExitCode.FAILED,
        ) from None
    with ProgressLine() as line:

        def show(now: Progress) -> None:
            line.count("predicted, in parts", now.done, now.total)

        done = fan_out(RunPaths(work), function, tasks, executor, progress=show)
    if done.folder is None and done.problem is None:
        with suppress(OSError):
            work.rmdir()
            return done
        shutil.rmtree(work, ignore_errors=True)
    return done


def _write(output: Path, answer: dict[str, Any]) -> bool:
    """Writes predictions.json, at the end: where it is, a call has ended. Whether it could be."""
    from clusterseg.runs.files import replace

    data = msgspec.json.format(msgspec.json.encode(answer), indent=2) + b"\n"
    try:
        replace(output / _RECORDS, data, private=False)
    except OSError as error:
        why = f"{output / _RECORDS} can't be written ({error.strerror or error})"
        note(f"{safe(why)}: what was predicted is there, its records are not")
        return False
    return True


def _show(pictures: list[dict[str, Any]], output: Path) -> None:
    rows = []
    for one in pictures[:_SHOWN]:
        most = max(one["classes"], key=one["classes"].get)
        share = one["classes"][most] / (one["height"] * one["width"])
        size = f"{one['height']}x{one['width']}"
        most = f"{most} {100 * share:.0f} %"
        rows.append([one["name"], size, number(one["confidence"], 3), most])
    for line in table(("picture", "size", "confidence", "most"), rows):
        out(line)
    more = len(pictures) - _SHOWN
    out(f"{f'… and {more} more; ' if more > 0 else ''}written to {safe(str(output))}")
