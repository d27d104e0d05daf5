import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nteq.actions import matrices_of, on_vectors, orbit
from nteq.groups import cyclic, octahedral
from nteq.metrics import equivariance_error, orbit_same_prediction, relative_std, sub_ensembles


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


@given(st.integers(2, 9), st.integers(2, 5), st.integers(0, 2**31))
def test_orbit_same_prediction_counts_agreement_with_the_identity(order, classes, seed):
    rng = np.random.default_rng(seed)
    logits, identity = rng.normal(size=(order, 3, classes)), int(rng.integers(order))
    counted = [
        sum(np.argmax(logits[g, i]) == np.argmax(logits[identity, i]) for g in range(order)) / order
        for i in range(3)
    ]
    np.testing.assert_allclose(orbit_same_prediction(logits, identity), counted, rtol=1e-12)


def test_the_cross_product_is_equivariant_and_its_absolute_value_is_not():
    group = octahedral()
    x = np.random.default_rng(0).normal(size=(6, 2, 3))
    images = np.asarray(orbit(on_vectors(group), x))
    cross = np.cross(images[..., 0, :], images[..., 1, :])
    matrices = matrices_of(on_vectors(group), 3)
    np.testing.assert_allclose(equivariance_error(cross, matrices), 0, atol=1e-14)
    assert (np.asarray(equivariance_error(cross)) > 0.9).all()  # it turns, so it is not invariant
    assert (np.asarray(equivariance_error(np.abs(cross), matrices)) > 0.5).all()


def test_equivariance_error_uses_the_inverse():
    group = cyclic(3)  # where ρ(g) and ρ(g)⁻¹ differ
    matrices = matrices_of(on_vectors(group), 2)
    predictions = np.einsum("gij,nj->gni", matrices, np.random.default_rng(1).normal(size=(5, 2)))
    np.testing.assert_allclose(equivariance_error(predictions, matrices), 0, atol=1e-14)
    assert (np.asarray(equivariance_error(predictions, matrices.transpose(0, 2, 1))) > 0.5).all()


def test_sub_ensembles_follow_one_over_root_m_within_their_error_bars():
    # for members of independent normal noise around 10 the squared deviation over four points is 3/4 of 1/M
    noise = np.random.default_rng(2).normal(size=(1024, 4, 200))
    mean_square = lambda f: ((f - f.mean(0)) ** 2).mean(0)
    sizes = [1, 4, 16, 64]
    value, error = sub_ensembles(mean_square, 10 + noise, sizes)
    z = (value - 0.75 / np.array(sizes)) / error
    assert (np.abs(z) < 4).all() and (error < 0.1 * value).all() and (error > 0).all()


def test_sub_ensembles_of_all_members_is_the_metric_of_the_ensemble():
    f = 5 + np.random.default_rng(3).normal(size=(7, 4, 3))
    value, _ = sub_ensembles(relative_std, f, [7, 1], resamples=2)
    np.testing.assert_allclose(value[0], np.mean(relative_std(f.mean(0))), rtol=1e-12)
    np.testing.assert_allclose(value[1], np.mean([relative_std(one) for one in f]), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orbit_same_prediction(np.ones((4, 3, 1))), "at least two classes"),
        (lambda: orbit_same_prediction(np.ones((4, 3)), identity=4), "index into the 4 orbit elements"),
        (lambda: orbit_same_prediction(np.full((4, 3), np.inf)), "not finite"),
        (lambda: equivariance_error(np.ones((4, 2, 3)), np.ones((4, 2, 2))), r"\(4, 3, 3\)"),
        (lambda: equivariance_error(np.zeros((4, 2, 3))), "zero on the whole orbit"),
        (lambda: equivariance_error(np.ones(4)), r"\(\|G\|, \.\.\., outputs\)"),
        (lambda: sub_ensembles(relative_std, np.ones(5), [1]), r"\(members, \|G\|"),
        (lambda: sub_ensembles(relative_std, np.ones((5, 4)), [6]), "between 1 and 5"),
        (lambda: sub_ensembles(relative_std, np.ones((5, 4)), [0]), "between 1 and 5"),
        (lambda: sub_ensembles(relative_std, np.ones((5, 4)), [1], resamples=1), "at least 2"),
        (lambda: sub_ensembles(relative_std, np.full((5, 4), np.nan), [1]), "not finite"),
    ],
)
def test_bad_input_of_the_other_measures_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
