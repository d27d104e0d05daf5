"""Molecules of QM9 for nteq.datasets.qm9: `python -m experiments.qm9_molecules`.

QM9 has 133,885 small organic molecules, with geometries and energies by B3LYP/6-31G(2df,p) (Ramakrishnan et
al. 2014). The package qm9pack, by the first of its authors, holds the 130,831 of them that kept their bonds
when they were relaxed. A random few are taken, in random order and as QM9 has them: none is turned. With
another --count and the same --seed the shorter list is the beginning of the longer one.

Of the dipole moment QM9 has the length alone. Its direction is by GFN2-xTB (Bannwarth, Ehlert & Grimme 2019)
at QM9's geometries. The alternative, Mulliken's charges of B3LYP times positions, is measured along, and is
worse. (qm9pack has polarisabilities, too; their axes are not those of its coordinates.)

It needs packages that the book does not, locked in experiments/qm9_molecules.requirements.txt:

    python -m venv .venvs/qm9_molecules
    .venvs/qm9_molecules/bin/pip install -r experiments/qm9_molecules.requirements.txt
    .venvs/qm9_molecules/bin/python -m experiments.qm9_molecules
"""

import argparse
import ast
import csv
import json
import os
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import Pool
from pathlib import Path

import numpy as np

MOLECULES, ATOMS = 130_831, 29  # in qm9pack, and in the largest of them
SPARE = 20  # molecules to take instead of those for which GFN2-xTB finds no solution
NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
# U0 of free atoms by the same B3LYP, in hartree: atomref.txt of doi:10.6084/m9.figshare.c.978904
FREE = {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730}
HARTREE, BOHR, DEBYE = 27.211386245988, 0.529177210903, 0.20819433  # eV, Å, e Å (CODATA 2018)
UNIT = 2.5e-4  # Å, of the stored integers


def read(folder: Path, chosen: np.ndarray) -> list[dict]:
    """The chosen molecules, by their place in qm9pack, in that order."""
    csv.field_size_limit(10**9)
    found, wanted, place = {}, set(chosen.tolist()), 0
    for part in (1, 2, 3):
        with open(folder / f"qm9_part{part}.csv", newline="") as file:
            for row in csv.DictReader(file):
                if place in wanted:
                    found[place] = molecule(row)
                place += 1
    if place != MOLECULES:
        raise ValueError(f"qm9_molecules: qm9pack has {place} molecules here and not {MOLECULES}")
    return [found[place] for place in chosen.tolist()]


def molecule(row: dict[str, str]) -> dict:
    """One molecule, of a row of qm9pack's tables: Å about the mean of the atoms, eV, debye, charges in e."""
    names, *lists = (ast.literal_eval(row[name]) for name in ("Elements", "XYZ_Ang", "Mulliken_pop"))
    numbers, (x, charges) = np.array([NUMBERS[name] for name in names]), map(np.array, lists)
    free = sum(FREE[z] for z in numbers.tolist())
    return {
        "numbers": numbers,
        "positions": x - x.mean(0),
        "energy": HARTREE * (float(row["InternalEnergy_0K_au"]) - free),
        "length": float(row["Dipole_debye"]),
        "index": int(row["Index"]),
        "charges": charges,
    }


def dipole(one: dict) -> np.ndarray | None:
    """By GFN2-xTB, in debye along the axes of the positions; None where it does not converge."""
    from tblite.interface import Calculator

    calculator = Calculator("GFN2-xTB", one["numbers"], one["positions"] / BOHR)
    calculator.set("verbosity", 0)
    try:
        return calculator.singlepoint().get("dipole") * BOHR / DEBYE
    except RuntimeError:
        return None


def with_dipoles(molecules: list[dict]) -> Iterator[dict]:
    """Molecule by molecule, on two processes."""
    os.environ["OMP_NUM_THREADS"] = "1"  # tblite's own threads are slower, with molecules so small
    with Pool(2) as pool:
        for one, found in zip(molecules, pool.imap(dipole, molecules, chunksize=20), strict=True):
            if found is None:
                print(f"Left out number {one['index']}, for which GFN2-xTB does not converge.", flush=True)
            else:
                yield {**one, "dipole": found}


