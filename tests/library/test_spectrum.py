"""The functions of a block's matrix against 50 digits, against matrices written out, and differences."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from nteq import spectrum
from nteq.spectrum import Block


@pytest.fixture(autouse=True, scope="module")
def digits():
    with mpmath.workdps(50):  # of this module's oracles alone
        yield


INF = np.inf


def exact_phi(rate, tau):
    rate, tau = mpmath.mpf(float(rate)), mpmath.mpf(float(tau))
    if tau == 0 or rate == 0:
        return tau
    return (1 - (0 if tau == INF else mpmath.exp(-rate * tau))) / rate


def exact_slope(a, b, tau):
    """φ[a, b]; 50 digits stand any cancellation here."""
    tau = float(tau)
    if a != b:
        a, b = mpmath.mpf(float(a)), mpmath.mpf(float(b))
        return (exact_phi(a, tau) - exact_phi(b, tau)) / (a - b)
    if a == 0:
        return -(mpmath.mpf(tau) ** 2) / 2
    decay = 0 if tau == INF else mpmath.exp(-mpmath.mpf(float(a)) * mpmath.mpf(float(tau)))
    return ((mpmath.mpf(tau) * decay if tau != INF else 0) - exact_phi(a, tau)) / mpmath.mpf(float(a))


def phi(eigenvalues, tau, ridge=0.0, largest=1.0, points=10):
    eigenvalues = jnp.asarray(eigenvalues)
    dtype = eigenvalues.dtype
    return spectrum.phi(eigenvalues, *(jnp.asarray(v, dtype) for v in (tau, ridge, largest)), points)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tau", [0.0, 1e-8, 1e-2, 1.0, 30.0, 1e4, INF])
def test_phi_is_right_to_the_last_digits(dtype, tau):
    rates = np.array([1e-4, 1e-3, 0.1, 0.3, 1.0], dtype)
    tau = dtype(tau)
    expected = [float(exact_phi(rate, tau)) for rate in rates]
    np.testing.assert_allclose(phi(rates, tau), expected, rtol=4 * np.finfo(dtype).eps)
    shifted = (rates + dtype(0.25)).astype(dtype)
    expected = [float(exact_phi(rate, tau)) for rate in shifted]
    np.testing.assert_allclose(phi(rates, tau, ridge=0.25), expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("largest", [1.0, 1e3])
def test_a_null_mode_is_learned_linearly_until_that_would_only_amplify_rounding(dtype, largest):
    eps = float(np.finfo(dtype).eps)
    null = np.array([-eps, 0, 5 * eps], dtype) * dtype(largest)
    for factor in (1e-3, 0.9):  # τ · largest · √ε < 1; a threshold of ε in place of √ε fails below
        tau = dtype(factor / (largest * eps**0.5))
        np.testing.assert_array_equal(phi(null, tau, largest=largest), np.full(3, tau))
    for factor in (1.1, 1e3, INF):
        tau = dtype(factor / (largest * eps**0.5))
        np.testing.assert_array_equal(phi(null, tau, largest=largest), 0)
    # a mode above rounding is never left out
    above = np.array([20 * eps * largest], dtype)
    np.testing.assert_allclose(phi(above, INF, largest=largest), 1 / above, rtol=4 * eps)
    # with a ridge that is no rounding itself, φ(r, τ) stays
    ridge = dtype(1e-2 * largest)
    np.testing.assert_allclose(phi(null, INF, ridge=ridge, largest=largest), 1 / ridge, rtol=4 * eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tau", [0.0, 1e-3, 0.2499, 0.2501, 1.0, 40.0, 1e5, INF])
def test_divided_differences_of_phi_are_right_where_eigenvalues_meet_and_where_they_do_not(dtype, tau):
    eps = np.finfo(dtype).eps
    rates = np.array([1e-6, 1e-3, 1e-3 * (1 + 2 * eps), 0.2, 0.2001, 0.2 * (1 + eps), 1.0, 1.0, 1.5], dtype)
    if tau != INF:
        rates = np.append(rates, dtype(0))
    tau = dtype(tau)
    found = spectrum._slopes(jnp.asarray(rates), jnp.zeros(len(rates), bool), jnp.asarray(tau))
    expected = [[float(exact_slope(a, b, tau)) for b in rates] for a in rates]
    np.testing.assert_allclose(found, expected, rtol=60 * eps)


def test_modes_that_are_left_out_stay_so_in_the_derivative():
    rates, dead = jnp.array([0.0, 0.0, 0.5]), jnp.array([True, True, False])
    found = spectrum._slopes(rates, dead, jnp.asarray(INF))
    np.testing.assert_array_equal(found[:2, :2], 0)
    # the pseudo-inverse: d(B⁺)P = B⁺² dB (1 − P) beside −B⁺ dB B⁺
    np.testing.assert_allclose(found[2], [4.0, 4.0, -4.0], rtol=1e-15)


def hermitian(seed, size, values=None, dtype=float):
    draw = np.random.default_rng(seed)
    a = draw.normal(size=(size, size))
    if dtype is complex:
        a = a + 1j * draw.normal(size=(size, size))
    if values is None:
        return a @ a.conj().T
    q = np.linalg.qr(a)[0]
    return q * np.asarray(values, float) @ q.conj().T


def applied(gram, rows, tau, ridge=0.0):
    block = spectrum.decompose(jnp.array(gram))  # a copy: it is donated
    largest = spectrum.largest_eigenvalue([block])
    rows = spectrum.to_frame(block, rows)
    out = spectrum.filtered(block, rows, jnp.asarray(tau), jnp.asarray(ridge), largest, len(gram))
    return spectrum.from_frame(block, out)


def written_out(gram, rows, tau, ridge=0.0):
    """φ by NumPy and 1 − e^(−Bτ) by scaling and squaring, for a matrix that can be inverted."""
    b = np.asarray(gram) + ridge * np.eye(len(gram))
    decay = np.zeros_like(b) if tau == INF else np.asarray(jax.scipy.linalg.expm(-jnp.asarray(b) * tau))
    return rows @ np.linalg.solve(b, np.eye(len(b)) - decay)


SPECTRA = {"distinct": [0.3, 1.0, 2.0, 5.0], "equal": [1.0, 1.0, 1.0, 1.0], "pairs": [0.5, 0.5, 2.0, 2.0]}


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("tau", [0.0, 0.7, INF])
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA.keys())
def test_the_derivative_of_a_matrix_function_is_finite_and_right_for_equal_eigenvalues(values, tau, dtype):
    gram, change = hermitian(0, 4, values, dtype), hermitian(1, 4, dtype=dtype)
    rows = np.random.default_rng(2).normal(size=(3, 4)).astype(dtype)
    np.testing.assert_allclose(applied(gram, rows, tau), written_out(gram, rows, tau), atol=1e-12)
    along = lambda s: applied(gram + s * change, rows, tau)
    _, found = jax.jvp(along, (0.0,), (1.0,))
    h = 1e-5  # the error of the difference, h² and ε/h, is far below 1e-6 of what is asked
    expected = (written_out(gram + h * change, rows, tau) - written_out(gram - h * change, rows, tau)) / 2 / h
    np.testing.assert_allclose(found, expected, atol=1e-6 * max(1, np.abs(expected).max()))
    # and backwards
    weights = np.random.default_rng(3).normal(size=(3, 4))
    backwards = jax.grad(lambda s: (weights * along(s).real).sum())(0.0)
    np.testing.assert_allclose(backwards, (weights * found.real).sum(), rtol=1e-10, atol=1e-12)


def test_derivatives_in_time_and_ridge():
    gram, rows = hermitian(0, 4, SPECTRA["pairs"]), np.random.default_rng(2).normal(size=(3, 4))
    for tau in (0.0, 0.7):
        _, found = jax.jvp(lambda tau: applied(gram, rows, tau, 0.1), (tau,), (1.0,))
        decay = np.asarray(jax.scipy.linalg.expm(-(gram + 0.1 * np.eye(4)) * tau))
        np.testing.assert_allclose(found, rows @ decay, atol=1e-12)
        twice = jax.jacfwd(jax.jacfwd(lambda tau: applied(gram, rows, tau, 0.1)))(tau)
        np.testing.assert_allclose(twice, -rows @ decay @ (gram + 0.1 * np.eye(4)), atol=1e-11)
    for tau in (0.7, INF):
        _, found = jax.jvp(lambda r: applied(gram, rows, tau, r), (0.1,), (1.0,))
        h = 1e-4
        expected = (written_out(gram, rows, tau, 0.1 + h) - written_out(gram, rows, tau, 0.1 - h)) / 2 / h
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_second_derivative_in_the_matrix_is_refused_rather_than_wrong():
    gram, change = hermitian(0, 4), hermitian(1, 4)
    value = lambda s: applied(gram + s * change, np.ones((1, 4)), 1.0).sum()
    with pytest.raises(NotImplementedError, match="this derivative is not implemented"):
        jax.hessian(value)(0.0)
    with pytest.raises(NotImplementedError, match="this derivative is not implemented"):
        jax.grad(jax.grad(value))(0.0)
    block = spectrum.decompose(jnp.array(gram))  # a flow may itself be what is differentiated
    rest = jnp.asarray(1.0), jnp.asarray(0.0), spectrum.largest_eigenvalue([block]), 4
    moved = lambda s: Block(block.eigenvalues, block.vectors + s * (change @ block.vectors))
    value = lambda s: spectrum.filtered(moved(s), jnp.ones((1, 4)), *rest).sum()
    assert np.isfinite(jax.grad(value)(0.0))
    with pytest.raises(NotImplementedError, match="this derivative is not implemented"):
        jax.grad(jax.grad(value))(0.0)


def test_the_derivative_of_the_inverse_is_that_of_the_pseudo_inverse_at_constant_rank():
    rng = np.random.default_rng(4)
    wide, change, rows = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(2, 5))
    gram = lambda s: (wide + s * change) @ (wide + s * change).T
    np.testing.assert_allclose(applied(gram(0), rows, INF), rows @ np.linalg.pinv(gram(0)), atol=1e-10)
    _, found = jax.jvp(lambda s: applied(gram(s), rows, INF), (0.0,), (1.0,))
    h = 1e-5
    expected = rows @ (np.linalg.pinv(gram(h), 1e-10) - np.linalg.pinv(gram(-h), 1e-10)) / 2 / h
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_terms_of_a_block_add_up_to_the_kronecker_sum():
    rng = np.random.default_rng(5)
    sigma, kappa = rng.normal(size=(3, 2, 2)), rng.normal(size=(3, 4, 4))
    total = spectrum.first_term(jnp.asarray(sigma[0]), jnp.asarray(kappa[0]))
    for s, k in zip(sigma[1:], kappa[1:], strict=True):
        total = spectrum.add_term(total, jnp.asarray(s), jnp.asarray(k))
    expected = sum(np.kron(s, k) for s, k in zip(sigma, kappa, strict=True))
    whole, finite = spectrum.add_adjoint(total)
    np.testing.assert_allclose(whole, expected + expected.T, atol=1e-14)
    assert finite


def test_the_change_of_the_covariance_is_its_formula():
    rng = np.random.default_rng(6)
    gram, nngp = hermitian(7, 4), hermitian(8, 4)
    theta, cross = rng.normal(size=(2, 1, 3, 4))
    a = written_out(gram, theta[0], 0.7)
    expected = a @ nngp @ a.T - a @ cross[0].T - cross[0] @ a.T
    block = spectrum.decompose(jnp.array(gram))
    ours = (spectrum.to_frame(block, theta), jnp.asarray(cross))
    rest = (jnp.asarray(0.7), jnp.asarray(0.0), spectrum.largest_eigenvalue([block]), 4)
    for pairs, change in {"kxe,kze->xz": expected, "kxe,kxe->x": np.diagonal(expected)}.items():
        prior = rng.normal(size=change.shape)
        found = spectrum.add_to_covariance(prior, 2, block, nngp, ours, ours, *rest, pairs)
        np.testing.assert_allclose(found, prior + 2 * change, atol=1e-12)


def test_condition_number_and_effective_rank_of_blocks():
    blocks = [jnp.array([1.0, 4.0]), jnp.array([2.0])]
    assert spectrum.condition_number(blocks, 0.0, 4) == 4.0
    assert spectrum.condition_number(blocks, 1.0, 4) == 2.5
    assert spectrum.condition_number([jnp.array([0.0, 1.0])], 0.0, 2) == INF
    p = np.array([1.0, 4.0, 2.0, 2.0]) / 9
    found = spectrum.effective_rank(blocks, [1, 2])
    np.testing.assert_allclose(found, np.exp(-(p * np.log(p)).sum()), rtol=1e-14)
    assert spectrum.effective_rank([jnp.zeros(3)], [1]) == 0.0
    assert spectrum.condition_number([jnp.zeros(3)], 0.0, 3) == INF


def test_blocks_are_pytrees():
    block = Block(jnp.ones(2), jnp.eye(2))
    leaves, structure = jax.tree.flatten(block)
    assert len(leaves) == 2 and isinstance(structure.unflatten(leaves), Block)
