"""Makes TensorFlow use what this rank was given: the cores it is bound to, its accelerator."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from clusterseg.errors import ClustersegError, ExitCode

Gpu = TypeVar("Gpu")
# By kind the maker's package, and its module. Habana: "Migrating to HPU" of its TensorFlow guide;
# Ascend: "TF Adapter", for TensorFlow 2.6.
_PLUGINS = {
    "hpu": ("habana-tensorflow", "habana_frameworks.tensorflow"),
    "npu": ("Ascend's TF Adapter (npu_device)", "npu_device"),
}


def rank_threads(environ: Mapping[str, str], cores: int) -> int:
    """Threads for computing: OMP_NUM_THREADS if it asks for fewer than the rank has cores."""
    asked = environ.get("OMP_NUM_THREADS", "")
    if asked.isascii() and asked.isdigit() and int(asked) > 0:
        return min(int(asked), cores)
    return cores


def prepare_tensorflow(
    threads: int, *, deterministic: bool, accelerator: str = "none", local_rank: int = 0
) -> None:
    """Sets TensorFlow's pools and devices; call it before TensorFlow has done any work.

    Two threads run independent operations: one may wait for other ranks inside the reduction,
    and something must be left for what does not depend on it.

    `accelerator` is what the rank computes on: `none` hides all GPUs; `cuda` takes one of those
    that it sees; `hpu` and `npu` load the makers' plug-ins, which are made for older TensorFlow
    (docs/training.md) and untested here. Raises ClustersegError (`no-accelerator`) if there is
    none, or no plug-in.
    """
    plugin = _Plugin(accelerator) if accelerator in _PLUGINS else None
    import tensorflow as tf

    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    if accelerator == "cuda":
        gpu = own_gpu(tf.config.list_physical_devices("GPU"), local_rank, os.environ)
        tf.config.set_visible_devices([gpu], "GPU")
        # Ranks that share a GPU on purpose must not each take all of its memory.
        tf.config.experimental.set_memory_growth(gpu, True)
    else:
        # A job that asks for no GPU must not take memory of one that is there.
        tf.config.set_visible_devices([], "GPU")
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if plugin is not None:
        plugin.open()


def own_gpu(seen: Sequence[Gpu], local_rank: int, environ: Mapping[str, str]) -> Gpu:
    """The GPU of a rank among those that its process sees: by local rank, where it is all of the
    host's; its own, where it is one."""
    if not seen:
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        where = "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"
        raise _no_accelerator(
            f"the job wants accelerator: cuda, but TensorFlow finds no GPU{where}",
            "install its CUDA libraries (pip install 'tensorflow[and-cuda]'), and see nvidia-smi "
            "on this host; or train with accelerator: none",
        )
    return seen[local_rank % len(seen)]


class _Plugin:
    """A maker's module that teaches TensorFlow its accelerator: imported before TensorFlow."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._package, module = _PLUGINS[kind]
        self._module = self._do(lambda: importlib.import_module(module), absent=True)

    def open(self) -> None:
        """Makes it TensorFlow's default device."""
        if self._kind == "hpu":
            self._do(self._module.load_habana_module)
        else:
            number = os.environ.get("ASCEND_DEVICE_ID", "0")
            self._do(lambda: self._module.open(int(number)).as_default())

    def _do(self, what: Callable[[], Any], *, absent: bool = False) -> Any:
        try:
            return what()
        except Exception as error:  # of theirs, whatever it is
            if absent and isinstance(error, ModuleNotFoundError):
                raise _no_accelerator(
                    f"the job wants accelerator: {self._kind}, but {self._package} is not "
                    f"installed here ({error})",
                    "install it as its maker says, or train with accelerator: none",
                ) from error
            raise _no_accelerator(
                f"the job wants accelerator: {self._kind}, but {self._package} could not be "
                f"loaded: {type(error).__name__}: {error}",
                "it may be made for another TensorFlow than this one; docs/training.md, "
                "Accelerators, says what is known",
            ) from error


def _no_accelerator(what: str, help: str) -> ClustersegError:
    return ClustersegError(what, code="no-accelerator", help=help, exit_code=ExitCode.FAILED)
