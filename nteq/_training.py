"""The training that a user asks for: its arguments, checked once, and what they make."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nteq import _checks, _program
from nteq._program import LOSSES, NEVER, Augment, Loss, Program
from nteq._store import PROGRAM
from nteq.networks import Network

CACHE = 2**20, 8  # bytes that a block of members works on, and how many it may be: a processor's cache,
DEVICE = 2**30, 1024  # or elsewhere a part of the device's memory


def overshoots_above(caller: str, network: Network, key: Array, x: Array, loss: str) -> float:
    """The learning rate at which the fastest mode arrives in one step; inf where no mode moves."""
    x = x.astype(jnp.result_type(float))

    def eigenvalue() -> Array:
        params = network.init(key, x.shape[1:], x.dtype)
        shape = outputs_of(caller, network, params, x).shape
        v = jax.random.normal(jax.random.fold_in(key, 1), shape)
        return _program.largest_eigenvalue(network, params, x, v)

    largest = _checks.look(eigenvalue)
    if not np.isfinite(largest):
        raise ValueError(
            f"{caller}: x is so large that the network's tangent kernel is not finite. Scale it down."
        )
    return float(len(x) / largest) * LOSSES[loss][1] if largest else np.inf


@dataclass(frozen=True, eq=False)
class Training:
    """Checked data, the program of a member, and what else decides how it goes."""

    caller: str
    program: Program
    x: Array
    y: Array
    steps: int
    loss: str
    learning_rate: float | Array | None  # None if the optimizer knows
    platform: str

    @property
    def rate(self) -> Array:
        return jnp.asarray(0 if self.learning_rate is None else self.learning_rate, self.x.dtype)

    @property
    def batch_size(self) -> int:
        return self.program.batch_size or len(self.x)

    @cached_property
    def block(self) -> int:
        """How many members are computed at once on one device, from what the loss of one works on."""
        params = shape_of_params(self.program.network, self.x)
        batch = (jax.ShapeDtypeStruct((self.batch_size, *a.shape[1:]), a.dtype) for a in (self.x, self.y))
        jaxpr = jax.make_jaxpr(self.program.loss_of)(params, *batch).jaxpr
        values = [v.aval for equation in jaxpr.eqns for v in equation.outvars]
        needed = sum(v.size * v.dtype.itemsize for v in [*values, *jax.tree.leaves(params)])
        room, most = CACHE if self.platform == "cpu" else DEVICE
        return 2 ** (min(max(room // needed, 1), most).bit_length() - 1)

    def check(self, members: np.ndarray, diverged: ArrayLike) -> None:
        """Raises if a member diverged."""
        diverged = np.asarray(diverged)
        if (diverged < NEVER).any():
            at = int(np.argmin(diverged))
            rate = "the optimizer's learning rate"
            if self.learning_rate is not None:
                rate = f"learning_rate, {self.learning_rate:.3g} now, see largest_step,"
            raise FloatingPointError(
                f"{self.caller}: the loss of member {int(members[at])} is not finite at step "
                f"{int(diverged[at])}. Reduce {rate} or the size of the labels."
            )

    def configuration(self, key: Array, x_test: Array, snapshots: list[int], batch: int) -> dict[str, str]:
        """What decides the predictions of a member, each by name, for comparison and reading."""
        program, network = self.program, self.program.network
        keys = jax.eval_shape(lambda: _program.member_keys(key, jnp.zeros(1, int))[:, 0])
        drawn = _program.draw.lower(network, self.x.shape[1:], self.x.dtype, keys)
        params = drawn.out_info
        state = jax.eval_shape(partial(_program.start, program, examples=len(self.x)), params)
        trained = _program.advance.lower(program, keys, params, state, 0, 1, self.x, self.y, self.rate)
        asked = _program.predict.lower(network, params, _program.in_batches(x_test, batch))
        compiled = "".join(lowered.as_text() for lowered in (drawn, trained, asked))
        known = self.learning_rate is not None
        return {
            "network": _described(network),
            "key": f"{jax.random.key_impl(key)} {jax.random.key_data(key).tolist()}",
            "x": _digest(self.x),
            "y": _digest(self.y),
            "x_test": _digest(x_test),
            "steps": str(self.steps),
            "snapshots": str(snapshots),
            "loss": self.loss,
            "learning_rate": repr(self.learning_rate) if known else "set by the optimizer",
            "batch_size": str(program.batch_size or "all"),
            "predict_batch_size": str(batch),
            "block": str(self.block),
            PROGRAM: hashlib.sha256(compiled.encode()).hexdigest()[:16],
            "jax": f"{jax.__version__} on {self.platform}",
        }


def prepare(
    caller: str,
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    steps: int,
    learning_rate: float | Array | None,
    loss: str | Loss,
    optimizer: optax.GradientTransformation | None,
    batch_size: int | None,
    augment: Augment | None,
    dtype: DTypeLike,
    platform: str,
) -> Training:
    """The training that these arguments ask for."""
    check_network(caller, network)
    steps = _checks.count(caller, "steps", steps)
    x = inputs(caller, "x", x, dtype)
    outputs = outputs_of(caller, network, shape_of_params(network, x), x)
    if not callable(loss):
        loss = _checks.choice(caller, "loss", loss, tuple(LOSSES), "Or give a function of (predictions, y).")
    y = labels(caller, loss, y, outputs.shape, dtype)
    if batch_size is not None:
        advice = "That is the number of examples, and what is left of an epoch is skipped."
        batch_size = _checks.count(caller, "batch_size", batch_size, most=len(x), advice=advice)
    if optimizer is None:
        learning_rate = _rate(caller, network, x, loss, learning_rate)
    elif learning_rate is not None:
        raise ValueError(f"{caller}: give a learning_rate or an optimizer, not both.")
    elif not isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            f"{caller}: optimizer must be an optax gradient transformation such as optax.adam(1e-3), "
            f"got {optimizer!r}."
        )
    function = loss if callable(loss) else LOSSES[loss][0]
    program = Program(network, function, optimizer, batch_size, augment)
    _check_program(caller, program, outputs, x, y)
    return Training(caller, program, x, y, steps, _described(loss), learning_rate, platform)


def _rate(
    caller: str, network: Network, x: Array, loss: str | Loss, learning_rate: float | Array | None
) -> float | Array:
    """The learning rate that was asked for, or a tenth of the largest; the same whatever the user's key."""
    if learning_rate is not None:
        learning_rate = _checks.number(caller, "learning_rate", learning_rate, exclusive=True)
    if callable(loss) or not _checks.is_known(x, learning_rate):
        if learning_rate is None:
            unknown = "a loss that is a function" if callable(loss) else "traced inputs"
            raise ValueError(
                f"{caller}: nothing is known of the curvature with {unknown}. Give a learning_rate or an "
                "optimizer."
            )
        return learning_rate
    fixed = jax.random.key(0, impl="threefry2x32")
    step = overshoots_above(caller, network, fixed, x[:1024], loss)
    if learning_rate is None:
        if not np.isfinite(step):
            raise ValueError(
                f"{caller}: at these x the gradient of every output is zero. Give a learning_rate."
            )
        return float(f"{step / 10:.2g}")  # rounded, to be the same on every machine
    if learning_rate > step:
        warnings.warn(
            f"{caller}: a learning_rate of {learning_rate:.3g} does not follow gradient flow, since "
            f"the fastest mode overshoots above {step:.3g}, see largest_step; from {2 * step:.3g} on "
            "training diverges.",
            stacklevel=4,
        )
    return learning_rate


