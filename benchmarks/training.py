"""Measures the training of ensembles: `python -m benchmarks.training` prints its results as JSON.

A process of its own, since it splits the processor into one device for each core. 256 Ising lattices, full
batch, two hidden layers. Beside nteq.ensembles stand the bare matrix products of the same shapes, which no
training can beat, one network after another by a jitted step, and, if it is installed, PyTorch.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from benchmarks.bench import _resident
from nteq import ensembles
from nteq._devices import on_devices
from nteq._training import prepare
from nteq.ising import energy, metropolis
from nteq.networks import mlp

CORES = len(os.sched_getaffinity(0))
LATTICES, SIZE, DEPTH, RATE, RUNS = 256, 6, 2, 0.05, 5
STEPS = {32: 2000, 128: 1000, 512: 100}
BLOCKS = [1, 2, 4]


def network(width):
    """What every side trains."""
    return mlp(width, DEPTH, W_std=2**0.5, b_std=0.3)


def shapes(width):
    """The layers' fan-ins and fan-outs."""
    sizes = [SIZE**2, *[width] * DEPTH, 1]
    return list(itertools.pairwise(sizes))


def operations(width):
    """Floating-point operations of one network's matrix products in one step, forward and backward."""
    forward = sum(2 * LATTICES * a * b for a, b in shapes(width))
    return 3 * forward - 2 * LATTICES * SIZE**2 * width  # there is no gradient of the inputs


def ours(width, x, y):
    """A function that trains a block of networks on every core, and how many that is."""
    key, steps = jax.random.key(0), STEPS[width]
    options = (None, "squared", optax.sgd(RATE), None, None, x.dtype, jax.default_backend())
    training = prepare("bench", network(width), x, y, steps, *options)
    compute = on_devices(training, jax.devices(), key, x[:1], [steps], len(x))
    members = np.arange(training.block * len(jax.devices()), dtype=np.int32)
    return lambda: compute(members), len(members)


def bare(width, x, block):
    """The products of the forward and the backward pass alone, each result going into the next step."""

    def step(_, state):
        weights, back = state
        inputs = [x]
        for w in weights:
            inputs.append(inputs[-1] @ w)
        gradients = []
        for i in reversed(range(len(weights))):
            gradients.append(inputs[i].T @ back)
            if i:
                back = back @ weights[i].T
        return gradients[::-1], inputs[-1]

    def some(keys):
        draw = lambda key: [jax.random.normal(key, s, x.dtype) for s in [*shapes(width), (LATTICES, 1)]]
        *weights, back = jax.vmap(draw)(keys)
        return jax.lax.fori_loop(0, STEPS[width], jax.vmap(step, (None, 0)), (weights, back))[1]

    mesh, members = Mesh(np.array(jax.devices()), ("members",)), PartitionSpec("members")
    run = jax.jit(jax.shard_map(some, mesh=mesh, in_specs=members, out_specs=members, check_vma=False))
    keys = jax.random.split(jax.random.key(0), block * len(jax.devices()))
    return lambda: jax.block_until_ready(run(keys)), len(keys)


def one_after_another(width, x, y, members):
    """The same networks in a loop of jitted steps."""
    net = network(width)
    loss = lambda params: jnp.sum((net.apply(params, x) - y) ** 2) / (2 * LATTICES)
    descend = lambda params: jax.tree.map(lambda p, g: p - RATE * g, params, jax.grad(loss)(params))
    step = jax.jit(descend, donate_argnums=0)
    draw = jax.jit(lambda key: net.init(key, x.shape[1:], x.dtype))

    def run():
        for i in range(members):
            params = draw(jax.random.key(i))
            for _ in range(STEPS[width]):
                params = step(params)
            jax.block_until_ready(params)

    return run


def torch_loop(width, x, y, members, threads):
    """The same in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    inputs, labels = (torch.from_numpy(np.array(a)) for a in (x.reshape(LATTICES, -1), y))
    scales = [2**0.5 / a**0.5 for a, _ in shapes(width)]

    def run():
        for i in range(members):
            torch.manual_seed(i)
            weights = [torch.randn(s, requires_grad=True) for s in shapes(width)]
            biases = [torch.randn(b, requires_grad=True) for _, b in shapes(width)]
            optimizer = torch.optim.SGD([*weights, *biases], RATE)
            for _ in range(STEPS[width]):
                h = inputs
                for layer, (w, b, scale) in enumerate(zip(weights, biases, scales, strict=True)):
                    h = h @ (w * scale) + 0.3 * b
                    h = torch.relu(h) if layer < DEPTH else h
                loss = ((h[:, 0] - labels) ** 2).sum() / (2 * LATTICES)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return run


def rates(sides, width):
    """GFLOP/s of {name: (function, members)}, medians of runs taken in turn after one that compiles."""
    seconds = {name: [] for name in sides}
    for number in range(RUNS + 1):
        for name, (function, _) in sides.items():
            start = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - start)
    work = operations(width) * STEPS[width] / 1e9
    return {name: work * sides[name][1] / statistics.median(seconds[name]) for name in sides}


def peak(members, x, y):
    """Bytes above the start at the peak of a run of so many networks of width 128."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    options = dict(optimizer=optax.sgd(RATE), progress=False)
    ensembles.run(network(128), jax.random.key(0), members, x, y, x[:1], 50, **options)
    return _resident("VmHWM") - before


def spin_updates():
    """Of the Metropolis sampler, per second."""
    chains, size, sweeps = 1024, 32, 40
    seconds = []
    for i in range(RUNS + 1):
        start = time.perf_counter()
        metropolis(jax.random.key(i), chains, size, 0.4, sweeps).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return chains * size**2 * sweeps / statistics.median(seconds[1:])


def main():
    """Everything, as JSON."""
    x = metropolis(jax.random.key(0), LATTICES, SIZE, beta=0.4)
    y = energy(x)
    rows = []
    for width in STEPS:
        print(f"… training, width {width}", file=sys.stderr)
        train, members = ours(width, x, y)
        sides = {"ours": (train, members), "loop": (one_after_another(width, x, y, 2), 2)}
        sides |= {f"bare {block}": bare(width, x.reshape(LATTICES, -1), block) for block in BLOCKS}
        try:
            import torch  # noqa: F401

            sides |= {f"torch {n}": (torch_loop(width, x, y, 1, n), 1) for n in {1, CORES}}
        except ImportError:
            print("PyTorch is not installed, so it is not compared.", file=sys.stderr)
        found = rates(sides, width)
        row = {"width": width}
        for kind in ("ours", "bare", "loop", "torch"):  # of several settings the fastest counts
            row[kind] = max((rate for name, rate in found.items() if name.startswith(kind)), default=None)
        rows.append(row)
    peak(64, x, y)  # compiles
    peaks = {n: peak(n, x, y) for n in (64, 1024)}
    print(json.dumps({"rows": rows, "peak": peaks, "spin updates": spin_updates()}))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", CORES)
    main()
