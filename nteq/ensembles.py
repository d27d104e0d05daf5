r"""Deep ensembles of finite networks: thousands of members at once, resumable, on any number of devices.

`init`, `train` and `predict` work on parameters with a leading member axis. `run` is for ensembles whose
parameters would not fit in memory: it keeps the predictions only, stores them as it goes, and continues after
an interruption. Member i depends on `jax.random.fold_in(key, i)` alone: members are computed in blocks, whose
size the network and the data determine, so chunks, interruptions and the number of devices never change one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from tqdm.auto import tqdm

from nteq.networks import Network

__all__ = ["augment_by", "init", "largest_step", "predict", "run", "train"]

_CACHE = 2**20, 8  # bytes that a block of members works on, and how many it may be: a processor's cache,
_DEVICE = 2**30, 1024  # or elsewhere a part of the device's memory

_PROGRAM = "training step (optimizer, augmentation)"

_NEVER = np.iinfo(np.int32).max  # the step at which a member diverges that does not


def init(network: Network, key: Array, members: int | Sequence[int], shape: Sequence[int], dtype=None) -> Any:
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
        ValueError: no members or negative ones; a shape that the network does not take.

    >>> from nteq.networks import mlp
    >>> params = init(mlp(width=8), jax.random.key(0), 5, (6, 6))
    >>> params[0][0].shape
    (5, 36, 8)
    """
    indices = _indices("init", members)
    return _draw(network, tuple(shape), dtype, indices, jax.random.key_data(key))


