r"""Kernels of neural networks: NNGP and NTK at infinite width, and the empirical NTK of a finite one.

A kernel is a function `k(x1, x2) -> Kernels` on batches (n1, *features) and (n2, *features). `mlp_kernel`
and `cnn_kernel` are computed here, `from_stax` takes any architecture that neural-tangents knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq import _checks, _lanes
from nteq._closed_forms import mlp_values
from nteq._convolutions import Layers, require_room
from nteq._products import einsum, matmul

__all__ = ["Kernels", "cnn_kernel", "empirical_ntk", "from_stax", "mlp_kernel"]


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
        _activation("mlp_kernel", activation),
    )


def _activation(caller: str, name: str) -> str:
    """One of those whose integrals are known here."""
    advice = "Build others with neural-tangents and from_stax."
    return _checks.choice(caller, "activation", name, ("relu", "erf"), advice)


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


def cnn_kernel(
    filter_sizes: Sequence[int],
    strides: int | Sequence[int] = 1,
    padding: str = "VALID",
    readout: str = "flatten",
    activation: str = "relu",
    W_std: float | Array = 1.0,
    b_std: float | Array = 0.0,
) -> Callable[[ArrayLike, ArrayLike], Kernels]:
    r"""The kernel of an infinitely wide convolutional network on images, with a linear readout.

    For each pair of pixels (p, q) of two images, and with $K^{(0)}_{pq} = x_p\cdot x'_q/C$, a layer with
    filters of size s maps

    $$K^{(l+1)}_{pq} &= \frac{\sigma_w^2}{s^2}\sum_{d} \mathbb{E}[\phi(u)\phi(u')]_{p+d,\,q+d}
    + \sigma_b^2, \\
    \Theta^{(l+1)}_{pq} &= K^{(l+1)}_{pq} + \frac{\sigma_w^2}{s^2}\sum_{d}
    \bigl(\mathbb{E}[\phi'(u)\phi'(u')]\,\Theta^{(l)}\bigr)_{p+d,\,q+d},$$

    with d over the filter, (u, u') as in `mlp_kernel`, and no nonlinearity before the first layer (Arora et
    al. 2019, section 4; Novak et al. 2019). The readout takes the mean over all pairs, or flattened over
    those with p = q. NTK parameterisation. A convolution keeps the offset q − p, so each offset is computed
    on its own and nothing of the size (pixels)² is stored; pairs of images go in pieces, one on each core.
    If x1 and x2 are the same object, of two equal pairs only one is computed.

    The kernel is a value, and its derivatives are finite, as those of `mlp_kernel`. Patches that are
    parallel to rounding count as parallel, which makes equal images, flat areas and black backgrounds
    exact. Of patches that are nearly so, E[φ'(u)φ'(u')] has an error of 2e-8 at most, or 3e-4 in float32.

    Args:
        filter_sizes: the side of the square filters, one for each layer.
        strides: one for all layers or one for each.
        padding: "VALID" (none), "SAME" (zeros) or "CIRCULAR" (periodic; the strides must divide the pixels).
        readout: "flatten" gives each pixel a weight of its own, "average" pools over the pixels first.
        activation: "relu" or "erf".
        W_std: σ_w, the standard deviation of the weights before the factor 1/√(fan-in), positive; it may be
            traced.
        b_std: σ_b, the standard deviation of the biases, ≥ 0; it may be traced.

    Returns:
        A function of x1, shape (n1, height, width, channels), and x2, shape (n2, height, width, channels),
        to `Kernels`.

    Raises:
        ValueError: an argument out of range; when called: batches that are empty, not finite or of
            different features, arrays that are not images, images too small for the filters or so large
            that a single pair takes more than 2 GiB, or values that are out of range.

    >>> kernel = cnn_kernel([3, 3], padding="SAME", readout="average", W_std=2**0.5)
    >>> x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    >>> moved = jnp.roll(x, 1, axis=2)
    >>> kernel(x, moved).ntk.shape
    (2, 2)
    """
    layers = _checks.count(
        "cnn_kernel", "the number of filter_sizes", np.size(filter_sizes), advice="Give one for each layer."
    )
    sizes = _checks.per_layer("cnn_kernel", "filter_sizes", filter_sizes, layers)
    readout = _checks.choice("cnn_kernel", "readout", readout, ("flatten", "average"))
    return _CNNKernel(
        _checks.number("cnn_kernel", "W_std", W_std, exclusive=True),
        _checks.number("cnn_kernel", "b_std", b_std),
        Layers(
            sizes,
            _checks.per_layer("cnn_kernel", "strides", strides, layers),
            _checks.choice("cnn_kernel", "padding", padding, ("VALID", "SAME", "CIRCULAR")),
            readout == "average",
            _activation("cnn_kernel", activation),
        ),
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _CNNKernel:
    W_std: Any
    b_std: Any
    layers: Layers = field(metadata={"static": True})

    def __call__(self, x1: ArrayLike, x2: ArrayLike) -> Kernels:
        if x1 is x2:
            return self.symmetric_matrix(x1, x2)
        x1, x2 = self._images(x1, x2)
        return _known_kernels(self._values(x1, x2, _lanes.all_pairs(len(x1), len(x2))))

    def symmetric_matrix(self, x1: ArrayLike, x2: ArrayLike) -> Kernels:
        """k(x1, x2) where it is known to be a symmetric matrix, from its upper half."""
        x1, x2 = self._images(x1, x2)
        return _known_kernels(_mirrored(self._values(x1, x2, _lanes.upper(len(x1)))))

    def orbit_sums(self, x1: ArrayLike, x2: ArrayLike, action: Any, weights: Any, symmetric: bool) -> Kernels:
        r"""$\sum_g w(g)\, k(x_1, \rho(g)x_2)$ of NNGP and NTK, (n1, n2, ...) for weights (|G|, ...).

        With symmetric, x1 = x2 and k is invariant: of k(x, ρ(g)x) and its transpose k(x, ρ(g⁻¹)x) one is
        computed.
        """
        x1, x2 = self._images(x1, x2)
        inverses, n = action.group.inverses, len(x2)
        elements = [g for g in range(action.group.order) if not symmetric or g <= inverses[g]]
        half = {True: _lanes.upper(n).mask(), False: np.ones((len(x1), n), bool)}
        weights = np.asarray(weights) if _checks.is_known(weights) else weights
        weights = weights.astype(x1.dtype).reshape(weights.shape[0], 1, 1, *weights.shape[1:])
        ones = (1,) * (weights.ndim - 3)
        together = max(1, _lanes.MEMORY // (x2.size * x2.dtype.itemsize))
        total: Any = 0.0
        for start in range(0, len(elements), together):
            some = elements[start : start + together]
            images = jnp.concatenate([action(g, x2) for g in some])
            masks = [half[symmetric and inverses[g] == g] for g in some]
            values = self._values(x1, images, _lanes.Wanted.of(np.concatenate(masks, axis=1)))
            for i, g in enumerate(some):
                of_g = values[:, :, i * n : (i + 1) * n]
                of_g = _mirrored(of_g) if symmetric and inverses[g] == g else of_g
                total = total + of_g.reshape(*of_g.shape, *ones) * weights[g][None]
                if symmetric and inverses[g] != g:
                    turned = of_g.swapaxes(1, 2).reshape(2, n, n, *ones)
                    total = total + turned * weights[inverses[g]][None]
        return _known_kernels(total)

    def _images(self, x1: ArrayLike, x2: ArrayLike) -> tuple[Array, Array]:
        x1, x2 = _batches("cnn_kernel", x1, x2)
        _require_squares("cnn_kernel", x1.dtype, W_std=self.W_std, b_std=self.b_std)
        if x1.ndim != 4:
            raise ValueError(
                f"cnn_kernel: x1 and x2 must be images of shape (n, height, width, channels), got "
                f"{x1.shape}. Add an axis for a single channel: x[..., None]."
            )
        require_room(self.layers, x1.shape[1:], x1.dtype.itemsize)
        return x1, x2

    def _values(self, x1: Array, x2: Array, wanted: _lanes.Wanted) -> Any:
        values = _lanes.pair_values(self.layers, self.W_std, self.b_std, x1, x2, wanted)
        if isinstance(values, np.ndarray) and not _checks.are_finite(values):
            raise ValueError(
                f"cnn_kernel: the kernel has values that {values.dtype} cannot hold. Scale the inputs or "
                'W_std, or compute in float64: jax.config.update("jax_enable_x64", True).'
            )
        return values


def _mirrored(values: Any) -> Any:
    """Symmetric matrices of their upper triangles."""
    triu = np.triu if isinstance(values, np.ndarray) else jnp.triu
    return values + triu(values, 1).swapaxes(-1, -2)


def _known_kernels(values: Any) -> Kernels:
    """NNGP and NTK as arrays of JAX, which stay known inside of a trace."""
    if not isinstance(values, np.ndarray):
        return Kernels(values[0], values[1])
    with jax.ensure_compile_time_eval():
        return Kernels(jnp.asarray(values[0]), jnp.asarray(values[1]))


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
    same, x1 = x1 is x2, _checks.batch(caller, "x1", x1)
    x2 = x1 if same else _checks.batch(caller, "x2", x2)
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
