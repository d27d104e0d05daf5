r"""Groups acting on arrays: $\rho(g)x$ for a whole batch x of shape (n, *features) at once.

An `Action` bundles the group with the function that moves the data. Quarter turns and reflections permute the
sites of a square grid, so they are exact; finer rotations of an image have to interpolate and say so in
`Action.exact`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq.groups import FiniteGroup, generated_by
from nteq.groups import direct_product as product_group

__all__ = [
    "Action",
    "direct_product",
    "invariant_projection",
    "matrices_of",
    "on_channels",
    "on_images",
    "on_lattices",
    "on_sets",
    "on_vectors",
    "orbit",
    "stabiliser",
]


@dataclass(frozen=True)
class Action:
    r"""A group acting on batches of arrays, $\rho(gh) = \rho(g)\rho(h)$.

    Call it as `action(g, x)` to get $\rho(g)x$; g may be traced, so an action can be jitted and vmapped.

    Args:
        group: the group G.
        act: a function (g, x) → ρ(g)x that keeps the shape of x, (n, *features).
        exact: whether ρ(gh) = ρ(g)ρ(h) holds to rounding; False where it interpolates.
        name: how error messages call the action.

    Raises:
        ValueError: when called: g is not an element, x is empty or not finite, or act changed the shape.

    >>> from nteq.groups import cyclic
    >>> flip = Action(cyclic(2), lambda g, x: jnp.where(g == 1, x[:, ::-1], x), name="reversal")
    >>> flip(1, jnp.array([[1.0, 2.0, 3.0]]))
    Array([[3., 2., 1.]], dtype=float32)
    """

    group: FiniteGroup
    act: Callable[[ArrayLike, Array], Array]
    exact: bool = True
    name: str = "action"

    def __call__(self, g: ArrayLike, x: ArrayLike) -> Array:
        """ρ(g)x, shape (n, *features)."""
        if not isinstance(g, jax.core.Tracer):
            if np.ndim(g):
                raise ValueError(
                    f"{self.name}: g must be one element, got shape {np.shape(g)}. Use jax.vmap for many."
                )
            g = self.group._element(np.asarray(g)[()])
        x = jnp.asarray(x)
        if x.ndim < 1 or x.size == 0:
            raise ValueError(f"{self.name}: x must be a batch of shape (n, *features), got shape {x.shape}.")
        if not isinstance(x, jax.core.Tracer) and not jnp.isfinite(x).all():
            raise ValueError(f"{self.name}: x has entries that are not finite. Remove them first.")
        moved = self.act(g, x)
        if moved.shape != x.shape:
            raise ValueError(
                f"{self.name}: act turned shape {x.shape} into {moved.shape}; an action keeps the shape."
            )
        return moved

    def defect(self, x: ArrayLike) -> float:
        r"""How far this is from a group action on x, relative to the largest entry of x.

        $$\max_{g,h}\ |\rho(g)\rho(h)x - \rho(gh)x|_\infty\,/\,|x|_\infty$$

        Zero to rounding for an action that is exact, with ρ(e)x = x among what is checked.

        Args:
            x: a batch, shape (n, *features).

        Raises:
            ValueError: as calling the action does for x.

        >>> from nteq.groups import cyclic
        >>> image = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
        >>> on_images(cyclic(4)).defect(image), on_images(cyclic(8)).defect(image) > 0.1
        (0.0, True)
        """
        x = jnp.asarray(x)
        images = orbit(self, x)

        @jax.jit
        def row(g):  # all h at once
            moved = jax.vmap(lambda y: self(g, y))(images)
            return jnp.abs(moved - images[jnp.asarray(self.group.table)[g]]).max()

        worst = max(float(row(g)) for g in range(self.group.order))
        at_identity = float(jnp.abs(images[self.group.identity] - x).max())
        return max(worst, at_identity) / max(float(jnp.abs(x).max()), float(jnp.finfo(images.dtype).tiny))


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
    x = jnp.asarray(x)
    return jax.vmap(lambda g: action(g, x))(jnp.arange(action.group.order))


def stabiliser(action: Action, x: ArrayLike) -> Array:
    r"""Which elements leave an example as it is: $\{g : \rho(g)x = x\}$, to rounding.

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
    x = jnp.asarray(x)
    images = orbit(action, x).reshape(action.group.order, x.shape[0], -1)
    size = jnp.abs(images).max(axis=(0, 2))
    tolerance = 100 * jnp.finfo(images.dtype).eps if jnp.issubdtype(images.dtype, jnp.floating) else 0
    return (jnp.abs(images - x.reshape(x.shape[0], -1)).max(axis=2) <= tolerance * size).T


