"""Making run directories, and taking back what nobody started.

A run comes into being by one rename: what a killed `submit` leaves is nothing that `find_runs`
sees, or a run with everything in it that `resume` needs to start it. A further submission
(`resume`) is added in the same way; of two at once, one wins and the other is told.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError
from clusterseg.runs.files import FILE_MODE, FOLDER_MODE, make_private_dir, sync_folder
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Identity, Intent
from clusterseg.runs.store import attempted, iter_submissions

_NEW = ".new-"  # what is being made, or was when its maker was killed


class ArrayFiles(Struct, frozen=True):
    """What the runs of one job array share: the script of all tasks, and who is which (JSON)."""

    script: str
    record: bytes


class SubmissionFiles(Struct, frozen=True):
    """What a submission consists of. `plan` is the Plan as JSON, `script` the batch script.

    `git` (JSON) and `diff` are what git knew of the code; None: nothing. `array`: see
    `SubmissionPaths.array_script`. `job_id`: of a job that makes its own run directory.
    """

    job_yaml: str
    plan: bytes
    script: str
    intent: Intent
    git: bytes | None = None
    diff: bytes | None = None
    array: ArrayFiles | None = None
    job_id: str | None = None


def run_id(name: str, now: float, token: str) -> str:
    """`<name>-<UTC yyyymmdd-hhmmss>-<token>`; `now` in unix seconds, `token` four hex digits."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{token}"


def choose_run(root: Path, name: str, now: float) -> RunPaths:
    """A run directory that does not exist yet; nothing is made."""
    while True:
        folder = root / run_id(name, now, os.urandom(2).hex())
        if not folder.exists():
            return RunPaths(folder)


def create_run(
    run: RunPaths,
    identity: Identity,
    files: SubmissionFiles,
    copy_code: Callable[[Path], None] | None = None,
) -> SubmissionPaths:
    """Makes the run directory with its first submission, durably and at once.

    `copy_code` makes and fills, durably, the folder that it is given: the run's `code`.
    Raises ClustersegError if it can't be written.
    """
    with _explained(run.root.parent):
        make_private_dir(run.root.parent)
        new = RunPaths(_aside(run.root))
        with _undone(new.root):
            for folder in (new.root, new.submissions, new.control, new.checkpoints, new.attempts):
                _make_folder(folder)
            _put(new.identity, msgspec.json.encode(identity))
            _write_submission(new.submission(files.intent.submission), files)
            if copy_code is not None:
                copy_code(new.code)
            for folder in (new.submissions, new.root):
                sync_folder(folder)
            new.root.rename(run.root)  # a folder with files in it is never replaced
        sync_folder(run.root.parent)
    return run.submission(files.intent.submission)


def withdraw_run(run: RunPaths) -> bool:
    """Removes a run that the caller made just before, and of which nothing was ever started.

    False: it is left, since somebody else has gone on with it meanwhile (`resume`): it has an
    attempt, a job or a second submission. Raises OSError.
    """
    return not _is_used(run) and _withdraw(run.root, lambda gone: _is_used(RunPaths(gone)))


def withdraw_submission(run: RunPaths, submission: SubmissionPaths) -> bool:
    """Removes a submission that the caller added just before and that nothing was started of.

    False: it is left, since it has a job meanwhile, or a newer one follows it. Raises OSError.
    """
    if iter_submissions(run)[-1:] != [submission] or submission.job_id.exists():
        return False
    return _withdraw(submission.folder, lambda gone: SubmissionPaths(gone).job_id.exists())


def _is_used(run: RunPaths) -> bool:
    """Whether anything came of the first submission of a run, or was added to it."""
    submissions = iter_submissions(run)
    has_job = any(submission.job_id.exists() for submission in submissions)
    return has_job or len(submissions) > 1 or attempted(run)


def _withdraw(folder: Path, is_used: Callable[[Path], bool]) -> bool:
    gone = _aside(folder)
    try:
        folder.rename(gone)  # from here on nobody finds it
    except FileNotFoundError:  # another one was quicker
        return False
    if is_used(gone):  # somebody was quicker than the rename
        gone.rename(folder)
        return False
    shutil.rmtree(gone, ignore_errors=True)  # what is left has no name that anybody looks for
    return True


def add_submission(run: RunPaths, files: SubmissionFiles) -> SubmissionPaths:
    """Adds a submission to a run.

    Raises ClustersegError if another process added one with this number meanwhile, or if it
    can't be written.
    """
    submission = run.submission(files.intent.submission)
    new = SubmissionPaths(_aside(submission.folder))
    with _explained(run.submissions), _undone(new.folder):
        _write_submission(new, files)
        try:
            new.folder.rename(submission.folder)  # a folder with files in it is never replaced
        except OSError:
            if not submission.folder.exists():
                raise
            raise ClustersegError(
                f"{run.run_id} is being resumed by another process",
                code="already-resumed",
                help=f"clusterseg status {run.run_id}",
            ) from None
        sync_folder(run.submissions)
    return submission


class _explained:
    """Turns an OSError into an error for the person who can make room or give permission."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            no_folder = self._folder.exists() and not self._folder.is_dir()
            why = "it is not a folder" if no_folder else error.strerror or str(error)
            raise ClustersegError(
                f"{self._folder} can't be written: {why}",
                code="runs-dir",
                help="--runs-dir or $CLUSTERSEG_RUNS says where runs are kept",
            ) from error


def _aside(folder: Path) -> Path:
    """A name beside `folder` that nobody else uses and that stands for nothing."""
    return folder.with_name(f"{_NEW}{folder.name}-{os.urandom(4).hex()}")


@contextmanager
def _undone(folder: Path) -> Iterator[None]:
    """Removes what is being made in `folder` if it can't be finished (a full disk)."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=FOLDER_MODE)
    folder.chmod(FOLDER_MODE)  # the umask may have taken bits away


def _write_submission(submission: SubmissionPaths, files: SubmissionFiles) -> None:
    """Fills a new folder, durably; it has no name yet that anybody looks for."""
    _make_folder(submission.folder)
    _put(submission.job_yaml, files.job_yaml.encode())
    _put(submission.plan, files.plan)
    _put(submission.batch_script, files.script.encode())
    _put(submission.intent, msgspec.json.encode(files.intent))
    for path, data in ((submission.git, files.git), (submission.diff, files.diff)):
        if data is not None:
            _put(path, data)
    if files.job_id is not None:
        _put(submission.job_id, f"{files.job_id}\n".encode())
    if files.array is not None:
        _put(submission.array_script, files.array.script.encode())
        _put(submission.array_record, files.array.record)
    sync_folder(submission.folder)


def _put(path: Path, data: bytes) -> None:
    """A new file in a folder that is not in place yet: half the fsyncs of `files.commit_new`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        os.fchmod(descriptor, FILE_MODE)
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) or 0 :]
        os.fsync(descriptor)
