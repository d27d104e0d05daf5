"""What canonical coordinates are worth: `python -m experiments.canonical_coordinates`.

Networks of about equally many parameters see handwritten digits from 0 to 8 in logarithmic coordinates, in
which turning and scaling an image is a shift. All but those that are augmented are trained on upright images.
Measured is how often they are right about upright test images, about turned ones, about turned and scaled
ones, after several numbers of steps, the same numbers for all networks; how far the pose that the transformer
finds is from the one it was shown; and how the answers of ensembles that were trained with eight turns spread
over these turns, against the number of members.

Images are functions on the plane of complex numbers, linear between pixels, and |z| = 1 is the largest circle
in the square. `see(x, a)` is the image ρ(a)x, turned by arg a and scaled by |a|, in logarithmic coordinates.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments import command
from nteq.datasets import digits
from nteq.metrics import sub_ensembles

RINGS, ANGLES = 16, 32
CHANNELS = 8  # of the network that finds the pose
KINDS = {  # channels of the classifier, how it finds the pose, the angles and log scales seen in training
    "plain": (19, None, 0.0, 0.0),
    "turns": (19, None, np.pi, 0.0),
    "turns and scales": (19, None, np.pi, 0.3),
    "moments": (19, "moments", 0.0, 0.0),
    "transformer": (16, "learned", 0.0, 0.0),
}
TESTS = {"upright": (0.0, 0.0), "turned": (np.pi, 0.0), "turned and scaled": (np.pi, 0.3)}
SCALES = np.linspace(-0.9, 0.9, 7)  # logarithms
CLASSES = 9  # without the nine, which is a turned six
TEST = 600


def grid(rings: int = RINGS, angles: int = ANGLES) -> Array:
    """Places log z in the plane, shape (rings, angles), in steps of 2π / angles up to |z| = 2."""
    step = 2 * jnp.pi / angles
    return jnp.log(2) + step * (jnp.arange(1 - rings, 1)[:, None] + 1j * jnp.arange(angles))


def see(x: Array, a: Array, rings: int = RINGS, angles: int = ANGLES) -> Array:
    """Images x (n, size, size), turned and scaled by a (n,), in logarithmic coordinates."""
    size = x.shape[1]
    z = jnp.exp(grid(rings, angles)) / a[:, None, None]
    row, column = (size - 1 - size * z.imag) / 2, (size - 1 + size * z.real) / 2
    read = partial(jax.scipy.ndimage.map_coordinates, order=1)
    return jax.vmap(lambda image, *place: read(image, place))(x, row, column)


def convolve(h: Array, layer: tuple[Array, Array]) -> Array:
    """Periodic around the circle, zero beyond the rims, of h (n, rings, angles, channels); leaky ReLU."""
    W, b = layer
    k = len(W) // 2
    h = jnp.pad(h, ((0, 0), (0, 0), (k, k), (0, 0)), mode="wrap")
    h = jax.lax.conv_general_dilated(
        h, W, (1, 1), ((k, k), (0, 0)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.leaky_relu(h + b, 0.1)


def direction(weights: Array) -> Array:
    """Where on the circle the weights (n, angles) lie, as numbers of modulus 1; 1 if nowhere."""
    v = 2 * jnp.pi / weights.shape[1] * jnp.arange(weights.shape[1])
    m = weights @ jnp.exp(1j * v)
    m = jnp.where(jnp.abs(m) > 1e-6 * jnp.abs(weights).sum(1), m, 1.0)
    return m / jnp.abs(m)


def pose(params: dict, p: Array) -> Array:
    """Numbers that are multiplied by a when the images are, from p (n, rings, angles)."""
    u = grid(*p.shape[1:]).real[:, 0]
    h = (p * jnp.exp(2 * u)[:, None])[..., None]
    for W in params["pose"]:
        h = convolve(h, (W, 0.0))
    around, outward = h.mean(1) @ params["around"], jnp.abs(h.mean(2) @ params["outward"])
    outward = outward / jnp.maximum(outward.sum(1, keepdims=True), 1e-9)
    return jnp.exp(outward @ (u - u.mean())) * direction(around)


def moments(p: Array) -> Array:
    """The same by a rule: the direction of the centre of mass, and the root mean square radius."""
    w = grid(*p.shape[1:])
    area = jnp.exp(2 * w.real)
    mass = jnp.maximum((p * area).sum((1, 2)), 1e-9)
    square = jnp.maximum((p * area * jnp.exp(2 * w.real)).sum((1, 2)), 1e-9)
    return 2 * jnp.sqrt(square / mass) * direction((p * area * jnp.exp(w.real)).sum(1))


def classify(params: dict, p: Array) -> Array:
    """Scores of the classes, (n, classes), of images in logarithmic coordinates."""
    h = p[..., None]
    for layer in params["class"]:
        h = convolve(h, layer)
        h = h.reshape(len(h), h.shape[1] // 2, 2, h.shape[2] // 2, 2, -1).mean((2, 4))
    W, b = params["out"]
    return h.reshape(len(h), -1) @ W + b


def init(key: Array, channels: int, learned: bool) -> dict:
    """Random parameters of a classifier, and of a network that finds the pose."""
    keys = iter(jax.random.split(key, 8))

    def layer(*shape):
        W = jax.random.normal(next(keys), shape) * (2 / np.prod(shape[:-1])) ** 0.5
        return W, jnp.zeros(shape[-1])

    params = {
        "class": [layer(3, 3, 1, channels), layer(3, 3, channels, channels)],
        "out": layer(channels * RINGS * ANGLES // 16, CLASSES),
    }
    if learned:
        params |= {
            "pose": [layer(5, 5, 1, CHANNELS)[0], layer(5, 5, CHANNELS, CHANNELS)[0]],
            "around": layer(CHANNELS, 1)[0][:, 0],
            "outward": layer(CHANNELS, 1)[0][:, 0],
        }
    return params


def answer(params: dict, x: Array, a: Array, how: str | None) -> Array:
    """Scores of images that are turned and scaled by a, and looked at again in the pose that was found."""
    p = see(x, a)
    if how == "learned":
        p = see(x, a / pose(params, p))
    elif how == "moments":
        p = see(x, a / moments(p))
    return classify(params, p)


def drawn(key: Array, n: int, angle: float, scale: float) -> Array:
    """Random a: angles of -angle to angle and logarithms of scales of -scale to scale."""
    s, alpha = jax.random.uniform(key, (2, n), minval=-1, maxval=1)
    return jnp.exp(scale * s + 1j * angle * alpha)


@cache
def adam(rate: float, steps: int) -> optax.GradientTransformation:
    """The same object for the same numbers, so that a step is compiled once."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


