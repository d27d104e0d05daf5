"""What Lorentz invariance is worth in jets: `python -m experiments.jets`.

Networks with the same number of parameters learn to tell jets of top quarks from others, from few jets and
from many. Four send messages between the 16 hardest particles of a jet, and differ in the two numbers that a
message sees of a pair: Minkowski products of the momenta (`lorentz`, the network of Gong et al. 2022 at a
small size), the same sums with four plus signs (`euclid`), or the differences of η and φ (`plain`; also
`augmented`, which sees each jet boosted at random, with a rapidity of at most 1, in each step). The fifth,
`deep set`, sees the coordinates of one particle at a time, and takes a mean. For each kind and size of the
training set, jets that are neither trained on nor tested on choose the learning rate. Measured is how well
the networks tell new jets apart, as these are and boosted across the beam.

Then ensembles of `plain`, for which the augmentation is either a random quarter turn about the jet's axis or
a random boost: how far their mean prediction is from invariant, against the number of members.
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.metrics import roc_auc_score

from experiments import command
from nteq.datasets import top_jets

MINKOWSKI, EUCLID = np.array([1.0, -1, -1, -1]), np.ones(4)
KINDS = ["lorentz", "euclid", "plain", "augmented", "deep set"]
WIDTH, BLOCKS = 16, 2
SET_WIDTH = 36  # of the deep set: 4177 parameters, the others have 4197
WINDOW = 1.0  # the largest rapidity of augmentation


# The network. The chapter has the same, in cells; tests/book/test_tour_jets.py compares them.


def squash(s):
    """Large numbers become their logarithm, small ones stay."""
    return jnp.sign(s) * jnp.log1p(jnp.abs(s))


def dense(key, *sizes):
    """Weights and biases of layers of these sizes."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        ((2 / a) ** 0.5 * jax.random.normal(k, (a, b)), jnp.zeros(b))
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def mlp(layers, h):
    """Layers with ReLUs between them."""
    for W, b in layers[:-1]:
        h = jax.nn.relu(h @ W + b)
    W, b = layers[-1]
    return h @ W + b


def init(key, width=WIDTH, blocks=BLOCKS):
    """The parameters."""
    f, (first, last, *keys) = width, jax.random.split(key, 2 + blocks)

    def block(key):
        e, m, x, h = jax.random.split(key, 4)
        return {
            "e": dense(e, 2 * f + 2, f, f),
            "m": dense(m, f, 1),
            "x": dense(x, f, f, 1),
            "h": dense(h, 2 * f, f, f),
        }

    return {"first": dense(first, 1, f), "blocks": [block(k) for k in keys], "last": dense(last, f, f, 1)}


def message_passing(params, h, x, edge, see):
    """What blocks make of particles that have numbers h (n, N, width) and vectors x (n, N, d)."""
    for p in params["blocks"]:
        (W, b), *rest = p["e"]
        f = h.shape[-1]
        pairs = see(x) @ W[2 * f :] + b
        m = jax.nn.relu((h @ W[:f])[:, :, None] + (h @ W[f : 2 * f])[:, None] + pairs)
        m = jax.nn.relu(mlp(rest, m))
        weight = jax.nn.sigmoid(mlp(p["m"], m)) * edge
        step = mlp(p["x"], m) * edge * (x[:, :, None] - x[:, None])
        x = x + 0.01 * step.sum(2) / jnp.maximum(edge.sum(2), 1)
        h = h + mlp(p["h"], jnp.concatenate([h, (weight * m).sum(2) / 16], -1))
    return h


def partners(p):
    """Where there is a particle (n, N, 1), and where a pair of two (n, N, N, 1)."""
    there = (p[..., :1] != 0).astype(p.dtype)
    others = 1 - jnp.eye(p.shape[1], dtype=p.dtype)[..., None]
    return there, there[:, :, None] * there[:, None] * others


def answer(params, h, x, there, edge, see):
    """From the particles' first number and vectors to one logit a jet."""
    h = message_passing(params, mlp(params["first"], h), x, edge, see)
    pooled = (h * there).sum(1) / jnp.maximum(there.sum(1), 1)
    return mlp(params["last"], pooled)[:, 0]


