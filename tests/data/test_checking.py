"""`data check` names what is wrong, and nothing where nothing is: each finding has its twin."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clusterseg.data import open_dataset
from clusterseg.data.checking.report import check, stats
from clusterseg.data.convert.write import convert
from clusterseg.data.dataset import Sample
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.losses import balanced_weights
from clusterseg.spec.model import DataSpec

from .camvid_tree import COLORS, write, write_tree

# A tree of noise in which every class is in every mask.
ALL = [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


@pytest.fixture
def tree(tmp_path):
    root = write_tree(tmp_path / "set", train=3, val=2)
    for part, count in (("train", 3), ("val", 2)):
        for i in range(count):
            write(root / f"{part}annot" / f"{i}.png", np.kron(ALL, np.ones((4, 2))))
    return root


def opened(root, ignore=255, **keys):
    return open_dataset(DataSpec(format="camvid", root=str(root), size=(8, 12), **keys), ignore)


def found(root_or_dataset, ignore=255, workers=2):
    dataset = root_or_dataset
    if isinstance(root_or_dataset, Path):
        dataset = opened(root_or_dataset, ignore)
    return {one.code: one for one in check(dataset, ignore, workers=workers).findings}


def test_nothing_is_found_in_a_set_without_faults(tree):
    assert found(tree) == {}


def test_nothing_is_wrong_with_synthetic_streets(tmp_path):
    root = write_dataset(Recipe("camvid", 12, 12, 0, (96, 128), 1), tmp_path / "set").root
    assert found(root) == {}


def test_facts_do_not_depend_on_the_workers(tree):
    (tree / "train" / "1.png").write_bytes(b"no picture")
    write(tree / "valannot" / "1.png", np.full((8, 12), 40))
    one, many = (check(opened(tree), 255, workers=n) for n in (1, 4))
    assert one == many


def harm_truncate(tree):
    path = tree / "train" / "1.png"
    path.write_bytes(path.read_bytes()[:-30])


def harm_rgb(tree):
    write(tree / "trainannot" / "1.png", np.zeros((8, 12, 3)))


def harm_jpeg(tree):
    pixels = np.zeros((8, 12), np.uint8)
    Image.fromarray(pixels).save(tree / "trainannot" / "1.png", format="JPEG")


def harm_size(tree):
    write(tree / "trainannot" / "1.png", np.zeros((8, 13)))


def harm_id(tree):
    write(tree / "trainannot" / "1.png", np.full((8, 12), 77))


def harm_float_mask(tree):
    picture = Image.fromarray(np.zeros((8, 12), np.float32))
    picture.save(tree / "trainannot" / "1.png", format="TIFF")


def harm_16_bit_picture(tree):
    Image.fromarray(np.zeros((8, 12), np.uint16)).save(tree / "train" / "1.png")


def harm_mask_bytes(tree):
    (tree / "trainannot" / "1.png").write_bytes(b"")


def harm_copy_within(tree):
    (tree / "train" / "1.png").write_bytes((tree / "train" / "0.png").read_bytes())


def harm_copy_across(tree):
    (tree / "train" / "1.png").write_bytes((tree / "val" / "0.png").read_bytes())


def harm_void(tree):
    write(tree / "trainannot" / "1.png", np.full((8, 12), 11))


def harm_list(tree):
    path = tree / "train.txt"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")


def harm_alpha(tree):
    write(tree / "train" / "1.png", np.full((8, 12, 4), 9))


def harm_turned(tree):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((8, 12, 3), 7, np.uint8)).save(tree / "train" / "1.png", exif=exif)


def harm_palette(tree, shift=0):
    """A palette; with a `shift` its colours belong to other classes than its numbers."""
    path = tree / "trainannot" / "1.png"
    mask = Image.open(path).convert("L")
    colors = [[int(word) for word in line.split()[:3]] for line in COLORS.splitlines()]
    mask.putpalette([one for color in colors[shift:] + colors[:shift] for one in color])
    mask.save(path)


@pytest.mark.parametrize(
    ("harm", "code", "severity", "file"),
    [
        (harm_truncate, "unreadable-picture", "error", "train/1.png"),
        (harm_mask_bytes, "unreadable-mask", "error", "trainannot/1.png"),
        (harm_rgb, "bad-mask", "error", "trainannot/1.png"),
        (harm_float_mask, "bad-mask", "error", "trainannot/1.png"),
        (harm_16_bit_picture, "bad-picture", "error", "train/1.png"),
        (harm_jpeg, "lossy-mask", "error", "trainannot/1.png"),
        (harm_size, "bad-mask-size", "error", "trainannot/1.png"),
        (harm_id, "bad-class-id", "error", "trainannot/1.png"),
        (harm_copy_within, "duplicate-picture", "warning", "train/0.png"),
        (harm_copy_across, "shared-picture", "error", "train/1.png"),
        (harm_void, "no-label", "warning", "trainannot/1.png"),
        (harm_list, "listed-twice", "warning", "train/1.png"),
        (harm_alpha, "picture-kind", "warning", "train/1.png"),
        (harm_turned, "turned-picture", "warning", "train/1.png"),
    ],
)
def test_each_fault_is_named_with_its_file_and_alone(tree, harm, code, severity, file):
    harm(tree)
    findings = found(tree)
    one = findings.pop(code)
    assert (one.severity, one.count) == (severity, 1)
    assert one.files == (str(tree / file),)
    assert one.help
    # A 16-bit picture is no RGB either, and a 16-bit mask is unlike the others.
    assert set(findings) <= {"picture-kind", "mixed-masks"}


def test_a_mask_of_16_bits_is_one_but_another_kind(tree):
    Image.fromarray(np.zeros((8, 12), np.uint16)).save(tree / "trainannot" / "1.png")
    findings = found(tree)
    assert set(findings) == {"mixed-masks"}
    assert str(tree / "trainannot" / "1.png") in findings["mixed-masks"].files


def test_a_file_that_went_away_after_the_set_was_opened(tree):
    dataset = opened(tree)
    (tree / "train" / "2.png").unlink()
    one = found(dataset)["missing-file"]
    assert one.files == (str(tree / "train" / "2.png"),)


def test_values_out_of_range_are_listed(tree):
    write(tree / "trainannot" / "0.png", np.array([[12, 3] * 6, [200, 255] * 6] * 4))
    assert found(tree)["bad-class-id"].details == ("12, 200",)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_masks_of_0_and_255_are_an_error(tree, share):
    """Trained on, they give a perfect score and nothing else: 255 counts nowhere."""
    masks = [*(tree / "trainannot").iterdir(), *(tree / "valannot").iterdir()]
    pixels = np.where(np.arange(96).reshape(8, 12) < 96 * share, 255, 0)
    for mask in masks:
        write(mask, pixels)
    one = found(tree)["ignored-foreground"]
    assert one.severity == "error"
    assert "%" in one.details[0]
    write(masks[0], np.where(pixels, 1, 0))  # the twin: a class is there
    assert "ignored-foreground" not in found(tree)


def test_0_and_255_where_255_is_a_class_are_none(tree):
    """`loss.ignore: null` and 256 classes."""
    colors = "".join(f"{i} 0 0 class{i}\n" for i in range(256))
    (tree / "label_colors.txt").write_text(colors)
    for mask in (*(tree / "trainannot").iterdir(), *(tree / "valannot").iterdir()):
        write(mask, np.array([[0, 255] * 6] * 8))
    findings = found(tree, ignore=None)
    assert "ignored-foreground" not in findings
    assert findings["absent-class"].count == 254


def test_a_palette_in_the_order_of_the_colour_map_is_fine(tree):
    harm_palette(tree)
    findings = found(tree)
    assert set(findings) == {"mixed-masks"}  # the others are grey
    assert findings["mixed-masks"].details == ("PNG L", "PNG P")


def test_a_palette_in_another_order_is_a_warning(tree):
    harm_palette(tree, shift=1)
    one = found(tree)["palette-order"]
    assert one.severity == "warning"
    assert one.details == ("value 0 has the colour of class 1",)


def test_classes_that_are_nowhere_are_named(tree):
    for i in range(3):
        write(tree / "trainannot" / f"{i}.png", np.kron(ALL, np.ones((4, 2))) % 9)
    for i in range(2):
        write(tree / "valannot" / f"{i}.png", np.kron(ALL, np.ones((4, 2))) % 8)
    findings = found(tree)
    assert findings["absent-class"].details == ("9 class9", "10 class10")
    assert findings["absent-in-validation"].details == ("8 class8",)


def test_two_classes_of_one_colour(tree):
    lines = COLORS.splitlines()
    lines[4] = lines[3].replace("class3", "class4")
    (tree / "label_colors.txt").write_text("\n".join(lines))
    assert "class3, class4" in found(tree)["same-color"].details[0]


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    root = tmp_path_factory.mktemp("city") / "set"
    write_dataset(Recipe("cityscapes", 4, 2, 0, (64, 128), 5), root)
    return root


def city_dataset(root):
    return open_dataset(DataSpec(format="cityscapes", root=str(root)), 255)


def copied(path, tmp_path, change):
    """A copy of a file with other pixels."""
    pixels = np.array(Image.open(path))
    target = tmp_path / path.name
    changed = Image.fromarray(change(pixels))
    changed.save(target, format="TIFF" if changed.mode == "I" else "PNG")
    return target


def with_first(dataset, **paths):
    first, *others = dataset.train.samples
    samples = (replace(first, **paths), *others)
    return replace(dataset, train=replace(dataset.train, samples=samples))


@pytest.mark.parametrize(
    ("layout", "options", "written"),
    [
        ("cityscapes", {}, {"extra": 2}),
        ("voc2012", {"augmented": True}, {"extra": 2}),
        ("coco_stuff", {}, {}),
        ("ade20k", {}, {}),
        ("folder", {"classes": 11, "labels": "blue"}, {"labels": "blue"}),
        ("folder", {"classes": 11, "labels": "palette"}, {"labels": "palette"}),
        ("tfrecord", {}, {}),
    ],
)
def test_every_layout_is_looked_into_and_converted(tmp_path, layout, options, written):
    """What `data synth` writes has no errors, and is the same set as shards."""
    root = tmp_path / "set"
    write_dataset(Recipe(layout, 6, 3, 0, (48, 64), 5, **written), root)
    spec = DataSpec(format=layout, root=str(root), coarse=layout == "cityscapes", options=options)
    dataset = open_dataset(spec, 255)
    checked = check(dataset, 255, workers=2)
    assert [one for one in checked.findings if one.severity == "error"] == []
    assert [part.samples for part in checked.parts] == [
        len(dataset.train),
        len(dataset.validation),
    ]
    convert(dataset, root, tmp_path / "shards", 255, workers=2)
    shards = open_dataset(DataSpec(format="tfrecord", root=str(tmp_path / "shards")), 255)
    again = check(shards, 255, workers=2)
    for one, other in zip(checked.parts, again.parts, strict=True):
        assert one.class_pixels == other.class_pixels
        assert one.ignored == other.ignored


def test_instances_that_fit_their_masks_are_fine(city):
    findings = found(city_dataset(city))
    assert not any(one.severity == "error" for one in findings.values())


def test_instances_of_another_label_or_size_are_errors(city, tmp_path):
    dataset = city_dataset(city)
    path = dataset.train.samples[0].instances

    def one_more_car(ids):
        ids[:4, :4] = 26900
        return ids

    for change, text in (
        (one_more_car, "cover other pixels"),
        (lambda ids: ids[1:], "63x128"),
        (lambda ids: ids.astype(np.int32) + 70_000, "more than 16 bits"),
    ):
        bad = with_first(dataset, instances=copied(path, tmp_path, change))
        one = found(bad)
        code = "bad-mask-size" if text == "63x128" else "bad-instances"
        assert text in one[code].details[0]


def test_train_ids_instead_of_ids_are_told(city, tmp_path):
    dataset = city_dataset(city)
    table = np.array([n if n >= 0 else 255 for n in dataset.train.label_table], np.uint8)
    samples = []
    for sample in dataset.train.samples:
        mask = copied(sample.mask, tmp_path, lambda pixels: table[pixels])
        samples.append(Sample(sample.image, mask))
    part = replace(dataset.train, samples=tuple(samples))
    one = found(replace(dataset, train=part, validation=replace(part, name="val", samples=())))
    assert "look like train ids" in one["train-ids"].message
    assert "train-ids" not in found(dataset)


def test_stats_count_what_is_there(tree):
    write(tree / "trainannot" / "0.png", np.full((8, 12), 11))  # void
    write(tree / "trainannot" / "1.png", np.full((8, 12), 3))
    part = stats(opened(tree), opened(tree).train, 255, workers=2)
    pixels = [8] * 11
    pixels[3] += 96
    assert [one.pixels for one in part.classes] == pixels
    assert [one.pictures for one in part.classes] == [1, 1, 1, 2] + [1] * 7
    assert part.ignored == 96 + 8
    assert sum(one.share for one in part.classes) == pytest.approx(1)
    assert [one.weight for one in part.classes] == list(balanced_weights(pixels))
    assert part.findings == ()


def test_stats_leave_out_and_name_what_can_not_be_used(tree):
    harm_rgb(tree)
    part = stats(opened(tree), opened(tree).train, 255, workers=2)
    assert [one.code for one in part.findings] == ["bad-mask"]
    assert part.classes[0].pixels == 16


def test_the_command_says_by_its_exit_code_what_it_found(tree, run):
    good = run("check", "set", "--format", "camvid", cwd=tree.parent)
    assert (good.returncode, good.stderr) == (0, "")
    assert "nothing is wrong" in good.stdout
    assert "class7" in good.stdout
    harm_void(tree)
    warned = run("check", "set", "--format", "camvid", "--json", cwd=tree.parent)
    assert warned.returncode == 0
    strict = run("check", "set", "--format", "camvid", "--strict", cwd=tree.parent)
    assert strict.returncode == 1
    assert "0 errors, 1 warning" in strict.stdout
    record = json.loads(warned.stdout)
    assert record["ok"] is True
    assert [one["code"] for one in record["findings"]] == ["no-label"]
    assert record["parts"][0]["samples"] == 3
    harm_size(tree)
    bad = run("check", "set", "--format", "camvid", cwd=tree.parent)
    assert bad.returncode == 1
    assert "trainannot/1.png: 8x13, but its picture is 8x12" in bad.stdout


@pytest.mark.parametrize("labels", ["grey", "palette", "blue"])
def test_the_command_that_synth_names_reads_what_it_wrote(tmp_path, run, labels):
    size = ["--size", "48x64", "--train", "4", "--val", "2", "--test", "0"]
    made = run("synth", "a set", "--format", "folder", "--labels", labels, *size, cwd=tmp_path)
    assert made.returncode == 0
    (line,) = made.stderr.splitlines()
    program, group, *arguments = shlex.split(line.removeprefix("look into it: "))
    assert (program, group) == ("clusterseg", "data")
    checked = run(*arguments, "--json", cwd=tmp_path)
    assert json.loads(checked.stdout)["ok"], checked.stdout
    assert run("convert", *arguments[1:], "shards", cwd=tmp_path).returncode == 0
    assert run("check", "shards", "--format", "tfrecord", cwd=tmp_path).returncode == 0


def test_synth_names_its_layouts(run, tmp_path):
    shown = " ".join(run("synth", "--help", cwd=tmp_path).stdout.split())
    assert "ade20k, camvid, cityscapes, coco_stuff, folder, tfrecord, voc2012" in shown


def test_a_broken_first_picture_hides_nothing(tree, run):
    """Opening a set for training takes the size from it."""
    for name in ("train/0.png", "train/2.png", "valannot/1.png"):
        (tree / name).write_bytes(b"no picture")
    bad = run("check", "set", "--format", "camvid", "--json", cwd=tree.parent)
    assert bad.returncode == 1
    broken = [file for one in json.loads(bad.stdout)["findings"] for file in one["files"]]
    assert [Path(file).name for file in broken] == ["0.png", "2.png", "1.png"]
    counted = run("stats", "set", "--format", "camvid", "--json", cwd=tree.parent)
    assert counted.returncode == 0  # its masks can be used


def test_a_set_that_can_not_be_opened_is_a_finding_and_none_is_a_mistake(tree, run):
    (tree / "label_colors.txt").write_text("1 2 3 road\n1 2 sky\n")
    bad = run("check", "set", "--format", "camvid", "--json", cwd=tree.parent)
    assert bad.returncode == 1
    (one,) = json.loads(bad.stdout)["findings"]
    assert one["code"] == "bad-list"
    assert "label_colors.txt:2" in one["message"]
    for arguments, text in (
        (["nowhere", "--format", "camvid"], "no folder"),
        (["set"], "layout"),
        (["set", "--format", "camvit"], "camvid"),
        ([], "which data set"),
    ):
        done = run("check", *arguments, cwd=tree.parent)
        assert done.returncode == 2, arguments
        assert text in done.stderr


JOB = """
name: x
train:
  model: {name: unet}
  data: {format: camvid, root: set, size: [16, 16]}
