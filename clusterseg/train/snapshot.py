"""A copy of the state in the host's memory: what is written while the training goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterseg.runs.checkpoint_file import Tensor
from clusterseg.train.state import TrainState, tensor_of


class Snapshot:
    """Copies the variables of a state into memory that it uses again for each copy.

    `variable.numpy()` copies too, but into fresh memory, whose pages the kernel must first make:
    that takes ten times as long as the copy.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._memory: dict[str, NDArray[Any]] = {}

    def prepare(self) -> None:
        """Has the kernel make the pages, so that the first copy is as quick as the later ones."""
        for name, variable in self._state.variables.items():
            value = _value(variable)
            memory = np.empty(value.shape, value.dtype)
            memory.view(np.uint8).fill(0) if memory.ndim else memory.fill(0)
            self._memory[name] = memory

    def take(self) -> list[Tensor]:
        """All variables as they are now; good until the next call.

        No step may run meanwhile, and what was taken before must have been written.
        """
        return [self._copy(name, one) for name, one in self._state.variables.items()]

    def _copy(self, name: str, variable: Any) -> Tensor:
        value = _value(variable)
        memory = self._memory.setdefault(name, np.empty(value.shape, value.dtype))
        np.copyto(memory, value)
        return tensor_of(name, memory)


def _value(variable: Any) -> NDArray[Any]:
    """What the variable holds, without a copy where Python's buffers know its type."""
    try:
        return np.asarray(memoryview(variable.value.read_value()))
    except ValueError:  # bfloat16
        return np.asarray(variable.numpy())
