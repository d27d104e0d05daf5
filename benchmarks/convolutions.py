"""Measures `cnn_kernel` against neural-tangents: `python -m benchmarks.convolutions`, a part of `make bench`.

Every row has medians of wall and of processor time of both, run in turn in one process, and the rate of the
machine for the bare products and one nonlinearity beside them, so that a busy machine can be told from slow
code. Prints its results as JSON in the last line.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bench import _resident
from nteq import _convolutions, _nonlinearities
from nteq.actions import on_images
from nteq.averages import orbit_average
from nteq.compat import stax
from nteq.groups import cyclic, dihedral
from nteq.kernels import cnn_kernel, from_stax
from nteq.networks import gcnn
from tools import places

LAYERS, SIZE, W_STD = 3, 3, 2**0.5
BARE_STEPS = 200


def ours(readout):
    """Three layers of 3 × 3 filters."""
    return cnn_kernel([SIZE] * LAYERS, 1, "SAME", readout, "relu", W_STD)


def theirs(readout):
    """The same by neural-tangents."""
    layers = [
        part
        for _ in range(LAYERS)
        for part in (stax.Conv(1, (SIZE,) * 2, (1, 1), "SAME", W_STD), stax.Relu())
    ]
    pool = stax.GlobalAvgPool() if readout == "average" else stax.Flatten()
    return from_stax(stax.serial(*layers, pool, stax.Dense(1, W_STD))[2])


def images(n, side, channels, dtype, seed=0):
    """Gaussian images."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, side, side, channels)), dtype)


def timed(function, *arguments):
    """Wall time, processor time and result of one run."""
    wall, processor = time.perf_counter(), time.process_time()
    result = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - wall, time.process_time() - processor, result


def compare(name, left, right, x, runs):
    """Medians of runs taken in turn, after one of each that compiles."""
    print(f"… {name}", file=sys.stderr)
    seconds, results = {"ours": [], "theirs": []}, {}
    for run in range(runs + 1):
        for side, function in (("ours", left), ("theirs", right)):
            wall, processor, results[side] = timed(function, x, x)
            if run:
                seconds[side].append((wall, processor))
    a, b = (np.asarray(results[side].ntk) for side in ("ours", "theirs"))
    apart = float(np.abs(a - b).max() / np.abs(b).max())
    if apart > (1e-7 if x.dtype == jnp.float64 else 2e-3):  # what the arccos of neural-tangents costs
        raise AssertionError(f"{name}: the two ways differ by {apart:.1e}.")
    row = {"name": name, "apart": apart}
    for side, values in seconds.items():
        row[f"{side} wall"], row[f"{side} processor"] = map(float, np.median(values, axis=0))
    return row


def nanoseconds(row, n, side, readout):
    """Processor time of each pair of pixels and layer, of the pairs of images i ≤ j that are computed."""
    pixels = side ** (4 if readout == "average" else 2)
    return 1e9 * row["ours processor"] / (n * (n + 1) / 2 * pixels * LAYERS)


def bare(dtype, side=16, lanes=None):
    """Nanoseconds for each entry of a loop of the products along both axes and one nonlinearity, no more."""
    lanes = lanes or (32 if dtype == "float32" else 16)
    sums = jnp.asarray(np.eye(side) + np.eye(side, k=1) + np.eye(side, k=-1), dtype) / SIZE

    def step(_, state):
        for _ in range(2):
            state = jnp.swapaxes(_convolutions._apply(sums, state), 0, 1)
        first, second = _nonlinearities.moments(state[:, :, 0], 1e-6)
        return jnp.stack([first, state[:, :, 1] * second], axis=2)

    loop = jax.jit(lambda state: jax.lax.fori_loop(0, BARE_STEPS, step, state))
    start = jnp.asarray(np.random.default_rng(0).uniform(size=(side, side, 2, lanes)), dtype)
    timed(loop, start)
    return 1e9 * np.median([timed(loop, start)[1] for _ in range(5)]) / (BARE_STEPS * side**2 * lanes)


def in_a_process(*arguments):
    """What this module prints when it is called with these arguments."""
    command = [sys.executable, "-m", "benchmarks.convolutions", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=places.ROOT)
    return float(run.stdout.split()[-1])


def seconds_with(cores):
    """Median wall time for 32 images of 16 × 16 × 3, in a process on this many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    kernel, x = ours("average"), images(32, 16, 3, "float64")
    timed(kernel, x, x)
    return float(np.median([timed(kernel, x, x)[0] for _ in range(5)]))


def peak(n):
    """Bytes that n images of 16 × 16 × 3 take at their peak, in a process of its own."""
    kernel, x = ours("average"), images(n, 16, 3, "float64")
    kernel(x[:8], x[:8])
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _resident("VmRSS")
    kernel(x, x)
    return _resident("VmHWM") - before


def first_call():
    """Seconds of the first call, which compiles, less those of the second."""
    kernel, x = ours("average"), images(4, 16, 3, "float64")
    return timed(kernel, x, x)[0] - timed(kernel, x, x)[0]


def growth():
    """Seconds of the orbit average of 8 images, by the order of the group."""
    x, other = images(8, 12, 1, "float64"), images(8, 12, 1, "float64", seed=1)
    rows = {}
    for group in (cyclic(1), cyclic(2), cyclic(4), dihedral(4)):
        average = orbit_average(ours("average"), on_images(group), check=False)
        timed(average, x, other)
        rows[group.order] = float(np.median([timed(average, x, other)[1] for _ in range(5)]))
    return rows


def results():
    """Everything."""
    rows = []
    limits = {dtype: bare(dtype) for dtype in ("float64", "float32")}
    cases = [(16, 3, 16, 3), (28, 1, 16, 1), (16, 3, 64, 1)]
    for side, channels, n, runs in cases:
        for readout in ("average", "flatten"):
            for dtype in ("float64", "float32"):
                name = f"cnn_kernel, {readout}, {side} × {side} × {channels}, n = {n}, {dtype}"
                x = images(n, side, channels, dtype)
                row = compare(name, ours(readout), theirs(readout), x, 21 if readout == "flatten" else runs)
                rows.append(row | {"ns": nanoseconds(row, n, side, readout), "limit": limits[dtype]})
    for dtype in ("float64", "float32"):
        x = images(4, 16, 3, dtype)
        before = orbit_average(theirs("average"), on_images(cyclic(4)))
        network = gcnn([1] * LAYERS, SIZE, 1, "SAME", W_std=W_STD)
        name = f"gcnn().kernel, 16 × 16 × 3, n = 4, {dtype}"
        rows.append(compare(name, network.kernel, before, x, 3))
    return {
        "rows": rows,
        "cores": [in_a_process("cores", 1), in_a_process("cores", len(os.sched_getaffinity(0)))],
        "peak": {n: in_a_process("peak", n) for n in (16, 64)},
        "compilation": in_a_process("first"),
        "growth": growth(),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    match sys.argv[1:]:
        case ["cores", count]:
            print(seconds_with(int(count)))
        case ["peak", n]:
            print(peak(int(n)))
        case ["first"]:
            print(first_call())
        case _:
            print(json.dumps(results()))
