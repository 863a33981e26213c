#!/usr/bin/env python3
"""Segments pictures with the network exported beside this file.

    ./run.py [--output DIR] [--overlay] [--ids] [--file NAME] [--threads N] PICTURE...

For each picture NAME it writes DIR/NAME_labels.png, of the picture's own size: the number of the
class at each pixel, or with --ids its id in meta.yaml, shown in the colours of the classes (a
palette). Files appear whole or not at all. A line of JSON a picture tells the share of each class.
What can't be read is named, and makes the exit code 1.

Needs numpy and Pillow, and for .onnx files onnxruntime, for .tflite ai-edge-litert, for a
SavedModel tensorflow, for .keras keras and clusterseg (requirements.txt). The rest: meta.yaml.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
except ImportError as error:
    sys.exit(f"{error}: pip install -r {Path(__file__).resolve().parent / 'requirements.txt'}")

Array = NDArray[Any]
Run = Callable[[Array], Array]
HERE = Path(__file__).resolve().parent


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--overlay", action="store_true", help="also DIR/NAME_overlay.png")
    parser.add_argument("--ids", action="store_true", help="write the classes' ids of meta.yaml")
    parser.add_argument("--file", help="one of the files in meta.yaml; else the first")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as the library takes")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    try:
        meta = read_meta(HERE / "meta.yaml")
        known = {entry["file"]: entry for entry in meta["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{HERE / 'meta.yaml'} can't be read, or is damaged: copy it anew ({error!r})")
    if options.file is not None and options.file not in known:
        sys.exit(f"no file {options.file!r} in meta.yaml; there are: {', '.join(known)}")
    check_names(options.pictures)
    entry = known[options.file] if options.file else meta["files"][0]
    try:
        run = open_model(HERE / entry["file"], entry["kind"], options.threads)
    except ImportError as error:
        needed = str(error.name).partition(".")[0].replace("_", "-")
        sys.exit(f"{entry['file']} needs {needed}: pip install {needed} ({error})")
    except Exception as error:  # each library has errors of its own
        why = str(error).partition("\n")[0]
        sys.exit(f"{HERE / entry['file']} can't be opened, or is damaged: copy it anew ({why})")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"{options.output} can't be written: {error.strerror}")
    unread = False
    for path in options.pictures:
        try:
            with Image.open(path) as opened:
                picture = np.asarray(opened.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            print(f"{path}: not readable ({error})", file=sys.stderr)
            unread = True
            continue
        start = time.perf_counter()
        labels = segment(picture, meta, entry, run)
        seconds = time.perf_counter() - start
        written = options.output / f"{path.stem}_labels.png"
        save(labels, meta, written, ids=options.ids)
        if options.overlay:
            colours = np.array([one["color"] for one in meta["classes"]], np.uint8)[labels]
            mixed = (picture.astype(np.uint16) + colours) // 2
            shown = Image.fromarray(mixed.astype(np.uint8))
            put(shown, options.output / f"{path.stem}_overlay.png")
        counts = np.bincount(labels.reshape(-1), minlength=len(meta["classes"]))
        shares = {
            one["name"]: round(float(count / labels.size), 6)
            for one, count in zip(meta["classes"], counts, strict=True)
            if count
        }
        record = {"picture": str(path), "labels": str(written), "seconds": round(seconds, 4)}
        print(json.dumps({**record, "shares": shares}), flush=True)
    sys.exit(int(unread))


def check_names(pictures: list[Path]) -> None:
    """Ends if two of them would be written to the same file."""
    seen: dict[str, Path] = {}
    for path in pictures:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            sys.exit(
                f"{other} and {path} would both be written to {path.stem}_labels.png: give each "
                "an --output of its own"
            )


def read_meta(path: Path) -> dict[str, Any]:
    """The values of meta.yaml: `key: JSON` each, JSON may go on over indented lines."""
    values: dict[str, str] = {}
    key = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            values[key] += line
        else:
            key, _, values[key] = line.partition(":")
    return {key: json.loads(text) for key, text in values.items()}


def segment(picture: Array, meta: dict[str, Any], entry: dict[str, Any], run: Run) -> Array:
    """Labels, int32 [height, width], of a picture, uint8 [height, width, 3], RGB."""
    size = (int(meta["size"][0]), int(meta["size"][1]))
    own = (picture.shape[0], picture.shape[1])
    pixels = picture.astype(np.float32)
    if own != size:
        pixels = resize(pixels, size)
    if entry["input"]["dtype"] == "uint8":  # the graph normalises
        given = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    else:
        given = normalise(pixels, meta["preprocessing"])
    batch = entry["input"]["shape"][0] or 1
    found = run(np.repeat(given[np.newaxis], batch, axis=0))[0]
    if entry["output"]["name"] == "labels":
        return found if own == size else nearest(found, own)
    if own == size:
        return np.asarray(found.argmax(-1), np.int32)
    labels = np.empty(own, np.int32)
    for first in range(0, own[0], 64):  # all logits of a large picture would fill the memory
        rows = slice(first, min(first + 64, own[0]))
        labels[rows] = resize(found, own, rows).argmax(-1)
    return labels


def normalise(pixels: Array, how: dict[str, Any]) -> Array:
    """float32 pictures for the network, of RGB in 0 to 255."""
    factors = [1 / deviation for deviation in how["deviation"]]
    offsets = [-mean * factor for mean, factor in zip(how["mean"], factors, strict=True)]
    found = pixels * np.array(factors, np.float32) + np.array(offsets, np.float32)
    return found[..., ::-1] if how["order"] == "bgr" else found


def resize(values: Array, size: tuple[int, int], rows: slice | None = None) -> Array:
    """Bilinear at half-pixel centres, float32 [height, width, channels]; the wanted `rows` alone.

    In float32 and in the order of operations of TensorFlow's kernel.
    """
    low, high, share = places(values.shape[0], size[0])
    if rows is not None:
        low, high, share = low[rows], high[rows], share[rows]
    left, right, across = places(values.shape[1], size[1])
    across = across[:, np.newaxis]

    def line(numbers: Array) -> Array:
        start = values[numbers][:, left]
        return np.asarray(start + (values[numbers][:, right] - start) * across)

    top = line(low)
    return np.asarray(top + (line(high) - top) * share[:, np.newaxis, np.newaxis])


def places(old: int, new: int) -> tuple[Array, Array, Array]:
    """For each of `new` pixels: the two of `old` that it lies between, and how far (float32)."""
    middle = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * (
        np.float32(old) / np.float32(new)
    ) - np.float32(0.5)
    floor = np.floor(middle)
    low = np.maximum(floor, 0).astype(np.int64)
    high = np.minimum(np.ceil(middle), old - 1).astype(np.int64)
    return low, high, middle - floor


def nearest(labels: Array, size: tuple[int, ...]) -> Array:
    """The nearest label, to another size."""
    for axis in (0, 1):
        old = labels.shape[axis]
        step = np.float32(old) / np.float32(size[axis])
        middle = np.arange(size[axis], dtype=np.float32) + np.float32(0.5)
        labels = labels.take(np.minimum((middle * step).astype(np.int64), old - 1), axis=axis)
    return labels


def save(labels: Array, meta: dict[str, Any], path: Path, *, ids: bool = False) -> None:
    """A PNG whose values are the classes' numbers, or their ids."""
    classes = meta["classes"]
    values = [one["id"] if ids else number for number, one in enumerate(classes)]
    labels = np.array(values)[labels]
    if max(values) > 255:
        put(Image.fromarray(labels.astype(np.uint16)), path)
        return
    palette = np.zeros((max(values) + 1, 3), np.uint8)
    palette[values] = [one["color"] for one in classes]
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(palette.reshape(-1).tolist())
    put(picture, path)


