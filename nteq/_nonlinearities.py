"""What a nonlinearity does to the covariance of its inputs, entry by entry, fast and with finite derivatives.

For kernels that are computed in pieces, entry by entry of very many pairs: `cnn_kernel` and
`molecule_kernel`. Everything is a function of the cosine, by polynomials; the price is half of the digits of
E[φ′(u)φ′(u′)] where inputs are nearly parallel, which `mlp_kernel` does not pay.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.polynomial import chebyshev


def level(activation: str, square: Array) -> tuple[tuple[Array, ...], Array]:
    """What `NONLINEARITIES` need of inputs with these variances, and E[φ(u)²]."""
    norm, inverse = root(square)
    if activation == "relu":
        return (norm, inverse), square / 2
    if activation == "erf":
        length = jnp.sqrt(1 + 2 * square)
        of = norm, inverse, length, 1 / length
        return of, erf(square, square, of, of, 0.5)[0]
    return (square,), 3 * square**2


def root(square: Array) -> tuple[Array, Array]:
    """√a and 1/√a; of zero, zeros with derivatives that are zero."""
    zero = square == 0
    root = jnp.sqrt(jnp.where(zero, 1, square))
    return jnp.where(zero, 0, root), jnp.where(zero, 0, 1 / root)


def rounding(dtype: Any, size: int, channels: int) -> float:
    """What rounding leaves of 1 − cos of equal or parallel patches."""
    return float(jnp.finfo(dtype).eps) * (8 + 2 * size + channels**0.5)


@functools.cache
def _arc_coefficients(degree: int, most: float, half: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    r"""Polynomials p and r with arccos(1 − u) = √u p(u) and sin θ − θ cos θ = u√u r(u), for u ≤ most.

    The second is the integral of the first, ∫ θ sin θ dθ. With half, of arcsin(√u) = √u p(u).
    """
    terms = np.arange(160)
    odd: Any = 2 * terms + 1
    series = np.cumprod(np.append(1.0, odd[:-1] / (odd[:-1] + 1))) / odd  # arcsin(s)/s in powers of s²
    if not half:
        series = math.sqrt(2) * series / 2.0**terms
    nodes = chebyshev.chebpts1(96)
    values = np.polynomial.polynomial.polyval(most * (nodes + 1) / 2, series)
    fit = chebyshev.Chebyshev(chebyshev.chebfit(nodes, values, degree), domain=[0, most])
    p = fit.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1]).coef
    return tuple(map(float, p)), tuple(float(c) / (k + 1.5) for k, c in enumerate(p))


def _degree(dtype: Any, single: int, double: int) -> int:
    return single if jnp.finfo(dtype).bits == 32 else double


def _polynomial(coefficients: Sequence[float], u: Array) -> Array:
    value = jnp.full_like(u, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * u + coefficient
    return value


def _gap(cosine: Array, few: float) -> Array:
    """1 − |cos|, zero where it is rounding."""
    u = 1 - jnp.abs(cosine)
    return jnp.where(u > few, u, 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def moments(cosine: Array, few: float) -> tuple[Array, Array]:
    """κ₁ = (sin θ + (π − θ) cos θ)/π and κ₀ = 1 − θ/π (Cho & Saul 2009), and neither from an arccos."""
    p, r = _arc_coefficients(_degree(cosine.dtype, 8, 21), 1.0, False)
    u = jnp.maximum(1 - jnp.abs(cosine), 0)
    root = jnp.sqrt(jnp.where(u > few, u, 0))
    turned = root * _polynomial([c / math.pi for c in p], u)
    first = root * u * _polynomial([c / math.pi for c in r], u) + jnp.maximum(cosine, 0)
    return first, jnp.where(cosine >= 0, 1 - turned, turned)


def _sine(cosine: Array, few: float) -> tuple[Array, Array]:
    """Sin θ and its inverse, zeros where it is rounding: the symmetric derivative at the tip of a cone."""
    u = _gap(cosine, few)
    return root(u * (2 - u))


@moments.defjvp
def _moments_jvp(few: float, primals: tuple[Array], tangents: tuple[Array]) -> Any:
    first, second = moments(primals[0], few)
    return (first, second), (second * tangents[0], _sine(primals[0], few)[1] / math.pi * tangents[0])


def relu(nngp: Array, ntk: Array, of1: Any, of2: Any, few: float) -> tuple[Array, Array]:
    """E[φ(u)φ(u′)] and Θ E[φ′(u)φ′(u′)], of K, Θ and the roots of the variances and their inverses."""
    return _relu_pairs(nngp, ntk, *of1, *of2, few)


@functools.partial(jax.custom_jvp, nondiff_argnums=(6,))
def _relu_pairs(
    nngp: Array, ntk: Array, norm1: Array, inverse1: Array, norm2: Array, inverse2: Array, few: float
) -> tuple[Array, Array]:
    first, second = moments(nngp * inverse1 * inverse2, few)
    return norm1 * norm2 * (first / 2), ntk * (second / 2)


@_relu_pairs.defjvp
def _relu_pairs_jvp(few: float, primals: Any, tangents: Any) -> Any:
    nngp, ntk, norm1, inverse1, norm2, inverse2 = primals
    d_nngp, d_ntk, d_norm1, _, d_norm2, _ = tangents
    cosine = nngp * inverse1 * inverse2
    first, second = moments(cosine, few)
    sine, steep = _sine(cosine, few)
    d_norms = norm2 * d_norm1 + norm1 * d_norm2
    # of no inverse: at a zero patch this is the mean over opposite sides
    d_first = second / 2 * d_nngp + sine / (2 * math.pi) * d_norms
    d_cosine = d_nngp * inverse1 * inverse2 - cosine * (d_norm1 * inverse1 + d_norm2 * inverse2)
    d_second = second / 2 * d_ntk + ntk * (steep / (2 * math.pi)) * d_cosine
    return (norm1 * norm2 * (first / 2), ntk * (second / 2)), (d_first, d_second)


def erf(nngp: Array, ntk: Array, of1: Any, of2: Any, few: float) -> tuple[Array, Array]:
    """The same for erf, of which the variances a give √a, 1/√a, √(1 + 2a) and its inverse as well."""
    (norm1, inverse1, length1, short1), (norm2, inverse2, length2, short2) = of1, of2
    # With τ = 2K/(αβ), α = √(1 + 2a) and β likewise: αβ − 2|K| = (αβ − 2√(ab)) + 2√(ab)(1 − |cos|), of which
    # neither part cancels; the first is a quotient.
    norms, lengths = norm1 * norm2, length1 * length2
    least = (length1 / lengths * length1 + (length2**2 - 1) / lengths) / (1 + 2 * norms / lengths)
    gap = (least + 2 * norms * _gap(nngp * inverse1 * inverse2, few)) * short1 * short2  # 1 − |τ|
    tau = 2 * nngp * short1 * short2
    steep = jnp.abs(tau) > 0.5
    p, _ = _arc_coefficients(_degree(nngp.dtype, 6, 14), 0.25, True)
    half = jnp.where(steep, gap / 2, 0.25)
    flat = jnp.where(steep, 0, tau)
    series = _polynomial(p, jnp.where(steep, half, flat**2))
    arcsine = jnp.where(steep, jnp.sign(tau) * (math.pi / 2 - 2 * jnp.sqrt(half) * series), flat * series)
    inverse = short1 * short2 / jnp.sqrt(gap * (2 - gap))
    return 2 / math.pi * arcsine, 4 / math.pi * inverse * ntk


def squared(nngp: Array, ntk: Array, of1: Any, of2: Any, few: float) -> tuple[Array, Array]:
    """The same for φ(u) = u², of which the variances are all there is to know."""
    return 2 * nngp**2 + of1[0] * of2[0], 4 * nngp * ntk


NONLINEARITIES: dict[str, Callable[..., tuple[Array, Array]]] = {
    "relu": relu,
    "erf": erf,
    "square": squared,
}
