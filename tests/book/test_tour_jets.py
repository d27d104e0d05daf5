"""The network of the chapter on jets, tried on more than the chapter tries it on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import jets as experiment
from nteq.datasets import top_jets
from nteq.metrics import equivariance_defect

jax.config.update("jax_enable_x64", True)

MIRROR, TIME = np.diag([1.0, 1, 1, -1]), np.diag([-1.0, 1, 1, 1])


@pytest.fixture(scope="module")
def chapter(definitions):
    return definitions("jets", "METRIC")


@pytest.fixture(scope="module")
def lorentz(chapter):
    return jax.jit(chapter.lorentz)


@pytest.fixture(scope="module")
def plain(chapter):
    return jax.jit(chapter.plain)


@pytest.fixture(scope="module")
def euclid(chapter):
    return jax.jit(lambda params, p: chapter.lorentz(params, p, np.ones(4)))


@pytest.fixture(scope="module")
def deep_set(chapter):
    return jax.jit(chapter.deep_set)


@pytest.fixture(scope="module")
def params(chapter):
    return chapter.init(jax.random.key(3))


@pytest.fixture(scope="module")
def of_set(chapter):
    return chapter.init_set(jax.random.key(3))


@pytest.fixture(scope="module")
def p():
    """Sixteen jets, some of which have few particles, two alike, or one."""
    p = np.array(top_jets(train=16, test=1)[0])
    p[0, 1:] = 0  # one particle
    p[1, 1] = p[1, 0]  # two equal ones
    p[1, 2:] = 0
    p[2, 5:] = 0
    p[3, 4] = p[3, 2]
    return jnp.asarray(p)


def defect(f, params, p, matrix):
    return equivariance_defect(lambda p: f(params, p), p, lambda p: p @ matrix.T)


def finite(tree):
    return all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(tree))


def test_the_chapter_and_the_experiment_have_the_same_networks(
    chapter, lorentz, euclid, plain, deep_set, params, of_set, p
):
    for ours, init in [(params, experiment.init), (of_set, experiment.init_set)]:
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), ours, init(jax.random.key(3))))
    pairs = [
        (lorentz(params, p), jax.jit(experiment.lorentz)(params, p)),
        (euclid(params, p), jax.jit(experiment.NETWORKS["euclid"])(params, p)),
        (plain(params, p), jax.jit(experiment.asked_plain)(params, p)),
        (deep_set(of_set, p), jax.jit(experiment.NETWORKS["deep set"])(of_set, p)),
        (chapter.boost(0.7, jnp.array([0, 0.6, 0.8])), experiment.boost(0.7, jnp.array([0, 0.6, 0.8]))),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rapidity", [0.0, 0.7, 2.0])
def test_all_lorentz_transformations_leave_the_answer(chapter, lorentz, params, p, seed, rapidity):
    L = np.asarray(chapter.transformation(seed, rapidity))
    np.testing.assert_allclose(L.T @ np.diag(chapter.METRIC) @ L, np.diag(chapter.METRIC), atol=1e-12)
    for matrix in (L, L @ MIRROR, L @ TIME):
        assert defect(lorentz, params, p, matrix) < 1e-8
    assert float(jnp.abs(lorentz(params, p)).max()) > 0.1  # it says something
    assert float(lorentz(params, p).std()) > 0.01


def test_the_vectors_of_a_layer_move_along(chapter, params, p):
    def block(p):
        see = lambda x: chapter.squash(chapter.product(x[:, :, None] - x[:, None], x[:, :, None]))
        two = lambda x: jnp.concatenate([see(x), see(x)], -1)
        h = jnp.ones((*p.shape[:2], 16))
        return chapter.layer(params["blocks"][0], h, p, chapter.partners(p)[1], two)

    L = jnp.asarray(chapter.transformation(4, 1.0))
    move = lambda p: p @ L.T
    assert equivariance_defect(block, p, move, lambda out: (out[0], move(out[1]))) < 1e-9
    x = block(p)[1]
    assert float(jnp.abs(x - p).max()) > 1e-3  # they are updated
    assert equivariance_defect(block, p, move, lambda out: out) > 0.1


def test_a_small_and_a_deep_network_are_invariant_too(chapter, p):
    for width, blocks in [(3, 1), (5, 4)]:
        params = chapter.init(jax.random.key(1), width, blocks)
        assert defect(jax.jit(chapter.lorentz), params, p, chapter.transformation(0, 1.0)) < 1e-8


def test_what_is_wrong_is_found(chapter, euclid, plain, params, p):
    for seed in range(3):
        assert defect(euclid, params, p, chapter.transformation(seed, 0.0)) < 1e-9
        assert defect(euclid, params, p, chapter.transformation(seed, 0.5)) > 0.01
        assert defect(plain, params, p, chapter.transformation(seed, 0.5)) > 0.01


def test_coordinates_know_the_boosts_and_turns_of_the_beam(chapter, plain, deep_set, params, of_set, p):
    along, about = chapter.boost(0.8, jnp.array([0.0, 0, 1])), np.eye(4)
    about[1:3, 1:3] = [[0.8, -0.6], [0.6, 0.8]]
    across = chapter.boost(0.8, jnp.array([1.0, 0, 0]))
    for f, of in [(plain, params), (deep_set, of_set)]:
        assert defect(f, of, p, jnp.asarray(about)) < 1e-9
        assert defect(f, of, p, across) > 0.01
    assert defect(plain, params, p, along) < 1e-9
    # a deep set sees no differences of particles: of a massive jet η is not the rapidity, which would add up
    assert 1e-4 < defect(deep_set, of_set, p, along) < 0.1


def test_a_deep_set_is_a_function_of_a_mean_over_particles(deep_set, of_set, p):
    """All particles twice leave the mean where it is, as long as shares and the axis stay."""
    half = p / 2
    twice = jnp.concatenate([half, half], 1)
    apart = jax.tree.map(jnp.array, of_set)
    (W, b), *rest = apart["each"]
    apart["each"] = [(W.at[0].set(0), b), *rest]  # blind to the shares, which are halved
    np.testing.assert_allclose(deep_set(apart, twice), deep_set(apart, p), rtol=1e-9, atol=1e-10)
    assert float(jnp.abs(deep_set(of_set, twice) - deep_set(of_set, p)).max()) > 0.01
    assert sum(a.size for a in jax.tree.leaves(of_set)) == 4177


def test_no_jet_that_chooses_the_learning_rate_is_trained_on():
    x = np.zeros((5000, 1))
    for n in (200, 4000):
        rows, held, _ = experiment.drawn(x, n, 1000, 3)
        assert len(set(rows)) == n and len(set(held)) == 1000 and not set(rows) & set(held)
    assert set(rows) | set(held) == set(range(5000))
    assert set(experiment.drawn(x, 200, 1000, 3)[0]) != set(experiment.drawn(x, 200, 1000, 4)[0])


@pytest.mark.parametrize("name", ["lorentz", "plain", "deep_set"])
def test_padding_and_order_of_particles_and_jets_do_not_matter(request, params, of_set, p, name):
    f, params = request.getfixturevalue(name), of_set if name == "deep_set" else params
    answers = f(params, p)
    padded = jnp.pad(p, ((0, 0), (0, 3), (0, 0)))
    np.testing.assert_allclose(f(params, padded), answers, rtol=1e-8, atol=1e-10)
    order = np.random.default_rng(0).permutation(16)
    np.testing.assert_allclose(f(params, p[:, order]), answers, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(f(params, p[order]), answers[order], rtol=1e-10)
    np.testing.assert_allclose(f(params, p[2:3]), answers[2:3], rtol=1e-8)
    # and a particle does matter
    assert float(jnp.abs(f(params, p.at[:, 0].set(p[:, 0] * 2)) - answers).max()) > 1e-3


@pytest.mark.parametrize("name", ["lorentz", "plain", "deep_set"])
def test_values_and_gradients_are_finite_where_norms_vanish(chapter, p, name):
    start = chapter.init_set if name == "deep_set" else chapter.init
    f, params = getattr(chapter, name), start(jax.random.key(3), 4)
    nothing = jnp.zeros_like(p)  # jets without particles
    alike = jnp.broadcast_to(p[5:6, :1], p.shape)  # sixteen equal particles
    resting = jnp.zeros_like(p).at[..., 0].set(1.0)  # of no momentum
    single = jnp.zeros_like(p).at[:, 0].set(p[:, 0])
    derivatives = jax.jit(jax.value_and_grad(lambda params, p: f(params, p).sum(), (0, 1)))
    for jets in (p, nothing, alike, single):
        assert finite(derivatives(params, jets))
    if name == "lorentz":  # at rest there is no η
        assert finite(derivatives(params, resting))


def test_single_precision_stays_and_is_near(chapter, lorentz, params, p):
    low = jax.tree.map(lambda a: a.astype(np.float32), params)
    answers = lorentz(low, p.astype(np.float32))
    assert answers.dtype == np.float32
    exact = lorentz(params, p)
    assert float(jnp.abs(answers - exact)[2:].max()) < 0.02 * float(jnp.abs(exact).max())


def test_products_and_masses_are_those_of_physics(chapter):
    photon, at_rest = jnp.array([5.0, 0, 3, 4]), jnp.array([2.0, 0, 0, 0])
    assert float(chapter.product(photon, photon)[0]) == 0
    assert float(chapter.product(photon, at_rest)[0]) == 10
    pair = jnp.array([[[5.0, 0, 0, 5], [5, 0, 0, -5]]])  # two photons back to back
    assert float(chapter.mass(pair)[0]) == 10
    fast = chapter.boost(np.arctanh(0.6), jnp.array([1.0, 0, 0])) @ at_rest
    np.testing.assert_allclose(fast, [2.5, 1.5, 0, 0], atol=1e-14)
