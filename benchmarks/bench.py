"""Measures the symmetry engine against the augmented data written out: `python -m benchmarks.bench [large]`.

Prints a table and stores it with a figure as the book's page on performance. Every line compares two ways to
the same numbers, run in turn in one process, by the median of three runs; the numbers are compared, too.
`large` measures one prediction from 10,000 lattices instead and adds it to the page.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from nteq.actions import on_harmonics, on_lattices, on_vectors, orbit
from nteq.averages import orbit_average
from nteq.compat import neural_tangents as nt
from nteq.compat import stax
from nteq.datasets import qm9
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic, dihedral, icosahedral
from nteq.kernels import mlp_kernel
from nteq.molecules import densities, molecule_kernel
from nteq.plotting import COLOURS, use_style
from tools import places

BOOK = places.ROOT / "book"
RESULTS = BOOK / "_assets" / "performance.json"
RUNS, TIME, W_STD, B_STD = 3, 50.0, 1.5, 0.1
SIZES = [2, 4, 8, 16, 32, 64]
CONVOLUTIONS = """## Kernels of convolutional networks

Three layers of 3 × 3 filters, ReLU, padded with zeros; the Gram matrix of n images. Medians in
milliseconds, wall / processor time. Beside the nanoseconds of the processor for each pair of pixels and
layer stands what the machine takes for the bare products and one nonlinearity."""
TRAINING = """## Training ensembles

Networks with two hidden layers learn the energy of 256 Ising lattices, full batch, float32. The table has
rates in GFLOP/s, counting the matrix products only. The bare products are those of the same shapes, each
result going into the next step, and nothing else: what is missing to their rate is the price of activations,
biases and updates. Beside them stand the same networks one after another in a loop of jitted steps, and a
loop in PyTorch with its best number of threads."""


def dense():
    """A layer of the network that both sides compute."""
    return stax.Dense(1, W_std=W_STD, b_std=B_STD)


network = stax.serial(stax.Flatten(), dense(), stax.Relu(), dense(), stax.Relu(), dense())[2]
theirs = jax.jit(network, static_argnames="get")
their_atoms = jax.jit(stax.serial(dense(), stax.Relu(), dense())[2], static_argnames="get")
ours = mlp_kernel(2, "relu", W_STD, B_STD)


def lattices(n, tests, seed=0):
    """Random spins of 6 × 6 sites, their labels, and Gaussian lattices far from them."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1.0, 1.0], size=(n, 6, 6))
    y = -(x * np.roll(x, 1, 1) + x * np.roll(x, 1, 2)).mean((1, 2))
    return jnp.asarray(x), jnp.asarray(y), jnp.asarray(rng.normal(size=(tests, 6, 6)))


def engine_mean(action, x, y, far):
    """The mean of the augmented ensemble by `GradientFlow.augmented`."""
    return GradientFlow.augmented(ours, x, y, action).mean(far, TIME)


def written_out_mean(action, x, y, far):
    """The same by neural_tangents.predict on all images."""
    images = orbit(action, x).reshape(-1, *x.shape[1:])
    labels = jnp.tile(y, action.group.order)[:, None]
    predict = nt.predict.gradient_descent_mse(theirs(images, None, get="ntk"), labels)
    return predict(TIME, 0.0, jnp.zeros((len(far), 1)), theirs(far, images, get="ntk"))[1][:, 0]


def engine_covariance(action, x, y, far):
    """The covariance of the augmented ensemble by `GradientFlow.augmented`."""
    return GradientFlow.augmented(ours, x, y, action).covariance(far, TIME)


def written_out_covariance(action, x, y, far):
    """The same by neural_tangents.predict on all images."""
    images = orbit(action, x).reshape(-1, *x.shape[1:])
    labels = jnp.tile(y, action.group.order)[:, None]
    predict = nt.predict.gradient_descent_mse_ensemble(network, images, labels)
    return predict(t=TIME, x_test=far, get="ntk", compute_cov=True).covariance


def molecules(n):
    """Densities of molecules of QM9."""
    given = qm9(n)
    return densities(given["positions"], given["numbers"])


