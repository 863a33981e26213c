"""All that a deterministic run reproduces bit for bit, as named tensors.

Names are structural (the path of a layer in the model), so that a file written by one process
fits the model of another, whatever that one built before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from clusterseg.runs.checkpoint_file import Layout, Tensor
from clusterseg.runs.checkpoints import CheckpointError
from clusterseg.train.communicator import Communicator
from clusterseg.train.ema import Averages
from clusterseg.train.fingerprint import fingerprint
from clusterseg.train.optimizers import singles, slots
from clusterseg.train.precision import LossScale

_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16",
    "float16": "F16", "bfloat16": "BF16", "int32": "I32", "uint32": "U32", "float32": "F32",
    "int64": "I64", "uint64": "U64", "float64": "F64",
}  # fmt: skip


class TrainState:
    """The variables of `model`, optimizer and generators by name.

    `statistics` are the non-trainable float variables of layers that train (batch norm's moving
    ones), which ranks average every step: what a frozen layer has would not come out of a mean
    bit for bit as it was. `generators` are the states of seed generators (dropout). `averages`
    follow the trainable variables and the statistics with the decay `ema`, if that is given;
    `scale` is that of the loss, if it is `scaled` (float16).
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        ema: float | None = None,
        scaled: bool = False,
    ) -> None:
        self.model = model
        self.trainable = list(model.trainable_variables)
        self.generators = _generators(model)
        drawn = {id(variable) for variable in self.generators.values()}
        rest = [one for one in model.non_trainable_variables if id(one) not in drawn]
        if not all(str(one.dtype).startswith(("float", "bfloat")) for one in rest):
            raise ValueError("a non-trainable variable of the model is neither float nor a seed")
        frozen = _frozen(model)
        self.statistics = [one for one in rest if id(one) not in frozen]
        named = [(f"model/{one.path}", one) for one in [*self.trainable, *rest]]
        named += _optimizer_variables(optimizer, self.trainable)
        named += list(self.generators.items())
        self.averages: Averages | None = None
        if ema is not None:
            followed = [*self.trainable, *self.statistics]
            self.averages = Averages(followed, ema, optimizer.iterations)
            named += self.averages.named()
        self.scale = LossScale() if scaled else None
        if self.scale is not None:
            named += self.scale.named()
        self.variables: dict[str, Any] = dict(named)
        if len(self.variables) != len(named):
            raise ValueError("two variables have the same name: layer names must be unique")

    def load(self, name: str, layout: Layout, data: memoryview) -> None:
        """Sets all variables from a verified file; raises CheckpointError naming every misfit."""
        misfits = self._misfits(layout)
        if misfits:
            shown = "; ".join(misfits[:20]) + (f"; … ({len(misfits)})" if misfits[20:] else "")
            raise CheckpointError(f"{name} does not fit this model: {shown}", details=misfits)
        for key, variable in self.variables.items():
            slot = layout.tensors[key]
            stored = np.frombuffer(data[slot.begin : slot.end], _dtype(variable))
            variable.assign(stored.reshape(variable.shape))

    def broadcast(self, communicator: Communicator) -> None:
        """Gives every rank the state of rank 0, in one message."""
        if communicator.size == 1:
            return
        arrays = [_host(variable) for variable in self.variables.values()]
        packed = np.concatenate([array.reshape(-1).view(np.uint8) for array in arrays])
        received = communicator.broadcast(packed)
        if communicator.rank == 0:
            return
        start = 0
        for variable, array in zip(self.variables.values(), arrays, strict=True):
            part = received[start : start + array.nbytes]
            variable.assign(part.view(array.dtype).reshape(array.shape))
            start += array.nbytes

    def digest(self) -> int:
        """63 bits of a SHA-256 over what all ranks must hold alike: all but the generators."""
        digest = hashlib.sha256()
        for name, variable in self.variables.items():
            if name not in self.generators:
                digest.update(_bytes(_host(variable)))
        return int.from_bytes(digest.digest()[:8], "big") >> 1

    def fingerprint(self) -> int:
        """As `digest`, several times as quick; values of its own, not to be mixed with it."""
        return fingerprint(
            _seen(variable)
            for name, variable in self.variables.items()
            if name not in self.generators
        )

    def not_finite(self) -> str | None:
        """The name of a variable that holds NaN or infinity, or None. Looks at all of them."""
        return not_finite(tensor_of(name, _host(one)) for name, one in self.variables.items())

    def _misfits(self, layout: Layout) -> list[str]:
        misfits = [f"{key} is not expected" for key in layout.tensors.keys() - self.variables]
        for key, variable in self.variables.items():
            slot = layout.tensors.get(key)
            wanted = (_DTYPES[_dtype(variable).name], tuple(variable.shape))
            if slot is None:
                misfits.append(f"{key} is missing")
            elif (slot.dtype, slot.shape) != wanted:
                misfits.append(
                    f"{key} is {slot.dtype} {list(slot.shape)}, expected {wanted[0]} "
                    f"{list(wanted[1])}"
                )
        return sorted(misfits)


