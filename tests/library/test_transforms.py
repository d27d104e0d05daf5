"""Flows and kernels are values: they pass through jit, vmap, grad, pytrees and pickle as arrays do."""

import pickle
from dataclasses import dataclass, field
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nteq.actions import Action, on_lattices, on_vectors, orbit
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic
from nteq.kernels import Kernels, mlp_kernel


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Smooth:
    """Powers of the scalar product, smooth everywhere, of full rank for a dozen points in five dimensions."""

    scale: float | jax.Array = 1.3
    shift: float | jax.Array = 0.4
    degree: int = field(default=3, metadata={"static": True})

    def __call__(self, x1, x2):
        x1, x2 = (jnp.reshape(x, (len(x), -1)) for x in (x1, x2))
        k = self.scale**2 * (x1 @ x2.T) / x1.shape[1] + self.shift**2
        return Kernels(k + k**2 / 2, k + k**2 + k**self.degree / 3)


def plain(x1, x2):
    return Smooth()(x1, x2)


def swap(g, x):
    return jnp.where(g == 1, x[..., ::-1], x)


MIRROR = Action(cyclic(2), swap, name="mirror")
TURN = on_lattices(cyclic(4))
DRAW = np.random.default_rng(0)
X, Y, FAR = DRAW.normal(size=(6, 4)), DRAW.normal(size=6), DRAW.normal(size=(3, 4))
TIMES = np.array([0, 0.5, 30, np.inf])
LATTICES, LABELS, PLANAR = DRAW.normal(size=(3, 2, 2)), DRAW.normal(size=3), DRAW.normal(size=(3, 2))


def made(way, kernel=plain, x=X, y=Y):
    if way == "plain":
        return GradientFlow(kernel, x, y)
    if way == "mirrored":
        return GradientFlow.augmented(kernel, x, y, MIRROR, check=False)
    return GradientFlow.augmented(kernel, x, jnp.stack([y, y], 1), MIRROR, MIRROR, check=False)


ways = pytest.mark.parametrize("way", ["plain", "mirrored", "moving labels"])


def answers(flow, z, t):
    return flow.mean(z, t), flow.covariance(z, t), flow.variance(z, t)


def agree(found, expected, rtol=1e-10):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


@ways
def test_a_flow_is_an_argument_of_jit_and_another_of_its_shapes_compiles_nothing(way):
    traced = []

    @jax.jit
    def asked(flow, z, t):
        traced.append(flow)
        return *answers(flow, z, t), flow.sample(jax.random.key(0), z, t, 2)

    first, second = made(way).with_covariance(), made(way, x=X[::-1] + 1, y=2 * Y).with_covariance()
    for flow in (first, second):
        agree(
            asked(flow, FAR, jnp.asarray(TIMES))[:3], answers(flow, FAR, TIMES)
        )  # t is traced here, known there
    assert len(traced) == 1


def test_numbers_in_a_kernel_that_is_a_pytree_are_arrays_of_the_flow():
    traced = []

    @jax.jit
    def asked(flow):
        traced.append(flow)
        return flow.mean(FAR, 1.0)

    for scale in (1.3, 0.7):
        agree(asked(GradientFlow(Smooth(scale), X, Y)), GradientFlow(Smooth(scale), X, Y).mean(FAR, 1.0))
    assert len(traced) == 1
    assert float(GradientFlow(Smooth(0.7), X, Y).kernel.scale) == 0.7


@ways
def test_jit_needs_no_eager_call_before(way):
    expected = answers(made(way), FAR, 0.5)
    fresh = made(way)  # known, closed over
    agree(jax.jit(lambda z: answers(fresh, z, 0.5))(FAR), expected)
    assert "_completed" not in vars(fresh)
    agree(jax.jit(lambda flow: answers(flow, FAR, 0.5))(made(way)), expected)
    agree(jax.vmap(lambda z: fresh.variance(z[None], 0.5)[0])(FAR), expected[2])


