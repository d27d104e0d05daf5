"""What the library computes in float32 is right to float32, on the processor and on a GPU.

`make test-slow` runs this on the processor. `make test-gpu` runs it on the first GPU, against float64 on the
processor, and does the same in float64 where the GPU has it.
"""

import os
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nteq import ensembles
from nteq.actions import on_images, on_lattices, on_vectors, orbit
from nteq.averages import orbit_average
from nteq.gaussian_process import log_evidence, nngp_posterior
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic, dihedral
from nteq.ising import energy, metropolis
from nteq.kernels import empirical_ntk, mlp_kernel
from nteq.metrics import equivariance_error, orbit_same_prediction, relative_std
from nteq.networks import cnn, mlp

CPU = jax.devices("cpu")[0]
DEVICE = jax.devices(os.environ.get("NTEQ_TEST_PLATFORM", "cpu"))[0]
TURN = on_lattices(cyclic(4))
RELU, ERF = mlp_kernel(2, "relu", 1.5, 0.1), mlp_kernel(2, "erf", 1.3, 0.2)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape)


X, Y, FAR = draw(6, 4, 4), draw(7, 6)[0], 3 * draw(9, 4, 4)[4:]
IMAGES = draw(5, 6, 6, 1)
CASES = {
    # the function of float arrays, and its relative accuracy in units of 1e-5
    "relu": (lambda x: RELU(x, x).ntk, X, 1),
    "erf": (lambda x: ERF(x, x).ntk, X, 1),
    "erf, raw pixels": (lambda x: mlp_kernel(1, "erf")(x, x).ntk, 255 * np.abs(draw(4, 784)), 1),
    "gradient of a kernel": (jax.grad(lambda x: RELU(x, x).ntk.sum()), X, 10),
    "orbit average": (lambda x: orbit_average(RELU, TURN)(x, x).ntk, X, 1),
    "turned images": (lambda x: orbit(on_images(cyclic(8)), x), IMAGES, 1),
    "flow, mean": (lambda x: GradientFlow(RELU, x, Y.astype(x.dtype)).mean(x[:3] + 1, 10.0), X, 10),
    "augmented flow, covariance": (
        lambda x: GradientFlow.augmented(
            RELU, x, Y.astype(x.dtype), on_lattices(dihedral(4))
        ).covariance(FAR.astype(x.dtype), 10.0),
        X,
        100,  # a difference of terms that are larger than it
    ),
    "posterior": (lambda x: nngp_posterior(RELU, x, Y.astype(x.dtype), x + 1, noise=0.1).mean, X, 10),
    "evidence": (lambda x: log_evidence(RELU, x, Y.astype(x.dtype), noise=0.1), X, 10),
    "energy": (energy, X, 1),
    "relative_std": (lambda x: relative_std(5 + orbit(TURN, x)), X, 10),
    "empirical_ntk": (
        lambda x: empirical_ntk(mlp(16).apply, parameters(mlp(16), (4, 4), x.dtype), x, x),
        X,
        1,
    ),
    "moved vectors": (lambda x: orbit(on_vectors(cyclic(5)), x), draw(5, 2), 1),
    "equivariance_error": (lambda x: equivariance_error(x, cyclic(4).matrices), draw(4, 3, 2), 10),
    "training": (
        lambda x: ensembles.predict(
            mlp(16),
            ensembles.train(
                mlp(16), members(mlp(16), (4, 4), x.dtype), x, Y.astype(x.dtype), 20, learning_rate=0.1
            ),
            x,
        ),
        X,
        100,  # rounding grows from step to step
    ),
    "training a CNN with Adam": (
        lambda x: ensembles.predict(
            cnn([4]),
            ensembles.train(
                cnn([4]), members(cnn([4]), (6, 6, 1), x.dtype), x, Y[:5].astype(x.dtype), 5,
                optimizer=optax.adam(1e-2),
            ),
            x,
        ),
        IMAGES,
        100,
    ),
}  # fmt: skip


def parameters(network, shape, dtype):
    """The same numbers in every precision, on the device that computes."""
    with jax.default_device(CPU):
        params = network.init(jax.random.key(0), shape, np.float32)
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), dtype), params)


def members(network, shape, dtype):
    one = parameters(network, shape, dtype)
    return jax.tree.map(lambda leaf: jnp.stack([leaf, -leaf, leaf[::-1]]), one)


def products(jaxpr):
    """All matrix products in a program and in the programs that it calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from products(inner)


WITH_PRODUCTS = [
    "relu", "erf", "gradient of a kernel", "orbit average", "flow, mean", "augmented flow, covariance",
    "posterior", "evidence", "moved vectors", "equivariance_error",
]  # fmt: skip


@pytest.mark.parametrize("name", WITH_PRODUCTS)
def test_every_product_is_asked_for_in_full_precision(name):
    """An accelerator takes float32 for less otherwise; on the processor it makes no difference."""
    function, x, _ = CASES[name]
    found = [e.params["precision"] for e in products(jax.make_jaxpr(function)(x.astype(np.float32)).jaxpr)]
    assert found and all(p == (jax.lax.Precision.HIGHEST,) * 2 for p in found), found


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_a_device_computes_what_the_processor_does_in_float64(name, dtype):
    function, x, units = CASES[name]
    with jax.default_device(CPU):
        expected = np.asarray(function(jnp.asarray(x)))
    network = name.startswith(("empirical", "training"))  # which follow JAX's setting
    with jax.default_device(DEVICE), jax.default_matmul_precision("highest") if network else nullcontext():
        found = function(jnp.asarray(x, dtype))
    assert found.dtype == dtype and DEVICE in found.devices()
    accuracy = units * (1e-5 if dtype == np.float32 else 1e-12)
    np.testing.assert_allclose(found, expected, rtol=0, atol=accuracy * np.abs(expected).max())


def test_samplers_and_predicted_classes_on_the_device():
    with jax.default_device(DEVICE):
        spins = metropolis(jax.random.key(0), 400, 8, 0.3, 200)
        assert DEVICE in spins.devices()
        mean, error = energy(spins).mean(), energy(spins).std() / 20
        assert orbit_same_prediction(jnp.stack([spins[:, 0], spins[:, 0]])).min() == 1
    with jax.default_device(CPU):
        there = energy(metropolis(jax.random.key(1), 400, 8, 0.3, 200))
    assert abs(mean - there.mean()) < 4 * np.hypot(error, there.std() / 20)
