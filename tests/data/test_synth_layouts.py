"""Each layout of `data synth` holds what the scenes show, where that layout has it."""

import numpy as np
import pytest
from PIL import Image

from clusterseg.data.cityscapes import LABELS
from clusterseg.data.colormap import default_colors
from clusterseg.data.synth.city import CityScene, city_scene, coarse
from clusterseg.data.synth.draws import Draws
from clusterseg.data.synth.edges import near_changes
from clusterseg.data.synth.layouts import camvid, coco_stuff
from clusterseg.data.synth.recipe import Recipe, scene_key
from clusterseg.data.synth.street import VOID, street_scene
from clusterseg.data.synth.things import class_color, things_scene
from clusterseg.data.synth.write import layout_names, write_dataset
from clusterseg.errors import ClustersegError
from clusterseg.registry import load

CITY = Recipe("cityscapes", train=4, val=2, test=1, size=(64, 128), seed=3, extra=2)
NAMES = {label.id: label for label in LABELS if label.id >= 0}


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("name", layout_names())
def test_names_are_those_of_the_files(name):
    layout = load("clusterseg.data.synth.layouts", "layout", name)
    extra = {"extra": 2} if "extra" in layout.OPTIONS else {}
    recipe = Recipe(name, train=3, val=2, test=2, size=(24, 32), seed=0, **extra)
    written = [path for path, _ in layout.files(recipe)]
    assert written == layout.names(recipe)
    assert len(set(written)) == len(written)


def test_what_a_layout_does_not_have_is_refused(tmp_path):
    assert not camvid.OPTIONS
    for keys, option in (({"extra": 1}, "--extra"), ({"labels": "blue"}, "--labels")):
        recipe = Recipe("camvid", train=1, val=1, test=0, size=(24, 32), seed=0, **keys)
        with pytest.raises(ClustersegError, match=f"{option} means nothing.*camvid"):
            write_dataset(recipe, tmp_path / "a")
    with pytest.raises(ClustersegError, match="--labels 'red' is none of"):
        write_dataset(Recipe("camvid", 1, 1, 0, (24, 32), 0, labels="red"), tmp_path / "a")


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return write_dataset(CITY, tmp_path_factory.mktemp("city") / "set").root


def test_every_picture_of_cityscapes_has_its_masks(city):
    pictures = sorted(p for p in city.rglob("*_leftImg8bit.png"))
    assert len(pictures) == 4 + 2 + 1 + 2
    for picture in pictures:
        part, name = picture.parts[-3], picture.name.removesuffix("_leftImg8bit.png")
        assert name.startswith(picture.parent.name + "_")  # the city
        truths = {"train_extra": ["gtCoarse"], "test": ["gtFine"]}.get(part, ["gtFine", "gtCoarse"])
        for truth in ("gtFine", "gtCoarse"):
            for kind in ("labelIds", "instanceIds", "color"):
                mask = city / truth / part / picture.parent.name / f"{name}_{truth}_{kind}.png"
                assert mask.exists() == (truth in truths), mask
                if truth in truths:
                    assert pixels(mask).shape[:2] == pixels(picture).shape[:2]


def test_cityscapes_masks_hold_the_scene(city):
    name = "bergheim/bergheim_000001_000019"
    scene = city_scene(scene_key(CITY, "train", 1), *CITY.size)
    fine = city / "gtFine" / "train"
    assert (pixels(city / "leftImg8bit/train" / f"{name}_leftImg8bit.png") == scene.image).all()
    assert (pixels(fine / f"{name}_gtFine_labelIds.png") == scene.label_ids).all()
    assert (pixels(fine / f"{name}_gtFine_instanceIds.png") == scene.instance_ids).all()
    colors = pixels(fine / f"{name}_gtFine_color.png")
    for number in np.unique(scene.label_ids):
        assert (colors[scene.label_ids == number] == NAMES[number].color).all()


