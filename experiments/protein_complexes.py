"""What vectors are worth between proteins: `python -m experiments.protein_complexes`.

Networks with about equally many parameters look at poses of two protein chains and answer two questions at
once: is the pose native-like, a number that no rotation changes, and by which move does the ligand come home,
a vector that turns with the pose. `vectors` carries numbers and vectors from atoms to residues to the
answers; `scalars` carries numbers only, and makes vectors in its last layer; `raw` is told the components of
all directions and has no symmetry; `augmented` is the same with each pose turned at random in every step.
Measured are the area under the ROC curve of the score and the error of the move, on new poses of the
complexes of training, as they are given and turned at random, and on complexes that were not seen. And for
means of 1, 2, ... networks, how far the move is from turning with the pose under the 24 rotations of a cube.
"""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.metrics import roc_auc_score

from experiments import command
from nteq.datasets import complexes
from nteq.groups import octahedral
from nteq.metrics import equivariance_error
from nteq.radial import bessel_basis, envelope, lengths_and_directions

# widths, and how many products make the messages of the three layers
KINDS = {
    "vectors": (10, (2, 6, 6)),
    "scalars": (18, (1, 1, 2)),
    "raw": (22, (1, 1, 1)),
    "augmented": (22, (1, 1, 1)),
}
CUTOFFS = 6.0, 8.0, 20.0  # Å, atoms to atoms, atoms to residues, residues to residues
NEAR = 6, 10  # neighbours of an atom and of a residue in each chain
RESIDUES = 24
BASIS, HIDDEN = 6, 20
UNSEEN = "1A28 A:B", "6FLR A:B", "7PBL D:G"  # complexes that no network is trained on


def prepared():
    """Poses with their neighbours, which no rotation changes, as arrays of one row for each pose."""
    data = complexes()
    x, n = data["positions"], data["positions"].shape[1]
    apart = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    apart[:, np.arange(n), np.arange(n)] = np.inf
    near = [np.argsort(half, -1)[..., : NEAR[1]] for half in np.split(apart, 2, -1)]
    near[1] += n // 2
    residue = np.argsort(~data["alpha"], 1, kind="stable")[:, :RESIDUES]
    return {
        "x": x.astype(float),
        "element": data["elements"].astype(int),
        "near": np.concatenate([half[..., : NEAR[0]] for half in near], -1),
        "residue": residue,
        "real": np.take_along_axis(data["alpha"], residue, 1).astype(float),
        "atoms": np.take_along_axis(np.concatenate(near, -1), residue[..., None], 1),
    }, data


def dense(key, *sizes):
    """Gaussian weights of a small network."""
    keys = jax.random.split(key, len(sizes))
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=False)
    return [jax.random.normal(k, (a, b)) / a**0.5 for k, a, b in pairs]


def mlp(weights, h):
    """A small network of numbers."""
    for w in weights[:-1]:
        h = 1.7 * jax.nn.silu(h @ w)
    return h @ weights[-1]


def messages(phi, d, s, v):
    """What neighbours say: products of their features with directions."""
    say = lambda i, a: phi[:, :, i, :, None] * a
    number = phi[:, :, 0] * s
    if phi.shape[2] == 1:
        return number, None
    d = d[:, :, None]
    vector = say(1, s[..., None]) * d
    if phi.shape[2] == 6:
        along = (d * v).sum(-1)
        number = number + phi[:, :, 2] * along
        vector = vector + say(3, along[..., None]) * d
        vector = vector + say(4, v) + say(5, jnp.cross(d, v))
    return number, vector


def convolve(p, own, s, v, r, other, seen, cutoff, raw=False):
    """New features of places from their neighbours'."""
    length, d = lengths_and_directions(r)
    known = [bessel_basis(length, cutoff, BASIS), other[..., None]]
    phi = mlp(p["radial"], jnp.concatenate(known + [d] * raw, -1))
    phi = phi * (envelope(length, cutoff) * seen)[..., None]
    phi = phi.reshape(*phi.shape[:2], -1, s.shape[-1])
    number, vector = (m if m is None else m.sum(1) / 3 for m in messages(phi, d, s, v))
    new = own[0] @ p["own"] + number @ p["number"] + p["bias"]
    width = s.shape[-1]
    s = 1.7 * jax.nn.silu(new[:, :width])
    if vector is None:
        return s, None
    vector = jnp.einsum("ncx,cd->ndx", vector, p["vector"])
    if own[1] is not None:
        vector = vector + jnp.einsum("ncx,cd->ndx", own[1], p["turned"])
    return s, vector * jax.nn.sigmoid(new[:, width:])[..., None]


def layer(key, width, products, before, raw=False):
    """Parameters of a convolution; before: whether vectors come in."""
    k = jax.random.split(key, 5)
    columns = width * (1 + (products > 1))
    square = lambda key, columns: jax.random.normal(key, (width, columns)) / width**0.5
    p = {
        "radial": dense(k[0], BASIS + 1 + 3 * raw, HIDDEN, products * width),
        "own": square(k[1], columns),
        "number": square(k[2], columns),
        "bias": jnp.zeros(columns),
    }
    if products > 1:
        p["vector"] = square(k[3], width)
    if before:
        p["turned"] = square(k[4], width)
    return p


