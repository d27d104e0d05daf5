r"""Finite networks together with the kernel they converge to.

A `Network` is three functions: `init(key, shape)` draws parameters for inputs of shape (n, *shape),
`apply(params, x)` evaluates, and `kernel(x1, x2)` is the infinite-width limit. Parameters are a list of
(W, b) for each layer, drawn from a standard normal distribution; `apply` scales them (NTK parameterisation):

$$h = \frac{\sigma_w}{\sqrt{\text{fan-in}}}\, W x + \sigma_b\, b, \qquad W, b \sim \mathcal{N}(0, 1).$$

With the standard parameterisation the scale is in the draw instead. The networks are the same at
initialisation, but gradient descent moves them differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nteq.actions import on_images
from nteq.averages import orbit_average
from nteq.compat import stax
from nteq.groups import cyclic
from nteq.kernels import Kernels, from_stax, mlp_kernel

__all__ = ["Network", "cnn", "gcnn", "mlp"]


@dataclass(frozen=True)
class Network:
    """A finite network and its limit.

    Args:
        name: the call that made it. Networks of the same name are equal, so that what was compiled for one
            serves the other.
        init: `init(key, shape, dtype=None)` -> params, for inputs of shape (n, *shape); by default of JAX's
            default precision.
        apply: `apply(params, x)` -> outputs of shape (n,), or (n, outputs).
        kernel: `kernel(x1, x2)` -> `nteq.kernels.Kernels`, the kernel of each output; different outputs
            are independent at infinite width.
    """

    name: str
    init: Callable[..., Any] = field(repr=False, compare=False)
    apply: Callable[[Any, Array], Array] = field(repr=False, compare=False)
    kernel: Callable[..., Kernels] = field(repr=False, compare=False)


def mlp(
    width: int,
    depth: int = 1,
    outputs: int | None = None,
    activation: str = "relu",
    W_std: float = 1.0,
    b_std: float = 0.0,
    parameterization: str = "ntk",
) -> Network:
    r"""A fully connected network with hidden layers of equal width.

    Args:
        width: units in each hidden layer, at least 1.
        depth: the number of hidden layers, at least 1.
        outputs: the number of outputs; None gives one output without an axis of its own.
        activation: "relu" or "erf".
        W_std: σ_w, positive.
        b_std: σ_b, ≥ 0; without biases at 0.
        parameterization: "ntk" (Jacot et al. 2018, section 3) or "standard".

    Returns:
        A `Network`. In the NTK parameterisation its kernel is `mlp_kernel(depth, activation, W_std,
        b_std)`; in the standard one Θ grows with the width, and `kernel` is its leading term at this width
        (Sohl-Dickstein et al. 2020, section 2).

    Raises:
        ValueError: an argument out of range; in `apply`: inputs of another size than `init` was given.

    >>> network = mlp(width=64, depth=2)
    >>> params = network.init(jax.random.key(0), (6, 6))
    >>> network.apply(params, jnp.ones((3, 6, 6))).shape
    (3,)
    """
    name = _name("mlp", locals())
    _check_counts("mlp", width=width, depth=depth)
    scales = _Scales("mlp", activation, W_std, b_std, parameterization)
    _check_outputs("mlp", outputs)

    def init(key, shape, dtype=None):
        fan_in = _features("mlp", shape, None)
        sizes = [math.prod(fan_in), *[width] * depth, outputs or 1]
        keys = jax.random.split(key, depth + 1)
        return [scales.draw(k, (a, b), a, dtype) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)]

    def apply(params, x):
        h = x.reshape(x.shape[0], -1)
        if h.shape[1] != params[0][0].shape[0]:
            raise ValueError(
                f"{name}: x must have {params[0][0].shape[0]} features, as given to init, got {h.shape[1]} "
                f"in shape {x.shape}."
            )
        for layer in params[:-1]:
            h = scales.activation(scales.dense(layer, h))
        return _readout(scales.dense(params[-1], h), outputs)

    if parameterization == "ntk":
        kernel = mlp_kernel(depth, activation, W_std, b_std)
    else:
        hidden = [layer for _ in range(depth) for layer in (scales.stax_dense(width), scales.stax_activation)]
        kernel = from_stax(stax.serial(stax.Flatten(), *hidden, scales.stax_dense(1))[2])
    return Network(name, init, apply, kernel)


def cnn(
    channels: Sequence[int],
    filter_sizes: int | Sequence[int] = 3,
    strides: int | Sequence[int] = 1,
    padding: str = "VALID",
    readout: str = "flatten",
    outputs: int | None = None,
    activation: str = "relu",
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
        activation: "relu" or "erf".
        W_std: σ_w, positive.
        b_std: σ_b, ≥ 0; without biases at 0.
        parameterization: "ntk" or "standard".

    Returns:
        A `Network`, whose kernel is computed by neural-tangents (Arora et al. 2019, section 4).

    Raises:
        ValueError: an argument out of range; in `init` and `apply`: inputs that are not images, or images
            too small for the filters.

    >>> network = cnn(channels=[16, 16], filter_sizes=[4, 3], strides=2, outputs=10)
    >>> params = network.init(jax.random.key(0), (28, 28, 1))
    >>> network.apply(params, jnp.ones((2, 28, 28, 1))).shape
    (2, 10)
    """
    name = _name("cnn", locals())
    layers = _convolutions("cnn", channels, filter_sizes, strides, padding)
    scales = _Scales("cnn", activation, W_std, b_std, parameterization)
    if readout not in ("flatten", "average"):
        raise ValueError(f"cnn: readout must be 'flatten' or 'average', got {readout!r}.")
    _check_outputs("cnn", outputs)

    def init(key, shape, dtype=None):
        shape = _features(name, shape, 3)
        keys = jax.random.split(key, len(layers) + 1)
        params = []
        for k, layer in zip(keys, layers, strict=False):
            fan_in = layer.size**2 * shape[2]
            params.append(scales.draw(k, (fan_in, layer.channels), fan_in, dtype))
            shape = (*layer.output(name, shape[:2]), layer.channels)
        fan_in = math.prod(shape) if readout == "flatten" else shape[2]
        return [*params, scales.draw(keys[-1], (fan_in, outputs or 1), fan_in, dtype)]

    def apply(params, x):
        h = _images(name, x)
        for layer, weights in zip(layers, params, strict=False):
            patches = layer.patches(name, h)
            h = scales.activation(scales.dense(weights, patches))
        h = h.reshape(h.shape[0], -1) if readout == "flatten" else h.mean((1, 2))
        return _readout(scales.dense(params[-1], h), outputs)

    pool = stax.Flatten() if readout == "flatten" else stax.GlobalAvgPool()
    kernel = from_stax(_stax_cnn(scales, layers, pool)[2])
    return Network(name, init, apply, kernel)


