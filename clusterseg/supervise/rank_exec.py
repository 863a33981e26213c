"""One rank of a `command:` job: its log, its variables, its first event, then the program itself.

The wrapper becomes the program (exec), so that exit codes and signals pass through unchanged. Where
the launcher would wait for the other ranks when one fails, it stays and writes down that it did.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NoReturn

from clusterseg.cluster.children import end_like, refusal_code, run_inside
from clusterseg.cluster.processes import host_name
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.devices import DEVICES
from clusterseg.runs.affinity import standing
from clusterseg.runs.eventlog import EventWriter, iter_events
from clusterseg.runs.paths import AttemptPaths, RunPaths
from clusterseg.runs.rank_files import (
    RankDevices,
    RankPlace,
    rank_from_environment,
    redirect_output,
)
from clusterseg.runs.records import RankEnd, RankStart
from clusterseg.supervise.rank_devices import rank_devices


def exec_rank(
    run_dir: Path, argv: Sequence[str], environ: Mapping[str, str], *, watched: bool = False
) -> NoReturn:
    """Becomes the user's program, or (`watched`) stays beside it and ends as it has ended.

    Raises ClustersegError if it was not started by `attempt`.
    """
    attempt = _attempt_of(run_dir, environ)
    place = rank_from_environment(environ)
    redirect_output(attempt.log(place.rank))
    try:
        seen = rank_devices(attempt, place, environ)
    except ClustersegError as error:
        sys.stderr.write(error.render() + "\n")
        sys.stderr.flush()
        _write_end(attempt, place.rank, "failed", error.message)
        os._exit(ExitCode.FAILED)
    with suppress(OSError):  # a record for status and logs; the program can do without
        _write_start(attempt, place, seen)
    environment = {
        # Said to this wrapper alone: a job that the program submits deals out none.
        **{name: value for name, value in environ.items() if name != DEVICES},
        **seen.variables,
        "CLUSTERSEG_RANK": str(place.rank),
        "CLUSTERSEG_LOCAL_RANK": str(place.local_rank),
        "CLUSTERSEG_WORLD_SIZE": str(place.world_size),
    }
    try:
        if not watched:
            os.execvpe(argv[0], list(argv), environment)  # noqa: S606
        ended = run_inside(argv, environment)
    except OSError as error:
        sys.stderr.write(f"clusterseg: {argv[0]} can't be started: {error.strerror}\n")
        sys.stderr.flush()
        if watched:
            _write_end(attempt, place.rank, "failed", f"{argv[0]}: {error.strerror}")
        os._exit(refusal_code(error))
    if ended.code == ExitCode.STOPPED:  # of ranks on other hosts Intel's mpiexec makes it 255
        _write_end(attempt, place.rank, "stopped", None)
    elif ended.code != ExitCode.OK and not ended.told:
        how = f"exit code {ended.code}" if ended.code > 0 else f"signal {-ended.code}"
        _write_end(attempt, place.rank, "failed", f"the program ended with {how}")
    end_like(ended.code)


def _attempt_of(run_dir: Path, environ: Mapping[str, str]) -> AttemptPaths:
    text = environ.get("CLUSTERSEG_ATTEMPT", "")
    if not (text.isascii() and text.isdigit()):
        raise ClustersegError(
            f"CLUSTERSEG_ATTEMPT={text!r}: this rank was not started by `clusterseg attempt`",
            code="no-attempt",
            help="`clusterseg submit job.yaml` starts a job",
            exit_code=ExitCode.USAGE,
        )
    return RunPaths(run_dir.absolute()).attempt(int(text))


def _write_start(attempt: AttemptPaths, place: RankPlace, seen: RankDevices) -> None:
    where = standing()
    event = RankStart(
        t=time.time(),
        rank=place.rank,
        attempt=attempt.number,
        world_size=place.world_size,
        host=host_name(),
        local_rank=place.local_rank,
        pid=os.getpid(),
        cpus=where.cpus,
        cores=where.cores,
        sockets=where.sockets,
        numa=where.numa,
        accelerator=seen.kind,
        device=seen.device,
    )
    with EventWriter(attempt.events(place.rank)) as writer:
        writer.write(event)


def _write_end(
    attempt: AttemptPaths, rank: int, status: Literal["stopped", "failed"], error: str | None
) -> None:
    """By this the supervisor learns of it. What the program itself has said of its end stands."""
    file = attempt.events(rank)
    with suppress(OSError):
        if file.exists() and any(isinstance(event, RankEnd) for event in iter_events(file)):
            return
        with EventWriter(file) as writer:
            writer.write(RankEnd(t=time.time(), rank=rank, status=status, error=error))
