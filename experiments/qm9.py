"""What rotations are worth for molecules: `python -m experiments.qm9 --data qm9-5000.npz`.

Energies and dipole moments of QM9 by infinite ensembles of networks that read densities around atoms, with
augmentation by finite groups of rotations and, in closed form, by all of them. Energies are those of
atomisation, in meV, less what the composition says, which is fitted on the training set (least squares). A
ridge, the widths of Laplacian kernels and the choice of densities are from leave-one-out errors on training
sets alone. Every molecule is turned at random first, by a rotation of its own, except where "as given" says
otherwise. More molecules than ship are made by

    python -m experiments.qm9_molecules --count 5000 --out qm9-5000.npz

Each draw is another order of all molecules: the first ones are trained on, the last ones tested on. What is
stored, with D draws, S training sizes, K kinds:

**Which molecules.** `data`, the command that made the file; `index` (molecules,), the number in QM9; `train`
(S,), the sizes; `train_rows` (D, largest size) and `test_rows` (D, tests), of the list; `elements`.

**Learning curves of energies.** `kinds` (K,): "plain", "plain, as given" (QM9's own orientation, in training
and test), "octahedral", "icosahedral", which are ReLU networks with one hidden layer and the default
densities; "closed form" (u², all rotations, the same densities), "closed form, finer" (densities chosen among
`choices`), "Coulomb matrix" (sorted, Laplacian kernel). `error` (K, S, D), mean absolute error of the test
energies in meV; `cv_error`, the leave-one-out error beside it, and `ridge`, the one chosen, in units of the
mean of the Gram matrix's diagonal, likewise; `width` (S, D), the chosen one of the Laplacian kernel;
`composition_error` (S, D), of the composition alone. `choices` (C,), names of densities, and
`choices_cv_error` (C,), at `choices_train` molecules of the first draw, in meV; `chosen`, the name of the
best.

**Spread over rotations**, from `spread_train` molecules of the first draw: `spread_groups` (4,), names,
and `spread_orders`, 1, 12, 24 and 60; `spread_activations`, "relu" and "square"; `spread` (2, 4, M), for each
of M test molecules the standard deviation of the predicted energy over random rotations, in meV, and
`spread_error` (2, 4), the mean absolute error over all of these; `spread_closed` (M,) and
`spread_closed_error` (), the same of the closed form.

**Averages over rotations that are no group**, of the ReLU network, `rule_train` molecules of the first draw:
`rule_kinds`, "product" and "random"; `rule_nodes` (N,), the numbers of rotations; `rule_eigenvalues`
(2, N, 2), the smallest and the largest eigenvalue of the training Gram matrix, symmetrised, in units of the
mean of its diagonal; `rule_asymmetry` (2, N), the largest |K − Kᵀ| in the same units; `rule_error`
(2, N, 2), the test error in meV with a ridge of 1e-8 of the diagonal, and with the chosen one;
`group_eigenvalues` (2,), `group_error` (2,), the same of the icosahedral group.

**Dipole moments**, matrix-valued kernels, of the first `dipole_molecules` in orders of their own
(`dipole_train_rows`, `dipole_test_rows`): `dipole_train` (P,), `dipole_kinds` (Q,): "plain", "octahedral",
"icosahedral", "icosahedral, square", "icosahedral and inversion"; `dipole_error` (Q, P, D), the mean of
|μ̂ − μ| in debye, `dipole_cv_error` and `dipole_ridge` likewise; `dipole_defect` (Q, P, M), for each of M test
molecules of the first draw the mean over random rotations R of |Rᵀμ̂(Rx) − μ̂(x)|, in debye;
`dipole_zero_error` (D,), of predicting no dipole at all: the mean of |μ|; `dipole_length` (D,), the mean
difference to the length by B3LYP. `dipole_energy_error` (Q, P, D), of energies by the same kernels and draws
with labels that stay, in meV, as before.
"""

import itertools
from pathlib import Path

import jax
import numpy as np
from numpy.polynomial.legendre import leggauss
from scipy.spatial.distance import cdist

from experiments import command
from experiments.qm9_regression import ELEMENTS, composition, draws, fit, random_rotations
from nteq.actions import on_harmonics
from nteq.averages import orbit_average
from nteq.datasets import qm9
from nteq.groups import icosahedral, octahedral, tetrahedral, with_inversion
from nteq.harmonics import wigner_matrices
from nteq.kernels import mlp_kernel
from nteq.molecules import densities, molecule_kernel, power_spectrum_kernel
from nteq.radial import envelope, gaussian_basis

