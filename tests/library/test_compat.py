"""neural-tangents on today's JAX: every layer against an oracle without neural-tangents' kernels."""

import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import nteq
from nteq.compat import neural_tangents as nt
from nteq.compat import stax

# what neural-tangents assumes of its users' networks, said at every call
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}:UserWarning")
    for message in (
        "Inputs to this layer are assumed to have unit norm",
        "`FanIn` layers assume independent inputs",
        "Numerical Activation Layer",
        "Linear scaling attention used",
        "Using JAX autodiff to compute the",
    )
]
KINDS = ("nngp", "ntk")
ORACLE = Path(__file__).parent / "data" / "neural_tangents_065.npz"


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# Nonlinearities: the 2d Gaussian integral, in polar coordinates so that kinks fall between nodes

S1, S2, RHO = 1.3, 0.7, 0.4  # standard deviations of the two inputs and their correlation


def quadrature(phi, rho=RHO, s1=S1, s2=S2):
    """E[phi(u) phi(v)] for Gaussian u, v of standard deviations s1, s2 and correlation rho."""
    angle = np.arccos(rho)
    breaks = np.sort(np.mod([np.pi / 2, 3 * np.pi / 2, angle + np.pi / 2, angle + 3 * np.pi / 2], 2 * np.pi))
    breaks = np.unique(np.append(breaks, breaks[0] + 2 * np.pi))
    node, weight = np.polynomial.legendre.leggauss(80)
    width = np.diff(breaks)[:, None] / 2
    theta, w_theta = (breaks[:-1, None] + width * (1 + node)).ravel(), (width * weight).ravel()
    node, weight = np.polynomial.legendre.leggauss(160)
    r, w_r = 7 * (1 + node), 7 * weight
    density = (w_r * r * np.exp(-(r**2) / 2))[:, None] * w_theta / (2 * np.pi)
    u, v = s1 * r[:, None] * np.cos(theta), s2 * r[:, None] * np.cos(theta - angle)
    return float(np.sum(density * np.asarray(phi(u)) * np.asarray(phi(v))))


def inputs_with_covariance(rho=RHO, s1=S1, s2=S2):
    """Two inputs whose inner products over the dimension are the covariance matrix."""
    return np.sqrt(2) * s1 * np.array([[1.0, 0.0]]), np.sqrt(2) * s2 * np.array([[rho, np.sqrt(1 - rho**2)]])


NONLINEARITIES = {
    "Erf": stax.Erf(),
    "Erf affine": stax.Erf(1.5, 0.8, 0.3),
    "Sigmoid_like": stax.Sigmoid_like(),
    "Gabor": stax.Gabor(),
    "Gelu": stax.Gelu(),
    "Sin": stax.Sin(1.2, 0.9, 0.4),
    "Cos": stax.Cos(1.2, 0.9, 0.4),
    "Rbf": stax.Rbf(0.7),
    "ABRelu": stax.ABRelu(-0.3, 1.4),
    "Relu": stax.Relu(),
    "Relu stabilised": stax.Relu(do_stabilize=True),
    "LeakyRelu": stax.LeakyRelu(0.2),
    "Abs": stax.Abs(),
    "Sign": stax.Sign(),
    "Exp": stax.Exp(0.9, 0.5),
    "Gaussian": stax.Gaussian(1.1, -0.6),
    "Hermite": stax.Hermite(3),
    "Monomial": stax.Monomial(3),
    "RectifiedMonomial": stax.RectifiedMonomial(2),
    "Polynomial": stax.Polynomial([0.3, -0.5, 0.2, 0.1]),
}
# What chapters and library use is tested each time, the rest of neural-tangents by `make test-slow`.
USED = {"Erf", "Relu", "LeakyRelu", "Sin", "Dense", "Conv", "Flatten", "GlobalAvgPool"}


USED_FUNCTIONS = {
    "empirical_ntk_fn",
    "NtkImplementation.STRUCTURED_DERIVATIVES",
    "predict.gradient_descent_mse",
    "predict.gradient_descent_mse_ensemble",
}


def by_use(names):
    return [name if name in USED else pytest.param(name, marks=pytest.mark.slow) for name in names]


def test_what_a_chapter_or_the_library_uses_is_tested_each_time():
    root = Path(nteq.__file__).resolve().parent.parent
    folders = ("nteq", "notebooks", "experiments", "assignments", "coursework", "benchmarks", "book", "tools")
    files = [file for folder in folders for kind in ("*.py", "*.md") for file in (root / folder).rglob(kind)]
    text = "\n".join(file.read_text("utf-8") for file in files)
    assert {"Dense", "Erf"} <= set(re.findall(r"\bstax\.([A-Z]\w*)", text)) <= USED
    assert set(re.findall(r"\bnt\.(\w+(?:\.\w+)?)", text)) <= USED_FUNCTIONS


# Hermite polynomials have unit variance under N(0, 1) only, and neural-tangents' kernel assumes it
UNIT_VARIANCE = {"Hermite"}


