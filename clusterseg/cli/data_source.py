"""What `data check`, `stats` and `convert` read: a job's data, or a folder of a known layout."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterseg.errors import ClustersegError

if TYPE_CHECKING:
    from clusterseg.spec.model import DataSpec

SourceArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="JOB.YAML|FOLDER",
        help="A job, whose train.data is meant; or a data set's folder, with --format.",
        show_default=False,
    ),
]
Layout = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="Layout of FOLDER.", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, as of job.yaml: train.data.labels=blue. May be repeated.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, max=1024, help="Files read at a time; else as many as there are cores."
    ),
]


_ANY_SIZE = (1, 1)


def data_of(
    source: Path | None, layout: str | None, overrides: list[str] | None
) -> tuple[DataSpec, int | None]:
    """(the data, the label that counts nowhere). Raises ClustersegError for what is no data set.

    Files are read at their own sizes: the data have some `size`, so that opening the set does not
    take it from the first picture, which may be one of those that are to be named.
    """
    from msgspec.structs import replace

    from clusterseg.spec.reader import open_job, parse_job

    given = tuple(overrides or ())
    if layout is None:
        if source is None or source.is_dir():
            raise ClustersegError(
                "a data set's folder needs its layout" if source else "which data set?",
                code="usage",
                help="give a job.yaml; or a folder and --format: camvid, cityscapes, ...",
            )
        job = open_job(source, overrides=given, environ=os.environ).spec
    else:
        if source is not None and not source.is_dir():
            raise ClustersegError(
                f"{source} is no folder",
                code="no-data",
                help="--format goes with a data set's folder; a job.yaml names its own",
            )
        # As a job, so that formats, keys and options are checked and defaulted like a job's.
        root = "" if source is None else "\n    root: ."
        text = f"name: data\ntrain:\n  model: {{name: unet}}\n  data:{root}\n    format: "
        job = parse_job(
            text + json.dumps(layout), "--format", overrides=given, environ=os.environ
        ).spec
    if job.train is None:
        raise ClustersegError(
            f"{source}: this job has no `train`, and so no data set", code="usage"
        )
    data = job.train.data
    data = replace(data, size=data.size or _ANY_SIZE)
    if layout is not None and source is not None:
        data = replace(data, root=str(source))
    return data, job.train.loss.ignore


def workers_or_cores(workers: int | None) -> int:
    """As given, else one a core that this process may use."""
    return workers or len(os.sched_getaffinity(0))
