import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from nteq import _checks, gradient_flow
from nteq.actions import on_lattices, orbit
from nteq.averages import orbit_average
from nteq.compat import neural_tangents as nt
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic
from nteq.ising import energy
from nteq.kernels import Kernels, mlp_kernel

TIMES = np.array([0, 1e-3, 1, 1e3, np.inf])
kernel = mlp_kernel(2, "relu", 1.5, 0.1)


def problem(seed, n=6, outputs=None):
    draw = np.random.default_rng(seed)
    shape = (n,) if outputs is None else (n, outputs)
    return draw.normal(size=(n, 3, 3)), draw.normal(size=shape), draw.normal(size=(4, 3, 3))


@pytest.mark.parametrize("learning_rate", [1.0, 0.3])
def test_mean_solves_the_flow_integrated_step_by_step(learning_rate):
    x, y, x_test = problem(0)
    everything = jnp.concatenate([x, x_test])
    gram = np.asarray(kernel(everything, x).ntk)

    def flow(_, f):
        return -learning_rate / len(x) * gram @ (f[: len(x)] - y)

    times = [0.1, 1.0, 20.0]
    solution = solve_ivp(
        flow, (0, 20), np.zeros(len(everything)), t_eval=times, rtol=1e-11, atol=1e-13, method="LSODA"
    )
    ours = GradientFlow(kernel, x, y, learning_rate).mean(everything, times)
    np.testing.assert_allclose(ours, solution.y.T, rtol=1e-7, atol=1e-9)


def test_mean_is_neural_tangents_with_its_other_unit_of_time():
    x, y, x_test = problem(1, outputs=2)
    predict = nt.predict.gradient_descent_mse(kernel(x, x).ntk, jnp.asarray(y))
    flow = GradientFlow(kernel, x, y)
    for t in (0.5, 50.0):
        _, expected = predict(t * y.size / len(x), 0.0, jnp.zeros((4, 2)), kernel(x_test, x).ntk)
        np.testing.assert_allclose(flow.mean(x_test, t), expected, rtol=1e-9)


def test_at_zero_and_infinity():
    x, y, x_test = problem(2)
    flow = GradientFlow(kernel, x, y)
    np.testing.assert_array_equal(flow.mean(x_test, 0), 0)
    np.testing.assert_allclose(flow.mean(x, np.inf), y, rtol=1e-10)
    expected = kernel(x_test, x).ntk @ np.linalg.solve(kernel(x, x).ntk, y)
    np.testing.assert_allclose(flow.mean(x_test, np.inf), expected, rtol=1e-10)


def test_times_make_leading_axes():
    x, y, x_test = problem(3, outputs=2)
    flow = GradientFlow(kernel, x, y)
    times = np.array([[0.0, 1.0, 2.0]])
    means = flow.mean(x_test, times)
    assert means.shape == (1, 3, 4, 2)
    np.testing.assert_allclose(means[0, 1], flow.mean(x_test, 1.0), rtol=1e-13)
    assert flow.mean(x_test, []).shape == (0, 4, 2) and flow.covariance(x_test, []).shape == (0, 4, 4)
    assert flow.variance(x_test, []).shape == (0, 4)


@given(st.integers(0, 2**31))
def test_a_repeated_point_weighs_twice_and_gives_no_nan(seed):
    # repeating point 0 is the flow with weights 2, 1, 1, …: integrate that instead
    x, y, x_test = problem(seed, n=4)
    twice = GradientFlow(kernel, np.concatenate([x, x[:1]]), np.append(y, y[0]))
    weights = np.array([2.0, 1, 1, 1]) / 5
    root = np.sqrt(weights)
    lam, v = np.linalg.eigh(root[:, None] * kernel(x, x).ntk * root)
    for t in TIMES:
        phi = -np.expm1(-lam * t) / lam
        expected = kernel(x_test, x).ntk @ (root * (v @ (phi * (v.T @ (root * y)))))
        np.testing.assert_allclose(twice.mean(x_test, t), expected, rtol=1e-9, atol=1e-11)


