"""Slurm's programs: the only place that starts them.

A program that says no has done nothing (`SlurmRefused`). One that gives no answer may have done
what it was asked to (`SlurmUnreachable`): sbatch says "Socket timed out" of jobs that were
accepted. The two must never be taken for each other.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from clusterseg.cluster.slurm.answers import Garbled, queue_format, read_detail, read_queue
from clusterseg.cluster.slurm.environment import scrubbed
from clusterseg.cluster.slurm.jobs import JobDetail, JobFacts
from clusterseg.errors import ClustersegError, ExitCode

_LARGEST = 64 << 20  # bytes of an answer
_SHOWN = 2000  # characters of an answer in an error


class SlurmError(ClustersegError):
    """Slurm could not be reached, or refused."""

    def __init__(self, message: str, *, code: str, help: str | None = None) -> None:
        super().__init__(message, code=code, help=help, exit_code=ExitCode.CLUSTER)


class SlurmMissing(SlurmError):
    """The program is not there."""


class SlurmRefused(SlurmError):
    """It said no, and did nothing. `said` is what it printed, whole."""

    def __init__(self, program: str, said: str) -> None:
        self.said = said
        # Slurm's programs mostly name themselves.
        named = said if said.startswith(f"{program}:") else f"{program}: {said}"
        message = named if said else f"{program} failed without a word"
        super().__init__(message, code="slurm-refused")


class SlurmUnreachable(SlurmError):
    """No answer: whether it did what it was asked to is not known.

    `killed`: the program was killed by somebody else's signal; Slurm is none the wiser.
    """

    def __init__(self, program: str, said: str, *, killed: bool = False) -> None:
        self.said, self.killed = said, killed
        super().__init__(
            f"{program} got no answer from Slurm: {said}",
            code="slurm-unreachable",
            help="`sinfo` tells whether the controller answers",
        )


class Slurm:
    """Slurm's commands, with their environment and a limit of time for each answer."""

    def __init__(self, environ: Mapping[str, str] = os.environ, *, patience: float = 20.0) -> None:
        """`patience`: seconds for an answer; sbatch itself waits for longer."""
        self._environ = scrubbed(environ)
        self._patience = patience

    def has(self, program: str) -> bool:
        """Whether a program is on the PATH."""
        return self._which(program) is not None

    def submit(self, options: Sequence[str], script: Path, *, directory: Path) -> str:
        """Gives a script to sbatch; returns the job's id."""
        said = self.run("sbatch", "--parsable", *options, str(script), directory=directory)
        for line in reversed(said.splitlines()):
            found = re.fullmatch(r"(\d+)(;[^;\s]*)?", line.strip())
            if found:
                return found[1]
        raise SlurmUnreachable("sbatch", f"no job id in {said[:200]!r}")

    def test_only(
        self, options: Sequence[str], script: Path, *, patience: float | None = None
    ) -> str | None:
        """What sbatch says of when such a job would start; None if it would not be taken."""
        # It submits nothing, so that no job can get the format of times for its own.
        form = {"SLURM_TIME_FORMAT": "%s"}
        try:
            return self.run(
                *("sbatch", "--test-only", *options, str(script)),
                patience=patience,
                variables=form,
                complaints=True,
            )
        except SlurmRefused:
            return None

    def mine(self) -> list[JobFacts]:
        """All jobs of this user that Slurm remembers, by one call; tasks of arrays one by one."""
        uid, mark = os.getuid(), random_mark()
        # With its header: an answer without any line of its own is none.
        # Without --all those in hidden partitions are left out, but for root and operators.
        said = self.run(
            *("squeue", "--all", f"--user={uid}", "-r", "-t", "all", "-o", queue_format(mark))
        )
        try:
            return read_queue(said, mark, uid)
        except Garbled as error:
            raise SlurmUnreachable("squeue", str(error)) from None

    def show(self, job_id: str) -> JobDetail | None:
        """One job; None if Slurm answers that it does not know it.

        For a task that waits together with others of its array, what they have in common.
        """
        try:
            said = self.run("scontrol", "-o", "show", "job", job_id)
        except SlurmRefused as error:
            if "Invalid job id" in error.said or error.said.endswith(" not found"):  # of a task
                return None
            raise
        records = re.split(r"\n(?=JobId=\d)", said)  # several for an array
        found = [detail for text in records if (detail := read_detail(text)) is not None]
        array = job_id.partition("_")[0]
        named = (job_id, array) if len(found) == 1 else (job_id,)
        return next((one for one in found if one.id in named or str(one.number) == job_id), None)

    def release(self, job_id: str, *, patience: float | None = None) -> None:
        """Lets a held job run. `patience`: seconds for the answer."""
        self.run("scontrol", "release", job_id, patience=patience)

    def requeue(self, job_id: str) -> None:
        """Queues a running job again; of an array give one task, else all of it is queued."""
        self.run("scontrol", "requeue", job_id)

    def exclude(self, job_id: str, hosts: Sequence[str]) -> None:
        """Keeps a pending job off these hosts."""
        self.update(job_id, f"ExcNodeList={','.join(hosts)}")

    def update(self, job_id: str, *settings: str) -> None:
        """Changes a job: `Name=value` as scontrol takes it."""
        self.run("scontrol", "update", f"JobId={job_id}", *settings)

    def cancel(self, *job_ids: str, pending_only: bool = False) -> None:
        """Ends jobs; one that is over already is no error."""
        only = ["--state=PENDING"] if pending_only else []
        try:
            self.run("scancel", *only, *job_ids)
        except SlurmRefused as error:
            if "Invalid job id" not in error.said and "already completed" not in error.said:
                raise

    def config(self) -> dict[str, str]:
        """`scontrol show config`, by name."""
        lines = self.run("scontrol", "show", "config").splitlines()
        pairs = (line.partition("=") for line in lines if "=" in line)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def run(
        self,
        program: str,
        *arguments: str,
        directory: Path | None = None,
        patience: float | None = None,
        variables: Mapping[str, str] = {},
        complaints: bool = False,
    ) -> str:
        """What a program prints to stdout, with `complaints` to stderr, too. Raises SlurmError."""
        path = self._which(program)
        if path is None:
            raise SlurmMissing(
                f"there is no {program} on the PATH",
                code="no-slurm",
                help="submit from a login node of the cluster, or load its module",
            )
        try:
            plain = _PLAIN if program in _LISTING else {}
            environ = {**self._environ, **plain, **variables}
            out, err = _run([path, *arguments], environ, directory, patience or self._patience)
            return out + err if complaints else out
        except subprocess.TimeoutExpired as late:
            raise SlurmUnreachable(program, f"silent for {late.timeout:.0f} s") from None
        except subprocess.CalledProcessError as failed:
            said = _said(failed.stderr, failed.stdout)
            if failed.returncode < 0:
                name = signal.Signals(-failed.returncode).name
                raise SlurmUnreachable(program, f"it was killed by {name}", killed=True) from None
            if re.search(_NO_ANSWER, said):
                raise SlurmUnreachable(program, said) from None
            raise SlurmRefused(program, said) from None
        except OSError as error:
            raise SlurmMissing(f"{path} can't be run: {error.strerror}", code="no-slurm") from None

    def _which(self, program: str) -> str | None:
        return shutil.which(program, path=self._environ.get("PATH", os.defpath))


