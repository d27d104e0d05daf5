import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

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
        (lambda: GradientFlow(kernel, X, Y).mean(X, -1.0), "t must be ≥ 0"),
        (lambda: GradientFlow(kernel, X, Y).mean(X, np.nan), "t must be ≥ 0"),
        (lambda: GradientFlow(kernel, X, Y).mean(X[:, :2], 1.0), r"GradientFlow.mean: x must have .*features \(3, 3\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
