r"""What `GradientFlow` does with the blocks of an invariant Gram matrix, as pure functions on arrays.

A block B is kept as its eigenvalues λ and eigenvectors V. Everything the flow needs is a function of the
matrix, $\varphi(B) = V\varphi(\lambda)V^\dagger$, which is smooth where V is not: eigenvectors of equal
eigenvalues are arbitrary, and their derivative infinite. Hence one rule for this module: V is a fixed frame.
In it B is the matrix diag(λ), and its derivative the full matrix $V^\dagger\,\mathrm{d}B\,V$. The tangent of
`vectors` holds $\mathrm{d}B\,V$, and only `filtered` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import factorial, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from nteq._products import einsum, matmul


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Block:
    """The eigenvalues (p,), ascending, and eigenvectors (p, p) of one block; see above for its tangent."""

    eigenvalues: Array
    vectors: Array


@jax.jit
def first_term(sigma: Array, kappa: Array) -> Array:
    """The first term of Σ_u σ(u) ⊗ κ(u)."""
    return jnp.kron(sigma, kappa.astype(sigma.dtype))


@partial(jax.jit, donate_argnames="total")
def add_term(total: Array, sigma: Array, kappa: Array) -> Array:
    """The sum with one term more."""
    return total + jnp.kron(sigma, kappa.astype(sigma.dtype))


@partial(jax.jit, donate_argnames="total")
def add_adjoint(total: Array) -> tuple[Array, Array]:
    """The terms of all u⁻¹, since κ(u⁻¹) = κ(u)ᵀ, and whether all is finite; Hermitian to the last bit."""
    whole = total + total.conj().T
    return whole, jnp.isfinite(whole).all()


@jax.jit
def asymmetry(kappa: Array) -> Array:
    """The largest entry and the largest difference between a matrix and its transpose, (2,)."""
    return jnp.stack([jnp.abs(kappa).max(), jnp.abs(kappa - kappa.T).max()])


@partial(jax.jit, donate_argnames="gram")
def decompose(gram: Array) -> Block:
    """The block of a Hermitian matrix."""
    return Block(*_eigh(gram))


@jax.custom_jvp
def _eigh(gram: Array) -> tuple[Array, Array]:
    eigenvalues, vectors = jnp.linalg.eigh(gram, symmetrize_input=False)
    return eigenvalues, vectors


@_eigh.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> Any:
    eigenvalues, vectors = _eigh(*primals)
    moved = matmul(tangents[0], once_differentiable(vectors))
    return (eigenvalues, vectors), (jnp.sum(vectors.conj() * moved, axis=0).real, moved)


@jax.custom_jvp
def once_differentiable(values: Any) -> Any:
    """The same values, which raise when they are differentiated: instead of a wrong number or NaN."""
    return values


@once_differentiable.defjvp
def _(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(
        "GradientFlow: this derivative is not implemented. There are first derivatives with respect to what "
        "the training Gram matrix depends on, of all but sample, and any with respect to times, labels and "
        "test inputs."
    )


def _frame(block: Block) -> Array:
    return jax.lax.stop_gradient(block.vectors)


@jax.jit
def to_frame(block: Block, rows: Array) -> Array:
    """Rows (…, p) in the eigenbasis."""
    return matmul(rows, _frame(block))


@jax.jit
def labels_in_frame(block: Block, basis: Array, matrices: Array | None, labels: Array) -> Array:
    """ρ_Y(g)y of labels (n, outputs), in the basis of the block and in its frame, (k, outputs, p)."""
    images = labels[None] if matrices is None else einsum("goq,iq->gio", matrices, labels)
    images = jnp.broadcast_to(images, (basis.shape[0], *images.shape[1:])).astype(basis.dtype)
    rows = einsum("gkb,gio->kobi", basis, images)
    return to_frame(block, rows.reshape(*rows.shape[:2], -1))


def from_frame(block: Block, rows: Array) -> Array:
    """Rows (…, p) in the eigenbasis, back from it."""
    return matmul(rows, _frame(block).conj().T)


@jax.jit
def largest_eigenvalue(blocks: Sequence[Block]) -> Array:
    """Of all blocks, and positive: what rounding is compared with."""
    largest = jnp.stack([block.eigenvalues[-1] for block in blocks]).max()
    info = jnp.finfo(largest.dtype)
    return jax.lax.stop_gradient(jnp.maximum(largest, float(info.tiny) / float(info.eps)))


def phi(eigenvalues: Array, tau: Array, ridge: Array, largest: Array, points: int | Array) -> Array:
    r"""$\varphi(\lambda, \tau) = (1 - e^{-(\lambda + r)\tau})/(\lambda + r)$, how much of a mode is learned.

    An eigenvalue that is zero to rounding, λ ≤ points · ε · largest, counts as 0: φ(0, τ) = τ without ridge.
    No row Θ(x, X) has a component along its mode, but for rounding, so once φ would only amplify that,
    φ · largest · √ε ≥ 1, the mode is left out: φ = 0.
    """
    shifted, dead = _modes(eigenvalues, tau, ridge, largest, points)
    return jnp.where(dead, 0, _phi(shifted, tau))


def _modes(
    eigenvalues: Array, tau: Array, ridge: Array, largest: Array, points: int | Array
) -> tuple[Array, Array]:
    """λ + r, and which modes are left out."""
    eps = float(jnp.finfo(eigenvalues.dtype).eps)
    null = eigenvalues <= points * eps * largest
    shifted = jnp.where(null, 0, eigenvalues) + ridge
    return shifted, null & (_phi(shifted, tau) * (largest * eps**0.5) >= 1)


def _phi(rate: Array, tau: Array) -> Array:
    safe = jnp.where(rate > 0, rate, 1)
    return jnp.where(rate > 0, -jnp.expm1(-safe * tau) / safe, tau)


def _decay(rate: Array, tau: Array) -> Array:
    """exp(−rate · τ), 1 at 0 · ∞."""
    return jnp.where(rate > 0, jnp.exp(-jnp.where(rate > 0, rate, 1) * tau), 1)


def _slopes(shifted: Array, dead: Array, tau: Array) -> Array:
    """The divided differences φ[a, b] = (φ(a) − φ(b))/(a − b) of all pairs of modes; φ[a, a] = φ′(a).

    Left out modes stay left out: between two of them it is 0, and φ(a)/(a − b) for b alone, which makes
    this the derivative of the pseudo-inverse at τ = ∞.
    """
    a, b = jnp.maximum(shifted[:, None], shifted[None, :]), jnp.minimum(shifted[:, None], shifted[None, :])
    finite = jnp.where(jnp.isinf(tau), 0, tau)
    # −(φ(b) − e^(−bτ) φ(a − b))/a holds for a ≥ b, loses nothing where they meet, but cancels for small aτ
    apart = _phi(b, tau) - _decay(b, tau) * _phi(a - b, finite)
    # there Σ_k (−1)^k/(k + 1)! Σ_j (aτ)^j (bτ)^(k − 1 − j), to 1e-17 for aτ < ¼
    z, w = jnp.minimum(a * finite, 0.25), jnp.minimum(b * finite, 0.25)
    series, total, power = jnp.zeros_like(z), jnp.ones_like(z), jnp.ones_like(z)
    for k in range(1, 14):
        series = series + (-1) ** k / factorial(k + 1) * total
        power = power * w
        total = z * total + power
    small = (a * finite < 0.25) & jnp.isfinite(tau)
    slopes = jnp.where(small, finite * finite * series, -apart / jnp.where(a > 0, a, 1))
    value = jnp.where(dead, 0, _phi(shifted, tau))
    one, both = dead[:, None] ^ dead[None, :], dead[:, None] & dead[None, :]
    beside = (value[:, None] + value[None, :]) / jnp.where(one, a - b, 1)
    return jnp.where(one, beside, jnp.where(both, 0, slopes))


@jax.custom_jvp
def _filtered(
    eigenvalues: Array,
    vectors: Array,
    rows: Array,
    tau: Array,
    ridge: Array,
    largest: Array,
    points: int | Array,
) -> Array:
    return _by_mode(rows, phi(eigenvalues, tau, ridge, largest, points))


@partial(_filtered.defjvp, symbolic_zeros=True)
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    _, _, rows, tau, ridge, largest, points = primals
    _, moved, drows, dtau, dridge, _, _ = tangents
    eigenvalues, vectors = once_differentiable(primals[:2])
    shifted, dead = _modes(eigenvalues, tau, ridge, largest, points)
    value = jnp.where(dead, 0, _phi(shifted, tau))
    change = jnp.zeros_like(rows)
    if not isinstance(drows, SymbolicZero):
        change = change + _by_mode(drows, value)
    if not isinstance(dtau, SymbolicZero):
        change = change + _by_mode(rows, jnp.where(dead, 0, _decay(shifted, tau)) * dtau)
    if not isinstance(moved, SymbolicZero) or not isinstance(dridge, SymbolicZero):
        slopes = _slopes(shifted, dead, tau)
        if not isinstance(moved, SymbolicZero):  # Daleckii and Krein: φ[λᵢ, λⱼ] (V† dB V)ᵢⱼ
            change = change + matmul(rows, slopes.astype(moved.dtype) * matmul(vectors.conj().T, moved))
        if not isinstance(dridge, SymbolicZero):
            change = change + _by_mode(rows, jnp.diagonal(slopes) * dridge)
    return _by_mode(rows, value), change


def _by_mode(rows: Array, factors: Array) -> Array:
    return rows * jnp.broadcast_to(factors, rows.shape).astype(rows.dtype)


def filtered(
    block: Block, rows: Array, tau: Array, ridge: Array, largest: Array, points: int | Array
) -> Array:
    """Rows (…, p) in the eigenbasis times φ(B, τ), in the eigenbasis; derivatives are those of the matrix."""
    return _filtered(block.eigenvalues, block.vectors, rows, tau, ridge, largest, points)


@jax.jit
def coefficients(
    weight: int | Array,
    block: Block,
    basis: Array,
    labels: Array,
    taus: Array | np.ndarray,
    ridge: Array,
    largest: Array,
    points: int | Array,
) -> Array:
    """What the block adds to α_τ(h) in μ_τ(x) = Σ_h Θ(x, ρ(h)X) α_τ(h), shape (|G|, n, times · outputs).

    labels: those of all images in the basis of the block and in its frame, conjugated, (k, outputs, p).
    """
    rows = jax.vmap(lambda tau: filtered(block, labels, tau, ridge, largest, points))(taus)
    d = basis.shape[2]
    rows = from_frame(block, rows).reshape(*rows.shape[:3], d, rows.shape[3] // d)
    part = einsum("hkb,tkobi->hito", basis.conj(), rows).real
    return weight * part.reshape(*part.shape[:2], part.shape[2] * part.shape[3])


@jax.jit
def add_product(total: Array | np.ndarray, ntk: Array, weights: Array, h: int | Array) -> Array:
    """The sum Σ_h Θ(x, ρ(h)X) α(h) with the term of one h more."""
    return matmul(ntk, weights[h]) + total


@jax.jit
def product_of_images(ntk: Array, weights: Array) -> Array:
    """The sum Σ_h Θ(x, ρ(h)X) α(h) of the values for all h, (x, n, |G|)."""
    return einsum("xjh,hjk->xk", ntk, weights)


@partial(jax.jit, static_argnames=("times", "outputs"))
def means_at(parts: Sequence[Array], times: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
    """Rows of means, (x, times · outputs) each, joined, with the times in front, (*times, x, *outputs)."""
    means = jnp.concatenate(parts)
    means = jnp.moveaxis(means.reshape(means.shape[0], prod(times), *outputs), 1, 0)
    return means.reshape(*times, *means.shape[1:])


@jax.jit
def mixed(mixing: Array, basis: Array) -> Array:
    """The basis of a block in which Σ_h′ W[h, h′] k(x, ρ(h′)X) takes the place of k(x, ρ(h)X)."""
    return einsum("hi,hkb->ikb", mixing.astype(basis.dtype), basis)


@jax.jit
def to_block(basis: Array, kernels: Sequence[Array]) -> Array:
    """Rows of kernel values k(x, ρ(h)X), shape (x, n) for each h, in the basis of a block, (k, x, p)."""
    rows = einsum("hkb,hxj->kxbj", basis, jnp.stack(kernels).astype(basis.dtype))
    return rows.reshape(*rows.shape[:2], -1)


Rows = tuple[Array, Array]  # Θ(x, ·) of a block in its frame, and K(x, ·) in its basis, (k, x, p) each


@partial(jax.jit, static_argnames="pairs")
def add_to_covariance(
    total: Array,
    weight: int | Array,
    block: Block,
    gram: Array,
    ours: Rows,
    theirs: Rows,
    tau: Array,
    ridge: Array,
    largest: Array,
    points: int | Array,
    pairs: str,
) -> Array:
    """The covariance with what training adds to it in one block: A K A† − A K(X, x′) − K(x, X) A†.

    Of all pairs, "kxe,kze->xz", or of inputs at the same place, "kxe,kxe->x".
    """
    a1, a2 = (
        from_frame(block, filtered(block, ntk, tau, ridge, largest, points)) for ntk, _ in (ours, theirs)
    )
    first = einsum(pairs, matmul(a1, gram) - ours[1], a2.conj())
    return total + weight * (first - einsum(pairs, a1, theirs[1].conj())).real


@jax.jit
def symmetric(covariance: Array) -> Array:
    """The symmetric part, its diagonal not negative."""
    half = (covariance + covariance.T) / 2
    return jnp.where(jnp.eye(half.shape[0], dtype=bool), jnp.maximum(half, 0), half)


@jax.jit
def root(covariance: Array) -> Array:
    """A root R of a covariance (…, x, x) = R Rᵀ, singular ones too, where Cholesky fails."""
    eigenvalues, vectors = jnp.linalg.eigh(once_differentiable(covariance))
    return vectors * jnp.sqrt(jnp.maximum(eigenvalues, 0))[..., None, :]


@jax.jit
def condition_number(eigenvalues: Sequence[Array], ridge: ArrayLike, points: int) -> Array:
    """(λ_max + r)/(λ_min + r) over all blocks; inf if the matrix is singular to rounding."""
    smallest = jnp.stack([values[0] for values in eigenvalues]).min() + ridge
    largest = jnp.stack([values[-1] for values in eigenvalues]).max() + ridge
    singular = smallest <= points * float(jnp.finfo(largest.dtype).eps) * largest
    return jnp.where(singular, jnp.inf, largest / jnp.where(singular, 1, smallest))


@jax.jit
def effective_rank(eigenvalues: Sequence[Array], copies: Sequence[int]) -> Array:
    """exp(−Σ p log p) over all blocks, each so many times, p the eigenvalues over their sum; 0 of zero."""
    kept = [jnp.maximum(values, 0) for values in eigenvalues]
    entropy = total = jnp.zeros((), kept[0].dtype)
    for m, values in zip(copies, kept, strict=True):
        total = total + m * values.sum()
    for m, values in zip(copies, kept, strict=True):
        p = values / jnp.where(total > 0, total, 1)
        entropy = entropy - m * (p * jnp.log(jnp.where(p > 0, p, 1))).sum()
    return jnp.where(total > 0, jnp.exp(entropy), 0)