def gcnn(
    channels: Sequence[int],
    filter_sizes: int | Sequence[int] = 3,
    strides: int | Sequence[int] = 1,
    padding: str = "VALID",
    outputs: int | None = None,
    activation: str = "relu",
    W_std: float = 1.0,
    b_std: float = 0.0,
    parameterization: str = "ntk",
) -> Network:
    r"""A group convolutional network for p4, quarter turns and translations (Cohen & Welling 2016).

    The first layer lifts: each filter is applied in four orientations g. The others convolve over the
    orientations too, and the readout averages over orientations and pixels, so that every single network is
    invariant under quarter turns of its input:

    $$h_1(g) = \phi\bigl(x * (g\,w_1)\bigr), \qquad
    h_{l+1}(g) = \phi\Bigl(\sum_{r \in C_4} h_l(g r) * \bigl(g\,w_{l+1}(r)\bigr)\Bigr), \qquad
    f = v \cdot \operatorname{mean}_{g,\,\text{pixels}} h_L(g).$$

    Args:
        channels: the channels of each layer and orientation, at least one.
        filter_sizes: the side of the square filters, one for all layers or one for each.
        strides: likewise. A stride must keep the quarter turns: (height − filter size) divisible by it.
        padding: "VALID", or with stride 1 and odd filters also "SAME" or "CIRCULAR".
        outputs: the number of outputs; None gives one output without an axis of its own.
        activation: "relu" or "erf".
        W_std: σ_w, positive.
        b_std: σ_b, ≥ 0; without biases at 0.
        parameterization: "ntk" or "standard".

    Returns:
        A `Network`. Its kernel is that of `cnn(..., readout="average")` averaged over the orbit of quarter
        turns (Misof et al. 2025): a network built symmetric and an augmented one have the same limit.

    Raises:
        ValueError: as `cnn` does; images that are not square, or layers that break the quarter turns.

    >>> network = gcnn(channels=[8, 8])
    >>> params = network.init(jax.random.key(0), (7, 7, 1))
    >>> x = jax.random.normal(jax.random.key(1), (2, 7, 7, 1))
    >>> turned = jnp.rot90(x, axes=(1, 2))
    >>> bool(jnp.allclose(network.apply(params, x), network.apply(params, turned), atol=1e-5))
    True
    """
    name = _name("gcnn", locals())
    layers = _convolutions("gcnn", channels, filter_sizes, strides, padding)
    scales = _Scales("gcnn", activation, W_std, b_std, parameterization)
    _check_outputs("gcnn", outputs)
    for number, layer in enumerate(layers, 1):
        if layer.padding != "VALID" and (layer.stride > 1 or layer.size % 2 == 0):
            raise ValueError(
                f"gcnn: layer {number} pads by {layer.padding!r} with filter size {layer.size} and stride "
                f"{layer.stride}, which breaks the quarter turns. Use an odd size and stride 1, or 'VALID'."
            )

    def square(shape):
        """The image sizes before each layer, which must keep the quarter turns."""
        if shape[0] != shape[1]:
            raise ValueError(f"{name}: images must be square, got {shape[0]} × {shape[1]}. Crop or pad.")
        for number, layer in enumerate(layers, 1):
            if layer.padding == "VALID" and (shape[0] - layer.size) % layer.stride:
                raise ValueError(
                    f"{name}: layer {number} moves a filter of size {layer.size} in steps of {layer.stride} "
                    f"over {shape[0]} pixels and leaves some out, which breaks the quarter turns. Choose "
                    "size and stride so that (pixels − size) is divisible by the stride."
                )
            shape = layer.output(name, shape)

    def init(key, shape, dtype=None):
        shape = _features(name, shape, 3)
        square(shape[:2])
        keys = jax.random.split(key, len(layers) + 1)
        params, before = [], shape[2]
        for number, (k, layer) in enumerate(zip(keys, layers, strict=False)):
            orientations = 4 if number else 1
            fan_in = orientations * layer.size**2 * before
            shape_of_filters = (orientations, layer.size, layer.size, before, layer.channels)
            params.append(scales.draw(k, shape_of_filters, fan_in, dtype))
            before = layer.channels
        return [*params, scales.draw(keys[-1], (before, outputs or 1), before, dtype)]

    def apply(params, x):
        h = _images(name, x)
        square(h.shape[1:3])
        for number, (layer, (W, b)) in enumerate(zip(layers, params, strict=False)):
            # all orientations in one product: filters (size, size, g_in, in, g_out, out)
            turned = jnp.stack([jnp.rot90(W, g, axes=(1, 2)) for g in range(4)])
            if number:  # w(r) with r = g⁻¹ g_in stands at g_in
                turned = jnp.stack([jnp.roll(turned[g], g, axis=0) for g in range(4)])
            filters = jnp.einsum("grijab->ijragb", turned).reshape(-1, 4 * layer.channels)
            weights = (filters, None if b is None else jnp.tile(b, 4))
            h = scales.activation(scales.dense(weights, layer.patches(name, h)))
        h = h.mean((1, 2)).reshape(-1, 4, layers[-1].channels).mean(1)
        return _readout(scales.dense(params[-1], h), outputs)

    # In the standard parameterisation Θ counts the units that feed a layer: four orientations of each
    # channel, but the readout has one weight for the four.
    wide = [layer.wider(4) for layer in layers]
    average = orbit_average(from_stax(_stax_cnn(scales, wide, stax.GlobalAvgPool())[2]), on_images(cyclic(4)))
    if parameterization == "ntk":
        return Network(name, init, apply, average)

    def kernel(x1, x2):
        nngp, ntk = average(x1, x2)
        pooled = (nngp - b_std**2) / W_std**2
        return Kernels(nngp, ntk - 3 * layers[-1].channels * pooled)

    return Network(name, init, apply, kernel)