def init(key, kind="vectors"):
    """All parameters of a network."""
    width, products = KINDS[kind]
    k, raw = jax.random.split(key, 7), kind in ("raw", "augmented")
    three = zip(k, products, (0, *products), strict=False)
    return {
        "element": jax.random.normal(k[3], (4, width)),
        "layers": [layer(k, width, n, n == 6 and before > 1, raw) for k, n, before in three],
        "score": dense(k[4], width * (1 if raw else 2), HIDDEN, 1),
        "move": jax.random.normal(k[5], (width, 3 if raw else 1)) / width**0.5,
    }


def network(params, pose, raw=False):
    """A pose's score and the ligand's move: atoms, residues, answers."""
    x, near, residue = pose["x"], pose["near"], pose["residue"]
    chain = jnp.arange(len(x)) >= len(x) // 2
    other = lambda i, j: (chain[i][:, None] != chain[j]).astype(x.dtype)
    take = lambda a, j: None if a is None else a[j]
    layers, every = params["layers"], jnp.arange(len(x))
    # atoms to atoms
    s = params["element"][pose["element"]]
    s, v = convolve(
        layers[0], (s, None), s[near], None, x[near] - x[:, None],
        other(every, near), 1.0, CUTOFFS[0], raw,
    )  # fmt: skip
    # atoms to residues
    atoms, at, c = pose["atoms"], x[residue], chain[residue]
    s, v = convolve(
        layers[1], (s[residue], take(v, residue)), s[atoms], take(v, atoms), x[atoms] - at[:, None],
        other(residue, atoms), 1.0, CUTOFFS[1], raw,
    )  # fmt: skip
    # residues to residues
    real, n = pose["real"], len(residue)
    all_of = lambda a: None if a is None else jnp.broadcast_to(a, (n, *a.shape))
    s, v = convolve(
        layers[2], (s, v), all_of(s), all_of(v), at - at[:, None],
        other(residue, all_of(residue)), real * (1 - jnp.eye(n, dtype=x.dtype)), CUTOFFS[2], raw,
    )  # fmt: skip
    return answers(params, s, v, real, c)


def answers(params, s, v, real, ligand):
    """The score from numbers and lengths, the move from vectors."""
    mean = lambda a: jnp.einsum("n,n...->...", real, a) / jnp.maximum(real.sum(), 1)
    sign = jnp.where(ligand, 1.0, -1.0)  # the chains pull in opposite directions
    if v is None:
        return mlp(params["score"], mean(s))[0], mean(sign[:, None] * (s @ params["move"]))
    lengths = lengths_and_directions(v)[0]
    score = mlp(params["score"], mean(jnp.concatenate([s, lengths], -1)))[0]
    return score, mean(sign[:, None] * jnp.einsum("ncx,c->nx", v, params["move"][:, 0]))


def rotations(key, n):
    """Uniform rotations, from uniform unit quaternions, shape (n, 3, 3)."""
    q = jax.random.normal(key, (n, 4))
    a, b, c, d = (q / jnp.linalg.norm(q, axis=-1, keepdims=True)).T
    rows = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
    ]
    return jnp.moveaxis(jnp.array(rows), -1, 0)


def turned(R, poses, moves):
    """Each pose and its move, turned by its own rotation."""
    return {**poses, "x": jnp.einsum("nxy,nky->nkx", R, poses["x"])}, jnp.einsum("nxy,ny->nx", R, moves)


def spread(answer, params, poses):
    """For means of 1, 2, ... networks, the equivariance error of the move, the mean over sets of networks."""
    R = octahedral().matrices
    moves = np.stack(
        [answer(params, {**poses, "x": poses["x"] @ jnp.asarray(r.T, jnp.float32)})[1] for r in R]
    )
    members = range(moves.shape[1])
    error = lambda chosen: equivariance_error(moves[:, list(chosen)].mean(1), R)
    # the root mean square over poses and sets
    return [
        np.mean([error(chosen) ** 2 for chosen in combinations(members, size + 1)]) ** 0.5 for size in members
    ]


def parameters(kind):
    """How many numbers a network learns."""
    return sum(a.size for a in jax.tree.leaves(jax.eval_shape(lambda k: init(k, kind), jax.random.key(0))))


def fit(kind, scale, steps, batch, rate):
    """A compiled training of several networks, each on rows of its own."""
    raw = kind in ("raw", "augmented")
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    both = jax.vmap(lambda p, pose: network(p, pose, raw), (None, 0))

    def loss(params, poses, native, moves):
        score, move = both(params, poses)
        right = optax.sigmoid_binary_cross_entropy(score, native).mean()
        return right + ((move - moves / scale) ** 2).sum(-1).mean()

    def one(key, rows, n, poses, native, moves):
        def step(carry, key):
            params, state = carry
            k1, k2 = jax.random.split(key)
            chosen = rows[jax.random.randint(k1, (batch,), 0, n)]
            some, target = jax.tree.map(lambda a: a[chosen], poses), moves[chosen]
            if kind == "augmented":
                some, target = turned(rotations(k2, batch), some, target)
            value, gradient = jax.value_and_grad(loss)(params, some, native[chosen], target)
            update, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, update), state), value

        params = init(key, kind)
        (params, _), values = jax.lax.scan(
            step, (params, optimizer.init(params)), jax.random.split(jax.random.fold_in(key, 1), steps)
        )
        return params, values

    return jax.jit(jax.vmap(one, (0, 0, None, None, None, None))), jax.jit(jax.vmap(both, (0, None)))


