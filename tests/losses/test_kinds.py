"""Every loss against its definition in numpy, and what all of them must have in common."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.errors import ClustersegError
from clusterseg.losses import build_loss, loss_names
from clusterseg.losses.build import ClassWeights
from clusterseg.losses.pixels import table_of
from clusterseg.spec.model import LossSpec

KINDS = [
    ("cross_entropy", {}),
    ("cross_entropy", {"label_smoothing": 0.2}),
    ("ohem", {"top_k": 0.3}),
    ("ohem", {"top_k": 0.5, "label_smoothing": 0.1}),
    ("focal", {"gamma": 1.5, "alpha": 0.5}),
    ("dice", {"smooth": 1.0}),
    ("dice", {"smooth": 0.0}),
    ("lovasz", {}),
]
IDS = ["-".join([name, *(f"{k}{v}" for k, v in options.items())]) for name, options in KINDS]


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def smooth_cross_entropy(log_p, label, weights, e):
    return (1 - e) * weights[label] * -log_p[label] + e * np.mean(weights * -log_p)


def slow_cross_entropy(log_p, labels, weights, *, label_smoothing=0.0):
    losses = [
        smooth_cross_entropy(one, label, weights, label_smoothing)
        for one, label in zip(log_p, labels, strict=True)
    ]
    return sum(losses), sum(weights[label] for label in labels)


def slow_ohem(log_p, labels, weights, *, top_k, label_smoothing=0.0):
    if not len(labels):
        return 0.0, 0.0
    losses = sorted(
        smooth_cross_entropy(one, label, weights, label_smoothing)
        for one, label in zip(log_p, labels, strict=True)
    )
    taken = max(1, round(top_k * len(labels)))
    return sum(losses[-taken:]), taken * np.mean([weights[label] for label in labels])


def slow_focal(log_p, labels, weights, *, gamma, alpha):
    total = 0.0
    for one, label in zip(log_p, labels, strict=True):
        p = np.exp(one[label])
        total += alpha * weights[label] * (1 - p) ** gamma * -one[label]
    return total, sum(weights[label] for label in labels)


def of_picture(losses, labels, weights):
    """The weighted mean over the classes that are there, and 1 if there is one that weighs."""
    there = [c for c in sorted(set(labels)) if weights[c] > 0]
    if not there:
        return 0.0, 0.0
    return sum(weights[c] * losses(c) for c in there) / sum(weights[c] for c in there), 1.0


def slow_dice(log_p, labels, weights, *, smooth):
    def losses(c):
        p, truth = np.exp(log_p[:, c]), labels == c
        return 1 - (2 * p[truth].sum() + smooth) / (p.sum() + truth.sum() + smooth)

    return of_picture(losses, labels, weights)


def slow_lovasz(log_p, labels, weights):
    """Berman's definition: an error times what its pixel adds to the Jaccard loss of the set."""

    def losses(c):
        p, truth = np.exp(log_p[:, c]), labels == c
        errors = np.where(truth, 1 - p, p)
        order = np.argsort(-errors, kind="stable")

        def jaccard_loss(wrong):
            missed, false = sum(truth[i] for i in wrong), sum(not truth[i] for i in wrong)
            return 1 - (truth.sum() - missed) / (truth.sum() + false)

        return sum(
            errors[i] * (jaccard_loss(order[: n + 1]) - jaccard_loss(order[:n]))
            for n, i in enumerate(order)
        )

    return of_picture(losses, labels, weights)


SLOW = {
    "cross_entropy": slow_cross_entropy,
    "ohem": slow_ohem,
    "focal": slow_focal,
    "dice": slow_dice,
    "lovasz": slow_lovasz,
}


def expected(name, options, labels, logits, *, weights, ignore):
    """(loss sum, weight sum) a picture at a time; a picture's loss weighs as its pixels do."""
    total = weight = 0.0
    pixels = labels[0].size if name in ("dice", "lovasz") else 1
    for label, scores in zip(labels, logits, strict=True):
        counted = (label != ignore) & (label >= 0)
        found = SLOW[name](log_softmax(scores)[counted], label[counted], weights, **options)
        total, weight = total + pixels * found[0], weight + pixels * found[1]
    return total, weight


