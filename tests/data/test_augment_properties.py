"""Every augmentation: what holds for all pictures and all draws, and what it means."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from clusterseg.data.augment import Context, augmentation_names, build_augmentations
from clusterseg.errors import ClustersegError
from clusterseg.spec.tables import AUGMENTATIONS

from .boards import aligned, board

FILL, NO_LABEL = (120.0, 110.0, 100.0), 255
# name: (a value, size of the result for a board of 64 x 80, None: the context's)
MOVING = {
    "flip_horizontal": (0.5, (64, 80)),
    "flip_vertical": (0.5, (64, 80)),
    "rotate": (40, (64, 80)),
    "pad": (7, (78, 94)),
    "resize": ([50, 90], (50, 90)),
    "center_crop": ([40, 90], (40, 90)),
    "random_crop": ([70, 50], (70, 50)),
    "scale": ([0.5, 2.0], None),
    "scale_file": ({"factor": [0.5, 2.0], "step": 0.25}, None),
    "resize_range": ([48, 100], None),
    "crop": ([0.6, 1.0], None),
    "random_resized_crop": ({"scale": [0.3, 1.0]}, None),
}
OF_COLOUR = {
    "brightness": 0.2,
    "brightness_factor": [0.75, 1.25],
    "contrast": 0.25,
    "color": 0.25,
    "sharpness": 1.0,
    "hue": 0.1,
    "blur": 2.0,
    "cutout": 0.3,
    "erase": {"probability": 1.0},
}
DRAWS = st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=22, max_size=22)


def build(name, value, size=(64, 80)):
    (one,) = build_augmentations([{name: value}], Context(size, FILL, NO_LABEL))
    return one


def change(name, value, image, labels, draws, *, size=(64, 80)):
    one = build(name, value, size)
    assert one.count <= 22
    found = one.change(
        tf.constant(image, tf.float32),
        tf.constant(labels, tf.int32),
        tf.constant(draws[: one.count], tf.float32),
    )
    return tuple(part.numpy() for part in found)


def test_all_that_there_are_are_tested():
    assert set(MOVING) | set(OF_COLOUR) == set(augmentation_names())
    for name, (value, result) in MOVING.items():
        one = build(name, value)
        assert one.resizes == AUGMENTATIONS[name].resizes == (result is None)
        assert set(one.before) == AUGMENTATIONS[name].before
        assert one.reshapes == (name in {"pad", "resize", "center_crop", "random_crop"})


@pytest.mark.parametrize("name", MOVING)
@settings(max_examples=25, deadline=None)
@given(DRAWS, st.sampled_from([(64, 80), (48, 90), (96, 70)]))
def test_pictures_and_labels_move_together(name, draws, size):
    """Colours tell the labels; what is filled up has no label, and no label is made up."""
    value, result = MOVING[name]
    image, labels = board()
    moved, new = change(name, value, image, labels, draws, size=size)
    assert new.shape == (result or size)
    assert moved.shape == (*new.shape, 3)
    assert moved.dtype == np.float32 and new.dtype == np.int32
    assert set(np.unique(new)) <= set(np.unique(labels)) | {NO_LABEL}
    assert aligned(moved, new) == 1.0
    assert moved.min() > -0.01 and moved.max() < 255.01


@pytest.mark.parametrize("name", MOVING)
def test_that_one_can_fail(name):
    """With labels that were moved somewhere else."""
    value, _ = MOVING[name]
    moved, new = change(name, value, *board(), [0.9, 0.1, 0.8] + [0.6] * 19)
    assert aligned(moved, np.roll(new, 9, axis=1)) < 0.95


@pytest.mark.parametrize("name", ["rotate", "pad", "random_crop", "center_crop", "scale_file"])
@settings(max_examples=20, deadline=None)
@given(DRAWS)
def test_what_is_filled_up_is_the_mean_colour_without_a_label(name, draws):
    value = {
        "rotate": 40,
        "pad": 5,
        "random_crop": [90, 100],
        "center_crop": [75, 81],
        "scale_file": {"factor": [0.25, 0.5], "step": 0},
    }[name]
    image, labels = board()
    image[...] = 200.0
    moved, new = change(name, value, image, labels, draws)
    if name != "rotate":
        assert (new == NO_LABEL).any()
        np.testing.assert_allclose(moved[new == NO_LABEL], [FILL] * (new == NO_LABEL).sum())
        np.testing.assert_allclose(moved[new != NO_LABEL], 200.0, rtol=1e-5)
    else:  # bilinear at the seam
        near = np.array(FILL)
        assert ((moved >= near - 0.01) & (moved <= 200.01)).all()


@pytest.mark.parametrize("name", OF_COLOUR)
@settings(max_examples=15, deadline=None)
@given(DRAWS, st.integers(0, 2**32 - 1), st.sampled_from([(1, 1), (2, 5), (24, 33)]))
def test_changes_of_colour_leave_labels_alone(name, draws, seed, size):
    random = np.random.default_rng(seed)
    image = random.uniform(0, 255, (*size, 3))
    labels = random.integers(0, 12, size)
    changed, same = change(name, OF_COLOUR[name], image, labels, draws, size=size)
    np.testing.assert_array_equal(same, labels)
    assert changed.shape == image.shape
    assert np.isfinite(changed).all()
    assert changed.min() >= -1e-3 and changed.max() <= 255 + 1e-3


@pytest.mark.parametrize("name", ["contrast", "color", "hue", "sharpness", "rotate", "blur"])
def test_the_middle_of_its_range_changes_nothing(name):
    random = np.random.default_rng(3)
    image, labels = random.uniform(0, 255, (20, 30, 3)), random.integers(0, 5, (20, 30))
    value = 30 if name == "rotate" else OF_COLOUR[name]
    draws = [0.0 if name == "blur" else 0.5] * 22
    changed, same = change(name, value, image, labels, draws)
    np.testing.assert_allclose(changed, image, atol=0.01)
    np.testing.assert_array_equal(same, labels)


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness_factor", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("color", ImageEnhance.Color),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
@pytest.mark.parametrize("draw", [0.0, 0.3, 0.99])
def test_enhancements_are_pillows(name, enhance, draw):
    """Which the seed used; it computes in 8 bits, and its mean grey is a whole number."""
    picture = np.random.default_rng(4).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    value = [0.6, 1.4] if name == "brightness_factor" else 0.4
    changed, _ = change(name, value, picture, np.zeros((40, 50)), [draw])
    pillow = np.asarray(enhance(Image.fromarray(picture)).enhance(0.6 + 0.8 * draw))
    assert np.abs(changed - pillow).max() < 2.5


@pytest.mark.parametrize("draw", [0.0, 0.2, 0.9])
def test_hue_turns_as_in_pillows_hsv(draw):
    """A board of strong colours: of pale ones 8-bit HSV keeps too few digits."""
    colors = np.array(list(itertools.product([0, 90, 255], repeat=3)), np.uint8)
    colors = colors[np.ptp(colors.astype(int), axis=1) > 80]
    picture = colors[np.newaxis]
    changed, _ = change("hue", 0.2, picture, np.zeros((1, len(colors))), [draw])
    hsv = np.array(Image.fromarray(picture).convert("HSV")).astype(int)
    hsv[..., 0] = (hsv[..., 0] + round(256 * 0.2 * (2 * draw - 1))) % 256
    pillow = np.asarray(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB")).astype(int)
    assert np.abs(changed - pillow).max() < 12  # a step of 8-bit hue is six levels


def test_blur_is_a_normalised_gaussian():
    image = np.random.default_rng(6).uniform(0, 255, (11, 9, 3))
    blurred, _ = change("blur", 2.0, image, np.zeros((11, 9)), [0.6])
    sigma, reach = 1.2, 6

    def matrix(length):
        far = np.arange(length)[:, None] - np.arange(length)
        weights = np.where(np.abs(far) <= reach, np.exp(-((far / sigma) ** 2) / 2), 0.0)
        return weights / weights.sum(axis=1, keepdims=True)

    expected = np.einsum("ij,jlc,ml->imc", matrix(11), image, matrix(9))
    np.testing.assert_allclose(blurred, expected, atol=0.01)


def test_rotate_turns_about_the_middle():
    """A quarter turn is exact, whichever way."""
    image = np.random.default_rng(7).uniform(0, 255, (9, 9, 3))
    labels = np.random.default_rng(8).integers(0, 9, (9, 9))
    one, turned = change("rotate", 90, image, labels, [0.0])
    other, back = change("rotate", 90, image, labels, [1.0])
    assert any(np.array_equal(turned, np.rot90(labels, way)) for way in (1, -1))
    np.testing.assert_array_equal(back, np.rot90(turned, 2))
    np.testing.assert_allclose(other, np.rot90(one, 2), atol=0.01)


@settings(max_examples=40, deadline=None)
@given(DRAWS, st.sampled_from([(0.1, 0.5), (0.5, 1.0), (1.0, 1.0)]))
def test_random_resized_crop_keeps_to_area_and_shape(draws, scale):
    """Colours are coordinates, so the result tells which part it shows."""
    rows, columns = np.mgrid[:64, :80].astype(np.float32)
    image = np.stack([rows, columns, 0 * rows], axis=-1)
    value = {"scale": list(scale), "ratio": [0.75, 4 / 3]}
    shown, _ = change("random_resized_crop", value, image, np.zeros((64, 80)), draws, size=(32, 32))
    # From the middles of the first and last pixels of the result to the edges of the part.
    height, width = (
        (shown[-1, 0, 0] - shown[0, 0, 0]) * 32 / 31,
        (shown[0, -1, 1] - shown[0, 0, 1]) * 32 / 31,
    )
    assert 0.66 < width / height < 1.5
    assert height * width <= 64 * 80 * scale[1] * 1.1
    if scale[1] < 1:
        assert height * width >= 64 * 80 * scale[0] * 0.85


def test_random_resized_crop_without_a_fitting_draw_takes_the_middle():
    rows, columns = np.mgrid[:64, :80].astype(np.float32)
    image = np.stack([rows, columns, 0 * rows], axis=-1)
    value = {"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}  # a square of the whole area
    shown, _ = change(
        "random_resized_crop", value, image, np.zeros((64, 80)), [0.9] * 22, size=(64, 64)
    )
    np.testing.assert_allclose(shown, image[:, 8:72], atol=1e-3)


def test_scale_file_has_research_deeplabs_factors():
    """0.5, 0.75 ... 2.0 of the file's size, each as often."""
    image, labels = np.full((40, 60, 3), 9.0), np.zeros((40, 60))
    heights = []
    for number in range(70):
        draws = [(number + 0.5) / 70, 0.0, 0.0]
        _, new = change("scale_file", {}, image, labels, draws, size=(100, 140))
        heights.append(int((new[:, 0] == 0).sum()))
    assert heights == [
        round(40 * factor) for factor in np.arange(0.5, 2.1, 0.25) for _ in range(10)
    ]


