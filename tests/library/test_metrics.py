import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, kstest, norm, ttest_1samp

from nteq.actions import matrices_of, on_lattices, on_vectors, orbit
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic, octahedral
from nteq.ising import energy, gaussian_lattices, metropolis
from nteq.kernels import mlp_kernel
from nteq.metrics import (
    equivariance_defect,
    equivariance_error,
    members_needed,
    orbit_same_prediction,
    relative_std,
    sub_ensembles,
    symmetry_test,
)


@given(st.integers(2, 9), st.integers(0, 2**31))
def test_relative_std_is_numpys_and_ignores_scale(order, seed):
    f = np.random.default_rng(seed).normal(size=(order, 3, 2)) + 10
    np.testing.assert_allclose(relative_std(f), np.std(f, axis=0) / np.abs(np.mean(f, axis=0)), rtol=1e-12)
    np.testing.assert_allclose(relative_std(-7 * f), relative_std(f), rtol=1e-12)


def test_an_invariant_model_has_none():
    np.testing.assert_array_equal(relative_std(np.full((4, 5), 3.0)), 0)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (np.ones((1, 3)), "at least two orbit elements"),
        (np.float64(1.0), "at least two orbit elements"),
        (np.ones((4, 0)), "at least two orbit elements"),
        (np.array([1.0, np.nan]), "not finite"),
        (np.array([[1.0, 1.0], [-1.0, 1.0]]), "mean over the orbit is zero"),
        (np.zeros((4, 2)), "mean over the orbit is zero"),
    ],
)
def test_bad_input_is_named(predictions, message):
    with pytest.raises(ValueError, match=message):
        relative_std(predictions)


@given(st.integers(2, 9), st.integers(2, 5), st.integers(0, 2**31))
def test_orbit_same_prediction_counts_agreement_with_the_identity(order, classes, seed):
    rng = np.random.default_rng(seed)
    logits, identity = rng.normal(size=(order, 3, classes)), int(rng.integers(order))
    counted = [
        sum(np.argmax(logits[g, i]) == np.argmax(logits[identity, i]) for g in range(order)) / order
        for i in range(3)
    ]
    np.testing.assert_allclose(orbit_same_prediction(logits, identity), counted, rtol=1e-12)


def test_the_cross_product_is_equivariant_and_its_absolute_value_is_not():
    group = octahedral()
    x = np.random.default_rng(0).normal(size=(6, 2, 3))
    images = np.asarray(orbit(on_vectors(group), x))
    cross = np.cross(images[..., 0, :], images[..., 1, :])
    matrices = matrices_of(on_vectors(group), 3)
    np.testing.assert_allclose(equivariance_error(cross, matrices), 0, atol=1e-14)
    assert (np.asarray(equivariance_error(cross)) > 0.9).all()  # it turns, so it is not invariant
    assert (np.asarray(equivariance_error(np.abs(cross), matrices)) > 0.5).all()


def test_equivariance_error_uses_the_inverse():
    group = cyclic(3)  # where ρ(g) and ρ(g)⁻¹ differ
    matrices = matrices_of(on_vectors(group), 2)
    predictions = np.einsum("gij,nj->gni", matrices, np.random.default_rng(1).normal(size=(5, 2)))
    np.testing.assert_allclose(equivariance_error(predictions, matrices), 0, atol=1e-14)
    assert (np.asarray(equivariance_error(predictions, matrices.transpose(0, 2, 1))) > 0.5).all()


def test_sub_ensembles_follow_one_over_root_m_within_their_error_bars():
    # for members of independent normal noise around 10 the squared deviation over four points is 3/4 of 1/M
    noise = np.random.default_rng(2).normal(size=(1024, 4, 200))
    mean_square = lambda f: ((f - f.mean(0)) ** 2).mean(0)
    sizes = [1, 4, 16, 64]
    value, error = sub_ensembles(mean_square, 10 + noise, sizes)
    z = (value - 0.75 / np.array(sizes)) / error
    assert (np.abs(z) < 4).all() and (error < 0.1 * value).all() and (error > 0).all()


