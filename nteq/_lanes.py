"""Pairs of images in pieces of a fixed size, so that memory stays flat and one program serves any number.

Outside of a trace each core takes pieces of its own; inside, one program takes them one after the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nteq import _checks
from nteq._convolutions import Layers, block_values, bytes_of_a_lane, entries_of_a_lane, lane_values

_CACHE = 2**16  # bytes of the arrays that a step goes through, on a CPU
MEMORY = 2**28  # bytes of a piece


class Wanted(NamedTuple):
    """Which pairs of a batch of n1 and one of n2 images are asked for, as a value that can be hashed."""

    shape: tuple[int, int]
    entries: bytes

    @classmethod
    def of(cls, mask: np.ndarray) -> Wanted:
        return cls((mask.shape[0], mask.shape[1]), np.packbits(mask).tobytes())

    def mask(self) -> np.ndarray:
        count = self.shape[0] * self.shape[1]
        bits = np.unpackbits(np.frombuffer(self.entries, np.uint8), count=count)
        return bits.astype(bool).reshape(self.shape)


def upper(n: int) -> Wanted:
    """One of each two pairs (i, j) and (j, i)."""
    return Wanted.of(np.triu(np.ones((n, n), bool)))


def all_pairs(n1: int, n2: int) -> Wanted:
    """Of two batches."""
    return Wanted.of(np.ones((n1, n2), bool))


class _Pieces(NamedTuple):
    """Which images go into each piece, (pieces, images), and which of its values go where in the matrix."""

    rows: np.ndarray
    columns: np.ndarray
    kept: np.ndarray  # positions in the values of all pieces
    places: np.ndarray  # of these, in the matrix


def pair_values(layers: Layers, W_std: Any, b_std: Any, x1: Array, x2: Array, wanted: Wanted) -> Any:
    """NNGP and NTK of the wanted pairs, zeros elsewhere, shape (2, n1, n2); of NumPy where they are known."""
    known = _checks.is_known(x1, x2, W_std, b_std)
    W_std, b_std = ((np if known else jnp).asarray(value, x1.dtype) for value in (W_std, b_std))
    if not known:
        return _in_one_program(layers, W_std, b_std, x1, x2, wanted)
    device = next(iter(x1.devices()))
    images1, images2 = np.asarray(x1), np.asarray(x2)
    pieces = _pieces(layers, x1.shape[1:], x1.dtype, wanted, device.platform)

    def piece(which: int) -> np.ndarray:
        rows, columns = images1[pieces.rows[which]], images2[pieces.columns[which]]
        return np.asarray(_piece(layers, W_std, b_std, rows, columns))

    values = list(on_all_cores(piece, len(pieces.rows), device))
    matrix = np.zeros((2, wanted.shape[0] * wanted.shape[1]), x1.dtype)
    matrix[:, pieces.places] = np.stack(values, axis=1).reshape(2, -1)[:, pieces.kept]
    return matrix.reshape(2, *wanted.shape)


def on_all_cores(piece: Callable[[int], Any], count: int, device: jax.Device) -> Iterator[Any]:
    """piece(0) … piece(count − 1), each on a core of its own, or on another device one after the other."""
    wide = jnp.result_type(float) == np.float64

    def there(which: int) -> Any:
        # what is set for a thread is not for another
        with jax.enable_x64(wide), jax.default_device(device):
            return piece(which)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # another thread for a single piece, too: it is in no trace, and finds what another has compiled
    return _threads(os.getpid(), cores if device.platform == "cpu" else 1).map(there, range(count))


@cache
def _threads(process: int, count: int) -> ThreadPoolExecutor:
    """Threads that stay, since a new one has to get its memory anew; a forked process needs its own."""
    return ThreadPoolExecutor(count)


@partial(jax.jit, static_argnames="layers")
def _piece(layers: Layers, W_std: Array, b_std: Array, x1: Array, x2: Array) -> Array:
    values = lane_values if layers.pooled else block_values
    return jnp.stack(values(layers, x1, x2, W_std, b_std))


@partial(jax.jit, static_argnames=("layers", "wanted"))
def _in_one_program(
    layers: Layers, W_std: Array, b_std: Array, x1: Array, x2: Array, wanted: Wanted
) -> Array:
    pieces = _pieces(layers, x1.shape[1:], x1.dtype, wanted, jax.default_backend())

    @partial(jax.checkpoint, prevent_cse=False)
    def piece(indices: tuple[Array, Array]) -> Array:
        return _piece(layers, W_std, b_std, x1[indices[0]], x2[indices[1]])

    values = jax.lax.map(piece, (jnp.asarray(pieces.rows), jnp.asarray(pieces.columns)))
    flat = jnp.moveaxis(values, 1, 0).reshape(2, -1)[:, pieces.kept]
    matrix = jnp.zeros((2, wanted.shape[0] * wanted.shape[1]), x1.dtype).at[:, pieces.places].set(flat)
    return matrix.reshape(2, *wanted.shape)


def _pieces(layers: Layers, shape: Any, dtype: Any, wanted: Wanted, platform: str) -> _Pieces:
    mask = wanted.mask()
    bytes_of_lane = bytes_of_a_lane(layers, shape, dtype.itemsize)
    if layers.pooled:  # pair by pair: beside all pairs of pixels, what one image needs alone is little
        pairs = np.argwhere(mask).T
        size = 4 if pairs.shape[1] <= 4 else _lanes(layers, shape, dtype, platform)
        while size > 1 and size * bytes_of_lane > MEMORY:
            size //= 2
        filled = np.pad(pairs, ((0, 0), (0, -pairs.shape[1] % size)), mode="edge").reshape(2, -1, size)
        return _Pieces(filled[0], filled[1], np.arange(pairs.shape[1]), pairs[0] * mask.shape[1] + pairs[1])
    # all pairs of some and some images, which share what is done for one; of few, a few pieces for the cores
    sides = (16, 32) if min(mask.shape) >= 32 else (8, 8)
    while max(sides) > 1 and sum(sides) * bytes_of_lane > MEMORY:
        sides = (-(-sides[0] // 2), -(-sides[1] // 2))
    starts = [range(0, n, side) for n, side in zip(mask.shape, sides, strict=True)]
    corners = [(i, j) for i in starts[0] for j in starts[1] if mask[i : i + sides[0], j : j + sides[1]].any()]
    rows, columns = (i[:, None] + np.arange(n) for i, n in zip(np.array(corners).T, sides, strict=True))
    inside = (rows < mask.shape[0])[:, :, None] & (columns < mask.shape[1])[:, None, :]
    rows, columns = (np.minimum(a, n - 1) for a, n in zip((rows, columns), mask.shape, strict=True))
    places = rows[:, :, None] * mask.shape[1] + columns[:, None, :]
    kept = np.flatnonzero(inside & mask.reshape(-1)[places])
    return _Pieces(rows, columns, kept, places.reshape(-1)[kept])


def _lanes(layers: Layers, shape: Any, dtype: Any, platform: str) -> int:
    """How many pairs go together: a power of two, whose arrays stay in the cache."""
    room = (_CACHE if platform == "cpu" else MEMORY) // (entries_of_a_lane(layers, shape) * dtype.itemsize)
    least = 128 // dtype.itemsize  # two vectors
    return min(max(least, _power_of_two(room)), 4096 if platform != "cpu" else 64)


def _power_of_two(n: int) -> int:
    """The largest one up to n, or 1."""
    return 1 << max(n, 1).bit_length() - 1
