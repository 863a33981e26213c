import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.metrics import scores
from clusterseg.metrics.confusion import confusion_matrix


def slow_matrix(labels, predictions, classes, ignore):
    matrix = [[0] * classes for _ in range(classes)]
    for label, prediction in zip(labels.reshape(-1), predictions.reshape(-1), strict=True):
        if label != ignore:
            matrix[label][prediction] += 1
    return matrix


@st.composite
def label_maps(draw):
    classes = draw(st.integers(1, 7))
    ignore = draw(st.sampled_from([None, 255, 0, classes - 1]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    labels = random.integers(0, classes, shape).astype(np.int32)
    if ignore is not None:
        labels[random.random(shape) < draw(st.floats(0, 1))] = ignore
    return classes, ignore, labels, random.integers(0, classes, shape)


@settings(max_examples=80, deadline=None)
@given(label_maps())
def test_confusion_matrix_is_its_definition(drawn):
    classes, ignore, labels, predictions = drawn
    matrix = confusion_matrix(labels, predictions, classes, ignore)
    assert matrix.dtype == tf.int64
    np.testing.assert_array_equal(matrix, slow_matrix(labels, predictions, classes, ignore))


@settings(max_examples=30, deadline=None)
@given(label_maps())
def test_matrices_of_parts_add_up(drawn):
    classes, ignore, labels, predictions = drawn
    whole = confusion_matrix(labels, predictions, classes, ignore)
    parts = sum(
        confusion_matrix(labels[i : i + 1], predictions[i : i + 1], classes, ignore).numpy()
        for i in range(len(labels))
    )
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize(
    ("labels", "predictions"), [([[3]], [[0]]), ([[0]], [[-1]]), ([[0]], [[3]]), ([[255]], [[0]])]
)
def test_values_outside_the_classes_fail(labels, predictions):
    with pytest.raises(tf.errors.InvalidArgumentError, match="outside 0 to 2"):
        confusion_matrix(tf.constant(labels), tf.constant(predictions), 3, None)


def test_padding_is_never_counted():
    matrix = confusion_matrix(tf.constant([[-1, 1]]), tf.constant([[0, 0]]), 2, None)
    np.testing.assert_array_equal(matrix, [[0, 0], [1, 0]])


def test_works_inside_a_graph_with_unknown_shapes():
    graph = tf.function(
        lambda y, p: confusion_matrix(y, p, 3, 255),
        input_signature=[tf.TensorSpec(None, tf.uint8), tf.TensorSpec(None, tf.int64)],
    )
    matrix = graph(np.array([[0, 255, 2]], np.uint8), np.array([[1, 1, 2]]))
    np.testing.assert_array_equal(matrix, [[0, 1, 0], [0, 0, 0], [0, 0, 1]])


def slow_iou(matrix, c):
    n = len(matrix)
    hit = matrix[c][c]
    missed = sum(matrix[c][j] for j in range(n)) - hit
    false = sum(matrix[i][c] for i in range(n)) - hit
    return hit / (hit + missed + false) if hit + missed + false else float("nan")


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_scores_are_their_definitions(classes, seed):
    random = np.random.default_rng(seed)
    matrix = random.integers(0, 9, (classes, classes)) * random.integers(0, 2, (classes, classes))
    iou = [slow_iou(matrix.tolist(), c) for c in range(classes)]
    np.testing.assert_allclose(scores.class_iou(matrix), iou)
    defined = [value for value in iou if not np.isnan(value)]
    expected = sum(defined) / len(defined) if defined else np.nan
    np.testing.assert_allclose(scores.mean_iou(matrix), expected)

    recalls = [matrix[c, c] / matrix[c].sum() for c in range(classes) if matrix[c].sum()]
    expected = np.mean(recalls) if recalls else np.nan
    np.testing.assert_allclose(scores.mean_accuracy(matrix), expected)
    total = matrix.sum()
    expected = sum(matrix[c, c] for c in range(classes)) / total if total else np.nan
    np.testing.assert_allclose(scores.pixel_accuracy(matrix), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_f1_and_frequency_weighted_iou_are_their_definitions(classes, seed):
    random = np.random.default_rng(seed)
    matrix = random.integers(0, 9, (classes, classes)) * random.integers(0, 2, (classes, classes))
    f1 = []
    for c in range(classes):
        hit, true, guessed = matrix[c, c], matrix[c].sum(), matrix[:, c].sum()
        if hit:
            precision, recall = hit / guessed, hit / true
            f1.append(2 * precision * recall / (precision + recall))
        else:
            f1.append(0.0 if true + guessed else np.nan)
    np.testing.assert_allclose(scores.class_f1(matrix), f1)
    defined = [value for value in f1 if not np.isnan(value)]
    np.testing.assert_allclose(scores.mean_f1(matrix), np.mean(defined) if defined else np.nan)
    total = matrix.sum()
    weighted = [
        matrix[c].sum() / total * slow_iou(matrix.tolist(), c)
        for c in range(classes)
        if matrix[c].sum()
    ]
    expected = sum(weighted) if total else np.nan
    np.testing.assert_allclose(scores.frequency_weighted_iou(matrix), expected)


def test_absent_classes_are_left_out_of_the_means():
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(scores.class_iou(matrix), [3 / 4, 4 / 5, np.nan])
    assert scores.mean_iou(matrix) == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_predicted_but_absent_class_counts_as_zero():
    matrix = np.array([[3, 1], [0, 0]])
    np.testing.assert_allclose(scores.class_iou(matrix), [3 / 4, 0])


def test_the_mean_of_ranks_scores_is_wrong():
    """Rank 0 saw 10 pixels and got 9, rank 1 saw one and missed it."""
    ranks = [np.array([[9, 1], [0, 0]]), np.array([[0, 1], [0, 0]])]
    mean_of_ranks = np.mean([scores.pixel_accuracy(m) for m in ranks])
    assert mean_of_ranks == pytest.approx(0.45)
    assert scores.pixel_accuracy(sum(ranks)) == pytest.approx(9 / 11)  # 0.818


def test_large_counts_are_exact():
    """float32 would lose single pixels beyond 2 ** 24."""
    matrix = np.array([[2**53 // 2, 1], [0, 2**40]], np.int64)
    assert scores.class_accuracy(matrix)[0] < 1
