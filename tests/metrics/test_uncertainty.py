import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterseg.metrics.uncertainty import Running, entropy_of


def drawn(seed, count=4, shape=(3, 5), classes=6):
    random = np.random.default_rng(seed)
    raw = random.random((count, *shape, classes)) ** 8
    return (raw / raw.sum(axis=-1, keepdims=True)).astype(np.float32)


def running(predictions):
    found = Running()
    for one in predictions:
        found.add(one)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_maps_are_their_definitions(seed, count):
    predictions = drawn(seed, count)
    found = running(predictions)
    mean = predictions.astype(np.float64).mean(axis=0)
    entropy = -(mean * np.log(np.where(mean > 0, mean, 1))).sum(-1)
    each = predictions.astype(np.float64)
    inner = -(each * np.log(np.where(each > 0, each, 1))).sum(-1).mean(0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.entropy, entropy, atol=1e-6)
    np.testing.assert_allclose(found.mutual_information, entropy - inner, atol=1e-5)
    assert (found.mutual_information >= 0).all()
    assert (found.mutual_information <= found.entropy + 1e-6).all()
    assert (found.entropy <= np.log(6) + 1e-6).all()


def test_contradiction_and_doubt_are_told_apart():
    """Two that are sure of other classes; two that both can't tell."""
    contradiction = running([np.array([1.0, 0.0]), np.array([0.0, 1.0])])
    doubt = running([np.array([0.5, 0.5])] * 2)
    for one in (contradiction, doubt):
        assert one.entropy == pytest.approx(np.log(2))
    assert contradiction.mutual_information == pytest.approx(np.log(2))
    assert doubt.mutual_information == 0


def test_certainty_has_no_entropy_and_nothing_has_no_mean():
    assert entropy_of(np.array([1.0, 0.0])) == 0
    with pytest.raises(ValueError, match="no prediction"):
        _ = Running().mean
