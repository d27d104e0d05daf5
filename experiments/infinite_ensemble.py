"""The infinite ensemble on Fashion-MNIST: `python -m experiments.infinite_ensemble`, accuracy against data.

The mean of infinitely many infinitely wide convolutional networks, trained to the end on all quarter turns
of up to 2000 images, is a linear solve with the averaged kernel. Its accuracy on test images is measured
against the number of training images, beside that of single networks and of ensembles with the same
architecture, which are trained as in `experiments.fashion_mnist`.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.fashion_mnist import OPTIMIZERS, network
from nteq.actions import on_images, orbit
from nteq.averages import orbit_average
from nteq.datasets import fashion_mnist
from nteq.ensembles import augment_by, run
from nteq.groups import cyclic

TURNS = on_images(cyclic(4))
CLASSES = 10


def averaged_kernels(kernel, x, x_test, path):
    """The NTK averaged over the turns, of all pairs of training images and of test with training images.

    They are stored in path, a .npz file, and read from there if it exists.
    """
    if not path.exists():
        average = orbit_average(kernel, TURNS)
        with jax.enable_x64(True):
            x, x_test = (jnp.asarray(images, float) for images in (x, x_test))
            arrays = {"gram": average(x, x).ntk, "cross": average(x_test, x).ntk}
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, **arrays)
        unfinished.replace(path)
    with np.load(path) as stored:
        return stored["gram"], stored["cross"]


def mean_prediction(gram, cross, classes):
    """Of the infinite ensemble at infinite time, (n, 10), for labels 1 − 1/10 and −1/10."""
    return cross @ np.linalg.solve(gram, np.eye(CLASSES)[classes] - 1 / CLASSES)


def experiment(options, folder):
    """The kernel of all images once, then each training set."""
    x, y, x_test, y_test = fashion_mnist(max(options.train), options.test)
    labels, truth = np.asarray(y), np.asarray(y_test)
    (channels,) = options.width
    start = time.time()
    gram, cross = averaged_kernels(network(channels).kernel, x, x_test, folder / "kernels.npz")
    mean_prediction(gram, cross, labels)
    seconds = time.time() - start
    print(f"the infinite ensemble of {len(x)} images: {seconds:.0f} s")
    asked = orbit(TURNS, x_test).reshape(-1, *x_test.shape[1:])
    augment, optimizer = augment_by(TURNS), OPTIMIZERS[options.optimizer](options.learning_rate)
    shape = len(options.train), options.draws
    found = {name: np.zeros(shape) for name in ("one", "ensemble", "infinite")}
    for i, n in enumerate(options.train):
        print(f"{n} images: {options.draws} training sets for {options.members} networks")
        for draw in range(options.draws):
            keys = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), draw))
            rows = np.asarray(jax.random.permutation(keys[0], len(x))[:n])
            logits = run(
                network(channels), keys[1], options.members, x[rows], y[rows], asked, options.steps,
                loss="cross-entropy", optimizer=optimizer, batch_size=min(64, n), augment=augment,
                folder=folder / f"{n}-{draw}", resume=True, progress=False,
            )[:, 0].reshape(options.members, 4, len(x_test), CLASSES)  # fmt: skip
            found["one"][i, draw] = (logits.argmax(-1) == truth).mean()
            found["ensemble"][i, draw] = (logits.mean(0).argmax(-1) == truth).mean()
            solved = mean_prediction(gram[np.ix_(rows, rows)], cross[:, rows], labels[rows])
            found["infinite"][i, draw] = (solved.argmax(-1) == truth).mean()
    return {
        "train": options.train,
        "seconds": seconds,  # of the kernel of all images and one solution
        # accuracy over the turns of the test images, (sizes, training sets); of one: the mean of all members
        **found,
    }


if __name__ == "__main__":
    arguments = command.parser(
        "infinite_ensemble",
        "Accuracy of the infinite ensemble on Fashion-MNIST, beside finite ones, against training images.",
        members=16,
        width=[16],
        train=[125, 250, 500, 1000, 2000],
        draws=4,
        steps=1200,
        test=1000,
    )
    add = arguments.add_argument
    add("--width", type=command.at_least(1), nargs=1, help="channels of the first layer of a finite network")
    add("--train", type=command.at_least(1), nargs="+", help="training images before augmentation")
    add("--draws", type=command.at_least(1), help="training sets of each size")
    add("--steps", type=command.at_least(1), help="training steps of finite networks")
    add("--test", type=command.at_least(1), help="test images to ask about, in four positions")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="how to train")
    add("--learning-rate", type=float, default=2e-2, help="of the optimizer")
    quick = dict(members=2, width=[2], train=[32], draws=1, steps=10, test=8)
    command.main(arguments, quick, experiment)
