import itertools
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from nteq import _convolutions, _lanes
from nteq.actions import Action, on_images, orbit
from nteq.averages import invariance_defect, orbit_average
from nteq.compat import stax
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic, dihedral, direct_product
from nteq.kernels import Kernels, cnn_kernel, empirical_ntk, from_stax
from nteq.networks import cnn, gcnn, mlp

rng = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def digits():
    with mpmath.workdps(40):
        yield


def stax_cnn(sizes, strides, padding, readout, activation, W_std, b_std):
    options = dict(W_std=W_std, b_std=b_std or None)
    layers = []
    for size, stride in zip(sizes, strides, strict=True):
        layers += [stax.Conv(1, (size, size), (stride, stride), padding, **options)]
        layers += [{"relu": stax.Relu, "erf": stax.Erf}[activation]()]
    pool = {"average": stax.GlobalAvgPool, "flatten": stax.Flatten}[readout]()
    return from_stax(stax.serial(*layers, pool, stax.Dense(1, **options))[2])


def naive_kernels(x1, x2, sizes, strides, padding, readout, activation, W_std, b_std):
    """The recursion with 40 digits over all pairs of pixels of two images, written out."""
    w2, b2 = mpmath.mpf(W_std) ** 2, mpmath.mpf(b_std) ** 2
    exact = [np.vectorize(mpmath.mpf, otypes=[object])(x) for x in (x1, x2)]

    def products(a, b):
        pixels = itertools.product(np.ndindex(a.shape[:2]), np.ndindex(b.shape[:2]))
        return {(p, q): mpmath.fdot(a[p], b[q]) / a.shape[2] for p, q in pixels}

    def expectation(k, a, b):
        if activation == "relu":
            c = min(max(k / mpmath.sqrt(a * b), -1), 1) if a and b else mpmath.mpf(0)
            rest = mpmath.pi - mpmath.acos(c)
            return mpmath.sqrt(a * b) * (mpmath.sqrt(1 - c**2) + rest * c) / (2 * mpmath.pi), rest / (
                2 * mpmath.pi
            )
        root = mpmath.sqrt((1 + 2 * a) * (1 + 2 * b))
        slope = 4 / mpmath.pi / mpmath.sqrt(root**2 - 4 * k**2)
        return 2 / mpmath.pi * mpmath.asin(2 * k / root), slope

    shape = x1.shape[:2]
    k12, k11, k22 = (products(exact[i], exact[j]) for i, j in ((0, 1), (0, 0), (1, 1)))
    t12 = dict.fromkeys(k12, mpmath.mpf(0))
    for size, stride in zip(sizes, strides, strict=True):
        after = [n - size + 1 if padding == "VALID" else n for n in shape]
        after = [-(-n // stride) for n in after]
        low = [max((m - 1) * stride + size - n, 0) // 2 for m, n in zip(after, shape)]
        low = [0, 0] if padding == "VALID" else low

        def patch(p, low=low, shape=shape, stride=stride, size=size):
            """Positions before the layer, None outside of the image."""
            for d in np.ndindex(size, size):
                at = tuple(stride * p[i] + d[i] - low[i] for i in (0, 1))
                if padding == "CIRCULAR":
                    at = tuple(a % n for a, n in zip(at, shape))
                yield at if all(0 <= a < n for a, n in zip(at, shape)) else None

        def convolved(k, size=size, patch=patch, after=after):
            positions = list(np.ndindex(*after))
            return {
                (p, q): w2 / size**2 * sum(k[pair] for pair in zip(patch(p), patch(q)) if None not in pair)
                for p, q in itertools.product(positions, positions)
            }

        k12, k11, k22, t12 = map(convolved, (k12, k11, k22, t12))
        k12, k11, k22 = ({pair: value + b2 for pair, value in k.items()} for k in (k12, k11, k22))
        t12 = {pair: value + k12[pair] for pair, value in t12.items()}
        a, b = ({p: k[p, p] for p, _ in k} for k in (k11, k22))
        both = {(p, q): expectation(k, a[p], b[q]) for (p, q), k in k12.items()}
        t12 = {pair: t12[pair] * slope for pair, (_, slope) in both.items()}
        k12 = {pair: value for pair, (value, _) in both.items()}
        k11, k22 = (
            {(p, q): expectation(k, v[p], v[q])[0] for (p, q), k in of.items()}
            for of, v in ((k11, a), (k22, b))
        )
        shape = after
    pairs = [pair for pair in k12 if readout == "average" or pair[0] == pair[1]]
    k, t = (w2 * mpmath.fsum(of[pair] for pair in pairs) / len(pairs) for of in (k12, t12))
    return float(k + b2), float(k + b2 + t)


def apart(ours, exact):
    """The largest error, in units of the largest value of each of the two kernels."""
    return max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, exact, strict=True))


@st.composite
def architectures(draw):
    layers = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, 4), min_size=layers, max_size=layers))
    strides = draw(st.lists(st.integers(1, 3), min_size=layers, max_size=layers))
    padding = draw(st.sampled_from(["VALID", "SAME", "CIRCULAR"]))
    readout, activation = (
        draw(st.sampled_from(["average", "flatten"])),
        draw(st.sampled_from(["relu", "erf"])),
    )
    W_std, b_std = draw(st.floats(0.8, 2)), draw(st.sampled_from([0.0, 0.4]))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 6)))
    if padding == "CIRCULAR":
        shape = tuple(n * int(np.prod(strides)) for n in shape[:2]) + shape[2:]
        assume(max(shape) < 13)
    return shape, (sizes, strides, padding, readout, activation, W_std, b_std)


