"""The potentials of notebooks/interatomic_potentials.md, from its own cells, tried more widely."""

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import interatomic_potentials as command
from nteq.metrics import equivariance_defect

jax.config.update("jax_enable_x64", True)
SIZES = {"scalars": (3, (0, 0, 0)), "vectors": (4, (0, 1, 1, 0)), "matrices": (3, (0, 2, 0))}
KIND = np.array([1, 1, 2, 0, 0])
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(3, 5, 3)) * 1.3


@pytest.fixture(scope="session")
def chapter(definitions):
    names = ("CUTOFF", "BASIS", "HIDDEN", "NEIGHBOURS", "elements", "atoms", "e", "pairs", "off", "even")
    return definitions("interatomic_potentials", *names, "basis")


def orthogonal(seed, sign):
    Q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return Q * np.linalg.det(Q) * sign


def params_of(chapter, name, inputs=8, dtype=float):
    params = chapter.start(jax.random.key(1), *SIZES[name], inputs)
    return jax.tree.map(lambda a: a.astype(dtype), params)


@pytest.fixture(scope="session")
def compiled(chapter):
    """Energies and forces of five atoms by each network, compiled once."""
    return {
        name: jax.jit(lambda x, params=params_of(chapter, name): chapter.answers(params, x, KIND))
        for name in SIZES
    }


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("sign", [1, -1])
def test_turned_mirrored_and_shifted_molecules_have_moved_forces(compiled, name, sign):
    f = compiled[name]
    for seed in range(4):
        Q, t = orthogonal(seed, sign), np.random.default_rng(seed).normal(size=3)
        assert equivariance_defect(f, X, lambda x: x @ Q.T + t, lambda y: (y[0], y[1] @ Q.T)) < 1e-12


