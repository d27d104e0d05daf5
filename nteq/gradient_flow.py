r"""The infinite ensemble trained by gradient flow, solved in closed form.

At infinite width the mean prediction over initialisations obeys a linear equation whose matrix is the NTK of
the training data. `GradientFlow` diagonalises that matrix once and then answers for every time.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

__all__ = ["GradientFlow"]


class GradientFlow:
    r"""An infinite ensemble of infinitely wide networks under gradient flow on the squared loss.

    With $L = \frac{1}{2N}\sum_i |f(x_i) - y_i|^2$ and learning rate η the mean over initialisations is

    $$\mu_t(x) = \Theta(x, X)\,\Theta(X, X)^{-1}\left(\mathbb{1} - e^{-\eta\Theta(X,X)t/N}\right)Y$$

    (Jacot et al. 2018; Lee et al. 2019, eq. 10.) neural-tangents divides t by `y_train.size`, this class by
    the number of points N: they differ when there are several outputs.

    Args:
        kernel: k(x1, x2) -> Kernels, as `nteq.kernels` makes them; its `ntk` is Θ.
        x: training inputs, shape (N, *features).
        y: training labels, shape (N,) or (N, outputs).
        learning_rate: η, positive; it sets the unit of time.

    Raises:
        ValueError: shapes that do not fit, entries that are not finite, labels that are not numbers, a
            learning rate that is not positive, or a training Gram matrix that is not symmetric and positive
            semidefinite.

    >>> from nteq.kernels import mlp_kernel
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, -1.0])
    >>> flow = GradientFlow(mlp_kernel(depth=1), x, y)
    >>> flow.mean(x, t=jnp.inf).round(4)
    Array([ 1., -1.], dtype=float32)
    """

    def __init__(self, kernel: Callable, x: ArrayLike, y: ArrayLike, learning_rate: float = 1.0):
        x, y = jnp.asarray(x), jnp.asarray(y)
        if not callable(kernel):
            raise ValueError(f"GradientFlow: kernel must be a function k(x1, x2) -> Kernels, got {kernel!r}.")
        if y.ndim not in (1, 2) or y.shape[0] != x.shape[0] or y.size == 0:
            raise ValueError(
                f"GradientFlow: y must have shape (N,) or (N, outputs) with N = {x.shape[0]} as in x, "
                f"got shape {y.shape}."
            )
        if jnp.issubdtype(y.dtype, jnp.complexfloating) or not jnp.isfinite(y).all():
            raise ValueError("GradientFlow: y must hold finite real numbers. Remove missing labels first.")
        if not np.isfinite(learning_rate) or learning_rate <= 0:
            raise ValueError(
                f"GradientFlow: learning_rate must be positive and finite, got {learning_rate!r}."
            )
        gram = kernel(x, x).ntk
        if gram.shape != (x.shape[0], x.shape[0]):
            raise ValueError(
                f"GradientFlow: kernel(x, x).ntk must have shape {(x.shape[0], x.shape[0])}, "
                f"got {gram.shape}."
            )
        # √ε: what neural-tangents' arccos leaves on the diagonal; a real defect is far larger
        slack = 10 * jnp.sqrt(jnp.finfo(gram.dtype).eps) * jnp.abs(gram).max()
        if not jnp.isfinite(gram).all() or jnp.abs(gram - gram.T).max() > slack:
            raise ValueError(
                "GradientFlow: the training Gram matrix Θ(X, X) is not finite and symmetric, "
                f"largest |Θ − Θᵀ| = {jnp.abs(gram - gram.T).max():.1e}. Is the kernel one?"
            )
        eigenvalues, self._vectors = jnp.linalg.eigh((gram + gram.T) / 2)
        if eigenvalues[0] < -slack:
            raise ValueError(
                "GradientFlow: the training Gram matrix Θ(X, X) is not positive semidefinite, "
                f"smallest eigenvalue {eigenvalues[0]:.1e}, largest {eigenvalues[-1]:.1e}."
            )
        self._kernel, self._x = kernel, x
        self._eigenvalues = jnp.maximum(eigenvalues, 0)
        self._labels = self._vectors.T @ y.astype(gram.dtype)
        self._rate = learning_rate / x.shape[0]

    def mean(self, x: ArrayLike, t: ArrayLike) -> Array:
        r"""The mean prediction $\mu_t(x)$ of the ensemble after training for time t.

        Evaluated as Θ(x, X) V φ(λ, t) Vᵀ Y with φ(λ, t) = (1 − e^(−ηλt/N))/λ and φ(0, t) = ηt/N, which is
        right when training points repeat: Θ(x, X) has no component along a null vector of Θ(X, X), so at
        t = ∞ those directions are left out.

        Args:
            x: inputs, shape (n, *features).
            t: the time, a scalar or an array, each ≥ 0 or inf; in units of 1/η.

        Returns:
            Array of shape (*t.shape, n) or (*t.shape, n, outputs).

        Raises:
            ValueError: a time that is negative or NaN; inputs that do not fit the kernel.
        """
        t = np.asarray(t, dtype=float)
        if np.isnan(t).any() or (t < 0).any():
            raise ValueError(f"GradientFlow.mean: t must be ≥ 0 (inf is allowed), got {t}.")
        rows = self._kernel(x, self._x).ntk @ self._vectors
        answers = [self._mean_at(rows, float(s)) for s in t.ravel()]
        return jnp.stack(answers).reshape(*t.shape, *answers[0].shape)

    def _mean_at(self, rows: Array, t: float) -> Array:
        phi = _phi(self._eigenvalues, self._rate * t)
        return (rows * phi) @ self._labels


def _phi(eigenvalues: Array, tau: float) -> Array:
    """φ(λ, τ) = (1 − e^(−λτ))/λ, with φ(0, τ) = τ and, once τ would only amplify rounding, 0."""
    largest, eps = float(eigenvalues[-1]), float(jnp.finfo(eigenvalues.dtype).eps)
    null = eigenvalues <= len(eigenvalues) * eps * largest
    of_null = tau if tau * largest * eps**0.5 < 1 else 0.0
    safe = jnp.where(null, 1.0, eigenvalues)
    decay = -jnp.expm1(-safe * tau) if tau < np.inf else jnp.ones_like(safe)
    return jnp.where(null, of_null, decay / safe)
