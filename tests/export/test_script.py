"""run.py, which goes with every export: it gives what the network gives."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from clusterseg.export.graph import Form, normalised
from clusterseg.export.network import Network
from clusterseg.export.samples import drawn
from clusterseg.export.write import SCRIPT, Export, Wishes, export
from tests.export.networks import COLORS, SIZE

# Starts run.py where nothing but numpy, Pillow and one runtime can be imported.
ALONE = """
import importlib.abc, runpy, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("clusterseg", "tensorflow", "keras", "yaml", "onnx"):
            raise ImportError(f"{name} is not to be had here")
sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[SIZE, (51, 75), (130, 190)], ids=str)
def picture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the network's size, a smaller and a larger one."""
    (pixels, _) = next(iter(drawn(1, size=request.param)))
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def prediction(network: Network, path: Path) -> NDArray[Any]:
    """Labels at the file's size, by TensorFlow."""
    pixels = np.asarray(Image.open(path), np.float32)
    fitted = tf.image.resize(pixels, SIZE, method="bilinear").numpy()
    logits = network.model(normalised(fitted, network.normalisation)[np.newaxis], training=False)
    whole = tf.image.resize(logits, pixels.shape[:2], method="bilinear")
    return np.asarray(tf.argmax(whole[0], axis=-1))


