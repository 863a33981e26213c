"""TensorBoard's event files: written, read back, and cut to the steps that count.

A file is a TFRecord file of `Event` messages (tensorflow/core/util/event.proto), both of which
TensorFlow has; the package tensorboard is needed for looking at them only. Values are of the
kinds `simple_value` and `image`, which every TensorBoard since 1.0 shows.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from clusterseg.runs import files

_Event = tf.compat.v1.Event
_Summary = tf.compat.v1.Summary
_SessionLog = tf.compat.v1.SessionLog
_VERSION = "brain.Event:2"  # what readers know a file of this kind by
_HEADER = struct.Struct("<QI")  # length of a record, its masked CRC-32C
_AROUND = _HEADER.size + 4  # bytes of a record beside its data
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Image:
    """A PNG with three channels; sizes in pixels."""

    png: bytes
    height: int
    width: int


class EventFile:
    """Writes one file anew, mode 0600. `last`: tag -> the last step that has a point, anywhere.

    A point that is not beyond the last of its tag is left out, so that no reader ever sees a
    curve go back. All methods raise OSError or tf.errors.OpError.
    """

    def __init__(self, path: Path, last: dict[str, int], wall_time: float) -> None:
        self._path = path
        self._last = last
        self._writer = _open(path)
        self._put(_Event(wall_time=wall_time, file_version=_VERSION))

    def begin_at(self, step: int, wall_time: float) -> None:
        """Says that points from `step` on come anew: TensorBoard drops those it holds."""
        start = _SessionLog(status=_SessionLog.START)
        self._put(_Event(wall_time=wall_time, step=step, session_log=start))

    def add(
        self,
        step: int,
        wall_time: float,
        scalars: Mapping[str, float],
        images: Mapping[str, Image] | None = None,
    ) -> None:
        """Points of the curves and pictures of optimizer step `step`."""
        values = [
            _Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()
            if self._is_new(tag, step)
        ]
        values += [
            _Summary.Value(
                tag=tag,
                image=_Summary.Image(
                    height=image.height,
                    width=image.width,
                    colorspace=3,
                    encoded_image_string=image.png,
                ),
            )
            for tag, image in (images or {}).items()
            if self._is_new(tag, step)
        ]
        if values:
            self._put(_Event(wall_time=wall_time, step=step, summary=_Summary(value=values)))

    def flush(self) -> None:
        """What was added can be read by others."""
        self._writer.flush()

    def sync(self) -> None:
        """What was added is on the disk."""
        self._writer.flush()
        _sync(self._path)

    def close(self) -> None:
        self._writer.close()

    def _is_new(self, tag: str, step: int) -> bool:
        if step <= self._last.get(tag, -1):
            return False
        self._last[tag] = step
        return True

    def _put(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


def trim(path: Path, limit: int, last: dict[str, int], temporary: Path) -> Path | None:
    """Copies to `temporary` what counts of the event file `path`: up to step `limit`.

    None, with no file left, if nothing does. `last` (as for EventFile) is brought up to date. A
    torn or damaged end is left out. The copy is on the disk, but has yet to be renamed; a process
    that still writes the original then does so in vain. Raises OSError or tf.errors.OpError, with
    no copy left: on a full disk half of one would only take room.
    """
    try:
        kept = _copy(path, limit, last, temporary)
        if kept:
            _sync(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if not kept:
        temporary.unlink()
        return None
    return temporary


def _copy(path: Path, limit: int, last: dict[str, int], temporary: Path) -> int:
    """How many values of `path` it copied."""
    kept = 0
    writer = _open(temporary)
    for record in _records(path):
        event = _Event.FromString(record)
        if event.step > limit:
            continue
        steps = {value.tag: event.step for value in event.summary.value}
        if any(step <= last.get(tag, -1) for tag, step in steps.items()):
            continue
        last.update(steps)
        kept += len(steps)
        writer.write(record)
    writer.close()
    return kept


def _open(path: Path) -> Any:
    files.make_empty(path)  # with its mode; the writer below keeps that
    return tf.io.TFRecordWriter(str(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _records(path: Path) -> Iterator[bytes]:
    """The records up to the first that is cut or whose checksum is wrong."""
    # Asked for no more than there is: meeting a cut record TensorFlow writes to stderr.
    records = tf.data.TFRecordDataset(str(path), buffer_size=_BUFFER).take(_whole_records(path))
    try:
        yield from records.as_numpy_iterator()
    except tf.errors.DataLossError:
        return


def _whole_records(path: Path) -> int:
    """How many records end before the file does, going by the lengths that they begin with."""
    count = 0
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        while len(header := stream.read(_HEADER.size)) == _HEADER.size:
            length, _ = _HEADER.unpack(header)
            position = stream.tell() - _HEADER.size + _AROUND + length
            if position > size:
                break
            stream.seek(position)
            count += 1
    return count