class _Scales:
    """Where σ_w/√fan-in and σ_b go: into the draw (standard) or into the evaluation (ntk)."""

    def __init__(self, caller, activation, W_std, b_std, parameterization):
        activations = {"relu": (jax.nn.relu, stax.Relu), "erf": (jax.scipy.special.erf, stax.Erf)}
        if activation not in activations:
            raise ValueError(f"{caller}: unknown activation {activation!r}; known are 'relu' and 'erf'.")
        if parameterization not in ("ntk", "standard"):
            raise ValueError(
                f"{caller}: parameterization must be 'ntk' or 'standard', got {parameterization!r}."
            )
        if not np.isfinite(W_std) or W_std <= 0:
            raise ValueError(f"{caller}: W_std must be positive and finite, got {W_std!r}.")
        if not np.isfinite(b_std) or b_std < 0:
            raise ValueError(f"{caller}: b_std must be finite and not negative, got {b_std!r}.")
        self.activation, stax_activation = activations[activation]
        self.stax_activation = stax_activation()
        self.W_std, self.b_std, self.standard = float(W_std), float(b_std), parameterization == "standard"
        self.stax_options = dict(W_std=W_std, b_std=b_std or None, parameterization=parameterization)

    def draw(self, key, shape, fan_in, dtype):
        """(W, b) with the fan-in in the first axes of W and the units in the last; b is None without σ_b."""
        weights, biases = jax.random.split(key)
        W = jax.random.normal(weights, shape, dtype)
        b = jax.random.normal(biases, shape[-1:], dtype) if self.b_std else None
        if self.standard:
            W, b = W * (self.W_std / math.sqrt(fan_in)), None if b is None else b * self.b_std
        return W, b

    def dense(self, layer, h):
        W, b = layer
        if self.standard:
            out = h @ W
            return out if b is None else out + b
        # the factor on the weights, of which there are fewer than activations
        out = h @ (W * (self.W_std / math.sqrt(W.shape[0])))
        return out if b is None else out + self.b_std * b

    def stax_dense(self, units):
        return stax.Dense(units, **self.stax_options)

    def stax_conv(self, layer):
        return stax.Conv(
            layer.channels, (layer.size,) * 2, (layer.stride,) * 2, layer.padding, **self.stax_options
        )