@ways
def test_flows_can_be_made_inside_of_jit(way):
    expected = answers(made(way), FAR, TIMES), made(way).condition_number, made(way).effective_rank
    flow = jax.jit(lambda x, y: made(way, x=x, y=y))(X, Y)
    assert isinstance(flow, GradientFlow)
    agree((answers(flow, FAR, TIMES), flow.condition_number, flow.effective_rank), expected)

    def all_of_it(x, y):
        flow = made(way, x=x, y=y)
        return answers(flow, FAR, TIMES), flow.condition_number, flow.effective_rank

    agree(jax.jit(all_of_it)(X, Y), expected)
    agree(jax.jit(lambda s: jax.tree.map(lambda a: s * a, made(way).mean(FAR, TIMES)))(1.0), expected[0][0])


def test_invariance_is_checked_inside_of_jit_where_it_is_known():
    with pytest.raises(ValueError, match="not invariant"):
        uneven = lambda a, b: Smooth()(a * np.arange(1, 5), b * np.arange(1, 5))
        jax.jit(lambda z: GradientFlow.augmented(uneven, X, Y, MIRROR).mean(z, 1.0))(FAR)
    made_inside = lambda scale: GradientFlow.augmented(lambda a, b: Smooth(scale)(a, b), X, Y, MIRROR)
    expected = GradientFlow.augmented(Smooth(1.1), X, Y, MIRROR).mean(FAR, 1.0)
    agree(jax.jit(lambda scale: made_inside(scale).mean(FAR, 1.0))(1.1), expected)


@ways
def test_vmap_over_labels(way):
    many = np.stack([Y, Y[::-1], 0 * Y])
    found = jax.vmap(lambda y: made(way, y=y).mean(FAR, TIMES))(many)
    agree(found, jnp.stack([made(way, y=y).mean(FAR, TIMES) for y in many]))
    flows = jax.vmap(lambda y: made(way, y=y))(many)
    agree(jax.vmap(lambda flow: flow.mean(FAR, TIMES))(flows), found)


def test_vmap_over_learning_rates_ridges_and_parameters_of_the_kernel():
    def at(rate, ridge, scale):
        return GradientFlow(Smooth(scale), X, Y, rate, ridge=ridge).mean(FAR, 2.0)

    three = np.array([0.5, 1.0, 1.5])
    agree(jax.vmap(at)(three, three, three), jnp.stack([at(*3 * [s]) for s in three]))


@ways
def test_times_may_be_traced(way):
    flow = made(way)
    agree(jax.jit(lambda t: answers(flow, FAR, t))(TIMES), answers(flow, FAR, TIMES))
    agree(jax.vmap(lambda t: answers(flow, FAR, t))(TIMES), answers(flow, FAR, TIMES))


def same_values(one, other):
    agree(answers(one, FAR, TIMES), answers(other, FAR, TIMES), rtol=1e-14)


@ways
def test_round_trip_as_a_pytree(way):
    for flow in (made(way), made(way, Smooth()).with_covariance()):
        leaves, structure = jax.tree.flatten(flow)
        same_values(jax.tree.unflatten(structure, leaves), flow)
        same_values(jax.tree.map(jnp.asarray, flow), flow)
        assert jax.tree.structure(jax.tree.map(jnp.asarray, flow)) == structure
        assert all(isinstance(leaf, jax.Array | float) for leaf in leaves)
    assert hash(jax.tree.structure(made(way))) == hash(jax.tree.structure(made(way)))


@ways
def test_a_flow_is_pickled_without_what_it_remembers(way):
    flow = made(way, Smooth())
    flow.covariance(FAR, 1.0)
    back = pickle.loads(pickle.dumps(flow))
    assert not {"_kept", "_completed"} & set(vars(back))
    same_values(back, flow)


def test_a_flow_cannot_be_changed():
    with pytest.raises(AttributeError):
        made("plain").x = 2 * X


def difference(f, at, h=1e-5):
    """The central difference of f in every entry; its error is h² and rounding over h."""
    at = np.asarray(at, float)
    slopes = np.empty(at.shape)
    for place in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[place] = h
        slopes[place] = (f(at + step) - f(at - step)) / (2 * h)
    return slopes