def engine_molecules(x):
    """Their Gram matrix, averaged over the rotations of an icosahedron, by `orbit_average`."""
    kernel = molecule_kernel(4, 1, "relu", W_STD, B_STD)
    return orbit_average(kernel, on_harmonics(icosahedral()), check=False)(x, x).ntk


def written_out_molecules(x):
    """The same by the kernel of neural-tangents between all atoms, one rotation after the other."""
    n, atoms, action = *x.shape[:2], on_harmonics(icosahedral())
    kinds = x[:, :, :4, 0].reshape(n * atoms, 4)
    one, total = x[:, :, 4:].reshape(n * atoms, -1), 0.0
    for g in range(action.group.order):
        two = action(g, x)[:, :, 4:].reshape(n * atoms, -1)
        pairs = (kinds @ kinds.T) * their_atoms(one, two, get="ntk")
        total = total + pairs.reshape(n, atoms, n, atoms).sum((1, 3)) / action.group.order
    return total


def timed(function, *arguments):
    """Seconds and result of one run."""
    start = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start, result


def compare(name, left, right, arguments, tolerance, runs=RUNS):
    """Medians of runs taken in turn; the first of each compiles and is the slowest, so it never counts."""
    seconds = {left: [], right: []}
    print(f"… {name}", file=sys.stderr)
    for _ in range(runs):
        results = []
        for function in (left, right):
            s, result = timed(function, *arguments)
            seconds[function].append(s)
            results.append(np.asarray(result))
    apart = float(np.abs(results[0] - results[1]).max() / np.abs(results[1]).max())
    if apart > tolerance:
        raise AssertionError(f"{name}: the two ways differ by {apart:.1e}, more than {tolerance:.0e}.")
    a, b = (float(np.median(seconds[f])) for f in (left, right))
    return {"name": name, "ours": a, "theirs": b, "ratio": b / a, "apart": apart}


def growth():
    """Seconds against |G| for rotations of 18 planar vectors, n = 64."""
    rng = np.random.default_rng(1)
    x, y, far = (jnp.asarray(rng.normal(size=s)) for s in ((64, 18, 2), (64,), (16, 18, 2)))
    rows = []
    for order in SIZES:
        action = on_vectors(cyclic(order))
        rows.append(compare(f"C{order}", engine_mean, written_out_mean, (action, x, y, far), 1e-5))
    return rows


def exponent(rows, which):
    """The power of |G| with which the time grows over the last three sizes."""
    return float(np.polyfit(np.log(SIZES[-3:]), np.log([row[which] for row in rows[-3:]]), 1)[0])


def peak_memory(side):
    """Bytes that the mean for C4 with n = 1000 takes at its peak, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench", "peak", side]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=BOOK.parent)
    return int(run.stdout.split()[-1])


def _resident(which):
    # not getrusage: a process inherits the maximum of the one that started it
    return int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def _peak(side):
    function = {"ours": engine_mean, "theirs": written_out_mean}[side]
    arguments = (on_lattices(cyclic(4)), *lattices(1000, 128))
    jax.block_until_ready(function(*arguments))  # compiles; what the compiler needed is not counted
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _resident("VmRSS")
    jax.block_until_ready(function(*arguments))
    print(_resident("VmHWM") - before)


def large():
    """Seconds and peak memory of the whole process for one prediction from 10,000 lattices under C4."""
    c4 = on_lattices(cyclic(4))
    x, y, far = lattices(10_000, 128)
    seconds, mean = timed(engine_mean, c4, x, y, jnp.concatenate([far, c4(1, far)]))
    apart = float(jnp.abs(mean[:128] - mean[128:]).max() / jnp.abs(mean).max())
    if apart > 1e-10:
        raise AssertionError(f"The mean of a lattice and of its rotation differ by {apart:.1e}.")
    return {"seconds": seconds, "bytes": _resident("VmHWM"), "apart": apart}


def kernel_speed():
    """`mlp_kernel` against neural-tangents, 2000 × 2000 inputs of dimension 36."""
    x1, x2 = (jnp.asarray(np.random.default_rng(s).normal(size=(2000, 36))) for s in (2, 3))
    rows = []
    for depth in (1, 2, 3):
        layers = [layer for _ in range(depth) for layer in (dense(), stax.Relu())]
        reference = jax.jit(stax.serial(*layers, dense())[2], static_argnames="get")
        kernel = mlp_kernel(depth, "relu", W_STD, B_STD)
        rows.append(
            compare(
                f"mlp_kernel, depth {depth}, 2000 × 2000, 36 features",
                lambda a, b, kernel=kernel: jnp.stack(kernel(a, b)),
                lambda a, b, reference=reference: jnp.stack(reference(a, b, get=("nngp", "ntk"))),
                (x1, x2),
                1e-12,
                runs=9,
            )
        )
    return rows


def training():
    """Rates of training ensembles, from a process that has one device for each core."""
    command = [sys.executable, "-m", "benchmarks.training"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=BOOK.parent)
    return json.loads(run.stdout.splitlines()[-1])


def convolutions():
    """`cnn_kernel` against neural-tangents, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.convolutions"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=BOOK.parent)
    return json.loads(run.stdout.splitlines()[-1])


