import contextlib
import itertools
import pickle

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
    matrices_of,
    on_channels,
    on_harmonics,
    on_images,
    on_lattices,
    on_sets,
    on_vectors,
    orbit,
    stabiliser,
)
from nteq.groups import (
    FiniteGroup,
    cyclic,
    dihedral,
    generated_by,
    icosahedral,
    octahedral,
    symmetric,
    with_inversion,
)
from nteq.groups import direct_product as product_group
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
        (lambda: Action(4, lambda g, x: x), "group must be a FiniteGroup such as cyclic.4., got 4"),
        (lambda: Action(cyclic(4), "turn"), "act must be a function .*, got 'turn'"),
        (lambda: on_lattices(cyclic(4))(0, [[["up"]]]), "x must hold numbers, got dtype <U2"),
        (lambda: jax.jit(on_lattices(cyclic(4)))(1.0, np.ones((1, 3, 3))), "integer, got dtype float"),
        (
            lambda: jax.jit(on_lattices(cyclic(4)))([0, 1], np.ones((1, 3, 3))),
            r"one element, got shape \(2,\)",
        ),
        (lambda: orbit(cyclic(4), np.ones((1, 3, 3))), "orbit: action must be an nteq.actions.Action"),
        (lambda: stabiliser(cyclic(4), np.ones((1, 3, 3))), "stabiliser: action must be"),
        (lambda: invariant_projection(4, np.ones((1, 3, 3))), "invariant_projection: action must be"),
        (lambda: matrices_of(cyclic(4), 3), "matrices_of: action must be"),
        (lambda: matrices_of(on_vectors(cyclic(4)), 2.0), "matrices_of: dimension must be an integer"),
        (lambda: stabiliser(on_lattices(cyclic(4)), np.ones((0, 3, 3))), r"batch .* got shape \(0, 3, 3\)"),
        (lambda: on_lattices(cyclic(4)).defect(np.ones((0, 3, 3))), r"batch .* got shape \(0, 3, 3\)"),
        (lambda: on_images(cyclic(8))(1, np.full((1, 3, 3, 1), 1j)), "real images"),
        (lambda: on_lattices(cyclic(4)).restricted([7]), "elements are the integers 0 … 3, got 7"),
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
    (on_harmonics(with_inversion(icosahedral())), (2, 16)),
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
        (lambda: on_lattices(cyclic(4), translations=0), "translations must be an integer .*, got 0"),
        (lambda: on_lattices(dihedral(4), translations=30), "more than 4096"),
        (lambda: on_lattices(cyclic(1), translations=3)(0, np.ones((1, 4, 4))), r"\(n, 3, 3\)"),
        (lambda: on_images(cyclic(8))(1, np.ones((1, 3, 4, 1))), "height 3 and width 4"),
        (lambda: on_vectors(symmetric(3)), "has no matrices"),
        (lambda: on_vectors(octahedral())(0, np.ones((2, 2))), r"\(n, ..., 3\), got shape \(2, 2\)"),
        (lambda: on_harmonics(cyclic(4)), "needs a group of 3 × 3 matrices"),
        (lambda: on_harmonics(symmetric(3)), "the group has no matrices"),
        (lambda: on_harmonics(octahedral())(0, np.ones((2, 8))), "a last axis of length 8"),
        (lambda: on_harmonics(octahedral())(0, np.ones(9)), r"got shape \(9,\)"),
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


@pytest.mark.parametrize(("action", "shape"), EXACT, ids=lambda v: getattr(v, "name", None))
def test_an_action_survives_pickling_and_is_then_equal(action, shape):
    x, g = normal(8, 2, *shape), action.group.order - 1
    moved = action(g, x)
    again = pickle.loads(pickle.dumps(action))
    assert again == action and hash(again) == hash(action) and again.act == action.act
    np.testing.assert_array_equal(again(g, x), moved)


