"""Another's kernel on the molecules of `experiments.qm9`: SOAP by dscribe, with kernel ridge regression.

The vector p of an atom is the power spectrum of a smooth density around it (Bartók, Kondor & Csányi 2013, by
the package dscribe), and the kernel of two molecules sums (p·p′/|p||p′|)^ζ over all pairs of atoms C, N, O
and F of one element. It does not change when a molecule is turned, so none is. Molecules, training sets and
tests are those of `experiments.qm9` with the same seed and sizes; the composition is subtracted and the ridge
chosen by leave-one-out errors on the training set, as there, and so is ζ. The settings of the descriptor are
the best of a few, by the same error at up to 1000 training molecules of the first draw.

It needs packages that the book does not, locked in experiments/qm9_soap.requirements.txt:

    python -m venv .venvs/qm9_soap
    .venvs/qm9_soap/bin/pip install -r experiments/qm9_soap.requirements.txt
    .venvs/qm9_soap/bin/python -m experiments.qm9_soap --data qm9-5000.npz

What is stored, with D draws and S training sizes: `data`, `index`, `train` (S,), `train_rows` and `test_rows`
as by `experiments.qm9`; `exponents` (Z,), the ζ; `error` (S, D), the mean absolute error of the test energies
in meV, `cv_error`, `ridge` and `exponent` (S, D), the leave-one-out error and what was chosen by it;
`error_of_exponents` (Z, S, D), with each ζ; `choices` (C,), names of settings, `choices_settings` (C,), their
arguments, `choices_cv_error` (C, Z) in meV, `choices_train`, and `chosen`, the name of the best.
"""

import argparse
import copy
import itertools
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from experiments.qm9_regression import composition, draws, fit

HEAVY = (6, 7, 8, 9)
NEAR = dict(weighting=dict(function="pow", r0=2.0, c=1.0, d=1.0, m=7.0))  # 1/(1 + (r/2 Å)⁷)
CHOICES = {
    "equal weights": dict(r_cut=5.0, n_max=6, l_max=4, sigma=0.3),
    "equal weights, short": dict(r_cut=3.5, n_max=6, l_max=4, sigma=0.3),
    "near atoms weigh more": dict(r_cut=5.0, n_max=6, l_max=4, sigma=0.3, **NEAR),
    "near atoms weigh more, finer": dict(r_cut=5.0, n_max=8, l_max=4, sigma=0.2, **NEAR),
}
ROWS = 2000  # atoms of a side in a piece
EXPONENTS = (1, 2, 3)


def vectors(positions, numbers, settings):
    """Of each molecule its vectors of length one, element by element."""
    from ase import Atoms
    from dscribe.descriptors import SOAP

    # a copy: dscribe adds to them
    soap = SOAP(species=["H", "C", "N", "O", "F"], periodic=False, **copy.deepcopy(settings))
    found = []
    for x, z in zip(positions, numbers, strict=True):
        x, z = x[z > 0], z[z > 0]
        centres = np.flatnonzero(np.isin(z, HEAVY))
        p = soap.create(Atoms(z, x), centers=centres.tolist())
        p /= np.linalg.norm(p, axis=1, keepdims=True)
        found.append([p[z[centres] == element] for element in HEAVY])
    return found


def kernels(found):
    """The Gram matrices for all exponents, (Z, n, n)."""
    total = np.zeros((len(EXPONENTS), len(found), len(found)))
    for element in range(len(HEAVY)):
        having = np.array([i for i, of in enumerate(found) if len(of[element])], int)
        counts = [len(found[i][element]) for i in having]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        p = np.concatenate([found[i][element] for i in having]) if len(having) else np.zeros((0, 1))
        # as many whole molecules as fit
        first = 0
        while first < len(having):
            last = max(first + 1, np.searchsorted(starts, starts[first] + ROWS, "right") - 1)
            dots = p[starts[first] : starts[last]] @ p[starts[first] :].T
            rows, columns = starts[first:last] - starts[first], starts[first:-1] - starts[first]
            for k, exponent in enumerate(EXPONENTS):
                sums = np.add.reduceat(np.add.reduceat(dots**exponent, columns, 1), rows, 0)
                total[k][np.ix_(having[first:last], having[first:])] += sums
                beyond = sums[:, last - first :].T
                total[k][np.ix_(having[last:], having[first:last])] += beyond
            first = last
    return total


