from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clusterseg.data import open_dataset
from clusterseg.data.augment import Context, augmentation_names, build_augmentations
from clusterseg.data.dataset import Part, Sample, label_table
from clusterseg.data.normalisation import IMAGENET
from clusterseg.data.order import PADDING, epoch_order, rank_slice, steps_in_epoch
from clusterseg.data.pipeline import NO_LABEL, batches, explain
from clusterseg.errors import ClustersegError
from clusterseg.spec.model import DataSpec

from .boards import aligned, board
from .camvid_tree import write, write_tree

SIZE = (24, 32)
EVERYTHING = [
    {"flip_horizontal": 0.5},
    {"flip_vertical": 0.5},
    {"rotate": 20},
    {"pad": 3},
    {"random_crop": [26, 36]},
    {"scale": [0.5, 2.0]},
    {"brightness": 0.2},
    {"brightness_factor": [0.75, 1.25]},
    {"contrast": 0.25},
    {"color": 0.25},
    {"hue": 0.1},
    {"sharpness": 0.5},
    {"blur": 1.5},
    {"cutout": 0.3},
    {"erase": {"probability": 0.5}},
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_tree(tmp_path_factory.mktemp("camvid"), train=10, val=3, size=SIZE)
    return open_dataset(DataSpec(format="camvid", root=str(root)), 255)


def read(part, indices, **changed):
    keys = {
        "seed": 0,
        "epoch": 0,
        "augment": (),
        "size": SIZE,
        "ignore": 255,
        "threads": 2,
        **changed,
    }
    found = list(batches(part, np.asarray(indices, np.int64), **keys).as_numpy_iterator())
    return [np.concatenate([batch[i] for batch in found]) for i in range(3)]


def pixels(images):
    """Undoes the normalisation."""
    return images * IMAGENET.deviation + IMAGENET.mean


def test_batches_hold_the_files_in_order(dataset):
    indices = np.array([[4, 0], [9, 4], [2, 7]])
    elements = list(
        batches(
            dataset.train,
            indices,
            seed=0,
            epoch=0,
            augment=(),
            size=SIZE,
            ignore=255,
            threads=3,
        )
    )
    assert len(elements) == 3
    for row, (images, labels, valid) in zip(indices, elements, strict=True):
        assert images.shape == (2, *SIZE, 3)
        assert images.dtype == tf.float32
        assert labels.shape == (2, *SIZE)
        assert labels.dtype == tf.int32
        assert valid.numpy().tolist() == [True, True]
        for index, image, label in zip(row, images.numpy(), labels.numpy(), strict=True):
            sample = dataset.train.samples[index]
            np.testing.assert_allclose(
                pixels(image), np.asarray(Image.open(sample.image)), atol=1e-3
            )
            raw = np.asarray(Image.open(sample.mask))
            np.testing.assert_array_equal(label, np.where(raw == 11, 255, raw))


def test_padding_shows_a_picture_of_its_batch_without_labels(dataset):
    images, labels, valid = read(dataset.train, [[3, 5, PADDING], [PADDING, PADDING, PADDING]])
    assert valid.tolist() == [True, True, False, False, False, False]
    np.testing.assert_array_equal(images[2], images[0])
    assert (labels[2:] == 255).all()
    assert np.isfinite(images).all()
    _, labels, _ = read(
        replace(dataset.train, label_table=label_table(12, ignored_values=(), ignore=None)),
        [[3, PADDING]],
        ignore=None,
    )
    assert (labels[1] == NO_LABEL).all()
    assert (labels[0] >= 0).all()


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 50), st.sampled_from([1, 2, 4]), st.data())
def test_a_sample_does_not_depend_on_rank_world_size_or_resume(dataset, seed, epoch, world, data):
    """Read by one rank from the start, or by several from the middle on: the same pixels."""
    order = epoch_order(seed, epoch, len(dataset.train))
    steps = steps_in_epoch(len(order), 4)
    keys = {"seed": seed, "epoch": epoch, "augment": EVERYTHING}
    alone = rank_slice(order, global_batch=4, first_step=0, steps=steps, rank=0, world_size=1)
    images, labels, _ = read(dataset.train, alone, **keys)
    first = data.draw(st.integers(0, steps - 1))
    rank = data.draw(st.integers(0, world - 1))
    part = rank_slice(
        order, global_batch=4, first_step=first, steps=steps - first, rank=rank, world_size=world
    )
    its_images, its_labels, valid = read(dataset.train, part, **keys)
    for index, image, label, real in zip(
        part.reshape(-1), its_images, its_labels, valid, strict=True
    ):
        if real:
            place = alone.reshape(-1).tolist().index(index)
            np.testing.assert_array_equal(image, images[place])
            np.testing.assert_array_equal(label, labels[place])


