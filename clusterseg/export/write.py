"""Exports a network: a folder with the files asked for, meta.yaml, run.py and what that needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clusterseg.errors import ClustersegError
from clusterseg.export.bench import Latency, measure
from clusterseg.export.check import Comparison, Inputs, compare, prepared
from clusterseg.export.folder import appearing
from clusterseg.export.formats import FLIPS, FORMATS, TOLERANCE, bound_of
from clusterseg.export.graph import INPUT, Form, function
from clusterseg.export.meta import as_yaml, meta
from clusterseg.export.network import Network
from clusterseg.export.onnx_files import save_onnx
from clusterseg.export.qonnx_files import save_qonnx
from clusterseg.export.requirements import requirements
from clusterseg.export.runtimes import open_file
from clusterseg.export.samples import Samples
from clusterseg.export.tensorflow_files import save_keras, save_saved_model
from clusterseg.export.tflite_files import save_tflite

SCRIPT = Path(__file__).with_name("script") / "run.py"


@dataclass(frozen=True)
class Wishes:
    """What is to be exported, and how: see `clusterseg.export.graph.Form`.

    `integer_io`: int8 input and output of tflite-int8. `threads` are those of the runtimes that
    check and measure. `tolerance`: how far a float32 file's logits may be from the network's;
    `flips` (None: `FLIPS`): how many may be further, and pixels of another class, where the
    network decides.
    """

    formats: tuple[str, ...]
    form: Form
    integer_io: bool = False
    benchmark: bool = False
    threads: int = 1
    tolerance: float = TOLERANCE
    flips: float | None = None


@dataclass(frozen=True)
class Exported:
    """One file of an export. `float_operators`: those of an int8 file that compute in float."""

    format: str
    file: str
    bytes: int
    comparison: Comparison
    float_operators: tuple[str, ...] = ()
    latency: Latency | None = None


@dataclass(frozen=True)
class Export:
    """The folder and what is in it. `latency` is that of the network itself, in TensorFlow."""

    folder: Path
    files: tuple[Exported, ...]
    latency: Latency | None = None


def export(
    network: Network,
    wishes: Wishes,
    folder: Path,
    *,
    samples: Samples,
    calibration: Samples | None = None,
    ignore: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Export:
    """Writes the files, runs each of them on `samples` beside the network, and measures them.

    `calibration` are the pictures that int8 files learn their ranges from; `ignore` is the label
    that counts nowhere. The folder appears whole or not at all. `say` is told what is done.

    Raises ClustersegError: the folder is there already, a file that does not compute what the
    network does, a package that is missing, no space, `flips` of a network that does not decide.
    """
    if wishes.flips is not None and not network.decides:
        raise ClustersegError(
            f"--flips is about networks that decide on the way, which {network.name} does not",
            code="usage",
            help="--tolerance says how far its logits may be off",
        )
    folder = folder.absolute()
    with appearing(folder) as fresh:
        found = []
        for name in dict.fromkeys(wishes.formats):
            say(f"writing {FORMATS[name].file}")
            left = _write(network, name, wishes, fresh, calibration)
            say(f"checking {FORMATS[name].file}")
            found.append(
                _judged(network, name, wishes, fresh, samples=samples, ignore=ignore, left=left)
            )
        files = [_entry(network, one, wishes) for one in found]
        (fresh / "meta.yaml").write_text(as_yaml(meta(network, files)), encoding="utf-8")
        kinds = [FORMATS[one.format].kind for one in found]
        (fresh / "requirements.txt").write_text(requirements(kinds), encoding="utf-8")
        shutil.copyfile(SCRIPT, fresh / "run.py")
        (fresh / "run.py").chmod(0o755)
        latency = _own_latency(network, wishes, samples) if wishes.benchmark else None
    return Export(folder, tuple(found), latency)


def form_of(name: str, wishes: Wishes) -> Form:
    """How the file of the format `name` is called: a .keras file is the network as it is."""
    return Form(batch=None) if name == "keras" else wishes.form


def _write(
    network: Network, name: str, wishes: Wishes, folder: Path, calibration: Samples | None
) -> list[str]:
    path = folder / FORMATS[name].file
    form = form_of(name, wishes)
    if name == "onnx":
        save_onnx(network, form, path)
    elif name == "saved-model":
        save_saved_model(network, form, path)
    elif name == "keras":
        save_keras(network, path)
    elif name == "qonnx":
        save_qonnx(network, form, path)
    elif name == "tflite-int8":
        if calibration is None:
            raise ClustersegError(
                "tflite-int8 needs pictures of the data set, to learn the range of each layer from",
                code="no-data",
                help="export where the data set of the job is (docs/export.md: what if it moved)",
            )
        pictures = Inputs(calibration, network, form)
        return save_tflite(
            network, form, path, kind="int8", samples=pictures, integer_io=wishes.integer_io
        )
    else:
        save_tflite(network, form, path, kind="float16" if "float16" in name else "float32")
    return []


def _judged(
    network: Network,
    name: str,
    wishes: Wishes,
    folder: Path,
    *,
    samples: Samples,
    ignore: int | None,
    left: Sequence[str],
) -> Exported:
    known = FORMATS[name]
    form = form_of(name, wishes)
    run = open_file(folder / known.file, threads=wishes.threads)
    bound = bound_of(name, wishes.tolerance)
    comparison = compare(
        network, form, run, samples, bound=bound, ignore=ignore, file=known.file,
        flips=FLIPS if wishes.flips is None else wishes.flips,
    )  # fmt: skip
    latency = None
    if wishes.benchmark:
        latency = measure(run, _pictures(network, form, samples), threads=wishes.threads)
    return Exported(
        format=name,
        file=known.file,
        bytes=_size(folder / known.file),
        comparison=comparison,
        float_operators=tuple(left),
        latency=latency,
    )


def _pictures(network: Network, form: Form, samples: Samples) -> NDArray[Any]:
    """One batch of the first picture."""
    pixels, _ = next(iter(samples))
    return prepared(np.repeat(pixels[np.newaxis], form.batch or 1, axis=0), network, form)


def _own_latency(network: Network, wishes: Wishes, samples: Samples) -> Latency:
    infer = function(network, wishes.form)

    def run(pictures: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(infer(pictures))

    return measure(run, _pictures(network, wishes.form, samples), threads=wishes.threads)


def _entry(network: Network, one: Exported, wishes: Wishes) -> Mapping[str, Any]:
    """The file's entry in meta.yaml."""
    form = form_of(one.format, wishes)
    whole = [form.batch, *network.size]
    taken, given = [*whole, 3], whole if form.argmax else [*whole, network.classes]
    if one.format == "qonnx":
        taken, given = ([shape[0], shape[3], *shape[1:3]] for shape in (taken, given))
    entry: dict[str, Any] = {
        "file": one.file,
        "format": one.format,
        "kind": FORMATS[one.format].kind,
        "input": {"name": INPUT, "shape": taken, "dtype": np.dtype(form.dtype).name},
        "output": {
            "name": form.output,
            "shape": given,
            "dtype": "int32" if form.argmax else "float32",
        },
        "check": asdict(one.comparison),
    }
    if one.format == "tflite-int8":
        entry["integer_io"] = wishes.integer_io
        entry["float_operators"] = list(one.float_operators)
    if one.latency is not None:
        entry["latency"] = asdict(one.latency)
    return entry


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size
