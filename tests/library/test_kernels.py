from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nteq.actions import on_images, on_lattices, orbit
from nteq.averages import orbit_average
from nteq.compat import stax
from nteq.groups import cyclic
from nteq.kernels import Kernels, empirical_ntk, from_stax, mlp_kernel

rng = np.random.default_rng(0)


def stax_mlp(depth, activation, W_std, b_std):
    layer = {"relu": stax.Relu, "erf": stax.Erf}[activation]
    dense = lambda: stax.Dense(1, W_std=W_std, b_std=b_std)
    return from_stax(stax.serial(*[part for _ in range(depth) for part in (dense(), layer())], dense())[2])


def mpmath_kernels(x1, x2, depth, activation, W_std, b_std):
    """The textbook recursion with 50 digits, one pair."""
    mpmath.mp.dps = 50
    w2, b2 = mpmath.mpf(W_std) ** 2, mpmath.mpf(b_std) ** 2

    def dot(a, b):
        return w2 * mpmath.fdot(map(mpmath.mpf, a), map(mpmath.mpf, b)) / len(a) + b2

    a, b, k = dot(x1, x1), dot(x2, x2), dot(x1, x2)
    ntk = k
    for _ in range(depth):
        if activation == "relu":
            c = min(max(k / mpmath.sqrt(a * b), -1), 1)
            angle = mpmath.acos(c)
            derivative = (mpmath.pi - angle) / (2 * mpmath.pi)
            k = w2 * mpmath.sqrt(a * b) * (mpmath.sin(angle) + (mpmath.pi - angle) * c) / (2 * mpmath.pi) + b2
            a, b = w2 * a / 2 + b2, w2 * b / 2 + b2
        else:
            root = mpmath.sqrt((1 + 2 * a) * (1 + 2 * b))
            derivative = 4 / mpmath.pi / mpmath.sqrt(root**2 - 4 * k**2)
            k = w2 * 2 / mpmath.pi * mpmath.asin(2 * k / root) + b2
            a, b = (w2 * 2 / mpmath.pi * mpmath.asin(2 * s / (1 + 2 * s)) + b2 for s in (a, b))
        ntk = k + w2 * derivative * ntk
    return float(k), float(ntk)


settings_of_mlps = pytest.mark.parametrize(
    ("activation", "depth", "W_std", "b_std"),
    [
        ("relu", 1, 1.0, 0.0),
        ("relu", 3, 2**0.5, 0.3),
        ("relu", 8, 1.4, 0.0),
        ("erf", 1, 1.3, 0.0),
        ("erf", 4, 1.5, 0.2),
    ],
)


