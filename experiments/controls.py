"""What the Ising and the cross-product experiment do alike: ensembles, their controls, and the theory beside.

Networks of several widths learn from all images of their training examples under a group, those of the first
width also from half of the images and from none. How far the mean of M of them is from equivariant is
measured against M, and for infinitely wide networks, too.
"""

import jax.numpy as jnp
import numpy as np

from experiments import command
from nteq.actions import orbit
from nteq.ensembles import run
from nteq.gradient_flow import GradientFlow
from nteq.metrics import sub_ensembles

TRAININGS = ["full orbit", "half the orbit", "no augmentation"]


def images(action, x, training):
    """The images of x under all of the group, under the first half of its elements, or x alone."""
    order = action.group.order
    kept = {"full orbit": order, "half the orbit": order // 2, "no augmentation": 1}[training]
    return orbit(action, x)[:kept].reshape(-1, *x.shape[1:])


def measure(
    options, folder, keys, network, learning_rate, action, label_action, x, y, tests, true, name, metric,
    resamples,
):  # fmt: skip
    """All widths with all images, and the first width with half of them and none.

    Args:
        options: the command's arguments.
        folder: for what is finished on the way.
        keys: of the networks and of the virtual ones.
        network: width -> Network.
        learning_rate: η of the full-batch steps.
        action: ρ on the inputs.
        label_action: ρ_Y; one that does nothing, for labels that stay.
        x: training inputs before augmentation.
        y: their labels.
        tests: name -> inputs to ask about, options.test of each kind.
        true: the labels of the first kind, to measure squared errors by.
        name: what the metric is called in the result.
        metric: of predictions (|G|, n, ...), a number.
        resamples: for its error bars.
    """
    asked = orbit(action, jnp.concatenate(list(tests.values()))).reshape(-1, *x.shape[1:])
    shape = (action.group.order, len(tests), options.test, *y.shape[1:])  # of predictions on `asked`
    sizes = command.sizes(options.members)
    runs = [(w, TRAININGS[0]) for w in options.width] + [(options.width[0], t) for t in TRAININGS[1:]]

    found = {key: [] for key in (name, f"{name}_error", "member_error", "ensemble_error")}
    for width, training in runs:
        shown, labels = images(action, x, training), images(label_action, y, training)
        print(f"width {width}, {training}: {options.members} networks on {len(shown)} examples")
        predictions = run(
            network(width), keys[0], options.members, shown, labels, asked, options.steps,
            learning_rate=learning_rate, dtype=jnp.float32,
            folder=folder / f"width-{width}-{training.replace(' ', '-')}", resume=True,
        )  # fmt: skip
        predictions = predictions.astype(float).reshape(-1, *shape)
        curves = [sub_ensembles(metric, predictions[:, :, i], sizes, resamples) for i in range(len(tests))]
        found[name].append([value for value, _ in curves])
        found[f"{name}_error"].append([error for _, error in curves])
        wrong = predictions[:, :, 0] - np.asarray(orbit(label_action, true))
        found["member_error"].append((wrong**2).mean())
        found["ensemble_error"].append((wrong.mean(0) ** 2).mean())

    theory, limit = [], []
    kernel, time = network(1).kernel, learning_rate * options.steps
    for training in TRAININGS:
        print(f"infinite width, {training}")
        flow = GradientFlow(kernel, images(action, x, training), images(label_action, y, training))
        virtual = flow.sample(keys[1], asked, time, max(2 * options.members, 1000)).reshape(-1, *shape)
        theory.append([sub_ensembles(metric, virtual[:, :, i], sizes, 2)[0] for i in range(len(tests))])
        if training == TRAININGS[0]:
            moving = label_action if y.ndim == 2 else None
            flow = GradientFlow.augmented(kernel, x, y, action, label_action=moving)
        mean = flow.mean(asked, time).reshape(shape)
        limit.append([metric(mean[:, i]) for i in range(len(tests))])
    return {
        "sizes": sizes,  # members M
        "tests": list(tests),
        "widths": [width for width, _ in runs],
        "trainings": [training for _, training in runs],
        **found,  # (runs, tests, sizes) for the metric, (runs,) for mean squares on all images of `true`
        "theory_trainings": TRAININGS,
        f"theory_{name}": theory,  # (trainings, tests, sizes)
        f"infinite_{name}": limit,  # (trainings, tests), of the infinite ensemble of infinitely wide networks
    }
