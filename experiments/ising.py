"""The Ising experiment: `python -m experiments.ising`, Gerken & Kessel 2024, section 6.1.

Ensembles of fully connected networks learn the energy of Ising lattices, with all images of the training
lattices under the group, with half of them, and with none. How unlike their answers on an orbit are is
measured against the number of members, on lattices like those of training and on Gaussian lattices, beside
the same measure of an infinitely wide ensemble.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from nteq.actions import on_lattices, orbit
from nteq.ensembles import run
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic, dihedral
from nteq.ising import energy, gaussian_lattices, metropolis
from nteq.metrics import relative_std, sub_ensembles
from nteq.networks import mlp

GROUPS = {"C2": cyclic(2), "C4": cyclic(4), "D4": dihedral(4)}
TRAININGS = ["full orbit", "half the orbit", "no augmentation"]
SIZE, BETA, LEARNING_RATE = 6, 0.4, 0.4


def median_relative_std(predictions):
    """Of the lattices' relative standard deviations, so that no energy near zero decides alone."""
    return jnp.median(relative_std(predictions))


def network(width):
    """One hidden layer."""
    return mlp(width, depth=1, W_std=2**0.5, b_std=0.3)


def images(action, lattices, training):
    """The lattices' images under all of the group, under half of it, or the lattices alone."""
    order = action.group.order
    kept = {"full orbit": order, "half the orbit": order // 2, "no augmentation": 1}[training]
    return orbit(action, lattices)[:kept].reshape(-1, SIZE, SIZE)


def experiment(options, folder):
    """All widths with all images, and the first width with half of them and none."""
    jax.config.update("jax_enable_x64", True)  # the theory; networks are trained in float32
    (group,) = options.group
    action = on_lattices(GROUPS[group])
    keys = jax.random.split(jax.random.key(options.seed), 5)
    lattices = metropolis(keys[0], options.train, SIZE, BETA)
    like = metropolis(keys[1], options.test, SIZE, BETA)
    tests = {"in distribution": like, "Gaussian": gaussian_lattices(keys[2], options.test, SIZE)}
    far = orbit(action, jnp.concatenate(list(tests.values())))
    shape = (action.group.order, len(tests), options.test)  # of predictions on `far`
    asked = far.reshape(-1, SIZE, SIZE)
    sizes = sorted({2**i for i in range(int(np.log2(options.members)) + 1)} | {options.members})
    runs = [(w, TRAININGS[0]) for w in options.width] + [(options.width[0], t) for t in TRAININGS[1:]]

    found = {name: [] for name in ("rsd", "rsd_error", "member_error", "ensemble_error")}
    for width, training in runs:
        x = images(action, lattices, training)
        y = jnp.tile(energy(lattices), len(x) // len(lattices))
        print(f"width {width}, {training}: {options.members} networks on {len(x)} lattices")
        predictions = run(
            network(width), keys[3], options.members, x, y, asked, options.steps, learning_rate=LEARNING_RATE,
            dtype=jnp.float32, folder=folder / f"width-{width}-{training.replace(' ', '-')}", resume=True,
        )  # fmt: skip
        predictions = predictions.astype(float).reshape(-1, *shape)
        curves = [sub_ensembles(median_relative_std, predictions[:, :, i], sizes) for i in range(len(tests))]
        found["rsd"].append([value for value, _ in curves])
        found["rsd_error"].append([error for _, error in curves])
        wrong = predictions[:, :, 0] - np.asarray(energy(like))
        found["member_error"].append((wrong**2).mean())
        found["ensemble_error"].append((wrong.mean(0) ** 2).mean())

    theory, limit = [], []
    for training in TRAININGS:
        print(f"infinite width, {training}")
        x = images(action, lattices, training)
        y = jnp.tile(energy(lattices), len(x) // len(lattices))
        kernel, time = network(1).kernel, LEARNING_RATE * options.steps
        flow = GradientFlow(kernel, x, y)
        virtual = flow.sample(keys[4], asked, time, max(2 * options.members, 1000)).reshape(-1, *shape)
        theory.append(
            [sub_ensembles(median_relative_std, virtual[:, :, i], sizes, 2)[0] for i in range(len(tests))]
        )
        if training == TRAININGS[0]:
            flow = GradientFlow.augmented(kernel, lattices, energy(lattices), action)
        mean = flow.mean(asked, time).reshape(shape)
        limit.append([median_relative_std(mean[:, i]) for i in range(len(tests))])
    return {
        "sizes": sizes,  # members M
        "tests": list(tests),
        "widths": [width for width, _ in runs],
        "trainings": [training for _, training in runs],
        **found,  # (runs, tests, sizes) for the relative standard deviations, (runs,) for squared errors
        "energy_variance": energy(like).var(),
        "theory_trainings": TRAININGS,
        "theory_rsd": theory,  # (trainings, tests, sizes)
        "infinite_rsd": limit,  # (trainings, tests), of the infinite ensemble of infinitely wide networks
    }


if __name__ == "__main__":
    arguments = command.parser(
        "ising",
        "Invariance of ensembles that learned the Ising energy, against members, width and augmentation.",
        list(GROUPS),
        several=["width"],
        members=1000,
        width=[128, 64, 256, 512],
        group=["C4"],
        train=128,
        steps=1000,
    )
    arguments.add_argument(
        "--test", type=command.at_least(1), default=128, help="lattices of each kind to ask about"
    )
    quick = dict(members=8, width=[32], train=16, steps=50, test=4)
    command.main(arguments, quick, experiment)
