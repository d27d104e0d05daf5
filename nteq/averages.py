r"""Averages of a kernel over a group: what augmentation does to an infinite ensemble, exactly.

Training with the averaged kernel on n points is training with the kernel itself on all |G| n images, and a
network of group convolutions has the averaged kernel of the plain one. Both ask for a kernel that is
invariant under the group, which is tested on a sample.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nteq.kernels import Kernels

__all__ = ["invariance_defect", "orbit_average"]


def orbit_average(
    kernel: Callable[[ArrayLike, ArrayLike], Kernels],
    action,
    label_matrices: ArrayLike | None = None,
    check: bool = True,
) -> Callable:
    r"""The kernel averaged over a group: training with it on n points is training on all |G| n images.

    $$\bar\Theta(x, x') = \frac{1}{|G|}\sum_{g\in G}\Theta(x, \rho(g)x'), \qquad
    \bar\Theta_{ab}(x, x') = \frac{1}{|G|}\sum_{g\in G}\Theta(x, \rho(g)x')\,\rho_Y(g)_{ab}$$

    and the same for K; the second form is for labels that move, $y \to \rho_Y(g)y$. If Θ is invariant,
    Θ(ρ(g)x, ρ(g)x') = Θ(x, x'), then Θ̄ is symmetric and invariant in each argument alone, and the mean of
    the infinite ensemble on the augmented data is that of Θ̄ on the plain data, at the same t. (For its
    covariance K̄ alone is not enough: that needs K(x, x') itself, see `GradientFlow.augmented`.)
    Also the kernel of a group convolutional network (Misof et al. 2025).

    Args:
        kernel: k(x1, x2) -> Kernels, invariant under the action.
        action: an `nteq.actions.Action` on the inputs.
        label_matrices: $\rho_Y$, shape (|G|, outputs, outputs), as `nteq.actions.matrices_of` gives it.
        check: whether to test the kernel's invariance on a sample of the inputs.

    Returns:
        A function of x1 and x2 to `Kernels`, of shape (n1, n2), or (n1, n2, outputs, outputs) with
        label_matrices.

    Raises:
        ValueError: kernel or action is not callable, label_matrices has another shape; when called: the
            kernel is not invariant under the action.

    >>> from nteq.actions import on_lattices
    >>> from nteq.groups import cyclic
    >>> from nteq.kernels import mlp_kernel
    >>> average = orbit_average(mlp_kernel(depth=1), on_lattices(cyclic(4)))
    >>> x = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> bool(jnp.allclose(average(x, x).ntk, average(x, jnp.rot90(x, axes=(1, 2))).ntk))
    True
    """
    if not callable(kernel):
        raise ValueError(f"orbit_average: kernel must be callable, got {kernel!r}.")
    if not callable(action) or not hasattr(action, "group"):
        raise ValueError(
            f"orbit_average: action must be an nteq.actions.Action, got {action!r}. "
            "Give on_lattices(cyclic(4)), not the group alone."
        )
    order = action.group.order
    if label_matrices is None:
        weights = np.ones(order)
    else:
        weights = np.asarray(label_matrices, dtype=float)
        if weights.ndim != 3 or len(weights) != order or weights.shape[1] != weights.shape[2]:
            raise ValueError(
                f"orbit_average: label_matrices must have shape ({order}, outputs, outputs), "
                f"got {weights.shape}."
            )

    def average(x1, x2):
        if check and not isinstance(x2, jax.core.Tracer):
            require_invariance("orbit_average", kernel, action, x2)
        totals = [0.0, 0.0]
        for g in range(order):
            for i, k in enumerate(kernel(x1, action(g, x2))):
                totals[i] = totals[i] + jnp.multiply.outer(k, jnp.asarray(weights[g], k.dtype))
        return Kernels(*(total / order for total in totals))

    return average


def invariance_defect(kernel: Callable, action, x: ArrayLike) -> float:
    r"""How far a kernel is from $k(\rho(g)x, \rho(g)x') = k(x, x')$, on four inputs and eight elements.

    $$\max_{g,\,x,\,x'}\ |k(\rho(g)x, \rho(g)x') - k(x, x')|\ /\ \max_{x,\,x'} |k(x, x')|,$$

    the larger of the two for NNGP and NTK.

    Args:
        kernel: k(x1, x2) -> Kernels.
        action: an `nteq.actions.Action` on the inputs.
        x: inputs, shape (n, *features), of which the first four are used.

    Returns:
        The largest defect that was found, relative to the largest kernel value.

    >>> from nteq.actions import on_sets
    >>> from nteq.groups import symmetric
    >>> from nteq.kernels import mlp_kernel
    >>> x = jnp.array([[1.0, 2.0, 4.0], [0.5, -1.0, 0.0]])
    >>> invariance_defect(mlp_kernel(depth=1), on_sets(symmetric(3)), x) < 1e-6
    True
    """
    x = jnp.asarray(x)[:4]
    still = kernel(x, x)
    elements = np.random.default_rng(0).permutation(action.group.order)[:8]
    worst = 0.0
    for g in elements:
        images = action(g, x)
        for before, after in zip(still, kernel(images, images), strict=True):
            worst = max(worst, float(jnp.abs(after - before).max() / jnp.abs(before).max()))
    return worst


def require_invariance(caller: str, kernel: Callable, action, x: ArrayLike) -> None:
    """Raises if the kernel is not invariant under the action, as far as `invariance_defect` sees."""
    worst = invariance_defect(kernel, action, x)
    # √ε: what an arccos may leave
    if not worst <= 10 * float(jnp.finfo(jnp.result_type(x, float)).eps) ** 0.5:
        raise ValueError(
            f"{caller}: the kernel is not invariant under {action.name}, k(ρ(g)x, ρ(g)x′) differs from "
            f"k(x, x′) by {worst:.1e} of its largest value. Use an architecture and an initialisation with "
            "the symmetry, or write the images out; check=False goes on regardless."
        )