def test_contradictory_labels_of_a_repeated_point_are_averaged_at_infinity():
    x, _, _ = problem(4, n=1)
    flow = GradientFlow(kernel, np.concatenate([x, x]), [1.0, 3.0])
    np.testing.assert_allclose(flow.mean(x, np.inf), [2.0], rtol=1e-12)


@pytest.mark.parametrize("t", TIMES)
def test_a_lattice_equal_to_its_own_rotation_gives_the_right_finite_answer(t):
    spins = np.ones((3, 4, 4))
    spins[1, ::2, ::2] = -1
    spins[1, 1::2, 1::2] = -1  # equal to its half turn; the first to all of its images
    spins[2, 0, :2] = -1
    action, far = on_lattices(cyclic(4)), np.random.default_rng(0).normal(size=(5, 4, 4))
    images = orbit(action, spins).reshape(-1, 4, 4)
    flow = GradientFlow(kernel, images, jnp.tile(energy(spins), 4))
    means = jnp.stack([flow.mean(image, t) for image in orbit(action, far)])
    np.testing.assert_allclose(means, jnp.broadcast_to(means[0], means.shape), rtol=1e-10, atol=1e-12)
    averaged = GradientFlow(orbit_average(kernel, action), spins, energy(spins)).mean(far, t)
    np.testing.assert_allclose(means[0], averaged, rtol=1e-10, atol=1e-12)


def test_without_augmentation_the_mean_is_not_invariant():
    x, y, x_test = problem(5)
    action, flow = on_lattices(cyclic(4)), GradientFlow(kernel, x, y)
    assert jnp.abs(flow.mean(action(1, x_test), 1.0) - flow.mean(x_test, 1.0)).max() > 1e-2


def test_float32_agrees_with_float64_to_its_precision():
    x, y, x_test = (a.astype(np.float32) for a in problem(6))
    single = GradientFlow(kernel, x, y).mean(x_test, TIMES[:4])
    assert single.dtype == jnp.float32
    double = GradientFlow(kernel, x.astype(float), y.astype(float)).mean(x_test.astype(float), TIMES[:4])
    np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contradictory_labels_of_repeated_points_do_not_amplify_rounding_at_late_times(dtype):
    # with ε in place of √ε in the threshold, τ times rounding reaches 1 before the null mode is left out
    x, y, x_test = (a.astype(dtype) for a in problem(4))
    twice = GradientFlow(kernel, np.concatenate([x, x]), np.concatenate([y - 1, y + 1]))
    once = GradientFlow(kernel, x, y)
    late = np.array([1e9, 1e11, 1e13, 1e15, np.inf]) if dtype == np.float64 else np.array([1e5, 1e7, np.inf])
    found = twice.mean(x_test, late)
    slack = 1e-6 if dtype == np.float64 else 5e-2
    np.testing.assert_allclose(found, jnp.broadcast_to(once.mean(x_test, np.inf), found.shape), atol=slack)


@pytest.mark.parametrize("t", [0.5, 50.0, np.inf])
def test_ridge_is_the_absolute_diag_reg_of_neural_tangents(t):
    x, y, x_test = problem(1, outputs=2)
    gram, row = kernel(x, x).ntk, kernel(x_test, x).ntk
    options = {"diag_reg": 0.3, "diag_reg_absolute_scale": True}
    predict = nt.predict.gradient_descent_mse(gram, jnp.asarray(y), **options)
    at = None if t == np.inf else t * y.size / len(x)
    _, expected = predict(at, 0.0, jnp.zeros((4, 2)), row)
    flow = GradientFlow(kernel, x, y, ridge=0.3)
    np.testing.assert_allclose(flow.mean(x_test, t), expected, rtol=1e-9)
    a = GradientFlow(kernel, x, np.eye(6), ridge=0.3).mean(x_test, t)
    cross = a @ kernel(x, x_test).nngp
    expected = kernel(x_test, x_test).nngp + a @ kernel(x, x).nngp @ a.T - cross - cross.T
    np.testing.assert_allclose(flow.covariance(x_test, t), expected, rtol=0, atol=1e-12)