def random_mark() -> str:
    """A word that parts fields, and that nobody could put into a name before."""
    return f"~{os.urandom(8).hex()}~"


# Programs that only talk; sbatch would hand these variables on to the job.
_LISTING = frozenset({"squeue", "sacct", "scontrol", "sinfo", "scancel"})
_PLAIN = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}  # times in unix seconds, whatever the zone

# What Slurm's programs say when the controller did not answer; the request may have arrived.
# Compiled when it is first needed: that takes longer than the ordinary answer.
_NO_ANSWER = (
    r"Socket timed out|Unable to contact slurm controller|Connection (refused|timed out|reset)"
    r"|Communication connection failure|Zero Bytes were transmitted|Transport endpoint"
    r"|Slurm backup controller in standby|Slurmctld is in the process|munge.*(connect|socket)"
    r"|Protocol authentication error|Insane message length|Unexpected message received"
    r"|[Cc]ontroller.*(not responding|shutting down)|error receiving|Header lengths are longer"
)


def _run(
    argv: Sequence[str], environ: Mapping[str, str], directory: Path | None, patience: float
) -> tuple[str, str]:
    """What it printed to stdout and to stderr."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environ),
        cwd=directory,
        start_new_session=True,  # Ctrl-C is ours: a half-done sbatch would leave us in doubt
    ) as process:
        try:
            out, err = process.communicate(timeout=patience)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, argv, out, err)
    return out[:_LARGEST].decode(errors="backslashreplace"), _said(err, None)


def _said(err: bytes | None, out: bytes | None) -> str:
    text = ((err or b"") + (out or b"")).decode(errors="backslashreplace").strip()
    return text[:_SHOWN]