@cache  # so that a way is compiled once for all times
def weighed(way):
    """A number that depends on every entry of mean, covariance and variance; and its derivatives."""
    weights = [np.cos(np.arange(40.0) ** 2), np.sin(np.arange(40.0) ** 2)]

    def number(kernel, x, y, t, rate, ridge):
        more = {"learning_rate": rate, "ridge": ridge}
        if way == "plain":
            flow = GradientFlow(kernel, x, y, **more)
        elif way == "mirrored":
            flow = GradientFlow.augmented(kernel, x, y, MIRROR, check=False, **more)
        else:
            both = jnp.stack([y, y], 1)
            flow = GradientFlow.augmented(kernel, x, both, MIRROR, MIRROR, check=False, **more)
        parts = [v.ravel() for v in answers(flow, FAR, t)]
        return sum((w[: v.size] * v).sum() for w, v in zip([*weights, weights[0]], parts, strict=True))

    def on_arrays(f):  # a float and an array of no axes would be two programs
        compiled = jax.jit(f)
        return lambda *given: compiled(*jax.tree.map(lambda leaf: np.asarray(leaf, float), given))

    return on_arrays(number), on_arrays(jax.grad(number, argnums=(0, 1, 2, 3, 4, 5)))


@ways
@pytest.mark.parametrize("t", [0.0, 0.7, 40.0])
def test_gradients_are_finite_differences(way, t):
    number, slopes = weighed(way)
    kernel = Smooth(1.3, 0.4)
    found = slopes(kernel, X, Y, t, 1.1, 0.1)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(found))
    close = lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    close(found[0].scale, difference(lambda s: number(Smooth(s, 0.4), X, Y, t, 1.1, 0.1), 1.3))
    close(found[0].shift, difference(lambda s: number(Smooth(1.3, s), X, Y, t, 1.1, 0.1), 0.4))
    close(found[1], difference(lambda x: number(kernel, x, Y, t, 1.1, 0.1), X))
    close(found[2], difference(lambda y: number(kernel, X, y, t, 1.1, 0.1), Y))
    if t:  # no time is negative
        close(found[3], difference(lambda t: number(kernel, X, Y, t, 1.1, 0.1), t))
    close(found[4], difference(lambda rate: number(kernel, X, Y, t, rate, 0.1), 1.1))
    close(found[5], difference(lambda ridge: number(kernel, X, Y, t, 1.1, ridge), 0.1))


def test_gradients_at_time_zero_and_at_infinity():
    flow = GradientFlow(Smooth(), X, Y)
    rate = jax.jacfwd(lambda t: flow.mean(FAR, t))
    np.testing.assert_allclose(rate(0.0), Smooth()(FAR, X).ntk @ Y / len(X), rtol=1e-12)
    np.testing.assert_array_equal(rate(np.inf), 0)
    # of the regression Θ(x, X)(Θ + r)⁻¹Y
    solved = lambda s: Smooth(s)(FAR, X).ntk @ jnp.linalg.solve(Smooth(s)(X, X).ntk + 0.1 * jnp.eye(6), Y)
    found = jax.jacfwd(lambda s: GradientFlow(Smooth(s), X, Y, ridge=0.1).mean(FAR, np.inf))(1.3)
    np.testing.assert_allclose(found, jax.jacfwd(solved)(1.3), rtol=1e-9)


@ways
@pytest.mark.parametrize("t", [0.0, 0.7, 1e4, np.inf])
def test_gradients_where_points_repeat_and_the_gram_matrix_is_singular(way, t):
    """Points 0 and 1 are one point, point 2 is its own mirror image."""
    x = X.copy()
    x[1] = x[0]
    x[2, 2:] = x[2, 1::-1]
    of_all, slopes = weighed(way)
    number = lambda kernel, x, y, t: of_all(kernel, x, y, t, 1.0, 0.0)
    found = slopes(Smooth(), x, Y, t, 1.0, 0.0)[:3]
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(found))
    close = lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    close(found[0].scale, difference(lambda s: number(Smooth(s, 0.4), x, Y, t), 1.3))
    close(found[0].shift, difference(lambda s: number(Smooth(1.3, s), x, Y, t), 0.4))
    close(found[2], difference(lambda y: number(Smooth(), x, y, t), Y))
    if t < 1:  # of every point alone
        close(found[1], difference(lambda x: number(Smooth(), x, Y, t), x))
    # of the two together, and of point 3
    moved = lambda s: number(Smooth(), x + np.eye(6)[:, :2].sum(1)[:, None] * s, Y, t)
    close(found[1][:2].sum(0), difference(moved, np.zeros(4)))
    close(found[1][3], difference(lambda s: number(Smooth(), x + np.eye(6)[:, 3:4] * s, Y, t), np.zeros(4)))