BLOCK = 1000  # molecules of a side in a piece that is kept
HEAVY = (6, 7, 8, 9)
GROUPS = {
    "plain": tetrahedral().subgroup([0], name="trivial"),
    "tetrahedral": tetrahedral(),
    "octahedral": octahedral(),
    "icosahedral": icosahedral(),
    "icosahedral and inversion": with_inversion(icosahedral()),
}
DIPOLES = {
    "plain": ("plain", "relu"),
    "octahedral": ("octahedral", "relu"),
    "icosahedral": ("icosahedral", "relu"),
    "icosahedral, square": ("icosahedral", "square"),
    "icosahedral and inversion": ("icosahedral and inversion", "relu"),
}


def narrow(r):
    """Fifteen Gaussians of the distance instead of six."""
    return gaussian_basis(r, np.arange(0.95, 4.5, 0.25), 0.2) * (envelope(r, 5.0) / r**3)[..., None]


CHOICES = {
    "default": {},
    "degree 4": dict(degree=4, smoothing=0.2),
    "narrow": dict(radial=narrow),
    "hydrogens": dict(centres=ELEMENTS),
    "hydrogens, degree 4": dict(centres=ELEMENTS, degree=4, smoothing=0.2),
    "narrow, hydrogens": dict(radial=narrow, centres=ELEMENTS),
    "narrow, hydrogens, degree 4": dict(radial=narrow, centres=ELEMENTS, degree=4, smoothing=0.2),
}


def network(activation="relu"):
    """The kernel of networks with one hidden layer."""
    return molecule_kernel(len(HEAVY), activation=activation, W_std=2**0.5 if activation == "relu" else 1.0)


def averaged(group, activation="relu"):
    """The same over a group."""
    kernel = network(activation)
    return kernel if group.order == 1 else orbit_average(kernel, on_harmonics(group))


def equivariant(group, activation):
    """The same for four labels, the energy, which stays, and the dipole, which turns: (n1, n2, 4, 4)."""
    labels = np.zeros((group.order, 4, 4))
    labels[:, 0, 0], labels[:, 1:, 1:] = 1, group.matrices
    return orbit_average(network(activation), on_harmonics(group), labels)


# Pieces: what is computed once is kept in the folder.


def kept(path, make):
    """The arrays of a file, which is made if it is not there."""
    if not path.exists():
        unfinished = path.with_suffix(".part")
        with open(unfinished, "wb") as file:
            np.savez(file, **make())
        unfinished.replace(path)
    with np.load(path) as stored:
        return dict(stored)


