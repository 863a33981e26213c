"""Every layout: read from its synthetic twin, and what is wrong with one said with its file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clusterseg.data import open_dataset
from clusterseg.data.cityscapes import ID_TO_TRAIN
from clusterseg.data.colormap import default_colors
from clusterseg.data.dataset import INVALID, Part, Sample, label_table
from clusterseg.data.files import read_labels
from clusterseg.data.formats import ade20k, coco_stuff, voc2012
from clusterseg.data.pipeline import batches, explain
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.errors import ClustersegError
from clusterseg.spec.model import DataSpec

SIZE = (32, 48)


def written(folder, layout, **keys):
    root = folder / layout
    recipe = {"train": 3, "val": 2, "test": 1, "size": SIZE, "seed": 1, **keys}
    write_dataset(Recipe(format=layout, **recipe), root)
    return root


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    made = {
        name: written(folder, name, **({"extra": 2} if name in ("cityscapes", "voc2012") else {}))
        for name in ("cityscapes", "voc2012", "coco_stuff", "ade20k")
    }
    for labels in ("grey", "palette", "blue"):
        inside = folder / labels
        inside.mkdir()
        made[labels] = written(inside, "folder", labels=labels)
    return made


def opened(root, layout, ignore=255, *, coarse=False, validation_split=None, **options):
    spec = DataSpec(
        format=layout,
        root=str(root),
        coarse=coarse,
        validation_split=validation_split,
        options=options,
    )
    return open_dataset(spec, ignore)


def raw(path):
    return np.asarray(Image.open(path))


def pipeline_labels(part, ignore=255):
    """Labels as the input pipeline reads them, at the files' size."""
    rows = np.arange(len(part))[:, np.newaxis]
    elements = batches(part, rows, seed=0, epoch=0, augment=(), size=SIZE, ignore=ignore, threads=1)
    return [labels[0] for _, labels, _ in elements.as_numpy_iterator()]


def check(part, expected, ignore=255):
    """Both ways of reading give what a mask's values stand for."""
    seen = set()
    for number, labels in enumerate(pipeline_labels(part, ignore)):
        wanted = expected(part.samples[number])
        np.testing.assert_array_equal(labels, wanted)
        np.testing.assert_array_equal(read_labels(part, number), wanted)
        seen |= set(np.unique(wanted).tolist())
    assert len(seen) > 3
    return seen


# --- Cityscapes -------------------------------------------------------------------------------


def test_cityscapes_are_19_classes_by_train_id(sets):
    found = opened(sets["cityscapes"], "cityscapes")
    assert found.class_names[:3] == ("road", "sidewalk", "building")
    assert found.class_names[-1] == "bicycle" and found.classes == 19
    assert found.colors[0] == (128, 64, 128)
    assert found.label_ids[:3] == (7, 8, 11) and found.label_ids[-1] == 33
    assert found.size == SIZE
    assert (len(found.train), len(found.validation)) == (3, 2)
    sample = found.validation.samples[0]
    name = sample.image.name.removesuffix("_leftImg8bit.png")
    assert sample.mask.name == f"{name}_gtFine_labelIds.png"
    assert sample.instances is not None and sample.instances.name.endswith("_instanceIds.png")

    def by_the_table(sample):
        table = np.array(ID_TO_TRAIN)
        assert (table[raw(sample.mask)] != INVALID).all()
        return table[raw(sample.mask)]

    assert 255 in check(found.train, by_the_table)
    (test,) = found.test().samples
    assert "/test/" in str(test.image) and "/test/" in str(test.mask)


def test_cityscapes_void_is_a_class_where_nothing_is_ignored(sets):
    found = opened(sets["cityscapes"], "cityscapes", None)
    assert found.class_names[-1] == "void" and found.classes == len(found.colors) == 20
    assert len(found.label_ids) == 20
    table = np.where(np.array(ID_TO_TRAIN) == 255, 19, ID_TO_TRAIN)
    assert 19 in check(found.train, lambda sample: table[raw(sample.mask)], None)


