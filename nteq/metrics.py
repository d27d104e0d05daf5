"""How far a model is from symmetric: measures over orbits.

They take arrays with the orbit as the leading axis, so they work for one network, an ensemble or a kernel
predictor alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

__all__ = ["equivariance_error", "orbit_same_prediction", "relative_std", "sub_ensembles"]


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
    f = _orbit("relative_std", predictions, 0)
    mean, size = jnp.abs(f.mean(0)), jnp.abs(f).max(0)
    if not isinstance(f, jax.core.Tracer):
        if (mean <= f.shape[0] * jnp.finfo(f.dtype).eps * size).any():
            raise ValueError(
                "relative_std: the mean over the orbit is zero to rounding for at least one input, so the "
                "relative deviation is undefined there. Compare the absolute deviation, predictions.std(0)."
            )
    return f.std(0) / mean


def orbit_same_prediction(logits: ArrayLike, identity: int = 0) -> Array:
    r"""The fraction of the orbit on which a classifier names the same class as at the input itself.

    $$\mathrm{OSP}(x) = \frac{1}{|G|}\,\#\bigl\{g : \operatorname{argmax}_k f_k(\rho(g)x) =
    \operatorname{argmax}_k f_k(x)\bigr\}$$

    Between 1/|G|, since the identity always agrees, and 1 for an invariant classifier. The measure of
    Gerken & Kessel 2024, section 6.2.

    Args:
        logits: f on the orbit, shape (|G|, ..., classes) with at least two classes.
        identity: where the orbit holds x itself, `action.group.identity`.

    Returns:
        Array of shape (...).

    Raises:
        ValueError: fewer than two orbit elements or classes, an empty or non-finite array, or an identity
            that is not an index into the orbit.

    >>> orbit_same_prediction(jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]))
    Array(0.75, dtype=float32)
    """
    f = _orbit("orbit_same_prediction", logits, 1)
    if f.shape[-1] < 2:
        raise ValueError(
            f"orbit_same_prediction: logits must have shape (|G|, ..., classes) with at least two classes, "
            f"got shape {f.shape}."
        )
    if isinstance(identity, bool) or not 0 <= identity < f.shape[0]:
        raise ValueError(
            f"orbit_same_prediction: identity must be an index into the {f.shape[0]} orbit elements, "
            f"got {identity!r}. Take it from action.group.identity."
        )
    predicted = f.argmax(-1)
    return (predicted == predicted[identity]).mean(0, dtype=f.dtype)


def equivariance_error(predictions: ArrayLike, label_matrices: ArrayLike | None = None) -> Array:
    r"""How far predictions are from moving with their input, relative to their size.

    $$\mathrm{EE}(x)^2 = \frac{\tfrac1{|G|}\sum_g |a_g - \bar a|^2}{\tfrac1{|G|}\sum_g |a_g|^2}, \qquad
    a_g = \rho_Y(g)^{-1} f(\rho(g)x)$$

    Zero for an equivariant model, where every $a_g$ is $f(x)$, and at most 1. Dimensionless.

    Args:
        predictions: f on the orbit, shape (|G|, ..., outputs), in the order of the group's elements.
        label_matrices: ρ_Y, shape (|G|, outputs, outputs), invertible; from `nteq.actions.matrices_of`.
            None for labels that do not move.

    Returns:
        Array of shape (...).

    Raises:
        ValueError: fewer than two orbit elements, an empty or non-finite array, matrices of another shape,
            or predictions that are zero on a whole orbit.

    >>> turns = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])
    >>> equivariance_error(jnp.array([[3.0, 4.0], [-3.0, -4.0]]), turns)
    Array(0., dtype=float32)
    """
    f = _orbit("equivariance_error", predictions, 1)
    if label_matrices is not None:
        rho = jnp.asarray(label_matrices, f.dtype)
        expected = (f.shape[0], f.shape[-1], f.shape[-1])
        if rho.shape != expected:
            raise ValueError(
                f"equivariance_error: label_matrices must have shape {expected} "
                f"for predictions of shape {f.shape}, got {rho.shape}. nteq.actions.matrices_of makes them."
            )
        f = jnp.einsum("gij,g...j->g...i", jnp.linalg.inv(rho), f)
    size = (f**2).sum(-1).mean(0)
    if not isinstance(f, jax.core.Tracer) and (size == 0).any():
        raise ValueError(
            "equivariance_error: predictions is zero on the whole orbit of at least one input, so the "
            "relative error is undefined there."
        )
    return jnp.sqrt(((f - f.mean(0)) ** 2).sum(-1).mean(0) / size)


def sub_ensembles(
    metric: Callable[[Array], Array],
    predictions: ArrayLike,
    sizes: Sequence[int],
    resamples: int = 100,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""A metric of the mean over M members, for growing M, with bootstrap error bars.

    The value at M is averaged over the T // M disjoint sub-ensembles of the T members, and over everything
    the metric leaves. Its standard error is the standard deviation of that average when the T members are
    drawn again with replacement (Efron 1979). Where one sub-ensemble is all there is, it tells the order of
    magnitude only.

    Args:
        metric: a function of an array (|G|, ...) such as `relative_std`.
        predictions: one array for every member on the orbit, shape (members, |G|, ...).
        sizes: the M, each from 1 to members.
        resamples: how often the members are drawn again, at least 2.
        seed: of the drawing.

    Returns:
        The values and their standard errors, each of shape (len(sizes),).

    Raises:
        ValueError: predictions is not (members, |G|, ...), a size or the number of resamples out of range.

    >>> members = 3 + jax.random.normal(jax.random.key(0), (400, 4, 50))
    >>> value, error = sub_ensembles(relative_std, members, [1, 100])
    >>> bool(value[1] < value[0] / 5), bool(error[1] < value[1])
    (True, True)
    """
    f = jnp.asarray(predictions)
    if f.ndim < 2 or f.size == 0:
        raise ValueError(
            f"sub_ensembles: predictions must have shape (members, |G|, ...), got shape {f.shape}."
        )
    total = f.shape[0]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= total:
            raise ValueError(f"sub_ensembles: sizes must lie between 1 and {total} members, got {size!r}.")
    if isinstance(resamples, bool) or not isinstance(resamples, int | np.integer) or resamples < 2:
        raise ValueError(f"sub_ensembles: resamples must be an integer of at least 2, got {resamples!r}.")
    f = f if jnp.issubdtype(f.dtype, jnp.floating) else f.astype(jnp.float32)
    if not jnp.isfinite(f).all():
        raise ValueError("sub_ensembles: predictions has entries that are not finite.")
    draws = np.random.default_rng(seed).integers(0, total, size=(resamples, total))
    values = [float(_average(metric, f, np.arange(total), int(m))) for m in sizes]
    errors = [np.std([float(_average(metric, f, d, int(m))) for d in draws], ddof=1) for m in sizes]
    return np.array(values), np.array(errors)