def test_sub_ensembles_of_all_members_is_the_metric_of_the_ensemble():
    f = 5 + np.random.default_rng(3).normal(size=(7, 4, 3))
    value, _ = sub_ensembles(relative_std, f, [7, 1], resamples=2)
    np.testing.assert_allclose(value[0], np.mean(relative_std(f.mean(0))), rtol=1e-12)
    np.testing.assert_allclose(value[1], np.mean([relative_std(one) for one in f]), rtol=1e-12)


def test_the_error_bar_of_a_mean_is_its_standard_error_even_from_two_resamples():
    # of a linear metric at M = 1 the bootstrap's variance is that of the given members over their number,
    # on average over the draws, whatever the number of resamples: that is what dividing by one less is for
    f = np.random.default_rng(4).normal(size=(6, 1))
    square = [sub_ensembles(jnp.mean, f, [1], resamples=2, seed=seed)[1][0] ** 2 for seed in range(300)]
    right, chance = f.var() / len(f), np.std(square, ddof=1) / len(square) ** 0.5
    assert abs(np.mean(square) - right) < 4 * chance
    assert right / 2 > 4 * chance  # dividing by the number itself, half of it, would be seen


def test_a_metric_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match="metric is not finite"):
        sub_ensembles(relative_std, np.array([[1.0, 2.0], [-1.0, -2.0]]), [2])


MEASURES = {
    "relative_std": relative_std,
    "orbit_same_prediction": orbit_same_prediction,
    "equivariance_error": equivariance_error,
    "sub_ensembles": lambda f: sub_ensembles(lambda a: a.std(0), f, [1, 2], resamples=3)[0],
    "members_needed": lambda f: members_needed(f, 0.5).upper,
}


@pytest.mark.parametrize("name", MEASURES)
def test_measures_look_at_what_is_known_inside_of_a_trace(name):
    measure, f = MEASURES[name], np.random.default_rng(0).integers(1, 9, (4, 3, 2))
    for known in (f, f.astype(float), jnp.asarray(f)):
        np.testing.assert_allclose(
            jax.jit(lambda w, known=known: w * measure(known))(2.0), 2 * measure(f), rtol=1e-12
        )
    with pytest.raises(ValueError, match="predictions has entries that are not finite"):
        jax.jit(lambda w: w * measure(f * np.nan))(2.0)


