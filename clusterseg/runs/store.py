"""Making and finding run directories.

A run comes into being by one rename: what a killed `submit` leaves is nothing that `find_runs`
sees, or a run with everything in it that `resume` needs to start it. A further submission
(`resume`) is added in the same way; of two at once, one wins and the other is told.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.files import (
    FILE_MODE,
    FOLDER_MODE,
    make_private_dir,
    read_capped,
    sync_folder,
)
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Identity, Intent

RUNS_VARIABLE = "CLUSTERSEG_RUNS"
LR_FIND = "lr-find"  # the task of a run that is a learning rate range test
LARGEST_IDENTITY = 1 << 20  # bytes; real ones have some hundred

_NEW = ".new-"  # what is being made, or was when its maker was killed
_SUBMISSION = re.compile(r"\d{3,9}")


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


def runs_root(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where runs are made and found, absolute: --runs-dir, else $CLUSTERSEG_RUNS, else ./runs."""
    chosen = option if option is not None else Path(environ.get(RUNS_VARIABLE) or "runs")
    return Path.cwd() / _expanded(chosen)


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


def iter_submissions(run: RunPaths) -> list[SubmissionPaths]:
    """The submissions of a run by number; junk between them is passed over."""
    try:
        names = os.listdir(run.submissions)  # noqa: PTH208 (names only)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [run.submission(number) for number in sorted(map(int, filter(_is_number, names)))]


def read_intent(submission: SubmissionPaths) -> Intent | None:
    """What was about to be submitted; None if there is no readable record of it."""
    try:
        return msgspec.json.decode(read_capped(submission.intent, LARGEST_IDENTITY), type=Intent)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_job_id(submission: SubmissionPaths) -> str | None:
    """The job's id as the scheduler gave it; None if it was never started."""
    try:
        text = read_capped(submission.job_id, 1024).decode("ascii", "replace").strip()
    except OSError:
        return None
    return text or None


def read_identity(run: RunPaths) -> Identity:
    """Who a run is. Raises ClustersegError if run.json can't be read."""
    try:
        return msgspec.json.decode(read_capped(run.identity, LARGEST_IDENTITY), type=Identity)
    except OSError as error:
        problem = error.strerror or str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = f"damaged ({error})"
    raise ClustersegError(
        f"{run.identity} can't be read: {problem}", code="bad-run", exit_code=ExitCode.FAILED
    )


def is_lr_find(run: RunPaths) -> bool:
    """Whether a run is a learning rate range test; False if run.json can't be read."""
    try:
        return read_identity(run).task == LR_FIND
    except ClustersegError:
        return False


def find_runs(root: Path) -> list[RunPaths]:
    """The runs below `root`, by name; folders that are none are passed over."""
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ClustersegError(
            f"{root} can't be read: {error.strerror}", code="runs-dir", exit_code=ExitCode.FAILED
        ) from None
    runs = (RunPaths(root / name) for name in sorted(names))
    return [run for run in runs if _is_run(run.root)]


def resolve_run(reference: str, root: Path) -> RunPaths:
    """The run meant by a run id, a unique prefix of one, or a run directory.

    Raises ClustersegError if there is none or more than one.
    """
    if reference and "/" not in reference and reference not in (".", ".."):
        if _is_run(root / reference) or _has_attempts(root / reference):
            return RunPaths(root / reference)
        matches = [run for run in find_runs(root) if run.run_id.startswith(reference)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise _ambiguous(reference, matches)
    folder = Path.cwd() / _expanded(reference)
    if reference and (_is_run(folder) or _has_attempts(folder)):
        return RunPaths(Path(os.path.normpath(folder)))
    raise _unknown(reference, root)


def _expanded(path: str | Path) -> Path:
    """`~` and `~user` filled in where there is such a user; `Path.expanduser` raises otherwise."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _ambiguous(reference: str, matches: list[RunPaths]) -> ClustersegError:
    shown = "\n".join(f"  {run.run_id}" for run in matches[-10:])
    more = f"\n  and {len(matches) - 10} more" if len(matches) > 10 else ""
    return ClustersegError(
        f"{reference!r} fits {len(matches)} runs:\n{shown}{more}",
        code="ambiguous-run",
        help="give more of the run id",
    )


def _unknown(reference: str, root: Path) -> ClustersegError:
    from difflib import get_close_matches  # noqa: PLC0415 (only when something is wrong)

    known = [run.run_id for run in find_runs(root)]
    near = get_close_matches(reference, known, n=1)
    if near:
        advice = f"did you mean {near[0]}?"
    elif known:
        advice = "`clusterseg list` shows the runs"
    else:
        advice = f"there are no runs in {root}; --runs-dir or ${RUNS_VARIABLE} says where they are"
    return ClustersegError(f"no run {reference!r} in {root}", code="unknown-run", help=advice)


def _is_run(folder: Path) -> bool:
    try:
        return (folder / "run.json").is_file()
    except (OSError, ValueError):  # no permission; a NUL or too long a name
        return False


def _has_attempts(folder: Path) -> bool:
    """A run that lost its run.json: named in full it can still be read."""
    try:
        return (folder / "attempts").is_dir()
    except (OSError, ValueError):
        return False


def _is_number(name: str) -> bool:
    return _SUBMISSION.fullmatch(name) is not None


def attempted(run: RunPaths) -> bool:
    """Whether anything stands below the attempts of a run."""
    try:
        with os.scandir(run.attempts) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return False


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


def job_text(text: str, overrides: Iterable[str]) -> str:
    """The text of job.yaml as it is kept: the overrides stand on top, as comments."""
    # ascii() keeps a newline in a value from ending the comment.
    on_top = [f"{_OVERRIDE}{ascii(override)[1:-1]}\n" for override in overrides]
    return "".join(on_top) + original_text(text)


def original_text(text: str) -> str:
    """The text of job.yaml as it was given."""
    lines = text.splitlines(keepends=True)
    while lines and lines[0].startswith(_OVERRIDE):
        del lines[0]
    return "".join(lines)


_OVERRIDE = "# clusterseg submit --set "


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