def test_ridge_is_weight_decay_towards_the_initialisation():
    # f(x) = θ·ψ(x): θ' = −η/N [Σᵢ (f(xᵢ) − yᵢ) ψ(xᵢ) + r (θ − θ₀)] with θ₀ = 0
    draw = np.random.default_rng(8)
    psi, y, far = draw.normal(size=(5, 4)), draw.normal(size=5), draw.normal(size=(3, 4))
    step = lambda _, theta: -(psi.T @ (psi @ theta - y) + 0.4 * theta) / 5
    theta = solve_ivp(step, (0, 2), np.zeros(4), rtol=1e-11, atol=1e-13).y[:, -1]
    linear = lambda a, b: Kernels(0 * a @ b.T, a @ b.T)
    found = GradientFlow(linear, psi, y, ridge=0.4).mean(far, 2.0)
    np.testing.assert_allclose(found, far @ theta, rtol=1e-8)


def test_variance_is_the_diagonal_of_the_covariance():
    x, y, x_test = problem(2)
    flow = GradientFlow(kernel, x, y, ridge=0.1)
    expected = np.diagonal(flow.covariance(x_test, TIMES), axis1=1, axis2=2)
    np.testing.assert_allclose(flow.variance(x_test, TIMES), expected, atol=1e-12)
    np.testing.assert_allclose(expected[0], np.diagonal(kernel(x_test, x_test).nngp), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_variance_is_negative_where_the_ensemble_was_trained(dtype):
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(dtype)
    flow = GradientFlow(mlp_kernel(1, "relu", 2**0.5), x, np.cos(3 * angles).astype(dtype))
    for variance in (flow.variance(x, np.inf), jnp.diagonal(flow.covariance(x, np.inf))):
        assert (variance >= 0).all() and variance.max() < 100 * np.finfo(dtype).eps


def test_samples_at_several_times_are_those_at_each_of_them():
    x, y, x_test = problem(3, outputs=2)
    flow, key = GradientFlow(kernel, x, y), jax.random.key(0)
    found = flow.sample(key, x_test, np.array([[0.0, 1.0]]), 5)
    assert found.shape == (1, 2, 5, 4, 2)
    np.testing.assert_allclose(found[0, 1], flow.sample(key, x_test, 1.0, 5), atol=1e-12)


def test_the_spectrum_needs_no_nngp_and_no_further_kernel_values():
    calls = []

    def counted(a, b):
        calls.append(len(a))
        return kernel(a, b)

    x, y, _ = problem(4)
    flow = GradientFlow(counted, x, y)
    before = len(calls)
    lam = np.linalg.eigvalsh(kernel(x, x).ntk)
    assert flow.condition_number == pytest.approx(lam[-1] / lam[0], rel=1e-9)
    assert 1 < flow.effective_rank < 6 and len(calls) == before
    ridged = GradientFlow(kernel, x, y, ridge=2.0)
    assert ridged.condition_number == pytest.approx((lam[-1] + 2) / (lam[0] + 2), rel=1e-9)


def test_inputs_that_are_all_zero_have_no_rank_and_learn_nothing():
    flow = GradientFlow(mlp_kernel(1), np.zeros((3, 2)), np.ones(3))
    assert flow.effective_rank == 0.0 and flow.condition_number == np.inf
    np.testing.assert_array_equal(flow.mean(np.ones((2, 2)), np.array([1.0, np.inf])), 0)


def noisy(size):
    """The kernel with an error of this relative size that is not symmetric."""
    error = np.triu(np.ones((6, 6)), 1) * size

    def with_error(a, b):
        nngp, ntk = kernel(a, b)
        return Kernels(nngp, ntk + error * jnp.abs(ntk).max() if len(a) == len(b) == 6 else ntk)

    return with_error


def test_a_gram_matrix_that_is_not_symmetric_is_refused_and_rounding_is_not():
    x, y, x_test = problem(5)
    for size in (0.4, 1e-2, 1e-5):
        with pytest.raises(ValueError, match="of the ntk is not symmetric"):
            GradientFlow(noisy(size), x, y)
    expected = GradientFlow(kernel, x, y).mean(x_test, 1.0)
    np.testing.assert_allclose(GradientFlow(noisy(1e-8), x, y).mean(x_test, 1.0), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.int8, bool])
