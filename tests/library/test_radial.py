"""Radial functions against their formulas in mpmath, with their derivatives where these are delicate."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import spherical_jn

from nteq.radial import bessel_basis, envelope, lengths_and_directions

jax.config.update("jax_enable_x64", True)
DRAW = np.random.default_rng(0)


def polynomial(x, p):
    """The envelope as it is printed."""
    x = mpmath.mpf(float(x))
    if x >= 1:
        return mpmath.mpf(0)
    high = -mpmath.mpf((p + 1) * (p + 2)) / 2 * x**p + p * (p + 2) * x ** (p + 1)
    return 1 + high - mpmath.mpf(p * (p + 1)) / 2 * x ** (p + 2)


def derivatives(f, order):
    for _ in range(order):
        f = jax.grad(f)
    return f


@pytest.mark.parametrize("p", [1, 2, 6, 9])
def test_the_envelope_is_the_polynomial_of_its_docstring(p):
    # in units of a cutoff by which one divides without rounding
    x = np.concatenate([np.linspace(0, 1.25, 21), 1 - np.logspace(-1, -8, 8)])
    with mpmath.workdps(60):
        exact = np.array([float(polynomial(one, p)) for one in x])
    r = 4 * x
    np.testing.assert_allclose(envelope(r, 4.0, p), exact, rtol=1e-13)
    assert ((envelope(r, 4.0, p) >= 0) & (envelope(r, 4.0, p) <= 1 + 1e-15)).all()


@pytest.mark.parametrize("p", [1, 3, 6])
def test_the_envelope_ends_with_two_derivatives_zero_and_not_three(p):
    f = lambda r: envelope(r, 2.0, p)
    for order in range(3):
        assert abs(derivatives(f, order)(2.0)) < 1e-14
        for side in (-1e-5, 1e-5):  # continuous: small on both sides
            assert abs(derivatives(f, order)(2.0 + side)) < 200 * p**3 * 1e-5 ** (3 - order)
    # it is not smooth beyond that: −6 times the number of terms' sum, C(p + 2, 3), over c³
    jump = derivatives(f, 3)(2.0 - 1e-9) - derivatives(f, 3)(2.0 + 1e-9)
    np.testing.assert_allclose(jump, -p * (p + 1) * (p + 2) / 2.0**3, rtol=1e-6)
    # flat at the start: derivatives of orders 1 to p − 1 vanish
    for order in range(1, p):
        assert abs(derivatives(f, order)(0.0)) < 1e-12 and abs(derivatives(f, order)(1e-12)) < 1e-6


def test_without_an_envelope_the_force_jumps_and_with_it_does_not():
    energy = lambda r: bessel_basis(r, 4.0).sum()
    cut = lambda r: jnp.where(r < 4.0, energy(r), 0.0)
    smooth = lambda r: energy(r) * envelope(r, 4.0)
    before, after = 4 - 1e-7, 4 + 1e-7
    assert abs(cut(before) - cut(after)) < 1e-5  # the functions end at zero, their slopes do not
    assert abs(jax.grad(cut)(before) - jax.grad(cut)(after)) > 0.5
    assert abs(jax.grad(smooth)(before) - jax.grad(smooth)(after)) < 1e-12


@pytest.mark.parametrize("cutoff", [0.7, 5.0])
def test_the_basis_is_made_of_spherical_bessel_functions(cutoff):
    r, n = DRAW.uniform(0, cutoff, 20), np.arange(1, 6)
    zeros = n * np.pi / cutoff  # j₀ vanishes at nπ
    norm = np.sqrt(2 / cutoff**3) / np.abs(spherical_jn(1, n * np.pi))
    np.testing.assert_allclose(
        bessel_basis(r, cutoff, 5), norm * spherical_jn(0, zeros * r[:, None]), rtol=1e-11, atol=1e-12
    )
    np.testing.assert_allclose(bessel_basis(cutoff, cutoff, 5), 0, atol=1e-13)


def test_the_basis_is_orthonormal_in_the_ball():
    overlap = [
        [
            quad(lambda r: float(np.prod(b(r)[[i, j]])) * r**2, 0, 4, epsabs=1e-12)[0]
            for i in range(3)
            for b in [lambda r: np.asarray(bessel_basis(r, 4.0, 3))]
        ]
        for j in range(3)
    ]
    np.testing.assert_allclose(overlap, np.eye(3), atol=1e-9)


def test_the_basis_and_its_derivatives_at_zero():
    f = lambda r: bessel_basis(r, 4.0, 3)
    n = np.arange(1, 4)
    np.testing.assert_allclose(f(0.0), 0.5**0.5 * n * np.pi / 4, rtol=1e-14)
    np.testing.assert_allclose(jax.jacfwd(f)(0.0), 0, atol=1e-14)
    # sin(kr)/r = k − k³r²/6 + …
    second = -(0.5**0.5) * (n * np.pi / 4) ** 3 / 3
    np.testing.assert_allclose(jax.jacfwd(jax.jacfwd(f))(0.0), second, rtol=1e-10)
    np.testing.assert_allclose(jax.jacfwd(jax.jacfwd(f))(1e-5), second, rtol=1e-4)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_lengths_and_directions_are_those_of_numpy(dimension):
    x = DRAW.normal(size=(5, 6, dimension)) * 10.0 ** DRAW.integers(-3, 4, (5, 6, 1))
    r, d = lengths_and_directions(x)
    np.testing.assert_allclose(r, np.linalg.norm(x, axis=-1), rtol=1e-14)
    np.testing.assert_allclose(d, x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=1e-13)


def test_lengths_and_directions_have_the_derivatives_of_the_formulas():
    x = DRAW.normal(size=3)
    r, d = (np.asarray(a) for a in lengths_and_directions(x))
    slope, curvature = (f(lambda x: lengths_and_directions(x)[0])(x) for f in (jax.grad, jax.hessian))
    np.testing.assert_allclose(slope, d, rtol=1e-13)
    np.testing.assert_allclose(curvature, (np.eye(3) - np.outer(d, d)) / r, rtol=1e-12, atol=1e-14)
    turn = jax.jacfwd(lambda x: lengths_and_directions(x)[1])(x)
    np.testing.assert_allclose(turn, (np.eye(3) - np.outer(d, d)) / r, rtol=1e-12, atol=1e-14)


def test_a_zero_vector_has_length_and_direction_zero_and_finite_derivatives():
    x = jnp.zeros((2, 3)).at[1, 0].set(2.0)
    r, d = lengths_and_directions(x)
    assert r.tolist() == [0, 2] and d.tolist() == [[0, 0, 0], [1, 0, 0]]

    def f(x):
        r, d = lengths_and_directions(x)
        return (r + r**2).sum() + (bessel_basis(r, 3.0) * envelope(r, 3.0)[..., None]).sum() + d.sum()

    for g in (jax.grad(f), jax.hessian(f), jax.grad(lambda x: (jax.grad(f)(x) ** 2).sum())):
        assert jnp.isfinite(g(x)).all()
    assert (jax.grad(f)(x)[0] == 0).all()


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e15, 1e30])
def test_very_short_and_very_long_vectors_keep_their_length_in_float32(size):
    x = jnp.asarray(DRAW.normal(size=(4, 3)), jnp.float32) * size
    r, d = lengths_and_directions(x)
    assert r.dtype == d.dtype == np.float32
    np.testing.assert_allclose(r, np.linalg.norm(np.float64(x), axis=-1), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(d, axis=-1), 1, rtol=1e-6)
    slope = jax.vmap(jax.grad(lambda x: lengths_and_directions(x)[0]))(x)
    np.testing.assert_allclose(slope, d, rtol=1e-5, atol=1e-7)


def test_float32_is_right_to_float32_up_to_the_cutoff():
    r = np.float32(4) * (1 - np.logspace(0, -6, 50, dtype=np.float32))
    for f, slope in ((envelope, jax.vmap(jax.grad(envelope), (0, None))), (bessel_basis, None)):
        single, double = f(r, 4.0), f(np.float64(r), 4.0)
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-5 if f is bessel_basis else 1e-24)
        if slope:
            np.testing.assert_allclose(slope(r, 4.0), slope(np.float64(r), 4.0), rtol=1e-4, atol=1e-7)


def test_what_is_not_float_is_promoted_and_shapes_stay():
    assert envelope([0, 1], 2).shape == (2,) and envelope(1, 2).shape == ()
    assert envelope(jnp.ones((2, 3), jnp.float16), 2.0).dtype == np.float32
    assert bessel_basis(np.ones((2, 0)), 2.0, 4).shape == (2, 0, 4)
    r, d = lengths_and_directions(np.zeros((0, 3)))
    assert r.shape == (0,) and d.shape == (0, 3)


def test_they_pass_through_jit_vmap_and_grad_with_a_traced_cutoff():
    r = DRAW.uniform(0, 3, 5)
    for f in (envelope, bessel_basis):
        np.testing.assert_allclose(jax.jit(f)(r, 3.0), f(r, 3.0), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(jax.vmap(f, (0, None))(r, 3.0), f(r, 3.0), rtol=1e-12, atol=1e-14)
        by_cutoff = jax.grad(lambda c, f=f: f(r, c).sum())(3.5)
        numeric = (f(r, 3.5 + 1e-6).sum() - f(r, 3.5 - 1e-6).sum()) / 2e-6
        np.testing.assert_allclose(by_cutoff, numeric, rtol=1e-6)


def test_they_work_with_strict_promotion():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        x = jnp.ones((2, 3), jnp.float32)
        r, d = lengths_and_directions(x)
        assert envelope(r, 2.0).dtype == bessel_basis(r, 2.0).dtype == d.dtype == np.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lengths_and_directions(1.0), r"shape \(..., dimension\), got a single number"),
        (lambda: lengths_and_directions([np.nan]), "x .*finite"),
        (lambda: bessel_basis([-1.0, 1], 2.0), "bessel_basis: r must not be negative: .* got -1"),
        (lambda: bessel_basis(1.0, 0.0), "cutoff must be positive and finite, got 0"),
        (lambda: bessel_basis(1.0, 2.0, 0), "size must be an integer of at least 1, got 0"),
        (lambda: envelope(-1.0, 2.0), "envelope: r must not be negative"),
        (lambda: envelope(np.inf, 2.0), "r .*finite"),
        (lambda: envelope(1.0, -2.0), "cutoff must be positive and finite, got -2"),
        (lambda: envelope(1.0, [2.0]), "cutoff must be positive and finite, a single number"),
        (lambda: envelope(1.0, 2.0, p=1.5), "p must be an integer of at least 1, got 1.5"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