def invariant_projection(action: Action, x: ArrayLike) -> Array:
    r"""The Reynolds operator $\frac{1}{|G|}\sum_g \rho(g)x$: the part of x that the group leaves alone.

    Args:
        action: the action; the result is a projection if it is linear and exact.
        x: a batch, shape (n, *features).

    Returns:
        Array of the shape of x.

    Raises:
        ValueError: as `Action` does for x.

    >>> from nteq.groups import symmetric
    >>> invariant_projection(on_sets(symmetric(3)), jnp.array([[[1.0], [2.0], [6.0]]]))[0, :, 0]
    Array([3., 3., 3.], dtype=float32)
    """
    return orbit(action, x).mean(axis=0)


def matrices_of(action: Action, dimension: int) -> np.ndarray:
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
    columns = np.asarray(orbit(action, jnp.eye(dimension, dtype=float)))
    matrices = columns.transpose(0, 2, 1).astype(float)
    probe = np.linspace(-1.0, 2.0, dimension)[None]
    moved = np.asarray(orbit(action, jnp.asarray(probe)))[:, 0]
    products = np.einsum("gij,hjk->ghik", matrices, matrices)
    tolerance = 100 * float(jnp.finfo(columns.dtype).eps) * dimension
    if np.abs(matrices @ probe[0] - moved).max() > tolerance or (
        np.abs(products - matrices[action.group.table]).max() > tolerance
    ):
        raise ValueError(
            f"matrices_of: {action.name} on vectors of length {dimension} is not a linear representation of "
            f"{action.group.name}: ρ(g)ρ(h) = ρ(gh) or linearity fails."
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
    name = f"on_lattices({group.name})"
    if not _is_exact(matrices):
        raise ValueError(
            f"{name}: only rotations by multiples of 90 degrees map a square lattice to itself. "
            "Use cyclic(1), cyclic(2), cyclic(4), dihedral(1), dihedral(2) or dihedral(4)."
        )
    if translations is not None:
        return _with_translations(group, matrices, translations)

    def act(g, x):
        if x.ndim != 3:
            raise ValueError(f"{name} needs lattices of shape (n, L, L), got shape {x.shape}.")
        return _permute_sites(_sources(name, matrices, *x.shape[1:3]), g, x)

    return Action(group, act, exact=True, name=name)


def _with_translations(group: FiniteGroup, matrices: np.ndarray, side: int) -> Action:
    if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1:
        raise ValueError(f"on_lattices: translations must be the side of the lattices, got {side!r}.")
    name = f"on_lattices({group.name}, translations={side})"
    sites = np.arange(side * side).reshape(side, side)
    point_group = [np.argsort(s) for s in _sources(name, matrices, side, side)]
    whole = generated_by(
        [np.roll(sites, 1, axis).ravel() for axis in (0, 1)] + point_group,
        name=f"{group.name} with {side} × {side} translations",
    )
    sources = np.argsort(whole.permutations, axis=1)

    def act(g, x):
        if x.shape[1:] != (side, side):
            raise ValueError(f"{name} needs lattices of shape (n, {side}, {side}), got shape {x.shape}.")
        return _permute_sites(sources, g, x)

    return Action(whole, act, exact=True, name=name)


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
    matrices = _plane(group, "on_images")
    name = f"on_images({group.name})"
    exact = _is_exact(matrices)

    def act(g, x):
        if x.ndim != 4:
            raise ValueError(
                f"{name} needs images of shape (n, height, width, channels), got shape {x.shape}."
            )
        if exact:
            return _permute_sites(_sources(name, matrices, *x.shape[1:3]), g, x)
        if x.shape[1] != x.shape[2]:
            raise ValueError(_needs_square(name, *x.shape[1:3]))
        return _interpolate(jnp.asarray(matrices, x.dtype)[g], x)

    return Action(group, act, exact=exact, name=name)


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
    matrices = _defined_by(group, "matrices", "on_vectors", "octahedral() or cyclic(n)")
    name, dimension = f"on_vectors({group.name})", matrices.shape[1]

    def act(g, x):
        if x.ndim < 2 or x.shape[-1] != dimension:
            raise ValueError(f"{name} needs arrays of shape (n, ..., {dimension}), got shape {x.shape}.")
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.inexact) else float
        return x @ jnp.asarray(matrices, dtype)[g].T

    return Action(group, act, exact=True, name=name)


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
    permutations = _defined_by(group, "permutations", "on_sets", "symmetric(n)")
    name, things = f"on_sets({group.name})", permutations.shape[1]
    sources = np.argsort(permutations, axis=1)

    def act(g, x):
        if x.ndim < 2 or x.shape[1] != things:
            raise ValueError(f"{name} needs arrays of shape (batch, {things}, ...), got shape {x.shape}.")
        return x[:, jnp.asarray(sources)[g]]

    return Action(group, act, exact=True, name=name)


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
    name, sources = f"on_channels({group.name})", group.table[group.inverses]

    def act(g, x):
        if x.ndim < 2 or x.shape[-1] != group.order:
            raise ValueError(f"{name} needs arrays of shape (n, ..., {group.order}), got shape {x.shape}.")
        return jnp.take(x, jnp.asarray(sources)[g], axis=-1)

    return Action(group, act, exact=True, name=name)


