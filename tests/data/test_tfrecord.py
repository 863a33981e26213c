"""TFRecord shards: read and written as TensorFlow does it, in any order, with nothing unnoticed."""

import io
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clusterseg.data import open_dataset
from clusterseg.data.convert.record import shares
from clusterseg.data.convert.write import convert
from clusterseg.data.dataset import names_digest
from clusterseg.data.files import check_sample, is_of_the_file, read_labels
from clusterseg.data.order import PADDING
from clusterseg.data.pipeline import batches, explain
from clusterseg.data.sources import image_data, mask_data
from clusterseg.data.synth.recipe import Recipe
from clusterseg.data.synth.write import write_dataset
from clusterseg.data.tfrecords.crc import crc32c
from clusterseg.data.tfrecords.example import encode, places
from clusterseg.data.tfrecords.shard import framed, read_pair, walk
from clusterseg.errors import ClustersegError
from clusterseg.spec.model import DataSpec

# The eight keys that research/deeplab's build_data.py writes.
KEYS = {
    "image/encoded",
    "image/filename",
    "image/format",
    "image/height",
    "image/width",
    "image/channels",
    "image/segmentation/class/encoded",
    "image/segmentation/class/format",
}
SIZE = (32, 48)


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    root = tmp_path_factory.mktemp("camvid") / "set"
    return write_dataset(Recipe("camvid", 7, 3, 0, SIZE, 2), root).root


@pytest.fixture(scope="module")
def files(camvid):
    return open_dataset(DataSpec(format="camvid", root=str(camvid)), 255)


@pytest.fixture(scope="module")
def shards(tmp_path_factory, camvid, files):
    root = tmp_path_factory.mktemp("shards") / "set"
    return convert(files, camvid, root, 255, shards=3, workers=2).root


def opened(root, ignore=255, **keys):
    return open_dataset(DataSpec(format="tfrecord", root=str(root), **keys), ignore)