def put(picture: Image.Image, path: Path) -> None:
    """Writes a PNG that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        picture.save(partial, format="PNG")
        partial.replace(path)
    except OSError as error:
        sys.exit(f"{path} can't be written: {error.strerror or error}")
    finally:
        partial.unlink(missing_ok=True)


def open_model(path: Path, kind: str, threads: int) -> Run:
    """A function from a batch, as the file takes it, to its output."""
    return {
        "onnx": open_onnx,
        "tflite": open_tflite,
        "saved-model": open_saved_model,
        "keras": open_keras,
        "qonnx": open_qonnx,
    }[kind](path, threads)


def open_onnx(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=available(onnxruntime))
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: np.ascontiguousarray(batch)})[0]


def available(onnxruntime: Any) -> list[str]:
    """What onnxruntime offers here, but those that it says itself need more setting up."""
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    there = onnxruntime.get_available_providers()
    return [name for name in wanted if name in there]


def open_tflite(path: Path, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads or None)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(batch: Array) -> Array:
        if taken["dtype"] == np.int8:
            scale, zero = taken["quantization"]
            batch = np.rint(batch / np.float32(scale)) + zero
            batch = np.clip(batch, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], batch)
        interpreter.invoke()
        found = interpreter.get_tensor(given["index"])
        if given["dtype"] == np.int8:
            scale, zero = given["quantization"]
            found = (found.astype(np.float32) - zero) * np.float32(scale)
        return np.asarray(found)

    return run


def open_saved_model(path: Path, threads: int) -> Run:
    import tensorflow as tf

    limit_tensorflow(threads)
    loaded = tf.saved_model.load(str(path))

    def run(batch: Array) -> Array:
        (found,) = loaded.signatures["serving_default"](tf.constant(batch)).values()
        return np.asarray(found)

    return run


def limit_tensorflow(threads: int) -> None:
    import tensorflow as tf

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def open_keras(path: Path, threads: int) -> Run:
    limit_tensorflow(threads)
    from clusterseg.models.saved import load_saved

    model = load_saved(path)
    return lambda batch: np.asarray(model(batch, training=False))


def open_qonnx(path: Path, threads: int) -> Run:
    run = open_onnx(path, threads)  # it takes and gives [n, channels, height, width]
    return lambda batch: run(batch.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # `run.py ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
