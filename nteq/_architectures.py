"""What `mlp`, `cnn` and `gcnn` are made of: architectures as values, and their three functions.

Each is a frozen dataclass of checked arguments in one form, so that equality, hash and pickle come for free;
Python would compare closures, and methods too, by identity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nteq import _checks, _convolutions
from nteq.actions import Action, on_images
from nteq.averages import invariant_average
from nteq.groups import cyclic, dihedral
from nteq.kernels import Kernels, cnn_kernel, from_stax, mlp_kernel

Activation = str | Callable[[Array], Array]
Layer = tuple[Array, Array | None]
Kernel = Callable[[ArrayLike, ArrayLike], Kernels]

# the point groups of p4 and p4m: what each layer's filters are turned and mirrored by
POINT_GROUPS = {"p4": on_images(cyclic(4)), "p4m": on_images(dihedral(4))}

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "erf": jax.scipy.special.erf}


@dataclass(frozen=True)
class Init:
    """The `init` of an architecture."""

    architecture: Architecture

    def __call__(self, key: Array, shape: Sequence[int], dtype: DTypeLike | None = None) -> list[Layer]:
        return self.architecture.init(key, shape, dtype)


@dataclass(frozen=True)
class Apply:
    """The `apply` of an architecture."""

    architecture: Architecture

    def __call__(self, params: list[Layer], x: ArrayLike) -> Array:
        x = x if isinstance(x, Array) else np.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            x = jnp.asarray(x, params[0][0].dtype)
        return self.architecture.apply(params, jnp.asarray(x))


@jax.tree_util.register_static
@dataclass(frozen=True)
class Limit:
    """The kernel of an architecture, made at its first call: what needs neural-tangents imports it then."""

    architecture: Architecture

    def __call__(self, x1: ArrayLike, x2: ArrayLike) -> Kernels:
        return _limit(self.architecture)(x1, x2)

    def __getattr__(self, name: str) -> Any:
        """The ways of the kernel that has some, to sum over a group and to compute half of a matrix."""
        if name not in ("orbit_sums", "symmetric_matrix"):
            raise AttributeError(f"a limit has no attribute {name!r}")
        return getattr(_limit(self.architecture), name)


@functools.cache
def _limit(architecture: Architecture) -> Kernel:
    with jax.ensure_compile_time_eval():  # the first call may be inside of a trace
        return architecture.limit()


class _Scaled:
    """Where σ_w/√fan-in and σ_b go: into the draw (standard) or into the evaluation (ntk)."""

    outputs: int | None
    activation: Activation
    W_std: float
    b_std: float
    parameterization: str

    def __repr__(self) -> str:
        """The call, arguments in order: `mlp(width=64, depth=2, ...)`."""
        arguments = (f"{field.name}={getattr(self, field.name)!r}" for field in fields(self))  # type: ignore
        return f"{type(self).__name__.lower()}({', '.join(arguments)})"

    def act(self, h: Array) -> Array:
        return (ACTIVATIONS[self.activation] if isinstance(self.activation, str) else self.activation)(h)

    def draw(self, key: Array, shape: tuple[int, ...], fan_in: int, dtype: DTypeLike | None) -> Layer:
        """(W, b) with the fan-in in the first axes of W and the units in the last; b is None without σ_b."""
        weights, biases = jax.random.split(key)
        W = jax.random.normal(weights, shape, dtype)
        b = jax.random.normal(biases, shape[-1:], dtype) if self.b_std else None
        if self.parameterization == "standard":
            W, b = W * (self.W_std / math.sqrt(fan_in)), None if b is None else b * self.b_std
        return W, b

    def dense(self, layer: Layer, h: Array) -> Array:
        W, b = layer
        if self.parameterization == "ntk":
            # the factor on the weights, of which there are fewer than activations
            W, b = W * (self.W_std / math.sqrt(W.shape[0])), None if b is None else self.b_std * b
        out = h @ W
        return out if b is None else out + jnp.expand_dims(b, range(out.ndim - 1))

    def answer(self, layer: Layer, h: Array) -> Array:
        out = self.dense(layer, h)
        return out[:, 0] if self.outputs is None else out

    def stax(self) -> tuple[ModuleType, dict[str, Any], Any]:
        """neural-tangents' layers, the options that they take, and the activation's layer."""
        from nteq.compat import stax

        options = dict(W_std=self.W_std, b_std=self.b_std or None, parameterization=self.parameterization)
        return stax, options, stax.Relu() if self.activation == "relu" else stax.Erf()


@dataclass(frozen=True, repr=False)
class MLP(_Scaled):
    width: int
    depth: int
    outputs: int | None
    activation: Activation
    W_std: float
    b_std: float
    parameterization: str

    def init(self, key: Array, shape: Sequence[int], dtype: DTypeLike | None) -> list[Layer]:
        features = math.prod(_features(self, shape, None))
        sizes = [features, *[self.width] * self.depth, self.outputs or 1]
        keys = jax.random.split(key, self.depth + 1)
        return [self.draw(k, (a, b), a, dtype) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)]

    def apply(self, params: list[Layer], x: Array) -> Array:
        h, features = x.reshape(x.shape[0], -1), params[0][0].shape[0]
        if h.shape[1] != features:
            raise ValueError(
                f"{self}: x must have {features} features, as given to init, got {h.shape[1]} in shape "
                f"{x.shape}."
            )
        for layer in params[:-1]:
            h = self.act(self.dense(layer, h))
        return self.answer(params[-1], h)

    def limit(self) -> Kernel:
        if self.parameterization == "ntk":
            return mlp_kernel(self.depth, str(self.activation), self.W_std, self.b_std)
        stax, options, activation = self.stax()
        hidden = [
            layer for _ in range(self.depth) for layer in (stax.Dense(self.width, **options), activation)
        ]
        return from_stax(stax.serial(stax.Flatten(), *hidden, stax.Dense(1, **options))[2])


class _Convolutional(_Scaled):
    """Layers of filters."""

    channels: tuple[int, ...]
    filter_sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str

    @property
    def layers(self) -> list[_Convolution]:
        layers = zip(self.channels, self.filter_sizes, self.strides, strict=True)
        return [_Convolution(*layer, self.padding) for layer in layers]

    def images(self, x: Array) -> Array:
        if x.ndim != 4:
            raise ValueError(
                f"{self}: x must be images of shape (n, height, width, channels), got shape {x.shape}. "
                "Add an axis for a single channel: x[..., None]."
            )
        return x

    def ntk_kernel(self, readout: str) -> Kernel:
        return cnn_kernel(
            self.filter_sizes,
            self.strides,
            self.padding,
            readout,
            str(self.activation),
            self.W_std,
            self.b_std,
        )

    def stax_kernel(self, widths: Sequence[int], pool: str) -> Kernel:
        stax, options, activation = self.stax()
        hidden = []
        for width, layer in zip(widths, self.layers, strict=True):
            size, stride = (layer.size,) * 2, (layer.stride,) * 2
            hidden += [stax.Conv(width, size, stride, self.padding, **options), activation]
        return from_stax(stax.serial(*hidden, getattr(stax, pool)(), stax.Dense(1, **options))[2])


@dataclass(frozen=True, repr=False)
class CNN(_Convolutional):
    channels: tuple[int, ...]
    filter_sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    readout: str
    outputs: int | None
    activation: Activation
    W_std: float
    b_std: float
    parameterization: str

    def init(self, key: Array, shape: Sequence[int], dtype: DTypeLike | None) -> list[Layer]:
        shape = _features(self, shape, 3)
        keys = jax.random.split(key, len(self.layers) + 1)
        params = []
        for k, layer in zip(keys, self.layers, strict=False):
            fan_in = layer.size**2 * shape[2]
            params.append(self.draw(k, (fan_in, layer.channels), fan_in, dtype))
            shape = (*layer.output(self, shape[:2]), layer.channels)
        fan_in = math.prod(shape) if self.readout == "flatten" else shape[2]
        return [*params, self.draw(keys[-1], (fan_in, self.outputs or 1), fan_in, dtype)]

    def apply(self, params: list[Layer], x: Array) -> Array:
        h = self.images(x)
        for layer, weights in zip(self.layers, params, strict=False):
            h = self.act(self.dense(weights, layer.patches(self, h)))
        h = h.reshape(h.shape[0], -1) if self.readout == "flatten" else h.mean((1, 2))
        return self.answer(params[-1], h)

    def limit(self) -> Kernel:
        if self.parameterization == "ntk" and (self.padding != "CIRCULAR" or max(self.strides) == 1):
            return self.ntk_kernel(self.readout)
        theirs = self.stax_kernel(self.channels, "Flatten" if self.readout == "flatten" else "GlobalAvgPool")
        if self.parameterization == "standard":
            return theirs
        ours = self.ntk_kernel(self.readout)

        def kernel(x1: ArrayLike, x2: ArrayLike) -> Kernels:
            known = _convolutions.fits_circles(np.shape(x1)[1:3], self.strides)
            return (ours if known else theirs)(x1, x2)

        return kernel


@dataclass(frozen=True, repr=False)
class GCNN(_Convolutional):
    channels: tuple[int, ...]
    filter_sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    outputs: int | None
    activation: Activation
    W_std: float
    b_std: float
    parameterization: str
    group: str

    @property
    def action(self) -> Action:
        return POINT_GROUPS[self.group]

    @property
    def orientations(self) -> int:
        return self.action.group.order

    def check_square(self, shape: Sequence[int]) -> None:
        """The filters of each layer must land on the same pixels of an image and of a turned one."""
        if shape[0] != shape[1]:
            raise ValueError(f"{self}: images must be square, got {shape[0]} × {shape[1]}. Crop or pad.")
        pixels = shape[0]
        for number, layer in enumerate(self.layers):
            rows, _ = layer.output(self, (pixels, pixels))
            if not layer.is_centred(pixels):
                raise ValueError(
                    f"{self}: layer {number + 1} moves a filter of size {layer.size} in steps of "
                    f"{layer.stride} over {pixels} pixels, padding {self.padding!r}, and does not treat "
                    f"both ends alike, which breaks the symmetry. {self.advice(number, pixels, shape[0])}"
                )
            pixels = rows

    def advice(self, number: int, pixels: int, side: int) -> str:
        """The nearest sizes that keep the symmetry: of the images, or of the filters in one layer."""
        layers = self.layers

        def resized(size: int) -> list[_Convolution]:
            return [*layers[:number], replace(layers[number], size=size), *layers[number + 1 :]]

        sides = [n for n in range(1, side + math.prod(self.strides) + 1) if _keep_symmetry(layers, n)]
        sizes = [n for n in range(1, pixels + 1) if _keep_symmetry(resized(n), side)]
        words = [
            f"{what} of {' or '.join(map(str, _around(found, now)))} {unit}".rstrip()
            for what, found, now, unit in [
                ("images", sides, side, "pixels"),
                ("filters", sizes, layers[number].size, "in this layer"),
            ]
            if found
        ]
        return f"Use {', or '.join(words)}."

    def init(self, key: Array, shape: Sequence[int], dtype: DTypeLike | None) -> list[Layer]:
        shape = _features(self, shape, 3)
        self.check_square(shape[:2])
        keys = jax.random.split(key, len(self.layers) + 1)
        params, before = [], shape[2]
        for number, (k, layer) in enumerate(zip(keys, self.layers, strict=False)):
            orientations = self.orientations if number else 1
            fan_in = orientations * layer.size**2 * before
            shape_of_filters = (orientations, layer.size, layer.size, before, layer.channels)
            params.append(self.draw(k, shape_of_filters, fan_in, dtype))
            before = layer.channels
        return [*params, self.draw(keys[-1], (before, self.outputs or 1), before, dtype)]

    def moved(self, W: Array) -> Array:
        """Filters moved by all g, (g, h, size, size, in, out): at (g, h) stands w(g⁻¹h), turned by g."""
        group, flat = self.action.group, W.reshape(*W.shape[:3], -1)
        moved = jnp.stack([self.action.act(g, flat) for g in range(group.order)])
        if len(W) > 1:  # with one orientation it lifts
            moved = moved[np.arange(group.order)[:, None], group.table[group.inverses]]
        return moved.reshape(group.order, *W.shape)

    def apply(self, params: list[Layer], x: Array) -> Array:
        h = self.images(x)
        self.check_square(h.shape[1:3])
        for layer, (W, b) in zip(self.layers, params, strict=False):
            # all orientations in one product: filters (size, size, h, in, g, out)
            filters = jnp.einsum("ghijab->ijhagb", self.moved(W))
            filters = filters.reshape(-1, self.orientations * layer.channels)
            weights = (filters, None if b is None else jnp.tile(b, self.orientations))
            h = self.act(self.dense(weights, layer.patches(self, h)))
        h = h.mean((1, 2)).reshape(-1, self.orientations, self.channels[-1]).mean(1)
        return self.answer(params[-1], h)

    def limit(self) -> Kernel:
        # In the standard parameterisation Θ counts the units that feed a layer: all orientations of each
        # channel, but the readout has one weight for them together.
        order, standard = self.orientations, self.parameterization == "standard"
        widths = [order * channels for channels in self.channels]
        plain = self.stax_kernel(widths, "GlobalAvgPool") if standard else self.ntk_kernel("average")
        average = invariant_average(plain, self.action)

        def kernel(x1: ArrayLike, x2: ArrayLike) -> Kernels:
            if np.ndim(x1) == 4:
                self.check_square(np.shape(x1)[1:3])
            nngp, ntk = average(x1, x2)
            if standard:
                pooled = (nngp - self.b_std**2) / self.W_std**2
                ntk = ntk - (order - 1) * self.channels[-1] * pooled
            return Kernels(nngp, ntk)

        return kernel


Architecture = MLP | CNN | GCNN


@dataclass(frozen=True)
class _Convolution:
    channels: int
    size: int
    stride: int
    padding: str

    def pads(self, length: int) -> tuple[int, int]:
        """Pixels added before and after an axis of this length."""
        return _convolutions.pads(length, self.size, self.stride, self.padding)

    def fits(self, length: int) -> bool:
        """Whether the filter fits on an axis of this length, and the axis is as long as its padding."""
        return _convolutions.fits(length, self.size, self.stride, self.padding)

    def is_centred(self, length: int) -> bool:
        """Whether the filter's places on an axis of this length are the same, seen from its other end."""
        before, after = self.pads(length)
        return before == after and (before + length + after - self.size) % self.stride == 0

    def positions(self, length: int) -> int:
        return _convolutions.positions(length, self.size, self.stride, self.padding)

    def output(self, caller: object, shape: Sequence[int]) -> tuple[int, int]:
        rows, columns = _convolutions.output_shape(caller, shape, self.size, self.stride, self.padding)
        return rows, columns

    def patches(self, caller: object, h: Array) -> Array:
        """Shape (n, rows, columns, size² · channels): what each filter position sees.

        A convolution is then a matrix product, which stays fast when every member of an ensemble has its own
        filters (as a grouped convolution it does not on a CPU).
        """
        rows, columns = self.output(caller, h.shape[1:3])
        mode = {"VALID": "constant", "SAME": "constant", "CIRCULAR": "wrap"}[self.padding]
        h = jnp.pad(h, ((0, 0), self.pads(h.shape[1]), self.pads(h.shape[2]), (0, 0)), mode=mode)
        s = self.stride
        views = [
            h[:, i : i + s * (rows - 1) + 1 : s, j : j + s * (columns - 1) + 1 : s]
            for i in range(self.size)
            for j in range(self.size)
        ]
        return jnp.concatenate(views, axis=-1)


def _keep_symmetry(layers: Sequence[_Convolution], pixels: int) -> bool:
    """Whether every layer fits and is centred on images of so many pixels."""
    for layer in layers:
        if not (layer.fits(pixels) and layer.is_centred(pixels)):
            return False
        pixels = layer.positions(pixels)
    return True


def _around(numbers: Sequence[int], now: int) -> list[int]:
    """The nearest number below and the nearest above, where there are any."""
    return [n for n in numbers if n < now][-1:] + [n for n in numbers if n > now][:1]


def _features(caller: object, shape: Sequence[int], ndim: int | None) -> tuple[int, ...]:
    wanted = "the features of one input" if ndim is None else "(height, width, channels) of one image"
    if np.ndim(shape) != 1 or len(shape) != (ndim or len(shape)) or not len(shape) or min(shape) < 1:
        raise ValueError(f"{caller}: shape must be {wanted}, without the number of inputs, got {shape!r}.")
    return tuple(_checks.count(str(caller), "shape", length) for length in shape)
