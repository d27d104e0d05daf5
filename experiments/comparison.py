"""Augment, average or build it in? `python -m experiments.comparison`, one contest at equal compute.

Convolutional networks learn Fashion-MNIST at 14 × 14 pixels from upright images. They are asked about upright
test images and about their quarter turns. There are plain networks, augmented ones, group convolutions,
networks that see images in a standard position (found by rule, or by a small network that learns along),
ensembles of each, single networks of the same cost, networks averaged over the turns when they are asked, and
the infinite ensemble of augmented networks, which is solved.

Training takes 1, 4 or 8 times the work of one plain network, and so do answers. Work is counted in
multiply-adds of the filters.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command
from experiments.group_convolutions import LAYERS, SCALES, SIDE, parameters, prepared
from experiments.infinite_ensemble import CLASSES, TURNS, averaged_kernels, mean_prediction
from experiments.rotations import canonical
from nteq.actions import orbit
from nteq.datasets import fashion_mnist
from nteq.ensembles import augment_by, run
from nteq.networks import Network, cnn, gcnn

AUGMENT = augment_by(TURNS)
BINS = 15  # of the calibration error


def plain(channels: list[int], outputs: int = CLASSES) -> Network:
    """A convolutional network."""
    return cnn(channels, readout="average", outputs=outputs, **LAYERS, **SCALES)


def built_in(channels: list[int]) -> Network:
    """Group convolutions for p4."""
    return gcnn(channels, outputs=CLASSES, **LAYERS, **SCALES)


def canonicalised(chooser: list[int], channels: list[int]) -> Network:
    """A plain network that sees each image in the position which a smaller one likes best (Kaba et al. 2023).

    The score of a position is what the smaller network says of the image there, so that all turns of an image
    get the same four positions, and the best of them is the same. Its gradient is that of the softmax of the
    scores (straight-through).
    """
    chooses, answers = plain(chooser, 1), plain(channels)

    def init(key, shape, dtype=None):
        keys = jax.random.split(key)
        return chooses.init(keys[0], shape, dtype), answers.init(keys[1], shape, dtype)

    def apply(params, x):
        images = orbit(TURNS, x)
        scores = chooses.apply(params[0], images.reshape(-1, *x.shape[1:])).reshape(len(images), -1)
        soft = jax.nn.softmax(scores, axis=0)
        chosen = jax.nn.one_hot(scores.argmax(0), len(images), axis=0, dtype=x.dtype)
        weights = chosen + soft - jax.lax.stop_gradient(soft)
        return answers.apply(params[1], jnp.einsum("gn,gnhwc->nhwc", weights, images))

    return Network(init, apply)


def filters(channels: list[int], orientations: int = 1) -> int:
    """Multiply-adds of an answer to one image."""
    total, pixels, before = 0, SIDE, 1
    for number, (size, stride, after) in enumerate(
        zip(LAYERS["filter_sizes"], LAYERS["strides"], channels, strict=True)
    ):
        pixels = (pixels - size) // stride + 1
        lifted = orientations if number else 1
        total += pixels**2 * size**2 * lifted * before * orientations * after
        before = after
    return total + before * CLASSES


@dataclass(frozen=True)
class Training:
    """A kind of network and how it is trained."""

    network: Network
    work: int  # multiply-adds of an answer
    members: int  # 2: no ensemble of them is asked
    steps: float = 1  # as a multiple
    augment: bool = False
    standing: bool = False  # sees images in a standard position


ONE = [32, 32, 32]
WIDE = [94, 94, 94]
CHOOSER, CHOSEN = [6, 8, 8], [27, 27, 27]
P4 = {"p4": [6, 8, 16], "p4, more channels": [13, 16, 32], "p4, wide": [18, 24, 44]}

TRAININGS = {
    "plain": Training(plain(ONE), filters(ONE), 8),
    "augmented": Training(plain(ONE), filters(ONE), 8, augment=True),
    "p4": Training(built_in(P4["p4"]), filters(P4["p4"], 4), 8),
    "canonicalised": Training(plain(ONE), filters(ONE), 8, standing=True),
    "learned position": Training(canonicalised(CHOOSER, CHOSEN), 4 * filters(CHOOSER) + filters(CHOSEN), 8),
    "p4, more channels": Training(
        built_in(P4["p4, more channels"]), filters(P4["p4, more channels"], 4), 2, steps=1 / 4
    ),
    "augmented, wide": Training(plain(WIDE), filters(WIDE), 2, augment=True),
    "augmented, long": Training(plain(ONE), filters(ONE), 2, steps=8, augment=True),
    "p4, wide": Training(built_in(P4["p4, wide"]), filters(P4["p4, wide"], 4), 2),
}

# name: (training, members, whether the answers to the four turns are averaged)
METHODS = {
    "plain": ("plain", 1, False),
    "augmented": ("augmented", 1, False),
    "p4": ("p4", 1, False),
    "canonicalised": ("canonicalised", 1, False),
    "learned position": ("learned position", 1, False),
    "p4, more channels": ("p4, more channels", 1, False),
    "plain, symmetrised": ("plain", 1, True),
    "augmented, symmetrised": ("augmented", 1, True),
    "augmented, wide": ("augmented, wide", 1, False),
    "augmented, long": ("augmented, long", 1, False),
    "p4, wide": ("p4, wide", 1, False),
    "4 augmented": ("augmented", 4, False),
    "4 p4": ("p4", 4, False),
    "8 plain": ("plain", 8, False),
    "8 augmented": ("augmented", 8, False),
    "8 p4": ("p4", 8, False),
    "8 canonicalised": ("canonicalised", 8, False),
    "8 learned positions": ("learned position", 8, False),
    "8 augmented, symmetrised": ("augmented", 8, True),
}
INFINITE = "infinite ensemble"


def calibration_error(probabilities: np.ndarray, right: np.ndarray) -> float:
    r"""Expected calibration error, $\sum_b \frac{n_b}{n} |\text{accuracy}_b - \text{confidence}_b|$.

    Bins b of equal width of the largest probability (Guo et al. 2017, equation 3).
    """
    confidence = probabilities.max(-1).ravel()
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(which, weights=right.ravel() - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def scores(probabilities: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """What is measured of one model: numbers, and of each image how often it is right on its orbit.

    Args:
        probabilities: shape (4, n, 10), of the four turns of n images.
        truth: classes, shape (n,).
    """
    classes = probabilities.argmax(-1)
    right = classes == truth
    return {
        "upright": right[0].mean(),
        "turned": right.mean(),
        "same": (classes == classes[0]).mean(),
        "calibration_upright": calibration_error(probabilities[:1], right[:1]),
        "calibration_turned": calibration_error(probabilities, right),
        "right": right.mean(0),
    }


def mean_scores(models: list[np.ndarray], truth: np.ndarray) -> dict[str, np.ndarray]:
    """The mean over several models."""
    each = [scores(probabilities, truth) for probabilities in models]
    return {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}


@functools.cache  # so that a training is compiled once
def adam(rate: float, steps: int) -> optax.GradientTransformation:
    """Its rate falls to zero as a cosine."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def answers(training, rate, key, x, y, asked, options, folder):
    """Probabilities of the networks of one training, shape (members, 4, n, 10)."""
    steps = max(1, round(training.steps * options.steps))
    shown, questions = x, asked.reshape(-1, *asked.shape[2:])
    if training.standing:
        shown, questions = (canonical(TURNS, images)[0] for images in (x, questions))
    logits = run(
        training.network, key, training.members, shown, y, questions, steps, loss="cross-entropy",
        optimizer=adam(rate, steps), batch_size=min(32, len(x)),
        augment=AUGMENT if training.augment else None, folder=folder, resume=True, progress=False,
    )  # fmt: skip
    probabilities = np.asarray(jax.nn.softmax(logits[:, 0], axis=-1))
    return probabilities.reshape(training.members, *asked.shape[:2], CLASSES)