@dataclass(frozen=True)
class _Convolution:
    channels: int
    size: int
    stride: int
    padding: str

    def wider(self, factor):
        return _Convolution(self.channels * factor, self.size, self.stride, self.padding)

    def pads(self, length):
        """Pixels added before and after an axis of this length."""
        if self.padding == "VALID":
            return 0, 0
        total = max((-(-length // self.stride) - 1) * self.stride + self.size - length, 0)
        return total // 2, total - total // 2

    def output(self, name, shape):
        lengths = [sum(self.pads(n)) + n for n in shape]
        if min(lengths) < self.size or (
            self.padding == "CIRCULAR" and max(self.pads(min(shape))) > min(shape)
        ):
            raise ValueError(
                f"{name}: a layer with filters of {self.size} × {self.size} got {shape[0]} × {shape[1]} "
                "pixels, which is too small. Use larger images, smaller filters or strides, or fewer layers."
            )
        return tuple((n - self.size) // self.stride + 1 for n in lengths)

    def patches(self, name, h):
        """Shape (n, rows, columns, size² · channels): what each filter position sees.

        A convolution is then a matrix product, which stays fast when every member of an ensemble has its own
        filters (as a grouped convolution it does not on a CPU).
        """
        rows, columns = self.output(name, h.shape[1:3])
        mode = {"VALID": "constant", "SAME": "constant", "CIRCULAR": "wrap"}[self.padding]
        h = jnp.pad(h, ((0, 0), self.pads(h.shape[1]), self.pads(h.shape[2]), (0, 0)), mode=mode)
        s = self.stride
        views = [
            h[:, i : i + s * (rows - 1) + 1 : s, j : j + s * (columns - 1) + 1 : s]
            for i in range(self.size)
            for j in range(self.size)
        ]
        return jnp.concatenate(views, axis=-1)


def _stax_cnn(scales, layers, pool):
    hidden = [part for layer in layers for part in (scales.stax_conv(layer), scales.stax_activation)]
    return stax.serial(*hidden, pool, scales.stax_dense(1))


def _convolutions(caller, channels, filter_sizes, strides, padding):
    channels = list(channels) if isinstance(channels, Sequence | np.ndarray) else [channels]
    if not channels:
        raise ValueError(f"{caller}: channels must name at least one layer, such as [16, 32], got [].")
    if padding not in ("VALID", "SAME", "CIRCULAR"):
        raise ValueError(f"{caller}: padding must be 'VALID', 'SAME' or 'CIRCULAR', got {padding!r}.")
    for_layers = {"channels": channels}
    for name, value in {"filter_sizes": filter_sizes, "strides": strides}.items():
        values = list(value) if isinstance(value, Sequence | np.ndarray) else [value] * len(channels)
        if len(values) != len(channels):
            raise ValueError(
                f"{caller}: {name} must be one integer or one for each of the {len(channels)} layers, "
                f"got {value!r}."
            )
        for_layers[name] = values
    for name, values in for_layers.items():
        for value in values:
            _check_counts(caller, **{name: value})
    return [_Convolution(*map(int, sizes), padding) for sizes in zip(*for_layers.values(), strict=True)]


def _check_counts(caller, **counts):
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{caller}: {name} must be an integer of at least 1, got {value!r}.")


def _check_outputs(caller, outputs):
    if outputs is not None:
        _check_counts(caller, outputs=outputs)


def _features(name, shape, ndim):
    shape = tuple(shape)
    if not shape or min(shape) < 1 or (ndim is not None and len(shape) != ndim):
        wanted = "the features of one input" if ndim is None else "(height, width, channels) of one image"
        raise ValueError(f"{name}: shape must be {wanted}, without the number of inputs, got {shape}.")
    return shape


def _images(name, x):
    if x.ndim != 4:
        raise ValueError(
            f"{name}: x must be images of shape (n, height, width, channels), got shape {x.shape}. "
            "Add an axis for a single channel: x[..., None]."
        )
    return x


def _readout(h, outputs):
    return h[:, 0] if outputs is None else h


def _name(function, arguments):
    """The call, arguments in order: `mlp(width=64, depth=2, ...)`."""
    return f"{function}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