@settings_of_mlps
def test_mlp_kernel_is_neural_tangents(activation, depth, W_std, b_std):
    x1, x2 = rng.normal(size=(6, 9)), rng.normal(size=(5, 9))
    ours, theirs = (make(depth, activation, W_std, b_std) for make in (mlp_kernel, stax_mlp))
    for a, b in zip(ours(x1, x2), theirs(x1, x2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    for a, b in zip(ours(x1, x1), theirs(x1, x1), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7)
        off = ~np.eye(len(x1), dtype=bool)
        np.testing.assert_allclose(np.asarray(a)[off], np.asarray(b)[off], rtol=1e-12)


@settings_of_mlps
def test_mlp_kernel_keeps_every_digit_where_arccos_loses_half(activation, depth, W_std, b_std):
    x = rng.normal(size=7)
    near = x + 1e-6 * rng.normal(size=7)
    lattice = np.sign(rng.normal(size=7))
    kernel = mlp_kernel(depth, activation, W_std, b_std)
    for a, b in [
        (x, x),
        (x, 3 * x),
        (x, near),
        (x, -x),
        (lattice, lattice),
        (lattice, -lattice),
        (x, lattice),
    ]:
        values = kernel(a[None], b[None])
        expected = mpmath_kernels(a, b, depth, activation, W_std, b_std)
        scale = np.sqrt(
            [p * q for p, q in zip(kernel(a[None], a[None]), kernel(b[None], b[None]), strict=True)]
        )
        error = np.abs(np.array([v[0, 0] for v in values]) - expected) / scale.ravel()
        assert error.max() < 1e-14, (error, a, b)


@given(st.integers(0, 2**31), st.sampled_from(["relu", "erf"]), st.integers(1, 4), st.floats(0, 1))
def test_gram_matrices_are_symmetric_and_positive_semidefinite(seed, activation, depth, b_std):
    x = np.random.default_rng(seed).normal(size=(8, 5))
    x = np.concatenate([x, x[:2], -x[:2]])  # repeated and opposite points
    for gram in mlp_kernel(depth, activation, 1.3, b_std)(x, x):
        np.testing.assert_allclose(gram, gram.T, rtol=1e-13)
        assert np.linalg.eigvalsh(gram).min() > -1e-12 * np.abs(gram).max()


@given(st.integers(0, 2**31), st.sampled_from(["relu", "erf"]))
def test_mlp_kernel_is_invariant_under_orthogonal_maps(seed, activation):
    draw = np.random.default_rng(seed)
    x, q = draw.normal(size=(4, 6)), np.linalg.qr(draw.normal(size=(6, 6)))[0]
    kernel = mlp_kernel(2, activation, 1.2, 0.1)
    np.testing.assert_allclose(kernel(x @ q, x @ q).ntk, kernel(x, x).ntk, rtol=1e-12, atol=1e-13)


def test_zero_input_is_finite_and_right():
    x = np.stack([np.zeros(4), np.ones(4)])
    kernel = mlp_kernel(2, "relu", 1.0, 0.5)
    for i in range(2):
        for j in range(2):
            np.testing.assert_allclose(
                [k[i, j] for k in kernel(x, x)], mpmath_kernels(x[i], x[j], 2, "relu", 1.0, 0.5), rtol=1e-13
            )
    assert np.isfinite(np.stack(mlp_kernel(2)(x, x))).all()


@pytest.mark.parametrize("copies", [0, 1, 2, 5])
def test_near_pairs_keep_every_digit_however_many_there_are(copies):
    x = rng.normal(size=(3, 6))
    tilts = [1e-9, 1e-7, 1e-4, 1e-2, 0.05][:copies]
    near = [x * (-1) ** i + t * rng.normal(size=x.shape) for i, t in enumerate(tilts)]
    other = np.concatenate([rng.normal(size=(2, 6)), *near])
    exact = np.array([[mpmath_kernels(a, b, 2, "relu", 1.5, 0.0) for b in other] for a in x])
    for ours, expected in zip(mlp_kernel(2, "relu", 1.5)(x, other), exact.transpose(2, 0, 1)):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_a_thousand_layers_take_no_longer_to_compile_than_one():
    x = rng.normal(size=(2, 8))
    ntk = mlp_kernel(1000, "relu", 2**0.5)(x, x).ntk
    np.testing.assert_allclose(np.diag(ntk), 1001 * 2 * (x**2).mean(1), rtol=1e-12)
    correlation = ntk[0, 1] / np.sqrt(ntk[0, 0] * ntk[1, 1])
    assert abs(correlation - 0.25) < 0.01  # all inputs become equally unlike: q = 1 - 3q


def test_float32_stays_float32_and_is_right_to_its_precision():
    x = rng.normal(size=(5, 6)).astype(np.float32)
    for single, double in zip(
        mlp_kernel(3)(x, x), mlp_kernel(3)(x.astype(float), x.astype(float)), strict=True
    ):
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, double, rtol=1e-5)


def network(params, x):
    h = jnp.tanh(x.reshape(len(x), -1) @ params["w"] + params["b"])
    return h @ params["v"]


@pytest.mark.parametrize("outputs", [(), (3,)])
@pytest.mark.parametrize("max_bytes", [2**28, 700, 1])
def test_empirical_ntk_is_the_sum_over_all_parameters_by_finite_differences(outputs, max_bytes):
    draw = np.random.default_rng(1)
    params = {"w": draw.normal(size=(4, 5)), "b": draw.normal(size=5), "v": draw.normal(size=(5, *outputs))}
    x1, x2 = draw.normal(size=(3, 2, 2)), draw.normal(size=(4, 2, 2))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    step = 1e-6

    def jacobian(x):
        f = lambda v: np.asarray(network(unravel(v), x))
        basis = np.eye(flat.size)
        return np.stack([(f(flat + step * e) - f(flat - step * e)) / (2 * step) for e in basis], -1)

    if outputs:
        expected = np.einsum("nap,mbp->nmab", jacobian(x1), jacobian(x2))
    else:
        expected = np.einsum("np,mp->nm", jacobian(x1), jacobian(x2))
    np.testing.assert_allclose(
        empirical_ntk(network, params, x1, x2, max_bytes), expected, rtol=1e-7, atol=1e-8
    )


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 4]))
def test_orbit_average_is_the_explicit_sum_and_invariant_in_each_argument(seed, order):
    draw = np.random.default_rng(seed)
    x1, x2 = draw.normal(size=(3, 4, 4)), draw.normal(size=(2, 4, 4))
    action, kernel = on_lattices(cyclic(order)), mlp_kernel(2, "relu", 1.4, 0.1)
    average = orbit_average(kernel, action)(x1, x2)
    for name in Kernels._fields:
        explicit = np.mean([getattr(kernel(x1, image), name) for image in orbit(action, x2)], axis=0)
        np.testing.assert_allclose(getattr(average, name), explicit, rtol=1e-13)
    for g in range(order):
        np.testing.assert_allclose(
            orbit_average(kernel, action)(action(g, x1), x2).ntk, average.ntk, rtol=1e-11
        )


