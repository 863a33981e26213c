import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clusterseg.data import open_dataset
from clusterseg.data.files import check_sample
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.street import street_scene
from clusterseg.data.synth.write import write_dataset
from clusterseg.errors import ClustersegError
from clusterseg.spec.model import DataSpec

SMALL = Recipe("camvid", train=3, val=2, test=1, size=(48, 64), seed=4)


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def changed(**keys) -> Recipe:
    return Recipe(**{**SMALL.__dict__, **keys})


def test_scenes_never_change():
    """Pixels are made of raw Philox words and exact arithmetic: equal with any numpy."""
    image, labels = street_scene((1, 2), 96, 128)
    digest = hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "8df03325ac70bdd436b50e12b330a7bb24ab17940d2fd92498e82d07ec6108fc"


def test_scenes_look_like_streets():
    pixels = np.zeros(12)
    for i in range(12):
        image, labels = street_scene((0, i), 96, 128)
        assert image.shape == (96, 128, 3)
        assert image.dtype == labels.dtype == np.uint8
        pixels += np.bincount(labels.reshape(-1), minlength=12)
        assert (labels[:10] != 3).all()  # no road in the sky
        assert image.std() > 20
    share = pixels / pixels.sum()
    assert (share > 0).all()
    assert share[[0, 1, 3, 4]].min() > 0.1  # sky, building, road, pavement


def test_the_same_scene_at_another_size_has_the_same_composition():
    _, small = street_scene((3, 1), 60, 80)
    _, large = street_scene((3, 1), 120, 160)
    assert (large[1::2, 1::2] == small).mean() > 0.9


