import pickle
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nteq import _closed_forms, kernels
from nteq.actions import on_images
from nteq.compat import stax
from nteq.groups import cyclic
from nteq.kernels import Kernels, _as_kernels, empirical_ntk, from_stax, mlp_kernel

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def digits():
    with mpmath.workdps(80):  # of this module's oracles alone
        yield


def stax_mlp(depth, activation, W_std, b_std):
    layer = {"relu": stax.Relu, "erf": stax.Erf}[activation]
    dense = lambda: stax.Dense(1, W_std=W_std, b_std=b_std)
    return from_stax(stax.serial(*[part for _ in range(depth) for part in (dense(), layer())], dense())[2])


def mpmath_kernels(x1, x2, depth, activation, W_std, b_std):
    return tuple(map(float, exact_kernels(x1, x2, depth, activation, W_std, b_std)))


def exact_kernels(x1, x2, depth, activation, W_std, b_std):
    """The textbook recursion with 80 digits, one pair."""
    w2, b2 = mpmath.mpf(W_std) ** 2, mpmath.mpf(b_std) ** 2

    def dot(a, b):
        return w2 * mpmath.fdot(map(mpmath.mpf, a), map(mpmath.mpf, b)) / len(a) + b2

    a, b, k = dot(x1, x1), dot(x2, x2), dot(x1, x2)
    ntk = k
    for _ in range(depth):
        if activation == "relu":
            c = min(max(k / mpmath.sqrt(a * b), -1), 1) if a and b else mpmath.mpf(0)
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
    return k, ntk


settings_of_mlps = pytest.mark.parametrize(
    ("activation", "depth", "W_std", "b_std"),
    [
        ("relu", 3, 2**0.5, 0.3),
        ("erf", 4, 1.5, 0.2),
        pytest.param("relu", 1, 1.0, 0.0, marks=pytest.mark.slow),
        pytest.param("relu", 8, 1.4, 0.0, marks=pytest.mark.slow),
        pytest.param("erf", 1, 1.3, 0.0, marks=pytest.mark.slow),
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


@given(st.integers(0, 2**31), st.sampled_from(["relu", "erf"]), st.sampled_from([1, 4]), st.floats(0, 1))
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


def test_equal_arguments_make_equal_kernels():
    one, two = mlp_kernel(1, "erf", 1, 0), mlp_kernel(np.int64(1), "erf", jnp.float32(1.0), 0.0)
    assert one == two and hash(one) == hash(two)
    assert one != mlp_kernel(2, "erf") and one != mlp_kernel(1, "erf", 1.1) and one != mlp_kernel(1)
    assert pickle.loads(pickle.dumps(one)) == one
    assert jax.tree.leaves(one) == [1.0, 0.0]
    kernel_fn = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))[2]
    assert from_stax(kernel_fn) == from_stax(kernel_fn) and hash(from_stax(kernel_fn)) == hash(
        from_stax(kernel_fn)
    )
    assert from_stax(kernel_fn) != from_stax(stax.Dense(1)[2])
    assert jax.tree.leaves(from_stax(kernel_fn)) == []


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_a_kernel_with_other_deviations_compiles_nothing(compilations, activation):
    x = rng.normal(size=(5, 11))
    mlp_kernel(2, activation, 1.1, 0.1)(x, x)
    assert compilations(lambda: mlp_kernel(2, activation, 1.1, 0.1)(x, x)) == 0
    assert compilations(lambda: mlp_kernel(2, activation, 3, 0)(x, x)) == 0
    assert compilations(lambda: mlp_kernel(3, activation, 3, 0)(x, x)) > 0  # the count counts


def test_the_same_stax_function_compiles_once(compilations):
    x, kernel_fn = rng.normal(size=(5, 11)), stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))[2]
    assert compilations(lambda: from_stax(kernel_fn)(x, x)) > 0
    assert compilations(lambda: from_stax(kernel_fn)(x, x)) == 0