def test_coarse_annotations_are_really_trained_on(sets):
    fine = opened(sets["cityscapes"], "cityscapes")
    both = opened(sets["cityscapes"], "cityscapes", coarse=True)
    only = opened(sets["cityscapes"], "cityscapes", coarse="only")
    assert len(only.train) == 2
    assert both.train.samples == fine.train.samples + only.train.samples
    for sample in only.train.samples:
        assert "/train_extra/" in str(sample.image)
        assert sample.mask.name.endswith("_gtCoarse_labelIds.png")
    assert fine.validation.samples == both.validation.samples == only.validation.samples
    table = np.array(ID_TO_TRAIN)
    check(only.train, lambda sample: table[raw(sample.mask)])


def test_cityscapes_as_its_archives_unpack(sets, tmp_path):
    source, root = sets["cityscapes"], tmp_path / "unpacked"
    for name, around in (("leftImg8bit", "leftImg8bit_trainvaltest"), ("gtFine", "gtFine")):
        shutil.copytree(source / name, root / around / name)
    shutil.move(root / "leftImg8bit_trainvaltest" / "leftImg8bit" / "train_extra", tmp_path / "x")
    (root / "leftImg8bit_trainextra" / "leftImg8bit").mkdir(parents=True)
    shutil.move(tmp_path / "x", root / "leftImg8bit_trainextra" / "leftImg8bit" / "train_extra")
    shutil.copytree(source / "gtCoarse", root / "gtCoarse" / "gtCoarse")
    plain, packed = (opened(one, "cityscapes", coarse=True) for one in (source, root))
    for part in ("train", "validation"):
        names = [
            [(s.image.name, s.mask.name) for s in getattr(one, part).samples]
            for one in (plain, packed)
        ]
        assert names[0] == names[1]