@pytest.mark.parametrize("name", by_use(NONLINEARITIES))
def test_a_nonlinearity_maps_both_kernels_by_its_gaussian_integrals(name):
    kernel_fn = stax.serial(stax.Dense(1), NONLINEARITIES[name])[2]
    activation = lambda z: NONLINEARITIES[name][1]((), z)
    s1, s2 = (1.0, 1.0) if name in UNIT_VARIANCE else (S1, S2)
    for rho in (RHO, -0.8):
        x1, x2 = inputs_with_covariance(rho, s1, s2)
        nngp, ntk = kernel_fn(x1, x2, KINDS)
        slope = lambda z: jax.vmap(jax.grad(lambda s: activation(s)))(jnp.ravel(z)).reshape(z.shape)
        assert_allclose(nngp, [[quadrature(activation, rho, s1, s2)]], rtol=1e-9, atol=1e-10)
        expected = rho * s1 * s2 * quadrature(slope, rho, s1, s2)
        assert_allclose(ntk, [[expected]], rtol=1e-9, atol=1e-10)


# RectifiedMonomial: in 0.6.5 rounding under a square root makes its diagonal NaN
@pytest.mark.parametrize("name", by_use(n for n in NONLINEARITIES if n != "RectifiedMonomial"))
def test_the_kernel_of_a_nonlinearity_is_a_covariance(name):
    x = draw(6, 4)
    if name in UNIT_VARIANCE:
        x *= 2 / np.linalg.norm(x, axis=1, keepdims=True)
    kernel_fn = stax.serial(stax.Dense(1), NONLINEARITIES[name], stax.Dense(1, b_std=0.1))[2]
    for k in kernel_fn(x, None, KINDS):
        k = np.asarray(k)
        assert k.std() > 1e-3
        assert_allclose(k, k.T, rtol=1e-9, atol=1e-9)
        assert np.linalg.eigvalsh(k).min() > -1e-7 * np.abs(k).max()


@pytest.mark.slow
def test_numerical_and_custom_nonlinearities_agree_with_the_closed_form():
    x1, x2 = draw(3, 4), draw(2, 4, seed=1)
    closed = stax.serial(stax.Dense(1), stax.Erf())[2](x1, x2, KINDS)
    numerical = stax.serial(stax.Dense(1), stax.ElementwiseNumerical(jax.scipy.special.erf, deg=60))[2]
    arcsine = lambda c12, c1, c2: 2 / jnp.pi * jnp.arcsin(2 * c12 / jnp.sqrt((1 + 2 * c1) * (1 + 2 * c2)))
    custom = stax.serial(stax.Dense(1), stax.Elementwise(jax.scipy.special.erf, arcsine))[2]
    for kernel_fn, rtol in ((numerical, 1e-4), (custom, 1e-10)):
        for got, expected in zip(kernel_fn(x1, x2, KINDS), closed, strict=True):
            assert_allclose(got, expected, rtol=rtol, atol=rtol)


@pytest.mark.slow
def test_exp_normalized_is_the_gaussian_of_the_angle():
    x1, x2 = inputs_with_covariance()
    nngp, ntk = stax.serial(stax.Dense(1), stax.ExpNormalized(gamma=1.5))[2](x1, x2, KINDS)
    gaussian = np.exp(1.5 * (RHO - 1))
    assert_allclose(nngp, [[S1 * S2 * gaussian]], rtol=1e-12)
    assert_allclose(ntk, [[1.5 * RHO * S1 * S2 * gaussian]], rtol=1e-12)


# Layers: the layer-wise recursion in NumPy on the joint covariance of all (example, position) pairs


def relu(nngp, ntk):
    """The arc-cosine kernel of degree one (Cho & Saul 2009)."""
    scale = np.sqrt(np.outer(np.diag(nngp), np.diag(nngp)))
    sine = np.sqrt(np.maximum(scale**2 - nngp**2, 0))
    dot = (np.pi - np.arctan2(sine, nngp)) / (2 * np.pi)
    return sine / (2 * np.pi) + dot * nngp, dot * ntk


def dense(nngp, ntk, W_std=1.0, b_std=0.0):
    out = W_std**2 * nngp + b_std**2
    return out, out + W_std**2 * ntk


def spread(matrix, k, n):
    """Applies a linear map of positions to both sides of the covariance of n examples."""
    whole = np.kron(np.eye(n), matrix)
    return whole @ k @ whole.T