def test_the_empirical_kernel_of_the_same_function_compiles_once(compilations):
    params = {"w": jnp.ones((11, 2)), "b": jnp.ones(2), "v": jnp.ones(2)}
    x = rng.normal(size=(5, 11))
    assert compilations(lambda: empirical_ntk(network, params, x, x)) > 0
    assert compilations(lambda: empirical_ntk(network, params, 2 * x, x)) == 0


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_kernels_go_through_jit_vmap_and_known_batches_in_a_trace(activation):
    x = rng.normal(size=(3, 4))
    kernel = partial(mlp_kernel, 2, activation)
    expected = kernel(1.2, 0.3)(x, x).ntk
    np.testing.assert_allclose(jax.jit(lambda k, x: k(x, x).ntk)(kernel(1.2, 0.3), x), expected, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(lambda c: c * kernel(1.2, 0.3)(x, x).ntk)(2.0), 2 * expected)
    many = jax.vmap(lambda w: kernel(w, 0.3)(x, x).ntk)(jnp.array([0.9, 1.2]))
    np.testing.assert_allclose(many[1], expected, rtol=1e-13)
    with pytest.raises(ValueError, match="not finite"):
        jax.jit(lambda c: c * kernel()(x * np.inf, x).ntk)(2.0)


# Pairs of every kind: unlike, at right angles, nearly parallel, and (from `coincident` on) on the tip of a
# cone, where the derivative is the symmetric one.
base = np.array([[1.0, -0.5, 2.0, 0.25]])
pairs = {
    "unlike": (base, np.array([[0.3, 1.0, 0.7, -1.1]])),
    "at right angles": (base, np.array([[0.5, 1.0, 0.0, 0.0]])),
    "near 1e-3": (base, base + 1e-3 * np.array([[1.0, 2.0, -1.0, 0.5]])),
    "near 1e-6": (base, base + 1e-6 * np.array([[1.0, 2.0, -1.0, 0.5]])),
    "near 1e-9": (base, base + 1e-9 * np.array([[1.0, 2.0, -1.0, 0.5]])),
    "nearly opposite": (base, -2 * base + 1e-6 * np.array([[1.0, 2.0, -1.0, 0.5]])),
    "coincident": (base, base),
    "parallel": (base, 3 * base),
    "opposite": (base, -base),
    "zero": (base, 0 * base),
}
jacobians = jax.jit(lambda kernel, x1, x2: jax.jacobian(lambda *x: jnp.stack(kernel(*x)), (0, 1))(x1, x2))


@settings_of_mlps
def test_gradients_are_symmetric_differences_for_pairs_of_every_kind(activation, depth, W_std, b_std):
    kernel = mlp_kernel(depth, activation, W_std, b_std)
    exact = partial(exact_kernels, depth=depth, activation=activation, W_std=W_std, b_std=b_std)
    step = mpmath.mpf(10) ** -25
    for kind, (x1, x2) in pairs.items():
        if kind == "zero" and activation == "relu" and depth > 1 and b_std == 0:
            continue  # the symmetric difference is not linear in the direction there
        ours = np.stack([j.reshape(2, 4) for j in jacobians(kernel, x1, x2)])
        expected = np.zeros((2, 2, 4))
        for side in range(2):
            for i in range(4):
                moved = [[list(map(mpmath.mpf, x[0])) for x in (x1, x2)] for _ in range(2)]
                moved[0][side][i] += step
                moved[1][side][i] -= step
                for k, (up, down) in enumerate(zip(*(exact(*m) for m in moved), strict=True)):
                    expected[side, k, i] = (up - down) / (2 * step)
        scale = max(np.abs(expected).max(), 0.1)
        # the direction of a difference of 1e-9 has seven digits left
        tolerance = {"near 1e-9": 1e-6, "near 1e-6": 1e-9, "nearly opposite": 1e-9}.get(kind, 1e-11)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * scale, err_msg=kind)


def test_inputs_that_are_parallel_to_rounding_have_the_symmetric_derivative():
    x, kernel = rng.normal(size=(1, 4)), mlp_kernel(1)
    for c in (1 / 3, 0.7, -1 / 3, 1e5 / 3):  # k(x, c x) = |c| k(x, ± x)
        ours, exact = jacobians(kernel, x, c * x)[0], jacobians(kernel, x, np.sign(c) * x)[0]
        np.testing.assert_allclose(ours, np.abs(c) * exact, rtol=1e-12, atol=1e-12 * np.abs(c))


