"""How rows of the table depart from the plain pipeline: functions problem -> (key -> member's answers)."""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from experiments.pipelines import networks as nets
from experiments.pipelines import shown
from experiments.pipelines import training as tr
from experiments.pipelines.training import ask, member, path, squared


def plain(**how):
    """For a problem, the pipeline that each row changes in one place: Gaussian start, descent, all orbits."""
    return lambda problem: member(problem, **{"start": nets.plain(problem), "model": nets.dense} | how)


def starts(law):
    """The same from another start."""
    return lambda problem: plain(start=law(problem))(problem)


def networks(build, slower=1.0):
    """The same with another network, build(problem) -> (start, model), at a rate at which it is stable."""
    return lambda problem: member(problem, *build(problem), optimizer=optax.sgd(problem.rate * slower))


def nine(build):
    """A row on images of 9 × 9 pixels."""
    return lambda problem: build(tr.images(9))


# Starts


def times(factor):
    """Gaussian weights of the first layer times a factor(side) for each pixel."""

    def law(problem):
        weight = jnp.asarray(factor(problem.x.shape[1])).reshape(-1, 1)

        def start(key):
            params = nets.plain(problem)(key)
            return params | {"w": params["w"] * weight}

        return start

    return law


def from_the_left(side):
    """From 0.2 in the first column to 1.8 in the last."""
    return jnp.broadcast_to(jnp.linspace(0.2, 1.8, side), (side, side))


def from_the_middle(side):
    """Large in the middle, smaller with the distance from it."""
    return 2 * jnp.exp(-(nets.from_the_centre(side) ** 2).sum(-1))


def trained(problem, see=shown.full):
    """For a key, the parameters of a network after plain training."""

    def train(key):
        begin, along = jax.random.split(key)
        return path(problem, along, nets.plain(problem)(begin), nets.dense, see=see)

    return train


def one(problem, see=None):
    """One network for all members, drawn, and trained if `see` says on what."""
    params = nets.plain(problem)(jax.random.key(7))
    return params if see is None else path(problem, jax.random.key(8), params, nets.dense, see=see)


def either_sign(problem):
    """θ₀ or −θ₀: a start with the mean zero."""

    def start(key):
        sign = jax.random.rademacher(key, (), float)
        return jax.tree.map(lambda p: sign * p, one(problem))

    return start


def turned(problem, g, params):
    """gθ: the weights of the first layer turned with the input, those of the last with the output."""
    w = problem.action(g, params["w"].T.reshape(-1, *problem.x.shape[1:])).reshape(nets.WIDTH, -1).T
    v, c = (problem.label_action(g, params[name].reshape(-1, problem.y.shape[1])) for name in "vc")
    return params | {"w": w, "v": v, "c": c[0]}


def one_of_an_orbit(problem):
    """gθ₀ with a random g."""
    every = [turned(problem, g, one(problem)) for g in range(problem.action.group.order)]
    every = jax.tree.map(lambda *p: jnp.stack(p), *every)
    return lambda key: jax.tree.map(lambda p: jax.random.choice(key, p), every)


def no_last_layer(problem):
    """Gaussian weights, the last layer zero."""
    start = nets.plain(problem)
    return lambda key: (params := start(key)) | {"v": jnp.zeros_like(params["v"])}


def first_trained(see):
    """Every member has been trained before, on what `see` shows."""
    return lambda problem: trained(problem, see)


def still(*names):
    """Gradient descent that leaves some of the parameters alone."""
    leave = lambda params: {name: name in names for name in params}
    return lambda problem: optax.chain(optax.sgd(problem.rate), optax.masked(optax.set_to_zero(), leave))


def one_body(problem):
    """The first layer of one trained network for all, a last layer for each."""
    body, start = one(problem, shown.full), nets.plain(problem)
    return lambda key: start(key) | {"w": body["w"], "b": body["b"]}


def frozen(law):
    """Only the last layer is trained."""
    return lambda problem: plain(start=law(problem), optimizer=still("w", "b")(problem))(problem)


def random_body(problem):
    """The first layer of one random network for all."""
    body, start = one(problem), nets.plain(problem)
    return lambda key: start(key) | {"w": body["w"], "b": body["b"]}


# Normalisation


def running_statistics(problem, model):
    """The last parameters with running means of the hidden units' statistics."""

    def first(params):  # as PyTorch begins; statistics of problem.x would be those of one orientation
        return params, (jnp.zeros((1, nets.WIDTH)), jnp.ones((1, nets.WIDTH)))

    def then(kept, params, x):
        new = nets.batch_statistics(params, x)
        return params, jax.tree.map(lambda old, now: 0.9 * old + 0.1 * now, kept[1], new)

    return tr.Keep(first, then, lambda kept, x: model(kept[0], x, statistics=kept[1]))


def standardised(x):
    """The function x − mean over standard deviation, pixel by pixel, of the images given here."""
    x = x.reshape(len(x), -1)
    return lambda asked: (asked - x.mean(0)) / (x.std(0) + 0.5)