def lorentz(params, p, metric=MINKOWSKI):
    """The logits (n,) of jets with momenta p (n, N, 4) in GeV; more is top."""
    product = lambda a, b: (a * metric * b).sum(-1, keepdims=True)

    def see(x):
        a, b = x[:, :, None], x[:, None]
        return squash(jnp.concatenate([product(a - b, a - b), product(a, b)], -1))

    there, edge = partners(p)
    jet = p.sum(1, keepdims=True)
    share = product(p, jet) / jnp.maximum(product(jet, jet), 1)
    return answer(params, share, p, there, edge, see)


def cylinder(p):
    """Transverse momentum, η and φ; 1, 0 and 0 where there is no particle."""
    nowhere = jnp.eye(3, dtype=p.dtype)[0]  # φ of a zero has no derivative
    momentum = jnp.where(p[..., :1] != 0, p[..., 1:], nowhere)
    a, b, c = jnp.moveaxis(momentum, -1, 0)
    pt = jnp.hypot(a, b)
    return pt, jnp.arcsinh(c / pt), jnp.arctan2(b, a)


def coordinates(p):
    """ln(16 times the share of the jet's transverse momentum), and 5 (Δη, Δφ) from its axis."""
    there, jet = p[..., 0] != 0, p.sum(1, keepdims=True)
    (pt, eta, phi), (all_pt, jet_eta, jet_phi) = cylinder(p), cylinder(jet)
    turn = (phi - jet_phi + jnp.pi) % (2 * jnp.pi) - jnp.pi
    log_share = jnp.where(there, jnp.log(16 * pt / all_pt), 0)
    place = jnp.stack([eta - jet_eta, turn], -1) * there[..., None]
    return log_share[..., None], 5 * place


def plain(params, share, place, there, edge):
    """The logits of a network that sees coordinates."""
    return answer(params, share, place, there, edge, lambda x: x[:, :, None] - x[:, None])


def init_set(key, width=SET_WIDTH):
    """The parameters of a deep set."""
    f, (each, last) = width, jax.random.split(key)
    return {"each": dense(each, 3, f, f, f), "last": dense(last, f, f, 1)}


def deep_set(params, p):
    """The logits of a network that sees the coordinates of one particle at a time."""
    there, _ = partners(p)
    h = jax.nn.relu(mlp(params["each"], jnp.concatenate(coordinates(p), -1)))
    pooled = (h * there).sum(1) / jnp.maximum(there.sum(1), 1)
    return mlp(params["last"], pooled)[:, 0]


def boost(rapidity, axis):
    """The matrix of a boost along a unit vector."""
    ch, sh = jnp.cosh(rapidity), jnp.sinh(rapidity)
    return jnp.block(
        [
            [ch[None, None], sh * axis[None]],
            [sh * axis[:, None], jnp.eye(3) + (ch - 1) * jnp.outer(axis, axis)],
        ]
    )


# What is measured.


def directions(key, n):
    """Random unit vectors."""
    v = jax.random.normal(key, (n, 3))
    return v / jnp.linalg.norm(v, axis=1, keepdims=True)


def boosted(rapidities, axes, p):
    """Every jet boosted by its own rapidity along its own axis."""
    return jnp.einsum("nab,njb->nja", jax.vmap(boost)(rapidities, axes), p)


def within_window(key, p):
    """Every jet boosted at random."""
    a, b = jax.random.split(key)
    rapidities = jax.random.uniform(a, (len(p),), p.dtype, 0, WINDOW)
    return boosted(rapidities, directions(b, len(p)), p)


def quarter_turns(k, place):
    """(Δη, Δφ) turned by k·90° for every jet."""
    eta, phi, k = place[..., 0], place[..., 1], k[:, None]
    turned = [(eta, phi), (-phi, eta), (-eta, -phi), (phi, -eta)]
    return jnp.stack([jnp.choose(k, [t[i] for t in turned], mode="clip") for i in (0, 1)], -1)


def asked_plain(params, p, k=None):
    """The logits of a network without the symmetry; k, quarter turns about the jet's axis."""
    share, place = coordinates(p)
    if k is not None:
        place = quarter_turns(k, place)
    return plain(params, share, place, *partners(p))


NETWORKS = {
    "deep set": deep_set,
    "lorentz": lorentz,
    "euclid": lambda params, p: lorentz(params, p, EUCLID),
    "plain": asked_plain,
    "augmented": lambda params, p, key=None: asked_plain(params, p if key is None else within_window(key, p)),
    "turned": lambda params, p, key=None: asked_plain(
        params, p, None if key is None else jax.random.randint(key, (len(p),), 0, 4)
    ),
}


def start_of(kind):
    """The function that draws the first parameters."""
    return init_set if kind == "deep set" else init


