r"""Functions on the sphere by their coefficients: spherical harmonics, and how rotations move them.

A rotation of space mixes the $2\ell + 1$ harmonics of a degree among themselves, by the Wigner matrix
$D^\ell$, and nothing else. So averages over rotations are averages of Wigner matrices, which have closed
forms over all rotations, and vanish up to a known degree over the rotations of a regular solid.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray

from nteq import _checks
from nteq._products import einsum
from nteq.groups import FiniteGroup
from nteq.radial import lengths_and_directions

__all__ = ["exact_degree", "power_spectrum", "spherical_harmonics", "wigner_matrices"]


def spherical_harmonics(x: ArrayLike, degree: int) -> Array:
    r"""The real spherical harmonics of the directions of vectors, up to a degree.

    $$Y_{\ell m} = \sqrt{\tfrac{2\ell+1}{4\pi}\,c_{\ell m}}\; P_\ell^{|m|}(\cos\vartheta)
    \begin{cases}\cos m\varphi & m \ge 0\\ \sin|m|\varphi & m < 0\end{cases}, \qquad
    c_{\ell m} = \begin{cases}1 & m = 0\\ 2\frac{(\ell-|m|)!}{(\ell+|m|)!} & m \ne 0\end{cases}$$

    with Legendre functions without the sign $(-1)^m$; orthonormal on the sphere,
    $\int Y_{\ell m}Y_{\ell'm'} = \delta_{\ell\ell'}\delta_{mm'}$. The three of degree 1 are y, z and x times
    $\sqrt{3/4\pi}$. They are computed as polynomials in the direction, so that they have derivatives at the
    poles, too. A zero vector has no direction: of it only $Y_{00}$ is not zero.

    Args:
        x: vectors, shape (..., 3), of any length but their direction alone counts.
        degree: the largest ℓ, at least 0.

    Returns:
        Array of shape (..., (degree + 1)²); ℓ ascends, and for each ℓ m from −ℓ to ℓ.

    Raises:
        ValueError: x is not finite or not of shape (..., 3), or a negative degree.

    >>> (spherical_harmonics(jnp.array([0.0, 0.0, 2.0]), degree=1) * (4 * jnp.pi) ** 0.5).round(4)
    Array([1.    , 0.    , 1.7321, 0.    ], dtype=float32)
    """
    degree = _checks.count("spherical_harmonics", "degree", degree, least=0)
    x = _checks.real("spherical_harmonics", "x", x)
    if x.ndim == 0 or x.shape[-1] != 3:
        raise ValueError(f"spherical_harmonics: x must have shape (..., 3), got {x.shape}.")
    return harmonics_of_directions(lengths_and_directions(x)[1], degree)


def harmonics_of_directions(d: Array, degree: int) -> Array:
    """The same of unit vectors, or zeros, by homogeneous polynomials."""
    x, y, z = jnp.moveaxis(d, -1, 0)
    square = x * x + y * y + z * z  # 1, or 0 where there is no direction
    cosine, sine = [jnp.ones_like(x)], [jnp.zeros_like(x)]  # (x + iy)^m
    for _ in range(degree):
        c, s = cosine[-1], sine[-1]
        cosine.append(x * c - y * s)
        sine.append(x * s + y * c)
    rows: dict[tuple[int, int], Array] = {}
    for m in range(degree + 1):
        # Legendre functions divided by sinᵐϑ, upwards in ℓ
        last, now = jnp.zeros_like(z), jnp.full_like(z, float(math.prod(range(1, 2 * m, 2))))
        for order in range(m, degree + 1):
            norm = (2 * order + 1) / (4 * math.pi)
            if m:
                norm *= 2 * math.factorial(order - m) / math.factorial(order + m)
            rows[order, m] = math.sqrt(norm) * now * cosine[m]
            if m:
                rows[order, -m] = math.sqrt(norm) * now * sine[m]
            upwards = ((2 * order + 1) * z * now - (order + m) * square * last) / (order - m + 1)
            last, now = now, upwards
    return jnp.stack([rows[n, m] for n in range(degree + 1) for m in range(-n, n + 1)], -1)


def wigner_matrices(matrices: ArrayLike, degree: int) -> NDArray[np.float64]:
    r"""How rotations and reflections mix the real spherical harmonics, $Y(Qd) = D(Q)\,Y(d)$.

    Block diagonal, with an orthogonal block $D^\ell(Q)$ of size $2\ell + 1$ for each degree, and a
    representation, $D(QR) = D(Q)D(R)$. Computed as $\int Y(Qd)\,Y(d)^\top$ over the sphere, by a quadrature
    that is exact for the polynomials in it.

    Args:
        matrices: Q, orthogonal matrices, shape (..., 3, 3).
        degree: the largest ℓ, at least 0.

    Returns:
        NumPy array of shape (..., (degree + 1)², (degree + 1)²), in double precision.

    Raises:
        ValueError: matrices that are not orthogonal or not of shape (..., 3, 3), or a negative degree.

    >>> turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x to y, y to −x
    >>> wigner_matrices(turn, degree=1)[1:, 1:].round(6) + 0.0
    array([[ 0.,  0.,  1.],
           [ 0.,  1.,  0.],
           [-1.,  0.,  0.]])
    """
    degree = _checks.count("wigner_matrices", "degree", degree, least=0)
    given = np.asarray(matrices, float)
    if given.ndim < 2 or given.shape[-2:] != (3, 3):
        raise ValueError(f"wigner_matrices: matrices must have shape (..., 3, 3), got {given.shape}.")
    apart = np.abs(given @ given.swapaxes(-1, -2) - np.eye(3))
    if not (apart < 1e-6).all():
        raise ValueError(
            "wigner_matrices: matrices must be orthogonal, but one of them times its transpose differs from "
            f"the unit matrix by {apart.max():.1e}."
        )
    points, weights, values = _quadrature(degree)
    moved = _in_double(points @ given.swapaxes(-1, -2), degree)
    found = np.einsum("...pa,p,pb->...ab", moved, weights, values, optimize=True)
    same = np.repeat(np.arange(degree + 1), 2 * np.arange(degree + 1) + 1)
    return np.where(same[:, None] == same, found, 0)


@functools.lru_cache(maxsize=16)
def _quadrature(degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Points on the sphere, their weights, exact for polynomials of twice the degree, and the harmonics."""
    heights, shares = leggauss(degree + 1)
    angles = 2 * np.pi * np.arange(2 * degree + 1) / (2 * degree + 1)
    z, phi = (a.ravel() for a in np.meshgrid(heights, angles, indexing="ij"))
    radius = np.sqrt(1 - z**2)
    points = np.stack([radius * np.cos(phi), radius * np.sin(phi), z], -1)
    return points, np.repeat(shares, len(angles)) * 2 * np.pi / len(angles), _in_double(points, degree)