@partial(jax.jit, static_argnames=("kind", "optimizer", "turns"))
def step(carry, key, x, y, rows, kind: str, optimizer, turns: int):
    """One step on the rows, each image at an angle and scale of its kind, or in one of so many turns."""
    params, state = carry
    x, y = x[rows], y[rows]
    _, how, angle, scale = KINDS[kind]
    a = drawn(key, len(x), angle, scale)
    if turns:
        a = jnp.exp(2j * jnp.pi / turns * jax.random.randint(key, (len(x),), 0, turns))

    def loss(params):
        scores = answer(params, x, a, how)
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    update, state = optimizer.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, update), state


def train(key, x, y, kind: str, steps: int, batch: int, rate: float, turns: int = 0) -> dict:
    """Parameters after Adam on random batches."""
    channels, how, *_ = KINDS[kind]
    start, *keys = jax.random.split(key, steps + 1)
    params = init(start, channels, how == "learned")
    optimizer = adam(rate, steps)
    carry = params, optimizer.init(params)
    rows = np.asarray(jax.random.randint(start, (steps, batch), 0, len(x)))
    # not in a scan: there XLA's convolutions take five times as long on CPUs
    for chosen, key in zip(rows, keys, strict=True):
        carry = step(carry, key, x, y, chosen, kind, optimizer, turns)
    return carry[0]