def test_actions_are_equal_if_they_mean_the_same():
    make = [
        lambda: on_lattices(cyclic(4)),
        lambda: on_lattices(cyclic(2)),
        lambda: on_lattices(dihedral(2)),
        lambda: on_lattices(cyclic(4), translations=2),
        lambda: on_lattices(cyclic(4), translations=3),
        lambda: on_images(cyclic(4)),
        lambda: on_images(cyclic(8)),
        lambda: on_vectors(cyclic(4)),
        lambda: on_channels(cyclic(4)),
        lambda: on_sets(symmetric(3)),
        lambda: on_lattices(dihedral(4)).restricted([1]),
        lambda: on_lattices(dihedral(4)).restricted([4]),
        lambda: direct_product(on_sets(symmetric(3)), on_vectors(cyclic(4))),
        lambda: direct_product(on_vectors(cyclic(4)), on_sets(symmetric(3))),
    ]
    for (i, one), (j, other) in itertools.product(enumerate(make), repeat=2):
        assert (one() == other()) == (i == j)
        assert i != j or hash(one()) == hash(other())
    assert [one().name for one in make[4:10]] == [
        "on_lattices(C4, translations=3)",
        "on_images(C4)",
        "on_images(C8)",
        "on_vectors(C4)",
        "on_channels(C4)",
        "on_sets(S3)",
    ]
    act, elsewhere = (lambda g, x: x), (lambda g, x: x)
    assert Action(cyclic(2), act) == Action(cyclic(2), act)
    assert Action(cyclic(2), act) != Action(cyclic(2), elsewhere)
    assert Action(cyclic(2), act) != Action(cyclic(2), act, exact=False)
    assert Action(cyclic(2), act) != Action(cyclic(2), act, name="another")
    assert Action(cyclic(2), act) != Action(cyclic(1), act) and Action(cyclic(2), act) != act


def test_equal_actions_share_one_program():
    traced = []

    def turn(action, x):
        traced.append(action)
        return action(1, x) + 1

    x = jnp.ones((1, 2, 2))
    for compiled in (jax.jit(turn), jax.jit(turn, static_argnums=0)):
        traced.clear()
        compiled(on_lattices(cyclic(4)), x)
        compiled(on_lattices(cyclic(4)), x)
        assert len(traced) == 1
        compiled(on_lattices(cyclic(2)), x)
        assert len(traced) == 2


def test_a_defect_compiles_once_for_equal_actions():
    calls = []

    def act(g, x):
        calls.append(g)
        return x

    x = jnp.ones((1, 2))
    assert Action(cyclic(2), act).defect(x) == 0
    before = len(calls)
    assert Action(cyclic(2), act).defect(2 * x) == 0 and len(calls) == before


def backwards(group):
    """The same table, name and kind of matrices or permutations, of the inverse elements."""
    assert (group.table == group.table.T).all()
    inverted = [None if a is None else a[group.inverses] for a in (group.matrices, group.permutations)]
    return FiniteGroup(group.table, group.name, *inverted)


@pytest.mark.parametrize(
    ("make", "group", "shape"),
    [
        (on_vectors, cyclic(4), (2,)),
        (on_sets, generated_by([[1, 2, 0]]), (3,)),
        (on_lattices, cyclic(4), (2, 2)),
        (lambda group: on_lattices(group, translations=3), cyclic(4), (3, 3)),
        (on_images, cyclic(4), (2, 2, 1)),
        (on_images, cyclic(8), (3, 3, 1)),
    ],
    ids=["vectors", "sets", "lattices", "translations", "images", "interpolated"],
)
def test_groups_of_one_table_that_move_data_differently_are_never_taken_for_each_other(make, group, shape):
    x = normal(9, 2, *shape)
    one, other = make(group), make(backwards(group))
    assert backwards(group) == group and one != other and one.act != other.act
    g = 1 if one.group.order < 10 else 3  # the quarter turn is the third generator there
    moved = np.asarray(one(g, x))
    assert np.abs(np.asarray(other(g, x)) - moved).max() > 0.1
    np.testing.assert_allclose(other(g, one(g, x)) if one.exact else x, x, atol=1e-14)
    as_argument = jax.jit(lambda action, x: action(g, x))
    constant = jax.jit(lambda action, x: action(g, x), static_argnums=0)
    for call in (as_argument, constant, lambda action, x: jax.jit(action.act)(g, x)):
        np.testing.assert_allclose(call(one, x), moved, atol=1e-14)
        assert np.abs(np.asarray(call(other, x)) - moved).max() > 0.1


