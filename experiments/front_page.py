"""Computes the figure on the book's first page: `make figures` writes book/_assets/claim.png.

Networks are trained on augmented Ising lattices and asked about Gaussian lattices far from them. The figure
shows how unlike their answers on the four rotations of a lattice are, against the number of networks that
are averaged. The line is the closed form at infinite width; nothing is fitted.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from nteq.actions import on_lattices, orbit
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic
from nteq.ising import energy, gaussian_lattices, metropolis
from nteq.kernels import mlp_kernel
from nteq.plotting import COLOURS, use_style
from tools import places

SIZE, WIDTH, MEMBERS, STEPS, RATE = 4, 256, 1024, 400, 1.0
W_STD, B_STD = 2**0.5, 0.3
ROTATIONS = on_lattices(cyclic(4))


def rotated(x):
    """The orbits of the lattices in x as one batch of flat inputs, the group in front."""
    return orbit(ROTATIONS, x).reshape(4 * len(x), -1)


def train(key, x, y, x_test):
    """The prediction on x_test of one network trained on (x, y), NTK parameterisation, one hidden layer."""
    shapes = [(x.shape[1], WIDTH), (WIDTH,), (WIDTH,), ()]
    params = [jax.random.normal(k, s) for k, s in zip(jax.random.split(key, 4), shapes, strict=True)]

    def f(params, x):
        w, b, v, c = params
        hidden = jax.nn.relu(W_STD / x.shape[1] ** 0.5 * x @ w + B_STD * b)
        return W_STD / WIDTH**0.5 * hidden @ v + B_STD * c

    gradient = jax.grad(lambda params: jnp.mean((f(params, x) - y) ** 2) / 2)
    step = lambda _, params: jax.tree.map(lambda p, g: p - RATE * g, params, gradient(params))
    return f(jax.lax.fori_loop(0, STEPS, step, params), x_test)


def fluctuation(predictions):
    """Standard deviation over the orbit of ensemble means of M members, root mean square over all draws."""
    members = predictions.shape[0]
    sizes = 2 ** np.arange(int(np.log2(members)) - 1)  # four ensembles at least, for an error bar
    rows = []
    for m in sizes:
        means = predictions.reshape(members // m, m, 4, -1).mean(1)
        variances = means.var(1).mean(1)  # one number per ensemble
        error = variances.std(ddof=1) / len(variances) ** 0.5
        rows.append((variances.mean() ** 0.5, error / (2 * variances.mean() ** 0.5)))
    return sizes, *np.array(rows).T


def main():
    """Trains, evaluates the closed form, draws."""
    jax.config.update("jax_enable_x64", True)
    spins = metropolis(jax.random.key(0), 24, SIZE, beta=0.4, sweeps=300)
    far = rotated(gaussian_lattices(jax.random.key(1), 32, SIZE))
    keys = jax.random.split(jax.random.key(2), MEMBERS)
    spread = float(energy(far.reshape(-1, SIZE, SIZE)).std())
    use_style()
    _, axis = plt.subplots(figsize=(6.8, 4.2))
    data = {
        "all four rotations": (rotated(spins), jnp.tile(energy(spins), 4), "theory", (-135, -62)),
        "no augmentation": (spins.reshape(len(spins), -1), energy(spins), "counterexample", (0, 12)),
    }
    for name, (x, y, colour, offset) in data.items():
        single = [a.astype(jnp.float32) for a in (x, y, far)]
        run = jax.jit(jax.vmap(lambda key, single=single: train(key, *single)))
        predictions = np.concatenate([run(block) for block in keys.reshape(-1, 64)]).astype(float)
        sizes, value, error = fluctuation(predictions)
        axis.errorbar(sizes, value / spread, 2 * error / spread, fmt="o", color=COLOURS[colour])
        at = {"textcoords": "offset points", "color": COLOURS[colour]}
        axis.annotate(f"trained with {name}", (sizes[4], value[4] / spread), offset, **at)
        kernel = mlp_kernel(1, "relu", W_STD, B_STD)
        weights = GradientFlow(kernel, x, jnp.eye(len(x)), RATE).mean(far, STEPS)
        cross = weights @ kernel(x, far).nngp
        covariance = kernel(far, far).nngp + weights @ kernel(x, x).nngp @ weights.T - cross - cross.T
        blocks = covariance.reshape(4, -1, 4, covariance.shape[0] // 4)
        same = jnp.einsum("gigi->gi", blocks).mean(0) - jnp.einsum("gihi->ghi", blocks).mean((0, 1))
        mean = (weights @ y).reshape(4, -1)
        line = np.sqrt(np.mean(same) / sizes + np.mean(mean.var(0)))
        axis.plot(sizes, line / spread, color=COLOURS[colour], alpha=0.7, zorder=0)
        infinite = np.sqrt(np.mean(mean.var(0))) / spread
        shown = "0 to rounding" if infinite < 1e-10 else f"{infinite:.2f}"
        axis.annotate(f"infinite: {shown}", (sizes[-1], line[-1] / spread), (12, -4), **at)
        print(f"{name}: infinite ensemble {infinite:.1e}, "
              f"1 member {value[0] / spread:.2f} (theory {line[0] / spread:.2f}), "
              f"{sizes[-1]} members {value[-1] / spread:.4f} (theory {line[-1] / spread:.4f})")  # fmt: skip
    axis.set(
        xscale="log", yscale="log", xlim=(0.8, 6000), xlabel="networks in the ensemble",
        ylabel="std over the four rotations\n(in standard deviations of the energy)",
    )  # fmt: skip
    plt.savefig(places.ROOT / "book" / "_assets" / "claim.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