@functools.cache
def trainer(kind, steps, batch):
    """A function from a learning rate, a key, jets, classes and rows of these, to parameters."""
    ask, moved = NETWORKS[kind], kind in ("augmented", "turned")

    def loss(params, p, y, key):
        logits = ask(params, p, key) if moved else ask(params, p)
        return optax.sigmoid_binary_cross_entropy(logits, y).mean()

    @jax.jit
    def train(rate, key, x, y, batches):
        optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

        def step(carry, at):
            (params, state), (rows, key) = carry, at
            change, state = optimizer.update(jax.grad(loss)(params, x[rows], y[rows], key), state, params)
            return (optax.apply_updates(params, change), state), None

        a, b = jax.random.split(key)
        params = start_of(kind)(a)
        keys = jax.random.split(b, len(batches))
        return jax.lax.scan(step, (params, optimizer.init(params)), (batches, keys))[0][0]

    def on_some(rate, key, x, y, rows, rng):
        """Training on these rows."""
        batches = np.array([rng.choice(rows, min(batch, len(rows)), replace=False) for _ in range(steps)])
        return train(rate, key, x, y, batches)

    return on_some


def drawn(x, n, held, seed):
    """The rows of n jets to train on, of others that are held out, and the generator that drew them."""
    rng = np.random.default_rng([seed, n])
    rows = rng.permutation(len(x))
    return rows[:n], rows[len(x) - held :], rng


@functools.cache
def asker(kind):
    """A network that takes a hundred jets at a time, compiled."""
    one = lambda params, p: NETWORKS[kind](params, p[None])[0]
    return jax.jit(lambda params, p: jax.lax.map(lambda jet: one(params, jet), p, batch_size=100))


def accuracies(options, kind, n, x, y, x_test, y_test):
    """Accuracy and AUC (draws, rapidities), each draw with a training set of n jets and a start.

    With them, which test jets it gets right at the first of the rapidities, (draws, jets), and the accuracy
    (rates, draws) on held-out training jets; the rate that is best in the mean over the draws is taken.
    """
    across = jnp.tile(jnp.array([1.0, 0, 0]), (len(x_test), 1))
    tests = [boosted(jnp.full(len(x_test), r), across, x_test) for r in options.rapidities]
    y, y_test = np.asarray(y), np.asarray(y_test)
    train, ask = trainer(kind, options.steps, options.batch), asker(kind)
    print(f"{kind}: {options.draws} training sets of {n} jets", flush=True)
    networks, validation = [], np.zeros((len(options.learning_rates), options.draws))
    for i, rate in enumerate(options.learning_rates):
        networks.append([])
        for draw in range(options.draws):
            rows, held, rng = drawn(x, n, options.held, draw)
            key = jax.random.fold_in(jax.random.key(options.seed), draw)
            networks[i].append(train(rate, key, x, y, rows, rng))
            logits = np.asarray(ask(networks[i][draw], x[held]))
            validation[i, draw] = ((logits > 0) == y[held]).mean()
    chosen = networks[validation.mean(1).argmax()]
    logits = np.array([[ask(params, p) for p in tests] for params in chosen])
    right = (logits > 0) == y_test
    area = [[roc_auc_score(y_test, a) for a in of_one] for of_one in logits]
    return {"accuracy": right.mean(-1), "auc": area, "right": right[:, 0], "validation": validation}


def answers(options, kind, x, y, x_test):
    """Logits of an ensemble's members (members, transformations, jets), from eight particles of a jet.

    The transformations are the four quarter turns, and then, for each of the rapidities of the ensembles,
    boosts in four random directions.
    """
    count, key = options.ensemble_test, jax.random.key(options.seed)
    x, p = x[:, :8], x_test[:count, :8]
    asked = [(p, jnp.full(count, k)) for k in range(4)]
    for i, rapidity in enumerate(options.ensemble_rapidities):
        for j in range(4):
            axes = directions(jax.random.fold_in(key, 10 * i + j), count)
            asked.append((boosted(jnp.full(count, rapidity), axes, p), jnp.zeros(count, int)))
    print(f"{kind}: {options.members} members", flush=True)
    train = trainer(kind, options.ensemble_steps, options.batch)
    ask, found, n = jax.jit(asked_plain), [], options.ensemble_train
    for m in range(options.members):  # all on the same jets
        rows, _, rng = drawn(x, n, options.held, 0)
        params = train(options.ensemble_learning_rate, jax.random.fold_in(key, 1000 + m), x, y, rows, rng)
        found.append([np.asarray(ask(params, *which)) for which in asked])
    return {"answers": np.array(found, np.float16)}


