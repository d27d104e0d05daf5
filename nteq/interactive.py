"""Interactive figures that answer in a live kernel and in the static page alike.

`Explorer` carries all of its curves with it and draws them in the browser, `Pictures` does the same with
finished pictures, so moving a slider needs neither a kernel nor a network. `Playground` carries no curves: it
trains networks and solves for the infinite ensemble in the browser itself.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nteq import _checks
from nteq.actions import on_vectors, orbit
from nteq.gradient_flow import GradientFlow
from nteq.groups import FiniteGroup, cyclic, dihedral
from nteq.kernels import Kernels, mlp_kernel

try:
    import anywidget
    import matplotlib.pyplot as plt
    import traitlets
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('nteq.interactive needs Matplotlib and anywidget: pip install "nteq[book]".') from error

from nteq.plotting import COLOURS

__all__ = ["Explorer", "Pictures", "Playground"]

_CURVES = [COLOURS[name] for name in ("theory", "measured", "data", "counterexample", "highlight", "neutral")]


class _OverSlider(anywidget.AnyWidget):
    """What both have: the front end, and the state that it shares with Python."""

    _esm = Path(__file__).parent / "interactive.js"
    data = traitlets.Dict().tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)

    def _still(self) -> Figure:
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # a still picture of the start, for where a stored notebook is shown without JavaScript
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, "image/png": _encoded(self._still(), "png")}, metadata

    def __repr__(self) -> str:
        # without an address, so that the output stored in a notebook is the same at every run
        return f"{type(self).__name__}({self.data['slider']!r}, {len(self.data['values'])} positions)"


class Explorer(_OverSlider):
    """Curves against x with a slider that steps through a parameter.

    Args:
        slider: the name of the parameter, with units.
        values: the slider's positions in words, such as ["t = 0", "t = 1"].
        x: the abscissa, shape (points,).
        curves: name → ordinates of shape (positions, points), or (points,) for one that stays.
        captions: one sentence per position that says what the figure shows there; read out by screen
            readers.
        xlabel: the x axis, with units.
        ylabel: the y axis, with units.
        points: names of the curves that are drawn as points instead of lines.
        xlog: whether x is logarithmic.
        ylog: whether y is logarithmic.
        start: the position shown first.

    Raises:
        ValueError: lengths that do not fit each other, entries that are not finite, an entry that is not
            positive on a logarithmic axis, or more curves than there are colours.

    >>> Explorer("time t", ["0", "1"], [0, 1], {"mean": [[0, 0], [0, 1]]}, ["flat", "rising"], "x", "f")
    Explorer('time t', 2 positions)
    """

    def __init__(
        self,
        slider: str,
        values: Sequence[str],
        x: ArrayLike,
        curves: Mapping[str, ArrayLike],
        captions: Sequence[str],
        xlabel: str,
        ylabel: str,
        *,
        points: Sequence[str] = (),
        xlog: bool = False,
        ylog: bool = False,
        start: int = 0,
    ):
        x = np.asarray(x, dtype=float)
        positions = _positions("Explorer", values, captions, start)
        if not 1 <= len(curves) <= len(_CURVES):
            raise ValueError(f"Explorer: give one to six curves, got {len(curves)}.")
        unknown = set(points) - set(curves)
        if unknown:
            raise ValueError(f"Explorer: points names {sorted(unknown)}, which are not among the curves.")
        drawn = {}
        for name, given in curves.items():
            y = np.asarray(given, dtype=float)
            if y.shape not in ((positions, x.size), (x.size,)):
                raise ValueError(
                    f"Explorer: curve {name!r} must have shape {(positions, x.size)} or {(x.size,)}, "
                    f"got {y.shape}."
                )
            drawn[name] = np.broadcast_to(y, (positions, x.size))
        for name, values_on_axis, log in [("x", x, xlog), *((n, y, ylog) for n, y in drawn.items())]:
            if not np.isfinite(values_on_axis).all() or (log and (values_on_axis <= 0).any()):
                raise ValueError(
                    f"Explorer: {name} must be finite{' and positive on a logarithmic axis' if log else ''}."
                )

        # six significant digits: what a screen shows, and the same on every machine
        def rounded(a: np.ndarray) -> list[float]:
            return [float(f"{v:.6g}") for v in a]

        super().__init__(
            index=start,
            data={
                "slider": slider,
                "values": list(values),
                "captions": list(captions),
                "x": rounded(x),
                "curves": [
                    {
                        "name": name,
                        "colour": colour,
                        "points": name in points,
                        "y": [rounded(row) for row in y],
                    }
                    for (name, y), colour in zip(drawn.items(), _CURVES, strict=False)
                ],
                "xlabel": xlabel,
                "ylabel": ylabel,
                "xlog": xlog,
                "ylog": ylog,
            },
        )

    def _still(self) -> Figure:
        data, figure = self.data, Figure()
        axis = figure.add_subplot()
        for curve in data["curves"]:
            style = "o" if curve["points"] else "-"
            axis.plot(data["x"], curve["y"][self.index], style, color=curve["colour"], label=curve["name"])
        axis.set(
            xlabel=data["xlabel"],
            ylabel=data["ylabel"],
            title=f"{data['slider']}: {data['values'][self.index]}",
        )
        axis.set(xscale="log" if data["xlog"] else "linear", yscale="log" if data["ylog"] else "linear")
        axis.legend()
        return figure


class Pictures(_OverSlider):
    """Pictures with a slider that steps through them.

    For what curves cannot show: images, lattices, matrices. A page carries every picture, so keep them few
    and small.

    Args:
        slider: the name of what changes, with units.
        values: the slider's positions in words.
        figures: one Matplotlib figure for each position, all of one size; they are rendered and closed.
        captions: one sentence per position that says what the picture shows; also its alt text.
        start: the position shown first.

    Raises:
        ValueError: lengths that do not fit each other, something that is not a figure, or figures that
            differ in size.

    >>> figures = [plt.figure(figsize=(2, 1)) for _ in range(2)]
    >>> Pictures("angle", ["0°", "90°"], figures, ["A cat.", "A cat on its side."])
    Pictures('angle', 2 positions)
    """

    def __init__(
        self,
        slider: str,
        values: Sequence[str],
        figures: Sequence[Figure],
        captions: Sequence[str],
        *,
        start: int = 0,
    ):
        positions = _positions("Pictures", values, captions, start)
        if len(figures) != positions or not all(isinstance(figure, Figure) for figure in figures):
            raise ValueError(
                f"Pictures: figures must be {positions} Matplotlib figures, one for each of the values, "
                f"got {len(figures)}: {figures!r}."
            )
        sizes = {tuple(figure.get_size_inches()) for figure in figures}
        if len(sizes) > 1:
            raise ValueError(
                f"Pictures: all figures must have one size, or the page jumps; got {sorted(sizes)} inches."
            )
        self._figure = figures[start]
        pictures = [_encoded(figure, "webp", lossless=True) for figure in figures]  # half of a PNG
        for figure in figures:
            plt.close(figure)
        super().__init__(
            index=start,
            data={
                "slider": slider,
                "values": list(values),
                "captions": list(captions),
                "pictures": pictures,
            },
        )

    def _still(self) -> Figure:
        return self._figure


_SCENE: dict[str, Any] = {
    "group": "C4",
    "augmentation": "full",
    "start": "symmetric",
    "points": [[0.6, 0.15, 1.0], [0.45, 0.7, -1.0], [0.2, 0.15, 1.0]],
    "asked": [0.9, 0.35],
    "networks": 64,
    "width": 64,
    "depth": 1,
    "activation": "relu",
    "seed": 1,
    "show": "mean",
}

_PRESETS: list[dict[str, Any]] = [
    {
        "name": "One lopsided network",
        "scene": {"networks": 1, "show": "one"},
        "sentence": "One network saw all images of its training points, and is still not symmetric between "
        "them.",
    },
    {
        "name": "The mean of 64",
        "scene": {},
        "sentence": "The mean of 64 networks is eight times closer to symmetric than one of them, and the "
        "infinite ensemble is exactly so.",
    },
    {
        "name": "Far from the data",
        "scene": {
            "points": [[0.15, 0.05, 1.0], [0.1, 0.25, -1.0], [0.3, 0.2, 1.0]],
            "asked": [0.95, 0.8],
            "show": "infinite",
        },
        "sentence": "All training points are in the middle, and the infinite ensemble is symmetric in the "
        "corners, too.",
    },
    {
        "name": "Half the orbit",
        "scene": {"augmentation": "half", "show": "infinite"},
        "sentence": "With half of the images the training set has no symmetry, and neither has the infinite "
        "ensemble: more networks do not help.",
    },
    {
        "name": "Uneven start",
        "scene": {"start": "uneven", "show": "infinite"},
        "sentence": "Every image is there, but the start tells left and right from up and down, and so does "
        "the infinite ensemble.",
    },
    {
        "name": "C8 from C4's data",
        "scene": {"group": "C8", "augmentation": "other", "show": "infinite"},
        "sentence": "The training set has the symmetry C4: the infinite ensemble has it, too, but is not "
        "symmetric under an eighth of a turn.",
    },
]


class Playground(anywidget.AnyWidget):
    r"""A plane with labelled points, a group, and networks that are trained on the spot, in the browser.

    It draws one network, the mean of all, the infinite ensemble of `nteq.gradient_flow.GradientFlow` at the
    same time, or their difference, and how much the answers differ over the orbit of an input, against the
    number of networks that are averaged. Points are moved with the mouse, a finger or the arrow keys. The
    networks are those of `nteq.networks.mlp` in the NTK parameterisation with $\sigma_w =
    \tfrac52$ for ReLU, 3 for erf, and $\sigma_b = 1$, trained by full-batch gradient descent on
    the squared loss with $\eta = N/10\lambda_{\max}$ of the infinite ensemble. What is not given is as in the
    preset.

    Args:
        preset: "One lopsided network", "The mean of 64", "Far from the data", "Half the orbit", "Uneven
            start" or "C8 from C4's data".
        group: "C1" … "C8", rotations, or "D1" … "D8", rotations and mirrors.
        augmentation: which images of the points are trained on: "none", "half" (the first half of the group's
            elements), "other" (every other one), or "full".
        start: "symmetric", or "uneven": weights on the two coordinates have the variances 1.8 and 0.2.
        points: (x, y, label) of each training point, coordinates and labels from −1 to 1, shape (n, 3).
        asked: (x, y) of the input over whose orbit answers are compared.
        networks: how many are trained, a power of two up to 256.
        width: of their hidden layers, a power of two from 4 to 128.
        depth: one hidden layer or two.
        activation: "relu" or "erf".
        seed: of the networks' start.
        show: "one", "mean", "infinite" or "difference", the mean minus the infinite ensemble.

    Raises:
        ValueError: an argument out of range.

    >>> Playground("Half the orbit", group="D3")
    Playground('Half the orbit', D3, half, 64 networks)
    """

    _esm = Path(__file__).parent / "playground.js"
    data = traitlets.Dict().tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        preset: str = "The mean of 64",
        *,
        group: str | None = None,
        augmentation: str | None = None,
        start: str | None = None,
        points: ArrayLike | None = None,
        asked: ArrayLike | None = None,
        networks: int | None = None,
        width: int | None = None,
        depth: int | None = None,
        activation: str | None = None,
        seed: int | None = None,
        show: str | None = None,
    ):
        presets = {one["name"]: one for one in _PRESETS}
        _checks.choice("Playground", "preset", preset, tuple(presets))
        given = dict(group=group, augmentation=augmentation, start=start, networks=networks, width=width)
        given |= dict(depth=depth, activation=activation, seed=seed, show=show)
        scene = _SCENE | presets[preset]["scene"] | {k: v for k, v in given.items() if v is not None}
        groups = tuple(f"{kind}{k}" for kind in "CD" for k in range(1, 9))
        for name, choices in {
            "group": groups,
            "augmentation": ("none", "half", "other", "full"),
            "start": ("symmetric", "uneven"),
            "activation": ("relu", "erf"),
            "show": ("one", "mean", "infinite", "difference"),
        }.items():
            _checks.choice("Playground", name, scene[name], choices)
        for name, least, most in (("networks", 1, 256), ("width", 4, 128)):
            scene[name] = _checks.count("Playground", name, scene[name], least=least, most=most)
            if scene[name] & (scene[name] - 1):
                raise ValueError(f"Playground: {name} must be a power of two, got {scene[name]}.")
        scene["depth"] = _checks.count("Playground", "depth", scene["depth"], most=2)
        scene["seed"] = _checks.count("Playground", "seed", scene["seed"], least=0, most=10**9)
        for name, value, columns in (("points", points, 3), ("asked", asked, 2)):
            if value is None:
                continue
            array = np.asarray(value, dtype=float)
            shape = (columns,) if name == "asked" else (len(array) if array.ndim else 0, columns)
            if array.shape != shape or array.size == 0 or not (np.abs(array) <= 1).all():
                raise ValueError(
                    f"Playground: {name} must be numbers from −1 to 1 of shape "
                    f"{'(2,)' if name == 'asked' else '(n, 3)'}, got {value!r}."
                )
            scene[name] = np.round(array, 3).tolist()
        most = min(12, 128 // len(_trained_elements(scene)))
        if len(scene["points"]) > most:
            raise ValueError(
                f"Playground: at most {most} points fit with {scene['group']} and augmentation "
                f"{scene['augmentation']!r}, got {len(scene['points'])}."
            )
        self._preset = preset
        super().__init__(
            scene=scene,
            data={"captions": [presets[preset]["sentence"]], "presets": _PRESETS, "default": _SCENE},
        )

    def __repr__(self) -> str:
        scene = self.scene
        return (
            f"Playground({self._preset!r}, {scene['group']}, {scene['augmentation']}, "
            f"{scene['networks']} networks)"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, "image/png": _encoded(self._still(), "png")}, metadata

    def _still(self) -> Figure:
        """The infinite ensemble late in training, the points with their images, and the spread's curve."""
        scene, group = self.scene, _group(self.scene["group"])
        action, elements = on_vectors(group), jnp.array(_trained_elements(scene))
        points = jnp.array(scene["points"], float)
        x = orbit(action, points[:, :2])[elements].reshape(-1, 2)
        labels = jnp.tile(points[:, 2], len(elements))
        asked = np.asarray(orbit(action, jnp.array([scene["asked"]], float))[:, 0])
        axes = jnp.array([1.8**0.5, 0.2**0.5] if scene["start"] == "uneven" else [1.0, 1.0])
        kernel = mlp_kernel(scene["depth"], scene["activation"], *_CONSTANTS[scene["activation"]])

        def seen(a: ArrayLike, b: ArrayLike) -> Kernels:
            return kernel(a * axes, b * axes)

        rate = 0.1 * len(x) / float(jnp.linalg.eigvalsh(seen(x, x).ntk)[-1])
        flow, time = GradientFlow(seen, x, labels, rate), 2000.0
        side = (np.arange(96) + 0.5) / 48 - 1
        grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        covariance, mean = (np.asarray(f(asked, time)) for f in (flow.covariance, flow.mean))
        own = covariance.trace() / len(asked) - covariance.mean()
        members = 2.0 ** np.arange(9)
        figure = Figure(figsize=(8, 4), layout="constrained")
        plane, curve = figure.subplots(1, 2, width_ratios=(1.1, 1))
        colours = LinearSegmentedColormap.from_list(
            "labels", [COLOURS["theory"], "#f7f7f7", COLOURS["measured"]]
        )
        shade = dict(cmap=colours, vmin=-1.5, vmax=1.5)
        plane.imshow(flow.mean(grid, time).reshape(96, 96), extent=(-1, 1, -1, 1), origin="lower", **shade)
        images = np.asarray(orbit(action, points[:, :2])).reshape(-1, 2)
        plane.scatter(*images.T, s=25, facecolors="none", edgecolors="black", linewidths=0.5)
        plane.scatter(*x.T, c=labels, s=25, edgecolors="black", linewidths=0.5, cmap=colours, vmin=-1, vmax=1)
        plane.scatter(
            *points[:, :2].T, c=points[:, 2], s=80, edgecolors="black", cmap=colours, vmin=-1, vmax=1
        )
        plane.scatter(*asked.T, marker="D", s=30, c="white", edgecolors="black")
        plane.set(xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[], title="infinite ensemble")
        curve.loglog(members, np.sqrt(np.maximum(own, 1e-12) / members + mean.var()), color=COLOURS["theory"])
        curve.set(xlabel="networks averaged", title="spread over the orbit of the diamonds")
        return figure


_CONSTANTS = {"relu": (2.5, 1.0), "erf": (3.0, 1.0)}  # σ_w and σ_b


def _group(name: str) -> FiniteGroup:
    return (cyclic if name[0] == "C" else dihedral)(int(name[1]))


def _trained_elements(scene: Mapping[str, Any]) -> list[int]:
    """The elements of the group that the training set is moved by."""
    k, every = int(scene["group"][1]), list(range(_group(scene["group"]).order))
    return {
        "none": every[:1],
        "half": every[: -(-len(every) // 2)],
        "other": [g for g in every if g % k % 2 == 0],
        "full": every,
    }[scene["augmentation"]]


def _positions(caller: str, values: Sequence[str], captions: Sequence[str], start: int) -> int:
    """How many positions the slider has."""
    positions = len(values)
    if positions < 2 or len(captions) != positions:
        raise ValueError(
            f"{caller}: values needs at least two positions and as many captions, got {positions} "
            f"and {len(captions)}."
        )
    _checks.count(caller, "start", start, least=0, most=positions - 1)
    return positions


def _encoded(figure: Figure, form: str, **options: Any) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format=form, pil_kwargs=options)
    return base64.b64encode(picture.getvalue()).decode()