def test_things_channels_and_their_functions_move_with_the_element_and_not_its_inverse():
    group = symmetric(3)
    x = normal(10, 1, 3)
    channels = normal(11, 1, 6)
    for g in range(6):
        moved, shifted = on_sets(group)(g, x), on_channels(group)(g, channels)
        for i in range(3):
            assert moved[0, group.permutations[g][i]] == x[0, i]
        for h in range(6):
            assert shifted[0, group.multiply(g, h)] == channels[0, h]
    turned = on_vectors(octahedral())
    for g in range(24):
        expected = [sum(octahedral().matrices[g, i, j] * x[0, j] for j in range(3)) for i in range(3)]
        np.testing.assert_allclose(turned(g, x)[0], expected, atol=1e-15)


def test_two_elements_in_each_others_place_are_no_action():
    good = on_sets(symmetric(3))
    swap = jnp.array([0, 1, 2, 4, 3, 5])
    swapped = Action(good.group, lambda g, x: good.act(swap[g], x), name="swapped")
    x = normal(3, 1, 3)
    assert good.defect(x) == 0
    # elements 3 and 4 are inverse to each other: this is one of the exchanges that show
    assert swapped.defect(x) > 0.1
    with pytest.raises(ValueError, match=r"matrices_of: swapped .* is not a linear representation of S3"):
        matrices_of(swapped, 3)


@pytest.mark.parametrize(
    "act",
    [lambda g, x: 0 * x, lambda g, x: x + 1, lambda g, x: jnp.abs(x), lambda g, x: 2 * x],
    ids=["zero", "shift", "absolute value", "scale"],
)
def test_what_is_no_representation_has_no_matrices(act):
    with pytest.raises(ValueError, match="not a linear representation of C2"):
        matrices_of(Action(cyclic(2), act), 3)


def test_matrices_of_512_elements_are_checked_without_all_their_products():
    # all products at once would be 512² matrices of 64 × 64, 8.6 GB
    action = on_lattices(dihedral(4), translations=8)
    flat = Action(action.group, lambda g, x: action.act(g, x.reshape(-1, 8, 8)).reshape(x.shape))
    matrices = matrices_of(flat, 64)
    np.testing.assert_array_equal(np.argmax(matrices, axis=1), action.group.permutations)
    assert matrices.sum() == 512 * 64


STRIPE = np.zeros((1, 9, 9, 1))
STRIPE[0, 2:7, 3:6] = 200
MANY_TYPES = ["uint8", "int32", "float16", "bfloat16", "float32"]


@pytest.mark.parametrize("dtype", MANY_TYPES)
def test_an_image_of_any_type_turns_by_45_degrees_as_the_float_image_does(dtype):
    turned = on_images(cyclic(8))(1, jnp.asarray(STRIPE, dtype))
    assert jnp.issubdtype(turned.dtype, jnp.floating) and turned.dtype.itemsize >= 4
    assert turned[0, 4, :, 0].round().tolist() == [0, 0, 117, 200, 200, 200, 117, 0, 0]
    assert round(float(turned.sum())) == 2955
    black_and_white = on_images(cyclic(8))(1, STRIPE > 0)
    np.testing.assert_allclose(200 * black_and_white, on_images(cyclic(8))(1, STRIPE), atol=1e-10)


@pytest.mark.parametrize("dtype", [*MANY_TYPES, "bool"])
def test_what_only_permutes_keeps_the_type_and_what_computes_is_as_for_floats(dtype):
    x = jnp.asarray([[1, 0], [1, 1]], dtype)
    for action in (on_lattices(cyclic(4)), on_lattices(cyclic(4), translations=2)):
        assert action(1, x[None]).dtype == dtype
        np.testing.assert_array_equal(action(1, x[None]).astype(float), action(1, np.asarray(x, float)[None]))
    assert on_sets(symmetric(2))(1, x).dtype == on_channels(cyclic(2))(1, x).dtype == dtype
    diagonal = on_vectors(cyclic(8))  # by 45 degrees: entries that no integer is near
    precision = 1e-6 if x.dtype != bool and jnp.issubdtype(dtype, jnp.floating) else 1e-15
    for moved in (diagonal(1, x), invariant_projection(on_sets(symmetric(2)), x)):
        assert jnp.issubdtype(moved.dtype, jnp.floating) and moved.dtype.itemsize >= 4
    np.testing.assert_allclose(diagonal(1, x), np.asarray(x, float) @ cyclic(8).matrices[1].T, atol=precision)
    np.testing.assert_allclose(
        invariant_projection(on_sets(symmetric(2)), x), [[0.5, 0.5], [1, 1]], atol=precision
    )


