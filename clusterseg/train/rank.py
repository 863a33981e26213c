"""One rank, from its start to its exit code: the edge around the training loop.

TensorFlow and MPI are loaded inside `run`, after the rank's output goes to its own log.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.rank_files import redirect_output
from clusterseg.runs.records import Phase, RankEnd, RankStart, Stop
from clusterseg.train.failures import TrainingError, one_line
from clusterseg.train.job import RankJob, read_job
from clusterseg.train.stopping import StopSources
from clusterseg.train.watchdog import WatchedEvents

if TYPE_CHECKING:
    from clusterseg.train.communicator import Communicator
    from clusterseg.train.loop import Loop


def run(run_dir: Path) -> int:
    """Runs the rank that the environment describes; returns the process's exit code.

    0: the training is done; 75: stopped with everything saved; 1: failed, the reason stands in
    the rank's log and events. A failure of this rank alone ends all ranks (MPI_Abort).
    Raises ClustersegError if this process is no rank of a claimed attempt.
    """
    job = read_job(run_dir, os.environ)
    redirect_output(job.attempt.log(job.place.rank))
    faulthandler.enable()
    faulthandler.register(signal.SIGQUIT, all_threads=True)  # a look into a rank that hangs
    stops = StopSources(job.stop_file)
    stops.install()
    with WatchedEvents(job.attempt.events(job.place.rank)) as events:
        return train(job, events, stops)


def train(job: RankJob, events: EventWriter, stops: StopSources) -> int:
    """`run` without what belongs to a process of its own: output, signals."""
    communicator: Communicator | None = None
    step = job.claim.resume_step
    loop: Loop | None = None
    try:
        from clusterseg.train.communicator import connect

        communicator = connect(job.communicator, job.place, job.claim.ranks)
        events.write(_rank_start(job))
        loop = _prepare(job, communicator, events, stops)
        reason = loop.run()
        step = loop.progress.step
        if reason is not None:
            events.write(Stop(t=time.time(), rank=job.place.rank, reason=reason, step=step))
        status = "done" if reason is None else "stopped"
        events.write(RankEnd(t=time.time(), rank=job.place.rank, status=status, step=step))
    except BaseException as error:
        _report(error)
        if loop is not None:
            loop.settle()
        with suppress(OSError):  # a full disk: the log may have more luck
            events.write(
                RankEnd(
                    t=time.time(),
                    rank=job.place.rank,
                    status="failed",
                    step=loop.progress.step if loop else step,
                    error=one_line(error),
                )
            )
        if communicator is not None:
            if not (isinstance(error, TrainingError) and error.agreed):
                communicator.abort(ExitCode.FAILED)  # the others wait for this rank in vain
            _finish_curves(loop)
            communicator.close()
        return ExitCode.FAILED
    # Together: the launcher ends the other ranks as soon as one ends with a code that is not 0.
    _finish_curves(loop)
    stops.ignore()
    communicator.close()
    return ExitCode.OK if reason is None else ExitCode.STOPPED


def _prepare(
    job: RankJob, communicator: Communicator, events: EventWriter, stops: StopSources
) -> Loop:
    from clusterseg.train import wishes
    from clusterseg.train.assembly import assemble
    from clusterseg.train.board.scribe import start_scribe
    from clusterseg.train.devices import prepare_tensorflow, rank_threads
    from clusterseg.train.loop import Loop
    from clusterseg.train.not_finite import left_out
    from clusterseg.train.restoring import restore
    from clusterseg.train.saving import Saver

    rank = job.place.rank
    threads = rank_threads(os.environ, len(os.sched_getaffinity(0)))
    prepare_tensorflow(threads, deterministic=job.train.deterministic)
    assembly = assemble(job.train, communicator, flags=wishes.COUNT, threads=threads)
    events.write(
        Phase(t=time.time(), rank=rank, name="startup", seconds=_seconds_since_process_start())
    )
    began = time.perf_counter()
    global_batch = job.train.batch_size * communicator.size
    progress = restore(
        job.paths,
        job.claim,
        assembly.state,
        communicator,
        identity=assembly.identity,
        global_batch=global_batch,
        force=job.force,
    )
    events.write(
        Phase(t=time.time(), rank=rank, name="restore", seconds=time.perf_counter() - began)
    )
    schedule: dict[str, float | int | str] = {
        "name": job.train.schedule.name,
        "epochs": job.train.epochs,
        "steps_per_epoch": assembly.steps_per_epoch,
    }
    saver = Saver(
        paths=job.paths,
        claim=job.claim,
        spec=job.spec.checkpoint,
        state=assembly.state,
        communicator=communicator,
        events=events,
        seed=job.train.seed,
        global_batch=global_batch,
        identity=assembly.identity,
        schedule=schedule,
    )
    return Loop(
        spec=job.train,
        checkpoint=job.spec.checkpoint,
        assembly=assembly,
        progress=progress,
        communicator=communicator,
        saver=saver,
        events=events,
        stops=stops,
        left_out=left_out(job.paths, job.claim, communicator)
        if job.train.on_nan == "rollback"
        else frozenset(),
        scribe=(
            start_scribe(job.paths, job.claim, job.train, assembly, progress) if rank == 0 else None
        ),
    )


def _finish_curves(loop: Loop | None) -> None:
    if loop is not None and loop.scribe is not None:
        loop.scribe.close()


def _rank_start(job: RankJob) -> RankStart:
    accelerator = job.spec.resources.accelerator
    resumed = job.claim.resume_from
    return RankStart(
        t=time.time(),
        rank=job.place.rank,
        attempt=job.claim.attempt,
        world_size=job.place.world_size,
        host=socket.gethostname(),
        local_rank=job.place.local_rank,
        pid=os.getpid(),
        cpus=sorted(os.sched_getaffinity(0)),
        accelerator=None if accelerator == "none" else accelerator,
        resumed_from=resumed,
        epoch=int(resumed.split("-")[1]) if resumed else 0,  # weights-<epoch>-…
        step=job.claim.resume_step,
    )


def _report(error: BaseException) -> None:
    """The error into the rank's log: for a person if it is one they can mend."""
    with suppress(OSError):
        if isinstance(error, ClustersegError):
            sys.stderr.write(error.render() + "\n")
        else:
            traceback.print_exception(error)
        sys.stderr.flush()
        sys.stdout.flush()


def _seconds_since_process_start() -> float:
    """From the kernel's start time of this process (proc(5), stat field 22) to now."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started