def draw(rows, path):
    """The growth against |G| on logarithmic axes."""
    use_style()
    figure, axis = plt.subplots()
    for which, colour, name, offset, side in (
        ("theirs", "measured", "images written out", (-8, 10), "right"),
        ("ours", "theory", "symmetry engine", (2, -20), "left"),
    ):
        axis.loglog(SIZES, [row[which] for row in rows], "o-", color=COLOURS[colour])
        axis.annotate(
            name,
            (SIZES[-2], rows[-2][which]),
            offset,
            textcoords="offset points",
            ha=side,
            color=COLOURS[colour],
        )
    axis.set(xlabel="order of the group |G|", ylabel="time for the mean (s)", xticks=SIZES, xticklabels=SIZES)
    axis.minorticks_off()
    figure.savefig(path)


def table(results):
    """The results as a Markdown table."""
    lines = ["| computation | nteq | neural-tangents | ratio |", "|---|---|---|---|"]
    for r in results["rows"]:
        lines.append(f"| {r['name']} | {r['ours']:.3g} s | {r['theirs']:.3g} s | {r['ratio']:.1f} |")
    memory = results["memory"]
    lines.append(
        f"| peak memory, mean, $C_4$, n = 1000 | {memory['ours'] / 1e9:.2g} GB "
        f"| {memory['theirs'] / 1e9:.2g} GB | {memory['theirs'] / memory['ours']:.1f} |"
    )
    powers = results["exponents"]
    lines.append(
        f"| time against $\\lvert G\\rvert$, power | {powers['ours']:.1f} | {powers['theirs']:.1f} | |"
    )
    if "large" in results:
        largest = results["large"]
        lines.append(
            f"| mean, $C_4$, n = 10,000 | {largest['seconds']:.0f} s, {largest['bytes'] / 1e9:.1f} GB | | |"
        )
    return "\n".join(lines)


def convolutions_table(results):
    """Milliseconds, ratios and nanoseconds as a Markdown table, and what else was measured."""
    made = results["convolutions"]
    lines = [
        "| kernel | nteq | neural-tangents | ratio | ns (bare) |",
        "|---|---|---|---|---|",
    ]
    for r in made["rows"]:
        times = [[1e3 * r[f"{side} {of}"] for of in ("wall", "processor")] for side in ("ours", "theirs")]
        ratios = [theirs / ours for ours, theirs in zip(*times, strict=True)]
        cells = [" / ".join(f"{t:.0f}" if t >= 10 else f"{t:.1f}" for t in pair) for pair in times]
        cells += [" / ".join(f"{ratio:.1f}" for ratio in ratios)]
        cells += [f"{r['ns']:.1f} ({r['limit']:.1f})" if "ns" in r else ""]
        lines.append(f"| {r['name']} | {' | '.join(cells)} |")
    one, all_cores = made["cores"]
    orders, seconds = zip(*((int(order), t) for order, t in made["growth"].items()), strict=True)
    power = np.polyfit(np.log(orders), np.log(seconds), 1)[0]
    memory = " and ".join(f"{size / 1e6:.0f} MB for {n} images" for n, size in made["peak"].items())
    return "\n".join(lines) + (
        f"\n\nAll cores are {one / all_cores:.1f} times as fast as one. An orbit average takes a time that "
        f"grows with the power {power:.1f} of the order of the group. The first call takes "
        f"{made['compilation']:.1f} s to compile. Peak memory, beside the images: {memory}."
    )


