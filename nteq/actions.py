r"""Groups acting on arrays: $\rho(g)x$ for a whole batch x of shape (n, *features) at once.

An `Action` bundles the group with the function that moves the data. Quarter turns and reflections permute the
sites of a square grid, so they are exact; finer rotations of an image have to interpolate and say so in
`Action.exact`. What only permutes keeps the type of the data, integers included; what computes returns a
floating type, JAX's default for integers and booleans, float32 for half precision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from nteq import _checks
from nteq._products import matmul
from nteq.groups import FiniteGroup, generated_by, read_only
from nteq.groups import direct_product as product_group
from nteq.harmonics import wigner_matrices

__all__ = [
    "Action",
    "direct_product",
    "invariant_projection",
    "matrices_of",
    "on_channels",
    "on_harmonics",
    "on_images",
    "on_lattices",
    "on_sets",
    "on_vectors",
    "orbit",
    "stabiliser",
]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Action:
    r"""A group acting on batches of arrays, $\rho(gh) = \rho(g)\rho(h)$.

    Call it as `action(g, x)` to get $\rho(g)x$; g may be traced, so an action can be jitted and vmapped. A
    traced g cannot be refused: outside of 0 … |G| − 1 the result is NaN, and in types that have none the
    number that `jnp.take` puts there (the smallest of signed, the largest of unsigned integers, True).

    Actions are equal if their groups are, with matrices and permutations, and `act`, `exact` and `name`. For
    those that this module makes that is what they do; functions of your own are equal if they are the same
    object. As an argument of `jax.jit` an action is a constant.

    Args:
        group: the group G.
        act: a function (g, x) → ρ(g)x that keeps the shape of x, (n, *features).
        exact: whether ρ(gh) = ρ(g)ρ(h) holds to rounding; False where it interpolates.
        name: how error messages call the action.

    Raises:
        ValueError: group is no FiniteGroup, act cannot be called; when called: g is not an element, x is
            empty, not finite or does not hold numbers, or act changed the shape.

    >>> from nteq.groups import cyclic
    >>> flip = Action(cyclic(2), lambda g, x: jnp.where(g == 1, x[:, ::-1], x), name="reversal")
    >>> flip(1, jnp.array([[1.0, 2.0, 3.0]]))
    Array([[3., 2., 1.]], dtype=float32)
    >>> on_lattices(cyclic(4)) == on_lattices(cyclic(4))
    True
    """

    group: FiniteGroup
    act: Callable[[int | Array, Array], Array] = field(hash=False)
    exact: bool = True
    name: str = "action"
    # groups are equal by their tables alone
    _contents: tuple[str, str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.group, FiniteGroup):
            raise ValueError(
                f"{self.name}: group must be a FiniteGroup such as cyclic(4), got {self.group!r}."
            )
        if not callable(self.act):
            raise ValueError(f"{self.name}: act must be a function (g, x) → ρ(g)x, got {self.act!r}.")
        object.__setattr__(self, "_contents", self.group.contents)

    def __call__(self, g: ArrayLike, x: ArrayLike) -> Array:
        """ρ(g)x, shape (n, *features)."""
        element = np.asarray(g) if _checks.is_known(g) else jnp.asarray(g)
        if element.ndim:
            raise ValueError(
                f"{self.name}: g must be one element, got shape {element.shape}. Use jax.vmap for many."
            )
        x = _batch(self.name, x)
        if isinstance(element, np.ndarray):
            return self._moved(self.group._element(element[()]), x)
        if not jnp.issubdtype(element.dtype, jnp.integer):
            raise ValueError(f"{self.name}: g must be an integer, got dtype {element.dtype}.")
        inside = (element >= 0) & (element < self.group.order)
        moved = self._moved(element, x)
        return jnp.where(inside, moved, _no_number(moved.dtype))

    def _moved(self, g: int | Array, x: Array) -> Array:
        moved = self.act(g, x)
        if moved.shape != x.shape:
            raise ValueError(
                f"{self.name}: act turned shape {x.shape} into {moved.shape}; an action keeps the shape."
            )
        return moved

    def restricted(self, elements: Iterable[int]) -> Action:
        """The same action of a subgroup only.

        Args:
            elements: elements of the group, of which the subgroup is the smallest that contains them; it
                is `group.subgroup(elements)`, with its numbering.

        Raises:
            ValueError: one of them is not an element.

        >>> from nteq.groups import dihedral
        >>> turns = on_lattices(dihedral(4)).restricted([1])
        >>> turns.group.order, turns(3, jnp.array([[[1.0, 2.0], [3.0, 4.0]]]))[0]
        (4, Array([[3., 1.],
               [4., 2.]], dtype=float32))
        """
        kept = tuple(self.group.closure(elements).tolist())
        subgroup = self.group.subgroup(kept)
        return Action(subgroup, _Restricted(self.act, kept), self.exact, f"{self.name}, {subgroup.name}")

    def defect(self, x: ArrayLike) -> float | Array:
        r"""How far this is from a group action on x, relative to the largest entry of x.

        $$\max_{g,h}\ |\rho(g)\rho(h)x - \rho(gh)x|_\infty\,/\,|x|_\infty$$

        Zero to rounding for an action that is exact, with ρ(e)x = x among what is checked.

        Args:
            x: a batch, shape (n, *features).

        Returns:
            A number; an array of shape () where x is traced.

        Raises:
            ValueError: as calling the action does for x.

        >>> from nteq.groups import cyclic
        >>> image = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
        >>> on_images(cyclic(4)).defect(image), on_images(cyclic(8)).defect(image) > 0.1
        (0.0, True)
        """
        x = _whole_or_single(_batch(self.name, x))
        if not _checks.is_known(x):
            return _defect(self, x)
        return float(_checks.look(lambda: _defect(self, x)))


@partial(jax.jit, static_argnames="action")
def _defect(action: Action, x: Array) -> Array:
    images = _orbit(action, x)
    table = jnp.asarray(action.group.table.astype(np.int32))

    def row(g: Array) -> Array:  # all h at once
        moved = jax.vmap(lambda image: action._moved(g, image))(images)
        return _apart(moved, images[table[g]])

    worst = jax.lax.map(row, jnp.arange(action.group.order)).max()
    size = jnp.abs(_floating(x)).max()
    smallest = float(np.finfo(size.dtype).tiny)
    return jnp.maximum(worst, _apart(images[action.group.identity], x)) / jnp.maximum(size, smallest)


def orbit(action: Action, x: ArrayLike) -> Array:
    r"""The orbit $\{\rho(g)x : g \in G\}$ of every example, in the order of the group's elements.

    Args:
        action: the action.
        x: a batch, shape (n, *features).

    Returns:
        Array of shape (|G|, n, *features).

    Raises:
        ValueError: as `Action` does for x.

    >>> from nteq.groups import cyclic
    >>> lattice = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> orbit(on_lattices(cyclic(4)), lattice)[1, 0]
    Array([[2., 4.],
           [1., 3.]], dtype=float32)
    """
    _require_action("orbit", action)
    return _orbit(action, _batch(action.name, x))


def _orbit(action: Action, x: Array) -> Array:
    return jax.vmap(lambda g: action._moved(g, x))(jnp.arange(action.group.order))


def stabiliser(action: Action, x: ArrayLike) -> Array:
    r"""Which elements leave an example as it is: $\{g : \rho(g)x = x\}$, to rounding.

    Rounding is 100 times the precision of the type, relative to the largest entry of the example's orbit;
    integers are compared as they are.

    Args:
        action: the action.
        x: a batch, shape (n, *features).

    Returns:
        Booleans of shape (n, |G|).

    Raises:
        ValueError: as `Action` does for x.

    >>> from nteq.groups import cyclic
    >>> stripes = jnp.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> stabiliser(on_lattices(cyclic(4)), stripes).sum(axis=1)  # the second is its own half turn
    Array([1, 2], dtype=int32)
    """
    _require_action("stabiliser", action)
    x = _whole_or_single(_batch(action.name, x))
    return _equal(_orbit(action, x), x)


@jax.jit
def _equal(images: Array, x: Array) -> Array:
    """To rounding, of images (|G|, n, *features), shape (n, |G|)."""
    images, still = images.reshape(*images.shape[:2], -1), x.reshape(1, x.shape[0], -1).astype(images.dtype)
    if not jnp.issubdtype(images.dtype, jnp.inexact):
        return (images == still).all(axis=2).T
    images, still = _floating(images), _floating(still)
    tolerance = 100 * float(np.finfo(images.dtype).eps) * jnp.abs(images).max(axis=(0, 2))
    return (jnp.abs(images - still).max(axis=2) <= tolerance[None]).T


def invariant_projection(action: Action, x: ArrayLike) -> Array:
    r"""The Reynolds operator $\frac{1}{|G|}\sum_g \rho(g)x$: the part of x that the group leaves alone.

    Args:
        action: the action; the result is a projection if it is linear and exact.
        x: a batch, shape (n, *features).

    Returns:
        Array of the shape of x, of a floating type.

    Raises:
        ValueError: as `Action` does for x.

    >>> from nteq.groups import symmetric
    >>> invariant_projection(on_sets(symmetric(3)), jnp.array([[[1.0], [2.0], [6.0]]]))[0, :, 0]
    Array([3., 3., 3.], dtype=float32)
    """
    _require_action("invariant_projection", action)
    return _floating(_orbit(action, _whole_or_single(_batch(action.name, x)))).mean(axis=0)


def matrices_of(action: Action, dimension: int) -> NDArray[np.float64]:
    r"""The matrices of a linear action on vectors, $(\rho(g)x)_i = \sum_j \rho(g)_{ij}x_j$.

    Args:
        action: a linear action on arrays of shape (n, dimension).
        dimension: the length of the vectors.

    Returns:
        Array of shape (|G|, dimension, dimension).

    Raises:
        ValueError: the action does not take such arrays, is not linear, or is not a representation.

    >>> from nteq.groups import generated_by
    >>> matrices_of(on_sets(generated_by([[1, 0]])), 2)[1]
    array([[0., 1.],
           [1., 0.]])
    """
    _require_action("matrices_of", action)
    dimension = _checks.count("matrices_of", "dimension", dimension)
    probe = np.linspace(-1.0, 2.0, dimension)
    columns = _checks.look(lambda: orbit(action, np.vstack([np.eye(dimension), probe])))
    matrices, moved = columns[:, :-1].transpose(0, 2, 1).astype(np.float64), columns[:, -1]
    tolerance = 100 * float(np.finfo(columns.dtype).eps) * dimension
    group = action.group
    wrong = max(
        np.abs(matrices @ probe - moved).max(),
        np.abs(matrices[group.identity] - np.eye(dimension)).max(),
        # if it is right for generators, then for all their products
        *(np.abs(matrices[s] @ matrices - matrices[group.table[s]]).max() for s in group.generators),
    )
    if not wrong <= tolerance:
        raise ValueError(
            f"matrices_of: {action.name} on vectors of length {dimension} is not a linear representation of "
            f"{group.name}: ρ(g)ρ(h) = ρ(gh) or linearity fails."
        )
    return matrices


def on_lattices(group: FiniteGroup, translations: int | None = None) -> Action:
    r"""Symmetries of square lattices, $(\rho(g)x)_p = x_{g^{-1}p}$, with p the site seen from the centre.

    Rotations are counterclockwise. On a periodic lattice they map bonds to bonds, as reflections and
    translations do, so they leave every nearest-neighbour energy unchanged.

    Args:
        group: cyclic(1), cyclic(2), cyclic(4), or dihedral(1), dihedral(2), dihedral(4).
        translations: the side L of the lattices, to combine the group with all L² translations. The group
            of the action is then their semidirect product, of order L²|G|; its elements are numbered anew.

    Returns:
        An action on arrays of shape (n, L, L), exact.

    Raises:
        ValueError: another group; translations is not a positive integer or makes more than 4096 elements;
            when called: x is not (n, L, L) with equal sides, or not of the side of the translations.

    >>> from nteq.groups import cyclic
    >>> on_lattices(cyclic(2))(1, jnp.array([[[1.0, 2.0], [3.0, 4.0]]]))
    Array([[[4., 3.],
            [2., 1.]]], dtype=float32)
    >>> on_lattices(cyclic(4), translations=3).group.order
    36
    """
    matrices = _plane(group, "on_lattices")
    turns = _OnLattices(group)
    if not _is_exact(matrices):
        raise ValueError(
            f"{turns.name}: only rotations by multiples of 90 degrees map a square lattice to itself. "
            "Use cyclic(1), cyclic(2), cyclic(4), dihedral(1), dihedral(2) or dihedral(4)."
        )
    if translations is None:
        return Action(group, turns, exact=True, name=turns.name)
    side = _checks.count("on_lattices", "translations", translations, advice="It is the lattices' side.")
    whole = _with_translations(turns, side, f"{group.name} with {side} × {side} translations")
    act = _OnPeriodicLattices(whole, side, group.name)
    return Action(whole, act, exact=True, name=act.name)


def on_images(group: FiniteGroup) -> Action:
    r"""Rotations and reflections of images about their centre, $(\rho(g)x)(p) = x(g^{-1}p)$.

    Rotations are counterclockwise. Multiples of a quarter turn and reflections between them permute the
    pixels; other angles interpolate bilinearly and see zeros outside the image, and the action is then
    marked `exact=False`: two rotations by 45 degrees blur more than one by 90. `Action.defect` measures it.

    Args:
        group: cyclic(n) or dihedral(n), any n.

    Returns:
        An action on arrays of shape (n, height, width, channels).

    Raises:
        ValueError: a group that does not act on the plane; when called: the shape does not fit, or the
            images are not square where the group has elements that need it.

    >>> from nteq.groups import cyclic, dihedral
    >>> on_images(dihedral(4)).exact, on_images(cyclic(8)).exact
    (True, False)
    """
    act = _OnImages(group)
    return Action(group, act, exact=_is_exact(_plane(group, "on_images")), name=act.name)


def on_vectors(group: FiniteGroup) -> Action:
    r"""The defining matrices acting on the last axis, $(\rho(g)x)_{\dots i} = \sum_j g_{ij}x_{\dots j}$.

    For vectors, sets of vectors and labels that turn along with the input.

    Args:
        group: a group with matrices of shape (|G|, d, d): octahedral() on vectors of space, cyclic(n) and
            dihedral(n) on those of the plane.

    Returns:
        An action on arrays of shape (n, ..., d), exact.

    Raises:
        ValueError: a group without matrices; when called: the last axis is not of length d.

    >>> from nteq.groups import cyclic
    >>> on_vectors(cyclic(4))(1, jnp.array([[1.0, 0.0]]))  # a quarter turn, counterclockwise
    Array([[0., 1.]], dtype=float32)
    """
    _defined_by(group, "matrices", "on_vectors", "octahedral() or cyclic(n)")
    act = _OnVectors(group)
    return Action(group, act, exact=True, name=act.name)


def on_harmonics(group: FiniteGroup) -> Action:
    r"""Rotations of functions on the sphere, by their coefficients, $(\rho(g)s)_{\dots} = D(g)s_{\dots}$.

    The last axis holds the coefficients of the real spherical harmonics $Y_{\ell m}$ up to some degree L,
    (L + 1)² of them, in the order of `nteq.harmonics.spherical_harmonics`, and D the Wigner matrices: what
    `nteq.molecules.densities` of a turned molecule are.

    Args:
        group: a group of orthogonal 3 × 3 matrices, such as icosahedral().

    Returns:
        An action on arrays of shape (n, ..., (L + 1)²), any L, exact.

    Raises:
        ValueError: a group without matrices or of others; when called: the last axis is not of such a
            length.

    >>> from nteq.groups import icosahedral
    >>> act = on_harmonics(icosahedral())
    >>> s = jnp.array([[2.0, 0.0, 0.0, 1.0]])  # L = 1: a constant, and a vector (y, z, x)
    >>> [f"{c:.3f}" for c in act(1, s)[0]]
    ['2.000', '0.809', '-0.500', '0.309']
    """
    if _defined_by(group, "matrices", "on_harmonics", "icosahedral()").shape[1] != 3:
        raise ValueError(
            f"on_harmonics({group.name}): needs a group of 3 × 3 matrices, such as icosahedral()."
        )
    act = _OnHarmonics(group)
    return Action(group, act, exact=True, name=act.name)


def on_sets(group: FiniteGroup) -> Action:
    r"""Permutations of the things in a set, $(\rho(g)x)_{g(i)} = x_i$.

    Args:
        group: a group of permutations of n things, such as symmetric(n).

    Returns:
        An action on arrays of shape (batch, n, ...), exact: the things are counted by the second axis.

    Raises:
        ValueError: a group without permutations; when called: the second axis is not of length n.

    >>> from nteq.groups import generated_by
    >>> on_sets(generated_by([[1, 2, 0]]))(1, jnp.array([[10.0, 20.0, 30.0]]))
    Array([[30., 10., 20.]], dtype=float32)
    """
    _defined_by(group, "permutations", "on_sets", "symmetric(n)")
    act = _OnSets(group)
    return Action(group, act, exact=True, name=act.name)


def on_channels(group: FiniteGroup) -> Action:
    r"""The regular representation on channels, $(\rho(g)x)_{\dots h} = x_{\dots, g^{-1}h}$.

    It is how the channels of a group convolution move, one for each element.

    Args:
        group: any group.

    Returns:
        An action on arrays of shape (n, ..., |G|), exact.

    Raises:
        ValueError: not a group; when called: the last axis is not of length |G|.

    >>> from nteq.groups import cyclic
    >>> on_channels(cyclic(3))(1, jnp.array([[10.0, 20.0, 30.0]]))
    Array([[30., 10., 20.]], dtype=float32)
    """
    if not isinstance(group, FiniteGroup):
        raise ValueError(f"on_channels(group): expected a FiniteGroup such as cyclic(4), got {group!r}.")
    act = _OnChannels(group)
    return Action(group, act, exact=True, name=act.name)


def direct_product(first: Action, second: Action) -> Action:
    r"""Two actions at once, $\rho(g, h)x = \rho_1(g)\rho_2(h)x$, of the direct product of their groups.

    Args:
        first: ρ₁, an action of G.
        second: ρ₂, an action of H on the same arrays.

    Raises:
        ValueError: an argument is not an `Action`, or the product of the groups is too large; when called:
            the two do not commute on x, so that together they are no action of G × H (for a traced element
            the generators of G and H are tried).

    >>> from nteq.groups import octahedral, symmetric
    >>> both = direct_product(on_sets(symmetric(3)), on_vectors(octahedral()))
    >>> both.group.order, both(0, jnp.ones((5, 3, 3))).shape
    (144, (5, 3, 3))
    """
    for action in (first, second):
        if not isinstance(action, Action):
            raise ValueError(f"direct_product: expected two actions, got {action!r}.")
    act = _Both(first, second)
    group = product_group(first.group, second.group)
    return Action(group, act, first.exact and second.exact, act.name)


@dataclass(frozen=True)
class _Act:
    """How the elements of a group move arrays; equal if the groups are, with matrices and permutations."""

    group: FiniteGroup
    contents: tuple[str, str, str] = field(init=False, repr=False)
    made_by: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "contents", self.group.contents)

    @property
    def name(self) -> str:
        return f"{self.made_by}({self.group.name})"


@dataclass(frozen=True)
class _OnLattices(_Act):
    made_by: ClassVar[str] = "on_lattices"

    def __call__(self, g: int | Array, x: Array) -> Array:
        if x.ndim != 3:
            raise ValueError(f"{self.name} needs lattices of shape (n, L, L), got shape {x.shape}.")
        return _permute(_sources_of_sites(self, *x.shape[1:3]), g, x, 1, 3)


@dataclass(frozen=True)
class _OnPeriodicLattices(_Act):
    side: int
    point_group: str  # its name

    @property
    def name(self) -> str:
        return f"on_lattices({self.point_group}, translations={self.side})"

    def __call__(self, g: int | Array, x: Array) -> Array:
        side = self.side
        if x.shape[1:] != (side, side):
            raise ValueError(f"{self.name} needs lattices of shape (n, {side}, {side}), got shape {x.shape}.")
        return _permute(_sources_of_things(self), g, x, 1, 3)


@dataclass(frozen=True)
class _OnImages(_Act):
    made_by: ClassVar[str] = "on_images"

    def __call__(self, g: int | Array, x: Array) -> Array:
        if x.ndim != 4:
            raise ValueError(
                f"{self.name} needs images of shape (n, height, width, channels), got shape {x.shape}."
            )
        matrices = np.asarray(self.group.matrices)
        if _is_exact(matrices):
            return _permute(_sources_of_sites(self, *x.shape[1:3]), g, x, 1, 3)
        if x.shape[1] != x.shape[2]:
            raise ValueError(_needs_square(self.name, *x.shape[1:3]))
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise ValueError(f"{self.name} needs real images, got dtype {x.dtype}.")
        return _interpolate(matrices, g, x)


@dataclass(frozen=True)
class _OnVectors(_Act):
    made_by: ClassVar[str] = "on_vectors"

    def __call__(self, g: int | Array, x: Array) -> Array:
        matrices = np.asarray(self.group.matrices)
        if x.ndim < 2 or x.shape[-1] != matrices.shape[1]:
            raise ValueError(
                f"{self.name} needs arrays of shape (n, ..., {matrices.shape[1]}), got shape {x.shape}."
            )
        return _turn(matrices, g, x)


@dataclass(frozen=True)
class _OnHarmonics(_Act):
    made_by: ClassVar[str] = "on_harmonics"

    def matrices(self, length: int) -> NDArray[np.float64]:
        """The Wigner matrices on so many coefficients, (|G|, length, length)."""
        degree = math.isqrt(length) - 1
        if (degree + 1) ** 2 != length:
            raise ValueError(
                f"{self.name} needs arrays of shape (n, ..., (L + 1)²), coefficients up to a degree L, got "
                f"a last axis of length {length}."
            )
        return _wigner_matrices(self, degree)

    def __call__(self, g: int | Array, x: Array) -> Array:
        if x.ndim < 2:
            raise ValueError(f"{self.name} needs arrays of shape (n, ..., (L + 1)²), got shape {x.shape}.")
        return _turn(self.matrices(x.shape[-1]), g, x)


@lru_cache(maxsize=32)
def _wigner_matrices(act: _OnHarmonics, degree: int) -> NDArray[np.float64]:
    return read_only(wigner_matrices(np.asarray(act.group.matrices), degree))


@dataclass(frozen=True)
class _OnSets(_Act):
    made_by: ClassVar[str] = "on_sets"

    def __call__(self, g: int | Array, x: Array) -> Array:
        things = np.asarray(self.group.permutations).shape[1]
        if x.ndim < 2 or x.shape[1] != things:
            raise ValueError(
                f"{self.name} needs arrays of shape (batch, {things}, ...), got shape {x.shape}."
            )
        return _permute(_sources_of_things(self), g, x, 1, 2)


@dataclass(frozen=True)
class _OnChannels(_Act):
    made_by: ClassVar[str] = "on_channels"

    def __call__(self, g: int | Array, x: Array) -> Array:
        order = self.group.order
        if x.ndim < 2 or x.shape[-1] != order:
            raise ValueError(f"{self.name} needs arrays of shape (n, ..., {order}), got shape {x.shape}.")
        return _permute(_sources_of_channels(self), g, x, x.ndim - 1, x.ndim)


@dataclass(frozen=True)
class _Restricted:
    act: Callable[[int | Array, Array], Array]
    elements: tuple[int, ...]

    def __call__(self, g: int | Array, x: Array) -> Array:
        known = _checks.is_known(g)
        return self.act(self.elements[int(g)] if known else jnp.asarray(self.elements)[g], x)


@dataclass(frozen=True)
class _Both:
    first: Action
    second: Action

    @property
    def name(self) -> str:
        return f"{self.first.name} × {self.second.name}"

    def __call__(self, g: int | Array, x: Array) -> Array:
        first, second = self.first, self.second
        g, h = g // second.group.order, g % second.group.order
        if first.exact and second.exact and _checks.is_known(x):
            if _checks.is_known(g):
                return self._commuting(g, h, x)
            for s, t in itertools.product(first.group.generators, second.group.generators):
                self._commuting(s, t, x)
        return first.act(g, second.act(h, x))

    def _commuting(self, g: int | Array, h: int | Array, x: Array) -> Array:
        first, second = self.first.act, self.second.act
        with jax.ensure_compile_time_eval():
            moved, other = first(g, second(h, x)), second(h, first(g, x))
            apart = float(_apart(moved, other))
            size = jnp.abs(_floating(x)).max()
            if not apart <= 100 * float(np.finfo(size.dtype).eps) * float(size):
                raise ValueError(
                    f"{self.name}: the two actions do not commute on x, they differ by {apart:.1e}. "
                    "Use one group that contains both, as on_lattices(group, translations=L) makes."
                )
            return moved


def _require_action(caller: str, action: Action) -> None:
    if not isinstance(action, Action):
        raise ValueError(
            f"{caller}: action must be an nteq.actions.Action, got {action!r}. "
            "Give on_lattices(cyclic(4)), not the group alone."
        )


def _batch(name: str, x: ArrayLike) -> Array:
    """A batch of numbers in the type it came in, for what only moves them does not compute with them."""
    known = _checks.is_known(x)
    given: Any = np.asarray(x) if known and not isinstance(x, Array) else jnp.asarray(x)
    if not jnp.issubdtype(given.dtype, jnp.number) and given.dtype != bool:
        raise ValueError(f"{name}: x must hold numbers, got dtype {given.dtype}.")
    if given.ndim < 1 or given.size == 0:
        raise ValueError(f"{name}: x must be a batch of shape (n, *features), got shape {given.shape}.")
    if not known:
        return given
    inexact = jnp.issubdtype(given.dtype, jnp.inexact)
    if inexact and not _checks.are_finite(given):
        raise ValueError(f"{name}: x has entries that are not finite. Remove them first.")
    with np.errstate(over="ignore"), jax.ensure_compile_time_eval():  # known stays known inside of a trace
        array = jnp.asarray(given)
    if array.dtype != given.dtype and not (
        _checks.are_finite(array) if inexact else (np.asarray(array) == given).all()
    ):
        raise ValueError(
            f"{name}: x has entries that {array.dtype} cannot hold. Scale them down, or compute in 64 bits: "
            'jax.config.update("jax_enable_x64", True).'
        )
    return array


def _whole_or_single(x: Array) -> Array:
    """Half precision as float32: its own rounding would pass for a symmetry."""
    if not jnp.issubdtype(x.dtype, jnp.inexact) or x.dtype.itemsize >= 4:
        return x
    if not _checks.is_known(x):
        return x.astype(jnp.float32)
    with jax.ensure_compile_time_eval():
        return x.astype(jnp.float32)


def _floating(x: Array) -> Array:
    """Integers and booleans in the default precision, half precision as float32, all else as it is."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x.astype(float)
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def _apart(a: Array, b: Array) -> Array:
    """The largest difference, computed where it cannot wrap around."""
    a = _floating(a)
    return jnp.abs(a - b.astype(a.dtype)).max()


