r"""Averages of a kernel over a group: what augmentation does to an infinite ensemble, exactly.

Training with the averaged kernel on n points is training with the kernel itself on all |G| n images, and a
network of group convolutions has the averaged kernel of the plain one. Both ask for a kernel that is
invariant under the group, which is tested on a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq import _checks
from nteq.actions import Action
from nteq.kernels import Kernels, _as_kernels

__all__ = ["invariance_defect", "orbit_average"]


def orbit_average(
    kernel: Callable[[ArrayLike, ArrayLike], Kernels],
    action: Action,
    label_matrices: ArrayLike | None = None,
    check: bool = True,
) -> Callable[[ArrayLike, ArrayLike], Kernels]:
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
        label_matrices. It is a value as the kernel is one: a pytree, equal to what equal arguments make.
        A call takes |G| calls of the kernel, and with check, where x2 is known, one of four inputs for each
        generator of the group and one more. A `cnn_kernel` takes all g together, and with check, if x1 and
        x2 are the same object, κ(g) = Θ(x, ρ(g)x) and its transpose κ(g⁻¹) once.

    Raises:
        ValueError: kernel or action is not callable, label_matrices has another shape; when called: the
            kernel does not return `Kernels` of shape (n1, n2), or is not invariant under the action.

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
    if not isinstance(action, Action):
        raise ValueError(
            f"orbit_average: action must be an nteq.actions.Action, got {action!r}. "
            "Give on_lattices(cyclic(4)), not the group alone."
        )
    if label_matrices is not None:
        label_matrices = _checks.real("orbit_average", "label_matrices", label_matrices)
        order, shape = action.group.order, label_matrices.shape
        if len(shape) != 3 or shape[0] != order or shape[1] != shape[2]:
            raise ValueError(
                f"orbit_average: label_matrices must have shape ({order}, outputs, outputs), got {shape}."
            )
    return _OrbitAverage(kernel, action, label_matrices, bool(check), bool(check))


def invariant_average(kernel: Callable[[ArrayLike, ArrayLike], Kernels], action: Action) -> _OrbitAverage:
    """`orbit_average` of a kernel that is invariant by construction, so that it need not be checked."""
    return _OrbitAverage(kernel, action, None, False, True)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class _OrbitAverage:
    kernel: Callable[[ArrayLike, ArrayLike], Kernels]
    action: Action
    label_matrices: Array | None
    check: bool
    invariant: bool  # so that κ(g) = k(x, ρ(g)x) is the transpose of κ(g⁻¹)

    def __call__(self, x1: ArrayLike, x2: ArrayLike) -> Kernels:
        symmetric = self.invariant and x1 is x2
        x1, x2 = _checks.batch("orbit_average", "x1", x1), _checks.batch("orbit_average", "x2", x2)
        if self.check:
            require_invariance("orbit_average", self.kernel, self.action, x2)
        order = self.action.group.order
        if hasattr(self.kernel, "orbit_sums"):
            weights = np.ones(order) if self.label_matrices is None else self.label_matrices
            return self.kernel.orbit_sums(x1, x2, self.action, weights / order, symmetric)
        totals: list[Array] = []
        for g in range(order):
            values = self.kernel(x1, self.action(g, x2))
            terms = list(_as_kernels("orbit_average", values, (x1.shape[0], x2.shape[0])))
            if self.label_matrices is not None:
                moved = self.label_matrices[g].astype(terms[0].dtype)
                terms = [term[:, :, None, None] * moved[None, None] for term in terms]
            totals = [a + b for a, b in zip(totals, terms, strict=True)] if totals else terms
        return Kernels(*(total / order for total in totals))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _OrbitAverage):
            return NotImplemented
        mine, theirs = self.label_matrices, other.label_matrices
        same_labels = mine is theirs or (
            mine is not None and theirs is not None and np.array_equal(np.asarray(mine), np.asarray(theirs))
        )
        return self._hashable() == other._hashable() and same_labels

    def __hash__(self) -> int:
        return hash(self._hashable())

    def _hashable(self) -> tuple[Any, ...]:
        return self.kernel, self.action, self.check, self.invariant

    def tree_flatten(self) -> tuple[tuple[Any, Any], tuple[Any, Action, bool, bool]]:
        # a function that is no pytree is static, as the action is
        opaque = jax.tree_util.treedef_is_leaf(jax.tree.structure(self.kernel))
        children = (None if opaque else self.kernel), self.label_matrices
        return children, ((self.kernel if opaque else None), self.action, self.check, self.invariant)

    @classmethod
    def tree_unflatten(
        cls, static: tuple[Any, Action, bool, bool], children: tuple[Any, Any]
    ) -> _OrbitAverage:
        opaque, action, check, invariant = static
        return cls(children[0] if opaque is None else opaque, action, children[1], check, invariant)


def invariance_defect(kernel: Callable[..., Kernels], action: Action, x: ArrayLike) -> float:
    r"""How far a kernel is from $k(\rho(g)x, \rho(g)x') = k(x, x')$, on four inputs.

    $$\max_{g,\,x,\,x'}\ |k(\rho(g)x, \rho(g)x') - k(x, x')|\ /\ \max_{x,\,x'} |k(x, x')|,$$

    the larger of the two for NNGP and NTK, over generators g of the group: what holds for them at all x
    holds for the group.

    Args:
        kernel: k(x1, x2) -> Kernels.
        action: an `nteq.actions.Action` on the inputs.
        x: inputs, shape (n, *features), of which the first four are used.

    Returns:
        The largest defect that was found, relative to the largest kernel value; NaN if a value is NaN.

    Raises:
        ValueError: the inputs are traced, or the kernel does not return `Kernels` of their shape.

    >>> from nteq.actions import on_sets
    >>> from nteq.groups import symmetric
    >>> from nteq.kernels import mlp_kernel
    >>> x = jnp.array([[1.0, 2.0, 4.0], [0.5, -1.0, 0.0]])
    >>> invariance_defect(mlp_kernel(depth=1), on_sets(symmetric(3)), x) < 1e-6
    True
    """
    sample = _before_and_after("invariance_defect", kernel, action, x)
    if sample is None:
        raise ValueError(
            "invariance_defect: the kernel's values are traced. Call it outside of jit and grad."
        )
    return _defect(*sample)


def require_invariance(caller: str, kernel: Callable[..., Kernels], action: Action, x: ArrayLike) -> None:
    """Raises if the kernel is not invariant under the action, as far as `invariance_defect` sees.

    Where x or a parameter of the kernel is traced there is nothing to see.
    """
    sample = _before_and_after(caller, kernel, action, x)
    if sample is None:
        return
    worst = _defect(*sample)
    # √ε: what an arccos may leave
    if not worst <= 10 * float(jnp.finfo(sample[0].dtype).eps) ** 0.5:
        raise ValueError(
            f"{caller}: the kernel is not invariant under {action.name}, k(ρ(g)x, ρ(g)x′) differs from "
            f"k(x, x′) by {worst:.1e} of its largest value. Use an architecture and an initialisation with "
            "the symmetry, or write the images out; check=False goes on regardless."
        )


def _before_and_after(
    caller: str, kernel: Callable[..., Kernels], action: Action, x: Any
) -> tuple[np.ndarray, np.ndarray] | None:
    """NNGP and NTK of four inputs, and those of their images under each generator; None if traced."""
    if not _checks.is_known(x):
        return None
    with jax.ensure_compile_time_eval():  # x may be known inside of a trace
        x = _checks.batch(caller, "x", x)[:4]
        shape = (x.shape[0], x.shape[0])
        after = [_as_kernels(caller, kernel(x, x), shape)]
        for g in action.group.generators:
            images = action(g, x)
            after.append(_as_kernels(caller, kernel(images, images), shape))
        if not _checks.is_known(after):
            return None
        values = np.stack([np.stack([np.asarray(matrix) for matrix in kernels]) for kernels in after])
        return values[0], values


def _defect(before: np.ndarray, after: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # inf − inf: the NaN is the answer
        change = np.abs(after - before[None]).max(axis=(0, 2, 3))
    largest = np.abs(before).max(axis=(1, 2))
    # a kernel that is zero on the sample and on its images is invariant
    return float(np.max(np.where(change == 0, 0, change / np.where(largest == 0, np.nan, largest))))