def batch(seed, *, pictures=3, size=(2, 4), classes=4, ignore=255, share=0.3):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, (pictures, *size)).astype(np.int32)
    labels[random.random(labels.shape) < share] = -1 if ignore is None else ignore
    logits = (3 * random.normal(size=(pictures, *size, classes))).astype(np.float32)
    return labels, logits


def spec(name, options=(), **keys):
    return LossSpec(name=name, options=dict(options), **keys)


def test_every_kind_is_tested():
    assert {name for name, _ in KINDS} == set(SLOW) == set(loss_names())


@pytest.mark.parametrize(("name", "options"), KINDS, ids=IDS)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([None, 255, 1]))
def test_a_loss_is_its_definition(name, options, seed, weighted, ignore):
    labels, logits = batch(seed, ignore=ignore, share=(seed % 11) / 10)
    weights = np.array([0.5, 2.0, 0.0, 1.5]) if weighted else np.ones(4)
    chosen = tuple(float(one) for one in weights) if weighted else None
    loss = build_loss(spec(name, options, class_weights=chosen, ignore=ignore), 4)
    found = loss(tf.constant(labels), tf.constant(logits))
    assert all(one.dtype == tf.float32 and one.shape == [] for one in found)
    wanted = expected(name, options, labels, logits, weights=weights, ignore=ignore)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def gradient_of_sum(loss, labels, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total, weight = loss(tf.constant(labels), logits)
    return tape.gradient(total, logits).numpy(), float(total), float(weight)


@pytest.mark.parametrize(("name", "options"), KINDS, ids=IDS)
def test_the_way_a_batch_is_cut_changes_nothing(name, options):
    """Ranks and micro-batches add their sums up: as if one had read all pictures."""
    labels, logits = batch(7, pictures=4, size=(4, 5))
    labels[1] = 255  # one that has no label
    labels[3, 1:] = 255
    loss = build_loss(spec(name, options, class_weights=(1.0, 3.0, 0.5, 2.0)), 4)
    whole = gradient_of_sum(loss, labels, logits)
    for cuts in ([1], [2], [1, 3], [1, 2, 3]):
        parts = [
            gradient_of_sum(loss, a, b)
            for a, b in zip(np.split(labels, cuts), np.split(logits, cuts), strict=True)
        ]
        np.testing.assert_allclose(np.concatenate([one[0] for one in parts]), whole[0], atol=1e-6)
        np.testing.assert_allclose(sum(one[1] for one in parts), whole[1], rtol=1e-5)
        np.testing.assert_allclose(sum(one[2] for one in parts), whole[2], rtol=1e-6)


@pytest.mark.parametrize(("name", "options"), KINDS, ids=IDS)
def test_the_weight_sum_follows_from_the_labels_alone(name, options):
    labels, logits = batch(3)
    loss = build_loss(spec(name, options, class_weights=(1.0, 3.0, 0.5, 2.0)), 4)
    _, weight = loss(tf.constant(labels), tf.constant(logits))
    for other in (np.zeros_like(logits), -logits, 50 * logits):
        assert float(loss(tf.constant(labels), tf.constant(other))[1]) == float(weight)


@pytest.mark.parametrize(("name", "options"), KINDS, ids=IDS)
def test_nothing_labelled_sums_to_zero_without_nan(name, options):
    _, logits = batch(5)
    for label in (255, -1):
        labels = np.full(logits.shape[:-1], label, np.int32)
        gradient, total, weight = gradient_of_sum(
            build_loss(spec(name, options), 4), labels, logits
        )
        assert (total, weight) == (0.0, 0.0)
        assert (gradient == 0).all()


@pytest.mark.parametrize(("name", "options"), KINDS, ids=IDS)
def test_ignored_pixels_have_no_gradient_whatever_is_there(name, options):
    labels, logits = batch(11)
    ignored = labels == 255
    assert 0 < ignored.sum() < ignored.size
    loss = build_loss(spec(name, options), 4)
    gradient, *sums = gradient_of_sum(loss, labels, logits)
    assert (gradient[ignored] == 0).all()
    assert np.abs(gradient[~ignored]).max() > 0
    logits[ignored] = [300.0, -300.0, 0.0, 100.0]
    again, *sums_again = gradient_of_sum(loss, labels, logits)
    assert sums == sums_again
    np.testing.assert_array_equal(again[~ignored], gradient[~ignored])


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "options"), KINDS, ids=IDS)
def test_half_precision_logits_are_judged_in_float32(name, options, half):
    """Sums of 4,096 pixels: in float16 they would end at 2,048, and overflow in the weights."""
    labels, logits = batch(13, pictures=2, size=(64, 64))
    logits = tf.cast(logits, half)
    loss = build_loss(spec(name, options), 4)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total, weight = loss(tf.constant(labels), logits)
    gradient = tape.gradient(total, logits)
    assert gradient.dtype == half
    assert np.isfinite(tf.cast(gradient, tf.float32)).all()
    exact = loss(tf.constant(labels), tf.cast(logits, tf.float32))
    assert (float(total), float(weight)) == tuple(float(one) for one in exact)
    assert np.abs(tf.cast(gradient, tf.float32)).max() > 0