def whitened(x):
    """The function C^(−1/2) x with the second moments C of the images given here (ZCA)."""
    x = x.reshape(len(x), -1)
    values, vectors = jnp.linalg.eigh(x.T @ x / len(x))
    root = (vectors / jnp.sqrt(values + 0.1)) @ vectors.T
    return lambda asked: asked @ root


def prepared(make):
    """The plain pipeline on inputs that go through make(problem) first."""
    return lambda problem: plain(model=nets.of_inputs(make(problem)))(problem)


# Optimisers and penalties


def uneven_rates(problem):
    """Gradient descent, faster on the right."""

    def update(gradients, state, params=None):
        return gradients | {"w": gradients["w"] * from_the_left(problem.x.shape[1]).reshape(-1, 1)}, state

    uneven = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    return plain(optimizer=optax.chain(uneven, optax.sgd(problem.rate)))(problem)


def rated(make, **how):
    """An optimiser that is made for a learning rate."""
    return lambda problem: plain(optimizer=make(problem.rate), **how)(problem)


def total(f, tree):
    """The sum of f over all parameters."""
    return sum(f(leaf).sum() for leaf in jax.tree.leaves(tree))


def towards(other):
    """Half the squared distance from other(problem, params at the start)."""

    def build(problem):
        def penalty(params, start, key):
            apart = jax.tree.map(lambda p, q: p - q, params, other(problem, start))
            return 0.1 * total(jnp.square, apart)

        return plain(penalty=penalty)(problem)

    return build


def sharpness_aware(rate):
    """SAM (Foret et al. 2021); optax's does not take the arguments that others need."""
    sam = contrib.sam(optax.sgd(rate), optax.chain(contrib.normalize(), optax.sgd(0.05)))
    return optax.GradientTransformation(sam.init, lambda *arguments: sam.update(*arguments))


def along_noise(params, key):
    """Has Gaussian noise as its gradient."""
    leaves = jax.tree.leaves(params)
    keys = jax.random.split(key, len(leaves))
    return sum((jax.random.normal(k, p.shape) * p).sum() for k, p in zip(keys, leaves, strict=True))


def with_muon(others):
    """Muon (Jordan et al. 2024) for the matrices, another optimiser for the biases."""
    kind = lambda params: jax.tree.map(lambda p: "matrix" if p.ndim == 2 else "bias", params)
    return optax.partition({"matrix": contrib.muon(0.02), "bias": others}, kind)


def absolute(outputs, labels):
    """The sum of the absolute errors of all outputs."""
    return jnp.abs(outputs - labels).sum(-1).mean()


def logistic(outputs, labels):
    """Cross-entropy of two classes, ±1."""
    return jnp.log1p(jnp.exp(-outputs * labels)).mean()


# Dropout


def dropping(units=0.0, inputs=0.0, weights=0.0):
    """`nets.dense` with parts left out at random in training."""

    def model(params, x, key=None):
        if key is None:
            return nets.dense(params, x)
        a, b, c = jax.random.split(key, 3)
        w = nets.dropout(c, params["w"], weights) if weights else params["w"]
        x = nets.dropout(a, x.reshape(len(x), -1), inputs) if inputs else x.reshape(len(x), -1)
        h = jax.nn.relu(x @ w + params["b"])
        return (nets.dropout(b, h, units) if units else h) @ params["v"] + params["c"]

    return model


# Selection and ensembles


def as_they_are(problem):
    """The validation set as it is."""
    return problem.check_x, problem.check_y


def on_orbits(problem):
    """All images of the validation set."""
    return shown.whole_orbit(problem, problem.check_x, problem.check_y)


def best_of_eight(validation):
    """Of eight networks the one with the smallest loss on a validation set."""

    def build(problem):
        x, y = validation(problem)

        def answers(key):
            params = jax.vmap(trained(problem))(jax.random.split(key, 8))
            best = jnp.argmin(jax.vmap(lambda p: squared(nets.dense(p, x), y))(params))
            return ask(problem, lambda x: nets.dense(jax.tree.map(lambda p: p[best], params), x))

        return answers

    return build


def soup(problem):
    """One network with the mean parameters of four trained ones."""

    def answers(key):
        four = jax.vmap(trained(problem))(jax.random.split(key, 4))
        params = jax.tree.map(lambda p: p.mean(0), four)
        return ask(problem, lambda x: nets.dense(params, x))

    return answers


def masks_of_one(problem):
    """One network, trained with dropout, that is asked with dropout."""
    model = dropping(units=0.3)
    params = path(problem, jax.random.key(8), nets.plain(problem)(jax.random.key(7)), model)
    return lambda key: ask(problem, lambda x: model(params, x, key))


def branches(problem):
    """Members that start where one augmented training has ended, and go on with draws of their own."""
    end = one(problem, shown.full)
    return plain(start=lambda key: end, see=shown.fresh)(problem)
