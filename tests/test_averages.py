import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nteq.actions import Action, matrices_of, on_lattices, on_sets, on_vectors, orbit
from nteq.averages import invariance_defect, orbit_average, require_invariance
from nteq.groups import cyclic, symmetric
from nteq.kernels import Kernels, mlp_kernel

kernel = mlp_kernel(2, "relu", 1.4, 0.1)
TURN = on_lattices(cyclic(4))
X = np.random.default_rng(0).normal(size=(3, 4, 4))


def uneven(x1, x2):
    """Not invariant: the first row of sites counts twice."""
    scale = np.where(np.arange(4) == 0, 2.0, 1.0)[:, None]
    return kernel(scale * x1, scale * x2)


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 4]))
def test_orbit_average_is_the_explicit_sum_and_invariant_in_each_argument(seed, order):
    draw = np.random.default_rng(seed)
    x1, x2 = draw.normal(size=(3, 4, 4)), draw.normal(size=(2, 4, 4))
    action = on_lattices(cyclic(order))
    average = orbit_average(kernel, action)(x1, x2)
    for name in Kernels._fields:
        explicit = np.mean([getattr(kernel(x1, image), name) for image in orbit(action, x2)], axis=0)
        np.testing.assert_allclose(getattr(average, name), explicit, rtol=1e-13)
    for g in range(order):
        np.testing.assert_allclose(
            orbit_average(kernel, action)(action(g, x1), x2).ntk, average.ntk, rtol=1e-11
        )


def counted(calls):
    def kernel_that_counts(x1, x2):
        calls.append(len(x2))
        return kernel(x1, x2)

    return kernel_that_counts


@pytest.mark.parametrize("order", [1, 2, 4])
def test_an_average_takes_one_kernel_call_for_each_element(order):
    calls = []
    orbit_average(counted(calls), on_lattices(cyclic(order)), check=False)(X, X)
    assert calls == order * [3]


def test_the_check_takes_two_calls_on_four_inputs_for_a_group_with_one_generator():
    calls, x = [], np.concatenate([X, 2 * X])
    orbit_average(counted(calls), TURN)(X, x)
    assert calls == [4, 4] + 4 * [6]
    calls.clear()
    jax.jit(lambda x: orbit_average(counted(calls), TURN)(X, x))(x)  # nothing is known to check
    assert calls == 4 * [6]


def test_equal_arguments_make_equal_averages():
    vectors = on_vectors(cyclic(4))
    labels = matrices_of(vectors, 2)
    make = partial(orbit_average, mlp_kernel(2, "relu", 1.4, 0.1), on_lattices(cyclic(4)))
    one, two = make(labels), make(np.array(labels))
    assert one == two and hash(one) == hash(two) and pickle.loads(pickle.dumps(one)) == one
    assert one != make() and one != make(labels, False) and one != make(-labels)
    assert one != orbit_average(mlp_kernel(1), TURN, labels) and make() == make() and make() != kernel
    leaves, structure = jax.tree.flatten(one)
    assert len(leaves) == 3 and jax.tree.unflatten(structure, leaves) == one
    opaque = orbit_average(uneven, TURN, check=False)
    assert jax.tree.leaves(opaque) == [] and jax.tree.map(lambda leaf: leaf, opaque) == opaque


