"""Cityscapes' scores by hand, and how tallies add up; test_official compares with the scripts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.data.cityscapes import AVERAGE_INSTANCE_PIXELS
from clusterseg.errors import ClustersegError
from clusterseg.metrics import runs
from clusterseg.metrics.cityscapes import Tally, drawn, judge, tally
from clusterseg.metrics.runs import counts, histogram, run_lengths

ROAD, PARKING, GUARD_RAIL, PERSON, RIDER, CAR, CARAVAN = 7, 9, 14, 24, 25, 26, 29


def scores_of(truth, prediction, instances=None):
    truth, prediction = (np.array(one, np.uint8) for one in (truth, prediction))
    instances = None if instances is None else np.array(instances, np.int32)
    return judge(tally(truth, prediction, instances))


def test_what_is_predicted_on_ignored_truth_is_no_false_positive():
    scores = scores_of([[ROAD, ROAD, 0, PARKING]], [[ROAD, ROAD, ROAD, ROAD]])
    assert scores.classes["road"].iou == 1
    assert scores.categories["flat"].iou == 1


def test_void_predicted_on_a_class_is_a_miss():
    assert scores_of([[ROAD, ROAD, ROAD, ROAD]], [[ROAD, 0, 0, 0]]).classes["road"].iou == 0.25


def test_confusion_inside_a_category_is_right_for_the_category():
    scores = scores_of([[PERSON, RIDER]], [[RIDER, PERSON]])
    assert scores.classes["person"].iou == 0
    assert scores.categories["human"].iou == 1


def test_a_score_of_nothing_is_left_out_of_the_mean_and_one_of_false_positives_is_zero():
    scores = scores_of([[ROAD, ROAD]], [[ROAD, CAR]])
    assert scores.classes["car"].iou == 0
    assert scores.classes["sky"].iou is None
    assert scores.mean_classes.iou == (0.5 + 0) / 2
    assert scores_of([[0]], [[0]]).mean_classes.iou is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_is_drawn_is_what_the_scores_of_the_classes_come_from(seed):
    truth, prediction = np.random.default_rng(seed).integers(0, 34, (2, 9, 9))
    total = tally(truth, prediction, None)
    matrix, iou = drawn(total), [one.iou for one in judge(total).classes.values()]
    hit = np.diagonal(matrix)
    whole = matrix.sum(axis=1) + matrix[:, :-1].sum(axis=0) - hit
    assert iou == [h / w if w else None for h, w in zip(hit, whole, strict=True)]


def test_instances_weigh_alike_whatever_their_size():
    """A car of 3 pixels is missed, one of 1 pixel is found, 1 pixel of road is called car."""
    size = AVERAGE_INSTANCE_PIXELS["car"]
    scores = scores_of(
        [[CAR, CAR, CAR, CAR, ROAD]],
        [[ROAD, ROAD, ROAD, CAR, CAR]],
        [[26000, 26000, 26000, 26001, ROAD]],
    )
    assert scores.classes["car"].iou == 1 / 5
    assert scores.classes["car"].niou == size / (2 * size + 1)
    assert scores.classes["road"].niou is None
    assert scores.mean_classes.niou == scores.classes["car"].niou


def test_groups_are_no_instances():
    scores = scores_of([[CAR, CAR]], [[CAR, ROAD]], [[CAR, CAR]])
    assert scores.classes["car"].iou == 0.5
    assert scores.classes["car"].niou is None


def test_a_caravan_on_a_car_misses_the_category_but_not_its_instances():
    scores = scores_of([[CAR]], [[CARAVAN]], [[26001]])
    assert scores.categories["vehicle"].iou == 0
    assert scores.classes["car"].niou == 0
    assert scores.categories["vehicle"].niou == 1


def test_without_instances_of_one_picture_there_is_no_niou():
    one = np.array([[CAR]], np.uint8)
    whole = Tally.total([tally(one, one, np.array([[26001]])), tally(one, one, None)])
    assert judge(whole).classes["car"].niou is None
    assert judge(whole).classes["car"].iou == 1
    assert judge(Tally.empty()).mean_classes.iou is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 12))
def test_the_sum_of_parts_is_the_whole_however_pixels_are_counted(seed, cut, side):
    """Rows of pictures are pictures, too: instances that lie in one part are the same."""
    random = np.random.default_rng(seed)
    shape = (8, 24)
    truth, prediction = (
        np.kron(random.integers(0, 34, (shape[0], 24 // side + 1)), np.ones((1, side), int))
        for _ in range(2)
    )
    truth, prediction = truth[:, :24], prediction[:, :24]
    row = np.arange(8)[:, None]
    instances = np.where(truth >= 24, truth * 1000 + row, truth)
    whole = tally(truth, prediction, instances)
    parts = [tally(truth[a:b], prediction[a:b], instances[a:b]) for a, b in ((0, cut), (cut, 8))]
    added = Tally.total(parts)
    np.testing.assert_array_equal(added.matrix, whole.matrix)
    np.testing.assert_array_equal(
        added.instances[np.lexsort(added.instances.T)],
        whole.instances[np.lexsort(whole.instances.T)],
    )
    assert judge(added) == judge(whole)
    slow = np.zeros((34, 34), np.int64)
    np.add.at(slow, (truth.ravel(), prediction.ravel()), 1)
    np.testing.assert_array_equal(whole.matrix, slow)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), max_size=30), st.integers(1, 40))
def test_runs_are_longest_stretches_without_a_change(pairs, block):
    maps = np.array(pairs, np.uint8).reshape(-1, 2).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_BLOCK", block)
        starts, lengths = run_lengths(*maps)
        cells = histogram(maps[0], None, 2)
    assert lengths.sum() == len(pairs)
    assert list(cells) == [np.count_nonzero(maps[0] == value) for value in (0, 1)]
    rebuilt = np.repeat(maps[:, starts], lengths, axis=1)
    np.testing.assert_array_equal(rebuilt, maps)
    inside = maps[:, starts]
    assert all((inside[:, i] != inside[:, i + 1]).any() for i in range(len(starts) - 1))


@pytest.mark.parametrize("size", [50, 100_000])  # sorted, and counted by cell
def test_counting_keys(size):
    random = np.random.default_rng(0)
    keys, lengths = random.integers(0, 40, size) * 7, random.integers(1, 9, size)
    found, sums = counts(keys, lengths)
    assert list(found) == sorted(set(keys.tolist()))
    assert all(sums[i] == lengths[keys == key].sum() for i, key in enumerate(found))


@pytest.mark.parametrize(
    ("truth", "prediction", "instances", "code", "said"),
    [
        ([[34]], [[7]], None, "bad-class-id", "the ground truth holds 34"),
        ([[7]], [[255]], None, "bad-class-id", "the prediction holds 255"),
        ([[7]], [[-1]], None, "bad-class-id", "-1"),
        ([[7]], [[7, 7]], None, "bad-size", "the prediction is 1x2, but the truth is 1x1"),
        ([[7]], [[7]], [[7, 7]], "bad-size", "instance map is 1x2"),
        ([[7]], [[7]], [[7001]], "bad-instance-id", "7001: 7 is road, which has no instances"),
        ([[26]], [[26]], [[34001]], "bad-instance-id", "34001: 34 is no label id"),
    ],
)
def test_what_can_not_be_scored_is_named(truth, prediction, instances, code, said):
    with pytest.raises(ClustersegError, match=said) as error:
        tally(
            np.array(truth),
            np.array(prediction),
            None if instances is None else np.array(instances),
        )
    assert error.value.code == code
