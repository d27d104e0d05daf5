"""Finite groups as Cayley tables.

A group element is an integer that indexes the table, so products and inverses are look-ups and a whole
group fits into one array. The groups made here carry what they are defined by, matrices (the rotations of
the plane) or permutations; how these move data is the business of `nteq.actions`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from nteq import _checks

__all__ = [
    "FiniteGroup",
    "cyclic",
    "dihedral",
    "direct_product",
    "generated_by",
    "icosahedral",
    "octahedral",
    "symmetric",
    "tetrahedral",
    "with_inversion",
]

_LARGEST = 4096  # elements; the Cayley table of more takes over 100 MB


@dataclass(frozen=True, eq=False)
class FiniteGroup:
    r"""A finite group given by its Cayley table, $\text{table}[g, h] = gh$.

    Closure, the identity, inverses and associativity are checked on construction, the last by Light's test
    on a few generators (Clifford & Preston 1961, section 1.2).

    Groups of equal tables are equal and hash alike, whatever else they carry. As an argument of `jax.jit` a
    group is a constant, and there those with other matrices or permutations are told apart; with
    `static_argnums`, which goes by `==`, let the function read the table only.

    Args:
        table: integers, shape (|G|, |G|), entries in 0 … |G| − 1.
        name: how error messages and figures call the group.
        matrices: the defining representation, orthogonal matrices of shape (|G|, d, d) with
            `matrices[g] @ matrices[h] = matrices[gh]`; None if it is not defined by matrices.
        permutations: integers of shape (|G|, n), `permutations[g][permutations[h]] = permutations[gh]`;
            None if it is not defined by permutations.

    Raises:
        ValueError: the table is not that of a group, the matrices are not orthogonal or the permutations no
            permutations, or they do not multiply as it says; the message shows where it fails.

    >>> klein = FiniteGroup([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]], name="C2 × C2")
    >>> klein.order, klein.multiply(1, 2), klein.inverse(3)
    (4, 3, 3)
    >>> klein == direct_product(cyclic(2), cyclic(2)), klein == cyclic(4)
    (True, False)
    """

    table: NDArray[np.int64]
    name: str = "group"
    matrices: NDArray[np.float64] | None = None
    permutations: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        table = self._integers("table", self.table, "the products gh as a |G| × |G| array of integers")
        if table.ndim != 2 or table.shape[0] != table.shape[1] or table.size == 0:
            raise ValueError(
                f"{self.name}: table must be square and not empty, got shape {table.shape}. "
                "Give the products gh as a |G| × |G| array of integers."
            )
        object.__setattr__(self, "table", read_only(table))
        self._check_axioms()
        if self.matrices is not None:
            try:
                matrices = np.array(self.matrices, dtype=np.float64)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{self.name}: matrices must be an array of real numbers ({error})."
                ) from None
            self._check_matrices(matrices)
        if self.permutations is not None:
            self._check_permutations(
                self._integers("permutations", self.permutations, "one arrangement of 0 … n − 1 an element")
            )

    def _integers(self, field: str, given: ArrayLike, wanted: str) -> NDArray[np.int64]:
        try:
            array = np.asarray(given)
        except ValueError:
            raise ValueError(f"{self.name}: the rows of {field} differ in length. Give {wanted}.") from None
        if array.size and array.dtype.kind not in "iu":
            raise ValueError(f"{self.name}: {field} must hold integers, got dtype {array.dtype}.")
        return array.astype(np.int64)

    def _check_axioms(self) -> None:
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
        for s in self.generators:  # (gs)h = g(sh) for generators s has it for all their products
            left, right = table[table[:, s]], table[:, table[s]]
            if (left != right).any():
                g, h = np.argwhere(left != right)[0]
                raise ValueError(
                    f"{self.name}: not associative, ({g}·{s})·{h} = {left[g, h]} "
                    f"but {g}·({s}·{h}) = {right[g, h]}."
                )

    def _check_matrices(self, given: NDArray[np.float64]) -> None:
        if given.ndim != 3 or len(given) != self.order or given.shape[1] != given.shape[2]:
            raise ValueError(
                f"{self.name}: matrices must have shape ({self.order}, d, d), got {given.shape}."
            )
        self._check_products("matrices", given, lambda a, b: a @ b)
        unit = np.eye(given.shape[1])
        lengths = np.abs(given @ given.transpose(0, 2, 1) - unit).reshape(self.order, -1).max(1, initial=0)
        if not lengths.max() < 1e-10:
            g = int(np.argmax(~(lengths < 1e-10)))
            raise ValueError(
                f"{self.name}: matrix {g} is not orthogonal, its product with its transpose differs from "
                f"the unit matrix by {lengths[g]:.1e}. Take a basis in which the group is orthogonal."
            )
        object.__setattr__(self, "matrices", read_only(given))

    def _check_permutations(self, given: NDArray[np.int64]) -> None:
        if given.ndim != 2 or len(given) != self.order:
            raise ValueError(
                f"{self.name}: permutations must have shape ({self.order}, n), got {given.shape}."
            )
        wrong = np.flatnonzero((np.sort(given, axis=1) != np.arange(given.shape[1])).any(1))
        if len(wrong):
            raise ValueError(
                f"{self.name}: permutations[{wrong[0]}] is {given[wrong[0]].tolist()}, "
                f"which is not a permutation of 0 … {given.shape[1] - 1}."
            )
        self._check_products("permutations", given, lambda a, b: a[b])
        object.__setattr__(self, "permutations", read_only(given))

    def _check_products(self, field: str, given: NDArray[Any], multiply: Callable[..., NDArray[Any]]) -> None:
        for s in [self.identity, *self.generators]:  # what holds for these holds for their products
            product = multiply(given[s], given)
            wrong = np.abs(product - given[self.table[s]]).reshape(self.order, -1).max(1, initial=0)
            if not wrong.max() < 1e-10:
                h = int(np.argmax(~(wrong < 1e-10)))
                raise ValueError(
                    f"{self.name}: {field} of {s} and {h} do not multiply to that of {self.table[s, h]}, "
                    f"their product by the table; they differ by {wrong[h]:.1e}."
                )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FiniteGroup):
            return NotImplemented
        return self is other or self.contents[0] == other.contents[0]

    def __hash__(self) -> int:
        return hash(self.contents[0])

    def __reduce__(self) -> tuple[Any, ...]:  # arrays are read-only again, and nothing derived travels
        return FiniteGroup, (self.table, self.name, self.matrices, self.permutations)

    @cached_property
    def contents(self) -> tuple[str, str, str]:
        """A digest each of table, matrices and permutations, which tell this group from others."""
        return fingerprint(self.table), fingerprint(self.matrices), fingerprint(self.permutations)

    @cached_property
    def generators(self) -> list[int]:
        """A few elements, at most log₂|G|, that all others are products of.

        >>> dihedral(4).generators
        [1, 4]
        """
        found: list[int] = []
        reached = _closure(self.table, found, self.identity)
        while not reached.all():
            found.append(int(np.argmin(reached)))
            reached = _closure(self.table, found, self.identity)
        return found

    @property
    def order(self) -> int:
        """The number of elements |G|."""
        return len(self.table)

    @cached_property
    def inverses(self) -> NDArray[np.int64]:
        """The inverse of every element, shape (|G|,)."""
        return read_only(np.argmax(self.table == self.identity, axis=1))

    @cached_property
    def conjugacy_classes(self) -> list[NDArray[np.int64]]:
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

    def closure(self, elements: Iterable[int]) -> NDArray[np.int64]:
        """The elements of the smallest subgroup that contains some elements, in ascending order.

        Args:
            elements: any number of elements, each in 0 … |G| − 1.

        Raises:
            ValueError: one of them is not an element.

        >>> dihedral(4).closure([2, 4])
        array([0, 2, 4, 6])
        """
        if not isinstance(elements, Iterable):
            raise ValueError(f"{self.name}: elements must be a sequence of elements, got {elements!r}.")
        given = [self._element(g) for g in elements]
        return np.flatnonzero(_closure(self.table, given, self.identity))

    def subgroup(self, elements: Iterable[int], name: str | None = None) -> FiniteGroup:
        """The smallest subgroup that contains some elements, as a group of its own.

        Its elements are numbered anew, element i is `closure(elements)[i]` of this group, and keep their
        matrices and permutations.

        Args:
            elements: any number of elements, each in 0 … |G| − 1.
            name: how error messages and figures call the subgroup.

        Raises:
            ValueError: one of them is not an element.

        >>> dihedral(4).subgroup([1]) == cyclic(4), dihedral(4).subgroup([2, 4], name="D2")
        (True, <D2: group of order 4>)
        """
        kept = self.closure(elements)
        number = np.empty(self.order, np.int64)
        number[kept] = np.arange(len(kept))
        return FiniteGroup(
            number[self.table[np.ix_(kept, kept)]],
            name or f"subgroup of {self.name}",
            None if self.matrices is None else self.matrices[kept],
            None if self.permutations is None else self.permutations[kept],
        )

    def _element(self, g: Any) -> int:
        if isinstance(g, bool) or not isinstance(g, int | np.integer) or not 0 <= g < self.order:
            raise ValueError(
                f"{self.name}: elements are the integers 0 … {self.order - 1}, got {g!r}. "
                "Reduce it modulo the order of the group if it counts rotations."
            )
        return int(g)

    def __repr__(self) -> str:
        return f"<{self.name}: group of order {self.order}>"


@dataclass(frozen=True)
class _AsConstant:
    """A group as `jit` compares it: what was compiled for one may have read its matrices."""

    group: FiniteGroup
    contents: tuple[str, str, str]


jax.tree_util.register_pytree_node(
    FiniteGroup,
    lambda group: ((), _AsConstant(group, group.contents)),
    lambda constant, _: constant.group,
)


def cyclic(n: int) -> FiniteGroup:
    r"""The cyclic group $C_n$ of order n: $gh = g + h \bmod n$.

    Element g stands for the rotation of the plane by $2\pi g/n$, counterclockwise.

    Args:
        n: the order, at least 1.

    Raises:
        ValueError: n is not an integer from 1 to 4096.

    >>> cyclic(4)
    <C4: group of order 4>
    """
    elements = np.arange(_checks.count("cyclic", "n", n, most=_LARGEST))
    return FiniteGroup((elements[:, None] + elements) % n, f"C{n}", _rotations(n))


def dihedral(n: int) -> FiniteGroup:
    r"""The dihedral group $D_n$ of order 2n: the symmetries of a regular n-gon.

    Element g < n is the rotation $r^g$ by $2\pi g/n$, element n + g the reflection $r^g s$, where
    s turns (x, y) into (−x, y), left into right.

    Args:
        n: the number of rotations, at least 1.

    Raises:
        ValueError: n is not an integer from 1 to 2048.

    >>> d4 = dihedral(4)
    >>> d4, d4.multiply(4, 1), d4.multiply(1, 4)  # sr = r³s
    (<D4: group of order 8>, 7, 5)
    """
    _checks.count("dihedral", "n", n, most=_LARGEST // 2)
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
    _checks.count("symmetric", "n", n, most=6, advice="Use a subgroup, by generated_by.")
    permutations = np.array(list(itertools.permutations(range(n))))
    return FiniteGroup(_table_of(permutations), f"S{n}", permutations=permutations)


def tetrahedral() -> FiniteGroup:
    """The 12 rotations of a tetrahedron, the identity first.

    Generated by the half turn about the z axis and the third of a turn about (1, 1, 1), so every matrix
    permutes the axes cyclically and changes two signs or none.

    >>> tetrahedral()
    <T: group of order 12>
    """
    cycle = np.eye(3)[[2, 0, 1]]  # x to y, y to z, z to x
    return _of_matrices([np.diag([-1.0, -1.0, 1.0]), cycle], [0.0, 1.0], "T")


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


def icosahedral() -> FiniteGroup:
    r"""The 60 rotations of an icosahedron, the identity first.

    Its vertices are (0, ±1, ±φ) and their cyclic permutations, φ the golden ratio, so the rotations of
    `tetrahedral` are among them. Generated by a fifth of a turn about (0, 1, φ) and a third about (1, 1, 1).

    >>> icosahedral()
    <I: group of order 60>
    """
    golden = (1 + 5**0.5) / 2
    a, b, c = golden / 2, 1 / (2 * golden), 0.5
    fifth = np.array([[b, -a, c], [a, c, b], [-c, b, a]])
    return _of_matrices([fifth, np.eye(3)[[2, 0, 1]]], [0.0, b, c, a, 1.0], "I")


def with_inversion(group: FiniteGroup) -> FiniteGroup:
    r"""The group $G \times \{1, -1\}$ of the matrices of G and their negatives, of order 2|G|.

    In space −1 is the inversion, and G with it contains reflections. Element g < |G| is that of G, and
    element |G| + g is −g.

    Args:
        group: a group with matrices, that of −1 not among them.

    Raises:
        ValueError: a group without matrices or with −1 among them, or more than 4096 elements.

    >>> with_inversion(icosahedral())
    <I × inversion: group of order 120>
    """
    if not isinstance(group, FiniteGroup) or group.matrices is None:
        raise ValueError(
            f"with_inversion: expected a group with matrices such as icosahedral(), got {group!r}."
        )
    if np.abs(group.matrices + np.eye(group.matrices.shape[1])).max((1, 2)).min() < 1e-10:
        raise ValueError(f"with_inversion: {group.name} contains −1 already.")
    if 2 * group.order > _LARGEST:
        raise ValueError(f"with_inversion: {2 * group.order} elements are more than {_LARGEST}.")
    sign = np.repeat([0, 1], group.order)
    within = np.tile(group.table, (2, 2)) + group.order * (sign[:, None] ^ sign)
    matrices = np.concatenate([group.matrices, 0.0 - group.matrices])
    return FiniteGroup(within, f"{group.name} × inversion", matrices)


def direct_product(first: FiniteGroup, second: FiniteGroup) -> FiniteGroup:
    r"""The direct product $G \times H$: pairs (g, h), multiplied separately.

    The pair (g, h) is element g·|H| + h. If both groups have matrices, those of the product are block
    diagonal; if both have permutations, G permutes the first points and H those that follow.

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
    permutations = None
    if first.permutations is not None and second.permutations is not None:
        points = first.permutations.shape[1]
        permutations = np.concatenate([first.permutations[g], points + second.permutations[h]], axis=1)
    return FiniteGroup(table, f"{first.name} × {second.name}", matrices, permutations)


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
        if p.shape != (size,) or p.dtype.kind not in "iu" or sorted(p.tolist()) != list(range(size)):
            raise ValueError(
                f"generated_by: {p.tolist()} is not a permutation of 0 … {size - 1}. "
                "Each number must occur once, and all generators must have the same length."
            )
    queue = [np.arange(size)]
    place = {queue[0].tobytes(): 0}
    made_of = [(0, 0)]  # generator s and element h with sh = g
    moved: list[list[int]] = [[] for _ in generators]  # sg for every s and g
    for h, element in enumerate(queue):
        for s, p in enumerate(generators):
            product = p.astype(np.int64)[element]
            g = place.setdefault(product.tobytes(), len(queue))
            if g == len(queue):
                queue.append(product)
                made_of.append((s, h))
            moved[s].append(g)
        if len(queue) > _LARGEST:
            raise ValueError(f"generated_by: {name} has more than {_LARGEST} elements. Use a subgroup.")
    table = np.empty((len(queue), len(queue)), np.int64)
    table[0] = np.arange(len(queue))
    times = np.array(moved)
    for g, (s, h) in enumerate(made_of[1:], start=1):
        table[g] = times[s][table[h]]  # (sh)k = s(hk)
    return FiniteGroup(table, name, permutations=np.array(queue))