def test_epochs_seeds_and_samples_are_augmented_differently(dataset):
    augment = [{"brightness": 0.5}]
    means = []
    for seed in (0, 1):
        for epoch in (0, 1):
            images, _, _ = read(dataset.train, [[0, 1]], seed=seed, epoch=epoch, augment=augment)
            means += [float(image.mean()) for image in images]
    assert len(set(means)) == len(means)


def test_threads_do_not_change_anything(dataset):
    indices = epoch_order(0, 0, 10).reshape(5, 2)
    one = read(dataset.train, indices, augment=EVERYTHING, threads=1)
    many = read(dataset.train, indices, augment=EVERYTHING, threads=6)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_sizes_are_resized_masks_by_nearest(dataset):
    images, labels, _ = read(dataset.train, [[0]], size=(12, 16))
    assert images.shape == (1, 12, 16, 3)
    raw = np.asarray(Image.open(dataset.train.samples[0].mask))
    raw = np.where(raw == 11, 255, raw)
    np.testing.assert_array_equal(labels[0], raw[1::2, 1::2])


def test_masks_come_at_their_files_sizes_too(tmp_path):
    """Of a batch of several sizes: each one's own, NO_LABEL around it, nothing for padding."""
    table = label_table(11, ignored_values=(11,), ignore=255)
    random = np.random.default_rng(3)
    sizes = [(20, 32), (31, 17), (24, 24)]
    samples, written = [], []
    for number, size in enumerate(sizes):
        mask = random.integers(0, 12, size).astype(np.uint8)
        image, path = tmp_path / f"{number}.png", tmp_path / f"{number}m.png"
        write(image, random.integers(0, 256, (*size, 3)))
        write(path, mask)
        samples.append(Sample(image, path))
        written.append(np.where(mask == 11, 255, mask))
    part = Part("validation", tuple(samples), table)
    keys = {
        "seed": 0,
        "epoch": 0,
        "augment": (),
        "size": (16, 16),
        "ignore": 255,
        "threads": 1,
    }
    rows = np.array([[1, 0], [2, PADDING]])
    plain = list(batches(part, rows, **keys).as_numpy_iterator())
    found = list(batches(part, rows, **keys, file_masks=True).as_numpy_iterator())
    for row, short, element in zip(rows, plain, found, strict=True):
        for one, other in zip(short, element[:3], strict=True):
            np.testing.assert_array_equal(one, other)
        _, _, valid, masks, sizes_found = element
        assert masks.dtype == sizes_found.dtype == np.int32
        assert masks.shape[1:] == tuple(sizes_found.max(axis=0))
        for index, real, mask, (height, width) in zip(row, valid, masks, sizes_found, strict=True):
            expected = written[index] if real else np.full((1, 1), NO_LABEL)
            np.testing.assert_array_equal(mask[:height, :width], expected)
            outside = np.array(mask)
            outside[:height, :width] = NO_LABEL
            assert (outside == NO_LABEL).all()
    with pytest.raises(ValueError, match="augmented"):
        batches(part, rows, **{**keys, "augment": [{"flip_vertical": 1}]}, file_masks=True)