def _no_number(dtype: np.dtype) -> NDArray[Any]:
    """NaN, or what `jnp.take` has for it in types without."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return np.array(np.nan, dtype)
    if dtype.kind == "b":
        return np.array(True)
    limits = jnp.iinfo(dtype)
    return np.array(limits.min if jnp.issubdtype(dtype, jnp.signedinteger) else limits.max, dtype)


def _defined_by(group: FiniteGroup, what: str, caller: str, such_as: str) -> NDArray[Any]:
    if not isinstance(group, FiniteGroup):
        raise ValueError(f"{caller}(group): expected a FiniteGroup such as {such_as}, got {group!r}.")
    if getattr(group, what) is None:
        raise ValueError(f"{caller}({group.name}): the group has no {what}. Use {such_as}.")
    return np.asarray(getattr(group, what))


def _plane(group: FiniteGroup, caller: str) -> NDArray[np.float64]:
    matrices = _defined_by(group, "matrices", caller, "cyclic(4) or dihedral(4)")
    if matrices.shape[1] != 2:
        raise ValueError(
            f"{caller}({group.name}): needs a group of 2 × 2 matrices, got {matrices.shape[1:]}. "
            "Use cyclic(n) or dihedral(n)."
        )
    return matrices


def _is_exact(matrices: NDArray[np.float64]) -> bool:
    return bool((matrices == np.round(matrices)).all())


def _needs_square(name: str, height: int, width: int) -> str:
    return (
        f"{name} needs square images: got height {height} and width {width}.\n"
        "Crop or pad to a square, or use cyclic(2), which only needs rotations by 180 degrees."
    )


@lru_cache(maxsize=8)
def _with_translations(act: _OnLattices, side: int, name: str) -> FiniteGroup:
    sites = np.arange(side * side).reshape(side, side)
    point_group = [np.argsort(s) for s in _sources_of_sites(act, side, side)]
    return generated_by([np.roll(sites, 1, axis).ravel() for axis in (0, 1)] + point_group, name=name)


@lru_cache(maxsize=32)
def _sources_of_sites(act: _OnLattices | _OnImages, height: int, width: int) -> NDArray[np.int32]:
    """For every element and site p the site g⁻¹p, shape (|G|, height · width)."""
    row, column = np.divmod(np.arange(height * width), width)
    # twice the coordinates, seen from the centre: whole numbers, x to the right and y upwards
    x, y = 2 * column - (width - 1), (height - 1) - 2 * row
    # the inverse of an orthogonal matrix is its transpose
    moved = np.stack([x, y], axis=1) @ np.asarray(act.group.matrices)
    row, column = (height - 1 - moved[..., 1]) / 2, (moved[..., 0] + width - 1) / 2
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    if not (inside & (row == np.round(row)) & (column == np.round(column))).all():
        raise ValueError(_needs_square(act.name, height, width))
    return read_only((row * width + column).astype(np.int32))


@lru_cache(maxsize=32)
def _sources_of_things(act: _OnSets | _OnPeriodicLattices) -> NDArray[np.int32]:
    """For every element and thing i the thing g⁻¹(i), shape (|G|, things)."""
    return read_only(np.argsort(np.asarray(act.group.permutations), axis=1).astype(np.int32))


@lru_cache(maxsize=32)
def _sources_of_channels(act: _OnChannels) -> NDArray[np.int32]:
    """For every element and channel h the channel g⁻¹h, shape (|G|, |G|)."""
    return read_only(act.group.table[act.group.inverses].astype(np.int32))


# The moves are compiled as a whole, one program for a shape: of an array that is new, operations one by one
# would each be compiled.


@partial(jax.jit, static_argnames=("first", "stop"))
def _permute(sources: ArrayLike, g: ArrayLike, x: Array, first: int, stop: int) -> Array:
    """What the axes first … stop − 1 count together, each from its source under g."""
    flat = x.reshape(*x.shape[:first], -1, *x.shape[stop:])
    return jnp.take(flat, jnp.asarray(sources)[g], axis=first, mode="clip").reshape(x.shape)


@jax.jit
def _turn(matrices: ArrayLike, g: ArrayLike, x: Array) -> Array:
    x = _floating(x)
    return matmul(x, jnp.asarray(matrices, x.dtype)[g].T)


@jax.jit
def _interpolate(matrices: ArrayLike, g: ArrayLike, x: Array) -> Array:
    x = _floating(x)
    matrix = jnp.asarray(matrices, x.dtype)[g]
    centre = (x.shape[1] - 1) / 2
    offset = jnp.arange(x.shape[1], dtype=x.dtype) - centre
    row, column = jnp.meshgrid(offset, offset, indexing="ij")
    # rows run downwards, so y is −row
    source_x = matrix[0, 0] * column - matrix[1, 0] * row
    source_y = matrix[0, 1] * column - matrix[1, 1] * row
    source = [centre - source_y, centre + source_x]

    def channel(values: Array) -> Array:
        return jax.scipy.ndimage.map_coordinates(values, source, order=1)

    return jax.vmap(jax.vmap(channel, in_axes=-1, out_axes=-1))(x)
