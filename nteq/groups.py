"""Finite groups as Cayley tables.

A group element is an integer that indexes the table, so products and inverses are look-ups and a whole
group fits into one array. How elements move data is the business of `nteq.actions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["FiniteGroup", "cyclic"]


@dataclass(frozen=True, eq=False)
class FiniteGroup:
    r"""A finite group given by its Cayley table, $\text{table}[g, h] = gh$.

    Closure, the identity, inverses and associativity are checked on construction.

    Args:
        table: integers, shape (|G|, |G|), entries in 0 … |G| − 1.
        name: how error messages and figures call the group.

    Raises:
        ValueError: the table is not that of a group; the message shows where it fails.

    >>> klein = FiniteGroup([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]], name="C2 × C2")
    >>> klein.order, klein.multiply(1, 2), klein.inverse(3)
    (4, 3, 3)
    """

    table: np.ndarray
    name: str = "group"

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
        return int(np.flatnonzero(self.table[self._element(g)] == self.identity)[0])

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

    Element g stands for a rotation by $2\pi g/n$, counterclockwise.

    Args:
        n: the order, at least 1.

    Raises:
        ValueError: n is not a positive integer.

    >>> cyclic(4)
    <C4: group of order 4>
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"cyclic(n): n must be a positive integer, the order of the group, got {n!r}.")
    elements = np.arange(n)
    return FiniteGroup((elements[:, None] + elements) % n, name=f"C{n}")
