r"""Bayesian inference with the NNGP kernel: what infinitely wide networks know when nothing was trained.

An infinitely wide network at initialisation is a Gaussian process. Conditioned on noisy labels it is one
again, which is what training the last layer alone to the end gives without noise; how probable the labels
were tells which kernel suits them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nteq import _checks
from nteq._products import matmul
from nteq.kernels import Kernels, _as_kernels

__all__ = ["Gaussian", "log_evidence", "nngp_posterior"]


class Gaussian(NamedTuple):
    """A Gaussian process at some inputs.

    Args:
        mean: shape (n,) or (n, outputs).
        covariance: shape (n, n), of every output alike.
    """

    mean: Array
    covariance: Array


def nngp_posterior(
    kernel: Callable[..., Kernels], x: ArrayLike, y: ArrayLike, x_test: ArrayLike, noise: float | Array
) -> Gaussian:
    r"""The NNGP conditioned on labels with Gaussian noise.

    $$\mu(x) &= K(x, X)\,[K(X, X) + \sigma^2\mathbb{1}]^{-1}Y, \\
    \Sigma(x, x') &= K(x, x') - K(x, X)\,[K(X, X) + \sigma^2\mathbb{1}]^{-1}K(X, x')$$

    (Rasmussen & Williams 2006, eqs. 2.22–2.24; Lee et al. 2018.) Of the function itself: a new noisy label
    has σ² more. Differentiable in all that the kernel depends on and in the noise.

    Args:
        kernel: k(x1, x2) -> Kernels, of which the NNGP is used.
        x: training inputs, shape (N, *features).
        y: labels, shape (N,) or (N, outputs); outputs are independent.
        x_test: inputs, shape (n, *features).
        noise: σ², the variance of the noise in the labels, ≥ 0.

    Returns:
        Gaussian(mean, covariance); the diagonal of the covariance is not negative.

    Raises:
        ValueError: shapes that do not fit, entries that are not finite, a negative noise, or K(X, X) + σ²
            that is singular to rounding, as it is for repeated inputs without noise. (Inside of a trace
            values are not known, and the last of these gives NaN.)

    >>> from nteq.kernels import mlp_kernel
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, -1.0])
    >>> nngp_posterior(mlp_kernel(depth=1, W_std=2**0.5), x, y, x, noise=1e-4).mean.round(3)
    Array([ 1., -1.], dtype=float32)
    """
    caller = "nngp_posterior"
    x, y, root = _prior(caller, kernel, x, y, noise)
    x_test = _checks.batch(caller, "x_test", x_test)
    if x_test.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"{caller}: x_test must have the features {x.shape[1:]} of x, got shape {x_test.shape}."
        )
    x_test = x_test.astype(x.dtype)
    cross = _nngp(caller, kernel, x, x_test)
    half = jax.scipy.linalg.solve_triangular(root, cross, lower=True)
    mean = matmul(half.T, jax.scipy.linalg.solve_triangular(root, y.reshape(y.shape[0], -1), lower=True))
    covariance = _nngp(caller, kernel, x_test, x_test) - matmul(half.T, half)
    diagonal = jnp.eye(x_test.shape[0], dtype=bool)
    covariance = jnp.where(diagonal, jnp.maximum(covariance, 0), covariance)
    return Gaussian(mean.reshape(x_test.shape[0], *y.shape[1:]), covariance)


def log_evidence(kernel: Callable[..., Kernels], x: ArrayLike, y: ArrayLike, noise: float | Array) -> Array:
    r"""The logarithm of the density of the labels under the NNGP: the marginal likelihood of the kernel.

    $$\log p(Y|X) = -\tfrac12 Y^\top[K(X, X) + \sigma^2\mathbb{1}]^{-1}Y
    - \tfrac12\log\det[K(X, X) + \sigma^2\mathbb{1}] - \tfrac N2\log 2\pi$$

    (Rasmussen & Williams 2006, eq. 2.30), summed over outputs, which are independent.

    Args:
        kernel: k(x1, x2) -> Kernels, of which the NNGP is used.
        x: training inputs, shape (N, *features).
        y: labels, shape (N,) or (N, outputs).
        noise: σ², the variance of the noise in the labels, ≥ 0.

    Returns:
        A scalar, differentiable in all that the kernel depends on and in the noise.

    Raises:
        ValueError: as `nngp_posterior`.

    >>> from nteq.kernels import mlp_kernel
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, -1.0])
    >>> weights = jnp.array([0.5, 1.5, 4.5])
    >>> [round(float(log_evidence(mlp_kernel(1, W_std=float(w)), x, y, noise=0.1)), 2) for w in weights]
    [-8.72, -3.14, -6.43]
    """
    x, y, root = _prior("log_evidence", kernel, x, y, noise)
    white = jax.scipy.linalg.solve_triangular(root, y.reshape(y.shape[0], -1), lower=True)
    # ½ log det = Σ log of the root's diagonal
    each = jnp.log(jnp.diagonal(root)).sum() + y.shape[0] / 2 * math.log(2 * math.pi)
    return -(white**2).sum() / 2 - white.shape[1] * each


def _nngp(caller: str, kernel: Callable[..., Kernels], x1: Array, x2: Array) -> Array:
    return _as_kernels(caller, kernel(x1, x2), (x1.shape[0], x2.shape[0])).nngp


def _prior(
    caller: str, kernel: Callable[..., Kernels], x: ArrayLike, y: ArrayLike, noise: float | Array
) -> tuple[Array, Array, Array]:
    """The inputs, the labels, and the lower root of K(X, X) + σ²."""
    if not callable(kernel):
        raise ValueError(f"{caller}: kernel must be a function k(x1, x2) -> Kernels, got {kernel!r}.")
    x, y = _checks.batch(caller, "x", x), _checks.real(caller, "y", y)
    if y.ndim not in (1, 2) or y.shape[0] != x.shape[0] or y.size == 0:
        raise ValueError(
            f"{caller}: y must have shape (N,) or (N, outputs) with N = {x.shape[0]} as in x, "
            f"got shape {y.shape}."
        )
    noise = _checks.number(caller, "noise", noise)
    gram = _nngp(caller, kernel, x, x)
    noise = jnp.asarray(noise, gram.dtype)
    root = jnp.linalg.cholesky(gram + noise * jnp.eye(x.shape[0], dtype=gram.dtype))
    if _checks.is_known(root):
        # its last digits are lost where the square of a pivot is as small as the rounding of K
        pivots, eps = jnp.diagonal(root) ** 2, float(jnp.finfo(gram.dtype).eps)
        if not jnp.isfinite(root).all() or pivots.min() <= x.shape[0] * eps * jnp.diagonal(gram).max():
            raise ValueError(
                f"{caller}: K(X, X) + noise is singular to rounding. Raise noise, or remove repeated inputs."
            )
    return x, y.astype(gram.dtype), root