# --- Pictures and labels stay aligned ---------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["flip_horizontal", "flip_vertical", "scale"]),
    st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=3, max_size=3),
    st.sampled_from([(64, 80), (48, 80), (96, 70)]),
)
def test_pictures_and_labels_stay_aligned(name, draws, size):
    image, labels = board()
    context = Context(size if name == "scale" else labels.shape, (120.0, 110.0, 100.0), 255)
    value = [0.5, 2.0] if name == "scale" else 0.5
    (augmentation,) = build_augmentations([{name: value}], context)
    image, labels = augmentation.change(
        tf.constant(image), tf.constant(labels), tf.constant(draws[: augmentation.count])
    )
    assert labels.shape == context.size
    assert image.shape == (*context.size, 3)
    assert labels.dtype == tf.int32
    assert aligned(image.numpy(), labels.numpy()) == 1.0


def test_the_alignment_test_can_fail():
    image, labels = board()
    assert aligned(image, np.roll(labels, 12, axis=1)) < 0.9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=3, max_size=3))
def test_a_small_scale_is_padded_with_the_fill_and_no_label(draws):
    image, labels = board()
    height, width = labels.shape
    (scale,) = build_augmentations(
        [{"scale": [0.25, 0.75]}], Context((height, width), (120.0, 110.0, 100.0), 255)
    )
    image, labels = (
        x.numpy() for x in scale.change(tf.constant(image), tf.constant(labels), tf.constant(draws))
    )
    factor = 0.25 + 0.5 * np.float32(draws[0])
    shown = (labels != 255).sum()
    assert shown == np.round(factor * height) * np.round(factor * width)
    np.testing.assert_allclose(image[labels == 255], [[120, 110, 100]] * (labels == 255).sum())


def test_scale_one_changes_nothing():
    image, labels = board()
    (scale,) = build_augmentations([{"scale": [1, 1]}], Context(labels.shape, (0, 0, 0), 255))
    new_image, new_labels = scale.change(
        tf.constant(image), tf.constant(labels), tf.constant([0.3, 0.9, 0.999999])
    )
    np.testing.assert_allclose(new_image, image, atol=1e-4)
    np.testing.assert_array_equal(new_labels, labels)


def test_flips_mirror():
    image, labels = board()
    context = Context(labels.shape, (0, 0, 0), 255)
    for name, axis in (("flip_vertical", 0), ("flip_horizontal", 1)):
        (flip,) = build_augmentations([{name: 0.4}], context)
        for draw, mirrored in ((0.39, True), (0.41, False)):
            new_image, new_labels = flip.change(
                tf.constant(image), tf.constant(labels), tf.constant([draw])
            )
            expected = (np.flip(image, axis), np.flip(labels, axis))
            expected = expected if mirrored else (image, labels)
            np.testing.assert_array_equal(new_image, expected[0])
            np.testing.assert_array_equal(new_labels, expected[1])


def test_brightness_adds_up_to_its_fraction_and_stays_in_range():
    image, labels = board()
    (brightness,) = build_augmentations(
        [{"brightness": 0.1}], Context(labels.shape, (0, 0, 0), 255)
    )
    for draw, added in ((0.0, -25.5), (0.5, 0.0), (1.0, 25.5)):
        changed, same = brightness.change(
            tf.constant(image), tf.constant(labels), tf.constant([draw])
        )
        np.testing.assert_allclose(changed, np.clip(image + added, 0, 255), atol=1e-4)
        np.testing.assert_array_equal(same, labels)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([{"flip_horizontal": 1.5}], "flip_horizontal must be a number from 0 to 1"),
        ([{"flip_vertical": True}], "flip_vertical must be a number"),
        ([{"scale": [2, 1]}], "min at most max"),
        ([{"scale": 2}], r"scale must be \[min, max\]"),
        ([{"scale": [0, 1]}], "0.05"),
        ([{"scale": [1, 2]}, {"scale": [1, 2]}], "only one"),
        ([{"brightness": "much"}], "brightness must be a number"),
        ([{"flip_horizontal": 1, "flip_vertical": 1}], "one `name: value`"),
        ([{}], "one `name: value`"),
        ([{"flip_horizontl": 1}], "flip_horizontl"),
    ],
)
def test_bad_augmentations_are_refused(dataset, listed, expected):
    with pytest.raises(ClustersegError, match=expected):
        read(dataset.train, [[0]], augment=listed)


