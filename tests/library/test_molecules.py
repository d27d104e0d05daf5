"""Densities by what they are sums of and how they turn; the kernels against sums over pairs of atoms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nteq import _lanes, molecules
from nteq.actions import matrices_of, on_harmonics, on_vectors, orbit
from nteq.averages import orbit_average
from nteq.gradient_flow import GradientFlow
from nteq.groups import icosahedral, octahedral, tetrahedral, with_inversion
from nteq.harmonics import spherical_harmonics, wigner_matrices
from nteq.kernels import mlp_kernel
from nteq.molecules import densities, molecule_kernel, power_spectrum_kernel, radial_functions

SPECIES = 4
NUMBERS = np.array([[6, 8, 1, 7, 1], [8, 6, 6, 1, 0], [6, 1, 1, 1, 9], [7, 1, 1, 1, 0], [6, 6, 8, 7, 1]])


def places(seed, n=5, atoms=5):
    """Random atoms that are more than 0.8 Å apart."""
    draw, found = np.random.default_rng(seed), []
    while len(found) < n:
        x = draw.uniform(-1.7, 1.7, (atoms, 3))
        if np.linalg.norm(x[:, None] - x, axis=-1)[np.triu_indices(atoms, 1)].min() > 0.8:
            found.append(x)
    return np.array(found)


def inputs(seed, n=5, degree=2, channels=3, atoms=3):
    """Arrays as densities makes them, of random numbers."""
    draw = np.random.default_rng(seed)
    x = np.zeros((n, atoms, SPECIES + channels, (degree + 1) ** 2))
    x[:, :, SPECIES:] = draw.normal(size=(n, atoms, channels, (degree + 1) ** 2))
    kinds = draw.integers(0, SPECIES + 1, (n, atoms))
    kinds[:, 0] %= SPECIES  # no molecule without an atom
    x[..., :SPECIES, 0] = kinds[..., None] == np.arange(SPECIES)
    x[kinds == SPECIES] = 0
    return x


def relative(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


# Densities.


def test_densities_are_the_sums_that_they_say():
    x, s = places(0), np.asarray(densities(places(0), NUMBERS, degree=3, smoothing=0.4))
    smear = np.repeat(np.exp(-np.arange(4) * np.arange(1, 5) * 0.4**2 / 2), 2 * np.arange(4) + 1)
    for m, z in enumerate(NUMBERS):
        row = 0
        for i in np.flatnonzero(np.isin(z, (6, 7, 8, 9))):
            found = np.zeros((5, 6, 16))
            for j in np.flatnonzero(z):
                if i != j:
                    apart = x[m, j] - x[m, i]
                    values = np.outer(
                        radial_functions(np.linalg.norm(apart)), smear * spherical_harmonics(apart, 3)
                    )
                    found[(1, 6, 7, 8, 9).index(z[j])] += values
            found *= np.sqrt(found.size / (found**2).sum())
            np.testing.assert_allclose(s[m, row, 4:], found.reshape(30, 16), rtol=1e-10, atol=1e-12)
            kind = np.zeros((4, 16))
            kind[(6, 7, 8, 9).index(z[i]), 0] = 1
            np.testing.assert_array_equal(s[m, row, :4], kind)
            row += 1
        assert not s[m, row:].any()


@pytest.mark.parametrize("mirror", [1, -1])
def test_a_turned_molecule_has_the_turned_densities(mirror):
    turn = mirror * Rotation.random(rng=1).as_matrix()
    moved = densities(places(2) @ turn.T + np.array([3.0, -2.0, 5.0]), NUMBERS, degree=4)
    turned = np.asarray(densities(places(2), NUMBERS, degree=4)) @ wigner_matrices(turn, 4).T
    np.testing.assert_allclose(moved, turned, atol=1e-11)
    group = with_inversion(icosahedral())
    act = on_harmonics(group)
    moved = densities(places(2) @ group.matrices[77].T, NUMBERS)
    np.testing.assert_allclose(act(77, densities(places(2), NUMBERS)), moved, atol=1e-11)


def test_what_stands_where_there_is_no_atom_does_not_matter():
    x, y = places(3), places(3)
    y[NUMBERS == 0] = y[0, 0]
    np.testing.assert_array_equal(densities(x, NUMBERS), densities(y, NUMBERS))
    y[1, 4] = y[1, 0]  # in the middle of a methane the zeros of an empty row are where the carbon is
    some = {"centres": (1, 6, 7, 8, 9)}
    np.testing.assert_array_equal(densities(x, NUMBERS, **some), densities(y, NUMBERS, **some))
    same = densities(x[:, :4], NUMBERS[0, :4])  # one row of numbers for all
    np.testing.assert_array_equal(same, densities(x[:, :4], np.tile(NUMBERS[0, :4], (5, 1))))


def test_densities_have_finite_derivatives_in_jit_too():
    of = jax.jit(jax.grad(lambda x: (densities(x, NUMBERS) ** 3).sum()))
    slope, x, h = of(places(4)), places(4), np.random.default_rng(0).normal(size=(5, 5, 3))
    assert np.isfinite(slope).all()
    value = lambda e: float((densities(x + e * h, NUMBERS) ** 3).sum())
    assert (value(1e-6) - value(-1e-6)) / 2e-6 == pytest.approx(float((slope * h).sum()), rel=1e-6)


# Kernels.


def sum_over_pairs(kernel, x1, x2):
    total = np.zeros((2, len(x1), len(x2)))
    for i in range(x1.shape[1]):
        for j in range(x2.shape[1]):
            same = x1[:, i, :SPECIES, 0] @ x2[:, j, :SPECIES, 0].T
            values = kernel(x1[:, i, SPECIES:], x2[:, j, SPECIES:])
            total += same * np.stack([values.nngp, values.ntk])
    return total


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("depth", [1, 3])
def test_kernel_is_the_sum_over_pairs_of_atoms_of_one_element(activation, depth):
    arguments = depth, activation, 1.3, 0.2
    kernel, plain = molecule_kernel(SPECIES, *arguments), mlp_kernel(*arguments)
    x1, x2 = inputs(0, n=40), inputs(1, n=70, atoms=2)
    for one, two in [(x1, x2), (x2, x2)]:
        expected = sum_over_pairs(plain, one, two)
        assert relative(np.stack(kernel(one, two)), expected) < 1e-14
        assert relative(np.stack(jax.jit(kernel)(one, two)), expected) < 1e-14
    symmetric = np.asarray(kernel(x2, x2).ntk)
    assert relative(symmetric, symmetric.T) < 1e-14


def test_square_activation_is_that_of_a_network_of_squares():
    """Monte Carlo over finite networks in the NTK parameterisation; z-scores."""
    x, d = inputs(2, n=3), 27
    kernel = molecule_kernel(SPECIES, 1, "square", 1.2, 0.3)
    width, draws = 64, 4000
    key = jax.random.split(jax.random.key(0), draws)

    def answer(params, x):
        W, b, v, c = params
        kinds, s = x[..., :SPECIES, 0], x[..., SPECIES:, :].reshape(*x.shape[:2], -1)
        hidden = jnp.einsum("nid,edh->nieh", s, W) * 1.2 / np.sqrt(d) + 0.3 * b
        of_each = (hidden**2 * v).sum(-1) * 1.2 / np.sqrt(width) + 0.3 * c
        return (kinds * of_each).sum((1, 2))

    def values(key):
        a, b, c, e = jax.random.split(key, 4)
        params = (
            jax.random.normal(a, (SPECIES, d, width)),
            jax.random.normal(b, (SPECIES, width)),
            jax.random.normal(c, (SPECIES, width)),
            jax.random.normal(e, (SPECIES,)),
        )
        f, J = answer(params, x), jax.jacobian(answer)(params, x)
        flat = jnp.concatenate([leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(J)], 1)
        return jnp.stack([jnp.outer(f, f), flat @ flat.T])

    found = np.asarray(jax.lax.map(values, key, batch_size=100))
    z = (found.mean(0) - np.stack(kernel(x, x))) / (found.std(0) / np.sqrt(draws))
    assert np.abs(z).max() < 4.5
    assert (found.std(0) / np.sqrt(draws) < 0.05 * np.stack(kernel(x, x)).max((1, 2), keepdims=True)).all()


@pytest.mark.parametrize("group", [tetrahedral(), with_inversion(octahedral()), icosahedral()], ids=str)
def test_all_images_at_once_are_one_after_the_other(group):
    kernel, act = molecule_kernel(SPECIES, 2, "relu", 1.3, 0.2), on_harmonics(group)
    x1, x2 = inputs(3, n=4), inputs(4, n=40, atoms=2)
    for one, two in [(x1, x2), (x2, x2)]:
        values = [np.stack(kernel(one, act(g, two))) for g in range(group.order)]
        together = np.stack(kernel.orbit_values(one, two, act))
        assert relative(together, np.stack(values, -1)) < 1e-14
        labels = matrices_of(on_vectors(group), 3)
        for average, expected in [
            (orbit_average(kernel, act), np.mean(values, 0)),
            (orbit_average(kernel, act, labels), np.einsum("gkij,gab->kijab", values, labels) / group.order),
        ]:
            assert relative(np.stack(average(one, two)), expected) < 1e-13
            assert relative(np.stack(jax.jit(average)(one, two)), expected) < 1e-13


def test_another_action_goes_one_after_the_other():
    group = tetrahedral()
    turn = on_harmonics(group)
    mine = type(turn)(group, lambda g, x: turn.act(g, x), name="mine")
    kernel, x = molecule_kernel(SPECIES), inputs(5)
    expected = orbit_average(kernel, turn)(x, x).ntk
    assert relative(orbit_average(kernel, mine)(x, x).ntk, expected) < 1e-13


@pytest.mark.parametrize("t", [0.7, np.inf])
@pytest.mark.parametrize("vectors", [False, True])
def test_augmented_flow_is_that_of_the_images_written_out(t, vectors):
    group = tetrahedral()
    act, turn = on_harmonics(group), on_vectors(group) if vectors else None
    kernel = molecule_kernel(SPECIES, 1, "relu", 2**0.5, 0.1)
    x, x_test = jnp.asarray(inputs(6, n=4)), jnp.asarray(inputs(7, n=3))
    y = np.random.default_rng(8).normal(size=(4, 3) if vectors else (4,))
    flow = GradientFlow.augmented(kernel, x, y, act, turn, ridge=1e-3)
    many = jnp.concatenate(list(orbit(act, x)))
    labels = np.concatenate(list(orbit(turn, y)) if vectors else [y] * group.order)
    whole = GradientFlow(kernel, many, labels, ridge=1e-3)
    assert relative(flow.mean(x_test, t), whole.mean(x_test, t)) < 1e-10
    assert relative(flow.covariance(x_test, t), whole.covariance(x_test, t)) < 1e-9
    moved = flow.mean(act(5, x_test), t)
    expected = flow.mean(x_test, t) if turn is None else turn(5, flow.mean(x_test, t))
    assert relative(moved, expected) < 1e-10
    assert relative(flow.variance(x_test, t), whole.variance(x_test, t)) < 1e-9


def test_the_closed_form_is_the_average_over_the_icosahedral_group_for_degree_2():
    """And over the octahedral one it is not, nor for degree 3, where u² has degree 6."""
    for degree, group, exact in [
        (1, octahedral(), True),
        (2, icosahedral(), True),
        (2, octahedral(), False),
        (3, icosahedral(), False),
    ]:
        kernel = molecule_kernel(SPECIES, 1, "square", 1.3, 0.4)
        x1, x2 = inputs(9, degree=degree), inputs(10, degree=degree)
        average = np.stack(orbit_average(kernel, on_harmonics(group))(x1, x2))
        apart = relative(average, np.stack(power_spectrum_kernel(SPECIES, 1.3, 0.4)(x1, x2)))
        assert apart < 1e-14 if exact else apart > 1e-3


def test_the_closed_form_is_invariant_under_any_rotation_and_mirror_image():
    kernel = power_spectrum_kernel(SPECIES, 1.3, 0.4)
    s, z = places(11), NUMBERS
    turn = -Rotation.random(rng=2).as_matrix()
    one, two = densities(s, z, degree=4), densities(s @ turn.T, z, degree=4)
    assert relative(np.stack(kernel(one, two)), np.stack(kernel(one, one))) < 1e-13
    plain = molecule_kernel(SPECIES)
    assert relative(plain(one, two).ntk, plain(one, one).ntk) > 0.01


def test_kernels_do_not_see_the_order_of_the_atoms_and_add_up_over_molecules():
    x, order = places(12), [4, 2, 0, 1, 3]
    one, two = densities(x, NUMBERS), densities(x[:, order], NUMBERS[:, order])
    far = np.concatenate([x[:2], x[2:4] + 100.0], 1)  # two molecules as one
    both = densities(far, np.concatenate([NUMBERS[:2], NUMBERS[2:4]], 1))
    for kernel in (molecule_kernel(SPECIES), power_spectrum_kernel(SPECIES, 1.0, 0.3)):
        assert relative(kernel(one, two).ntk, kernel(one, one).ntk) < 1e-13
        apart = kernel(one, one[:2]).ntk + kernel(one, one[2:4]).ntk
        assert relative(kernel(one, both).ntk, apart) < 1e-13


def test_a_group_average_is_positive_and_a_quadrature_that_is_no_group_is_not():
    x, kernel = inputs(13, n=60, channels=2, atoms=1), molecule_kernel(SPECIES)
    some = Rotation.random(60, rng=3).as_matrix()

    def average(matrices):
        D = wigner_matrices(matrices, 2)
        total = sum(np.asarray(kernel(x, x @ d.T).ntk) for d in D) / len(D)
        return np.linalg.eigvalsh((total + total.T) / 2)

    group = average(icosahedral().matrices)
    assert group[0] > -1e-12 * group[-1]
    others = average(some)
    assert others[0] < -1e-3 * others[-1]


def test_half_of_a_symmetric_matrix_is_computed(monkeypatch):
    counts, compute = [], _lanes.on_all_cores
    monkeypatch.setattr(
        molecules._lanes,
        "on_all_cores",
        lambda piece, n, device: (counts.append(n), compute(piece, n, device))[1],
    )
    x, act = inputs(14, n=5 * molecules._TOGETHER, channels=1, atoms=1, degree=1), on_harmonics(tetrahedral())
    kernel = molecule_kernel(SPECIES)
    average = orbit_average(kernel, act, check=True)
    kernel(x, x)
    kernel(x, x.copy())
    assert counts == [15, 25]
    counts.clear()
    average(x, x)
    assert counts[-1] == 15
    counts.clear()
    GradientFlow.augmented(kernel, x, np.ones(len(x)), act, check=False)
    assert counts == [15]


def test_derivatives_of_kernels_are_finite_at_equal_molecules_and_no_atoms():
    x = jnp.asarray(inputs(15, n=3))
    for kernel in (
        molecule_kernel(SPECIES, 2),
        molecule_kernel(SPECIES, 1, "erf"),
        power_spectrum_kernel(SPECIES),
    ):
        slope = jax.grad(lambda x, kernel=kernel: (kernel(x, x).ntk ** 2).sum())(x)
        h = np.random.default_rng(1).normal(size=x.shape) * (np.asarray(x) != 0)
        h[..., :SPECIES, :] = 0
        assert np.isfinite(slope).all()
        value = lambda e, kernel=kernel, h=h: float((kernel(x + e * h, x + e * h).ntk ** 2).sum())
        assert (value(1e-5) - value(-1e-5)) / 2e-5 == pytest.approx(float((slope * h).sum()), rel=1e-6)


def test_single_precision_is_right_to_its_rounding():
    x = inputs(16, n=6)
    for kernel in (molecule_kernel(SPECIES, 2, "relu", 1.4), power_spectrum_kernel(SPECIES, 1.4)):
        single = kernel(x.astype(np.float32), x.astype(np.float32))
        assert single.ntk.dtype == np.float32
        assert relative(single.ntk, kernel(x, x).ntk) < 2e-5


def test_kernels_are_values():
    assert molecule_kernel(4) == molecule_kernel(4, 1, "relu") != molecule_kernel(3)
    assert power_spectrum_kernel(4, 1.0) == power_spectrum_kernel(4) != power_spectrum_kernel(4, 2.0)
    x = inputs(17)
    slope = jax.grad(lambda w: molecule_kernel(SPECIES, 1, "square", w)(x, x).ntk.sum())(1.2)
    value = lambda w: float(molecule_kernel(SPECIES, 1, "square", w)(x, x).ntk.sum())
    assert float(slope) == pytest.approx((value(1.2 + 1e-6) - value(1.2 - 1e-6)) / 2e-6, rel=1e-7)


WATER = np.array([[[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: densities(np.zeros((1, 3, 3)), [8, 1, 1]),
            "atoms 0 and 1 of molecule 0 are at the same place",
        ),
        (lambda: densities(0.1 * WATER, [8, 1, 1]), "0.0962 Å apart.*another unit"),
        (lambda: densities(WATER, [8, 1, 15]), "atom 2 of molecule 0 has the atomic number 15"),
        (lambda: densities(WATER, [8, 0, 0]), "fewer than two atoms"),
        (lambda: densities(WATER[:, :1], [8]), "fewer than two atoms"),
        (lambda: densities(WATER, [1, 1, 1]), "no atom of the elements"),
        (lambda: densities(np.full((1, 3, 3), np.nan), [8, 1, 1]), "not finite"),
        (lambda: densities(WATER, [8, 1]), r"integers of shape \(1, 3\)"),
        (lambda: densities(WATER, [8.0, 1.0, 1.0]), "integers of shape"),
        (lambda: densities(WATER[0], [8, 1, 1]), "positions must have shape"),
        (lambda: densities(100 * WATER, [8, 1, 1]), "atom 0 of molecule 0 sees no other"),
        (lambda: densities(WATER, [8, 1, 1], centres=[]), "centres must be atomic numbers"),
        (lambda: densities(WATER, [8, 1, 1], neighbours=[1, 1]), "each element once"),
        (lambda: densities(WATER, [8, 1, 1], radial=lambda r: r), "radial must turn distances"),
        (lambda: densities(WATER, [8, 1, 1], degree=-1), "degree must be an integer of at least 0"),
        (lambda: densities(WATER, [8, 1, 1], smoothing=-1), "smoothing must be not negative"),
        (lambda: molecule_kernel(0), "species must be an integer of at least 1"),
        (lambda: molecule_kernel(4, activation="tanh"), "activation must be 'relu', 'erf' or 'square'"),
        (
            lambda: molecule_kernel(4)(np.ones((2, 3, 4, 9)), np.ones((2, 3, 4, 9))),
            "at least one channel more",
        ),
        (lambda: molecule_kernel(4)(np.ones((2, 3, 5, 8)), np.ones((2, 3, 5, 8))), "as densities makes it"),
        (
            lambda: molecule_kernel(4)(np.ones((2, 3, 5, 9)), np.ones((2, 3, 6, 9))),
            "same channels and degree",
        ),
        (
            lambda: molecule_kernel(4)(1e200 * np.ones((2, 3, 5, 9)), np.ones((2, 3, 5, 9))),
            "float64 cannot hold",
        ),
        (
            lambda: power_spectrum_kernel(4)(1e200 * np.ones((2, 3, 5, 9)), np.ones((2, 3, 5, 9))),
            "power_spectrum_kernel: the kernel has values that float64 cannot hold",
        ),
        (lambda: radial_functions(-1.0), "must not be negative"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_too_many_molecules_are_refused_before_they_are_allocated(monkeypatch):
    monkeypatch.setattr(molecules._checks, "memory_of", lambda device: 1e3)
    with pytest.raises(MemoryError, match=r"1 molecules take .* GB and 1e-06 GB are allowed"):
        densities(WATER, [8, 1, 1])
