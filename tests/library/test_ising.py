import jax
import jax.numpy as jnp
import mpmath
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


def by_metropolis(key, n, size, beta, start=None):
    return metropolis(key, n, size, beta, sweeps=200, start=start)


def by_wolff(key, n, size, beta, start=None):
    return wolff(key, n, size, beta, updates=150, start=start)


# starts that a sampler which always accepts may never leave: at β = 0 any of them, at every β the stripes
STARTS = {
    "random": lambda size: None,
    "all up": lambda size: np.ones((size, size)),
    "stripes": lambda size: (-1.0) ** np.arange(size) * np.ones((size, 1)),
    "chequerboard": lambda size: (-1.0) ** np.add.outer(np.arange(size), np.arange(size)),
}


def p_value(observed, expected):
    """Of Pearson's chi-squared statistic, cells in which fewer than five are expected taken together."""
    rare = expected < 5
    o = np.append(observed[~rare], observed[rare].sum())
    e = np.append(expected[~rare], expected[rare].sum())
    assert e[:-1].size > 1
    return chi2.sf(((o - e) ** 2 / np.maximum(e, 1e-9)).sum(), len(o) - 1)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("sampler", [by_metropolis, by_wolff])
@pytest.mark.parametrize(("size", "beta"), [(3, 0.0), (3, 0.3), (4, 0.0), (4, 0.44)])
def test_from_every_start_samplers_draw_from_the_boltzmann_distribution(sampler, size, beta, start):
    states, energies = (np.asarray(a, float) for a in exact_enumeration(size))
    weights = np.asarray(jax.nn.softmax(-beta * size**2 * energies))
    n = 5000
    first = STARTS[start](size)
    first = None if first is None else np.broadcast_to(first, (n, size, size))
    draws = np.asarray(sampler(jax.random.key(7), n, size, beta, first))
    # every single state, where they are few enough to be drawn often
    index = ((draws.reshape(n, -1) > 0) @ (2.0 ** np.arange(size * size))).astype(int)
    observed = np.bincount(index, minlength=len(weights))
    if n * weights.max() >= 5:
        assert p_value(observed, n * weights) > 1e-4
    # energy and magnetisation together, in all cases
    levels = np.stack([energies, states.mean((1, 2))], 1).round(6)
    cell = np.unique(levels, axis=0, return_inverse=True)[1].ravel()
    assert p_value(np.bincount(cell, observed), np.bincount(cell, n * weights)) > 1e-4
    mean = energies @ weights
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


def test_onsagers_energy_is_right_to_the_last_digits_at_every_temperature():
    def exact(beta):
        twice = 2 * mpmath.mpf(beta)
        k = 2 * mpmath.sinh(twice) / mpmath.cosh(twice) ** 2
        elliptic = 2 / mpmath.pi * (2 * mpmath.tanh(twice) ** 2 - 1) * mpmath.ellipk(k**2)
        return -mpmath.coth(twice) * (1 + elliptic)

    beta = [*np.geomspace(1e-12, 10, 120), 1e-8, 0.05016, 0.05017, 0.0607, 0.4406, 0.4407]
    with mpmath.workdps(60):  # the formula loses 24 digits at β = 1e-12
        error = [float(u / exact(float(b)) - 1) for b, u in zip(beta, onsager_energy(beta), strict=True)]
    assert np.abs(error).max() < 1e-13
    assert onsager_energy(1e-8) == -2e-8 and onsager_energy(0.0) == 0


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


def test_autocorrelation_time_ignores_scale_and_type():
    noise = np.random.default_rng(0).normal(size=1000)
    for scale in (1e200, 1e-200):  # whose squares no number can hold
        np.testing.assert_allclose(
            autocorrelation_time(noise * scale), autocorrelation_time(noise), rtol=1e-12
        )
    flips = np.random.default_rng(1).integers(0, 2, 1000)
    for kind in (bool, np.uint8, jnp.bfloat16):
        np.testing.assert_allclose(
            autocorrelation_time(flips.astype(kind)), autocorrelation_time(flips.astype(float)), rtol=1e-12
        )