def whole_matrix(folder, kernel, x, rows):
    """The NTK of all pairs, for x(some) → densities and a number of rows, piece by piece.

    A kernel with labels (n1, n2, a, b) is that of a pair the other way round transposed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts, whole = [slice(i, min(i + BLOCK, rows)) for i in range(0, rows, BLOCK)], None
    for i, one in enumerate(parts):
        first = x(one)
        for two in parts[i:]:
            second = first if one == two else x(two)
            path = folder / f"{one.start}-{two.start}.npz"
            piece = kept(path, lambda a=first, b=second: {"ntk": np.asarray(kernel(a, b).ntk)})["ntk"]
            whole = np.zeros((rows, rows, *piece.shape[2:])) if whole is None else whole
            back = piece.swapaxes(0, 1)
            whole[one, two], whole[two, one] = piece, back if back.ndim == 2 else back.swapaxes(2, 3)
    return whole


def side_by_side(gram):
    """(n1, n2, d, d) as a matrix (n1 d, n2 d)."""
    n1, n2, d, _ = gram.shape
    return gram.transpose(0, 2, 1, 3).reshape(n1 * d, n2 * d)


# What is measured.


class Molecules:
    """The molecules as the experiment needs them, turned."""

    def __init__(self, options):
        given = qm9(options.molecules, options.data)
        self.made = given["provenance"]["command"]
        self.numbers, self.index = given["numbers"], given["index"]
        self.given = np.asarray(given["positions"])
        turn = random_rotations(np.random.default_rng(options.seed), len(self.index))
        self.positions = np.einsum("nab,nib->nia", turn, self.given)
        self.dipoles = np.einsum("nab,nb->na", turn, np.asarray(given["dipoles"]))
        self.energies = 1000 * np.asarray(given["energies"])  # meV
        self.lengths, self.counts = np.asarray(given["lengths"]), composition(self.numbers)

    def densities(self, positions=None, **how):
        """A function from rows to densities."""
        positions = self.positions if positions is None else positions
        # of all molecules as many rows, so that pieces fit each other
        most = np.isin(self.numbers, how.get("centres", HEAVY)).sum(1).max()

        def see(rows):
            x = np.asarray(densities(positions[rows], self.numbers[rows], **how))
            return np.pad(x, ((0, 0), (0, most - x.shape[1]), (0, 0), (0, 0)))

        return see

    def turned(self, rows, rotations):
        """Densities of molecules in all rotations, (rotations · rows, ...)."""
        moved = np.einsum("rab,nib->rnia", rotations, self.positions[rows])
        numbers = np.tile(self.numbers[rows], (len(rotations), 1))
        return np.asarray(densities(moved.reshape(-1, *moved.shape[2:]), numbers))


def curve(molecules, gram, sizes, train, test):
    """Errors of energies (sizes, draws), leave-one-out errors and ridges likewise."""
    found = np.zeros((3, len(sizes), len(train)))
    for (s, n), draw in itertools.product(enumerate(sizes), range(len(train))):
        rows, asked = train[draw, :n], test[draw]
        best = fit(gram[np.ix_(rows, rows)], molecules.energies[rows], molecules.counts[rows])
        error = energy_error(molecules, best, gram[np.ix_(asked, rows)], asked)
        found[:, s, draw] = error, best.cv_error, best.ridge
    return dict(zip(("error", "cv_error", "ridge"), found, strict=True))


def energy_error(molecules, best, cross, asked):
    """The mean absolute error at the molecules asked for."""
    predicted = cross @ best.coefficients + molecules.counts[asked] @ best.composition
    return np.abs(predicted - molecules.energies[asked]).mean()


def coulomb_matrices(positions, numbers):
    """Sorted by the lengths of the rows, lower triangles (n, atoms (atoms + 1)/2)."""
    z = numbers.astype(float)
    apart = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    pairs = (z[:, :, None] * z[:, None]) / np.where(apart > 0, apart, 1)
    diagonal = np.arange(z.shape[1])
    pairs[:, diagonal, diagonal] = 0.5 * z**2.4
    order = np.argsort(-np.linalg.norm(pairs, axis=2), axis=1, kind="stable")
    pairs = np.take_along_axis(np.take_along_axis(pairs, order[:, :, None], 1), order[:, None], 2)
    return pairs[:, *np.tril_indices(z.shape[1])]


def laplacian(options, molecules, train, test):
    """The curve of the Coulomb matrix with the best width of each training set."""
    features = coulomb_matrices(molecules.positions, molecules.numbers)
    apart = cdist(features, features, "cityblock")
    every = [curve(molecules, np.exp(-apart / w), options.train, train, test) for w in options.widths]
    best = np.argmin([one["cv_error"] for one in every], 0)
    chosen = {k: np.take_along_axis(np.array([one[k] for one in every]), best[None], 0)[0] for k in every[0]}
    return chosen | {"width": np.array(options.widths)[best]}


def choose(molecules, rows):
    """The leave-one-out error of each choice of densities."""
    found = []
    for name, how in CHOICES.items():
        x = molecules.densities(**how)(rows)
        gram = np.asarray(power_spectrum_kernel(len(how.get("centres", HEAVY)))(x, x).ntk)
        found.append(fit(gram, molecules.energies[rows], molecules.counts[rows]).cv_error)
        print(f"densities {name}: left out {found[-1]:.1f} meV", flush=True)
    return {"cv_error": np.array(found)}


def spread(molecules, kernel, train, asked, rotations):
    """Standard deviations of predicted energies over rotations (asked,), and their error."""
    x, turned = molecules.densities()(train), molecules.turned(asked, rotations)
    gram, cross = (np.asarray(kernel(a, x).ntk) for a in (x, turned))
    best = fit(gram, molecules.energies[train], molecules.counts[train])
    predicted = (cross @ best.coefficients).reshape(len(rotations), -1)
    predicted = predicted + molecules.counts[asked] @ best.composition
    return {"spread": predicted.std(0), "error": np.abs(predicted - molecules.energies[asked]).mean()}


def product_rule(degree):
    """Rotations and weights that are exact up to a degree: Euler angles by Gauss and in equal steps."""
    steps = degree + 1 + (degree + 1) % 2
    heights, shares = leggauss(degree // 2 + 1)
    turns = 2 * np.pi * np.arange(steps) / steps
    about = lambda a: np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilts = [
        np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        for c, s in zip(heights, np.sqrt(1 - heights**2), strict=True)
    ]
    matrices = [about(a) @ tilt @ about(b) for tilt in tilts for a in turns for b in turns]
    return np.array(matrices), np.repeat(shares / 2, steps**2) / steps**2


@jax.jit
def of_atoms(s1, s2, belongs1, belongs2):
    """The ReLU kernel of some atoms and others, summed over those of each molecule."""
    return belongs1.T @ mlp_kernel(depth=1, W_std=2**0.5)(s1, s2).ntk @ belongs2


def sums_over_rotations(x1, x2, matrices, weights, ends):
    """Sums of weighted kernels k(x1, ρ(R)x2) over the first so many rotations, for each of the ends."""
    turns = wigner_matrices(matrices, int(x1.shape[-1] ** 0.5) - 1)
    sides = []
    for x in (x1, x2):
        kinds, s = x[:, :, : len(HEAVY), 0], x[:, :, len(HEAVY) :]
        of = [np.nonzero(kinds[:, :, e]) for e in range(len(HEAVY))]
        sides.append([(s[m, a], np.eye(len(x))[m]) for m, a in of])
    total, found = np.zeros((len(x1), len(x2))), []
    for done, (turn, weight) in enumerate(zip(turns, weights, strict=True), start=1):
        for (s1, belongs1), (s2, belongs2) in zip(*sides, strict=True):
            if len(s1) and len(s2):
                flat = s1.reshape(len(s1), -1), (s2 @ turn.T).reshape(len(s2), -1)
                total += weight * np.asarray(of_atoms(*flat, belongs1, belongs2))
        if done in ends:
            found.append(total.copy())
    return found


def rules(options, molecules, train, asked):
    """Eigenvalues and errors of averages over rotations that are no group, and of a group."""
    x = molecules.densities()(np.concatenate([train, asked]))
    n = len(train)

    def judged(kernel):
        unit = np.trace(kernel[:n]) / n
        values = np.linalg.eigvalsh((kernel[:n] + kernel[:n].T) / 2)[[0, -1]] / unit
        label = molecules.energies[train], molecules.counts[train]
        fits = [fit(kernel[:n], *label, np.array([1e-8])), fit(kernel[:n], *label)]
        errors = [energy_error(molecules, best, kernel[n:], asked) for best in fits]
        return values, np.abs(kernel[:n] - kernel[:n].T).max() / unit, np.array(errors)

    rule = [product_rule(degree) for degree in options.rule_degrees]
    nodes = [len(matrices) for matrices, _ in rule]
    kernels = [sums_over_rotations(x, x[:n], *of, [len(of[0])])[0] for of in rule]
    some = random_rotations(np.random.default_rng([options.seed, 1]), max(nodes))
    sums = sums_over_rotations(x, x[:n], some, np.ones(len(some)), nodes)
    kernels += [total / count for total, count in zip(sums, nodes, strict=True)]
    group = np.asarray(averaged(icosahedral())(x, x[:n]).ntk)
    values, apart, errors = (np.array(a) for a in zip(*map(judged, [*kernels, group]), strict=True))
    return {
        "nodes": nodes,
        "eigenvalues": values[:-1].reshape(2, -1, 2),
        "asymmetry": apart[:-1].reshape(2, -1),
        "error": errors[:-1].reshape(2, -1, 2),
        "group_eigenvalues": values[-1],
        "group_error": errors[-1],
    }


def dipoles(options, molecules, folder, kind, train, test):
    """Errors of dipoles and energies and defects of dipoles by one kind of kernel."""
    group, activation = GROUPS[DIPOLES[kind][0]], DIPOLES[kind][1]
    kernel = equivariant(group, activation)
    see = molecules.densities()
    gram = whole_matrix(folder, kernel, see, options.dipole_molecules)
    of_energies = curve(molecules, gram[..., 0, 0], options.dipole_train, train, test)
    alone = group.order == 1  # nothing is known about how the three components belong together
    asked = test[0][: options.turned_test]
    rotations = random_rotations(np.random.default_rng([options.seed, 2]), options.rotations)
    # unturned first
    turned = molecules.turned(asked, np.concatenate([np.eye(3)[None], rotations]))
    cross = kept(folder / "turned.npz", lambda: {"ntk": np.asarray(kernel(turned, see(train[0])).ntk)})["ntk"]
    found, defect = np.zeros((3, len(options.dipole_train), len(train))), []

    def predicted(block, best):
        """Dipoles, of kernels (n1, n2, 4, 4)."""
        if alone:
            return block[..., 0, 0] @ best.coefficients
        return (side_by_side(block[..., 1:, 1:]) @ best.coefficients).reshape(-1, 3)

    for (s, n), draw in itertools.product(enumerate(options.dipole_train), range(len(train))):
        rows, labels = train[draw, :n], molecules.dipoles[train[draw, :n]]
        block = gram[np.ix_(rows, rows)]
        best = fit(block[..., 0, 0] if alone else side_by_side(block[..., 1:, 1:]), labels)
        apart = predicted(gram[np.ix_(test[draw], rows)], best) - molecules.dipoles[test[draw]]
        found[:, s, draw] = np.linalg.norm(apart, axis=1).mean(), best.cv_error, best.ridge
        if draw == 0:
            upright, *others = predicted(cross[:, :n], best).reshape(-1, len(asked), 3)
            back = np.einsum("rab,rna->rnb", rotations, np.array(others))
            defect.append(np.linalg.norm(back - upright, axis=2).mean(0))
    return dict(zip(("error", "cv_error", "ridge"), found, strict=True)) | {
        "defect": np.array(defect),
        "energy_error": of_energies["error"],
    }


def experiment(options, folder):
    """All parts, one after the other; what is finished is kept in the folder."""
    jax.config.update("jax_enable_x64", True)
    molecules = Molecules(options)
    count, most = len(molecules.index), max(options.train)
    for name, value, limit in [
        ("dipole-molecules", options.dipole_molecules, count),
        ("spread-train", options.spread_train, most),
        ("rule-train", options.rule_train, most),
        ("rule-test", options.rule_test, options.test),
        ("turned-test", options.turned_test, min(options.test, options.dipole_test)),
    ]:
        if value > limit:
            raise ValueError(f"--{name} must be at most {limit} here, got {value}")
    train, test = draws(count, most, options.test, options.draws, options.seed)
    of_dipoles = draws(
        options.dipole_molecules, max(options.dipole_train), options.dipole_test, options.draws, options.seed
    )
    folder.mkdir(parents=True, exist_ok=True)
    see = molecules.densities()

    def part(name, make):
        def said():
            print(name, flush=True)
            return make()

        return kept(folder / f"{name}.npz", said)

    few = train[0][: min(1000, most)]
    choices = part("choices", lambda: choose(molecules, few))["cv_error"]
    chosen = list(CHOICES)[int(choices.argmin())]
    finer = CHOICES[chosen]
    # kind: densities and kernel
    kinds = {
        "plain": (see, network()),
        "plain, as given": (molecules.densities(molecules.given), network()),
        "octahedral": (see, averaged(octahedral())),
        "icosahedral": (see, averaged(icosahedral())),
        "closed form": (see, power_spectrum_kernel(len(HEAVY))),
        "closed form, finer": (
            molecules.densities(**finer),
            power_spectrum_kernel(len(finer.get("centres", HEAVY))),
        ),
    }

    def of_kind(name):
        x, kernel = kinds[name]
        gram = whole_matrix(folder / name.replace(", ", "-").replace(" ", "-"), kernel, x, count)
        return curve(molecules, gram, options.train, train, test)

    curves = [part(f"curve of {name}", lambda name=name: of_kind(name)) for name in kinds]
    curves.append(part("curve of Coulomb matrices", lambda: laplacian(options, molecules, train, test)))
    alone = np.zeros((len(options.train), options.draws))
    for (s, n), draw in itertools.product(enumerate(options.train), range(options.draws)):
        rows, asked = train[draw, :n], test[draw]
        first = np.linalg.lstsq(molecules.counts[rows], molecules.energies[rows])[0]
        alone[s, draw] = np.abs(molecules.counts[asked] @ first - molecules.energies[asked]).mean()

    rotations = random_rotations(np.random.default_rng([options.seed, 2]), options.rotations)
    spread_of = list(GROUPS)[:4]
    at = molecules, train[0][: options.spread_train], test[0][: options.turned_test], rotations
    kernels = {f"{a} {g}": averaged(GROUPS[g], a) for a in ("relu", "square") for g in spread_of}
    kernels["closed form"] = power_spectrum_kernel(len(HEAVY))
    spreads = [part(f"spread of {k}", lambda k=k: spread(at[0], kernels[k], *at[1:])) for k in kernels]
    rule = part(
        "rules",
        lambda: rules(options, molecules, train[0][: options.rule_train], test[0][: options.rule_test]),
    )
    vectors = [
        part(
            f"dipoles of {kind}",
            lambda kind=kind: dipoles(options, molecules, folder / f"dipoles {kind}", kind, *of_dipoles),
        )
        for kind in DIPOLES
    ]
    lengths = np.linalg.norm(molecules.dipoles, axis=1)
    all_of = lambda parts, name: np.array([one[name] for one in parts])
    return {
        "data": molecules.made,
        "index": molecules.index,
        "elements": ELEMENTS,
        "train": options.train,
        "train_rows": train.astype(np.int16),
        "test_rows": test.astype(np.int16),
        "kinds": [*kinds, "Coulomb matrix"],
        **{name: all_of(curves, name) for name in ("error", "cv_error", "ridge")},
        "width": curves[-1]["width"],
        "composition_error": alone,
        "choices": list(CHOICES),
        "choices_cv_error": choices,
        "choices_train": len(few),
        "chosen": chosen,
        "spread_train": options.spread_train,
        "spread_groups": spread_of,
        "spread_orders": [GROUPS[g].order for g in spread_of],
        "spread_activations": ["relu", "square"],
        "spread": all_of(spreads[:-1], "spread").reshape(2, 4, -1),
        "spread_error": all_of(spreads[:-1], "error").reshape(2, 4),
        "spread_closed": spreads[-1]["spread"],
        "spread_closed_error": spreads[-1]["error"],
        "rule_train": options.rule_train,
        "rule_kinds": ["product", "random"],
        **{k if k.startswith("group") else f"rule_{k}": v for k, v in rule.items()},
        "dipole_molecules": options.dipole_molecules,
        "dipole_train": options.dipole_train,
        "dipole_train_rows": of_dipoles[0].astype(np.int16),
        "dipole_test_rows": of_dipoles[1].astype(np.int16),
        "dipole_kinds": list(DIPOLES),
        **{
            f"dipole_{name}": all_of(vectors, name)
            for name in ("error", "cv_error", "ridge", "defect", "energy_error")
        },
        "dipole_zero_error": lengths[of_dipoles[1]].mean(1),
        "dipole_length": np.abs(lengths - molecules.lengths)[of_dipoles[1]].mean(1),
    }


if __name__ == "__main__":
    arguments = command.parser(
        "qm9",
        "Energies and dipole moments of molecules by infinite ensembles, averaged over rotations.",
        molecules=5000,
        train=[50, 100, 200, 500, 1000, 2000],
        test=1000,
        draws=5,
        widths=[100, 300, 1000, 3000],
        spread_train=500,
        turned_test=64,
        rotations=16,
        rule_train=200,
        rule_test=200,
        rule_degrees=[5, 7, 9],
        dipole_molecules=2000,
        dipole_train=[50, 100, 200, 500, 1000],
        dipole_test=500,
    )
    add = arguments.add_argument
    add("--data", type=Path, help="molecules by experiments.qm9_molecules; without, the 2000 that ship")
    add("--molecules", type=command.at_least(1), help="the first so many of the file")
    add("--train", type=command.at_least(2), nargs="+", help="training molecules")
    add("--test", type=command.at_least(1), help="test molecules")
    add("--draws", type=command.at_least(1), help="training sets of each size")
    add("--widths", type=float, nargs="+", help="of Laplacian kernels of Coulomb matrices")
    add("--spread-train", type=command.at_least(2), help="training molecules where the spread is measured")
    add("--turned-test", type=command.at_least(1), help="test molecules that are turned")
    add("--rotations", type=command.at_least(2), help="of each of them")
    add("--rule-train", type=command.at_least(2), help="training molecules of averages that are no group")
    add("--rule-test", type=command.at_least(1), help="test molecules of these")
    add("--rule-degrees", type=command.at_least(1), nargs="+", help="for which product rules are exact")
    add("--dipole-molecules", type=command.at_least(1), help="the first so many, whose dipoles are learned")
    add("--dipole-train", type=command.at_least(2), nargs="+", help="training molecules of dipoles")
    add("--dipole-test", type=command.at_least(1), help="test molecules of dipoles")
    quick = dict(
        molecules=60, train=[20, 40], test=20, draws=2, widths=[300, 3000], spread_train=30, turned_test=4,
        rotations=3, rule_train=20, rule_test=10, rule_degrees=[1, 3], dipole_molecules=50,
        dipole_train=[10, 30], dipole_test=20,
    )  # fmt: skip
    command.main(arguments, quick, experiment)
