"""A script that a person gave to sbatch makes its own run directory, or finds the one it made.

A requeue goes on in it; another sbatch of the same file is another run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from clusterseg.cluster.slurm.allocation import Allocation
from clusterseg.cluster.slurm.commands import Slurm, SlurmError
from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.model import RUN_DIR
from clusterseg.plan.symbols import filled_line
from clusterseg.runs import making, store
from clusterseg.runs.attempts import last_attempt
from clusterseg.runs.paths import RunPaths
from clusterseg.submit.code import gather
from clusterseg.submit.job_identity import (
    Job,
    ask,
    cluster_name,
    fixed_key,
    keep,
    new_key,
    own_environment,
    run_id,
    script_hash,
    was_restarted,
)
from clusterseg.submit.job_text import read_text
from clusterseg.submit.request import read_request
from clusterseg.submit.submission import new_identity, new_intent, submission_files

_MOST = 1000  # jobs of one id, one script and one user


@dataclass(frozen=True)
class Adopted:
    """The job's run, its launch line with the run directory in it, and its own environment."""

    run: RunPaths
    line: tuple[str, ...]
    environ: Mapping[str, str]


def adopt(
    text: str,
    overrides: Sequence[str],
    root: Path,
    environ: Mapping[str, str],
    line: Sequence[str] = (),
    *,
    say: Callable[[str], None] = lambda text: None,
) -> Adopted:
    """The run of the job that this process is in; made at its first start.

    `text` is the job.yaml, `overrides` are `--set` arguments, runs are below `root`, `line` is
    the launch line as the script shows it. Raises ClustersegError outside of a Slurm job, for a
    bad job.yaml, and if `root` can't be written.
    """
    slurm = Slurm(environ)
    environ = own_environment(environ, slurm)
    allocation = Allocation.from_environ(environ)
    if allocation is None:
        raise ClustersegError(
            "this script is for sbatch: there is no Slurm job around it",
            code="no-allocation",
            help="sbatch FILE; or without Slurm: clusterseg submit job.yaml --set scheduler=local",
            exit_code=ExitCode.CLUSTER,
        )
    plan = read_request("job.yaml", overrides, environ, text=text, inside=True)
    for warning in plan.warnings:
        say(f"warning: {warning}")
    job = Job(
        id=allocation.job_id,
        cluster=cluster_name(environ),
        uid=os.getuid(),
        name=plan.name,
        script=script_hash(text, overrides),
    )
    run, key = _find(job, root, slurm, restarted=allocation.restart_count > 0)
    if not run.identity.exists():
        now = time.time()
        intent = replace(new_intent(plan, submission=0, overrides=overrides, now=now), key=key)
        code = gather(plan, environ)
        written = submission_files(run, plan, text, intent, code, after="")
        script = _own_script(job, slurm) or written.script
        try:
            making.create_run(
                run,
                new_identity(plan, intent, now),
                replace(written, job_id=job.id, script=script),
                code.copy,
            )
        except ClustersegError:
            if not run.identity.exists():  # else a process of this very job was quicker
                raise
    filled = filled_line(line, plan, {RUN_DIR: str(run.root)})
    return Adopted(run, filled, environ)


def keep_words(run: RunPaths, words: str) -> None:
    """Notes why nothing was started where `status` looks for it.

    What the job prints goes to a file that only the person knows who gave it to sbatch.
    """
    with suppress(OSError):
        descriptor = os.open(
            run.submission(0).output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
            if not os.path.samestat(os.fstat(2), os.fstat(descriptor)):
                file.write(f"{words}\n")


def _find(job: Job, root: Path, slurm: Slurm, *, restarted: bool) -> tuple[RunPaths, str]:
    """The run directory that is this job's, whether it exists or not, and its key."""
    known = ask(job, slurm)
    if known is not None and known.key is not None:
        return RunPaths(root / run_id(job, known.key)), known.key
    # The first start may not have been able to keep the key, or a controller that crashed has lost
    # it. An older job of this id was there before this one was submitted; but after a requeue
    # Slurm has only the time of that, and our own run is older.
    earlier = _made_by(job, root)
    if earlier and not restarted:
        restarted = known is not None and was_restarted(job, slurm)
    if not restarted and known is not None and known.submitted is not None:
        earlier = [
            (run, key, created) for run, key, created in earlier if created >= known.submitted
        ]
    elif not restarted:
        earlier = [(run, key, at) for run, key, at in earlier if not _is_over(run)]
    if earlier:
        run, key, _ = max(earlier, key=lambda each: each[2])
        keep(job, key, slurm)
        return run, key
    if known is not None:
        key = new_key(job, os.urandom(6).hex())
        if keep(job, key, slurm):
            return RunPaths(root / run_id(job, key)), key
        known = ask(job, slurm)  # what did not answer may have been done
        if known is not None and known.key is not None:
            return RunPaths(root / run_id(job, known.key)), known.key
    for number in range(_MOST):
        key = fixed_key(job, number)
        run = RunPaths(root / run_id(job, key))
        if not run.root.exists():
            return run, key
    raise ClustersegError(f"there are {_MOST} runs of job {job.id} in {root}", code="runs-dir")


def _made_by(job: Job, root: Path) -> list[tuple[RunPaths, str, float]]:
    """Runs of this job's id and script, with key and time of making."""
    found = []
    for run in store.find_runs(root):
        if not run.run_id.startswith(f"{job.name}-j{job.id}-"):
            continue
        try:
            identity = store.read_identity(run)
            intent = store.read_intent(run.submission(0))
            text = read_text(run.submission(0).job_yaml)
        except ClustersegError:
            continue
        overrides = intent.overrides if intent else []
        same = script_hash(store.original_text(text), overrides) == job.script
        if same and identity.uid == job.uid and run.run_id == run_id(job, identity.key):
            found.append((run, identity.key, identity.created))
    return found


def _is_over(run: RunPaths) -> bool:
    attempt = last_attempt(run)
    return attempt is not None and attempt.end is not None and not attempt.end.will_restart


def _own_script(job: Job, slurm: Slurm) -> str | None:
    """The script as Slurm has it; None if it does not say."""
    try:
        return slurm.run("scontrol", "write", "batch_script", job.id, "-") or None
    except SlurmError:
        return None
