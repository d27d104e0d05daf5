"""What nteq says of the scenes that the playground is tested with: `python -m tools.site.cases`.

The playground computes in JavaScript what nteq computes in Python. This command writes random scenes and what
nteq makes of them to tests/browser/playground_cases.json, which the tests in the browser read. Among the
scenes are training sets with repeated points and points on a mirror, whose Gram matrices are singular.
"""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from nteq.actions import on_vectors, orbit
from nteq.gradient_flow import GradientFlow
from nteq.groups import FiniteGroup, cyclic, dihedral
from nteq.kernels import mlp_kernel
from nteq.networks import mlp
from tools import places

TARGET = places.ROOT / "tests" / "browser" / "playground_cases.json"
UNEVEN = [1.8**0.5, 0.2**0.5]
MODELS = [
    {"activation": activation, "depth": depth, "W": W, "b": b, "axes": axes}
    for activation, W, b in [("relu", 2**0.5, 0.5), ("erf", 2.5, 0.5), ("relu", 1.3, 0.0)]
    for depth in (1, 2)
    for axes in ([1.0, 1.0], UNEVEN)
]
ETA = 0.05


def kernel_of(model: dict):
    """The kernel of a model: uneven axes multiply the inputs."""
    inner = mlp_kernel(model["depth"], model["activation"], model["W"], model["b"])
    axes = jnp.array(model["axes"])
    return lambda a, b: inner(a * axes, b * axes)


def chosen(group: FiniteGroup, k: int, augmentation: str) -> list[int]:
    """The elements that the training set is moved by."""
    every = list(range(group.order))
    return {
        "none": [0],
        "half": every[: -(-group.order // 2)],
        "other": [g for g in every if g % k % 2 == 0],
        "full": every,
    }[augmentation]


def kernel_case(number: int) -> dict:
    """Both kernels of a model, on points among which some are equal, parallel, opposite or zero."""
    model, random = MODELS[number], np.random.default_rng([0, number])
    one = random.uniform(-1.4, 1.4, (5, 2))
    one[0] = 0 if model["b"] else one[0]  # of a zero input without biases nteq has a convention
    two = np.concatenate([one, -one[1:2], 2 * one[2:3], one[3:4] + 1e-9, random.uniform(-1, 1, (2, 2))])
    nngp, ntk = kernel_of(model)(one, two)
    return {"model": model, "one": one, "two": two, "nngp": nngp, "ntk": ntk}


def scene(number: int) -> dict:
    """A training set with a group, and the mean and covariance of the infinite ensemble on an orbit."""
    random = np.random.default_rng([1, number])
    kind, k = "CD"[number % 2], int(random.integers(1, 9))
    group = cyclic(k) if kind == "C" else dihedral(k)
    action = on_vectors(group)
    augmentation = ["full", "none", "half", "other"][number // 2 % 4]
    model = MODELS[number % 8]
    x, y = random.uniform(-1, 1, (int(random.integers(1, 5)), 2)), random.choice([-1.0, 1.0], 5)
    y = y[: len(x)]
    if number % 3 == 0:  # a point twice, and one that the mirrors s and r^(k/2) leave where it is
        x, y = np.concatenate([x, x[:1], [[0.0, 0.5]]]), np.concatenate([y, y[:1], [1.0]])
    elements = jnp.array(chosen(group, k, augmentation))
    written = orbit(action, x)[elements].reshape(-1, 2)
    labels = jnp.tile(y, len(elements))
    asked = orbit(action, random.uniform(-1, 1, (1, 2)))[:, 0]
    kernel, times = kernel_of(model), [0.0, 1.5, 40.0, 600.0]
    flow = GradientFlow(kernel, written, labels, ETA)
    covariance, mean = flow.covariance(asked, times), flow.mean(asked, times)
    eigenvalues = np.linalg.eigvalsh(kernel(written, written).ntk)
    found = {"model": model, "kind": kind, "k": k, "augmentation": augmentation, "x": x, "y": y}
    found |= {"asked": asked, "eta": ETA, "times": times, "mean": mean, "covariance": covariance}
    found["singular"] = bool(eigenvalues[0] < 1e-12 * eigenvalues[-1])
    found["invariant"] = augmentation == "full" and model["axes"] == [1.0, 1.0]
    if found["invariant"]:  # nteq's other road, block by block, knows nothing of the orbits written out
        blocks = GradientFlow.augmented(kernel, x, y, action, learning_rate=ETA)
        np.testing.assert_allclose(blocks.mean(asked, times), mean, atol=1e-10)
        if group.order > 1:
            found["orbit_variance"] = blocks.orbit_variance(asked[:1], times)
    return found


def network_case(number: int) -> dict:
    """A network that trains for some steps, with the parameters at the start and after every step."""
    model, random = MODELS[number], np.random.default_rng([2, number])
    network = mlp(6, model["depth"], None, model["activation"], model["W"], model["b"])
    x = random.uniform(-1, 1, (5, 2))
    y, asked = random.choice([-1.0, 1.0], 5), random.uniform(-2, 2, (3, 2))
    axes = jnp.array(model["axes"])
    params = start = network.init(jax.random.key(number), (2,))

    @jax.jit
    def step(params):
        loss = lambda params: jnp.sum((network.apply(params, x * axes) - y) ** 2) / (2 * len(y))
        value, gradient = jax.value_and_grad(loss)(params)
        return value, jax.tree.map(lambda p, g: p - ETA * g, params, gradient)

    states, losses, answers = [], [], []
    for _ in range(12):
        value, params = step(params)
        losses.append(value)
        states.append(flat(params))
        answers.append(network.apply(params, asked * axes))
    found = {"model": model, "width": 6, "start": flat(start), "x": x, "y": y, "eta": ETA, "asked": asked}
    return found | {"losses": losses, "states": states, "answers": answers}


def flat(params: list) -> list:
    """(W, b) of each layer in a row."""
    return [array for layer in params for array in layer]


KINDS = {"kernels": (kernel_case, 12), "scenes": (scene, 32), "networks": (network_case, 8)}


def case(kind: str, number: int) -> dict:
    """One of them, as JSON holds it."""
    with jax.enable_x64(True):
        made = KINDS[kind][0](number)
        return jax.tree.map(lambda v: np.asarray(v).tolist() if hasattr(v, "shape") else v, made)


def main() -> int:
    """Writes the file."""
    made = {kind: [case(kind, i) for i in range(count)] for kind, (_, count) in KINDS.items()}
    TARGET.write_text(json.dumps(made, separators=(",", ":")) + "\n")
    singular = sum(scene["singular"] for scene in made["scenes"])
    print(f"{TARGET.relative_to(places.ROOT)}: {len(made['scenes'])} scenes, {singular} of them singular")
    return 0


if __name__ == "__main__":
    sys.exit(main())
