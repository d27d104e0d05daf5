import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from nteq.actions import on_lattices
from nteq.averages import orbit_average
from nteq.gaussian_process import log_evidence, nngp_posterior
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic
from nteq.kernels import Kernels, mlp_kernel

erf = mlp_kernel(1, "erf", 1.5, 0.1)


def rbf(length, scale):
    def kernel(x1, x2):
        squares = jnp.sum((x1[:, None] - x2[None]) ** 2, axis=2)
        k = scale * jnp.exp(-squares / (2 * length**2))
        return Kernels(k, k)

    return kernel


def problem(seed=0, n=7, outputs=None):
    draw = np.random.default_rng(seed)
    return (
        draw.normal(size=(n, 3)),
        draw.normal(size=(n, outputs) if outputs else n),
        draw.normal(size=(4, 3)),
    )


def test_posterior_and_evidence_are_those_of_scikit_learn():
    x, y, x_test = problem()
    theirs = GaussianProcessRegressor(ConstantKernel(0.7) * RBF(1.3), alpha=0.05, optimizer=None).fit(x, y)
    mean, covariance = theirs.predict(x_test, return_cov=True)
    ours = nngp_posterior(rbf(1.3, 0.7), x, y, x_test, 0.05)
    np.testing.assert_allclose(ours.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(ours.covariance, covariance, atol=1e-12)
    np.testing.assert_allclose(
        log_evidence(rbf(1.3, 0.7), x, y, 0.05), theirs.log_marginal_likelihood_value_, rtol=1e-12
    )


def test_evidence_is_the_density_of_the_labels_summed_over_outputs():
    x, y, _ = problem(1, outputs=2)
    covariance = erf(x, x).nngp + 0.1 * np.eye(7)
    expected = multivariate_normal(cov=covariance).logpdf(y.T).sum()
    np.testing.assert_allclose(log_evidence(erf, x, y, 0.1), expected, rtol=1e-12)
    assert nngp_posterior(erf, x, y, x, 0.1).mean.shape == (7, 2)


def test_gradients_of_the_evidence_are_those_of_scikit_learn_even_for_repeated_inputs():
    x, y, _ = problem(2)
    x = np.concatenate([x, x[:2]])
    y = np.concatenate([y, y[:2] + 0.3])
    theirs = GaussianProcessRegressor(ConstantKernel(0.7) * RBF(1.3), alpha=0.05, optimizer=None).fit(x, y)
    _, expected = theirs.log_marginal_likelihood(theirs.kernel_.theta, eval_gradient=True)
    ours = jax.grad(lambda p: log_evidence(rbf(jnp.exp(p[1]), jnp.exp(p[0])), x, y, 0.05))
    np.testing.assert_allclose(ours(jnp.log(jnp.array([0.7, 1.3]))), expected, rtol=1e-9)
    slope = jax.jit(jax.grad(lambda s: log_evidence(rbf(1.3, 0.7), x, y, s)))(0.05)
    h = 1e-6
    ends = [log_evidence(rbf(1.3, 0.7), x, y, 0.05 + s) for s in (h, -h)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-6)


def test_the_last_layer_trained_to_the_end_has_the_posterior_mean_and_lacks_the_noise_of_its_labels():
    x, y, x_test = problem(3)
    readout = lambda a, b: Kernels(erf(a, b).nngp, erf(a, b).nngp)
    for noise in (0.0, 0.2):
        flow = GradientFlow(readout, x, y, ridge=noise)
        posterior = nngp_posterior(erf, x, y, x_test, noise)
        np.testing.assert_allclose(flow.mean(x_test, np.inf), posterior.mean, rtol=1e-9)
        a = GradientFlow(readout, x, np.eye(7), ridge=noise).mean(x_test, np.inf)
        np.testing.assert_allclose(
            flow.covariance(x_test, np.inf) + noise * a @ a.T, posterior.covariance, atol=1e-10
        )


@pytest.mark.slow
def test_an_averaged_kernel_has_an_invariant_posterior():
    draw = np.random.default_rng(4)
    turn = on_lattices(cyclic(4))
    x, y, far = draw.normal(size=(5, 3, 3)), draw.normal(size=5), draw.normal(size=(3, 3, 3))
    average = orbit_average(erf, turn)
    before, after = (nngp_posterior(average, x, y, z, 0.1) for z in (far, turn(1, far)))
    np.testing.assert_allclose(before.mean, after.mean, rtol=1e-10)
    np.testing.assert_allclose(before.covariance, after.covariance, atol=1e-12)


def test_there_is_no_negative_variance_at_the_labels_without_noise():
    x = np.random.default_rng(6).normal(size=(12, 20)).astype(np.float32)
    posterior = nngp_posterior(mlp_kernel(1, "relu", 2**0.5), x, np.zeros(12), x, 0.0)
    assert posterior.covariance.dtype == np.float32 and (np.diagonal(posterior.covariance) >= 0).all()


X, Y, FAR = problem(5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nngp_posterior("nngp", X, Y, FAR, 0.1), "nngp_posterior: kernel must be a function"),
        (lambda: nngp_posterior(erf, X, Y[:3], FAR, 0.1), "y must have shape"),
        (lambda: nngp_posterior(erf, X, Y, FAR[:, :2], 0.1), r"x_test must have the features \(3,\)"),
        (lambda: nngp_posterior(erf, X, Y, FAR[:0], 0.1), "x_test must be a batch"),
        (lambda: log_evidence(erf, X, Y, -0.1), "log_evidence: noise must be not negative"),
        (lambda: log_evidence(erf, X[[0, 0]], Y[:2], 0.0), "singular to rounding. Raise noise"),
        (lambda: log_evidence(erf, X * np.nan, Y, 0.1), "x has entries that are not finite"),
        (lambda: log_evidence(lambda a, b: (1, 2), X, Y, 0.1), "must return nteq.kernels.Kernels"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
