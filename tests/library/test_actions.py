import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import rotate

from nteq.actions import (
    Action,
    direct_product,
    invariant_projection,
    on_channels,
    on_images,
    on_lattices,
    on_sets,
    on_vectors,
    orbit,
    stabiliser,
)
from nteq.groups import FiniteGroup, cyclic, dihedral, generated_by, octahedral, symmetric
from nteq.ising import energy

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
            "the group has no matrices",
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


EXACT = [
    (on_lattices(dihedral(4)), (5, 5)),
    (on_lattices(dihedral(2)), (4, 4)),
    (on_lattices(cyclic(4), translations=3), (3, 3)),
    (on_lattices(dihedral(4), translations=4), (4, 4)),
    (on_images(dihedral(4)), (6, 6, 2)),
    (on_vectors(octahedral()), (3,)),
    (on_vectors(dihedral(5)), (4, 2)),
    (on_sets(symmetric(4)), (4, 3)),
    (on_sets(generated_by([[1, 2, 3, 4, 0]])), (5,)),
    (on_channels(dihedral(3)), (2, 2, 6)),
    (direct_product(on_sets(symmetric(3)), on_vectors(octahedral())), (3, 3)),
]


@pytest.mark.parametrize(("action", "shape"), EXACT, ids=lambda v: getattr(v, "name", None))
def test_actions_marked_exact_are_group_actions(action, shape):
    x = normal(1, 2, *shape)
    assert action.exact and action.defect(x) < 1e-14
    # orthogonal, too: the kernels of fully connected networks do not notice them
    before, after = x.reshape(2, -1), np.asarray(action(action.group.order - 1, x)).reshape(2, -1)
    np.testing.assert_allclose(after @ after.T, before @ before.T, rtol=1e-12)


def test_interpolation_and_a_wrong_inverse_have_a_defect():
    x = normal(2, 1, 9, 9, 1)
    assert 0.1 < on_images(cyclic(8)).defect(x) < 2
    good = on_sets(symmetric(3))
    wrong = Action(good.group, lambda g, x: good.act(jnp.asarray(good.group.inverses)[g], x))
    assert wrong.defect(normal(3, 1, 3, 2)) > 0.1


def test_dihedral_flips_left_into_right_first():
    x = normal(4, 2, 5, 5)
    for g in range(4):
        np.testing.assert_array_equal(
            on_lattices(dihedral(4))(4 + g, x), np.rot90(x[:, :, ::-1], g, axes=(1, 2))
        )


def test_vectors_turn_as_the_pixels_do():
    image = np.zeros((1, 5, 5, 1))
    image[0, 1, 4] = 1  # two to the right, one up
    for g in range(8):
        right, up = np.asarray(on_vectors(dihedral(4))(g, np.array([[2.0, 1.0]])))[0].astype(int)
        assert on_images(dihedral(4))(g, image)[0, 2 - up, 2 + right, 0] == 1


def test_translations_with_rotations_leave_the_ising_energy_alone():
    action = on_lattices(dihedral(4), translations=4)
    spins = np.sign(normal(5, 3, 4, 4))
    energies = jax.vmap(energy)(orbit(action, spins))
    assert energies.shape == (128, 3)
    np.testing.assert_allclose(energies, np.broadcast_to(energies[0], (128, 3)), atol=1e-12)


def test_stabiliser_and_orbit_obey_the_orbit_stabiliser_theorem():
    action = on_lattices(dihedral(4))
    spins = np.sign(normal(6, 40, 3, 3))
    spins[:3] = [np.ones((3, 3)), np.eye(3), np.diag([1, 2, 1])]
    fixed = stabiliser(action, spins)
    images = np.asarray(orbit(action, spins))
    for i in range(40):
        distinct = len({image.tobytes() for image in images[:, i] + 0.0})
        assert distinct * fixed[i].sum() == 8
    assert fixed[0].all() and fixed[1].sum() == 4


def test_invariant_projection_is_invariant_and_a_projection():
    action, x = on_images(dihedral(4)), normal(7, 2, 4, 4, 1)
    mean = invariant_projection(action, x)
    np.testing.assert_allclose(orbit(action, mean), np.broadcast_to(mean, (8, *mean.shape)), atol=1e-14)
    np.testing.assert_allclose(invariant_projection(action, mean), mean, atol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: on_lattices(symmetric(3)), "has no matrices. Use cyclic"),
        (lambda: on_images(octahedral()), "2 × 2 matrices"),
        (lambda: on_lattices(cyclic(4), translations=0), "translations must be an integer of at least 1, got 0"),
        (lambda: on_lattices(dihedral(4), translations=30), "more than 4096"),
        (lambda: on_lattices(cyclic(1), translations=3)(0, np.ones((1, 4, 4))), r"\(n, 3, 3\)"),
        (lambda: on_images(cyclic(8))(1, np.ones((1, 3, 4, 1))), "height 3 and width 4"),
        (lambda: on_vectors(symmetric(3)), "has no matrices"),
        (lambda: on_vectors(octahedral())(0, np.ones((2, 2))), r"\(n, ..., 3\), got shape \(2, 2\)"),
        (lambda: on_sets(cyclic(3)), "has no permutations"),
        (lambda: on_sets(symmetric(3))(0, np.ones((2, 4))), r"\(batch, 3, ...\)"),
        (lambda: on_channels(cyclic(4))(0, np.ones((2, 3))), r"\(n, ..., 4\)"),
        (lambda: on_channels(4), "expected a FiniteGroup"),
        (lambda: direct_product(on_sets(symmetric(3)), symmetric(3)), "expected two actions"),
        (
            lambda: direct_product(on_vectors(dihedral(4)), on_vectors(dihedral(4)))(
                12, np.array([[1.0, 2.0]])
            ),
            "do not commute",
        ),
    ],
)
def test_bad_input_of_the_further_actions_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
