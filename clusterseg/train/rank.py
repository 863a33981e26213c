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
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.affinity import standing
from clusterseg.runs.eventlog import EventWriter
from clusterseg.runs.paths import AttemptPaths
from clusterseg.runs.rank_files import RankDevices, RankPlace, redirect_output
from clusterseg.runs.records import Phase, RankEnd, RankStart, Stop
from clusterseg.train.failures import TrainingError, one_line, say, warn
from clusterseg.train.feeder import any_stuck
from clusterseg.train.job import RankJob, read_job
from clusterseg.train.phases import Laps, peak_bytes
from clusterseg.train.stopping import StopSources
from clusterseg.train.watchdog import WatchedEvents

if TYPE_CHECKING:
    from clusterseg.train.communicator import Communicator
    from clusterseg.train.interval import Interval
    from clusterseg.train.loop import Loop
    from clusterseg.train.lr_find import LrFinder


See = Callable[[AttemptPaths, RankPlace, Mapping[str, str]], RankDevices]


def no_devices(*_: object) -> RankDevices:
    """The rank sees no accelerator."""
    return RankDevices()


def run(run_dir: Path, see: See = no_devices) -> int:
    """Runs the rank that the environment describes; returns the process's exit code.

    `see` says which accelerators of its host are the rank's, from its attempt, its place and the
    environment (`clusterseg.supervise.rank_devices`).

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
        code = train(job, events, stops, see)
    if any_stuck():  # in a read that does not end: it would keep this process
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


def train(job: RankJob, events: WatchedEvents, stops: StopSources, see: See = no_devices) -> int:
    """`run` without what belongs to a process of its own: output, signals."""
    communicator: Communicator | None = None
    step = job.claim.resume_step
    loop: Loop | LrFinder | None = None
    laps = Laps()
    try:
        laps.add("python", _seconds_since_process_start())
        devices = see(job.attempt, job.place, os.environ)
        os.environ.update(devices.variables)  # before any library looks
        from clusterseg.train.communicator import connect

        communicator = connect(job.communicator, job.place, job.claim.ranks)
        events.write(_rank_start(job, devices))
        laps("connect")
        threads = _threads(job, devices)
        laps("tensorflow")
        if job.lr_find is None:
            loop = _prepare(job, communicator, events, stops, laps, threads=threads)
        else:
            loop = _prepare_lr_find(job, communicator, events, stops, threads=threads)
        reason = loop.run()
        step = loop.progress.step
        if reason is not None:
            events.write(Stop(t=time.time(), rank=job.place.rank, reason=reason, step=step))
        status = "done" if reason is None else "stopped"
        events.write(_rank_end(job, status, step))
    except BaseException as error:
        _report(error)
        if loop is not None:
            loop.settle()
        with suppress(OSError):  # a full disk: the log may have more luck
            step = loop.progress.step if loop else step
            events.write(_rank_end(job, "failed", step, one_line(error)))
        if communicator is not None:
            if not (isinstance(error, TrainingError) and error.agreed):
                communicator.abort(ExitCode.FAILED)  # the others wait for this rank in vain
            if loop is not None:
                loop.close()
            communicator.close()
        return ExitCode.FAILED
    # Together: the launcher ends the other ranks as soon as one ends with a code that is not 0.
    loop.close()
    stops.ignore()
    communicator.close()
    return ExitCode.OK if reason is None else ExitCode.STOPPED


def _prepare(
    job: RankJob,
    communicator: Communicator,
    events: WatchedEvents,
    stops: StopSources,
    laps: Laps,
    *,
    threads: int,
) -> Loop:
    from clusterseg.train import wishes
    from clusterseg.train.assembly import assemble
    from clusterseg.train.batching import choose, news
    from clusterseg.train.board.scribe import start_scribe
    from clusterseg.train.loop import Loop
    from clusterseg.train.not_finite import left_out
    from clusterseg.train.restoring import peek, restore
    from clusterseg.train.sampling import few_samples
    from clusterseg.train.saving import Saver

    rank = job.place.rank
    header = peek(job.paths, job.claim, communicator)
    try:
        batching = choose(job.train, communicator.size, header)
    except ClustersegError as error:  # from the same header on all ranks
        raise TrainingError(
            f"restore: {error.message}", code=error.code, agreed=True, help=error.help
        ) from error
    assembly = assemble(
        job.train,
        communicator,
        flags=wishes.COUNT,
        threads=threads,
        batching=batching,
        lap=laps,
        alive=events.touch,
    )
    laps("model")
    seconds = _seconds_since_process_start()
    events.write(Phase(t=time.time(), rank=rank, name="startup", seconds=seconds, parts=laps.parts))
    few = few_samples(len(assembly.dataset.train), batching.rank_batch, communicator.size)
    if few is not None and rank == 0:
        warn(few)
    if (resized := news(batching, header)) and rank == 0:
        say(resized)
    began = time.perf_counter()
    laps = Laps()
    progress = restore(
        job.paths,
        job.claim,
        assembly.state,
        communicator,
        identity=assembly.identity,
        force=job.force,
        initial_weights=job.train.initial_weights,
        lap=laps,
    )
    seconds = time.perf_counter() - began
    events.write(Phase(t=time.time(), rank=rank, name="restore", seconds=seconds, parts=laps.parts))
    schedule: dict[str, float | int | str] = {
        "name": job.train.schedule.name,
        "epochs": job.train.epochs,
        "steps_per_epoch": assembly.steps_per_epoch,
    }
    scribe = (
        start_scribe(job.paths, job.claim, job.train, assembly, progress) if rank == 0 else None
    )
    saver = Saver(
        paths=job.paths,
        claim=job.claim,
        spec=job.spec.checkpoint,
        state=assembly.state,
        communicator=communicator,
        events=events,
        seed=job.train.seed,
        batching=batching,
        identity=assembly.identity,
        schedule=schedule,
        on_nan=job.train.on_nan,
        interval=_interval(job),
        first=scribe.settle if scribe else lambda: None,
        expect=events.expect_save,
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
        scribe=scribe,
    )


def _threads(job: RankJob, devices: RankDevices) -> int:
    """Makes TensorFlow use what the rank was given; the threads that it computes with."""
    from clusterseg.train.devices import prepare_tensorflow, rank_threads

    threads = rank_threads(os.environ, len(os.sched_getaffinity(0)))
    prepare_tensorflow(
        threads,
        deterministic=job.train.deterministic,
        accelerator=devices.kind or "none",
        local_rank=job.place.local_rank,
    )
    return threads


def _prepare_lr_find(
    job: RankJob,
    communicator: Communicator,
    events: EventWriter,
    stops: StopSources,
    *,
    threads: int,
) -> LrFinder:
    from clusterseg.train.lr_find import LrFinder

    return LrFinder(job, communicator, events, stops, threads=threads)


def _interval(job: RankJob) -> Interval:
    """When rank 0 saves; only `auto` asks what the attempts before have to tell."""
    from clusterseg.train.interval import Interval, mean_time_between_failures
    from clusterseg.train.lives import cost_before, earlier_lives

    every = job.spec.checkpoint.every
    if not every.auto or job.place.rank != 0:
        return Interval(every)
    lives = earlier_lives(job.paths, job.claim)
    return Interval(
        every, mtbf=mean_time_between_failures(lives), cost=cost_before(job.paths, job.claim)
    )


def _rank_start(job: RankJob, devices: RankDevices) -> RankStart:
    resumed = job.claim.resume_from
    place = standing()
    return RankStart(
        t=time.time(),
        rank=job.place.rank,
        attempt=job.claim.attempt,
        world_size=job.place.world_size,
        host=socket.gethostname(),
        local_rank=job.place.local_rank,
        pid=os.getpid(),
        cpus=place.cpus,
        cores=place.cores,
        sockets=place.sockets,
        numa=place.numa,
        accelerator=devices.kind,
        device=devices.device,
        resumed_from=resumed,
        epoch=int(resumed.split("-")[1]) if resumed else 0,  # weights-<epoch>-…
        step=job.claim.resume_step,
    )


def _rank_end(job: RankJob, status: str, step: int, error: str | None = None) -> RankEnd:
    return RankEnd(
        t=time.time(),
        rank=job.place.rank,
        status=status,
        step=step,
        error=error,
        peak_bytes=peak_bytes(),
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