@pytest.mark.parametrize(
    "x",
    [
        np.array([[[-128, 127], [127, -128]]], np.int8),
        np.array([[[0, 255], [255, 1]]], np.uint8),
        np.array([[[True, False], [True, False]]]),
        np.array([[[True, False], [False, True]]]),
        jnp.array([[[1.0, 1.0078125], [1.0, 1.0]]], jnp.bfloat16),
    ],
    ids=["int8", "uint8", "bool", "symmetric bool", "bfloat16"],
)
def test_defect_and_stabiliser_of_integers_are_those_of_floats(x):
    action, as_float = on_lattices(dihedral(4)), np.asarray(x, float)
    broken = Action(cyclic(4), lambda g, x: action.act(jnp.array([0, 1, 1, 3])[g], x))
    assert action.defect(x) == 0
    assert broken.defect(x) == pytest.approx(broken.defect(as_float), rel=1e-6)
    np.testing.assert_array_equal(stabiliser(action, x), stabiliser(action, as_float))
    images = np.asarray(orbit(action, as_float))[:, 0]
    np.testing.assert_array_equal(stabiliser(action, x)[0], (images == as_float[0]).all((1, 2)))


def test_large_integers_are_compared_as_they_are():
    x = np.array([[[2**53, 2**53 + 1], [2**53, 2**53]]])
    assert stabiliser(on_lattices(cyclic(4)), x).sum() == 1


@pytest.mark.parametrize(
    ("dtype", "off", "still"),
    [
        ("float64", 1e-3, False),
        ("float64", 1e-6, False),
        ("float64", 1e-12, False),
        ("float64", 5 * 2.0**-52, True),
        ("float32", 1e-3, False),
        ("float32", 1e-4, False),
        ("float32", 5 * 2.0**-23, True),
    ],
)
@pytest.mark.parametrize("scale", [1, 1e6, 1e-6])
def test_a_stabiliser_takes_only_rounding_for_symmetry(dtype, off, still, scale):
    x = np.ones((2, 2, 2))
    x[0, 0, 0] += off
    x[1, 0, 0] = 1e6  # the other example is large: no matter to the first
    found = stabiliser(on_lattices(cyclic(4)), jnp.asarray(scale * x, dtype))
    assert found.tolist() == [[True, still, still, still], [True, False, False, False]]


KNOWN = normal(12, 2, 3, 3)


@pytest.mark.parametrize(
    "call",
    [
        lambda action, g: action(g, KNOWN),
        lambda action, g: action(1, KNOWN) * g,
        lambda action, g: orbit(action, KNOWN)[g],
        lambda action, g: invariant_projection(action, KNOWN) + g,
        lambda action, g: stabiliser(action, KNOWN)[:, g],
        lambda action, g: g * action.defect(KNOWN) + action.defect(KNOWN.astype(np.float16)),
        lambda action, g: g + jnp.asarray(matrices_of(on_vectors(cyclic(4)), 2)),
    ],
    ids=["call", "known g", "orbit", "projection", "stabiliser", "defect", "matrices"],
)
def test_known_data_may_be_used_under_jit(call):
    action = on_lattices(cyclic(4))
    np.testing.assert_allclose(jax.jit(lambda g: call(action, g))(1), call(action, 1), atol=1e-15)


def test_known_data_under_jit_are_checked_and_traced_ones_pass():
    action = on_lattices(cyclic(4))
    wrong = np.full((1, 3, 3), np.nan)
    for call in (action, lambda g, x: orbit(action, x), lambda g, x: g * action.defect(x)):
        with pytest.raises(ValueError, match="not finite"):
            jax.jit(lambda g: call(g, wrong))(1)
    traced = jax.jit(on_images(cyclic(8)).defect)(KNOWN[..., None])
    assert traced == pytest.approx(on_images(cyclic(8)).defect(KNOWN[..., None]), rel=1e-12)
    np.testing.assert_array_equal(
        jax.jit(stabiliser, static_argnums=0)(action, KNOWN), stabiliser(action, KNOWN)
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda both, x: both(12, x),
        lambda both, x: jax.jit(lambda s: s * both(12, x))(1.0),
        lambda both, x: jax.jit(lambda g: both(g, x))(12),
        orbit,
        stabiliser,
    ],
    ids=["eager", "known g", "traced g", "orbit", "stabiliser"],
)
def test_two_actions_that_do_not_commute_are_found_out_wherever_the_data_are_known(call):
    turn = on_vectors(dihedral(4))
    with pytest.raises(ValueError, match="do not commute on x, they differ by"):
        call(direct_product(turn, turn), np.array([[1, 2]]))
    call(direct_product(turn, on_sets(symmetric(2))), np.array([[[1, 2], [3, 5]]]))


