"""What `experiments.qm9` and `experiments.qm9_soap` share: draws, composition, ridges. It needs NumPy alone.

Energies are regressed in two steps, by the numbers of atoms of each element (least squares), and what is left
by a kernel with a ridge. The ridge is the one with the smallest leave-one-out error on the training set,
which a single eigendecomposition gives for all ridges, the refitted composition included: with A = K + r the
error at molecule i of a regression on all others is (A⁻¹v)_i / (A⁻¹)_ii, where v are the labels that such a
regression sees.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ELEMENTS = (1, 6, 7, 8, 9)
RIDGES = 10.0 ** np.arange(-11, 2)  # in units of the mean of the Gram matrix's diagonal


class Fit(NamedTuple):
    """A regression: predictions are cross @ coefficients + counts @ composition."""

    coefficients: NDArray[np.float64]
    composition: NDArray[np.float64]
    ridge: float  # in units of the mean of the diagonal
    cv_error: float  # the mean absolute error, or length of the error, when one molecule is left out


def draws(molecules: int, train: int, test: int, count: int, seed: int) -> tuple[NDArray, NDArray]:
    """Rows to train on (count, train), of which smaller sets are the beginning, and to test on."""
    if train + test > molecules:
        raise ValueError(f"{train} molecules to train on and {test} to test on are more than {molecules}")
    orders = [np.random.default_rng([seed, draw]).permutation(molecules) for draw in range(count)]
    return np.array([o[:train] for o in orders]), np.array([o[molecules - test :] for o in orders])


def composition(numbers: NDArray) -> NDArray[np.float64]:
    """How many atoms of each element, (n, 5), of atomic numbers (n, atoms)."""
    return (numbers[:, :, None] == np.array(ELEMENTS)).sum(1).astype(float)


def fit(gram: NDArray, labels: NDArray, counts: NDArray | None = None, ridges: NDArray = RIDGES) -> Fit:
    """The regression with the best of the ridges.

    Labels (n,) with a Gram matrix (n, n); labels (n, d) with one of (n d, n d) or, for d regressions that
    know nothing of each other, (n, n). Counts, for labels (n,) alone, are what is fitted first.
    """
    n = len(labels)
    if counts is None:
        counts = np.zeros((n, 0))
    inverse = np.linalg.pinv(counts)  # of least squares
    first = inverse @ labels
    left = (labels - counts @ first if counts.shape[1] else labels).reshape(len(gram), -1)
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    unit = np.trace(gram) / len(gram)
    rotated = vectors.T @ left
    blocks = vectors.reshape(n, -1, len(gram))

    def solve(ridge):
        return vectors @ (rotated / (values + ridge * unit)[:, None])

    def left_out(ridge):
        """The error at each molecule of a regression on all others."""
        weights = 1 / (values + ridge * unit)
        diagonal = np.einsum("iak,ibk->iab", blocks * weights, blocks, optimize=True)
        seen, known = solve(ridge).reshape(n, blocks.shape[1], -1), np.ones(n, bool)
        if counts.shape[1]:
            # without molecule i the composition is another, by column i of the projection H over 1 − H_ii
            hat = np.einsum("ic,ci->i", counts, inverse)
            known = 1 - hat > 1e-6  # an element that no other molecule has
            moved = np.einsum("ik,kc,ci->i", vectors * weights, vectors.T @ counts, inverse, optimize=True)
            seen = seen + (moved * left[:, 0] / np.where(known, 1 - hat, 1))[:, None, None]
        errors = np.linalg.solve(diagonal, seen)
        return np.sqrt((errors**2).sum((1, 2)))[known]

    scores = [left_out(ridge).mean() for ridge in ridges]
    best = int(np.nanargmin(scores))
    coefficients = solve(ridges[best]).reshape(labels.shape if left.shape[1] > 1 else -1)
    return Fit(coefficients, first, float(ridges[best]), float(scores[best]))


def random_rotations(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Rotations at random, uniformly, shape (n, 3, 3), of quaternions."""
    q = rng.normal(size=(n, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)
