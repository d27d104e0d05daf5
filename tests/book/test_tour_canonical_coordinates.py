"""The network of the chapter on canonical coordinates, tried more widely than the chapter can."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import canonical_coordinates as stored
from nteq.actions import on_images
from nteq.datasets import digits
from nteq.groups import cyclic

jax.config.update("jax_enable_x64", True)

STEP = np.exp(2j * np.pi / 32)


@pytest.fixture(scope="module")
def chapter(definitions):
    return definitions("canonical_coordinates")


@pytest.fixture(scope="module")
def params():
    """Random ones, biases too."""
    params = stored.init(jax.random.key(0), 16, True)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [a + 0.1 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="module")
def pictures():
    """Digits, noise, and a dot that is not in the middle."""
    noise = jax.random.uniform(jax.random.key(2), (4, 28, 28))
    return jnp.concatenate(
        [digits()[0][:6, ..., 0], noise, jnp.zeros((1, 28, 28)).at[0, 5:7, 9:11].set(1)], dtype=float
    )


@pytest.fixture(scope="module")
def found(chapter, params):
    return jax.jit(lambda x, a: chapter.pose(params, chapter.see(x, jnp.full(len(x), a))))


@pytest.fixture(scope="module")
def scores(chapter, params):
    return jax.jit(lambda x, a: chapter.answer(params, x, jnp.full(len(x), a)))


@pytest.mark.parametrize("places", [1, 7, 16, 31])
@pytest.mark.parametrize("scale", [0.6, 1.0])
def test_the_pose_follows_whole_steps_and_the_answer_stays(found, scores, pictures, places, scale):
    a = scale + 0j
    assert np.abs(found(pictures, a * STEP**places) / found(pictures, a) / STEP**places - 1).max() < 1e-11
    before = scores(pictures, a)
    assert np.abs(scores(pictures, a * STEP**places) - before).max() < 1e-10 * np.abs(before).max()


def test_quarter_turns_of_the_pixels_are_exact_and_eighth_turns_are_not(found, scores, pictures):
    for g in range(4):
        turned = on_images(cyclic(4))(g, pictures[..., None])[..., 0]
        assert np.abs(found(turned, 1 + 0j) / found(pictures, 1 + 0j) - 1j**g).max() < 1e-11
        assert np.abs(scores(turned, 1 + 0j) - scores(pictures, 1 + 0j)).max() < 1e-9
    eighth = on_images(cyclic(8))(1, pictures[..., None])[..., 0]
    assert np.abs(found(eighth, 1 + 0j) / found(pictures, 1 + 0j) / STEP**4 - 1).max() > 1e-3


def test_the_pose_follows_scales_as_long_as_nothing_is_at_the_rims(chapter, params):
    # a ring of features in the middle of the grid, moved by whole circles without a loss
    p = jnp.zeros((1, 32, 32)).at[0, 16:18, 3:9].set(jax.random.uniform(jax.random.key(3), (2, 6)))
    at = jax.jit(lambda p: chapter.pose(params, p))
    step = 2 * np.pi / 32

    def pose_of(moved):
        # a grid of 32 circles and 32 angles: the chapter's with more room
        chapter_grid = chapter.pose.__globals__["grid"]
        wide = lambda angles=32: jnp.log(2) + step * (jnp.arange(-31, 1)[:, None] + 1j * jnp.arange(angles))
        chapter.pose.__globals__["grid"] = wide
        try:
            return at(moved)
        finally:
            chapter.pose.__globals__["grid"] = chapter_grid

    for circles in (-6, 3, 6):
        ratio = pose_of(jnp.roll(p, circles, 1)) / pose_of(p)
        assert np.abs(ratio / np.exp(circles * step) - 1).max() < 1e-11


def test_zero_padding_and_a_pose_from_the_ordinary_mean_break_it(chapter, params, pictures):
    see = lambda a: chapter.see(pictures, jnp.full(len(pictures), a))
    broken = lambda a: chapter.pose(params, see(a), chapter.broken)
    assert np.abs(broken(STEP**5) / broken(1 + 0j) / STEP**5 - 1).max() > 0.1
    s = jax.random.uniform(jax.random.key(4), (5, 32))
    assert np.abs(chapter.direction(jnp.roll(s, 5, 1)) / chapter.direction(s) / STEP**5 - 1).max() < 1e-12


@pytest.mark.parametrize("picture", ["blank", "even disc", "digit"])
def test_gradients_are_finite_also_where_no_direction_is_preferred(chapter, params, pictures, picture):
    row = (jnp.arange(28) - 13.5) ** 2
    x = {
        "blank": jnp.zeros((2, 28, 28)),
        "even disc": jnp.tile(1.0 * (row + row[:, None] < 90), (2, 1, 1)),
        "digit": pictures[:2],
    }
    x = x[picture]
    loss = lambda params, x: chapter.answer(params, x, jnp.ones(len(x), complex)).var()
    value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
    assert np.isfinite(value) and all(np.isfinite(a).all() for a in jax.tree.leaves(slopes))
    assert np.isfinite(chapter.pose(params, chapter.see(x, jnp.ones(len(x), complex)))).all()


def test_a_batch_is_its_images_one_by_one(scores, pictures):
    together = scores(pictures, 0.8j)
    apart = np.concatenate([scores(picture[None], 0.8j) for picture in pictures[:3]])
    assert np.abs(together[:3] - apart).max() < 1e-12


def test_single_precision_stays_single_and_near(chapter, params, pictures, scores):
    single = partial(jax.tree.map, lambda a: jnp.asarray(a, jnp.float32))
    a = jnp.ones(6, jnp.complex64)
    low = chapter.answer(single(params), pictures[:6].astype(jnp.float32), a)
    high = scores(pictures[:6], 1 + 0j)
    assert np.abs(low - high).max() < 1e-3 * np.abs(high).max()


def test_the_chapter_and_the_experiment_have_the_same_network(chapter, params, pictures):
    a = jnp.exp(0.3 + 1.1j) * jnp.ones(len(pictures), complex)
    p = chapter.see(pictures, a)
    assert np.abs(p - stored.see(pictures, a)).max() < 1e-12
    assert np.abs(chapter.pose(params, p) - stored.pose(params, p)).max() < 1e-12
    for again, how in ((True, "learned"), (False, None)):
        ours, theirs = chapter.answer(params, pictures, a, again), stored.answer(params, pictures, a, how)
        assert np.abs(ours - theirs).max() < 1e-11
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    assert shapes(chapter.init(0)) == shapes(params)


def test_the_pose_by_moments_follows_as_well_and_the_nearest_image_is_found_in_any_turn(pictures):
    ones = jnp.ones(len(pictures), complex)
    at = lambda a: stored.moments(stored.see(pictures, ones * a))
    assert np.abs(at(STEP**5) / at(1.0) / STEP**5 - 1).max() < 1e-12
    own = np.arange(len(pictures))
    assert (stored.nearest(pictures, own, pictures, ones * STEP**11) == own).all()
