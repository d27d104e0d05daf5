"""The cross product: `python -m experiments.cross_product`, a label that turns with its input.

Ensembles of fully connected networks learn a × b from a few pairs of vectors, with all images of the pairs
under the 24 rotations of a cube, with half of them, and with none. How far their answers are from turning
with the pair is measured against the number of members, on pairs like those of training and on pairs three
times as long, beside the same measure of an infinitely wide ensemble.
"""

import jax
import jax.numpy as jnp

from experiments import command, controls
from nteq.actions import on_vectors
from nteq.groups import octahedral
from nteq.metrics import equivariance_error
from nteq.networks import mlp

GROUPS = {"O": octahedral()}
LEARNING_RATE, RESAMPLES = 0.4, 30


def network(width):
    """One hidden layer and three outputs."""
    return mlp(width, depth=1, outputs=3, W_std=2**0.5, b_std=0.3)


def cross_product(pairs):
    """Of pairs (a, b), shape (n, 2, 3): a × b, shape (n, 3)."""
    return jnp.cross(pairs[:, 0], pairs[:, 1])


def experiment(options, folder):
    """Data, and what `controls.measure` makes of them.

    Half of the group are the first twelve elements of `octahedral()`, which are no subgroup.
    """
    jax.config.update("jax_enable_x64", True)  # the theory; networks are trained in float32
    (group,) = options.group
    action = on_vectors(GROUPS[group])
    keys = jax.random.split(jax.random.key(options.seed), 5)
    pairs = jax.random.normal(keys[0], (options.train, 2, 3))
    like = jax.random.normal(keys[1], (options.test, 2, 3))
    tests = {"like training": like, "three times as long": 3 * jax.random.normal(keys[2], like.shape)}

    def error_of(predictions):
        """The pairs' median, so that no prediction near zero decides alone."""
        return jnp.median(equivariance_error(predictions, action.group.matrices))

    result = controls.measure(
        options, folder, keys[3:], network, LEARNING_RATE, action, action, pairs, cross_product(pairs), tests,
        cross_product(like), "error", error_of, RESAMPLES,
    )  # fmt: skip
    return result | {"label_variance": cross_product(like).var()}


if __name__ == "__main__":
    arguments = command.parser(
        "cross_product",
        "Equivariance of ensembles that learned the cross product, against members, width and augmentation.",
        members=1000,
        width=[128, 64, 256],
        group=["O"],
        train=16,
        steps=500,
    )
    command.learning(arguments, list(GROUPS), several=["width"])
    arguments.add_argument(
        "--test", type=command.at_least(1), default=32, help="pairs of each kind to ask about"
    )
    quick = dict(members=8, width=[32], train=8, steps=50, test=4)
    command.main(arguments, quick, experiment)