@pytest.mark.parametrize(("name", "options"), KINDS, ids=IDS)
def test_extreme_logits_give_finite_gradients(name, options):
    labels = np.array([[[0, 1], [2, 3]]], np.int32)
    logits = np.zeros((1, 2, 2, 4), np.float32)
    for number, sure in itertools.product(range(4), (80.0, -80.0)):
        logits[0, number // 2, number % 2, number] = sure
    for changed in (logits, -logits, 0 * logits):
        gradient, total, _ = gradient_of_sum(build_loss(spec(name, options), 4), labels, changed)
        assert np.isfinite(gradient).all() and np.isfinite(total)


def test_a_small_gamma_has_a_finite_slope_where_a_pixel_is_right():
    loss = build_loss(spec("focal", {"gamma": 0.1}), 2)
    logits = np.array([[[[200.0, -200.0]]]], np.float32)
    gradient, _, _ = gradient_of_sum(loss, np.array([[[0]]], np.int32), logits)
    assert np.isfinite(gradient).all()


def test_focal_without_gamma_is_cross_entropy_and_so_is_ohem_of_all_pixels():
    labels, logits = (tf.constant(one) for one in batch(17))
    weights = (1.0, 3.0, 0.5, 2.0)
    plain = build_loss(spec("cross_entropy", class_weights=weights), 4)(labels, logits)
    for name, options in (("focal", {"gamma": 0.0}), ("ohem", {"top_k": 1.0})):
        same = build_loss(spec(name, options, class_weights=weights), 4)(labels, logits)
        np.testing.assert_allclose(same, plain, rtol=1e-5)


def test_mining_goes_from_all_pixels_to_the_hardest():
    labels, logits = (tf.constant(one) for one in batch(19, size=(5, 8), share=0))
    loss = build_loss(spec("ohem", {"top_k": 0.25, "mining_steps": 100}), 4)
    found = [float(loss(labels, logits, tf.constant(n, tf.float32))[1]) for n in (0, 50, 100, 999)]
    assert found == [3 * 40, 3 * 25, 3 * 10, 3 * 10]
    assert float(loss(labels, logits)[1]) == 3 * 10  # validation judges as at the end


def test_equal_losses_are_mined_by_number():
    """Half of the pixels of one loss: their sum is no matter of which ones were taken."""
    loss = build_loss(spec("ohem", {"top_k": 0.5}), 3)
    labels, logits = np.zeros((2, 2, 4), np.int32), np.zeros((2, 2, 4, 3), np.float32)
    gradient, total, weight = gradient_of_sum(loss, labels, logits)
    np.testing.assert_allclose((total, weight), (8 * np.log(3), 8), rtol=1e-6)
    assert (np.abs(gradient).sum(-1) > 0).sum() == 8


def test_lovasz_of_a_sure_network_is_one_minus_iou():
    """Where probabilities are 0 and 1 the extension is the loss that it extends."""
    labels, _ = batch(23, pictures=1, size=(6, 6), share=0.2)
    guess = np.random.default_rng(1).integers(0, 4, labels.shape)
    logits = 60 * np.eye(4, dtype=np.float32)[guess]
    total, weight = build_loss(spec("lovasz"), 4)(tf.constant(labels), tf.constant(logits))
    counted = labels != 255
    ious = [
        ((labels == c) & (guess == c) & counted).sum()
        / (((labels == c) | (guess == c)) & counted).sum()
        for c in range(4)
    ]
    np.testing.assert_allclose(total / weight, 1 - np.mean(ious), rtol=1e-5)


def test_lovasz_keeps_its_digits_in_a_large_picture():
    """A million pixels of which half are wrong: a difference of two Jaccard losses is of float32's
    last bit there."""
    truth = np.zeros((1, 1024, 1024), np.int32)
    truth[:, ::2] = 1
    logits = np.zeros((*truth.shape, 2), np.float32)
    logits[..., 1] = np.random.default_rng(2).normal(size=truth.shape)
    total, weight = build_loss(spec("lovasz"), 2)(tf.constant(truth), tf.constant(logits))
    p = 1 / (1 + np.exp(-logits[..., 1].reshape(-1).astype(np.float64)))
    means = []
    for c, of_class in ((0, 1 - p), (1, p)):
        there = truth.reshape(-1) == c
        errors = np.where(there, 1 - of_class, of_class)
        order = np.argsort(-errors, kind="stable")
        missed, false = np.cumsum(there[order]), np.cumsum(~there[order])
        jaccard = 1 - (there.sum() - missed) / (there.sum() + false)
        means.append(np.dot(errors[order], np.diff(jaccard, prepend=0.0)))
    np.testing.assert_allclose(total / weight, np.mean(means), rtol=1e-5)


def test_batch_weights_are_one_minus_the_frequency():
    labels = np.array([[[0, 0, 0, 1], [1, 2, 255, -1]]], np.int32)
    _, logits = batch(29, pictures=1, classes=3)
    weights = 1 - np.array([3, 2, 1]) / 6
    loss = build_loss(spec("cross_entropy", class_weights="batch"), 3)
    wanted = expected("cross_entropy", {}, labels, logits, weights=weights, ignore=255)
    np.testing.assert_allclose(loss(tf.constant(labels), tf.constant(logits)), wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "ohem", "focal", "dice", "lovasz"])