@partial(jax.jit, static_argnames=("metric", "size"))
def _average(metric: Callable, f: Array, members: Array, size: int) -> Array:
    """Over disjoint sub-ensembles of the given members."""
    total = f.shape[0]
    count = total // size
    weights = jnp.zeros((count, total), f.dtype)
    rows = jnp.repeat(jnp.arange(count), size)
    weights = weights.at[rows, members[: count * size]].add(1 / size)  # one product for all of them
    means = (weights @ f.reshape(total, -1)).reshape(count, *f.shape[1:])
    return jax.vmap(metric)(means).mean()


def _orbit(caller: str, predictions: ArrayLike, trailing: int) -> Array:
    """The array with floating-point entries, (|G|, ...) and as many trailing axes as the metric uses up."""
    f = jnp.asarray(predictions)
    if f.ndim < 1 + trailing or f.shape[0] < 2 or f.size == 0:
        shape = "(|G|, ..., outputs)" if trailing else "(|G|, ...)"
        raise ValueError(
            f"{caller}: predictions must have shape {shape} with at least two orbit elements in "
            f"front, got shape {f.shape}. Evaluate the model on nteq.actions.orbit(action, x)."
        )
    if not isinstance(f, jax.core.Tracer) and not jnp.isfinite(f).all():
        raise ValueError(f"{caller}: predictions has entries that are not finite.")
    return f if jnp.issubdtype(f.dtype, jnp.floating) else f.astype(jnp.float32)
