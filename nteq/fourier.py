r"""The Fourier transform on a finite group: real irreducible representations and what they diagonalise.

A Gram matrix of an invariant kernel on a full orbit is the same up to the relative position of two images,
$\Theta(\rho(g)x_i, \rho(h)x_j) = \kappa(g^{-1}h)_{ij}$. It commutes with the group, so in a basis adapted to
the irreducible representations it falls into small blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq.groups import FiniteGroup

__all__ = ["Irrep", "block_diagonalise", "characters", "irreps", "isotypic_basis"]

_KINDS = {1: "real", 2: "complex", 4: "quaternionic"}
_DRAWS = 12  # random elements of the group algebra that are tried for well separated eigenvalues


@dataclass(frozen=True, eq=False)
class Irrep:
    r"""A real irreducible representation σ and where it sits among the functions on the group.

    Args:
        matrices: orthogonal matrices $D_\sigma(g)$, shape (|G|, d, d).
        basis: $U_\sigma$, shape (|G|, m, d): m orthonormal copies of σ among the functions on G, on which
            right translation acts by D, $U_\sigma[gu, k, :] = U_\sigma[g, k, :]\,D_\sigma(u)$.
    """

    matrices: np.ndarray
    basis: np.ndarray

    @property
    def dimension(self) -> int:
        """The dimension d of σ."""
        return self.matrices.shape[1]

    @property
    def multiplicity(self) -> int:
        """How often σ occurs among the functions on the group, which is d, d/2 or d/4, by its kind."""
        return self.basis.shape[1]

    @property
    def kind(self) -> str:
        """The field of the matrices that commute with σ, as a word ("real", "complex" or "quaternionic")."""
        return _KINDS[self.dimension // self.multiplicity]

    @property
    def character(self) -> np.ndarray:
        r"""$\chi_\sigma(g) = \operatorname{tr} D_\sigma(g)$, shape (|G|,)."""
        return np.trace(self.matrices, axis1=1, axis2=2)

    @cached_property
    def unitary(self) -> tuple[np.ndarray, np.ndarray]:
        r"""σ as unitary matrices S(g), of half the dimension unless σ is of real kind, and their basis.

        If σ is of complex or quaternionic kind, an orthogonal J with $J^2 = -1$ commutes with all D(g).
        Let the columns of W span its eigenspace for i. There D acts as $S(g) = W^\dagger D(g)W$, and on the
        eigenspace for −i as the complex conjugate of S, so all that σ contributes to a real matrix is twice
        the real part of what S does, at a fraction of the work. A σ of real kind is returned as it is.

        Returns:
            S, shape (|G|, d, d) or (|G|, d/2, d/2), and $U_\sigma W$, shape (|G|, m, d) or (|G|, m, d/2), on
            which right translation acts by S.

        >>> from nteq.groups import cyclic
        >>> rotation = irreps(cyclic(4))[2]
        >>> rotation.matrices.shape, rotation.unitary[0].shape
        ((4, 2, 2), (4, 1, 1))
        """
        if self.kind == "real":
            return self.matrices, self.basis
        random = np.random.default_rng(0).normal(size=(self.dimension, self.dimension))
        commuting = np.mean(self.matrices @ random @ self.matrices.transpose(0, 2, 1), axis=0)
        # the eigenvalues of the antisymmetric part are ±i times one length
        _, vectors = np.linalg.eigh(1j * (commuting.T - commuting))
        half = vectors[:, self.dimension // 2 :]
        return half.conj().T @ self.matrices @ half, self.basis @ half

    def __repr__(self):
        return f"<irrep of dimension {self.dimension}, {self.kind}, {self.multiplicity} times>"


@lru_cache(maxsize=32)
def irreps(group: FiniteGroup) -> tuple[Irrep, ...]:
    r"""The real irreducible representations of a finite group, the trivial one first, then by dimension.

    They are found among the functions on G, where each occurs. A random element of the centre of the group
    algebra has the isotypic components as its eigenspaces; within one of them, a random symmetric
    combination of left translations has as eigenspaces single copies, which right translations do not leave
    (Dixon 1970 does the same over the complex numbers). The result is verified: the bases of all copies
    together are orthonormal, and right translation acts on them by D to 1e-10.

    Args:
        group: a finite group; the work grows as |G|³.

    Raises:
        ValueError: not a group.
        ArithmeticError: the verification failed.

    >>> from nteq.groups import cyclic, symmetric
    >>> irreps(cyclic(4))[2], [s.dimension for s in irreps(symmetric(4))]
    (<irrep of dimension 2, complex, 1 times>, [1, 1, 2, 3, 3])
    """
    if not isinstance(group, FiniteGroup):
        raise ValueError(f"irreps: expected a FiniteGroup such as dihedral(4), got {group!r}.")
    rng = np.random.default_rng(0)  # seed of the random elements: the same irreps at every call
    quotient = group.table[:, group.inverses]  # g h⁻¹
    classes = np.empty(group.order, int)
    for index, members in enumerate(group.conjugacy_classes):
        classes[members] = index

    def symmetric_combination(central):
        c = rng.normal(size=group.order)
        c = c[classes] if central else c
        return ((c + c[group.inverses]) / 2)[quotient]  # Σ_h c(h) L(h), L(h)f(g) = f(h⁻¹g)

    found = []
    for component in _eigenspaces(lambda: symmetric_combination(True), np.eye(group.order)):
        copies = _eigenspaces(lambda: symmetric_combination(False), component)
        first = copies[0]
        matrices = np.stack([first.T @ first[group.table[:, u]] for u in range(group.order)])
        mixed = rng.normal(size=group.order)[quotient] @ first
        # an intertwiner between equal irreps is orthogonal up to its length: it aligns the copies
        aligned = [first]
        for copy in copies[1:]:
            intertwiner = copy.T @ mixed
            aligned.append(copy @ intertwiner * len(intertwiner) ** 0.5 / np.linalg.norm(intertwiner))
        found.append(Irrep(matrices, np.stack(aligned, axis=1)))
    for irrep in found:
        _verify(group, irrep)
    # the trivial one has the largest mean character
    return tuple(sorted(found, key=lambda s: (s.dimension, *-np.round(s.character, 6))))


def _eigenspaces(draw, space: np.ndarray) -> list[np.ndarray]:
    """The eigenspaces of a random symmetric operator on a subspace; of several draws the best separated."""
    best, widest = [space], -1.0
    for _ in range(_DRAWS):
        eigenvalues, vectors = np.linalg.eigh(space.T @ draw() @ space)
        gaps = np.diff(eigenvalues)
        spread = max(np.ptp(eigenvalues), 1e-300)
        cuts = np.flatnonzero(gaps > 1e-9 * max(spread, np.abs(eigenvalues).max())) + 1
        if not len(cuts):
            return [space]
        narrowest = gaps[cuts - 1].min() / spread
        if narrowest > widest:
            widest, best = narrowest, np.split(space @ vectors, cuts, axis=1)
    return best


def _verify(group: FiniteGroup, irrep: Irrep) -> None:
    d, m = irrep.dimension, irrep.multiplicity
    flat = irrep.basis.reshape(group.order, m * d)
    wrong = np.abs(flat.T @ flat - np.eye(m * d)).max()
    for u in range(group.order):
        moved = irrep.basis[group.table[:, u]] - irrep.basis @ irrep.matrices[u]
        wrong = max(wrong, np.abs(moved).max())
    # the norm of a real irreducible character is 1, 2 or 4, and 1 means m = d, 2 means m = d/2
    norm = np.mean(irrep.character**2)
    wrong = max(wrong, abs(norm - d / m))
    if wrong > 1e-10 or d not in (m, 2 * m, 4 * m):
        raise ArithmeticError(
            f"irreps({group.name}): a representation of dimension {d} failed its orthogonality relations by "
            f"{wrong:.1e}. Please report the group's table."
        )


def characters(group: FiniteGroup) -> np.ndarray:
    r"""The real character table: $\chi_\sigma(g)$ for every real irrep σ, shape (irreps, |G|).

    The rows are orthogonal, $\frac{1}{|G|}\sum_g\chi_\sigma(g)\chi_\tau(g) = \delta_{\sigma\tau}\,d/m$.

    Args:
        group: a finite group.

    Raises:
        ValueError: not a group.

    >>> from nteq.groups import cyclic
    >>> characters(cyclic(3)).round(6) + 0.0
    array([[ 1.,  1.,  1.],
           [ 2., -1., -1.]])
    """
    return np.stack([irrep.character for irrep in irreps(group)])


def isotypic_basis(group: FiniteGroup) -> np.ndarray:
    r"""An orthonormal basis of the functions on G, sorted by irrep: the Fourier transform as a matrix.

    Column $(\sigma, k, b)$ is $U_\sigma[\cdot, k, b]$; for $C_n$ these are cosines and sines.

    Args:
        group: a finite group.

    Returns:
        An orthogonal array of shape (|G|, |G|).

    Raises:
        ValueError: not a group.

    >>> from nteq.groups import dihedral
    >>> q = isotypic_basis(dihedral(3))
    >>> bool(np.allclose(q.T @ q, np.eye(6)))
    True
    """
    return np.concatenate([s.basis.reshape(group.order, -1) for s in irreps(group)], axis=1)


def block_diagonalise(group: FiniteGroup, kappa: ArrayLike) -> list[Array]:
    r"""The blocks of an invariant Gram matrix, from its first block row alone.

    $$B_\sigma = \sum_{u\in G} D_\sigma(u)\otimes\kappa(u), \qquad \kappa(u)_{ij} = \Theta(x_i, \rho(u)x_j)$$

    The Gram matrix of all |G| n images has the eigenvalues of $B_\sigma$, each `multiplicity` times. With
    $Q$ = `isotypic_basis(group)` it is $(Q\otimes\mathbb{1})\,B\,(Q\otimes\mathbb{1})^\top$, where B is block
    diagonal with $B_\sigma$ repeated for every copy of σ.

    Args:
        group: the group.
        kappa: κ, shape (|G|, n, n), with κ(u⁻¹) = κ(u)ᵀ.

    Returns:
        One symmetric array of shape (d n, d n) for every irrep, in the order of `irreps(group)`.

    Raises:
        ValueError: a shape that does not fit the group, entries that are not finite, or κ(u⁻¹) ≠ κ(u)ᵀ.

    >>> from nteq.groups import cyclic
    >>> [b.round(4).tolist() for b in block_diagonalise(cyclic(2), [[[3.0]], [[1.0]]])]
    [[[4.0]], [[2.0]]]
    """
    kappa = jnp.asarray(kappa)
    if not jnp.issubdtype(kappa.dtype, jnp.floating):
        kappa = kappa.astype(float)
    if kappa.ndim != 3 or kappa.shape[0] != group.order or kappa.shape[1] != kappa.shape[2]:
        raise ValueError(
            f"block_diagonalise: kappa must have shape (|G|, n, n) with |G| = {group.order}, "
            f"got {kappa.shape}. It is the first block row of the Gram matrix, κ(u) = Θ(X, ρ(u)X)."
        )
    if not isinstance(kappa, jax.core.Tracer):
        if not jnp.isfinite(kappa).all():
            raise ValueError("block_diagonalise: kappa has entries that are not finite.")
        wrong = float(jnp.abs(kappa[group.inverses] - kappa.transpose(0, 2, 1)).max())
        # √ε: what an arccos leaves near the diagonal
        if wrong > 10 * jnp.finfo(kappa.dtype).eps ** 0.5 * jnp.abs(kappa).max():
            raise ValueError(
                f"block_diagonalise: κ(u⁻¹) and κ(u)ᵀ differ by up to {wrong:.1e}, so this is not the Gram "
                "matrix of a kernel that is invariant under the group."
            )
    size = kappa.shape[1]
    blocks = []
    for irrep in irreps(group):
        d = irrep.dimension
        block = jnp.einsum("uab,uij->aibj", irrep.matrices.astype(kappa.dtype), kappa)
        block = block.reshape(d * size, d * size)
        blocks.append((block + block.T) / 2)
    return blocks
