"""`data check` reads all parts of a set, and goes on with what is left of a part."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from clusterseg.data import open_dataset
from clusterseg.data.checking.report import check, gathered
from clusterseg.data.cityscapes import ID_TO_TRAIN
from clusterseg.data.convert.write import convert
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.errors import ClustersegError
from clusterseg.spec.model import DataSpec

from .camvid_tree import write, write_tree

ALL = np.kron([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]], np.ones((4, 2)))  # every class


@pytest.fixture
def tree(tmp_path):
    """A CamVid tree without a fault: 3 + 2 + 2."""
    root = write_tree(tmp_path / "set", train=3, val=2)
    other = write_tree(tmp_path / "other", train=1, val=2, seed=1)
    shutil.move(other / "val", root / "test")
    shutil.move(other / "valannot", root / "testannot")
    (root / "test.txt").write_text((root / "val.txt").read_text().replace("val", "test"))
    for mask in root.glob("*annot/*.png"):
        write(mask, ALL)
    return root


def looked_into(root, layout="camvid", **keys):
    """(part -> samples, code -> finding), as the command does it."""
    spec = DataSpec(format=layout, root=str(root), size=(8, 12), **keys)
    faults = gathered()
    checked = check(open_dataset(spec, 255, faults), 255, workers=2, faults=faults)
    codes = [one.code for one in checked.findings]
    assert len(codes) == len(set(codes))
    parts = {part.name: part.samples for part in checked.parts}
    return parts, {one.code: one for one in checked.findings}


def pixels(path):
    return np.asarray(Image.open(path))


def copy(root, source, target):
    (root / target).write_bytes((root / source).read_bytes())


# --- The test part -----------------------------------------------------------------------------


def test_the_test_part_is_read_like_the_others(tree):
    assert looked_into(tree) == ({"train": 3, "validation": 2, "test": 2}, {})
    write(tree / "testannot" / "1.png", ALL + 40)
    (tree / "test" / "0.png").write_bytes(b"no picture")
    parts, found = looked_into(tree)
    assert parts["test"] == 2
    assert set(found) == {"bad-class-id", "unreadable-picture"}
    assert found["bad-class-id"].files == (str(tree / "testannot/1.png"),)
    assert found["unreadable-picture"].files == (str(tree / "test/0.png"),)


def test_a_set_without_one_has_two_parts(tree):
    (tree / "test.txt").unlink()
    assert looked_into(tree) == ({"train": 3, "validation": 2}, {})


@pytest.mark.parametrize("other", ["val", "test"])
def test_pictures_that_are_trained_on_may_be_in_no_other_part(tree, other):
    copy(tree, "train/2.png", f"{other}/0.png")
    _, found = looked_into(tree)
    assert set(found) == {"shared-picture"}
    one = found["shared-picture"]
    assert one.severity == "error"
    assert one.files == (str(tree / "train/2.png"),)
    part = {"val": "validation"}.get(other, other)
    assert one.details == (f"train; also {tree / other / '0.png'} ({part})",)


def test_pictures_of_validation_and_test_are_a_warning(tree):
    copy(tree, "val/1.png", "test/0.png")
    _, found = looked_into(tree)
    assert set(found) == {"shared-test-picture"}
    one = found["shared-test-picture"]
    assert (one.severity, one.count) == ("warning", 1)
    assert one.details == (f"validation; also {tree / 'test/0.png'} (test)",)
    copy(tree, "val/1.png", "train/0.png")
    _, found = looked_into(tree)  # in all three: what is worst is told, once
    assert set(found) == {"shared-picture"}
    assert "(validation)" in found["shared-picture"].details[0]
    assert "(test)" in found["shared-picture"].details[0]


def test_masks_without_any_label_are_no_fault_where_a_test_part_has_no_other(tree):
    """As Cityscapes' and other benchmarks' are published."""
    write(tree / "testannot" / "0.png", np.full((8, 12), 11))
    _, found = looked_into(tree)
    assert found["no-label"].files == (str(tree / "testannot/0.png"),)
    write(tree / "testannot" / "1.png", np.full((8, 12), 11))
    assert looked_into(tree)[1] == {}
    for number in range(2):
        write(tree / "valannot" / f"{number}.png", np.full((8, 12), 11))
    _, found = looked_into(tree)
    assert found["no-label"].count == 2  # those of the validation part


# --- What is left of a set ---------------------------------------------------------------------


def test_a_file_that_a_list_names_is_one_fault_among_others(tree, run):
    (tree / "train" / "1.png").unlink()
    (tree / "valannot" / "0.png").unlink()
    (tree / "test" / "1.png").unlink()
    write(tree / "trainannot" / "2.png", ALL + 40)
    done = run("check", "set", "--format", "camvid", "--json", cwd=tree.parent)
    assert done.returncode == 1
    record = json.loads(done.stdout)
    assert [part["samples"] for part in record["parts"]] == [2, 1, 1]
    one, other = record["findings"]
    assert (one["code"], one["count"]) == ("missing-file", 3)
    assert dict(zip(one["files"], one["details"], strict=True)) == {
        "set/test/1.png": "set/test.txt:2",
        "set/train/1.png": "set/train.txt:2",
        "set/valannot/0.png": "set/val.txt:1",
    }
    assert (other["code"], other["count"]) == ("bad-class-id", 1)
    shown = run("check", "set", "--format", "camvid", cwd=tree.parent)
    assert shown.returncode == 1
    assert "set/train/1.png: set/train.txt:2" in shown.stdout
    assert "2 errors" in shown.stdout


def test_a_list_without_any_file_that_is_there(tree):
    shutil.rmtree(tree / "train")
    shutil.rmtree(tree / "val")
    parts, found = looked_into(tree)
    assert parts == {"train": 0, "validation": 0, "test": 2}
    assert set(found) == {"missing-file"}
    assert found["missing-file"].count == 5


def lose(root, pattern):
    """The last of the files."""
    *_, path = sorted(root.rglob(pattern))
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("layout", "lost", "broken"),
    [
        ("cityscapes", "train_extra/*/*_labelIds.png", "val/*/*8bit.png"),
        ("cityscapes", "gtFine/test/*/*_labelIds.png", "val/*/*8bit.png"),
        ("voc2012", "SegmentationClass/*.png", "JPEGImages/*.jpg"),
        ("coco_stuff", "annotations/train2017/*.png", "val2017/*.jpg"),
        ("ade20k", "images/training/*.jpg", "images/validation/*.jpg"),
        ("folder", "validation_masks/*", "images/*"),
    ],
)
def test_the_other_files_of_every_layout_are_read(tmp_path, layout, lost, broken):
    root = tmp_path / "set"
    coarse = lost.startswith("train_extra")
    write_dataset(Recipe(layout, 3, 2, 2, (32, 48), 5, extra=2 * coarse), root)
    keys = {"options": {"classes": 11} if layout == "folder" else {}, "coarse": coarse}
    code = "missing-file" if layout == "voc2012" else "missing-pair"
    whole, before = looked_into(root, layout, **keys)
    assert not any(one.severity == "error" for one in before.values())
    gone = lose(root, lost)
    harmed = min(root.rglob(broken))
    harmed.write_bytes(b"no picture")
    parts, found = looked_into(root, layout, **keys)
    assert sum(parts.values()) == sum(whole.values()) - 1
    assert found[code].count == 1
    stem = gone.name.partition("_gt")[0].partition(".")[0]
    assert stem in found[code].files[0]
    assert found["unreadable-picture"].files == (str(harmed),)
    with pytest.raises(ClustersegError) as caught:  # whoever trains is told
        dataset = open_dataset(DataSpec(format=layout, root=str(root), size=(8, 12), **keys), 255)
        dataset.test()
    assert caught.value.code == code


def test_shards_that_are_gone_or_damaged(tmp_path, tree):
    dataset = open_dataset(DataSpec(format="camvid", root=str(tree), size=(8, 12)), 255)
    root = tmp_path / "shards"
    convert(dataset, tree, root, 255, shards=3, workers=1)
    assert looked_into(root, "tfrecord")[0] == {"train": 3, "validation": 2, "test": 2}
    first, second, third = sorted(root.glob("train-*"))
    first.unlink()
    whole = second.read_bytes()
    second.write_bytes(whole + whole[:-5])
    parts, found = looked_into(root, "tfrecord")
    assert parts == {"train": 2, "validation": 2, "test": 2}
    assert found["missing-file"].files == (str(first),)
    assert found["damaged-record"].files == (str(second),)
    assert f"record at byte {len(whole)}" in found["damaged-record"].details[0]
    third.write_bytes(b"")
    assert looked_into(root, "tfrecord")[0]["train"] == 1


def test_jpeg_masks_are_told_apart_from_missing_ones(tmp_path):
    root = tmp_path / "set"
    write_dataset(Recipe("folder", 4, 2, 0, (32, 48), 5), root)
    first, second, *_ = sorted((root / "masks").iterdir())
    first.rename(first.with_suffix(".jpg"))
    second.unlink()
    parts, found = looked_into(root, "folder", options={"classes": 11})
    assert parts["train"] == 2
    assert found["lossy-mask"].files == (str(first.with_suffix(".jpg")),)
    (alone,) = found["missing-pair"].files
    assert second.stem in alone
    assert found["missing-pair"].details == ("a picture without a mask",)


def test_a_test_part_without_masks_is_no_fault_and_a_training_part_is_one(tmp_path):
    root = tmp_path / "set"
    write_dataset(Recipe("folder", 4, 2, 2, (32, 48), 5), root)
    keys = {"options": {"classes": 11}}
    for mask in (root / "test_masks").iterdir():
        mask.unlink()
    parts, found = looked_into(root, "folder", **keys)
    assert parts == {"train": 4, "validation": 2}
    assert not any(one.severity == "error" for one in found.values())
    for mask in (root / "masks").iterdir():
        mask.unlink()
    parts, found = looked_into(root, "folder", **keys)
    assert parts == {"train": 0, "validation": 2}
    assert "4 pictures, and no mask" in found["no-masks"].message
    assert "absent-class" not in found


# --- Whole parts -------------------------------------------------------------------------------


def test_a_part_that_can_not_be_read_keeps_no_other_from_it(tree):
    (tree / "train.txt").unlink()
    write(tree / "valannot" / "0.png", ALL + 40)
    parts, found = looked_into(tree)
    assert parts == {"train": 0, "validation": 2, "test": 2}
    assert set(found) == {"no-data", "bad-class-id"}
    assert "train.txt" in found["no-data"].message
    (tree / "val.txt").write_text("val/0.png\n")
    (tree / "test.txt").write_text("test/0.png\n")
    spec = DataSpec(format="camvid", root=str(tree), size=(8, 12))
    faults = gathered()
    with pytest.raises(ClustersegError, match=r"train\.txt") as caught:
        check(open_dataset(spec, 255, faults), 255, workers=2, faults=faults)
    assert caught.value.code == "no-data"
    assert [one.code for one in faults.errors] == ["no-data", "bad-list", "bad-list"]


def test_a_split_of_what_is_left(tree):
    (tree / "val.txt").unlink()
    (tree / "train" / "0.png").unlink()
    parts, found = looked_into(tree, validation_split=0.4)
    assert parts == {"train": 1, "validation": 1, "test": 2}
    assert set(found) == {"missing-file"}
    parts, found = looked_into(tree)
    assert parts == {"train": 2, "validation": 0, "test": 2}
    assert set(found) == {"missing-file", "no-validation"}
    (tree / "train.txt").write_text("")
    parts, found = looked_into(tree, validation_split=0.4)
    assert parts == {"train": 0, "validation": 0, "test": 2}
    assert set(found) == {"empty-list"}


@pytest.mark.parametrize("coarse", [False, True])
def test_cityscapes_without_a_part(tmp_path, coarse):
    root = tmp_path / "set"
    write_dataset(Recipe("cityscapes", 2, 2, 0, (32, 64), 5, extra=2), root)
    gone = root / ("gtCoarse/train_extra" if coarse else "gtFine/val")
    shutil.rmtree(gone)
    parts, found = looked_into(root, "cityscapes", coarse=coarse)
    assert parts == {"train": 2, "validation": 2 if coarse else 0}
    assert found["no-data"].message.endswith(f"no {gone.relative_to(root)}")
    assert {one.code for one in found.values() if one.severity == "error"} == {"no-data"}


def test_cityscapes_without_the_pictures_or_the_masks_of_its_test_part(tmp_path):
    root = tmp_path / "set"
    write_dataset(Recipe("cityscapes", 2, 2, 2, (32, 64), 5), root)
    parts, before = looked_into(root, "cityscapes")
    assert parts == {"train": 2, "validation": 2, "test": 2}
    assert "no-label" not in before
    for gone in ("leftImg8bit/test", "gtFine/test"):
        shutil.rmtree(root / gone)
        parts, found = looked_into(root, "cityscapes")
        assert parts == {"train": 2, "validation": 2}
        assert found == before


@pytest.mark.parametrize("coarse", [False, True])
def test_what_is_left_of_cityscapes_may_hold_train_ids(tmp_path, coarse):
    """Nothing is made up of the part that is gone: neither other masks nor another table."""
    root = tmp_path / "set"
    write_dataset(Recipe("cityscapes", 2, 2, 0, (32, 64), 5, extra=2), root)
    table = np.array([255 if one < 0 else one for one in ID_TO_TRAIN], np.uint8)
    for path in (root / "gtFine").rglob("*_labelIds.png"):
        write(path.with_name(path.name.replace("labelIds", "labelTrainIds")), table[pixels(path)])
        path.unlink()
    shutil.rmtree(root / ("gtCoarse" if coarse else "gtFine/train"))
    for path in (root / "gtFine").rglob("*_instanceIds.png"):
        path.unlink()
    parts, found = looked_into(root, "cityscapes", coarse=coarse)
    assert parts == {"train": 2 if coarse else 0, "validation": 2}
    assert {one.code for one in found.values() if one.severity == "error"} == {"no-data"}


def test_what_is_no_data_set_at_all_is_a_mistake(tmp_path, run):
    (tmp_path / "empty").mkdir()
    for layout in ("camvid", "cityscapes", "voc2012", "ade20k", "coco_stuff"):
        done = run("check", "empty", "--format", layout, cwd=tmp_path)
        assert done.returncode == 2, layout
        assert "error[no-data]" in done.stderr
