"""What to do next so that a submission has exactly one job in Slurm's queue. Pure.

Every job of a submission carries its key and is submitted held. sbatch's word is not relied on:
it may fail although the job was accepted, and a controller that crashes after the answer loses
the job and gives its id to another one. What the queue shows under the key decides:

    none, surely     -> submit (again)
    several          -> the one that is released already, else the lowest id; cancel the others
    one, not noted   -> note its id in the run directory
    one, held        -> release it
    one, not held    -> done

A task of an array that may have been released before is looked for alone: if it is gone, the array
is not submitted again, for that would start the other tasks once more.

A job that an sbatch of long ago is accepted as later stays held, and can't run. The last fence
is the claim of the run directory: a second job that runs finds it held, and ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from clusterseg.cluster.slurm.jobs import JobFacts, JobState, carries

QUIET = 2  # answers in a row without the job that mean: it is not there
SETTLE = 2.0  # seconds between them: a request that waited in a socket is served meanwhile


class Sighting(Struct, frozen=True):
    """A job that the queue shows under our key: an array as one, or one task of it ("12_3").

    `live`: it (a task of it) may run or runs; `held`: it waits for its release; `ran`: it is
    over, and had nodes or was ended by Slurm itself. None of them: cancelled while it waited.
    `with_all`: all of the task's array is held, and was not released.
    """

    id: str
    live: bool = False
    held: bool = False
    ran: bool = False
    with_all: bool = False


class Known(Struct, frozen=True, kw_only=True):
    """All that is known of a submission.

    `doubt`: some sbatch may have been, or may yet be, accepted; `refused`: the last one says that
    it was not. `jobs`: what the queue shows, None if it was not asked since something was done.
    `quiet`: so many answers in a row showed none. `recorded`: the id in the run directory.
    `left`: held twins that could not be cancelled. `spent`: the job may have been released before.
    """

    doubt: bool
    refused: bool = False
    jobs: tuple[Sighting, ...] | None = None
    quiet: int = 0
    recorded: str | None = None
    left: frozenset[str] = frozenset()
    spent: bool = False


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


class Gone(Struct, frozen=True):
    """What may have been released is not in the queue any more: it is not submitted again."""


Step = Submit | Ask | Record | Cancel | Release | Done | Refuse | Gone


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
    if known.spent:
        return Gone()
    return Refuse(clean=False) if known.refused else Submit()


def _with_job(known: Known, jobs: Iterable[Sighting], chosen: Sighting) -> Step:
    if known.recorded != chosen.id:
        return Record(chosen.id)
    twins = [job.id for job in jobs if job.held and job is not chosen]
    if rest := tuple(twin for twin in twins if twin not in known.left):
        return Cancel(rest)
    if not chosen.held:
        return Done(chosen.id)
    return Release(_array(chosen.id) if chosen.with_all else chosen.id)


def sightings(jobs: Iterable[JobFacts], key: str) -> tuple[Sighting, ...]:
    """The jobs of a submission among those of the user."""
    tasks: dict[str, list[JobFacts]] = {}
    for job in jobs:
        if carries(job, key):
            tasks.setdefault(_array(job.id), []).append(job)
    return tuple(
        Sighting(
            id=number,
            live=any(not task.is_over and not task.is_held for task in of_job),
            held=any(task.is_held for task in of_job),
            ran=any(_ran(task) for task in of_job),
        )
        for number, of_job in tasks.items()
    )


def task_sightings(
    jobs: Sequence[JobFacts], key: str, task: int, array: str | None, *, untouched: bool
) -> tuple[Sighting, ...]:
    """One task among the user's jobs, of an array that may have been released before.

    `array`: its id, None if nobody noted it. `untouched`: nothing that its tasks would have left
    was found, so that all of it may be released with this one if all of it is held.
    """
    found = []
    for whole in sightings(jobs, key):
        own = [job for job in jobs if job.id == f"{whole.id}_{task}"]
        if array in (whole.id, None) and (seen := sightings(own, key)):
            is_held = whole.held and not whole.live and not whole.ran
            found.append(
                replace(seen[0], id=own[0].id, with_all=untouched and is_held and seen[0].held)
            )
    return tuple(found)


def _array(job_id: str) -> str:
    """The array that a task belongs to, or the job itself."""
    return job_id.partition("_")[0]


def _chosen(jobs: Iterable[Sighting], recorded: str | None) -> Sighting | None:
    """The job that counts. One that ran comes before one that is held: a late twin of it."""
    by_id = sorted(jobs, key=lambda job: int(_array(job.id)))
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
