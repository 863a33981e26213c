"""`predict`: what a trained network says of pictures and videos."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from clusterseg.cli import inference_options
from clusterseg.cli.fanout_view import (
    RunBy,
    Where,
    complain,
    executor_for,
    plan_of,
    raise_fault,
    tell_devices,
)
from clusterseg.cli.output import AsJson, RunsDir, note, number, out, out_json, safe, table
from clusterseg.cli.progress import ProgressLine
from clusterseg.errors import ClustersegError, ExitCode

if TYPE_CHECKING:
    from clusterseg.cluster.fanout import Executor, FanOut, Task
    from clusterseg.runs.lock import Holder
    from clusterseg.train.inference.source import Source

app = typer.Typer(rich_markup_mode=None)

_SHOWN = 20
_RECORDS = "predictions.json"
_WORK = ".work"  # in the output folder


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
    with _output_alone(output) as is_alone:
        done = _done(output, FUNCTION, tasks, running, is_alone=is_alone)
        raise_fault(done)
        values = [value for value in done.values if value is not None]
        pictures, failures = joined(values)
        answer = {
            "output": str(output),
            "pictures": pictures,
            "failures": failures,
            "interrupted": done.interrupted,  # the file, too, tells what is not in it
            "jobs": done.failures,
        }
        written = _write(output, answer)
    for why in sorted({value["unknown"] for value in values if value["unknown"]}):
        note(f"note: classes have no names and colours of their own: {safe(why)}")
    tell_devices(values)
    if as_json:
        out_json(answer)
    elif pictures:
        _show(pictures, output)
    for failure in failures:
        note(safe(failure["error"]))
    complain(done, network)
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


@contextmanager
def _output_alone(output: Path) -> Iterator[bool]:
    """Makes the output folder; until the end no other `predict` can write into it.

    Results of two would be mixed: those of one name are the later's, predictions.json is one's.
    """
    from clusterseg.runs.lock import Taken, held

    with ExitStack() as stack:
        try:
            output.mkdir(parents=True, exist_ok=True)
            has_lock = stack.enter_context(held(output.absolute() / _WORK / "lock"))
            (output / _RECORDS).unlink(missing_ok=True)  # of a call before: not of what is to come
        except Taken as taken:
            raise _busy(output, taken.holder) from None
        except OSError as error:
            raise ClustersegError(
                f"{error.filename or output} can't be written: {error.strerror or error}",
                code="no-output",
                exit_code=ExitCode.FAILED,
            ) from None
        yield has_lock


def _done(
    output: Path, function: str, tasks: list[Task], executor: Executor, *, is_alone: bool
) -> FanOut:
    """The fan-out, from a folder of its own in the output: the run is not touched. What one that
    was killed left there is removed, if nobody else can be at work."""
    import shutil

    from clusterseg.cluster.fanout import Progress, fan_out
    from clusterseg.runs.paths import RunPaths

    work = RunPaths(output.absolute() / _WORK)
    with ProgressLine() as line:

        def show(now: Progress) -> None:
            line.count("predicted, in parts", now.done, now.total)

        done = fan_out(work, function, tasks, executor, progress=show)
    if done.folder is None and is_alone:
        shutil.rmtree(work.fanout, ignore_errors=True)
    return done


def _busy(output: Path, holder: Holder | None) -> ClustersegError:
    who = "another process"
    if holder is not None:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
        who = f"process {holder.pid} on {holder.host}, since {began}"
    return ClustersegError(
        f"{output}: another `clusterseg predict` ({who}) writes into this folder",
        code="output-busy",
        help="wait until it has ended, or give another --output",
        exit_code=ExitCode.FAILED,
    )


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
