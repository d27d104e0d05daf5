"""The Ising experiment: `python -m experiments.ising`, Gerken & Kessel 2024, section 6.1.

Ensembles of fully connected networks learn the energy of Ising lattices, with all images of the training
lattices under the group, with half of them, and with none. How unlike their answers on an orbit are is
measured against the number of members, on lattices like those of training and on Gaussian lattices, beside
the same measure of an infinitely wide ensemble.
"""

import jax
import jax.numpy as jnp

from experiments import command, controls
from nteq.actions import Action, on_lattices
from nteq.groups import cyclic, dihedral
from nteq.ising import energy, gaussian_lattices, metropolis
from nteq.metrics import relative_std
from nteq.networks import mlp

GROUPS = {"C2": cyclic(2), "C4": cyclic(4), "D4": dihedral(4)}
SIZE, BETA, LEARNING_RATE, RESAMPLES = 6, 0.4, 0.4, 100


def median_relative_std(predictions):
    """Of the lattices' relative standard deviations, so that no energy near zero decides alone."""
    return jnp.median(relative_std(predictions))


def network(width):
    """One hidden layer."""
    return mlp(width, depth=1, W_std=2**0.5, b_std=0.3)


def experiment(options, folder):
    """Data, and what `controls.measure` makes of them."""
    jax.config.update("jax_enable_x64", True)  # the theory; networks are trained in float32
    (group,) = options.group
    action = on_lattices(GROUPS[group])
    stay = Action(action.group, lambda g, y: y, name="energies")
    keys = jax.random.split(jax.random.key(options.seed), 5)
    lattices = metropolis(keys[0], options.train, SIZE, BETA)
    like = metropolis(keys[1], options.test, SIZE, BETA)
    tests = {"in distribution": like, "Gaussian": gaussian_lattices(keys[2], options.test, SIZE)}
    result = controls.measure(
        options, folder, keys[3:], network, LEARNING_RATE, action, stay, lattices, energy(lattices), tests,
        energy(like), "rsd", median_relative_std, RESAMPLES,
    )  # fmt: skip
    return result | {"energy_variance": energy(like).var()}


if __name__ == "__main__":
    arguments = command.parser(
        "ising",
        "Invariance of ensembles that learned the Ising energy, against members, width and augmentation.",
        members=1000,
        width=[128, 64, 256, 512],
        group=["C4"],
        train=128,
        steps=1000,
    )
    command.learning(arguments, list(GROUPS), several=["width"])
    arguments.add_argument(
        "--test", type=command.at_least(1), default=128, help="lattices of each kind to ask about"
    )
    quick = dict(members=8, width=[32], train=16, steps=50, test=4)
    command.main(arguments, quick, experiment)
