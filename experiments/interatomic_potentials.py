"""What vectors are worth to a potential of ethanol: `python -m experiments.interatomic_potentials`.

Networks of about equally many parameters learn energies and forces of a few configurations of a molecule.
They differ in what an atom can hear of the others: distances alone (`scalars`), directions too, with
features that turn along (`vectors`, and `matrices` in addition), or directions as bare numbers, without the
symmetry (`raw`), and the same with each configuration turned and mirrored at random in every step
(`augmented`). Measured are the errors of energies and forces on new configurations, as they are and turned,
and for an ensemble of augmented networks also how far its forces are from turning along.

The networks are those of notebooks/interatomic_potentials.md; tests/book/test_tour_interatomic_potentials.py
compares.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments import command
from nteq.datasets import ethanol
from nteq.groups import octahedral
from nteq.metrics import sub_ensembles
from nteq.radial import bessel_basis, envelope, lengths_and_directions

CUTOFF, BASIS, HIDDEN, ELEMENTS = 4.0, 8, 16, (1, 6, 8)  # Å; hydrogen, carbon, oxygen
NEIGHBOURS = 8.0  # about how many messages an atom adds up
ENERGY_WEIGHT = 1 / 9  # of a molecule's squared error, in Å⁻²: the energy's share of one atom, squared
KINDS = {  # channels, ranks of the features before, between and after the layers, whether edges show
    # directions, whether configurations are moved in training, and for how many times the steps
    "raw": (26, (0, 0, 0, 0), True, False, 1),
    "augmented": (26, (0, 0, 0, 0), True, True, 1),
    "augmented, longer": (26, (0, 0, 0, 0), True, True, 4),
    "scalars": (27, (0, 0, 0, 0), False, False, 1),
    "vectors": (16, (0, 1, 1, 0), False, False, 1),
    "matrices": (14, (0, 2, 0), False, False, 1),  # with more of either it takes much longer
}
BATCH = 5


def distances(r: Array, d: Array) -> Array:
    """What the weights of a message may depend on if the symmetry is to be kept."""
    return bessel_basis(r, CUTOFF, BASIS)


def directions(r: Array, d: Array) -> Array:
    """The same with the components of the direction and of its products: no symmetry."""
    products = d[..., :, None] * d[..., None, :]
    return jnp.concatenate([bessel_basis(r, CUTOFF, BASIS), d, products.reshape(*r.shape, 9)], axis=-1)


def messages(h: list[Array], d: Array, top: int) -> list[list[Array]]:
    """All that features can send along directions d (N, N, 3): lists of messages of ranks 0, …, top."""
    along = lambda T: d.reshape(*d.shape[:2], *(T.ndim - 3) * [1], 3)
    sent = [[] for _ in range(max(top + 1, len(h)))]
    for T in h:
        T = jnp.broadcast_to(T, (len(T), *T.shape))
        for rank in reversed(range(T.ndim - 2)):
            sent[rank].append(T)
            if rank:
                T = (T * along(T)).sum(-1)
    out = sent[:1]
    for rank in range(1, top + 1):
        out.append([along(T[..., None]) * T[..., None] for T in out[-1]] + sent[rank])
    return out


def traceless(T: Array) -> Array:
    """The symmetric part of matrices, without their trace."""
    T = (T + T.swapaxes(-1, -2)) / 2
    return T - jnp.trace(T, axis1=-2, axis2=-1)[..., None, None] * jnp.eye(3, dtype=T.dtype) / 3


def silu(a: Array) -> Array:
    """A smooth ReLU, scaled to keep the variance of Gaussians near one."""
    return 1.7 * jax.nn.silu(a)


def mlp(weights: list[Array], a: Array) -> Array:
    """A small network on numbers, without biases."""
    for W in weights[:-1]:
        a = silu(a @ W)
    return a @ weights[-1]


def gated(new: list[Array]) -> list[Array]:
    """Scalars through a nonlinearity, all else times numbers between 0 and 1."""
    scalars, *gates = jnp.split(new[0], len(new), axis=1)
    out = [silu(scalars)]
    for T, gate in zip(new[1:], gates, strict=True):
        out.append(T * jax.nn.sigmoid(gate).reshape(*gate.shape, *(T.ndim - 2) * [1]))
    return out


def layer(params: dict, h: list[Array], kind: np.ndarray, d: Array, seen: Array, near: Array) -> list[Array]:
    """The features of all atoms after one more round of messages."""
    sent = messages(h, d, top=len(params["mix"]) - 1)
    weights = mlp(params["radial"], seen) * near[..., None]
    weights = iter(jnp.split(weights, sum(map(len, sent)), axis=-1))
    new = []
    for rank, (ways, mix) in enumerate(zip(sent, params["mix"], strict=True)):
        heard = [jnp.einsum("ijc,ijc...->ic...", next(weights), T) for T in ways]
        y = jnp.einsum("ic...,cd->id...", jnp.concatenate(heard, axis=1), mix)
        y = traceless(y) if rank == 2 else y
        if rank < len(h):
            y = y + jnp.einsum("ic...,icd->id...", h[rank], params["own"][rank][kind])
        new.append(y)
    return gated(new)


def energy(params: dict, x: Array, kind: np.ndarray, edges=distances) -> Array:
    """The energy of one molecule with atoms of these kinds at the places x (N, 3)."""
    r, d = lengths_and_directions(x[None] - x[:, None])
    near = envelope(r, CUTOFF) * (r > 0) / NEIGHBOURS**0.5
    h = [params["embed"][kind]]
    for one in params["layers"]:
        h = layer(one, h, kind, d, edges(r, d), near)
    return (mlp(params["out"], h[0])[:, 0] + params["shift"][kind]).sum()


def energies_and_forces(params: dict, x: Array, kind: np.ndarray, edges=distances) -> tuple[Array, Array]:
    """Of molecules x (n, N, 3): energies (n,) and forces (n, N, 3)."""
    one = jax.value_and_grad(lambda x: energy(params, x, kind, edges))
    E, slope = jax.vmap(one)(x)
    return E, -slope


def init(key: Array, F: int, ranks: tuple[int, ...], inputs: int) -> dict:
    """Parameters of a network with F channels; each is Gaussian, with a variance that keeps sizes."""
    keys = iter(jax.random.split(key, 100))
    draw = lambda *shape: jax.random.normal(next(keys), shape) / shape[-2] ** 0.5
    layers = []
    for before, top in itertools.pairwise(ranks):
        ways = [sum(min(rank, one) + 1 for one in range(before + 1)) for rank in range(top + 1)]
        widths = [F * (top + 1)] + top * [F]  # a gate for each rank
        layers.append(
            {
                "radial": [draw(inputs, HIDDEN), draw(HIDDEN, F * sum(ways))],
                "mix": [draw(F * n, width) for n, width in zip(ways, widths, strict=True)],
                "own": [draw(len(ELEMENTS), F, width) for width in widths[: min(before, top) + 1]],
            }
        )
    embed = draw(len(ELEMENTS), F) * len(ELEMENTS) ** 0.5
    return {
        "embed": embed,
        "layers": layers,
        "out": [draw(F, F), draw(F, 1)],
        "shift": jnp.zeros(len(ELEMENTS)),
    }


def rotations_and_mirrors(key: Array, n: int) -> Array:
    """Uniform orthogonal matrices (n, 3, 3): rotations by unit quaternions, half of them inverted."""
    q = jax.random.normal(key, (n, 4))
    w, *v = (q / jnp.linalg.norm(q, axis=1, keepdims=True)).T
    v = jnp.stack(v, axis=1)
    cross = jnp.cross(jnp.eye(3), v[:, None, :])  # row a is e_a × v
    square = 2 * (w**2 - 0.5)[:, None, None] * jnp.eye(3)
    R = square + 2 * v[:, :, None] * v[:, None, :] + 2 * w[:, None, None] * cross
    return R * jax.random.rademacher(jax.random.fold_in(key, 1), (n, 1, 1), R.dtype)


def move(Q: Array, x: Array) -> Array:
    """Vectors x (n, atoms, 3), each molecule's moved by its matrix."""
    return jnp.einsum("nab,nib->nia", Q, x)


