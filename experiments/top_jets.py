"""Jets from top quarks and from light quarks and gluons, the data set of `nteq.datasets.top_jets`.

Its packages are not those of the book. In an environment of its own:

    python -m venv .venvs/top_jets
    .venvs/top_jets/bin/pip install -r experiments/top_jets.requirements.txt
    .venvs/top_jets/bin/python -m experiments.top_jets

Pythia 8 collides protons at 14 TeV and produces either pairs of top quarks that decay to quarks (signal) or
two jets of light quarks and gluons (background, "QCD"). What is visible within |η| < 4 is clustered with
anti-kT, radius 0.8, and the hardest jet with a transverse momentum of 550 to 650 GeV and |η| < 2 is kept. A
jet of a top quark is one whose axis has the top and its three quarks within 0.8. These are the cuts of the
reference set of Kasieczka et al. (2019), but there is no detector, and no other collisions of the same
protons. Of each jet the 16 hardest particles are stored.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from multiprocessing import Pool
from pathlib import Path

import numpy as np

OUT = Path(__file__).parent.parent / "nteq" / "top_jets.npz"
PARTICLES = 16
UNITS = 0.02, 1e-4, 1e-4  # of the stored integers: transverse momentum in GeV, η, φ in radians
RADIUS = 0.8
PROCESSES = {
    "qcd": ["HardQCD:all = on"],
    "top": [
        "Top:gg2ttbar = on", "Top:qqbar2ttbar = on",
        "24:onMode = off", "24:onIfAny = 1 2 3 4 5",  # W bosons decay to quarks
    ],
}  # fmt: skip
COMMON = [
    "Beams:eCM = 14000.", "Print:quiet = on", "Random:setSeed = on",
    "PhaseSpace:pTHatMin = 500.", "PhaseSpace:pTHatMax = 750.", "PartonLevel:MPI = off",
]  # fmt: skip


def momentum(particle):
    """Of one of Pythia's particles, as fastjet wants it."""
    import fastjet

    return fastjet.PseudoJet(particle.px(), particle.py(), particle.pz(), particle.e())


def decays(event):
    """The top quarks of an event, each with the three quarks that it decays to."""

    def daughters(i):
        return [int(k) for k in event[i].daughterList()]

    for i in range(event.size()):
        below = daughters(i)
        w = next((k for k in below if abs(event[k].id()) == 24), None)
        if abs(event[i].id()) != 6 or w is None:  # no top, or a copy of one before its decay
            continue
        others = [k for k in below if k != w]
        while copies := [k for k in daughters(w) if abs(event[k].id()) == 24]:
            w = copies[0]
        yield [i, *(k for k in others + daughters(w) if abs(event[k].id()) <= 6)]


def hardest_jet(event, kind):
    """The hardest jet within the cuts and, for tops, around one with its decay; None if there is none."""
    import fastjet

    seen = [p for p in event if p.isFinal() and p.isVisible() and abs(p.eta()) < 4]
    clusters = fastjet.ClusterSequence(
        [momentum(p) for p in seen], fastjet.JetDefinition(fastjet.antikt_algorithm, RADIUS)
    )
    around = [[momentum(event[k]) for k in decay] for decay in decays(event)] if kind == "top" else []
    for jet in fastjet.sorted_by_pt(clusters.inclusive_jets(550.0)):
        if jet.pt() < 650 and abs(jet.eta()) < 2:
            if kind == "qcd" or any(all(jet.delta_R(p) < RADIUS for p in decay) for decay in around):
                found = fastjet.sorted_by_pt(jet.constituents())
                return jet.m(), [(p.pt(), p.eta(), p.phi_std()) for p in found]
    return None


def generate(kind, jets, seed):
    """The particles of so many jets (jets, 16, 3) as integers, masses, and numbers of particles."""
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    for line in PROCESSES[kind] + COMMON + [f"Random:seed = {seed}"]:
        pythia.readString(line)
    if not pythia.init():
        raise RuntimeError("top_jets: Pythia does not start with these settings")
    particles = np.zeros((jets, PARTICLES, 3), np.int16)
    mass, count = np.zeros(jets, np.float32), np.zeros(jets, np.int16)
    i = 0
    while i < jets:
        found = hardest_jet(pythia.event, kind) if pythia.next() else None
        if found is not None:
            mass[i], inside = found
            count[i] = len(inside)
            kept = np.array(inside[:PARTICLES])
            particles[i, : len(kept)] = np.rint(kept / UNITS)
            i += 1
    return particles, mass, count


def main():
    """Both classes at once, mixed."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.top_jets", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--jets", type=int, default=4000, help="of each class")
    parser.add_argument("--seed", type=int, default=1, help="of Pythia: this one and the next")
    parser.add_argument("--out", type=Path, default=OUT, help="a .npz file")
    options, start = parser.parse_args(), time.time()
    with Pool(2) as pool:
        parts = pool.starmap(
            generate, [(kind, options.jets, options.seed + i) for i, kind in enumerate(PROCESSES)]
        )
    order = np.random.default_rng(options.seed).permutation(2 * options.jets)
    particles, mass, count = (np.concatenate(arrays)[order] for arrays in zip(*parts, strict=True))
    provenance = {
        "command": shlex.join(["python", "-m", "experiments.top_jets", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.time() - start),
        "cuts": "anti-kT 0.8, hardest jet with 550 < pT < 650 GeV and |eta| < 2; top and quarks within 0.8",
        "pythia": COMMON + [line for lines in PROCESSES.values() for line in lines],
        "seeds": {kind: options.seed + i for i, kind in enumerate(PROCESSES)},
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("pythia8mc", "fastjet", "numpy")},
    }
    np.savez_compressed(
        options.out, particles=particles, units=UNITS, top=order >= options.jets, mass=mass,
        constituents=count, provenance=json.dumps(provenance),
    )  # fmt: skip
    size = options.out.stat().st_size / 1000
    print(f"Stored {options.out}, {size:.0f} kB, after {provenance['seconds']} s.")


if __name__ == "__main__":
    main()
