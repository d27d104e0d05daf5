"""The cross product: `python -m experiments.cross_product`, a label that turns with its input.

Ensembles of fully connected networks learn a × b from a few pairs of vectors, with all images of the pairs
under the 24 rotations of a cube, with half of them, and with none. How far their answers are from turning
with the pair is measured against the number of members, on pairs like those of training and on pairs three
times as long, beside the same measure of an infinitely wide ensemble.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from nteq.actions import on_vectors, orbit
from nteq.ensembles import run
from nteq.gradient_flow import GradientFlow
from nteq.groups import octahedral
from nteq.metrics import equivariance_error, sub_ensembles
from nteq.networks import mlp

GROUPS = {"O": octahedral()}
TRAININGS = ["full orbit", "half the orbit", "no augmentation"]
LEARNING_RATE, RESAMPLES = 0.4, 30


def network(width):
    """One hidden layer and three outputs."""
    return mlp(width, depth=1, outputs=3, W_std=2**0.5, b_std=0.3)


def cross_product(pairs):
    """Of pairs (a, b), shape (n, 2, 3): a × b, shape (n, 3)."""
    return jnp.cross(pairs[:, 0], pairs[:, 1])


def images(action, vectors, training):
    """The images under all of the group, under the first half of its elements, or the vectors alone.

    The first twelve elements of `octahedral()` are no subgroup; the twelve rotations of a tetrahedron are.
    """
    order = action.group.order
    kept = {"full orbit": order, "half the orbit": order // 2, "no augmentation": 1}[training]
    return orbit(action, vectors)[:kept].reshape(-1, *vectors.shape[1:])


def experiment(options, folder):
    """All widths with all images, and the first width with half of them and none."""
    jax.config.update("jax_enable_x64", True)  # the theory; networks are trained in float32
    (group,) = options.group
    action = on_vectors(GROUPS[group])
    keys = jax.random.split(jax.random.key(options.seed), 5)
    pairs = jax.random.normal(keys[0], (options.train, 2, 3))
    like = jax.random.normal(keys[1], (options.test, 2, 3))
    tests = {"like training": like, "three times as long": 3 * jax.random.normal(keys[2], like.shape)}
    asked = orbit(action, jnp.concatenate(list(tests.values()))).reshape(-1, 2, 3)
    shape = (action.group.order, len(tests), options.test, 3)  # of predictions on `asked`
    sizes = sorted({2**i for i in range(int(np.log2(options.members)) + 1)} | {options.members})
    runs = [(w, TRAININGS[0]) for w in options.width] + [(options.width[0], t) for t in TRAININGS[1:]]

    def error_of(predictions):
        """The pairs' median, so that no prediction near zero decides alone."""
        return jnp.median(equivariance_error(predictions, action.group.matrices))

    found = {name: [] for name in ("error", "error_error", "member_loss", "ensemble_loss")}
    for width, training in runs:
        x, y = images(action, pairs, training), images(action, cross_product(pairs), training)
        print(f"width {width}, {training}: {options.members} networks on {len(x)} pairs")
        predictions = run(
            network(width), keys[3], options.members, x, y, asked, options.steps, learning_rate=LEARNING_RATE,
            dtype=jnp.float32, folder=folder / f"width-{width}-{training.replace(' ', '-')}", resume=True,
        )  # fmt: skip
        predictions = predictions.astype(float).reshape(-1, *shape)
        curves = [sub_ensembles(error_of, predictions[:, :, i], sizes, RESAMPLES) for i in range(len(tests))]
        found["error"].append([value for value, _ in curves])
        found["error_error"].append([error for _, error in curves])
        wrong = predictions[:, action.group.identity, 0] - np.asarray(cross_product(like))
        found["member_loss"].append((wrong**2).mean())
        found["ensemble_loss"].append((wrong.mean(0) ** 2).mean())

    theory, limit = [], []
    for training in TRAININGS:
        print(f"infinite width, {training}")
        x, y = images(action, pairs, training), images(action, cross_product(pairs), training)
        kernel, time = network(1).kernel, LEARNING_RATE * options.steps
        flow = GradientFlow(kernel, x, y)
        virtual = flow.sample(keys[4], asked, time, max(2 * options.members, 1000)).reshape(-1, *shape)
        theory.append([sub_ensembles(error_of, virtual[:, :, i], sizes, 2)[0] for i in range(len(tests))])
        if training == TRAININGS[0]:
            flow = GradientFlow.augmented(kernel, pairs, cross_product(pairs), action, label_action=action)
        mean = flow.mean(asked, time).reshape(shape)
        limit.append([error_of(mean[:, i]) for i in range(len(tests))])
    return {
        "sizes": sizes,  # members M
        "tests": list(tests),
        "widths": [width for width, _ in runs],
        "trainings": [training for _, training in runs],
        **found,  # (runs, tests, sizes) for the equivariance errors, (runs,) for squared errors on `like`
        "label_variance": cross_product(like).var(),
        "theory_trainings": TRAININGS,
        "theory_error": theory,  # (trainings, tests, sizes)
        "infinite_error": limit,  # (trainings, tests), of the infinite ensemble of infinitely wide networks
    }


if __name__ == "__main__":
    arguments = command.parser(
        "cross_product",
        "Equivariance of ensembles that learned the cross product, against members, width and augmentation.",
        list(GROUPS),
        several=["width"],
        members=1000,
        width=[128, 64, 256],
        group=["O"],
        train=16,
        steps=500,
    )
    arguments.add_argument(
        "--test", type=command.at_least(1), default=32, help="pairs of each kind to ask about"
    )
    quick = dict(members=8, width=[32], train=8, steps=50, test=4)
    command.main(arguments, quick, experiment)
