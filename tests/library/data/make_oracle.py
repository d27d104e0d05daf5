"""Makes neural_tangents_065.npz: reference values from unmodified neural-tangents 0.6.5, float64, CPU.

It needs an old JAX in an environment of its own; README.md beside it has the commands. The tests only
read the file. The arrays of a case are called `case/what`: nngp and ntk between the two input batches,
nngp_self and ntk_self on the first with itself, and the mean and covariance on the second batch of the
ensemble trained on the first for time t (None: for ever).
"""

import sys

import jax
import neural_tangents as nt
import numpy as np
from neural_tangents import stax

jax.config.update("jax_enable_x64", True)

SEED = 20240812
TIMES = (0.5, 5.0, 50.0, None)
MLPS = {"relu2": (stax.Relu, 2, 1.5, 0.1), "erf1": (stax.Erf, 1, 1.3, 0.2)}
CNNS = {"cnn_gap": (stax.GlobalAvgPool, 2, 1.4, 0.1), "cnn_flatten": (stax.Flatten, 1, 1.4, 0.0)}


def mlp(activation, depth, W_std, b_std):
    """Kernel of a fully connected network with `depth` hidden layers."""
    dense = lambda: stax.Dense(1, W_std=W_std, b_std=b_std)
    hidden = [layer for _ in range(depth) for layer in (dense(), activation())]
    return stax.serial(*hidden, dense())[2]


def cnn(head, depth, W_std, b_std):
    """Kernel of a network of 3x3 convolutions and ReLUs, then the head and a dense layer."""
    conv = lambda: stax.Conv(1, (3, 3), padding="SAME", W_std=W_std, b_std=b_std)
    hidden = [layer for _ in range(depth) for layer in (conv(), stax.Relu())]
    return stax.serial(*hidden, head(), stax.Dense(1, W_std=W_std, b_std=b_std))[2]


def main(path):
    """Computes every case and writes them to `path`."""
    rng = np.random.default_rng(SEED)
    x1, x2, y = rng.normal(size=(7, 9)), rng.normal(size=(5, 9)), rng.normal(size=(7, 2))
    im1, im2 = rng.normal(size=(4, 6, 6, 2)), rng.normal(size=(3, 6, 6, 2))
    out = {"x1": x1, "x2": x2, "y": y, "im1": im1, "im2": im2}

    for case, arguments in MLPS.items():
        kernel_fn = mlp(*arguments)
        for suffix, other in (("", x2), ("_self", None)):
            kernels = kernel_fn(x1, other, ("nngp", "ntk"))
            out[f"{case}/nngp{suffix}"], out[f"{case}/ntk{suffix}"] = kernels.nngp, kernels.ntk
        predict = nt.predict.gradient_descent_mse_ensemble(kernel_fn, x1, y)
        for t in TIMES:
            # neural-tangents divides t by y.size; nteq divides by N, the number of training points
            t_nt = None if t is None else t * y.size / len(y)
            gaussian = predict(t=t_nt, x_test=x2, get="ntk", compute_cov=True)
            out[f"{case}/mean_t{t}"], out[f"{case}/cov_t{t}"] = gaussian.mean, gaussian.covariance

    for case, arguments in CNNS.items():
        kernels = cnn(*arguments)(im1, im2, ("nngp", "ntk"))
        out[f"{case}/nngp"], out[f"{case}/ntk"] = kernels.nngp, kernels.ntk

    np.savez(path, **{name: np.asarray(value) for name, value in out.items()})


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "neural_tangents_065.npz")
