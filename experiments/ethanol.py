"""A trajectory of ethanol for nteq.datasets.ethanol: `python -m experiments.ethanol`.

A molecule moves at 500 K in a Langevin thermostat, with the forces of GFN2-xTB, an approximate quantum
chemistry that takes milliseconds a step. It needs packages that the book does not, locked in
experiments/ethanol.requirements.txt:

    python -m venv .venvs/ethanol
    .venvs/ethanol/bin/pip install -r experiments/ethanol.requirements.txt
    .venvs/ethanol/bin/python -m experiments.ethanol

Another processor rounds differently, and after a few picoseconds the atoms are elsewhere: what comes out is
another sample from the same distribution.
"""

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

STEP, FRICTION, TEMPERATURE = 0.5, 0.02, 500  # fs, 1/fs, K
START, BETWEEN = 2000, 100  # steps before the first frame, and from one to the next


def trajectory(frames: int, seed: int) -> dict[str, np.ndarray]:
    """Positions about the centre of mass, energies and forces along the way."""
    import ase.units
    from ase.build import molecule
    from ase.constraints import FixCom
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import thermalize_momenta
    from tblite.ase import TBLite

    rng = np.random.default_rng(seed)
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    atoms.set_constraint(FixCom())
    thermalize_momenta(atoms, TEMPERATURE, rng=rng)
    fs = ase.units.fs
    motion = Langevin(
        atoms, STEP * fs, temperature_K=TEMPERATURE, friction=FRICTION / fs, rng=rng, fixcm=False
    )
    motion.run(START)
    found = []
    for _ in range(frames):
        motion.run(BETWEEN)
        centred = atoms.get_positions() - atoms.get_center_of_mass()
        found.append((centred, atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)))
    positions, energies, forces = map(np.array, zip(*found, strict=True))
    return {
        "numbers": atoms.numbers.astype(np.int8),
        "positions": positions.astype(np.float32),
        "energies": energies,
        "forces": forces.astype(np.float32),
    }


def main():
    """Simulates and stores."""
    arguments = argparse.ArgumentParser(
        prog="python -m experiments.ethanol", description="A trajectory of ethanol at 500 K by GFN2-xTB."
    )
    arguments.add_argument("--frames", type=int, default=1000, help="how many (default 1000)")
    arguments.add_argument("--seed", type=int, default=0, help="of velocities and thermostat (default 0)")
    shipped = Path(__file__).parent.parent / "nteq" / "ethanol.npz"
    arguments.add_argument("--out", type=Path, default=shipped, help="the result, a .npz file")
    options = arguments.parse_args()
    start = time.time()
    try:
        arrays = trajectory(options.frames, options.seed)
    except ImportError as error:
        arguments.exit(
            2, f"{arguments.prog}: error: {error}. Install experiments/ethanol.requirements.txt first.\n"
        )
    provenance = {
        # where the result went would be a path of this machine
        "command": f"python -m experiments.ethanol --frames {options.frames} --seed {options.seed}",
        "seed": options.seed,
        "method": "GFN2-xTB, vacuum, one molecule",
        "motion": f"Langevin, {TEMPERATURE} K, steps of {STEP} fs, friction {FRICTION}/fs",
        "frames": f"{options.frames}, one in {BETWEEN} steps after the first {START}",
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.time() - start),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("ase", "numpy", "tblite")},
    }
    np.savez_compressed(options.out, provenance=json.dumps(provenance), **arrays)
    print(f"Stored {options.out}, {options.out.stat().st_size / 1000:.0f} kB.")


if __name__ == "__main__":
    main()
