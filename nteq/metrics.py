"""How far a model is from symmetric: measures over orbits.

They take arrays with the orbit as the leading axis, so they work for one network, an ensemble or a kernel
predictor alike.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

__all__ = ["relative_std"]


def relative_std(predictions: ArrayLike) -> Array:
    r"""Relative standard deviation of predictions over a group orbit.

    $$\mathrm{RSD}(x) = \frac{\operatorname{std}_g f(\rho(g)x)}{|\operatorname{mean}_g f(\rho(g)x)|}$$

    Zero for an invariant model; dimensionless. The standard deviation is that of the whole orbit (it
    divides by |G|). The measure of the Ising experiment in Gerken & Kessel 2024, section 6.1.

    Args:
        predictions: f evaluated on the orbit, shape (|G|, ...): the orbit is the leading axis.

    Returns:
        Array of shape (...).

    Raises:
        ValueError: fewer than two orbit elements, an empty or non-finite array, or a mean that is zero to
            rounding.

    >>> relative_std(jnp.array([[1.0, 2.0], [3.0, 2.0]]))
    Array([0.5, 0. ], dtype=float32)
    """
    f = jnp.asarray(predictions)
    if f.ndim < 1 or f.shape[0] < 2 or f.size == 0:
        raise ValueError(
            f"relative_std: predictions must have shape (|G|, ...) with at least two orbit elements in "
            f"front, got shape {f.shape}. Evaluate the model on nteq.actions.orbit(action, x)."
        )
    if not jnp.issubdtype(f.dtype, jnp.floating):
        f = f.astype(jnp.float32)
    mean, size = jnp.abs(f.mean(0)), jnp.abs(f).max(0)
    if not isinstance(f, jax.core.Tracer):
        if not jnp.isfinite(f).all():
            raise ValueError("relative_std: predictions has entries that are not finite.")
        if (mean <= f.shape[0] * jnp.finfo(f.dtype).eps * size).any():
            raise ValueError(
                "relative_std: the mean over the orbit is zero to rounding for at least one input, so the "
                "relative deviation is undefined there. Compare the absolute deviation, predictions.std(0)."
            )
    return f.std(0) / mean
