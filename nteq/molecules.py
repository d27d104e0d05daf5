r"""Molecules as densities around their atoms, and the kernels of infinite networks that read them.

A density is expanded in functions of the distance times spherical harmonics up to a degree L, so that a
rotation of the molecule acts on the coefficients exactly and linearly, by `nteq.actions.on_harmonics`: no
grid is turned. Each element has a network of its own, which sees the surroundings of one atom, and the
answers of all atoms are added up. So the order of the atoms does not matter, and the energy is extensive.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from nteq import _checks, _lanes
from nteq._nonlinearities import NONLINEARITIES, level, rounding
from nteq._products import einsum, matmul
from nteq.actions import Action, _OnHarmonics
from nteq.harmonics import harmonics_of_directions, power_spectrum
from nteq.kernels import Kernels, _require_squares
from nteq.radial import envelope, gaussian_basis, lengths_and_directions

__all__ = ["densities", "molecule_kernel", "power_spectrum_kernel", "radial_functions"]

_TOGETHER = 32  # molecules of a side in a piece: their intermediate results stay in the cache
_CLOSEST = 0.3  # Å; the shortest bond, that of H₂, has 0.74


def radial_functions(r: ArrayLike, cutoff: float = 5.0) -> Array:
    r"""What `densities` sees of a distance as a rule: six Gaussians, near atoms weighing more.

    $$R_k(r) = u(r)\,r^{-3}\,e^{-(r-r_k)^2/2w^2}, \qquad r_k = 1, 1.4, 1.8, 2.3, 2.9, 3.6\text{ Å}, \quad
    w = 0.3\text{ Å}$$

    with the envelope u of `nteq.radial.envelope`, which is zero from the cutoff on.

    Args:
        r: distances in Å, positive, of any shape (...).
        cutoff: in Å, positive.

    Returns:
        Array of shape (..., 6).

    Raises:
        ValueError: a distance that is negative or not finite, or a cutoff that is not positive.

    >>> [f"{value:.3f}" for value in radial_functions(1.4)]
    ['0.149', '0.362', '0.149', '0.004', '0.000', '0.000']
    """
    r = _checks.real("radial_functions", "r", r)
    values = gaussian_basis(r, np.array([1.0, 1.4, 1.8, 2.3, 2.9, 3.6]), 0.3)
    return values * (envelope(r, cutoff) / r**3)[..., None]


def densities(
    positions: ArrayLike,
    numbers: ArrayLike,
    degree: int = 2,
    radial: Callable[[Array], Array] = radial_functions,
    centres: Sequence[int] = (6, 7, 8, 9),
    neighbours: Sequence[int] = (1, 6, 7, 8, 9),
    smoothing: float = 0.3,
) -> Array:
    r"""The surroundings of each atom of molecules, one density for each element, as harmonic coefficients.

    $$s_{i,(e,k),\ell m} \propto e^{-\ell(\ell+1)w^2/2}\sum_{j\ne i,\;z_j=e}R_k(r_{ij})\,Y_{\ell m}(d_{ij})$$

    with the distance $r_{ij}$ and direction $d_{ij}$ from atom i to atom j: points of weight $R_k$ on the
    sphere around atom i, each smeared out over an angle w by the heat kernel of the sphere, and expanded up
    to a degree. What the expansion cuts off is all finer detail; what is left turns exactly, by
    `nteq.actions.on_harmonics`. Each atom's density is normalised, $|s_i|^2 = d$ for d coefficients.

    Args:
        positions: in Å, shape (n, atoms, 3); what stands in rows without an atom does not matter.
        numbers: atomic numbers, shape (n, atoms) or, if all molecules are of the same atoms, (atoms,); 0
            where a molecule has no more atoms.
        degree: L, the largest degree of the spherical harmonics, at least 0.
        radial: a function of distances, shape (...), to R, shape (..., K).
        centres: the elements whose atoms are looked from: the `species` of the kernels, in this order.
        neighbours: the elements that are seen, in this order.
        smoothing: the angle w in radians, not negative.

    Returns:
        Array of shape (n, centres, species + d/(L + 1)², (L + 1)²), as `molecule_kernel` reads it: of atom i
        the first channels say in their coefficient of degree 0 which species it is of, one of them 1, and
        the others hold the densities, element by element. As many rows as the molecule with most centres
        has, in their order; zeros in rows without an atom.

    Raises:
        ValueError: shapes that do not fit, positions that are not finite, an element that is neither among
            centres nor neighbours, a molecule of one atom or without a centre, two atoms at one place or
            nearer than 0.3 Å (are they in another unit?), or an atom that sees no other.
        MemoryError: before anything is allocated, if the result would take more than the memory there is.

    >>> water = np.array([[[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]])
    >>> s = densities(water, [8, 1, 1])
    >>> s.shape, s[0, 0, :4, 0].tolist()  # one centre, an oxygen
    ((1, 1, 34, 9), [0.0, 0.0, 1.0, 0.0])
    """
    degree = _checks.count("densities", "degree", degree, least=0)
    smoothing = _checks.number("densities", "smoothing", smoothing)
    x = _checks.batch("densities", "positions", positions)
    z = np.asarray(numbers)
    if x.ndim != 3 or x.shape[2] != 3:
        raise ValueError(f"densities: positions must have shape (n, atoms, 3), got {x.shape}.")
    if z.ndim not in (1, 2) or z.dtype.kind not in "iu" or z.shape[-1] != x.shape[1]:
        raise ValueError(
            f"densities: numbers must be integers of shape {x.shape[:2]} or ({x.shape[1]},), as positions "
            f"have it, got {z.dtype} of shape {z.shape}."
        )
    z = np.broadcast_to(z, x.shape[:2])
    species, seen = (_elements(name, e) for name, e in (("centres", centres), ("neighbours", neighbours)))
    _require_elements(z, species, seen)
    if _checks.is_known(x):
        _require_apart(np.asarray(x, np.float64), z)
    rows = np.isin(z, species).sum(1).max()
    # the centres of each molecule, in their order, and then others, which are blanked
    chosen = np.argsort(~np.isin(z, species), axis=1, kind="stable")[:, :rows]
    at = np.take_along_axis(z, chosen, 1)
    probe = jax.eval_shape(radial, jax.ShapeDtypeStruct((), x.dtype)).shape
    if len(probe) != 1:
        raise ValueError(
            f"densities: radial must turn distances of shape (...) into (..., K), got {probe} of one."
        )
    size = len(x) * rows * (len(species) + len(seen) * probe[0]) * (degree + 1) ** 2 * x.dtype.itemsize
    _require_memory(size, len(x))
    kinds = (z[:, :, None] == seen).astype(x.dtype)  # (n, atoms, elements)
    centre = (at[:, :, None] == species).astype(x.dtype)
    there = jnp.asarray(centre.any(-1))
    found = _densities(x, chosen, there, kinds, degree, radial, smoothing)
    lengths = jnp.sqrt((found**2).sum((2, 3)))
    if _checks.is_known(found):
        alone = _checks.look(lambda: there & (lengths == 0))
        if alone.any():
            molecule, row = np.argwhere(alone)[0]
            raise ValueError(
                f"densities: atom {chosen[molecule, row]} of molecule {molecule} sees no other: the nearest "
                "is beyond the reach of the radial functions. Take a larger cutoff."
            )
    scale = math.sqrt(found.shape[2] * found.shape[3]) / jnp.where(lengths > 0, lengths, 1)
    found = found * jnp.where(there, scale, 0)[:, :, None, None]
    first = jnp.zeros((*found.shape[:2], len(species), found.shape[3]), x.dtype).at[..., 0].set(centre)
    return jnp.concatenate([first, found], 2)


def _elements(name: str, given: Sequence[int]) -> NDArray[np.int64]:
    elements = np.asarray(given)
    if elements.ndim != 1 or not elements.size or elements.dtype.kind not in "iu" or (elements < 1).any():
        raise ValueError(f"densities: {name} must be atomic numbers such as (6, 8), got {given!r}.")
    if len(set(elements.tolist())) < len(elements):
        raise ValueError(f"densities: {name} must name each element once, got {given!r}.")
    return elements.astype(np.int64)


def _require_elements(z: NDArray[Any], species: NDArray[Any], seen: NDArray[Any]) -> None:
    unknown = (z != 0) & ~np.isin(z, np.union1d(species, seen))
    if unknown.any():
        molecule, atom = np.argwhere(unknown)[0]
        raise ValueError(
            f"densities: atom {atom} of molecule {molecule} has the atomic number {z[molecule, atom]}, which "
            f"is neither among the centres {species.tolist()} nor the neighbours {seen.tolist()}. Add it to "
            "them, or leave the molecule out."
        )
    few = np.flatnonzero((z != 0).sum(1) < 2)
    if len(few):
        raise ValueError(
            f"densities: molecule {few[0]} has fewer than two atoms, and an atom alone has no surroundings."
        )
    without = np.flatnonzero(~np.isin(z, species).any(1))
    if len(without):
        raise ValueError(
            f"densities: molecule {without[0]} has no atom of the elements {species.tolist()}, from which "
            "the densities are seen. Add one of its elements to the centres."
        )


def _require_apart(x: NDArray[np.float64], z: NDArray[Any]) -> None:
    atoms = x.shape[1]
    for start in range(0, len(x), 1024):
        some, there = x[start : start + 1024], z[start : start + 1024] != 0
        apart = np.linalg.norm(some[:, :, None] - some[:, None], axis=-1)
        pairs = there[:, :, None] & there[:, None] & ~np.eye(atoms, dtype=bool)
        near = np.argwhere(pairs & (apart < _CLOSEST))
        if len(near):
            m, i, j = near[0]
            words = f"densities: atoms {i} and {j} of molecule {start + m} are"
            if apart[m, i, j] < 1e-6:
                raise ValueError(f"{words} at the same place.")
            raise ValueError(
                f"{words} {apart[m, i, j]:.3g} Å apart, nearer than any two atoms. Are the positions in "
                "another unit? Multiply nanometres by 10."
            )


def _require_memory(size: float, n: int) -> None:
    allowed = _checks.memory_of(jax.devices()[0])
    if allowed is not None and size > allowed:
        raise MemoryError(
            f"densities: {n} molecules take {size / 1e9:.3g} GB and {allowed / 1e9:.3g} GB are allowed. Give "
            "fewer at a time, or take a lower degree or fewer radial functions."
        )


@functools.partial(jax.jit, static_argnames=("degree", "radial"))
def _densities(
    x: Array,
    chosen: Array,
    there: Array,
    kinds: Array,
    degree: int,
    radial: Callable[[Array], Array],
    smoothing: ArrayLike,
) -> Array:
    """The sums, shape (n, rows, elements · K, (degree + 1)²)."""
    order = np.repeat(np.arange(degree + 1), 2 * np.arange(degree + 1) + 1)
    smear = jnp.exp(-(jnp.asarray(smoothing, x.dtype) ** 2) / 2 * (order * (order + 1)))

    def one(molecule: tuple[Array, Array, Array, Array]) -> Array:
        places, rows, centre, kind = molecule
        other = jnp.arange(len(places))[None] != rows[:, None]
        # a row without an atom may be at the place of one
        pairs = other & centre[:, None] & (kind.sum(1) > 0)[None]
        # a place of its own for what does not count, so that no function is asked for its value at zero
        apart = jnp.where(
            pairs[..., None], places[None] - places[rows][:, None], jnp.eye(3, dtype=x.dtype)[2]
        )
        r, d = lengths_and_directions(apart)
        weights = jnp.where(pairs[..., None], radial(r), 0)
        values = harmonics_of_directions(d, degree) * smear
        sums = einsum("ijk,je,ijy->ieky", weights, kind, values)
        return sums.reshape(len(rows), -1, sums.shape[-1])

    return jax.lax.map(one, (x, chosen, there, kinds), batch_size=64)


def molecule_kernel(
    species: int,
    depth: int = 1,
    activation: str = "relu",
    W_std: float | Array = 1.0,
    b_std: float | Array = 0.0,
) -> Callable[[ArrayLike, ArrayLike], Kernels]:
    r"""The kernel of an infinitely wide network that adds up the answers for the atoms of a molecule.

    $$f(x) = \sum_i f_{z_i}(s_i), \qquad \Theta(x, x') = \sum_{ij}\delta_{z_iz_j'}\,\theta(s_i, s_j')$$

    with a fully connected network $f_z$ for each species z and its kernel θ, that of
    `nteq.kernels.mlp_kernel` (Behler & Parrinello 2007 for the sum; Misof et al. 2025, section 5 for the
    kernel). Invariant under permutations of the atoms and, as a function of both molecules, under rotations;
    `nteq.averages.orbit_average` and `GradientFlow.augmented` with `nteq.actions.on_harmonics` make it
    equivariant under a finite group of them. For a group, the products $\sum_cs_{c\ell m}s'_{c\ell m'}$ are
    computed once for all rotations, and of a matrix that is known to be symmetric one half.

    The kernel is a value, as that of `mlp_kernel`, and its derivatives are finite. Environments that are
    parallel to rounding count as parallel; of those that are nearly so E[φ'(u)φ'(u')] has an error of about
    1e-7, or 1e-3 in float32.

    Args:
        species: how many of the channels say what atom it is: the number of `centres` of `densities`.
        depth: the number of hidden layers, at least 1.
        activation: "relu", "erf" or "square", φ(u) = u².
        W_std: σ_w, the standard deviation of the weights before the factor 1/√(fan-in), positive; it may be
            traced.
        b_std: σ_b, the standard deviation of the biases, ≥ 0; it may be traced.

    Returns:
        A function of x1, shape (n1, atoms, species + channels, (L + 1)²), and x2, likewise and with any
        number of atoms, to `Kernels`.

    Raises:
        ValueError: an argument out of range; when called: batches that are empty, not finite, or not of such
            shapes, or values that are out of range.

    >>> water = np.array([[[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]])
    >>> x = densities(np.concatenate([water, 1.1 * water]), [8, 1, 1])
    >>> molecule_kernel(species=4, W_std=2**0.5)(x, x).ntk.round(2)
    Array([[4.  , 3.85],
           [3.85, 4.  ]], dtype=float32)
    """
    return _MoleculeKernel(
        _checks.number("molecule_kernel", "W_std", W_std, exclusive=True),
        _checks.number("molecule_kernel", "b_std", b_std),
        _checks.count("molecule_kernel", "species", species),
        _checks.count("molecule_kernel", "depth", depth, advice="It is the number of hidden layers."),
        _checks.choice("molecule_kernel", "activation", activation, tuple(NONLINEARITIES)),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _MoleculeKernel:
    W_std: Any
    b_std: Any
    species: int = field(metadata={"static": True})
    depth: int = field(metadata={"static": True})
    activation: str = field(metadata={"static": True})

    def __call__(self, x1: ArrayLike, x2: ArrayLike) -> Kernels:
        symmetric = x1 is x2
        x1, x2 = _molecules("molecule_kernel", self, x1, x2)
        return _kernels("molecule_kernel", _values(self, x1, x2, None, None, None, symmetric)[..., 0])

    def orbit_sums(
        self, x1: ArrayLike, x2: ArrayLike, action: Action, weights: Any, symmetric: bool
    ) -> Kernels:
        r"""$\sum_g w(g)\, k(x_1, \rho(g)x_2)$ of NNGP and NTK, (n1, n2, ...) for weights (|G|, ...).

        With symmetric, x1 = x2 and k is invariant, and of two equal pairs one is computed.
        """
        x1, x2 = _molecules("molecule_kernel", self, x1, x2)
        weights = np.asarray(weights) if _checks.is_known(weights) else weights
        flat = weights.reshape(action.group.order, -1).astype(x1.dtype)
        sums = self._of_images(x1, x2, action, flat, symmetric)
        return _kernels("molecule_kernel", sums.reshape(*sums.shape[:3], *weights.shape[1:]))

    def orbit_values(self, x1: ArrayLike, x2: ArrayLike, action: Action) -> Kernels:
        """k(x1, ρ(g)x2) for all g, shape (n1, n2, |G|)."""
        x1, x2 = _molecules("molecule_kernel", self, x1, x2)
        return _kernels("molecule_kernel", self._of_images(x1, x2, action, None, False))

    def _of_images(self, x1: Array, x2: Array, action: Action, weights: Any, symmetric: bool) -> Any:
        inverses = action.group.inverses
        if isinstance(action.act, _OnHarmonics):
            turns = _packed(action.act.matrices(x1.shape[-1])).astype(x1.dtype)
            return _values(self, x1, x2, turns, weights, inverses, symmetric)
        plain = jnp.stack([jnp.stack(self(x1, action(g, x2))) for g in range(action.group.order)], -1)
        return plain if weights is None else matmul(plain, weights)


def power_spectrum_kernel(
    species: int, W_std: float | Array = 1.0, b_std: float | Array = 0.0
) -> Callable[[ArrayLike, ArrayLike], Kernels]:
    r"""The average over all rotations of the kernel of a network with one hidden layer and φ(u) = u².

    With $k = \sigma_w^2\,s\cdot s'/d + \sigma_b^2$ and q, q′ its values for s, s and for s′, s′ the kernel of
    that network is, from atom to atom,

    $$K = \sigma_w^2(2k^2 + qq') + \sigma_b^2, \qquad \Theta = \sigma_w^2(6k^2 + qq') + \sigma_b^2,$$

    and by Schur orthogonality $\int(s\cdot D(R)s')^2\,dR = p(s)\cdot p(s')$ with the `power_spectrum` p. So
    the average is in closed form, exactly invariant under rotations and under mirror images, and linear in
    the sum of p over the atoms of a species: the SOAP kernel with exponent 1 (Bartók, Kondor & Csányi 2013,
    equation 36, before it is normalised).

    Args:
        species: as for `molecule_kernel`.
        W_std: σ_w, positive; it may be traced.
        b_std: σ_b, ≥ 0; it may be traced.

    Returns:
        A function of x1 and x2, as for `molecule_kernel`, to `Kernels`.

    Raises:
        ValueError: as for `molecule_kernel`.

    >>> water = np.array([[[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]]])
    >>> x, turned = densities(water, [8, 1, 1]), densities(water[..., ::-1], [8, 1, 1])
    >>> kernel = power_spectrum_kernel(species=4)
    >>> bool(jnp.allclose(kernel(x, x).ntk, kernel(x, turned).ntk))
    True
    """
    return _PowerSpectrumKernel(
        _checks.number("power_spectrum_kernel", "W_std", W_std, exclusive=True),
        _checks.number("power_spectrum_kernel", "b_std", b_std),
        _checks.count("power_spectrum_kernel", "species", species),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _PowerSpectrumKernel:
    W_std: Any
    b_std: Any
    species: int = field(metadata={"static": True})

    def __call__(self, x1: ArrayLike, x2: ArrayLike) -> Kernels:
        same = x1 is x2
        x1, x2 = _molecules("power_spectrum_kernel", self, x1, x2)
        first = _features(self, x1)
        return _kernels(
            "power_spectrum_kernel", _of_features(self, first, first if same else _features(self, x2))
        )


@jax.jit
def _features(kernel: _PowerSpectrumKernel, x: Array) -> tuple[Array, ...]:
    """Sums over the atoms of each species: of ⟨k²⟩ as a product, of the variances, and of ones."""
    W_std, b_std = (jnp.asarray(value, x.dtype) for value in (kernel.W_std, kernel.b_std))

    def one(molecule: Array) -> tuple[Array, ...]:
        kinds, s = _split(kernel.species, molecule)
        s = s * (W_std / math.sqrt(s.shape[-2] * s.shape[-1]))
        # ⟨k²⟩ = ⟨(s·s′)²⟩ + 2σ_b² ⟨s·s′⟩ + σ_b⁴, and ⟨s·s′⟩ is the part of degree 0
        constant = jnp.broadcast_to(b_std**2, s.shape[:-2])[..., None]
        p = jnp.concatenate([power_spectrum(s), math.sqrt(2) * b_std * s[..., 0], constant], -1)
        square = (s**2).sum((-2, -1)) + b_std**2
        return matmul(kinds.T, p), matmul(kinds.T, square), kinds.sum(0)

    return jax.lax.map(one, x, batch_size=64)


@jax.jit
def _of_features(kernel: _PowerSpectrumKernel, one: Any, two: Any) -> Array:
    W_std, b_std = (jnp.asarray(value, one[1].dtype) for value in (kernel.W_std, kernel.b_std))
    squares, norms, pairs = (
        matmul(a.reshape(len(a), -1), b.reshape(len(b), -1).T) for a, b in zip(one, two, strict=True)
    )
    factors = jnp.array([2, 6], squares.dtype)[:, None, None]
    return W_std**2 * (factors * squares + norms) + b_std**2 * pairs


def _molecules(caller: str, kernel: Any, x1: ArrayLike, x2: ArrayLike) -> tuple[Array, Array]:
    same, x1 = x1 is x2, _checks.batch(caller, "x1", x1)
    x2 = x1 if same else _checks.batch(caller, "x2", x2)
    for name, x in (("x1", x1), ("x2", x2)):
        harmonics = x.shape[-1]
        if x.ndim != 4 or math.isqrt(harmonics) ** 2 != harmonics or x.shape[2] <= kernel.species:
            raise ValueError(
                f"{caller}: {name} must have shape (n, atoms, species + channels, (L + 1)²), as densities "
                f"makes it, with {kernel.species} species and at least one channel more, got {x.shape}."
            )
    if x1.shape[2:] != x2.shape[2:]:
        raise ValueError(
            f"{caller}: x1 and x2 must have the same channels and degree, got shapes {x1.shape}, {x2.shape}."
        )
    dtype = np.promote_types(x1.dtype, x2.dtype)
    _require_squares(caller, dtype, W_std=kernel.W_std, b_std=kernel.b_std)
    return x1.astype(dtype), x2.astype(dtype)


def _split(species: int, x: Array) -> tuple[Array, Array]:
    """Of which species each atom is, (..., atoms, species), and its densities."""
    return x[..., :species, 0], x[..., species:, :]


def _kernels(caller: str, values: Any) -> Kernels:
    """NNGP and NTK of an array that has both in front, checked where they are known."""
    if not isinstance(values, np.ndarray) and _checks.is_known(values):
        values = np.asarray(values)
    if not isinstance(values, np.ndarray):
        return Kernels(values[0], values[1])
    if not _checks.are_finite(values):
        raise ValueError(
            f"{caller}: the kernel has values that {values.dtype} cannot hold. Scale the inputs or "
            'W_std, or compute in float64: jax.config.update("jax_enable_x64", True).'
        )
    with jax.ensure_compile_time_eval():
        return Kernels(jnp.asarray(values[0]), jnp.asarray(values[1]))


def _packed(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The blocks of Wigner matrices one after the other, (|G|, Σ (2ℓ + 1)²)."""
    degrees = range(math.isqrt(matrices.shape[1]))
    blocks = [matrices[:, n**2 : (n + 1) ** 2, n**2 : (n + 1) ** 2] for n in degrees]
    return np.concatenate([block.reshape(len(block), -1) for block in blocks], 1)


def _values(
    kernel: _MoleculeKernel,
    x1: Array,
    x2: Array,
    turns: Any,
    weights: Any,
    inverses: NDArray[np.int64] | None,
    symmetric: bool,
) -> Any:
    """NNGP and NTK for each rotation of x2, or summed with weights (|G|, w), shape (2, n1, n2, |G| or w).

    Of NumPy where all is known. A matrix of which k(x, ρ(g)x′) = k(x′, ρ(g⁻¹)x) is known is computed above
    the diagonal of blocks.
    """
    n1, n2 = len(x1), len(x2)
    size1, size2 = min(n1, _TOGETHER), min(n2, _TOGETHER)
    # the last block moves back, so that all are of one size
    starts1 = np.minimum(np.arange(0, n1, size1), n1 - size1)
    starts2 = np.minimum(np.arange(0, n2, size2), n2 - size2)
    corners = [(i, j) for i in starts1 for j in starts2 if not symmetric or i <= j]
    both = weights
    if symmetric and weights is not None and inverses is not None:
        both = (np if isinstance(weights, np.ndarray) else jnp).concatenate([weights, weights[inverses]], 1)
    known = _checks.is_known(kernel, x1, x2, weights)
    columns = 1 if turns is None else len(turns) if weights is None else weights.shape[1]

    def below(values: Any) -> Any:
        """The values of the pairs (x′, x)."""
        if both is not None:
            values = values[..., columns:]
        elif inverses is not None:
            values = values[..., inverses]
        return values.swapaxes(1, 2)

    if known:
        whole = np.empty((2, n1, n2, columns), x1.dtype)
        device = next(iter(x1.devices()))
        one, two = np.asarray(x1), np.asarray(x2)

        def piece(which: int) -> None:
            i, j = corners[which]
            arguments = one[i : i + size1], two[j : j + size2], turns, both
            values = np.asarray(_piece(kernel, *arguments))
            whole[:, i : i + size1, j : j + size2] = values[..., :columns]
            if symmetric and i != j:
                whole[:, j : j + size2, i : i + size1] = below(values)

        for _ in _lanes.on_all_cores(piece, len(corners), device):
            pass
        return whole

    def place(whole: Array, corner: Array) -> tuple[Array, None]:
        i, j = corner
        first = jax.lax.dynamic_slice_in_dim(x1, i, size1)
        values = _piece(kernel, first, jax.lax.dynamic_slice_in_dim(x2, j, size2), turns, both)
        if symmetric:
            whole = jax.lax.dynamic_update_slice(whole, below(values), (0, j, i, 0))
        return jax.lax.dynamic_update_slice(whole, values[..., :columns], (0, i, j, 0)), None

    start = jnp.zeros((2, n1, n2, columns), x1.dtype)
    return jax.lax.scan(jax.checkpoint(place, prevent_cse=False), start, jnp.asarray(corners))[0]


@jax.jit
def _piece(kernel: _MoleculeKernel, x1: Array, x2: Array, turns: Any, weights: Any) -> Array:
    """All pairs of some and some molecules: a pair of atoms after the other, one of each."""
    W_std, b_std = (jnp.asarray(value, x1.dtype) for value in (kernel.W_std, kernel.b_std))
    side1, side2 = (_side(kernel, x, W_std, b_std) for x in (x1, x2))
    dtype, size = x1.dtype, math.prod(side1[1].shape[2:])
    degrees = range(math.isqrt(x1.shape[-1]))
    few = rounding(dtype, 1, 4 * size)

    def products(s1: Array, s2: Array) -> Array:
        """⟨s, D(g)s′⟩ of all pairs, (n1, n2, |G|)."""
        if turns is None:
            return matmul(s1.reshape(len(s1), -1), s2.reshape(len(s2), -1).T)[..., None]
        moments = []
        for n in degrees:
            block = slice(n**2, (n + 1) ** 2)
            pairs = einsum("icm,jcn->ijmn", s1[..., block], s2[..., block])
            moments.append(pairs.reshape(*pairs.shape[:2], -1))
        return matmul(jnp.concatenate(moments, -1), jnp.asarray(turns, dtype).T)

    def add(total: Array, pair: Array) -> tuple[Array, None]:
        kind1, s1, levels1 = jax.tree.map(lambda leaf: leaf[pair[0]], side1)
        kind2, s2, levels2 = jax.tree.map(lambda leaf: leaf[pair[1]], side2)
        nngp = W_std**2 / size * products(s1, s2) + b_std**2
        ntk = nngp
        for one, two in zip(levels1, levels2, strict=True):
            of1 = tuple(a[:, None, None] for a in one)
            of2 = tuple(a[None, :, None] for a in two)
            first, second = NONLINEARITIES[kernel.activation](nngp, ntk, of1, of2, few)
            nngp = W_std**2 * first + b_std**2
            ntk = nngp + W_std**2 * second
        values = jnp.stack([nngp, ntk])
        if weights is not None:
            values = matmul(values, jnp.asarray(weights, dtype))
        return total + matmul(kind1, kind2.T)[:, :, None] * values, None

    columns = 1 if turns is None else len(turns) if weights is None else weights.shape[1]
    pairs = np.stack(np.meshgrid(np.arange(x1.shape[1]), np.arange(x2.shape[1])), -1).reshape(-1, 2)
    start = jnp.zeros((2, len(x1), len(x2), columns), dtype)
    return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), start, jnp.asarray(pairs))[0]


def _side(kernel: _MoleculeKernel, x: Array, W_std: Array, b_std: Array) -> tuple[Array, Array, list[Any]]:
    """The species, densities and variances of some molecules, with the axis over atoms in front."""
    kinds, s = _split(kernel.species, jnp.swapaxes(x, 0, 1))
    square = W_std**2 * (s**2).mean((-2, -1)) + b_std**2
    levels = []
    for _ in range(kernel.depth):
        of, square = level(kernel.activation, square)
        levels.append(of)
        square = W_std**2 * square + b_std**2
    return kinds, s, levels
