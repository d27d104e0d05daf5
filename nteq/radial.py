"""Functions of the distance between two points, for networks that see atoms, residues or particles in space.

Whoever builds a network on distances meets three traps: the length of a vector has no derivative where the
vector vanishes, a basis like sin(r)/r divides zero by zero there, and a neighbour that drops out at a cutoff
takes its force along in a jump. Here every function has finite derivatives everywhere, and the envelope goes
to zero smoothly.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nteq import _checks

__all__ = ["bessel_basis", "envelope", "gaussian_basis", "lengths_and_directions"]


def lengths_and_directions(x: ArrayLike) -> tuple[Array, Array]:
    r"""The lengths of vectors and the unit vectors along them, with derivatives that are always finite.

    $$r = |x|, \qquad d = x / |x|$$

    and r = 0, d = 0 for the zero vector, which has no direction. There the derivatives of both are zero: an
    atom exerts no force on itself.

    Args:
        x: vectors, shape (..., dimension), in any unit.

    Returns:
        The lengths, shape (...), in the unit of x, and the directions, shape (..., dimension), dimensionless.

    Raises:
        ValueError: x is a single number, or has entries that are not finite.

    >>> r, d = lengths_and_directions(jnp.array([[3.0, 4.0], [0.0, 0.0]]))
    >>> r, d[0]
    (Array([5., 0.], dtype=float32), Array([0.6, 0.8], dtype=float32))
    """
    x = _checks.real("lengths_and_directions", "x", x)
    if x.ndim == 0:
        raise ValueError("lengths_and_directions: x must have shape (..., dimension), got a single number.")
    largest = jax.lax.stop_gradient(jnp.abs(x).max(-1, keepdims=True, initial=0))
    apart = largest > 0
    # what `where` does not take is computed, too, and its derivative must be finite
    safe = jnp.where(apart, x, 1)
    # in units of the largest entry, or the squares of small ones would vanish
    unit = jnp.where(apart, largest, 1)
    r = unit * jnp.sqrt(((safe / unit) ** 2).sum(-1, keepdims=True))
    return jnp.where(apart, r, 0)[..., 0], jnp.where(apart, safe / r, 0)


def bessel_basis(r: ArrayLike, cutoff: ArrayLike, size: int = 8) -> Array:
    r"""The spherical Bessel functions of order zero that vanish at the cutoff, as features of a distance.

    $$b_n(r) = \sqrt{\frac2c}\,\frac{\sin(n\pi r/c)}{r}, \qquad n = 1, \dots, \text{size}$$

    with the cutoff c. They are orthonormal in the ball, $\int_0^cb_n(r)\,b_k(r)\,r^2\,dr = \delta_{nk}$, and
    the larger n, the finer what a sum of them can resolve (Gasteiger, Groß & Günnemann 2020, equation 7).
    $b_n(0) = \sqrt{2/c}\,n\pi/c$, with derivative zero.

    Args:
        r: distances, not negative, of any shape (...). What is beyond the cutoff means nothing; multiply by
            `envelope`.
        cutoff: c, positive, in the unit of r.
        size: the number of functions, at least 1.

    Returns:
        Array of shape (..., size), in that unit to the power −3/2.

    Raises:
        ValueError: a distance that is negative or not finite, a cutoff that is not positive, or a size
            below 1.

    >>> basis = bessel_basis(jnp.array([0.0, 1.0, 1.5]), cutoff=2.0, size=3)
    >>> basis.shape, [f"{b:.2f}" for b in basis[:, 0]]
    ((3, 3), ['1.57', '1.00', '0.47'])
    """
    r, cutoff = _distances("bessel_basis", r, cutoff)
    n = jnp.arange(1, _checks.count("bessel_basis", "size", size) + 1, dtype=r.dtype)
    n = n.reshape((1,) * r.ndim + (-1,))
    # sinc(x) = sin(πx)/(πx) knows its limit at zero, and its derivatives there
    return (2 / cutoff) ** 0.5 * jnp.pi / cutoff * n * jnp.sinc(n * r[..., None] / cutoff)


def gaussian_basis(r: ArrayLike, centres: ArrayLike, width: ArrayLike) -> Array:
    r"""Gaussians around some distances, as features of a distance.

    $$b_k(r) = e^{-(r-r_k)^2/2w^2}$$

    Args:
        r: distances, not negative, of any shape (...).
        centres: the $r_k$, in the unit of r, shape (K,).
        width: w, positive, in that unit.

    Returns:
        Array of shape (..., K), dimensionless.

    Raises:
        ValueError: a distance that is negative or not finite, a width that is not positive, or centres that
            are no row of finite numbers.

    >>> [f"{b:.3f}" for b in gaussian_basis(1.5, centres=[1.0, 1.5, 2.5], width=0.5)]
    ['0.607', '1.000', '0.135']
    """
    r, width = _distances("gaussian_basis", r, width, "width")
    centres = _checks.real("gaussian_basis", "centres", centres)
    if centres.ndim != 1:
        raise ValueError(f"gaussian_basis: centres must have shape (K,), got {centres.shape}.")
    return jnp.exp(-(((r[..., None] - centres.astype(r.dtype)) / width) ** 2) / 2)


def envelope(r: ArrayLike, cutoff: ArrayLike, p: int = 6) -> Array:
    r"""A polynomial that falls from one to zero at the cutoff, with its first two derivatives zero there.

    $$u(x) = 1 - \frac{(p+1)(p+2)}{2}x^p + p(p+2)\,x^{p+1} - \frac{p(p+1)}{2}x^{p+2}, \qquad x = r/c < 1,$$

    and zero from the cutoff c on (Gasteiger, Groß & Günnemann 2020, equation 8). The larger p, the longer it
    stays near one. What is multiplied by it has a second derivative that is continuous at the cutoff: an
    energy, its force and its stiffness. It is computed as $(1-x)^3\sum_{k<p}\binom{k+2}{2}x^k$, which is the
    same polynomial and loses no digits near the cutoff.

    Args:
        r: distances, not negative, of any shape.
        cutoff: c, positive, in the unit of r.
        p: how flat it starts, at least 1: $u = 1 + O(x^p)$.

    Returns:
        Array of the shape of r, dimensionless, between 0 and 1.

    Raises:
        ValueError: a distance that is negative or not finite, a cutoff that is not positive, or a p below 1.

    >>> [f"{u:.3f}" for u in envelope(jnp.array([0.0, 2.0, 3.0, 4.0, 5.0]), cutoff=4.0)]
    ['1.000', '0.855', '0.321', '0.000', '0.000']
    """
    r, cutoff = _distances("envelope", r, cutoff)
    p = _checks.count("envelope", "p", p)
    x = jnp.minimum(r / cutoff, 1)
    total = jnp.zeros_like(x)
    for k in reversed(range(p)):
        total = total * x + (k + 1) * (k + 2) / 2
    return (1 - x) ** 3 * total


def _distances(caller: str, r: ArrayLike, length: ArrayLike, name: str = "cutoff") -> tuple[Array, Array]:
    """Distances and a positive length that are what they should be, in one precision."""
    r = _checks.real(caller, "r", r)
    length = _checks.number(caller, name, length, exclusive=True)
    if _checks.is_known(r) and _checks.look(lambda: (r < 0).any()):
        raise ValueError(f"{caller}: r must not be negative: they are distances, got {float(r.min()):.3g}.")
    return r, jnp.asarray(length, r.dtype)
