r"""The infinite ensemble trained by gradient flow, solved in closed form, plain or fully augmented.

At infinite width the networks of an ensemble are Gaussian at every training time, and the mean and covariance
of their predictions obey linear equations whose matrix is the NTK of the training data. `GradientFlow`
diagonalises it once and then answers for every time. On a fully augmented training set the matrix commutes
with the group, so it is diagonalised block by block, without ever being written out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nteq import _checks, spectrum
from nteq._products import einsum, matmul
from nteq.actions import Action, matrices_of
from nteq.averages import require_invariance
from nteq.fourier import Irrep, irreps
from nteq.groups import cyclic
from nteq.kernels import Kernels, _as_kernels
from nteq.spectrum import Block

__all__ = ["GradientFlow"]

_ROWS = 2**28  # bytes of kernel values that are computed in one go

_KEPT = 2**25  # bytes of kernel values that are kept until the covariance has used them, too

_SQUARE = 128  # inputs whose kernel matrix is computed for its diagonal


def _stay(g: ArrayLike, x: Array) -> Array:
    return x


_NO_GROUP = Action(cyclic(1), _stay, name="identity")


_STATIC = {"static": True}


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False, init=False, repr=False)
class GradientFlow:
    r"""An infinite ensemble of infinitely wide networks under gradient flow on the squared loss.

    With $L = \frac{1}{2N}\sum_i |f(x_i) - y_i|^2$ and learning rate η the predictions are Gaussian over
    initialisations. With $A_t(x) = \Theta(x, X)\,\Theta(X, X)^{-1}(\mathbb{1} - e^{-\eta\Theta(X,X)t/N})$

    $$\mu_t(x) &= A_t(x)\,Y, \\
    \Sigma_t(x, x') &= K(x, x') + A_t(x)K(X, X)A_t(x')^\top \\
    &\quad - A_t(x)K(X, x') - K(x, X)A_t(x')^\top$$

    (Jacot et al. 2018; Lee et al. 2019, eqs. 10 and 11.) neural-tangents divides t by `y_train.size`, this
    class by the number of points N: they differ when there are several outputs. `GradientFlow.augmented` is
    the same for a training set with all of its images.

    With a ridge r the loss is $L + \frac{r}{2N}|\theta - \theta_0|^2$, weight decay towards the
    initialisation, and $\Theta(X, X) + r\mathbb{1}$ takes the place of Θ(X, X) in $A_t$: `diag_reg` of
    neural-tangents with `diag_reg_absolute_scale=True`. It is as large as the variance of the noise that it
    allows for in the labels; the labels themselves are not made noisy, so $\Sigma_\infty$ lacks the
    $r A_\infty(x)A_\infty(x')^\top$ of a Bayesian posterior.

    A flow is a value: a pytree with arrays (inputs, labels, eigenvectors, learning rate, ridge, those of the
    kernel if it is a pytree) and static parts (any other kernel function, the action, max_bytes). It may be
    made inside `jit`, `vmap` and `grad` and passed through them; there, only what is known is checked. Equal
    flows are the same object. Derivatives are those of the formulas, also where Θ(X, X) is singular or has
    equal eigenvalues. Where training inputs coincide at late times none exists with respect to each of them
    alone; the one returned is then right for moving them together.

    Args:
        kernel: k(x1, x2) -> Kernels, as `nteq.kernels` makes them.
        x: training inputs, shape (N, *features).
        y: training labels, shape (N,) or (N, outputs).
        learning_rate: η, positive; it sets the unit of time.
        max_bytes: how much memory the matrices may take; by default what the device has that computes.
        ridge: r ≥ 0, in the units of Θ.

    Raises:
        ValueError: shapes that do not fit, entries that are not finite, labels that are not numbers, a
            learning rate that is not positive, a negative ridge, a kernel that does not return `Kernels`, or
            a training Gram matrix that is not symmetric and positive semidefinite.
        MemoryError: before anything is allocated, if the matrices would not fit.

    >>> from nteq.kernels import mlp_kernel
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, -1.0])
    >>> flow = GradientFlow(mlp_kernel(depth=1), x, y)
    >>> flow.mean(x, t=jnp.inf).round(4)
    Array([ 1., -1.], dtype=float32)
    >>> jax.vmap(lambda y: GradientFlow(mlp_kernel(depth=1), x, y).mean(x, jnp.inf))(jnp.eye(2)).round(3) + 0
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

    kernel: Callable[..., Kernels]
    x: Array
    learning_rate: float | Array
    ridge: float | Array
    # one entry for every irrep of the group; of blocks and labels None where it is not needed for the mean
    _blocks: tuple[Block | None, ...]
    _labels: tuple[Array | None, ...]
    _nngp: tuple[Array, ...] | None  # Σ_u σ(u) ⊗ K(X, ρ(u)X), once the covariance needs it
    _character: Array  # of the labels
    action: Action = field(metadata=_STATIC)
    max_bytes: float | None = field(metadata=_STATIC)
    _shape_of_output: tuple[int, ...] = field(metadata=_STATIC)

    def __init__(
        self,
        kernel: Callable[..., Kernels],
        x: ArrayLike,
        y: ArrayLike,
        learning_rate: float | Array = 1.0,
        max_bytes: float | None = None,
        ridge: float | Array = 0.0,
    ) -> None:
        self._solve("GradientFlow", kernel, x, y, _NO_GROUP, None, learning_rate, max_bytes, ridge)

    @classmethod
    def augmented(
        cls,
        kernel: Callable[..., Kernels],
        x: ArrayLike,
        y: ArrayLike,
        action: Action,
        label_action: Action | None = None,
        learning_rate: float | Array = 1.0,
        max_bytes: float | None = None,
        check: bool = True,
        ridge: float | Array = 0.0,
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
            max_bytes: how much memory the matrices may take; by default what the device has that computes.
            check: whether to test the kernel's invariance on a sample, where kernel and inputs are known.
            ridge: r ≥ 0, added to the diagonal of the augmented Gram matrix.

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
        caller = "GradientFlow.augmented"
        if not isinstance(action, Action):
            raise ValueError(
                f"{caller}: action must be an nteq.actions.Action, got {action!r}. "
                "Give on_lattices(cyclic(4)), not the group alone."
            )
        if not action.exact:
            raise ValueError(
                f"{caller}: {action.name} interpolates, so the images of a point are no orbit "
                "and the augmented Gram matrix has no symmetry. Write the images out: "
                "GradientFlow(kernel, orbit(action, x).reshape(-1, *x.shape[1:]), jnp.tile(y, |G|))."
            )
        if label_action is not None and label_action.group != action.group:
            raise ValueError(
                f"{caller}: label_action is one of {label_action.group!r}, "
                f"action of {action.group!r}; both must be actions of the same group."
            )
        x = _checks.batch(caller, "x", x)
        if check and callable(kernel) and _checks.is_known(x, kernel):
            with jax.ensure_compile_time_eval():
                # a kernel may hold traced values where nobody sees them
                if _checks.is_known(kernel(x[:1], x[:1])):
                    require_invariance(caller, kernel, action, x)
        flow = object.__new__(cls)
        flow._solve(caller, kernel, x, y, action, label_action, learning_rate, max_bytes, ridge)
        return flow

    def _solve(
        self,
        caller: str,
        kernel: Callable[..., Kernels],
        x: ArrayLike,
        y: ArrayLike,
        action: Action,
        label_action: Action | None,
        learning_rate: float | Array,
        max_bytes: float | None,
        ridge: float | Array,
    ) -> None:
        if not callable(kernel):
            raise ValueError(f"{caller}: kernel must be a function k(x1, x2) -> Kernels, got {kernel!r}.")
        if jax.tree_util.all_leaves([kernel]):
            kernel = jax.tree_util.Partial(kernel)  # no pytree: static as a whole
        x, y = _checks.batch(caller, "x", x), _checks.real(caller, "y", y)
        if y.ndim not in (1, 2) or y.shape[0] != x.shape[0] or y.size == 0:
            raise ValueError(
                f"{caller}: y must have shape (N,) or (N, outputs) with N = {x.shape[0]} as in x, "
                f"got shape {y.shape}."
            )
        if label_action is not None and y.ndim != 2:
            raise ValueError(
                f"{caller}: labels that move must have shape (n, outputs), "
                f"got {y.shape}. Leave label_action out for labels that stay."
            )
        if max_bytes is not None and not max_bytes > 0:
            raise ValueError(f"{caller}: max_bytes must be positive, got {max_bytes!r}.")
        group, every = action.group, irreps(action.group)
        outputs = y.size // y.shape[0]
        matrices = None if label_action is None else _checks.look(lambda: matrices_of(label_action, outputs))
        character = np.full(group.order, float(outputs))
        if matrices is not None:
            character = np.trace(matrices, axis1=1, axis2=2)
        vars(self).update(
            kernel=kernel,
            x=x,
            learning_rate=_checks.number(caller, "learning_rate", learning_rate, exclusive=True),
            ridge=_checks.number(caller, "ridge", ridge),
            action=action,
            max_bytes=max_bytes,
            _shape_of_output=y.shape[1:],
            _blocks=(None,) * len(every),
        )
        if matrices is None:
            needed = [0]
        else:  # the mean is a whole number, d/m times how often the irrep occurs
            needed = [i for i, s in enumerate(every) if np.mean(s.character * character) > 0.5]
        self._check_memory([every[i] for i in needed], matrices=1)
        blocks = self._decomposed(self._grams([("ntk", i) for i in needed]))
        dtype = blocks[0].eigenvalues.dtype
        labels = y.reshape(y.shape[0], -1).astype(dtype)
        with np.errstate(over="ignore"):
            held = not _checks.is_known(y) or _checks.are_finite(np.asarray(y).astype(dtype))
        if not held:
            raise ValueError(
                f"{caller}: y has entries that {dtype}, the precision of the kernel, cannot hold."
            )
        moving = None if matrices is None else _cast(matrices, dtype)
        rows: list[Array | None] = [None] * len(every)
        for i, block in zip(needed, blocks, strict=True):
            rows[i] = spectrum.labels_in_frame(block, _cast(every[i].unitary[1], dtype), moving, labels)
        vars(self).update(
            _blocks=_filled(self._blocks, needed, blocks),
            _labels=tuple(rows),
            _nngp=None,
            _character=_cast(character, dtype),
        )

    def _replaced(self, **changes: Any) -> GradientFlow:
        flow = object.__new__(type(self))
        vars(flow).update({f.name: getattr(self, f.name) for f in fields(self)}, **changes)
        return flow

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The arrays, and the static parts."""
        static = [bool(f.metadata.get("static")) for f in fields(self)]
        parts = [getattr(self, f.name) for f in fields(self)]
        data, meta = ([p for p, s in zip(parts, static, strict=True) if s == kind] for kind in (False, True))
        return tuple(data), tuple(meta)

    @classmethod
    def tree_unflatten(cls, meta: tuple[Any, ...], data: tuple[Any, ...]) -> GradientFlow:
        """A flow of these parts, unchecked."""
        flow, data_left, meta_left = object.__new__(cls), iter(data), iter(meta)
        for f in fields(cls):
            vars(flow)[f.name] = next(meta_left if f.metadata.get("static") else data_left)
        return flow

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # not what is remembered beside them

    def __repr__(self) -> str:
        of = "" if self._order == 1 else f" and all their images under {self.action.name}"
        return f"<GradientFlow trained on {self.x.shape[0]} points{of}>"

    @property
    def _order(self) -> int:
        return self.action.group.order

    @property
    def _points(self) -> int:
        return self._order * self.x.shape[0]

    @property
    def _dtype(self) -> np.dtype:
        return next(block.eigenvalues.dtype for block in self._blocks if block is not None)

    def _check_memory(
        self, of_blocks: Sequence[Irrep], matrices: int, tests: int = 0, pairs: int = 0
    ) -> None:
        n, bytes_each = self.x.shape[0], jnp.dtype(self.x.dtype).itemsize
        blocks = []
        for irrep in of_blocks:
            sigma = irrep.unitary[0]
            blocks.append((1 + np.iscomplexobj(sigma)) * (sigma.shape[1] * n) ** 2)
        # all blocks, the workspace of the eigensolver for the largest, a kernel matrix, and the test rows
        needed = matrices * sum(blocks) + 3 * max(blocks) + 2 * n**2
        needed = bytes_each * (needed + 4 * tests * self._order * n + 4 * pairs)
        allowed = _checks.memory_of(_device_of(self.x)) if self.max_bytes is None else self.max_bytes
        if allowed is not None and needed > allowed:
            raise MemoryError(
                f"GradientFlow: {n} points under a group of order {self._order}"
                + (f" and {tests} inputs" if tests else "")
                + f" need about {needed / 1e9:.3g} GB and {allowed / 1e9:.3g} GB are allowed. Reduce n (the "
                "memory grows with its square), give fewer inputs at a time, take float32 inputs, use a "
                "smaller group, or raise max_bytes."
            )

    def _values(self, x1: Array, x2: Array) -> Kernels:
        return _as_kernels("GradientFlow", self.kernel(x1, x2), (x1.shape[0], x2.shape[0]))

    def _rows(self, x1: Array, x2: Array) -> Iterator[Kernels]:
        """kernel(x1, x2) in blocks of rows, so that its intermediate results stay small."""
        step = max(1, _ROWS // (8 * x2.shape[0]))
        return (self._values(x1[i : i + step], x2) for i in range(0, x1.shape[0], step))

    def _rows_of_images(self, x: Array) -> Iterator[Kernels]:
        """k(x, ρ(h)X) for all h, (rows, n, |G|), in blocks of rows."""
        kernel: Any = self.kernel
        step = max(1, _ROWS // (8 * self._points))
        return (kernel.orbit_values(x[i : i + step], self.x, self.action) for i in range(0, x.shape[0], step))

    def _joined_rows(self, x1: Array, x2: Array) -> Kernels:
        parts = list(self._rows(x1, x2))
        return parts[0] if len(parts) == 1 else Kernels(*map(jnp.concatenate, zip(*parts, strict=True)))

    def _kappa(self, u: int) -> Kernels:
        """k(x, ρ(u)x), a symmetric matrix if u is its own inverse, of which some kernels compute half."""
        image = self._image(self.x, u)
        if self.action.group.inverses[u] == u and hasattr(self.kernel, "symmetric_matrix"):
            return self.kernel.symmetric_matrix(self.x, image)
        return self._joined_rows(self.x, image)

    def _diagonal(self, x1: Array, x2: Array) -> Array:
        """K(x1, x2) of inputs at the same place."""
        starts = range(0, x1.shape[0], _SQUARE)
        squares = (self._values(x1[i : i + _SQUARE], x2[i : i + _SQUARE]).nngp for i in starts)
        return jnp.concatenate([jnp.diagonal(square) for square in squares])

    def _grams(self, wanted: Sequence[tuple[str, int]]) -> list[Array]:
        """Σ_u σ(u) ⊗ κ(u) for κ = "ntk" or "nngp" and an irrep each, from a kernel matrix for each u, u⁻¹."""
        group, every, n = self.action.group, irreps(self.action.group), self.x.shape[0]
        if self._rotates_together:
            return self._checked(self._grams_together(wanted))
        kept: dict[int, Kernels] = vars(self).setdefault("_kept", {})
        totals: list[Array] = []
        for u in range(self._order):
            v = int(group.inverses[u])
            if v < u:
                continue
            whole = kept.get(u) or self._kappa(u)
            if (self._order + 1) * n * n * whole.ntk.itemsize <= _KEPT and _checks.is_known(whole):
                kept[u] = whole
            if u == group.identity:
                for which in dict(wanted):
                    _check_symmetry(getattr(whole, which), which)
            for i, (which, s) in enumerate(wanted):
                kappa = getattr(whole, which)
                share = 0.5 if u == v else 1.0  # the term of u⁻¹ is the adjoint of that of u
                sigma = _cast(share * every[s].unitary[0][u], kappa.dtype)
                if i == len(totals):
                    totals.append(spectrum.first_term(sigma, kappa))
                else:
                    totals[i] = spectrum.add_term(totals[i], sigma, kappa)
        return self._checked(totals)

    @property
    def _rotates_together(self) -> bool:
        """Whether the kernel of all images at once costs less than that of one image after the other."""
        return self._order > 1 and hasattr(self.kernel, "orbit_values")

    def _grams_together(self, wanted: Sequence[tuple[str, int]]) -> list[Array]:
        """Half of Σ_u σ(u) ⊗ κ(u), from a kernel that sums over u itself."""
        kernel: Any = self.kernel
        n, every = self.x.shape[0], irreps(self.action.group)
        sigma = {s: every[s].unitary[0] for _, s in wanted}
        parts = [part for u in sigma.values() for part in ([u.real, u.imag] if np.iscomplexobj(u) else [u])]
        columns = np.concatenate([part.reshape(self._order, -1) for part in parts], axis=1)
        sums = kernel.orbit_sums(self.x, self.x, self.action, columns, True)
        starts = dict(zip(sigma, np.cumsum([0] + [_columns(u) for u in sigma.values()]), strict=False))
        halves = []
        for which, s in wanted:
            d, entries = sigma[s].shape[1], getattr(sums, which)[..., starts[s] :]
            block = entries[..., : d * d]
            if np.iscomplexobj(sigma[s]):
                block = block + 1j * entries[..., d * d : 2 * d * d]
            halves.append(block.reshape(n, n, d, d).transpose(2, 0, 3, 1).reshape(d * n, d * n) / 2)
        return halves

    def _checked(self, halves: list[Array]) -> list[Array]:
        """Hermitian matrices, of a sum that lacks their adjoint."""
        grams = [spectrum.add_adjoint(half) for half in halves]
        if _checks.is_known(grams) and not all(finite for _, finite in grams):
            raise ValueError("GradientFlow: the kernel has values that are not finite on the training data.")
        return [gram for gram, _ in grams]

    def _decomposed(self, grams: list[Array]) -> list[Block]:
        blocks = []
        while grams:
            blocks.append(spectrum.decompose(grams.pop(0)))
        if blocks and _checks.is_known(blocks):
            known = [np.asarray(b.eigenvalues) for b in (*blocks, *self._blocks) if b is not None]
            lowest, highest = (
                min(values[0] for values in known),
                max(np.abs(values).max() for values in known),
            )
            slack = 10 * self._order * np.finfo(known[0].dtype).eps ** 0.5 * highest
            if lowest < -slack:
                raise ValueError(
                    "GradientFlow: the training Gram matrix Θ(X, X) is not positive semidefinite, "
                    f"smallest eigenvalue {lowest:.1e}, largest {highest:.1e}."
                )
        return blocks

    def with_covariance(self) -> GradientFlow:
        """The same flow with all that its covariance needs: the eigenvectors of every irrep and K(X, X).

        `covariance`, `variance`, `orbit_variance` and `sample` make it themselves, once for a flow that is
        known. Inside of a trace they make it anew at every run of the compiled function: call this before,
        and give that function the result.

        Returns:
            A GradientFlow with the same predictions.

        Raises:
            MemoryError: before anything is allocated, if the blocks of all irreps would not fit.

        >>> from nteq.kernels import mlp_kernel
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> flow = GradientFlow(mlp_kernel(depth=1), x, jnp.array([1.0, -1.0])).with_covariance()
        >>> jax.jit(lambda flow: flow.variance(x, jnp.inf))(flow).round(3)
        Array([0., 0.], dtype=float32)
        """
        return self._complete(nngp=True)

    def _complete(self, nngp: bool) -> GradientFlow:
        """The flow with the blocks of every irrep and, if asked for, of K; remembered where it is known."""
        flow: GradientFlow = vars(self).get("_completed", self)
        missing = [i for i, block in enumerate(flow._blocks) if block is None]
        wanted = [("nngp", i) for i in range(len(flow._blocks))] if nngp and flow._nngp is None else []
        if not missing and not wanted:
            return flow
        self._check_memory(irreps(self.action.group), matrices=2 if nngp else 1)
        grams = self._grams([*wanted, *(("ntk", i) for i in missing)])
        changes: dict[str, Any] = {"_nngp": tuple(grams[: len(wanted)])} if wanted else {}
        del grams[: len(wanted)]
        blocks = flow._decomposed(grams)
        completed = flow._replaced(_blocks=_filled(flow._blocks, missing, blocks), **changes)
        if _checks.is_known(completed._blocks, completed._nngp):
            vars(self)["_completed"] = completed
            if nngp:
                vars(self).pop("_kept", None)
        return completed

    def _known_blocks(self) -> list[Block]:
        return [block for block in self._blocks if block is not None]

    def _image(self, x: Array, h: int) -> Array:
        # act itself: the action would look at all of x again each time
        return x if h == self.action.group.identity else self.action.act(h, x)

    def _images(self) -> Iterator[Array]:
        """The images ρ(h)X for h = 0, 1 and so on."""
        return (self._image(self.x, h) for h in range(self._order))

    def _inputs(self, method: str, name: str, x: ArrayLike) -> Array:
        x = _checks.real(f"GradientFlow.{method}", name, x)
        if x.shape[1:] != self.x.shape[1:] or x.ndim != self.x.ndim or x.size == 0:
            raise ValueError(
                f"GradientFlow.{method}: {name} must have shape (n, *features) with n ≥ 1 and the features "
                f"{self.x.shape[1:]} of the training inputs, got shape {x.shape}."
            )
        return x.astype(self.x.dtype)

    def _taus(self, t: np.ndarray | Array) -> np.ndarray | Array:
        """Times in the unit of the eigenvalues, ηt/N, in a row."""
        if _checks.is_known(t, self.learning_rate):
            with np.errstate(over="ignore"):
                return (float(self.learning_rate) / self._points * np.ravel(t)).astype(self._dtype)
        return self._real(self.learning_rate) / self._points * jnp.ravel(self._real(t))

    def _real(self, value: ArrayLike) -> Array:
        return jnp.asarray(value, self._dtype)

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
            ValueError: a time that is negative or NaN; inputs that do not fit those of the training set.
        """
        x, t = self._inputs("mean", "x", x), _times("mean", t)
        taus, largest = self._taus(t), spectrum.largest_eigenvalue(self._known_blocks())
        parts = []
        for irrep, block, labels in zip(irreps(self.action.group), self._blocks, self._labels, strict=True):
            if block is not None and labels is not None:
                basis = _cast(irrep.unitary[1], self._dtype)
                rest = taus, self._real(self.ridge), largest, self._points
                parts.append(spectrum.coefficients(_weight(irrep), block, basis, labels, *rest))
        weights = sum(parts[1:], start=parts[0])
        totals: list[Any] = []
        if self._rotates_together:
            for kernels in self._rows_of_images(x):
                totals.append(spectrum.product_of_images(kernels.ntk, weights))
            return spectrum.means_at(totals, t.shape, self._shape_of_output)
        for h, image in enumerate(self._images()):
            for i, kernels in enumerate(self._rows(x, image)):
                if h == 0:
                    totals.append(np.zeros((kernels.ntk.shape[0], weights.shape[2]), self._dtype))
                totals[i] = spectrum.add_product(totals[i], kernels.ntk, weights, h)
        return spectrum.means_at(totals, t.shape, self._shape_of_output)

    def covariance(self, x: ArrayLike, t: ArrayLike, x2: ArrayLike | None = None) -> Array:
        r"""The covariance $\Sigma_t(x, x')$ of the predictions over initialisations.

        It does not depend on the labels, and is the same for every output; different outputs are
        independent. Without x2 it is symmetric with a diagonal that is not negative; its eigenvalues are not
        negative to rounding.

        Args:
            x: inputs, shape (n, *features).
            t: the time, a scalar or an array, each ≥ 0 or inf; in units of 1/η.
            x2: the inputs x′, shape (n2, *features); x itself if left out.

        Returns:
            Array of shape (*t.shape, n, n2).

        Raises:
            ValueError: a time that is negative or NaN; inputs that do not fit those of the training set.
            MemoryError: before anything is allocated, if the blocks of all irreps would not fit.

        >>> from nteq.kernels import mlp_kernel
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> flow = GradientFlow(mlp_kernel(depth=1, W_std=2**0.5), x, jnp.array([1.0, -1.0]))
        >>> flow.covariance(x, jnp.inf).round(3) + 0.0  # no doubt is left where it was trained
        Array([[0., 0.],
               [0., 0.]], dtype=float32)
        """
        x, t = self._inputs("covariance", "x", x), _times("covariance", t)
        other = x if x2 is None else self._inputs("covariance", "x2", x2)
        shape = x.shape[0], other.shape[0]
        self._check_memory(irreps(self.action.group), 2, tests=max(shape), pairs=shape[0] * shape[1])
        flow = self.with_covariance()
        ours = flow._project(x)
        others = ours if x2 is None else flow._project(other)
        prior = self._values(x, other).nngp

        def at(tau: ArrayLike) -> Array:
            answer = flow._covariance_at(tau, prior, ours, others, "kxe,kze->xz")
            return spectrum.symmetric(answer) if x2 is None else answer

        return self._at_each(t, at, shape)

    def variance(self, x: ArrayLike, t: ArrayLike) -> Array:
        r"""The variance $\Sigma_t(x, x)$ of the predictions, without their n × n covariance.

        Args:
            x: inputs, shape (n, *features).
            t: the time, a scalar or an array, each ≥ 0 or inf; in units of 1/η.

        Returns:
            Array of shape (*t.shape, n), not negative.

        Raises:
            ValueError: a time that is negative or NaN; inputs that do not fit those of the training set.
            MemoryError: before anything is allocated, if the blocks of all irreps would not fit.

        >>> from nteq.kernels import mlp_kernel
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> flow = GradientFlow(mlp_kernel(depth=1, W_std=2**0.5), x, jnp.array([1.0, -1.0]))
        >>> flow.variance(2 * x, t=0.0).round(3)
        Array([4., 4.], dtype=float32)
        """
        x, t = self._inputs("variance", "x", x), _times("variance", t)
        self._check_memory(irreps(self.action.group), 2, tests=x.shape[0])
        flow = self.with_covariance()
        ours, prior = flow._project(x), self._diagonal(x, x)

        def at(tau: ArrayLike) -> Array:
            return jnp.maximum(flow._covariance_at(tau, prior, ours, ours, "kxe,kxe->x"), 0)

        return self._at_each(t, at, x.shape[:1])

    def _at_each(self, t: Any, at: Callable[[ArrayLike], Array], shape: tuple[int, ...]) -> Array:
        """One time after the other: what many of them take at once does not fit."""
        answers = [at(tau) for tau in self._taus(t)]
        stacked = jnp.stack(answers) if answers else jnp.zeros((0, *shape), self._dtype)
        return stacked.reshape(*t.shape, *shape)

    def _project(self, x: Array, mixing: Array | None = None) -> list[spectrum.Rows]:
        """Θ(x, ρ(h)X) in the eigenbasis and K(x, ρ(h)X) in the basis of every block, (k, n, d N) each.

        With a mixing matrix W, Σ_h′ W[h, h′] Θ(x, ρ(h′)X) takes the place of Θ(x, ρ(h)X).
        """
        if self._rotates_together:
            rows = zip(*self._rows_of_images(x), strict=True)
            nngps, ntks = (list(jnp.moveaxis(jnp.concatenate(row), 2, 0)) for row in rows)
        else:
            nngps, ntks = map(list, zip(*(self._values(x, i) for i in self._images()), strict=True))
        projected = []
        for irrep, block in zip(irreps(self.action.group), self._known_blocks(), strict=True):
            basis = _cast(irrep.unitary[1], self._dtype)
            if mixing is not None:
                basis = spectrum.mixed(mixing, basis)
            nngp, ntk = (spectrum.to_block(basis, rows) for rows in (nngps, ntks))
            projected.append((spectrum.to_frame(block, ntk), nngp))
        return projected

    def _covariance_at(
        self,
        tau: ArrayLike,
        prior: Array,
        ours: Sequence[spectrum.Rows],
        others: Sequence[spectrum.Rows],
        pairs: str,
    ) -> Array:
        """Σ_t of all pairs, "kxe,kze->xz", or of inputs at the same place, "kxe,kxe->x"; the prior is K."""
        blocks, total = self._known_blocks(), prior
        largest, ridge = spectrum.largest_eigenvalue(blocks), self._real(self.ridge)
        parts = zip(irreps(self.action.group), blocks, self._nngp or (), ours, others, strict=True)
        for irrep, block, gram, one, two in parts:
            rest = self._real(tau), ridge, largest, self._points
            total = spectrum.add_to_covariance(total, _weight(irrep), block, gram, one, two, *rest, pairs)
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
                NaN; inputs that do not fit those of the training set.
        """
        if self._order == 1:
            raise ValueError(
                "GradientFlow.orbit_variance: this ensemble has no group. "
                "Make it with GradientFlow.augmented(kernel, x, y, action)."
            )
        x, t = self._inputs("orbit_variance", "x", x), _times("orbit_variance", t)
        group, character = self.action.group, self._character / self._order
        outputs = self._shape_of_output[0] if self._shape_of_output else 1
        # Σ_u χ(u) f(ρ(u)x)/|G| has the kernel Σ_u χ(u) Θ(x, ρ(u⁻¹h)X)/|G| with ρ(h)X: no new kernel values
        mixing = character[group.table[:, group.inverses]]
        self._check_memory(irreps(group), 2, tests=2 * x.shape[0])
        flow = self.with_covariance()
        ours, mean = flow._project(x), flow._project(x, mixing)
        prior = self._diagonal(x, x)
        of_mean = [self._diagonal(x, self._image(x, u)) for u in range(self._order)]
        prior_of_mean = matmul(character, jnp.stack(of_mean))

        def at(tau: ArrayLike) -> Array:
            own = flow._covariance_at(tau, prior, ours, ours, "kxe,kxe->x")
            with_mean = flow._covariance_at(tau, prior_of_mean, ours, mean, "kxe,kxe->x")
            return jnp.maximum(outputs * own - with_mean, 0)

        return self._at_each(t, at, x.shape[:1])

    def sample(self, key: Array, x: ArrayLike, t: ArrayLike, members: int) -> Array:
        r"""Predictions of members drawn from $\mathcal{N}(\mu_t, \Sigma_t)$, without training a network.

        Of several times each is what the same call with this time alone returns: right at every time, but
        not the path of one member, whose predictions at two times are correlated otherwise.

        Args:
            key: a JAX random key.
            x: inputs, shape (n, *features); to compare members over an orbit, give all of it at once.
            t: the time, a scalar or an array, each ≥ 0 or inf; in units of 1/η.
            members: how many, at least 1.

        Returns:
            Array of shape (*t.shape, members, n) or (*t.shape, members, n, outputs).

        Raises:
            ValueError: a time that is negative or NaN, or members that is not a positive integer; inputs
                that do not fit those of the training set.

        >>> from nteq.kernels import mlp_kernel
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> flow = GradientFlow(mlp_kernel(depth=1), x, jnp.array([1.0, -1.0]))
        >>> flow.sample(jax.random.key(0), 3 * x, t=1.0, members=5).shape
        (5, 2)
        """
        x, t = self._inputs("sample", "x", x), _times("sample", t)
        members = _checks.count("GradientFlow.sample", "members", members)
        mean, covariance = self.mean(x, t), self.covariance(x, t)
        root = spectrum.root(covariance)
        noise = jax.random.normal(key, (members, x.shape[0], *self._shape_of_output), covariance.dtype)
        around = einsum("...xe,meo->...mxo", root, noise.reshape(*noise.shape[:2], -1))
        return jnp.expand_dims(mean, t.ndim) + around.reshape(*t.shape, *noise.shape)

    @property
    def condition_number(self) -> float | Array:
        """Largest over smallest eigenvalue of Θ(X, X) + ridge, inf if that is singular to rounding.

        As many times longer than the fastest mode takes the slowest. Needs the NTK of the training set alone.
        """
        blocks = self._complete(nngp=False)._known_blocks()
        value = spectrum.condition_number(
            [b.eigenvalues for b in blocks], self._real(self.ridge), self._points
        )
        return float(value) if _checks.is_known(value) else value

    @property
    def effective_rank(self) -> float | Array:
        r"""$e^{H(p)}$ with the entropy H of the normalised eigenvalues p (Roy & Vetterli 2007): 1 … N.

        Of Θ(X, X) without the ridge; 0 if that is zero.
        """
        blocks = self._complete(nngp=False)._known_blocks()
        copies = [_weight(s) * s.multiplicity for s in irreps(self.action.group)]
        value = spectrum.effective_rank([b.eigenvalues for b in blocks], copies)
        return float(value) if _checks.is_known(value) else value


def _weight(irrep: Irrep) -> int:
    """A block of a complex σ counts twice, by its real part: see `Irrep.unitary`."""
    return 1 if irrep.kind == "real" else 2


def _columns(sigma: np.ndarray) -> int:
    """How many real numbers a matrix of an irrep is."""
    return (1 + np.iscomplexobj(sigma)) * sigma.shape[1] * sigma.shape[2]


def _cast(array: np.ndarray, dtype: np.dtype) -> Array:
    """A real or complex array in the precision of the kernel."""
    return jnp.asarray(array, np.result_type(dtype, np.complex64) if np.iscomplexobj(array) else dtype)


def _filled(
    blocks: tuple[Block | None, ...], places: Sequence[int], found: Sequence[Block]
) -> tuple[Block | None, ...]:
    new = dict(zip(places, found, strict=True))
    return tuple(new.get(i, block) for i, block in enumerate(blocks))


def _times(method: str, t: ArrayLike) -> np.ndarray | Array:
    try:
        t = np.asarray(t, dtype=float) if _checks.is_known(t) else jnp.asarray(t)
    except (TypeError, ValueError):
        raise ValueError(f"GradientFlow.{method}: t must be ≥ 0 (inf is allowed), got {t!r}.") from None
    if isinstance(t, np.ndarray) and not (t >= 0).all():
        raise ValueError(f"GradientFlow.{method}: t must be ≥ 0 (inf is allowed), got {t}.")
    return t


def _check_symmetry(kappa: Array, which: str) -> None:
    if not _checks.is_known(kappa):
        return
    largest, apart = _checks.look(lambda: spectrum.asymmetry(kappa))
    # √ε: what neural-tangents' arccos leaves on the diagonal; a real defect is far larger
    slack = 10 * float(jnp.finfo(kappa.dtype).eps) ** 0.5 * largest
    if apart > slack:
        raise ValueError(
            f"GradientFlow: the training Gram matrix of the {which} is not symmetric, "
            f"its largest |k(x, x′) − k(x′, x)| is {apart:.1e}. Is the kernel one?"
        )


def _device_of(x: Array) -> jax.Device:
    if _checks.is_known(x):
        return next(iter(x.devices()))
    with jax.ensure_compile_time_eval():  # where a traced one will be
        return next(iter(jnp.zeros(()).devices()))