@pytest.mark.parametrize("name", SIZES)
def test_the_forces_are_the_slope_of_the_energy_and_have_no_sum_and_no_torque(compiled, name):
    E, F = compiled[name](X)
    assert E.shape == (3,) and F.shape == X.shape and float(jnp.abs(F).max()) > 1e-3
    step = 1e-5 * DRAW.normal(size=X.shape)
    ahead, behind = compiled[name](X + step)[0], compiled[name](X - step)[0]
    np.testing.assert_allclose(ahead - behind, -2 * (F * step).sum((1, 2)), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(F.sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(np.cross(X, F).sum(1), 0, atol=1e-12)


@pytest.mark.parametrize("name", SIZES)
def test_atoms_of_one_element_are_alike_and_those_of_two_are_not(compiled, name):
    f = compiled[name]
    for order, same in ([1, 0, 2, 4, 3], True), ([2, 1, 0, 3, 4], False):
        apart = equivariance_defect(f, X, lambda x: x[:, order], lambda y: (y[0], y[1][:, order]))
        assert (apart < 1e-12) == same


def test_an_atom_alone_has_an_energy_and_no_force(chapter):
    params = params_of(chapter, "vectors")
    E, F = jax.jit(lambda x: chapter.answers(params, x, np.array([2])))(np.ones((1, 1, 3)))
    assert jnp.isfinite(E).all() and (F == 0).all()


@pytest.mark.parametrize("name", ["scalars", "vectors"])
def test_atoms_beyond_the_cutoff_add_their_energy_and_change_nothing_else(chapter, name):
    # so padding with far atoms is harmless
    params = params_of(chapter, name)
    f = jax.jit(lambda x, kind: chapter.answers(params, x, kind))
    far = np.array([50.0, 0, 0]) * np.arange(1, 4)[:, None]
    E, F = f(X, KIND)
    both, forces = f(np.concatenate([X, np.tile(far, (3, 1, 1))], 1), np.concatenate([KIND, [0, 0, 1]]))
    alone = f(np.zeros((1, 1, 3)), np.array([0]))[0] * 2 + f(np.zeros((1, 1, 3)), np.array([1]))[0]
    np.testing.assert_allclose(both, E + alone, rtol=1e-13)
    np.testing.assert_allclose(forces[:, :5], F, rtol=1e-10, atol=1e-13)
    assert (forces[:, 5:] == 0).all()


@pytest.mark.parametrize("name", SIZES)
def test_coincident_and_equal_atoms_have_finite_energies_and_derivatives(compiled, chapter, name):
    x = X.copy()
    x[0, 3] = x[0, 4]  # two atoms at one place
    x[1] = 0  # all of them
    x[2] *= 1e-9
    E, F = compiled[name](x)
    assert jnp.isfinite(E).all() and jnp.isfinite(F).all()
    np.testing.assert_allclose(F[0, 3], F[0, 4], atol=1e-12)  # they feel the same
    params = params_of(chapter, name)
    squares = lambda p: (chapter.answers(p, x, KIND)[1] ** 2).sum()  # what training differentiates
    slope = jax.jit(jax.grad(squares))(params)
    assert all(jnp.isfinite(a).all() for a in jax.tree.leaves(slope))


def test_float32_is_good_to_float32(compiled, chapter):
    for name in ("scalars", "vectors"):
        params = params_of(chapter, name, dtype=np.float32)
        single = jax.jit(lambda x, params=params: chapter.answers(params, x, KIND))(X.astype(np.float32))
        assert all(a.dtype == np.float32 for a in single)
        for a, b in zip(single, compiled[name](X), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


def messages_as_matrices(chapter, l, k, d):
    """The messages from rank l to rank k along d, in the orthonormal bases of the chapter."""
    units = [np.ones(1), np.eye(3), chapter.basis][l]  # each atom has one of them, in one channel
    features = [jnp.zeros((len(units), 1, *(r * [3]))) for r in range(l)] + [jnp.asarray(units)[:, None]]
    along = jnp.broadcast_to(jnp.asarray(d), (len(units), len(units), 3))
    to_numbers = [
        lambda T: T[:, None],
        lambda T: T,
        lambda T: np.einsum("mab,nab->nm", chapter.basis, T),  # drops what is not symmetric or has a trace
    ][k]
    sent = [np.asarray(T[0, :, 0]) for T in chapter.messages(features, along, k)[k]]
    return [to_numbers(T).T for T in sent if np.abs(T).max() > 0]  # those of the lower ranks, zero, left out


@pytest.mark.parametrize("l", range(3))
@pytest.mark.parametrize("k", range(3))
def test_the_messages_are_equivariant_independent_and_as_many_as_the_theorem_says(chapter, l, k):
    d = DRAW.normal(size=3)
    d /= np.linalg.norm(d)
    A = messages_as_matrices(chapter, l, k, d)
    assert len(A) == min(l, k) + 1 == np.linalg.matrix_rank(np.array(A).reshape(len(A), -1), 1e-8)
    for sign in (1, -1):
        Q = orthogonal(2, sign)
        D = chapter.moves(Q)
        moved = messages_as_matrices(chapter, l, k, Q @ d)
        np.testing.assert_allclose(np.array(moved) @ D[l], D[k] @ np.array(A), atol=1e-12)
    axis, mirror = np.eye(3)[2], np.diag([1.0, -1, 1])
    assert chapter.free(l, k, [chapter.turn(0.7), mirror]) == len(messages_as_matrices(chapter, l, k, axis))


def test_the_three_ranks_are_those_of_e3nn(chapter):
    d = DRAW.normal(size=(40, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    ours = [np.ones((40, 1)), d, np.einsum("mab,na,nb->nm", chapter.basis, d, d)]
    change = []
    for l in range(3):
        parity = "eoe"[l]
        theirs = np.asarray(e3nn.spherical_harmonics(f"{l}{parity}", jnp.asarray(d), True).array)
        T, *_ = np.linalg.lstsq(ours[l], theirs)
        np.testing.assert_allclose(ours[l] @ T, theirs, atol=1e-6)  # the same functions of the direction
        scale = np.trace(T.T @ T) / len(T)
        np.testing.assert_allclose(T.T @ T, scale * np.eye(len(T)), atol=1e-6)  # in another orthonormal basis
        change.append(T / scale**0.5)
    for sign in (1, -1):
        Q = orthogonal(3, sign)
        for l, D in enumerate(chapter.moves(Q)):
            theirs = np.asarray(e3nn.Irrep(l, (-1) ** l).D_from_matrix(jnp.asarray(Q)))
            np.testing.assert_allclose(change[l].T @ D @ change[l], theirs, atol=1e-6)
    # a tensor product with the harmonics of the direction is a sum of our messages, and the other way round
    for l in range(3):
        for k in range(3):
            products = []
            for L in range(abs(l - k), l + k + 1, 2):  # parity: l + k + L is even
                Y = e3nn.spherical_harmonics(f"{L}{'eo'[L % 2]}", jnp.asarray(d[0]), True).array
                theirs = np.einsum("abc,b->ca", e3nn.clebsch_gordan(l, L, k), Y)
                products.append(change[k] @ theirs @ change[l].T)
            both = np.array([*products, *messages_as_matrices(chapter, l, k, d[0])])
            assert len(products) == min(l, k) + 1
            assert np.linalg.matrix_rank(both.reshape(len(both), -1), 1e-5) == min(l, k) + 1


@pytest.mark.parametrize("name", ["vectors", "matrices"])
def test_relu_on_components_breaks_the_symmetry(chapter, name):
    params = params_of(chapter, name)
    f = jax.jit(lambda x: chapter.answers(params, x, KIND, gate=chapter.by_components))
    Q = orthogonal(0, 1)
    assert equivariance_defect(f, X, lambda x: x @ Q.T, lambda y: (y[0], y[1] @ Q.T)) > 1e-3


def test_a_cross_product_breaks_the_mirrors_alone_and_only_in_the_third_layer(chapter):
    for ranks, sees in ((0, 1, 0), False), ((0, 1, 1, 0), True):
        params = chapter.start(jax.random.key(2), 4, ranks)
        f = jax.jit(lambda x, params=params: chapter.answers(params, x, KIND, send=chapter.with_cross))
        for sign in (1, -1):
            Q = orthogonal(1, sign)
            apart = equivariance_defect(f, X, lambda x: x @ Q.T, lambda y: (y[0], y[1] @ Q.T))
            assert (apart > 1e-7) == (sees and sign < 0)


def test_moved_parameters_of_a_raw_network_see_the_moved_molecule(chapter):
    params = params_of(chapter, "scalars", inputs=20)
    f = jax.jit(lambda p, x: chapter.answers(p, x, KIND, edges=chapter.directions))
    for sign in (1, -1):
        Q = orthogonal(4, sign)
        E, F = f(params, X)
        moved = f(chapter.act(Q, params), X @ Q.T)
        np.testing.assert_allclose(moved[0], E, rtol=1e-12)
        np.testing.assert_allclose(moved[1], F @ Q.T, atol=1e-12)
        assert float(jnp.abs(f(params, X @ Q.T)[0] - E).max()) > 1e-3  # it has no symmetry of its own
    # lengths of parameters stay: the Gaussian law does not notice
    for a, b in zip(*map(jax.tree.leaves, (params, chapter.act(Q, params))), strict=True):
        np.testing.assert_allclose((a**2).sum(), (b**2).sum(), rtol=1e-12)


@pytest.mark.parametrize("name", ["raw", "vectors", "matrices"])
def test_the_experiment_has_the_chapters_networks(chapter, name):
    F, ranks, sighted, *_ = command.KINDS[name]
    start, both = command.network(name)
    params = start(jax.random.key(5))
    here = chapter.start(jax.random.key(5), F, ranks, 20 if sighted else 8)
    assert jax.tree.structure(params) == jax.tree.structure(here)
    for a, b in zip(*map(jax.tree.leaves, (params, here)), strict=True):
        np.testing.assert_array_equal(a, b)
    edges = chapter.directions if sighted else chapter.distances
    for a, b in zip(both(params, X, KIND), chapter.answers(params, X, KIND, edges=edges), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_experiments_moves_are_uniform_rotations_and_mirrors():
    Q = np.asarray(command.rotations_and_mirrors(jax.random.key(0), 4000))
    np.testing.assert_allclose(Q @ Q.swapaxes(1, 2), np.tile(np.eye(3), (4000, 1, 1)), atol=1e-12)
    signs = np.linalg.det(Q)
    assert abs(signs.mean()) < 4 / 4000**0.5
    # of uniform ones, entries have mean 0 and variance 1/3, and so have the fourth moments of O(3)
    for values, mean in ((Q, 0), (Q**2, 1 / 3), (Q**4, 1 / 5)):
        assert (np.abs(values.mean(0) - mean) < 4.5 * values.std(0) / 4000**0.5).all()
    assert abs((np.trace(Q, axis1=1, axis2=2) ** 2).mean() - 1) < 4 * 1.5 / 4000**0.5


def test_the_floor_is_the_square_of_the_mean_without_bias():
    rng = np.random.default_rng(1)
    found = np.array([command.floor(rng.normal(size=(16, 4, 3)) + 0.5) for _ in range(200)])
    z = (found[:, 0].mean() - 0.25) / (found[:, 0].std() / 200**0.5)
    assert abs(z) < 4
    assert 0.8 < found[:, 1].mean() / found[:, 0].std() < 1.25  # the jackknife says how far it is off
