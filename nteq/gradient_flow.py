r"""The infinite ensemble trained by gradient flow, solved in closed form, plain or fully augmented.

At infinite width the networks of an ensemble are Gaussian at every training time, and the mean and covariance
of their predictions obey linear equations whose matrix is the NTK of the training data. `GradientFlow`
diagonalises it once and then answers for every time. On a fully augmented training set the matrix commutes
with the group, so it is diagonalised block by block, without ever being written out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq.actions import Action, matrices_of
from nteq.averages import require_invariance
from nteq.fourier import Irrep, irreps
from nteq.groups import cyclic
from nteq.kernels import Kernels

__all__ = ["GradientFlow"]

_ROWS = 2**28  # bytes of kernel values that are computed in one go

_KEPT = 2**25  # bytes of kernel values that are kept until the covariance has used them, too


@dataclass(frozen=True, eq=False)
class _Block:
    """The part of the training Gram matrix that belongs to one irrep σ: B = Σ_u σ(u) ⊗ Θ(X, ρ(u)X).

    σ is taken as `Irrep.unitary`; where that is half of a real irrep, the block counts twice, by its real
    part.
    """

    irrep: Irrep
    eigenvalues: Array
    vectors: Array

    @property
    def weight(self) -> int:
        return 1 if self.irrep.kind == "real" else 2


class GradientFlow:
    r"""An infinite ensemble of infinitely wide networks under gradient flow on the squared loss.

    With $L = \frac{1}{2N}\sum_i |f(x_i) - y_i|^2$ and learning rate η the predictions are Gaussian over
    initialisations. With $A_t(x) = \Theta(x, X)\,\Theta(X, X)^{-1}(\mathbb{1} - e^{-\eta\Theta(X,X)t/N})$

    $$\mu_t(x) = A_t(x)\,Y, \qquad
    \Sigma_t(x, x') = K(x, x') + A_t(x)K(X, X)A_t(x')^\top - A_t(x)K(X, x') - K(x, X)A_t(x')^\top$$

    (Jacot et al. 2018; Lee et al. 2019, eqs. 10 and 11.) neural-tangents divides t by `y_train.size`, this
    class by the number of points N: they differ when there are several outputs. `GradientFlow.augmented` is
    the same for a training set with all of its images.

    Args:
        kernel: k(x1, x2) -> Kernels, as `nteq.kernels` makes them.
        x: training inputs, shape (N, *features).
        y: training labels, shape (N,) or (N, outputs).
        learning_rate: η, positive; it sets the unit of time.
        max_bytes: how much memory the matrices may take; the machine's by default.

    Raises:
        ValueError: shapes that do not fit, entries that are not finite, labels that are not numbers, a
            learning rate that is not positive, or a training Gram matrix that is not symmetric and positive
            semidefinite.
        MemoryError: before anything is allocated, if the matrices would not fit.

    >>> from nteq.kernels import mlp_kernel
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, -1.0])
    >>> flow = GradientFlow(mlp_kernel(depth=1), x, y)
    >>> flow.mean(x, t=jnp.inf).round(4)
    Array([ 1., -1.], dtype=float32)
    """

    def __init__(
        self,
        kernel: Callable,
        x: ArrayLike,
        y: ArrayLike,
        learning_rate: float = 1.0,
        max_bytes: float | None = None,
    ):
        self._action = Action(cyclic(1), lambda g, x: x, name="identity")
        self._label_matrices = None
        self._solve(kernel, x, y, learning_rate, max_bytes)

    @classmethod
    def augmented(
        cls,
        kernel: Callable,
        x: ArrayLike,
        y: ArrayLike,
        action: Action,
        label_action: Action | None = None,
        learning_rate: float = 1.0,
        max_bytes: float | None = None,
        check: bool = True,
    ) -> GradientFlow:
        r"""The infinite ensemble trained on all |G| n images $(\rho(g)x_i, \rho_Y(g)y_i)$ of n points.

        Exactly that of `GradientFlow` on the images written out, at the same t, at a fraction of its cost.
        With $\kappa(u)_{ij} = \Theta(x_i, \rho(u)x_j)$ the augmented Gram matrix is
        $\sum_u\kappa(u)\otimes R(u)$ with the right translations R of G, so an irrep σ of dimension d
        contributes one block $\sum_u D_\sigma(u)\otimes\kappa(u)$ of size d n; where σ is complex, it
        stands for its conjugate as well. The mean needs the irreps that occur in the labels only, for
        invariant labels a single n × n matrix; the covariance needs all.

        Args:
            kernel: k(x1, x2) -> Kernels, invariant under the action: k(ρ(g)x1, ρ(g)x2) = k(x1, x2).
            x: training inputs before augmentation, shape (n, *features).
            y: their labels, shape (n,) or (n, outputs).
            action: ρ, an exact action on the inputs.
            label_action: ρ_Y, a linear action on arrays of shape (n, outputs); None for labels that stay.
            learning_rate: η, positive; it sets the unit of time.
            max_bytes: how much memory the matrices may take; the machine's by default.
            check: whether to test the kernel's invariance on a sample.

        Raises:
            ValueError: as `GradientFlow`; also an action that is not exact, a kernel that is not invariant,
                or labels that the label action does not take.
            MemoryError: before anything is allocated, if the matrices would not fit.

        >>> from nteq.actions import on_lattices
        >>> from nteq.kernels import mlp_kernel
        >>> x, y = jax.random.normal(jax.random.key(0), (3, 4, 4)), jnp.array([1.0, 2.0, 3.0])
        >>> turn = on_lattices(cyclic(4))
        >>> flow = GradientFlow.augmented(mlp_kernel(depth=1), x, y, turn)
        >>> bool(jnp.allclose(flow.mean(x, t=5.0), flow.mean(turn(1, x), t=5.0)))
        True
        """
        if not isinstance(action, Action):
            raise ValueError(
                f"GradientFlow.augmented: action must be an nteq.actions.Action, got {action!r}. "
                "Give on_lattices(cyclic(4)), not the group alone."
            )
        if not action.exact:
            raise ValueError(
                f"GradientFlow.augmented: {action.name} interpolates, so the images of a point are no orbit "
                "and the augmented Gram matrix has no symmetry. Write the images out: "
                "GradientFlow(kernel, orbit(action, x).reshape(-1, *x.shape[1:]), jnp.tile(y, |G|))."
            )
        flow = cls.__new__(cls)
        flow._action, flow._label_matrices = action, None
        x, y = jnp.asarray(x), jnp.asarray(y)
        if check:
            require_invariance("GradientFlow.augmented", kernel, action, x)
        if label_action is not None:
            if label_action.group is not action.group:
                if (label_action.group.table.shape != action.group.table.shape) or (
                    label_action.group.table != action.group.table
                ).any():
                    raise ValueError(
                        f"GradientFlow.augmented: label_action is one of {label_action.group!r}, "
                        f"action of {action.group!r}; both must be actions of the same group."
                    )
            if y.ndim != 2:
                raise ValueError(
                    "GradientFlow.augmented: labels that move must have shape (n, outputs), "
                    f"got {y.shape}. Leave label_action out for labels that stay."
                )
            flow._label_matrices = matrices_of(label_action, y.shape[1])
        flow._solve(kernel, x, y, learning_rate, max_bytes)
        return flow

    def _solve(self, kernel, x, y, learning_rate, max_bytes):
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
        self._kernel, self._x, self._max_bytes, self._kept = kernel, x, max_bytes, {}
        self._dtype = jnp.result_type(x.dtype, jnp.float32)
        self._rate = learning_rate / (self._order * x.shape[0])
        needed = [s for s in irreps(self._action.group) if self._occurs_in_labels(s)]
        self._check_memory(needed, matrices=1)
        self._blocks = [
            self._diagonalise(s, gram) for s, gram in zip(needed, self._grams([("ntk", needed)]), strict=True)
        ]
        self._dtype = self._blocks[0].eigenvalues.dtype
        self._shape_of_output = y.shape[1:]
        labels = y.reshape(y.shape[0], -1).astype(self._dtype)
        self._labels = []
        for block in self._blocks:
            adjoint = self._cast(block.irrep.unitary[1]).conj()
            if self._label_matrices is None:
                transformed = jnp.einsum("gkb,io->kbio", adjoint, labels)
            else:
                moved = jnp.einsum("goq,iq->gio", self._cast(self._label_matrices), labels)
                transformed = jnp.einsum("gkb,gio->kbio", adjoint, moved)
            flat = transformed.reshape(block.irrep.multiplicity, -1, labels.shape[1])
            self._labels.append(jnp.einsum("pe,kpo->keo", block.vectors.conj(), flat))

    @property
    def _order(self) -> int:
        return self._action.group.order

    def _occurs_in_labels(self, irrep: Irrep) -> bool:
        if self._label_matrices is None:
            return irrep is irreps(self._action.group)[0]
        character = np.trace(self._label_matrices, axis1=1, axis2=2)
        return np.mean(irrep.character * character) > 0.5  # a whole number, d/m times how often it occurs

    def _cast(self, array: np.ndarray) -> Array:
        """A real or complex array in the precision of the kernel."""
        return jnp.asarray(
            array, jnp.result_type(self._dtype, jnp.complex64) if np.iscomplexobj(array) else self._dtype
        )

    def _check_memory(self, irreps_of_blocks: list[Irrep], matrices: int, tests: int = 0) -> None:
        n, bytes_each = self._x.shape[0], jnp.dtype(self._dtype).itemsize
        blocks = []
        for irrep in irreps_of_blocks:
            sigma = irrep.unitary[0]
            blocks.append((1 + np.iscomplexobj(sigma)) * (sigma.shape[1] * n) ** 2)
        # all blocks, the workspace of the eigensolver for the largest, a kernel matrix, and the test rows
        needed = matrices * sum(blocks) + 3 * max(blocks) + 2 * n**2
        needed = bytes_each * (needed + 4 * tests * self._order * n + 4 * tests**2)
        allowed = self._max_bytes
        if allowed is None and hasattr(os, "sysconf"):
            allowed = 0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if allowed is not None and needed > allowed:
            raise MemoryError(
                f"GradientFlow: {n} points under a group of order {self._order}"
                + (f" and {tests} inputs" if tests else "")
                + f" need about {needed / 1e9:.3g} GB and {allowed / 1e9:.3g} GB are allowed. Reduce n (the "
                "memory grows with its square), give fewer inputs at a time, take float32 inputs, use a "
                "smaller group, or raise max_bytes."
            )

    def _joined_rows(self, x1: Array, x2: Array) -> Kernels:
        parts = list(self._rows(x1, x2))
        return parts[0] if len(parts) == 1 else Kernels(*map(jnp.concatenate, zip(*parts, strict=True)))

    def _rows(self, x1: Array, x2: Array):
        """kernel(x1, x2) in blocks of rows, so that its intermediate results stay small."""
        step = max(1, _ROWS // (8 * x2.shape[0]))
        return (self._kernel(x1[i : i + step], x2) for i in range(0, x1.shape[0], step))

    def _grams(self, wanted: list[tuple[str, list[Irrep]]]) -> list[Array]:
        """Σ_u σ(u) ⊗ κ(u) for κ = "ntk" or "nngp" and some irreps, from a kernel matrix for each u, u⁻¹."""
        group, x, n = self._action.group, self._x, self._x.shape[0]
        sums = [None] * sum(len(chosen) for _, chosen in wanted)
        for u in range(self._order):
            v = int(group.inverses[u])
            if v < u:
                continue
            whole = self._kept.get(u) or self._joined_rows(x, self._image(u))
            if (self._order + 1) * n * n * whole.ntk.itemsize <= _KEPT:
                self._kept[u] = whole
            i = 0
            for which, chosen in wanted:
                kappa = getattr(whole, which)
                if kappa.shape != (n, n):
                    raise ValueError(
                        f"GradientFlow: kernel(x, x).{which} must have shape {(n, n)}, got {kappa.shape}."
                    )
                if u == group.identity:
                    self._check_symmetry(kappa, which)
                self._dtype = kappa.dtype
                for irrep in chosen:
                    sigma = self._cast(irrep.unitary[0][u])
                    if sums[i] is None:
                        sums[i] = jnp.zeros((len(sigma) * n,) * 2, sigma.dtype)
                    # the term of u⁻¹ is the adjoint of that of u
                    sums[i] = _add(sums[i], sigma / 2 if u == v else sigma, kappa)
                    i += 1
        sums = [_add_adjoint(total) for total in sums]
        if not all(jnp.isfinite(total).all() for total in sums):
            raise ValueError("GradientFlow: the kernel has values that are not finite on the training data.")
        return sums

    def _check_symmetry(self, kappa: Array, which: str) -> None:
        largest, apart = map(float, _largest_and_asymmetry(kappa))
        # √ε: what neural-tangents' arccos leaves on the diagonal; a real defect is far larger
        slack = 10 * float(jnp.finfo(kappa.dtype).eps) ** 0.5 * largest
        if apart > slack:
            raise ValueError(
                f"GradientFlow: the training Gram matrix of the {which} is not symmetric, "
                f"its largest |k(x, x′) − k(x′, x)| is {apart:.1e}. Is the kernel one?"
            )

    def _diagonalise(self, irrep: Irrep, gram: Array) -> _Block:
        eigenvalues, vectors = _eigh(gram)
        lowest, highest = float(eigenvalues[0]), float(jnp.abs(eigenvalues).max())
        self._largest = max(getattr(self, "_largest", 0.0), highest)
        slack = 10 * self._order * float(jnp.finfo(gram.dtype).eps) ** 0.5 * self._largest
        if lowest < -slack:
            raise ValueError(
                "GradientFlow: the training Gram matrix Θ(X, X) is not positive semidefinite, "
                f"smallest eigenvalue {lowest:.1e}, largest {highest:.1e}."
            )
        return _Block(irrep, jnp.maximum(eigenvalues, 0), vectors)

    @cached_property
    def _all_blocks(self) -> list[tuple[_Block, Array]]:
        """The block of every irrep and, beside it, Σ_u σ(u) ⊗ K(X, ρ(u)X)."""
        every = irreps(self._action.group)
        self._check_memory(every, matrices=2)
        known = {id(block.irrep): block for block in self._blocks}
        missing = [s for s in every if id(s) not in known]
        grams = self._grams([("nngp", every), ("ntk", missing)])
        nngp, ntk = grams[: len(every)], grams[len(every) :]
        self._kept.clear()
        del grams
        for irrep in missing:
            known[id(irrep)] = self._diagonalise(irrep, ntk.pop(0))
        return [(known[id(s)], gram) for s, gram in zip(every, nngp, strict=True)]

    def _phi(self, block: _Block, t: float) -> Array:
        return _phi(block.eigenvalues, self._rate * t, self._largest, self._order * self._x.shape[0])

    def _images(self):
        """The images ρ(h)X for h = 0, 1 and so on."""
        return (self._image(h) for h in range(self._order))

    def _image(self, h: int) -> Array:
        # act itself: the action would look at all of X again each time
        return self._x if h == self._action.group.identity else self._action.act(h, self._x)

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
        t, x = _times("mean", t), jnp.asarray(x)
        total = 0.0
        for image, weights in zip(self._images(), self._coefficients(t.ravel()), strict=True):
            total = total + jnp.concatenate([k.ntk @ weights for k in self._rows(x, image)])
        total = jnp.moveaxis(total.reshape(x.shape[0], t.size, *self._shape_of_output), 1, 0)
        return total.reshape(*t.shape, x.shape[0], *self._shape_of_output)

    def _coefficients(self, times: np.ndarray) -> Array:
        """α_t(h) with μ_t(x) = Σ_h Θ(x, ρ(h)X) α_t(h), shape (|G|, n, times · outputs)."""
        total = 0.0
        for block, labels in zip(self._blocks, self._labels, strict=True):
            basis, phi = block.irrep.unitary[1], jnp.stack([self._phi(block, float(t)) for t in times])
            part = jnp.einsum("pe,te,keo->kpto", block.vectors, phi, labels)
            part = part.reshape(*basis.shape[1:], self._x.shape[0], -1)
            total = total + block.weight * jnp.einsum("hkb,kbio->hio", self._cast(basis), part).real
        return total

    def covariance(self, x: ArrayLike, t: ArrayLike, x2: ArrayLike | None = None) -> Array:
        r"""The covariance $\Sigma_t(x, x')$ of the predictions over initialisations.

        It does not depend on the labels, and is the same for every output; different outputs are
        independent.

        Args:
            x: inputs, shape (n, *features).
            t: the time, a scalar or an array, each ≥ 0 or inf; in units of 1/η.
            x2: the inputs x′, shape (n2, *features); x itself if left out.

        Returns:
            Array of shape (*t.shape, n, n2).

        Raises:
            ValueError: a time that is negative or NaN; inputs that do not fit the kernel.
            MemoryError: before anything is allocated, if the blocks of all irreps would not fit.

        >>> from nteq.kernels import mlp_kernel
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> flow = GradientFlow(mlp_kernel(depth=1, W_std=2**0.5), x, jnp.array([1.0, -1.0]))
        >>> flow.covariance(x, jnp.inf).round(3) + 0.0  # no doubt is left where it was trained
        Array([[0., 0.],
               [0., 0.]], dtype=float32)
        """
        t, x = _times("covariance", t), jnp.asarray(x)
        other = x if x2 is None else jnp.asarray(x2)
        self._check_memory(irreps(self._action.group), matrices=2, tests=max(x.shape[0], other.shape[0]))
        ours = self._project(x)
        others = ours if x2 is None else self._project(other)
        prior = self._kernel(x, other).nngp
        answers = [self._covariance_at(s, prior, ours, others, "kxe,kze->xz") for s in t.ravel().tolist()]
        if x2 is None:
            answers = [(a + a.T) / 2 for a in answers]
        return jnp.stack(answers).reshape(*t.shape, *answers[0].shape)

    def _project(self, x: Array, mixing: np.ndarray | None = None) -> list[tuple[Array, Array]]:
        """Θ(x, ρ(h)X) in the eigenbasis and K(x, ρ(h)X) in the basis of every block, (k, n, d N) each.

        With a mixing matrix W, Σ_h′ W[h, h′] Θ(x, ρ(h′)X) takes the place of Θ(x, ρ(h)X).
        """
        rows = Kernels(
            *map(jnp.stack, zip(*(self._kernel(x, image) for image in self._images()), strict=True))
        )
        projected = []
        for block, _ in self._all_blocks:
            basis = block.irrep.unitary[1]
            if mixing is not None:
                basis = np.einsum("hi,hkb->ikb", mixing, basis)
            projected.append(_to_block(self._cast(basis), block.vectors, *rows))
        return projected

    def _covariance_at(self, t: float, prior: Array, ours, others, pairs: str) -> Array:
        """Σ_t of all pairs, "kxe,kze->xz", or of inputs at the same place, "kxe,kxe->x"; the prior is K."""
        total = prior
        for (block, gram), one, two in zip(self._all_blocks, ours, others, strict=True):
            change = _change(self._phi(block, t), block.vectors, gram, *one, *two, pairs)
            total = total + block.weight * change
        return total

    def orbit_variance(self, x: ArrayLike, t: ArrayLike) -> Array:
        r"""How much one member's answer fluctuates over the orbit of x, summed over outputs.

        $$\mathbb{E}\,\operatorname{Var}_g\bigl[\rho_Y(g)^{-1}f(\rho(g)x)\bigr] = k\,\Sigma_t(x, x)
        - \frac{1}{|G|}\sum_u\chi_Y(u)\,\Sigma_t(x, \rho(u)x)$$

        with k outputs and $\chi_Y$ the trace of $\rho_Y$; for invariant labels $\chi_Y = k$. The mean over
        M members fluctuates by this over M: the curve 1/√M of a finite ensemble, without training one. The
        mean $\mu_t$ does not fluctuate, since it is exactly equivariant.

        Args:
            x: inputs, shape (n, *features).
            t: the time, a scalar or an array, each ≥ 0 or inf; in units of 1/η.

        Returns:
            Array of shape (*t.shape, n), not negative.

        Raises:
            ValueError: the ensemble was not made by `GradientFlow.augmented`; a time that is negative or
                NaN; inputs that do not fit the kernel.
        """
        if self._order == 1:
            raise ValueError(
                "GradientFlow.orbit_variance: this ensemble has no group. "
                "Make it with GradientFlow.augmented(kernel, x, y, action)."
            )
        t, x = _times("orbit_variance", t), jnp.asarray(x)
        outputs = self._labels[0].shape[2]
        character = np.full(self._order, float(outputs))
        if self._label_matrices is not None:
            character = np.trace(self._label_matrices, axis1=1, axis2=2)
        # Σ_u χ(u) f(ρ(u)x)/|G| has the kernel Σ_u χ(u) Θ(x, ρ(u⁻¹h)X)/|G| with ρ(h)X: no new kernel values
        group = self._action.group
        mixing = character[group.table[:, group.inverses]] / self._order
        self._check_memory(irreps(group), matrices=2, tests=x.shape[0])
        ours, mean = self._project(x), self._project(x, mixing)
        prior = jnp.diagonal(self._kernel(x, x).nngp)
        prior_of_mean = sum(
            character[u] / self._order * jnp.diagonal(self._kernel(x, self._action(u, x)).nngp)
            for u in range(self._order)
        )
        answers = [
            outputs * self._covariance_at(s, prior, ours, ours, "kxe,kxe->x")
            - self._covariance_at(s, prior_of_mean, ours, mean, "kxe,kxe->x")
            for s in t.ravel().tolist()
        ]
        return jnp.maximum(jnp.stack(answers), 0).reshape(*t.shape, x.shape[0])

    def sample(self, key: Array, x: ArrayLike, t: float, members: int) -> Array:
        r"""Predictions of members drawn from $\mathcal{N}(\mu_t, \Sigma_t)$, without training a network.

        Args:
            key: a JAX random key.
            x: inputs, shape (n, *features); to compare members over an orbit, give all of it at once.
            t: the time, ≥ 0 or inf; in units of 1/η.
            members: how many, at least 1.

        Returns:
            Array of shape (members, n) or (members, n, outputs).

        Raises:
            ValueError: a time that is negative, NaN or not a single number, or members that is not a
                positive integer.

        >>> from nteq.kernels import mlp_kernel
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> flow = GradientFlow(mlp_kernel(depth=1), x, jnp.array([1.0, -1.0]))
        >>> flow.sample(jax.random.key(0), 3 * x, t=1.0, members=5).shape
        (5, 2)
        """
        if _times("sample", t).ndim:
            raise ValueError(f"GradientFlow.sample: t must be one time, got shape {np.shape(t)}.")
        if isinstance(members, bool) or not isinstance(members, int | np.integer) or members < 1:
            raise ValueError(f"GradientFlow.sample: members must be a positive integer, got {members!r}.")
        mean, covariance = self.mean(x, t), self.covariance(x, t)
        # Σ is singular on training points at late times: eigenvalues take a root where Cholesky fails
        eigenvalues, vectors = jnp.linalg.eigh(covariance)
        root = vectors * jnp.sqrt(jnp.maximum(eigenvalues, 0))
        noise = jax.random.normal(key, (members, *mean.shape), covariance.dtype)
        return mean + jnp.einsum("xe,me...->mx...", root, noise)

    @cached_property
    def _spectrum(self) -> np.ndarray:
        """All |G| n eigenvalues of the training Gram matrix."""
        return np.sort(
            np.concatenate(
                [np.repeat(b.eigenvalues, b.weight * b.irrep.multiplicity) for b, _ in self._all_blocks]
            )
        )

    @property
    def condition_number(self) -> float:
        """Largest over smallest eigenvalue of the training Gram matrix, inf if it is singular to rounding."""
        smallest, largest = float(self._spectrum[0]), float(self._spectrum[-1])
        rounding = len(self._spectrum) * float(jnp.finfo(self._dtype).eps) * largest
        return largest / smallest if smallest > rounding else np.inf

    @property
    def effective_rank(self) -> float:
        r"""$e^{H(p)}$ with the entropy H of the normalised eigenvalues p (Roy & Vetterli 2007): 1 … N."""
        p = self._spectrum / self._spectrum.sum()
        p = p[p > 0]
        return float(np.exp(-(p * np.log(p)).sum()))


@jax.jit
def _largest_and_asymmetry(kappa: Array) -> tuple[Array, Array]:
    return jnp.abs(kappa).max(), jnp.abs(kappa - kappa.T).max()


@partial(jax.jit, donate_argnames="total")
def _add(total: Array, sigma: Array, kappa: Array) -> Array:
    return total + jnp.kron(sigma, kappa)


@jax.jit
def _add_adjoint(total: Array) -> Array:
    return total + total.conj().T


@partial(jax.jit, donate_argnames="gram")
def _eigh(gram: Array) -> tuple[Array, Array]:
    return jnp.linalg.eigh(gram, symmetrize_input=False)


def _times(method: str, t: ArrayLike) -> np.ndarray:
    t = np.asarray(t, dtype=float)
    if np.isnan(t).any() or (t < 0).any():
        raise ValueError(f"GradientFlow.{method}: t must be ≥ 0 (inf is allowed), got {t}.")
    return t


@jax.jit
def _phi(eigenvalues: Array, tau: float, largest: float, points: int) -> Array:
    """φ(λ, τ) = (1 − e^(−λτ))/λ, with φ(0, τ) = τ and, once τ would only amplify rounding, 0."""
    eps = float(jnp.finfo(eigenvalues.dtype).eps)
    null = eigenvalues <= points * eps * largest
    of_null = jnp.where(tau * largest * eps**0.5 < 1, tau, 0)
    safe = jnp.where(null, 1, eigenvalues)
    return jnp.where(null, of_null, -jnp.expm1(-safe * tau) / safe)


@jax.jit
def _to_block(basis: Array, vectors: Array, nngp: Array, ntk: Array) -> tuple[Array, Array]:
    k, rows = basis.shape[1], ntk.shape[1]
    nngp, ntk = (jnp.einsum("hkb,hxj->kxbj", basis, m).reshape(k, rows, -1) for m in (nngp, ntk))
    return ntk @ vectors, nngp


@partial(jax.jit, static_argnames="pairs")
def _change(phi, vectors, gram, ntk1, nngp1, ntk2, nngp2, pairs: str) -> Array:
    """What training adds to the covariance in one block."""
    a1, a2 = ((ntk * phi) @ vectors.conj().T for ntk in (ntk1, ntk2))
    return (jnp.einsum(pairs, a1 @ gram - nngp1, a2.conj()) - jnp.einsum(pairs, a1, nngp2.conj())).real
