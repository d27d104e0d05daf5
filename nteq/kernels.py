r"""Kernels of neural networks: NNGP and NTK at infinite width, and the empirical NTK of a finite one.

A kernel is a function `k(x1, x2) -> Kernels` on batches (n1, *features) and (n2, *features). `mlp_kernel`
is written out here in closed form, `from_stax` takes any architecture that neural-tangents knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq import _checks
from nteq._closed_forms import mlp_values
from nteq._products import einsum, matmul

__all__ = ["Kernels", "empirical_ntk", "from_stax", "mlp_kernel"]


class Kernels(NamedTuple):
    """The two kernels of an infinitely wide network.

    Args:
        nngp: K, the covariance of the output over initialisations, shape (n1, n2).
        ntk: Θ, the neural tangent kernel, shape (n1, n2).
    """

    nngp: Array
    ntk: Array


def mlp_kernel(
    depth: int, activation: str = "relu", W_std: float | Array = 1.0, b_std: float | Array = 0.0
) -> Callable[[ArrayLike, ArrayLike], Kernels]:
    r"""The kernel of an infinitely wide fully connected network.

    With $K^{(1)} = \Theta^{(1)} = \sigma_w^2\, x\cdot x'/d + \sigma_b^2$, each hidden layer maps

    $$K^{(l+1)} &= \sigma_w^2\,\mathbb{E}[\phi(u)\phi(u')] + \sigma_b^2, \\
    \Theta^{(l+1)} &= K^{(l+1)} + \sigma_w^2\,\mathbb{E}[\phi'(u)\phi'(u')]\,\Theta^{(l)},
    \qquad (u, u') \sim \mathcal{N}(0, K^{(l)}),$$

    which has a closed form for ReLU (Cho & Saul 2009, eqs. 3–6) and erf (Williams 1997, eq. 11); the
    recursion for Θ is Jacot et al. 2018, theorem 1. NTK parameterisation. The angle between two inputs is
    carried along instead of being recovered by arccos, so that equal and parallel inputs keep every digit.

    The kernel is a value: equal arguments make equal kernels, σ_w and σ_b are the leaves of a pytree, and it
    can be an argument of `jit`, `grad` and `vmap`. Derivatives are finite everywhere. Where Θ has the tip of
    a cone, at inputs that are parallel to rounding, they are the symmetric ones, the mean over opposite
    sides; so they are at a zero input of a ReLU network without biases, for directions at right angles to
    the other input. Inputs of any magnitude are right to rounding or, if the value is out of the range of
    the floats, 0 or inf. An erf network with a large σ_w is chaotic: each layer multiplies the difference of
    two nearly equal inputs, and with it the rounding error of their kernel, by about σ_w.

    Args:
        depth: the number of hidden layers, at least 1.
        activation: "relu" or "erf".
        W_std: σ_w, the standard deviation of the weights before the factor 1/√(fan-in), positive; it may be
            traced.
        b_std: σ_b, the standard deviation of the biases, ≥ 0; it may be traced.

    Returns:
        A function of x1, shape (n1, *features), and x2, shape (n2, *features), to `Kernels`.

    Raises:
        ValueError: an unknown activation, a depth below 1, a W_std that is not positive or a negative
            b_std; when called: batches that are empty, not finite, not real or of different features, or
            a W_std or b_std whose square the type of the inputs cannot hold.

    >>> kernel = mlp_kernel(depth=2, activation="relu", W_std=2**0.5)
    >>> x = jnp.array([[3.0, 4.0], [4.0, -3.0]])
    >>> kernel(x, x).ntk.round(3)
    Array([[75.      , 17.143002],
           [17.143002, 75.      ]], dtype=float32)
    """
    return _MLPKernel(
        _checks.number("mlp_kernel", "W_std", W_std, exclusive=True),
        _checks.number("mlp_kernel", "b_std", b_std),
        _checks.count("mlp_kernel", "depth", depth, advice="It is the number of hidden layers."),
        _checks.choice(
            "mlp_kernel",
            "activation",
            activation,
            ("relu", "erf"),
            "Build others with neural-tangents and from_stax.",
        ),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _MLPKernel:
    W_std: Any
    b_std: Any
    depth: int = field(metadata={"static": True})
    activation: str = field(metadata={"static": True})

    def __call__(self, x1: ArrayLike, x2: ArrayLike) -> Kernels:
        x1, x2 = _batches("mlp_kernel", x1, x2)
        _require_squares("mlp_kernel", x1.dtype, W_std=self.W_std, b_std=self.b_std)
        return _mlp_values(self, x1.reshape(x1.shape[0], -1), x2.reshape(x2.shape[0], -1))


@jax.jit
def _mlp_values(kernel: _MLPKernel, x1: Array, x2: Array) -> Kernels:
    W_std, b_std = (jnp.asarray(value, x1.dtype) for value in (kernel.W_std, kernel.b_std))
    return Kernels(*mlp_values(kernel.activation, kernel.depth, x1, x2, W_std, b_std))


def _require_squares(caller: str, dtype: Any, **deviations: Any) -> None:
    least, most = (float(bound) ** 0.5 for bound in (jnp.finfo(dtype).tiny, jnp.finfo(dtype).max))
    for name, value in deviations.items():
        # a bias may vanish
        if _checks.is_known(value) and (value > most or (name == "W_std" and value < least)):
            raise ValueError(
                f"{caller}: {name} = {value!r} has a square that {dtype} cannot hold. Scale the inputs "
                'instead, or compute in float64: jax.config.update("jax_enable_x64", True).'
            )


def from_stax(kernel_fn: Callable[..., Any]) -> Callable[[ArrayLike, ArrayLike], Kernels]:
    """A neural-tangents kernel function as a `k(x1, x2) -> Kernels`.

    On the diagonal its ReLU kernels carry rounding noise of 7e-8, even in float64 (3e-4 in float32), since
    neural-tangents recovers the angle by arccos; off the diagonal they are good to rounding. It multiplies
    kernel values in pairs, layer by layer: what it returns is refused where these products must have left
    the range of the floats at the end, which goes unseen where a later layer normalises or when traced. The
    kernel is a value, equal if kernel_fn is the same function, and a constant as an argument of `jit`.

    Args:
        kernel_fn: the third element of what `stax.serial(...)` returns (Novak et al. 2020).

    Returns:
        A function of x1, shape (n1, *features), and x2, shape (n2, *features), to `Kernels`.

    Raises:
        ValueError: kernel_fn is not a function (the whole stax triple was given, say); when called: batches
            that are empty, not finite or of different features, a kernel that is not (n1, n2), or values
            so large or small that their products are out of range.

    >>> from nteq.compat import stax
    >>> _, _, kernel_fn = stax.serial(stax.Dense(1), stax.Erf(), stax.Dense(1))
    >>> from_stax(kernel_fn)(jnp.ones((2, 3)), jnp.ones((4, 3))).ntk.shape
    (2, 4)
    """
    if not callable(kernel_fn) or not _has_hash(kernel_fn):
        raise ValueError(
            f"from_stax: kernel_fn must be a function, got {type(kernel_fn).__name__}. "
            "Give the third of the three functions that stax.serial(...) returns."
        )
    return _StaxKernel(kernel_fn)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _StaxKernel:
    kernel_fn: Callable[..., Any]

    def __call__(self, x1: ArrayLike, x2: ArrayLike) -> Kernels:
        x1, x2 = _batches("from_stax", x1, x2)
        values = _as_kernels("from_stax", _stax_values(self, x1, x2), (x1.shape[0], x2.shape[0]))
        if _checks.is_known(values):
            _require_trustworthy(values)
        return values


@jax.jit
def _stax_values(kernel: _StaxKernel, x1: Array, x2: Array) -> Kernels:
    return Kernels(*kernel.kernel_fn(x1, x2, ("nngp", "ntk")))


def _require_trustworthy(values: Kernels) -> None:
    """Raises where neural-tangents' products of two kernel values must have left the range of the floats."""
    info = jnp.finfo(values.nngp.dtype)
    finite, largest = _checks.look(lambda: _extent(values))
    if not finite or largest > info.max**0.5 or 0 < largest < info.tiny**0.5:
        raise ValueError(
            f"from_stax: the kernel's values reach {largest:.1e}. neural-tangents multiplies them in pairs, "
            f"and {info.dtype} cannot hold these products, so the values are wrong. Scale the inputs or "
            'W_std, or compute in float64: jax.config.update("jax_enable_x64", True).'
        )


@jax.jit
def _extent(values: Kernels) -> Array:
    """Whether all values are finite, and the largest of the NNGP."""
    return jnp.stack([jnp.isfinite(jnp.stack(values)).all(), jnp.abs(values.nngp).max()])


def empirical_ntk(
    apply: Callable[..., Array], params: Any, x1: ArrayLike, x2: ArrayLike, max_bytes: int = 2**28
) -> Array:
    r"""The empirical NTK of a finite network by contracting its Jacobians.

    $$\Theta_\theta(x, x') = \sum_\mu \frac{\partial f(x)}{\partial\theta_\mu}
    \frac{\partial f(x')}{\partial\theta_\mu}$$

    (Jacot et al. 2018, eq. 2.) Jacobians are formed for blocks of examples, so memory stays bounded for
    any number of them.

    Args:
        apply: f(params, x) for a batch x, with outputs of shape (n,) or (n, outputs). As for `jax.jit`, what
            it computes depends on its arguments alone: it is compiled once (at each call if it has no hash).
        params: the parameters θ, any pytree of real arrays.
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
    max_bytes = _checks.number("empirical_ntk", "max_bytes", max_bytes, exclusive=True)
    params = jax.tree.map(lambda leaf: _checks.real("empirical_ntk", "params", leaf), params)
    apply = apply if _has_hash(apply) else partial(apply)  # compiled for each call then
    output = jax.eval_shape(apply, params, x1)
    if not hasattr(output, "shape") or len(output.shape) not in (1, 2) or output.shape[0] != x1.shape[0]:
        raise ValueError(
            f"empirical_ntk: apply must return shape (n,) or (n, outputs) for n = {x1.shape[0]} inputs, "
            f"got {getattr(output, 'shape', type(output).__name__)}."
        )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    size *= output.shape[1] if len(output.shape) == 2 else 1
    block = max(1, int(max_bytes // max(size, 1)))
    rows = [
        jnp.concatenate([_contract(apply, params, a, b) for b in _blocks(x2, block)], axis=1)
        for a in _blocks(x1, block)
    ]
    return jnp.concatenate(rows)


@partial(jax.jit, static_argnames="apply")
def _contract(apply: Callable[..., Array], params: Any, a: Array, b: Array) -> Array:
    one = lambda x: jax.jacobian(lambda p: apply(p, x[None])[0])(params)
    jacobian: Callable[[Array], Any] = jax.vmap(one)

    def one_leaf(j1: Any, j2: Any, leaf: Any) -> Array:
        j1, j2 = (j.reshape(*j.shape[: j.ndim - leaf.ndim], -1) for j in (j1, j2))
        return matmul(j1, j2.T) if j1.ndim == 2 else einsum("nap,mbp->nmab", j1, j2)

    terms: list[Array] = jax.tree.leaves(jax.tree.map(one_leaf, jacobian(a), jacobian(b), params))
    return sum(terms[1:], start=terms[0])


def _batches(caller: str, x1: ArrayLike, x2: ArrayLike) -> tuple[Array, Array]:
    x1, x2 = _checks.batch(caller, "x1", x1), _checks.batch(caller, "x2", x2)
    if x1.shape[1:] != x2.shape[1:]:
        raise ValueError(
            f"{caller}: x1 and x2 must have the same features, got shapes {x1.shape} and {x2.shape}."
        )
    dtype = np.promote_types(x1.dtype, x2.dtype)
    return x1.astype(dtype), x2.astype(dtype)


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


def _has_hash(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _blocks(x: Array, size: int) -> list[Array]:
    return [x[start : start + size] for start in range(0, x.shape[0], size)]
