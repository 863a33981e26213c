"""Which files a snapshot holds, and what a link in it points to. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence

from msgspec import Struct

from clusterseg.errors import ClustersegError
from clusterseg.runs.text import one_line

LARGEST = 512 << 20  # bytes of all files: code is small, data has no business in git
MOST = 50_000  # files
_NAMED = 8  # files that a message names
_LONGEST = 200  # characters of a name in a message

_CODE = frozenset(
    {
        *(".py", ".pyi", ".pyx", ".pxd", ".ipynb", ".sh", ".bash", ".r", ".jl", ".lua", ".m"),
        *(".c", ".h", ".cc", ".cpp", ".cxx", ".hpp", ".cu", ".cuh", ".f", ".f90", ".rs", ".go"),
    }
)


class File(Struct, frozen=True):
    """A regular file; `path` is relative to the top of the repository, `size` in bytes."""

    path: str
    size: int
    executable: bool


class Link(Struct, frozen=True):
    """A symbolic link and what it says."""

    path: str
    target: str


class Inventory(Struct, frozen=True):
    """What a snapshot will hold of the working tree at `top`.

    `missing` are tracked and not there (deleted, or left out by a sparse checkout); `foreign`
    are folders that are repositories of their own and hold nothing that this one tracks
    (submodules that are not checked out, too).
    """

    top: str
    files: tuple[File, ...]
    links: tuple[Link, ...] = ()
    missing: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def paths(self) -> list[str]:
        """Its files and links."""
        return [file.path for file in self.files] + [link.path for link in self.links]

    def folders(self) -> list[str]:
        """Every folder of the copy below its top, parents first."""
        found: set[str] = set()
        for path in self.paths():
            folder = posixpath.dirname(path)
            while folder and folder not in found:
                found.add(folder)
                folder = posixpath.dirname(folder)
        return sorted(found)


def refuse_unless_small(inventory: Inventory) -> None:
    """Raises ClustersegError for a repository that holds more than code."""
    if len(inventory.files) > MOST:
        what = f"{len(inventory.files)} files, more than the {MOST} that a snapshot may have"
    elif inventory.size > LARGEST:
        largest = sorted(inventory.files, key=lambda file: -file.size)[:3]
        shown = ", ".join(f"{shown_name(file.path)} ({_megabytes(file.size)})" for file in largest)
        what = (
            f"{_megabytes(inventory.size)}, more than the {_megabytes(LARGEST)} that a snapshot "
            f"may have; the largest: {shown}"
        )
    else:
        return
    raise ClustersegError(
        f"code: snapshot: what git tracks in {inventory.top} holds {what}",
        code="snapshot-too-large",
        help="keep data out of the repository, or use `code: in-place`",
    )


def copied_target(link: Link, inventory: Inventory, kept: frozenset[str]) -> str:
    """What a link says in the copy.

    A link to what is in the copy (`kept`: its files, links and folders) stays as it is, one to
    anything else keeps meaning the original.
    """
    if posixpath.isabs(link.target):
        return link.target
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(link.path), link.target))
    if meant == "." or meant in kept:
        return link.target
    return posixpath.normpath(posixpath.join(inventory.top, meant))


def looks_like_code(paths: Iterable[str]) -> list[str]:
    """Those of `paths` whose names end as programs do."""
    return [path for path in paths if posixpath.splitext(path)[1].lower() in _CODE]


def paths_past_the_copy(words: Iterable[str], top: str) -> list[str]:
    """The absolute paths among `words` that lie in the original repository."""
    below = top.rstrip("/") + "/"
    return [word for word in words if word == top or posixpath.normpath(word).startswith(below)]


def named(paths: Sequence[str]) -> str:
    """Some of the names, for a message."""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(map(shown_name, paths[:_NAMED])) + more


def shown_name(path: str) -> str:
    """A name of a file, which may hold anything, on one line."""
    return one_line(
        path.encode(errors="surrogateescape").decode(errors="backslashreplace"), _LONGEST
    )


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
