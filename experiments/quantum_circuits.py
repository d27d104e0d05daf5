"""Where is the free spin of a dimerised chain? `python -m experiments.quantum_circuits`.

The ground states of a chain of seven spins with alternating couplings have one spin that finds no partner, at
the right end for δ > 0 and at the left end for δ < 0. Quantum circuits learn from a few of them which it is.
Measured is, for circuits with and without the symmetry of the question, the share of test states, turned into
every direction, that they put into the right class, against the number of training states. A second part
trains ensembles of general circuits by gradient descent on states in one, two or six directions, and measures
how far the mean of M of them depends on the direction.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments import command
from nteq.metrics import sub_ensembles, symmetry_test

SPINS = 7
PAULI = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
EXCHANGE = np.array([np.kron(P, P) for P in PAULI]).real  # XX, YY, ZZ
# their common eigenvectors, which are real, and the eigenvalues, shape (4, 3)
BELL = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]]) / 2**0.5
SIGNS = np.einsum("ka,pab,kb->kp", BELL, EXCHANGE, BELL)
SINGLET = np.outer(BELL[3], BELL[3])  # the projection, the same for every choice of axes
LARGEST = 0.9  # of |δ|


def ground_states(deltas) -> np.ndarray:
    """The lowest states with one spin more up than down, shape (len(deltas), 128), for each δ."""
    bonds = [
        np.kron(np.kron(np.eye(2**i), EXCHANGE.sum(0)), np.eye(2 ** (SPINS - i - 2)))
        for i in range(SPINS - 1)
    ]
    downs = np.array([bin(i).count("1") for i in range(2**SPINS)])
    sector = np.flatnonzero(downs == SPINS // 2)
    states = np.zeros((len(deltas), 2**SPINS))
    for state, delta in zip(states, deltas, strict=True):
        H = sum((1 + delta * (-1) ** i) * bond for i, bond in enumerate(bonds)) / 4
        state[sector] = np.linalg.eigh(H[np.ix_(sector, sector)])[1][:, 0]
    return states


def rotation(v: Array) -> Array:
    """exp(-i v·σ)."""
    a = jnp.sqrt((v**2).sum() + 1e-30)
    return jnp.cos(a) * jnp.eye(2) - 1j * jnp.sin(a) / a * jnp.tensordot(v, jnp.asarray(PAULI), 1)


def exchange(angles: Array) -> Array:
    """exp(-i (a XX + b YY + c ZZ))."""
    return (BELL.T * jnp.exp(-1j * (SIGNS @ angles))) @ BELL


def general(p: Array) -> Array:
    """Any gate for two spins, up to a phase and what the next gate can undo: nine angles."""
    return jnp.kron(rotation(p[3:6]), rotation(p[6:])) @ exchange(p[:3])


def equivariant(p: Array) -> Array:
    """The gate that is left by twirling: one angle."""
    return exchange(jnp.full(3, p[0]))


def gate(U: Array, states: Array, i: int, spins: int = 2) -> Array:
    """U on the spins from i on, of states (batch, 2, …, 2)."""
    axes = [1 + i + k for k in range(spins)]
    U = jnp.reshape(U, 2 * spins * (2,))
    out = jnp.tensordot(states, U, [axes, list(range(spins, 2 * spins))])
    return jnp.moveaxis(out, list(range(-spins, 0)), axes)


def turn(U: Array, states: Array) -> Array:
    """All spins turned by U, states of shape (batch, 128)."""
    turned = states.reshape(-1, *[2] * SPINS)
    for i in range(SPINS):
        turned = gate(U, turned, i, 1)
    return turned.reshape(states.shape)


def circuit(gates: Array, states: Array, unitary) -> Array:
    """The states after all layers, each a row of angles for either parity of the bond, or for each bond."""
    out = states.reshape(-1, *[2] * SPINS).astype(complex)
    for layer in gates:
        U = [unitary(p) for p in layer]
        for i in [*range(0, SPINS - 1, 2), *range(1, SPINS - 1, 2)]:
            out = gate(U[i % len(U)], out, i)
    return out


def answers(params: dict, states: Array, unitary, observable) -> Array:
    """What the circuit says of each state, shape (batch,)."""
    if "first" in params:  # a rotation of all spins, as a quaternion of any length
        states = turn(as_rotation(params["first"]), states)
    out = circuit(params["gates"], states, unitary)
    seen = gate(observable, out, SPINS // 2 - 1)
    mean = jnp.real(out.conj() * seen).reshape(len(out), -1).sum(1)
    return params["scale"] * mean + params["bias"]


def as_rotation(q: Array) -> Array:
    """The matrix of SU(2) of a quaternion of any length."""
    q = q / jnp.linalg.norm(q)
    return q[0] * jnp.eye(2) - 1j * jnp.tensordot(q[1:], jnp.asarray(PAULI), 1)


Z = np.kron(PAULI[2], np.eye(2)).real
X_X, Z_Y, Z_1 = EXCHANGE[0], np.kron(PAULI[2], PAULI[1]), Z
GENERATOR = X_X + Z_Y + Z_1  # with no symmetry; its twirl is (XX + YY + ZZ) / 3
ENERGIES, MODES = np.linalg.eigh(GENERATOR)


def untwirled(p: Array) -> Array:
    """exp(-i θ A) with a generator A that knows directions: one angle."""
    return (MODES * jnp.exp(-1j * p[0] * ENERGIES)) @ MODES.conj().T


# gates, what is read, layers, rows of a layer, angles of a gate, how training states are turned
KINDS = {
    "equivariant": (equivariant, SINGLET, 3, 2, 1, "never"),
    "equivariant, deep": (equivariant, SINGLET, 9, 6, 1, "never"),
    "untwirled": (untwirled, GENERATOR, 3, 2, 1, "never"),
    "untwirled, turned": (untwirled, GENERATOR, 3, 2, 1, "in each step"),
    "general": (general, Z, 3, 2, 9, "never"),
    "general, turned once": (general, Z, 3, 2, 9, "once"),
    "general, turned": (general, Z, 3, 2, 9, "in each step"),
}
ENSEMBLES = {"six directions": 6, "up and down": 2, "upright only": 1}  # in which they see each state

# rotations that take "up" to the ends of the three axes, up, down, ±x and ±y, as quaternions
SIX = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [1, 0, -1, 0], [1, -1, 0, 0], [1, 1, 0, 0]], float)
DIRECTIONS = np.array([[0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
DOWN = np.array([[0, -1], [1, 0]])  # turns up to down


def parameters(kind: str, key: Array) -> dict:
    """A random start."""
    _, _, layers, rows, angles, _ = KINDS[kind]
    # the first guess is of the right size: reading a projection, from -1 to 1
    bias = -1.0 if kind.startswith("equivariant") else 0.0
    gates = 0.5 * jax.random.normal(key, (layers, rows, angles))
    return {"gates": gates, "scale": jnp.asarray(2.0), "bias": jnp.asarray(bias)}


def doublets(states: Array) -> tuple[Array, Array]:
    """The upright ground states and their partners, which point down."""
    return states, turn(jnp.asarray(DOWN), states)


def pointing(q: Array, up: Array, down: Array) -> Array:
    """Doublets turned by quaternions (batch, 4), with two numbers in the place of seven gates."""
    U = jax.vmap(as_rotation)(q)
    return U[:, 0, 0, None] * up + U[:, 1, 0, None] * down


def in_six_directions(states: Array) -> Array:
    """Upright states turned to the ends of the axes, shape (6 batch, 128), one direction after the other."""
    up, down = doublets(states)
    return jnp.concatenate([pointing(jnp.tile(q, (len(up), 1)), up, down) for q in jnp.asarray(SIX)])


def parts(f: Array) -> tuple[Array, Array]:
    """The numbers a and |b| of answers a + b·n on the six directions n, shape (6, batch)."""
    b = f.T @ DIRECTIONS / 2
    return f.mean(0), jnp.sqrt((b**2).sum(1))


def right(f: Array, labels: Array) -> Array:
    """The share of all directions in which a + b·n has the sign of the label, from six of them.

    b·n is uniform between -|b| and |b| for a direction drawn uniformly.
    """
    a, b = parts(f)
    return jnp.clip((1 + labels * a / jnp.maximum(b, 1e-9)) / 2, 0, 1)


def training_sets(seed: int, draws: int, most: int) -> np.ndarray:
    """Random δ, every other one negative, shape (draws, most); the smaller sets are the first of them."""
    signs = np.tile([1, -1], most)[:most]
    rngs = [np.random.default_rng([seed, draw]) for draw in range(draws)]
    return np.array([signs * rng.uniform(0.01, LARGEST, most) for rng in rngs])


def test_states(number: int) -> tuple[np.ndarray, Array]:
    """Evenly spaced δ, as many of each sign, and their upright ground states."""
    deltas = LARGEST * ((2 * np.arange(number) + 1) / number - 1)
    return deltas, jnp.asarray(ground_states(deltas))


def learn(kind: str, key: Array, up: Array, down: Array, labels: Array, steps: int, rate: float) -> dict:
    """The parameters after training by Adam on all states at once."""
    unitary, observable, *_, turned = KINDS[kind]
    k0, k1, k2 = jax.random.split(key, 3)
    optimizer = optax.adam(rate)
    once = jax.random.normal(k1, (len(up), 4))

    def loss(params, key):
        states = up
        if turned != "never":
            q = once if turned == "once" else jax.random.normal(key, once.shape)
            states = pointing(q, up, down)
        return ((answers(params, states, unitary, observable) - labels) ** 2).mean()

    def step(carry, key):
        slope, state = jax.grad(loss)(carry[0], key), carry[1]
        update, state = optimizer.update(slope, state)
        return (optax.apply_updates(carry[0], update), state), None

    params = parameters(kind, k0)
    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(k2, steps))[0][0]


def descend(key: Array, states: Array, labels: Array, steps: int, rate: float) -> dict:
    """A general circuit behind a rotation of all spins, after gradient descent.

    The rotation starts as a Gaussian quaternion, which knows no direction.
    """
    k0, k1 = jax.random.split(key)
    params = {**parameters("general", k1), "first": jax.random.normal(k0, (4,))}
    loss = lambda p: ((answers(p, states, general, Z) - labels) ** 2).mean()
    step = lambda p, _: (jax.tree.map(lambda a, slope: a - rate * slope, p, jax.grad(loss)(p)), None)
    return jax.lax.scan(step, params, None, steps)[0]


def kept(path, make) -> np.ndarray:
    """What make() returns, from the file if an interrupted run has it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".part"), "wb") as file:
            np.save(file, make())
        path.with_suffix(".part").replace(path)
    return np.load(path)


