"""The recursion behind `cnn_kernel`, as functions on arrays: images go through the layers in pairs.

A pair of pixels (p, q) only meets pairs of the same offset q − p: a convolution adds up K[p + d, q + d], and
the nonlinearity acts on each entry. So every offset is a recursion of its own, on arrays of the size of one
image, and nothing of the size (pixels)² is ever stored. The sums over a filter are products with small
matrices of zeros and ones, one for each axis; in the last axis stand some pairs of images, the lanes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nteq._closed_forms import _exponent, _power
from nteq._nonlinearities import NONLINEARITIES, level, rounding
from nteq._products import matmul

_VECTOR = 16  # lanes that a processor's loops need at least to be fast
_CHANNELS = 4  # of the images that are multiplied in one go
_LARGEST = 2**31  # bytes of a single pair, above which it is refused


@dataclass(frozen=True)
class Layers:
    """What decides the program: all but the deviations and the images."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    pooled: bool  # the readout is a mean over pixels; otherwise each has a weight of its own
    activation: str


def pads(length: int, size: int, stride: int, padding: str) -> tuple[int, int]:
    """Pixels added before and after an axis of this length."""
    if padding == "VALID":
        return 0, 0
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def fits(length: int, size: int, stride: int, padding: str) -> bool:
    """Whether the filter fits on an axis of this length, and the axis is as long as its padding."""
    added = pads(length, size, stride, padding)
    return sum(added) + length >= size and (padding != "CIRCULAR" or max(added) <= length)


def positions(length: int, size: int, stride: int, padding: str) -> int:
    """Pixels of an axis after a layer."""
    return (sum(pads(length, size, stride, padding)) + length - size) // stride + 1


def output_shape(
    caller: object, shape: Sequence[int], size: int, stride: int, padding: str
) -> tuple[int, int]:
    """Rows and columns after a layer."""
    if not all(fits(n, size, stride, padding) for n in shape):
        raise ValueError(
            f"{caller}: a layer with filters of {size} × {size} got {shape[0]} × {shape[1]} pixels, which is "
            "too small. Use larger images, smaller filters or strides, or fewer layers."
        )
    rows, columns = (positions(n, size, stride, padding) for n in shape)
    return rows, columns


def require_room(layers: Layers, shape: Sequence[int], itemsize: int) -> None:
    """Raises if images of this shape are too small for the filters, or too large for the memory."""
    now: Sequence[int] = shape[:2]
    for size, stride in zip(layers.sizes, layers.strides, strict=True):
        now = output_shape("cnn_kernel", now, size, stride, layers.padding)
    if layers.padding == "CIRCULAR" and not fits_circles(shape[:2], layers.strides):
        raise ValueError(
            f"cnn_kernel: on a circle the product of the strides, {math.prod(layers.strides)}, must divide "
            f"the pixels, got {shape[0]} × {shape[1]}: otherwise the steps do not close, and pixels are not "
            "alike. Crop the images, or use from_stax."
        )
    needed = bytes_of_a_lane(layers, shape, itemsize)
    if needed > _LARGEST:
        raise ValueError(
            f"cnn_kernel: one pair of images of {shape[0]} × {shape[1]} × {shape[2]} takes about "
            f"{needed / 2**30:.0f} GiB, more than the {_LARGEST / 2**30:.0f} GiB that are allowed. Scale the "
            "images down, or crop them."
        )


class _Sum(NamedTuple):
    """Who is added to whom along one axis in one layer, matrices of shape (after, before)."""

    first: np.ndarray
    second: np.ndarray  # behind the seam


