import pickle
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nteq._architectures import GCNN
from nteq.actions import on_images, orbit
from nteq.compat import stax
from nteq.groups import cyclic, dihedral
from nteq.kernels import empirical_ntk
from nteq.networks import Network, cnn, gcnn, mlp

images = jax.random.normal(jax.random.key(7), (3, 7, 7, 2))


def stax_layers(layers, options, readout):
    """The same architecture, written out with neural-tangents' layers."""
    activation = {"relu": stax.Relu, "erf": stax.Erf}[options.pop("activation")]
    options["b_std"] = options["b_std"] or None
    parts = [part for layer in layers for part in (layer(options), activation())]
    return stax.serial(*parts, readout, stax.Dense(3, **options))


@pytest.mark.parametrize(
    ("activation", "W_std", "b_std", "parameterization"),
    [
        ("relu", 2**0.5, 0.0, "standard"),
        ("erf", 1.3, 0.4, "ntk"),
        pytest.param("erf", 1.3, 0.4, "standard", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("sizes", "strides", "padding", "readout"),
    [
        ([3, 3], [1, 1], "VALID", "flatten"),
        ([3, 2], [2, 1], "VALID", "average"),
        ([3, 4], [1, 2], "SAME", "flatten"),
        ([3, 3], [1, 1], "CIRCULAR", "average"),
    ],
)
def test_cnn_is_neural_tangents_network(
    activation, W_std, b_std, parameterization, sizes, strides, padding, readout
):
    options = dict(activation=activation, W_std=W_std, b_std=b_std, parameterization=parameterization)
    network = cnn([5, 4], sizes, strides, padding, readout, outputs=3, **options)
    params = network.init(jax.random.key(0), images.shape[1:])
    conv = lambda channels, size, stride: (
        lambda o: stax.Conv(channels, (size, size), (stride, stride), padding, **o)
    )
    pool = stax.Flatten() if readout == "flatten" else stax.GlobalAvgPool()
    layers = [conv(c, f, s) for c, f, s in zip([5, 4], sizes, strides, strict=True)]
    _, apply, _ = stax_layers(layers, options, pool)
    before, theirs = 2, []
    for size, (W, b) in zip(sizes, params, strict=False):
        W = W.reshape(size, size, before, -1)
        before = W.shape[-1]
        theirs += [(W, None if b is None else b.reshape(1, 1, 1, -1)), ()]
    W, b = params[-1]
    theirs += [(), (W, None if b is None else b[None])]
    np.testing.assert_allclose(network.apply(params, images), apply(theirs, images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "W_std", "b_std", "parameterization"),
    [("relu", 2**0.5, 0.0, "standard"), ("erf", 1.3, 0.4, "ntk"), ("erf", 1.3, 0.4, "standard")],
)
def test_mlp_is_neural_tangents_network(activation, W_std, b_std, parameterization):
    options = dict(activation=activation, W_std=W_std, b_std=b_std, parameterization=parameterization)
    network = mlp(6, 2, outputs=3, **options)
    params = network.init(jax.random.key(0), images.shape[1:])
    _, apply, _ = stax_layers([lambda o: stax.Dense(6, **o)] * 2, options, stax.Identity())
    theirs = [layer for W, b in params for layer in ((W, None if b is None else b[None]), ())][:-1]
    theirs.insert(-1, ())
    flat = images.reshape(3, -1)
    np.testing.assert_allclose(network.apply(params, images), apply(theirs, flat), rtol=1e-5, atol=1e-5)


NETWORKS = {
    "mlp": lambda width, **options: mlp(width, 2, **options),
    "cnn": lambda width, **options: cnn([width, width], readout="average", **options),
    "cnn, flatten": lambda width, **options: cnn([width, width], [3, 2], [2, 1], **options),
    "gcnn": lambda width, **options: gcnn([width // 2, width // 2], **options),
    "gcnn, p4m": lambda width, **options: gcnn([width // 4, width // 3], group="p4m", **options),
}


@pytest.mark.parametrize(
    ("activation", "W_std", "b_std", "parameterization"),
    [
        ("relu", 2**0.5, 0.3, "ntk"),
        pytest.param("erf", 1.5, 0.0, "standard", marks=pytest.mark.slow),
        pytest.param("relu", 2**0.5, 0.3, "standard", marks=pytest.mark.slow),
        pytest.param("erf", 1.5, 0.0, "ntk", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "architecture",
    [name if name == "mlp" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_empirical_kernels_of_wide_networks_agree_with_the_kernel(
    architecture, activation, W_std, b_std, parameterization
):
    # The mean of D draws has a standard error of order 1/√(D width) and a bias of order 1/width: D well
    # below the width keeps the bias inside the error.
    draws, width = 24, 96
    network = NETWORKS[architecture](
        width, activation=activation, W_std=W_std, b_std=b_std, parameterization=parameterization
    )
    x = images[:2, :5, :5]
    theory = network.kernel(x, x)

    def ntk_of(key):
        return empirical_ntk(network.apply, network.init(key, x.shape[1:]), x, x)

    ntk = jax.jit(lambda keys: jax.lax.map(ntk_of, keys))(jax.random.split(jax.random.key(1), draws))
    z = (ntk.mean(0) - theory.ntk) / (ntk.std(0, ddof=1) / draws**0.5)
    assert jnp.abs(z).max() < 4, z
    # what it converges to, not just near it in units of the error: the relative fluctuation is ∝ 1/√width
    assert (jnp.abs(ntk.mean(0) - theory.ntk) < 0.1 * jnp.diag(theory.ntk).max()).all()

    # outputs are Gaussian with covariance K in the limit, so products of two have the variance KᵢᵢKⱼⱼ + Kᵢⱼ²
    draws = 200
    output_of = lambda key: network.apply(network.init(key, x.shape[1:]), x)
    f = jax.jit(lambda keys: jax.lax.map(output_of, keys))(jax.random.split(jax.random.key(2), draws))
    variances = jnp.multiply.outer(*[jnp.diag(theory.nngp)] * 2) + theory.nngp**2
    z = (f.T @ f / draws - theory.nngp) / jnp.sqrt(variances / draws)
    assert jnp.abs(z).max() < 4, z


POINT_GROUPS = {"p4": cyclic(4), "p4m": dihedral(4)}


def answers_on_orbit(network, group, side, seed=0):
    """The outputs of one network on the orbits of two random images, shape (|G|, 2, outputs)."""
    x = jax.random.normal(jax.random.key(seed), (2, side, side, 1))
    params = network.init(jax.random.key(seed + 1), x.shape[1:])
    asked = orbit(on_images(group), x)
    return jax.jit(network.apply)(params, asked.reshape(-1, *x.shape[1:])).reshape(group.order, 2, -1)


@st.composite
def group_convolutions(draw):
    depth = draw(st.integers(1, 3))
    sizes = draw(st.lists(st.integers(1, 4), min_size=depth, max_size=depth))
    strides = draw(st.lists(st.integers(1, 3), min_size=depth, max_size=depth))
    padding = draw(st.sampled_from(["VALID", "SAME", "CIRCULAR"]))
    side = draw(st.integers(5, 12))
    return ([3, 2, 3][:depth], sizes, strides, padding), draw(st.sampled_from(list(POINT_GROUPS))), side


@pytest.mark.slow
@settings(max_examples=120)
@given(case=group_convolutions(), seed=st.integers(0, 1000))
def test_a_gcnn_is_invariant_under_its_whole_group_or_refused_because_it_is_not(case, seed):
    layers, group, side = case
    try:
        network = gcnn(*layers, outputs=3, activation="erf", W_std=1.5, b_std=0.3, group=group)
    except ValueError as error:
        assert "one pixel more on one side" in str(error)
        return
    with pytest.MonkeyPatch.context() as patch:
        try:
            network.init(jax.random.key(0), (side, side, 1))
            refused = ""
        except ValueError as error:
            refused = str(error)
            patch.setattr(GCNN, "check_square", lambda *_: None)
        try:
            f = answers_on_orbit(network, POINT_GROUPS[group], side, seed)
        except ValueError as error:
            assert refused and "too small" in str(error)
            return
    if not refused:
        np.testing.assert_allclose(f, np.broadcast_to(f[:1], f.shape), rtol=1e-10, atol=1e-12)
        assert np.std(f) > 1e-6
    # what is periodic may be off its centre by a translation, which the average does not see
    elif layers[3] != "CIRCULAR":
        assert "breaks the symmetry. Use " in refused and np.ptp(f, axis=0).max() > 1e-6


@pytest.mark.parametrize("group", POINT_GROUPS)
@pytest.mark.parametrize(
    ("channels", "sizes", "strides", "padding", "side"),
    [
        ([3, 2], 3, 1, "VALID", 7),
        ([3, 2], [4, 3], 2, "VALID", 28),
        ([3, 2, 2], 3, 1, "SAME", 6),
        ([3, 2], 3, [1, 2], "SAME", 7),
        ([3, 2], 3, 1, "CIRCULAR", 5),
    ],
)
def test_each_gcnn_is_invariant_under_its_group(channels, sizes, strides, padding, side, group):
    network = gcnn(channels, sizes, strides, padding, outputs=3, b_std=0.3, group=group)
    f = answers_on_orbit(network, dihedral(4), side)
    same = f[: POINT_GROUPS[group].order]
    np.testing.assert_allclose(same, np.broadcast_to(f[:1], same.shape), rtol=1e-10, atol=1e-12)
    # and no more than that: a mirrored image is another one for p4
    if group == "p4":
        assert (np.abs(f[4:] - f[0]).max((1, 2)) > 1e-3).all()


@pytest.mark.parametrize("group", POINT_GROUPS)
def test_gcnn_is_the_convolution_on_its_group_written_out(group):
    G, side, size = POINT_GROUPS[group], 6, 3
    network = gcnn([2, 3], size, group=group, b_std=0.3)
    x = jax.random.normal(jax.random.key(0), (1, side, side, 1))
    params = [[np.asarray(a) for a in layer] for layer in network.init(jax.random.key(1), x.shape[1:])]
    # a plane of arrays seen from its centre, x to the right and y upwards, in half pixels
    places = lambda n: {(2 * j - n + 1, n - 1 - 2 * i): (i, j) for i in range(n) for j in range(n)}

    h, spots, filters = np.asarray(x[0])[None], places(side), places(size)
    for W, b in params[:-1]:
        after = places(len({i for i, _ in spots.values()}) - size + 1)
        out = np.zeros((G.order, *[max(i for i, _ in after.values()) + 1] * 2, W.shape[-1]))
        for g in range(G.order):
            back = G.matrices[g].T
            for p, (i, j) in after.items():
                for q, (k, l) in filters.items():
                    m, n = filters[tuple(int(c) for c in back @ q)]
                    there = spots[p[0] + q[0], p[1] + q[1]]
                    for other in range(len(h)):
                        w = W[G.multiply(G.inverse(g), other) if len(h) > 1 else 0, m, n]
                        out[g, i, j] += h[other][there] @ w
        fan_in = np.prod(W.shape[:4])
        h, spots = np.maximum(out / fan_in**0.5 + 0.3 * b, 0), after
    (W, b) = params[-1]
    expected = h.mean((0, 1, 2)) @ W / W.shape[0] ** 0.5 + 0.3 * b
    np.testing.assert_allclose(network.apply(network.init(jax.random.key(1), x.shape[1:]), x), expected)


def test_the_parameters_and_answers_of_p4_are_those_of_the_first_version():
    network = gcnn([3, 2], b_std=0.3)
    params = network.init(jax.random.key(3), (7, 7, 2), jnp.float32)
    x = jax.random.normal(jax.random.key(9), (2, 7, 7, 2), jnp.float32)
    np.testing.assert_allclose(network.apply(params, x), [0.10306718, 0.09024271], rtol=1e-5)


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("side", [8, 13, 14, 28])
def test_the_sizes_that_the_error_names_work(padding, side):
    kind = dict(channels=[2, 2, 2], strides=[1, 2, 2], padding=padding)
    try:
        gcnn(**kind).init(jax.random.key(0), (side, side, 1))
        return
    except ValueError as error:
        number = int(re.findall(r"layer (\d)", str(error))[0]) - 1
        pixels, _, filters = str(error).split("Use images of ")[1].partition(", or filters of ")
    for n in map(int, re.findall(r"\d+", pixels)):
        f = answers_on_orbit(gcnn(**kind, activation="erf"), cyclic(4), n)
        np.testing.assert_allclose(f, np.broadcast_to(f[:1], f.shape), rtol=1e-10, atol=1e-12)
    for size in map(int, re.findall(r"\d+", filters)):
        sizes = [size if i == number else 3 for i in range(3)]
        gcnn(**kind, filter_sizes=sizes).init(jax.random.key(0), (side, side, 1))


def test_a_stride_of_two_on_an_even_image_is_refused_and_would_break_the_symmetry(monkeypatch):
    network = gcnn([4, 4, 4], 3, [1, 2, 1], group="p4m")
    with pytest.raises(
        ValueError,
        match=r"layer 2 moves.*over 12 pixels.*Use images of 13 or 15 pixels, or filters of 2 or 4",
    ):
        network.init(jax.random.key(0), (14, 14, 1))
    monkeypatch.setattr(GCNN, "check_square", lambda *_: None)
    f = answers_on_orbit(network, dihedral(4), 14)
    assert np.ptp(f, axis=0).max() > 1e-3


def test_a_plain_cnn_is_not_invariant_and_a_stride_that_leaves_pixels_out_breaks_its_kernel():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    turned = jnp.rot90(x, axes=(1, 2))
    defect = {}
    for size in (2, 3):  # (8 − 3) is odd: with stride 2 the last row and column are never seen
        network = cnn([4], size, 2)
        params = network.init(jax.random.key(1), x.shape[1:])
        assert jnp.abs(network.apply(params, x) - network.apply(params, turned)).max() > 1e-2
        k, rotated = network.kernel(x, x).ntk, network.kernel(turned, turned).ntk
        defect[size] = float(jnp.abs(k - rotated).max() / k.max())
    assert defect[2] < 1e-5 and defect[3] > 1e-2, defect
    with pytest.raises(ValueError, match=r"over 8 pixels.*Use images of 7 or 9 pixels"):
        gcnn([4], 3, 2).init(jax.random.key(0), (8, 8, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mlp(0), r"mlp: width must be an integer of at least 1, got 0"),
        (lambda: mlp(8, 0), r"mlp: depth must be an integer of at least 1, got 0"),
        (lambda: mlp(8, outputs=0), r"mlp: outputs must be"),
        (
            lambda: mlp(8, activation="tanh"),
            r"mlp: activation must be 'relu' or 'erf', got 'tanh'\. Or give a function",
        ),
        (lambda: mlp(8, W_std=0.0), r"W_std must be positive"),
        (lambda: mlp(8, b_std=-1.0), r"b_std must be not negative and finite"),
        (lambda: mlp(8, activation=lambda h: h.sum(1)), r"activation must map arrays entry by entry"),
        (lambda: mlp(8.0), r"width must be an integer of at least 1, got 8\.0"),
        (lambda: mlp(8, W_std=[1.0, 2.0]), r"W_std must be positive and finite, a single number"),
        (lambda: jax.jit(lambda w: mlp(8, W_std=w).apply)(1.0), r"W_std must be known when the network is"),
        (lambda: Network(mlp(8), mlp(8).apply), r"Network: init must be a function, got mlp\(width=8"),
        (lambda: Network("mine", len, len), r"Network: init must be a function, got 'mine'"),
        (lambda: mlp(8, parameterization="mup"), r"must be 'ntk' or 'standard', got 'mup'"),
        (lambda: mlp(8).init(jax.random.key(0), ()), r"shape must be the features of one input"),
        (lambda: mlp(8).apply(mlp(8).init(jax.random.key(0), (4,)), jnp.ones((2, 5))), r"4 features.*got 5"),
        (lambda: cnn([]), r"channels must name at least one layer"),
        (lambda: cnn([4, 0]), r"cnn: channels must be an integer of at least 1, got 0"),
        (lambda: cnn([4, 4], [3, 3, 3]), r"filter_sizes must be one integer or one for each of the 2"),
        (lambda: cnn([4], strides=0), r"strides must be an integer of at least 1"),
        (lambda: cnn([4], padding="same"), r"padding must be 'VALID', 'SAME' or 'CIRCULAR', got 'same'"),
        (lambda: cnn([4], readout="max"), r"readout must be 'flatten' or 'average'"),
        (lambda: cnn([4]).init(jax.random.key(0), (28, 28)), r"\(height, width, channels\).*got \(28, 28\)"),
        (lambda: cnn([4, 4]).init(jax.random.key(0), (4, 4, 1)), r"got 2 × 2 pixels, which is too small"),
        (lambda: cnn([4]).apply([], jnp.ones((2, 28, 28))), r"images of shape.*x\[\.\.\., None\]"),
        (lambda: gcnn([4]).init(jax.random.key(0), (5, 6, 1)), r"images must be square, got 5 × 6"),
        (lambda: gcnn([4], 2, padding="SAME"), r"breaks the symmetry\. Use filters of 1 or 3, or padding"),
        (lambda: gcnn([4], group="p6"), r"gcnn: group must be 'p4' or 'p4m', got 'p6'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Networks as values

PAIRS = {
    "a float for an integer": lambda: (mlp(8, W_std=1), mlp(8, W_std=1.0)),
    "an integer of NumPy": lambda: (mlp(np.int64(8), np.int32(1), b_std=np.float64(0.5)), mlp(8, b_std=0.5)),
    "a list for a tuple": lambda: (cnn((8, 8)), cnn([8, 8])),
    "one for all": lambda: (cnn(np.array([8, 8]), 3, 1), cnn([8, 8], [3, 3], (1, 1))),
    "gcnn": lambda: (gcnn([8], W_std=2), gcnn((8,), 3, [1], W_std=2.0, group="p4")),
    "gcnn of the larger group": lambda: (gcnn([8], group="p4m"), gcnn((8,), 3, [1], group="p4m")),
    "a known function by its name": lambda: (mlp(8, activation=jax.nn.relu), mlp(8)),
    "another function": lambda: (mlp(8, activation=jax.nn.gelu), mlp(8, activation=jax.nn.gelu)),
    "functions of one's own": lambda: (Network(len, max), Network(len, max)),
}


@pytest.mark.parametrize("made", PAIRS)
def test_networks_that_mean_the_same_are_equal_hash_alike_and_come_back_from_pickle(made):
    one, other = PAIRS[made]()
    assert one == other and hash(one) == hash(other) and repr(one) == repr(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert jax.tree.leaves(one) == []  # static in a pytree, and as an argument of a jitted function
    assert jax.jit(lambda network, x: network.init and x)(one, 3) == 3


def test_networks_that_differ_anywhere_are_not_equal():
    different = [mlp(8), mlp(9), mlp(8, 2), mlp(8, outputs=1), mlp(8, W_std=1.1), mlp(8, activation="erf")]
    different += [
        mlp(8, activation=jnp.tanh),
        mlp(8, activation=jnp.sin),
        mlp(8, parameterization="standard"),
    ]
    different += [cnn([8]), cnn([8], 2), cnn([8], strides=2), cnn([8], padding="SAME")]
    different += [gcnn([8]), gcnn([8], group="p4m")]
    different += [Network(mlp(8).init, lambda w, x: x), Network(mlp(8).init, lambda w, x: x)]
    different += [Network(mlp(8).init, mlp(8).apply)]
    assert len(set(different)) == len(different)
    # the limit is shared by those that differ in what it does not depend on
    assert mlp(8, outputs=3).kernel == mlp(16).kernel != mlp(16, 2).kernel
    assert cnn([8, 3]).kernel == cnn([4, 4], outputs=2).kernel
    assert gcnn([8, 3]).kernel == gcnn([4, 4]).kernel != gcnn([4, 4], group="p4m").kernel
    wide = [cnn([width], parameterization="standard").kernel for width in (4, 8)]
    assert wide[0] != wide[1]


def test_a_network_is_named_by_its_call_and_one_of_your_own_by_its_functions():
    assert repr(mlp(8, W_std=2)) == (
        "mlp(width=8, depth=1, outputs=None, activation='relu', W_std=2.0, b_std=0.0, parameterization='ntk')"
    )
    assert repr(gcnn([8], group="p4m")).endswith("parameterization='ntk', group='p4m')")
    assert repr(Network(mlp(8).init, max)).endswith("<built-in function max>, None)")


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (lambda activation: mlp(4, 2, activation=activation, b_std=0.3), (5, 5, 1)),
        (lambda activation: cnn([3, 2], activation=activation), (5, 5, 1)),
        (lambda activation: gcnn([3, 2], activation=activation), (5, 5, 1)),
    ],
    ids=["mlp", "cnn", "gcnn"],
)
def test_an_activation_may_be_a_function_and_then_there_is_no_kernel(network, shape):
    relu = network("relu")
    own = network(lambda h: jnp.maximum(h, 0))  # the same function, which only we know
    doubled = network(lambda h: 2 * jnp.maximum(h, 0))
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    params = relu.init(jax.random.key(1), shape)
    np.testing.assert_array_equal(own.apply(params, x), relu.apply(params, x))
    assert jnp.abs(doubled.apply(params, x) - relu.apply(params, x)).max() > 1e-2
    assert own.kernel is None and relu.kernel is not None


def test_pixels_of_any_integer_type_are_taken_as_numbers():
    pixels = np.array([[0, 100, 255], [7, 0, 200]], dtype=np.uint8)
    network = mlp(4)
    params = network.init(jax.random.key(0), (3,))
    expected = network.apply(params, pixels.astype(float))
    for kind in (np.uint8, np.int64, np.float32):
        np.testing.assert_allclose(network.apply(params, pixels.astype(kind)), expected, rtol=1e-6)
    huge = np.array([[3_000_000_000, 0, 0]])
    with jax.enable_x64(False):
        params = network.init(jax.random.key(0), (3,))
        answer, expected = (network.apply(params, x) for x in (huge, huge.astype(np.float32)))
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.slow
def test_networks_work_where_jax_promotes_neither_types_nor_ranks():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for network in (
            mlp(3, b_std=0.2),
            cnn([2, 2], b_std=0.1, outputs=2, parameterization="standard"),
            gcnn([2, 2], b_std=0.1),
            gcnn([2, 2], b_std=0.1, group="p4m"),
        ):
            params = network.init(jax.random.key(0), (5, 5, 1), jnp.float32)
            assert network.apply(params, jnp.ones((2, 5, 5, 1), jnp.float32)).shape[0] == 2
            assert network.apply(params, np.ones((2, 5, 5, 1), np.uint8)).dtype == jnp.float32


WITHOUT_STAX = """
import sys
sys.modules["neural_tangents"] = None
import jax, jax.core
import nteq.networks, nteq.ensembles, nteq.kernels, nteq.gradient_flow
from nteq.networks import cnn, gcnn, mlp
network, x = mlp(4), jax.numpy.eye(3)
params = nteq.ensembles.init(network, jax.random.key(0), 2, (3,))
nteq.ensembles.train(network, params, x, x[0], 2, learning_rate=0.1)
flow = nteq.gradient_flow.GradientFlow(network.kernel, x, x[0])
print(flow.mean(x, 1.0).shape)
image = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
print(cnn([4]).kernel(image, image).ntk.shape, gcnn([4]).kernel(image, image).ntk.shape)
assert not hasattr(jax.core, "Primitive") and "nteq.compat" not in sys.modules
for network in (cnn([4], parameterization="standard"), mlp(4, parameterization="standard")):
    try:
        network.kernel(image, image)
    except ImportError as error:
        print(error)
assert not hasattr(jax.core, "Primitive")  # a failed import leaves JAX as it was
"""


def test_without_neural_tangents_all_works_but_the_kernels_that_need_it_which_say_how_to_install_it():
    done = subprocess.run([sys.executable, "-c", WITHOUT_STAX], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(3,)\n(2, 2) (2, 2)\n")
    assert done.stdout.count("pip install --no-deps neural-tangents==0.6.5 frozendict") == 2


def test_a_kernel_that_imports_neural_tangents_at_its_first_call_may_be_called_in_a_trace():
    code = """
import jax, jax.numpy as jnp
from nteq.networks import gcnn
kernel, x = gcnn([2], parameterization="standard").kernel, jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
traced = jax.jit(lambda x: kernel(x, x).ntk)(x)
assert jnp.allclose(traced, kernel(x, x).ntk, rtol=1e-5), traced
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
