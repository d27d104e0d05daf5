"""What a symmetry that is built in is worth in examples: `python -m experiments.group_convolutions`.

Networks of about equally many parameters learn Fashion-MNIST at 14 × 14 pixels, where every image, in
training and in the test, lies in a random one of the eight positions of a square: a plain convolutional
network, the same with each image moved at random in every step, and group convolutional networks for p4 and
p4m. Measured is how often they are right on all eight positions of the test images, and how often the eight
answers agree.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments import command
from nteq.actions import on_images, orbit
from nteq.datasets import fashion_mnist
from nteq.ensembles import augment_by, init, run
from nteq.groups import dihedral
from nteq.networks import Network, cnn, gcnn

# 14 → 6 → 4 → 2 pixels, with filters that land on the same ones from all sides
SIDE = 14
LAYERS = dict(filter_sizes=[4, 3, 3], strides=[2, 1, 1])
SCALES = dict(W_std=2**0.5, b_std=0.1, parameterization="standard", activation=jax.nn.leaky_relu)
KINDS = {  # the channels of all three layers, whether images are moved in training
    "plain": ([16, 16, 16], False),
    "augmented": ([16, 16, 16], True),
    "p4": ([6, 6, 16], False),
    "p4m": ([4, 4, 12], False),
}


def network(kind: str):
    """One of the networks, which have about 5000 parameters each."""
    channels, _ = KINDS[kind]
    if kind in ("p4", "p4m"):
        return gcnn(channels, outputs=10, **LAYERS, **SCALES, group=kind)
    return cnn(channels, readout="average", outputs=10, **LAYERS, **SCALES)


def parameters(network: Network) -> int:
    """How many numbers a network learns."""
    params = init(network, jax.random.key(0), 1, (SIDE, SIDE, 1))
    return sum(a.size for a in jax.tree.leaves(params))


def prepared(x: Array, x_test: Array) -> tuple[Array, Array]:
    """Training and test images at 14 × 14 pixels, in units of the training images' deviation."""
    x, x_test = (images.reshape(-1, SIDE, 2, SIDE, 2, 1).mean((2, 4)) for images in (x, x_test))
    mean, deviation = x.mean(), x.std()
    return (x - mean) / deviation, (x_test - mean) / deviation


def positions(key, x, moves):
    """Each image moved by a random element."""
    chosen = jax.random.randint(key, (len(x),), 0, moves.group.order)
    return orbit(moves, x)[chosen, jnp.arange(len(x))]


def experiment(options, folder):
    """All training sets, and on each all networks, with the same initial parameters for each set."""
    x, y, x_test, y_test = fashion_mnist(2000, options.test)
    if max(options.train) > len(x):
        raise ValueError(f"--train must be at most {len(x)}, the images that ship, got {max(options.train)}")
    x, x_test = prepared(x, x_test)
    moves = on_images(dihedral(4))
    asked = orbit(moves, x_test)
    shape = len(options.steps), len(options.kinds), len(options.train), options.draws, options.members
    found = {name: np.zeros(shape) for name in ("accuracy", "same")}
    for s, steps in enumerate(options.steps):
        optimizer = optax.adam(optax.cosine_decay_schedule(options.learning_rate, steps))
        for j, n in enumerate(options.train):
            print(
                f"{steps} steps, {n} images: {options.draws} training sets for {len(options.kinds)} networks"
            )
            for draw in range(options.draws):
                key = jax.random.fold_in(jax.random.key(options.seed), draw)
                rows = jax.random.permutation(key, len(x))[:n]
                shown = positions(jax.random.fold_in(key, 1), x[rows], moves)
                for i, kind in enumerate(options.kinds):
                    logits = run(
                        network(kind), jax.random.fold_in(key, 2), options.members, shown, y[rows],
                        asked.reshape(-1, SIDE, SIDE, 1), steps, loss="cross-entropy", optimizer=optimizer,
                        batch_size=min(32, n), augment=augment_by(moves) if KINDS[kind][1] else None,
                        folder=folder / f"{kind}-{n}-{steps}-{draw}", resume=True, progress=False,
                    )  # fmt: skip
                    classes = logits.reshape(options.members, *asked.shape[:2], 10).argmax(-1)
                    found["accuracy"][s, i, j, draw] = (classes == np.asarray(y_test)).mean((1, 2))
                    found["same"][s, i, j, draw] = (classes == classes[:, :1]).all(1).mean(1)
    return {
        "kinds": options.kinds,
        "parameters": [parameters(network(kind)) for kind in options.kinds],
        "train": options.train,
        "steps": options.steps,
        # (steps, kinds, sizes, training sets, networks): the share of right answers on the orbits of test
        # images, and of orbits on which all answers agree
        **found,
    }


if __name__ == "__main__":
    arguments = command.parser(
        "group_convolutions",
        "Accuracy of networks with and without a built-in symmetry on turned images, against their number.",
        members=1,
        kinds=list(KINDS),
        train=[100, 200, 500, 1000],
        draws=6,
        steps=[400, 2000],
        test=1000,
    )
    add = arguments.add_argument
    add("--kinds", choices=KINDS, nargs="+", help="the networks")
    add("--train", type=command.at_least(1), nargs="+", help="training images")
    add("--draws", type=command.at_least(1), help="training sets of each size")
    add("--steps", type=command.at_least(1), nargs="+", help="training steps")
    add("--test", type=command.at_least(1), help="test images, each asked about in eight positions")
    add("--learning-rate", type=float, default=5e-3, help="of Adam at the first step; it falls to zero")
    quick = dict(members=1, train=[32], draws=1, steps=[10], test=8)
    command.main(arguments, quick, experiment)