def network(kind: str):
    """Two functions: of a key, parameters; of parameters, molecules and elements, energies and forces."""
    F, ranks, sighted, *_ = KINDS[kind]
    edges, inputs = (directions, BASIS + 12) if sighted else (distances, BASIS)
    return (
        lambda key: init(key, F, ranks, inputs),
        lambda params, x, kind: energies_and_forces(params, x, kind, edges),
    )


def trainer(kind: str, atoms: np.ndarray, steps: int, learning_rate: float):
    """The function of a key and data that gives trained parameters.

    The data are the first n in an order of configurations, energies and forces; n may be traced.
    """
    start, both = network(kind)
    *_, moved, longer = KINDS[kind]
    steps *= longer
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def loss(params, x, E, F):
        guess, pull = both(params, x, atoms)
        return ENERGY_WEIGHT * ((guess - E) ** 2).mean() + ((pull - F) ** 2).mean()

    def run(key, order, n, *data):
        order, x, E, F = map(jnp.asarray, (order, *data))

        def step(state, key):
            params, moments = state
            rows = order[jax.random.randint(key, (BATCH,), 0, n)]
            batch = x[rows], E[rows], F[rows]
            if moved:
                Q = rotations_and_mirrors(jax.random.fold_in(key, 1), BATCH)
                batch = move(Q, batch[0]), batch[1], move(Q, batch[2])
            update, moments = optimizer.update(jax.grad(loss)(params, *batch), moments)
            return (optax.apply_updates(params, update), moments), None

        params = start(jax.random.fold_in(key, 2))
        keys = jax.random.split(key, steps)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    return run


