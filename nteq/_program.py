"""What a block of members computes: a `Program` is a static value, and equal programs are compiled once.

The functions that compute are compiled at the top of this module, so that a second training of the same
kind on equal shapes compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nteq.networks import Network

Loss = Callable[[Array, Array], Array]
Augment = Callable[[Array, Array, Array], tuple[Array, Array]]

NEVER = np.iinfo(np.int32).max  # the step at which a member diverges that does not


def squared(f: Array, y: Array) -> Array:
    return jnp.sum((f - y) ** 2) / (2 * f.shape[0])


def cross_entropy(f: Array, y: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(f, y).mean()


# each with the largest learning rate in units of N/λ_max, where it bends that much less than the squared loss
LOSSES: dict[str, tuple[Loss, int]] = {"squared": (squared, 1), "cross-entropy": (cross_entropy, 2)}


@dataclass(frozen=True)
class Program:
    """What a member does in each step; everything that is compiled into it, and nothing else."""

    network: Network
    loss: Loss
    optimizer: optax.GradientTransformation | None  # None: plain descent, at a rate that is not compiled in
    batch_size: int | None
    augment: Augment | None

    def loss_of(self, params: Any, x: Array, y: Array) -> Array:
        return self.loss(self.network.apply(params, x), y)

    def start(self, params: Any, examples: int) -> tuple[Any, Array]:
        """What goes along with the parameters from step to step."""
        state = None if self.optimizer is None else self.optimizer.init(params)
        return state, jnp.arange(examples if self.batch_size else 0)

    def advance(
        self,
        key: Array,
        params: Any,
        state: Any,
        first: ArrayLike,
        count: ArrayLike,
        x: Array,
        y: Array,
        rate: Array,
    ) -> tuple[Any, Any, Array]:
        """Parameters and state after some steps more, and the step at which the loss was not finite."""
        size = self.batch_size or len(x)
        plain = optax.GradientTransformation(
            lambda _: None,
            lambda gradient, *_: (jax.tree.map(lambda g: -rate.astype(g.dtype) * g, gradient), None),
        )
        update = optax.with_extra_args_support(self.optimizer or plain).update

        def step(number: Array, carry: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
            params, (state, order), diverged = carry
            at_step = jax.random.fold_in(key, number)
            batch = x, y
            if self.batch_size:
                place = number % (len(x) // size)
                shuffle = lambda: jax.random.permutation(at_step, len(x))
                order = jax.lax.cond(place == 0, shuffle, lambda: order)
                chosen = jax.lax.dynamic_slice_in_dim(order, place * size, size)
                batch = x[chosen], y[chosen]
            if self.augment is not None:
                batch = self.augment(jax.random.fold_in(at_step, 1), *batch)
            value, gradient = jax.value_and_grad(self.loss_of)(params, *batch)
            diverged = jnp.where(jnp.isfinite(value), diverged, jnp.minimum(diverged, number))
            of_batch = dict(value=value, grad=gradient, value_fn=lambda p: self.loss_of(p, *batch))
            updates, new = update(gradient, state, params, **of_batch)
            # some keep the loss in a precision of their own choice
            new = jax.tree.map(lambda now, before: jnp.asarray(now, before.dtype), new, state)
            return optax.apply_updates(params, updates), (new, order), diverged

        return jax.lax.fori_loop(first, first + count, step, (params, state, jnp.int32(NEVER)))


# Everything below has a leading axis over members.


@jax.jit
def member_keys(key: Array, indices: Array) -> Array:
    """Of each member: the key of its parameters, and that of its shuffles and augmentation, (members, 2)."""

    def pair(index: Array) -> Array:
        return jax.random.split(jax.random.fold_in(key, index))

    if jax.random.key_impl(key) == "threefry2x32":
        return jax.vmap(pair)(indices)
    # Other generators draw for all members at once under vmap, which makes one depend on its neighbours.
    # So they are asked one by one, and for the key of one that does not.
    bits = jax.lax.map(
        lambda index: jnp.stack([jax.random.bits(k, (2,), jnp.uint32) for k in pair(index)]), indices
    )
    return jax.random.wrap_key_data(bits, impl="threefry2x32")


@partial(jax.jit, static_argnames=("network", "shape", "dtype"))
def draw(network: Network, shape: tuple[int, ...], dtype: DTypeLike | None, keys: Array) -> Any:
    return jax.vmap(lambda key: network.init(key, shape, dtype))(keys)


@partial(jax.jit, static_argnames=("program", "examples"))
def start(program: Program, params: Any, examples: int) -> tuple[Any, Array]:
    return jax.vmap(lambda one: program.start(one, examples))(params)


@partial(jax.jit, static_argnames="program")
def advance(
    program: Program,
    keys: Array,
    params: Any,
    state: Any,
    first: ArrayLike,
    count: ArrayLike,
    x: Array,
    y: Array,
    rate: Array,
) -> tuple[Any, Any, Array]:
    in_axes = (0, 0, 0, None, None, None, None, None)
    return jax.vmap(program.advance, in_axes)(keys, params, state, first, count, x, y, rate)


@partial(jax.jit, static_argnames="network")
def predict(network: Network, params: Any, batches: Array) -> Array:
    """Shape (members, batches · size, ...)."""

    def answer(params: Any) -> Array:
        outputs = jax.lax.map(lambda batch: network.apply(params, batch), batches)
        return outputs.reshape(-1, *outputs.shape[2:])

    return jax.vmap(answer)(params)


@partial(jax.jit, static_argnames="network")
def largest_eigenvalue(network: Network, params: Any, x: Array, v: Array) -> Array:
    """Of the empirical NTK, by power iteration."""
    f = lambda params: network.apply(params, x)
    _, back = jax.vjp(f, params)

    def iterate(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        v, size = state
        image = jax.jvp(f, (params,), back(v / jnp.where(size > 0, size, 1)))[1]  # Θ v = J Jᵀ v
        return image, jnp.linalg.norm(image)

    return jax.lax.fori_loop(0, 50, iterate, (v, jnp.linalg.norm(v)))[1]


def in_batches(x: Array, size: int) -> Array:
    """Shape (batches, size, *features), filled up with copies of the last input."""
    size = min(size, len(x))
    count = -(-len(x) // size)
    filled = jnp.concatenate([x, jnp.repeat(x[-1:], count * size - len(x), axis=0)])
    return filled.reshape(count, size, *x.shape[1:])