def test_other_numbers_are_computed_in_floats(dtype):
    x = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]]).astype(dtype)
    y = np.array([1, 0, 1]).astype(dtype)
    flow = GradientFlow(kernel, x, y)
    wide = float if dtype in (np.int8, bool) else np.float32
    expected = GradientFlow(kernel, x.astype(wide), y.astype(wide))
    found = flow.mean(x, 1.0), flow.variance(x, 1.0)
    assert all(v.dtype == wide for v in found)
    np.testing.assert_array_equal(found[0], expected.mean(x.astype(wide), 1.0))
    np.testing.assert_array_equal(found[1], expected.variance(x.astype(wide), 1.0))


def test_labels_of_more_than_32_bits_are_what_they_are_without_x64():
    x = np.eye(3, dtype=np.float32)
    with jax.enable_x64(False):
        flow = GradientFlow(mlp_kernel(1), x, np.array([1, 2, 3_000_000_000]))
        np.testing.assert_allclose(flow.mean(x, np.inf), [1, 2, 3e9], atol=2e3)
    with pytest.raises(ValueError, match="y has entries that float32"):
        GradientFlow(mlp_kernel(1), x, np.array([1, 2, 1e300]))


def smooth(a, b):
    """A kernel that is as strict as its inputs."""
    k = 0.5 + a.reshape(len(a), -1) @ b.reshape(len(b), -1).T / 9
    return Kernels(k, k + k * k)


@pytest.mark.slow
@pytest.mark.parametrize("x64", [True, False])
def test_with_the_strictest_settings(x64):
    x, y, x_test = problem(6, outputs=2)
    action = on_lattices(cyclic(4))
    strict = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise")
    with jax.enable_x64(x64), strict[0], strict[1], jax.debug_nans(True):
        wide = np.float64 if x64 else np.float32
        x, y, x_test = (a.astype(wide) for a in (x, y, x_test))
        flow = GradientFlow.augmented(smooth, x, y, action, ridge=0.1, check=False)
        for f in (flow, GradientFlow(smooth, x, y)):
            answers = f.mean(x_test, TIMES), f.covariance(x_test, TIMES), f.variance(x_test, TIMES)
            assert all(answer.dtype == wide for answer in answers)
            f.sample(jax.random.key(0), x_test, 1.0, 2)
            assert f.condition_number > f.effective_rank > 1
            f.mean(np.ones((2, 3, 3), int), 1)
            jax.grad(lambda z: f.mean(z, 1.0).sum() + f.variance(z, np.inf).sum())(x_test)
        flow.orbit_variance(x_test, TIMES)
        slope = jax.grad(lambda x: GradientFlow(smooth, x, y).mean(x_test, jnp.array(TIMES, wide)).sum())
        assert slope(jnp.concatenate([x[:5], x[:1]])).dtype == wide


class Device:
    """A stand-in for a device with memory of its own."""

    def __init__(self, platform, stats):
        self.platform, self.memory_stats = platform, lambda: stats


def test_memory_is_that_of_the_device_that_computes(monkeypatch):
    assert _checks.memory_of(Device("gpu", {"bytes_limit": 1e9})) == 1e9
    assert _checks.memory_of(Device("gpu", None)) is None  # it does not say
    assert 1e8 < _checks.memory_of(jax.devices("cpu")[0]) < 1e14
    monkeypatch.setattr(gradient_flow, "_device_of", lambda x: Device("gpu", {"bytes_limit": 1000}))
    with pytest.raises(MemoryError, match="6 points"):
        GradientFlow(kernel, X, Y)


