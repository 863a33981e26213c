"""The user's code: the snapshot that is asked for, and what git knows of any submission's.

Taken when the run directory is made, as the working tree stands then; `code_copy` does it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from clusterseg.errors import ClustersegError, ExitCode
from clusterseg.plan.model import CodeSource, Plan
from clusterseg.runs import files
from clusterseg.runs.paths import RunPaths
from clusterseg.submit.code_files import looks_like_code, named, paths_past_the_copy
from clusterseg.submit.git import Git, GitFailed, Status, find_top

PATIENCE = 30.0  # seconds for git where the code is asked for
_BRIEF = 1.0  # seconds where it is only noted
_LARGEST_DIFF = 4 << 20  # bytes
_MOST_CHANGED = 1000  # names in git.json


class CopyRecord(Struct, frozen=True):
    """The snapshot in git.json: files and links together, and what could not be in it."""

    files: int
    bytes: int
    missing: tuple[str, ...]
    not_followed: tuple[str, ...]


class GitRecord(Struct, frozen=True, kw_only=True):
    """`git.json` of a submission. What is None was not known.

    `diff_cut`: git.diff holds only the beginning of it.
    """

    top: str
    commit: str | None
    branch: str | None
    dirty: bool | None
    changed: tuple[str, ...] = ()
    diff_cut: bool = False
    snapshot: CopyRecord | None = None


class Code(Struct, frozen=True):
    """What goes into a new run: the records of its submission, and who copies the code."""

    git: bytes | None = None
    diff: bytes | None = None
    copy: Callable[[Path], None] | None = None


def find_code(directory: Path, environ: Mapping[str, str]) -> CodeSource:
    """What a snapshot from `directory` (absolute, without links) is taken of.

    Raises ClustersegError where there is no commit, no repository or no git.
    """
    if find_top(directory) is None:
        raise _no_snapshot(
            f"{directory} is in no git repository",
            "`git init` and commit the code, go to its repository, or use `code: in-place`",
        )
    try:
        git = Git(directory, environ)
        said = git.ask("rev-parse", "--show-toplevel", "HEAD", patience=PATIENCE).data
    except GitFailed as error:
        if "HEAD" in str(error):
            raise _no_snapshot(
                f"the git repository of {directory} has no commit yet",
                "commit the code, or use `code: in-place`",
            ) from None
        raise _no_snapshot(str(error), "mend it, or use `code: in-place`") from None
    top = os.fsdecode(said.rstrip(b"\n").rpartition(b"\n")[0])
    try:
        top.encode()
    except UnicodeEncodeError:
        raise _no_snapshot(f"the folder's name is not UTF-8: {top!a}", "rename it") from None
    return CodeSource(top=top, directory=str(directory))


def snapshot_warnings(
    code: CodeSource, words: Sequence[str], environ: Mapping[str, str]
) -> list[str]:
    """What will run from elsewhere than the snapshot, or be missing in it.

    `words` are those of the user's command, `environ` what the job will see.
    """
    warnings = []
    python_path = environ.get("PYTHONPATH", "").split(":")
    if past := paths_past_the_copy([*words, *python_path], code.top):
        warnings.append(
            f"code: snapshot: {named(past)} name the original, which a requeue will find as it "
            "is then; relative paths mean the snapshot"
        )
    if untracked := untracked_code(Path(code.top), environ):
        warnings.append(
            f"code: snapshot: not in it, since git does not track them: {named(untracked)}"
        )
    return warnings


def gather(plan: Plan, environ: Mapping[str, str]) -> Code:
    """The code of a plan that is about to become a submission.

    For `code: in-place` whatever git can tell at once. Raises ClustersegError if a snapshot is
    asked for and can't be taken.
    """
    if plan.code is None:
        return _noted(Path(plan.directory), environ)
    from clusterseg.submit.code_copy import copy_code, take_inventory  # noqa: PLC0415 (seldom)

    source = plan.code
    try:
        git = Git(Path(source.top), environ)
        inventory = take_inventory(source.top, git, patience=PATIENCE)
        status = git.status(patience=PATIENCE)
        diff, cut = _diff(git, status, PATIENCE)
    except GitFailed as error:
        raise _no_snapshot(str(error), "mend it, or use `code: in-place`") from None
    copied = CopyRecord(
        files=len(inventory.files) + len(inventory.links),
        bytes=inventory.size,
        missing=_shown(inventory.missing[:_MOST_CHANGED]),
        not_followed=_shown(inventory.foreign[:_MOST_CHANGED]),
    )
    return Code(
        git=_record(source.top, status, cut, copied),
        diff=diff,
        copy=lambda folder: copy_code(inventory, folder, source),
    )


def gather_again(run: RunPaths, plan: Plan, environ: Mapping[str, str]) -> Code:
    """The code of a run that is resumed: it goes on with the snapshot that it has.

    One that has none, and is asked to have one from here on, gets it now. Raises ClustersegError.
    """
    if plan.code is None:
        return gather(plan, environ)
    if run.code.is_dir():
        return Code()
    code = gather(plan, environ)
    if code.copy is not None:
        new = run.root / f".new-code-{os.urandom(4).hex()}"
        try:
            code.copy(new)
            new.rename(run.code)
            files.sync_folder(run.root)
        except OSError as error:
            raise ClustersegError(
                f"{run.code} can't be written: {error.strerror or error}",
                code="run-dir",
                exit_code=ExitCode.FAILED,
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return Code(git=code.git, diff=code.diff)


def untracked_code(top: Path, environ: Mapping[str, str]) -> list[str]:
    """Files that look like code and that git neither tracks nor ignores, but for those of runs."""
    try:
        answer = Git(top, environ).ask(
            *("ls-files", "-z", "--others", "--exclude-standard"),
            patience=PATIENCE,
            largest=4 << 20,
        )
    except GitFailed:
        return []
    *whole, _ = answer.data.split(b"\0")
    runs: dict[Path, bool] = {}
    paths = looks_like_code(map(os.fsdecode, whole))
    return [path for path in paths if not _in_a_run(top, Path(path).parent, runs)]


def _in_a_run(top: Path, folder: Path, known: dict[Path, bool]) -> bool:
    """Whether a folder (relative to `top`) belongs to a run directory: a snapshot, say."""
    if folder == Path():
        return False
    if folder not in known:
        known[folder] = (top / folder / "run.json").exists() or _in_a_run(top, folder.parent, known)
    return known[folder]


def _noted(directory: Path, environ: Mapping[str, str]) -> Code:
    top = find_top(directory)
    if top is None:
        return Code()
    try:
        git = Git(top, environ)
    except GitFailed:
        return Code()
    try:
        status = git.status(patience=_BRIEF)
    except GitFailed:  # a large working tree on a slow file system; not allowed
        return _commit_only(git, top)
    try:
        diff, cut = _diff(git, status, _BRIEF)
    except GitFailed:
        diff, cut = None, True
    return Code(git=_record(str(top), status, cut, None), diff=diff)


def _commit_only(git: Git, top: Path) -> Code:
    """What git knows without a look at the working tree."""
    try:
        said = git.ask("rev-parse", "HEAD", patience=_BRIEF).data
    except GitFailed:  # the job does not need it
        return Code()
    commit = said.decode("ascii", "replace").strip()
    record = GitRecord(top=_shown([str(top)])[0], commit=commit, branch=None, dirty=None)
    return Code(git=msgspec.json.encode(record) + b"\n")


def _diff(git: Git, status: Status, patience: float) -> tuple[bytes | None, bool]:
    """What differs from the commit, None if nothing does; and whether it was cut."""
    if not status.changed or status.commit is None:
        return None, False
    answer = git.ask(
        *("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"),
        "HEAD",
        patience=patience,
        largest=_LARGEST_DIFF,
    )
    return answer.data, answer.cut


def _record(top: str, status: Status, cut: bool, copied: CopyRecord | None) -> bytes:
    record = GitRecord(
        top=_shown([top])[0],
        commit=status.commit,
        branch=None if status.branch is None else _shown([status.branch])[0],
        dirty=bool(status.changed),
        changed=_shown(status.changed[:_MOST_CHANGED]),
        diff_cut=cut,
        snapshot=copied,
    )
    return msgspec.json.encode(record) + b"\n"


def _shown(names: Sequence[str]) -> tuple[str, ...]:
    """Names as JSON can hold them: bytes that are no UTF-8 are written out."""
    return tuple(
        name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name in names
    )


def _no_snapshot(what: str, help: str) -> ClustersegError:
    return ClustersegError(f"code: snapshot: {what}", code="no-snapshot", help=help)
