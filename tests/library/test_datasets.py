import gzip
import hashlib
import json
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import jax
import jax.numpy as jnp
import numpy as np
import pooch
import pytest
from scipy.spatial.transform import Rotation

from experiments import qm9_molecules
from nteq import datasets
from nteq.actions import on_images
from nteq.datasets import (
    complexes,
    digits,
    ethanol,
    experiment,
    fashion_mnist,
    histology_patches,
    natural_images,
    noise,
    qm9,
    top_jets,
)
from nteq.groups import cyclic


def idx(array):
    """The format of the whole data set's files."""
    header = [0, 0, 8, array.ndim, *np.array(array.shape, ">u4").tobytes()]
    return gzip.compress(bytes(header) + array.astype(np.uint8).tobytes())


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A machine without Debian's package, with an empty cache and no network."""
    monkeypatch.setattr(datasets, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(datasets, "URL", "http://127.0.0.1:9/")  # nobody answers there
    return tmp_path


@pytest.fixture
def small_files(monkeypatch):
    """Four small files in the place of the real ones, with their checksums."""
    rng = np.random.default_rng(0)
    files = {}
    for name in datasets.FILES:
        shape = (30, 28, 28) if "images" in name else (30,)
        files[name] = idx(rng.integers(0, 10, shape))
    sums = {
        name: (hashlib.md5(content).hexdigest(), hashlib.sha256(gzip.decompress(content)).hexdigest())
        for name, content in files.items()
    }
    monkeypatch.setattr(datasets, "FILES", sums)
    return files


def test_the_part_that_ships_needs_no_network_and_has_all_classes(elsewhere):
    x, y, x_test, y_test = fashion_mnist()
    assert x.shape == (2000, 28, 28, 1) and x_test.shape == (1000, 28, 28, 1)
    assert float(x.min()) == 0 and float(x.max()) == 1
    assert (np.bincount(y) > 150).all() and (np.bincount(y_test) > 80).all()
    # shoes and trousers are where they should be: trousers are dark on both sides and between the legs
    assert float(x[y == 1].mean(0)[:, :6].mean()) < 0.05 < float(x[y == 1].mean(0)[:, 10:18].mean())


def test_offline_says_what_ships(elsewhere):
    with pytest.raises(
        ConnectionError, match=r"2000 training and 1000 test images ship.*dataset-fashion-mnist"
    ):
        fashion_mnist(train=2001)
    assert not list(elsewhere.rglob("*-ubyte.gz"))


@pytest.mark.skipif(not datasets.DEBIAN.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_part_that_ships_is_the_beginning_of_the_whole():
    for part, whole in zip(fashion_mnist(), fashion_mnist(60_000, 10_000), strict=True):
        np.testing.assert_array_equal(part, whole[: len(part)])


@pytest.mark.parametrize("place", ["debian", "cache"])
def test_the_whole_is_found_where_it_is(elsewhere, small_files, monkeypatch, place):
    monkeypatch.setattr(datasets, "SHIPPED_SIZES", (5, 5))
    (elsewhere / place).mkdir()
    for name, content in small_files.items():
        (elsewhere / place / name).write_bytes(content)
    x, y, _, y_test = fashion_mnist(train=20, test=30)
    content = gzip.decompress(small_files["train-images-idx3-ubyte.gz"])[16:]
    np.testing.assert_allclose(
        x, np.frombuffer(content, np.uint8).reshape(30, 28, 28, 1)[:20] / 255, atol=1e-7
    )
    assert y.shape == (20,) and y_test.shape == (30,)


def test_a_download_is_checked_and_kept(elsewhere, small_files, monkeypatch):
    (elsewhere / "site").mkdir()
    for name, content in small_files.items():
        (elsewhere / "site" / name).write_bytes(content)
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=elsewhere / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets, "URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setattr(datasets, "SHIPPED_SIZES", (5, 5))
    first = fashion_mnist(train=20, test=30)
    assert len(asked) == 4
    for a, b in zip(first, fashion_mnist(train=20, test=30), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(asked) == 4  # the second time from the cache
    server.shutdown()
    server.server_close()
    damaged = elsewhere / "cache" / "train-images-idx3-ubyte.gz"
    (elsewhere / "debian").mkdir()
    (elsewhere / "debian" / damaged.name).write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"is damaged .*Delete it"):
        fashion_mnist(train=20)
    (elsewhere / "debian" / damaged.name).write_bytes(idx(np.zeros((30, 28, 28))))
    with pytest.raises(ValueError, match=r"not the file it should be"):
        fashion_mnist(train=20)


def test_importing_downloads_and_loads_nothing():
    code = (
        "import socket, sys\n"
        "socket.socket.connect = socket.getaddrinfo = lambda *a, **k: sys.exit('the network was asked')\n"
        "import nteq.datasets\n"
        "sys.exit(any(name in sys.modules for name in ('sklearn', 'skimage', 'pooch', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_the_books_packages_what_needs_none_works_and_the_rest_names_the_extra(tmp_path):
    absent = ("sklearn", "skimage", "pooch", "matplotlib", "anywidget", "ipywidgets", "traitlets")
    code = f"""
import importlib, pathlib, sys
sys.modules.update(dict.fromkeys({absent}))  # as if they were not installed
import jax
import jax.numpy as jnp
from nteq import datasets
datasets.DEBIAN = pathlib.Path({str(tmp_path)!r})
assert datasets.fashion_mnist(2, 2)[0].shape == (2, 28, 28, 1)
assert datasets.noise(jax.random.key(0), 1).shape == (1, 28, 28, 1) and datasets.experiment("ising")
for need, call in dict(
    digits=datasets.digits,
    natural_images=lambda: datasets.natural_images(1),
    histology_patches=lambda: datasets.histology_patches(1),
    fashion_mnist=lambda: datasets.fashion_mnist(60_000),
    plotting=lambda: importlib.import_module("nteq.plotting"),
    interactive=lambda: importlib.import_module("nteq.interactive"),
).items():
    try:
        call()
    except ImportError as error:
        print(error)
        assert need in str(error) and 'pip install "nteq[book]"' in str(error), error
    else:
        sys.exit(need)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_are_scikit_learns_scaled_up():
    from sklearn.datasets import load_digits

    images, classes = digits(size=24)
    original = load_digits()
    np.testing.assert_array_equal(classes, original.target)
    shrunk = np.asarray(images[:50, :, :, 0]).reshape(50, 8, 3, 8, 3)[
        :, :, 1, :, 1
    ]  # the middle of each pixel
    np.testing.assert_allclose(shrunk, original.images[:50] / 16, atol=1e-6)


def test_natural_images_are_pictures_and_follow_their_seed():
    images = natural_images(40, size=20)
    np.testing.assert_array_equal(images, natural_images(40, size=20))
    assert (natural_images(40, size=20, seed=1) != images).any()
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    neighbours = np.corrcoef(np.asarray(images[:, 1:]).ravel(), np.asarray(images[:, :-1]).ravel())[0, 1]
    assert neighbours > 0.9  # unlike noise


def test_stain_does_not_change_under_rotation_and_the_halves_are_apart():
    from skimage.color import rgb2hed

    patches, stain = histology_patches(20, size=24)
    turned = on_images(cyclic(4))(1, patches)
    for images in (patches, turned):
        np.testing.assert_allclose(rgb2hed(np.asarray(images))[..., 2].mean((1, 2)), stain, atol=1e-5)
    assert float(stain.std()) > 0.005  # there is something to learn
    test, _ = histology_patches(20, size=24, part="test")
    assert not np.isclose(patches[:, None], test[None]).all((2, 3, 4)).any()


def test_ethanol_has_forces_without_sum_and_torque_and_moves_at_500_kelvin():
    numbers, x, E, F = ethanol()
    assert sorted(numbers) == [1] * 6 + [6, 6, 8] and x.shape == F.shape == (1000, 9, 3)
    for a, name in ((x, "positions"), (F, "forces")):
        assert a.dtype == jnp.zeros(0).dtype and np.isfinite(a).all(), name
    masses = np.array([{1: 1.008, 6: 12.011, 8: 15.999}[int(z)] for z in numbers])
    np.testing.assert_allclose(np.einsum("a,nai->ni", masses, x) / masses.sum(), 0, atol=1e-4)
    np.testing.assert_allclose(np.sum(F, 1), 0, atol=1e-5)
    np.testing.assert_allclose(np.cross(x, F).sum(1), 0, atol=1e-3)
    # 21 vibrations have kT/2 each if they are harmonic, and energies vary by √(21/2) kT
    kT = 8.617e-5 * 500
    assert 0.8 < np.std(np.asarray(E, float)) / ((21 / 2) ** 0.5 * kT) < 1.3
    bonds = np.linalg.norm(np.asarray(x[:, 0] - x[:, 1]), axis=1)
    assert abs(bonds.mean() - 1.52) < 0.05 and bonds.std() < 0.1  # C–C in Å
    with np.load(datasets.ETHANOL) as stored:
        made = json.loads(str(stored["provenance"]))
    assert made["command"].startswith("python -m experiments.ethanol") and made["versions"]["tblite"]
    assert datasets.ETHANOL.stat().st_size < 250_000


def test_a_missing_file_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "ETHANOL", tmp_path / "ethanol.npz")
    with pytest.raises(
        ValueError, match=r"ethanol: .* is missing. Make it with python -m experiments.ethanol"
    ):
        ethanol()


def test_complexes_are_proteins_in_contact_and_go_home_by_their_move():
    poses = complexes()
    n, half = len(poses["positions"]), 64
    assert poses["positions"].shape == (n, 2 * half, 3) and n > 1500 and len(poses["names"]) == 12
    for name in ("elements", "alpha"):
        assert poses[name].shape == (n, 2 * half)
    assert (poses["elements"][poses["alpha"]] == 0).all()  # alpha carbons are carbon
    assert 0.5 < (poses["elements"] == 0).mean() < 0.75  # as in proteins
    x = poses["positions"][::20].astype(float)
    np.testing.assert_allclose(x.mean(1), 0, atol=1e-4)
    apart = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    apart[:, np.arange(2 * half), np.arange(2 * half)] = np.inf
    assert min(apart[:, :half, :half].min(), apart[:, half:, half:].min()) > 1.0  # a bond is longer
    # three of the ligand's atoms may be nearer than 3 Å, the fourth is there, or was on its way
    fourth = np.sort(apart[:, :half, half:].min(1), axis=1)[:, 3]
    assert fourth.min() > 2.98 and fourth.max() < 4 and abs(np.median(fourth) - 3) < 0.01
    # no move is longer than the distance from home, and a decoy's is most of it
    length = np.linalg.norm(poses["move"], axis=1)
    assert (length < poses["distance"].astype(float) * 1.001 + 0.01).all()
    assert (poses["native"] == (poses["distance"] < 4.01)).all() and poses["native"].mean() == 0.5
    made = poses["provenance"]
    assert made["command"].startswith("python -m experiments.complexes") and "CC0" in made["source"]
    # a pose and its decoy come one after the other, of one complex and with as many contacts
    contacts = poses["contacts"].astype(float).reshape(-1, 2)
    assert (np.abs(np.log((1 + contacts[:, 0]) / (1 + contacts[:, 1]))) < 0.15).all()
    assert (poses["complex"].reshape(-1, 2)[:, 0] == poses["complex"].reshape(-1, 2)[:, 1]).all()


def test_complexes_that_are_missing_say_how_to_make_them(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "COMPLEXES", tmp_path / "complexes.npz")
    with pytest.raises(FileNotFoundError, match=r"complexes: .* python -m experiments.complexes"):
        complexes()


def test_noise_is_uniform_and_uncorrelated():
    x = np.asarray(noise(jax.random.key(0), 100))
    assert abs(x.mean() - 0.5) < 4 * (1 / 12 / x.size) ** 0.5
    assert abs(np.corrcoef(x[:, 1:].ravel(), x[:, :-1].ravel())[0, 1]) < 4 / x.size**0.5


def test_jets_are_within_their_cuts_and_their_masses_are_those_of_the_generator():
    x, y, x_test, y_test = (np.asarray(a, float) for a in top_jets())
    p, top = np.concatenate([x, x_test]), np.concatenate([y, y_test])
    assert p.shape == (8000, 16, 4) and top.sum() == 4000
    assert abs(y.mean() - 0.5) < 0.02
    energy, momentum = p[..., 0], np.linalg.norm(p[..., 1:], axis=-1)
    np.testing.assert_allclose(energy, momentum, rtol=1e-6)  # massless, or not there
    pt = np.hypot(p[..., 1], p[..., 2])
    assert (np.diff(pt) <= 1e-3).all()  # the hardest first
    jet = p.sum(1)
    jet_pt = np.hypot(jet[:, 1], jet[:, 2])
    assert jet_pt.max() < 651 and np.median(jet_pt) > 450 and jet_pt.min() > 150
    assert (np.abs(np.arcsinh(jet[:, 3] / jet_pt)) < 2.1).all()
    mass = np.sqrt(np.maximum(jet[:, 0] ** 2 - (jet[:, 1:] ** 2).sum(1), 0))
    with np.load(datasets.JETS) as stored:
        whole, count = stored["mass"], stored["constituents"]
        made = json.loads(str(stored["provenance"]))
    assert (mass < whole + 5).all()  # without the softest particles
    few = count <= 18
    assert few.sum() > 20 and np.abs(mass - whole)[few].max() < 25
    assert ((energy > 0).sum(1) == np.minimum(count, 16)).all()
    assert 170 < np.median(whole[top == 1]) < 176 and np.median(whole[top == 0]) < 100  # in GeV
    assert made["command"] == "python -m experiments.top_jets" and made["versions"]["pythia8mc"] == "8.317.2"


def test_jets_that_are_missing_say_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "JETS", tmp_path / "top_jets.npz")
    with pytest.raises(FileNotFoundError, match=r"Make it with python -m experiments.top_jets"):
        top_jets()


def test_the_requirements_of_the_jets_are_locked():
    root = datasets.JETS.parent.parent
    locked = (root / "experiments" / "top_jets.requirements.txt").read_text().split()
    assert "pythia8mc==8.317.2" in locked and all("==" in line for line in locked)


@pytest.fixture(scope="module")
def molecules():
    """All of QM9's molecules that ship; in float64, as NumPy arrays."""
    with jax.enable_x64(True):
        return {k: v if k == "provenance" else np.asarray(v) for k, v in qm9().items()}


def distances(x, there):
    """Between the atoms of each molecule; infinite from an atom to itself and where there is none."""
    apart = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    apart[~(there[:, :, None] & there[:, None]) | np.eye(x.shape[1], dtype=bool)] = np.inf
    return apart


def unexplained(labels, features):
    """The share of the labels' squares that a linear fit leaves, and its coefficients."""
    fit = np.linalg.lstsq(features, labels, rcond=None)[0]
    return ((labels - features @ fit) ** 2).sum() / (labels**2).sum(), fit


def test_molecules_of_qm9_have_atoms_at_the_distance_of_bonds(molecules):
    z, x = molecules["numbers"], molecules["positions"]
    there = z > 0
    assert z.shape == (2000, 29) and x.shape == (2000, 29, 3) and x.dtype == np.float64
    assert set(z[there]) == {1, 6, 7, 8, 9} and ((z > 1).sum(1) <= 9).all()
    assert (np.diff(there, axis=1, prepend=True).sum(1) <= 1).all()  # all that is not there is at the end
    assert (x[~there] == 0).all()
    np.testing.assert_allclose(x.sum(1) / there.sum(1)[:, None], 0, atol=1.3e-4)
    apart = distances(x, there)
    assert 0.95 < apart.min((1, 2)).min() and apart.min((1, 2)).max() < 1.15  # from O-H to C-H, in Å
    assert apart.min(2)[there].max() < 1.6  # every atom has a bond
    carbon = np.where((z == 6)[:, :, None] & (z == 6)[:, None], apart, np.inf)
    lengths = carbon[carbon < 1.7]
    assert 1.19 < lengths.min() < 1.21 and 1.50 < np.median(lengths) < 1.54  # triple and single bonds
    index = molecules["index"]
    assert len(set(index)) == 2000 and index.min() > 0 and index.max() <= 133_885
    assert abs(index.mean() / 133_885 - 0.5) < 4 / 12**0.5 / 2000**0.5
    assert abs(np.corrcoef(index, np.arange(2000))[0, 1]) < 4 / 2000**0.5  # in random order
    # larger molecules have larger numbers: the numbers belong to the rows
    assert np.corrcoef(index, (z > 1).sum(1))[0, 1] > 0.3


def test_energies_of_qm9_are_those_of_its_bonds(molecules):
    z, E = molecules["numbers"], molecules["energies"]
    composition = np.stack([(z == element).sum(1) for element in (1, 6, 7, 8, 9)], 1)
    _, fit = unexplained(E, composition)
    left = E - composition @ fit
    # 1.097 and 0.867 eV with all 130,831 molecules, to whose figures these come within the error of a sample
    assert abs(left.std() - 1.097) < 0.06 and abs(np.abs(left).mean() - 0.867) < 0.05
    assert abs(E.mean() + 76.116) < 4 * 10.324 / 2000**0.5 and abs(E.std() - 10.324) < 0.7
    assert E.dtype == np.float64 and (np.diff(np.sort(E)) > 0).mean() > 0.99  # not rounded to float32


def test_dipoles_of_qm9_turn_with_its_molecules_and_are_as_long_as_b3lyp_says(molecules):
    z, x, dipoles, lengths = (molecules[k] for k in ("numbers", "positions", "dipoles", "lengths"))
    measured = np.linalg.norm(dipoles, axis=1)
    assert np.corrcoef(measured, lengths)[0, 1] > 0.98
    assert 1.10 < measured @ lengths / (lengths @ lengths) < 1.13
    assert 0.38 < np.abs(measured - lengths).mean() < 0.41 and 2.6 < lengths.mean() < 2.75
    # a charge for each element explains more than half of them, and nothing once the molecules are turned
    places = np.stack([((z == element)[..., None] * x).sum(1) for element in (6, 7, 8, 9)], -1)
    left, charges = unexplained(dipoles.ravel(), places.reshape(-1, 4))
    assert left < 0.45 and (charges < -0.3).all() and (charges > -1).all()  # less that of hydrogen, in e Å
    turns = Rotation.random(2000, rng=np.random.default_rng(0)).as_matrix()
    assert unexplained(dipoles.ravel(), (turns @ places).reshape(-1, 4))[0] > 0.99


def test_molecules_of_qm9_are_oriented_as_the_docstring_says(molecules):
    first = molecules["positions"][:, 0]
    mean = (first / np.linalg.norm(first, axis=1, keepdims=True)).mean(0)
    for vector in (mean, molecules["dipoles"].mean(0)):
        written = "({:.2f}, {:.2f}, {:.2f})".format(*vector).replace("0.", ".").replace("-", "−")
        assert written in qm9.__doc__
    made = molecules["provenance"]
    assert made["command"] == "python -m experiments.qm9_molecules --count 2000 --seed 0"
    assert "MIT" in made["licence"] and made["versions"]["tblite"] and made["versions"]["qm9pack"]
    figures = made["lengths of dipoles beside B3LYP's, in debye"]
    stored, other = (figures[k] for k in ("GFN2-xTB, stored", "Mulliken's charges, not stored"))
    assert stored["correlation"] > 0.98 > 0.94 > other["correlation"] > 0.92
    assert stored["mean absolute difference"] < 0.41 and other["mean absolute difference"] > 0.54
    assert datasets.QM9.stat().st_size < 400_000


def test_fewer_molecules_of_qm9_are_the_first_without_the_empty_columns(molecules, tmp_path):
    few = qm9(n=3)
    atoms = (molecules["numbers"][:3] > 0).sum(1).max()
    assert few["positions"].shape == (3, atoms, 3) and atoms < 29
    for name in ("numbers", "positions"):
        np.testing.assert_allclose(few[name], molecules[name][:3, :atoms], atol=1e-6)
    for name in ("energies", "dipoles", "lengths", "index"):
        np.testing.assert_allclose(few[name], molecules[name][:3], rtol=1e-6)
    other = tmp_path / "other.npz"
    with np.load(datasets.QM9) as stored:
        np.savez(other, **{k: v[5:9] if v.ndim else v for k, v in stored.items()})
    np.testing.assert_array_equal(qm9(4, other)["index"], molecules["index"][5:9])
    np.testing.assert_array_equal(qm9(4, str(other))["index"], molecules["index"][5:9])
    with pytest.raises(ValueError, match=r"n must be at most 4, got 5. .*other.npz has no more"):
        qm9(5, other)


def test_files_that_are_not_of_qm9_are_refused(tmp_path, monkeypatch):
    content = datasets.QM9.read_bytes()
    middle = len(content) // 2
    wrong = {
        "cut.npz": content[:-1000],
        "damaged.npz": content[:middle] + bytes(100) + content[middle + 100 :],
        "empty.npz": b"",
        "text.npz": b"no archive",
        "ethanol.npz": datasets.ETHANOL.read_bytes(),
    }
    for name, data in wrong.items():
        (tmp_path / name).write_bytes(data)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for file in (*tmp_path.iterdir(), tmp_path):
        with pytest.raises(ValueError, match=rf"qm9: .*{file.name} is not a file that .*qm9_molecules made"):
            qm9(path=file)
    with pytest.raises(
        FileNotFoundError, match=r"experiments.qm9_molecules --count 50 --out .*none.npz from"
    ):
        qm9(50, tmp_path / "none.npz")
    monkeypatch.setattr(datasets, "QM9", tmp_path / "qm9.npz")
    with pytest.raises(
        FileNotFoundError, match=r"qm9.npz is missing. Make it with python -m experiments.qm9_"
    ):
        qm9()


METHANE = """"dsgdb9nsd_000001.xyz",1,"['C','H','H','H','H']","[[-0.0126981359,1.0858041578,0.0080009958],\
[0.002150416,-0.0060313176,0.0019761204],[1.0117308433,1.4637511618,0.0002765748],\
[-0.540815069,1.4475266138,-0.8766437152],[-0.5238136345,1.4379326443,0.9063972942]]",\
"[-0.535689,0.133921,0.133922,0.133923,0.133923]",0.,-40.47893"""
WATER = """"dsgdb9nsd_000003.xyz",3,"['O','H','H']","[[-0.0343604951,0.9775395708,0.0076015923],\
[0.0647664923,0.0205721989,0.0015346341],[0.8717903737,1.3007924048,0.0006931336]]",\
"[-0.589706,0.294853,0.294853]",1.8511,-76.404702"""


def test_the_command_reads_methane_and_water_and_subtracts_free_atoms(tmp_path, monkeypatch):
    header = "XYZ_file,Index,Elements,XYZ_Ang,Mulliken_pop,Dipole_debye,InternalEnergy_0K_au\n"
    for part, row in enumerate((METHANE, WATER, METHANE), 1):
        row = row.replace("\\\n", "")
        (tmp_path / f"qm9_part{part}.csv").write_text(header + row + "\n")
    monkeypatch.setattr(qm9_molecules, "MOLECULES", 3)
    water, methane = qm9_molecules.read(tmp_path, np.array([1, 0]))
    assert (water["index"], methane["index"]) == (3, 1) and water["length"] == 1.8511
    # in kcal/mol, as QM9's tables of atomisation energies have them
    for one, energy in ((methane, -395.9996), (water, -213.0876)):
        assert abs(one["energy"] * 23.060548 - energy) < 1e-3
    assert methane["numbers"].tolist() == [6, 1, 1, 1, 1]
    np.testing.assert_allclose(methane["positions"].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(
        np.linalg.norm(water["positions"][1:] - water["positions"][0], axis=1), 0.962, atol=1e-3
    )
    stored = qm9_molecules.arrays([{**one, "dipole": np.ones(3)} for one in (water, methane)])
    np.testing.assert_allclose(stored["positions"][1, :5] * stored["unit"], methane["positions"], atol=1.3e-4)
    assert not stored["positions"][0, 3:].any() and stored["numbers"][0].sum() == 10
    monkeypatch.setattr(qm9_molecules, "MOLECULES", 4)
    with pytest.raises(ValueError, match="qm9pack has 3 molecules here and not 4"):
        qm9_molecules.read(tmp_path, np.array([0]))


def test_the_requirements_of_qm9s_molecules_are_locked():
    root = datasets.QM9.parent.parent
    locked = (root / "experiments" / "qm9_molecules.requirements.txt").read_text().splitlines()
    assert {"qm9pack==1.0.3", "tblite==0.8.0"} <= set(locked) and all("==" in line for line in locked)
    locked = (root / "experiments" / "qm9_soap.requirements.txt").read_text().splitlines()
    assert {"ase==3.29.0", "dscribe==2.1.2"} <= set(locked) and all("==" in line for line in locked)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_jets(train=5001), "train must be at most 5000, got 5001"),
        (lambda: top_jets(test=0), "test must be an integer of at least 1, got 0"),
        (lambda: qm9(n=0), "qm9: n must be an integer of at least 1, got 0"),
        (lambda: qm9(n=2001), r"most 2000, got 2001. .*qm9_molecules --count 2001 --out FILE .*path=FILE"),
        (lambda: fashion_mnist(train=0), "train must be an integer of at least 1, got 0"),
        (lambda: fashion_mnist(test=10_001), "test must be at most 10000, got 10001"),
        (lambda: digits(size=7), "size must be an integer of at least 8"),
        (lambda: natural_images(0), "n must be an integer"),
        (lambda: natural_images(1, size=257), "size must be at most 256"),
        (lambda: histology_patches(1, part="left"), "part must be 'train' or 'test', got 'left'"),
        (lambda: fashion_mnist(train=True), "train must be an integer of at least 1, got True"),
        (lambda: fashion_mnist(train=10.0), "train must be an integer of at least 1, got 10.0"),
        (lambda: histology_patches(1, size=2), "size must be an integer of at least 4"),
        (lambda: noise(jax.random.key(0), 0), "n must be an integer"),
        (
            lambda: experiment("potts"),
            "'potts' is none of canonical_coordinates, comparison, cross_product, .* pipelines, ",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_results_of_all_experiments_ship_with_their_provenance():
    names = [path.stem for path in datasets.RESULTS.glob("*.npz")]
    assert len(names) > 10
    for name in names:
        made = experiment(name)["provenance"]
        assert made["command"].startswith(f"python -m experiments.{name}")
        assert made["versions"]["dscribe" if name == "qm9_soap" else "jax"]
        assert " /" not in made["command"] and not any(v.startswith("/") for v in made["settings"].values())


def test_works_with_strict_promotion():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        assert fashion_mnist(2, 2)[0].dtype == digits(8)[0].dtype == np.float32
        assert histology_patches(1)[1].dtype == natural_images(1).dtype == np.float32
        assert noise(jax.random.key(0), 1).dtype == np.float32
        assert top_jets(2, 2)[1].dtype == np.int32
        assert qm9(2)["positions"].dtype == jnp.zeros(0).dtype