def _in_double(d: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Spherical harmonics in double precision, whatever JAX computes in."""
    with jax.enable_x64(True), jax.ensure_compile_time_eval():
        return np.asarray(harmonics_of_directions(jnp.asarray(d), degree))


def power_spectrum(s: ArrayLike) -> Array:
    r"""The invariants of second order of functions on the sphere, $p^\ell_{cc'}$ for each degree ℓ.

    $$p^\ell_{cc'} = \frac{1}{\sqrt{2\ell+1}}\sum_m s_{c\ell m}\,s_{c'\ell m}, \qquad
    p(s)\cdot p(s') = \int_{\mathrm{SO}(3)}\Bigl(\sum_{c\ell m}s_{c\ell m}\,(D(R)s')_{c\ell m}\Bigr)^2 dR$$

    The second equation, which is why they are divided by $\sqrt{2\ell+1}$, is Schur orthogonality. Of a
    density around an atom they are its SOAP vector (Bartók, Kondor & Csányi 2013, equation 33).

    Args:
        s: coefficients of the real spherical harmonics up to a degree L, shape (..., channels, (L + 1)²).

    Returns:
        Array of shape (..., (L + 1) channels (channels + 1)/2): of (c, c′) and (c′, c) one stands, times
        √2.

    Raises:
        ValueError: s is not finite or not of such a shape.

    >>> s = jnp.array([[1.0, 2.0, 0.0, 1.0]])  # one channel, L = 1
    >>> power_spectrum(s).round(3)
    Array([1.   , 2.887], dtype=float32)
    """
    s = _checks.real("power_spectrum", "s", s)
    degree = math.isqrt(s.shape[-1]) - 1 if s.ndim > 1 else -1
    if s.ndim < 2 or (degree + 1) ** 2 != s.shape[-1]:
        raise ValueError(f"power_spectrum: s must have shape (..., channels, (L + 1)²), got {s.shape}.")
    first, second = np.triu_indices(s.shape[-2])
    once = jnp.asarray(np.where(first == second, 1.0, math.sqrt(2)), s.dtype)
    parts = []
    for order in range(degree + 1):
        part = s[..., order**2 : (order + 1) ** 2]
        pairs = einsum("...cm,...dm->...cd", part, part)[..., first, second]
        parts.append(pairs * once / math.sqrt(2 * order + 1))
    return jnp.concatenate(parts, -1)


def exact_degree(group: FiniteGroup) -> int:
    r"""The degree up to which a group averages like all rotations, $\frac{1}{|G|}\sum_g D^\ell(g) = 0$.

    The average of $D^\ell$ is the projection onto what G leaves alone, of rank
    $\frac{1}{|G|}\sum_g\chi_\ell(g)$ with $\chi_\ell = 1 + 2\sum_{k\le\ell}\cos k\vartheta$ for a rotation by
    ϑ. Over all rotations it is zero for every ℓ ≥ 1. So G integrates exactly what has a degree up to this
    one in the entries of the rotation: 2, 3 and 5 for the rotations of tetrahedron, cube and icosahedron.

    Args:
        group: a group of orthogonal 3 × 3 matrices.

    Returns:
        The largest ℓ such that the averages of $D^1, \dots, D^\ell$ vanish, 0 if that of $D^1$ does not.

    Raises:
        ValueError: another group.

    >>> from nteq.groups import icosahedral, octahedral, tetrahedral
    >>> [exact_degree(group) for group in (tetrahedral(), octahedral(), icosahedral())]
    [2, 3, 5]
    """
    if not isinstance(group, FiniteGroup) or group.matrices is None or group.matrices.shape[1] != 3:
        raise ValueError(f"exact_degree: expected a group of 3 × 3 matrices, got {group!r}.")
    sign = np.sign(np.linalg.det(group.matrices))
    cosine = (sign * np.trace(group.matrices, axis1=1, axis2=2) - 1) / 2
    angle = np.arccos(np.clip(cosine, -1, 1))
    character, degree = np.ones(group.order), 0
    # a finite group leaves polynomials alone of every multiple of its order, at the latest
    while True:
        character = character + 2 * np.cos((degree + 1) * angle)
        if np.mean(sign ** (degree + 1) * character) > 0.5:
            return degree
        degree += 1
