"""The experiment far from the data: `python -m experiments.fashion_mnist`, Gerken & Kessel 2024, section 6.2.

Ensembles of convolutional networks learn Fashion-MNIST, each image turned at random by the group in every
step. Afterwards they are asked about all rotations of test images, and of images that look nothing like the
training data. The fraction of the rotations that get the class of the upright image is measured against the
number of members.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command
from nteq.actions import on_images, orbit
from nteq.datasets import digits, fashion_mnist, natural_images, noise
from nteq.ensembles import augment_by, run
from nteq.groups import cyclic
from nteq.metrics import orbit_same_prediction, sub_ensembles
from nteq.networks import cnn

GROUPS = {"C4": cyclic(4), "C8": cyclic(8), "C16": cyclic(16)}
OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


def network(channels):
    """Three convolutions whose filters land on the same pixels of an image and its quarter turns."""
    return cnn(
        [channels, 2 * channels, 2 * channels], [4, 3, 3], [2, 2, 1], outputs=10, W_std=2**0.5, b_std=0.1
    )


def experiment(options, folder):
    """All groups, with networks of the same initial parameters."""
    keys = jax.random.split(jax.random.key(options.seed), 2)
    numerals, _ = digits()
    if options.test > len(numerals):
        raise ValueError(f"--test must be at most {len(numerals)}, the number of digits, got {options.test}")
    x, y, x_test, y_test = fashion_mnist(options.train, options.test)
    tests = {
        "test images": x_test,
        "digits": numerals[: options.test],
        "natural images": natural_images(options.test, seed=options.seed),
        "noise": noise(keys[0], options.test),
    }
    (channels,) = options.width
    sizes = command.sizes(options.members)
    found = {name: [] for name in ("osp", "osp_error", "member_accuracy", "ensemble_accuracy")}
    for name in options.group:
        action = on_images(GROUPS[name])
        asked = orbit(action, jnp.concatenate(list(tests.values())))
        print(
            f"{name}: {options.members} networks on {len(x)} images, {len(asked) * asked.shape[1]} questions"
        )
        logits = run(
            network(channels), keys[1], options.members, x, y, asked.reshape(-1, 28, 28, 1), options.steps,
            loss="cross-entropy", optimizer=OPTIMIZERS[options.optimizer](options.learning_rate),
            batch_size=min(64, options.train), augment=augment_by(action), folder=folder / name, resume=True,
        )[:, 0].reshape(options.members, len(asked), len(tests), options.test, 10)  # fmt: skip
        curves = [sub_ensembles(orbit_same_prediction, logits[:, :, i], sizes) for i in range(len(tests))]
        found["osp"].append([value for value, _ in curves])
        found["osp_error"].append([error for _, error in curves])
        upright = logits[:, 0, 0]
        found["member_accuracy"].append((upright.argmax(-1) == np.asarray(y_test)).mean(1))
        found["ensemble_accuracy"].append((upright.mean(0).argmax(-1) == np.asarray(y_test)).mean())
    return {
        "sizes": sizes,  # members M
        "tests": list(tests),
        "groups": options.group,
        **found,  # (groups, tests, sizes) for the orbit same prediction, (groups, members) and (groups,)
    }


if __name__ == "__main__":
    arguments = command.parser(
        "fashion_mnist",
        "Orbit same prediction of convolutional ensembles on Fashion-MNIST and far from it, against members.",
        members=100,
        width=[16],
        group=list(GROUPS),
        train=2000,
        steps=1200,
    )
    command.learning(arguments, list(GROUPS), several=["group"])
    arguments.add_argument(
        "--test", type=command.at_least(1), default=500, help="images of each kind to ask about"
    )
    arguments.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="how to train")
    arguments.add_argument("--learning-rate", type=float, default=2e-2, help="of the optimizer")
    quick = dict(members=4, width=[2], group=["C8"], train=64, steps=10, test=8)
    command.main(arguments, quick, experiment)