def agreement(dipoles: np.ndarray, length: np.ndarray) -> dict[str, float]:
    """How long dipoles are (debye) beside B3LYP's."""
    measured = np.linalg.norm(dipoles, axis=1)
    figures = {
        "correlation": np.corrcoef(measured, length)[0, 1],
        "slope": measured @ length / (length @ length),
        "mean absolute difference": np.abs(measured - length).mean(),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def arrays(molecules: list[dict]) -> dict[str, np.ndarray]:
    """What is stored: rows of zeros where a molecule has no more atoms."""
    n = len(molecules)
    numbers, positions = np.zeros((n, ATOMS), np.int8), np.zeros((n, ATOMS, 3), np.int16)
    for i, one in enumerate(molecules):
        numbers[i, : len(one["numbers"])] = one["numbers"]
        positions[i, : len(one["numbers"])] = np.rint(one["positions"] / UNIT)
    dipoles, energies, length, index = (
        np.array([one[name] for one in molecules]) for name in ("dipole", "energy", "length", "index")
    )
    return {
        "numbers": numbers,
        "positions": positions,
        "unit": np.array(UNIT),
        "energies": energies,
        "dipoles": dipoles.astype(np.float32),
        "lengths": length.astype(np.float32),
        "index": index.astype(np.int32),
    }


def main():
    """Chooses, computes dipoles and stores."""
    arguments = argparse.ArgumentParser(
        prog="python -m experiments.qm9_molecules", description="Molecules of QM9, with vectors of dipoles."
    )
    arguments.add_argument("--count", type=int, default=2000, help="of molecules (default 2000)")
    arguments.add_argument("--seed", type=int, default=0, help="of the choice and its order (default 0)")
    shipped = Path(__file__).parent.parent / "nteq" / "qm9.npz"
    arguments.add_argument("--out", type=Path, default=shipped, help="the result, a .npz file")
    options = arguments.parse_args()
    if not 0 < options.count <= MOLECULES - SPARE:
        arguments.error(f"--count must be from 1 to {MOLECULES - SPARE}, got {options.count}")
    if options.out.suffix != ".npz":
        arguments.error(f"--out must end in .npz, got {options.out}")
    start = time.time()
    try:
        versions = {name: version(name) for name in ("numpy", "qm9pack", "tblite")}
    except ImportError as error:
        needed = "experiments/qm9_molecules.requirements.txt"
        arguments.exit(2, f"{arguments.prog}: error: {error}. Install {needed} first.\n")
    # importing qm9pack would import pandas; its tables are all that is needed
    folder = Path(find_spec("qm9pack").submodule_search_locations[0]) / "data"
    order = np.random.default_rng(options.seed).permutation(MOLECULES)
    molecules = list(with_dipoles(read(folder, order[: options.count + SPARE])))[: options.count]
    if len(molecules) < options.count:
        raise RuntimeError("qm9_molecules: GFN2-xTB fails too often; raise SPARE")
    kept = arrays(molecules)
    mulliken = np.array([one["charges"] @ one["positions"] for one in molecules]) / DEBYE
    provenance = {
        # where the result went would be a path of this machine
        "command": f"python -m experiments.qm9_molecules --count {options.count} --seed {options.seed}",
        "seed": options.seed,
        "source": "QM9, Ramakrishnan et al. 2014, doi:10.1038/sdata.2014.22, by the tables of qm9pack",
        "licence": "that of qm9pack, MIT, copyright (c) 2024 Raghu",
        "method": "geometries, energies and lengths of dipoles: B3LYP/6-31G(2df,p); dipoles: GFN2-xTB",
        "lengths of dipoles beside B3LYP's, in debye": {
            "GFN2-xTB, stored": agreement(kept["dipoles"], kept["lengths"]),
            "Mulliken's charges, not stored": agreement(mulliken, kept["lengths"]),
        },
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.time() - start),
        "versions": {"python": platform.python_version()} | versions,
    }
    np.savez_compressed(options.out, provenance=json.dumps(provenance), **kept)
    size = options.out.stat().st_size / 1000
    print(f"Stored {options.out}, {size:.0f} kB, after {provenance['seconds']} s.")


if __name__ == "__main__":
    main()
