"""Kernels of finite group convolutional networks: `python -m experiments.group_kernels`, bias against width.

Networks of a lifting layer, group convolutions for p4 and pooling, drawn at random in great numbers at
several widths, `--members` at width 1 and one m-th of that at width m. Measured between two images of noise
are the mean of their empirical NTK, of the share that each layer's weights have in it, and of the product of
their answers, which is the NNGP kernel in the limit.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from nteq.networks import gcnn

SIZE, BLOCK = 4, 500


def network(width, layers):
    """Filters of 3 × 3 pixels with zeros around the images, ReLU, small biases."""
    return gcnn([width] * layers, padding="SAME", W_std=2**0.5, b_std=0.1)


def shares(network, params, x):
    """The share of each layer's weights, the whole NTK, and the product of answers, (layers + 3, n, n)."""
    product = lambda J: J.reshape(len(x), -1) @ J.reshape(len(x), -1).T
    jacobians = jax.jacobian(network.apply)(params, x)
    of_weights = [product(W) for W, _ in jacobians]
    ntk = sum(product(J) for J in jax.tree.leaves(jacobians))
    f = network.apply(params, x)
    return jnp.stack([*of_weights, ntk, f[:, None] * f])


def experiment(options, folder):
    """Means and standard errors at every width."""
    if options.members < 2 * max(options.width):
        raise ValueError(f"--members must be at least {2 * max(options.width)}, two at the largest width")
    x = jnp.asarray(np.random.default_rng(options.seed).normal(size=(2, SIZE, SIZE, 1)), jnp.float32)
    folder.mkdir(parents=True, exist_ok=True)
    draws_of = [options.members // width for width in options.width]
    mean, error = [], []
    for width, draws in zip(options.width, draws_of, strict=True):
        drawn = network(width, options.layers)

        @jax.jit
        def many(keys, drawn=drawn):
            """The shares of a network for each of the keys."""
            one = lambda key: shares(drawn, drawn.init(key, x.shape[1:], jnp.float32), x)
            return jax.lax.map(one, keys, batch_size=50)

        def block(number, width=width, draws=draws, many=many):
            """The sums of the shares and of their squares over some of the draws, kept in a file."""
            path = folder / f"{options.layers}-{width}-{options.seed}-{number}.npy"
            if not path.exists():
                key = jax.random.fold_in(jax.random.fold_in(jax.random.key(options.seed), width), number)
                some = min(BLOCK, draws - number * BLOCK)
                found = np.asarray(many(jax.random.split(key, BLOCK))[:some], float)
                unfinished = path.with_suffix(".part")
                with open(unfinished, "wb") as file:
                    np.save(file, np.stack([found.sum(0), (found**2).sum(0)]))
                unfinished.replace(path)
            return np.load(path)

        print(f"width {width}: {draws} networks", flush=True)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            total, squares = sum(pool.map(block, range(-(-draws // BLOCK)))) / draws
        mean.append(total)
        error.append(np.sqrt((squares - total**2) / (draws - 1)))
    names = ["lifting", *(f"group convolution {i}" for i in range(1, options.layers)), "readout"]
    return {
        "x": x,
        "widths": options.width,
        "draws": draws_of,
        "parts": [*names, "ntk", "nngp"],
        # (widths, parts, 2, 2)
        "mean": mean,
        "error": error,
    }


if __name__ == "__main__":
    arguments = command.parser(
        "group_kernels",
        "Mean kernels of finite group convolutional networks against their width.",
        members=400_000,
        width=[1, 2, 4, 8, 16, 32, 64],
        layers=3,
    )
    add = arguments.add_argument
    add("--width", type=command.at_least(1), nargs="+", help="channels of each layer")
    add("--layers", type=command.at_least(1), help="the lifting layer and group convolutions")
    command.main(arguments, dict(members=40, width=[1, 2], layers=2), experiment)