def shifts(side, window, padding, stride=1):
    """For each offset of the filter, the matrix from positions of the input to those of the output."""
    valid = padding == "VALID"
    corners = range(0, side - window + 1 if valid else side, stride)
    start = 0 if valid else -(window // 2)
    for i in range(window):
        for j in range(window):
            matrix = np.zeros((len(corners) ** 2, side**2))
            for out, (a, b) in enumerate((a, b) for a in corners for b in corners):
                row, column = a + i + start, b + j + start
                if padding == "CIRCULAR":
                    row, column = row % side, column % side
                if 0 <= row < side and 0 <= column < side:
                    matrix[out, row * side + column] = 1
            yield matrix


def conv(nngp, ntk, n, side, window, padding, W_std, b_std):
    maps = list(shifts(side, window, padding))
    mean = lambda k: sum(spread(m, k, n) for m in maps) / len(maps)
    return dense(mean(nngp), mean(ntk), W_std, b_std)


def heads(side):
    """Per head, the map of the covariance over positions of two examples to a number."""
    pool = np.zeros(((side // 2) ** 2, side**2))
    for a in range(side // 2 * 2):
        for b in range(side // 2 * 2):
            pool[(a // 2) * (side // 2) + b // 2, a * side + b] = 1
    return {
        "Flatten": (lambda: [stax.Flatten()], lambda block: np.trace(block) / len(block)),
        "GlobalAvgPool": (lambda: [stax.GlobalAvgPool()], np.mean),
        "GlobalSumPool": (lambda: [stax.GlobalSumPool()], np.sum),
        "AvgPool": (
            lambda: [stax.AvgPool((2, 2), strides=(2, 2)), stax.Flatten()],
            lambda block: np.trace(pool @ block @ pool.T) / 16 / len(pool),
        ),
        "SumPool": (
            lambda: [stax.SumPool((2, 2), strides=(2, 2)), stax.Flatten()],
            lambda block: np.trace(pool @ block @ pool.T) / len(pool),
        ),
    }


@pytest.mark.parametrize(
    "padding", ["CIRCULAR", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SAME", "VALID"))]
)
@pytest.mark.parametrize("head", by_use(["Flatten", "GlobalAvgPool", "GlobalSumPool", "AvgPool", "SumPool"]))
def test_a_convolutional_network_has_the_kernel_of_the_explicit_recursion(padding, head):
    n, side, channels, W_std, b_std = 4, 5, 2, 1.4, 0.3
    x = draw(n, side, side, channels, seed=2)
    out_side = side - 2 if padding == "VALID" else side
    layers, reduce = heads(out_side)[head]
    kernel_fn = stax.serial(
        stax.Conv(1, (3, 3), padding=padding, W_std=W_std, b_std=b_std),
        stax.Relu(),
        *layers(),
        stax.Dense(1, W_std=W_std, b_std=b_std),
    )[2]

    flat = x.reshape(n * side**2, channels)
    nngp = flat @ flat.T / channels
    nngp, ntk = relu(*conv(nngp, 0 * nngp, n, side, 3, padding, W_std, b_std))
    blocks = lambda k: k.reshape(n, out_side**2, n, out_side**2).swapaxes(1, 2)
    pooled = [np.array([[reduce(block) for block in row] for row in blocks(k)]) for k in (nngp, ntk)]
    expected = dense(*pooled, W_std, b_std)

    for got, k in zip(kernel_fn(x[:2], x[2:], KINDS), expected, strict=True):
        assert_allclose(got, k[:2, 2:], rtol=1e-11)
    for got, k in zip(kernel_fn(x, None, KINDS), expected, strict=True):
        assert_allclose(got, k, rtol=1e-7)


@pytest.mark.slow
def test_a_stack_of_convolutions_has_the_kernel_of_the_explicit_recursion():
    n, side = 3, 4
    x = draw(n, side, side, 2, seed=3)
    layer = lambda: (stax.Conv(1, (3, 3), padding="CIRCULAR", W_std=1.4, b_std=0.2), stax.Relu())
    kernel_fn = stax.serial(*layer(), *layer(), stax.GlobalAvgPool(), stax.Dense(1))[2]
    flat = x.reshape(n * side**2, 2)
    nngp, ntk = flat @ flat.T / 2, np.zeros((n * side**2,) * 2)
    for _ in range(2):
        nngp, ntk = relu(*conv(nngp, ntk, n, side, 3, "CIRCULAR", 1.4, 0.2))
    pool = np.full((1, side**2), 1 / side**2)
    expected = dense(spread(pool, nngp, n), spread(pool, ntk, n))
    for got, k in zip(kernel_fn(x[:1], x[1:], KINDS), expected, strict=True):
        assert_allclose(got, k[:1, 1:], rtol=1e-11)


def gram(x):
    return x @ x.T / x.shape[1], np.zeros((len(x), len(x)))


def off_diagonal(k):
    return np.asarray(k)[:2, 2:]


@pytest.mark.parametrize("depth", [1, 3])
def test_a_dense_network_has_the_kernel_of_the_recursion(depth):
    x = draw(5, 6)
    layer = lambda: (stax.Dense(1, W_std=1.5, b_std=0.2), stax.Relu())
    kernel_fn = stax.serial(*(part for _ in range(depth) for part in layer()), stax.Dense(1))[2]
    state = gram(x)
    for _ in range(depth):
        state = relu(*dense(*state, 1.5, 0.2))
    for got, k in zip(kernel_fn(x[:2], x[2:], KINDS), dense(*state), strict=True):
        assert_allclose(got, off_diagonal(k), rtol=1e-12)


@pytest.mark.slow
def test_a_residual_block_adds_the_kernels_of_its_branches():
    x = draw(5, 6)
    block = stax.serial(
        stax.FanOut(2),
        stax.parallel(stax.Identity(), stax.serial(stax.Relu(), stax.Dense(1, W_std=1.5))),
        stax.FanInSum(),
    )
    kernel_fn = stax.serial(stax.Dense(1), block, stax.Relu(), stax.Dense(1))[2]
    skip = dense(*gram(x))
    branch = dense(*relu(*skip), 1.5)
    expected = dense(*relu(*(a + b for a, b in zip(skip, branch, strict=True))))
    for got, k in zip(kernel_fn(x[:2], x[2:], KINDS), expected, strict=True):
        assert_allclose(got, off_diagonal(k), rtol=1e-12)


@pytest.mark.slow
def test_a_product_of_branches_multiplies_the_kernels():
    x = draw(5, 6)
    product = stax.serial(
        stax.FanOut(2), stax.parallel(stax.Dense(1), stax.Dense(1, W_std=1.5)), stax.FanInProd()
    )
    (a, da), (b, db) = dense(*gram(x)), dense(*gram(x), 1.5)
    for got, k in zip(product[2](x[:2], x[2:], KINDS), (a * b, da * b + a * db), strict=True):
        assert_allclose(got, off_diagonal(k), rtol=1e-12)


@pytest.mark.slow
def test_repeating_a_block_is_writing_it_out():
    x = draw(5, 6)
    block = stax.serial(stax.Dense(6, W_std=1.5, b_std=0.1), stax.Relu())  # as wide as its input
    repeated, written_out = stax.repeat(block, 3)[2], stax.serial(*[block] * 3)[2]
    for a, b in zip(repeated(x[:2], x[2:], KINDS), written_out(x[:2], x[2:], KINDS), strict=True):
        assert_allclose(a, b, rtol=1e-12)


@pytest.mark.slow
def test_layer_norm_divides_by_the_standard_deviations():
    x = draw(5, 6)
    kernel_fn = stax.serial(stax.Dense(1, W_std=1.5, b_std=0.3), stax.LayerNorm(eps=1e-12), stax.Relu())[2]
    nngp, ntk = dense(*gram(x), 1.5, 0.3)
    scale = np.sqrt(np.outer(np.diag(nngp), np.diag(nngp)))
    for got, k in zip(kernel_fn(x[:2], x[2:], KINDS), relu(nngp / scale, ntk / scale), strict=True):
        assert_allclose(got, off_diagonal(k), rtol=1e-10)


@pytest.mark.slow
def test_attention_weighs_positions_by_the_softmax_of_their_covariance():
    n, positions, channels, OV, b_std = 4, 3, 2, 1.2, 0.3
    x = draw(n, positions, channels)
    attention = stax.GlobalSelfAttention(
        1, 1, 1, 1, W_key_std=1.3, W_value_std=OV, b_std=b_std, linear_scaling=True
    )
    kernel_fn = stax.serial(stax.Conv(1, (1,)), attention, stax.Flatten())[2]
    flat = x.reshape(n * positions, channels)
    blocks = lambda k: k.reshape(n, positions, n, positions).swapaxes(1, 2)
    nngp, ntk = (blocks(k) for k in dense(*gram(flat)))
    # tied keys and queries, scaled by the dimension: the attention weights become constants (Hron et al.)
    weights = np.exp(1.3 * np.stack([nngp[i, i] for i in range(n)]))
    weights /= weights.sum(axis=2, keepdims=True)
    weigh = lambda k: OV**2 * np.einsum("ipq,ijqs,jrs->ijpr", weights, k, weights) + b_std**2
    out = weigh(nngp)
    flatten = lambda k: np.trace(k, axis1=2, axis2=3)[:2, 2:] / positions
    expected = flatten(out), flatten(weigh(ntk) + 2 * (out - b_std**2))
    for got, k in zip(kernel_fn(x[:2], x[2:], KINDS), expected, strict=True):
        assert_allclose(got, k, rtol=1e-11)


# Finite networks


def small_mlp():
    return stax.serial(
        stax.Dense(16, W_std=1.4, b_std=0.1), stax.Erf(), stax.Dense(8), stax.Relu(), stax.Dense(3)
    )


def small_cnn():
    return stax.serial(
        stax.Conv(5, (3, 3), padding="SAME", b_std=0.1),
        stax.Gelu(),
        stax.GlobalAvgPool(),
        stax.Dense(2, b_std=0.2),
    )


def explicit_ntk(apply_fn, params, x1, x2):
    """The sum over parameters of products of derivatives, all outputs kept: (n1, n2, outputs, outputs)."""

    def jacobian(x):
        leaves = jax.tree.leaves(jax.jacobian(lambda p: apply_fn(p, x))(params))
        return np.concatenate([np.reshape(leaf, (*leaf.shape[:2], -1)) for leaf in leaves], axis=2)

    return np.einsum("iap,jbp->ijab", jacobian(x1), jacobian(x2))


@pytest.mark.slow
@pytest.mark.parametrize("network, shape", [(small_mlp, (4,)), (small_cnn, (4, 4, 2))])
@pytest.mark.parametrize("implementation", nt.NtkImplementation, ids=lambda i: i.name)
def test_each_empirical_ntk_is_the_product_of_jacobians(network, shape, implementation):
    init_fn, apply_fn, _ = network()
    x1, x2 = draw(3, *shape), draw(2, *shape, seed=1)
    _, params = init_fn(jax.random.key(0), (-1, *shape))
    expected = explicit_ntk(apply_fn, params, x1, x2)
    whole = nt.empirical_ntk_fn(apply_fn, trace_axes=(), implementation=implementation)
    assert_allclose(whole(x1, x2, params), expected, rtol=1e-11, atol=1e-12)
    traced = nt.empirical_ntk_fn(apply_fn, implementation=implementation, vmap_axes=0)
    average = np.trace(expected, axis1=2, axis2=3) / expected.shape[-1]
    assert_allclose(traced(x1, x2, params), average, rtol=1e-11, atol=1e-12)
    assert_allclose(jax.jit(traced)(x1, x2, params), average, rtol=1e-11, atol=1e-12)


def test_implementations_are_numbered_as_documented():
    names = ["AUTO", "JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES"]
    assert [(i.name, int(i)) for i in nt.NtkImplementation] == [(name, i) for i, name in enumerate(names)]


@pytest.mark.slow
def test_empirical_nngp_and_ntk_vector_products():
    init_fn, apply_fn, _ = small_mlp()
    x1, x2, vector = draw(3, 4), draw(2, 4, seed=1), draw(2, 3, seed=2)
    _, params = init_fn(jax.random.key(0), (-1, 4))
    f1, f2 = apply_fn(params, x1), apply_fn(params, x2)
    ntk = explicit_ntk(apply_fn, params, x1, x2)
    assert_allclose(nt.empirical_nngp_fn(apply_fn)(x1, x2, params), f1 @ f2.T / 3, rtol=1e-12)
    product = nt.empirical_ntk_vp_fn(apply_fn, x1, x2, params)(vector)
    assert_allclose(product, np.einsum("ijab,jb->ia", ntk, vector), rtol=1e-11)
    both = nt.empirical_kernel_fn(apply_fn)(x1, x2, KINDS, params)
    assert_allclose(both.nngp, f1 @ f2.T / 3, rtol=1e-12)
    assert_allclose(both.ntk, np.trace(ntk, axis1=2, axis2=3) / 3, rtol=1e-11)


@pytest.mark.slow
def test_linearize_and_taylor_expand_are_the_taylor_series():
    init_fn, apply_fn, _ = small_mlp()
    x = draw(3, 4)
    _, params = init_fn(jax.random.key(0), (-1, 4))
    _, step = init_fn(jax.random.key(1), (-1, 4))
    moved = jax.tree.map(lambda p, d: p + 0.1 * d, params, step)
    along = lambda s: apply_fn(jax.tree.map(lambda p, d: p + s * d, params, step), x)
    first, second = jax.jacobian(along)(0.0), jax.hessian(along)(0.0)
    linear = along(0.0) + 0.1 * first
    assert_allclose(nt.linearize(apply_fn, params)(moved, x), linear, rtol=1e-11)
    assert_allclose(nt.taylor_expand(apply_fn, params, 2)(moved, x), linear + 0.005 * second, rtol=1e-11)
    assert np.abs(linear - apply_fn(moved, x)).max() > 1e-4


# One hidden layer: the mean of the empirical kernel is the analytic one at any width, without a bias
MONTE_CARLO = {
    "dense": (lambda: (stax.Dense(32, b_std=0.3), stax.Relu(), stax.Dense(1, b_std=0.1)), (4,)),
    "conv": (
        lambda: (stax.Conv(16, (3, 3), padding="SAME"), stax.Erf(), stax.GlobalAvgPool(), stax.Dense(1)),
        (4, 4, 2),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MONTE_CARLO)
def test_the_mean_over_random_networks_is_the_analytic_kernel(name):
    layers, shape = MONTE_CARLO[name]
    init_fn, apply_fn, kernel_fn = stax.serial(*layers())
    x1, x2 = draw(3, *shape), draw(2, *shape, seed=1)
    size, batches = 25, 40
    counts = [size * (i + 1) for i in range(batches)]
    sampled = nt.monte_carlo_kernel_fn(init_fn, apply_fn, jax.random.key(3), counts, vmap_axes=0)(
        x1, x2, KINDS
    )
    for kind, means in zip(KINDS, zip(*sampled, strict=True), strict=True):
        # the generator gives running means, and their differences those of independent batches
        sums = np.diff(np.array(means) * np.array(counts)[:, None, None], axis=0, prepend=0) / size
        error = sums.std(axis=0, ddof=1) / np.sqrt(batches)
        z = (sums.mean(axis=0) - np.asarray(kernel_fn(x1, x2, kind))) / error
        assert np.all(error > 0)
        assert np.abs(z).max() < 4


# Predictions


def problem():
    kernel_fn = stax.serial(stax.Dense(1, W_std=1.3, b_std=0.2), stax.Erf(), stax.Dense(1, W_std=1.3))[2]
    return kernel_fn, draw(6, 4), draw(6, 2, seed=1), draw(3, 4, seed=2)


def explicit_mean(ntk, ntk_test, y, t):
    """The closed form in the eigenbasis; t as neural-tangents counts it, over y.size."""
    values, vectors = np.linalg.eigh(ntk)
    factor = 1 / values if t is None else -np.expm1(-values * t / y.size) / values
    return ntk_test @ (vectors * factor) @ vectors.T


@pytest.mark.parametrize("t", [0.0, 0.7, 20.0, None])
def test_gradient_descent_mse_follows_the_closed_form(t):
    kernel_fn, x, y, x_test = problem()
    ntk, ntk_test = np.asarray(kernel_fn(x, None, "ntk")), np.asarray(kernel_fn(x_test, x, "ntk"))
    f0, f0_test = draw(6, 2, seed=5), draw(3, 2, seed=6)
    predict = nt.predict.gradient_descent_mse(ntk, y)
    train, test = predict(t, f0, f0_test, ntk_test)
    assert_allclose(train, f0 + explicit_mean(ntk, ntk, y, t) @ (y - f0), rtol=1e-9, atol=1e-10)
    assert_allclose(test, f0_test + explicit_mean(ntk, ntk_test, y, t) @ (y - f0), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("t", [0.0, 0.7, 20.0, None])
def test_the_ensemble_has_the_closed_form_mean_and_covariance(t):
    kernel_fn, x, y, x_test = problem()
    ntk, ntk_test = np.asarray(kernel_fn(x, None, "ntk")), np.asarray(kernel_fn(x_test, x, "ntk"))
    K, K_test, K_both = (
        np.asarray(kernel_fn(*pair, "nngp")) for pair in ((x, None), (x_test, x), (x_test, None))
    )
    a = explicit_mean(ntk, ntk_test, y, t)
    predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x, y)
    got = predict(t=t, x_test=x_test, get="ntk", compute_cov=True)
    assert_allclose(got.mean, a @ y, rtol=1e-9, atol=1e-10)
    assert_allclose(got.covariance, K_both + a @ K @ a.T - a @ K_test.T - K_test @ a.T, rtol=1e-9, atol=1e-10)


def test_bayesian_inference_is_regression_with_the_nngp():
    kernel_fn, x, y, x_test = problem()
    K, K_test = np.asarray(kernel_fn(x, None, "nngp")), np.asarray(kernel_fn(x_test, x, "nngp"))
    K_both = np.asarray(kernel_fn(x_test, None, "nngp"))
    noisy = K + 0.1 * np.trace(K) / len(K) * np.eye(len(K))
    predict = nt.predict.gp_inference(kernel_fn(x, None, KINDS), y, diag_reg=0.1)
    got = predict("nngp", kernel_fn(x_test, x, KINDS), kernel_fn(x_test, None, "nngp"))
    assert_allclose(got.mean, K_test @ np.linalg.solve(noisy, y), rtol=1e-10)
    assert_allclose(got.covariance, K_both - K_test @ np.linalg.solve(noisy, K_test.T), rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_the_ode_solver_agrees_with_the_closed_form():
    kernel_fn, x, y, x_test = problem()
    ntk, ntk_test = np.asarray(kernel_fn(x, None, "ntk")), np.asarray(kernel_fn(x_test, x, "ntk"))
    loss = lambda f, y: 0.5 * jnp.mean((f - y) ** 2)
    predict = nt.predict.gradient_descent(loss, ntk, y)
    train, test = predict(3.0, np.zeros((6, 2)), np.zeros((3, 2)), ntk_test)
    assert_allclose(train, explicit_mean(ntk, ntk, y, 3.0) @ y, rtol=1e-5, atol=1e-6)
    assert_allclose(test, explicit_mean(ntk, ntk_test, y, 3.0) @ y, rtol=1e-5, atol=1e-6)


def test_the_largest_learning_rate_is_two_over_the_largest_eigenvalue():
    kernel_fn, x, y, _ = problem()
    ntk = np.asarray(kernel_fn(x, None, "ntk"))
    expected = 2 * y.size / np.linalg.eigvalsh(ntk).max()
    assert_allclose(nt.predict.max_learning_rate(ntk, y_train_size=y.size), expected, rtol=1e-5)


@pytest.mark.slow
def test_a_prediction_can_be_compiled_differentiated_and_mapped():
    kernel_fn, x, y, x_test = problem()

    def total(x_train):
        predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x_train, y)
        return jnp.sum(predict(t=2.0, x_test=x_test, get="ntk"))

    direction = draw(*x.shape, seed=7)
    plain = total(x)
    assert_allclose(jax.jit(total)(x), plain, rtol=1e-10)
    assert_allclose(jax.vmap(total)(np.stack([x, 2 * x])), [plain, total(2 * x)], rtol=1e-10)
    slope = np.sum(jax.grad(total)(jnp.asarray(x)) * direction)
    h = 1e-5
    assert_allclose(slope, (total(x + h * direction) - total(x - h * direction)) / (2 * h), rtol=1e-6)

    ntk, ntk_test = kernel_fn(x, None, "ntk"), kernel_fn(x_test, x, "ntk")
    at = lambda k: nt.predict.gradient_descent_mse(k, y)(2.0, np.zeros((6, 2)), np.zeros((3, 2)), ntk_test)[1]
    assert_allclose(jax.jit(at)(ntk), at(ntk), rtol=1e-10)


# Kernels as functions


def deep_kernel():
    return stax.serial(stax.Dense(1, b_std=0.1), stax.Relu(), stax.Dense(1), stax.Erf(), stax.Dense(1))[2]


@pytest.mark.slow
def test_a_kernel_can_be_compiled_differentiated_and_mapped():
    x1, x2, direction = jnp.asarray(draw(3, 4)), jnp.asarray(draw(2, 4, seed=1)), draw(3, 4, seed=2)
    ntk = lambda a, b: deep_kernel()(a, b, "ntk")
    assert_allclose(jax.jit(ntk)(x1, x2), ntk(x1, x2), rtol=1e-12)
    rows = jax.vmap(lambda a: ntk(a[None], x2)[0])(x1)
    assert_allclose(rows, ntk(x1, x2), rtol=1e-12)
    total = lambda a: jnp.sum(ntk(a, x2))
    h = 1e-5
    numeric = (total(x1 + h * direction) - total(x1 - h * direction)) / (2 * h)
    assert_allclose(np.sum(jax.grad(total)(x1) * direction), numeric, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("device_count", [-1, 0])
def test_a_kernel_in_batches_is_the_kernel(device_count):
    x1, x2 = draw(6, 4), draw(4, 4, seed=1)
    kernel_fn = deep_kernel()
    batched = nt.batch(kernel_fn, batch_size=2, device_count=device_count)
    for kind in KINDS:
        assert_allclose(batched(x1, x2, kind), kernel_fn(x1, x2, kind), rtol=1e-12)
        assert_allclose(batched(x1, None, kind), kernel_fn(x1, None, kind), rtol=1e-7)


def test_single_precision_inputs_give_the_kernel_to_single_precision():
    x = draw(3, 4).astype(np.float32)
    off = deep_kernel()(x[:1], x[1:], "ntk")
    assert_allclose(off, deep_kernel()(x[:1].astype(float), x[1:].astype(float), "ntk"), rtol=1e-5, atol=1e-6)


# Values of unmodified neural-tangents (tests/library/data/README.md)


@pytest.fixture(scope="module")
def oracle():
    with np.load(ORACLE) as file:
        return dict(file)


def oracle_mlp(activation, depth, W_std, b_std):
    layer = lambda: (stax.Dense(1, W_std=W_std, b_std=b_std), activation())
    return stax.serial(*(p for _ in range(depth) for p in layer()), stax.Dense(1, W_std=W_std, b_std=b_std))[
        2
    ]


def oracle_cnn(head, depth, W_std, b_std):
    layer = lambda: (stax.Conv(1, (3, 3), padding="SAME", W_std=W_std, b_std=b_std), stax.Relu())
    return stax.serial(
        *(p for _ in range(depth) for p in layer()), head(), stax.Dense(1, W_std=W_std, b_std=b_std)
    )[2]


MLPS = {
    "relu2": lambda: oracle_mlp(stax.Relu, 2, 1.5, 0.1),
    "erf1": lambda: oracle_mlp(stax.Erf, 1, 1.3, 0.2),
}
CNNS = {
    "cnn_gap": lambda: oracle_cnn(stax.GlobalAvgPool, 2, 1.4, 0.1),
    "cnn_flatten": lambda: oracle_cnn(stax.Flatten, 1, 1.4, 0.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [*MLPS, *CNNS])
def test_kernels_equal_those_of_unmodified_neural_tangents(oracle, case, kind):
    kernel_fn = (MLPS | CNNS)[case]()
    x1, x2 = (oracle[name] for name in (("x1", "x2") if case in MLPS else ("im1", "im2")))
    assert_allclose(kernel_fn(x1, x2, kind), oracle[f"{case}/{kind}"], rtol=1e-12)
    if case in MLPS:
        got, expected = np.array(kernel_fn(x1, None, kind)), oracle[f"{case}/{kind}_self"]
        off = ~np.eye(len(x1), dtype=bool)
        assert_allclose(got[off], expected[off], rtol=1e-12)
        assert_allclose(np.diag(got), np.diag(expected), rtol=1e-7)


@pytest.mark.parametrize("t", [0.5, 5.0, 50.0, None])
@pytest.mark.parametrize("case", MLPS)
def test_predictions_equal_those_of_unmodified_neural_tangents(oracle, case, t):
    x1, x2, y = (oracle[name] for name in ("x1", "x2", "y"))
    predict = nt.predict.gradient_descent_mse_ensemble(MLPS[case](), x1, y)
    # the names of the oracle count t over N, neural-tangents over y.size
    got = predict(t=None if t is None else t * y.size / len(y), x_test=x2, get="ntk", compute_cov=True)
    assert_allclose(got.mean, oracle[f"{case}/mean_t{t}"], rtol=1e-7)
    assert_allclose(got.covariance, oracle[f"{case}/cov_t{t}"], rtol=1e-7)


# The import itself, each time in a fresh interpreter


def run(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


COUNT = """
x = __import__('numpy').eye(2)
k = stax.serial(stax.Dense(1), stax.Relu(), stax.Dense(1))[2](x, None, 'ntk')
"""


@pytest.mark.parametrize(
    "code",
    [
        "from nteq.compat import neural_tangents as nt, stax",
        "import jax, jax.numpy\njax.jit(lambda x: x + 1)(1)\nfrom nteq.compat import stax",
        "from nteq.compat import stax\nimport nteq.compat\nfrom nteq.compat import neural_tangents as nt",
        "import nteq.compat, importlib\nimportlib.reload(nteq.compat)\nfrom nteq.compat import stax",
        "import nteq.compat, sys\ndel sys.modules['nteq.compat']\nfrom nteq.compat import stax",
        "import nteq.compat\nimport neural_tangents\nfrom neural_tangents import stax",
        "try:\n    import neural_tangents\nexcept ImportError:\n    pass\nfrom nteq.compat import stax",
    ],
    ids=[
        "first",
        "after jax",
        "twice",
        "reloaded",
        "imported anew",
        "then by its own name",
        "after its own failed",
    ],
)
def test_the_import_works_without_a_warning(code):
    status, output = run(f"{code}\n{COUNT}assert abs(k[0, 0] - 0.5) < 1e-6, k")
    assert (status, output) == (0, "")


def test_tensorflow_is_not_imported():
    code = "import sys, nteq.compat\nassert not {'tensorflow', 'tf2jax', 'absl'} & set(sys.modules)"
    assert run(code) == (0, "")


UNCHANGED = """
import sys, types
import jax, jax.core, jax.extend.core, jax.extend.source_info_util, jax.interpreters.ad, jax.numpy
import jax.example_libraries.stax, jax.experimental.ode, jax.tree_util, scipy
def names(prefixes):
    return {(module, name): value
            for module, found in list(sys.modules.items()) if module.startswith(prefixes)
            for name, value in list(vars(found).items()) if not name.startswith('__')}
before = names(('jax', 'scipy', 'numpy'))
loaded = set(sys.modules)
import nteq.compat
after = names(('jax', 'scipy', 'numpy'))
changed = [key for key in before if after.get(key, None) is not before[key]]
assert not changed, changed
added = {key for key in after.keys() - before.keys() if key[0] in loaded}
added = {key for key in added if not isinstance(after[key], types.ModuleType) or key == ('jax', 'util')}
private = [key for key in added if key[0].startswith('jax._src')]
assert not private, private
print(sorted('.'.join(key) for key in added))
"""

ADDED = {
    "jax.core": "DShapedArray Jaxpr JaxprEqn Literal Primitive ShapedArray Value Var eval_context".split(),
    "jax.interpreters.ad": ["config", "zeros_like_p"],
    "jax": ["util"],
}


def test_the_import_replaces_nothing_in_jax_and_adds_only_the_missing_names():
    status, output = run(UNCHANGED)
    assert status == 0, output
    allowed = {f"{module}.{name}" for module, names in ADDED.items() for name in names}
    added = set(eval(output))
    assert added <= allowed
    assert "jax.core.Primitive" in added


@pytest.mark.parametrize("version", ["0.9.2", "0.13.0", "1.0.0", "0.13.0.dev20270101"])
def test_an_unknown_jax_gets_an_error_that_says_what_to_install(version):
    status, output = run(f"import jax\njax.__version__ = {version!r}\nimport nteq.compat")
    assert status == 1
    message = output.splitlines()[-1]
    assert message.startswith("ImportError: ")
    assert all(part in message for part in (version, "0.10", "0.12", "pip install"))


@pytest.mark.parametrize("version", ["0.10.0", "0.12.0.1", "0.12.3.dev20270101"])
def test_a_known_jax_is_taken(version):
    assert run(f"import jax\njax.__version__ = {version!r}\nimport nteq.compat") == (0, "")


def test_a_neural_tangents_that_was_imported_unmended_gets_an_error():
    code = "import sys\nsys.modules['neural_tangents'] = type(sys)('neural_tangents')\nimport nteq.compat"
    status, output = run(code)
    assert status == 1
    assert "ImportError: neural_tangents was imported before nteq.compat" in output
    assert "from nteq.compat import neural_tangents" in output