"""


def test_the_data_of_a_job_are_checked_with_its_keys(tree, run):
    (tree.parent / "job.yaml").write_text(JOB)
    (tree / "val.txt").unlink()
    missing = run("check", "job.yaml", "--json", cwd=tree.parent)
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["findings"][0]["code"] == "no-validation"
    split = ["--set", "train.data.validation_split=0.4"]
    done = run("check", "job.yaml", *split, "--json", cwd=tree.parent)
    assert done.returncode == 0
    assert [part["samples"] for part in json.loads(done.stdout)["parts"]] == [2, 1]


def test_the_weights_that_stats_prints_are_read_by_job_yaml(tree, tmp_path, run):
    from clusterseg.spec.reader import read_job

    done = run("stats", "set", "--format", "camvid", cwd=tree.parent)
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("loss: ")]
    job = tmp_path / "job.yaml"
    job.write_text(JOB + f"  {line}\n")
    weights = read_job(job, environ={}).train.loss.class_weights
    assert weights == (1.0,) * 11
    record = json.loads(run("stats", "set", "--format", "camvid", "--json", cwd=tree.parent).stdout)
    assert record["classes"][4] == {
        "number": 4, "name": "class4", "pixels": 24, "share": 1 / 11, "pictures": 3, "weight": 1.0
    }  # fmt: skip