def experiment(options, folder):
    """Trains all kinds on all sizes; the training sets of a draw are the same for all kinds, and nested."""
    poses, data = prepared()
    native, moves = np.asarray(data["native"]), np.asarray(data["move"])
    single = lambda a: jnp.asarray(a, jnp.float32) if a.dtype == float else jnp.asarray(a)
    poses = {name: single(a) for name, a in poses.items()}
    rng = np.random.default_rng(options.seed)
    unseen = np.isin(np.asarray(data["names"])[data["complex"]], UNSEEN)
    rest, unseen = rng.permutation(np.flatnonzero(~unseen)), rng.permutation(np.flatnonzero(unseen))
    test, unseen, rest = rest[: options.test], unseen[: options.test], rest[options.test :]
    if max(options.train) > len(rest):
        raise ValueError(f"--train must be at most {len(rest)}, got {max(options.train)}")
    rows = np.stack([rng.permutation(rest)[: max(options.train)] for _ in range(options.members)])
    scale = float(np.sqrt((moves[rest] ** 2).sum(-1).mean()))
    Rs = rotations(jax.random.key(options.seed + 1), len(moves))
    at_random, moves_at_random = turned(Rs, poses, single(moves))
    asked = [(poses, moves, test), (at_random, moves_at_random, test), (at_random, moves_at_random, unseen)]
    shape = len(KINDS), len(options.train), options.members, len(asked)
    found = {name: np.zeros(shape) for name in ("auc", "error")}
    found["spread"] = np.zeros(shape[:3])
    keys = jax.random.split(jax.random.key(options.seed), options.members)
    folder.mkdir(parents=True, exist_ok=True)
    for i, kind in enumerate(KINDS):
        train, answer = fit(kind, scale, options.steps, options.batch, options.learning_rate)
        for j, n in enumerate(options.train):
            part = folder / f"{kind}-{n}.npz"
            if not part.exists():
                params, losses = train(
                    keys, jnp.asarray(rows), n, poses, jnp.asarray(native, jnp.float32), single(moves)
                )
                result = {"auc": [], "error": []}
                for where, target, chosen in asked:
                    score, move = answer(params, {k: a[chosen] for k, a in where.items()})
                    apart = scale * np.asarray(move) - np.asarray(target)[chosen]
                    result["auc"].append(
                        [roc_auc_score(native[chosen], of_one) for of_one in np.asarray(score)]
                    )
                    size = (np.asarray(target)[chosen] ** 2).sum(-1).mean()
                    result["error"].append(np.sqrt((apart**2).sum(-1).mean(-1) / size))
                result = {k: np.stack(v, -1) for k, v in result.items()}
                result["spread"] = spread(answer, params, {k: a[test[:20]] for k, a in poses.items()})
                with open(part.with_suffix(".part"), "wb") as file:
                    np.savez(file, **result)
                part.with_suffix(".part").replace(part)
                print(f"{kind}, {n} poses: loss {float(losses[:, -20:].mean()):.2f}", flush=True)
            with np.load(part) as stored:
                for name, values in found.items():
                    values[i, j] = stored[name]
            print(*(f"{name} {values[i, j].mean(0).round(3)}" for name, values in found.items()), flush=True)
    return {
        "kinds": list(KINDS),
        "parameters": [parameters(kind) for kind in KINDS],
        "train": options.train,
        "asked": ["as given", "turned", "unseen, turned"],
        # (kinds, sizes, networks, asked): the area under the ROC curve, and the root mean square error of
        # the move in units of that of predicting no move; "spread" (kinds, sizes, how many networks) is the
        # equivariance error of the mean move of so many
        **found,
        "test": test,
        "unseen": unseen,
        "scale": scale,  # Å, the root mean square move
    }


if __name__ == "__main__":
    arguments = command.parser(
        "protein_complexes",
        "Score and move of protein poses, with and without symmetry, against the number of poses.",
        members=5,
        train=[100, 1000],
        steps=300,
        batch=16,
        test=200,
    )
    add = arguments.add_argument
    add("--train", type=command.at_least(1), nargs="+", help="training poses")
    add("--steps", type=command.at_least(1), help="training steps")
    add("--batch", type=command.at_least(1), help="poses in a step")
    add("--test", type=command.at_least(1), help="test poses, and as many of unseen complexes")
    add("--learning-rate", type=float, default=5e-3, help="of Adam at the first step; it falls to zero")
    quick = dict(members=2, train=[20], steps=5, batch=4, test=20)
    command.main(arguments, quick, experiment)
