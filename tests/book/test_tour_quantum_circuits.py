"""The circuits of the chapter on quantum circuits, tried more widely than the chapter can."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import expm

from experiments import quantum_circuits as measured
from nteq.metrics import equivariance_defect

jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="module")
def chapter(definitions):
    constants = "n", "sigma", "products", "XX", "YY", "ZZ", "bell", "signs", "singlet", "reads_Z"
    groups = "signs_of", "half_turns", "tetrahedron", "edges", "cube", "six", "ends"
    return definitions("quantum_circuits", *constants, *groups, "two_of_three", "start")


def random_states(seed, batch, spins=7, dtype=complex):
    re, im = np.random.default_rng(seed).normal(size=(2, batch, *spins * (2,)))
    states = (re + 1j * im).reshape(batch, -1)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    return jnp.asarray(states.reshape(re.shape), dtype)


def params(seed, angles, layers=3, rows=2):
    gates = jax.random.normal(jax.random.key(seed), (layers, rows, angles))
    return {"gates": gates, "scale": jnp.asarray(1.7), "bias": jnp.asarray(-0.4)}


def turns(chapter, number=6):
    """Random turns, and some that are special: none, by 360°, half a turn."""
    q = jax.random.normal(jax.random.key(9), (number, 4))
    special = jnp.array([[1.0, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0]])
    return [chapter.su2(each) for each in [*q, *special]]


def written_out(U, i, spins):
    """A gate as a matrix of size 2ⁿ, from Kronecker products."""
    k = int(np.log2(len(U)))
    return np.kron(np.kron(np.eye(2**i), U), np.eye(2 ** (spins - i - k)))


def random_unitary(seed, k):
    re, im = np.random.default_rng(seed).normal(size=(2, 2**k, 2**k))
    return np.linalg.qr(re + 1j * im)[0]


def test_a_gate_is_its_kronecker_product(chapter):
    for spins, k in [(1, 1), (2, 2), (4, 1), (4, 2), (5, 3)]:
        states, U = random_states(spins, 3, spins), random_unitary(k, k)
        for i in range(spins - k + 1):
            expected = states.reshape(3, -1) @ written_out(U, i, spins).T
            assert np.allclose(chapter.gate(U, states, i).reshape(3, -1), expected, atol=1e-12)
            O = U + U.conj().T
            mean = np.einsum("na,ab,nb->n", states.reshape(3, -1).conj(), written_out(O, i, spins),
                             states.reshape(3, -1))  # fmt: skip
            assert np.allclose(chapter.expectation(O, states, i), mean, atol=1e-12)


def test_gates_are_exponentials_of_their_generators(chapter):
    a, b, c = angles = jnp.array([0.3, -1.1, 2.0])
    A = a * chapter.XX + b * chapter.YY + c * chapter.ZZ
    assert np.allclose(chapter.exchange(angles), expm(-1j * A), atol=1e-12)
    swap = np.eye(4)[[0, 2, 1, 3]]
    # up to a phase, the gate of Nguyen et al.
    expected = np.exp(0.7j) * expm(-1.4j * swap)
    assert np.allclose(chapter.equivariant(jnp.array([0.7])), expected, atol=1e-12)
    p = jax.random.normal(jax.random.key(0), (9,))
    local = [expm(-1j * jnp.tensordot(v, chapter.sigma, 1)) for v in (p[3:6], p[6:])]
    assert np.allclose(chapter.general(p), jnp.kron(*local) @ chapter.exchange(p[:3]), atol=1e-12)


def test_a_turn_is_unitary_and_two_to_one(chapter):
    for U in turns(chapter):
        assert np.allclose(U @ U.conj().T, np.eye(2), atol=1e-13)
        assert abs(np.linalg.det(U) - 1) < 1e-13
        for spins in (1, 2, 5):
            states = random_states(1, 2, spins)
            matrix = np.eye(1)
            for _ in range(spins):
                matrix = np.kron(matrix, U)
            assert np.allclose(chapter.turn(U, states).reshape(2, -1), states.reshape(2, -1) @ matrix.T)
            sign = chapter.turn(-U, states) / chapter.turn(U, states)
            assert np.allclose(sign, (-1) ** spins)


@pytest.mark.parametrize("layers", [1, 3, 6])
def test_the_twirled_circuit_commutes_with_every_turn(chapter, layers):
    p, x = params(layers, 1, layers), random_states(layers, 4)
    f = jax.jit(partial(chapter.answers, unitary=chapter.equivariant, observable=chapter.singlet))
    V = jax.jit(partial(chapter.circuit, unitary=chapter.equivariant))
    for U in turns(chapter):
        move = partial(chapter.turn, U)
        assert equivariance_defect(partial(f, p), x, move) < 1e-13
        assert equivariance_defect(partial(V, p["gates"]), x, move, move) < 1e-13


def test_what_is_not_twirled_fails(chapter):
    x, U = random_states(0, 4), turns(chapter, 1)[0]
    for unitary, angles, observable, states_too in [
        (chapter.two_of_three, 1, chapter.singlet, True),
        (chapter.general, 9, chapter.reads_Z, True),
        (chapter.equivariant, 1, chapter.reads_Z, False),
    ]:
        p, move = params(1, angles), partial(chapter.turn, U)
        f = partial(chapter.answers, p, unitary=unitary, observable=observable)
        assert equivariance_defect(f, x, move) > 0.02
        V = partial(chapter.circuit, p["gates"], unitary=unitary)
        assert (equivariance_defect(V, x, move, move) > 0.02) == states_too


def test_in_single_precision_the_error_is_its_rounding(chapter):
    as_single = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32), tree)
    x, p = random_states(2, 4, dtype=jnp.complex64), as_single(params(2, 1))
    U = turns(chapter, 1)[0].astype(jnp.complex64)
    f = partial(chapter.answers, p, unitary=chapter.equivariant, observable=chapter.singlet)
    with jax.enable_x64(False):
        assert f(x).dtype == jnp.float32
        assert 0 < equivariance_defect(f, x, partial(chapter.turn, U)) < 1e-5


@pytest.mark.parametrize("spins", [2, 3, 6])
def test_other_lengths(chapter, spins):
    x, U = random_states(spins, 3, spins), turns(chapter, 1)[0]
    f = partial(chapter.answers, params(0, 1), unitary=chapter.equivariant, observable=chapter.singlet)
    assert f(x).shape == (3,)
    assert equivariance_defect(f, x, partial(chapter.turn, U)) < 1e-13
    alone = jnp.concatenate([f(each[None]) for each in x])  # in a batch or not
    assert np.allclose(alone, f(x), atol=1e-13)


def test_gradients_are_finite_where_all_angles_are_zero_and_right_elsewhere(chapter):
    x = random_states(3, 2, 3)
    for unitary, angles, observable in [
        (chapter.equivariant, 1, chapter.singlet),
        (chapter.general, 9, chapter.reads_Z),
    ]:
        f = lambda gates, unitary=unitary, observable=observable: chapter.answers(
            {"gates": gates, "scale": 1.0, "bias": 0.0}, x, unitary, observable
        ).sum()
        zero = jax.grad(f)(jnp.zeros((2, 2, angles)))
        assert np.isfinite(zero).all()
        gates = params(4, angles, 2)["gates"]
        slope, step = jax.grad(f)(gates), 1e-5 * jax.random.normal(jax.random.key(5), gates.shape)
        apart = f(gates + step) - f(gates - step)
        assert np.allclose((slope * step).sum(), apart / 2, rtol=1e-6)


def test_twirling_is_a_projection_and_is_exact_where_it_was_proved_to_be(chapter):
    rng = np.random.default_rng(3)
    re, im = rng.normal(size=(2, 4, 4))
    A = re + 1j * im
    A = A + A.conj().T
    q = jax.random.normal(jax.random.key(1), (40_000, 4))
    sample = chapter.twirl(A, q)
    M = np.array([[np.trace(A @ np.kron(s, t)) for t in chapter.sigma] for s in chapter.sigma]) / 4
    expected = np.trace(A) / 4 * np.eye(4) + np.trace(M) / 3 * (chapter.XX + chapter.YY + chapter.ZZ)
    assert np.abs(sample - expected).max() < 5 * np.abs(A).max() / 200  # five standard errors
    for group in (chapter.tetrahedron, chapter.cube):
        twirled = chapter.twirl(A, group)
        assert np.allclose(twirled, expected, atol=1e-12)
        assert np.allclose(chapter.twirl(twirled, group), twirled, atol=1e-12)
        for U in turns(chapter):
            UU = np.kron(U, U)
            assert np.allclose(UU @ twirled, twirled @ UU, atol=1e-12)
    assert not np.allclose(chapter.twirl(A, chapter.half_turns), expected, atol=1e-3)
    assert [len(g) for g in (chapter.half_turns, chapter.tetrahedron, chapter.cube)] == [4, 12, 24]


@pytest.mark.parametrize("delta", [-0.9, -0.3, 0.05, 0.8])
def test_a_doublet_answers_like_one_spin(chapter, delta):
    H = chapter.chain(delta)
    energies = np.linalg.eigvalsh(H)
    up = jnp.asarray(chapter.ground_state(delta))[None] + 0j
    assert np.allclose(H @ up.ravel(), energies[0] * up.ravel(), atol=1e-12)
    assert energies[1] - energies[0] < 1e-12 < energies[2] - energies[1]
    answer = jax.jit(lambda x: chapter.answers(params(7, 9), x, chapter.general, chapter.reads_Z))
    a, b = chapter.parts(jnp.stack([answer(x) for x in chapter.turned_by(chapter.six, up)]))
    for U in turns(chapter):
        e = [np.trace(s @ U @ chapter.sigma[2] @ U.conj().T).real / 2 for s in chapter.sigma]
        assert np.allclose(answer(chapter.turn(U, up)), a + b @ np.array(e), atol=1e-12)


def test_the_share_of_directions_is_that_of_a_sample(chapter):
    rng = np.random.default_rng(0)
    e = rng.normal(size=(100_000, 3))
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    a, b = rng.normal(size=20), rng.normal(size=(20, 3))
    labels = np.sign(rng.normal(size=20))
    sample = (np.sign(a + e @ b.T) == labels).mean(0)
    assert np.allclose(chapter.share_right(a, jnp.asarray(b), labels), sample, atol=0.01)
    never = chapter.share_right(np.array([1.0, -1.0]), jnp.zeros((2, 3)), np.array([1, 1]))
    assert never.tolist() == [1, 0]


@pytest.mark.parametrize("kind", measured.KINDS)
def test_the_chapters_circuits_are_those_of_the_experiment(chapter, kind):
    unitary, observable, *_ = measured.KINDS[kind]
    p = measured.parameters(kind, jax.random.key(8))
    x = random_states(8, 3)
    theirs = measured.answers(p, x.reshape(3, -1), unitary, observable)
    ours = {
        "equivariant": (chapter.equivariant, chapter.singlet),
        "general": (chapter.general, chapter.reads_Z),
    }
    name = kind.split(",")[0]
    if name in ours:
        assert np.allclose(chapter.answers(p, x, *ours[name]), theirs, atol=1e-12)
    else:  # the generator that the chapter twirls
        assert np.allclose(unitary(jnp.array([0.4])), expm(-0.4j * measured.GENERATOR), atol=1e-12)
        twirled = chapter.twirl(measured.GENERATOR, chapter.cube)
        assert np.allclose(twirled, (chapter.XX + chapter.YY + chapter.ZZ) / 3, atol=1e-12)


def test_the_experiments_states_and_directions_are_the_chapters(chapter):
    deltas = np.array([-0.7, 0.2])
    ours = np.stack([chapter.ground_state(delta) for delta in deltas]).reshape(2, -1)
    theirs = measured.ground_states(deltas)
    assert np.allclose(np.abs((ours * theirs).sum(1)), 1, atol=1e-12)
    six = measured.in_six_directions(jnp.asarray(ours))
    turned = chapter.turned_by(chapter.six, jnp.asarray(ours).reshape(2, *7 * (2,)) + 0j)
    assert np.allclose(six, turned.reshape(12, -1), atol=1e-12)
    assert (measured.DIRECTIONS == chapter.ends).all()
    q = jax.random.normal(jax.random.key(3), (4,))
    p = {**measured.parameters("general", jax.random.key(2)), "first": q}
    f = lambda p, x: measured.answers(p, x, measured.general, measured.Z)
    expected = f({**p, "first": jnp.array([1.0, 0, 0, 0])}, measured.turn(measured.as_rotation(q), six))
    assert np.allclose(f(p, six), expected, atol=1e-12)


def times_inverse(q, g):
    """The quaternion q g⁻¹, for a g of length 1."""
    w, v, u, back = q[0], q[1:], g[0], -g[1:]
    return jnp.concatenate([jnp.array([w * u - v @ back]), w * back + u * v + jnp.cross(v, back)])


def test_the_group_acts_on_the_first_rotation_as_on_the_states():
    """What the chapter's proof needs: f_{gθ}(ρ(g)ψ) = f_θ(ψ), with an orthogonal action on quaternions."""
    x = random_states(5, 2).reshape(2, -1)
    q, g = jnp.array([0.3, -2.0, 0.5, 1.1]), jnp.array([0.1, 0.7, -0.5, 0.5])
    p, moved = {**measured.parameters("general", jax.random.key(2)), "first": q}, times_inverse(q, g)
    assert jnp.allclose(jnp.linalg.norm(moved), jnp.linalg.norm(q))
    f = lambda q, x: measured.answers({**p, "first": q}, x, measured.general, measured.Z)
    assert np.allclose(f(moved, measured.turn(measured.as_rotation(g), x)), f(q, x), atol=1e-12)


@pytest.mark.parametrize("directions, kept", [(6, True), (2, True), (1, False)])
def test_gradient_descent_on_enough_directions_commutes_with_turns(directions, kept):
    deltas = np.array([0.5, -0.3])
    given = measured.in_six_directions(jnp.asarray(measured.ground_states(deltas)))[: 2 * directions]
    y = jnp.tile(jnp.sign(jnp.asarray(deltas)), directions)
    g = jnp.array([0.5, 0.5, 0.5, 0.5]) if directions == 6 else jnp.array([0.0, 1, 0, 0])
    loss = lambda p: ((measured.answers(p, given, measured.general, measured.Z) - y) ** 2).mean()
    slope = jax.jit(jax.grad(loss))
    p = {**measured.parameters("general", jax.random.key(2)), "first": jnp.array([0.3, -1.0, 0.5, 1.1])}
    moved = {**p, "first": times_inverse(p["first"], g)}
    for _ in range(3):
        p, moved = (jax.tree.map(lambda a, b: a - 0.2 * b, each, slope(each)) for each in (p, moved))
    expected = {**p, "first": times_inverse(p["first"], g)}
    apart = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), moved, expected)
    assert (max(jax.tree.leaves(apart)) < 1e-12) == kept, apart
