r"""Groups acting on arrays: $\rho(g)x$ for a whole batch x of shape (n, *features) at once.

An `Action` bundles the group with the function that moves the data. Quarter turns permute the sites of a
square grid, so `on_lattices` and `on_images` are exact for C1, C2 and C4; finer rotations of an image have
to interpolate and say so in `Action.exact`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq.groups import FiniteGroup, cyclic

__all__ = ["Action", "on_images", "on_lattices", "orbit"]


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


def orbit(action: Action, x: ArrayLike) -> Array:
    r"""The orbit $\{\rho(g)x : g \in G\}$ of every example, in the order of the group's elements.

    Args:
        action: the action.
        x: a batch, shape (n, *features).

    Returns:
        Array of shape (|G|, n, *features).

    Raises:
        ValueError: as `Action` does for x.

    >>> lattice = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> orbit(on_lattices(cyclic(4)), lattice)[1, 0]
    Array([[2., 4.],
           [1., 3.]], dtype=float32)
    """
    return jnp.stack([action(g, x) for g in range(action.group.order)])


def on_lattices(group: FiniteGroup) -> Action:
    r"""Rotations of square lattices about their centre, $(\rho(g)x)_{ij} = x_{\rho(g)^{-1}(ij)}$.

    Element g turns the lattice counterclockwise by $2\pi g/n$. On a periodic lattice a rotation about the
    centre maps bonds to bonds, so it leaves every nearest-neighbour energy unchanged.

    Args:
        group: cyclic(1), cyclic(2) or cyclic(4).

    Returns:
        An action on arrays of shape (n, L, L), exact.

    Raises:
        ValueError: another group; when called: x is not (n, L, L) with equal sides.

    >>> on_lattices(cyclic(2))(1, jnp.array([[[1.0, 2.0], [3.0, 4.0]]]))
    Array([[[4., 3.],
            [2., 1.]]], dtype=float32)
    """
    name = f"on_lattices({_rotations(group, 'on_lattices')})"
    if group.order not in (1, 2, 4):
        raise ValueError(
            f"{name}: only rotations by multiples of 90 degrees map a square lattice to itself. "
            "Use cyclic(1), cyclic(2) or cyclic(4)."
        )

    def act(g, x):
        if x.ndim != 3:
            raise ValueError(f"{name} needs lattices of shape (n, L, L), got shape {x.shape}.")
        _check_square(name, group.order, x)
        return _quarter_turns(g * (4 // group.order), x)

    return Action(group, act, exact=True, name=name)


def on_images(group: FiniteGroup) -> Action:
    r"""Rotations of images about their centre, $(\rho(g)x)(p) = x(R_g^{-1}p)$.

    Element g turns the image counterclockwise by $2\pi g/n$. Multiples of a quarter turn permute the
    pixels; other angles interpolate bilinearly and see zeros outside the image, and the action is then
    marked `exact=False`: two rotations by 45 degrees blur more than one by 90.

    Args:
        group: cyclic(n), any n.

    Returns:
        An action on arrays of shape (n, height, width, channels).

    Raises:
        ValueError: the group is not cyclic; when called: the shape does not fit, or the images are not
            square where the group has rotations other than by 180 degrees.

    >>> on_images(cyclic(4)).exact, on_images(cyclic(8)).exact
    (True, False)
    """
    name = f"on_images({_rotations(group, 'on_images')})"
    exact = group.order in (1, 2, 4)

    def act(g, x):
        if x.ndim != 4:
            raise ValueError(
                f"{name} needs images of shape (n, height, width, channels), got shape {x.shape}."
            )
        _check_square(name, group.order, x)
        if exact:
            return _quarter_turns(g * (4 // group.order), x)
        return _interpolated_rotation(2 * jnp.pi * g / group.order, x)

    return Action(group, act, exact=exact, name=name)


def _rotations(group: FiniteGroup, caller: str) -> str:
    if not isinstance(group, FiniteGroup):
        raise ValueError(f"{caller}(group): expected a FiniteGroup such as cyclic(4), got {group!r}.")
    if (group.table != cyclic(group.order).table).any():
        raise ValueError(f"{caller}({group.name}): only cyclic(n) is known to rotate arrays here.")
    return f"cyclic({group.order})"


def _check_square(name: str, order: int, x: Array) -> None:
    height, width = x.shape[1:3]
    if height != width and order > 2:
        raise ValueError(
            f"{name} needs square images: got shape {x.shape}, height {height} and width {width}.\n"
            "Crop or pad to a square, or use cyclic(2), which only needs rotations by 180 degrees."
        )


def _quarter_turns(turns: ArrayLike, x: Array) -> Array:
    height, width = x.shape[1:3]
    sites = np.arange(height * width).reshape(height, width)
    if height == width:
        permutations = np.stack([np.rot90(sites, k).ravel() for k in range(4)])
    else:
        permutations = np.stack([sites.ravel(), sites.ravel(), sites[::-1, ::-1].ravel(), sites.ravel()])
    flat = x.reshape(x.shape[0], height * width, *x.shape[3:])
    return flat[:, jnp.asarray(permutations)[turns]].reshape(x.shape)


def _interpolated_rotation(angle: ArrayLike, x: Array) -> Array:
    centre = (x.shape[1] - 1) / 2
    row, column = jnp.meshgrid(
        jnp.arange(x.shape[1]) - centre, jnp.arange(x.shape[2]) - centre, indexing="ij"
    )
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # rows run downwards, so a counterclockwise turn looks clockwise in (row, column)
    source = jnp.stack([cos * row + sin * column, -sin * row + cos * column]) + centre
    plane = lambda p: jax.scipy.ndimage.map_coordinates(p, source, order=1)
    return jax.vmap(jax.vmap(plane, in_axes=-1, out_axes=-1))(x)
