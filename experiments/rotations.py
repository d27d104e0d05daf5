"""The experiment between the turns: `python -m experiments.rotations`, Gerken & Kessel 2024, section 6.2.

Ensembles like those of `experiments.fashion_mnist`, which saw the turns of C1 to C16 in training, are asked
about images at 64 angles, most of which are in no such group. The same networks are also symmetrised, their
answers averaged over the quarter turns, and canonicalised, their images turned to a standard position first,
and networks are trained on images in that position. Two things are measured at each angle: how often the
answer is that on the upright image, and how often it is right.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.ndimage import gaussian_filter

from experiments import command
from experiments.fashion_mnist import OPTIMIZERS, network
from nteq.actions import Action, on_images, orbit
from nteq.datasets import fashion_mnist, noise
from nteq.ensembles import augment_by, run
from nteq.groups import cyclic
from nteq.metrics import orbit_same_prediction, sub_ensembles

ANGLES = 64
GROUPS = {f"C{k}": cyclic(k) for k in (1, 2, 4, 8, 16)}
DIRECTION = np.pi / 9  # 20 degrees: no axis of the pixels, so that no image has to choose by rounding


def canonical(action: Action, x: Array) -> tuple[Array, Array]:
    """Each image turned so that its centre of mass lies as far as possible in a fixed direction.

    Args:
        action: rotations of images.
        x: images (n, size, size, 1).

    Returns:
        The turned images, and which element of the group turned each of them, shape (n,).
    """
    position = jnp.arange(x.shape[1]) - (x.shape[1] - 1) / 2
    template = np.cos(DIRECTION) * position - np.sin(DIRECTION) * position[:, None]
    images = orbit(action, x)
    best = jnp.einsum("gnrcx,rc->gn", images, template).argmax(0)
    return images[best, jnp.arange(len(x))], best


def smooth(images: Array, width: float = 2.0) -> Array:
    """The pixel values of each image in the order of its blurred version: grains become patches.

    Args:
        images: shape (n, size, size, 1).
        width: of the Gaussian that blurs, in pixels.
    """
    n = len(images)
    blurred = gaussian_filter(np.asarray(images), (0, width, width, 0), mode="wrap").reshape(n, -1)
    ranks = blurred.argsort(1).argsort(1)
    return jnp.take_along_axis(jnp.sort(images.reshape(n, -1), axis=1), ranks, axis=1).reshape(images.shape)


def in_a_disc(images: Array) -> Array:
    """Black outside of the largest circle in the image, so that no rotation cuts a corner off."""
    position = jnp.arange(images.shape[1]) - (images.shape[1] - 1) / 2
    inside = position**2 + position[:, None] ** 2 <= (images.shape[1] / 2) ** 2
    return images * inside[..., None]


def at_angles(logits: np.ndarray, turned: np.ndarray) -> dict[str, np.ndarray]:
    """What networks answer, shape (members, 64, n, 10), and what follows from that by quarter turns.

    Args:
        logits: the answers on n images at 64 angles.
        turned: by how many quarter turns each of these images is canonicalised, shape (64, n).
    """
    step = ANGLES // 4
    symmetrised = logits.reshape(len(logits), 4, step, *logits.shape[2:]).mean(1)
    there = (np.arange(ANGLES)[:, None] + step * turned) % ANGLES
    return {
        "as trained": logits,
        "symmetrised": np.tile(symmetrised, (1, 4, 1, 1)),
        "canonicalised": logits[:, there, np.arange(logits.shape[2])],
    }


def experiment(options, folder):
    """All groups, then the canonicalised networks, all with the same initial parameters."""
    keys = jax.random.split(jax.random.key(options.seed), 2)  # as in experiments.fashion_mnist
    x, y, x_test, y_test = fashion_mnist(options.train, options.test)
    grains = noise(keys[0], options.far)
    tests = {
        "test images": x_test,
        "noise": grains,
        "noise in a disc": in_a_disc(grains),
        "smooth noise": smooth(grains),
        "smooth noise in a disc": in_a_disc(smooth(grains)),
    }
    ends = np.cumsum([len(images) for images in tests.values()])
    upright = jnp.concatenate(list(tests.values()))
    turn = jax.jit(on_images(cyclic(ANGLES)).act)
    asked = jnp.stack([turn(a, upright) for a in range(ANGLES)])
    quarter_turns = jax.jit(lambda images: canonical(on_images(cyclic(4)), images)[1])
    turned = np.stack([quarter_turns(images) for images in asked])
    (channels,) = options.width
    runs = [(name, False) for name in options.group] + [(name, True) for name in options.canonical]

    found = {
        name: []
        for name in (
            "groups", "methods", "same", "same_error", "ensemble_same", "osp", "osp_error",
            "member_accuracy", "ensemble_accuracy", "classes",
        )
    }  # fmt: skip
    for name, standing in runs:
        action, shown, questions = on_images(GROUPS[name]), x, asked
        if standing:
            stand = jax.jit(lambda images, action=action: canonical(action, images)[0])
            shown, questions = stand(x), jnp.stack([stand(images) for images in asked])
        what = "in standard position" if standing else "at random turns"
        print(f"{name}: {options.members} networks on {len(x)} images {what}, {len(upright)} at 64 angles")
        logits = run(
            network(channels), keys[1], options.members, shown, y, questions.reshape(-1, 28, 28, 1),
            options.steps, loss="cross-entropy", batch_size=min(64, options.train),
            optimizer=OPTIMIZERS[options.optimizer](options.learning_rate),
            augment=None if standing else augment_by(action),
            folder=folder / (name + "-canonicalised" * standing), resume=True,
        )[:, 0].reshape(options.members, ANGLES, len(upright), 10)  # fmt: skip
        answers = {"trained canonicalised": logits} if standing else at_angles(logits, turned)
        for method, f in answers.items():
            classes, of_ensemble = f.argmax(-1), f.mean(0).argmax(-1)
            same = [np.split(c == c[..., :1, :], ends[:-1], -1) for c in (classes, of_ensemble)]
            by_member = np.array([part.mean(-1) for part in same[0]])  # (tests, members, angles)
            spread = by_member.std(1, ddof=1 if options.members > 1 else 0) / options.members**0.5
            sizes = sorted({1, options.members})
            curves = [
                sub_ensembles(orbit_same_prediction, part, sizes, 30) for part in np.split(f, ends[:-1], 2)
            ]
            right = [(c[..., : ends[0]] == np.asarray(y_test)).mean(-1) for c in (classes, of_ensemble)]
            for key, value in {
                "groups": name,
                "methods": method,
                "same": by_member.mean(1),
                "same_error": spread,
                "ensemble_same": [part.mean(-1) for part in same[1]],
                "osp": [value for value, _ in curves],
                "osp_error": [error for _, error in curves],
                "member_accuracy": right[0],
                "ensemble_accuracy": right[1],
            }.items():
                found[key].append(value)
            if method in ("as trained", "trained canonicalised"):
                found["classes"].append(np.stack([classes[0], of_ensemble]).astype(np.uint8))
    return {
        "angles": np.arange(ANGLES) * 360 / ANGLES,  # degrees
        "sizes": sizes,  # members M
        "tests": list(tests),
        "ends": ends,  # of the tests among the images
        # a row for each pair of group and method: same (rows, tests, angles), osp (rows, tests, sizes),
        # member_accuracy (rows, members, angles); classes (runs, 2, angles, images) are those that the first
        # member and the ensemble name
        **found,
    }


if __name__ == "__main__":
    arguments = command.parser(
        "rotations",
        "Convolutional ensembles for C1 to C16 on images at 64 angles, beside two ways to make one network "
        "symmetric.",
        members=24,
        width=[16],
        group=list(GROUPS),
        canonical=["C4", "C16"],
        train=2000,
        steps=1200,
    )
    command.learning(arguments, list(GROUPS), several=["group"])
    arguments.add_argument("--canonical", choices=GROUPS, nargs="+", help="groups of canonicalised networks")
    arguments.add_argument("--test", type=command.at_least(1), default=500, help="test images to ask about")
    arguments.add_argument("--far", type=command.at_least(1), default=150, help="images of noise")
    arguments.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="how to train")
    arguments.add_argument("--learning-rate", type=float, default=2e-2, help="of the optimizer")
    quick = dict(members=2, width=[2], group=["C4"], canonical=["C4"], train=64, steps=10, test=6, far=2)
    command.main(arguments, quick, experiment)
