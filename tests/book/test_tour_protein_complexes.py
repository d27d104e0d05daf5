"""The network of the chapter on protein complexes, taken from its cells and tried more widely than there."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from experiments import protein_complexes as commands
from nteq.datasets import complexes
from nteq.metrics import equivariance_defect

jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="module")
def chapter(definitions):
    return definitions("protein_complexes", "BASIS", "CUTOFFS")


@pytest.fixture(scope="module")
def poses(chapter):
    data = complexes()
    rows = [3, 400, 1000, 1700]
    return jax.tree.map(
        jnp.asarray, chapter.prepare(*(data[name][rows] for name in ("positions", "elements", "alpha")))
    )


def moved(Q, poses, shift=0.0):
    return poses | {"x": poses["x"] @ Q.T + shift}


def answers_moved(Q, answers):
    return answers[0], answers[1] @ Q.T


def defect(f, poses, Q, shift=0.0):
    """How far score and move are from staying and turning."""
    return equivariance_defect(f, poses, lambda p: moved(Q, p, shift), partial(answers_moved, Q))


def swapped(poses):
    """The ligand taken for the receptor."""
    half = poses["x"].shape[1] // 2
    new = lambda j: (j + half) % (2 * half)
    roll = lambda a: jnp.roll(a, half, 1)
    return poses | {
        "x": roll(poses["x"]),
        "element": roll(poses["element"]),
        "near": new(roll(poses["near"])),
        "residue": new(poses["residue"]),
        "atoms": new(poses["atoms"]),
    }


def test_scores_stay_and_moves_turn_whatever_the_rotation_and_the_parameters(chapter, poses):
    for seed in range(3):
        params = chapter.init(jax.random.key(seed))
        f = partial(chapter.ask, params)
        Q = Rotation.random(rng=seed).as_matrix()
        assert defect(f, poses, Q, shift=100.0) < 1e-11
        score, move = f(poses)
        assert float(score.std()) > 1e-3 and float(jnp.abs(move).max()) > 1e-3
        mirror = np.diag([1.0, 1, -1])
        assert defect(f, poses, mirror) > 1e-6  # and left is not right
        assert defect(partial(chapter.ask, chapter.blind(params)), poses, mirror) < 1e-11


def test_the_broken_variants_fail(chapter, poses):
    params, Q = chapter.init(jax.random.key(0)), Rotation.random(rng=5).as_matrix()
    assert defect(partial(chapter.ask, params, pool=chapter.largest), poses, Q) > 0.03
    assert defect(partial(chapter.ask, params, pool=chapter.longest), poses, Q) < 1e-11
    raw = chapter.init(jax.random.key(0), 22, (1, 1, 1), raw=True)
    assert defect(partial(chapter.ask, raw, raw=True), poses, Q) > 0.3


@pytest.mark.parametrize("kind", ["vectors", "raw"])
def test_the_chapter_and_the_experiment_have_the_same_networks(chapter, poses, kind):
    raw = kind == "raw"
    params = commands.init(jax.random.key(1), kind)
    width, filters = commands.KINDS[kind]
    mine = chapter.init(jax.random.key(1), width, filters, raw)
    assert jax.tree.structure(mine) == jax.tree.structure(params)
    assert jax.tree.map(np.shape, mine) == jax.tree.map(np.shape, params)
    theirs = jax.jit(jax.vmap(lambda pose: commands.network(params, pose, raw)))(poses)
    for a, b in zip(chapter.ask(params, poses, raw=raw), theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_scalars_inside_are_equivariant_and_as_many_parameters(poses):
    params = commands.init(jax.random.key(2), "scalars")
    f = jax.jit(jax.vmap(lambda pose: commands.network(params, pose)))
    assert defect(f, poses, Rotation.random(rng=1).as_matrix(), 3.0) < 1e-11
    counts = [commands.parameters(kind) for kind in commands.KINDS]
    assert max(counts) < 1.06 * min(counts)


def test_experiment_and_chapter_find_the_same_neighbours(chapter):
    theirs, data = commands.prepared()
    mine = chapter.prepare(*(data[name][:40] for name in ("positions", "elements", "alpha")))
    assert set(mine) == set(theirs)
    for name, a in mine.items():
        np.testing.assert_array_equal(a, theirs[name][:40])
    rows = np.arange(40)[:, None, None]
    assert (mine["near"] != np.arange(128)[:, None]).all()  # nobody hears oneself
    chain = lambda j: j >= 64
    assert (chain(mine["near"]).sum(-1) == 6).all()  # six of each
    assert (data["alpha"][:40][rows[..., 0], mine["residue"]] == mine["real"]).all()


def test_exchanging_the_chains_reverses_the_move(chapter, poses):
    params = chapter.init(jax.random.key(3))
    (score, move), (again, back) = (chapter.ask(params, p) for p in (poses, swapped(poses)))
    np.testing.assert_allclose(again, score, rtol=1e-10)
    np.testing.assert_allclose(back, -move, atol=1e-12)


def test_the_order_of_atoms_and_padding_do_not_matter(chapter, poses):
    params = chapter.init(jax.random.key(4))
    score, move = chapter.ask(params, poses)
    order = np.random.default_rng(0).permutation(poses["residue"].shape[1])
    mixed = poses | {name: poses[name][:, order] for name in ("residue", "real", "atoms")}
    wider = poses | {
        name: jnp.pad(poses[name], ((0, 0), (0, 3), (0, 0))[: poses[name].ndim])
        for name in ("residue", "real", "atoms")
    }
    for other in (mixed, wider, jax.tree.map(lambda a: a[:1], poses)):
        some, there = chapter.ask(params, other)
        np.testing.assert_allclose(some, score[: len(some)], rtol=1e-10)
        np.testing.assert_allclose(there, move[: len(some)], atol=1e-12)


def test_values_and_gradients_are_finite_where_distances_and_vectors_vanish(chapter, poses):
    params = chapter.init(jax.random.key(5))
    one = jax.tree.map(lambda a: a[:1], poses)

    @jax.jit
    def derivatives(params, pose):
        total = lambda params, x: sum(map(jnp.sum, chapter.ask(params, pose | {"x": x})))
        return jax.value_and_grad(total, (0, 1))(params, pose["x"])

    at_one_place = one | {"x": jnp.zeros_like(one["x"])}
    far_apart = one | {"x": 1e3 * one["x"]}
    nobody = one | {"real": jnp.zeros_like(one["real"])}
    alone = one | {"real": jnp.zeros_like(one["real"]).at[:, 0].set(1.0)}
    for pose in (one, at_one_place, far_apart, nobody, alone):
        assert all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(derivatives(params, pose)))
    # with all atoms at one place no direction is left
    assert float(jnp.abs(chapter.ask(params, at_one_place)[1]).max()) == 0


def test_single_precision_stays_and_is_near(chapter, poses):
    low = lambda tree: jax.tree.map(lambda a: a.astype(np.float32) if a.dtype == float else a, tree)
    params = chapter.init(jax.random.key(6))
    for a, b in zip(chapter.ask(low(params), low(poses)), chapter.ask(params, poses), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(b).max()))


def test_filters_are_counted_whatever_the_direction(chapter):
    for seed in range(5):
        counts = [chapter.filters(*pair, seed=seed) for pair in ((1, 1), (1, 3), (3, 1), (3, 3))]
        assert counts == [1, 1, 1, 3] and chapter.filters(3, 3, True, seed) == 2


def test_random_rotations_are_rotations():
    R = np.asarray(commands.rotations(jax.random.key(0), 2000))
    np.testing.assert_allclose(R @ R.swapaxes(1, 2), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(R), 1)
    assert np.abs(R.mean(0)).max() < 4 / np.sqrt(3 * 2000)  # entries have variance 1/3