def test_train_ids_are_read_where_there_is_nothing_else(sets, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(sets["cityscapes"], root)
    before = opened(root, "cityscapes")
    labels = [read_labels(before.train, n) for n in range(3)]
    for path in (root / "gtFine" / "train").rglob("*_labelIds.png"):
        table = np.array([255 if one < 0 else one for one in ID_TO_TRAIN], np.uint8)
        Image.fromarray(table[raw(path)]).save(
            str(path).replace("_labelIds", "_labelTrainIds"), "PNG"
        )
        path.unlink()
    after = opened(root, "cityscapes")
    for number, wanted in enumerate(labels):
        np.testing.assert_array_equal(read_labels(after.train, number), wanted)
    with pytest.raises(ClustersegError, match="labelTrainIds"):
        opened(root, "cityscapes", coarse=True)


@pytest.mark.parametrize(
    ("spoil", "coarse", "expected"),
    [
        (lambda root: shutil.rmtree(root / "gtFine"), False, "no gtFine/train"),
        (lambda root: shutil.rmtree(root / "gtCoarse"), True, "no gtCoarse/train_extra"),
        (lambda root: shutil.rmtree(root / "leftImg8bit" / "val"), False, "no leftImg8bit/val"),
        (lambda root: one_of(root, "gtFine/val", "labelIds").unlink(), False, "without a mask"),
        (
            lambda root: one_of(root, "leftImg8bit/train", "leftImg8bit").unlink(),
            False,
            "without a picture",
        ),
    ],
)
def test_what_cityscapes_lacks_is_named(sets, tmp_path, spoil, coarse, expected):
    root = tmp_path / "set"
    shutil.copytree(sets["cityscapes"], root)
    spoil(root)
    with pytest.raises(ClustersegError, match=expected):
        opened(root, "cityscapes", coarse=coarse)


def one_of(root, folder, kind):
    return next(iter(sorted((root / folder).rglob(f"*_{kind}.png"))))


def test_a_validation_part_is_not_split_off_twice(sets):
    for layout in ("cityscapes", "voc2012", "coco_stuff", "ade20k"):
        with pytest.raises(ClustersegError, match="validation_split"):
            opened(sets[layout], layout, validation_split=0.5)


# --- VOC 2012 ---------------------------------------------------------------------------------


def test_voc_reads_palettes_as_numbers_and_borders_as_ignored(sets):
    found = opened(sets["voc2012"], "voc2012")
    assert found.classes == 21 and found.class_names[:2] == ("background", "aeroplane")
    assert found.colors[:3] == ((0, 0, 0), (128, 0, 0), (0, 128, 0))  # of VOC's own palette
    assert Image.open(found.train.samples[0].mask).mode == "P"
    assert 255 in check(found.train, lambda sample: raw(sample.mask))
    assert found.test is None
    with_border = opened(sets["voc2012"], "voc2012", None)
    assert with_border.classes == 22
    check(
        with_border.train,
        lambda sample: np.where(raw(sample.mask) == 255, 21, raw(sample.mask)),
        None,
    )


def test_voc_augmented_is_trainaug_with_its_grey_masks(sets, tmp_path):
    plain = opened(sets["voc2012"], "voc2012")
    found = opened(sets["voc2012"], "voc2012", augmented=True)
    assert len(found.train) == 5
    assert {s.image for s in plain.train.samples} < {s.image for s in found.train.samples}
    assert all(s.mask.parent.name == "SegmentationClassAug" for s in found.train.samples)
    assert found.validation == plain.validation
    check(found.train, lambda sample: raw(sample.mask))
    # Lists of `image mask`, in the root, below VOCdevkit.
    root = tmp_path / "VOCdevkit" / "VOC2012"
    shutil.copytree(sets["voc2012"], root)
    listed = root / "ImageSets" / "Segmentation" / "trainaug.txt"
    lines = [
        f"/JPEGImages/{one}.jpg /SegmentationClassAug/{one}.png\n"
        for one in listed.read_text().split()
    ]
    listed.unlink()
    (root / "trainaug.txt").write_text("".join(lines))
    again = opened(tmp_path, "voc2012", augmented=True)
    assert [s.mask.name for s in again.train.samples] == [s.mask.name for s in found.train.samples]


def test_voc_without_its_further_masks_says_what_to_do(sets, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(sets["voc2012"], root)
    shutil.rmtree(root / "SegmentationClassAug")
    with pytest.raises(ClustersegError, match=r"trainaug\.txt:") as caught:
        opened(root, "voc2012", augmented=True)
    assert "line" in caught.value.help
    (root / "benchmark_RELEASE" / "dataset" / "cls").mkdir(parents=True)
    (root / "benchmark_RELEASE" / "dataset" / "cls" / "1.mat").touch()
    with pytest.raises(ClustersegError) as caught:
        opened(root, "voc2012", augmented=True)
    assert "GTcls" in caught.value.help
    (root / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    with pytest.raises(ClustersegError, match=r"trainaug\.txt: no such file"):
        opened(root, "voc2012", augmented=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a b c\n")
    with pytest.raises(ClustersegError, match=r"train\.txt:1"):
        opened(root, "voc2012")


# --- COCO-Stuff, ADE20K -----------------------------------------------------------------------


def test_coco_stuff_leaves_out_the_numbers_that_are_not_in_use(sets):
    assert len(coco_stuff.CLASSES) == len(coco_stuff.VALUES) == len(set(coco_stuff.VALUES)) == 171
    by_value = dict(zip(coco_stuff.VALUES, coco_stuff.CLASSES, strict=True))
    # Ids of the set's own list, less 1.
    for number, name in {
        1: "person", 10: "traffic light", 13: "stop sign", 27: "backpack", 90: "toothbrush",
        92: "banner", 106: "clouds", 149: "road", 157: "sky-other", 169: "tree", 182: "wood",
    }.items():  # fmt: skip
        assert by_value[number - 1] == name
    found = opened(sets["coco_stuff"], "coco_stuff")
    assert (len(found.train), len(found.validation)) == (3, 2)
    place = {value: number for number, value in enumerate(coco_stuff.VALUES)} | {255: 255}
    seen = check(found.train, lambda sample: np.vectorize(place.get)(raw(sample.mask)))
    assert 255 in seen
    assert found.train.label_table[11] == INVALID  # street sign


def test_ade20k_other_counts_nowhere_and_classes_begin_at_one(sets):
    assert len(ade20k.CLASSES) == len(set(ade20k.CLASSES)) == 150
    assert [ade20k.CLASSES[n - 1] for n in (1, 13, 21, 91, 150)] == [
        "wall", "person", "car", "airplane", "flag",
    ]  # fmt: skip
    found = opened(sets["ade20k"], "ade20k")
    assert found.label_ids == tuple(range(1, 151))
    seen = check(
        found.train,
        lambda sample: np.where(raw(sample.mask) == 0, 255, raw(sample.mask).astype(int) - 1),
    )
    assert 255 in seen
    other = opened(sets["ade20k"], "ade20k", None)
    assert other.class_names[-1] == "other" and other.classes == 151
    assert other.train.label_table[0] == 150


@pytest.mark.parametrize("layout", ["coco_stuff", "ade20k"])
def test_a_missing_partner_is_named(sets, tmp_path, layout):
    root = tmp_path / "set"
    shutil.copytree(sets[layout], root)
    mask = next(iter(sorted((root / "annotations").rglob("*.png"))))
    mask.unlink()
    with pytest.raises(ClustersegError, match=r"pictures without a mask \(1\)") as caught:
        opened(root, layout)
    assert mask.stem in caught.value.message


# --- Folders ----------------------------------------------------------------------------------


def test_blue_palette_and_grey_folders_are_one_set(sets):
    parts = {}
    for labels in ("grey", "palette", "blue"):
        found = opened(sets[labels], "folder", classes=11, labels=labels)
        assert (len(found.train), len(found.validation)) == (3, 2)
        assert len(found.test()) == 1
        parts[labels] = pipeline_labels(found.train)
        for number, wanted in enumerate(parts[labels]):
            np.testing.assert_array_equal(read_labels(found.train, number), wanted)
    assert len(np.unique(parts["grey"])) > 4
    np.testing.assert_array_equal(parts["grey"], parts["palette"])
    np.testing.assert_array_equal(parts["grey"], parts["blue"])
    for labels in ("grey", "palette"):  # left out: whatever the one channel holds
        found = opened(sets[labels], "folder", classes=11)
        np.testing.assert_array_equal(pipeline_labels(found.train), parts["grey"])


@pytest.mark.parametrize(
    ("made", "labels", "expected"),
    [
        ("blue", None, "3 channels"),
        ("blue", "palette", "3 channels"),
        ("grey", "palette", "not palette"),
        ("palette", "grey", "not grey"),
        ("grey", "blue", "the mask has one channel"),
    ],
)
def test_a_mask_of_another_kind_is_named(sets, made, labels, expected):
    """By the pipeline too, which does not know why."""
    import tensorflow as tf

    found = opened(sets[made], "folder", classes=11, **({"labels": labels} if labels else {}))
    with pytest.raises(ClustersegError, match=expected) as caught:
        read_labels(found.train, 0)
    assert str(found.train.samples[0].mask) in caught.value.message
    assert f"labels: {labels or 'blue'}" in (caught.value.help or "")  # what it would have to be
    with pytest.raises(tf.errors.OpError) as stopped:
        pipeline_labels(found.train)
    assert expected in explain(stopped.value, found.train, [0]).message


def test_names_colours_and_other_folders(sets, tmp_path):
    source, root = sets["grey"], tmp_path / "set"
    for mine, theirs in (("a", "images"), ("b", "masks"), ("c/d", "validation_images")):
        shutil.copytree(source / theirs, root / mine)
    shutil.copytree(source / "validation_masks", root / "e")
    names = [f"n{i}" for i in range(11)]
    colors = [[i, 0, 255] for i in range(11)]
    folders = {"images": "a", "masks": "b", "validation_images": "c/d", "validation_masks": "e"}
    found = opened(root, "folder", names=names, colors=colors, **folders)
    assert found.class_names == tuple(names) and found.colors[3] == (3, 0, 255)
    assert (len(found.train), len(found.validation)) == (3, 2)
    assert found.test is None
    plain = opened(source, "folder", classes=11)
    assert plain.class_names[2] == "class 2" and plain.colors == default_colors(11)
    table = opened(source, "folder")
    assert table.class_names[:2] == ("sky", "building")
    assert table.colors[0] == (128, 128, 128)
    with pytest.raises(ClustersegError, match="how many classes"):
        opened(root, "folder", **folders)
    for keys, expected in (
        ({"classes": 3, "names": ["a"]}, "1 names"),
        ({"classes": 3, "colors": [[1, 2, 3]]}, "1 colours"),
    ):
        with pytest.raises(ClustersegError, match=expected):
            opened(source, "folder", **keys)


def test_a_folder_without_validation_is_split(sets, tmp_path):
    root = tmp_path / "set"
    for name in ("images", "masks"):
        shutil.copytree(sets["grey"] / name, root / name)
    with pytest.raises(ClustersegError, match="no validation part"):
        opened(root, "folder", classes=11)
    found = opened(root, "folder", classes=11, validation_split=0.34)
    assert (len(found.train), len(found.validation)) == (2, 1)
    with pytest.raises(ClustersegError, match="validation_split is given"):
        opened(sets["grey"], "folder", classes=11, validation_split=0.34)


def test_jpeg_and_png_of_one_name_and_lossy_masks_are_refused(sets, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(sets["grey"], root)
    image = next(iter(sorted((root / "images").iterdir())))
    Image.open(image).save(image.with_suffix(".jpg"))
    with pytest.raises(ClustersegError, match="have the same name") as caught:
        opened(root, "folder", classes=11)
    assert image.name in caught.value.message
    image.with_suffix(".jpg").unlink()
    mask = root / "masks" / image.name
    Image.open(mask).save(mask.with_suffix(".jpg"))
    with pytest.raises(ClustersegError, match="JPEG can't be a mask"):
        opened(root, "folder", classes=11)
    # One that says that it is a PNG.
    mask.with_suffix(".jpg").rename(mask)
    with pytest.raises(ClustersegError, match="JPEG"):
        read_labels(opened(root, "folder", classes=11).train, 0)


def test_masks_of_16_bits_hold_more_classes(tmp_path):
    values = np.array([[0, 300, 65535], [999, 5, 65535]], np.uint16)
    for name, picture in (
        ("images", Image.fromarray(np.zeros((2, 3, 3), np.uint8))),
        ("masks", Image.fromarray(values)),
    ):
        for part in ("", "validation_"):
            (tmp_path / f"{part}{name}").mkdir()
            picture.save(tmp_path / f"{part}{name}" / "a.png")
    found = opened(tmp_path, "folder", 65535, classes=1000)
    np.testing.assert_array_equal(read_labels(found.train, 0), values)
    elements = batches(
        found.train, np.array([[0]]), seed=0, epoch=0, augment=(), size=(2, 3), ignore=65535,
        threads=1,
    )  # fmt: skip
    ((_, labels, _),) = elements.as_numpy_iterator()
    np.testing.assert_array_equal(labels[0], values)
    # A table of 256: what is beyond it is no class, and said so.
    small = Part("train", found.train.samples, label_table(6, ignored_values=(), ignore=255))
    with pytest.raises(ClustersegError, match="class id 300 at row 0, column 1"):
        read_labels(small, 0)


def test_a_tiff_of_16_bits_is_read_by_pillow(tmp_path):
    values = np.array([[0, 3], [2, 1]], np.uint16)
    Image.fromarray(values).save(tmp_path / "mask.tif")
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / "a.png")
    sample = Sample(tmp_path / "a.png", tmp_path / "mask.tif")
    part = Part("train", (sample,), label_table(4, ignored_values=(), ignore=255))
    np.testing.assert_array_equal(read_labels(part, 0), values)


@given(st.integers(1, 256))
def test_class_colours_are_all_different(count):
    colors = default_colors(count)
    assert len(set(colors)) == count
    assert colors == default_colors(256)[:count]


def test_class_colours_are_vocs():
    assert voc2012.CLASSES[15] == "person"
    colors = default_colors(256)
    assert (colors[15], colors[20], colors[255]) == ((192, 128, 128), (0, 64, 128), (224, 224, 192))


def test_a_root_that_is_not_there_names_the_layout():
    with pytest.raises(ClustersegError) as caught:
        opened(Path("/nowhere/at/all"), "ade20k")
    assert "--format ade20k" in caught.value.help