def test_resize_range_keeps_the_shape_within_both_sides():
    for size, shown in (((40, 60), (80, 120)), ((40, 120), (50, 150)), ((90, 30), (150, 50))):
        _, new = change(
            "resize_range", [80, 150], np.zeros((*size, 3)), np.zeros(size), [0, 0], size=(200, 200)
        )
        there = new == 0
        assert (there.any(axis=1).sum(), there.any(axis=0).sum()) == shown


def shape_in_range(size, shorter, longer, factor):
    """By definition, in whole numbers: of what is drawn, which sides the picture is given."""
    largest = max(side for side in range(1, longer + 1) if (side - 1) % factor == 0)
    scale = min(Fraction(shorter, min(size)), Fraction(largest, max(size)))
    sides = [max(1, scale * side) for side in size]
    # To the nearest, of two as near to either: float32 tells them apart as it likes.
    nearest = [
        {math.floor(side + Fraction(1, 2)), math.ceil(side - Fraction(1, 2))} for side in sides
    ]
    return [{one + -(one - 1) % factor for one in either} for either in nearest]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(1, 120),
    st.integers(0, 120),
    st.sampled_from([1, 2, 8, 16, 32]),
)
@example((30, 60), 64, 0, 16)  # 64 is not 1 + a multiple of 16: 49 is
@example((30, 60), 65, 0, 16)  # 65 is one
@example((10, 90), 1, 30, 16)
def test_resize_range_gives_sides_of_one_more_than_a_multiple(size, shorter, more, factor):
    longer = max(shorter + more, factor + 1)
    value = {"sides": [shorter, longer], "factor": factor}
    alone = build("resize_range", value).before["scale_file"]
    assert alone.count == 0
    image, labels = np.zeros((*size, 3), np.float32), np.zeros(size, np.int32)
    moved, new = alone.change(tf.constant(image), tf.constant(labels), tf.zeros([0]))
    assert moved.shape[:2] == new.shape
    assert max(new.shape) <= longer
    assert all((side - 1) % factor == 0 for side in new.shape)
    for side, wanted in zip(new.shape, shape_in_range(size, shorter, longer, factor), strict=True):
        assert side in wanted