def check_against_stax(case, n1, n2, seed):
    shape, arguments = case
    try:
        _convolutions.require_room(cnn_kernel(*arguments[:5]).layers, shape, 8)
    except ValueError:
        assume(False)
    draw = np.random.default_rng(seed)
    x1, x2 = draw.normal(size=(n1, *shape)), draw.normal(size=(n2, *shape))
    ours, theirs = cnn_kernel(*arguments), stax_cnn(*arguments)
    assert apart(ours(x1, x2), theirs(x1, x2)) < 1e-12
    for a, b in zip(ours(x1, x1), theirs(x1, x1), strict=True):
        off = ~np.eye(n1, dtype=bool)
        np.testing.assert_allclose(np.diag(a), np.diag(b), rtol=1e-7)
        np.testing.assert_allclose(np.asarray(a)[off], np.asarray(b)[off], rtol=0, atol=1e-12 * b.max())


GENERATE = (Phase.explicit, Phase.reuse, Phase.generate)  # to shrink would compile for minutes


@settings(max_examples=8, phases=GENERATE)
@given(architectures(), st.integers(1, 3), st.integers(1, 5), st.integers(0, 2**31))
def test_cnn_kernel_is_neural_tangents(case, n1, n2, seed):
    check_against_stax(case, n1, n2, seed)


