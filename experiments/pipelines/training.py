"""One member of an ensemble, from its start to its answers, for any way of training.

What differs from pipeline to pipeline is handed over as a function: how a member starts, what it computes,
what a step is shown, how the step is made, and what is kept of the path. Thousands of members come from
`jax.vmap` over their random keys.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.pipelines.shown import full
from nteq.actions import Action, matrices_of, on_lattices, on_vectors, orbit
from nteq.datasets import fashion_mnist
from nteq.groups import cyclic

STEPS = 60


class Problem(NamedTuple):
    """Training examples, inputs to ask about, and the group that acts on both."""

    x: jax.Array  # before augmentation, (n, *features)
    y: jax.Array  # (n, outputs)
    check_x: jax.Array  # a validation set
    check_y: jax.Array
    asked: jax.Array  # far from the data, (m, *features)
    action: Action
    label_action: Action
    label_matrices: np.ndarray  # ρ_Y, (|G|, outputs, outputs)
    rate: float  # a learning rate at which plain gradient descent is stable


def images(side: int = 8) -> Problem:
    """Trousers (1) among other clothes (−1), eight small pictures; noise is asked about; quarter turns."""
    x, y = fashion_mnist(300, 1)[:2]
    some = np.stack([np.flatnonzero(y == 1)[:8], np.flatnonzero(y != 1)[:8]], axis=1).ravel()
    x = jax.image.resize(x[some, 2:-2, 2:-2, 0], (16, side, side), "linear", antialias=True)
    x, y = (x - x.mean()) / x.std(), jnp.where(y[some] == 1, 1.0, -1.0)[:, None]
    group = cyclic(4)
    stay = Action(group, lambda g, label: label, name="labels that stay")
    noise = jax.random.normal(jax.random.key(0), (16, side, side))
    return Problem(x[:8], y[:8], x[8:10], y[8:10], noise, on_lattices(group), stay, np.ones((4, 1, 1)), 0.02)


def vectors(order: int) -> Problem:
    """Where a particle is in the plane, and the force of a round well on it; asked is farther out."""

    def force(x):
        return -x / (1 + jnp.sum(x**2, axis=1, keepdims=True))

    x = jax.random.normal(jax.random.key(1), (16, 2))
    far = 2 * jax.random.normal(jax.random.key(2), (16, 2))
    turn = on_vectors(cyclic(order))
    y = force(x)
    return Problem(x[:8], y[:8], x[8:], y[8:], far, turn, turn, matrices_of(turn, 2), 0.1)


def squared(outputs, labels):
    """The squared loss."""
    return ((outputs - labels) ** 2).sum(-1).mean() / 2


class Keep(NamedTuple):
    """How answers come out of a path of parameters."""

    first: Callable  # params at the start -> kept
    then: Callable  # kept, params after a step, x of that step -> kept
    answer: Callable  # kept, inputs -> outputs


def last(problem, model):
    """The parameters at the end."""
    return Keep(lambda params: params, lambda kept, params, x: params, model)


def best_on(validation):
    """The parameters with the smallest loss on a validation set, validation(problem) -> (x, y)."""

    def keep(problem, model):
        x, y = validation(problem)

        def then(kept, params, _):
            loss = squared(model(params, x), y)
            return jax.tree.map(lambda new, old: jnp.where(loss < kept[1], new, old), (params, loss), kept)

        return Keep(lambda params: (params, jnp.inf), then, lambda kept, x: model(kept[0], x))

    return keep


def average(problem, model):
    """The mean of the parameters over all steps."""

    def then(kept, params, _):
        mean, count = kept
        return jax.tree.map(lambda m, p: m + (p - m) / (count + 1), mean, params), count + 1

    return Keep(lambda params: (params, 0.0), then, lambda kept, x: model(kept[0], x))


def snapshots(problem, model, every=STEPS // 4):
    """The mean of the answers of four snapshots."""

    def first(params):
        return jax.tree.map(lambda p: jnp.stack([p] * 4), params), 0

    def then(kept, params, _):
        shots, count = kept
        place = jnp.minimum(count // every, 3)
        return jax.tree.map(lambda s, p: s.at[place].set(p), shots, params), count + 1

    return Keep(first, then, lambda kept, x: jax.vmap(model, (0, None))(kept[0], x).mean(0))


def path(
    problem,
    key,
    params,
    model,
    optimizer=None,
    see=full,
    loss=squared,
    penalty=lambda params, start, key: 0.0,
    keep=last,
    steps=STEPS,
):
    """What is kept of a member's training from its start `params`."""
    start, optimizer = params, optax.with_extra_args_support(optimizer or optax.sgd(problem.rate))
    own, during = jax.random.split(key)
    batch, keep = see(problem, own), keep(problem, model)

    def step(carry, now):
        params, state, kept = carry
        i, key = now
        seen, dropped, added = jax.random.split(key, 3)
        x, y = batch(i, seen)

        def objective(params):
            return loss(model(params, x, dropped), y) + penalty(params, start, added)

        value, gradient = jax.value_and_grad(objective)(params)
        update, state = optimizer.update(
            gradient, state, params, value=value, grad=gradient, value_fn=objective
        )
        params = optax.apply_updates(params, update)
        return (params, state, keep.then(kept, params, x)), None

    carry = params, optimizer.init(params), keep.first(params)
    return jax.lax.scan(step, carry, (jnp.arange(steps), jax.random.split(during, steps)))[0][2]


def ask(problem, answer):
    """The answers on the orbits of problem.asked, shape (|G|, m, outputs)."""
    asked = orbit(problem.action, problem.asked)
    return answer(asked.reshape(-1, *asked.shape[2:])).reshape(*asked.shape[:2], -1)


def member(problem, start, model, keep=last, **how):
    """For a key, a trained member's answers on the orbits of problem.asked; `how` is for `path`."""

    def answers(key):
        begin, along = jax.random.split(key)
        kept = path(problem, along, start(begin), model, keep=keep, **how)
        return ask(problem, lambda x: keep(problem, model).answer(kept, x))

    return answers