def train(
    network: Network,
    params: Any,
    x: ArrayLike,
    y: ArrayLike,
    steps: int,
    *,
    learning_rate: float | None = None,
    loss: str = "squared",
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    augment: Callable | None = None,
    key: Array | None = None,
) -> Any:
    r"""Trains every member on its own by gradient descent.

    On the squared loss $L = \frac{1}{2N}\sum_i |f(x_i) - y_i|^2$ small full-batch steps of size η follow the
    gradient flow that `nteq.gradient_flow.GradientFlow` solves at infinite width, at time t = η · steps.

    Args:
        network: the members' architecture.
        params: their parameters from `init`, with a leading member axis.
        x: training inputs, shape (N, *features).
        y: labels: shape (N,) or (N, outputs) for "squared", classes 0, 1, … of shape (N,) for
            "cross-entropy".
        steps: how many steps to take, at least 1.
        learning_rate: η of plain gradient descent; if neither it nor an optimizer is given, a tenth of
            `largest_step`, rounded to two digits.
        loss: "squared", or "cross-entropy" with softmax, averaged over the batch.
        optimizer: an optax gradient transformation instead, such as `optax.adam(1e-3)`.
        batch_size: examples in a step, from one epoch's shuffle after another, each member's own; what is
            left of an epoch is skipped. All examples if None.
        augment: `augment(key, x, y)` -> (x, y) on every batch, such as `augment_by(action)`.
        key: random key of shuffles and augmentation, needed for either; member i uses `fold_in(key, i)`.

    Returns:
        The trained parameters.

    Raises:
        ValueError: shapes that do not fit, labels or numbers out of range, an unknown loss, or both a
            learning_rate and an optimizer.
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
    leaves = jax.tree.leaves(params)
    members, dtype = leaves[0].shape[0], leaves[0].dtype
    if key is None:
        if batch_size is not None or augment is not None:
            raise ValueError(
                "train: batch_size and augment need a random key, such as key=jax.random.key(0)."
            )
        key = jax.random.key(0)  # decides nothing
    options = (learning_rate, loss, optimizer, batch_size, augment)
    training = _Training("train", network, key, x, y, steps, *options, dtype)
    advance = jax.jit(jax.vmap(training.advance, (0, 0, 0, None, None, None, None, None)))
    done = []
    for start in range(0, members, training.block):
        chosen = np.minimum(np.arange(start, start + training.block), members - 1)
        part = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], params)
        state = jax.vmap(training.start)(part)
        data = (jax.random.key_data(key), training.x, training.y)
        part, _, diverged = advance(jnp.asarray(chosen), part, state, 0, steps, *data)
        training.check(chosen, np.asarray(diverged))
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
    _positive("predict", batch_size=batch_size)
    x = _inputs("predict", "x", x, jax.tree.leaves(params)[0].dtype)
    return _predict(network, params, _in_batches(x, batch_size))[:, : len(x)]


def run(
    network: Network,
    key: Array,
    members: int,
    x: ArrayLike,
    y: ArrayLike,
    x_test: ArrayLike,
    steps: int,
    *,
    learning_rate: float | None = None,
    loss: str = "squared",
    optimizer: optax.GradientTransformation | None = None,
    batch_size: int | None = None,
    augment: Callable | None = None,
    snapshots: Sequence[int] | None = None,
    dtype=None,
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
        folder: where to store; nothing is stored if None. Several processes need one that all of them see.
        resume: whether to go on with what the folder holds.
        save_every: seconds between two stored chunks.
        progress: whether to show a progress bar.
        devices: which devices to use; all if None.

    Returns:
        The predictions, shape (members, len(snapshots), n) or (members, len(snapshots), n, outputs).

    Raises:
        ValueError: as `train`; snapshots out of order; a folder of another configuration, with the
            difference; a stored chunk that is truncated or altered.
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
    indices = _indices("run", members, count_only=True)
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    options = (learning_rate, loss, optimizer, batch_size, augment)
    training = _Training("run", network, key, x, y, steps, *options, dtype)
    x_test = _inputs("run", "x_test", x_test, dtype)
    if x_test.shape[1:] != training.x.shape[1:]:
        raise ValueError(f"run: x_test must have features {training.x.shape[1:]}, got shape {x_test.shape}.")
    snapshots = [steps] if snapshots is None else [int(s) for s in snapshots]
    if not snapshots or any(b <= a for a, b in zip([-1, *snapshots], [*snapshots, steps + 1], strict=True)):
        raise ValueError(f"run: snapshots must increase from at least 0 to at most {steps}, got {snapshots}.")
    if folder is None and jax.process_count() > 1:
        raise ValueError(
            "run: several processes need a folder that all of them see, to gather what they did."
        )

    store = None if folder is None else _Store(Path(folder), training.configuration(key, x_test, snapshots))
    kept = {} if store is None else store.open(resume)
    todo = np.array([i for i in indices if i not in kept], dtype=np.int32)
    devices = jax.devices() if devices is None else list(devices)
    compute = _on_devices(training, devices, key, x_test, snapshots)
    bar = tqdm(
        total=len(indices),
        initial=len(indices) - len(todo),
        unit=" members",
        disable=not progress or jax.process_index() > 0,
    )
    new, last, together = {}, time.monotonic(), training.block * len(devices)
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
        _wait_for_all("nteq: all chunks are stored")
        new = store.read()
    return np.stack([(new if i in new else kept)[i] for i in indices])


def largest_step(network: Network, key: Array, x: ArrayLike, loss: str = "squared") -> float:
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
        ValueError: inputs that the network does not take, or an unknown loss.

    >>> from nteq.kernels import mlp_kernel
    >>> from nteq.networks import mlp
    >>> x = jax.random.normal(jax.random.key(0), (20, 5))
    >>> infinite = 20 / jnp.linalg.eigvalsh(mlp_kernel(depth=1)(x, x).ntk)[-1]
    >>> bool(abs(largest_step(mlp(width=4096), jax.random.key(1), x) / infinite - 1) < 0.05)
    True
    """
    _loss("largest_step", loss)
    x = _inputs("largest_step", "x", x, jnp.result_type(float))
    params = network.init(key, x.shape[1:], x.dtype)
    shape = jax.eval_shape(network.apply, params, x).shape
    eigenvalue = _largest_eigenvalue(network, params, x, jax.random.normal(jax.random.fold_in(key, 1), shape))
    return float(len(x) / eigenvalue) * {"squared": 1, "cross-entropy": 2}[loss]