def tensor_of(name: str, array: NDArray[Any]) -> Tensor:
    """A variable's value in C order, to be written; its memory is not copied."""
    return Tensor(name, _DTYPES[array.dtype.name], array.shape, _bytes(array))


def generator_seeds(seed: int, step: int, first: int, count: int) -> NDArray[np.int64]:
    """int64 [count, 2]: the states of the seed generators before step `step`: (key, first).

    `first` is the place of the rank's first picture in the global batch. A function of the
    position alone: dropout draws the same numbers after a resume, and for a picture the same
    whichever rank reads it. Keys are below 2**31 - 1, as Keras folds states to int32.
    """
    words = np.random.SeedSequence([seed, step]).generate_state(count)
    keys = (words % (2**31 - 2)).astype(np.int64)
    return np.stack([keys, np.full(count, first, np.int64)], axis=1)


def not_finite(tensors: Iterable[Tensor]) -> str | None:
    """The name of a tensor that holds NaN or infinity, or None."""
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
    for tensor in tensors:
        kind = kinds.get(tensor.dtype)
        if kind and not _finite(np.frombuffer(tensor.data, kind)):
            return tensor.name
    return None


def _finite(values: NDArray[Any]) -> bool:
    # Both survive a sum, which needs no memory of its own. In float32 it takes half the time, and
    # may overflow where no element does.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = (values.sum(dtype=kind) for kind in (np.float32, np.float64))
        return any(np.isfinite(one) for one in sums)


def check_agreement(
    state: TrainState, communicator: Communicator, when: str, *, quick: bool = False
) -> str | None:
    """None if all ranks hold equal weights, else which of them differ from rank 0.

    `quick`: by fingerprints instead of whole hashes.
    """
    digests = communicator.gather(state.fingerprint() if quick else state.digest())
    odd = [rank for rank, digest in enumerate(digests) if digest != digests[0]]
    if not odd:
        return None
    shown = ", ".join(map(str, odd[:16])) + (", …" if odd[16:] else "")
    return f"the weights differ between ranks {when}: rank {shown} from rank 0"


def _optimizer_variables(
    optimizer: keras.optimizers.Optimizer, trainable: list[Any]
) -> list[tuple[str, Any]]:
    named = [(f"optimizer/{name}", one) for name, one in singles(optimizer).items()]
    for slot, held in slots(optimizer, len(trainable)).items():
        named += [
            (f"optimizer/{slot}/{variable.path}", one)
            for variable, one in zip(trainable, held, strict=True)
        ]
    missing = len(optimizer.variables) - len(named)
    if missing:
        raise ValueError(f"{missing} variables of the optimizer have no name")
    return named


def _frozen(model: keras.Model) -> set[int]:
    """The variables, by id, of layers that are not trainable."""
    return {
        id(variable)
        for layer in model._flatten_layers()
        if not layer.trainable
        for variable in layer.variables
    }


def _generators(model: keras.Model) -> dict[str, Any]:
    # A layer without weights has no path; names are structural too, and unique in a model.
    found = [
        (f"generator/{layer.path or layer.name}/{number}", generator.state)
        for layer in model._flatten_layers()
        for number, generator in enumerate(getattr(layer, "_seed_generators", ()))
    ]
    if len(dict(found)) != len(found):
        raise ValueError("two layers with a seed generator have the same name")
    return dict(found)


def _dtype(variable: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(variable.value.dtype.as_numpy_dtype)
    return dtype


def _host(variable: Any) -> NDArray[Any]:
    return np.asarray(variable.numpy(), order="C")


def _seen(variable: Any) -> NDArray[np.uint8]:
    """The bytes of a variable where they are, without a copy if they are the host's: to be looked
    at before the variable is assigned to."""
    try:
        return np.frombuffer(memoryview(variable.value.read_value()).cast("B"), np.uint8)
    except (AttributeError, BufferError, TypeError, ValueError):  # bfloat16; an accelerator's
        return _host(variable).reshape(-1).view(np.uint8)


def _bytes(array: NDArray[Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