def singlet_weight(states: Array, bond: int) -> np.ndarray:
    """How much of each state has a pair on the bond, between 0 and 1."""
    paired = gate(SINGLET, states.reshape(-1, *[2] * SPINS), bond)
    return np.asarray((paired.reshape(len(states), -1) * states).sum(1))


def thresholds(deltas: np.ndarray, sizes: list[int], weight: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The baseline: the pair on the circuit's bond alone, above or below half way between the classes."""
    found = np.zeros((len(sizes), len(deltas)))
    for draw, row in enumerate(deltas):
        seen = singlet_weight(jnp.asarray(ground_states(row)), SPINS // 2 - 1)
        for j, n in enumerate(sizes):
            half = (seen[:n][row[:n] > 0].mean() + seen[:n][row[:n] < 0].mean()) / 2
            found[j, draw] = (np.sign(weight - half) == labels).mean()
    return found


def contest(options, folder) -> dict:
    """All kinds of circuits on the same training sets."""
    deltas = training_sets(options.seed, options.draws, max(options.train))
    up = jnp.asarray(ground_states(deltas.ravel()).reshape(*deltas.shape, -1))
    down = jax.vmap(lambda states: doublets(states)[1])(up)
    test, states = test_states(options.test)
    asked, labels = in_six_directions(states), np.sign(test)
    keys = jax.random.split(jax.random.key(options.seed), options.draws)
    shape = len(KINDS), len(options.train), options.draws
    found = {name: np.zeros(shape) for name in ("right", "upright", "spread")}
    numbers = []
    for i, (kind, (unitary, observable, *_)) in enumerate(KINDS.items()):
        numbers.append(sum(a.size for a in jax.tree.leaves(parameters(kind, keys[0]))))
        for j, n in enumerate(options.train):
            print(f"{kind}, {n} states", flush=True)

            def one(key, up, down, labels, kind=kind, unitary=unitary, observable=observable):
                params = learn(kind, key, up, down, labels, options.steps, options.rate)
                return answers(params, asked, unitary, observable).reshape(6, -1)

            def make(n=n, one=one):
                y = jnp.sign(jnp.asarray(deltas[:, :n]))
                return jax.jit(jax.vmap(one))(keys, up[:, :n], down[:, :n], y)

            f = kept(folder / f"{i}-{n}.npy", make)
            a, size = jax.vmap(parts)(f)
            found["right"][i, j] = jax.vmap(right, (0, None))(f, labels).mean(1)
            found["upright"][i, j] = (np.sign(f[:, 0]) == labels).mean(1)
            found["spread"][i, j] = np.sqrt((size**2).mean(1) / 3 / (a**2).mean(1))
    ends = singlet_weight(states, 0) - singlet_weight(states, SPINS - 2)
    weight = singlet_weight(states, SPINS // 2 - 1)
    return {
        "kinds": list(KINDS),
        "parameters": numbers,
        "train": options.train,
        # (kinds, sizes, training sets): the share of right answers over all directions of the test states,
        # and over the upright ones; the deviation over directions, in units of the mean answers' size
        **found,
        # (sizes, training sets): a threshold for the pair on the middle bond; and the sign of the
        # difference of the pairs on the outer bonds, which needs no training
        "threshold": thresholds(deltas, options.train, weight, labels),
        "ends": (np.sign(ends) == labels).mean(),
    }


def ensembles(options, folder) -> dict:
    """Ensembles of general circuits on one training set, by gradient descent."""
    deltas = training_sets(options.seed, 1, 4)[0]
    up = jnp.asarray(ground_states(deltas))
    test, states = test_states(20)
    asked, labels = in_six_directions(states), np.sign(test)
    sizes = command.sizes(options.members)
    found = {name: [] for name in ("mean_spread", "mean_spread_error", "mean_right", "p")}
    keys = jax.random.split(jax.random.key(options.seed + 1), options.members)
    for name, directions in ENSEMBLES.items():
        print(f"{options.members} circuits, {name}", flush=True)
        given = in_six_directions(up)[: directions * len(up)]
        y = jnp.tile(jnp.sign(jnp.asarray(deltas)), directions)

        def one(key, given=given, y=y):
            params = descend(key, given, y, options.descent, options.descent_rate)
            return answers(params, asked, general, Z).reshape(6, -1)

        def make(one=one):
            return jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=32))(keys)

        f = kept(folder / f"{name.replace(' ', '-')}.npy", make)
        spread, error = sub_ensembles(lambda f: f.std(0), f, sizes)
        found["mean_spread"].append(spread)
        found["mean_spread_error"].append(error)
        found["mean_right"].append(sub_ensembles(lambda f: right(f, labels), f, sizes)[0])
        found["p"].append(symmetry_test(f).p)
    return {
        "members": sizes,
        "ensembles": list(ENSEMBLES),
        # (ensembles, members): the standard deviation over directions of the mean of so many circuits,
        # averaged over test states; the share of right answers; and (ensembles,) the p-value of an
        # invariant mean
        **found,
    }


def experiment(options, folder):
    """Both parts."""
    jax.config.update("jax_enable_x64", True)
    return contest(options, folder) | ensembles(options, folder)


if __name__ == "__main__":
    arguments = command.parser(
        "quantum_circuits",
        "Right answers of quantum circuits with and without the symmetry, against the number of states.",
        members=256,
        train=[4, 8, 16],
        draws=20,
        steps=200,
        test=100,
        descent=150,
    )
    add = arguments.add_argument
    add("--train", type=command.at_least(2), nargs="+", help="training states, half of them with δ > 0")
    add("--draws", type=command.at_least(1), help="training sets of each size, and starts")
    add("--steps", type=command.at_least(1), help="steps of Adam")
    add("--test", type=command.at_least(2), help="test states")
    add("--rate", type=float, default=5e-2, help="learning rate of Adam")
    add("--descent", type=command.at_least(1), help="steps of gradient descent in the ensembles")
    add("--descent-rate", type=float, default=0.2, help="their learning rate")
    quick = dict(members=8, train=[4], draws=2, steps=5, test=6, descent=3)
    command.main(arguments, quick, experiment)