def tuned(options, trainings, x, y, folder):
    """Validation accuracy of each training at each rate, (trainings, rates), on images of the pool."""
    rows = jax.random.permutation(jax.random.fold_in(jax.random.key(options.seed), 2**31), len(x))
    n = min(500, max(options.train))
    chosen, held_out = rows[:n], rows[n : 2 * n]
    found = np.zeros((len(trainings), len(options.rates)))
    for i, name in enumerate(trainings):
        for j, rate in enumerate(options.rates):
            f = answers(
                TRAININGS[name], rate, jax.random.key(options.seed), x[chosen], y[chosen], x[held_out][None],
                options, folder / "rates" / f"{name}-{rate}",
            )  # fmt: skip
            found[i, j] = (f.argmax(-1) == np.asarray(y[held_out])).mean()
        print(f"{name}: accuracy {found[i].round(3)} at learning rates {options.rates}")
    return found


def infinite_answers(gram, cross, classes):
    """Probabilities at infinite width and time, (4, n, 10): the squared loss estimates them, but for sign."""
    clipped = np.clip(1 / CLASSES + mean_prediction(gram, cross, classes), 1e-6, None)
    return np.tile(clipped / clipped.sum(1, keepdims=True), (4, 1, 1))


def experiment(options, folder):
    """All training sets, and on each all networks."""
    x, y, x_test, y_test = fashion_mnist(2000, options.test)
    if max(options.train) > len(x):
        raise ValueError(f"--train must be at most {len(x)}, the images that ship, got {max(options.train)}")
    x, x_test = prepared(x, x_test)
    asked, truth = orbit(TURNS, x_test), np.asarray(y_test)
    trainings = [name for name in TRAININGS if any(METHODS[m][0] == name for m in options.methods)]
    validation = tuned(options, trainings, x, y, folder)
    keys = [
        jax.random.split(jax.random.fold_in(jax.random.key(options.seed), i)) for i in range(options.draws)
    ]
    order = [np.asarray(jax.random.permutation(of_draw[0], len(x))) for of_draw in keys]
    used = np.unique(np.concatenate([rows[: max(options.train)] for rows in order]))
    place = np.zeros(len(x), int)  # in the Gram matrix
    place[used] = np.arange(len(used))
    limit = cnn([1] * 3, readout="average", **LAYERS, W_std=2**0.5, b_std=0.1).kernel
    gram, cross = averaged_kernels(limit, x[used], x_test, folder / "kernels.npz")

    names = [*options.methods, INFINITE]
    shape = len(names), len(options.train), options.draws
    numbers = ("upright", "turned", "same", "calibration_upright", "calibration_turned")
    found = {name: np.zeros(shape) for name in numbers} | {"right": np.zeros((*shape, len(x_test)))}
    for j, n in enumerate(options.train):
        print(f"{n} images: {options.draws} training sets")
        for draw in range(options.draws):
            rows = order[draw][:n]
            trained = {}
            for name, accuracy in zip(trainings, validation, strict=True):
                rate = options.rates[accuracy.argmax()]
                trained[name] = answers(
                    TRAININGS[name], rate, keys[draw][1], x[rows], y[rows], asked, options,
                    folder / f"{name}-{n}-{draw}",
                )  # fmt: skip
            measured = {}
            for name in options.methods:
                which, members, symmetrised = METHODS[name]
                each = trained[which]
                groups = each.reshape(-1, members, *each.shape[1:]).mean(1)
                if symmetrised:
                    groups = np.broadcast_to(groups.mean(1, keepdims=True), groups.shape)
                measured[name] = mean_scores(list(groups), truth)
            at = place[rows]
            solved = infinite_answers(gram[np.ix_(at, at)], cross[:, at], np.asarray(y)[rows])
            measured[INFINITE] = scores(solved, truth)
            for i, name in enumerate(names):
                for what, values in found.items():
                    values[i, j, draw] = measured[name][what]
    one = TRAININGS["plain"].work
    work = []
    for name in options.methods:
        which, members, symmetrised = METHODS[name]
        answer = TRAININGS[which].work * members / one
        work.append((answer * TRAININGS[which].steps, answer * (4 if symmetrised else 1)))
    return {
        "methods": names,
        "train": options.train,
        "work": work,  # in training and in answering, in units of one plain network; not of the infinite one
        "trainings": trainings,
        "multiply_adds": [TRAININGS[name].work for name in trainings],  # of an answer to one image
        "parameters": [parameters(TRAININGS[name].network) for name in trainings],
        "rates": options.rates,
        "validation": validation,  # accuracy, (trainings, rates)
        **found | {"right": found["right"].mean(2).astype(np.float32)},  # (methods, sizes, draws or images)
    }


if __name__ == "__main__":
    arguments = command.parser(
        "comparison",
        "Accuracy, invariance and calibration of ways to make networks symmetric, at equal compute.",
        methods=list(METHODS),
        train=[100, 200, 500, 1000, 2000],
        draws=6,
        steps=2000,
        test=1000,
        rates=[5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 16e-3],
    )
    add = arguments.add_argument
    add("--methods", choices=METHODS, nargs="+", help="what is compared, beside the infinite ensemble")
    add("--train", type=command.at_least(1), nargs="+", help="training images")
    add("--draws", type=command.at_least(1), help="training sets of each size, each with seeds of its own")
    add("--steps", type=command.at_least(1), help="training steps of one plain network, on 32 images each")
    add("--test", type=command.at_least(1), help="test images, each asked about in four positions")
    add("--rates", type=float, nargs="+", help="learning rates of Adam, of which each network has its best")
    quick = dict(
        methods=["learned position", "8 augmented"], train=[32], draws=2, steps=8, test=8, rates=[2e-3]
    )
    command.main(arguments, quick, experiment)
