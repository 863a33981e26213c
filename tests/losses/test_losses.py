import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.losses import balanced_weights, build_loss, loss_names, with_auxiliary
from clusterseg.spec.model import LossSpec


def slow_cross_entropy(labels, logits, weights, ignore):
    """One pixel at a time, in float64, straight from the definition."""
    total = weight_sum = 0.0
    for label, scores in zip(labels.reshape(-1), logits.reshape(-1, logits.shape[-1]), strict=True):
        if label == ignore:
            continue
        powers = np.exp(scores.astype(np.float64) - scores.max())
        probability = powers / powers.sum()
        weight = 1.0 if weights is None else weights[label]
        total += -weight * np.log(probability[label])
        weight_sum += weight
    return total, weight_sum


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([None, 255, 1]),
    st.floats(0, 1),
)
def test_cross_entropy_is_its_definition(classes, seed, weighted, ignore, share):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, (2, 3, 4)).astype(np.int32)
    if ignore is not None:
        labels[random.random(labels.shape) < share] = ignore
    logits = (5 * random.normal(size=(2, 3, 4, classes))).astype(np.float32)
    weights = tuple(random.random(classes) + 0.1) if weighted else None

    loss = build_loss(LossSpec(class_weights=weights, ignore=ignore), classes)
    total, weight_sum = loss(tf.constant(labels), tf.constant(logits))

    assert total.dtype == weight_sum.dtype == tf.float32
    expected = slow_cross_entropy(labels, logits, weights, ignore)
    np.testing.assert_allclose((total, weight_sum), expected, rtol=1e-4, atol=1e-4)


def test_ignored_pixels_have_no_gradient():
    logits = tf.Variable([[[[2.0, -1.0], [3.0, 30.0]]]])
    with tf.GradientTape() as tape:
        total, weight_sum = build_loss(LossSpec(), 2)(tf.constant([[[0, 255]]]), logits)
    np.testing.assert_allclose(total, np.log1p(np.exp(-3)), rtol=1e-5)
    assert weight_sum == 1
    gradient = tape.gradient(total, logits).numpy()
    assert (gradient[0, 0, 1] == 0).all()
    assert (gradient[0, 0, 0] != 0).all()


def test_a_batch_with_nothing_labelled_sums_to_zero():
    total, weight_sum = build_loss(LossSpec(), 3)(
        tf.fill([1, 2, 2], 255), tf.random.normal([1, 2, 2, 3])
    )
    assert (float(total), float(weight_sum)) == (0.0, 0.0)


def test_padding_is_never_counted():
    loss = build_loss(LossSpec(ignore=None), 2)
    total, weight_sum = loss(tf.constant([[[-1, 0]]]), tf.zeros([1, 1, 2, 2]))
    np.testing.assert_allclose((total, weight_sum), (np.log(2), 1), rtol=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    labels = tf.zeros([1, 64, 64], tf.int32)
    logits = tf.zeros([1, 64, 64, 2], tf.float16)
    total, _ = build_loss(LossSpec(), 2)(labels, logits)
    np.testing.assert_allclose(total, 64 * 64 * np.log(2), rtol=1e-5)


def test_balanced_weights_are_median_frequency_over_frequency():
    assert balanced_weights([10, 40, 20]) == (2.0, 0.5, 1.0)
    assert balanced_weights([10, 0, 30]) == (2.0, 0.0, 20 / 30)
    assert balanced_weights([0, 0]) == (0.0, 0.0)


def test_balanced_uses_the_counts():
    loss = build_loss(LossSpec(class_weights="balanced"), 2, class_counts=[10, 30])
    _, weight_sum = loss(tf.constant([[[0, 1]]]), tf.zeros([1, 1, 2, 2]))
    np.testing.assert_allclose(weight_sum, 20 / 10 + 20 / 30)


@pytest.mark.parametrize(
    "weights", [(1.0,), (1.0, -1.0), (1.0, float("nan")), (1.0, float("inf")), (0.0, 0.0)]
)
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ClustersegError, match="class_weights"):
        build_loss(LossSpec(class_weights=weights), 2)


def test_auxiliary_outputs_add_their_share_of_the_loss_and_no_weight():
    loss = build_loss(LossSpec(class_weights=(1.0, 3.0)), 2)
    labels = tf.constant([[[0, 1, 255]]])
    main, second, third = (tf.random.stateless_normal([1, 1, 3, 2], [7, n]) for n in range(3))
    total, weight_sum = with_auxiliary(loss, (0.4, 2.0))(labels, [main, second, third])
    each = [loss(labels, one) for one in (main, second, third)]
    np.testing.assert_allclose(total, each[0][0] + 0.4 * each[1][0] + 2 * each[2][0], rtol=1e-6)
    np.testing.assert_array_equal(weight_sum, 4.0)


def test_unknown_loss_names_the_nearest():
    assert "cross_entropy" in loss_names()
    with pytest.raises(ClustersegError, match="cros_entropy") as caught:
        build_loss(LossSpec(name="cros_entropy"), 2)
    assert "did you mean 'cross_entropy'?" in caught.value.help
