import io
import warnings

import numpy as np
import pytest
from PIL import Image

from clusterseg.metrics.plot import draw_confusion, shares


def test_shares_are_of_the_true_pixels_and_undefined_for_an_absent_class():
    np.testing.assert_array_equal(
        shares(np.array([[3, 1, 0], [0, 0, 0], [0, 5, 5]])),
        [[0.75, 0.25, 0], [np.nan, np.nan, np.nan], [0, 0.5, 0.5]],
    )


@pytest.mark.parametrize("classes", [1, 3, 60])
def test_any_matrix_and_any_names_are_drawn(classes):
    """Names come from data sets: `$` is no formula. Nothing warns."""
    matrix = np.random.default_rng(0).integers(0, 9, (classes, classes))
    matrix[0] = 0
    ious = {f"$x_{number}^{{": number / classes or None for number in range(classes)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = draw_confusion(matrix, ious, 0.5 if classes > 1 else None)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_more_of_a_class_is_darker():
    def middle(share: int) -> int:
        data = draw_confusion(np.array([[share, 100 - share], [0, 1]]), {"a": None, "b": 1}, 1)
        with Image.open(io.BytesIO(data)) as picture:
            return int(np.asarray(picture.convert("L")).mean() * 1000)

    assert middle(100) != middle(0)
