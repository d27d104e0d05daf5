"""The recursions behind `mlp_kernel`, as functions on arrays: every digit, and a derivative everywhere.

Both activations are functions of the angle between two inputs, which is carried along as 1 − cos; an arccos
of it would lose half of the digits where inputs are nearly parallel, and its derivative all. Every row is
scaled by a power of two of its own, so that no square over- or underflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nteq._products import matmul

_ENTRIES = 2**17  # of a kernel that are computed in one go

# 1 − |cos| is held in units of 2⁻⁹⁶: of large inputs it would underflow in float32. In smaller units what
# goes backwards in a derivative, divided by them, would.
_UNIT = 2.0**48

_NEAR = 0.99  # the |cos| above which 1 − |cos| is not computed as this difference

_FEW = 2  # near pairs in a row: the point itself and a copy of it


class _Rows(NamedTuple):
    """Inputs with their bias, (x, σ_b √d/σ_w) = 2^exponent · h."""

    h: Array  # (n, d + 1)
    norm: Array  # |h|, (n,); 1 for zero inputs
    inverse: Array  # _UNIT/|h|, (n,)
    exponent: Array  # (n,)
    zero: Array  # whether h = 0, (n,)


def mlp_values(
    activation: str, depth: int, x1: Array, x2: Array, W_std: Array, b_std: Array
) -> tuple[Array, Array]:
    """NNGP and NTK of x1, shape (n1, d), and x2, shape (n2, d), each of shape (n1, n2)."""
    scale = W_std / math.sqrt(x1.shape[1])
    known: dict[str, tuple[Any, Any]] = {"relu": (_relu_side, _relu_pairs), "erf": (_erf_side, _erf_pairs)}
    side, pairs = known[activation]
    sides = (side(_rows(x, b_std / scale), depth, scale, W_std, b_std) for x in (x1, x2))
    return _by_rows(partial(pairs, depth, W_std, b_std), *sides)


def _rows(x: Array, bias: Array) -> _Rows:
    info = jnp.finfo(x.dtype)
    h = jnp.concatenate([x, jnp.full((x.shape[0], 1), bias, x.dtype)], axis=1)
    exponent = jnp.clip(_exponent(jnp.abs(h).max(axis=1)), info.minexp, info.maxexp - 2)
    h = h * _power(-exponent, x.dtype)[:, None]
    square = (h**2).sum(axis=1)
    zero = square == 0
    norm = jnp.sqrt(jnp.where(zero, 1, square))  # h/1 keeps the derivative of h at zero
    # the barrier keeps XLA from squaring 1/|h| before it multiplies by _UNIT
    inverse = jax.lax.optimization_barrier(_UNIT / norm)
    return _Rows(h, norm, inverse, exponent, zero)


def _exponent(size: Array) -> Array:
    return jnp.frexp(jax.lax.stop_gradient(size))[1]


def _power(exponent: Array, dtype: Any) -> Array:
    """2^exponent to the last bit, which neither exp2 nor ldexp promise."""
    info = jnp.finfo(dtype)
    bits = (exponent.astype(f"int{info.bits}") + (info.maxexp - 1)) << info.nmant
    return jax.lax.bitcast_convert_type(bits, dtype)


def _by_rows(pairs: Callable[[Any, Any], tuple[Array, Array]], side1: Any, side2: Any) -> Any:
    """The pairs of a few rows of side1 at a time: its temporaries stay small and in the cache."""
    n1, n2 = side1.rows.norm.size, side2.rows.norm.size
    step = min(n1, max(1, _ENTRIES // n2))
    if step == n1:
        return pairs(side1, side2)
    # backwards, a block is computed again: what a derivative keeps of all pairs would not fit
    block = jax.checkpoint(pairs, prevent_cse=False)

    def some_rows(i: Array, whole: tuple[Array, Array]) -> tuple[Array, ...]:
        # both slices move back at the end of the batch, so its last rows may be computed twice
        some = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, i * step, step), side1)
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(w, part, i * step, 0)
            for w, part in zip(whole, block(some, side2), strict=True)
        )

    return jax.lax.fori_loop(0, -(-n1 // step), some_rows, (jnp.zeros((n1, n2), side1.rows.h.dtype),) * 2)


def _products(rows1: _Rows, rows2: _Rows, factor1: Array, factor2: Array) -> Array:
    return matmul(rows1.h, rows2.h.T) * (factor1[:, None] * factor2[None])


def _each_pair(of1: Array, of2: Array, layer: Any) -> tuple[Array, Array]:
    """A column of the one and a row of the other, of what was stored for all layers, shape (n, layers)."""
    return tuple(
        jax.lax.dynamic_index_in_dim(of, layer, 1).reshape(shape)
        for of, shape in ((of1, (-1, 1)), (of2, (1, -1)))
    )


class _ReluSide(NamedTuple):
    """What the ReLU kernel has to know of one batch, of which it makes pairs."""

    rows: _Rows
    weight: Array  # shares of σ_w |h|/√2 and σ_b in the norm after each layer, (n, depth); a unit vector
    bias: Array
    norm: Array  # the last norm is m p² with a power of two p, so that no product of two overflows, (n,)
    slope: Array  # m, or 1 in its place of a zero input, (n,)
    root: Array  # p, (n,)


def _relu_side(rows: _Rows, depth: int, scale: Array, W_std: Array, b_std: Array) -> _ReluSide:
    info = jnp.finfo(rows.norm.dtype)
    bias = b_std * _power(-rows.exponent, info.dtype)  # in the units of the row

    def grow(a: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        """The norm √(σ_w² a²/2 + σ_b²) after a layer."""
        p = jnp.clip(a * (W_std / math.sqrt(2)), info.tiny, info.max / 4)
        largest = jax.lax.stop_gradient(jnp.maximum(p, bias))
        grown = largest * jnp.sqrt((p / largest) ** 2 + (bias / largest) ** 2)
        return grown, (p / grown, bias / grown)

    a, (weights, biases) = jax.lax.scan(grow, scale * rows.norm, length=depth)
    limit = info.maxexp // 2 - 1
    half = jnp.clip((rows.exponent + _exponent(a)) // 2, -limit, limit)
    slope = jnp.minimum(a * _power(rows.exponent - 2 * half, info.dtype), 2.0 ** (limit - 1))
    norm = jnp.where(rows.zero, 0, slope)
    return _ReluSide(rows, weights.T, biases.T, norm, slope, _power(half, info.dtype))


def _relu_pairs(
    depth: int, W_std: Array, b_std: Array, side1: _ReluSide, side2: _ReluSide
) -> tuple[Array, Array]:
    cosine = _products(side1.rows, side2.rows, 1 / side1.rows.norm, 1 / side2.rows.norm)

    # The state is Θ/(ab), with a and b the roots of the diagonal of K, and 1 − cos θ, cos θ = K/(ab).
    def layer(i: Any, ntk: Any, less: Any, more: Any) -> tuple[Array, Array]:
        defect, slope = _arc(less, more)
        (r, s), (c, d) = _each_pair(side1.weight, side2.weight, i), _each_pair(side1.bias, side2.bias, i)
        # 1 − (r s (1 − defect) + c d), of which nothing cancels, since (r, c) and (s, d) are unit vectors
        less = jnp.clip(r * s * defect + ((r - s) ** 2 + (c - d) ** 2) / 2, 0, 1)  # no cosine is negative now
        return 1 - less + r * s * slope * ntk, less

    def layers(gap: Array) -> tuple[Array, Array]:
        near, far = gap / _UNIT**2, 2 - gap / _UNIT**2
        state = layer(0, cosine, jnp.where(cosine >= 0, near, far), jnp.where(cosine >= 0, far, near))
        if depth > 1:  # a loop without iterations would still copy its state
            state = jax.lax.fori_loop(1, depth, lambda i, now: layer(i, now[0], now[1], 2 - now[1]), state)
        norms, slopes, roots = (
            one[:, None] * two[None]
            for one, two in ((getattr(side, name) for side in (side1, side2)) for name in side1._fields[-3:])
        )
        ntk, less = state
        return tuple(_times(values, norms, slopes) * roots * roots for values in (1 - less, ntk))

    return _with_gaps(cosine, side1.rows, side2.rows, _gap_of_directions, layers)


@jax.custom_jvp
def _arc(less: Array, more: Array) -> tuple[Array, Array]:
    """1 − κ₁(θ) and 2 κ₀(θ) = 1 − θ/π of less = 1 − cos θ and more = 1 + cos θ (Cho & Saul 2009)."""
    # Below the floor rounding decides. Without it, second derivatives would be NaN where a derivative of this
    # is taken past the rule below: scan forgets it for what it keeps to go backwards.
    floor = (jnp.finfo(less.dtype).eps / 16) ** 2
    # atan2 of the roots costs a quarter more
    tangent = jnp.sqrt(jnp.maximum(less, floor) / jnp.maximum(more, floor))
    angle, sine = 2 * jnp.arctan(tangent), tangent * more
    # κ₁ = (sin θ + (π − θ) cos θ)/π, arranged so that nothing cancels near θ = 0
    return less - (sine - angle * (1 - less)) / jnp.pi, 1 - angle / jnp.pi


@_arc.defjvp
def _arc_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> Any:
    less, more = primals
    defect, slope = _arc(less, more)
    # dθ = d(1 − cos θ)/sin θ. At θ = 0 and π the angle has a cone's tip: its symmetric derivative is zero.
    square = less * more
    apart = square > (8 * jnp.finfo(square.dtype).eps) ** 2
    turned = jnp.where(apart, tangents[0] / jnp.sqrt(jnp.where(apart, square, 1)), 0)
    return (defect, slope), (slope * tangents[0], -turned / jnp.pi)


@jax.custom_jvp
def _times(value: Array, norms: Array, slope: Array) -> Array:
    """Value times norms, a product ab, of which slope has 1 in place of the norm of a zero input.

    A zero input has no direction and was given one at right angles to all others. With it, the derivative
    at zero is the mean over opposite sides.
    """
    return value * norms


@_times.defjvp
def _times_jvp(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> Any:
    value, _, slope = primals
    return _times(*primals), tangents[0] * slope + value * tangents[1]


class _ErfSide(NamedTuple):
    """What the erf kernel has to know of one batch, of which it makes pairs.

    With a = K(x, x) of a layer, (ρ, δ) = (√(2a), 1)/√(1 + 2a) is a unit vector.
    """

    rows: _Rows
    factor: Array  # ρ/|h|, (n,)
    rho: Array  # (n,)
    delta: Array  # in units of 1/_UNIT, (n,)
    deltas: Array  # after each layer but the last, (n, depth - 1)
    angles: Array  # arccos ρ² before each layer but the last, (n, depth - 1)


def _erf_side(rows: _Rows, depth: int, scale: Array, W_std: Array, b_std: Array) -> _ErfSide:
    info = jnp.finfo(rows.norm.dtype)
    size = math.sqrt(2) * scale * rows.norm * _power(rows.exponent, info.dtype)
    size = jnp.where(rows.zero, 0, jnp.minimum(size, info.max / 4))
    largest = jax.lax.stop_gradient(jnp.maximum(size, 1))
    root = jnp.sqrt((size / largest) ** 2 + (1 / largest) ** 2)
    rho, delta = size / largest / root, 1 / largest / root

    def grow(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        square, delta = state
        a = W_std**2 * 2 / jnp.pi * jnp.arctan(square / (delta * jnp.sqrt(1 + square))) + b_std**2
        after = 2 * a / (1 + 2 * a), 1 / jnp.sqrt(1 + 2 * a)
        return after, (after[1], 2 * jnp.arctan(delta / jnp.sqrt(1 + square)))

    _, (deltas, angles) = jax.lax.scan(grow, (rho**2, delta), length=depth - 1)
    factor = jnp.where(rows.zero, math.sqrt(2) * scale, rho / rows.norm)
    # the barrier keeps XLA from squaring δ before it multiplies by _UNIT
    delta = jax.lax.optimization_barrier(_UNIT * delta)
    return _ErfSide(rows, factor, rho, delta, deltas.T, angles.T)


def _erf_pairs(
    depth: int, W_std: Array, b_std: Array, side1: _ErfSide, side2: _ErfSide
) -> tuple[Array, Array]:
    w2, b2 = W_std**2, b_std**2
    # The arcsine of τ = 2 K(x, x′)/√((1 + 2a)(1 + 2a′)) makes the next K. The state is τ, √(1 − |τ|) and Θ
    # over the same root.
    tau = _products(side1.rows, side2.rows, side1.factor, side2.factor)

    def gap(pair1: Any, pair2: Any, sign: Array) -> Array:
        (row1, rho1, delta1), (row2, rho2, delta2) = pair1, pair2
        others = (_UNIT * (rho1 - rho2)) ** 2 + delta1**2 + delta2**2
        return rho1 * rho2 * _gap_of_directions(row1, row2, sign) + others / 2

    def layer(tau: Array, root: Array, ntk: Array) -> tuple[Array, Array, Array]:
        # arccos |τ| from whichever of sine and cosine is small, with one arctan
        other = jnp.sqrt(2 - root**2)
        inverse, steep = 1 / (root * other), jnp.abs(tau) > 0.5  # 1/√(1 − τ²)
        arctan = jnp.arctan(jnp.where(steep, root / other, tau * inverse))
        arcsine = jnp.where(steep, jnp.sign(tau) * (jnp.pi / 2 - 2 * arctan), arctan)
        nngp = w2 * 2 / jnp.pi * arcsine + b2
        arccos = jnp.where(steep, 2 * arctan, jnp.pi / 2 - jnp.abs(arctan))
        return arccos, nngp, nngp + w2 * 4 / jnp.pi * inverse * ntk

    def another(i: Any, state: tuple[Array, Array, Array], same: Array) -> tuple[Array, Array, Array]:
        arccos, nngp, ntk = layer(*state)
        delta1, delta2 = _each_pair(side1.deltas, side2.deltas, i)
        angle1, angle2 = _each_pair(side1.angles, side2.angles, i)
        both, norm1, norm2 = delta1 * delta2, 1 / delta1, 1 / delta2
        tau = 2 * nngp * both
        # 1 − |τ| = (√((1 + 2a)(1 + 2a′)) − 2 |K|)/√(…): a sum in which the biases and what else is equal in
        # a, a′ and K are gone. By the inequality of Cauchy and Schwarz it is at least 1, and 1 for equal
        # inputs. What rounding would leave of equal ones grows from layer to layer where σ_w is large.
        negative, before = nngp < 0, state[0]
        arccos = jnp.where((before < 0) == negative, arccos, jnp.pi - arccos)
        apart = 4 * w2 / jnp.pi * (arccos - (angle1 + angle2) / 2) - (norm1 - norm2) ** 2 / 2
        apart = apart + jnp.where(negative, 4 * b2, 0)
        apart = jnp.where(same, 0, jnp.maximum(apart, 0))
        gap = jnp.where(jnp.abs(tau) > 0.5, (1 + apart) * both, 1 - jnp.abs(tau))
        return tau, jnp.sqrt(gap), ntk * both

    def layers(gap: Array) -> tuple[Array, Array]:
        state = (tau, jnp.sqrt(gap) / _UNIT, tau / 2)
        if depth > 1:
            same = equal_inputs(gap)
            state = jax.lax.fori_loop(0, depth - 1, lambda i, state: another(i, state, same), state)
        return layer(*state)[1:]

    def equal_inputs(gap: Array) -> Array:
        """Whether x = x′ to rounding, of a gap that is that of x and x, or of a τ that is."""
        delta1, delta2, rho = side1.delta[:, None], side2.delta[None], side1.rho[:, None]
        few, small = 4 * jnp.finfo(tau.dtype).eps, gap < (1 - _NEAR) * _UNIT**2
        equal = jnp.where(small, gap - delta1 * delta2 <= few * gap, rho**2 - tau <= few * rho**2)
        return (delta1 == delta2) & (tau > 0) & equal

    one, other = ((side.rows, side.rho, side.delta) for side in (side1, side2))
    return _with_gaps(tau, one, other, gap, layers)


def _with_gaps(
    cosine: Array, rows1: Any, rows2: Any, gap_of: Callable[..., Array], layers: Callable[[Array], Any]
) -> Any:
    """layers(1 − |cosine|, in units of 1/_UNIT²).

    Near ±1 the difference cancels and the angle would lose half its digits. There gap_of takes its place,
    which costs a vector for each pair, so only for pairs that need it: one or two in a row as a rule.
    """

    # These are functions: what a branch of cond is given from outside is written to memory.
    def sign(of: Array) -> Array:
        return jnp.where(of >= 0, 1, -1).astype(of.dtype)

    def plain() -> Array:
        return _UNIT**2 * jnp.maximum(1 - jnp.abs(cosine), 0.005)  # not 0, where a root has no derivative

    def nearest_pairs() -> Array:
        gap, left = plain(), jnp.abs(cosine)
        for _ in range(_FEW):
            nearest = jnp.argmax(left, axis=1)
            value = jnp.take_along_axis(cosine, nearest[:, None], axis=1)
            refined = jax.vmap(gap_of)(
                rows1, jax.tree.map(lambda leaf, at=nearest: leaf[at], rows2), sign(value[:, 0])
            )
            # compiles faster than an indexed update
            there = jnp.arange(cosine.shape[1])[None] == nearest[:, None]
            gap = jnp.where(there & (jnp.abs(value) > _NEAR), refined[:, None], gap)
            left = jnp.where(there, -1, left)
        return gap

    @jax.checkpoint
    def one_row(row_and_sign: Any) -> Array:
        # row by row; without the barrier XLA forms the differences of all rows at once
        row, sign = jax.lax.optimization_barrier(row_and_sign)
        return jax.vmap(gap_of, (None, 0, 0))(row, rows2, sign)

    def every_pair() -> Array:
        return jnp.where(jnp.abs(cosine) > _NEAR, jax.lax.map(one_row, (rows1, sign(cosine))), plain())

    most = (jnp.abs(cosine) > _NEAR).sum(axis=1).max()
    which = jnp.where(most == 0, 0, jnp.where(most <= _FEW, 1, 2))
    return layers(jax.lax.switch(which, (plain, nearest_pairs, every_pair)))


def _gap_of_directions(row1: _Rows, row2: _Rows, sign: Array) -> Array:
    """1 − |cos θ| = sin²θ/(1 + √(1 − sin²θ)) of one pair, sign = ±1 that of cos θ, in units of 1/_UNIT².

    sin θ is the length of what h₂ ∓ c h₁ has across h₁. The power of two c brings both to one length: the
    difference of nearly equal inputs is exact then.
    """
    ratio = jnp.round(jnp.log2(jax.lax.stop_gradient(row2.norm / row1.norm))).astype(jnp.int32)
    difference = row2.h - sign * _power(ratio, sign.dtype) * row1.h
    unit = row1.h / row1.norm
    across = difference - (unit * difference).sum() * unit
    square = ((across * row2.inverse) ** 2).sum()
    # a half: of pairs that are not near, for which this is not used but differentiated
    return square / (1 + jnp.sqrt(jnp.maximum(1 - square / _UNIT**2, 0.5)))
