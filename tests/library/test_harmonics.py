"""Spherical harmonics against scipy, Wigner matrices by what they are for, averages over groups."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from nteq.groups import cyclic, icosahedral, octahedral, tetrahedral, with_inversion
from nteq.harmonics import exact_degree, power_spectrum, spherical_harmonics, wigner_matrices

SOLIDS = [(tetrahedral(), 2), (octahedral(), 3), (icosahedral(), 5)]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def of_scipy(x, degree):
    theta, phi = np.arccos(x[..., 2] / np.linalg.norm(x, axis=-1)), np.arctan2(x[..., 1], x[..., 0])
    columns = []
    for n in range(degree + 1):
        for m in range(-n, n + 1):
            y = sph_harm_y(n, abs(m), theta, phi) * (-1) ** m  # without the sign of Condon and Shortley
            columns.append(y.real if m == 0 else math.sqrt(2) * (y.real if m > 0 else y.imag))
    return np.stack(columns, -1)


def all_rotations(degree):
    """Euler angles and weights that integrate Wigner matrices up to a degree exactly."""
    turns = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    heights, shares = leggauss(degree // 2 + 1)
    a, b, c = np.meshgrid(turns, np.arccos(heights), turns, indexing="ij")
    matrices = Rotation.from_euler("zyz", np.stack([a, b, c], -1).reshape(-1, 3)).as_matrix()
    weights = np.broadcast_to(shares[None, :, None] / 2 / (degree + 1) ** 2, a.shape)
    return matrices, weights.ravel()


def test_harmonics_are_those_of_scipy_also_at_the_poles():
    x = np.concatenate([normal(0, 50, 3), np.eye(3), -np.eye(3)])
    np.testing.assert_allclose(spherical_harmonics(x, 9), of_scipy(x, 9), atol=1e-13)


def test_only_the_direction_counts_and_a_zero_vector_has_none():
    x = normal(1, 6, 3)
    np.testing.assert_allclose(
        spherical_harmonics(1e-200 * x, 4), spherical_harmonics(1e200 * x, 4), rtol=1e-12
    )
    nowhere = np.asarray(spherical_harmonics(np.zeros(3), 4))
    assert nowhere[0] == pytest.approx((4 * np.pi) ** -0.5) and not nowhere[1:].any()


def test_derivatives_are_finite_everywhere_and_right():
    points = np.concatenate([normal(2, 3, 3), np.eye(3), -np.eye(3), np.zeros((1, 3))])
    of = jax.jacobian(lambda x: spherical_harmonics(x, 4))
    for x in points:
        slope = np.asarray(of(jnp.asarray(x)))
        assert np.isfinite(slope).all()
        if x.any():
            steps = 1e-4 * np.eye(3)  # near a pole the oracle has eight digits
            numeric = [(of_scipy(x + h, 4) - of_scipy(x - h, 4)) / 2e-4 for h in steps]
            np.testing.assert_allclose(slope, np.stack(numeric, -1), rtol=1e-6, atol=3e-6)
    assert np.isfinite(jax.hessian(lambda x: spherical_harmonics(x, 4).sum())(jnp.zeros(3))).all()


def test_wigner_matrices_turn_the_harmonics_and_multiply_as_the_rotations():
    turns = Rotation.random(4, rng=3).as_matrix()
    turns = np.concatenate([turns, -turns])  # with mirrors
    D, x = wigner_matrices(turns, 5), normal(4, 10, 3)
    for Q, matrix in zip(turns, D, strict=True):
        moved, turned = of_scipy(x @ Q.T, 5), of_scipy(x, 5) @ matrix.T
        np.testing.assert_allclose(moved, turned, atol=1e-13)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(36), atol=1e-13)
    np.testing.assert_allclose(wigner_matrices(turns[0] @ turns[5], 5), D[0] @ D[5], atol=1e-13)
    parity = np.repeat((-1.0) ** np.arange(6), 2 * np.arange(6) + 1)
    np.testing.assert_allclose(wigner_matrices(-np.eye(3), 5), np.diag(parity), atol=1e-13)
    with jax.enable_x64(False):  # in double precision all the same
        np.testing.assert_array_equal(wigner_matrices(turns, 5), D)


@pytest.mark.parametrize(("group", "degree"), SOLIDS, ids=lambda v: getattr(v, "name", v))
def test_a_group_averages_to_zero_up_to_its_degree_and_not_beyond(group, degree):
    averages = wigner_matrices(group.matrices, degree + 1).mean(0)
    size = [np.abs(averages[n**2 : (n + 1) ** 2]).max() for n in range(degree + 2)]
    assert max(size[1:-1]) < 1e-14 < 0.1 < size[-1] and size[0] == pytest.approx(1)
    assert exact_degree(group) == degree
    # with mirrors all odd degrees vanish
    assert exact_degree(with_inversion(group)) == {2: 3, 3: 3, 5: 5}[degree]


def test_half_of_a_group_does_not_average_like_all_of_it():
    D = wigner_matrices(icosahedral().matrices, 5)
    assert np.abs(D[:30].mean(0)[1:]).max() > 0.05 and np.abs(D.mean(0)[1:]).max() < 1e-14


@pytest.mark.parametrize("degree", [0, 1, 2, 4])
def test_the_power_spectrum_is_the_integral_of_the_square_over_all_rotations(degree):
    s, other = normal(5, 2, 3, 4, (degree + 1) ** 2)
    matrices, weights = all_rotations(2 * degree)
    D = wigner_matrices(matrices, degree)
    products = np.einsum("icm,gmn,jcn->gij", s, D, other)
    integral = np.einsum("g,gij->ij", weights, products**2)
    closed = np.asarray(power_spectrum(s)) @ np.asarray(power_spectrum(other)).T
    np.testing.assert_allclose(closed, integral, rtol=1e-12, atol=1e-12)
    turned = np.einsum("mn,icn->icm", wigner_matrices(-matrices[-1], degree), s)
    np.testing.assert_allclose(power_spectrum(turned), power_spectrum(s), atol=1e-12)


def test_a_power_of_the_product_is_averaged_exactly_where_its_degree_allows():
    """L = 2: u² has degree 4, which the icosahedron averages and the cube does not; with L = 3 it has 6."""
    for degree, group, exact in [
        (2, icosahedral(), True),
        (2, octahedral(), False),
        (3, icosahedral(), False),
    ]:
        s, other = normal(6, 2, 5, 3, (degree + 1) ** 2)
        D = wigner_matrices(group.matrices, degree)
        average = (np.einsum("icm,gmn,jcn->gij", s, D, other) ** 2).mean(0)
        closed = np.asarray(power_spectrum(s)) @ np.asarray(power_spectrum(other)).T
        apart = np.abs(average - closed).max() / np.abs(closed).max()
        assert apart < 1e-14 if exact else apart > 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spherical_harmonics(np.ones(3), -1), "degree must be an integer of at least 0"),
        (lambda: spherical_harmonics(np.ones((3, 2)), 1), r"shape \(..., 3\), got \(3, 2\)"),
        (lambda: spherical_harmonics([1.0, np.nan, 0.0], 1), "not finite"),
        (lambda: wigner_matrices(np.ones((3, 3)), 1), "must be orthogonal.*3.0e"),
        (lambda: wigner_matrices(np.eye(2), 1), r"\(..., 3, 3\), got \(2, 2\)"),
        (lambda: wigner_matrices(np.full((3, 3), np.nan), 1), "must be orthogonal"),
        (lambda: power_spectrum(np.ones((2, 5))), r"\(L \+ 1\)², got \(2, 5\)|\(L \+ 1\)²\), got \(2, 5\)"),
        (lambda: power_spectrum(np.ones(4)), "must have shape"),
        (lambda: exact_degree(cyclic(4)), "group of 3 × 3 matrices"),
        (lambda: exact_degree("O"), "group of 3 × 3 matrices, got 'O'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