def test_averages_go_through_jit_grad_and_known_batches_in_a_trace():
    average = orbit_average(kernel, TURN)
    expected = average(X, X).ntk
    np.testing.assert_allclose(jax.jit(lambda k, x: k(x, x).ntk)(average, X), expected, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(lambda c: c * average(X, X).ntk)(2.0), 2 * expected, rtol=1e-13)

    def total(W_std):
        return orbit_average(mlp_kernel(2, "relu", W_std, 0.1), TURN)(X, X).ntk.sum()

    slope = (total(1.4 + 1e-5) - total(1.4 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(total)(1.4), slope, rtol=1e-8)
    hidden = jax.grad(
        lambda w: orbit_average(lambda a, b: mlp_kernel(2, "relu", w, 0.1)(a, b), TURN)(X, X).ntk.sum()
    )
    np.testing.assert_allclose(hidden(1.4), slope, rtol=1e-8)


def test_a_kernel_that_is_not_invariant_is_refused_inside_of_a_trace_too():
    with pytest.raises(ValueError, match=r"orbit_average: the kernel is not invariant under .*C4"):
        orbit_average(uneven, TURN)(X, X)
    with pytest.raises(ValueError, match="not invariant"):
        jax.jit(lambda c: c * orbit_average(uneven, TURN)(X, X).ntk)(1.0)
    assert np.isfinite(orbit_average(uneven, TURN, check=False)(X, X).ntk).all()


@pytest.mark.parametrize("where", [0, 1])
def test_kernel_values_that_are_nan_are_not_invariant(where):
    def broken(x1, x2):
        values = list(kernel(x1, x2))
        values[where] = values[where].at[0, 0].set(jnp.nan)
        return Kernels(*values)

    assert np.isnan(invariance_defect(broken, TURN, X))
    with pytest.raises(ValueError, match="not invariant"):
        require_invariance("who", broken, TURN, X)


def test_the_defect_is_that_of_the_worst_generator():
    swap = np.array([[2.0, 1.0, 1.0], [1.0, 5.0, 0.0]])
    first = lambda a, b: Kernels(*(a[:, :1] @ b[:, :1].T,) * 2)
    # S3 by hand: 2·2 becomes 1·1 or 1·2 beside a largest value of 4, and 1·1 becomes 25 under one swap
    group = symmetric(3)
    images = [on_sets(group)(g, swap)[:, :1] for g in group.generators]
    expected = max(np.abs(i @ i.T - swap[:, :1] @ swap[:, :1].T).max() for i in images) / 4
    assert invariance_defect(first, on_sets(group), swap) == pytest.approx(expected, rel=1e-14)
    assert expected > 0.5
    assert invariance_defect(first, on_sets(group), 0 * swap) == 0
    assert invariance_defect(kernel, on_sets(group), swap) < 1e-14


def test_integers_are_promoted_and_strict_promotion_is_enough():
    ints = np.random.default_rng(0).integers(0, 3, size=(2, 4, 4))
    average = orbit_average(kernel, TURN, matrices_of(on_vectors(cyclic(4)), 2))
    np.testing.assert_array_equal(
        average(ints, ints).ntk, average(ints.astype(float), ints.astype(float)).ntk
    )
    x = ints.astype(np.float32)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        values = average(x, x).ntk
    assert values.dtype == np.float32 and values.shape == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orbit_average(None, TURN), "kernel must be callable"),
        (lambda: orbit_average(kernel, cyclic(4)), "not the group alone"),
        (lambda: orbit_average(kernel, TURN, np.ones((4, 2))), r"\(4, outputs, outputs\), got \(4, 2\)"),
        (lambda: orbit_average(kernel, TURN, np.full((4, 1, 1), np.nan)), "label_matrices has entries"),
        (lambda: orbit_average(kernel, TURN)(X[:0], X), "orbit_average: x1 must be a batch"),
        (lambda: orbit_average(kernel, TURN)(X, X[:0]), "orbit_average: x2 must be a batch"),
        (lambda: orbit_average(lambda a, b: (1, 2), TURN)(X, X), r"orbit_average: the kernel must .*a tuple"),
        (
            lambda: orbit_average(lambda a, b: tuple(kernel(a, b)), TURN, check=False)(X, X),
            r"orbit_average: the kernel must return .*got a tuple",
        ),
        (
            lambda: orbit_average(lambda a, b: Kernels(*(k[0] for k in kernel(a, b))), TURN, check=False)(
                X, X
            ),
            r"nngp has shape \(3,\), expected \(3, 3\)",
        ),
        (lambda: jax.jit(lambda x: invariance_defect(kernel, TURN, x))(X), "values are traced"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_action_of_your_own_will_do():
    flip = Action(cyclic(2), lambda g, x: jnp.where(g == 1, x[:, ::-1], x), name="reversal")
    expected = (kernel(X, X).ntk + kernel(X, X[:, ::-1]).ntk) / 2
    np.testing.assert_allclose(orbit_average(kernel, flip)(X, X).ntk, expected, rtol=1e-14)
