r"""The Fourier transform on a finite group: real irreducible representations and what they diagonalise.

A Gram matrix of an invariant kernel on a full orbit is the same up to the relative position of two images,
$\Theta(\rho(g)x_i, \rho(h)x_j) = \kappa(g^{-1}h)_{ij}$. It commutes with the group, so in a basis adapted to
the irreducible representations it falls into small blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jax
import numpy as np
import scipy.linalg
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from nteq import _checks
from nteq._products import einsum
from nteq.groups import FiniteGroup, fingerprint, read_only

__all__ = ["Irrep", "block_diagonalise", "characters", "irreps", "isotypic_basis"]

_KINDS = {1: "real", 2: "complex", 4: "quaternionic"}
_DRAWS = 12  # random elements of the group algebra that are tried for well separated eigenvalues,
_WELL_SEPARATED = 0.01  # which is when the closest two are so far apart, relative to all


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False)
class Irrep:
    r"""A real irreducible representation σ and where it sits among the functions on the group.

    Args:
        matrices: orthogonal matrices $D_\sigma(g)$, shape (|G|, d, d).
        basis: $U_\sigma$, shape (|G|, m, d): m orthonormal copies of σ among the functions on G, on which
            right translation acts by D, $U_\sigma[gu, k, :] = U_\sigma[g, k, :]\,D_\sigma(u)$.
    """

    matrices: NDArray[np.float64]
    basis: NDArray[np.float64]

    def __post_init__(self) -> None:
        for field in ("matrices", "basis"):
            object.__setattr__(self, field, read_only(np.array(getattr(self, field))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Irrep):
            return NotImplemented
        return self is other or self._contents == other._contents

    def __hash__(self) -> int:
        return hash(self._contents)

    def __reduce__(self) -> tuple[Any, ...]:  # arrays are read-only again, and nothing derived travels
        return Irrep, (self.matrices, self.basis)

    @cached_property
    def _contents(self) -> tuple[str, str]:
        return fingerprint(self.matrices), fingerprint(self.basis)

    @property
    def dimension(self) -> int:
        """The dimension d of σ."""
        return int(self.matrices.shape[1])

    @property
    def multiplicity(self) -> int:
        """How often σ occurs among the functions on the group, which is d, d/2 or d/4, by its kind."""
        return int(self.basis.shape[1])

    @property
    def kind(self) -> str:
        """The field of the matrices that commute with σ, as a word ("real", "complex" or "quaternionic")."""
        return _KINDS[self.dimension // self.multiplicity]

    @property
    def character(self) -> NDArray[np.float64]:
        r"""$\chi_\sigma(g) = \operatorname{tr} D_\sigma(g)$, shape (|G|,)."""
        return np.trace(self.matrices, axis1=1, axis2=2)

    @cached_property
    def unitary(self) -> tuple[NDArray[Any], NDArray[Any]]:
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
        return read_only(half.conj().T @ self.matrices @ half), read_only(self.basis @ half)

    def __repr__(self) -> str:
        return f"<irrep of dimension {self.dimension}, {self.kind}, {self.multiplicity} times>"


def irreps(group: FiniteGroup) -> tuple[Irrep, ...]:
    r"""The real irreducible representations of a finite group, the trivial one first, then by dimension.

    They are found among the functions on G, where each occurs. A random element of the centre of the group
    algebra has the isotypic components as its eigenspaces, and among the functions that are constant on
    classes these are lines, which give the characters; within one component, a random symmetric combination
    of left translations has as eigenspaces single copies, which right translations do not leave (Dixon 1970
    does the same over the complex numbers). The result is verified: the bases of all copies together are
    orthonormal, and right translation acts on them by D to 1e-10. Groups of equal tables get the same tuple.

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
    return _irreps(group)


