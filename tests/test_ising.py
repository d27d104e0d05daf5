import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from nteq.actions import on_lattices, orbit
from nteq.groups import cyclic
from nteq.ising import energy, exact_enumeration, gaussian_lattices, metropolis


def energy_bond_by_bond(lattice):
    size = len(lattice)
    bonds = [
        ((i, j), n)
        for i in range(size)
        for j in range(size)
        for n in [((i + 1) % size, j), (i, (j + 1) % size)]
    ]
    return -sum(lattice[a] * lattice[b] for a, b in bonds) / size**2


def test_energy_is_the_sum_over_bonds_and_invariant():
    lattices = np.random.default_rng(0).normal(size=(5, 6, 6))
    np.testing.assert_allclose(energy(lattices), [energy_bond_by_bond(s) for s in lattices], rtol=1e-12)
    for image in orbit(on_lattices(cyclic(4)), lattices):
        np.testing.assert_allclose(energy(image), energy(lattices), rtol=1e-12)


def test_enumeration_counts_what_is_known():
    lattices, energies = exact_enumeration(4)
    assert len(np.unique(np.asarray(lattices).reshape(65536, 16), axis=0)) == 65536
    # the 4 x 4 torus: 2 ground states and 32 states of one flipped spin (Kaufman 1949's partition function)
    levels, counts = np.unique(np.asarray(energies) * 16, return_counts=True)
    assert dict(zip(levels.round().astype(int).tolist(), counts.tolist(), strict=True)) == {
        -32: 2, -24: 32, -20: 64, -16: 424, -12: 1728, -8: 6688, -4: 13568, 0: 20524,
        4: 13568, 8: 6688, 12: 1728, 16: 424, 20: 64, 24: 32, 32: 2,
    }  # fmt: skip


@pytest.mark.parametrize(("size", "beta"), [(3, 0.3), (4, 0.2), (4, 0.44), (4, 0.0)])
def test_metropolis_draws_from_the_boltzmann_distribution(size, beta):
    _, energies = exact_enumeration(size)
    weights = np.asarray(jax.nn.softmax(-beta * size**2 * energies))
    n = 20_000
    draws = metropolis(jax.random.key(7), n, size, beta, sweeps=300)
    # every single state that is expected at least five times, and the rest together
    index = np.asarray((draws.reshape(n, -1) > 0) @ (2.0 ** np.arange(size * size))).astype(int)
    observed, expected = np.bincount(index, minlength=len(weights)), n * weights
    frequent = expected >= 5
    if frequent.any():
        o, e = (
            np.append(observed[frequent], observed[~frequent].sum()),
            np.append(expected[frequent], expected[~frequent].sum()),
        )
        statistic = ((o - e) ** 2 / np.maximum(e, 1e-9)).sum()
        assert chi2.sf(statistic, len(o) - 1) > 1e-4
    mean = float(energies @ weights)
    z = (float(energy(draws).mean()) - mean) / (float(energy(draws).std()) / n**0.5)
    assert abs(z) < 4


def test_the_same_key_gives_the_same_lattices_and_another_key_others():
    draw = lambda seed: metropolis(jax.random.key(seed), 3, 4, 0.4, 5)
    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).any()


def test_gaussian_lattices_are_standard_normal():
    x = np.asarray(gaussian_lattices(jax.random.key(0), 4000, 5)).ravel()
    assert abs(x.mean()) < 4 / x.size**0.5 and abs(x.var() - 1) < 4 * (2 / x.size) ** 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy(np.ones((4, 4))), r"\(n, L, L\)"),
        (lambda: energy(np.ones((1, 4, 5))), r"\(1, 4, 5\)"),
        (lambda: energy(np.ones((0, 4, 4))), "n ≥ 1"),
        (lambda: energy(jnp.full((1, 4, 4), jnp.inf)), "not finite"),
        (lambda: metropolis(jax.random.key(0), 0, 4, 0.4), "n must be an integer of at least 1, got 0"),
        (lambda: metropolis(jax.random.key(0), 1, 2, 0.4), "size must be an integer of at least 3"),
        (lambda: metropolis(jax.random.key(0), 1, 4, -0.4), "beta must be finite and not negative"),
        (lambda: metropolis(jax.random.key(0), 1, 4, np.nan), "beta must be finite"),
        (lambda: metropolis(jax.random.key(0), 1, 4, 0.4, sweeps=0), "sweeps must be"),
        (lambda: exact_enumeration(5), "33 million"),
        (lambda: gaussian_lattices(jax.random.key(0), 1, 1), "size must be"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