def direct_product(first: Action, second: Action) -> Action:
    r"""Two actions at once, $\rho(g, h)x = \rho_1(g)\rho_2(h)x$, of the direct product of their groups.

    Args:
        first: ρ₁, an action of G.
        second: ρ₂, an action of H on the same arrays.

    Raises:
        ValueError: an argument is not an `Action`; when called: the two do not commute on x, so that
            together they are no action of G × H.

    >>> from nteq.groups import octahedral, symmetric
    >>> both = direct_product(on_sets(symmetric(3)), on_vectors(octahedral()))
    >>> both.group.order, both(0, jnp.ones((5, 3, 3))).shape
    (144, (5, 3, 3))
    """
    for action in (first, second):
        if not isinstance(action, Action):
            raise ValueError(f"direct_product: expected two actions, got {action!r}.")
    name, many = f"{first.name} × {second.name}", second.group.order

    def act(g, x):
        g, h = g // many, g % many
        moved, other = first.act(g, second.act(h, x)), second.act(h, first.act(g, x))
        if not isinstance(moved, jax.core.Tracer) and first.exact and second.exact:
            apart = jnp.abs(moved - other).max()
            if apart > 100 * jnp.finfo(jnp.result_type(moved, float)).eps * jnp.abs(x).max():
                raise ValueError(
                    f"{name}: the two actions do not commute on x, they differ by {apart:.1e}. "
                    "Use one group that contains both, as on_lattices(group, translations=L) makes."
                )
        return moved

    return Action(product_group(first.group, second.group), act, first.exact and second.exact, name)


def _defined_by(group: FiniteGroup, what: str, caller: str, such_as: str) -> np.ndarray:
    if not isinstance(group, FiniteGroup):
        raise ValueError(f"{caller}(group): expected a FiniteGroup such as {such_as}, got {group!r}.")
    if getattr(group, what) is None:
        raise ValueError(f"{caller}({group.name}): the group has no {what}. Use {such_as}.")
    return getattr(group, what)


def _plane(group: FiniteGroup, caller: str) -> np.ndarray:
    matrices = _defined_by(group, "matrices", caller, "cyclic(4) or dihedral(4)")
    if matrices.shape[1] != 2:
        raise ValueError(
            f"{caller}({group.name}): needs a group of 2 × 2 matrices, got {matrices.shape[1:]}. "
            "Use cyclic(n) or dihedral(n)."
        )
    return matrices


def _is_exact(matrices: np.ndarray) -> bool:
    return bool((matrices == np.round(matrices)).all())


def _needs_square(name: str, height: int, width: int) -> str:
    return (
        f"{name} needs square images: got height {height} and width {width}.\n"
        "Crop or pad to a square, or use cyclic(2), which only needs rotations by 180 degrees."
    )


def _sources(name: str, matrices: np.ndarray, height: int, width: int) -> np.ndarray:
    """For every element and site p the site g⁻¹p, shape (|G|, height · width)."""
    row, column = np.divmod(np.arange(height * width), width)
    # twice the coordinates, seen from the centre: whole numbers, x to the right and y upwards
    x, y = 2 * column - (width - 1), (height - 1) - 2 * row
    moved = np.stack([x, y], axis=1) @ matrices  # the inverse of an orthogonal matrix is its transpose
    row, column = (height - 1 - moved[..., 1]) / 2, (moved[..., 0] + width - 1) / 2
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    if not (inside & (row == np.round(row)) & (column == np.round(column))).all():
        raise ValueError(_needs_square(name, height, width))
    return (row * width + column).astype(int)


def _permute_sites(sources: np.ndarray, g: ArrayLike, x: Array) -> Array:
    flat = x.reshape(x.shape[0], -1, *x.shape[3:])
    return flat[:, jnp.asarray(sources)[g]].reshape(x.shape)


def _interpolate(matrix: Array, x: Array) -> Array:
    centre = (x.shape[1] - 1) / 2
    row, column = jnp.meshgrid(
        jnp.arange(x.shape[1]) - centre, jnp.arange(x.shape[2]) - centre, indexing="ij"
    )
    # rows run downwards, so y is −row
    source_x = matrix[0, 0] * column - matrix[1, 0] * row
    source_y = matrix[0, 1] * column - matrix[1, 1] * row
    source = jnp.stack([-source_y, source_x]) + centre
    plane = lambda p: jax.scipy.ndimage.map_coordinates(p, source, order=1)
    return jax.vmap(jax.vmap(plane, in_axes=-1, out_axes=-1))(x)