def test_the_gradient_of_a_gram_diagonal_is_that_of_a_square():
    z = rng.normal(size=(3, 4))
    gradient = jax.grad(lambda z: jnp.trace(mlp_kernel(2)(z, z).ntk))(z)
    np.testing.assert_allclose(gradient, 3 / 8 * z, rtol=1e-14)


everything = np.concatenate([base, *(x2 for _, x2 in pairs.values()), np.eye(4)[:1]])
weights = rng.normal(size=(2, len(everything), len(everything)))


def weighted(kernel, x1, x2):
    return sum((w * k).sum() for w, k in zip(weights, kernel(x1, x2), strict=True))


gradients = jax.jit(jax.grad(weighted, (0, 1, 2)))


@pytest.mark.parametrize(
    ("activation", "b_std"),
    [
        ("relu", 0.0),
        ("erf", 0.3),
        pytest.param("relu", 0.3, marks=pytest.mark.slow),
        pytest.param("erf", 0.0, marks=pytest.mark.slow),
    ],
)
def test_one_pair_never_spoils_the_gradient_of_another(activation, b_std):
    kernel = mlp_kernel(2, activation, 1.4, b_std)
    whole = gradients(kernel, everything, everything)[1:]
    expected = np.zeros((2, *everything.shape))
    for i, x1 in enumerate(everything):
        for j, x2 in enumerate(everything):
            one = jacobians(kernel, x1[None], x2[None])
            expected[0, i] += np.einsum("k,kd->d", weights[:, i, j], one[0].reshape(2, -1))
            expected[1, j] += np.einsum("k,kd->d", weights[:, i, j], one[1].reshape(2, -1))
    np.testing.assert_allclose(whole, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(expected).max(axis=2).min() > 1e-3


def test_zero_inputs_have_the_mean_gradient_of_opposite_sides():
    kernel, x, across = mlp_kernel(3), base, np.array([[0.5, 1.0, 0.0, 0.0]])
    beside = [jacobians(kernel, x, sign * 1e-200 * across)[1] for sign in (1, -1)]
    np.testing.assert_allclose(jacobians(kernel, x, 0 * x)[1], np.mean(beside, 0), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_the_derivative_at_a_training_point_is_that_of_neural_tangents(activation):
    x = rng.normal(size=(3, 4))
    ours, theirs = (
        jax.jacobian(lambda z, make=make: make(2, activation, 1.3, 0.2)(z, x).ntk)(x)
        for make in (mlp_kernel, stax_mlp)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("b_std", [0.0, 0.3])
def test_gradients_in_the_deviations_are_central_differences(activation, b_std):
    def total(deviations):
        return weighted(mlp_kernel(2, activation, *deviations), everything, everything)

    kernel = gradients(mlp_kernel(2, activation, 1.4, b_std), everything, everything)[0]
    step = 1e-5
    for name, i in (("W_std", 0), ("b_std", 1)):
        ends = [[1.4, b_std], [1.4, b_std]]
        ends[0][i] += step
        ends[1][i] = abs(ends[1][i] - step)  # even in b_std
        # a bias turns equal directions into near ones, linearly on both sides of 0: a tip once more
        difference = (total(ends[0]) - total(ends[1])) / (2 * step)
        np.testing.assert_allclose(getattr(kernel, name), difference, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_second_derivatives_are_finite_and_right_where_they_exist():
    z = np.concatenate([base, 3 * base, np.eye(4)])
    hessian = jax.hessian(lambda z: jnp.trace(mlp_kernel(2)(z, z).nngp))(z)
    np.testing.assert_allclose(hessian.reshape(z.size, z.size), np.eye(z.size) / 8, atol=1e-13)
    assert np.isfinite(jax.hessian(lambda z: mlp_kernel(2)(z, z).ntk.sum())(z)).all()


def test_gradients_pass_where_nan_is_an_error():
    with jax.debug_nans(True):
        for activation in ("relu", "erf"):
            assert np.isfinite(gradients(mlp_kernel(2, activation), everything, everything)[1]).all()


def erf_diagonal(a):
    return 2 / np.pi * np.arcsin(2 * a / (1 + 2 * a)) + 4 * a / (np.pi * np.sqrt(1 + 4 * a))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [1.0, 255.0, 1e4, 1e6])
def test_erf_keeps_its_digits_on_inputs_of_every_magnitude(magnitude, dtype):
    pixels = np.random.default_rng(3).uniform(size=784)
    pixels *= 2.0 ** np.round(np.log2(magnitude)) / pixels.max()  # those nearby have other exponents
    draw = np.random.default_rng(4).normal(size=784)
    near = [pixels * (1 - tilt * np.abs(draw)) for tilt in (1e-2, 1e-3, 1e-4, 1e-6)]
    x = np.stack([pixels, *near, -near[0], 2 * pixels, magnitude * draw, 0 * pixels]).astype(dtype)
    for depth, deviations in ((1, (1.0, 0.0)), (2, (1.5, 0.3))):
        kernel = mlp_kernel(depth, "erf", *deviations)
        for rows in (slice(0, 2), slice(None)):  # of which two and more are near
            ours = np.stack(kernel(x[:1], x[rows]))[:, 0]
            first, *others = x[:1].astype(float).tolist() + x[rows].astype(float).tolist()
            exact = np.array([mpmath_kernels(first, other, depth, "erf", *deviations) for other in others]).T
            np.testing.assert_allclose(ours, exact, rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_erf_on_raw_pixels_in_float32():
    pixels = np.random.default_rng(3).integers(0, 256, size=(3, 784)).astype(np.float32)
    diagonal = np.diag(mlp_kernel(1, "erf")(pixels, pixels).ntk)
    np.testing.assert_allclose(diagonal, erf_diagonal((pixels.astype(float) ** 2).mean(1)), rtol=1e-6)


def test_deep_erf_networks_with_large_weights_keep_their_diagonal():
    x = rng.normal(size=(3, 6))
    for dtype in (np.float32, np.float64):
        nngp, ntk = mlp_kernel(20, "erf", 15.0)(x.astype(dtype), x.astype(dtype))
        rows = x.astype(dtype).astype(float)
        expected = np.array([mpmath_kernels(row, row, 20, "erf", 15.0, 0.0) for row in rows])
        np.testing.assert_allclose(np.diag(nngp), expected[:, 0], rtol=1e-5)
        np.testing.assert_allclose(np.diag(ntk), expected[:, 1], rtol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("deviations", [(1.0, 0.0), (1.4, 0.3)])
def test_no_magnitude_gives_nan(activation, deviations):
    x = (
        np.random.default_rng(5).normal(size=(5, 3, 6))
        * np.array([1e-30, 1e-20, 1, 1e20, 1e30])[:, None, None]
    )
    x = np.concatenate([x, -x[:, :1], 2 * x[:, :1], 0 * x[:, :1]], axis=1).reshape(-1, 6).astype(np.float32)
    kernel, info = mlp_kernel(2, activation, *deviations), np.finfo(np.float32)
    for ours, exact in zip(kernel(x, x), kernel(x.astype(float), x.astype(float)), strict=True):
        ours, exact = np.asarray(ours), np.asarray(exact)
        too_large, too_small = np.abs(exact) > info.max, np.abs(exact) < 10 * info.tiny
        assert np.isinf(ours[too_large]).all() and too_large.any() == (activation == "relu")
        assert (np.abs(ours[too_small]) < 100 * info.tiny).all()
        rest = ~too_large & ~too_small
        np.testing.assert_allclose(ours[rest], exact[rest], rtol=1e-4)


def test_from_stax_refuses_values_whose_products_overflow_or_underflow():
    x = rng.normal(size=(3, 6)).astype(np.float32)
    for kernel, inputs in (
        (stax_mlp(15, "relu", 15.0, 0.0), x),
        (stax_mlp(10, "relu", 15.0, 0.0), x),  # finite, and 4 % off
        (stax_mlp(1, "relu", 1.0, 0.0), 1e-10 * x),
        (stax_mlp(1, "relu", 1.0, 0.0), 1e20 * x),
    ):
        # with float64 switched on neural-tangents takes it for all that it computes
        with (
            jax.enable_x64(False),
            pytest.raises(ValueError, match=r"from_stax: .*float32 cannot hold these"),
        ):
            kernel(inputs, inputs)
        assert np.isfinite(kernel(inputs.astype(float), inputs.astype(float)).ntk).all()


def test_integers_and_half_precision_are_promoted():
    x = np.random.default_rng(1).integers(0, 5, size=(3, 4))
    for kernel in (mlp_kernel(1), stax_mlp(1, "erf", 1.0, 0.0)):
        np.testing.assert_array_equal(kernel(x, x).ntk, kernel(x.astype(float), x.astype(float)).ntk)
        half = kernel(x.astype(np.float16), x.astype(np.float16)).ntk
        np.testing.assert_array_equal(half, kernel(x.astype(np.float32), x.astype(np.float32)).ntk)
    assert mlp_kernel(1)(x.astype(np.float32), x.astype(float)).ntk.dtype == np.float64
    params = {"w": np.ones((4, 2), int), "b": np.ones(2), "v": np.ones(2)}
    floats = jax.tree.map(lambda leaf: leaf.astype(float), params)
    np.testing.assert_array_equal(
        empirical_ntk(network, params, x, x), empirical_ntk(network, floats, x.astype(float), x)
    )


@pytest.mark.slow
def test_strict_promotion_of_types_and_ranks_is_enough():
    x = rng.normal(size=(3, 4)).astype(np.float32)
    params = {k: np.ones(s, np.float32) for k, s in (("w", (4, 2)), ("b", ()), ("v", (2,)))}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for activation in ("relu", "erf"):
            kernel = mlp_kernel(2, activation, 1.2, 0.1)
            values = jax.value_and_grad(lambda x, k=kernel: k(x, x).ntk.sum())(x)
            assert all(np.isfinite(v).all() for v in values)
        assert empirical_ntk(network, params, x, x).shape == (3, 3)


@pytest.fixture
def small_blocks(monkeypatch):
    """Sets how many entries of a kernel are computed in one go, in what was compiled, too."""

    def forget():
        for function in (kernels._mlp_values, gradients):
            function.clear_cache()

    def use(entries):
        monkeypatch.setattr(_closed_forms, "_ENTRIES", entries)
        forget()

    yield use
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize(
    ("n1", "n2", "entries"),
    [
        (7, 3, 6),
        (6, 3, 9),
        *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((7, 3, 1), (7, 2, 10), (2, 7, 21))),
    ],
)
def test_blocks_of_rows_are_the_rows(activation, n1, n2, entries, small_blocks):
    """Blocks of 2, 3, 1, 5 and 2 (all) rows: that divide the batch and that do not."""
    x1, x2 = everything[:n1], everything[2 : 2 + n2]
    kernel = mlp_kernel(2, activation, 1.4, 0.2)
    small_blocks(entries)
    exact = [[mpmath_kernels(a, b, 2, activation, 1.4, 0.2) for b in x2] for a in x1]
    for ours, expected in zip(kernel(x1, x2), np.moveaxis(exact, 2, 0), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
def test_gradients_of_blocks_are_those_of_the_whole(small_blocks):
    kernel = mlp_kernel(2, "relu", 1.4, 0.2)
    whole = gradients(kernel, everything, everything)
    small_blocks(5 * len(everything))
    for ours, expected in zip(
        jax.tree.leaves(gradients(kernel, everything, everything)), jax.tree.leaves(whole)
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-10)


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


@pytest.mark.parametrize(("n1", "n2"), [(5, 5), (4, 7), (1, 3)])
def test_empirical_ntk_is_the_same_in_blocks_of_any_size(n1, n2):
    draw = np.random.default_rng(2)
    params = {"w": draw.normal(size=(3, 2)), "b": draw.normal(size=2), "v": draw.normal(size=(2, 2))}
    x1, x2 = draw.normal(size=(n1, 3)), draw.normal(size=(n2, 3))
    one_example = 2 * 8 * 12  # bytes of its Jacobian
    whole = empirical_ntk(network, params, x1, x2)
    for block in (2, 3):
        blocks = empirical_ntk(network, params, x1, x2, block * one_example)
        np.testing.assert_allclose(blocks, whole, rtol=1e-13)


def test_a_callable_without_a_hash_has_an_empirical_kernel_that_is_never_stale():
    class Scaled:
        __hash__ = None
        scale = 1.0

        def __call__(self, params, x):
            return self.scale * network(params, x)

    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(2), "v": jnp.ones(2)}
    apply, x = Scaled(), rng.normal(size=(2, 3))
    before = empirical_ntk(apply, params, x, x)
    apply.scale = 2.0
    np.testing.assert_allclose(empirical_ntk(apply, params, x, x), 4 * before, rtol=1e-13)


def test_from_stax_takes_a_convolutional_network():
    cnn = from_stax(
        stax.serial(stax.Conv(1, (3, 3), padding="SAME"), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))[2]
    )
    x = rng.normal(size=(3, 5, 5, 2))
    rotate = on_images(cyclic(4))
    np.testing.assert_allclose(cnn(rotate(1, x), rotate(1, x)).ntk, cnn(x, x).ntk, rtol=1e-7)


good, small = np.ones((2, 3)), np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp_kernel(1, "tanh"), "activation must be 'relu' or 'erf', got 'tanh'"),
        (lambda: mlp_kernel(0), "depth must be an integer of at least 1"),
        (lambda: mlp_kernel(1, W_std=0), "W_std must be positive"),
        (lambda: mlp_kernel(1, b_std=-1), "b_std must be not negative and finite"),
        (lambda: mlp_kernel(1)(np.ones(3), good), "x1 must be a batch"),
        (lambda: mlp_kernel(1)(good, np.ones((0, 3))), "x2 must be a batch"),
        (lambda: mlp_kernel(1)(good, np.ones((2, 4))), r"same features, got shapes \(2, 3\) and \(2, 4\)"),
        (
            lambda: mlp_kernel(1)(good.astype(complex), good),
            "x1 must hold real numbers, got dtype c",
        ),
        (lambda: mlp_kernel(1, W_std=1e200)(good, good), "W_std = 1e.200 has a square that float64 cannot"),
        (lambda: mlp_kernel(1, b_std=1e25)(small, small), "b_std = 1e.25 has a square that float32 cannot"),
        (lambda: mlp_kernel(1, W_std=1e-25)(small, small), "W_std = 1e-25 has a square that float32 cannot"),
        (lambda: mlp_kernel(1, W_std=np.ones(2)), r"a single number, got shape \(2,\)"),
        (lambda: from_stax(stax.Dense(1)[2])(np.ones((0, 3)), good), "x1 must be a batch"),
        (lambda: empirical_ntk(network, {}, good, np.ones((0, 3))), "x2 must be a batch"),
        (lambda: _as_kernels("who", (good, good), (2, 3)), r"who: the kernel must return .*, got a tuple"),
        (
            lambda: _as_kernels("who", Kernels(good, good.T), (2, 3)),
            r"ntk has shape \(3, 2\)",
        ),
        (lambda: mlp_kernel(1)(good * np.nan, good), "not finite"),
        (lambda: from_stax(stax.Dense(1)), "third of the three"),
        (
            lambda: from_stax(stax.Conv(1, (3,))[2])(good[:, :, None], good[:, :, None]),
            "end it with Flatten or GlobalAvgPool",
        ),
        (lambda: empirical_ntk(lambda p, x: x[None], 1.0, good, good), "apply must return shape"),
        (lambda: empirical_ntk(partial(jnp.dot), 1.0, good, good, 0), "max_bytes must be positive"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