def experiment(options):
    """What is stored."""
    with np.load(options.data) as stored:
        given = {
            name: stored[name][: options.molecules] for name in ("numbers", "positions", "energies", "index")
        }
        positions, made = given["positions"] * stored["unit"], json.loads(str(stored["provenance"]))
    if len(given["index"]) < options.molecules:
        raise ValueError(f"--molecules must be at most {len(given['index'])}, which the file has")
    numbers, energies = given["numbers"].astype(int), 1000 * given["energies"]
    counts = composition(numbers)
    train, test = draws(options.molecules, max(options.train), options.test, options.draws, options.seed)
    few = train[0][:1000]
    cv = np.zeros((len(CHOICES), len(EXPONENTS)))
    for c, (name, settings) in enumerate(CHOICES.items()):
        for k, gram in enumerate(kernels(vectors(positions[few], numbers[few], settings))):
            cv[c, k] = fit(gram, energies[few], counts[few]).cv_error
        print(f"{name}: left out {cv[c].round(1)} meV", flush=True)
    chosen = list(CHOICES)[int(cv.min(1).argmin())]
    grams = kernels(vectors(positions, numbers, CHOICES[chosen]))
    error, left_out, ridge = np.zeros((3, len(EXPONENTS), len(options.train), options.draws))
    for k, (s, n), d in itertools.product(
        range(len(EXPONENTS)), enumerate(options.train), range(options.draws)
    ):
        rows, asked = train[d, :n], test[d]
        best = fit(grams[k][np.ix_(rows, rows)], energies[rows], counts[rows])
        predicted = grams[k][np.ix_(asked, rows)] @ best.coefficients + counts[asked] @ best.composition
        error[k, s, d] = np.abs(predicted - energies[asked]).mean()
        left_out[k, s, d], ridge[k, s, d] = best.cv_error, best.ridge
    best = left_out.argmin(0)
    pick = lambda of: np.take_along_axis(of, best[None], 0)[0]
    return {
        "data": made["command"],
        "index": given["index"],
        "train": options.train,
        "train_rows": train.astype(np.int16),
        "test_rows": test.astype(np.int16),
        "exponents": EXPONENTS,
        "error": pick(error),
        "cv_error": pick(left_out),
        "ridge": pick(ridge),
        "exponent": np.array(EXPONENTS)[best],
        "error_of_exponents": error,
        "choices": list(CHOICES),
        "choices_settings": [json.dumps(settings) for settings in CHOICES.values()],
        "choices_cv_error": cv,
        "choices_train": len(few),
        "chosen": chosen,
    }


def main():
    """Computes and stores."""
    arguments = argparse.ArgumentParser(
        prog="python -m experiments.qm9_soap",
        description="Energies of molecules by SOAP and kernel ridge regression.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, package = arguments.add_argument, Path(__file__).parent.parent / "nteq"
    add("--data", type=Path, default=package / "qm9.npz", help="molecules by experiments.qm9_molecules")
    add("--molecules", type=int, default=5000, help="the first so many of the file")
    add("--train", type=int, nargs="+", default=[50, 100, 200, 500, 1000, 2000], help="training molecules")
    add("--test", type=int, default=1000, help="test molecules")
    add("--draws", type=int, default=5, help="training sets of each size")
    add("--seed", type=int, default=0, help="of the draws")
    add("--out", type=Path, default=package / "results" / "qm9_soap.npz", help="the result, a .npz file")
    options = arguments.parse_args()
    if options.out.suffix != ".npz":
        arguments.error(f"--out must end in .npz, got {options.out}")
    if min(options.molecules, *options.train, options.test, options.draws) < 1:
        arguments.error("--molecules, --train, --test and --draws must be at least 1")
    start = time.time()
    try:
        versions = {name: version(name) for name in ("ase", "dscribe", "numpy")}
        arrays = experiment(options)
    except ImportError as error:
        needed = "experiments/qm9_soap.requirements.txt"
        arguments.exit(2, f"{arguments.prog}: error: {error}. Install {needed} first.\n")
    except (ValueError, OSError) as error:
        arguments.exit(2, f"{arguments.prog}: error: {error}\n")
    # where files lie is of this machine
    settings = {k: v.name if isinstance(v, Path) else str(v) for k, v in vars(options).items() if k != "out"}
    names = {str(options.data): options.data.name}
    given = [names.get(argument, argument) for argument in sys.argv[1:]]
    if "--out" in given:
        del given[given.index("--out") : given.index("--out") + 2]
    provenance = {
        "command": " ".join(["python -m experiments.qm9_soap", *given]),
        "settings": settings,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.time() - start),
        "versions": {"python": platform.python_version()} | versions,
    }
    np.savez_compressed(options.out, provenance=json.dumps(provenance), **arrays)
    print(
        f"Stored {options.out}, {options.out.stat().st_size / 1000:.0f} kB, after {provenance['seconds']} s."
    )


if __name__ == "__main__":
    main()
