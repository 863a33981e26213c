"""Finding runs, and reading who they are and what was submitted.

`runs.making` makes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.runs.files import read_capped
from clusterseg.runs.paths import RunPaths, SubmissionPaths
from clusterseg.runs.records import Identity, Intent

RUNS_VARIABLE = "CLUSTERSEG_RUNS"
LR_FIND = "lr-find"  # the task of a run that is a learning rate range test
LARGEST_IDENTITY = 1 << 20  # bytes; real ones have some hundred

_SUBMISSION = re.compile(r"\d{3,9}")


def runs_root(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Where runs are made and found, absolute: --runs-dir, else $CLUSTERSEG_RUNS, else ./runs."""
    chosen = option if option is not None else Path(environ.get(RUNS_VARIABLE) or "runs")
    return Path.cwd() / _expanded(chosen)


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