@lru_cache(maxsize=32)
def _irreps(group: FiniteGroup) -> tuple[Irrep, ...]:
    rng = np.random.default_rng(0)  # seed of the random elements: the same irreps at every call
    order, inverses = group.order, group.inverses
    quotient = group.table[:, inverses]  # g h⁻¹
    squares = group.table[np.arange(order), np.arange(order)]
    found = []
    for idempotent in _central_idempotents(group, rng):
        # m χ/|G|; its convolution projects on the component, of dimension m d = |G| times its value at e
        size = round(order * idempotent[group.identity])
        # the sum of χ(g²) is positive, zero or negative for real, complex and quaternionic kind
        d_over_m = {1: 1, 0: 2, -1: 4}[int(np.sign(np.round(idempotent[squares].sum(), 6)))]
        copies = round((size / d_over_m) ** 0.5)
        project = idempotent[quotient]
        component = _orthonormal(project @ rng.normal(size=(order, size)))
        component = _orthonormal(project @ component)  # once more: squares what is wrong with the first
        bases = _copies(group, component, copies, quotient, rng)
        # the functions of one copy are determined by their values at d well chosen elements
        first, d = bases[:, 0], size // copies
        points = scipy.linalg.qr(first.T, mode="r", pivoting=True)[-1][:d]
        moved = first[group.table[points]].transpose(1, 0, 2)  # (u, point, b): first at the point times u
        found.append(Irrep(np.linalg.solve(first[points], moved), bases))
    for irrep in found:
        _verify(group, irrep)
    if sum(irrep.dimension * irrep.multiplicity for irrep in found) != order:
        raise ArithmeticError(f"irreps({group.name}): not all were found. Please report the group's table.")
    # the trivial one has the largest mean character
    return tuple(sorted(found, key=lambda s: (s.dimension, *-np.round(s.character, 6))))


def _central_idempotents(group: FiniteGroup, rng: np.random.Generator) -> NDArray[np.float64]:
    """The functions on G that project on the isotypic components, one a row, shape (irreps, |G|)."""
    classes = np.empty(group.order, int)  # a class and that of the inverses count as one
    for index, members in enumerate(group.conjugacy_classes):
        classes[members] = index
    classes = np.minimum(classes, classes[group.inverses])
    _, first, classes, sizes = np.unique(classes, return_index=True, return_inverse=True, return_counts=True)
    moved = classes[group.table[group.inverses][:, first]]  # (h, C): the class of h⁻¹g for g in C
    columns = np.arange(len(first)) + len(first) * moved
    lengths = np.sqrt(sizes)

    def draw() -> NDArray[np.float64]:  # f → Σ_h c(h) f(h⁻¹·), in the orthonormal basis 1_C/√|C|
        c = rng.normal(size=len(first))[classes]
        sums = np.bincount(columns.ravel(), np.repeat(c, len(first)), minlength=len(first) ** 2)
        operator = sums.reshape(len(first), len(first)).T * (lengths[:, None] / lengths)
        return (operator + operator.T) / 2

    functions = (_best_separated(draw) / lengths[:, None])[classes].T
    return functions * functions[:, [group.identity]]  # e = φ(e) φ, for |e|² = e(e) and |φ| = 1