@pytest.mark.slow
def test_kernel_values_computed_in_rows_and_not_kept_are_the_same(monkeypatch):
    x, y, x_test = problem(9, n=7)
    whole = GradientFlow(kernel, x, y)
    expected = whole.mean(x_test, TIMES), whole.covariance(x_test, TIMES)
    monkeypatch.setattr(gradient_flow, "_ROWS", 8 * 7 * 3)  # 3 rows, 3 rows, 1 row
    monkeypatch.setattr(gradient_flow, "_KEPT", 0)
    monkeypatch.setattr(gradient_flow, "_SQUARE", 3)
    flow = GradientFlow(kernel, x, y)
    assert not vars(flow)["_kept"]
    np.testing.assert_allclose(flow.mean(x_test, TIMES), expected[0], atol=1e-12)
    np.testing.assert_allclose(flow.covariance(x_test, TIMES), expected[1], atol=1e-12)
    diagonal = np.diagonal(expected[1], axis1=1, axis2=2)
    np.testing.assert_allclose(flow.variance(x_test, TIMES), diagonal, atol=1e-12)


X, Y, _ = problem(7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GradientFlow(kernel, X, Y[:-1]), "y must have shape"),
        (lambda: GradientFlow(kernel, X, Y * np.nan), "y has entries that are not finite"),
        (lambda: GradientFlow(kernel, X * np.inf, Y), "GradientFlow: x has entries that are not finite"),
        (lambda: GradientFlow(kernel, X[:0], Y[:0]), "x must be a batch"),
        (lambda: GradientFlow("ntk", X, Y), "kernel must be a function"),
        (lambda: GradientFlow(kernel, X, Y, learning_rate=0), "learning_rate must be positive"),
        (lambda: GradientFlow(lambda a, b: Kernels(*2 * [-jnp.eye(6)]), X, Y), "not positive semidefinite"),
        (lambda: GradientFlow(lambda a, b: Kernels(*2 * [jnp.tri(6)]), X, Y), "not symmetric"),
        (
            lambda: GradientFlow(lambda a, b: Kernels(*2 * [jnp.eye(6) / 0]), X, Y),
            "values that are not finite",
        ),
        (lambda: GradientFlow(lambda a, b: Kernels(*2 * [jnp.eye(5)]), X, Y), r"expected \(6, 6\)"),
        (lambda: GradientFlow(kernel, X, Y, ridge=-1.0), "GradientFlow: ridge must be not negative"),
        (lambda: GradientFlow(kernel, X, Y, max_bytes=0), "max_bytes must be positive"),
        (lambda: GradientFlow(kernel, X, Y + 1j), "y must hold real numbers"),
        (
            lambda: GradientFlow(lambda a, b: (a, b), X, Y),
            r"GradientFlow: .*must return .*Kernels.* got a tuple",
        ),
        (lambda: GradientFlow(kernel, X, Y).mean(X[:0], 1.0), r"GradientFlow.mean: x must .* n ≥ 1"),
        (lambda: GradientFlow(kernel, X, Y).covariance(X, 1.0, X[:0]), "GradientFlow.covariance: x2 must"),
        (lambda: GradientFlow(kernel, X, Y).mean(X * np.nan, 1.0), "mean: x has entries that are not finite"),
        (lambda: GradientFlow(kernel, X, Y).mean(X, "late"), "t must be ≥ 0"),
        (lambda: GradientFlow(kernel, X, Y).mean(X, -1.0), "t must be ≥ 0"),
        (lambda: GradientFlow(kernel, X, Y).mean(X, np.nan), "t must be ≥ 0"),
        (
            lambda: GradientFlow(kernel, X, Y).mean(X[:, :2], 1.0),
            r"GradientFlow.mean: x must have .*features \(3, 3\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
