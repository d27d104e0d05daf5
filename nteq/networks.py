r"""Finite networks together with the kernel they converge to.

A `Network` is two or three functions: `init(key, shape)` draws parameters for inputs of shape (n, *shape),
`apply(params, x)` evaluates, and `kernel(x1, x2)`, where it is known, is the infinite-width limit. Parameters
of those made here are a list of (W, b) for each layer, drawn from a standard normal distribution; `apply`
scales them (NTK parameterisation):

$$h = \frac{\sigma_w}{\sqrt{\text{fan-in}}}\, W x + \sigma_b\, b, \qquad W, b \sim \mathcal{N}(0, 1).$$

With the standard parameterisation the scale is in the draw instead. The networks are the same at
initialisation, but gradient descent moves them differently.

On a GPU JAX multiplies float32 matrices to 10 bits unless `jax.default_matmul_precision("highest")` says
otherwise. `apply` follows that setting; kernels, actions and flows always compute in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq import _checks
from nteq._architectures import (
    ACTIVATIONS,
    CNN,
    GCNN,
    MLP,
    POINT_GROUPS,
    Activation,
    Apply,
    Architecture,
    Init,
    Limit,
)
from nteq.kernels import Kernels

__all__ = ["Network", "cnn", "gcnn", "mlp"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Network:
    """A finite network and, where it is known, its limit.

    A value: networks of equal functions are equal, so that what was compiled for one serves the other. Those
    of `mlp`, `cnn` and `gcnn` are equal when their arguments are; functions of your own are equal when they
    are the same object. As a part of a pytree it is static.

    Args:
        init: `init(key, shape, dtype=None)` -> params, for inputs of shape (n, *shape); by default of JAX's
            default precision.
        apply: `apply(params, x)` -> outputs of shape (n,), or (n, outputs).
        kernel: `kernel(x1, x2)` -> `nteq.kernels.Kernels`, the kernel of each output; different outputs
            are independent at infinite width. None where no closed form is known.

    Raises:
        ValueError: init, apply or kernel cannot be called.

    >>> line = Network(
    ...     init=lambda key, shape, dtype=None: jax.random.normal(key, shape, dtype),
    ...     apply=lambda w, x: x @ w,
    ...     kernel=lambda x1, x2: Kernels(x1 @ x2.T, x1 @ x2.T),
    ... )
    >>> line.apply(line.init(jax.random.key(0), (3,)), jnp.ones((5, 3))).shape
    (5,)
    """

    init: Callable[..., Any]
    apply: Callable[[Any, Array], Array]
    kernel: Callable[[ArrayLike, ArrayLike], Kernels] | None = None

    def __post_init__(self) -> None:
        for name in ("init", "apply", "kernel"):
            value = getattr(self, name)
            if not callable(value) and not (name == "kernel" and value is None):
                raise ValueError(f"Network: {name} must be a function, got {value!r}.")

    def __repr__(self) -> str:
        if isinstance(self.init, Init) and self == _network(self.init.architecture):
            return repr(self.init.architecture)
        return f"Network({self.init!r}, {self.apply!r}, {self.kernel!r})"


def mlp(
    width: int,
    depth: int = 1,
    outputs: int | None = None,
    activation: Activation = "relu",
    W_std: float = 1.0,
    b_std: float = 0.0,
    parameterization: str = "ntk",
) -> Network:
    r"""A fully connected network with hidden layers of equal width.

    Args:
        width: units in each hidden layer, at least 1.
        depth: the number of hidden layers, at least 1.
        outputs: the number of outputs; None gives one output without an axis of its own.
        activation: "relu", "erf", or a function that maps arrays entry by entry, such as `jnp.tanh`.
        W_std: σ_w, positive.
        b_std: σ_b, ≥ 0; without biases at 0.
        parameterization: "ntk" (Jacot et al. 2018, section 3) or "standard".

    Returns:
        A `Network`. In the NTK parameterisation its kernel is `mlp_kernel(depth, activation, W_std,
        b_std)`; in the standard one Θ grows with the width, and `kernel` is its leading term at this width
        (Sohl-Dickstein et al. 2020, section 2), computed by neural-tangents. It is None for an activation
        of your own.

    Raises:
        ValueError: an argument out of range; in `apply`: inputs of another size than `init` was given.

    >>> network = mlp(width=64, depth=2)
    >>> params = network.init(jax.random.key(0), (6, 6))
    >>> network.apply(params, jnp.ones((3, 6, 6))).shape
    (3,)
    """
    common = _common("mlp", outputs, activation, W_std, b_std, parameterization)
    width, depth = _checks.count("mlp", "width", width), _checks.count("mlp", "depth", depth)
    return _network(MLP(width, depth, *common))


def cnn(
    channels: Sequence[int],
    filter_sizes: int | Sequence[int] = 3,
    strides: int | Sequence[int] = 1,
    padding: str = "VALID",
    readout: str = "flatten",
    outputs: int | None = None,
    activation: Activation = "relu",
    W_std: float = 1.0,
    b_std: float = 0.0,
    parameterization: str = "ntk",
) -> Network:
    r"""A convolutional network on images (n, height, width, channels) with a linear readout.

    A network with stride s sees an image and its quarter turns alike only if its filters land on the same
    pixels: (height − filter size) divisible by s in every layer, without padding. The distribution of its
    parameters then has the symmetry that the theorem asks for.

    Args:
        channels: the channels of each convolution, at least one.
        filter_sizes: the side of the square filters, one for all layers or one for each.
        strides: likewise.
        padding: "VALID" (none), "SAME" (zeros) or "CIRCULAR" (periodic).
        readout: "flatten" gives each pixel and channel its own weight, "average" pools over the pixels
            first, which makes the network invariant under translations (with "CIRCULAR", stride 1).
        outputs: the number of outputs; None gives one output without an axis of its own.
        activation: "relu", "erf", or a function that maps arrays entry by entry, such as `jnp.tanh`.
        W_std: σ_w, positive.
        b_std: σ_b, ≥ 0; without biases at 0.
        parameterization: "ntk" or "standard".

    Returns:
        A `Network`. In the NTK parameterisation its kernel is `cnn_kernel` of the same arguments. In the
        standard one, and for circular strides that do not divide the pixels, neural-tangents computes it
        and must be installed when it is called. It is None for an activation of your own.

    Raises:
        ValueError: an argument out of range; in `init` and `apply`: inputs that are not images, or images
            too small for the filters.

    >>> network = cnn(channels=[16, 16], filter_sizes=[4, 3], strides=2, outputs=10)
    >>> params = network.init(jax.random.key(0), (28, 28, 1))
    >>> network.apply(params, jnp.ones((2, 28, 28, 1))).shape
    (2, 10)
    """
    filters, sizes, steps = _convolutions("cnn", channels, filter_sizes, strides, padding)
    _checks.choice("cnn", "readout", readout, ("flatten", "average"))
    common = _common("cnn", outputs, activation, W_std, b_std, parameterization)
    return _network(CNN(filters, sizes, steps, padding, readout, *common))


def gcnn(
    channels: Sequence[int],
    filter_sizes: int | Sequence[int] = 3,
    strides: int | Sequence[int] = 1,
    padding: str = "VALID",
    outputs: int | None = None,
    activation: Activation = "relu",
    W_std: float = 1.0,
    b_std: float = 0.0,
    parameterization: str = "ntk",
    group: str = "p4",
) -> Network:
    r"""A group convolutional network, built to be invariant under turns and mirrors (Cohen & Welling 2016).

    The symmetry is p4, quarter turns and translations, or p4m, mirrors too: $G_0 = C_4$ or $D_4$, of order 4
    or 8. The first layer lifts: each filter is applied in $|G_0|$ orientations g. The others convolve over
    the orientations too, and the readout averages over orientations and pixels, so that every single network
    is invariant under $G_0$, $f(\rho(g)x) = f(x)$ with `nteq.actions.on_images`:

    $$h_1(g) &= \phi\bigl(x * \rho(g)w_1\bigr), \\
    h_{l+1}(g) &= \phi\Bigl(\sum_{h \in G_0} h_l(h) * \rho(g)w_{l+1}(g^{-1}h)\Bigr), \\
    f &= v \cdot \operatorname{mean}_{g,\,\text{pixels}} h_L(g).$$

    Filters are moved as `on_images` moves an image of their size. Parameters of the first layer have the
    shape (1, size, size, channels of the image, channels), of the others ($|G_0|$, size, size, channels
    before, channels), with the orientations first, in the order of the group's elements.

    The filters must land on the same pixels of an image and of its turns. Without padding this asks, in
    every layer, that (pixels − filter size) is divisible by the stride. Padding must be the same on both
    sides: with stride 1 it is for odd filters, and for other strides it depends on the number of pixels.

    Args:
        channels: the channels of each layer and orientation, at least one.
        filter_sizes: the side of the square filters, one for all layers or one for each.
        strides: likewise.
        padding: "VALID" (none), "SAME" (zeros) or "CIRCULAR" (periodic).
        outputs: the number of outputs; None gives one output without an axis of its own.
        activation: "relu", "erf", or a function that maps arrays entry by entry, such as `jnp.tanh`.
        W_std: σ_w, positive.
        b_std: σ_b, ≥ 0; without biases at 0.
        parameterization: "ntk" or "standard".
        group: "p4", or "p4m" for mirrors too; its elements are numbered as those of `nteq.groups.cyclic(4)`
            and `dihedral(4)`.

    Returns:
        A `Network`. Its kernel is that of `cnn(..., readout="average")` averaged over the orbit under $G_0$
        (Misof et al. 2025): a network built symmetric and an augmented one have the same limit. The layers
        guarantee the invariance that the average asks for, so that it is not tested at a call.

    Raises:
        ValueError: as `cnn` does; another group; in `init` and `apply`: images that are not square, or of a
            size at which a layer breaks the symmetry. The message names the nearest sizes that keep it.

    >>> network = gcnn(channels=[8, 8], group="p4m")
    >>> params = network.init(jax.random.key(0), (7, 7, 1))
    >>> [W.shape for W, _ in params]
    [(1, 3, 3, 1, 8), (8, 3, 3, 8, 8), (8, 1)]
    >>> x = jax.random.normal(jax.random.key(1), (2, 7, 7, 1))
    >>> for same in (jnp.rot90(x, axes=(1, 2)), x[:, :, ::-1]):
    ...     bool(jnp.allclose(network.apply(params, x), network.apply(params, same), atol=1e-5))
    True
    True
    """
    filters, sizes, steps = _convolutions("gcnn", channels, filter_sizes, strides, padding)
    common = _common("gcnn", outputs, activation, W_std, b_std, parameterization)
    _checks.choice("gcnn", "group", group, tuple(POINT_GROUPS))
    architecture = GCNN(filters, sizes, steps, padding, *common, group)
    for number, layer in enumerate(architecture.layers, 1):
        if padding != "VALID" and layer.stride == 1 and layer.size % 2 == 0:
            raise ValueError(
                f"gcnn: layer {number} pads by {padding!r} with filters of size {layer.size}, one pixel more "
                f"on one side than on the other, which breaks the symmetry. Use filters of {layer.size - 1} "
                f"or {layer.size + 1}, or padding 'VALID'."
            )
    return _network(architecture)


def _network(architecture: Architecture) -> Network:
    made = Init(architecture), Apply(architecture)
    if callable(architecture.activation):
        return Network(*made)
    widths: dict[str, Any] = {}
    if architecture.parameterization == "ntk":  # where the limit does not depend on them
        if isinstance(architecture, MLP):
            widths = {"width": 1}
        else:
            widths = {"channels": (1,) * len(architecture.channels)}
    return Network(*made, Limit(replace(architecture, outputs=None, **widths)))


def _common(
    caller: str,
    outputs: int | None,
    activation: Activation,
    W_std: float,
    b_std: float,
    parameterization: str,
) -> tuple[int | None, Activation, float, float, str]:
    """The arguments that all three take, each in one form, so that equal networks compare equal."""
    if outputs is not None:
        outputs = _checks.count(caller, "outputs", outputs)
    if not isinstance(activation, str) and callable(activation):
        known = [name for name, function in ACTIVATIONS.items() if function is activation]
        batch = jax.ShapeDtypeStruct((2, 3), jnp.result_type(float))
        answer = jax.eval_shape(activation, batch)
        activation = known[0] if known else activation
        if getattr(answer, "shape", None) != batch.shape:
            raise ValueError(
                f"{caller}: activation must map arrays entry by entry, but of shape (2, 3) it makes {answer}."
            )
    else:
        advice = "Or give a function such as jnp.tanh; the network then has no kernel in closed form."
        _checks.choice(caller, "activation", activation, tuple(ACTIVATIONS), advice)
    for name, value in {"W_std": W_std, "b_std": b_std}.items():
        if not _checks.is_known(value):
            raise ValueError(
                f"{caller}: {name} must be known when the network is made, got {value!r}. To differentiate "
                "a kernel by it, use nteq.kernels.mlp_kernel or cnn_kernel."
            )
    W_std = _checks.number(caller, "W_std", W_std, exclusive=True)
    b_std = _checks.number(caller, "b_std", b_std)
    _checks.choice(caller, "parameterization", parameterization, ("ntk", "standard"))
    return outputs, activation, W_std, b_std, parameterization


def _convolutions(
    caller: str,
    channels: int | Sequence[int],
    filter_sizes: int | Sequence[int],
    strides: int | Sequence[int],
    padding: str,
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Channels, sizes and strides with one integer for each layer."""
    layers = 1 if np.ndim(channels) == 0 else np.size(channels)
    if not layers:
        raise ValueError(f"{caller}: channels must name at least one layer, such as [16, 32], got [].")
    _checks.choice(caller, "padding", padding, ("VALID", "SAME", "CIRCULAR"))
    return (
        _checks.per_layer(caller, "channels", channels, layers),
        _checks.per_layer(caller, "filter_sizes", filter_sizes, layers),
        _checks.per_layer(caller, "strides", strides, layers),
    )
