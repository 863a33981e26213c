"""What a job of `predict`'s fan-out does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from clusterseg.errors import ClustersegError
from clusterseg.train.inference.how import How
from clusterseg.train.inference.inputs import Input
from clusterseg.train.inference.parts import frame_name
from clusterseg.train.inference.source import Source

FUNCTION = f"{__name__}:predict_files"


def predict_files(
    source: str,
    *,
    how: dict[str, Any],
    output: str,
    kinds: list[str],
    files: list[dict[str, Any]],
    every: int,
) -> dict[str, Any]:
    """`pictures`: a record of each; `failures`: what could not be read, as {file, error}; `device`:
    why it was computed on the CPU, though the job trains on an accelerator, or None.

    `source` is a `Source` in JSON. Of what moves, every `every`-th frame of its range is a picture
    of its own, called `<name>/frame-000000`. Raises ClustersegError for what is wrong with all: the
    network, or where it is written to.
    """
    from clusterseg.train.inference.device import prepare

    chosen = msgspec.json.decode(source, type=Source)
    device = prepare(chosen.accelerator)  # before what imports TensorFlow
    from clusterseg.train.inference import frames, writers
    from clusterseg.train.inference.network import opened
    from clusterseg.train.inference.predictor import Predictor

    try:
        network = opened(chosen)
        predictor = Predictor(network, msgspec.convert(how, How))
    except ClustersegError as error:
        error.is_of_all = True
        raise
    records: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []

    def predicted(name: str, path: str, picture: frames.Picture) -> None:
        found = predictor.predict(picture, name)
        writers.write(
            Path(output),
            name=name,
            kinds=tuple(kinds),
            picture=picture,
            found=found,
            of=network.classes,
        )
        records.append(writers.record(name, path, found, network.classes))

    for one in msgspec.convert(files, list[Input]):
        path = Path(one.path)
        try:
            if not one.moves:
                predicted(one.name, one.path, frames.read_picture(path))
                continue
            for number, picture in frames.frames(
                path, is_video=one.is_video, every=every, first=one.first, stop=one.stop
            ):
                predicted(frame_name(one.name, number), one.path, picture)
        except ClustersegError as error:
            if error.code not in {"unreadable-picture", "no-video"}:
                raise
            failures.append({"file": one.path, "error": error.message})
    return {
        "pictures": records,
        "failures": failures,
        "unknown": network.classes.unknown,
        "device": device.note,
    }
