"""What to do next so that a submission has exactly one job in Slurm's queue. Pure.

Every job of a submission carries its key and is submitted held. sbatch's word is not relied on:
it may fail although the job was accepted, and a controller that crashes after the answer loses
the job and gives its id to another one. What the queue shows under the key decides:

    none, surely     -> submit (again)
    several          -> the one that is released already, else the lowest id; cancel the others
    one, not noted   -> note its id in the run directory
    one, held        -> release it
    one, not held    -> done

A job that an sbatch of long ago is accepted as later stays held, and can't run. The last fence
is the claim of the run directory: a second job that runs finds it held, and ends.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from clusterseg.cluster.slurm.jobs import JobFacts, JobState, carries

QUIET = 2  # answers in a row without the job that mean: it is not there
SETTLE = 2.0  # seconds between them: a request that waited in a socket is served meanwhile


class Sighting(Struct, frozen=True):
    """A job (an array as one) that the queue shows under our key; `id` has no task.

    `live`: it (a task of it) may run or runs; `held`: it waits for its release; `ran`: it is
    over, and had nodes or was ended by Slurm itself. None of them: cancelled while it waited.
    """

    id: str
    live: bool = False
    held: bool = False
    ran: bool = False


class Known(Struct, frozen=True, kw_only=True):
    """All that is known of a submission.

    `doubt`: some sbatch may have been, or may yet be, accepted; `refused`: the last one says that
    it was not. `jobs`: what the queue shows, None if it was not asked since something was done.
    `quiet`: so many answers in a row showed none. `recorded`: the id in the run directory.
    `left`: held twins that could not be cancelled.
    """

    doubt: bool
    refused: bool = False
    jobs: tuple[Sighting, ...] | None = None
    quiet: int = 0
    recorded: str | None = None
    left: frozenset[str] = frozenset()


class Submit(Struct, frozen=True):
    """Call sbatch."""


class Ask(Struct, frozen=True):
    """Ask the queue, after so many seconds."""

    after: float = 0.0


class Record(Struct, frozen=True):
    """Note the job's id in the run directory, durably."""

    job_id: str


class Cancel(Struct, frozen=True):
    """Cancel held twins."""

    job_ids: tuple[str, ...]


class Release(Struct, frozen=True):
    """Let the held job run."""

    job_id: str


class Done(Struct, frozen=True):
    """The job is in the queue, noted and released; or it ran already."""

    job_id: str


class Refuse(Struct, frozen=True):
    """Slurm does not want it. `clean`: no job of this submission can exist."""

    clean: bool


Step = Submit | Ask | Record | Cancel | Release | Done | Refuse


def next_step(known: Known) -> Step:
    """The one rule of submitting."""
    if known.jobs is None:
        return Ask() if known.doubt or known.refused else Submit()
    chosen = _chosen(known.jobs, known.recorded)
    return _without_job(known) if chosen is None else _with_job(known, known.jobs, chosen)


def _without_job(known: Known) -> Step:
    if known.refused and not known.doubt:
        return Refuse(clean=True)  # nothing of an sbatch that ended by itself is on its way
    if known.quiet < QUIET:
        return Ask(SETTLE)
    return Refuse(clean=False) if known.refused else Submit()


def _with_job(known: Known, jobs: Iterable[Sighting], chosen: Sighting) -> Step:
    if known.recorded != chosen.id:
        return Record(chosen.id)
    twins = [job.id for job in jobs if job.held and job is not chosen]
    if rest := tuple(twin for twin in twins if twin not in known.left):
        return Cancel(rest)
    return Release(chosen.id) if chosen.held else Done(chosen.id)


def sightings(jobs: Iterable[JobFacts], key: str) -> tuple[Sighting, ...]:
    """The jobs of a submission among those of the user."""
    tasks: dict[str, list[JobFacts]] = {}
    for job in jobs:
        if carries(job, key):
            tasks.setdefault(job.id.partition("_")[0], []).append(job)
    return tuple(
        Sighting(
            id=number,
            live=any(not task.is_over and not task.is_held for task in of_job),
            held=any(task.is_held for task in of_job),
            ran=any(_ran(task) for task in of_job),
        )
        for number, of_job in tasks.items()
    )


def _chosen(jobs: Iterable[Sighting], recorded: str | None) -> Sighting | None:
    """The job that counts. One that ran comes before one that is held: a late twin of it."""
    by_id = sorted(jobs, key=lambda job: int(job.id))
    for counts in (lambda job: job.live, lambda job: job.ran, lambda job: job.held):
        if found := next(filter(counts, by_id), None):
            return found
    # Cancelled while it waited: by a person if it is ours, as a twin if not.
    return next((job for job in by_id if job.id == recorded), None)


def _ran(job: JobFacts) -> bool:
    # Slurm gives a job that is cancelled while it waits a start time, but no nodes.
    if job.state is JobState.CANCELLED:
        return bool(job.node_list)
    return job.is_over
