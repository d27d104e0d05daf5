"""The table: each row a way of training, the line that proves its verdict, and how to measure it."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from experiments.pipelines import networks as nets
from experiments.pipelines import shown
from experiments.pipelines import training as tr
from experiments.pipelines.training import ask, member, path, squared


class Row(NamedTuple):
    """A way of training, and what it does to the symmetry of the mean."""

    name: str
    what: str
    why: str  # the line that proves it
    keeps: str  # on which of PROBLEMS, by their first letters
    breaks: str
    build: Callable  # problem -> (key -> answers on the orbits of what is asked)
    law: bool = False  # the steps commute in law, draw by draw they do not
    members: int = 1  # how many times as many as of the other rows, for a small effect to be seen

    @property
    def verdict(self) -> str:
        """In words."""
        if not self.keeps:
            return "breaks"
        if self.breaks:
            return (
                "keeps for signed permutations only" if "s" in self.keeps else "keeps for permutations only"
            )
        return "keeps in law" if self.law else "keeps"


PROBLEMS = {"i": tr.images, "s": partial(tr.vectors, 4), "r": partial(tr.vectors, 5)}
"""Quarter turns of images, which permute pixels; of vectors, which permute coordinates and change signs; and
turns of vectors by 72°, which mix coordinates."""


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
    """Every member has been trained on something else before."""

    def law(problem):
        def start(key):
            begin, along = jax.random.split(key)
            return path(problem, along, nets.plain(problem)(begin), nets.dense, see=see)

        return start

    return law


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


def penalised(penalty):
    """With a term added to the loss, penalty(params, params at the start, key)."""
    return plain(penalty=penalty)


def total(f, tree):
    """The sum of f over all parameters."""
    return sum(f(leaf).sum() for leaf in jax.tree.leaves(tree))


def towards(other):
    """Half the squared distance from other(problem, params at the start)."""

    def build(problem):
        def penalty(params, start, key):
            apart = jax.tree.map(lambda p, q: p - q, params, other(problem, start))
            return 0.1 * total(lambda p: p**2, apart)

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
        start = nets.plain(problem)

        def train(key):
            begin, along = jax.random.split(key)
            return path(problem, along, start(begin), nets.dense)

        def answers(key):
            params = jax.vmap(train)(jax.random.split(key, 8))
            best = jnp.argmin(jax.vmap(lambda p: squared(nets.dense(p, x), y))(params))
            return ask(problem, lambda x: nets.dense(jax.tree.map(lambda p: p[best], params), x))

        return answers

    return build


def soup(problem):
    """One network with the mean parameters of four trained ones."""
    start = nets.plain(problem)

    def train(key):
        begin, along = jax.random.split(key)
        return path(problem, along, start(begin), nets.dense)

    def answers(key):
        params = jax.tree.map(lambda p: p.mean(0), jax.vmap(train)(jax.random.split(key, 4)))
        return ask(problem, lambda x: nets.dense(params, x))

    return answers


def masks_of_one(problem):
    """One network, trained with dropout, that is asked with dropout."""
    model = dropping(units=0.3)
    params = path(problem, jax.random.key(8), nets.plain(problem)(jax.random.key(7)), model)
    return lambda key: ask(problem, lambda x: model(params, x, key))


def branches(problem):
    """Members that start where one augmented training has ended, and go on with draws of their own."""
    trained = one(problem, shown.full)
    return plain(start=lambda key: trained, see=shown.fresh)(problem)


TABLE: dict[str, list[Row]] = {
    "Starts": [
        Row(
            "gaussian",
            "Gaussian weights, biases zero",
            r"$N(0, \sigma^2\mathbb{1})$ stays under orthogonal matrices",
            "isr",
            "",
            plain(),
        ),
        Row(
            "orthogonal",
            "orthonormal rows or columns",
            "Haar measure stays under orthogonal matrices",
            "isr",
            "",
            starts(nets.drawn(nets.orthogonal, nets.small)),
        ),
        Row(
            "uniform",
            "uniform weights and biases, PyTorch's default",
            "independent, alike and even: a cube stays under signed permutations, and is no ball",
            "is",
            "r",
            starts(nets.drawn(nets.uniform, nets.uniform, nets.uniform_bias)),
        ),
        Row(
            "truncated",
            "Gaussian weights cut off at one standard deviation",
            "independent, alike and even, and no ball",
            "is",
            "r",
            starts(nets.drawn(nets.truncated, nets.small)),
            members=3,
        ),
        Row(
            "sparse",
            "a random third of the weights, the others zero",
            "independent, alike and even, and no ball",
            "is",
            "r",
            starts(nets.drawn(nets.sparse, nets.small)),
        ),
        Row(
            "off-zero",
            "Gaussian weights with a mean that is not zero",
            "independent and alike, but not even: permutations only",
            "i",
            "sr",
            starts(nets.drawn(nets.off_zero, nets.small)),
        ),
        Row(
            "last-zero",
            "last layer zero",
            "zero is turned into zero",
            "isr",
            "",
            starts(no_last_layer),
        ),
        Row(
            "middle",
            "standard deviation by the distance from the centre",
            "a turn keeps the distance",
            "i",
            "",
            starts(times(from_the_middle)),
        ),
        Row(
            "left",
            "standard deviation by the column",
            "a turn does not keep the column",
            "",
            "i",
            starts(times(from_the_left)),
        ),
        Row(
            "either-sign",
            r"one network, $\theta_0$ or $-\theta_0$",
            r"the mean is zero, but $g\theta_0$ is neither of them: it is the law that counts",
            "",
            "isr",
            starts(either_sign),
        ),
        Row(
            "one-orbit",
            r"one network turned at random, $g\theta_0$",
            r"$hg$ is as random as $g$",
            "isr",
            "",
            starts(one_of_an_orbit),
        ),
        Row(
            "pretrained-each",
            "each member pretrained on images that are not turned",
            "the first training does not commute",
            "",
            "isr",
            starts(first_trained(shown.unturned)),
        ),
        Row(
            "pretrained-turned",
            "each member pretrained with augmentation",
            "both trainings commute in law",
            "isr",
            "",
            starts(first_trained(shown.fresh)),
            True,
        ),
        Row(
            "own-features",
            "a random first layer of each member's own, not trained",
            "a step that leaves a layer alone commutes",
            "isr",
            "",
            frozen(nets.plain),
        ),
        Row(
            "one-feature-map",
            "one random first layer for all, not trained",
            "it is not its own turned copy",
            "",
            "isr",
            frozen(random_body),
        ),
    ],
    "Architectures": [
        Row(
            "residual",
            "a block with a skip around it",
            "a turn undone in the first layer is seen by none after it",
            "isr",
            "",
            networks(nets.residual, 0.5),
        ),
        Row(
            "odd-filter",
            "3 × 3 filters, zero padding",
            "the turned filter sees what the filter saw",
            "i",
            "",
            networks(nets.convolutional(3, pad=(1, 1)), 0.2),
        ),
        Row(
            "circular",
            "3 × 3 filters, circular padding",
            "the turned filter sees what the filter saw",
            "i",
            "",
            networks(nets.convolutional(3, pad=(1, 1), mode="wrap"), 0.2),
        ),
        Row(
            "even-filter",
            "2 × 2 filters, padded on one side",
            "the places of the filters are not turned into each other",
            "",
            "i",
            networks(nets.convolutional(2, pad=(0, 1)), 0.2),
        ),
        Row(
            "stride-tiles",
            "2 × 2 filters with stride 2",
            "blocks that tile the image are turned into blocks",
            "i",
            "",
            networks(nets.convolutional(2, stride=2), 0.2),
        ),
        Row(
            "stride-even",
            "3 × 3 filters with stride 2, padded on one side of an even image",
            "the places of the filters are not turned into each other",
            "",
            "i",
            networks(nets.convolutional(3, stride=2, pad=(0, 1)), 0.2),
        ),
        Row(
            "stride-odd",
            "3 × 3 filters with stride 2, padded on both sides of an odd image",
            "the places of the filters are turned into each other",
            "i",
            "",
            nine(networks(nets.convolutional(3, stride=2, pad=(1, 1)), 0.2)),
        ),
        Row(
            "max-pool",
            "max pooling over 2 × 2 blocks that tile",
            "blocks are turned into blocks, and a maximum knows no order",
            "i",
            "",
            networks(nets.convolutional(3, pad=(1, 1), pool=jnp.max), 0.2),
        ),
        Row(
            "average-pool",
            "average pooling over 2 × 2 blocks that tile",
            "blocks are turned into blocks, and a mean knows no order",
            "i",
            "",
            networks(nets.convolutional(3, pad=(1, 1), pool=jnp.mean), 0.2),
        ),
        Row(
            "pool-edge",
            "max pooling of an odd image, whose last row and column are dropped",
            "a turn brings the dropped edge into sight",
            "",
            "i",
            nine(networks(nets.convolutional(3, pad=(1, 1), pool=jnp.max), 0.2)),
        ),
        Row(
            "patches-learned",
            "patches, attention, learned positions",
            "positions are independent and alike, so any places may be exchanged",
            "i",
            "",
            networks(nets.attention(None)),
        ),
        Row(
            "patches-fixed",
            "patches, attention, sinusoidal positions",
            "fixed positions are not exchanged",
            "",
            "i",
            networks(nets.attention(nets.sinusoids())),
        ),
        Row(
            "rows",
            "a scan over the rows",
            "a turn makes columns of rows",
            "",
            "i",
            networks(nets.recurrent),
        ),
        Row(
            "coordinates-centre",
            "coordinates from −1 to 1 as two more channels",
            "a turn exchanges the two and changes a sign, and so it does with their filters",
            "i",
            "",
            networks(nets.convolutional(3, pad=(1, 1), coordinates=nets.from_the_centre), 0.1),
        ),
        Row(
            "coordinates-corner",
            "coordinates from 0 to 2 as two more channels",
            "a turn also adds a constant",
            "",
            "i",
            networks(nets.convolutional(3, pad=(1, 1), coordinates=nets.from_a_corner), 0.1),
        ),
    ],
    "Normalisation": [
        Row(
            "batch-norm",
            "batch normalisation of hidden units, full batches",
            r"hidden units of $(g\theta, \rho(g)x)$ are those of $(\theta, x)$",
            "isr",
            "",
            plain(model=nets.batch_norm, keep=running_statistics),
        ),
        Row(
            "batch-norm-small",
            "batch normalisation, batches in an order of each member's own",
            "the same, with batches that are as likely turned",
            "isr",
            "",
            plain(model=nets.batch_norm, keep=running_statistics, see=shown.own_order),
            True,
        ),
        Row(
            "layer-norm",
            "layer normalisation of hidden units",
            r"hidden units of $(g\theta, \rho(g)x)$ are those of $(\theta, x)$",
            "isr",
            "",
            plain(model=nets.layer_norm),
        ),
        Row(
            "input-layer-norm",
            "layer normalisation of the input",
            "the mean of the coordinates stays under permutations only",
            "i",
            "sr",
            prepared(lambda problem: lambda x: x - x.mean(1, keepdims=True)),
        ),
        Row(
            "input-rms",
            "the input divided by its length",
            "orthogonal matrices keep lengths",
            "isr",
            "",
            prepared(lambda problem: lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True)),
        ),
        Row(
            "pixels-unturned",
            "pixels standardised by the data before augmentation",
            "each pixel's mean and spread are those of one orientation",
            "",
            "isr",
            prepared(lambda problem: standardised(problem.x)),
        ),
        Row(
            "pixels-turned",
            "pixels standardised by the augmented data",
            "pixels that are turned into each other have one mean and one spread, as have the components of "
            "a vector",
            "isr",
            "",
            prepared(lambda problem: standardised(shown.whole_orbit(problem)[0])),
        ),
        Row(
            "whitened",
            "inputs whitened (ZCA) by the augmented data",
            "the covariance commutes with the group, and so does its root",
            "isr",
            "",
            prepared(lambda problem: whitened(shown.whole_orbit(problem)[0])),
        ),
    ],
    "Optimisers and penalties": [
        Row(
            "momentum",
            "momentum (Nesterov)",
            "linear in the gradients",
            "isr",
            "",
            rated(lambda rate: optax.sgd(rate / 2, momentum=0.5, nesterov=True)),
        ),
        Row(
            "clip-norm",
            "gradients clipped by their norm",
            "orthogonal matrices keep the norm",
            "isr",
            "",
            rated(lambda rate: optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(4 * rate))),
        ),
        Row(
            "sharpness",
            "sharpness-aware minimisation (SAM)",
            "made of gradients and their norms",
            "isr",
            "",
            rated(sharpness_aware),
        ),
        Row(
            "lbfgs",
            "L-BFGS",
            "made of inner products of gradients and steps",
            "isr",
            "",
            plain(optimizer=optax.lbfgs(), steps=10),
        ),
        Row(
            "muon",
            "Muon for matrices, descent for biases",
            r"a polynomial $p(GG^\top)G$ of the gradient is turned as the gradient is",
            "isr",
            "",
            rated(lambda rate: with_muon(optax.sgd(rate))),
        ),
        Row(
            "adam",
            "Adam",
            "one coordinate at a time: signed permutations only",
            "is",
            "r",
            plain(optimizer=optax.adam(0.01)),
        ),
        Row(
            "adamw",
            "AdamW",
            "one coordinate at a time: signed permutations only",
            "is",
            "r",
            plain(optimizer=optax.adamw(0.01, weight_decay=0.1)),
        ),
        Row(
            "sign",
            "the signs of the gradient",
            "one coordinate at a time, oddly",
            "is",
            "r",
            plain(optimizer=optax.sign_sgd(0.003)),
        ),
        Row(
            "clip-value",
            "gradients clipped coordinate by coordinate",
            "one coordinate at a time, oddly",
            "is",
            "r",
            plain(optimizer=optax.chain(optax.clip(0.003), optax.sgd(1.0))),
        ),
        Row(
            "uneven-rates",
            "rates that grow from left to right",
            "a turn does not keep the column",
            "",
            "i",
            uneven_rates,
        ),
        Row(
            "noise",
            "Gaussian noise added to each gradient",
            "noise that is as likely turned",
            "isr",
            "",
            penalised(lambda params, start, key: along_noise(params, key)),
            True,
        ),
        Row(
            "one-noise",
            "the same noise for all members",
            "one seed is not its own turned copy",
            "",
            "isr",
            rated(lambda rate: optax.chain(optax.add_noise(0.1, 0.0, 0), optax.sgd(rate))),
        ),
        Row(
            "plateau",
            "a rate lowered when the loss stops falling",
            "the loss stays",
            "isr",
            "",
            rated(lambda rate: optax.chain(optax.sgd(rate), contrib.reduce_on_plateau(patience=3))),
        ),
        Row(
            "l2",
            "weight decay",
            "orthogonal matrices keep the length",
            "isr",
            "",
            penalised(lambda params, start, key: 0.1 * total(jnp.square, params)),
        ),
        Row(
            "l1",
            "L1 penalty on the first layer",
            "signed permutations keep the sum of absolute values",
            "is",
            "r",
            penalised(lambda params, start, key: 0.1 * jnp.abs(params["w"]).sum()),
        ),
        Row(
            "to-own-start",
            "decay towards the member's own start",
            "the distance of two parameters stays",
            "isr",
            "",
            towards(lambda problem, start: start),
        ),
        Row(
            "to-one-network",
            "decay towards one network for all",
            r"$g\theta_0\ne\theta_0$",
            "",
            "isr",
            towards(lambda problem, start: one(problem)),
        ),
        Row(
            "cross-entropy",
            "cross-entropy",
            "the loss stays when input and label are moved",
            "i",
            "",
            plain(loss=logistic),
        ),
        Row(
            "absolute",
            "absolute errors, output by output",
            "the loss of a turned output and label is another one, unless outputs change places and signs",
            "is",
            "r",
            plain(loss=absolute),
        ),
    ],
    "Augmentation": [
        Row(
            "fresh",
            "a turn for each example in each step",
            r"$hg$ is as random as $g$",
            "isr",
            "",
            plain(see=shown.fresh),
            True,
        ),
        Row(
            "one-turn",
            "one turn for the whole batch in each step",
            r"$hg$ is as random as $g$",
            "isr",
            "",
            plain(see=shown.one_turn_for_the_batch),
            True,
        ),
        Row(
            "one-draw-each",
            "each example turned once, by each member for itself",
            r"$(hg_1, \dots, hg_n)$ is as random as $(g_1, \dots, g_n)$",
            "isr",
            "",
            plain(see=shown.one_draw_each),
            True,
        ),
        Row(
            "one-draw-for-all",
            "each example turned once, the same for all members",
            "one draw is not its own turned copy",
            "",
            "isr",
            plain(see=shown.one_draw_for_all),
        ),
        Row("none", "none", "the data are not their own turned copy", "", "isr", plain(see=shown.unturned)),
        Row("half", "half of the orbit", "it is not its own turned copy", "", "isr", plain(see=shown.half)),
        Row(
            "uneven",
            "a turn in each step, in half of the cases none",
            r"$hg$ is not as likely as $g$",
            "",
            "isr",
            plain(see=shown.fresh_uneven),
        ),
        Row(
            "mirror",
            "the mirror image only",
            "a turn is not in the group that was augmented by",
            "",
            "i",
            plain(see=shown.mirrored),
        ),
        Row(
            "labels-left",
            "full orbits, labels left as they were",
            "the labels do not follow",
            "",
            "sr",
            plain(see=shown.labels_left),
        ),
        Row(
            "own-order",
            "full orbits in batches, shuffled by each member for itself",
            "a batch is as likely as the turned one",
            "isr",
            "",
            rated(lambda rate: optax.sgd(min(3 * rate, 0.1)), see=shown.own_order),
            True,
        ),
        Row(
            "one-order",
            "full orbits in batches, shuffled alike in all members",
            "batch 1 turned is not batch 1",
            "",
            "isr",
            rated(lambda rate: optax.sgd(min(3 * rate, 0.1)), see=shown.one_order),
        ),
        Row(
            "orbit-batches",
            "batches of whole orbits, in one order for all members",
            "a batch of whole orbits is its own turned copy",
            "isr",
            "",
            plain(see=shown.orbit_by_orbit),
        ),
        Row(
            "bootstrap",
            "full orbits, drawn with replacement by each member",
            "a sample is as likely as the turned one",
            "isr",
            "",
            plain(see=shown.bootstrapped),
            True,
        ),
        Row(
            "mixup",
            "mixup of turned examples",
            "mixing commutes with linear maps",
            "isr",
            "",
            plain(see=shown.mixed_up),
            True,
        ),
        Row(
            "input-noise",
            "Gaussian noise added to turned examples",
            "noise that is as likely turned",
            "isr",
            "",
            plain(see=shown.noisy),
            True,
        ),
        Row(
            "crop-turn",
            "crops at random, to one side, then a turn",
            r"$h\rho(g)$ is as random as $\rho(g)$, whatever was done before",
            "i",
            "",
            plain(see=shown.crops(0, 2, "crop")),
            True,
        ),
        Row(
            "turn-crop",
            "a turn, then crops to all sides alike",
            "a turned crop is another crop, as likely",
            "i",
            "",
            plain(see=shown.crops(-2, 2, "turn")),
            True,
        ),
        Row(
            "turn-crop-aside",
            "a turn, then crops to one side",
            "turned, it is a crop to another side",
            "",
            "i",
            plain(see=shown.crops(0, 2, "turn")),
        ),
        Row(
            "crop-alone",
            "crops to all sides, no turns",
            "a crop cannot be undone, and makes no turned image",
            "",
            "i",
            plain(see=shown.crops_alone),
        ),
        Row(
            "cutout",
            "a turn and a square cut out (cutout)",
            "all places are as likely as their turned ones",
            "i",
            "",
            plain(see=shown.cut_out),
            True,
        ),
        Row(
            "any-angle",
            "a turn by any angle, interpolated",
            r"a quarter turn after a turn by $\alpha$ is one by $\alpha + 90°$",
            "i",
            "",
            plain(see=shown.any_angle),
            True,
        ),
    ],
    "Dropout": [
        Row(
            "dropout",
            "dropout of hidden units",
            r"hidden units of $(g\theta, \rho(g)x)$ are those of $(\theta, x)$",
            "isr",
            "",
            plain(model=dropping(units=0.3)),
            True,
        ),
        Row(
            "input-dropout",
            "dropout of inputs",
            "independent and alike: signed permutations only",
            "is",
            "r",
            plain(model=dropping(inputs=0.3)),
            True,
        ),
        Row(
            "weight-dropout",
            "dropout of first-layer weights (DropConnect)",
            "independent and alike: signed permutations only",
            "is",
            "r",
            plain(model=dropping(weights=0.3), steps=200),
            True,
        ),
    ],
    "Stopping and selection": [
        Row(
            "stop-turned",
            "early stopping by an augmented validation set",
            r"$g\theta$ has the validation loss of $\theta$",
            "isr",
            "",
            plain(keep=tr.best_on(on_orbits), steps=200),
        ),
        Row(
            "stop-plain",
            "early stopping by a validation set as it is",
            r"$g\theta$ has another validation loss than $\theta$",
            "",
            "isr",
            plain(keep=tr.best_on(as_they_are), steps=200),
        ),
        Row(
            "select-turned",
            "the best of eight by an augmented validation set",
            r"$g\theta$ has the validation loss of $\theta$",
            "isr",
            "",
            best_of_eight(on_orbits),
        ),
        Row(
            "select-plain",
            "the best of eight by a validation set as it is",
            r"$g\theta$ has another validation loss than $\theta$",
            "",
            "isr",
            best_of_eight(as_they_are),
        ),
    ],
    "Ensembles": [
        Row(
            "weight-average",
            "each member's weights averaged over its path",
            "the action is linear",
            "isr",
            "",
            plain(keep=tr.average),
        ),
        Row(
            "snapshots",
            "each member's answers averaged over snapshots",
            "each snapshot's mean is equivariant",
            "isr",
            "",
            plain(keep=tr.snapshots),
        ),
        Row("soup", "the weights of four members averaged", "the action is linear", "isr", "", soup),
        Row(
            "branches",
            "members that branch off one trained network",
            r"$g\theta_0\ne\theta_0$",
            "",
            "isr",
            branches,
        ),
        Row(
            "masks",
            "one network asked with dropout (MC dropout)",
            r"$g\theta_0\ne\theta_0$",
            "",
            "isr",
            masks_of_one,
        ),
        Row(
            "last-layers",
            "last layers trained on one network's features",
            r"$g\theta_0\ne\theta_0$",
            "",
            "isr",
            frozen(one_body),
        ),
    ],
}