def test_resize_range_without_a_factor_and_with_one_of_1_are_the_same():
    for draws in ([0.2, 0.9], [0.7, 0.1]):
        one, many = (
            change("resize_range", value, *board(), draws)
            for value in ([48, 100], {"sides": [48, 100]})
        )
        np.testing.assert_array_equal(one[0], many[0])
        np.testing.assert_array_equal(one[1], many[1])


def in_turn(listed, image, labels, draws, size):
    steps = build_augmentations(listed, Context(size, FILL, NO_LABEL))
    image, labels = tf.constant(image, tf.float32), tf.constant(labels, tf.int32)
    for step in steps:
        image, labels = step.change(image, labels, tf.constant(draws[: step.count], tf.float32))
        draws = draws[step.count :]
    return image.numpy(), labels.numpy()


@settings(max_examples=25, deadline=None)
@given(DRAWS, st.sampled_from([(64, 80), (48, 90), (96, 70)]), st.sampled_from([1, 8]))
def test_resize_range_and_then_scale_file_are_research_deeplabs(draws, size, factor):
    """The picture is resized whole, then that by the factor; one crop or pad, at the end."""
    resized = {"resize_range": {"sides": [70, 110], "factor": factor}}
    scaled = {"scale_file": {"factor": [0.75, 2.0], "step": 0.25}}
    image, labels = board()
    moved, new = in_turn([resized, {"flip_vertical": 1}, scaled], image, labels, draws, size)
    assert new.shape == size
    assert aligned(moved, new, reach=4) == 1.0  # two resizings mix pixels twice as far
    assert set(np.unique(new)) <= set(np.unique(labels)) | {NO_LABEL}
    sides = (73, 89) if factor == 8 else (70, 88)
    by_hand = in_turn(
        [{"resize": list(sides)}, {"flip_vertical": 1}, scaled], image, labels, draws, size
    )
    np.testing.assert_array_equal(moved, by_hand[0])
    np.testing.assert_array_equal(new, by_hand[1])


