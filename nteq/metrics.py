"""How far a model is from symmetric: measures over orbits.

They take arrays with the orbit as the leading axis, so they work for one network, an ensemble or a kernel
predictor alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.special import fdtrc, gammaincinv, ndtri, stdtr

from nteq import _checks
from nteq._products import einsum

__all__ = [
    "MembersNeeded",
    "SymmetryTest",
    "equivariance_defect",
    "equivariance_error",
    "members_needed",
    "orbit_same_prediction",
    "relative_std",
    "sub_ensembles",
    "symmetry_test",
]

_TINY = float(np.finfo(float).tiny)  # instead of a division of zero by zero


def relative_std(predictions: ArrayLike) -> Array:
    r"""Relative standard deviation of predictions over a group orbit.

    $$\mathrm{RSD}(x) = \frac{\operatorname{std}_g f(\rho(g)x)}{|\operatorname{mean}_g f(\rho(g)x)|}$$

    Zero for an invariant model; dimensionless. The standard deviation is that of the whole orbit (it
    divides by |G|). The measure of the Ising experiment in Gerken & Kessel 2024, section 6.1.

    Args:
        predictions: f evaluated on the orbit, shape (|G|, ...): the orbit is the leading axis.

    Returns:
        Array of shape (...).

    Raises:
        ValueError: fewer than two orbit elements, an empty or non-finite array, or a mean that is zero to
            rounding.

    >>> relative_std(jnp.array([[1.0, 2.0], [3.0, 2.0]]))
    Array([0.5, 0. ], dtype=float32)
    """
    ratio, undefined = _relative_std(_orbit("relative_std", predictions, 0))
    if _checks.is_known(undefined) and undefined:
        raise ValueError(
            "relative_std: the mean over the orbit is zero to rounding for at least one input, so the "
            "relative deviation is undefined there. Compare the absolute deviation, predictions.std(0)."
        )
    return ratio


@jax.jit
def _relative_std(f: Array) -> tuple[Array, Array]:
    """Also whether a mean over the orbit is zero to rounding."""
    f = _scaled(f, 0)
    size = jnp.abs(f.mean(0))
    undefined = size <= f.shape[0] * float(np.finfo(f.dtype).eps) * jnp.abs(f).max(0)
    return f.std(0) / size, undefined.any()


def orbit_same_prediction(logits: ArrayLike, identity: int = 0) -> Array:
    r"""The fraction of the orbit on which a classifier names the same class as at the input itself.

    $$\mathrm{OSP}(x) = \frac{1}{|G|}\,\#\bigl\{g : \operatorname{argmax}_k f_k(\rho(g)x) =
    \operatorname{argmax}_k f_k(x)\bigr\}$$

    Between 1/|G|, since the identity always agrees, and 1 for an invariant classifier. The measure of
    Gerken & Kessel 2024, section 6.2.

    Args:
        logits: f on the orbit, shape (|G|, ..., classes) with at least two classes.
        identity: where the orbit holds x itself, `action.group.identity`.

    Returns:
        Array of shape (...).

    Raises:
        ValueError: fewer than two orbit elements or classes, an empty or non-finite array, or an identity
            that is not an index into the orbit.

    >>> orbit_same_prediction(jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]))
    Array(0.75, dtype=float32)
    """
    f = _orbit("orbit_same_prediction", logits, 1)
    if f.shape[-1] < 2:
        raise ValueError(
            f"orbit_same_prediction: logits must have shape (|G|, ..., classes) with at least two classes, "
            f"got shape {f.shape}."
        )
    identity = _checks.count(
        "orbit_same_prediction",
        "identity",
        identity,
        least=0,
        most=f.shape[0] - 1,
        advice=f"It is an index into the {f.shape[0]} orbit elements; take it from action.group.identity.",
    )
    return _same_prediction(f, identity)


@jax.jit
def _same_prediction(f: Array, identity: ArrayLike) -> Array:
    predicted = f.argmax(-1)
    return (predicted == predicted[identity][None]).mean(0, dtype=f.dtype)


def equivariance_error(predictions: ArrayLike, label_matrices: ArrayLike | None = None) -> Array:
    r"""How far predictions are from moving with their input, relative to their size.

    $$\mathrm{EE}(x)^2 = \frac{\tfrac1{|G|}\sum_g |a_g - \bar a|^2}{\tfrac1{|G|}\sum_g |a_g|^2}, \qquad
    a_g = \rho_Y(g)^{-1} f(\rho(g)x)$$

    Zero for an equivariant model, where every $a_g$ is $f(x)$, and at most 1. Dimensionless.

    Args:
        predictions: f on the orbit, shape (|G|, ..., outputs), in the order of the group's elements.
        label_matrices: ρ_Y, shape (|G|, outputs, outputs), invertible; from `nteq.actions.matrices_of`.
            None for labels that do not move.

    Returns:
        Array of shape (...).

    Raises:
        ValueError: fewer than two orbit elements, an empty or non-finite array, matrices of another shape or
            without an inverse, or predictions that are zero on a whole orbit.

    >>> turns = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.0, -1.0]]])
    >>> equivariance_error(jnp.array([[3.0, 4.0], [-3.0, -4.0]]), turns)
    Array(0., dtype=float32)
    """
    f = _orbit("equivariance_error", predictions, 1)
    inverse = None if label_matrices is None else _inverse("equivariance_error", f, label_matrices)
    error, undefined = _equivariance_error(f, inverse)
    if _checks.is_known(undefined) and undefined:
        raise ValueError(
            "equivariance_error: predictions is zero on the whole orbit of at least one input, so the "
            "relative error is undefined there."
        )
    return error


@jax.jit
def _equivariance_error(f: Array, inverse: Array | None) -> tuple[Array, Array]:
    """Also whether predictions are zero on a whole orbit."""
    f = _scaled(f, (0, -1))
    f = f if inverse is None else _moved_back(inverse, f)
    size = (f**2).sum(-1).mean(0)
    return jnp.sqrt(((f - f.mean(0, keepdims=True)) ** 2).sum(-1).mean(0) / size), (size == 0).any()


def equivariance_defect(
    f: Callable[[Any], Any],
    x: Any,
    move: Callable[[Any], Any],
    move_output: Callable[[Any], Any] | None = None,
) -> float:
    r"""How far a function is from commuting with one transformation of its input, to rounding or not.

    $$\max_i\ \frac{|f(\rho x) - \rho' f(x)|_i}{\max(|f(\rho x)|_i,\ |\rho' f(x)|_i)}$$

    with the largest entry $|\cdot|_i$ of each array i that f returns. Zero for an equivariant function, at
    most 2; dimensionless. Unlike `equivariance_error` it asks for no finite group and no orbit, so that it
    suits rotations, boosts or unitary matrices, and inputs and outputs may be trees of arrays, complex ones
    too: energies, forces and charges at once.

    Args:
        f: the function.
        x: its input, an array or a pytree of arrays.
        move: ρ, from an input to the transformed one.
        move_output: ρ′, from an output to the transformed one. None for outputs that do not move.

    Returns:
        A number, the largest over the arrays of the output; of two arrays that are zero it is 0.

    Raises:
        ValueError: f(ρx) and ρ′f(x) differ in their structure or shapes, have no entries, have entries that
            are not finite, or are traced.

    >>> turn = lambda x: x @ jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> x = jnp.array([[3.0, 4.0], [1.0, 2.0]])
    >>> equivariance_defect(lambda x: x * (x**2).sum(1, keepdims=True), x, turn, turn)
    0.0
    >>> round(equivariance_defect(lambda x: x.sum(1), x, turn), 3)
    1.143
    """
    moved, still = f(move(x)), f(x)
    expected = still if move_output is None else move_output(still)
    if not _checks.is_known(moved, expected):
        raise ValueError("equivariance_defect: the values are traced. Call it outside of jit and grad.")
    shapes = [jax.tree.map(np.shape, tree) for tree in (moved, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"equivariance_defect: f(ρx) and ρ′f(x) must have the same structure and shapes, got {shapes[0]} "
            f"and {shapes[1]}. Check what move and move_output return."
        )
    pairs = [
        (np.asarray(a), np.asarray(b)) for a, b in zip(*map(jax.tree.leaves, (moved, expected)), strict=True)
    ]
    if not pairs or not all(a.size for a, _ in pairs):
        raise ValueError("equivariance_defect: f must return arrays with entries, got none.")
    if not all(_checks.are_finite(a) and _checks.are_finite(b) for a, b in pairs):
        raise ValueError("equivariance_defect: f returned entries that are not finite.")
    sizes = (max(np.abs(a).max(), np.abs(b).max(), _TINY) for a, b in pairs)
    return max(float(np.abs(a - b).max() / size) for (a, b), size in zip(pairs, sizes, strict=True))


def sub_ensembles(
    metric: Callable[[Array], Array],
    predictions: ArrayLike,
    sizes: Sequence[int],
    resamples: int = 100,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""A metric of the mean over M members, for growing M, with bootstrap error bars.

    The value at M is averaged over the T // M disjoint sub-ensembles of the T members, and over everything
    the metric leaves. Its standard error is the standard deviation of that average when the T members are
    drawn again with replacement (Efron 1979). Where one sub-ensemble is all there is, it tells the order of
    magnitude only.

    Args:
        metric: a function of an array (|G|, ...) such as `relative_std`.
        predictions: one array for every member on the orbit, shape (members, |G|, ...).
        sizes: the M, each from 1 to members.
        resamples: how often the members are drawn again, at least 2.
        seed: of the drawing.

    Returns:
        The values and their standard errors, each of shape (len(sizes),).

    Raises:
        ValueError: predictions is not (members, |G|, ...) or not finite, a size or the number of resamples
            out of range, or a metric that is not finite.

    >>> members = 3 + jax.random.normal(jax.random.key(0), (400, 4, 50))
    >>> value, error = sub_ensembles(relative_std, members, [1, 100])
    >>> bool(value[1] < value[0] / 5), bool(error[1] < value[1])
    (True, True)
    """
    f = _members("sub_ensembles", predictions, 1)
    total = f.shape[0]
    sizes = [
        _checks.count("sub_ensembles", "sizes", m, most=total, advice=f"There are {total} members.")
        for m in sizes
    ]
    resamples = _checks.count("sub_ensembles", "resamples", resamples, least=2)
    draws = np.random.default_rng(seed).integers(0, total, size=(resamples, total))

    def average(members: np.ndarray, size: int) -> float:
        disjoint = members[: total // size * size].reshape(-1, size)
        return float(_checks.look(lambda: _average(metric, f, disjoint)))

    values = np.array([average(np.arange(total), m) for m in sizes])
    errors = np.array([np.std([average(d, m) for d in draws], ddof=1) for m in sizes])
    if not np.isfinite(values).all() or not np.isfinite(errors).all():
        raise ValueError(
            "sub_ensembles: the metric is not finite for the mean of some members. If it divides by a mean "
            "over the orbit, that may be zero: take a median, or an absolute measure."
        )
    return values, errors


class MembersNeeded(NamedTuple):
    """What `members_needed` finds for each input: numbers of members, infinite where none is enough."""

    members: np.ndarray
    """The estimate."""
    lower: np.ndarray
    """The lower end of its confidence interval."""
    upper: np.ndarray
    """The upper end, which is on the safe side."""
    common: np.ndarray
    """The standard deviation over the orbit that all members have in common, which averaging does not
    remove; 0 where there is no sign of any."""


def members_needed(
    predictions: ArrayLike,
    tolerance: float,
    label_matrices: ArrayLike | None = None,
    confidence: float = 0.95,
) -> MembersNeeded:
    r"""How many members bring the spread of their mean over an orbit below a tolerance, from a few of them.

    The mean of M independent members has over the orbit of x the expected variance

    $$\mathbb{E}\operatorname{Var}_g \bar f_M(\rho(g)x) = s^2 + \frac{v}{M}, \qquad
    v = \mathbb{E}\operatorname{Var}_g\bigl[f(\rho(g)x) - \mathbb{E}f(\rho(g)x)\bigr],$$

    where $s^2$ is the variance of $\mathbb{E}f$ over the orbit, zero when the infinite ensemble is invariant
    (at infinite width $v$ is `GradientFlow.orbit_variance`). So $M = v/(\text{tolerance}^2 - s^2)$, with the
    sample's unbiased $\hat v$. $s$ counts only where the members' common pattern on the orbit is larger than
    chance explains, by an F test at the level 1/1000: a spread that is too small to be seen in the given
    members cannot be excluded.

    $\nu\hat v/v$ is taken as $\chi^2_\nu$ (Satterthwaite 1946), ν being the smaller of two estimates: that
    for Gaussian members, $\hat\nu = (M_0 - 1)(\operatorname{tr}S)^2/\operatorname{tr}S^2$ with the sample
    covariance S of the $M_0$ members on the orbit, and the one from the scatter of the members' own squared
    deviations, which notices heavy tails. For Gaussian members the interval covers the right
    number at least as often as it says.

    Args:
        predictions: one array for every member on the orbit, shape (members, |G|, ...) with at least two
            independent members; with label_matrices (members, |G|, ..., outputs).
        tolerance: what the standard deviation over the orbit shall be at most, as a root mean square over
            ensembles, in the units of the predictions. For a relative one, as `relative_std` has it, divide
            the predictions by their absolute mean over members and orbit.
        label_matrices: ρ_Y, shape (|G|, outputs, outputs), for outputs that move with the input, compared
            after ρ_Y(g)⁻¹ and added in square; from `nteq.actions.matrices_of`. None for outputs that do
            not move; each entry of the remaining axes is then an input of its own.
        confidence: with which the interval covers the right number, between 0 and 1.

    Returns:
        Arrays of the shape of the remaining axes: the number of members, the ends of its confidence
        interval, and the spread that stays.

    Raises:
        ValueError: fewer than two members or orbit elements, an empty or non-finite array, matrices of
            another shape or without an inverse, a tolerance that is not positive, a confidence out of range.

    >>> few = 3 + np.random.default_rng(0).normal(size=(50, 4))  # v = 3/4, so 75 members are right
    >>> needed = members_needed(few, tolerance=0.1)
    >>> bool(needed.lower < 75 < needed.upper), bool(needed.upper < 100), float(needed.common)
    (True, True, 0.0)
    """
    caller = "members_needed"
    array = _members(caller, predictions, 1 if label_matrices is None else 2)
    if array.shape[0] < 2 or array.shape[1] < 2:
        raise ValueError(
            f"{caller}: predictions must hold at least two members on at least two orbit elements, "
            f"got shape {array.shape}. Of one member nothing can be said about others."
        )
    tolerance = _checks.number(caller, "tolerance", tolerance, exclusive=True)
    confidence = _checks.number(caller, "confidence", confidence, exclusive=True)
    if confidence >= 1:
        raise ValueError(f"{caller}: confidence must be below 1, got {confidence}. 0.95 is usual.")
    f = np.asarray(array, dtype=float)
    scale = np.abs(f).max() or 1.0  # so that no square leaves the range of numbers
    f, tolerance = f / scale, tolerance / scale
    if label_matrices is None:
        f = f[..., None]
    else:
        at = np.moveaxis(f, 1, 0)
        moved = _checks.look(lambda: _moved_back(_inverse(caller, at, label_matrices), at))
        f = np.moveaxis(moved, 0, 1).astype(float)
    members, order, *inputs, outputs = f.shape
    # (input, member, orbit element and output)
    f = np.moveaxis(f - f.mean(1, keepdims=True), 1, -2).reshape(members, -1, order * outputs).swapaxes(0, 1)
    pattern = f.mean(1, keepdims=True)
    own = f - pattern
    v, rank, degrees = _spread_of_members(own, order)

    chance = v / members  # what the members' own patterns leave of themselves in their mean
    visible = (pattern**2).sum((1, 2)) / order
    seen = fdtrc(rank, degrees, visible / np.maximum(chance, _TINY)) < 1e-3
    common = np.where(seen, np.maximum(visible - chance, 0), 0)
    along = (pattern * own).sum(2) / order
    deviation = np.where(seen, np.sqrt(4 * along.var(1, ddof=1) / members + 2 * chance**2 / rank), 0)

    def enough(v: np.ndarray, common: np.ndarray) -> np.ndarray:
        room = tolerance**2 - common
        number = np.maximum(np.ceil(v / np.where(room > 0, room, 1)), 1)
        return np.where(room > 0, number, np.inf).reshape(inputs)

    tail = (1 - confidence) / 2
    low, high = (2 * gammaincinv(degrees / 2, p) for p in (tail, 1 - tail))  # quantiles of χ²
    away = ndtri(1 - tail) * deviation
    return MembersNeeded(
        members=enough(v, common),
        lower=enough(degrees * v / high, common - away),
        upper=enough(degrees * v / low, common + away),
        common=(np.sqrt(common) * scale).reshape(inputs),
    )


class SymmetryTest(NamedTuple):
    """What `symmetry_test` finds."""

    p: float
    """Probability, if the mean is equivariant, of a z-score as large as the largest one among all of them."""
    z: np.ndarray
    """The mean deviation from equivariance in standard errors, shape (|G|, ...); standard normal if the mean
    is equivariant."""
    deviation: np.ndarray
    """The mean deviation itself, in the units of the predictions."""
    error: np.ndarray
    """Its standard error. Several times this is what the given members would have shown."""


def symmetry_test(
    predictions: ArrayLike,
    label_matrices: ArrayLike | None = None,
    resamples: int = 1999,
    seed: int = 0,
) -> SymmetryTest:
    r"""Is the mean over initialisations equivariant, as far as some independently trained members can tell?

    Each member's answers on an orbit are moved back and compared with their mean over the orbit,

    $$d_g = a_g - \frac1{|G|}\sum_h a_h, \qquad a_g = \rho_Y(g)^{-1} f(\rho(g)x).$$

    If the mean is equivariant, d has the mean zero for every g, input and output. Its z-score is
    Student's t over the M members, $t = \sqrt M\,\bar d / s$, turned into a standard normal variable by
    $z = \pm\frac{8\nu + 1}{8\nu + 3}\sqrt{\nu\ln(1 + t^2/\nu)}$ with $\nu = M - 1$ (Wallace 1959).
    Many z-scores are looked at, so the largest one is compared with what it would be by chance: all
    deviations of a member get a random sign, together, again and again. That keeps how they depend on each
    other, and p is the fraction of draws with as large a largest |t| (Westfall & Young 1993): uniformly
    distributed for an equivariant mean, exactly if a member's deviations are as likely as their negatives,
    and for many members in any case. Where no draw is as large, p is the smaller of 1 / (resamples + 1)
    and Bonferroni's bound.

    A small p says that the symmetry is broken. A large one says that these members do not show it: look at
    `error` for what they could have shown.

    Args:
        predictions: one array for every member on the orbit, shape (members, |G|, ...) with at least eight
            members that were drawn and trained independently; with label_matrices
            (members, |G|, ..., outputs). Any framework's will do. Keep the precision they were computed in:
            deviations that are smaller than its rounding count as zero.
        label_matrices: ρ_Y, shape (|G|, outputs, outputs), for outputs that move with the input; from
            `nteq.actions.matrices_of`. None for outputs that do not move.
        resamples: how often signs are drawn, at least 99.
        seed: of the drawing.

    Returns:
        A `SymmetryTest`, which holds p and arrays of shape (|G|, ...): z-scores, mean deviations and their
        standard errors.

    Raises:
        ValueError: fewer than eight members or two orbit elements, an empty or non-finite array, matrices of
            another shape or without an inverse, too few resamples.

    >>> members = np.random.default_rng(0).normal(size=(400, 4, 10))  # 10 inputs, turned 4 times
    >>> fair = symmetry_test(members)
    >>> broken = symmetry_test(members + np.arange(4)[:, None] / 2)
    >>> fair.p > 0.01, broken.p < 1e-10, broken.z.shape
    (True, True, (4, 10))
    """
    caller = "symmetry_test"
    array = _members(caller, predictions, 1 if label_matrices is None else 2)
    if array.shape[0] < 8 or array.shape[1] < 2 or array[0].size < 2:
        raise ValueError(
            f"{caller}: predictions must hold at least eight members on at least two orbit elements, got "
            f"shape {array.shape}. Train more of them, from random starts that are drawn independently."
        )
    resamples = _checks.count(caller, "resamples", resamples, least=99)
    rounding = 32 * float(np.finfo(array.dtype).eps)
    answers = np.asarray(array, dtype=float)
    if label_matrices is not None:
        at = jnp.moveaxis(array, 1, 0)
        moved = _checks.look(lambda: _moved_back(_inverse(caller, at, label_matrices), at))
        answers = np.moveaxis(moved, 0, 1).astype(float)
    own = answers - answers.mean(1, keepdims=True)
    own[np.abs(own) <= rounding * np.abs(answers).max(1, keepdims=True)] = 0
    members, shape = len(own), own.shape[1:]
    own = own.reshape(members, -1)
    mean, size = own.mean(0), np.sqrt((own**2).sum(0))
    unit = own / np.maximum(size, _TINY)
    # the cosine between the deviations and a column of ones; t, whatever the signs, is a function of it
    cosine = np.clip(unit.sum(0) / members**0.5, -1, 1)
    free = members - 1
    with np.errstate(divide="ignore"):
        t = cosine * np.sqrt(free) / np.sqrt(1 - cosine**2)
        z = np.sign(cosine) * np.sqrt(-free * np.log1p(-(cosine**2))) * (8 * free + 1) / (8 * free + 3)
    largest = np.abs(cosine).max() * (1 - 1e-12) * members**0.5
    as_large = (_largest_by_chance(unit, resamples, seed) >= largest).sum()
    p = (1 + as_large) / (1 + resamples)
    if not as_large:
        p = min(p, 2 * stdtr(free, -np.abs(t).max()) * t.size)
    error = np.sqrt(np.maximum(size**2 / members - mean**2, 0) / free)
    return SymmetryTest(float(p), z.reshape(shape), mean.reshape(shape), error.reshape(shape))


def _largest_by_chance(unit: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The largest of the columns' sums in absolute value, for random signs of the rows."""
    rng = np.random.default_rng(seed)
    unit, members = unit.astype(np.float32), len(unit)
    rows = max(1, 2**24 // members)  # so many at once take 64 MB
    largest = []
    for start in range(0, resamples, rows):
        signs = 2 * rng.integers(0, 2, (min(rows, resamples - start), members), dtype=np.int8) - 1
        largest.append(np.abs(signs.astype(np.float32) @ unit).max(1))
    return np.concatenate(largest)


@partial(jax.jit, static_argnames="metric")
def _average(metric: Callable[[Array], Array], f: Array, members: Array | np.ndarray) -> Array:
    """Of the metric over the means of sub-ensembles, whose members have shape (sub-ensembles, size)."""
    return jax.vmap(metric)(f[members].mean(1)).mean()


def _orbit(caller: str, predictions: ArrayLike, trailing: int) -> Array:
    """The array with floating-point entries, (|G|, ...) and as many trailing axes as the metric uses up."""
    f = _checks.real(caller, "predictions", predictions)
    if f.ndim < 1 + trailing or f.shape[0] < 2 or f.size == 0:
        shape = "(|G|, ..., outputs)" if trailing else "(|G|, ...)"
        raise ValueError(
            f"{caller}: predictions must have shape {shape} with at least two orbit elements in "
            f"front, got shape {f.shape}. Evaluate the model on nteq.actions.orbit(action, x)."
        )
    return f


def _members(caller: str, predictions: ArrayLike, trailing: int) -> Array:
    f = _checks.real(caller, "predictions", predictions)
    if f.ndim < 1 + trailing or f.size == 0:
        shape = "(members, |G|, ..., outputs)" if trailing > 1 else "(members, |G|, ...)"
        raise ValueError(f"{caller}: predictions must have shape {shape}, got shape {f.shape}.")
    return f


def _spread_of_members(own: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each input, of deviations (input, member, entry): v, the rank of S in effect, and ν."""
    _, members, entries = own.shape
    free = members - 1
    v = (own**2).sum((1, 2)) / (free * order)
    # tr S² is the squared norm of either product of the deviations with themselves
    product = own @ own.swapaxes(1, 2) if entries > members else own.swapaxes(1, 2) @ own
    square = ((product / (free * order)) ** 2).sum((1, 2))
    rank = np.clip(v**2 / np.maximum(square, _TINY), 1, entries - entries // order)
    squares = (own**2).sum(2) * members / (free * order)
    scatter = squares.var(1, ddof=1) / members  # of v
    return v, rank, np.minimum(free * rank, np.maximum(2 * v**2 / np.maximum(scatter, _TINY), 1))


def _scaled(f: Array, axes: int | tuple[int, ...]) -> Array:
    """Times a power of two for each input, which rounds nothing, so that squares stay within range."""
    exponent = jnp.frexp(jax.lax.stop_gradient(jnp.abs(f).max(axes, keepdims=True)))[1]
    least = int(np.finfo(f.dtype).minexp)
    return f * jnp.ldexp(jnp.ones((), f.dtype), jnp.clip(-exponent, least, -least))


def _inverse(caller: str, f: Array | np.ndarray, label_matrices: ArrayLike) -> Array:
    """ρ_Y(g)⁻¹ for f of shape (|G|, ..., outputs)."""
    rho = _checks.real(caller, "label_matrices", label_matrices)
    expected = (f.shape[0], f.shape[-1], f.shape[-1])
    if rho.shape != expected:
        raise ValueError(
            f"{caller}: label_matrices must have shape {expected}, elements of the group and outputs of the "
            f"predictions, got {rho.shape}. nteq.actions.matrices_of makes them."
        )
    inverse = jnp.linalg.inv
    if _checks.is_known(rho) and not _checks.are_finite(_checks.look(lambda: inverse(rho))):
        raise ValueError(
            f"{caller}: label_matrices has a matrix without an inverse, so it is no representation."
        )
    return inverse(rho)


@jax.jit
def _moved_back(inverse: Array, f: Array) -> Array:
    return einsum("gij,g...j->g...i", inverse.astype(f.dtype), f)