def test_a_chain_goes_on_from_its_start():
    n, size = 200, 5
    start = metropolis(jax.random.key(0), n, size, 0.3, sweeps=3)
    hot = np.asarray(metropolis(jax.random.key(1), n, size, 0.0, sweeps=1, start=start))
    flipped = (hot == -np.asarray(start)).mean()  # at β = 0 nine proposals in ten are accepted
    assert abs(flipped - 0.9) < 4 * (0.9 * 0.1 / hot.size) ** 0.5
    cold = jnp.ones((n, size, size))
    assert (metropolis(jax.random.key(2), n, size, 20.0, sweeps=5, start=cold) == cold).all()
    after = np.asarray(wolff(jax.random.key(2), n, size, 20.0, updates=5, start=cold))
    assert (after == after[:, :1, :1]).all()  # clusters are whole lattices
    down = (1 - (-0.8) ** 5) / 2  # and an odd number of five flips, with probability 9/10 each, is done
    assert abs((after[:, 0, 0] < 0).mean() - down) < 4 * (down * (1 - down) / n) ** 0.5


@pytest.mark.parametrize("kind", [int, np.uint8, bool, jnp.bfloat16, np.float16])
def test_energies_of_integers_booleans_and_half_precision_are_those_of_floats(kind):
    spins = np.random.default_rng(0).integers(0, 2, (3, 5, 5))
    energies = energy(spins.astype(kind))
    assert energies.dtype in (jnp.float32, jnp.float64)
    np.testing.assert_allclose(energies, [energy_bond_by_bond(s) for s in spins.astype(float)], rtol=1e-6)


def test_an_energy_that_float32_cannot_hold_is_refused_and_a_large_one_is_not():
    with pytest.raises(ValueError, match="too large for float32"):
        energy(jnp.full((1, 3, 3), 1e30, jnp.float32))
    np.testing.assert_allclose(energy(jnp.full((1, 3, 3), 1e15, jnp.float32)), -2e30, rtol=1e-6)


@pytest.mark.parametrize("sampler", [metropolis, pytest.param(wolff, marks=pytest.mark.slow)])
def test_the_inverse_temperature_may_be_traced_and_of_any_numeric_type(sampler):
    draw = lambda beta: sampler(jax.random.key(0), 20, 4, beta, 5)
    expected = draw(0.5)
    for beta in (np.float32(0.5), jnp.float32(0.5), jnp.array(0.5), np.array(0.5)):
        np.testing.assert_array_equal(draw(beta), expected)
        np.testing.assert_array_equal(jax.jit(draw)(beta), expected)
    np.testing.assert_array_equal(draw(1), draw(1.0))
    several = jax.vmap(draw)(jnp.array([0.1, 0.5]))
    np.testing.assert_array_equal(several[1], expected)
    # inside of a trace around it, with everything known
    np.testing.assert_array_equal(jax.jit(lambda c: c * draw(0.5))(2.0), 2 * expected)
    assert (draw(1e300) == draw(1e3)).all()  # as cold as it gets, not NaN


def test_known_lattices_are_looked_at_inside_of_a_trace():
    spins = np.ones((1, 3, 3))
    assert jax.jit(lambda w: w * energy(spins))(3.0) == -6
    with pytest.raises(ValueError, match="not finite"):
        jax.jit(lambda w: w * energy(spins * np.nan))(3.0)
    start = jax.jit(lambda w: w * metropolis(jax.random.key(0), 1, 3, 20.0, 1, spins))(3.0)
    np.testing.assert_array_equal(start, 3 * spins)
    with pytest.raises(ValueError, match="spins ±1"):
        jax.jit(lambda w: w * metropolis(jax.random.key(0), 1, 3, 1.0, 1, 2 * spins))(3.0)
    np.testing.assert_array_equal(
        jax.jit(lambda s: metropolis(jax.random.key(0), 1, 3, 20.0, 1, s))(spins), spins
    )


