"""A rank's trainer inside a benchmark's own process: one core, no launcher, no other ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

CLUSTERSEG = str(Path(sys.executable).with_name("clusterseg"))


class Trainer:
    """All that a rank builds, for a network on synthetic pictures; a context manager.

    `loop` is that of an attempt 0 that was claimed in `folder`; `batch` is one real batch.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        size: tuple[int, int],
        batch: int,
        optimizer: dict[str, Any],
        checkpoint: dict[str, Any],
    ) -> None:
        import msgspec
        import tensorflow as tf

        from clusterseg.runs.paths import RunPaths
        from clusterseg.runs.records import Claim
        from clusterseg.spec.model import JobSpec
        from clusterseg.train import wishes
        from clusterseg.train.assembly import assemble
        from clusterseg.train.communicator.solo import SoloCommunicator
        from clusterseg.train.devices import prepare_tensorflow
        from clusterseg.train.loop import Loop
        from clusterseg.train.progress import Progress
        from clusterseg.train.saving import Saver
        from clusterseg.train.stopping import StopSources
        from clusterseg.train.watchdog import WatchedEvents

        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        prepare_tensorflow(1, deterministic=False)
        data = folder / "data"
        made = ["data", "synth", "--format", "camvid", str(data), "--train", "64", "--val", "1"]
        made += ["--test", "0", "--size", f"{size[0]}x{size[1]}"]
        subprocess.run([CLUSTERSEG, *made], check=True, capture_output=True)
        job = {
            "name": "bench",
            "train": {
                "model": {"name": model},
                "data": {"format": "camvid", "root": str(data), "size": list(size)},
                "optimizer": optimizer,
                "batch_size": batch,
                "epochs": 1_000_000,
            },
            "checkpoint": checkpoint,
        }
        self.spec = msgspec.convert(job, JobSpec)
        assert self.spec.train is not None
        self.paths = RunPaths(folder / "run")
        self.claim = Claim(
            t=0, attempt=0, submission=0, key="k", uid=0, job_id="j", host="h", boot_id="b",
            pid=1, pid_start=1, nonce="n", hosts={"h": 1}, ranks=1, argv=[],
        )  # fmt: skip
        self._stack = ExitStack()
        attempt = self.paths.attempt(0)
        attempt.events(0).parent.mkdir(parents=True)
        self.events = self._stack.enter_context(WatchedEvents(attempt.events(0)))
        communicator = SoloCommunicator()
        self.assembly = assemble(self.spec.train, communicator, flags=wishes.COUNT, threads=1)
        self.progress = Progress()
        self.stops = StopSources(self.paths.stop_file(0))
        self.saver = Saver(
            paths=self.paths,
            claim=self.claim,
            spec=self.spec.checkpoint,
            state=self.assembly.state,
            communicator=communicator,
            events=self.events,
            seed=0,
            batching=self.assembly.batching,
            identity=self.assembly.identity,
            schedule={},
        )
        self.loop = Loop(
            spec=self.spec.train,
            checkpoint=self.spec.checkpoint,
            assembly=self.assembly,
            progress=self.progress,
            communicator=communicator,
            saver=self.saver,
            events=self.events,
            stops=self.stops,
        )
        images = tf.random.stateless_uniform([batch, *size, 3], [0, 0])
        labels = tf.random.stateless_uniform(
            [batch, *size], [0, 1], 0, self.assembly.classes, tf.int32
        )
        self.batch = images, labels

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.saver.settle()
        self._stack.close()
