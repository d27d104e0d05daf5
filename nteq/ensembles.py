r"""Deep ensembles of finite networks: thousands of members at once, resumable, on any number of devices.

`init`, `train` and `predict` work on parameters with a leading member axis. `run` is for ensembles whose
parameters would not fit in memory: it keeps the predictions only, stores them as it goes, and continues after
an interruption. Member i depends on `jax.random.fold_in(key, i)` alone: members are computed in blocks, whose
size the network and the data determine, so chunks, interruptions and the number of devices never change one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from tqdm.auto import tqdm

from nteq import _checks, _program, _training
from nteq._devices import on_devices
from nteq._program import Augment, Loss
from nteq._store import Store, wait_for_all
from nteq.actions import Action
from nteq.networks import Network

__all__ = ["augment_by", "init", "largest_step", "predict", "run", "train"]


def init(
    network: Network,
    key: ArrayLike,
    members: int | Sequence[int],
    shape: Sequence[int],
    dtype: DTypeLike | None = None,
) -> Any:
    """Initial parameters of an ensemble, with a leading member axis.

    Args:
        network: the members' architecture.
        key: a JAX random key; member i draws from `fold_in(key, i)`.
        members: how many, or which: a sequence of indices.
        shape: the shape of one input, (*features,).
        dtype: floating-point type of the parameters; JAX's default if None.

    Returns:
        Parameters as `network.init` makes them, with a leading axis over members.

    Raises:
        ValueError: no members or negative ones; a shape that the network does not take; not one random key.

    >>> from nteq.networks import mlp
    >>> params = init(mlp(width=8), jax.random.key(0), 5, (6, 6))
    >>> params[0][0].shape
    (5, 36, 8)
    """
    _training.check_network("init", network)
    if np.ndim(shape) != 1:
        raise ValueError(f"init: shape must be that of one input, such as (28, 28, 1), got {shape!r}.")
    lengths = tuple(_checks.count("init", "shape", length) for length in shape)
    keys = _program.member_keys(_training.typed_key("init", key), _indices(members))
    return _program.draw(network, lengths, dtype, keys[:, 0])


def train(
    network: Network,
    params: Any,
    x: ArrayLike,
    y: ArrayLike,
    steps: int,
    *,
    learning_rate: float | Array | None = None,
    loss: str | Loss = "squared",
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    augment: Augment | None = None,
    key: ArrayLike | None = None,
) -> Any:
    r"""Trains every member on its own by gradient descent.

    On the squared loss $L = \frac{1}{2N}\sum_i |f(x_i) - y_i|^2$ small full-batch steps of size η follow the
    gradient flow that `nteq.gradient_flow.GradientFlow` solves at infinite width, at time t = η · steps.

    Args:
        network: the members' architecture.
        params: their parameters from `init`, with a leading member axis.
        x: training inputs, shape (N, *features).
        y: labels: shape (N,) or (N, outputs) for "squared", classes 0, 1, … of shape (N,) for
            "cross-entropy", any shape (N, ...) for a loss of your own.
        steps: how many steps to take, at least 1.
        learning_rate: η of plain gradient descent; if neither it nor an optimizer is given, a tenth of
            `largest_step(network, jax.random.key(0), x)` of the first 1024 inputs, rounded to two digits,
            whatever the key of this training.
        loss: "squared", or "cross-entropy" with softmax, averaged over the batch; or a function of
            predictions, shape (n,) or (n, outputs), and labels to a number, which JAX can differentiate.
        optimizer: an optax gradient transformation instead, such as `optax.adam(1e-3)`. Those that search
            along a line or look at the loss, `optax.lbfgs()` for one, are told it. Keep it in a variable:
            each call of `optax.adam` makes one that is compiled for anew, as each lambda is.
        batch_size: examples in a step, from one epoch's shuffle after another, each member's own; what is
            left of an epoch is skipped. All examples if None.
        augment: `augment(key, x, y)` -> (x, y) on every batch, such as `augment_by(action)`.
        key: random key of shuffles and augmentation, needed for either; member i uses `fold_in(key, i)`.

    Returns:
        The trained parameters.

    Raises:
        ValueError: shapes that do not fit, labels or numbers out of range, an unknown loss, both a
            learning_rate and an optimizer, or neither with a loss of your own.
        FloatingPointError: the loss of a member is no longer finite; says which member and which step.

    Warns:
        UserWarning: a learning_rate above `largest_step`, which does not follow gradient flow.

    >>> from nteq.networks import mlp
    >>> network, x, y = mlp(width=64), jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, -1.0])
    >>> params = init(network, jax.random.key(0), 10, (2,))
    >>> trained = train(network, params, x, y, steps=500, learning_rate=0.5)
    >>> bool(jnp.abs(predict(network, trained, x) - y).max() < 0.01)
    True
    """
    members, dtype, platform = _training.described_params("train", params)
    if key is None:
        if batch_size is not None or augment is not None:
            raise ValueError(
                "train: batch_size and augment need a random key, such as key=jax.random.key(0)."
            )
        key = jax.random.key(0)  # decides nothing
    options = (learning_rate, loss, optimizer, batch_size, augment)
    # inside of a trace, known data stay known: the default learning rate is found from them
    known = _checks.is_known(x, y, learning_rate)
    with jax.ensure_compile_time_eval() if known else contextlib.nullcontext():
        training = _training.prepare("train", network, x, y, steps, *options, dtype, platform)
    program, data = training.program, (training.x, training.y, training.rate)
    done = []
    for start in range(0, members, training.block):
        chosen = np.minimum(np.arange(start, start + training.block), members - 1)
        keys = _program.member_keys(_training.typed_key("train", key), jnp.asarray(chosen))[:, 1]
        part = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], params)
        state = _program.start(program, part, len(training.x))
        part, _, diverged = _program.advance(program, keys, part, state, 0, training.steps, *data)
        if _checks.is_known(diverged):
            training.check(chosen, diverged)
        done.append(jax.tree.map(lambda leaf, start=start: leaf[: members - start], part))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *done)


def predict(network: Network, params: Any, x: ArrayLike, batch_size: int = 256) -> Array:
    """What each member says.

    Args:
        network: the members' architecture.
        params: their parameters, with a leading member axis.
        x: inputs, shape (n, *features).
        batch_size: how many inputs to evaluate at a time; memory grows with it.

    Returns:
        Array of shape (members, n) or (members, n, outputs).

    Raises:
        ValueError: no inputs, inputs that the network does not take, or a batch_size below 1.

    >>> from nteq.networks import mlp
    >>> network = mlp(width=8, outputs=3)
    >>> predict(network, init(network, jax.random.key(0), 5, (4,)), jnp.ones((7, 4))).shape
    (5, 7, 3)
    """
    _training.check_network("predict", network)
    batch_size = _checks.count("predict", "batch_size", batch_size)
    x = _training.inputs("predict", "x", x, _training.described_params("predict", params)[1])
    return _program.predict(network, params, _program.in_batches(x, batch_size))[:, : len(x)]


def run(
    network: Network,
    key: ArrayLike,
    members: int,
    x: ArrayLike,
    y: ArrayLike,
    x_test: ArrayLike,
    steps: int,
    *,
    learning_rate: float | Array | None = None,
    loss: str | Loss = "squared",
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    augment: Augment | None = None,
    snapshots: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    predict_batch_size: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    save_every: float = 30.0,
    progress: bool = True,
    devices: Sequence[jax.Device] | None = None,
) -> np.ndarray:
    r"""Draws, trains and asks many members, a block on each device at a time, and keeps what they say.

    Memory does not grow with the number of members beyond the predictions. With a folder, predictions are
    stored every save_every seconds, each chunk in a file that appears whole or not at all; an interrupted
    run goes on with resume=True and ends in the same numbers, bit for bit. The member axis is sharded over
    a mesh of all devices, those of every process under `jax.distributed` too; set `jax_num_cpu_devices` to
    the number of cores to train one block on each.

    Args:
        network: the members' architecture.
        key: a JAX random key; member i depends on `fold_in(key, i)` alone.
        members: how many, at least 1. A finished run can be extended by resuming it with more.
        x: training inputs, shape (N, *features).
        y: labels, as `train` takes them.
        x_test: where to ask, shape (n, *features).
        steps: how many steps to train, at least 1.
        learning_rate: as in `train`.
        loss: as in `train`.
        optimizer: as in `train`.
        batch_size: as in `train`.
        augment: as in `train`.
        snapshots: the steps after which to ask, from 0 to steps and increasing; the last one only if None.
        dtype: floating-point type; JAX's default if None.
        predict_batch_size: how many of x_test to evaluate at a time, which decides the memory and the last
            bits of the predictions; as many as there are examples in a step if None.
        folder: where to store; nothing is stored if None. Several processes need one that all of them see.
        resume: whether to go on with what the folder holds. A loss, a network and an augmentation of your
            own are recognised by what they compile to.
        save_every: seconds between two stored chunks.
        progress: whether to show a progress bar.
        devices: which devices to use; all if None.

    Returns:
        The predictions, shape (members, len(snapshots), n) or (members, len(snapshots), n, outputs).

    Raises:
        ValueError: as `train`; snapshots out of order; no devices; resume without a folder; a folder of
            another configuration, with the difference; a stored chunk that is truncated or altered.
        FileExistsError: the folder holds a run and resume is False.
        FloatingPointError: the loss of a member is no longer finite; says which member and which step.
        OSError: a chunk cannot be written; what was stored before stays.

    Warns:
        UserWarning: a learning_rate above `largest_step`, which does not follow gradient flow.

    >>> from nteq.networks import mlp
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, -1.0])
    >>> ensemble = dict(learning_rate=0.5, snapshots=[0, 10, 500], progress=False)
    >>> f = run(mlp(width=64), jax.random.key(0), 10, x, y, x, 500, **ensemble)
    >>> f.shape, bool(np.abs(f[:, -1] - y).max() < 0.01)
    ((10, 3, 2), True)
    """
    key, indices = _training.typed_key("run", key), range(_checks.count("run", "members", members))
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("run: devices must name at least one device, got []. None takes all of them.")
    options = (learning_rate, loss, optimizer, batch_size, augment)
    training = _training.prepare("run", network, x, y, steps, *options, dtype, devices[0].platform)
    x_test = _training.inputs("run", "x_test", x_test, dtype)
    if x_test.shape[1:] != training.x.shape[1:]:
        raise ValueError(f"run: x_test must have features {training.x.shape[1:]}, got shape {x_test.shape}.")
    snapshots = [steps] if snapshots is None else list(snapshots)
    snapshots = [_checks.count("run", "snapshots", step, least=0) for step in snapshots]
    if not snapshots or any(b <= a for a, b in zip([-1, *snapshots], [*snapshots, steps + 1], strict=True)):
        raise ValueError(f"run: snapshots must increase from at least 0 to at most {steps}, got {snapshots}.")
    if predict_batch_size is None:
        predict_batch_size = training.batch_size
    predict_batch_size = _checks.count("run", "predict_batch_size", predict_batch_size)
    if folder is None and (resume or jax.process_count() > 1):
        why = "resume=True" if resume else "several processes, to gather what they did,"
        raise ValueError(f"run: {why} needs a folder in which the run is stored, got folder=None.")

    store, kept = None, dict[int, np.ndarray]()
    if folder is not None:
        configuration = training.configuration(key, x_test, snapshots, predict_batch_size)
        store = Store(Path(folder).expanduser(), configuration)
        kept = store.open(resume)
    todo = np.array([i for i in indices if i not in kept], dtype=np.int32)
    compute = on_devices(training, devices, key, x_test, snapshots, predict_batch_size)
    bar = tqdm(
        total=len(indices),
        initial=len(indices) - len(todo),
        unit=" members",
        disable=not progress or jax.process_index() > 0,
    )
    new: dict[int, np.ndarray] = {}
    last, together = time.monotonic(), training.block * len(devices)
    try:
        for start in range(0, len(todo), together):
            new |= compute(todo[start : start + together])
            bar.update(len(todo[start : start + together]))
            if store and time.monotonic() - last > save_every:
                store.write(new)
                new, last = {}, time.monotonic()
    finally:
        bar.close()
        if store:
            store.write(new)  # also what is finished when a member diverges or the user interrupts
    if store:
        wait_for_all("nteq: all chunks are stored")
        new = store.read()
    return np.stack([(new if i in new else kept)[i] for i in indices])


def largest_step(network: Network, key: ArrayLike, x: ArrayLike, loss: str = "squared") -> float:
    r"""The largest learning rate with which gradient descent still resembles gradient flow.

    A step of size η moves the mode of Θ(X, X) with eigenvalue λ by ηλ/N of its way, gradient flow by
    $1 - e^{-\eta\lambda/N}$. At $\eta = N/\lambda_{\max}$, which is returned, the fastest mode arrives in a
    single step; above it overshoots, and from twice that on training diverges (Lee et al. 2019, section
    2.3). Cross-entropy bends half as much, so it allows twice the step. The eigenvalue is found by power
    iteration on the empirical NTK of one freshly drawn network.

    Args:
        network: the architecture.
        key: a JAX random key for that network.
        x: training inputs, shape (N, *features).
        loss: "squared" or "cross-entropy".

    Returns:
        η, positive.

    Raises:
        ValueError: inputs that the network does not take, at which no output has a gradient, or so large
            that one overflows; an unknown loss, or a function, of whose curvature nothing is known.

    >>> from nteq.kernels import mlp_kernel
    >>> from nteq.networks import mlp
    >>> x = jax.random.normal(jax.random.key(0), (20, 5))
    >>> infinite = 20 / jnp.linalg.eigvalsh(mlp_kernel(depth=1)(x, x).ntk)[-1]
    >>> bool(abs(largest_step(mlp(width=4096), jax.random.key(1), x) / infinite - 1) < 0.05)
    True
    """
    _training.check_network("largest_step", network)
    advice = "For a loss of your own, choose a learning_rate or an optimizer." if callable(loss) else ""
    _checks.choice("largest_step", "loss", loss, tuple(_program.LOSSES), advice)
    if not _checks.is_known(key, x):
        raise ValueError("largest_step: key and x must be known, not traced, since the answer is a number.")
    with jax.ensure_compile_time_eval():
        x = _training.inputs("largest_step", "x", x, jnp.result_type(float))
        key = _training.typed_key("largest_step", key)
        step = _training.overshoots_above("largest_step", network, key, x, loss)
    if not np.isfinite(step):
        raise ValueError(
            "largest_step: at these x the gradient of every output is zero, so that any step will do. Are "
            "they all zero, and the network without biases?"
        )
    return step


def augment_by(action: Action, label_action: Action | None = None) -> Augment:
    r"""Augmentation on the fly: every example of a batch is moved by a random group element.

    $$(x_i, y_i) \to (\rho(g_i)x_i,\ \rho_Y(g_i)y_i), \qquad g_i \text{ uniform in } G.$$

    Args:
        action: ρ, an `nteq.actions.Action` on the inputs.
        label_action: ρ_Y, an action of the same group on labels (n, outputs); None for labels that stay.

    Returns:
        A function (key, x, y) -> (x, y) for `train` and `run`; one of equal actions is equal.

    Raises:
        ValueError: what is no action, or actions of groups that differ.

    >>> from nteq.actions import on_lattices
    >>> from nteq.groups import cyclic
    >>> augment = augment_by(on_lattices(cyclic(4)))
    >>> x, y = augment(jax.random.key(0), jnp.arange(8.0).reshape(2, 2, 2), jnp.array([1.0, 2.0]))
    >>> x.sum((1, 2)), y
    (Array([ 6., 22.], dtype=float32), Array([1., 2.], dtype=float32))
    """
    for name, given in {"action": action, "label_action": label_action}.items():
        if not isinstance(given, Action) and not (name == "label_action" and given is None):
            raise ValueError(f"augment_by: {name} must be an nteq.actions.Action, got {given!r}.")
    if label_action is not None and not np.array_equal(label_action.group.table, action.group.table):
        raise ValueError(
            f"augment_by: both actions must be of one group, got {action.group!r} and {label_action.group!r}."
        )
    return _Augmentation(action, label_action)


@dataclass(frozen=True)
class _Augmentation:
    action: Action
    label_action: Action | None

    def __call__(self, key: Array, x: Array, y: Array) -> tuple[Array, Array]:
        elements = jax.random.randint(key, (x.shape[0],), 0, self.action.group.order)
        labels = y if self.label_action is None else _moved(self.label_action, elements, y)
        return _moved(self.action, elements, x), labels


def _moved(action: Action, elements: Array, batch: Array) -> Array:
    return jax.vmap(lambda g, one: action(g, one[None])[0])(elements, batch)


def _indices(members: int | Sequence[int]) -> np.ndarray:
    if np.ndim(members) == 0:
        return np.arange(_checks.count("init", "members", members), dtype=np.int32)
    indices, most = np.asarray(members), np.iinfo(np.int32).max
    integers = indices.ndim == 1 and indices.size > 0 and np.issubdtype(indices.dtype, np.integer)
    if not integers or indices.min() < 0 or indices.max() > most:
        raise ValueError(f"init: members must be indices from 0 to {most}, at least one, got {members!r}.")
    return indices.astype(np.int32)