@pytest.mark.slow
@pytest.mark.parametrize("wide", [True, False])
def test_works_with_strict_promotion_in_both_precisions(wide):
    with (
        jax.enable_x64(wide),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        spins = metropolis(jax.random.key(0), 2, 3, 0.0, 2)
        spins = wolff(jax.random.key(0), 2, 3, 0.4, 2, start=np.asarray(spins, np.int8))
        assert energy(spins).dtype == spins.dtype == (jnp.float64 if wide else jnp.float32)
        assert energy(np.ones((1, 3, 3), int))[0] == exact_enumeration(3)[1].min() == -2
        assert gaussian_lattices(jax.random.key(0), 2, 3).dtype == spins.dtype


@pytest.mark.parametrize("sampler", [metropolis, wolff])
def test_samplers_take_keys_of_every_generator(sampler):
    for key in (jax.random.key(0, impl="rbg"), jax.random.PRNGKey(0)):
        assert (jnp.abs(sampler(key, 2, 3, 0.4, 2)) == 1).all()


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
        (
            lambda: metropolis(jax.random.key(0), 1, 4, -0.4),
            "metropolis: beta must be not negative and finite, got -0.4",
        ),
        (lambda: metropolis(jax.random.key(0), 1, 4, np.nan), "beta must be not negative and finite"),
        (
            lambda: metropolis(jax.random.key(0), 1, 4, [0.1, 0.4]),
            r"beta must be .*a single number, got shape \(2,\)",
        ),
        (
            lambda: wolff(jax.random.key(0), 1, 4, jnp.ones(1)),
            r"wolff: beta must be .*a single number, got shape \(1,\)",
        ),
        (lambda: wolff(jax.random.key(0), 1, 4, True), "beta must be .*got True"),
        (lambda: metropolis(jax.random.key(0), 1, 4, "cold"), "beta must be .*got 'cold'"),
        (lambda: metropolis(jax.random.key(0), 1.0, 4, 0.4), "n must be an integer of at least 1, got 1.0"),
        (
            lambda: metropolis(jax.random.key(0), 1, 4, 0.4, start=1j * np.ones((1, 4, 4))),
            "start must hold real",
        ),
        (lambda: metropolis(jax.random.key(0), 1, 4, 0.4, sweeps=0), "sweeps must be"),
        (lambda: metropolis(jax.random.key(0), 1, 4, 0.4, start=np.ones((1, 5, 5))), r"shape \(1, 4, 4\)"),
        (lambda: wolff(jax.random.key(0), 1, 4, 0.4, start=np.zeros((1, 4, 4))), "spins ±1"),
        (lambda: wolff(jax.random.key(0), 1, 4, 0.4, updates=0), "updates must be"),
        (lambda: wolff(jax.random.key(0), 1, 4, np.inf), "beta must be not negative and finite"),
        (lambda: onsager_energy(-0.1), "beta must be finite and not negative"),
        (lambda: autocorrelation_time([1.0]), "at least two"),
        (lambda: autocorrelation_time(np.full(100, 0.1)), "constant"),
        (
            lambda: autocorrelation_time(np.append(np.arange(50.0), np.nan)),
            "series has entries that are not finite",
        ),
        (lambda: autocorrelation_time(np.arange(50.0), window=0), "window must be positive"),
        (lambda: energy(1j * np.ones((1, 4, 4))), "lattices must hold real numbers"),
        (lambda: autocorrelation_time(np.arange(50.0)), "too few"),
        (lambda: exact_enumeration(5), "size must be at most 4, got 5.*33 million"),
        (lambda: exact_enumeration(True), "size must be an integer"),
        (lambda: gaussian_lattices(jax.random.key(0), 1, 1), "size must be"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