def bytes_below(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_checksums_of_rfc_3720():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def serial(data):
    """Bit by bit, as the definition has it."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=3000))
def test_checksums_are_those_of_the_definition(data):
    assert crc32c(data) == serial(data)


@pytest.mark.parametrize("length", [4095, 40_000, 140_001, 2**20 + 3])
def test_records_are_written_as_tensorflow_writes_them(tmp_path, length):
    data = np.random.default_rng(length).bytes(length)
    with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
        writer.write(data)
    assert framed(data) == (tmp_path / "a").read_bytes()
    changed = bytearray(data)
    changed[length // 2] ^= 1
    assert crc32c(bytes(changed)) != crc32c(data)


def test_examples_are_read_by_tensorflow_and_the_other_way_round():
    features = {"a": b"\x00\xff" * 300, "b/c": b"", "n": 0, "m": 2**40, "width": 2048}
    example = tf.train.Example.FromString(encode(features))
    for key, value in features.items():
        feature = example.features.feature[key]
        listed = feature.bytes_list if isinstance(value, bytes) else feature.int64_list
        assert list(listed.value) == [value]
    data = example.SerializeToString()
    found = places(memoryview(data))
    assert {key: data[slice(*place)] for key, place in found.items()} == {
        key: value for key, value in features.items() if isinstance(value, bytes)
    }


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_what_is_no_example_is_refused_or_has_places_inside(noise, at, byte):
    """Never an index out of range, whatever the bytes are."""
    changed = bytearray(encode({"image/encoded": noise, "k": 3}))
    changed[at % len(changed)] = byte
    for data in (noise, bytes(changed)):
        try:
            found = places(memoryview(data))
        except (ValueError, UnicodeDecodeError):
            continue
        assert all(0 <= first <= last <= len(data) for first, last in found.values())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 500), st.integers(1, 60))
def test_every_sample_is_in_one_shard(samples, count):
    cut = shares(samples, count)
    assert [n for numbers in cut for n in numbers] == list(range(samples))
    assert len(cut) == min(count, samples)
    sizes = {len(numbers) for numbers in cut}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert 0 not in sizes


def test_shards_hold_the_keys_of_deeplab_and_the_same_pixels(files, shards):
    names = sorted(path.name for path in shards.iterdir())
    assert names == [
        "label_colors.txt",
        *(f"train-0000{i}-of-00003.tfrecord" for i in range(3)),
        *(f"val-0000{i}-of-00003.tfrecord" for i in range(3)),
    ]
    train = sorted(map(str, shards.glob("train-*")))
    for data, sample in zip(tf.data.TFRecordDataset(train), files.train.samples, strict=True):
        feature = tf.train.Example.FromString(data.numpy()).features.feature
        assert set(feature) == KEYS
        assert feature["image/encoded"].bytes_list.value[0] == sample.image.read_bytes()
        assert feature["image/format"].bytes_list.value[0] == b"png"
        size = [feature[f"image/{key}"].int64_list.value[0] for key in ("height", "width")]
        assert size == list(SIZE)
        mask = feature["image/segmentation/class/encoded"].bytes_list.value[0]
        values = np.asarray(Image.open(io.BytesIO(mask)))
        written = np.asarray(Image.open(sample.mask))
        assert (values == np.where(written == 11, 255, written)).all()


def test_the_number_of_workers_changes_no_byte(camvid, files, shards, tmp_path):
    for workers in (1, 4):
        root = tmp_path / str(workers)
        convert(files, camvid, root, 255, shards=3, workers=workers)
        assert bytes_below(root) == bytes_below(shards)
    convert(files, camvid, tmp_path / "two", 255, shards=2, workers=2)
    assert bytes_below(tmp_path / "two") != bytes_below(shards)  # the twin


def test_a_set_of_shards_is_the_set_that_it_was_made_of(files, shards):
    dataset = opened(shards)
    assert (dataset.classes, dataset.size) == (11, SIZE)
    assert dataset.class_names == files.class_names
    assert dataset.colors == files.colors
    for ours, theirs in ((dataset.train, files.train), (dataset.validation, files.validation)):
        assert len(ours) == len(theirs)
        for number, sample in enumerate(theirs.samples):
            check_sample(ours, number)
            assert image_data(ours.samples[number]) == sample.image.read_bytes()
            assert (read_labels(ours, number) == read_labels(theirs, number)).all()
            assert ours.samples[number].image.name == sample.image.name


def epoch(part, order, ignore=255, **keys):
    indices = np.array(order, np.int64).reshape(-1, 2)
    settings = {"augment": [{"flip_horizontal": 0.5}, {"scale": [0.5, 2.0]}], "threads": 2, **keys}
    return [
        [tensor.numpy() for tensor in element]
        for element in batches(part, indices, seed=4, epoch=3, size=SIZE, ignore=ignore, **settings)
    ]


def test_samples_come_in_any_order_as_from_files(files, shards):
    """Bit by bit, augmented, and from the middle of an epoch on."""
    order = [5, 0, 3, 6, 2, 1, 4, PADDING]
    ours, theirs = epoch(opened(shards).train, order), epoch(files.train, order)
    assert len(ours) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))
    resumed = epoch(opened(shards).train, order[4:], threads=1)
    for one, other in zip(resumed, theirs[2:], strict=True):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_the_names_follow_the_samples_not_the_place_of_the_set(shards, tmp_path):
    (tmp_path / "moved").symlink_to(shards)
    moved = opened(tmp_path / "moved")
    assert names_digest(moved.train, tmp_path / "moved") == names_digest(
        opened(shards).train, shards
    )


def copied(shards, tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for name, data in bytes_below(shards).items():
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_noticed_and_named(shards, tmp_path, place):
    root = copied(shards, tmp_path)
    sample = opened(root).train.samples[3]
    record = sample.record
    data = bytearray(record.shard.read_bytes())
    picture = data.index(image_data(sample), record.offset)
    data[picture + int(place * (len(image_data(sample)) - 1))] ^= 4
    record.shard.write_bytes(data)
    part = opened(root).train  # lengths and keys are as they were
    with pytest.raises(ClustersegError, match=rf"byte {record.offset} is damaged") as caught:
        read_pair(part.samples[3].record)
    assert caught.value.code == "damaged-record"
    assert is_of_the_file(caught.value)
    with pytest.raises(tf.errors.DataLossError) as failed:
        epoch(part, [0, 3])
    assert explain(failed.value, part, [0, 3]).code == "damaged-record"
    assert len(epoch(part, [0, 1])) == 1


def test_a_changed_length_is_noticed_at_once(shards, tmp_path):
    root = copied(shards, tmp_path)
    shard = root / "train-00001-of-00003.tfrecord"
    (first, _), (second, _), *_ = walk(shard)
    data = bytearray(shard.read_bytes())
    data[second.offset] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ClustersegError, match=rf"byte {second.offset} is damaged: its length"):
        opened(root)
    assert first.offset == 0


@pytest.mark.parametrize("cut", [1, 5, 20, 300])
def test_a_shard_that_was_cut_off_is_noticed(shards, tmp_path, cut):
    root = copied(shards, tmp_path)
    shard = root / "val-00000-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-cut])
    with pytest.raises(ClustersegError, match="the file ends within it"):
        opened(root)


def test_a_shard_that_is_missing_is_named(shards, tmp_path):
    root = copied(shards, tmp_path)
    (root / "train-00001-of-00003.tfrecord").unlink()
    with pytest.raises(ClustersegError, match=r"train-00001-of-00003\.tfrecord is not there"):
        opened(root)


def test_something_else_than_shards_is_refused(tmp_path):
    (tmp_path / "label_colors.txt").write_text("0 0 0 a\n1 1 1 b\n")
    (tmp_path / "val-x.tfrecord").write_bytes(b"")
    with pytest.raises(ClustersegError, match="no records in 'train-"):
        opened(tmp_path)
    shard = tmp_path / "train-x.tfrecord"
    shard.write_bytes(b"\x89PNG, not a TFRecord")
    with pytest.raises(ClustersegError, match="byte 0 is damaged"):
        opened(tmp_path)
    shard.write_bytes(framed(encode({"image/encoded": b"x", "label": 3})))
    with pytest.raises(ClustersegError, match="no 'image/segmentation/class/encoded'") as caught:
        opened(tmp_path)
    assert "image/encoded" in caught.value.help


def test_deeplabs_own_shards_need_the_number_of_classes(shards, tmp_path):
    """No colours beside them, other names, values up to classes - 1 and 255."""
    for path in shards.glob("*.tfrecord"):
        name = path.name.replace("train", "trainaug").removesuffix(".tfrecord")
        (tmp_path / name.replace("val", "test")).write_bytes(path.read_bytes())
    given = {"train": "trainaug-*", "validation": "test-*"}
    with pytest.raises(ClustersegError, match="how many classes"):
        opened(tmp_path, options=given)
    dataset = opened(tmp_path, options={**given, "classes": 21})
    assert (dataset.classes, len(dataset.train), len(dataset.validation)) == (21, 7, 3)
    assert dataset.colors[15] == (192, 128, 128)  # a person of VOC
    with pytest.raises(ClustersegError, match="no records in 'val-"):
        opened(tmp_path, options={"train": "trainaug-*", "classes": 21})
    split = opened(tmp_path, validation_split=0.3, options={"train": "trainaug-*", "classes": 21})
    assert (len(split.train), len(split.validation)) == (5, 2)


def test_the_value_that_is_ignored_can_be_another(shards):
    part = opened(shards, options={"ignore_value": 0}).train
    assert part.label_table[0] == 255
    assert part.label_table[1] == 1


def test_a_folder_in_the_way_stays_as_it_is(files, camvid, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ClustersegError, match="exists"):
        convert(files, camvid, tmp_path, 255)
    assert bytes_below(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize("name", ["x" * 300, "circle"])
def test_a_name_that_leads_nowhere_is_told(files, camvid, tmp_path, name):
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ClustersegError, match=f"can't write .*{name}"):
        convert(files, camvid, tmp_path / name, 255)
    with pytest.raises(ClustersegError, match="data set's folder"):
        opened(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


def test_an_interrupted_conversion_leaves_nothing(files, camvid, tmp_path):
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(files, camvid, tmp_path / "a", 255, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def broken(tmp_path):
    root = write_dataset(Recipe("camvid", 4, 1, 0, SIZE, 2), tmp_path / "broken").root
    (root / "train" / "synth_000001.png").write_bytes(b"no picture")
    return root


def test_a_sample_that_can_not_be_used_is_named_or_left_out(broken, tmp_path):
    dataset = open_dataset(DataSpec(format="camvid", root=str(broken)), 255)
    with pytest.raises(ClustersegError, match=r"synth_000001\.png"):
        convert(dataset, broken, tmp_path / "a", 255)
    assert not (tmp_path / "a").exists()
    written = convert(dataset, broken, tmp_path / "a", 255, skip=True)
    assert written.train == 3
    assert "synth_000001.png" in written.skipped[0]
    assert len(opened(tmp_path / "a").train) == 3


def test_other_pictures_become_png(tmp_path):
    from .camvid_tree import write_tree

    root = write_tree(tmp_path / "set", train=2, val=1)
    Image.open(root / "train" / "0.png").save(root / "train" / "0.bmp")
    (root / "train.txt").write_text("train/0.bmp trainannot/0.png\n")
    dataset = open_dataset(DataSpec(format="camvid", root=str(root)), 255)
    convert(dataset, root, tmp_path / "a", 255)
    sample = opened(tmp_path / "a").train.samples[0]
    assert image_data(sample).startswith(b"\x89PNG")
    picture = np.asarray(Image.open(root / "train" / "0.png"))
    assert (np.asarray(Image.open(io.BytesIO(image_data(sample)))) == picture).all()
    assert mask_data(sample).startswith(b"\x89PNG")


def test_the_command_converts_and_checks_what_it_wrote(camvid, tmp_path, run):
    to = str(tmp_path / "out")
    done = run("convert", str(camvid), to, "--format", "camvid", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert (record["train"], record["validation"], record["shards"]) == (7, 3, 2)
    again = run("convert", str(camvid), to, "--format", "camvid", cwd=tmp_path)
    assert again.returncode == 2
    assert "exists" in again.stderr
    checked = run("check", to, "--format", "tfrecord", "--json", cwd=tmp_path)
    assert checked.returncode == 0
    assert json.loads(checked.stdout)["parts"][0]["samples"] == 7
    shard = tmp_path / "out" / "train-00000-of-00001.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    damaged = run("check", to, "--format", "tfrecord", "--json", cwd=tmp_path)
    assert damaged.returncode == 1
    assert json.loads(damaged.stdout)["findings"][0]["code"] == "damaged-record"


@pytest.mark.parametrize("ignore", [255, None])
def test_the_test_part_and_the_ids_of_the_classes_are_kept(tmp_path, ignore):
    root = write_dataset(Recipe("cityscapes", 2, 1, 3, SIZE, 2), tmp_path / "set").root
    dataset = open_dataset(DataSpec(format="cityscapes", root=str(root)), ignore)
    written = convert(dataset, root, tmp_path / "shards", ignore, shards=2)
    assert (written.train, written.validation, written.test, written.skipped) == (2, 1, 3, ())
    assert len(list((tmp_path / "shards").glob("test-*-of-00002.tfrecord"))) == 2
    converted = opened(tmp_path / "shards", ignore)
    assert converted.label_ids == dataset.label_ids
    ours, theirs = converted.test(), dataset.test()
    assert len(ours) == 3
    for number, sample in enumerate(theirs.samples):
        assert image_data(ours.samples[number]) == sample.image.read_bytes()
        assert (read_labels(ours, number) == read_labels(theirs, number)).all()
    again = convert(converted, tmp_path / "shards", tmp_path / "again", ignore, shards=2)
    assert again.test == 3
    assert opened(tmp_path / "again", ignore).label_ids == dataset.label_ids


def test_a_test_part_that_can_not_be_opened_is_left_out_and_told(tmp_path):
    root = write_dataset(Recipe("camvid", 2, 1, 1, SIZE, 2), tmp_path / "set").root
    (root / "test" / "synth_000000.png").unlink()
    dataset = open_dataset(DataSpec(format="camvid", root=str(root)), 255)
    written = convert(dataset, root, tmp_path / "shards", 255)
    assert written.test == 0
    (told,) = written.skipped
    assert told.startswith("the test part") and "synth_000000.png" in told
    converted = opened(tmp_path / "shards")
    assert (converted.test, converted.label_ids) == (None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [("7 a\n8 b\n", "2 classes, but there are 11"), ("a 7\n" * 11, "`id name`")],
)
def test_a_list_of_ids_that_is_none_is_told(shards, tmp_path, text, said):
    root = copied(shards, tmp_path)
    (root / "label_ids.txt").write_text(text)
    with pytest.raises(ClustersegError, match=rf"label_ids\.txt.*{said}"):
        opened(root)


def test_synthetic_shards_are_those_of_the_converted_set(tmp_path, shards, camvid):
    root = write_dataset(Recipe("tfrecord", 7, 3, 0, SIZE, 2), tmp_path / "set").root
    made, converted = opened(root), opened(shards)
    assert made.class_names == converted.class_names
    for ours, theirs in zip(made.train.samples, converted.train.samples, strict=True):
        assert read_pair(ours.record) == read_pair(theirs.record)