def _check_program(caller: str, program: Program, outputs: jax.ShapeDtypeStruct, x: Array, y: Array) -> None:
    for name in ("network", "loss", "optimizer", "augment"):
        try:
            hash(getattr(program, name))
        except TypeError:
            raise ValueError(
                f"{caller}: {name} must be hashable, since the training is compiled for it: a function or a "
                f"frozen dataclass, say. Got {getattr(program, name)!r}."
            ) from None
    size = program.batch_size or len(x)
    shapes = [(size, *a.shape[1:]) for a in (x, y)]
    batch = [jax.ShapeDtypeStruct(shape, a.dtype) for shape, a in zip(shapes, (x, y), strict=True)]
    if program.augment is not None:
        if not callable(program.augment):
            raise ValueError(f"{caller}: augment must be a function (key, x, y) -> (x, y).")
        moved = jax.eval_shape(program.augment, jax.random.key(0, impl="threefry2x32"), *batch)
        found = [getattr(a, "shape", None) for a in moved] if isinstance(moved, tuple | list) else moved
        if found != shapes:
            raise ValueError(
                f"{caller}: augment must keep the shapes of a batch (x, y), {shapes}, but makes {found}."
            )
    answered = jax.ShapeDtypeStruct((size, *outputs.shape[1:]), outputs.dtype)
    value = jax.eval_shape(program.loss, answered, batch[1])
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"{caller}: loss must make one real number of predictions {answered.shape} and labels "
            f"{shapes[1]}, got {value}. Average it over the batch."
        )


def check_network(caller: str, network: Network) -> None:
    if not isinstance(network, Network):
        raise ValueError(f"{caller}: network must be an nteq.networks.Network, got {network!r}.")