def fingerprint(array: NDArray[Any] | None) -> str:
    """A digest of an array's shape, type and entries; the same in every process."""
    if array is None:
        return ""
    head = f"{array.shape} {array.dtype.str} ".encode()
    return hashlib.blake2b(head + array.tobytes(), digest_size=32).hexdigest()


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, which from now on refuses to be written to."""
    array.setflags(write=False)
    return array


def _closure(table: NDArray[np.int64], elements: Sequence[int], identity: int) -> NDArray[np.bool_]:
    """Which elements are products of the given ones."""
    reached = np.zeros(len(table), bool)
    last = np.array([identity])
    while len(last):
        reached[last] = True
        products = np.unique(table[np.ix_(last, np.asarray(elements, dtype=np.int64))])
        last = products[~reached[products]]
    return reached


def _of_matrices(generators: Sequence[NDArray[np.float64]], sizes: Sequence[float], name: str) -> FiniteGroup:
    """All products of some matrices, of whose entries all magnitudes are known, so that none has an error."""
    exact = np.array(sorted({s * size for size in sizes for s in (1.0, -1.0)}))
    found = [np.eye(len(generators[0]))]
    for matrix in found:
        for generator in generators:
            product = generator @ matrix
            product = exact[np.abs(product[..., None] - exact).argmin(-1)] + 0.0
            if not any(np.array_equal(product, other) for other in found):
                found.append(product)
    matrices = np.array(found)
    products = np.einsum("gij,hjk->ghik", matrices, matrices)
    apart = np.abs(products[:, :, None] - matrices).max((-1, -2))
    return FiniteGroup(apart.argmin(-1), name, matrices)


def _rotations(n: int) -> NDArray[np.float64]:
    angle = 2 * np.pi * np.arange(n) / n
    cos, sin = np.cos(angle), np.sin(angle)
    matrices = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], axis=1)
    whole = np.round(matrices)
    return np.where(np.abs(matrices - whole) < 1e-12, whole + 0.0, matrices)  # quarter turns are exact


def _table_of(permutations: NDArray[np.int64]) -> NDArray[np.int64]:
    """The products of all permutations of a few points, which together are a group."""
    digits = permutations.shape[1] ** np.arange(permutations.shape[1])
    codes = permutations @ digits
    order = np.argsort(codes)
    return order[np.searchsorted(codes[order], permutations[:, permutations] @ digits)]
