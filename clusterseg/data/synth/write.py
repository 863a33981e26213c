"""Writes a synthetic data set as one folder that appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from clusterseg import registry
from clusterseg.data.synth.recipe import Recipe
from clusterseg.errors import ClustersegError, ExitCode

_LAYOUTS = "clusterseg.data.synth.layouts"
_OPTIONS = frozenset({"extra", "labels"})  # of a recipe, that only some layouts go by
_MARKER = "synth.json"  # beside the data: tells our folders from a user's


@dataclass(frozen=True)
class Contents:
    """Number and size of a data set's files, and a SHA-256 over their names and bytes."""

    files: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Written:
    """What `write_dataset` did. `kept`: the same files were there already."""

    root: Path
    contents: Contents
    kept: bool


def write_dataset(
    recipe: Recipe,
    root: Path,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Makes the data set of `recipe` in the folder `root`; calls `progress(files done, of all)`.

    Written beside `root` and renamed, so a kill leaves no half data set there. A folder that
    holds the same set already is left as it is. Another set of ours is replaced with `force`;
    what `data synth` did not write is never removed.

    Raises ClustersegError: unknown layout, numbers out of range, a folder in the way, no space.
    """
    layout = registry.load(_LAYOUTS, "layout", recipe.format)
    if problem := recipe.problem() or _unused(recipe, layout.OPTIONS):
        raise ClustersegError(problem, code="usage")
    names = layout.names(recipe)
    try:
        root = Path(os.path.expanduser(root)).resolve()  # noqa: PTH111 (never raises)
        present = _read_marker(root)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, until Python 3.13
        raise _not_written(root, error) from error
    if present is not None:
        made, contents = present
        if made == recipe and _measure(root, names) == contents:
            return Written(root, contents, kept=True)
        if not force:
            raise _different(root, made, recipe)
        _refuse_foreign(root, layout.names(made))

    fresh = root.with_name(f".{root.name}.partial-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        contents = _fill(fresh, recipe, layout.files(recipe), len(names), progress)
        _put(fresh, root, replace=present is not None)
    except OSError as error:
        if present is None and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            # Another process was faster: judge what it wrote as if it had been there before.
            return write_dataset(recipe, root, force=force, progress=progress)
        raise _not_written(root, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Written(root, contents, kept=False)


def layout_names() -> list[str]:
    """All names that a recipe's `format` may have, sorted."""
    return registry.names(_LAYOUTS)


def _unused(recipe: Recipe, options: frozenset[str]) -> str | None:
    """What is asked for that the layout can't give, or None."""
    for field in fields(Recipe):
        if field.name in _OPTIONS - options and getattr(recipe, field.name) != field.default:
            return f"--{field.name} means nothing to the layout {recipe.format!r}"
    return None


def _fill(
    folder: Path,
    recipe: Recipe,
    files: Iterable[tuple[str, bytes]],
    total: int,
    progress: Callable[[int, int], None],
) -> Contents:
    folder.mkdir(parents=True)
    digest, size, count = hashlib.sha256(), 0, 0
    for name, content in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        _add(digest, name, content)
        size, count = size + len(content), count + 1
        progress(count, total)
    contents = Contents(count, size, digest.hexdigest())
    marker = {"recipe": asdict(recipe), "contents": asdict(contents)}
    (folder / _MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
    return contents


def _measure(root: Path, names: Iterable[str]) -> Contents | None:
    """The contents of the files `names` as they are now; None if one is missing."""
    digest, size, count = hashlib.sha256(), 0, 0
    for name in names:
        try:
            content = (root / name).read_bytes()
        except OSError:
            return None
        _add(digest, name, content)
        size, count = size + len(content), count + 1
    return Contents(count, size, digest.hexdigest())


def _add(digest: hashlib._Hash, name: str, content: bytes) -> None:
    digest.update(f"{name} {len(content)}\n".encode())
    digest.update(content)


def _read_marker(root: Path) -> tuple[Recipe, Contents] | None:
    """What stands in `root`, or None if it does not exist or is empty; refuses anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    try:
        marker = json.loads((root / _MARKER).read_text(encoding="utf-8"))
        recipe = Recipe(**{**marker["recipe"], "size": tuple(marker["recipe"]["size"])})
        return recipe, Contents(**marker["contents"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ClustersegError(
            f"{root} exists and was not written by `clusterseg data synth`",
            code="folder-in-the-way",
            help="give another folder, or move this one away",
        ) from error


def _different(root: Path, made: Recipe, wanted: Recipe) -> ClustersegError:
    changed = [
        f"{key} {value} instead of {asdict(wanted)[key]}"
        for key, value in asdict(made).items()
        if value != asdict(wanted)[key]
    ]
    what = ", ".join(changed) or "files that were changed or removed since"
    return ClustersegError(
        f"{root} holds another synthetic data set: {what}",
        code="folder-in-the-way",
        help="give another folder, or --force to replace it",
    )


def _refuse_foreign(root: Path, ours: Iterable[str]) -> None:
    """Refuses to replace a folder in which there is a file that `data synth` did not write."""
    known = {_MARKER, *ours}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name not in known and (path.is_symlink() or not path.is_dir()):
            raise ClustersegError(
                f"{root} also holds {name}, which `clusterseg data synth` did not write",
                code="folder-in-the-way",
                help="move it away first, or give another folder",
            )


def _put(fresh: Path, root: Path, *, replace: bool) -> None:
    """Renames `fresh` to `root`; what stood there goes away after the new one is in its place."""
    old = fresh.with_name(fresh.name + ".old")
    if replace:
        root.rename(old)
    try:
        fresh.rename(root)  # also onto an empty folder
    except OSError:
        if replace:
            old.rename(root)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _not_written(root: Path, error: OSError | RuntimeError) -> ClustersegError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ClustersegError(
            f"no space left to write {root}; nothing was changed",
            code="disk-full",
            help="free space, or make fewer or smaller pictures",
            exit_code=ExitCode.FAILED,
        )
    return ClustersegError(
        f"can't write {root}: {getattr(error, 'strerror', None) or error}",
        code="not-written",
        help="give another folder, or mend this one",
        exit_code=ExitCode.FAILED,
    )
