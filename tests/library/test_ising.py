import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from nteq.actions import on_lattices, orbit
from nteq.groups import cyclic
from nteq.ising import (
    autocorrelation_time,
    energy,
    exact_enumeration,
    gaussian_lattices,
    metropolis,
    onsager_energy,
    wolff,
)


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


def by_metropolis(key, n, size, beta):
    return metropolis(key, n, size, beta, sweeps=300)


def by_wolff(key, n, size, beta):
    return wolff(key, n, size, beta, updates=300)


@pytest.mark.parametrize("sampler", [by_metropolis, by_wolff])
@pytest.mark.parametrize(("size", "beta"), [(3, 0.3), (4, 0.2), (4, 0.44), (4, 0.0)])
def test_samplers_draw_from_the_boltzmann_distribution(sampler, size, beta):
    _, energies = exact_enumeration(size)
    weights = np.asarray(jax.nn.softmax(-beta * size**2 * energies))
    n = 20_000
    draws = sampler(jax.random.key(7), n, size, beta)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "beta"),
    [
        (lambda key, n, size, beta: metropolis(key, n, size, beta, sweeps=60), 0.1),
        (lambda key, n, size, beta: wolff(key, n, size, beta, updates=80), 0.25),
    ],
    ids=["metropolis", "wolff"],
)
def test_samplers_draw_each_of_the_65536_states_as_often_as_boltzmann_says(sampler, beta):
    _, energies = exact_enumeration(4)
    weights = np.asarray(jax.nn.softmax(-beta * 16 * energies))
    n = 1_000_000
    index = np.concatenate(
        [
            np.asarray(
                (sampler(jax.random.key(i), n // 10, 4, beta).reshape(-1, 16) > 0) @ 2.0 ** np.arange(16)
            )
            for i in range(10)
        ]
    ).astype(int)
    observed, expected = np.bincount(index, minlength=65536), n * weights
    # states that are expected fewer than five times are counted together with those of the same energy
    level = np.unique(np.asarray(energies).round(6), return_inverse=True)[1]
    cell = np.where(expected >= 5, 20 + np.arange(65536), level)
    o, e = np.bincount(cell, observed), np.bincount(cell, expected)
    o, e = o[e >= 5], e[e >= 5]
    print(f"{len(e)} cells, {(expected >= 5).sum()} of them single states")
    assert (expected >= 5).mean() > 0.5
    assert chi2.sf(((o - e) ** 2 / e).sum(), len(o) - 1) > 1e-4


def test_the_same_key_gives_the_same_lattices_and_another_key_others():
    draw = lambda seed: metropolis(jax.random.key(seed), 3, 4, 0.4, 5)
    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).any()


def energies_along(sampler, chains, size, beta, steps, burn_in):
    """Energies per site after each step of a sampler, shape (steps, chains)."""
    spins = sampler(jax.random.key(3), chains, size, beta, burn_in, jnp.ones((chains, size, size)))
    series = []
    for step in range(steps):
        spins = sampler(jax.random.fold_in(jax.random.key(4), step), chains, size, beta, 2, spins)
        series.append(np.asarray(energy(spins)))
    return np.array(series)


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "beta"), [(metropolis, 0.3), (wolff, 0.5)])
def test_energies_of_large_lattices_are_onsagers(sampler, beta):
    # 32 sites are many correlation lengths at these temperatures: the finite size shifts less than 1e-6
    series = energies_along(sampler, 64, 32, beta, steps=200, burn_in=500)
    tau = autocorrelation_time(series)
    error = series.std() * np.sqrt(2 * tau / series.size)
    assert abs(series.mean() - onsager_energy(beta)) < 4 * error
    assert error < 1e-3  # or the comparison says nothing


def test_onsagers_energy_integrates_to_the_known_free_energy():
    # ln 2 at β = 0 and 2β far below the critical temperature: −f = ln 2 − ∫ u dβ, with e^(−8β) to come
    beta = np.concatenate([np.linspace(0, 0.4406868, 40001), np.linspace(0.4406868, 3, 40001)[1:]])
    u = onsager_energy(beta)
    free = np.log(2) - np.sum((u[1:] + u[:-1]) / 2 * np.diff(beta))
    assert abs(free - 2 * beta[-1]) < 1e-6
    np.testing.assert_allclose(onsager_energy([0.0, 5.0]), [0.0, -2.0], atol=1e-12)
    # high temperature: u = −2 tanh β (1 + 2 tanh² β + …), by counting closed loops
    v = np.tanh(0.01)
    np.testing.assert_allclose(onsager_energy(0.01), -2 * v - 4 * v**3, atol=30 * v**5)


def test_autocorrelation_time_of_an_autoregressive_process():
    # x ← a x + noise has ρ(t) = aᵗ, so τ = (1 + a)/(1 − a)/2
    rng, a, steps, chains = np.random.default_rng(0), 0.8, 4000, 50
    x = np.zeros((steps, chains))
    for t in range(1, steps):
        x[t] = a * x[t - 1] + rng.normal(size=chains)
    expected = (1 + a) / (1 - a) / 2
    # Sokal's standard error of τ, √((4W + 2)/T) τ with W = 5 τ, and the e^(−5) that the window cuts off
    error = expected * np.sqrt((20 * expected + 2) / x.size)
    assert abs(autocorrelation_time(x[200:]) - expected) < 4 * error + np.exp(-5) * expected


def test_a_chain_goes_on_from_its_start():
    start = metropolis(jax.random.key(0), 4, 6, 0.3, sweeps=3)
    frozen = metropolis(jax.random.key(1), 4, 6, 0.0, sweeps=1, start=start)
    assert (frozen == -start).all()  # at β = 0 every proposal is accepted
    cold = jnp.ones((3, 5, 5))
    assert (metropolis(jax.random.key(2), 3, 5, 20.0, sweeps=5, start=cold) == cold).all()
    flipped = wolff(jax.random.key(2), 3, 5, 20.0, updates=5, start=cold)
    assert (flipped == -cold).all()  # one cluster, flipped an odd number of times


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
        (lambda: metropolis(jax.random.key(0), 1, 4, 0.4, start=np.ones((1, 5, 5))), r"shape \(1, 4, 4\)"),
        (lambda: wolff(jax.random.key(0), 1, 4, 0.4, start=np.zeros((1, 4, 4))), "spins ±1"),
        (lambda: wolff(jax.random.key(0), 1, 4, 0.4, updates=0), "updates must be"),
        (lambda: wolff(jax.random.key(0), 1, 4, np.inf), "beta must be finite"),
        (lambda: onsager_energy(-0.1), "beta must be finite and not negative"),
        (lambda: autocorrelation_time([1.0]), "at least two"),
        (lambda: autocorrelation_time(np.ones(100)), "constant"),
        (lambda: autocorrelation_time(np.arange(50.0)), "too few"),
        (lambda: exact_enumeration(5), "33 million"),
        (lambda: gaussian_lattices(jax.random.key(0), 1, 1), "size must be"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