@partial(jax.jit, static_argnames="how")
def scores(params: dict, x: Array, a: Array, how: str | None) -> Array:
    """`answer`, compiled."""
    return answer(params, x, jnp.broadcast_to(a, len(x)), how)


def measured(several: list[dict], kind: str, x: Array, y: Array, key: Array) -> dict[str, np.ndarray]:
    """How networks do on test images: the accuracy of each, and more of the last of them."""
    how, params = KINDS[kind][1], several[-1]
    ask = lambda a, params=params: np.asarray(scores(params, x, a, how).argmax(1))
    right = lambda *asked: (ask(*asked) == np.asarray(y)).mean()
    turned = drawn(key, len(x), np.pi, 0.0)
    upright = ask(jnp.ones(1, complex))
    kept = lambda degrees: (ask(jnp.exp(1j * jnp.deg2rad(jnp.full(1, degrees)))) == upright).mean()
    found = {
        "accuracy": np.array(
            [[right(drawn(key, len(x), *about), params) for about in TESTS.values()] for params in several]
        ),
        "at_scale": np.array([right(turned * jnp.exp(s)) for s in SCALES]),
        # by whole steps of the grid, and by as many and a half
        "same": np.array([np.mean([kept(45.0 * k + between) for k in range(8)]) for between in (0, 5.625)]),
        "pose_error": np.full(2, np.nan),
    }
    if how:
        at = (lambda a: pose(params, see(x, a))) if how == "learned" else (lambda a: moments(see(x, a)))
        apart = np.rad2deg(np.abs(np.angle(at(turned) / (turned * at(jnp.ones_like(turned))))))
        found["pose_error"] = np.percentile(apart, [50, 90])
    return found


def nearest(x: Array, y: Array, x_test: Array, a: Array) -> Array:
    """The class of the image that is nearest in one of 32 turns."""
    weight = jnp.exp(grid().real)  # the root of the area of a cell
    p, q = weight * see(x, jnp.ones(len(x), complex)), weight * see(x_test, a)
    overlap = jnp.einsum("nuk,muk->nmk", jnp.fft.rfft(q), jnp.fft.rfft(p).conj())
    closest = jnp.fft.irfft(overlap, n=ANGLES).max(-1)
    return y[((p**2).sum((1, 2)) - 2 * closest).argmin(1)]


def spread(mean: Array) -> Array:
    """Of scores (turns, n, classes): their deviation over the turns in units of that over images."""
    return jnp.sqrt(mean.var(0).mean() / mean.mean(0).var(0).mean())


def ensemble(key, x, y, x_test, options) -> dict[str, np.ndarray]:
    """Spreads over turns of ensembles that were trained with eight turns."""
    found, steps = [], options.ensemble_steps
    for number in range(options.members):
        shown = jax.random.fold_in(key, number)
        params = train(shown, x, y, "turns", steps, options.batch, options.learning_rate, turns=8)
        angles = jnp.exp(2j * jnp.pi / 16 * jnp.arange(16))
        found.append(np.stack([scores(params, x_test, a[None], None) for a in angles]))
    members, sizes = np.stack(found), command.sizes(options.members)
    over = {"spread_8": members[:, ::2], "spread_16": members}
    curves = {name: sub_ensembles(spread, of, sizes) for name, of in over.items()}
    return {
        "sizes": np.array(sizes),
        **{name: np.asarray(curve[0]) for name, curve in curves.items()},
        **{f"{name}_error": np.asarray(curve[1]) for name, curve in curves.items()},
    }