def test_gradients_where_a_group_makes_eigenvalues_equal():
    """The images of one point written out: the Gram matrix is circulant, and eigenvalues come in pairs."""
    action = on_vectors(cyclic(5))
    images = lambda p: jnp.concatenate(orbit(action, p[None]))
    number = lambda p, t: (GradientFlow(Smooth(), images(p), jnp.arange(5.0)).mean(FAR[:, :2], t) ** 2).sum()
    p = np.array([1.0, 0.3])
    gaps = np.diff(np.linalg.eigvalsh(Smooth()(images(p), images(p)).ntk))
    assert (gaps < 1e-12).sum() == 2
    for t in (0.7, 30.0):
        np.testing.assert_allclose(
            jax.grad(number)(p, t), difference(lambda p: number(p, t), p), rtol=1e-6, atol=1e-8
        )


@pytest.mark.parametrize("t", [0.7, pytest.param(np.inf, marks=pytest.mark.slow)])
def test_gradients_in_test_inputs_at_training_points(t):
    flow = GradientFlow(Smooth(), X, Y)
    number = lambda z: flow.mean(z, t) @ np.arange(1.0, 7) + flow.variance(z, t).sum()
    np.testing.assert_allclose(jax.grad(number)(X), difference(number, X), atol=1e-6)
    # any derivative with respect to test inputs is there
    second = jax.hessian(lambda z: flow.mean(z[None], t)[0])(X[0])
    first = jax.grad(lambda z: flow.mean(z[None], t)[0])
    h = 1e-5
    expected = (first(X[0] + h * np.eye(4)[1]) - first(X[0] - h * np.eye(4)[1])) / (2 * h)
    np.testing.assert_allclose(second[1], expected, atol=1e-6)


def test_what_has_no_derivative_says_so():
    second = jax.hessian(lambda s: GradientFlow(Smooth(s), X, Y).mean(FAR, 1.0).sum())
    with pytest.raises(NotImplementedError, match="this derivative is not implemented"):
        second(1.3)
    flow = GradientFlow(Smooth(), X, Y)
    with pytest.raises(NotImplementedError, match="all but sample"):
        jax.grad(lambda t: flow.sample(jax.random.key(0), FAR, t, 2).sum())(1.0)


@pytest.mark.parametrize(
    ("activation", "dtype"),
    [
        ("relu", np.float32),
        ("erf", np.float64),
        pytest.param("relu", np.float64, marks=pytest.mark.slow),
        pytest.param("erf", np.float32, marks=pytest.mark.slow),
    ],
)
def test_kernels_and_their_flows_pass_through_jit_vmap_and_grad(activation, dtype):
    kernel = mlp_kernel(2, activation, 1.5, 0.2)
    x, far, y = X.astype(dtype), FAR.astype(dtype), Y.astype(dtype)
    rtol = 1e-4 if dtype == np.float32 else 1e-10
    expected = kernel(far, x)
    assert expected.ntk.dtype == dtype
    agree(jax.jit(kernel)(far, x), expected, rtol)
    agree(jax.vmap(lambda z: kernel(z[None], x).ntk[0])(far), expected.ntk, rtol)
    flow = GradientFlow(kernel, x, y)
    slopes = jax.grad(lambda z: flow.mean(z, 2.0).sum())(far)
    assert slopes.dtype == flow.mean(far, 2.0).dtype == dtype
    exact = GradientFlow(kernel, X, Y)
    expected = difference(lambda z: float(exact.mean(z, 2.0).sum()), FAR)
    np.testing.assert_allclose(slopes, expected, atol=1e-3 if dtype == np.float32 else 1e-6)