@pytest.mark.parametrize("name", ["relative_std", "orbit_same_prediction", "equivariance_error"])
def test_measures_of_traced_predictions_are_those_of_known_ones(name):
    f = np.random.default_rng(0).normal(size=(4, 3, 2)) + 3
    np.testing.assert_allclose(jax.jit(MEASURES[name])(f), MEASURES[name](f), rtol=1e-12)
    direction = np.random.default_rng(1).normal(size=f.shape)
    if name != "orbit_same_prediction":  # the scaling inside has no part in the gradient
        slope = (MEASURES[name](f + 1e-6 * direction) - MEASURES[name](f - 1e-6 * direction)) / 2e-6
        _, tangent = jax.jvp(MEASURES[name], (jnp.asarray(f),), (jnp.asarray(direction),))
        np.testing.assert_allclose(tangent, slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, bool, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_integers_booleans_and_half_precision_are_those_of_floats(name, kind):
    f = np.random.default_rng(5).integers(0, 2, (4, 3, 2))
    f[0] = 1  # no orbit and no mean is zero
    f = f * (1 if kind is bool else -128 if kind is np.int8 else 100)
    np.testing.assert_allclose(
        MEASURES[name](f.astype(kind)), MEASURES[name](f.astype(float)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("name", MEASURES)
def test_measures_work_with_strict_promotion_in_both_precisions(name, wide):
    with (
        jax.enable_x64(wide),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        f = np.random.default_rng(0).normal(size=(4, 3, 2)) + 3
        assert np.isfinite(MEASURES[name](f)).all()
        turns = matrices_of(on_vectors(cyclic(4)), 2)
        assert equivariance_error(f, np.asarray(turns)).shape == (3,)
        assert members_needed(f[None, :].repeat(3, 0), 0.5, np.asarray(turns, int)).members.shape == (3,)


@pytest.mark.parametrize(("kind", "largest"), [(np.float32, 127), (np.float64, 1023)])
def test_the_size_of_predictions_does_not_matter(kind, largest):
    # powers of two up to the ends of the range, where squares are no numbers: the same to the last bit
    f = (np.random.default_rng(6).uniform(0.5, 1, size=(5, 40, 3))).astype(kind)
    scales = 2.0 ** np.linspace(2 - largest, largest, 40).round()[:, None]
    for measure in (relative_std, equivariance_error, orbit_same_prediction):
        np.testing.assert_array_equal(measure((f * scales).astype(kind)), measure(f))
    few = np.broadcast_to(scales, (40, 1))  # one at a time: a tolerance is in their units
    for i in (0, 20, 39):
        needed = members_needed(f * float(few[i, 0]), 0.01 * float(few[i, 0]))
        np.testing.assert_array_equal(needed.upper, members_needed(f, 0.01).upper)


def test_predictions_below_the_smallest_normal_number_are_refused():
    for measure in (relative_std, equivariance_error):
        with pytest.raises(ValueError, match="zero"):
            measure(np.full((4, 2), 1e-40, np.float32))


def normal_members(seed, members, covariance, inputs):
    """Predictions (members, |G|, inputs) with this covariance on the orbit, and the v that belongs to it."""
    order = len(covariance)
    centre = np.eye(order) - 1 / order
    z = np.random.default_rng(seed).normal(size=(members, inputs, order))
    f = np.moveaxis(z @ np.linalg.cholesky(covariance).T, -1, 1)
    return f, np.trace(centre @ covariance @ centre) / order


def test_members_needed_is_the_variance_of_the_members_own_patterns_over_the_squared_tolerance():
    f = np.random.default_rng(0).normal(size=(7, 3, 5)) + np.arange(5)
    patterns = f - f.mean(1, keepdims=True)
    needed = members_needed(f, 0.2)
    np.testing.assert_array_equal(needed.members, np.ceil(patterns.var(0, ddof=1).mean(0) / 0.04))
    assert (needed.common == 0).all() and (needed.lower < needed.members).all()
    assert (needed.members < needed.upper).all() and np.isfinite(needed.upper).all()
    # a tolerance relative to the mean, as the docstring says
    mean = np.abs(f.mean((0, 1)))
    for i in range(5):
        np.testing.assert_array_equal(
            members_needed(f / mean, 0.2).members[i], members_needed(f[..., i], 0.2 * mean[i]).members
        )


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize(("members", "order"), [(3, 2), (10, 4), (40, 4), (40, 8)])
def test_the_interval_covers_the_right_number_as_often_as_it_says(members, order, confidence):
    A = np.random.default_rng(order).normal(size=(order, order))
    repeats = 4000
    f, v = normal_members(1, members, A @ A.T + 0.1 * np.eye(order), repeats)
    tolerance = (v / 1000.5) ** 0.5
    needed = members_needed(f, tolerance, confidence=confidence)
    covered = ((needed.lower <= 1001) & (needed.upper >= 1001)).sum()
    assert binom.cdf(covered, repeats, confidence) > 3e-5  # z = −4
    if members > 20:  # and is not wider than it has to be
        assert binom.sf(covered, repeats, confidence + 0.03) > 3e-5
    assert (needed.common > 0).sum() <= binom.isf(3e-5, repeats, 1e-3)  # false alarms


def test_heavy_tails_widen_the_interval():
    f, _ = normal_members(2, 60, np.eye(4), 500)
    heavy = f / np.sqrt(np.random.default_rng(3).chisquare(5, size=(60, 1, 500)) / 3)
    width = lambda f: np.median(np.divide(*members_needed(f, 0.01)[2:0:-1]))
    assert width(heavy) > 1.15 * width(f)


@pytest.mark.parametrize("shape", [(4, 2), (2, 4)])
def test_what_members_have_in_common_no_number_of_them_removes(shape):
    order, _ = shape
    f, v = normal_members(4, 50, np.eye(order), 400)
    pattern = np.resize([1.0, -1.0], order)[:, None]  # of standard deviation 1 over the orbit
    needed = members_needed(f + pattern, 0.9)
    assert np.isinf(needed.upper).all() and (np.isinf(needed.members).mean()) > 0.8
    covered = np.isinf(needed.upper).mean()
    assert covered > 0.95
    np.testing.assert_allclose(np.median(needed.common), 1, atol=0.03)
    shown, noise = f + pattern, (f - f.mean(1, keepdims=True)).var(0, ddof=1).mean(0) / 50
    np.testing.assert_allclose(needed.common**2, shown.mean(0).var(0) - noise, rtol=1e-10)
    # above it the rest is left for the members' own patterns
    room = members_needed(f + pattern, 1.5)
    right = np.ceil(v / (1.5**2 - 1))
    assert ((room.lower <= right) & (right <= room.upper)).mean() > 0.95
    # without any scatter there is nothing to estimate
    alike = members_needed(np.ones((5, 1, 1)) * pattern, 0.9)
    assert (np.isinf(alike.lower)).all() and alike.common == 1
    assert members_needed(np.ones((5, order, 1)), 1e-9) == (1, 1, 1, 0)


def test_members_needed_compares_outputs_that_move_after_they_are_moved_back():
    group = cyclic(3)
    turns = np.asarray(matrices_of(on_vectors(group), 2))
    a = np.random.default_rng(7).normal(size=(20, 3, 6, 2))  # what would be the same on an orbit
    f = np.einsum("gij,mgnj->mgni", turns, a + np.array([3.0, 4.0]))
    needed = members_needed(f, 0.1, turns)
    patterns = a - a.mean(1, keepdims=True)
    np.testing.assert_array_equal(needed.members, np.ceil(patterns.var(0, ddof=1).sum(-1).mean(0) / 0.01))
    assert (needed.common == 0).all()
    still = members_needed(f, 0.1)
    assert still.members.shape == (6, 2) and np.isinf(still.members).all()  # it turns, so it is not invariant


@pytest.mark.slow
def test_members_needed_finds_what_the_infinite_ensemble_says():
    kernel = mlp_kernel(1, "relu", W_std=2**0.5, b_std=0.3)
    rotations, size, t = on_lattices(cyclic(4)), 4, 20.0
    spins = metropolis(jax.random.key(0), 4, size, 0.4, sweeps=50)
    far = gaussian_lattices(jax.random.key(1), 12, size)
    flow = GradientFlow.augmented(kernel, spins, energy(spins), rotations)
    asked = orbit(rotations, far).reshape(-1, size, size)
    right = np.asarray(flow.orbit_variance(far, t)) / 0.05**2
    virtual = np.asarray(flow.sample(jax.random.key(2), asked, t, 60)).reshape(60, 4, 12)
    needed = members_needed(virtual, 0.05)
    assert (needed.common == 0).all()
    covered = ((needed.lower <= right) & (right <= needed.upper)).sum()
    assert binom.cdf(covered, 12, 0.95) > 1e-3
    np.testing.assert_allclose(needed.members.sum(), right.sum(), rtol=0.15)
    # and so many do bring it down
    many = np.asarray(flow.sample(jax.random.key(3), asked, t, int(needed.upper.max()))).reshape(-1, 4, 12)
    assert many.mean(0).std(0).mean() < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orbit_same_prediction(np.ones((4, 3, 1))), "at least two classes"),
        (lambda: orbit_same_prediction(np.ones((4, 3)), identity=4), "index into the 4 orbit elements"),
        (
            lambda: orbit_same_prediction(np.ones((4, 3)), identity=-1),
            "identity must be an integer of at least 0",
        ),
        (lambda: orbit_same_prediction(np.full((4, 3), np.inf)), "not finite"),
        (lambda: equivariance_error(np.ones((4, 2, 3)), np.ones((4, 2, 2))), r"\(4, 3, 3\)"),
        (lambda: equivariance_error(np.zeros((4, 2, 3))), "zero on the whole orbit"),
        (lambda: equivariance_error(np.ones(4)), r"\(\|G\|, \.\.\., outputs\)"),
        (lambda: equivariance_error(np.ones((4, 2, 3)), np.zeros((4, 3, 3))), "without an inverse"),
        (lambda: relative_std(1j * np.ones((4, 2))), "predictions must hold real numbers"),
        (lambda: members_needed(np.ones(5), 0.1), r"\(members, \|G\|"),
        (lambda: members_needed(np.ones((1, 4)), 0.1), "at least two members"),
        (lambda: members_needed(np.ones((4, 1)), 0.1), "at least two orbit elements"),
        (lambda: members_needed(np.ones((4, 4)), 0), "tolerance must be positive"),
        (lambda: members_needed(np.ones((4, 4)), [0.1, 0.2]), r"tolerance must be .* got shape \(2,\)"),
        (lambda: members_needed(np.ones((4, 4)), 0.1, confidence=1.0), "confidence must be below 1"),
        (
            lambda: members_needed(np.ones((4, 4)), 0.1, np.ones((4, 1, 1))),
            r"\(members, \|G\|, \.\.\., outputs\)",
        ),
        (lambda: members_needed(np.ones((3, 4, 2)), 0.1, np.ones((4, 1, 1))), r"must have shape \(4, 2, 2\)"),
        (lambda: sub_ensembles(relative_std, np.ones(5), [1]), r"\(members, \|G\|"),
        (lambda: sub_ensembles(relative_std, np.ones((5, 4)), [6]), "sizes must be at most 5, got 6"),
        (lambda: sub_ensembles(relative_std, np.ones((5, 4)), [0]), "sizes must be an integer of at least 1"),
        (lambda: sub_ensembles(relative_std, np.ones((5, 4)), [1], resamples=1), "at least 2"),
        (lambda: sub_ensembles(relative_std, np.full((5, 4), np.nan), [1]), "not finite"),
    ],
)
def test_bad_input_of_the_other_measures_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_z_score_is_students_t_of_the_deviations_from_the_mean_over_the_orbit():
    f = np.random.default_rng(0).normal(size=(40, 4, 3)) + np.arange(3)
    found = symmetry_test(f, resamples=99)
    own = f - f.mean(1, keepdims=True)
    t = ttest_1samp(own, 0)
    np.testing.assert_allclose(found.deviation, own.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.error, own.std(0, ddof=1) / 40**0.5, rtol=1e-10)
    # the same tail as a normal variable's, to the accuracy of Wallace's formula
    np.testing.assert_allclose(2 * norm.sf(np.abs(found.z)), t.pvalue, rtol=5e-3)
    np.testing.assert_array_equal(np.sign(found.z), np.sign(t.statistic))


@pytest.mark.parametrize("skewed", [False, True])
def test_p_is_uniform_if_the_mean_is_equivariant(skewed):
    """Of 500 ensembles, whose answers at different inputs depend on each other."""
    rng = np.random.default_rng(1)
    members = 150 if skewed else 20
    turns = np.asarray(cyclic(4).matrices)
    mix = rng.normal(size=(3, 12))
    p = []
    for seed in range(500):
        drawn = rng.exponential(size=(members, 4, 3, 2)) if skewed else rng.normal(size=(members, 4, 3, 2))
        answers = np.einsum("mgko,ki->mgio", drawn, mix)
        moved = np.einsum("gab,mgib->mgia", turns, answers + np.array([1.0, -2.0]))
        p.append(symmetry_test(moved, turns, resamples=199, seed=seed).p)
    assert kstest(p, "uniform").pvalue > 1e-3
    assert np.mean(np.array(p) <= 0.05) < 0.09


def test_the_test_finds_the_asymmetry_that_its_standard_errors_allow_it_to_find():
    rng = np.random.default_rng(2)
    pattern = np.array([1.0, -1.0, 0.0, 0.0])[:, None] * (np.arange(20) == 7)  # at one input of twenty
    members = lambda shift: rng.normal(size=(400, 4, 20)) + shift * pattern
    found = [symmetry_test(members(0.5), resamples=499, seed=seed) for seed in range(20)]
    assert np.median([f.p for f in found]) < 1e-10 and max(f.p for f in found) < 1e-4
    assert all(np.abs(f.z).argmax() % 20 == 7 for f in found)
    unseen = [symmetry_test(members(0.02), resamples=199, seed=seed).p for seed in range(40)]
    assert np.mean(np.array(unseen) < 0.05) < 0.3  # 0.4 standard errors: not to be seen


def test_labels_that_move_are_compared_after_they_are_moved_back():
    rng = np.random.default_rng(3)
    turns = np.asarray(cyclic(4).matrices)
    answers = np.einsum("gab,mgib->mgia", turns, rng.normal(size=(500, 4, 6, 2)) + np.array([1.0, 2.0]))
    assert symmetry_test(answers, turns).p > 0.01
    assert symmetry_test(answers).p < 1e-15  # without the matrices the vectors point elsewhere


def test_deviations_within_rounding_are_none():
    rng = np.random.default_rng(4)
    turned = np.repeat(rng.normal(size=(3000, 1, 5)).astype(np.float32), 4, axis=1)
    turned[:, 1] *= 1 + np.finfo(np.float32).eps  # always in the same direction
    found = symmetry_test(turned)
    assert found.p == 1 and (found.z == 0).all()
    longer = np.array([1, 1.001, 1, 1], np.float32)[:, None]
    assert symmetry_test(turned * longer).p > 1e-3  # answers of either sign, whose mean is zero
    assert symmetry_test(np.abs(turned) * longer).p < 1e-10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symmetry_test(np.ones((7, 4, 3))), "at least eight members"),
        (lambda: symmetry_test(np.ones((9, 1, 3))), "two orbit elements"),
        (lambda: symmetry_test(np.full((9, 4, 3), np.nan)), "not finite"),
        (lambda: symmetry_test(np.ones((9, 4, 3, 2)), np.ones((4, 3, 3))), r"shape \(4, 2, 2\)"),
        (lambda: symmetry_test(np.ones((9, 4, 3)), resamples=10), "resamples"),
    ],
)
def test_what_cannot_be_tested_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def rotated(state, Q):
    return {"place": state["place"] @ Q.T, "mass": state["mass"]}


