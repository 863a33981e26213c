"""Makes TensorFlow use what this rank was given: the cores it is bound to, no accelerator."""

from __future__ import annotations

import os
from collections.abc import Mapping


def rank_threads(environ: Mapping[str, str], cores: int) -> int:
    """Threads for computing: OMP_NUM_THREADS if it asks for fewer than the rank has cores."""
    asked = environ.get("OMP_NUM_THREADS", "")
    if asked.isascii() and asked.isdigit() and int(asked) > 0:
        return min(int(asked), cores)
    return cores


def prepare_tensorflow(threads: int, *, deterministic: bool) -> None:
    """Sets TensorFlow's pools and devices; call it before TensorFlow has done any work.

    Two threads run independent operations: one may wait for other ranks inside the reduction,
    and something must be left for what does not depend on it.
    """
    import tensorflow as tf

    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    # A job that asks for no accelerator must not take memory of one that is there.
    tf.config.set_visible_devices([], "GPU")
    if deterministic:
        tf.config.experimental.enable_op_determinism()