def test_augmentations_are_listed():
    assert {"brightness", "flip_horizontal", "random_resized_crop"} < set(augmentation_names())


# --- Masks and files -------------------------------------------------------------------------


def one_sample(folder, mask: Image.Image):
    """A part of one sample with this mask, of any kind; values 0 to 11 are classes."""
    mask.save(folder / "mask.png")
    write(folder / "image.png", np.zeros((mask.height, mask.width, 3)))
    table = label_table(12, ignored_values=(), ignore=255)
    return Part("train", (Sample(folder / "image.png", folder / "mask.png"),), table)


VALUES = np.array([[0, 1, 2], [3, 0, 1]], np.uint8)


def palette_mask():
    mask = Image.fromarray(VALUES, "P")
    mask.putpalette([7 * i % 256 for i in range(768)])
    return mask


@pytest.mark.parametrize("kind", ["grey", "palette", "one bit"])
def test_masks_are_read_as_the_values_in_the_file(tmp_path, kind):
    """TensorFlow's decoder alone would give a palette's colours and 0 / 255 for one bit."""
    mask = {
        "grey": lambda: Image.fromarray(VALUES),
        "palette": palette_mask,
        "one bit": lambda: Image.fromarray(VALUES > 0),
    }[kind]()
    _, labels, _ = read(one_sample(tmp_path, mask), [[0]], size=VALUES.shape)
    np.testing.assert_array_equal(labels[0], VALUES > 0 if kind == "one bit" else VALUES)


def failing(part, indices, **keys):
    """What `explain` makes of the error that reading `indices` ends with."""
    indices = np.asarray(indices, np.int64)
    with pytest.raises(tf.errors.OpError) as caught:
        read(part, indices, **keys)
    return explain(caught.value, part, indices.reshape(-1))


@pytest.mark.parametrize("broken", ["id", "size", "mask", "image", "gone", "colour mask"])
def test_the_file_that_can_not_be_used_is_named(tmp_path, broken):
    root = write_tree(tmp_path, train=4, size=SIZE)
    part = open_dataset(DataSpec(format="camvid", root=str(root)), 255).train
    image, mask = root / "train" / "2.png", root / "trainannot" / "2.png"
    if broken == "id":
        write(mask, np.full(SIZE, 77))
    elif broken == "size":
        write(mask, np.zeros((SIZE[0], SIZE[1] - 1)))
    elif broken == "mask":
        mask.write_bytes(mask.read_bytes()[:60])
    elif broken == "image":
        image.write_bytes(b"GIF89a junk")
    elif broken == "gone":
        image.unlink()
    else:
        write(mask, np.zeros((*SIZE, 3)))
    error = failing(part, [[0, 1], [2, 3]])
    assert isinstance(error, ClustersegError)
    assert str(image if broken in ("image", "gone") else mask) in error.message
    assert error.is_lasting == (broken != "gone")  # a name may be seen again
    # The samples before it can still be read.
    assert len(read(part, [[0, 1]])[0]) == 2


def test_what_only_tensorflow_can_not_read_still_has_a_message(tmp_path):
    root = write_tree(tmp_path, size=SIZE)
    path = root / "train" / "0.png"
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path, format="TIFF")
    part = open_dataset(DataSpec(format="camvid", root=str(root)), 255).train
    error = failing(part, [[0]])
    assert str(path) in error.message