def described_params(caller: str, params: Any) -> tuple[int, np.dtype, str]:
    """The number of members that these are of, their type, and the platform that computes with them."""
    leaves = jax.tree.leaves(params)
    members = {jnp.shape(leaf)[:1] for leaf in leaves}
    real = [leaf for leaf in leaves if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]
    if len(members) != 1 or members <= {(), (0,)} or not real:
        raise ValueError(
            f"{caller}: params must be arrays with a leading axis over members, as init makes them, got "
            f"shapes {[jnp.shape(leaf) for leaf in leaves]}."
        )
    with jax.ensure_compile_time_eval():
        computed = jnp.asarray(real[0] if _checks.is_known(real[0]) else 0)  # traced: where others are
    return jnp.shape(leaves[0])[0], jnp.result_type(real[0]), next(iter(computed.devices())).platform


def typed_key(caller: str, key: ArrayLike) -> Array:
    """One random key of the new kind."""
    if isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        typed = key
    else:  # the old kind, of JAX's default generator
        try:
            typed = jax.random.wrap_key_data(jnp.asarray(key))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{caller}: key must be a random key such as jax.random.key(0), got {key!r}."
            ) from error
    if typed.shape:
        raise ValueError(f"{caller}: key must be one random key, got {typed.size}, of shape {typed.shape}.")
    return typed


def shape_of_params(network: Network, x: Array) -> Any:
    """Of one member, as `jax.eval_shape` says it."""
    key = jax.random.key(0, impl="threefry2x32")
    return jax.eval_shape(lambda: network.init(key, x.shape[1:], x.dtype))


def outputs_of(caller: str, network: Network, params: Any, x: Array) -> jax.ShapeDtypeStruct:
    """Shape and type of what one member answers."""
    outputs = jax.eval_shape(network.apply, params, x)
    if getattr(outputs, "shape", ())[:1] != x.shape[:1]:
        raise ValueError(
            f"{caller}: network.apply must answer with shape (n,) or (n, outputs) for n inputs, got "
            f"{outputs} for {len(x)}."
        )
    return outputs


def inputs(caller: str, name: str, x: ArrayLike, dtype: DTypeLike) -> Array:
    return _cast(caller, name, _checks.batch(caller, name, x), dtype)


def labels(caller: str, loss: str | Loss, y: ArrayLike, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Checked for predictions of this shape."""
    if not isinstance(y, Array) and _checks.is_known(y):
        y = np.asarray(y)  # JAX would wrap integers of more than 32 bits
    integers = jnp.issubdtype(jnp.result_type(y), jnp.integer)
    if callable(loss):
        if np.shape(y)[:1] != shape[:1]:
            raise ValueError(
                f"{caller}: y must have a leading axis of {shape[0]} examples, got shape {np.shape(y)}."
            )
        if not integers:
            return _cast(caller, "y", _checks.real(caller, "y", y), dtype)
        kept = jax.dtypes.canonicalize_dtype(jnp.result_type(y))
        if _checks.is_known(y) and _checks.look(lambda: np.asarray(y) != np.asarray(y).astype(kept)).any():
            raise ValueError(
                f'{caller}: y has integers beyond {kept}. Use jax.config.update("jax_enable_x64", True).'
            )
        return jnp.asarray(y)
    if loss == "squared":
        if np.shape(y) != shape:
            raise ValueError(
                f"{caller}: y must have shape {shape}, as the network answers, got shape {np.shape(y)}."
            )
        return _cast(caller, "y", _checks.real(caller, "y", y), dtype)
    if len(shape) != 2 or shape[1] < 2:
        raise ValueError(
            f"{caller}: 'cross-entropy' needs a network with an output for each class, at least two, but "
            f"this one answers {shape} for {shape[0]} inputs. Give it outputs=10, say."
        )
    if np.shape(y) != shape[:1] or not integers:
        raise ValueError(
            f"{caller}: y must be {shape[0]} integers, the classes, for 'cross-entropy', got shape "
            f"{np.shape(y)} of type {jnp.result_type(y)}."
        )
    if _checks.is_known(y):
        classes = _checks.look(lambda: np.asarray(y))
        least, most = int(classes.min()), int(classes.max())
        if not (0 <= least and most < shape[1]):
            raise ValueError(
                f"{caller}: y must name classes from 0 to {shape[1] - 1}, got values from {least} to {most}. "
                f"Give the network outputs={most + 1}, or count the classes from 0."
            )
    return jnp.asarray(y, np.int32)


def _cast(caller: str, name: str, values: Array, dtype: DTypeLike) -> Array:
    cast = values.astype(dtype)
    if _checks.is_known(cast) and not _checks.are_finite(cast):
        raise ValueError(f"{caller}: {name} has entries that {cast.dtype} cannot hold. Scale them down.")
    return cast


def _described(value: object) -> str:
    """Without addresses in memory, which say nothing in another process."""
    return value if isinstance(value, str) else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _digest(array: Array) -> str:
    content = np.ascontiguousarray(array)
    return f"{content.dtype}{list(content.shape)} {hashlib.sha256(content.tobytes()).hexdigest()[:16]}"