def augment_by(action, label_action=None) -> Callable:
    r"""Augmentation on the fly: every example of a batch is moved by a random group element.

    $$(x_i, y_i) \to (\rho(g_i)x_i,\ \rho_Y(g_i)y_i), \qquad g_i \text{ uniform in } G.$$

    Args:
        action: ρ, an `nteq.actions.Action` on the inputs.
        label_action: ρ_Y, an action of the same group on labels (n, outputs); None for labels that stay.

    Returns:
        A function (key, x, y) -> (x, y) for `train` and `run`.

    >>> from nteq.actions import on_lattices
    >>> from nteq.groups import cyclic
    >>> augment = augment_by(on_lattices(cyclic(4)))
    >>> x, y = augment(jax.random.key(0), jnp.arange(8.0).reshape(2, 2, 2), jnp.array([1.0, 2.0]))
    >>> x.sum((1, 2)), y
    (Array([ 6., 22.], dtype=float32), Array([1., 2.], dtype=float32))
    """

    def moved(some_action, elements, batch):
        return jax.vmap(lambda g, one: some_action(g, one[None])[0])(elements, batch)

    def augment(key, x, y):
        elements = jax.random.randint(key, (x.shape[0],), 0, action.group.order)
        return moved(action, elements, x), y if label_action is None else moved(label_action, elements, y)

    return augment


