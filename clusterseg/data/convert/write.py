"""Writes a data set as TFRecord shards, in parallel; the folder appears whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clusterseg.data.convert.record import NOTHING, record, shard_name, shares
from clusterseg.data.dataset import Dataset, Part
from clusterseg.data.files import check_sample, is_of_the_file, read_labels
from clusterseg.data.formats.tfrecord import COLORS, IDS
from clusterseg.data.sources import image_data
from clusterseg.errors import ClustersegError, ExitCode

SAMPLES_A_SHARD = 250


@dataclass(frozen=True)
class Converted:
    """Samples of each part. `skipped`: what was left out, and why."""

    root: Path
    train: int
    validation: int
    test: int
    shards: int
    bytes: int
    skipped: tuple[str, ...]


def convert(
    dataset: Dataset,
    source: Path,
    root: Path,
    ignore: int | None,
    *,
    shards: int | None = None,
    workers: int = 1,
    skip: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Converted:
    """Writes all parts to the folder `root`, in the order of their samples; with the classes'
    names and colours, and their ids where these are other numbers.

    Files are the same byte for byte whatever the number of `workers`. Masks hold classes, and 255
    where the set has `ignore`. `source` is the folder that names are relative to; `shards` is a
    number a part (else one for 250 samples). With `skip` samples that can't be used are left out.
    A test part that can't be opened is left out, too: nobody trains on it.

    Raises ClustersegError: a folder in the way, more than 255 classes, a sample that can't be used,
    no space. Nothing is left then.
    """
    if dataset.classes > NOTHING:
        raise ClustersegError(
            f"{dataset.classes} classes, but masks of 8 bits hold {NOTHING} and a value for none",
            code="too-many-classes",
        )
    try:
        root = Path(os.path.expanduser(root)).resolve()  # noqa: PTH111 (never raises)
        free = not root.exists() or (root.is_dir() and not any(root.iterdir()))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, until Python 3.13
        raise _not_written(root, error) from error
    if not free:
        raise ClustersegError(
            f"{root} exists", code="folder-in-the-way", help="give another folder, or remove it"
        )
    fresh = root.with_name(f".{root.name}.partial-{os.getpid()}-{secrets.token_hex(3)}")
    try:
        fresh.mkdir(parents=True)
        writer = _Writer(fresh, source, ignore, skip, progress)
        test, unopened = _test(dataset)
        parts = (("train", dataset.train), ("val", dataset.validation), ("test", test))
        done = writer.write(parts, shards, workers)
        lines = (
            f"{r} {g} {b} {name}\n"
            for name, (r, g, b) in zip(dataset.class_names, dataset.colors, strict=True)
        )
        (fresh / COLORS).write_text("".join(lines), encoding="utf-8")
        numbers = tuple(range(dataset.classes))
        if (ids := dataset.label_ids or numbers) != numbers:
            lines = (f"{i} {name}\n" for i, name in zip(ids, dataset.class_names, strict=True))
            (fresh / IDS).write_text("".join(lines), encoding="utf-8")
        size = sum(path.stat().st_size for path in fresh.iterdir())
        fresh.rename(root)  # also onto an empty folder
    except OSError as error:
        raise _not_written(root, error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Converted(
        root,
        done["train"],
        done["val"],
        done["test"],
        writer.files,
        size,
        (*unopened, *writer.skipped),
    )


def _test(dataset: Dataset) -> tuple[Part, list[str]]:
    """The test part, empty if there is none; and why it can't be opened."""
    if dataset.test is None:
        return Part("test", (), ()), []
    try:
        return dataset.test(), []
    except ClustersegError as error:
        return Part("test", (), ()), [f"the test part: {error.message}"]


class _Writer:
    def __init__(
        self,
        folder: Path,
        source: Path,
        ignore: int | None,
        skip: bool,
        progress: Callable[[int, int], None],
    ) -> None:
        self._folder = folder
        self._source = Path(os.path.expanduser(source))  # noqa: PTH111 (never raises)
        self._ignore, self._skip, self._progress = ignore, skip, progress
        self._lock = threading.Lock()
        self._done = self._total = 0
        self.files = 0
        self.skipped: list[str] = []

    def write(
        self, parts: tuple[tuple[str, Part], ...], shards: int | None, workers: int
    ) -> dict[str, int]:
        """Samples written, by the part's name."""
        jobs = []
        for name, part in parts:
            wanted = shards or -(-len(part) // SAMPLES_A_SHARD) or 1
            for number, numbers in enumerate(cut := shares(len(part), wanted)):
                path = self._folder / shard_name(name, number, len(cut))
                jobs.append((name, part, numbers, path))
        self.files = len(jobs)
        self._total = sum(len(part) for _, part in parts)
        written = {name: 0 for name, _ in parts}
        pool = ThreadPoolExecutor(max(1, workers))
        try:
            for (name, *_), (count, left_out) in zip(
                jobs, pool.map(lambda job: self._shard(*job[1:]), jobs), strict=True
            ):
                written[name] += count
                self.skipped += left_out
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return written

    def _shard(self, part: Part, numbers: range, path: Path) -> tuple[int, list[str]]:
        left_out: list[str] = []
        with path.open("wb") as file:
            for number in numbers:
                try:
                    file.write(self._record(part, number))
                except ClustersegError as error:
                    if not (self._skip and is_of_the_file(error)):
                        raise
                    left_out.append(error.message)
                with self._lock:
                    self._done += 1
                    self._progress(self._done, self._total)
            file.flush()
            os.fsync(file.fileno())
        return len(numbers) - len(left_out), left_out

    def _record(self, part: Part, number: int) -> bytes:
        check_sample(part, number)
        sample = part.samples[number]
        name = str(sample.image)
        if sample.image.is_relative_to(self._source):
            name = sample.image.relative_to(self._source).as_posix()
        return record(name, image_data(sample), read_labels(part, number), self._ignore)


def _not_written(root: Path, error: OSError | RuntimeError) -> ClustersegError:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "no space left to write" if full else "can't write"
    return ClustersegError(
        f"{what} {root}: {getattr(error, 'strerror', None) or error}",
        code="disk-full" if full else "not-written",
        help="free space; nothing was left behind"
        if full
        else "give another folder, or mend this one",
        exit_code=ExitCode.FAILED,
    )
