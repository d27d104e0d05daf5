"""The figure on the book's first page: `make figures` writes book/_assets/claim.png, in a minute.

Networks are trained on augmented Ising lattices and asked about Gaussian lattices far from them. The figure
shows how unlike their answers on the four rotations of a lattice are, against the number of networks that
are averaged. The line is the closed form at infinite width; nothing is fitted.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from nteq import ensembles
from nteq.actions import on_lattices, orbit
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic
from nteq.ising import energy, gaussian_lattices, metropolis
from nteq.metrics import sub_ensembles
from nteq.networks import mlp
from nteq.plotting import COLOURS, use_style
from tools import places

SIZE, WIDTH, STEPS, RATE = 4, 256, 800, 0.5
MEMBERS = 1024
SIZES = 2 ** np.arange(9)  # four ensembles at least, for an error bar
ROTATIONS = on_lattices(cyclic(4))


def rotated(x):
    """The orbits of the lattices in x as one batch, the group in front."""
    return orbit(ROTATIONS, x).reshape(-1, SIZE, SIZE)


def orbit_variance(answers):
    """The variance over the orbit, axis 0, as a mean over lattices."""
    return answers.var(0).mean()


def measured(network, x, y, asked):
    """The standard deviation over the orbit of means over M trained networks, and its error, for each M."""
    predictions = ensembles.run(
        network, jax.random.key(2), MEMBERS, x, y, asked, STEPS, learning_rate=RATE, dtype=jnp.float32
    )
    answers = predictions.astype(float).reshape(MEMBERS, 4, -1)
    variance, error = sub_ensembles(orbit_variance, answers, SIZES)
    return np.sqrt(variance), error / (2 * np.sqrt(variance))


def predicted(flow, asked):
    """The same for M networks of infinite width, and for infinitely many of them."""
    time = RATE * STEPS
    floor = orbit_variance(flow.mean(asked, time).reshape(4, -1))
    blocks = flow.covariance(asked, time).reshape(4, len(asked) // 4, 4, -1)
    same = jnp.einsum("gigi->gi", blocks).mean() - jnp.einsum("gihi->ghi", blocks).mean()
    return np.sqrt(same / SIZES + floor), float(jnp.sqrt(floor))


def main():
    """Trains, evaluates the closed form, draws."""
    jax.config.update("jax_enable_x64", True)  # the theory; networks are trained in float32
    spins = metropolis(jax.random.key(0), 24, SIZE, beta=0.4, sweeps=300)
    asked = rotated(gaussian_lattices(jax.random.key(1), 32, SIZE))
    unit = float(energy(asked).std())
    network = mlp(WIDTH, depth=1, W_std=2**0.5, b_std=0.3)
    data = {
        "all four rotations": (rotated(spins), "theory", (-135, -62)),
        "no augmentation": (spins, "counterexample", (0, 12)),
    }
    use_style()
    _, axis = plt.subplots(figsize=(6.8, 4.2))
    for name, (x, colour, offset) in data.items():
        value, error = measured(network, x, energy(x), asked)
        line, infinite = predicted(GradientFlow(network.kernel, x, energy(x)), asked)
        axis.errorbar(SIZES, value / unit, 2 * error / unit, fmt="o", color=COLOURS[colour])
        axis.plot(SIZES, line / unit, color=COLOURS[colour], alpha=0.7, zorder=0)
        at = {"textcoords": "offset points", "color": COLOURS[colour]}
        axis.annotate(f"trained with {name}", (SIZES[4], value[4] / unit), offset, **at)
        shown = "0 to rounding" if infinite < 1e-10 * unit else f"{infinite / unit:.2f}"
        axis.annotate(f"infinite: {shown}", (SIZES[-1], line[-1] / unit), (12, -4), **at)
        print(f"{name}: infinite ensemble {infinite / unit:.1e}")
        for i in (0, -1):
            print(f"  {SIZES[i]} networks: {value[i] / unit:.4f}, closed form {line[i] / unit:.4f}")
    axis.set(
        xscale="log", yscale="log", xlim=(0.8, 6000), xlabel="networks in the ensemble",
        ylabel="std over the four rotations\n(in standard deviations of the energy)",
    )  # fmt: skip
    plt.savefig(places.ROOT / "book" / "_assets" / "claim.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