def training_table(results):
    """Rates in GFLOP/s and their ratios as a Markdown table, and the memory."""
    lines = [
        "| width | nteq | bare products | of the bare rate | one after another | ratio | PyTorch | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results["training"]["rows"]:
        torch = f"{r['torch']:.0f} | {r['ours'] / r['torch']:.1f}" if r["torch"] else "– | –"
        lines.append(
            f"| {r['width']} | {r['ours']:.0f} | {r['bare']:.0f} | {r['ours'] / r['bare']:.2f} "
            f"| {r['loop']:.0f} | {r['ours'] / r['loop']:.1f} | {torch} |"
        )
    few, many = results["training"]["peak"].items()
    sentence = (
        f"Peak memory: {few[1] / 1e6:.0f} MB for {few[0]} networks of width 128, {many[1] / 1e6:.0f} MB "
    )
    rate = results["training"]["spin updates"] / 1e6
    spins = f"The Metropolis sampler updates {rate:.0f} million spins a second."
    return "\n".join(lines) + f"\n\n{sentence}for {many[0]}. {spins}"


def store(results):
    """Prints the table and writes the page and its numbers."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    made = results["provenance"]
    kernels = f"{CONVOLUTIONS}\n\n{convolutions_table(results)}" if "convolutions" in results else ""
    print(f"{table(results)}\n\n{kernels}\n\n{training_table(results)}")
    print(f"\nmade in {made['seconds']} s with JAX {made['jax']}, stored in book/_assets/performance.json")
    page = BOOK / "performance.md"
    head, _ = page.read_text().split("<!-- the rest is made by make bench -->")
    page.write_text(
        f"{head}<!-- the rest is made by make bench -->\n\n{table(results)}\n\n"
        + (f"{kernels}\n\n" if kernels else "")
        + f"{TRAINING}\n\n"
        f"{training_table(results)}\n\n"
        f"Measured on {made['date']} in {made['seconds']} s, Python {made['python']}, JAX {made['jax']}, "
        f"neural-tangents {made['neural-tangents']}, {made['machine']}, float64.\n"
    )


def main():
    """Runs everything, prints the table, and writes the page, its figure and its numbers."""
    start = time.perf_counter()
    c4, d4 = on_lattices(cyclic(4)), on_lattices(dihedral(4))
    rows = [
        compare("mean, $C_4$, n = 1000", engine_mean, written_out_mean, (c4, *lattices(1000, 128)), 1e-5),
        compare("mean, $D_4$, n = 500", engine_mean, written_out_mean, (d4, *lattices(500, 128)), 1e-5),
        compare(
            "covariance of 64 points, $C_4$, n = 500",
            engine_covariance,
            written_out_covariance,
            (c4, *lattices(500, 64)),
            1e-5,
        ),
        compare(
            "64 molecules, averaged over $I$, depth 1",
            engine_molecules,
            written_out_molecules,
            (molecules(64),),
            1e-5,
        ),
        *kernel_speed(),
    ]
    grown = growth()
    results = {
        "rows": rows,
        "growth": grown,
        "exponents": {which: exponent(grown, which) for which in ("ours", "theirs")},
        "training": training(),
        "convolutions": convolutions(),
        "memory": {side: peak_memory(side) for side in ("ours", "theirs")},
        "provenance": {
            "command": "make bench",
            "date": time.strftime("%Y-%m-%d"),
            "seconds": round(time.perf_counter() - start),
            "python": platform.python_version(),
            "jax": version("jax"),
            "neural-tangents": version("neural-tangents"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
    }
    if RESULTS.exists() and "large" in (before := json.loads(RESULTS.read_text())):
        results["large"] = before["large"]  # make bench-large measures it
    draw(grown, BOOK / "_assets" / "performance.png")
    store(results)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if sys.argv[1:2] == ["peak"]:
        _peak(sys.argv[2])
    elif sys.argv[1:] == ["large"]:
        store(json.loads(RESULTS.read_text()) | {"large": large()})
    else:
        main()
