"""Finite groups as Cayley tables.

A group element is an integer that indexes the table, so products and inverses are look-ups and a whole
group fits into one array. The groups made here carry what they are defined by, matrices (the rotations of
the plane) or permutations; how these move data is the business of `nteq.actions`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "FiniteGroup",
    "cyclic",
    "dihedral",
    "direct_product",
    "generated_by",
    "octahedral",
    "symmetric",
]

_LARGEST = 4096  # elements; the Cayley table of more takes over 100 MB


@dataclass(frozen=True, eq=False)
class FiniteGroup:
    r"""A finite group given by its Cayley table, $\text{table}[g, h] = gh$.

    Closure, the identity, inverses and associativity are checked on construction.

    Args:
        table: integers, shape (|G|, |G|), entries in 0 … |G| − 1.
        name: how error messages and figures call the group.
        matrices: the defining representation, orthogonal matrices of shape (|G|, d, d) with
            `matrices[g] @ matrices[h] = matrices[gh]`; None if it is not defined by matrices.
        permutations: integers of shape (|G|, n), `permutations[g][permutations[h]] = permutations[gh]`;
            None if it is not defined by permutations.

    Raises:
        ValueError: the table is not that of a group, or the matrices or permutations do not multiply as it
            says; the message shows where it fails.

    >>> klein = FiniteGroup([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]], name="C2 × C2")
    >>> klein.order, klein.multiply(1, 2), klein.inverse(3)
    (4, 3, 3)
    """

    table: np.ndarray
    name: str = "group"
    matrices: np.ndarray | None = None
    permutations: np.ndarray | None = None

    def __post_init__(self):
        given = np.asarray(self.table)
        if given.ndim != 2 or given.shape[0] != given.shape[1] or given.size == 0:
            raise ValueError(
                f"{self.name}: table must be square and not empty, got shape {given.shape}. "
                "Give the products gh as a |G| × |G| array of integers."
            )
        if given.dtype.kind not in "iu":
            raise ValueError(f"{self.name}: table must hold integers, got dtype {given.dtype}.")
        table = given.astype(np.int64)
        table.setflags(write=False)
        object.__setattr__(self, "table", table)
        self._check_axioms()
        for field, shape, multiply in (
            ("matrices", "d, d", lambda a, b: a @ b),
            ("permutations", "n", lambda a, b: a[b]),
        ):
            if getattr(self, field) is not None:
                self._check_defining(field, shape, multiply)

    def _check_defining(self, field, shape, multiply):
        given = np.array(getattr(self, field))
        if given.ndim != 1 + len(shape.split()) or len(given) != self.order or len({*given.shape[1:]}) > 1:
            raise ValueError(
                f"{self.name}: {field} must have shape ({self.order}, {shape}), got {given.shape}."
            )
        for g in range(self.order):
            product = multiply(given[g], given)
            wrong = np.abs(product - given[self.table[g]]).reshape(self.order, -1).max(1)
            if not wrong.max() < 1e-10:
                h = int(np.argmax(~(wrong < 1e-10)))
                raise ValueError(
                    f"{self.name}: {field} of {g} and {h} do not multiply to that of {self.table[g, h]}, "
                    f"their product by the table; they differ by {wrong[h]:.1e}."
                )
        given.setflags(write=False)
        object.__setattr__(self, field, given)

    def _check_axioms(self):
        table, n = self.table, len(self.table)
        outside = np.argwhere((table < 0) | (table >= n))
        if len(outside):
            g, h = outside[0]
            raise ValueError(
                f"{self.name}: not closed, the product of {g} and {h} is {table[g, h]}, "
                f"which is not an element 0 … {n - 1}."
            )
        identities = np.flatnonzero((table == np.arange(n)).all(1) & (table.T == np.arange(n)).all(1))
        if len(identities) != 1:
            raise ValueError(f"{self.name}: no identity, no element e has eg = ge = g for every g.")
        lacking = np.flatnonzero(~(table == identities[0]).any(1))
        if len(lacking):
            raise ValueError(f"{self.name}: element {lacking[0]} has no inverse.")
        for g in range(n):  # row by row: the full cube is |G|³
            left, right = table[table[g]], table[g][table]
            if (left != right).any():
                h, k = np.argwhere(left != right)[0]
                raise ValueError(
                    f"{self.name}: not associative, ({g}·{h})·{k} = {left[h, k]} "
                    f"but {g}·({h}·{k}) = {right[h, k]}."
                )

    @property
    def order(self) -> int:
        """The number of elements |G|."""
        return len(self.table)

    @cached_property
    def inverses(self) -> np.ndarray:
        """The inverse of every element, shape (|G|,)."""
        return np.argmax(self.table == self.identity, axis=1)

    @cached_property
    def conjugacy_classes(self) -> list[np.ndarray]:
        """The classes of elements that are conjugate, hgh⁻¹ for some h, in the order of their first elements.

        >>> [c.tolist() for c in dihedral(3).conjugacy_classes]
        [[0], [1, 2], [3, 4, 5]]
        """
        h = np.arange(self.order)
        smallest = np.array([self.table[self.table[h, g], self.inverses].min() for g in h])
        return [np.flatnonzero(smallest == g) for g in np.unique(smallest)]

    @cached_property
    def identity(self) -> int:
        """The element e with eg = ge = g for every g."""
        return int(np.flatnonzero((self.table == np.arange(self.order)).all(1))[0])

    def multiply(self, g: int, h: int) -> int:
        """The product gh.

        Args:
            g: the left factor, in 0 … |G| − 1.
            h: the right factor, in 0 … |G| − 1.

        Raises:
            ValueError: g or h is not an element.

        >>> cyclic(4).multiply(3, 2)
        1
        """
        return int(self.table[self._element(g), self._element(h)])

    def inverse(self, g: int) -> int:
        """The element g⁻¹ with g g⁻¹ = e.

        Args:
            g: an element, in 0 … |G| − 1.

        Raises:
            ValueError: g is not an element.

        >>> cyclic(4).inverse(1)
        3
        """
        return int(self.inverses[self._element(g)])

    def _element(self, g: int) -> int:
        if isinstance(g, bool) or not isinstance(g, int | np.integer) or not 0 <= g < self.order:
            raise ValueError(
                f"{self.name}: elements are the integers 0 … {self.order - 1}, got {g!r}. "
                "Reduce it modulo the order of the group if it counts rotations."
            )
        return int(g)

    def __repr__(self):
        return f"<{self.name}: group of order {self.order}>"


def cyclic(n: int) -> FiniteGroup:
    r"""The cyclic group $C_n$ of order n: $gh = g + h \bmod n$.

    Element g stands for the rotation of the plane by $2\pi g/n$, counterclockwise.

    Args:
        n: the order, at least 1.

    Raises:
        ValueError: n is not a positive integer.

    >>> cyclic(4)
    <C4: group of order 4>
    """
    elements = np.arange(_positive("cyclic", n, "the order of the group"))
    return FiniteGroup((elements[:, None] + elements) % n, f"C{n}", _rotations(n))


def dihedral(n: int) -> FiniteGroup:
    r"""The dihedral group $D_n$ of order 2n: the symmetries of a regular n-gon.

    Element g < n is the rotation $r^g$ by $2\pi g/n$, element n + g the reflection $r^g s$, where
    s turns (x, y) into (−x, y), left into right.

    Args:
        n: the number of rotations, at least 1.

    Raises:
        ValueError: n is not a positive integer.

    >>> d4 = dihedral(4)
    >>> d4, d4.multiply(4, 1), d4.multiply(1, 4)  # sr = r³s
    (<D4: group of order 8>, 7, 5)
    """
    _positive("dihedral", n, "the number of rotations")
    a, flipped = np.arange(2 * n) % n, np.arange(2 * n) // n
    turn = (a[:, None] + np.where(flipped[:, None], -a, a)) % n
    matrices = np.concatenate([_rotations(n), _rotations(n) @ np.diag([-1.0, 1.0])])
    return FiniteGroup(turn + n * (flipped[:, None] ^ flipped), f"D{n}", matrices)


def symmetric(n: int) -> FiniteGroup:
    r"""The symmetric group $S_n$: all permutations of n things, $(gh)(i) = g(h(i))$.

    The elements are the permutations in lexicographic order; element g moves the thing at i to g(i).

    Args:
        n: the number of things, 1 to 6.

    Raises:
        ValueError: n is not an integer from 1 to 6.

    >>> symmetric(3)
    <S3: group of order 6>
    """
    if _positive("symmetric", n, "the number of things") > 6:
        raise ValueError(f"symmetric(n): n! elements need n at most 6, got {n}. Use a subgroup.")
    permutations = np.array(list(itertools.permutations(range(n))))
    return FiniteGroup(_table_of(permutations), f"S{n}", permutations=permutations)


def octahedral() -> FiniteGroup:
    """The 24 rotations of a cube: signed permutation matrices of determinant 1, the identity first.

    >>> octahedral()
    <O: group of order 24>
    """
    signed = [
        np.diag(signs) @ np.eye(3)[list(p)]
        for p in itertools.permutations(range(3))
        for signs in itertools.product([1.0, -1.0], repeat=3)
    ]
    matrices = np.array([m for m in signed if np.linalg.det(m) > 0])
    # a rotation permutes the six unit vectors ±e, and how it does so tells it from the others
    vectors = np.concatenate([np.eye(3), -np.eye(3)])
    moved = np.einsum("gij,kj->gki", matrices, vectors)
    permutations = np.argmax(moved @ vectors.T, axis=2)
    return FiniteGroup(_table_of(permutations), "O", matrices)


def direct_product(first: FiniteGroup, second: FiniteGroup) -> FiniteGroup:
    r"""The direct product $G \times H$: pairs (g, h), multiplied separately.

    The pair (g, h) is element g·|H| + h. Its matrices are block diagonal if both groups have theirs.

    Args:
        first: G.
        second: H.

    Raises:
        ValueError: an argument is not a group, or the product has more than 4096 elements.

    >>> direct_product(cyclic(2), cyclic(3)).multiply(5, 5)  # (1, 2)² = (0, 1)
    1
    """
    for group in (first, second):
        if not isinstance(group, FiniteGroup):
            raise ValueError(f"direct_product: expected two FiniteGroup, got {group!r}.")
    order = first.order * second.order
    if order > _LARGEST:
        raise ValueError(
            f"direct_product: {first.name} × {second.name} has {order} elements, more than {_LARGEST}."
        )
    g, h = np.divmod(np.arange(order), second.order)
    table = first.table[g[:, None], g] * second.order + second.table[h[:, None], h]
    matrices = None
    if first.matrices is not None and second.matrices is not None:
        d, e = first.matrices.shape[1], second.matrices.shape[1]
        matrices = np.zeros((order, d + e, d + e))
        matrices[:, :d, :d], matrices[:, d:, d:] = first.matrices[g], second.matrices[h]
    return FiniteGroup(table, f"{first.name} × {second.name}", matrices)


def generated_by(permutations: Sequence[ArrayLike], name: str = "group") -> FiniteGroup:
    r"""The group of all products of some permutations, $(gh)(i) = g(h(i))$.

    The elements are found by multiplying with the generators until nothing new appears, so the identity is
    element 0. Element g moves the thing at i to g(i).

    Args:
        permutations: the generators, each an arrangement of 0 … n − 1.
        name: how error messages and figures call the group.

    Raises:
        ValueError: a generator is not a permutation, they differ in length, or they generate more than
            4096 elements.

    >>> generated_by([[1, 2, 3, 0], [3, 2, 1, 0]], name="symmetries of a square")
    <symmetries of a square: group of order 8>
    """
    generators = [np.asarray(p) for p in permutations]
    if not generators:
        raise ValueError("generated_by: give at least one permutation.")
    size = generators[0].size
    for p in generators:
        if p.shape != (size,) or sorted(p.tolist()) != list(range(size)):
            raise ValueError(
                f"generated_by: {p.tolist()} is not a permutation of 0 … {size - 1}. "
                "Each number must occur once, and all generators must have the same length."
            )
    found = {tuple(range(size)): None}
    queue = list(found)
    for element in queue:
        for p in generators:
            product = tuple(p[list(element)].tolist())
            if product not in found:
                found[product] = None
                queue.append(product)
        if len(found) > _LARGEST:
            raise ValueError(f"generated_by: {name} has more than {_LARGEST} elements. Use a subgroup.")
    elements = np.array(queue)
    return FiniteGroup(_table_of(elements), name, permutations=elements)


def _positive(function: str, n: int, meaning: str) -> int:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"{function}(n): n must be a positive integer, {meaning}, got {n!r}.")
    return int(n)


def _rotations(n: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    cos, sin = np.cos(angle), np.sin(angle)
    matrices = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], axis=1)
    whole = np.round(matrices)
    return np.where(np.abs(matrices - whole) < 1e-12, whole + 0.0, matrices)  # quarter turns are exact


def _table_of(permutations: np.ndarray) -> np.ndarray:
    place = {tuple(p): g for g, p in enumerate(permutations.tolist())}
    return np.array([[place[tuple(row)] for row in p[permutations].tolist()] for p in permutations])