def test_instances_belong_to_labels_that_have_them():
    groups = 0
    for i in range(12):
        scene = city_scene((1, i), 64, 128)
        one = scene.instance_ids >= 1000
        labels = np.where(one, scene.instance_ids // 1000, scene.instance_ids)
        assert (labels == scene.label_ids).all()
        for number in np.unique(scene.label_ids):
            label = NAMES[number]  # KeyError: no such label
            alone = scene.instance_ids[(scene.label_ids == number) & ~one]
            groups += label.has_instances and alone.size > 0
            assert label.has_instances or not one[scene.label_ids == number].any()
    assert groups > 2  # the bare id, where people or cars can't be told apart


def test_two_cars_are_two_instances():
    """In most scenes with several cars; one may hide another."""
    counts = []
    for i in range(20):
        ids = np.unique(city_scene((2, i), 96, 192).instance_ids)
        counts.append(sum(26000 <= number < 27000 for number in ids))
    assert max(counts) >= 3


def test_every_class_is_in_a_few_scenes():
    seen = np.zeros(256, int)
    for i in range(24):
        seen += np.bincount(city_scene((0, i), 64, 128).label_ids.reshape(-1), minlength=256)
    missing = [label.name for label in LABELS if not label.ignored and seen[label.id] == 0]
    assert missing == []
    assert seen[[1, 3, 29, 30]].min() > 0  # void, and vehicles that only nIoU knows


def test_the_test_part_of_cityscapes_has_no_labels(city):
    for mask in (city / "gtFine/test").rglob("*Ids.png"):
        assert pixels(mask).max() <= 3


def test_coarse_labels_are_fine_ones_or_none():
    scene = city_scene((4, 0), 96, 192)
    rough = coarse(scene, 2)
    kept = rough.label_ids == scene.label_ids
    assert (kept | (rough.label_ids == 0)).all()
    assert (rough.instance_ids[~kept] == 0).all()
    assert (rough.instance_ids[kept] == scene.instance_ids[kept]).all()
    assert 0.5 < kept.mean() < 0.97


def test_coarse_leaves_out_what_is_within_reach():
    ids = np.full((9, 9), 7, np.uint16)
    ids[:, 5:] = 8
    scene = CityScene(np.zeros((9, 9, 3), np.uint8), ids.astype(np.uint8), ids)
    for reach in (1, 2, 3):
        row = coarse(scene, reach).label_ids[4]
        expected = [7] * (5 - reach) + [0] * 2 * reach + [8] * (4 - reach)
        assert row.tolist() == expected
        turned = CityScene(scene.image, scene.label_ids.T, ids.T)
        assert (coarse(turned, reach).label_ids[:, 4] == row).all()


def written(tmp_path, layout, **keys):
    recipe = Recipe(
        layout, **{"train": 3, "val": 2, "test": 1, "size": (48, 64), "seed": 1, **keys}
    )
    return write_dataset(recipe, tmp_path / "set").root, recipe


def names_below(folder):
    return sorted(path.stem for path in folder.iterdir())


def test_near_changes_against_the_definition():
    draws = Draws((9, 9))
    values = np.array([[draws.whole(0, 2) // 2 for _ in range(11)] for _ in range(7)])
    for reach in (1, 2, 3):
        near = near_changes(values, reach)
        for y, x in np.ndindex(values.shape):
            row = values[y, max(0, x - reach) : x + reach + 1]
            column = values[max(0, y - reach) : y + reach + 1, x]
            assert near[y, x] == (len(set(row)) > 1 or len(set(column)) > 1)


def test_voc_has_palette_masks_with_borders_and_the_lists(tmp_path):
    root, recipe = written(tmp_path, "voc2012", extra=2)
    lists = root / "ImageSets" / "Segmentation"
    ids = {path.stem: path.read_text().split() for path in lists.iterdir()}
    assert {name: len(listed) for name, listed in ids.items()} == {
        "train": 3, "val": 2, "trainval": 5, "test": 1, "trainaug": 5
    }  # fmt: skip
    assert set(ids["train"]) < set(ids["trainaug"])
    assert not set(ids["val"]) & set(ids["trainaug"])
    everything = sorted({*ids["trainval"], *ids["trainaug"], *ids["test"]})
    assert names_below(root / "JPEGImages") == everything
    assert names_below(root / "SegmentationClass") == sorted(ids["trainval"])
    assert names_below(root / "SegmentationClassAug") == sorted(
        {*ids["trainval"], *ids["trainaug"]}
    )
    _, labels = things_scene(
        scene_key(recipe, "train", 0), *recipe.size, stuff=[0], things=range(1, 21)
    )
    mask = Image.open(root / "SegmentationClass" / f"{ids['train'][0]}.png")
    assert mask.mode == "P"
    values = np.asarray(mask)
    assert (values[values != 255] == labels[values != 255]).all()
    assert 0 < (values == 255).mean() < 0.5
    more = Image.open(root / "SegmentationClassAug" / f"{ids['train'][0]}.png")
    assert more.mode == "L"
    assert (np.asarray(more) == labels).all()


def test_voc_colors_are_those_of_the_challenge():
    """From the table in its development kit: aeroplane, person, tv monitor, border."""
    colors = default_colors(256)
    assert colors[1] == (128, 0, 0)
    assert colors[15] == (192, 128, 128)
    assert colors[20] == (0, 64, 128)
    assert colors[255] == (224, 224, 192)


def test_voc_without_extra_has_no_second_masks(tmp_path):
    root, _ = written(tmp_path, "voc2012")
    assert not (root / "SegmentationClassAug").exists()
    assert not (root / "ImageSets" / "Segmentation" / "trainaug.txt").exists()


def test_coco_stuff_masks_hold_only_numbers_in_use(tmp_path):
    root, _ = written(tmp_path, "coco_stuff", train=12)
    seen = set()
    for part, count in (("train2017", 12), ("val2017", 2)):
        assert names_below(root / "images" / part) == names_below(root / "annotations" / part)
        for mask in (root / "annotations" / part).iterdir():
            seen |= set(np.unique(pixels(mask)).tolist())
        assert len(names_below(root / "images" / part)) == count
    assert not (root / "annotations" / "test2017").exists()
    assert len(names_below(root / "images" / "test2017")) == 1
    assert seen <= set(range(182)) - set(coco_stuff.UNUSED) | {255}
    assert len(coco_stuff.THINGS) == 80
    assert seen & set(coco_stuff.THINGS)
    assert seen & set(coco_stuff.STUFF)
    assert 255 in seen


def test_ade20k_masks_hold_other_and_150_classes(tmp_path):
    root, _ = written(tmp_path, "ade20k", train=12)
    seen = set()
    for part in ("training", "validation"):
        assert names_below(root / "images" / part) == names_below(root / "annotations" / part)
        for mask in (root / "annotations" / part).iterdir():
            seen |= set(np.unique(pixels(mask)).tolist())
    assert seen <= set(range(151))
    assert 0 in seen
    assert max(seen) > 100
    assert names_below(root / "release_test" / "testing") == ["ADE_test_00000001"]


@pytest.mark.parametrize("labels", ["grey", "palette", "blue"])
def test_folder_masks_hold_the_classes_where_asked(tmp_path, labels):
    root, recipe = written(tmp_path, "folder", labels=labels)
    for prefix, part, count in (("", "train", 3), ("validation_", "val", 2), ("test_", "test", 1)):
        images, masks = root / f"{prefix}images", root / f"{prefix}masks"
        assert names_below(images) == names_below(masks)
        assert len(names_below(masks)) == count
        mask = Image.open(masks / "synth_000000.png")
        assert mask.mode == {"grey": "L", "palette": "P", "blue": "RGB"}[labels]
        values = np.asarray(mask)[..., 2] if labels == "blue" else np.asarray(mask)
        _, shown = street_scene(scene_key(recipe, part, 0), *recipe.size)
        assert (values == np.where(shown == VOID, 255, shown)).all()


def test_classes_of_things_can_be_told_apart():
    """No two classes have the same colour and shape; pixels show the colour of their class."""
    colors = np.array([class_color(number) for number in range(182)])
    for shape in range(3):
        same = colors[shape::3]
        apart = np.abs(same[:, None] - same[None]).max(axis=-1) + 255 * np.eye(len(same))
        assert apart.min() > 1
    image, labels = things_scene((5, 1), 64, 64, stuff=[3], things=[7, 8])
    shown = [
        image[labels == number].mean(axis=0) for number in (3, 7, 8) if (labels == number).any()
    ]
    assert len(shown) > 1
    assert np.abs(shown[0] - shown[1]).max() > 20