class _Axis(NamedTuple):
    """One axis of the images, at each level: before the first layer, between two, and after the last.

    With M pixels at the end, the offsets δ and δ − M share an array: j runs over the pairs q = p + Sδ, S the
    stride from there to the end, and behind the seam over q = p + S(δ − M). Without padding each part is
    longer by the halo h that the filters to come need, so p = j before the seam and j − h behind it; q is
    (j + Sδ) modulo the period SM + h.
    """

    offsets: int
    lengths: list[int]
    steps: list[int]  # S
    halos: list[int]  # h
    periods: list[int]
    widths: list[int]  # of the arrays of pairs
    lows: list[int]
    layers: Layers

    def seam(self, level: int, offset: Any) -> Any:
        return self.steps[level] * (self.lengths[-1] - offset) + self.halos[level]

    def sums(self, layer: int) -> _Sum:
        """The matrices of a layer, as if the parts before and behind the seam were all there is."""
        size, stride, low = self.layers.sizes[layer], self.layers.strides[layer], self.lows[layer]
        matrices = np.zeros((2, self.widths[layer + 1], self.widths[layer]), np.int8)
        for matrix, jump in zip(matrices, (0, 1), strict=True):
            before, after = (jump * self.halos[level] for level in (layer, layer + 1))
            rows = np.arange(after, self.widths[layer + 1])
            for tap in range(size):
                pixels = stride * (rows - after) + tap - low
                if self.layers.padding == "CIRCULAR":
                    pixels %= self.lengths[layer]
                there = (pixels >= 0) & (pixels < self.lengths[layer])
                there &= pixels + before < self.widths[layer]
                np.add.at(matrix, (rows[there], pixels[there] + before), 1)
        return _Sum(*matrices)

    def matrix(self, layer: int, offset: Any, dtype: Any) -> Array:
        """Of the pairs before a layer, those that are added for each pair after it."""
        first, second = (jnp.asarray(part.astype(dtype)) for part in self.sums(layer))
        if self.layers.padding == "CIRCULAR":
            return first
        inside = self.lengths[layer] - self.steps[layer] * offset
        column, row = (jnp.arange(n) for n in (self.widths[layer], self.widths[layer + 1]))
        before = column < jnp.minimum(self.seam(layer, offset), inside)
        first = jnp.where(before[None], first, 0)
        if self.offsets == 1:
            return first
        behind = column >= self.seam(layer, offset)
        ahead = row < self.seam(layer + 1, offset)
        return jnp.where(ahead[:, None], first, jnp.where(behind[None], second, 0))


@functools.lru_cache(maxsize=64)
def _axis(length: int, layers: Layers) -> _Axis:
    sizes, strides, padding = layers.sizes, layers.strides, layers.padding
    lengths, lows = [length], []
    for size, stride in zip(sizes, strides, strict=True):
        lows.append(pads(lengths[-1], size, stride, padding)[0])
        lengths.append(positions(lengths[-1], size, stride, padding))
    steps, halos = [1], [0]
    for size, stride in zip(sizes[::-1], strides[::-1], strict=True):
        halos.insert(0, max(0, stride * halos[0] + size - stride) if padding == "VALID" else 0)
        steps.insert(0, stride * steps[0])
    periods = [step * lengths[-1] + halo for step, halo in zip(steps, halos, strict=True)]
    offsets = lengths[-1] if layers.pooled else 1
    widths = [n + halo * (offsets > 1) for n, halo in zip(periods, halos, strict=True)]
    return _Axis(offsets, lengths, steps, halos, periods, widths, lows, layers)


