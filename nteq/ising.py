r"""The two-dimensional Ising model on an L × L lattice with periodic boundary.

Spins are ±1 in arrays of shape (n, L, L). Energies are per site and in units of the coupling J, inverse
temperatures β in units of 1/J. The energy is unchanged by every rotation, reflection and translation of
the lattice, which is what makes it a good target for learning a symmetry.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.special import ellipkm1

from nteq import _checks

__all__ = [
    "autocorrelation_time",
    "energy",
    "exact_enumeration",
    "gaussian_lattices",
    "metropolis",
    "onsager_energy",
    "wolff",
]

# The share of allowed moves that the samplers carry out. At 1 they are periodic: at β = 0 every spin flips at
# every sweep, and at any β a stripe does. At 0.9 they forget a start as 0.8^sweeps at β = 0, for an
# autocorrelation time at the critical temperature that is a third longer (at 0.75: more than twice as long).
_CARRIED_OUT = 0.9


def energy(lattices: ArrayLike) -> Array:
    r"""Energy per site in units of J.

    $$E(s) = -\frac{1}{L^2} \sum_{i,j} s_{ij}\,(s_{i+1,j} + s_{i,j+1})$$

    Defined for real lattices too, which is how far-away inputs get a label (Gerken & Kessel 2024, section
    6.1).

    Args:
        lattices: spins, shape (n, L, L) with L ≥ 2.

    Returns:
        Array of shape (n,), in units of J per site; between −2 and 2 for spins ±1.

    Raises:
        ValueError: the shape is not (n, L, L), the batch is empty, an entry is not a finite real number, or
            an energy is too large for the floating-point type.

    >>> energy(jnp.ones((1, 4, 4)))
    Array([-2.], dtype=float32)
    """
    s = _checks.real("energy", "lattices", lattices)
    if s.ndim != 3 or s.shape[1] != s.shape[2] or s.shape[1] < 2 or s.shape[0] == 0:
        raise ValueError(
            f"energy: lattices must have shape (n, L, L) with n ≥ 1 and L ≥ 2, got shape {s.shape}. "
            "Add a leading axis for one lattice: lattice[None]."
        )
    if not _checks.is_known(s):
        return _energy(s)
    energies = _checks.look(lambda: _energy(s))
    if not np.isfinite(energies).all():
        raise ValueError(
            f"energy: the energies of these lattices are too large for {s.dtype}. Scale the lattices down: "
            "half the entries have a quarter of the energy."
        )
    return jnp.asarray(energies)


def metropolis(
    key: Array, n: int, size: int, beta: float, sweeps: int = 1000, start: ArrayLike | None = None
) -> Array:
    r"""N independent Ising lattices by the Metropolis algorithm.

    A proposed flip of one spin is accepted with probability
    $\tfrac{9}{10}\min(1, e^{-\beta\,\Delta E})$, where $\Delta E = 2 s_{ij} \sum_{\text{neighbours}} s$
    (Metropolis et al. 1953). Each chain returns its state after the given number of sweeps, so the samples
    are independent. Sites of one colour of a proper colouring of the lattice do not interact and are updated
    together.

    Each update has detailed balance with respect to Boltzmann's distribution, a flip and its reverse sharing
    the factor 9/10, and so a sweep leaves it stationary. Every subset of the sites of one colour is
    flipped with positive probability, so that one sweep leads from every state to every state: the chain is
    ergodic from every start, at every β (Sokal 1997, section 2). With 1 in the place of 9/10 it is not: at
    β = 0 all spins flip at every sweep, at any β columns that are up and down in turns do.

    Args:
        key: a JAX random key.
        n: the number of lattices (chains), at least 1.
        size: the side L, at least 3.
        beta: the inverse temperature in units of 1/J, one number ≥ 0. The critical one is
            ln(1 + √2)/2 ≈ 0.4407.
        sweeps: updates of every site, at least 1. Near or below the critical temperature large lattices
            need many more to equilibrate, see `autocorrelation_time`; `wolff` needs fewer.
        start: spins ±1 to go on from, shape (n, L, L); random ones if None.

    Returns:
        Spins ±1 as floats, shape (n, L, L).

    Raises:
        ValueError: n, size or sweeps too small or not integers; beta negative, not finite or not a single
            number; a start of another shape or with entries that are not ±1.

    >>> lattices = metropolis(jax.random.key(0), n=2, size=4, beta=0.4, sweeps=10)
    >>> lattices.shape, bool((jnp.abs(lattices) == 1).all())
    ((2, 4, 4), True)
    """
    return _metropolis(*_chains("metropolis", key, n, size, beta, ("sweeps", sweeps), start))


def wolff(
    key: Array, n: int, size: int, beta: float, updates: int = 100, start: ArrayLike | None = None
) -> Array:
    r"""N independent Ising lattices by the Wolff algorithm, which flips whole clusters.

    From a random site, a cluster grows over bonds between equal spins, each opened with probability
    $1 - e^{-2\beta}$, and is flipped with probability 9/10 (Wolff 1989, where it always is). At the critical
    temperature a few such updates do what thousands of Metropolis sweeps of a large lattice do.

    A flip and its reverse share the factor 9/10, so that each update has detailed balance with respect to
    Boltzmann's distribution. A cluster of a single site has positive probability at every finite β, and so
    has leaving it as it is: some L² updates lead from every state to every state, and the chain is ergodic
    from every start. If every cluster is flipped it is not: at β = 0, where clusters are single sites, the
    number of up spins is even and odd in turns, and in the cold nearly the whole lattice is up and down in
    turns.

    Args:
        key: a JAX random key.
        n: the number of lattices (chains), at least 1.
        size: the side L, at least 3.
        beta: the inverse temperature in units of 1/J, ≥ 0. At high temperature clusters are small, and
            `metropolis` is the better choice.
        updates: clusters to grow, at least 1.
        start: spins ±1 to go on from, shape (n, L, L); random ones if None.

    Returns:
        Spins ±1 as floats, shape (n, L, L).

    Raises:
        ValueError: as `metropolis` does.

    >>> lattices = wolff(jax.random.key(0), n=2, size=4, beta=0.44, updates=20)
    >>> lattices.shape, bool((jnp.abs(lattices) == 1).all())
    ((2, 4, 4), True)
    """
    return _wolff(*_chains("wolff", key, n, size, beta, ("updates", updates), start))


def onsager_energy(beta: ArrayLike) -> np.ndarray:
    r"""The exact energy per site of the infinite lattice in units of J, float64.

    $$u = -\coth(2\beta)\Bigl[1 + \frac{2}{\pi}\bigl(2\tanh^2 2\beta - 1\bigr)K(k)\Bigr], \qquad
    k = \frac{2\sinh 2\beta}{\cosh^2 2\beta}$$

    with K the complete elliptic integral of modulus k (Onsager 1944). Accurate to a relative 1e-13.

    Args:
        beta: inverse temperatures in units of 1/J, ≥ 0, of any shape.

    Returns:
        Array of the shape of beta, from 0 at β = 0 to −2; −√2 at the critical temperature.

    Raises:
        ValueError: a beta that is negative or not finite.

    >>> onsager_energy(np.log(1 + 2**0.5) / 2).round(6) == -round(2**0.5, 6)
    np.True_
    """
    beta = np.asarray(beta, dtype=float)
    if not np.isfinite(beta).all() or (beta < 0).any():
        raise ValueError(
            f"onsager_energy: beta must be finite and not negative, in units of 1/J, got {beta}."
        )
    tanh = np.tanh(2 * beta)
    # 1 − k² = (2 tanh² 2β − 1)², which keeps its digits where K diverges
    complement = 2 * tanh**2 - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        bracket = 1 + 2 / np.pi * np.where(complement == 0, 0, complement * ellipkm1(complement**2))
        return np.where(tanh < 0.1, _hot_energy(np.minimum(tanh, 0.1)), -bracket / tanh)


def autocorrelation_time(series: ArrayLike, window: float = 5.0) -> np.ndarray:
    r"""The integrated autocorrelation time of a Markov chain, in steps between recordings.

    $$\tau = \tfrac12 + \sum_{t=1}^{W} \rho(t), \qquad
    \rho(t) = \frac{\langle\delta A_s\,\delta A_{s+t}\rangle}{\langle\delta A^2\rangle},$$

    cut at the smallest W ≥ window · τ(W) (Sokal 1997, section 3). The mean of T recordings has the standard
    error $\sigma\sqrt{2\tau/T}$; τ = ½ for independent ones.

    Args:
        series: recordings in order, shape (steps,) or (steps, chains); the chains are averaged in ρ.
        window: how many τ the sum goes on for, positive.

    Returns:
        A number, as an array of shape ().

    Raises:
        ValueError: fewer than two steps, entries not finite, a window that is not positive, a constant
            series, or one too short: below 20 window · τ steps in all, where the estimate means little.

    >>> noise = np.random.default_rng(0).normal(size=20_000)
    >>> bool(abs(autocorrelation_time(noise) - 0.5) < 0.05)
    True
    """
    _checks.real("autocorrelation_time", "series", series)
    window = _checks.number("autocorrelation_time", "window", window, exclusive=True)
    a = np.asarray(series, dtype=float)
    if a.ndim not in (1, 2) or a.shape[0] < 2 or a.size < 2:
        raise ValueError(
            "autocorrelation_time: series must have shape (steps,) or (steps, chains) and at least two "
            f"steps, got shape {a.shape}."
        )
    if a.min() == a.max():
        raise ValueError("autocorrelation_time: series is constant, so it has no correlations.")
    a = a.reshape(len(a), -1) / np.abs(a).max()  # so that no square leaves the range of numbers
    a = a - a.mean()
    spectrum = np.abs(np.fft.rfft(a, 2 * len(a), axis=0)) ** 2
    covariance = np.fft.irfft(spectrum.mean(1))[: len(a)] / (len(a) - np.arange(len(a)))
    tau = np.cumsum(covariance / covariance[0]) - 0.5
    enough = np.arange(len(a)) >= window * tau
    cut = int(np.argmax(enough)) if enough.any() else len(a) - 1
    if not enough.any() or a.size < 20 * window * max(tau[cut], 0.5):
        raise ValueError(
            f"autocorrelation_time: {a.size} recordings are too few for τ of about {tau[cut]:.0f} steps. "
            f"Record at least {20 * window * max(tau[cut], 0.5):.0f}, or one in several steps only."
        )
    return np.asarray(tau[cut])


def exact_enumeration(size: int) -> tuple[Array, Array]:
    r"""All $2^{L^2}$ lattices of side L with their energies: the oracle for every sampler.

    A Boltzmann mean is $\langle A\rangle = \sum_s A(s)e^{-\beta L^2 E(s)}/\sum_s e^{-\beta L^2 E(s)}$.

    Args:
        size: the side L, from 2 to 4 (4 gives 65,536 states).

    Returns:
        Lattices of shape (2^(L²), L, L) and energies per site in units of J, shape (2^(L²),).

    Raises:
        ValueError: size is not 2, 3 or 4.

    >>> lattices, energies = exact_enumeration(3)
    >>> lattices.shape, float(energies.min())
    ((512, 3, 3), -2.0)
    """
    size = _checks.count(
        "exact_enumeration",
        "size",
        size,
        least=2,
        most=4,
        advice="There are 2^(L²) states, 33 million already at L = 5: sample with metropolis.",
    )
    bits = np.arange(2 ** (size * size))[:, None] >> np.arange(size * size) & 1
    lattices = jnp.asarray((2.0 * bits - 1.0).reshape(-1, size, size))
    return lattices, energy(lattices)


def gaussian_lattices(key: Array, n: int, size: int) -> Array:
    """Lattices of independent standard normal entries: inputs far from every spin configuration.

    Args:
        key: a JAX random key.
        n: the number of lattices, at least 1.
        size: the side L, at least 2.

    Returns:
        Array of shape (n, L, L).

    Raises:
        ValueError: n or size too small or not an integer.

    >>> gaussian_lattices(jax.random.key(0), n=3, size=5).shape
    (3, 5, 5)
    """
    n = _checks.count("gaussian_lattices", "n", n)
    size = _checks.count("gaussian_lattices", "size", size, least=2)
    return jax.random.normal(key, (n, size, size))


@jax.jit
def _energy(s: Array) -> Array:
    return -(s * (jnp.roll(s, -1, 1) + jnp.roll(s, -1, 2))).mean((1, 2))


def _hot_energy(tanh: np.ndarray) -> np.ndarray:
    """Onsager's energy for small tanh 2β, where his formula is a difference of nearly equal numbers.

    1 − √(1 − k²) · 2K(k)/π = 1 − ₂F₁(½, ½; 1; −y) with y = k²/(1 − k²) (Pfaff), summed from its first power.
    """
    y = 4 * tanh**2 * (1 - tanh**2) / (1 - 2 * tanh**2) ** 2
    term, total = np.ones_like(y), np.zeros_like(y)
    for n in range(1, 14):  # y ≤ 0.042: the next one is below 1e-19
        total += term
        term = -term * y * ((2 * n + 1) / (2 * n + 2)) ** 2
    return -tanh * (1 - tanh**2) / (1 - 2 * tanh**2) ** 2 * total


def _colouring(size: int) -> np.ndarray:
    """Masks (colours, L, L) of sites without bonds among them: two colours, three when L is odd."""
    ring = np.arange(size) % 2
    if size % 2:
        ring[-1] = 2
    colours = 2 + size % 2
    return (ring[:, None] + ring) % colours == np.arange(colours)[:, None, None]


def _chains(
    caller: str,
    key: Array,
    n: int,
    size: int,
    beta: float,
    steps: tuple[str, int],
    start: ArrayLike | None,
) -> tuple[Array, Array, Array, int]:
    """A key to walk with, the spins to start from, the inverse temperature and the number of steps."""
    n, size = _checks.count(caller, "n", n), _checks.count(caller, "size", size, least=3)
    number = _checks.count(caller, *steps)
    beta = _checks.number(caller, "beta", beta)
    first, walk = jax.random.split(key)
    shape, dtype = (n, size, size), jnp.zeros(()).dtype
    if start is None:
        spins = jax.random.rademacher(first, shape, dtype=dtype)
    else:
        spins = _checks.real(caller, "start", start)
        known = _checks.is_known(spins)
        if spins.shape != shape or (known and not _checks.look(lambda: (jnp.abs(spins) == 1).all())):
            raise ValueError(f"{caller}: start must be spins ±1 of shape {shape}, got shape {spins.shape}.")
    return walk, spins.astype(dtype), jnp.asarray(beta, dtype), number


@jax.jit
def _metropolis(key: Array, spins: Array, beta: Array, sweeps: int) -> Array:
    masks = jnp.asarray(_colouring(spins.shape[1]))
    # by s · (sum of its neighbours), −4 … 4; powers of a number between 0 and 1 at the coldest, too
    raised = jnp.maximum(jnp.arange(-4, 5), 0).astype(beta.dtype) / 2
    thresholds = _CARRIED_OUT * jnp.exp(-4 * beta) ** raised

    def update(spins: Array, key_and_mask: tuple[Array, Array]) -> tuple[Array, None]:
        key, mask = key_and_mask
        neighbours = sum(jnp.roll(spins, shift, axis) for axis in (1, 2) for shift in (1, -1))
        accept = (
            jax.random.uniform(key, spins.shape, spins.dtype)
            < thresholds[(spins * neighbours + 4).astype(int)]
        )
        return jnp.where(mask[None] & accept, -spins, spins), None

    def sweep(step: Array, spins: Array) -> Array:
        keys = jax.random.split(jax.random.fold_in(key, step), len(masks))
        return jax.lax.scan(update, spins, (keys, masks))[0]

    return jax.lax.fori_loop(0, sweeps, sweep, spins)


@jax.jit
def _wolff(key: Array, spins: Array, beta: Array, updates: int) -> Array:
    n, size, _ = spins.shape
    opened = -jnp.expm1(-2 * beta)

    def update(step: Array, spins: Array) -> Array:
        at, bonds, toss = jax.random.split(jax.random.fold_in(key, step), 3)
        site = jax.random.randint(at, (n, 1, 1), 0, size * size)
        cluster = jnp.arange(size * size).reshape(1, size, size) == site
        coin = jax.random.uniform(bonds, (2, *spins.shape), spins.dtype) < opened
        # the bonds to the next site along both axes
        bond = [coin[axis - 1] & (spins == jnp.roll(spins, -1, axis)) for axis in (1, 2)]

        def grow(state: tuple[Array, Array]) -> tuple[Array, Array]:
            cluster, _ = state
            larger = cluster
            for axis in (1, 2):
                larger |= jnp.roll(cluster & bond[axis - 1], 1, axis)
                larger |= bond[axis - 1] & jnp.roll(cluster, -1, axis)
            return larger, (larger != cluster).any()

        cluster, _ = jax.lax.while_loop(lambda state: state[1], grow, (cluster, jnp.array(True)))
        carried_out = jax.random.uniform(toss, (n, 1, 1), spins.dtype) < _CARRIED_OUT
        return jnp.where(cluster & carried_out, -spins, spins)

    return jax.lax.fori_loop(0, updates, update, spins)
