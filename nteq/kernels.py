r"""Kernels of neural networks: NNGP and NTK at infinite width, and the empirical NTK of a finite one.

A kernel is a function `k(x1, x2) -> Kernels` on batches (n1, *features) and (n2, *features). `mlp_kernel`
is written out here in closed form, `from_stax` takes any architecture that neural-tangents knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

__all__ = ["Kernels", "empirical_ntk", "from_stax", "mlp_kernel"]

_ENTRIES = 2**17  # of a kernel that are computed in one go


class Kernels(NamedTuple):
    """The two kernels of an infinitely wide network.

    Args:
        nngp: K, the covariance of the output over initialisations, shape (n1, n2).
        ntk: Θ, the neural tangent kernel, shape (n1, n2).
    """

    nngp: Array
    ntk: Array


def mlp_kernel(
    depth: int, activation: str = "relu", W_std: float = 1.0, b_std: float = 0.0
) -> Callable[[ArrayLike, ArrayLike], Kernels]:
    r"""The kernel of an infinitely wide fully connected network.

    With $K^{(1)} = \Theta^{(1)} = \sigma_w^2\, x\cdot x'/d + \sigma_b^2$, each hidden layer maps

    $$K^{(l+1)} = \sigma_w^2\,\mathbb{E}[\phi(u)\phi(u')] + \sigma_b^2, \qquad
    \Theta^{(l+1)} = K^{(l+1)} + \sigma_w^2\,\mathbb{E}[\phi'(u)\phi'(u')]\,\Theta^{(l)},
    \qquad (u, u') \sim \mathcal{N}(0, K^{(l)}),$$

    which has a closed form for ReLU (Cho & Saul 2009, eqs. 3–6) and erf (Williams 1997, eq. 11); the
    recursion for Θ is Jacot et al. 2018, theorem 1. NTK parameterisation. The angle between two inputs is
    carried along instead of being recovered by arccos, so that equal and parallel inputs keep every digit.

    Args:
        depth: the number of hidden layers, at least 1.
        activation: "relu" or "erf".
        W_std: σ_w, the standard deviation of the weights before the factor 1/√(fan-in), positive.
        b_std: σ_b, the standard deviation of the biases, ≥ 0.

    Returns:
        A function of x1, shape (n1, *features), and x2, shape (n2, *features), to `Kernels`.

    Raises:
        ValueError: an unknown activation, a depth below 1, a W_std that is not positive or a negative
            b_std; when called: batches that are empty, not finite, not floating point or of different
            features.

    >>> kernel = mlp_kernel(depth=2, activation="relu", W_std=2**0.5)
    >>> x = jnp.array([[3.0, 4.0], [4.0, -3.0]])
    >>> kernel(x, x).ntk.round(3)
    Array([[75.      , 17.143002],
           [17.143002, 75.      ]], dtype=float32)
    """
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
        raise ValueError(
            f"mlp_kernel: depth must be an integer of at least 1 (hidden layers), got {depth!r}."
        )
    layers = {"relu": _relu_layers, "erf": _erf_layers}
    if activation not in layers:
        raise ValueError(
            f"mlp_kernel: unknown activation {activation!r}; known are 'relu' and 'erf'. "
            "Build others with neural-tangents and from_stax."
        )
    if not np.isfinite(W_std) or W_std <= 0:
        raise ValueError(f"mlp_kernel: W_std must be positive and finite, got {W_std!r}.")
    if not np.isfinite(b_std) or b_std < 0:
        raise ValueError(f"mlp_kernel: b_std must be finite and not negative, got {b_std!r}.")

    @jax.jit
    def recursion(x1, x2):
        scale = float(W_std) / math.sqrt(x1.shape[1])  # Python numbers keep float32 inputs float32
        h1, h2 = (jnp.pad(x * scale, ((0, 0), (0, 1)), constant_values=b_std) for x in (x1, x2))

        def kernel_of_rows(h1, h2):
            return layers[activation](h1, h2, depth, float(W_std) ** 2, float(b_std) ** 2)

        return Kernels(*_by_rows(kernel_of_rows, h1, h2))

    def kernel(x1, x2):
        x1, x2 = _batches("mlp_kernel", x1, x2)
        return recursion(x1.reshape(x1.shape[0], -1), x2.reshape(x2.shape[0], -1))

    return kernel


def from_stax(kernel_fn: Callable) -> Callable[[ArrayLike, ArrayLike], Kernels]:
    """A neural-tangents kernel function as a `k(x1, x2) -> Kernels`.

    On the diagonal its ReLU kernels carry rounding noise of 7e-8, even in float64, since neural-tangents
    recovers the angle by arccos; off the diagonal they are good to rounding.

    Args:
        kernel_fn: the third element of what `stax.serial(...)` returns (Novak et al. 2020).

    Returns:
        A function of x1, shape (n1, *features), and x2, shape (n2, *features), to `Kernels`.

    Raises:
        ValueError: kernel_fn is not callable (the whole stax triple was given, say); when called: batches
            that are empty, not finite or of different features, or a kernel that is not (n1, n2).

    >>> from nteq.compat import stax
    >>> _, _, kernel_fn = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))
    >>> from_stax(kernel_fn)(jnp.ones((2, 3)), jnp.ones((4, 3))).ntk.shape
    (2, 4)
    """
    if not callable(kernel_fn):
        raise ValueError(
            f"from_stax: kernel_fn must be callable, got {type(kernel_fn).__name__}. "
            "Give the third of the three functions that stax.serial(...) returns."
        )

    compiled = jax.jit(lambda x1, x2: tuple(kernel_fn(x1, x2, ("nngp", "ntk"))))

    def kernel(x1, x2):
        x1, x2 = _batches("from_stax", x1, x2)
        values = Kernels(*compiled(x1, x2))
        if values.ntk.shape != (x1.shape[0], x2.shape[0]):
            raise ValueError(
                f"from_stax: the kernel has shape {values.ntk.shape}, expected {(x1.shape[0], x2.shape[0])}. "
                "End the network with Flatten or GlobalAvgPool and a Dense layer."
            )
        return values

    return kernel


def empirical_ntk(apply: Callable, params, x1: ArrayLike, x2: ArrayLike, max_bytes: int = 2**28) -> Array:
    r"""The empirical NTK of a finite network by contracting its Jacobians.

    $$\Theta_\theta(x, x') = \sum_\mu \frac{\partial f(x)}{\partial\theta_\mu}
    \frac{\partial f(x')}{\partial\theta_\mu}$$

    (Jacot et al. 2018, eq. 2.) Jacobians are formed for blocks of examples, so memory stays bounded for
    any number of them.

    Args:
        apply: f(params, x) for a batch x, with outputs of shape (n,) or (n, outputs).
        params: the parameters θ, any pytree of floating-point arrays.
        x1: inputs, shape (n1, *features).
        x2: inputs, shape (n2, *features).
        max_bytes: the largest Jacobian block to hold, in bytes; two are held at a time. One example's
            Jacobian is always formed whole.

    Returns:
        Array of shape (n1, n2) for scalar outputs, else (n1, n2, outputs, outputs).

    Raises:
        ValueError: batches that are empty, not finite or of different features; outputs of another shape;
            max_bytes not positive.

    >>> linear = lambda w, x: x @ w
    >>> empirical_ntk(linear, jnp.zeros(2), jnp.eye(2), jnp.ones((1, 2)))
    Array([[1.],
           [1.]], dtype=float32)
    """
    x1, x2 = _batches("empirical_ntk", x1, x2)
    if max_bytes <= 0:
        raise ValueError(f"empirical_ntk: max_bytes must be positive, got {max_bytes!r}.")
    output = jax.eval_shape(apply, params, x1)
    if len(output.shape) not in (1, 2) or output.shape[0] != x1.shape[0]:
        raise ValueError(
            f"empirical_ntk: apply must return shape (n,) or (n, outputs) for n = {x1.shape[0]} inputs, "
            f"got {output.shape}."
        )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    size *= output.shape[1] if len(output.shape) == 2 else 1
    block = max(1, int(max_bytes // max(size, 1)))

    @jax.jit
    def contract(params, a, b):
        jacobian = jax.vmap(lambda x: jax.jacobian(lambda p: apply(p, x[None])[0])(params))
        terms = jax.tree.map(_contract_leaf, jacobian(a), jacobian(b), params)
        return sum(jax.tree.leaves(terms))

    def _contract_leaf(j1, j2, leaf):
        j1, j2 = (j.reshape(*j.shape[: j.ndim - leaf.ndim], -1) for j in (j1, j2))
        return j1 @ j2.T if j1.ndim == 2 else jnp.einsum("nap,mbp->nmab", j1, j2)

    rows = [
        jnp.concatenate([contract(params, a, b) for b in _blocks(x2, block)], axis=1)
        for a in _blocks(x1, block)
    ]
    return jnp.concatenate(rows)


def _batches(caller: str, x1: ArrayLike, x2: ArrayLike) -> tuple[Array, Array]:
    x1, x2 = jnp.asarray(x1), jnp.asarray(x2)
    for name, x in (("x1", x1), ("x2", x2)):
        if x.ndim < 2 or x.size == 0:
            raise ValueError(
                f"{caller}: {name} must be a batch of shape (n, *features) with n ≥ 1, got shape {x.shape}. "
                "For one example add a leading axis: x[None]."
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"{caller}: {name} must hold floating-point numbers, got dtype {x.dtype}. "
                "Use x.astype(float)."
            )
        if not isinstance(x, jax.core.Tracer):
            with jax.ensure_compile_time_eval():  # a known batch may be used inside of a trace
                finite = bool(jnp.isfinite(x).all())
            if not finite:
                raise ValueError(f"{caller}: {name} has entries that are not finite. Remove them first.")
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"{caller}: x1 and x2 must have the same features, got shapes {x1.shape} and {x2.shape}."
        )
    return x1, x2


def _as_kernels(caller: str, value: Any, shape: tuple[int, int]) -> Kernels:
    """What a kernel function returned, if it has .nngp and .ntk of the shape (n1, n2) of its batches."""
    if not hasattr(value, "nngp") or not hasattr(value, "ntk"):
        raise ValueError(
            f"{caller}: the kernel must return nteq.kernels.Kernels(nngp, ntk), "
            f"got a {type(value).__name__}. Wrap what it computes in Kernels; from_stax wraps a kernel_fn of "
            "neural-tangents."
        )
    for name in Kernels._fields:
        found = np.shape(getattr(value, name))
        if found != tuple(shape):
            raise ValueError(
                f"{caller}: the kernel's {name} has shape {found}, expected {tuple(shape)}: one number for "
                "each pair of examples. Of a neural-tangents network, end it with Flatten or GlobalAvgPool "
                "and a Dense layer."
            )
    return Kernels(jnp.asarray(value.nngp), jnp.asarray(value.ntk))


def _blocks(x: Array, size: int) -> list[Array]:
    return [x[start : start + size] for start in range(0, x.shape[0], size)]


def _by_rows(kernel_of_rows: Callable, h1: Array, h2: Array) -> tuple[Array, Array]:
    """kernel_of_rows(h1, h2) for a few rows of h1 at a time: its temporaries stay small and in the cache."""
    n1, n2 = h1.shape[0], h2.shape[0]
    step = min(n1, max(1, _ENTRIES // n2))
    if step == n1:
        return kernel_of_rows(h1, h2)

    def some_rows(i, whole):
        # both slices move back at the end of the batch, so its last rows may be computed twice
        part = kernel_of_rows(jax.lax.dynamic_slice_in_dim(h1, i * step, step), h2)
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(w, p, i * step, 0) for w, p in zip(whole, part, strict=True)
        )

    return jax.lax.fori_loop(0, -(-n1 // step), some_rows, (jnp.zeros((n1, n2), h1.dtype),) * 2)


def _relu_layers(h1, h2, depth, w2, b2):
    tiny = jnp.finfo(h1.dtype).tiny
    a, b = jnp.linalg.norm(h1, axis=1)[:, None], jnp.linalg.norm(h2, axis=1)[None]
    u, v = h1 / jnp.maximum(a, tiny), h2 / jnp.maximum(b.T, tiny)
    cosine = u @ v.T

    def layer(ntk, a, b, less, more):  # less = 1 − cos θ, more = 1 + cos θ
        # atan2 of the roots costs a quarter more; with more = 0 this is arctan(inf), which is right
        angle, sine = 2 * jnp.arctan(jnp.sqrt(less / more)), jnp.sqrt(less * more)
        # 1 − κ₁(θ), κ₁ = (sin θ + (π − θ) cos θ)/π, arranged so that nothing cancels near θ = 0
        defect = less - (sine - angle * (1 - less)) / jnp.pi
        derivative = (jnp.pi - angle) / (2 * jnp.pi)
        p, q = a * (w2 / 2) ** 0.5, b * (w2 / 2) ** 0.5
        ntk = p * q * (1 - defect) + b2 + w2 * derivative * ntk
        a, b = jnp.sqrt(p**2 + b2), jnp.sqrt(q**2 + b2)
        # ab − nngp without cancellation: ab − (pq + b2) = b2 (p − q)²/(ab + pq + b2) by Lagrange's identity
        gap = p * q * defect + b2 * (p - q) ** 2 / jnp.maximum(a * b + p * q + b2, tiny)
        return ntk, a, b, jnp.clip(gap / jnp.maximum(a * b, tiny), 0, 1)  # no cosine is negative now

    def layers(distance):
        less = jnp.where(cosine >= 0, distance, 2 - distance)
        more = jnp.where(cosine >= 0, 2 - distance, distance)
        state = layer(a * b * cosine, a, b, less, more)
        if depth > 1:  # a loop without iterations would still copy its state
            state = jax.lax.fori_loop(1, depth, lambda _, state: layer(*state, 2 - state[-1]), state)
        ntk, a_out, b_out, less = state
        return a_out * b_out * (1 - less), ntk

    # Where the cosine is near ±1 the difference 1 − |cos θ| cancels, and the angle would lose half its
    # digits. There |u ∓ v|²/2 takes its place, which costs a vector for each pair, so only for pairs that
    # need it: one or two in a row as a rule, the point itself and a copy of it.
    few = 2
    near = (jnp.abs(cosine) > 0.99).sum(axis=1).max()

    def between(a, b):
        return jnp.minimum(jnp.sum((a - b) ** 2, axis=1), jnp.sum((a + b) ** 2, axis=1)) / 2

    def nearest_pairs():
        distance, left, rows = 1 - jnp.abs(cosine), jnp.abs(cosine), jnp.arange(cosine.shape[0])
        for _ in range(few):
            nearest = jnp.argmax(left, axis=1)
            distance = distance.at[rows, nearest].set(between(u, v[nearest]))
            left = left.at[rows, nearest].set(-1)
        return distance

    def every_pair():
        # row by row; without the barrier XLA forms the differences of all rows at once
        return jax.lax.map(lambda w: between(jax.lax.optimization_barrier(w), v), u)

    return jax.lax.cond(
        near == 0,
        lambda: layers(1 - jnp.abs(cosine)),
        lambda: layers(jax.lax.cond(near <= few, nearest_pairs, every_pair)),
    )


def _erf_layers(h1, h2, depth, w2, b2):
    def layer(_, state):
        nngp, ntk, a, b = state
        # (1 + 2a)(1 + 2b) − 4 nngp², as a sum of terms that are not negative
        minor = jnp.sqrt(1 + 2 * a + 2 * b + 4 * jnp.maximum(a * b - nngp**2, 0))
        arcsine = jnp.arctan2(2 * nngp, minor)
        nngp = w2 * 2 / jnp.pi * arcsine + b2
        ntk = nngp + w2 * 4 / jnp.pi / minor * ntk
        a, b = (w2 * 2 / jnp.pi * jnp.arctan2(2 * s, jnp.sqrt(1 + 4 * s)) + b2 for s in (a, b))
        return nngp, ntk, a, b

    a, b = jnp.sum(h1**2, axis=1)[:, None], jnp.sum(h2**2, axis=1)[None]
    nngp = h1 @ h2.T
    return jax.lax.fori_loop(0, depth, layer, (nngp, nngp, a, b))[:2]
