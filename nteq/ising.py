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

__all__ = ["energy", "exact_enumeration", "gaussian_lattices", "metropolis"]


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
        ValueError: the shape is not (n, L, L), the batch is empty, or an entry is not finite.

    >>> energy(jnp.ones((1, 4, 4)))
    Array([-2.], dtype=float32)
    """
    s = jnp.asarray(lattices)
    if s.ndim != 3 or s.shape[1] != s.shape[2] or s.shape[1] < 2 or s.shape[0] == 0:
        raise ValueError(
            f"energy: lattices must have shape (n, L, L) with n ≥ 1 and L ≥ 2, got shape {s.shape}. "
            "Add a leading axis for one lattice: lattice[None]."
        )
    if not isinstance(s, jax.core.Tracer) and not jnp.isfinite(s).all():
        raise ValueError("energy: lattices has entries that are not finite.")
    s = s if jnp.issubdtype(s.dtype, jnp.floating) else s.astype(jnp.float32)
    return -(s * (jnp.roll(s, -1, 1) + jnp.roll(s, -1, 2))).mean((1, 2))


def metropolis(key: Array, n: int, size: int, beta: float, sweeps: int = 1000) -> Array:
    r"""N independent Ising lattices by the Metropolis algorithm.

    A proposed flip of one spin is accepted with probability $\min(1, e^{-\beta\,\Delta E})$, where
    $\Delta E = 2 s_{ij} \sum_{\text{neighbours}} s$ (Metropolis et al. 1953). Each chain starts from
    random spins and returns its state after the given number of sweeps, so the samples are independent.
    Sites of one colour of a proper colouring of the lattice do not interact and are updated together.

    Args:
        key: a JAX random key.
        n: the number of lattices (chains), at least 1.
        size: the side L, at least 3.
        beta: the inverse temperature in units of 1/J, ≥ 0. The critical one is ln(1 + √2)/2 ≈ 0.4407.
        sweeps: updates of every site, at least 1. Near or below the critical temperature large lattices
            need many more to equilibrate.

    Returns:
        Spins ±1 as floats, shape (n, L, L).

    Raises:
        ValueError: n, size or sweeps too small or not integers; beta negative or not finite.

    >>> lattices = metropolis(jax.random.key(0), n=2, size=4, beta=0.4, sweeps=10)
    >>> lattices.shape, bool((jnp.abs(lattices) == 1).all())
    ((2, 4, 4), True)
    """
    for name, value, least in [("n", n, 1), ("size", size, 3), ("sweeps", sweeps, 1)]:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"metropolis: {name} must be an integer of at least {least}, got {value!r}.")
    if not np.isfinite(beta) or beta < 0:
        raise ValueError(f"metropolis: beta must be finite and not negative, in units of 1/J, got {beta!r}.")
    return _metropolis(key, int(n), int(size), beta, int(sweeps))


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
    if isinstance(size, bool) or size not in (2, 3, 4):
        raise ValueError(
            f"exact_enumeration: size must be 2, 3 or 4, got {size!r}. There are 2^(L²) states: "
            "33 million already at L = 5. Sample larger lattices with metropolis."
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
    for name, value, least in [("n", n, 1), ("size", size, 2)]:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(
                f"gaussian_lattices: {name} must be an integer of at least {least}, got {value!r}."
            )
    return jax.random.normal(key, (n, size, size))


def _colouring(size: int) -> np.ndarray:
    """Masks (colours, L, L) of sites without bonds among them: two colours, three when L is odd."""
    ring = np.arange(size) % 2
    if size % 2:
        ring[-1] = 2
    colours = 2 + size % 2
    return (ring[:, None] + ring) % colours == np.arange(colours)[:, None, None]


def _metropolis(key, n, size, beta, sweeps):
    masks = jnp.asarray(_colouring(size))
    start, walk = jax.random.split(key)
    spins = jax.random.rademacher(start, (n, size, size), dtype=jnp.zeros(()).dtype)

    def update(spins, key_and_mask):
        key, mask = key_and_mask
        neighbours = sum(jnp.roll(spins, shift, axis) for axis in (1, 2) for shift in (1, -1))
        accept = jax.random.uniform(key, spins.shape) < jnp.exp(-2 * beta * spins * neighbours)
        return jnp.where(mask & accept, -spins, spins), None

    @jax.jit
    def run(spins):
        def sweep(step, spins):
            keys = jax.random.split(jax.random.fold_in(walk, step), len(masks))
            return jax.lax.scan(update, spins, (keys, masks))[0]

        return jax.lax.fori_loop(0, sweeps, sweep, spins)

    return run(spins)
