"""The look of the book's figures: one style, the same colour for the same thing in every chapter."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from jax.typing import ArrayLike

__all__ = ["COLOURS", "plot_gram", "plot_orbit", "use_style"]

#: Okabe and Ito's palette, which colour-blind readers can tell apart, by what it stands for.
COLOURS = {
    "theory": "#0072B2",
    "measured": "#D55E00",
    "counterexample": "#CC79A7",
    "data": "#009E73",
    "neutral": "#767676",
    "highlight": "#E69F00",
}

_STYLE = {
    "figure.figsize": (6.4, 3.8),
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=list(COLOURS.values())),
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
    plt.rcParams.update(_STYLE)


def plot_orbit(images: ArrayLike, titles: list[str] | None = None, limit: float | None = None):
    """One example's orbit side by side, on one colour scale.

    Args:
        images: the orbit of one lattice or one-channel image, shape (|G|, height, width).
        titles: one per image, such as the prediction on it.
        limit: colours span −limit … limit; by default the largest absolute entry.

    Returns:
        The Matplotlib figure.

    Raises:
        ValueError: images is not three-dimensional or titles has another length.

    >>> plot_orbit(np.ones((4, 5, 5))).axes[0].get_title()
    '0/4'
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.size == 0:
        raise ValueError(f"plot_orbit: images must have shape (|G|, height, width), got {images.shape}.")
    if titles is None:
        titles = [f"{g}/{len(images)}" for g in range(len(images))]
    if len(titles) != len(images):
        raise ValueError(f"plot_orbit: {len(images)} images need as many titles, got {len(titles)}.")
    limit = np.abs(images).max() if limit is None else limit
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, len(images), figsize=(1.7 * len(images), 2.1), squeeze=False)
        for axis, image, title in zip(axes[0], images, titles, strict=True):
            axis.imshow(image, vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[], title=title)
    return figure


def plot_gram(gram: ArrayLike, label: str = "Θ(x, x′)", axis=None):
    """A Gram matrix as a picture with its colour scale.

    Args:
        gram: shape (n1, n2).
        label: what the colours mean.
        axis: the Matplotlib axis to draw on; a new figure by default.

    Returns:
        The Matplotlib axis.

    Raises:
        ValueError: gram is not a matrix.

    >>> plot_gram(np.eye(3)).get_xlabel()
    'training example x′'
    """
    gram = np.asarray(gram)
    if gram.ndim != 2 or gram.size == 0:
        raise ValueError(f"plot_gram: gram must be a matrix (n1, n2), got shape {gram.shape}.")
    with plt.rc_context(_STYLE):
        if axis is None:
            axis = plt.subplots(figsize=(4.6, 3.8))[1]
        image = axis.imshow(gram)
        axis.set(xlabel="training example x′", ylabel="example x")
        axis.figure.colorbar(image, ax=axis, label=label)
    return axis