def floor(away: np.ndarray) -> tuple[float, float]:
    """How far the mean of infinitely many members is from zero, squared, without bias, and its error.

    The mean product of two different members' deviations (members, ...), and the jackknife over members.
    """
    M = len(away)
    products = away.reshape(M, -1) @ away.reshape(M, -1).T / away[0].size
    without = products.sum() - 2 * products.sum(0) + np.diag(products)  # and with each left out
    others = np.trace(products) - np.diag(products)
    values = (without - others) / ((M - 1) * (M - 2))
    full = (products.sum() - np.trace(products)) / (M * (M - 1))
    return full, ((M - 1) / M * ((values - values.mean()) ** 2).sum()) ** 0.5


def ensemble(options, atoms, order, data, test):
    """Members that differ in start and draws, trained on one set: errors and spread over moves."""
    x_test, F_test = test
    _, both = network("augmented")
    forces = jax.jit(jax.vmap(lambda params, x: both(params, x, atoms)[1], (0, None)))
    keys = jax.random.split(jax.random.key(options.seed + 1), options.members)
    run_one = trainer("augmented", atoms, options.steps, options.learning_rate)
    run = jax.jit(jax.vmap(lambda key: run_one(key, order, options.ensemble_train, *data)))
    params = run(keys)
    R = octahedral().matrices
    Q = {
        "cube": np.concatenate([R, -R]),  # the 48 symmetries of a cube
        "random": np.asarray(rotations_and_mirrors(jax.random.key(options.seed + 2), 48)),
    }
    sizes = command.sizes(options.members)
    few = x_test[: options.asked]
    print(f"{options.members} augmented networks on {options.ensemble_train}", flush=True)
    found = {"ensemble_sizes": sizes}
    answers = np.asarray(forces(params, x_test), float)
    error = lambda a: jnp.abs(a - F_test).mean()[None]
    found["ensemble_error"], found["ensemble_error_error"] = sub_ensembles(error, answers[:, None], sizes)
    for name, matrices in Q.items():
        turned_back = np.stack(
            [np.asarray(forces(params, few @ q.T.astype(np.float32)), float) @ q for q in matrices], axis=1
        )
        away = turned_back - turned_back.mean(1, keepdims=True)
        spread = lambda a: jnp.sqrt((a**2).mean())[None]
        found[f"spread_{name}"], found[f"spread_{name}_error"] = sub_ensembles(spread, away, sizes)
        found[f"floor_{name}"] = np.array(floor(away))
    # one molecule turned once around the third axis, and the force on its oxygen, turned back
    angles = np.linspace(0, 2 * np.pi, 49)
    c, s, zero = np.cos(angles), np.sin(angles), 0 * angles
    Q = np.stack([c, -s, zero, s, c, zero, zero, zero, zero + 1], -1).reshape(-1, 3, 3)
    around = np.asarray(forces(params, np.float32(x_test[0] @ Q.swapaxes(1, 2))), float)
    found["circle"] = np.einsum("gba,mgb->mga", Q, around[:, :, 2]).astype(np.float32)
    return found