def experiment(options, folder):
    """Both parts, a piece on each core; what is finished is kept in the folder."""
    jax.config.update("jax_enable_x64", True)
    x, y, x_test, y_test = top_jets(test=options.test)
    most = len(x) - options.held
    if max(options.train) > most:
        raise ValueError(
            f"--train must be at most {most}: {len(x)} jets ship, and --held keeps {options.held} of them, "
            f"got {max(options.train)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    sets = x, y, x_test, y_test
    pieces = {f"members-{kind}": (answers, kind, *sets[:3]) for kind in ("turned", "augmented")}
    pieces |= {f"{kind}-{n}": (accuracies, kind, n, *sets) for n in options.train for kind in KINDS}

    def piece(number, name):
        path, (measure, *what) = folder / f"{name}.npz", pieces[name]
        if not path.exists():
            with jax.default_device(jax.devices()[number % jax.device_count()]):
                np.savez(path, **measure(options, *what))
        return np.load(path)

    with ThreadPoolExecutor(jax.device_count()) as pool:
        found = dict(zip(pieces, pool.map(piece, range(len(pieces)), pieces), strict=True))
    every = lambda what: np.array([[found[f"{k}-{n}"][what] for n in options.train] for k in KINDS])
    params = [jax.eval_shape(start_of(k), jax.random.key(0)) for k in KINDS]
    return {
        "kinds": KINDS,
        "parameters": [sum(a.size for a in jax.tree.leaves(p)) for p in params],
        "train": options.train,
        "rapidities": options.rapidities,
        # (kinds, sizes, training sets, rapidities)
        "accuracy": every("accuracy"),
        "auc": every("auc"),
        "right": every("right"),  # (kinds, sizes, training sets, jets), at the first rapidity
        "learning_rates": options.learning_rates,
        "validation": every("validation"),  # (kinds, sizes, learning rates, training sets)
        "ensemble_rapidities": options.ensemble_rapidities,
        # (trained on quarter turns or on boosts, members, transformations, jets)
        "answers": [found[f"members-{kind}"]["answers"] for kind in ("turned", "augmented")],
    }


if __name__ == "__main__":
    arguments = command.parser(
        "jets",
        "Accuracy of taggers of jets with and without Lorentz invariance, at rest and boosted.",
        members=32,
        train=[200, 1000, 4000],
        draws=6,
        steps=600,
        batch=64,
        rapidities=[0, 0.25, 0.5, 1, 1.5, 2, 3],
        test=2000,
        held=1000,
        learning_rates=[5e-4, 1.5e-3, 5e-3, 1.5e-2],
        ensemble_train=200,
        ensemble_steps=200,
        ensemble_test=50,
        ensemble_rapidities=[0.5, 1, 2],
    )
    add = arguments.add_argument
    add("--train", type=command.at_least(1), nargs="+", help="training jets")
    add("--draws", type=command.at_least(1), help="training sets of each size")
    add("--steps", type=command.at_least(1), help="training steps")
    add("--batch", type=command.at_least(1), help="jets in a step")
    add("--rapidities", type=float, nargs="+", help="of the boosts of the test jets, along x")
    add("--test", type=command.at_least(1), help="test jets")
    add("--held", type=command.at_least(1), help="jets that choose the learning rate")
    add(
        "--learning-rates",
        type=float,
        nargs="+",
        help="to choose from, of Adam at the first step; falls to 0",
    )
    add("--ensemble-train", type=command.at_least(1), help="training jets of the ensembles")
    add("--ensemble-steps", type=command.at_least(1), help="training steps of the ensembles")
    add("--ensemble-test", type=command.at_least(1), help="test jets of the ensembles")
    add(
        "--ensemble-rapidities",
        type=float,
        nargs="+",
        help="of the boosts that the ensembles are asked about",
    )
    add("--ensemble-learning-rate", type=float, default=5e-3, help="of the ensembles")
    quick = dict(
        members=2, train=[32], draws=1, steps=4, batch=16, rapidities=[0, 1], test=16, held=16,
        learning_rates=[1e-3, 1e-2], ensemble_train=16, ensemble_steps=4, ensemble_test=4,
        ensemble_rapidities=[1],
    )  # fmt: skip
    command.main(arguments, quick, experiment)