def test_that_two_resizings_can_fail():
    """With labels that were moved somewhere else."""
    listed = [{"resize_range": [70, 110]}, {"scale_file": {"factor": [0.75, 2.0]}}]
    moved, new = in_turn(listed, *board(), [0.2] * 3, (64, 80))
    assert aligned(moved, new, reach=4) == 1.0
    assert aligned(moved, np.roll(new, 9, axis=1), reach=4) < 0.95


def test_they_may_follow_one_another_in_this_order_alone():
    context = Context((64, 80), FILL, NO_LABEL)
    resized, scaled = {"resize_range": [48, 100]}, {"scale_file": {}}
    first, second = build_augmentations([resized, scaled], context)
    assert (first.resizes, first.reshapes, second.resizes) == (False, True, True)
    for listed in (
        [scaled, resized],
        [resized, resized],
        [resized, resized, scaled],
        [resized, scaled, scaled],
        [resized, {"scale": [0.5, 2]}],
    ):
        with pytest.raises(ClustersegError, match="only one augmentation"):
            build_augmentations(listed, context)


def test_cutout_and_erase_fill_one_rectangle():
    image = np.full((40, 60, 3), 7.0)
    labels = np.arange(2400).reshape(40, 60)
    cut, _ = change("cutout", 0.25, image, labels, [0.5, 0.5])
    where = (cut != 7.0).any(axis=-1)
    assert where.sum() == 100
    assert where[15:25, 25:35].all()
    np.testing.assert_allclose(cut[where], [FILL] * 100)
    over_the_border, _ = change("cutout", 0.25, image, labels, [0.0, 0.5])
    assert (over_the_border != 7.0).any(axis=-1).sum() == 50

    value = {"probability": 0.5, "area": [0.25, 0.25], "ratio": [1.0, 1.0]}
    erased, _ = change("erase", value, image, labels, [0.4, 0, 0, 0.99, 0.99, 0.5, 0.25, 0.75])
    where = (erased != 7.0).any(axis=-1)
    assert where[16:, 36:].all() and where.sum() == 24 * 24
    np.testing.assert_array_equal(np.unique(erased[where], axis=0), [[128, 64, 192]])
    untouched, _ = change("erase", value, image, labels, [0.6] + [0.5] * 7)
    np.testing.assert_array_equal(untouched, image)