def experiment(options, folder):
    """All networks on all training sets, the same sets for all, and then the ensemble."""
    with jax.enable_x64(True):  # energies of −309.6 eV that differ by tenths
        elements, x, E, F = (np.asarray(a) for a in ethanol())
    atoms = np.searchsorted(ELEMENTS, elements)
    pool = len(x) - options.test
    if max(*options.train, options.ensemble_train) > pool:
        raise ValueError(f"--train must be at most {pool}, what {options.test} test frames leave.")
    x, E, F = (a.astype(np.float32) for a in (x, E - E[:pool].mean(), F))
    x_test, E_test, F_test = x[pool:], E[pool:], F[pool:]
    Q = rotations_and_mirrors(jax.random.key(options.seed), options.test)
    names = "force_error", "turned_error", "energy_error"
    orders = [np.random.default_rng([options.seed, d]).permutation(pool) for d in range(options.draws)]
    keys = jax.random.split(jax.random.key(options.seed), options.draws)
    folder.mkdir(parents=True, exist_ok=True)

    def once(name, compute):
        """What is computed, from the folder if an interrupted run has left it there."""
        path = folder / f"{name}.npz"
        if not path.exists():
            arrays = compute()
            with open(path.with_suffix(".part"), "wb") as file:
                np.savez(file, **arrays)
            path.with_suffix(".part").replace(path)
        return dict(np.load(path))

    data, test = (x[:pool], E[:pool], F[:pool]), (x_test, F_test)

    def learned(kind):
        """The errors of a kind of network for each size, compiled once."""
        _, both = network(kind)
        answer = jax.jit(jax.vmap(lambda params, x: both(params, x, atoms), (0, None)))
        run = trainer(kind, atoms, options.steps, options.learning_rate)
        run = jax.jit(jax.vmap(run, (0, 0, None, None, None, None)))
        found = {}
        for n in options.train:
            print(f"{kind}: {options.draws} training sets of {n}", flush=True)
            params = run(keys, np.stack(orders), n, *data)
            (guess, pull), turned = answer(params, x_test), answer(params, move(Q, x_test))[1]
            errors = (pull - F_test, turned - move(Q, F_test), guess - E_test)
            for name, error in zip(names, errors, strict=True):
                found.setdefault(name, []).append(np.abs(error).mean(tuple(range(1, error.ndim))))
        first = jax.tree.map(lambda a: a[0], params)  # of the largest training set
        return found | {"first": jax.flatten_util.ravel_pytree(first)[0]}

    several = partial(ensemble, options, atoms, orders[0], data, test)
    tasks = {kind: partial(learned, kind) for kind in options.kinds} | {"ensemble": several}
    free = SimpleQueue()
    for device in jax.devices():
        free.put(device)

    def worker(name):
        """A task, on a device that is free."""
        device = free.get()
        with jax.default_device(device):
            arrays = once(name, tasks[name])
        free.put(device)
        return name, arrays

    with ThreadPoolExecutor(jax.device_count()) as pool_of_threads:
        done = dict(pool_of_threads.map(worker, reversed(tasks)))
    # (kinds, sizes, training sets)
    found = {name: np.array([done[kind][name] for kind in options.kinds]) for name in names}
    if "vectors" in options.kinds:
        found["vectors"] = done["vectors"]["first"]
    found |= done["ensemble"]
    start = {kind: jax.eval_shape(network(kind)[0], jax.random.key(0)) for kind in options.kinds}
    return {
        "kinds": options.kinds,
        "parameters": [sum(a.size for a in jax.tree.leaves(start[kind])) for kind in options.kinds],
        "train": options.train,
        "rows": np.stack([order[: max(options.train)] for order in orders]),
        # in eV and eV/Å, mean absolute errors: (kinds, sizes, training sets); the ensemble's by its size,
        # with standard errors; the floors, squared, with theirs
        **found,
    }


if __name__ == "__main__":
    arguments = command.parser(
        "interatomic_potentials",
        "Errors of potentials of ethanol with and without vectors, against the number of configurations.",
        members=32,
        kinds=list(KINDS),
        train=[50, 200, 600],
        draws=5,
        steps=2000,
        test=200,
        ensemble_train=50,
        asked=40,
    )
    add = arguments.add_argument
    add("--kinds", choices=KINDS, nargs="+", help="the networks")
    add("--train", type=command.at_least(1), nargs="+", help="training configurations")
    add("--draws", type=command.at_least(1), help="training sets of each size")
    add("--steps", type=command.at_least(1), help="training steps")
    add("--test", type=command.at_least(1), help="test configurations, the last of the trajectory")
    add("--ensemble-train", type=command.at_least(1), help="training configurations of the ensemble")
    add("--asked", type=command.at_least(1), help="test configurations that are moved in 96 ways")
    add("--learning-rate", type=float, default=1e-2, help="of Adam at the first step; it falls to zero")
    quick = dict(members=3, train=[8], draws=1, steps=5, test=6, ensemble_train=8, asked=2)
    command.main(arguments, quick, experiment)