@pytest.mark.slow
@settings(max_examples=150, phases=GENERATE)
@given(architectures(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_cnn_kernel_is_neural_tangents_for_many_architectures(case, n1, n2, seed):
    check_against_stax(case, n1, n2, seed)


def degenerate_images():
    """3 × 3: ordinary, its copy with one black pixel, a flat one, parallel, opposite, half black, black."""
    x = np.random.default_rng(1).normal(size=(3, 3, 2))
    holed, half = x.copy(), x.copy()
    holed[1, 1], half[:2] = 0, 0
    return np.stack([x, holed, np.full_like(x, 0.7), 3 * x, -x, half, 0 * x])


def case(*arguments, slow=False):
    return pytest.param(arguments, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    "arguments",
    [
        case((3, 3), (1, 1), "SAME", "average", "relu", 1.4, 0.0),
        case((2, 2), (1, 1), "VALID", "average", "relu", 1.4, 0.3),
        case((3, 2), (1, 1), "SAME", "flatten", "erf", 1.5, 0.0),
        case((3, 3), (1, 1), "CIRCULAR", "average", "erf", 1.2, 0.3, slow=True),
        case((3, 2), (2, 1), "SAME", "average", "relu", 1.2, 0.0, slow=True),
        case((2, 2), (1, 1), "VALID", "flatten", "relu", 1.2, 0.0, slow=True),
        case((3, 3, 3), (1, 1, 1), "SAME", "flatten", "relu", 1.2, 0.2, slow=True),
    ],
)
def test_every_digit_of_equal_parallel_flat_and_black_patches_too(arguments):
    x = degenerate_images()
    exact = np.zeros((2, len(x), len(x)))
    for i, j in zip(*np.triu_indices(len(x))):
        exact[:, i, j] = exact[:, j, i] = naive_kernels(x[i], x[j], *arguments)
    for ours, kernel in zip(cnn_kernel(*arguments)(x, x), exact, strict=True):
        scale = np.sqrt(np.multiply.outer(np.diag(kernel), np.diag(kernel)))
        assert (np.abs(ours - kernel) <= 1e-13 * scale).all(), np.abs(ours - kernel).max()


def test_saturated_units_of_erf_keep_every_digit():
    x, arguments = 1e4 * degenerate_images()[:4], ((3, 2), (1, 1), "SAME", "flatten", "erf", 1.5, 0.1)
    for i, j in ((0, 0), (0, 1), (2, 2)):
        ours = np.ravel(cnn_kernel(*arguments)(x[i][None], x[j][None]))
        np.testing.assert_allclose(ours, naive_kernels(x[i], x[j], *arguments), rtol=1e-12)


def test_patches_that_are_nearly_parallel_are_right_to_the_root_of_rounding():
    x = rng.normal(size=(1, 3, 3, 2))
    arguments = (3, 2), (1, 1), "SAME", "average", "relu", 1.4, 0.0
    for distance in 10.0 ** np.arange(-10, 0):
        near = x + distance * rng.normal(size=x.shape)
        ours = np.ravel(cnn_kernel(*arguments)(x, near))
        np.testing.assert_allclose(ours, naive_kernels(x[0], near[0], *arguments), rtol=2e-8)


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("readout", ["average", "flatten"])
def test_float32_is_right_to_its_precision(activation, readout):
    x = rng.normal(size=(4, 6, 5, 3))
    kernel = cnn_kernel([3, 3], 1, "SAME", readout, activation, 1.4, 0.1)
    single = kernel(*[x.astype(np.float32)] * 2)
    assert single.ntk.dtype == single.nngp.dtype == jnp.float32
    assert apart(single, kernel(x, x)) < 1e-5


@pytest.mark.parametrize("b_std", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_float32_images_of_any_magnitude(activation, b_std):
    x = rng.normal(size=(3, 4, 4, 2))
    kernel = cnn_kernel([3, 3], 1, "SAME", "average", activation, 1.4, b_std)
    for magnitude in 10.0 ** np.array([-15, -6, 0, 6, 15]):
        images = np.concatenate([magnitude * x, x, np.zeros_like(x[:1])])
        single, double = kernel(*[images.astype(np.float32)] * 2), kernel(images, images)
        for a, b in zip(single, double, strict=True):
            scale = np.sqrt(np.multiply.outer(np.diag(b), np.diag(b)))
            assert (np.abs(a - b) <= 2e-5 * scale).all()
    if (
        activation == "relu" and not b_std
    ):  # squares underflow, the kernel of a small and a large image does not
        small, large = (np.float32(m) * x.astype(np.float32) for m in (1e-25, 1e25))
        assert apart(kernel(small, large), kernel(x, x)) < 1e-5


def test_the_half_that_is_computed_is_the_whole_and_gram_matrices_are_symmetric():
    x = rng.normal(size=(19, 5, 4, 2))
    x[3] = x[1]
    for readout in ("average", "flatten"):
        kernel = cnn_kernel([3, 2], 1, "SAME", readout, b_std=0.2)
        half, whole = kernel(x, x), kernel(x, x.copy())
        assert apart(half, whole) < 1e-14
        for gram in half:
            np.testing.assert_array_equal(gram, gram.T)
            assert np.linalg.eigvalsh(gram).min() > -1e-13 * gram.max()


@pytest.mark.parametrize("readout", ["average", "flatten"])
def test_pieces_of_any_size_give_the_same_and_hold_no_more_than_they_may(readout, monkeypatch):
    x1, x2 = rng.normal(size=(7, 6, 5, 7)), rng.normal(size=(18, 6, 5, 7))
    kernel = cnn_kernel([3, 2], [1, 2], "VALID", readout, "relu", 1.3, 0.1)
    whole = kernel(x1, x2)
    lane = _convolutions.bytes_of_a_lane(kernel.layers, x1.shape[1:], 8)
    for room in (1, 3 * lane, 30 * lane):
        monkeypatch.setattr(_lanes, "MEMORY", room)
        for n in (18, 6):  # many pairs, and few
            pieces = _lanes._pieces(kernel.layers, x1.shape[1:], x1.dtype, _lanes.all_pairs(7, n), "cpu")
            images = pieces.rows.shape[1] + pieces.columns.shape[1]
            # pooled, a lane is a pair; flattened, the images of both sides are kept
            held, least = (images / 2, 1) if readout == "average" else (images, 2)
            assert held * lane <= max(room, least * lane)
            assert len(pieces.rows) > 1 or room == 30 * lane
            assert apart(kernel(x1, x2[:n]), Kernels(*(k[:, :n] for k in whole))) < 1e-14
    monkeypatch.undo()
    one_by_one = [[kernel(a[None], b[None]) for b in x2[:3]] for a in x1[:3]]
    for i, name in enumerate(Kernels._fields):
        single = np.array([[float(k[i][0, 0]) for k in row] for row in one_by_one])
        np.testing.assert_allclose(getattr(whole, name)[:3, :3], single, rtol=1e-13)


@pytest.mark.parametrize("readout", ["average", "flatten"])
def test_other_numbers_of_images_and_other_deviations_compile_nothing(readout, compilations):
    x = rng.normal(size=(40, 4, 5, 2))
    arguments = [3, 2], 1, "SAME", readout
    assert compilations(lambda: cnn_kernel(*arguments)(x[:20], x[:20])) > 0
    for n in (9, 40):
        # what puts the matrix together takes a program for each size, which is small
        assert compilations(lambda n=n: cnn_kernel(*arguments, W_std=1.7, b_std=0.3)(x[:n], x[:8])) <= 8
    layers = cnn_kernel(*arguments).layers
    before = _lanes._piece._cache_size()
    cnn_kernel(*arguments)(x[:31], x)
    assert _lanes._piece._cache_size() == before, layers
    cnn_kernel(*arguments)(x[:35], x[:33])  # flattened, many have a program of their own
    cnn_kernel(*arguments)(x, x)
    assert _lanes._piece._cache_size() == before + (readout == "flatten"), layers


def test_threads_keep_the_precision_that_is_set_where_the_kernel_is_called():
    x, kernel = rng.normal(size=(20, 4, 4, 1)), cnn_kernel([3], 1, "SAME", "average")
    double = kernel(x, x)
    jax.config.update("jax_enable_x64", False)
    try:
        single = kernel(x, x)
        with jax.enable_x64(True):
            again = kernel(x, x)
    finally:
        jax.config.update("jax_enable_x64", True)
    assert single.ntk.dtype == jnp.float32 and again.ntk.dtype == double.ntk.dtype == jnp.float64
    assert 1e-9 < apart(single, double) < 1e-5
    np.testing.assert_array_equal(again.ntk, double.ntk)


translations = direct_product(cyclic(4), cyclic(3))


def shifts():
    return Action(translations, _shift, name="translations")


def _shift(g, x):
    return jnp.roll(jnp.roll(x, g // 3, axis=1), g % 3, axis=2)


@pytest.mark.parametrize("readout", ["average", "flatten"])
@pytest.mark.parametrize(
    ("action", "shape", "padding"),
    [
        (lambda: on_images(cyclic(4)), (5, 5, 2), "SAME"),
        (lambda: on_images(dihedral(4)), (5, 5, 1), "VALID"),
        (shifts, (4, 3, 1), "CIRCULAR"),
    ],
    ids=["C4", "D4", "translations"],
)
def test_the_orbit_average_is_the_plain_sum_and_half_of_it_is_enough(action, shape, padding, readout):
    action = action()
    x, other = rng.normal(size=(4, *shape)), rng.normal(size=(3, *shape))
    kernel = cnn_kernel([3, 3], 1, padding, readout, "relu", 1.4, 0.1)

    def plain_sum(x1, x2):
        return [sum(kernel(x1, action(g, x2))[i] for g in range(action.group.order)) for i in (0, 1)]

    for check in (True, False):
        average = orbit_average(kernel, action, check=check)
        for x1, x2 in ((x, other), (x, x)):
            expected = [total / action.group.order for total in plain_sum(x1, x2)]
            assert apart(average(x1, x2), expected) < 1e-13
        np.testing.assert_allclose(jax.jit(average)(x, x).ntk, average(x, x).ntk, rtol=1e-12)


@pytest.fixture()
def asked(monkeypatch):
    """How many pairs of images each piece of work was asked for."""
    counts, compute = [], _lanes.pair_values

    def counting(*arguments):
        counts.append(int(arguments[-1].mask().sum()))
        return compute(*arguments)

    monkeypatch.setattr(_lanes, "pair_values", counting)
    return counts


@pytest.mark.parametrize("of_network", [True, False])
def test_each_pair_of_a_group_is_computed_once_for_the_kernel_of_a_network_too(of_network, asked):
    x, square = rng.normal(size=(4, 6, 6, 1)), on_images(dihedral(4))
    kernel = cnn([2], 3, W_std=1.3).kernel if of_network else cnn_kernel([3], W_std=1.3)
    orbit_average(kernel, square, check=False)(x, x[:3])
    assert asked == [8 * 4 * 3]
    asked.clear()
    average = orbit_average(kernel, square)
    whole = average(x, x.copy())
    asked.clear()
    half = average(x, x)
    # six elements are their own inverses, and one of two turns is enough; what comes before is the check
    assert asked[-1] == 6 * 10 + 16
    assert apart(half, whole) < 1e-13
    asked.clear()
    flow = GradientFlow.augmented(kernel, x, np.ones(4), square, check=False)
    assert sorted(asked) == [10] * 6 + [16]
    plain = GradientFlow(lambda a, b: kernel(a, b), *written_out(x, np.ones(4), square))
    np.testing.assert_allclose(flow.mean(x + 0.1, 3.0), plain.mean(x + 0.1, 3.0), rtol=1e-9)


def written_out(x, y, action):
    return orbit(action, x).reshape(-1, *x.shape[1:]), np.tile(y, action.group.order)


def test_only_kernels_that_have_a_way_of_their_own_are_asked_for_it():
    assert not hasattr(mlp(2, 1).kernel, "orbit_sums")
    assert hasattr(pickle.loads(pickle.dumps(cnn([2]).kernel)), "orbit_sums")
    with pytest.raises(AttributeError, match="a limit has no attribute 'widths'"):
        cnn([2]).kernel.widths


def test_the_orbit_average_of_a_kernel_without_the_symmetry_stays_the_plain_sum():
    x = rng.normal(size=(3, 6, 6, 1))
    kernel, action = cnn_kernel([3], 2, "VALID", "average"), on_images(cyclic(4))  # leaves pixels out
    expected = sum(kernel(x, action(g, x)).ntk for g in range(4)) / 4
    assert jnp.abs(expected - expected.T).max() > 1e-3 * expected.max()
    np.testing.assert_allclose(orbit_average(kernel, action, check=False)(x, x).ntk, expected, rtol=1e-13)
    with pytest.raises(ValueError, match="not invariant"):
        orbit_average(kernel, action)(x, x)


def test_labels_that_move_are_averaged_with_their_matrices():
    x, action = rng.normal(size=(3, 5, 5, 1)), on_images(cyclic(4))
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    labels = np.stack([np.linalg.matrix_power(turn, g) for g in range(4)])
    kernel = cnn_kernel([3, 2], 1, "VALID", "flatten")
    average = orbit_average(kernel, action, labels)
    for x2 in (x, x.copy(), x[:2]):
        expected = sum(kernel(x, action(g, x2)).ntk[:, :, None, None] * labels[g] for g in range(4)) / 4
        np.testing.assert_allclose(average(x, x2).ntk, expected, atol=1e-13 * expected.max())


@pytest.mark.parametrize(
    ("sizes", "strides", "padding", "side"),
    [((3, 3), 1, "VALID", 7), ((4, 3), 2, "VALID", 12), ((3, 3), 1, "SAME", 6), ((3, 3), 1, "CIRCULAR", 5)],
)
@pytest.mark.parametrize(("group", "moves"), [("p4", cyclic(4)), ("p4m", dihedral(4))])
def test_layers_that_a_gcnn_may_have_make_an_invariant_kernel(sizes, strides, padding, side, group, moves):
    x = rng.normal(size=(3, side, side, 2))
    network = gcnn([2, 2], sizes, strides, padding, W_std=1.4, b_std=0.2, group=group)
    plain = cnn_kernel(sizes, strides, padding, "average", "relu", 1.4, 0.2)
    turns = on_images(moves)
    assert invariance_defect(plain, turns, x) < 1e-13
    theirs = stax_cnn(sizes, np.broadcast_to(strides, 2), padding, "average", "relu", 1.4, 0.2)
    assert apart(network.kernel(x, x[:2]), orbit_average(theirs, turns)(x, x[:2])) < 1e-7
    assert apart(network.kernel(x, x), network.kernel(x, x.copy())) < 1e-13


def test_a_gcnn_kernel_refuses_images_that_break_the_turns():
    with pytest.raises(ValueError, match=r"does not treat both ends alike"):
        gcnn([4], 3, 2).kernel(*[rng.normal(size=(2, 8, 8, 1))] * 2)
    with pytest.raises(ValueError, match=r"must be square, got 5 × 6"):
        gcnn([4]).kernel(*[rng.normal(size=(2, 5, 6, 1))] * 2)


@pytest.mark.parametrize("readout", ["average", "flatten"])
def test_networks_on_circles_that_do_not_close_keep_neural_tangents_kernel(readout):
    x = rng.normal(size=(2, 7, 8, 1))
    network = cnn([3, 3], 3, [1, 2], "CIRCULAR", readout, W_std=1.2)
    theirs = stax_cnn((3, 3), (1, 2), "CIRCULAR", readout, "relu", 1.2, 0.0)
    assert apart(network.kernel(x, x), theirs(x, x)) < 1e-13
    with pytest.raises(ValueError, match=r"product of the strides, 2, must divide the pixels, got 7 × 8"):
        cnn_kernel((3, 3), (1, 2), "CIRCULAR", readout)(x, x)


@pytest.mark.parametrize(
    ("readout", "padding", "strides", "activation"),
    [
        ("average", "CIRCULAR", 1, "relu"),
        pytest.param("flatten", "SAME", [2, 1], "relu", marks=pytest.mark.slow),
        pytest.param("average", "VALID", [1, 2], "erf", marks=pytest.mark.slow),
    ],
)
def test_finite_networks_converge_to_the_kernel(readout, padding, strides, activation):
    x = np.random.default_rng(5).normal(size=(2, 4, 5, 2))
    arguments = [3, 2], strides, padding, readout
    options = dict(activation=activation, W_std=1.5, b_std=0.3)
    theory = cnn_kernel(*arguments, **options)(x, x)
    spread = []
    for width, draws in ((8, 400), (64, 100)):
        network = cnn([width, width], *arguments, **options)
        draw = lambda key, network=network: network.init(key, x.shape[1:])
        keys = jax.random.split(jax.random.key(width), draws)
        ntk_of = lambda key, network=network: empirical_ntk(network.apply, draw(key), x, x)
        ntk = jax.jit(lambda keys, f=ntk_of: jax.lax.map(f, keys))(keys)
        spread.append(ntk.std(0, ddof=1))
    z = (ntk.mean(0) - theory.ntk) / (spread[1] / draws**0.5)
    assert jnp.abs(z).max() < 4, z
    # what it converges to, not just near it in units of the error: the fluctuation is ∝ 1/√width
    assert (spread[1] < spread[0] / 8**0.5 * 1.4).all(), spread
    assert (jnp.abs(ntk.mean(0) - theory.ntk) < 0.1 * jnp.diag(theory.ntk).max()).all()
    f = jax.jit(lambda keys: jax.lax.map(lambda key: network.apply(draw(key), x), keys))(
        jax.random.split(jax.random.key(2), 4000)
    )
    variances = jnp.multiply.outer(*[jnp.diag(theory.nngp)] * 2) + theory.nngp**2
    # products of outputs; those of a finite network have heavier tails by 1/width
    z = (f.T @ f / 4000 - theory.nngp) / jnp.sqrt(1.2 * variances / 4000)
    assert jnp.abs(z).max() < 4, z


# Derivatives

jacobians = jax.jit(lambda kernel, x1, x2: jax.jacobian(lambda *x: jnp.stack(kernel(*x)), (0, 1))(x1, x2))


@pytest.mark.parametrize(
    "arguments",
    [
        case((3, 2), (1, 1), "SAME", "average", "relu", 1.4, 0.0),
        case((2, 2), (1, 1), "VALID", "flatten", "erf", 1.4, 0.3),
        case((2, 2), (1, 1), "VALID", "average", "relu", 1.4, 0.3, slow=True),
        case((3, 3), (1, 1), "CIRCULAR", "average", "erf", 1.4, 0.0, slow=True),
        case((3, 2), (2, 1), "SAME", "flatten", "relu", 1.4, 0.0, slow=True),
    ],
)
def test_gradients_are_central_differences(arguments):
    kernel, direction = cnn_kernel(*arguments), rng.normal(size=(2, 1, 4, 3, 2))
    x1, x2 = rng.normal(size=(2, 1, 4, 3, 2))
    step = 1e-5
    for side in (0, 1):
        ends = [[x1, x2], [x1, x2]]
        ends[0][side] = ends[0][side] + step * direction[side]
        ends[1][side] = ends[1][side] - step * direction[side]
        up, down = (np.ravel(kernel(*end)) for end in ends)
        ours = (jacobians(kernel, x1, x2)[side].reshape(2, -1) * direction[side].ravel()).sum(1)
        np.testing.assert_allclose(ours, (up - down) / (2 * step), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("activation", "b_std"),
    [
        ("relu", 0.0),
        ("erf", 0.3),
        pytest.param("relu", 0.3, marks=pytest.mark.slow),
        pytest.param("erf", 0.0, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_finite_everywhere_and_symmetric_where_there_are_tips(activation, b_std):
    x = degenerate_images()
    kernel = cnn_kernel((3, 3), 1, "SAME", "flatten", activation, 1.4, b_std)
    j1, j2 = jacobians(kernel, x, x)
    assert np.isfinite(j1).all() and np.isfinite(j2).all()
    gradient = jax.grad(lambda z: jnp.stack(kernel(z, x)).sum())
    assert np.isfinite(jax.jit(lambda z, v: jax.jvp(gradient, (z,), (v,))[1])(x, np.ones_like(x))).all()
    step, i = 1e-5, 0
    for j in (0, 1, 3, 6):  # itself, with a black pixel, parallel, black
        moved = rng.normal(size=x[j].shape)
        up, down = (np.ravel(kernel(x[i][None], (x[j] + s * step * moved)[None])) for s in (1, -1))
        ours = (j2[:, i, j, j] * moved).sum((1, 2, 3))
        # at a cone's tip the difference is good to its curvature; deeper zeros are not linear
        expected = (up - down) / (2 * step)
        if not (j == 6 and activation == "relu" and b_std == 0):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-3 * np.abs(j2).max())


def test_one_layer_at_a_black_image_has_the_mean_gradient_of_opposite_sides():
    x, across = rng.normal(size=(2, 1, 3, 3, 2))
    kernel = cnn_kernel((3,), 1, "SAME", "average", "relu", 1.4)
    ours = (jacobians(kernel, x, 0 * x)[1].reshape(2, -1) * across.ravel()).sum(1)
    up, down = (np.ravel(kernel(x, sign * 1e-9 * across)) for sign in (1, -1))
    np.testing.assert_allclose(ours, (up - down) / 2e-9, rtol=1e-9)


def test_gradients_of_many_pairs_in_pieces_are_those_of_each_pair(monkeypatch):
    x = rng.normal(size=(5, 4, 4, 1))
    weights = rng.normal(size=(2, 5, 5))
    for readout in ("average", "flatten"):
        kernel = cnn_kernel([3, 2], 1, "SAME", readout, b_std=0.1)
        total = lambda z, kernel=kernel: sum((w * k).sum() for w, k in zip(weights, kernel(z, z)))
        whole = jax.jit(jax.grad(total))(x)
        j1, j2 = jacobians(kernel, x, x + 0.0)
        expected = np.einsum("kij,kijlabc->labc", weights, j1 + j2)
        np.testing.assert_allclose(whole, expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_gradients_in_the_deviations_are_central_differences(activation):
    x = degenerate_images()
    total = lambda w, b: jnp.stack(cnn_kernel([3, 2], 1, "SAME", "average", activation, w, b)(x, x)).sum()
    ours = jax.jit(jax.grad(total, (0, 1)))(1.3, 0.2)
    h = 1e-5
    expected = [
        (total(1.3 + h, 0.2) - total(1.3 - h, 0.2)) / (2 * h),
        (total(1.3, 0.2 + h) - total(1.3, 0.2 - h)) / (2 * h),
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


# Values and errors


def test_equal_arguments_make_equal_kernels_and_they_go_through_transformations():
    one = cnn_kernel((3, np.int64(3)), 1, W_std=1)
    two = cnn_kernel(np.array([3, 3]), [1, 1], "VALID", "flatten", "relu", jnp.float32(1.0), 0)
    assert one == two and hash(one) == hash(two) and pickle.loads(pickle.dumps(one)) == one
    assert one == cnn_kernel([3, 3]) != cnn_kernel([3, 2]) and one != cnn_kernel([3, 3], padding="SAME")
    assert jax.tree.leaves(one) == [1.0, 0.0]
    x = rng.normal(size=(3, 6, 5, 2))
    kernel = partial(cnn_kernel, [3, 2], [1, 2], "SAME", "average", "relu")
    expected = kernel(1.2, 0.3)(x, x).ntk
    np.testing.assert_allclose(jax.jit(lambda k, x: k(x, x).ntk)(kernel(1.2, 0.3), x), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(lambda c: c * kernel(1.2, 0.3)(x, x).ntk)(2.0), 2 * expected)
    many = jax.vmap(lambda w: kernel(w, 0.3)(x, x).ntk)(jnp.array([0.9, 1.2]))
    np.testing.assert_allclose(many[1], expected, rtol=1e-12)
    stacked = jax.vmap(lambda a: kernel(1.2, 0.3)(a[None], x).ntk[0])(x)
    np.testing.assert_allclose(stacked, expected, rtol=1e-12)


def test_the_kernel_works_where_jax_promotes_neither_types_nor_ranks():
    x = rng.normal(size=(2, 4, 4, 2))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for readout, activation in (("average", "relu"), ("flatten", "erf")):
            kernel = cnn_kernel([3, 2], 1, "SAME", readout, activation, 1.2, 0.1)
            np.testing.assert_allclose(jax.jit(kernel)(x, x).ntk, kernel(x, x).ntk, rtol=1e-12)
            assert np.isfinite(jax.grad(lambda z, k=kernel: k(z, x).ntk.sum())(jnp.asarray(x))).all()


def test_networks_have_this_kernel():
    assert cnn([8, 4], [3, 2], 2, "SAME", "average").kernel.architecture.limit() == cnn_kernel(
        [3, 2], 2, "SAME", "average"
    )


image = np.ones((2, 4, 4, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cnn_kernel([]),
            r"number of filter_sizes must be an integer of at least 1, got 0\. Give one",
        ),
        (lambda: cnn_kernel([3, 0]), r"cnn_kernel: filter_sizes must be an integer of at least 1, got 0"),
        (lambda: cnn_kernel([3], strides=[1, 2]), r"strides must be one integer or one for each of the 1"),
        (
            lambda: cnn_kernel([3], padding="same"),
            r"padding must be 'VALID', 'SAME' or 'CIRCULAR', got 'same'",
        ),
        (lambda: cnn_kernel([3], readout="max"), r"readout must be 'flatten' or 'average', got 'max'"),
        (lambda: cnn_kernel([3], activation="tanh"), r"'relu' or 'erf', got 'tanh'\. Build others with"),
        (lambda: cnn_kernel([3], W_std=0), r"cnn_kernel: W_std must be positive and finite"),
        (lambda: cnn_kernel([3], b_std=-1.0), r"cnn_kernel: b_std must be not negative"),
        (lambda: cnn_kernel([3])(image[..., 0], image[..., 0]), r"images of shape .*x\[\.\.\., None\]"),
        (lambda: cnn_kernel([3])(image[None], image[None]), r"must be images of shape"),
        (lambda: cnn_kernel([3])(image, image[:, :3]), r"same features"),
        (lambda: cnn_kernel([3])(np.nan * image, image), r"x1 has entries that are not finite"),
        (lambda: cnn_kernel([3, 3])(image, image), r"3 × 3 got 2 × 2 pixels, which is too small"),
        (lambda: cnn_kernel([6], padding="CIRCULAR")(image[:, :2], image[:, :2]), r"too small"),
        (
            lambda: jax.eval_shape(
                cnn_kernel([3], padding="SAME"), *[jax.ShapeDtypeStruct((1, 2**13, 2**13, 1), float)] * 2
            ),
            r"one pair of images of 8192 × 8192 × 1 takes about \d+ GiB, more than the 2 GiB",
        ),
        (
            lambda: cnn_kernel([3])(*[1e200 * image] * 2),
            r"values that float64 cannot hold\. Scale the inputs",
        ),
        (lambda: cnn_kernel([3], W_std=1e200)(image, image), r"W_std = 1e\+200 has a square that float64"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