def experiment(options, folder):
    """All training sets, and on each all networks, then the ensemble."""
    x, y = digits(28)
    kept = np.asarray(y) < CLASSES
    x, y = x[kept][..., 0], y[kept]
    left = len(x) - TEST
    if max(options.train) > left:
        raise ValueError(f"--train must be at most {left}, the digits left, got {max(options.train)}")
    folder.mkdir(parents=True, exist_ok=True)

    def once(name, compute, *arguments):
        path, unfinished = folder / f"{name}.npz", folder / f"{name}.part.npz"
        if not path.exists():
            np.savez(unfinished, **compute(*arguments))
            unfinished.replace(path)
        return dict(np.load(path))

    def one(kind, rows, test, key, asked):
        several = [
            train(key, x[rows], y[rows], kind, steps, options.batch, options.learning_rate)
            for steps in options.steps
        ]
        return measured(several, kind, x[test], y[test], asked)

    shape = len(options.kinds), len(options.train), options.draws
    found, neighbours = {}, np.zeros((len(options.train), options.draws, len(TESTS)))
    for draw in range(options.draws):
        key = jax.random.fold_in(jax.random.key(options.seed), draw)
        order = jax.random.permutation(key, len(x))
        test = order[-options.test :]
        asked, start = jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
        for j, n in enumerate(options.train):
            rows = order[:n]
            print(f"training set {draw + 1}, {n} images", flush=True)
            for i, kind in enumerate(options.kinds):
                values = once(f"{kind}-{n}-{draw}", one, kind, rows, test, start, asked)
                for name, value in values.items():
                    found.setdefault(name, np.zeros(shape + value.shape))[i, j, draw] = value
            for k, about in enumerate(TESTS.values()):
                classes = nearest(x[rows], y[rows], x[test], drawn(asked, len(test), *about))
                neighbours[j, draw, k] = (classes == y[test]).mean()
    key = jax.random.fold_in(jax.random.key(options.seed), 10**6)
    order = jax.random.permutation(key, len(x))
    rows, test = order[: options.train[-1]], order[-min(100, options.test) :]
    members = once("ensemble", ensemble, key, x[rows], y[rows], x[test], options)
    numbers = [jax.eval_shape(partial(init, channels=c, learned=how == "learned"), key) for c, how, *_ in
               (KINDS[kind] for kind in options.kinds)]  # fmt: skip
    return {
        "kinds": options.kinds,
        "parameters": [sum(a.size for a in jax.tree.leaves(params)) for params in numbers],
        "train": options.train,
        "steps": options.steps,
        "tests": list(TESTS),
        "scales": SCALES,
        # (kinds, sizes, training sets, …): the share of right answers, (…, steps, tests). After the most
        # steps: that for turned images at each of the scales; the share of answers that are those on the
        # upright image, after turns by whole steps of the grid and by halves; the median and the 90th
        # percentile of how far the pose turns less or more than the image, in degrees
        **found,
        "nearest": neighbours,  # (sizes, training sets, tests)
        # for each size of ensemble, over 8 and over 16 turns, and the standard errors
        **members,
    }


if __name__ == "__main__":
    arguments = command.parser(
        "canonical_coordinates",
        "Accuracy of networks that see digits in logarithmic coordinates, against the number of images.",
        members=24,
        kinds=list(KINDS),
        train=[200, 1000],
        draws=5,
        steps=[100, 300, 1000, 3000],
        ensemble_steps=1000,
        batch=32,
        test=TEST,
    )
    add = arguments.add_argument
    add("--kinds", choices=KINDS, nargs="+", help="the networks")
    add("--train", type=command.at_least(1), nargs="+", help="training images")
    add("--draws", type=command.at_least(1), help="training sets of each size")
    add("--steps", type=command.at_least(1), nargs="+", help="training steps, each number from a new start")
    add("--ensemble-steps", type=command.at_least(1), help="training steps of each network of the ensemble")
    add("--batch", type=command.at_least(1), help="images in a step")
    add("--test", type=command.at_least(1), help="test images")
    add("--learning-rate", type=float, default=0.015, help="of Adam at the first step; it falls to zero")
    quick = dict(members=2, train=[32], draws=1, steps=[2, 5], ensemble_steps=5, test=16)
    command.main(arguments, quick, experiment)