def _copies(
    group: FiniteGroup,
    component: NDArray[np.float64],
    copies: int,
    quotient: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Orthonormal bases of the copies in a component on which translation acts alike, shape (|G|, m, d)."""
    if copies == 1:
        return component[:, None]

    def draw() -> NDArray[np.float64]:  # Σ_h c(h) L(h), L(h)f(g) = f(h⁻¹g)
        c = rng.normal(size=group.order)
        return component.T @ ((c + c[group.inverses]) / 2)[quotient] @ component

    dimension = component.shape[1] // copies
    bases = np.split(component @ _best_separated(draw, dimension), copies, axis=1)
    # an intertwiner between equal irreps is orthogonal up to its length: it aligns the copies
    mixed = rng.normal(size=group.order)[quotient] @ bases[0]
    aligned = [bases[0]]
    for copy in bases[1:]:
        intertwiner = copy.T @ mixed
        aligned.append(copy @ intertwiner * dimension**0.5 / np.linalg.norm(intertwiner))
    return np.stack(aligned, axis=1)


def _orthonormal(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    eigenvalues, vectors = np.linalg.eigh(columns.T @ columns)
    return columns @ (vectors / np.sqrt(eigenvalues))


def _best_separated(draw: Callable[[], NDArray[np.float64]], multiplicity: int = 1) -> NDArray[np.float64]:
    """The eigenvectors of that symmetric matrix whose groups of equal eigenvalues are furthest apart."""
    best, widest = np.empty((0, 0)), -1.0
    for _ in range(_DRAWS):
        eigenvalues, vectors = np.linalg.eigh(draw())
        distinct = eigenvalues[::multiplicity]
        narrowest = np.diff(distinct).min(initial=np.inf) / max(np.ptp(distinct), 1e-300)
        if narrowest > widest:
            best, widest = vectors, narrowest
        if widest > _WELL_SEPARATED:
            break
    return best


def _verify(group: FiniteGroup, irrep: Irrep) -> None:
    d, m, matrices = irrep.dimension, irrep.multiplicity, irrep.matrices
    flat = irrep.basis.reshape(group.order, m * d)
    wrong = np.abs(flat.T @ flat - np.eye(m * d)).max()
    wrong = max(wrong, np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(d)).max())
    for u in group.generators:  # and so for all elements, which are their products
        wrong = max(wrong, np.abs(irrep.basis[group.table[:, u]] - irrep.basis @ matrices[u]).max())
        wrong = max(wrong, np.abs(matrices @ matrices[u] - matrices[group.table[:, u]]).max())
    # the norm of a real irreducible character is 1, 2 or 4, and 1 means m = d, 2 means m = d/2
    norm = np.mean(irrep.character**2)
    wrong = max(wrong, abs(norm - d / m))
    if not wrong < 1e-10 or d not in (m, 2 * m, 4 * m):
        raise ArithmeticError(
            f"irreps({group.name}): a representation of dimension {d} failed its orthogonality relations by "
            f"{wrong:.1e}. Please report the group's table."
        )


def characters(group: FiniteGroup) -> NDArray[np.float64]:
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


def isotypic_basis(group: FiniteGroup) -> NDArray[np.float64]:
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
        ValueError: not a group, a shape that does not fit it, entries that are not finite, or κ(u⁻¹) ≠ κ(u)ᵀ.

    >>> from nteq.groups import cyclic
    >>> [b.round(4).tolist() for b in block_diagonalise(cyclic(2), [[[3.0]], [[1.0]]])]
    [[[4.0]], [[2.0]]]
    """
    found = irreps(group)
    kappa = _checks.real("block_diagonalise", "kappa", kappa)
    if kappa.ndim != 3 or kappa.shape[0] != group.order or kappa.shape[1] != kappa.shape[2] or not kappa.size:
        raise ValueError(
            f"block_diagonalise: kappa must have shape (|G|, n, n) with |G| = {group.order}, "
            f"got {kappa.shape}. It is the first block row of the Gram matrix, κ(u) = Θ(X, ρ(u)X)."
        )
    if _checks.is_known(kappa):
        known = np.asarray(kappa)
        wrong = np.abs(known[group.inverses] - known.transpose(0, 2, 1)).max()
        # √ε: what an arccos leaves near the diagonal
        if wrong > 10 * np.finfo(known.dtype).eps ** 0.5 * np.abs(known).max():
            raise ValueError(
                f"block_diagonalise: κ(u⁻¹) and κ(u)ᵀ differ by up to {wrong:.1e}, so this is not the Gram "
                "matrix of a kernel that is invariant under the group."
            )
    size = kappa.shape[1]
    blocks = []
    for irrep in found:
        d = irrep.dimension
        matrices = irrep.matrices.astype(kappa.dtype)
        block = einsum("uab,uij->aibj", matrices, kappa)
        block = block.reshape(d * size, d * size)
        blocks.append((block + block.T) / 2)
    return blocks
