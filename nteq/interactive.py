"""Interactive figures that answer in a live kernel and in the static page alike.

`Explorer` carries all of its curves with it and draws them in the browser, `Pictures` does the same with
finished pictures, so moving a slider needs neither a kernel nor a network.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from nteq import _checks

try:
    import anywidget
    import matplotlib.pyplot as plt
    import traitlets
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('nteq.interactive needs Matplotlib and anywidget: pip install "nteq[book]".') from error

from nteq.plotting import COLOURS

__all__ = ["Explorer", "Pictures"]

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
