"""The look of the book's figures: one style, the same colour for the same thing in every chapter."""

from __future__ import annotations

from typing import Any

try:
    import matplotlib.pyplot as plt
    from cycler import cycler
except ImportError as error:
    raise ImportError('nteq.plotting needs Matplotlib: pip install "nteq[book]".') from error

__all__ = ["COLOURS", "use_style"]

#: Okabe and Ito's palette, which colour-blind readers can tell apart, by what it stands for.
COLOURS = {
    "theory": "#0072B2",
    "measured": "#D55E00",
    "counterexample": "#CC79A7",
    "data": "#009E73",
    "neutral": "#767676",
    "highlight": "#E69F00",
}

_STYLE: dict[str, Any] = {
    "figure.figsize": (6.4, 3.8),
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=list(COLOURS.values())),
    "axes.titlesize": 12,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "image.cmap": "cividis",
}


def use_style() -> None:
    """Give every figure of this session the book's look; a chapter's set-up cell calls it.

    >>> use_style()
    >>> plt.rcParams["font.size"]
    12.0
    """
    plt.style.use(_STYLE)
