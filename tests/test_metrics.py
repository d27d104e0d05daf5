import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nteq.metrics import relative_std


@given(st.integers(2, 9), st.integers(0, 2**31))
def test_relative_std_is_numpys_and_ignores_scale(order, seed):
    f = np.random.default_rng(seed).normal(size=(order, 3, 2)) + 10
    np.testing.assert_allclose(relative_std(f), np.std(f, axis=0) / np.abs(np.mean(f, axis=0)), rtol=1e-12)
    np.testing.assert_allclose(relative_std(-7 * f), relative_std(f), rtol=1e-12)


def test_an_invariant_model_has_none():
    np.testing.assert_array_equal(relative_std(np.full((4, 5), 3.0)), 0)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (np.ones((1, 3)), "at least two orbit elements"),
        (np.float64(1.0), "at least two orbit elements"),
        (np.ones((4, 0)), "at least two orbit elements"),
        (np.array([1.0, np.nan]), "not finite"),
        (np.array([[1.0, 1.0], [-1.0, 1.0]]), "mean over the orbit is zero"),
        (np.zeros((4, 2)), "mean over the orbit is zero"),
    ],
)
def test_bad_input_is_named(predictions, message):
    with pytest.raises(ValueError, match=message):
        relative_std(predictions)