def fits_circles(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether every layer of a circular network gets a number of pixels that its stride divides."""
    return all(length % math.prod(strides) == 0 for length in shape)


def bytes_of_a_lane(layers: Layers, shape: Sequence[int], itemsize: int) -> int:
    """About what the arrays of one pair of images take."""
    y, x = (_axis(n, layers) for n in shape[:2])
    of_images = [a * b for a, b in zip(y.periods, x.periods, strict=True)]
    of_pairs = [a * b for a, b in zip(y.widths, x.widths, strict=True)]
    kept = 10 if layers.activation == "relu" else 20  # of a level: two or four arrays, the second doubled
    matrices = sum(a * b for axis in (y, x) for a, b in zip(axis.widths[1:], axis.widths[:-1], strict=True))
    pixels = 6 * shape[2] * of_images[0]
    return itemsize * (pixels + kept * sum(of_images[1:]) + 6 * max(of_pairs) + 3 * matrices)


def entries_of_a_lane(layers: Layers, shape: Sequence[int]) -> int:
    """The largest array of one pair of images, in numbers."""
    y, x = (_axis(n, layers) for n in shape[:2])
    return 2 * max(a * b for a, b in zip(y.widths[1:], x.widths[1:], strict=True))


def lane_values(layers: Layers, x1: Array, x2: Array, W_std: Array, b_std: Array) -> tuple[Array, Array]:
    """NNGP and NTK of pairs of images, x1 and x2 of shape (lanes, height, width, channels)."""
    axes = _axis(x1.shape[1], layers), _axis(x1.shape[2], layers)
    side1, side2 = (_side(layers, axes, images, W_std, b_std) for images in (x1, x2))
    return _readout(axes, side1, side2, _pooled_total(layers, axes, side1, side2, W_std), W_std)


def block_values(layers: Layers, x1: Array, x2: Array, W_std: Array, b_std: Array) -> tuple[Array, Array]:
    """NNGP and NTK, flattened, of all images of x1 with all of x2, (n1, n2).

    A step takes one image of x1, or some where x2 alone would not fill the vectors of a processor.
    """
    n1, n2 = len(x1), len(x2)
    axes = _axis(x1.shape[1], layers), _axis(x1.shape[2], layers)
    side1, side2 = (_side(layers, axes, images, W_std, b_std) for images in (x1, x2))
    some = math.gcd(n1, max(1, _VECTOR // n2))
    side2 = jax.tree.map(lambda a: jnp.concatenate([a] * some, axis=-1), side2)
    first = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(*a.shape[:-1], -1, some), -2, 0), side1)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def step(which: Array) -> tuple[Array, Array]:
        spread = lambda a: a[which] if some == 1 else jnp.repeat(a[which], n2, axis=-1)
        one = _stored(which, lambda: jax.tree.map(spread, first))
        return _readout(axes, one, side2, _flattened_total(layers, axes, one, side2, W_std), W_std)

    nngp, ntk = jax.lax.map(step, jnp.arange(n1 // some))
    return nngp.reshape(n1, n2), ntk.reshape(n1, n2)


def _readout(
    axes: tuple[_Axis, _Axis], side1: _Side, side2: _Side, total: Array, W_std: Array
) -> tuple[Array, Array]:
    """NNGP and NTK of the answer, of the sums over pairs of pixels."""
    places = math.prod(axis.lengths[-1] * axis.offsets for axis in axes)
    nngp, ntk = W_std**2 / places * total
    nngp = nngp + side1.bias * side2.bias
    return nngp * side1.scale * side2.scale, (nngp + ntk) * side1.scale * side2.scale


def _stored(index: Array, make: Callable[[], Any]) -> Any:
    """The same arrays, stored: XLA would cut and place them for each number of the nonlinearity anew.

    It stores what a branch returns. The other one is never taken, which it does not know.
    """
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(make))
    return jax.lax.cond(index >= 0, make, lambda: zeros)


class _Side(NamedTuple):
    """What has to be known of the images of one side, in units of their own.

    Levels are arrays of shape (rows, columns, lanes), or (columns, rows, lanes) after an odd number of
    layers.
    """

    pixels: Array  # (channels, rows, columns, lanes)
    levels: list[tuple[Array, ...]]
    bias: Array  # σ_b, (lanes)
    scale: Array  # the unit, (lanes)


def _side(layers: Layers, axes: tuple[_Axis, _Axis], images: Array, W_std: Array, b_std: Array) -> _Side:
    pixels = jnp.transpose(images, (3, 1, 2, 0))
    scale, bias = (jnp.full(images.shape[:1], value, images.dtype) for value in (1.0, b_std))
    if layers.activation == "relu":  # is homogeneous: in units in which no square over- or underflows
        info = jnp.finfo(images.dtype)
        largest = jnp.maximum(jnp.abs(pixels).max((0, 1, 2)), jnp.abs(bias))
        exponent = jnp.clip(_exponent(largest), info.minexp, info.maxexp - 2)
        scale, inverse = _power(exponent, images.dtype), _power(-exponent, images.dtype)
        pixels, bias = pixels * inverse[None, None, None], bias * inverse
    for axis, along in enumerate(axes, 1):
        pixels = _fit(pixels, axis, along.periods[0])
    square = (pixels**2).mean(0)
    levels: list[tuple[Array, ...]] = []
    for layer, size in enumerate(layers.sizes):
        factor = W_std**2 / size**2
        inside = []
        for along in axes if layer % 2 == 0 else axes[::-1]:
            rows, columns = (along.periods[level] for level in (layer + 1, layer))
            sums = along.sums(layer).first[:rows, :columns].astype(images.dtype)
            square = jnp.swapaxes(_apply(jnp.asarray(sums), square), 0, 1)
            inside.append(np.arange(rows) < along.lengths[layer + 1])
        square = jnp.swapaxes(square, 0, 1)
        known = np.multiply.outer(inside[1], inside[0]).reshape(square.shape[:2] + (1,) * bias.ndim)
        square = jnp.where(known, factor * square + bias[None, None] ** 2, 0)
        of, square = level(layers.activation, square)
        levels.append(of)
    return _Side(pixels, levels, bias, scale)


def _fit(a: Array, axis: int, length: int) -> Array:
    """Cut, or filled up with zeros, to this length."""
    a = jax.lax.slice_in_dim(a, 0, min(length, a.shape[axis]), axis=axis)
    return _pad(a, axis, 0, length - a.shape[axis])


def _pad(a: Array, axis: int, before: int, after: int) -> Array:
    return jnp.pad(a, [(before, after) if i == axis else (0, 0) for i in range(a.ndim)])


def _apply(matrix: Array, a: Array) -> Array:
    """A matrix on the first axis."""
    return matmul(matrix, a.reshape(a.shape[0], -1)).reshape(-1, *a.shape[1:])


def _layers(layers: Layers, one: _Side, two: _Side, sums: Sequence[tuple[Array, Array]]) -> Array:
    """The sums of both over all pairs of pixels after the last nonlinearity, (2, *lanes).

    `sums` are the matrices of the rows and columns of each layer, the factor on the first.
    """
    nonlinearity = NONLINEARITIES[layers.activation]
    bias = (one.bias * two.bias)[None, None]
    channels, dtype = one.pixels.shape[0], one.pixels.dtype
    state = _products(one.pixels, two.pixels) / channels
    lanes = state.shape[2:]
    for layer, size in enumerate(layers.sizes):
        # the axis that comes first changes from layer to layer: a product leaves it where it was
        for matrix in sums[layer] if layer % 2 == 0 else sums[layer][::-1]:
            state = jnp.swapaxes(_apply(matrix, state), 0, 1)
        state = jnp.swapaxes(state, 0, 1).reshape(*state.shape[1::-1], -1, *lanes)
        nngp = state[:, :, 0] + bias
        ntk = nngp if layer == 0 else state[:, :, 1] + nngp
        few = rounding(dtype, size, channels if layer == 0 else 1)
        # one array for both: XLA computes them in one go, and multiplies them in one go
        state = jnp.stack(nonlinearity(nngp, ntk, one.levels[layer], two.levels[layer], few), axis=2)
    state = state.reshape(state.shape[0] * state.shape[1], -1)
    return matmul(jnp.ones((1, state.shape[0]), dtype), state).reshape(2, *lanes)


def _flattened_total(
    layers: Layers, axes: tuple[_Axis, _Axis], side1: _Side, side2: _Side, W_std: Array
) -> Array:
    """The sums over all pairs of equal pixels."""
    dtype = side1.pixels.dtype
    sums = []
    for layer, size in enumerate(layers.sizes):
        rows, columns = (jnp.asarray(axis.sums(layer).first.astype(dtype)) for axis in axes)
        sums.append((W_std**2 / size**2 * rows, columns))
    return _layers(layers, side1, side2, sums)


def _pooled_total(
    layers: Layers, axes: tuple[_Axis, _Axis], side1: _Side, side2: _Side, W_std: Array
) -> Array:
    """The sums over all pairs of pixels."""
    y, x = axes
    dtype = side1.pixels.dtype

    def twice(a: Array, axis: int) -> Array:
        return jnp.concatenate([jnp.concatenate([a, a], axis)] * 2, axis + 1)

    doubled = side2._replace(
        pixels=twice(side2.pixels, 1), levels=[tuple(twice(a, 0) for a in level) for level in side2.levels]
    )

    def each(change: Callable[[Array, int, int], Array], side: _Side, which: int) -> _Side:
        """Changes the arrays along rows (0) or columns (1): change(array, level, axis)."""
        levels = [
            tuple(change(a, level, (which + level) % 2) for a in arrays)
            for level, arrays in enumerate(side.levels, 1)
        ]
        return side._replace(pixels=change(side.pixels, 0, which + 1), levels=levels)

    def spread(side: _Side, which: int, offset: Any) -> _Side:
        """Of the first side, the pixel p of each pair, along one axis."""
        along = axes[which]

        def one(a: Array, level: int, axis: int) -> Array:
            halo = along.halos[level]
            if halo == 0:
                return a
            index = jnp.arange(along.widths[level]).reshape([-1 if i == axis else 1 for i in range(a.ndim)])
            ahead = index < along.seam(level, offset)
            return jnp.where(ahead, _pad(a, axis, 0, halo), _pad(a, axis, halo, 0))

        return side if along.offsets == 1 else each(one, side, which)

    def window(side: _Side, which: int, offset: Any) -> _Side:
        """Of the second side, the pixel q of each pair, along one axis."""
        along = axes[which]

        def one(a: Array, level: int, axis: int) -> Array:
            return jax.lax.dynamic_slice_in_dim(a, along.steps[level] * offset, along.widths[level], axis)

        return each(one, side, which)

    def some_columns(total: Array, offset: Array, rows1: Any, rows2: Any, row_sums: Any) -> Array:
        def sides() -> tuple[_Side, _Side]:
            return spread(rows1, 1, offset), window(rows2, 1, offset)

        one, two = _stored(offset, sides) if max(x.halos) else sides()
        sums = [(rows, x.matrix(layer, offset, dtype)) for layer, rows in enumerate(row_sums)]
        return total + _layers(layers, one, two, sums)

    def some_rows(total: Array, offset: Array) -> tuple[Array, None]:
        rows1, rows2 = spread(side1, 0, offset), window(doubled, 0, offset)
        row_sums = [
            W_std**2 / size**2 * y.matrix(layer, offset, dtype) for layer, size in enumerate(layers.sizes)
        ]
        # backwards, a step is computed again: what a derivative keeps of all offsets would not fit
        step = jax.checkpoint(some_columns, prevent_cse=False)
        loop = lambda total, column: (step(total, column, rows1, rows2, row_sums), None)
        return jax.lax.scan(loop, total, jnp.arange(x.offsets))[0], None

    rows = jax.checkpoint(some_rows, prevent_cse=False)
    start = jnp.zeros((2, *side1.bias.shape), dtype)
    return jax.lax.scan(rows, start, jnp.arange(y.offsets))[0]


def _products(a: Array, b: Array) -> Array:
    """The sum over the first axis of a times b."""
    if a.shape[0] <= _CHANNELS:
        return sum((a[c] * b[c] for c in range(1, a.shape[0])), start=a[0] * b[0])
    groups = -(-a.shape[0] // _CHANNELS)
    a, b = (_fit(side, 0, groups * _CHANNELS).reshape(groups, _CHANNELS, *side.shape[1:]) for side in (a, b))
    start = jnp.zeros(jnp.broadcast_shapes(a.shape[2:], b.shape[2:]), a.dtype)
    return jax.lax.scan(lambda total, ab: (total + _products(*ab), None), start, (a, b))[0]