def test_a_traced_element_outside_of_the_group_gives_no_number():
    action = on_lattices(cyclic(4))
    x = np.arange(1, 10).reshape(1, 3, 3)
    moved = jax.jit(action)
    for g in (4, 17, -1):
        assert jnp.isnan(moved(g, x.astype(float))).all()
        assert (moved(g, x) == np.iinfo(int).min).all()
        assert (moved(g, x.astype(np.uint8)) == 255).all()
        assert moved(g, x > 5).all()
    many = jax.vmap(action, in_axes=(0, None))(jnp.arange(-1, 5), x.astype(float))
    assert jnp.isnan(many).all((1, 2, 3)).tolist() == [True, *4 * [False], True]
    np.testing.assert_array_equal(many[1:5], orbit(action, x))


@pytest.mark.slow
@pytest.mark.parametrize("x64", [True, False])
def test_nothing_is_promoted_implicitly_and_no_nan_appears(x64):
    x = np.ones((1, 2, 2), np.float32)
    both = direct_product(on_sets(symmetric(2)), on_vectors(cyclic(2)))
    cases = [(on_lattices(cyclic(4)), x), (on_images(cyclic(3)), x[..., None]), (both, x)]
    cases += [(on_channels(cyclic(2)), x.astype(np.uint8)), (on_vectors(cyclic(2)), x.astype(np.float16))]
    with contextlib.ExitStack() as settings:
        for setting in (
            jax.enable_x64(x64),
            jax.numpy_dtype_promotion("strict"),
            jax.numpy_rank_promotion("raise"),
            jax.debug_nans(True),
        ):
            settings.enter_context(setting)
        for action, data in cases:
            moved = jax.vmap(lambda g: action(g, data))(jnp.arange(2))
            np.testing.assert_array_equal(moved[1], action(1, data))
            assert action.defect(data) <= 1 and stabiliser(action, data)[0, 0]
            assert invariant_projection(action, data).shape == data.shape
        assert matrices_of(on_vectors(cyclic(4)), 2).shape == (4, 2, 2)
        if not x64:
            with pytest.raises(ValueError, match="has entries that int32 cannot hold"):
                on_lattices(cyclic(4))(1, 2**40 * np.ones((1, 3, 3), np.int64))
            with pytest.raises(ValueError, match="has entries that float32 cannot hold"):
                on_lattices(cyclic(4))(1, 1e300 * np.ones((1, 3, 3)))


def test_on_sets_of_a_direct_product_permutes_two_sets_side_by_side():
    group = product_group(symmetric(2), symmetric(3))
    x = normal(13, 1, 5)
    for g, h in itertools.product(range(2), range(6)):
        expected = [on_sets(symmetric(2))(g, x[:, :2]), on_sets(symmetric(3))(h, x[:, 2:])]
        np.testing.assert_array_equal(on_sets(group)(6 * g + h, x), np.concatenate(expected, axis=1))


@pytest.mark.parametrize("elements", [[], [1], [2, 4], [5]])
def test_an_action_restricted_to_a_subgroup_moves_as_its_elements_do(elements):
    action, x = on_lattices(dihedral(4)), normal(14, 1, 3, 3)
    part = action.restricted(elements)
    kept = action.group.closure(elements)
    assert part.group == action.group.subgroup(elements) and part.defect(x) == 0
    np.testing.assert_array_equal(orbit(part, x), np.asarray(orbit(action, x))[kept])
    for i, g in enumerate(kept):
        np.testing.assert_array_equal(part(i, x), action(int(g), x))


def test_quarter_turns_among_finer_ones_are_exact():
    quarter = on_images(cyclic(8).subgroup([2]))
    x = normal(15, 1, 3, 3, 1)
    assert quarter.exact and quarter.group == cyclic(4)
    np.testing.assert_array_equal(orbit(quarter, x), orbit(on_images(cyclic(4)), x))