def torque_and_energy(state):
    place, mass = state["place"], state["mass"]
    force = -place * (mass * (place**2).sum(1))[:, None]
    return {"force": force, "energy": (mass * (place**2).sum(1) ** 2).sum()}


def test_the_defect_of_a_tree_sees_each_of_its_arrays():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    state = {"place": rng.normal(size=(5, 3)), "mass": rng.uniform(1, 2, 5)}
    turn = lambda state: rotated(state, Q)
    turn_output = lambda out: out | {"force": out["force"] @ Q.T}
    assert equivariance_defect(torque_and_energy, state, turn, turn_output) < 1e-14
    # a small array counts as much as a large one, and forces that should have turned are told
    small = lambda state: torque_and_energy(state) | {"energy": 1e-9 * state["place"].sum()}
    assert equivariance_defect(small, state, turn, turn_output) > 0.1
    assert equivariance_defect(torque_and_energy, state, turn) > 0.1


def test_the_defect_is_relative_symmetric_and_complete():
    x = np.array([1.0, -2.0])
    twice = lambda x: 2 * x
    assert equivariance_defect(lambda x: x, x, twice) == 0.5  # |2x − x| over |2x|
    assert equivariance_defect(lambda x: x, x, lambda x: -x) == 2
    assert equivariance_defect(lambda x: 0 * x, x, twice) == 0
    assert equivariance_defect(lambda x: x - x[0] * (x[0] == 1), x, twice) == 0.5  # (2, −4) for (0, −3)
    # phases are no numbers: |iψ − ψ| = √2 |ψ|
    psi = np.array([1.0, 1j]) / 2**0.5
    np.testing.assert_allclose(equivariance_defect(lambda x: x, psi, lambda x: 1j * x), 2**0.5)
    assert equivariance_defect(lambda x: abs(x) ** 2, psi, lambda x: 1j * x) < 1e-15


@pytest.mark.parametrize(
    ("f", "move_output", "message"),
    [
        (lambda x: x[x > 0], None, r"same structure and shapes, got \(1,\) and \(2,\)"),
        (lambda x: x, lambda y: (y, y), r"got \(3,\) and \(\(3,\), \(3,\)\)"),
        (lambda x: 1 / (x + 1), None, "not finite"),
        (lambda x: [], None, "got none"),
        (lambda x: x[:0], None, "got none"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_defect_that_cannot_be_told_is_an_error(f, move_output, message):
    with pytest.raises(ValueError, match=message):
        equivariance_defect(f, np.array([1.0, -1.0, 2.0]), lambda x: -x, move_output)


def test_a_defect_of_traced_values_is_an_error():
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda x: equivariance_defect(lambda x: x, x, lambda x: -x))(jnp.ones(2))
