"""Blocks of members on a mesh of devices, one on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nteq import _program
from nteq._training import Training


def on_devices(
    training: Training,
    devices: Sequence[jax.Device],
    key: Array,
    x_test: Array,
    snapshots: Sequence[int],
    predict_batch_size: int,
) -> Callable[[np.ndarray], dict[int, np.ndarray]]:
    """A function of member indices to {index: predictions}, a block of members on each device.

    The member axis is sharded over the mesh, and each shard runs the program of a single device. One program
    for the whole mesh would be optimised differently for another number of devices and change the last bits.
    """
    size = training.block * len(devices)
    sharding = NamedSharding(Mesh(np.array(devices), ("members",)), PartitionSpec("members"))
    places = sharding.addressable_devices_indices_map((size,))
    shards = {device: index[0] for device, index in places.items() if index is not None}
    program, network = training.program, training.program.network
    data = (key, training.x, training.y, training.rate, _program.in_batches(x_test, predict_batch_size))
    placed = {device: jax.device_put(data, device) for device in shards}

    def on_device(device: jax.Device, chosen: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        key, *given, test = placed[device]
        keys = _program.member_keys(key, jax.device_put(chosen, device))
        params = _program.draw(network, training.x.shape[1:], training.x.dtype, keys[:, 0])
        state, done = _program.start(program, params, len(training.x)), 0
        diverged, answers = [], []
        for snapshot in snapshots:
            if snapshot > done:
                length = snapshot - done
                params, state, when = _program.advance(
                    program, keys[:, 1], params, state, done, length, *given
                )
                diverged.append(when)
            answers.append(_program.predict(network, params, test))
            done = snapshot
        return jax.device_get((diverged, answers))

    # JAX runs what one thread asks of several processor devices one after the other, hence a thread for each
    pool = ThreadPoolExecutor(len(shards))

    def compute(indices: np.ndarray) -> dict[int, np.ndarray]:
        padded = np.resize(indices, size)
        blocks = [padded[shard] for shard in shards.values()]
        found: dict[int, np.ndarray] = {}
        for members, (diverged, answers) in zip(blocks, pool.map(on_device, shards, blocks), strict=True):
            for when in diverged:
                training.check(members, when)
            values = np.stack([answer[:, : len(x_test)] for answer in answers], axis=1)
            finite = np.isfinite(values).reshape(len(values), -1).all(1)
            training.check(members, np.where(finite, _program.NEVER, training.steps))
            found |= zip(members.tolist(), values, strict=True)
        return found

    return compute