def alone(folder: Path, *arguments: object, cwd: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(folder / "run.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("file", [None, "model.tflite"])
def test_it_gives_the_very_labels_with_numpy_pillow_and_a_runtime_alone(
    exported: Export, network: Network, picture: Path, file: str | None, tmp_path: Path
) -> None:
    chosen = ["--file", file] if file else []
    (said,) = alone(exported.folder, "--overlay", *chosen, picture, cwd=tmp_path)
    with Image.open(tmp_path / said["labels"]) as written:
        assert written.mode == "P"
        labels = np.asarray(written)
        assert written.getpalette()[: 3 * len(COLORS)] == [n for one in COLORS for n in one]
    wanted = prediction(network, picture)
    assert (labels == wanted).all()
    assert len(np.unique(wanted)) > 2
    with Image.open(tmp_path / "picture_overlay.png") as overlay, Image.open(picture) as original:
        assert overlay.size == original.size
    assert sum(said["shares"].values()) == pytest.approx(1, abs=1e-4)


def test_raw_pictures_and_labels(network: Network, tmp_path: Path) -> None:
    """uint8 in, labels out, two at a time: the other branches of the script."""
    folder = tmp_path / "labels"
    form = Form(batch=2, raw=True, argmax=True)
    export(network, Wishes(("tflite",), form), folder, samples=drawn(2, size=SIZE))
    needed = [line.split(">=") for line in (folder / "requirements.txt").read_text().splitlines()]
    assert needed == [[one, version(one)] for one in ("numpy", "pillow", "ai-edge-litert")]
    (pixels, _) = next(iter(drawn(1, size=SIZE)))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    (said,) = alone(folder, tmp_path / "a.png", cwd=tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before
    labels = np.asarray(Image.open(tmp_path / said["labels"]))
    assert (labels == prediction(network, tmp_path / "a.png")).mean() > 0.999


def test_what_is_amiss_is_told_without_a_traceback(
    script: ModuleType,
    exported: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A picture that can't be read is named, and the others are segmented; what is not installed
    is named, too."""
    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    bad.write_bytes(b"\x89PNG")
    Image.new("RGB", SIZE).save(good)
    monkeypatch.setattr(script, "HERE", exported.folder)
    pictures = [str(one) for one in (bad, tmp_path / "gone.png", good)]
    monkeypatch.setattr(sys, "argv", ["run.py", "--output", str(tmp_path / "out"), *pictures])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert [line.partition(":")[0] for line in said.err.splitlines()] == pictures[:2]
    assert [json.loads(line)["picture"] for line in said.out.splitlines()] == [str(good)]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit, match="needs onnxruntime: pip install onnxruntime"):
        script.main()
    monkeypatch.setattr(sys, "argv", ["run.py", "--output", str(good), str(good)])
    monkeypatch.delitem(sys.modules, "onnxruntime")
    with pytest.raises(SystemExit, match=r"good\.png can't be written: File exists"):
        script.main()


@pytest.mark.parametrize("name", ["model.onnx", "meta.yaml"])
def test_a_torn_copy_is_told(
    script: ModuleType,
    exported: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    copy = shutil.copytree(exported.folder, tmp_path / "copy")
    monkeypatch.setattr(script, "HERE", copy)
    monkeypatch.setattr(sys, "argv", ["run.py", "--output", str(tmp_path / "out"), "a.png"])
    for size in (100, 0, None):
        if size is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes((copy / name).read_bytes()[:size])
        with pytest.raises(SystemExit, match=rf"{name} can't be .* copy it anew"):
            script.main()
    assert not (tmp_path / "out").exists()


def test_without_pillow_it_says_what_to_install(exported: Export) -> None:
    command = [sys.executable, "-S", str(exported.folder / "run.py"), "a.png"]  # no site-packages
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install -r {exported.folder / 'requirements.txt'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_reader_may_leave(exported: Export, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", SIZE).save(picture)
    line = '"$0" "$@" | head -c 0; exit "${PIPESTATUS[0]}"'
    command = [sys.executable, str(exported.folder / "run.py"), str(picture)]
    done = subprocess.run(
        ["bash", "-c", line, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_pictures_of_one_name_are_refused_before_anything_is_written(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meta.yaml").write_text('files: [{"file": "model.onnx", "kind": "onnx"}]\n')
    monkeypatch.setattr(script, "HERE", tmp_path)
    pictures = [str(tmp_path / name) for name in ("a/x.png", "b/y.png", "b/x.jpg")]
    output = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["run.py", "--output", str(output), *pictures])
    with pytest.raises(SystemExit, match=r"a/x\.png and .*b/x\.jpg would both be written to x_l"):
        script.main()
    assert not output.exists()


def test_ids_are_those_of_meta_in_the_colours_of_the_classes(
    script: ModuleType, tmp_path: Path
) -> None:
    meta = {"classes": [{"color": [1, 2, 3], "id": 7}, {"color": [4, 5, 6], "id": 3}]}
    labels = np.array([[0, 1, 1]], np.int32)
    for ids, wanted in ((True, [[7, 3, 3]]), (False, [[0, 1, 1]])):
        script.save(labels, meta, tmp_path / "a.png", ids=ids)
        with Image.open(tmp_path / "a.png") as written:
            assert np.asarray(written).tolist() == wanted
            assert np.asarray(written.convert("RGB")).tolist() == [[[1, 2, 3], *[[4, 5, 6]] * 2]]
    meta["classes"][0]["id"] = 300
    script.save(labels, meta, tmp_path / "a.png", ids=True)
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[300, 3, 3]]


def test_a_picture_that_can_not_be_written_leaves_what_was_there(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    monkeypatch.setattr(Image.Image, "save", half_saved)
    with pytest.raises(SystemExit, match=r"a\.png can't be written: no space"):
        script.put(Image.new("L", (2, 2)), path)
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"before"


def half_saved(picture: Image.Image, path: Path, **options: Any) -> None:
    Path(path).write_bytes(b"half")
    raise OSError("no space")


THREADS = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("run_script", sys.argv[1])
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
script.open_model(pathlib.Path(sys.argv[2]), sys.argv[3], 3)
import tensorflow as tf
print(tf.config.threading.get_intra_op_parallelism_threads())
"""


@pytest.mark.parametrize("kind", ["saved-model", "keras"])
def test_threads_are_tensorflows_too(kind: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(2, 1)])
    path = tmp_path / "model.keras"
    if kind == "keras":
        model.save(path)
    else:
        tf.saved_model.save(model, str(path))
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(SCRIPT), str(path), kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "3\n", done.stderr


@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_it_resizes_as_tensorflow_does_bit_by_bit(
    script: ModuleType, old: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(*old, 5)).astype(np.float32)
    wanted = tf.image.resize(values, new, method="bilinear").numpy()
    assert (script.resize(values, new) == wanted).all()
    half = slice(new[0] // 2, new[0])
    assert (script.resize(values, new, half) == wanted[half]).all()


def test_it_reads_meta_as_yaml_does(script: ModuleType, exported: Export) -> None:
    path = exported.folder / "meta.yaml"
    assert script.read_meta(path) == yaml.safe_load(path.read_text())
    assert [one["color"] for one in script.read_meta(path)["classes"]] == list(map(list, COLORS))


def test_it_normalises_as_the_input_pipeline(script: ModuleType, exported: Export) -> None:
    pixels, _ = next(iter(drawn(1, size=SIZE)))
    how = script.read_meta(exported.folder / "meta.yaml")["preprocessing"]
    from clusterseg.data.normalisation import IMAGENET

    assert (script.normalise(pixels, how) == normalised(pixels, IMAGENET)).all()
