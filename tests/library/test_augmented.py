"""The augmented ensemble against the same written out: every image in the training set, by NumPy alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nteq import gradient_flow
from nteq.actions import (
    Action,
    direct_product,
    matrices_of,
    on_channels,
    on_images,
    on_lattices,
    on_sets,
    on_vectors,
    orbit,
)
from nteq.averages import invariance_defect, orbit_average
from nteq.compat import stax
from nteq.fourier import irreps
from nteq.gradient_flow import GradientFlow
from nteq.groups import FiniteGroup, cyclic, dihedral, octahedral, symmetric
from nteq.kernels import Kernels, from_stax, mlp_kernel
from nteq.metrics import relative_std

TIMES = np.array([0, 1e-3, 1, 1e3, np.inf])
relu, erf = mlp_kernel(2, "relu", 1.5, 0.2), mlp_kernel(1, "erf", 1.5, 0.2)


@jax.jit
def laplace(x1, x2):
    """Invariant under all that keeps distances, well conditioned, and compiled in no time."""
    x1, x2 = (x.reshape(len(x), -1) for x in (x1, x2))
    distance = jnp.sqrt(((x1[:, None] - x2[None]) ** 2).mean(-1))
    return Kernels(jnp.exp(-distance), jnp.exp(-distance / 2) + jnp.exp(-2 * distance))


cnn = from_stax(
    stax.serial(
        stax.Conv(1, (3, 3), padding="CIRCULAR", W_std=1.5, b_std=0.2),
        stax.Erf(),
        stax.GlobalAvgPool(),
        stax.Dense(1, W_std=1.5, b_std=0.2),
    )[2]
)
flat_cnn = from_stax(
    stax.serial(
        stax.Conv(1, (3, 3), padding="SAME", W_std=1.5), stax.Erf(), stax.Flatten(), stax.Dense(1, b_std=0.2)
    )[2]
)
# the unit quaternions ±1, ±i, ±j, ±k by left multiplication: a representation of quaternionic kind; −1 comes
# first, so that the identity is not the first element
one, i, j = np.eye(4), np.kron([[0, -1], [1, 0]], np.eye(2)), np.kron([[1, 0], [0, -1]], [[0, -1], [1, 0]])
units = np.stack([-one, one, i, -i, j, -j, i @ j, -i @ j])
quaternions = FiniteGroup(
    [[int(np.argmin(np.abs(units - a @ b).sum((1, 2)))) for b in units] for a in units], "Q8", matrices=units
)
by_quaternions = Action(quaternions, lambda g, x: x @ jnp.asarray(units)[g].T, name="quaternions")
CASES = {
    "C2, lattices": (laplace, on_lattices(cyclic(2)), None, (4, 4)),
    "C4, lattices": (laplace, on_lattices(cyclic(4)), None, (4, 4)),
    "C4, lattices, erf": (erf, on_lattices(cyclic(4)), None, (4, 4)),
    "C4, lattices, planar labels": (laplace, on_lattices(cyclic(4)), on_vectors(cyclic(4)), (4, 4)),
    "D4, lattices": (relu, on_lattices(dihedral(4)), None, (4, 4)),
    "D4, lattices, planar labels": (laplace, on_lattices(dihedral(4)), on_vectors(dihedral(4)), (4, 4)),
    "D4, images, CNN": (flat_cnn, on_images(dihedral(4)), None, (4, 4, 2)),
    "C4, images, CNN, planar labels": (flat_cnn, on_images(cyclic(4)), on_vectors(cyclic(4)), (4, 4, 1)),
    "S3, sets": (laplace, on_sets(symmetric(3)), None, (3, 4)),
    "S3, sets, permuted labels": (laplace, on_sets(symmetric(3)), on_sets(symmetric(3)), (3, 4)),
    "C4 and translations, lattices": (laplace, on_lattices(cyclic(4), translations=3), None, (3, 3)),
    "C5, planar vectors": (laplace, on_vectors(cyclic(5)), on_vectors(cyclic(5)), (2, 2)),
    "Q8, quaternions": (laplace, by_quaternions, by_quaternions, (2, 4)),
    "C3, channels": (laplace, on_channels(cyclic(3)), on_channels(cyclic(3)), (2, 3)),
    "S2 and C3, sets of planar vectors": (
        laplace,
        direct_product(on_sets(symmetric(2)), on_vectors(cyclic(3))),
        None,
        (2, 2),
    ),
    "octahedral, vectors": (laplace, on_vectors(octahedral()), None, (4, 3)),
    "octahedral, vector labels": (laplace, on_vectors(octahedral()), on_vectors(octahedral()), (4, 3)),
}
# one of each kind of label, irrep and group table; the kernels of networks are among the others
FIRST = {
    "C4, lattices",
    "D4, lattices, planar labels",
    "C4, images, CNN, planar labels",
    "S3, sets, permuted labels",
    "Q8, quaternions",
    "octahedral, vector labels",
}
cases = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=() if name in FIRST else pytest.mark.slow)
        for name, case in CASES.items()
    ],
)


def problem(case, seed, n=3, tests=3):
    _, _, label_action, shape = case
    draw = np.random.default_rng(seed)
    x, far = draw.normal(size=(n, *shape)), 3 * draw.normal(size=(tests, *shape))
    outputs = () if label_action is None else (shape_of(label_action),)
    return x, draw.normal(size=(n, *outputs)), np.concatenate([x[:1], far])


def shape_of(label_action):
    group = label_action.group
    if label_action.name.startswith("on_channels"):
        return group.order
    return (group.matrices if group.matrices is not None else group.permutations).shape[1]


def images_of(case, x, y):
    _, action, label_action, _ = case
    many = np.concatenate(orbit(action, x))
    moved = np.concatenate(orbit(label_action, y) if label_action else [y] * action.group.order)
    return many, moved


def written_out(kernel, x, y, x_test, t, rate=1.0):
    """μ_t and Σ_t by the formulas of the class, on these training points."""
    gram, row = kernel(x, x), kernel(x_test, x)
    lam, v = np.linalg.eigh(gram.ntk)
    null = lam <= len(lam) * np.finfo(float).eps * lam[-1]
    safe = np.where(null, 1, lam)
    phi = np.where(null, 0 if t == np.inf else rate * t / len(x), -np.expm1(-rate * safe * t / len(x)) / safe)
    a = (row.ntk @ v * phi) @ v.T
    cross = a @ row.nngp.T
    return a @ y, kernel(x_test, x_test).nngp + a @ gram.nngp @ a.T - cross - cross.T


def check_against_the_images_written_out(case, seed, n):
    kernel, action, label_action, _ = case
    x, y, x_test = problem(case, seed, n)
    many, moved = images_of(case, x, y)
    flow = GradientFlow.augmented(kernel, x, y, action, label_action)
    means, covariances = flow.mean(x_test, TIMES), flow.covariance(x_test, TIMES)
    for t, mean, covariance in zip(TIMES, means, covariances):
        expected, expected_covariance = written_out(kernel, many, moved, x_test, t)
        np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-10 * max(1, np.abs(y).max()))
        scale = np.abs(kernel(x_test, x_test).nngp).max()
        np.testing.assert_allclose(covariance, expected_covariance, rtol=0, atol=1e-10 * scale)


@cases
@settings(max_examples=3)
@given(seed=st.integers(0, 2**31))
def test_equal_to_the_images_written_out(case, seed):
    check_against_the_images_written_out(case, seed, 3)


@pytest.mark.slow  # every size compiles anew
@cases
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 4))
def test_equal_to_the_images_written_out_for_every_size(case, seed, n):
    check_against_the_images_written_out(case, seed, n)


@cases
def test_the_mean_is_equivariant_far_from_the_data_at_every_time(case):
    kernel, action, label_action, _ = case
    x, y, x_test = problem(case, 1)
    flow = GradientFlow.augmented(kernel, x, y, action, label_action)
    means = flow.mean(x_test, TIMES)
    for g in range(0, action.group.order, max(1, action.group.order // 6)):
        turned = flow.mean(action(g, x_test), TIMES)
        expected = means if label_action is None else means @ matrices_of(label_action, y.shape[1])[g].T
        np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-10 * np.abs(y).max())


def test_a_kernel_with_infinite_values_is_refused_without_a_warning():
    infinite = lambda a, b: Kernels(*[jnp.full((len(a), len(b)), jnp.inf)] * 2)
    assert np.isnan(invariance_defect(infinite, TURN, X))  # warnings are errors here
    with pytest.raises(ValueError, match=r"k\(x, x′\) by nan"):
        orbit_average(infinite, TURN)(X, X)


@pytest.mark.parametrize("group", [cyclic(4), dihedral(4)], ids=lambda group: group.name)
def test_inputs_of_another_number_compile_a_few_programs_whatever_the_group(compilations, group):
    turn = on_lattices(group)
    flow = GradientFlow.augmented(laplace, X, Y, turn)
    z = np.random.default_rng(2).normal(size=(9, *X.shape[1:]))
    flow.mean(z, TIMES), flow.variance(z, TIMES), relative_std(9 + orbit(turn, z))
    other = z[:8]
    assert compilations(lambda: flow.mean(other, TIMES)) <= 4
    assert compilations(lambda: flow.variance(other, TIMES)) <= 4 + 3 * len(irreps(group))
    assert compilations(lambda: relative_std(9 + orbit(turn, other))) <= 4


def test_interpolated_rotations_leave_the_mean_equivariant_under_those_that_are_exact_only():
    eighths, network = on_images(cyclic(8)), CASES["D4, images, CNN"][0]
    draw = np.random.default_rng(10)
    x, y, far = draw.normal(size=(3, 6, 6, 1)), draw.normal(size=3), 3 * draw.normal(size=(4, 6, 6, 1))
    with pytest.raises(ValueError, match="interpolates"):
        GradientFlow.augmented(network, x, y, eighths)
    flow = GradientFlow(network, np.concatenate(orbit(eighths, x)), np.tile(y, 8))
    before = flow.mean(far, 1e3)
    defects = [
        float(jnp.abs(flow.mean(eighths(g, far), 1e3) - before).max() / np.abs(y).max()) for g in range(8)
    ]
    assert max(defects[::2]) < 1e-10  # quarter turns permute the pixels and the images in the training set
    assert eighths.defect(far) > 0.1 and min(defects[1::2]) > 1e-3  # eighth turns do not


@cases
def test_orbit_variance_is_that_of_the_covariance_over_the_orbit(case):
    kernel, action, label_action, _ = case
    x, y, x_test = problem(case, 2, tests=1)
    flow = GradientFlow.augmented(kernel, x, y, action, label_action)
    order, inputs = action.group.order, len(x_test)
    images = np.concatenate(orbit(action, x_test))
    rho = np.ones((order, 1, 1)) if label_action is None else matrices_of(label_action, y.shape[1])
    for t in TIMES:
        sigma = np.asarray(flow.covariance(images, t)).reshape(order, inputs, order, inputs)
        # E |f_g|² − |mean of ρ(g)⁻¹f_g|², outputs independent and alike
        overlap = np.einsum("gab,hab->gh", rho, rho)
        for i in range(inputs):
            s = sigma[:, i, :, i]
            expected = rho.shape[1] * np.trace(s) / order - (overlap * s).sum() / order**2
            np.testing.assert_allclose(flow.orbit_variance(x_test, t)[i], expected, rtol=1e-8, atol=1e-11)


def test_orbit_variance_is_what_sampled_members_show():
    case = CASES["C4, lattices"]
    x, y, x_test = problem(case, 3, tests=1)
    flow = GradientFlow.augmented(case[0], x, y, case[1])
    images = np.concatenate(orbit(case[1], x_test))
    members = flow.sample(jax.random.key(0), images, 5.0, 4000).reshape(4000, 4, 2)
    spread = np.var(members, axis=1)  # over the orbit, for each member
    z = (spread.mean(0) - flow.orbit_variance(x_test, 5.0)) / (spread.std(0) / 4000**0.5)
    assert np.abs(z).max() < 4
    # the mean over M members fluctuates by 1/M of it
    groups = np.var(members.reshape(400, 10, 4, 2).mean(1), axis=1)
    z = (groups.mean(0) - flow.orbit_variance(x_test, 5.0) / 10) / (groups.std(0) / 400**0.5)
    assert np.abs(z).max() < 4
    z = (members.mean(0) - flow.mean(images, 5.0).reshape(4, 2)) / (members.std(0) / 4000**0.5)
    assert np.abs(z).max() < 4


@pytest.mark.parametrize("t", TIMES)
def test_a_lattice_equal_to_its_own_rotation_gives_the_right_finite_answer(t):
    x = np.ones((3, 4, 4))
    x[1, ::2, ::2] = x[1, 1::2, 1::2] = -1  # the chequerboard; the first is equal to all of its images
    x[2, 0, :2] = -1
    y, far = np.array([1.0, -1.0, 0.5]), np.random.default_rng(0).normal(size=(2, 4, 4))
    case = CASES["C4, lattices"]
    many, moved = images_of(case, x, y)
    flow = GradientFlow.augmented(case[0], x, y, case[1])
    mean, covariance = written_out(case[0], many, moved, far, t)
    np.testing.assert_allclose(flow.mean(far, t), mean, atol=1e-10)
    np.testing.assert_allclose(flow.covariance(far, t), covariance, atol=1e-9)
    assert flow.condition_number == np.inf and np.isfinite(flow.orbit_variance(far, t)).all()


def test_ridge_and_variance_are_those_of_the_images_written_out():
    case = CASES["C4, lattices, planar labels"]
    x, y, x_test = problem(case, 11)
    many, moved = images_of(case, x, y)
    flow = GradientFlow.augmented(case[0], x, y, *case[1:3], ridge=0.2)
    explicit = GradientFlow(case[0], many, moved, ridge=0.2)
    np.testing.assert_allclose(flow.mean(x_test, TIMES), explicit.mean(x_test, TIMES), atol=1e-10)
    expected = explicit.covariance(x_test, TIMES)
    np.testing.assert_allclose(flow.covariance(x_test, TIMES), expected, atol=1e-10)
    variance = flow.variance(x_test, TIMES)
    np.testing.assert_allclose(variance, np.diagonal(expected, axis1=1, axis2=2), atol=1e-10)
    assert flow.condition_number == pytest.approx(explicit.condition_number, rel=1e-6)


def test_what_is_not_kept_is_computed_again(monkeypatch):
    case = CASES["C4, lattices, planar labels"]
    x, y, x_test = problem(case, 12)
    ask = lambda flow: (
        flow.mean(x_test, TIMES),
        flow.covariance(x_test, TIMES),
        flow.orbit_variance(x_test, 1.0),
    )
    expected = ask(GradientFlow.augmented(case[0], x, y, *case[1:3]))
    for name, small in (("_ROWS", 8 * 3 * 2), ("_KEPT", 0), ("_SQUARE", 3)):
        monkeypatch.setattr(gradient_flow, name, small)
    for found, whole in zip(ask(GradientFlow.augmented(case[0], x, y, *case[1:3])), expected, strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-12)


def test_the_spectrum_of_an_augmented_ensemble_leaves_the_nngp_alone():
    x, y, x_test = problem(CASES["D4, lattices"], 13)
    flow = GradientFlow.augmented(relu, x, y, CASES["D4, lattices"][1])
    number, whole = flow.condition_number, flow.with_covariance()
    assert flow._complete(nngp=False)._nngp is None or flow._complete(nngp=True) is whole
    assert whole.condition_number == number and whole.with_covariance() is whole
    np.testing.assert_array_equal(whole.covariance(x_test, 1.0), flow.covariance(x_test, 1.0))


def test_covariance_between_two_batches_is_part_of_that_within_both():
    case = CASES["D4, lattices"]
    x, y, x_test = problem(case, 4)
    flow = GradientFlow.augmented(case[0], x, y, case[1])
    whole = flow.covariance(x_test, [1.0, np.inf])
    np.testing.assert_allclose(
        flow.covariance(x_test[:1], [1.0, np.inf], x_test[1:]), whole[:, :1, 1:], atol=1e-12
    )


def test_spectrum_is_that_of_the_gram_matrix_written_out():
    case = CASES["octahedral, vectors"]
    x, y, _ = problem(case, 5)
    many, _ = images_of(case, x, y)
    lam = np.linalg.eigvalsh(case[0](many, many).ntk)
    flow = GradientFlow.augmented(case[0], x, y, case[1])
    assert flow.condition_number == pytest.approx(lam[-1] / lam[0], rel=1e-6)
    p = lam / lam.sum()
    assert flow.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-9)
    assert 1 < flow.effective_rank < len(many)


@pytest.mark.slow
def test_float32_agrees_with_float64_to_its_precision():
    case = CASES["D4, lattices, planar labels"]
    x, y, x_test = problem(case, 6)
    double = GradientFlow.augmented(case[0], x, y, *case[1:3])
    single = GradientFlow.augmented(case[0], *(a.astype(np.float32) for a in (x, y)), *case[1:3])
    mean, covariance = (f(x_test.astype(np.float32), TIMES[:4]) for f in (single.mean, single.covariance))
    assert mean.dtype == covariance.dtype == jnp.float32
    np.testing.assert_allclose(mean, double.mean(x_test, TIMES[:4]), atol=1e-3)
    np.testing.assert_allclose(covariance, double.covariance(x_test, TIMES[:4]), atol=1e-3)


@pytest.mark.parametrize(
    "name", ["C4, lattices, planar labels", "S3, sets, permuted labels", "octahedral, vector labels"]
)
def test_the_matrix_valued_orbit_average_on_plain_data_is_the_augmented_mean(name):
    kernel, action, label_action, _ = CASES[name]
    x, y, x_test = problem(CASES[name], 9)
    outputs = y.shape[1]
    average = orbit_average(kernel, action, matrices_of(label_action, outputs))
    flatten = lambda k: np.asarray(k.transpose(0, 2, 1, 3)).reshape(len(k) * outputs, -1)
    gram, row = (flatten(average(a, x).ntk) for a in (x, x_test))
    np.testing.assert_allclose(gram, gram.T, atol=1e-12)
    flow = GradientFlow.augmented(kernel, x, y, action, label_action)
    for t in (1.0, 1e3):
        lam, v = np.linalg.eigh(gram)
        kept = lam > 1e-12 * lam[-1]
        phi = np.where(kept, -np.expm1(-lam * t / len(x)) / np.where(kept, lam, 1), t / len(x))
        expected = (row @ v * phi @ v.T @ y.ravel()).reshape(-1, outputs)
        np.testing.assert_allclose(flow.mean(x_test, t), expected, atol=1e-10)
    # with the inverse in the wrong place it is something else
    wrong = orbit_average(kernel, action, matrices_of(label_action, outputs).transpose(0, 2, 1))
    assert np.abs(flatten(wrong(x_test, x).ntk) - row).max() > 1e-3


def test_half_the_orbit_is_not_the_whole():
    kernel, action, _, _ = CASES["C4, lattices"]
    x, y, x_test = problem(CASES["C4, lattices"], 7)
    half = GradientFlow(kernel, np.concatenate([x, action(1, x)]), np.tile(y, 2))
    whole = GradientFlow.augmented(kernel, x, y, action)
    assert jnp.abs(half.mean(x_test, 1e3) - whole.mean(x_test, 1e3)).max() > 1e-2
    assert jnp.abs(half.mean(action(1, x_test), 1e3) - half.mean(x_test, 1e3)).max() > 1e-2


X, Y, _ = problem(CASES["C4, lattices"], 8)
TURN = on_lattices(cyclic(4))


def uneven(a, b):
    weights = np.linspace(0.5, 2, 16)
    return relu(a.reshape(len(a), 16) * weights, b.reshape(len(b), 16) * weights)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GradientFlow.augmented(relu, X, Y, cyclic(4)), "must be an nteq.actions.Action"),
        (lambda: GradientFlow.augmented(relu, X[..., None], Y, on_images(cyclic(8))), "interpolates"),
        (
            lambda: GradientFlow.augmented(uneven, X, Y, TURN),
            r"not invariant under on_lattices\(C4\).*differs",
        ),
        (lambda: orbit_average(uneven, TURN)(X, X), "orbit_average: the kernel is not invariant"),
        (lambda: orbit_average(relu, TURN, np.ones((4, 2))), r"\(4, outputs, outputs\), got \(4, 2\)"),
        (lambda: GradientFlow.augmented(relu, X[0], Y, TURN), r"\(n, L, L\)"),
        (lambda: GradientFlow.augmented(relu, X, Y[:2], TURN), "y must have shape"),
        (
            lambda: GradientFlow.augmented(relu, X, Y, TURN, on_vectors(cyclic(4))),
            r"\(n, outputs\), got \(3,\)",
        ),
        (
            lambda: GradientFlow.augmented(relu, X, np.ones((3, 3)), TURN, on_vectors(cyclic(4))),
            r"\(n, ..., 2\), got shape \(4, 3\)",
        ),
        (
            lambda: GradientFlow.augmented(relu, X, np.ones((3, 2)), TURN, on_vectors(cyclic(8))),
            "both must be actions of the same group",
        ),
        (lambda: GradientFlow.augmented(relu, X, Y, TURN).mean(X, -1.0), r"mean: t must be ≥ 0"),
        (lambda: GradientFlow.augmented(relu, X, Y, TURN).covariance(X, np.nan), r"covariance: t must"),
        (lambda: GradientFlow(relu, X, Y).orbit_variance(X, 1.0), "has no group"),
        (
            lambda: GradientFlow.augmented(relu, X, Y, TURN).orbit_variance(X[..., :3], 1.0),
            "orbit_variance: x",
        ),
        (
            lambda: GradientFlow(relu, X, Y).sample(jax.random.key(0), X, 1.0, 0),
            "members must be an integer of at least 1, got 0",
        ),
        (
            lambda: GradientFlow.augmented(
                lambda a, b: Kernels(-relu(a, b).nngp, -relu(a, b).ntk), X, Y, TURN
            ),
            "not positive semidefinite",
        ),
        (lambda: matrices_of(Action(cyclic(2), lambda g, x: jnp.abs(x)), 3), "not a linear representation"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_kernel_without_the_symmetry_can_be_forced():
    flow = GradientFlow.augmented(uneven, X, Y, TURN, check=False)
    assert np.isfinite(flow.mean(X, 1.0)).all()


def test_what_does_not_fit_is_refused_before_it_is_allocated():
    with pytest.raises(MemoryError, match=r"3 points under a group of order 4.* Reduce n"):
        GradientFlow.augmented(relu, X, Y, TURN, max_bytes=100)
    flow = GradientFlow.augmented(relu, X, Y, TURN, max_bytes=800)  # enough for the mean
    with pytest.raises(MemoryError, match="max_bytes"):
        flow.covariance(X, 1.0)
