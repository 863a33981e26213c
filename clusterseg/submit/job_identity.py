"""Who a job is that a person gave to sbatch: a key that a requeue keeps.

The id alone is not enough, for ids are used again, and Slurm changes the time of submission at a
requeue. So the first start writes a key into the job's own comment (or, where the person or the
site has put something there, its first digits into the job's name), before there is a run
directory; every later start finds it there. Where that fails, its supervisor tries again later.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from clusterseg.cluster.slurm.allocation import ARRAY, TASK
from clusterseg.cluster.slurm.commands import Slurm, SlurmError, SlurmUnreachable
from clusterseg.cluster.slurm.jobs import KEY_IN_NAME, JobFacts
from clusterseg.cluster.slurm.keeping import keep_key

PATIENCE = 120.0  # seconds for a controller that does not answer; the nodes wait meanwhile
PAUSE = 5.0  # seconds
_OF_ARRAY = "SLURM_ARRAY_"

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A job as its own environment has it. `script` is a hash of what it runs."""

    id: str
    cluster: str
    uid: int
    name: str  # the run's, of job.yaml
    script: str


@dataclass(frozen=True)
class Known:
    """What Slurm keeps of the job. `submitted`: unix seconds, the last time it was queued."""

    key: str | None
    submitted: float | None


def ask(
    job: Job,
    slurm: Slurm,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Known | None:
    """What Slurm keeps of the job; None if it can't be asked from here (a container, say)."""
    facts = _own(job, _answer(slurm.mine, clock, pause) or ())
    return None if facts is None else Known(_key_in(job, facts), facts.submitted)


def own_environment(
    environ: Mapping[str, str],
    slurm: Slurm,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """`environ` with the array of this very job, by Slurm's word; as it is without an answer.

    A job that was submitted inside of an array's task inherits that array's variables, and would
    take itself for the other task.
    """
    number = environ.get("SLURM_JOB_ID", "")
    detail = _answer(lambda: slurm.show(number), clock, pause) if number.isdecimal() else None
    if detail is None:
        return dict(environ)
    array, _, task = detail.id.partition("_")
    if task and (environ.get(ARRAY), environ.get(TASK)) == (array, task):
        return dict(environ)
    own = {name: value for name, value in environ.items() if not name.startswith(_OF_ARRAY)}
    return own | ({ARRAY: array, TASK: task} if task else {})


def keep(job: Job, key: str, slurm: Slurm) -> bool:
    """Writes the key where a requeue will find it. False: Slurm does not keep it."""
    return keep_key(job.id, job.name, key, slurm)


def was_restarted(job: Job, slurm: Slurm) -> bool:
    """Whether Slurm has queued the job again: its time of submission is no longer the first one.

    False where Slurm does not say.
    """
    try:
        detail = slurm.show(job.id)
    except SlurmError:
        return False
    return detail is not None and detail.restarts > 0


def new_key(job: Job, digits: str) -> str:
    """A key that follows from the job and its own first digits (12, hex)."""
    return digits + _hash(digits, str(job.uid), job.cluster, job.id)[: 32 - KEY_IN_NAME]


def fixed_key(job: Job, number: int) -> str:
    """The key of a job that Slurm keeps none for; `number` parts jobs of one id."""
    return new_key(job, _hash(job.script, job.cluster, job.id, str(number))[:KEY_IN_NAME])


def run_id(job: Job, key: str) -> str:
    """`<name>-j<job id>-<hash of cluster, job id and key>`."""
    return f"{job.name}-j{job.id}-{_hash(job.cluster, job.id, key)[:8]}"


def script_hash(text: str, overrides: Iterable[str]) -> str:
    return _hash(text, *overrides)


def cluster_name(environ: Mapping[str, str]) -> str:
    return environ.get("SLURM_CLUSTER_NAME", "")


def _answer(
    question: Callable[[], T], clock: Callable[[], float], pause: Callable[[float], None]
) -> T | None:
    """Slurm's answer, waited for; None if it can't be asked from here."""
    until = clock() + PATIENCE
    while True:
        try:
            return question()
        except SlurmUnreachable:
            if clock() >= until:
                return None
            pause(PAUSE)
        except SlurmError:
            return None


def _own(job: Job, jobs: Iterable[JobFacts]) -> JobFacts | None:
    return next((facts for facts in jobs if facts.id == job.id), None)


def _key_in(job: Job, facts: JobFacts) -> str | None:
    if facts.key is not None:
        return facts.key
    found = re.fullmatch(rf"{re.escape(job.name)}\.([0-9a-f]{{{KEY_IN_NAME}}})", facts.name)
    return new_key(job, found[1]) if found else None


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()