def test_a_list_of_crops_ends_at_the_size():
    """As the seed prepared pictures for inference, and then whatever `size` is."""
    from clusterseg.data.pipeline import _augmented, _fit

    image, labels = board()
    context = Context((48, 48), FILL, NO_LABEL)
    steps = build_augmentations([{"resize": [64, 64]}, {"center_crop": [56, 56]}], context)
    image, labels = _augmented(
        tf.constant(image), tf.constant(labels), steps, tf.constant([1, 2], tf.int64)
    )
    assert labels.shape == (56, 56)
    image, labels = (part.numpy() for part in _fit(image, labels, context.size))
    assert labels.shape == (48, 48)
    assert aligned(image, labels) == 1.0


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rotate", 200, "rotate must be a number from 0 to 180"),
        ("pad", 0, "pad must be a whole number of pixels"),
        ("pad", 1.5, "pad must be a whole number"),
        ("resize", [10], r"resize must be \[height, width\]"),
        ("center_crop", [10, True], "whole number"),
        ("resize_range", [20, 10], "shorter"),
        ("resize_range", {"factor": 8}, "resize_range must be"),
        ("resize_range", {"sides": [10, 16], "factor": 16}, "factor must be less than 16"),
        ("resize_range", {"sides": [10, 16], "factor": 0}, "whole number of pixels from 1"),
        ("crop", [0.5, 1.5], "crop must be a number from 0.01 to 1"),
        ("random_resized_crop", {"scal": [0.1, 1]}, "no option 'scal'"),
        ("random_resized_crop", [0.1, 1], "must be a mapping"),
        ("random_resized_crop", {"ratio": [2, 1]}, "min at most max"),
        ("erase", {"area": [0, 0.5]}, "erase: area"),
        ("scale_file", {"step": -1}, "scale_file: step"),
        ("brightness_factor", 1.2, r"brightness_factor must be \[min, max\]"),
    ],
)
def test_values_out_of_range_are_refused(name, value, expected):
    with pytest.raises(ClustersegError, match=expected):
        build(name, value)