class _Training:
    """Checked data, and the functions of one member that follow from them."""

    def __init__(
        self,
        caller,
        network,
        key,
        x,
        y,
        steps,
        learning_rate,
        loss,
        optimizer,
        batch_size,
        augment,
        dtype,
    ):
        if not isinstance(network, Network):
            raise ValueError(f"{caller}: network must be an nteq.networks.Network, got {network!r}.")
        _positive(caller, steps=steps)
        self.caller, self.network, self.steps, self.augment = caller, network, steps, augment
        self.x = _inputs(caller, "x", x, dtype)
        params = jax.eval_shape(lambda k: network.init(k, self.x.shape[1:], dtype), key)
        shape = jax.eval_shape(network.apply, params, self.x[:1]).shape[1:]
        self.loss, self._loss = loss, _loss(caller, loss)
        self.y = _labels(caller, loss, y, (len(self.x), *shape), dtype)
        if batch_size is not None:
            _positive(caller, batch_size=batch_size)
            if batch_size > len(self.x):
                raise ValueError(
                    f"{caller}: batch_size must be at most the number of examples {len(self.x)}, "
                    f"got {batch_size}."
                )
        self.batch_size = len(self.x) if batch_size is None else int(batch_size)
        self.shuffled = batch_size is not None
        if optimizer is None:
            if learning_rate is not None and not (np.isfinite(learning_rate) and learning_rate > 0):
                raise ValueError(
                    f"{caller}: learning_rate must be positive and finite, got {learning_rate!r}."
                )
            step = largest_step(network, key, self.x[:1024], loss)
            if learning_rate is None:
                learning_rate = float(f"{step / 10:.2g}")  # rounded, to be the same on every machine
            if learning_rate > step:
                warnings.warn(
                    f"{caller}: a learning_rate of {learning_rate:.3g} does not follow gradient flow, since "
                    f"the fastest mode overshoots above {step:.3g}, see largest_step; from {2 * step:.3g} on "
                    "training diverges.",
                    stacklevel=3,
                )
            optimizer = optax.sgd(learning_rate)
        elif learning_rate is not None:
            raise ValueError(f"{caller}: give a learning_rate or an optimizer, not both.")
        elif not isinstance(optimizer, optax.GradientTransformation):
            raise ValueError(
                f"{caller}: optimizer must be an optax gradient transformation such as optax.adam(1e-3), "
                f"got {optimizer!r}."
            )
        self.learning_rate, self.optimizer, self.dtype = learning_rate, optimizer, dtype

    @cached_property
    def block(self) -> int:
        """How many members are computed at once on one device, from what the loss of one works on."""
        params = jax.eval_shape(lambda: self.network.init(jax.random.key(0), self.x.shape[1:], self.dtype))
        batch = self.x[: self.batch_size], self.y[: self.batch_size]
        jaxpr = jax.make_jaxpr(self._loss_of)(params, *batch).jaxpr
        values = [v.aval for equation in jaxpr.eqns for v in equation.outvars]
        needed = sum(v.size * v.dtype.itemsize for v in [*values, *jax.tree.leaves(params)])
        room, most = _CACHE if jax.default_backend() == "cpu" else _DEVICE
        return 2 ** (min(max(room // needed, 1), most).bit_length() - 1)

    def _loss_of(self, params, x, y):
        return self._loss(self.network.apply(params, x), y)

    def start(self, params):
        """What goes along with the parameters from step to step."""
        return self.optimizer.init(params), jnp.arange(len(self.x) if self.shuffled else 0)

    def advance(self, index, params, state, first, count, key_data, x, y):
        """Parameters and state after some steps more, and the step at which the loss was not finite."""
        key = _keys(jax.random.wrap_key_data(key_data), index)[1]
        per_epoch = len(self.x) // self.batch_size

        def step(number, carry):
            params, (state, order), diverged = carry
            at_step = jax.random.fold_in(key, number)
            batch = x, y
            if self.shuffled:
                place = number % per_epoch
                shuffle = lambda: jax.random.permutation(at_step, len(self.x))
                order = jax.lax.cond(place == 0, shuffle, lambda: order)
                chosen = jax.lax.dynamic_slice_in_dim(order, place * self.batch_size, self.batch_size)
                batch = x[chosen], y[chosen]
            if self.augment is not None:
                batch = self.augment(jax.random.fold_in(at_step, 1), *batch)
            value, gradient = jax.value_and_grad(self._loss_of)(params, *batch)
            diverged = jnp.where(jnp.isfinite(value), diverged, jnp.minimum(diverged, number))
            updates, state = self.optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), (state, order), diverged

        return jax.lax.fori_loop(first, first + count, step, (params, state, jnp.int32(_NEVER)))

    def check(self, members, diverged):
        """Raises if a member diverged."""
        if (diverged < _NEVER).any():
            at = int(np.argmin(diverged))
            rate = "the optimizer's learning rate"
            if self.learning_rate is not None:
                rate = f"learning_rate, {self.learning_rate:.3g} now, see largest_step,"
            raise FloatingPointError(
                f"{self.caller}: the loss of member {int(members[at])} is not finite at step "
                f"{int(diverged[at])}. Reduce {rate} or the size of the labels."
            )

    def configuration(self, key, x_test, snapshots) -> dict[str, str]:
        """What decides the predictions of a member, each by name, for comparison and reading."""
        params = jax.eval_shape(lambda k: self.network.init(k, self.x.shape[1:], self.dtype), key)
        one = (params, jax.eval_shape(self.start, params), 0, 1, jax.random.key_data(key), self.x, self.y)
        program = jax.jit(self.advance).lower(0, *one).as_text()
        return {
            "network": self.network.name,
            "key": f"{jax.random.key_impl(key)} {jax.random.key_data(key).tolist()}",
            "x": _digest(self.x),
            "y": _digest(self.y),
            "x_test": _digest(x_test),
            "steps": str(self.steps),
            "snapshots": str(snapshots),
            "loss": self.loss,
            "learning_rate": "set by the optimizer"
            if self.learning_rate is None
            else repr(self.learning_rate),
            "batch_size": str(self.batch_size) if self.shuffled else "all",
            "block": str(self.block),
            _PROGRAM: hashlib.sha256(program.encode()).hexdigest()[:16],
            "jax": f"{jax.__version__} on {jax.default_backend()}",
        }


def _on_devices(training: _Training, devices, key, x_test, snapshots) -> Callable:
    """A function of member indices to {index: predictions}, a block of members on each device.

    The member axis is sharded over the mesh, and each shard runs the program of a single device. One program
    for the whole mesh would be optimised differently for another number of devices and change the last bits.
    """
    size = training.block * len(devices)
    sharding = NamedSharding(Mesh(np.array(devices), ("members",)), PartitionSpec("members"))
    shards = {device: index[0] for device, index in sharding.addressable_devices_indices_map((size,)).items()}
    draw = partial(_draw, training.network, training.x.shape[1:], training.dtype)
    start = jax.jit(jax.vmap(training.start))
    advance = jax.jit(jax.vmap(training.advance, (0, 0, 0, *[None] * 5)))
    data = (jax.random.key_data(key), training.x, training.y, _in_batches(x_test, training.batch_size))
    data = {device: jax.device_put(data, device) for device in shards}

    def on_device(device, chosen):
        key_data, x, y, test = data[device]
        chosen = jax.device_put(chosen, device)
        params = draw(chosen, key_data)
        state, done, diverged, answers = start(params), 0, [], []
        for snapshot in snapshots:
            if snapshot > done:
                params, state, when = advance(chosen, params, state, done, snapshot - done, key_data, x, y)
                diverged.append(when)
            answers.append(_predict(training.network, params, test))
            done = snapshot
        return jax.device_get((diverged, answers))

    # JAX runs what one thread asks of several processor devices one after the other, hence a thread for each
    pool = ThreadPoolExecutor(len(shards))

    def compute(indices):
        padded = np.resize(indices, size)
        blocks = [padded[shard] for shard in shards.values()]
        found = {}
        for members, (diverged, answers) in zip(blocks, pool.map(on_device, shards, blocks), strict=True):
            for when in diverged:
                training.check(members, when)
            values = np.stack([answer[:, : len(x_test)] for answer in answers], axis=1)
            finite = np.isfinite(values).reshape(len(values), -1).all(1)
            training.check(members, np.where(finite, _NEVER, training.steps))
            found |= zip(members.tolist(), values, strict=True)
        return found

    return compute


class _Store:
    """A folder of finished chunks, each named by its first and last member and the SHA-256 of its bytes."""

    def __init__(self, folder: Path, configuration: dict[str, str]):
        self.folder, self.configuration = folder, configuration

    def open(self, resume: bool) -> dict[int, np.ndarray]:
        """The predictions that are there already."""
        path = self.folder / "configuration.json"
        before = None
        if path.exists() or list(self.folder.glob("members-*.npz")):
            try:
                before = json.loads(path.read_text())
            except (ValueError, FileNotFoundError) as error:
                raise ValueError(
                    f"run: {path} is damaged or missing, so nothing says what made the chunks beside it. "
                    "Choose another folder."
                ) from error
            if not resume:
                raise FileExistsError(
                    f"run: {self.folder} holds a run already. Go on with it by resume=True, or choose "
                    "another folder."
                )
            now = self.configuration
            apart = [name for name in now if before.get(name) != now[name]]
            if apart:  # the program differs whenever something else does
                named = [name for name in apart if name != _PROGRAM] or apart
                raise ValueError(
                    f"run: {self.folder} holds a run of another configuration and cannot be resumed:\n"
                    + "\n".join(f"  {n}: {before.get(n, 'nothing')} there, {now[n]} now" for n in named)
                )
        _wait_for_all("nteq: every process has read the configuration")
        if jax.process_index() == 0:
            for torn in self.folder.glob(".*.part"):  # what a killed run was writing
                torn.unlink(missing_ok=True)
            if before is None:
                self._write("configuration.json", json.dumps(self.configuration, indent=1).encode())
        kept = self.read()
        _wait_for_all("nteq: every process has read the chunks")
        return kept

    def read(self) -> dict[int, np.ndarray]:
        """All predictions in the folder, by member."""
        found = {}
        for path in sorted(self.folder.glob("members-*.npz")):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest()[:16] != path.stem.rsplit("-", 1)[-1]:
                raise ValueError(
                    f"run: {path} is truncated or was altered: its content does not match the checksum in "
                    "its name. Delete that file, and resuming trains its members again."
                )
            with np.load(io.BytesIO(content), allow_pickle=False) as chunk:
                found |= zip(chunk["members"].tolist(), chunk["predictions"], strict=True)
        return found

    def write(self, predictions: dict[int, np.ndarray]) -> None:
        """One more chunk."""
        if not predictions:
            return
        members = sorted(predictions)
        content = io.BytesIO()
        np.savez(content, members=members, predictions=np.stack([predictions[i] for i in members]))
        digest = hashlib.sha256(content.getbuffer()).hexdigest()[:16]
        self._write(f"members-{members[0]:06d}-{members[-1]:06d}-{digest}.npz", content.getbuffer())

    def _write(self, name: str, content) -> None:
        """Writes a file that appears under its name when all of it is on the disk, or not at all."""
        partial_file = self.folder / f".{name}.{os.getpid()}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(partial_file, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial_file.replace(self.folder / name)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial_file.unlink()
            raise OSError(
                error.errno,
                f"run: cannot write {name} ({error.strerror}). The chunks stored before are whole; make room "
                "or give another folder to which you copied them, and go on with resume=True",
                str(self.folder),
            ) from error


def _wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _keys(key: Array, index: ArrayLike) -> Array:
    """Of one member: the key of its parameters, and that of its shuffles and augmentation."""
    return jax.random.split(jax.random.fold_in(key, index))


@partial(jax.jit, static_argnames=("network", "shape", "dtype"))
def _draw(network: Network, shape, dtype, indices: Array, key_data: Array) -> Any:
    key = jax.random.wrap_key_data(key_data)
    return jax.vmap(lambda i: network.init(_keys(key, i)[0], shape, dtype))(indices)


@partial(jax.jit, static_argnames="network")
def _predict(network: Network, params: Any, batches: Array) -> Array:
    def answer(params):
        outputs = jax.lax.map(lambda batch: network.apply(params, batch), batches)
        return outputs.reshape(-1, *outputs.shape[2:])

    return jax.vmap(answer)(params)


@partial(jax.jit, static_argnames="network")
def _largest_eigenvalue(network: Network, params: Any, x: Array, v: Array) -> Array:
    """Of the empirical NTK, by power iteration."""
    f = lambda params: network.apply(params, x)
    _, back = jax.vjp(f, params)

    def iterate(_, state):
        v, size = state
        image = jax.jvp(f, (params,), back(v / size))[1]  # Θ v = J Jᵀ v
        return image, jnp.linalg.norm(image)

    return jax.lax.fori_loop(0, 50, iterate, (v, jnp.linalg.norm(v)))[1]


def _in_batches(x: Array, size: int) -> Array:
    """Shape (batches, size, *features), filled up with copies of the last input."""
    size = min(size, len(x))
    count = -(-len(x) // size)
    filled = jnp.concatenate([x, jnp.repeat(x[-1:], count * size - len(x), axis=0)])
    return filled.reshape(count, size, *x.shape[1:])


def _loss(caller: str, name: str) -> Callable:
    losses = {
        "squared": lambda f, y: jnp.sum((f - y) ** 2) / (2 * f.shape[0]),
        "cross-entropy": lambda f, y: optax.softmax_cross_entropy_with_integer_labels(f, y).mean(),
    }
    if name not in losses:
        raise ValueError(f"{caller}: loss must be 'squared' or 'cross-entropy', got {name!r}.")
    return losses[name]


def _labels(caller: str, loss: str, y: ArrayLike, shape: tuple[int, ...], dtype) -> Array:
    y = jnp.asarray(y)
    if loss == "squared":
        if y.shape != shape:
            raise ValueError(
                f"{caller}: y must have shape {shape}, as the network answers, got shape {y.shape}."
            )
        if not jnp.isfinite(y).all():
            raise ValueError(f"{caller}: y has entries that are not finite. Remove them first.")
        return y.astype(dtype)
    if len(shape) != 2 or shape[1] < 2:
        raise ValueError(
            f"{caller}: 'cross-entropy' needs a network with an output for each class, at least two, but "
            f"this one answers {shape} for {shape[0]} inputs. Give it outputs=10, say."
        )
    if y.shape != shape[:1] or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(
            f"{caller}: y must be {shape[0]} integers, the classes, for 'cross-entropy', got shape {y.shape} "
            f"of type {y.dtype}."
        )
    if y.size and not (0 <= int(y.min()) and int(y.max()) < shape[1]):
        raise ValueError(
            f"{caller}: y must name classes from 0 to {shape[1] - 1}, got values from {int(y.min())} to "
            f"{int(y.max())}. Give the network outputs={int(y.max()) + 1}, or count the classes from 0."
        )
    return y.astype(jnp.int32)


def _inputs(caller: str, name: str, x: ArrayLike, dtype) -> Array:
    x = jnp.asarray(x)
    if x.ndim < 2 or x.shape[0] == 0 or x.size == 0:
        raise ValueError(f"{caller}: {name} must have shape (n, *features) with n ≥ 1, got shape {x.shape}.")
    if not jnp.isfinite(x).all():
        raise ValueError(f"{caller}: {name} has entries that are not finite. Remove them first.")
    return x.astype(dtype)


def _indices(caller: str, members: int | Sequence[int], count_only: bool = False) -> np.ndarray:
    if count_only or np.ndim(members) == 0:
        _positive(caller, members=members)
        return np.arange(members, dtype=np.int32)
    indices = np.asarray(members)
    if indices.size == 0 or not np.issubdtype(indices.dtype, np.integer) or indices.min() < 0:
        raise ValueError(f"{caller}: members must be indices ≥ 0, at least one, got {members!r}.")
    return indices.astype(np.int32)


def _positive(caller: str, **counts) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{caller}: {name} must be an integer of at least 1, got {value!r}.")


def _digest(array: Array) -> str:
    content = np.ascontiguousarray(array)
    return f"{content.dtype}{list(content.shape)} {hashlib.sha256(content.tobytes()).hexdigest()[:16]}"