def test_from_stax_takes_a_convolutional_network():
    cnn = from_stax(
        stax.serial(stax.Conv(1, (3, 3), padding="SAME"), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))[2]
    )
    x = rng.normal(size=(3, 5, 5, 2))
    rotate = on_images(cyclic(4))
    np.testing.assert_allclose(cnn(rotate(1, x), rotate(1, x)).ntk, cnn(x, x).ntk, rtol=1e-7)


good = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp_kernel(1, "tanh"), "unknown activation 'tanh'; known are 'relu' and 'erf'"),
        (lambda: mlp_kernel(0), "depth must be an integer of at least 1"),
        (lambda: mlp_kernel(1, W_std=0), "W_std must be positive"),
        (lambda: mlp_kernel(1, b_std=-1), "b_std must be finite and not negative"),
        (lambda: mlp_kernel(1)(np.ones(3), good), "x1 must be a batch"),
        (lambda: mlp_kernel(1)(good, np.ones((0, 3))), "x2 must be a batch"),
        (lambda: mlp_kernel(1)(good, np.ones((2, 4))), r"same features, got shapes \(2, 3\) and \(2, 4\)"),
        (lambda: mlp_kernel(1)(good.astype(int), good), "floating-point numbers, got dtype int64"),
        (lambda: mlp_kernel(1)(good * np.nan, good), "not finite"),
        (lambda: from_stax(stax.Dense(1)), "third of the three"),
        (
            lambda: from_stax(stax.Conv(1, (3,))[2])(good[:, :, None], good[:, :, None]),
            "End the network with Flatten or GlobalAvgPool",
        ),
        (lambda: empirical_ntk(lambda p, x: x[None], 1.0, good, good), "apply must return shape"),
        (lambda: empirical_ntk(partial(jnp.dot), 1.0, good, good, 0), "max_bytes must be positive"),
        (lambda: orbit_average(None, on_lattices(cyclic(4))), "kernel must be callable"),
        (lambda: orbit_average(mlp_kernel(1), cyclic(4)), "not the group alone"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