def test_batch_weights_are_those_of_all_ranks(name):
    """Each rank's sums with the counts of both are those of one that reads the whole batch."""
    labels, logits = batch(31, pictures=4)
    whole = build_loss(spec(name, class_weights="batch"), 4)(labels, tf.constant(logits))
    halves = [(labels[:1], logits[:1]), (labels[1:], logits[1:])]
    vectors = []

    def note(vector):
        vectors.append(vector)
        return vector

    for part, scores in halves:
        build_loss(spec(name, class_weights="batch"), 4, over_ranks=note)(part, tf.constant(scores))
    together = build_loss(
        spec(name, class_weights="batch"), 4, over_ranks=lambda vector: vectors[0] + vectors[1]
    )
    found = [together(part, tf.constant(scores)) for part, scores in halves]
    np.testing.assert_allclose(np.sum(found, axis=0), whole, rtol=1e-5)
    alone = [
        build_loss(spec(name, class_weights="batch"), 4)(part, tf.constant(scores))
        for part, scores in halves
    ]
    assert not np.allclose(np.sum(alone, axis=0), whole, rtol=1e-4)


def test_counts_of_ranks_are_added_exactly():
    """2^24 + 1 is no float32: large counts travel in two halves."""
    sent = []

    def sum_of_many(vector):
        sent.append(vector.numpy())
        return vector + tf.constant([256.0, 0.0, 1.0, 0.0])  # 2^24 + 1 of class 0 elsewhere

    weights = table_of(
        ClassWeights(2, None, sum_of_many), tf.constant([[[0, 1]]]), tf.constant([[[True, True]]])
    )
    np.testing.assert_array_equal(sent[0], [0, 0, 1, 1])
    np.testing.assert_allclose(weights, [1 / (2**24 + 3), (2**24 + 2) / (2**24 + 3)], rtol=1e-6)


def test_a_batch_of_one_class_has_nothing_to_weigh():
    loss = build_loss(spec("cross_entropy", class_weights="batch"), 3)
    total, weight = loss(tf.zeros([1, 2, 2], tf.int32), tf.zeros([1, 2, 2, 3]))
    assert (float(total), float(weight)) == (0.0, 0.0)


def test_an_option_that_a_loss_has_not_is_refused():
    with pytest.raises(ClustersegError, match="top_k") as caught:
        build_loss(spec("focal", {"top_k": 0.5}), 2)
    assert "gamma" in caught.value.help
