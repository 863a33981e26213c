"""A finished attempt as one file, `attempts/NNN.tar.zst`: written, checked, read as a stream.

Used through `clusterseg.runs.attempts`, which imports it when there is an archive.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import zstandard

from clusterseg.runs.attempts import folder_names
from clusterseg.runs.eventlog import ByteStream, open_regular
from clusterseg.runs.paths import AttemptPaths

CHUNK = 1 << 18
# What a reader is ready to hold for one archive; zstd's default levels need 8 MB at most.
LARGEST_WINDOW = 1 << 27

_DAMAGE = (zstandard.ZstdError, tarfile.TarError, EOFError, UnicodeDecodeError, ValueError)


def pack(paths: AttemptPaths) -> Path:
    """Packs an ended attempt and removes its folder; returns the archive.

    The folder goes only after the archive is on the disk and was compared with it byte by byte.
    Killed at any moment, this leaves the folder, or the archive, or both; called again, it
    finishes. Raises OSError, with the folder untouched, if anything differs or fails.
    """
    if not paths.packed.exists():
        if not paths.end.exists():
            raise OSError(f"{paths.folder} has no end record: it is not packed while it may run")
        _write_archive(paths)
    elif not paths.folder.exists():
        return paths.packed
    removable = _same_as_folder(paths.packed, paths.folder)
    for name in reversed(removable):
        (paths.folder / name).unlink()
    below = [Path(where) for where, _, _ in os.walk(paths.launcher, topdown=False)]
    for folder in (*below, paths.ranks, paths.folder):
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            break  # something stands there that is not ours to delete; readers take the archive
    _sync_folder(paths.packed.parent)
    return paths.packed


def members(archive: Path) -> Iterator[tuple[str, ByteStream]]:
    """The files of an archive in order; a stream is good until the next one is asked for.

    Names are relative to the attempt's folder, also if a person packed it from outside
    (`./claim.json`, `000/claim.json`). Raises OSError if the archive is missing or damaged.
    """
    with open_regular(archive) as file:
        try:
            decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
            plain = decompressor.stream_reader(
                cast(IO[bytes], file), read_size=CHUNK, read_across_frames=True, closefd=False
            )
            with tarfile.open(fileobj=plain, mode="r|", bufsize=CHUNK) as tar:
                for info in tar:
                    stream = tar.extractfile(info) if info.isreg() else None
                    if stream is not None:
                        yield _name_in(info.name, archive), _Member(stream, archive)
                    tar.members = []  # type: ignore[attr-defined]  # else it keeps every header
        except _DAMAGE as error:
            raise OSError(f"{archive} is damaged ({error})") from error


def _name_in(name: str, archive: Path) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if parts[:1] == ["attempts"]:
        del parts[0]
    if parts[:1] == [archive.name.partition(".")[0]]:
        del parts[0]
    return "/".join(parts)


class _Member:
    """A file inside an archive, whose damage is an OSError like that of any file."""

    def __init__(self, stream: ByteStream, archive: Path) -> None:
        self._stream = stream
        self._archive = archive

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except _DAMAGE as error:
            raise OSError(f"{self._archive} is damaged ({error})") from error


def _write_archive(paths: AttemptPaths) -> None:
    temporary = paths.packed.with_name(f".{paths.packed.name}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
            with compressor.stream_writer(file, closefd=False) as packed:
                _write_tar(packed, paths.folder)
            file.flush()
            os.fsync(descriptor)
        _same_as_folder(temporary, paths.folder)
        os.link(temporary, paths.packed)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(paths.packed.parent)


def _write_tar(packed: zstandard.ZstdCompressionWriter, folder: Path) -> None:
    with tarfile.open(fileobj=packed, mode="w|", bufsize=CHUNK) as tar:
        for name in folder_names(folder):
            with (folder / name).open("rb") as source:
                status = os.fstat(source.fileno())
                info = tarfile.TarInfo(name)
                info.size = status.st_size
                info.mtime = int(status.st_mtime)
                info.mode = 0o600
                tar.addfile(info, source)


def _same_as_folder(archive: Path, folder: Path) -> list[str]:
    """The files that stand in both, all of them equal; raises OSError for any difference.

    The archive may hold more (an earlier call was killed while it removed the folder).
    """
    remaining = set(folder_names(folder))
    same: list[str] = []
    for name, stream in members(archive):
        if name not in remaining:
            continue
        with (folder / name).open("rb") as source:
            while True:
                chunk = source.read(CHUNK)
                if chunk != _read_exactly(stream, len(chunk) or 1):
                    raise OSError(f"{archive} and {folder / name} differ: nothing was removed")
                if not chunk:
                    break
        remaining.discard(name)
        same.append(name)
    if remaining:
        raise OSError(f"{archive} lacks {', '.join(sorted(remaining))}: nothing was removed")
    return same


def _read_exactly(stream: ByteStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