def test_writes_the_layout_that_the_loader_reads(tmp_path):
    write_dataset(SMALL, tmp_path / "set")
    dataset = open_dataset(DataSpec(format="camvid", root=str(tmp_path / "set")), 255)
    assert (dataset.classes, dataset.size) == (11, (48, 64))
    assert (len(dataset.train), len(dataset.validation)) == (3, 2)
    assert dataset.class_names[3] == "road"
    for part in (dataset.train, dataset.validation):
        for number in range(len(part)):
            check_sample(part, number)
    names = set(contents(tmp_path / "set"))
    assert {"train.txt", "val.txt", "test.txt", "label_colors.txt"} <= names
    assert "test/synth_000000.png" in names
    assert "testannot/synth_000000.png" in names
    mask = Image.open(tmp_path / "set" / "trainannot" / "synth_000000.png")
    assert mask.mode == "L"


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path):
    write_dataset(SMALL, tmp_path / "a")
    write_dataset(SMALL, tmp_path / "b")
    write_dataset(changed(seed=5), tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    image = "train/synth_000000.png"
    assert contents(tmp_path / "a")[image] != contents(tmp_path / "c")[image]


def test_a_larger_set_begins_like_a_smaller_one(tmp_path):
    write_dataset(SMALL, tmp_path / "a")
    write_dataset(changed(train=5), tmp_path / "b")
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    for name in a:
        if name.endswith(".png"):
            assert a[name] == b[name]


def test_parts_do_not_share_pictures(tmp_path):
    write_dataset(changed(train=2, val=2, test=2), tmp_path / "a")
    pictures = [v for k, v in contents(tmp_path / "a").items() if k.endswith(".png")]
    assert len(set(pictures)) == len(pictures)


def test_running_again_keeps_the_files(tmp_path):
    assert not write_dataset(SMALL, tmp_path / "a").kept
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*")}
    assert write_dataset(SMALL, tmp_path / "a").kept
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*")}


def test_another_set_is_refused_and_replaced_by_force(tmp_path):
    write_dataset(SMALL, tmp_path / "a")
    before = contents(tmp_path / "a")
    other = changed(train=2, seed=9)
    with pytest.raises(ClustersegError, match="seed 4 instead of 9") as caught:
        write_dataset(other, tmp_path / "a")
    assert "--force" in caught.value.help
    assert contents(tmp_path / "a") == before
    assert not write_dataset(other, tmp_path / "a", force=True).kept
    write_dataset(other, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_a_damaged_set_is_noticed(tmp_path, harm):
    write_dataset(SMALL, tmp_path / "a")
    path = tmp_path / "a" / "valannot" / "synth_000001.png"
    before = contents(tmp_path / "a")
    if harm == "change":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
    with pytest.raises(ClustersegError, match="changed or removed"):
        write_dataset(SMALL, tmp_path / "a")
    write_dataset(SMALL, tmp_path / "a", force=True)
    assert contents(tmp_path / "a") == before


def test_a_folder_that_is_not_ours_is_never_touched(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("three years of work")
    for force in (False, True):
        with pytest.raises(ClustersegError, match="was not written by"):
            write_dataset(SMALL, tmp_path / "a", force=force)
    assert contents(tmp_path / "a") == {"thesis.txt": b"three years of work"}


def test_force_does_not_remove_a_users_file_among_ours(tmp_path):
    write_dataset(SMALL, tmp_path / "a")
    (tmp_path / "a" / "train" / "mine.png").write_bytes(b"mine")
    with pytest.raises(ClustersegError, match=r"also holds train/mine\.png"):
        write_dataset(changed(seed=1), tmp_path / "a", force=True)
    assert (tmp_path / "a" / "train" / "mine.png").read_bytes() == b"mine"


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    write_dataset(SMALL, tmp_path / "empty")
    write_dataset(SMALL, tmp_path / "x" / "y" / "z")
    assert contents(tmp_path / "empty") == contents(tmp_path / "x" / "y" / "z")


@pytest.mark.parametrize("seed", [SMALL.seed, SMALL.seed + 1])
def test_of_two_writers_the_first_wins(tmp_path, seed):
    """While one writes, another finishes: the same set is taken, a different one is refused."""

    def another(done: int, total: int) -> None:
        if done == 5:
            write_dataset(changed(seed=seed), tmp_path / "a")

    if seed == SMALL.seed:
        assert write_dataset(SMALL, tmp_path / "a", progress=another).kept
    else:
        with pytest.raises(ClustersegError, match="another synthetic data set"):
            write_dataset(SMALL, tmp_path / "a", progress=another)
    write_dataset(changed(seed=seed), tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(SMALL, tmp_path / "a", progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["/dev/full", "/proc/nothing"])
def test_a_place_that_can_not_be_written_is_named(device):
    with pytest.raises(ClustersegError, match=device):
        write_dataset(SMALL, Path(device) / "a")


@pytest.mark.parametrize("name", ["x" * 300, "circle", "circle/a"])
def test_a_name_that_leads_nowhere_is_told(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("circle").symlink_to("circle")
    with pytest.raises(ClustersegError, match=f"can't write .*{name}") as told:
        write_dataset(SMALL, Path(name))
    assert (told.value.code, told.value.exit_code) == ("not-written", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


def test_the_tilde_of_no_user_is_a_letter(tmp_path, monkeypatch):
    """As the shell has it."""
    monkeypatch.chdir(tmp_path)
    assert write_dataset(SMALL, Path("~no-such-user/a")).root == tmp_path / "~no-such-user/a"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"size": (8, 64)}, "16 to 8192"),
        ({"size": (64, 9000)}, "16 to 8192"),
        ({"train": 0}, "at least 1"),
        ({"val": -1}, "negative"),
        ({"test": -1}, "negative"),
        ({"seed": -1}, "--seed"),
        ({"format": "camvit"}, "camvit"),
    ],
)
def test_impossible_recipes_are_refused(tmp_path, keys, expected):
    with pytest.raises(ClustersegError, match=expected):
        write_dataset(changed(**keys), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def run(*arguments, cwd):
    command = [str(Path(sys.executable).with_name("clusterseg")), "data", "synth", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


SIZES = ["--size", "32x48", "--train", "2", "--val", "1", "--test", "0"]


def test_the_command_writes_keeps_and_refuses(tmp_path):
    done = run("--format", "camvid", "out", *SIZES, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert record["root"] == str(tmp_path / "out")
    assert record["size"] == [32, 48]
    assert record["kept"] is False
    assert record["files"] == 4 + 2 * 3
    again = run("--format", "camvid", "out", *SIZES, cwd=tmp_path)
    assert again.returncode == 0
    assert "kept" in again.stdout
    other = run("out", *SIZES, "--seed", "1", cwd=tmp_path)
    assert other.returncode == 2
    assert other.stdout == ""
    assert "error[folder-in-the-way]" in other.stderr
    assert "\x1b" not in done.stdout + again.stdout + other.stderr


@pytest.mark.parametrize("size", ["32", "0x48", "axb", "32x48x3", "-1x4"])
def test_the_command_refuses_a_bad_size(tmp_path, size):
    done = run("out", f"--size={size}", cwd=tmp_path)
    assert done.returncode == 2
    assert "size" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_loads_no_tensorflow(tmp_path):
    code = (
        "import sys\nfrom clusterseg.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(sorted({'tensorflow', 'keras', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "synth", "out", *SIZES],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stderr.splitlines()[-1] == "[]"
    assert (tmp_path / "out" / "train.txt").exists()
