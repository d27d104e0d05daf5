import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import rotate

from nteq.actions import Action, on_images, on_lattices, orbit
from nteq.groups import FiniteGroup, cyclic

orders = st.sampled_from([1, 2, 4])
seeds = st.integers(0, 2**31)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@given(orders, st.integers(1, 7), seeds)
def test_rotations_of_lattices_are_numpys_and_a_group_action(order, size, seed):
    x, group = normal(seed, 3, size, size), cyclic(order)
    action = on_lattices(group)
    for g in range(order):
        np.testing.assert_array_equal(action(g, x), np.rot90(x, g * 4 // order, axes=(1, 2)))
        for h in range(order):
            np.testing.assert_array_equal(action(g, action(h, x)), action(group.multiply(g, h), x))


@given(orders, seeds)
def test_images_rotate_every_channel_alike(order, seed):
    x = normal(seed, 2, 5, 5, 3)
    images = orbit(on_images(cyclic(order)), x)
    for channel in range(3):
        np.testing.assert_array_equal(
            images[..., channel], orbit(on_lattices(cyclic(order)), x[..., channel])
        )


def test_half_turns_do_not_need_a_square():
    x = normal(0, 2, 4, 6, 1)
    np.testing.assert_array_equal(on_images(cyclic(2))(1, x), x[:, ::-1, ::-1])


def test_finer_rotations_interpolate_and_say_so():
    action = on_images(cyclic(8))
    assert not action.exact and on_images(cyclic(4)).exact
    x = normal(0, 1, 9, 9, 1)
    # scipy's rotate with reshape off turns the same way in (row, column)
    expected = rotate(x[0, :, :, 0], 45, reshape=False, order=1, mode="constant")
    inside = (slice(3, 6), slice(3, 6))
    np.testing.assert_allclose(action(1, x)[0, :, :, 0][inside], expected[inside], atol=1e-10)
    np.testing.assert_allclose(action(2, x), on_images(cyclic(4))(1, x), atol=1e-12)
    twice = action(1, action(1, x))
    assert jnp.abs(twice - action(2, x)).max() > 0.1  # not an action: it blurs


def test_orbit_has_the_group_in_front_and_can_be_jitted():
    action, x = on_lattices(cyclic(4)), normal(0, 3, 4, 4)
    assert orbit(action, x).shape == (4, 3, 4, 4)
    moved = jax.jit(jax.vmap(action, in_axes=(0, None)))(jnp.arange(4), x)
    np.testing.assert_array_equal(moved, orbit(action, x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: on_images(cyclic(4))(0, np.ones((16, 28, 30, 1))), "height 28 and width 30"),
        (lambda: on_images(cyclic(4))(0, np.ones((16, 28, 28))), r"\(n, height, width, channels\)"),
        (lambda: on_lattices(cyclic(4))(0, np.ones((2, 3, 4))), "square"),
        (lambda: on_lattices(cyclic(4))(0, np.ones((3, 3))), r"\(n, L, L\)"),
        (lambda: on_lattices(cyclic(8)), "multiples of 90 degrees"),
        (lambda: on_lattices(4), "expected a FiniteGroup"),
        (
            lambda: on_images(FiniteGroup([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])),
            "only cyclic",
        ),
        (lambda: on_lattices(cyclic(4))(4, np.ones((1, 3, 3))), "elements are the integers"),
        (lambda: on_lattices(cyclic(4))([0, 1], np.ones((1, 3, 3))), "one element"),
        (lambda: on_lattices(cyclic(4))(0, np.full((1, 3, 3), np.nan)), "not finite"),
        (lambda: on_lattices(cyclic(4))(0, np.ones((0, 3, 3))), "batch of shape"),
        (lambda: Action(cyclic(2), lambda g, x: x[:, :1])(1, np.ones((2, 3))), "keeps the shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
