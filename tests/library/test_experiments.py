"""The commands at their quick size, and what they say when something is wrong."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import norm

from experiments import qm9_regression
from experiments.comparison import METHODS, TRAININGS, calibration_error, canonicalised
from experiments.fashion_mnist import network
from experiments.infinite_ensemble import averaged_kernels, mean_prediction
from experiments.pipelines.rows import TABLE
from experiments.qm9 import averaged, product_rule, sums_over_rotations
from experiments.rotations import DIRECTION, at_angles, canonical, in_a_disc, smooth
from nteq import datasets
from nteq.actions import on_images, orbit
from nteq.datasets import experiment, fashion_mnist, qm9
from nteq.gradient_flow import GradientFlow
from nteq.groups import cyclic, icosahedral
from nteq.harmonics import wigner_matrices
from nteq.molecules import densities
from nteq.networks import cnn, gcnn

ROOT = Path(__file__).parent.parent.parent


def command(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def message(status, said):
    """What a command that must fail says, in a way the user can act on."""
    assert status == 2 and "Traceback" not in said, said
    return said.splitlines()[-1] if "usage:" in said else said


@pytest.fixture
def here(monkeypatch, capsys):
    """Runs a command in this process: what it prints, what it says on stderr, and its exit status."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        monkeypatch.setattr(jax.config, "update", lambda *_: None)  # this process has its devices already
        try:
            runpy.run_path(str(ROOT / "experiments" / f"{name}.py"), run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code
        return *capsys.readouterr(), status

    return run


@pytest.fixture
def refused(here):
    """The message of a command that fails before it starts anything."""

    def run(name, *arguments):
        _, said, status = here(name, *arguments)
        return message(status, said)

    return run


def provenance(result):
    return json.loads(str(result["provenance"]))


@pytest.mark.slow
def test_the_ising_experiment_shows_the_theorem(tmp_path, here, refused):
    out = tmp_path / "ising.npz"
    done = command("ising", "--quick", "--out", out)
    assert done.returncode == 0 and "members/s" in done.stderr, done.stderr  # the progress bar
    result = np.load(out)
    full, half, none = result["infinite_rsd"]
    assert (full < 1e-9).all() and (half > 1e-3).all() and (none > 1e-3).all()
    assert result["rsd"].shape == result["rsd_error"].shape == (3, 2, 4)
    assert (result["rsd"][0, :, -1] < 0.6 * result["rsd"][0, :, 0]).all()  # eight members against one
    assert (result["theory_rsd"][0][:, -1] < 0.6 * result["theory_rsd"][0][:, 0]).all()
    assert (result["ensemble_error"] < result["member_error"]).all()
    made = provenance(result)
    assert made["command"] == "python -m experiments.ising --quick" and made["settings"]["seed"] == "0"
    assert {"python", "jax", "nteq"} <= set(made["versions"]) and made["seconds"] > 0
    assert not out.with_suffix(".run").exists()

    before = out.read_bytes()
    assert "exists: give --resume" in refused("ising", "--quick", "--out", out)
    assert "--steps: 50 there, 3 now" in refused("ising", "--quick", "--out", out, "--resume", "--steps", 3)
    assert "is complete already" in here("ising", "--quick", "--out", out, "--resume")[0]
    assert out.read_bytes() == before


@pytest.mark.slow
def test_the_fashion_mnist_experiment_runs(tmp_path):
    out = tmp_path / "fashion.npz"
    done = command("fashion_mnist", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["osp"].shape == (1, 4, 3) and (result["osp"] >= 1 / 8).all() and (result["osp"] <= 1).all()
    assert result["member_accuracy"].shape == (1, 4) and 0 <= result["ensemble_accuracy"][0] <= 1
    assert provenance(result)["settings"]["optimizer"] == "adam"


@pytest.mark.slow
def test_the_cross_product_experiment_shows_the_theorem(tmp_path):
    out = tmp_path / "cross.npz"
    done = command("cross_product", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    full, half, none = result["infinite_error"]
    assert (full < 1e-9).all() and (half > 0.1).all() and (none > 0.1).all()
    assert result["error"].shape == result["error_error"].shape == (3, 2, 4)
    assert (result["error"][0, :, -1] < 0.7 * result["error"][0, :, 0]).all()  # eight members against one
    assert (result["theory_error"][0][:, -1] < 0.7 * result["theory_error"][0][:, 0]).all()
    assert (result["ensemble_error"] < result["member_error"]).all()
    assert provenance(result)["settings"]["group"] == "['O']"


@pytest.mark.slow
def test_the_group_convolutions_experiment_runs(tmp_path, refused):
    out = tmp_path / "group_convolutions.npz"
    done = command("group_convolutions", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["kinds"].tolist() == ["plain", "augmented", "p4", "p4m"]
    assert result["accuracy"].shape == result["same"].shape == (1, 4, 1, 1, 1)
    assert (result["accuracy"] >= 0).all() and (result["accuracy"] <= 1).all()
    assert result["same"][0, 3] == 1  # the mirrors and turns are built in
    said = refused("group_convolutions", "--quick", "--train", 2001, "--out", tmp_path / "more.npz")
    assert "--train must be at most 2000, the images that ship, got 2001" in said


@pytest.mark.slow
def test_the_canonical_coordinates_experiment_runs_and_goes_on_where_it_was_interrupted(tmp_path, refused):
    out = tmp_path / "canonical_coordinates.npz"
    done = command("canonical_coordinates", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["kinds"].tolist() == ["plain", "turns", "turns and scales", "moments", "transformer"]
    assert result["accuracy"].shape == (5, 1, 1, 2, 3) and result["at_scale"].shape == (5, 1, 1, 7)
    assert (result["same"][3:, ..., 0] == 1).all()  # a pose is exact at whole steps, without training
    assert np.isnan(result["pose_error"][:3]).all() and (result["pose_error"][3:] < 10).all()
    assert result["spread_8"].shape == result["spread_16"].shape == (2,)
    again = tmp_path / "again.npz"
    folder = again.with_suffix(".run")
    folder.mkdir()
    there = {
        name: np.full(result[name].shape[3:], 0.5) for name in ("accuracy", "at_scale", "same", "pose_error")
    }
    np.savez(folder / "plain-32-0.npz", **there)
    done = command("canonical_coordinates", "--quick", "--out", again, "--resume")
    assert done.returncode == 0, done.stderr
    assert (np.load(again)["accuracy"][0] == 0.5).all()  # what was there is used
    assert (np.load(again)["accuracy"][1:] == result["accuracy"][1:]).all()
    said = refused("canonical_coordinates", "--train", 1018, "--out", tmp_path / "more.npz")
    assert "--train must be at most 1017, the digits left, got 1018" in said


def test_the_jets_experiment_runs_and_goes_on_where_it_was_interrupted(tmp_path, refused):
    out = tmp_path / "jets.npz"
    done = command("jets", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["kinds"].tolist() == ["lorentz", "euclid", "plain", "augmented", "deep set"]
    assert result["accuracy"].shape == result["auc"].shape == (5, 1, 1, 2)
    assert result["validation"].shape == (5, 1, 2, 1)  # of two learning rates
    np.testing.assert_array_equal(result["right"].mean(-1), result["accuracy"][..., 0])
    assert (result["accuracy"] >= 0).all() and (result["accuracy"] <= 1).all()
    assert result["accuracy"][0, 0, 0, 0] == result["accuracy"][0, 0, 0, 1]  # boosts change nothing
    assert result["answers"].shape == (2, 2, 8, 4) and np.isfinite(result["answers"]).all()
    again = tmp_path / "again.npz"
    again.with_suffix(".run").mkdir()
    quarter, rates = np.full((1, 2), 0.25), np.full((2, 1), 0.25)
    stored = dict(accuracy=quarter, auc=quarter, right=np.zeros((1, 16), bool), validation=rates)
    np.savez(again.with_suffix(".run") / "plain-32.npz", **stored)
    done = command("jets", "--quick", "--out", again, "--resume")
    assert done.returncode == 0, done.stderr
    accuracy = np.load(again)["accuracy"]
    assert (accuracy[2] == 0.25).all()  # what was finished is taken
    np.testing.assert_array_equal(accuracy[[0, 1, 3, 4]], result["accuracy"][[0, 1, 3, 4]])
    said = refused("jets", "--quick", "--train", 4985, "--out", tmp_path / "more.npz")
    assert "--train must be at most 4984: 5000 jets ship, and --held keeps 16 of them, got 4985" in said


def test_the_interatomic_potentials_experiment_runs(tmp_path, refused):
    out = tmp_path / "potentials.npz"
    done = command("interatomic_potentials", "--quick", "--kinds", "augmented", "vectors", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["force_error"].shape == result["energy_error"].shape == (2, 1, 1)
    assert np.isfinite(result["force_error"]).all() and result["vectors"].shape == result["parameters"][1:]
    np.testing.assert_allclose(result["force_error"][1], result["turned_error"][1], rtol=0.5)
    assert result["spread_cube"].shape == result["spread_random"].shape == (3,)  # 1, 2 and 3 members
    assert result["circle"].shape == (3, 49, 3)
    np.testing.assert_allclose(result["circle"][:, 0], result["circle"][:, -1], atol=1e-4)  # once around
    said = refused("interatomic_potentials", "--train", 900, "--out", tmp_path / "more.npz")
    assert "--train must be at most 800, what 200 test frames leave" in said


def test_the_protein_complexes_experiment_runs(tmp_path, refused):
    out = tmp_path / "protein_complexes.npz"
    done = command("protein_complexes", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["kinds"].tolist() == ["vectors", "scalars", "raw", "augmented"]
    assert result["auc"].shape == result["error"].shape == (4, 1, 2, 3)
    assert (result["auc"] >= 0).all() and (result["auc"] <= 1).all()
    # as given and turned, in single precision
    np.testing.assert_allclose(result["error"][:2, ..., 0], result["error"][:2, ..., 1], rtol=1e-4)
    assert (result["spread"][:2] < 1e-4).all() and (result["spread"][2:] > 1e-2).all()
    said = refused("protein_complexes", "--quick", "--train", 5000, "--out", tmp_path / "more.npz")
    assert "--train must be at most" in said


@pytest.mark.slow
def test_the_qm9_experiment_runs_and_goes_on_where_it_was_interrupted(tmp_path, refused):
    out = tmp_path / "qm9.npz"
    data = ("--data", datasets.QM9.absolute())
    done = command("qm9", "--quick", *data, "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    kinds = result["kinds"].tolist()
    assert result["error"].shape == result["cv_error"].shape == result["ridge"].shape == (7, 2, 2)
    # the order of the molecules is a permutation, and the tests are none of those learned from
    assert not set(result["train_rows"][0]) & set(result["test_rows"][0])
    best = result["error"][[kinds.index("icosahedral"), kinds.index("closed form")]]
    assert (best[:, 1] < result["error"][kinds.index("plain"), 1]).all()
    # u² has degree 2, and degree 3 with a vector to predict, so that sixty rotations are all
    spread = dict(zip(result["spread_groups"].tolist(), result["spread"][1], strict=True))
    assert spread["icosahedral"].max() < 1e-6 and result["spread_closed"].max() < 1e-6
    assert min(spread[name].min() for name in ("plain", "tetrahedral", "octahedral")) > 1
    assert result["spread_error"][1, 3] == pytest.approx(float(result["spread_closed_error"]), rel=1e-6)
    defect = dict(zip(result["dipole_kinds"].tolist(), result["dipole_defect"], strict=True))
    assert defect["icosahedral, square"].max() < 1e-6 and defect["icosahedral"].min() > 1e-3
    assert (result["rule_eigenvalues"][..., 0] < 0).all() and result["group_eigenvalues"][0] > 0
    made = provenance(result)
    assert made["command"] == "python -m experiments.qm9 --quick --data qm9.npz"
    assert made["settings"]["data"] == "qm9.npz" and str(ROOT) not in str(result["provenance"])
    assert str(result["data"]) == "python -m experiments.qm9_molecules --count 2000 --seed 0"
    again = tmp_path / "again.npz"
    again.with_suffix(".run").mkdir()
    there = {name: np.full((2, 2), 0.5) for name in ("error", "cv_error", "ridge")}
    np.savez(again.with_suffix(".run") / "curve of plain.npz", **there)
    done = command("qm9", "--quick", "--out", again, "--resume")
    assert done.returncode == 0, done.stderr
    assert (np.load(again)["error"][0] == 0.5).all()  # what was there is used
    np.testing.assert_allclose(np.load(again)["error"][1:], result["error"][1:], rtol=1e-5)


def test_the_leave_one_out_error_is_that_of_regressions_on_all_others():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, (30, 5)).astype(float)
    counts[:, 4] = np.arange(30) == 3  # one molecule has an element that no other has
    features = rng.normal(size=(90, 100))
    energies, vectors = rng.normal(size=30) + counts @ np.arange(5), rng.normal(size=(30, 3))
    for ridge in (1e-10, 1e-3, 1.0):
        gram, errors = features[:30] @ features[:30].T, []
        unit = ridge * np.trace(gram) / 30
        for i in set(range(30)) - {3}:
            others = np.arange(30) != i
            first = np.linalg.lstsq(counts[others], energies[others])[0]
            left = energies - counts @ first
            rest = np.linalg.solve(gram[np.ix_(others, others)] + unit * np.eye(29), left[others])
            errors.append(abs(left[i] - gram[i, others] @ rest))
        found = qm9_regression.fit(gram, energies, counts, np.array([ridge]))
        assert found.cv_error == pytest.approx(np.mean(errors), rel=1e-8)
        gram, errors = features @ features.T, []
        unit = ridge * np.trace(gram) / 90
        for i in range(30):
            others = np.repeat(np.arange(30) != i, 3)
            rest = np.linalg.solve(
                gram[np.ix_(others, others)] + unit * np.eye(87), vectors.reshape(-1)[others]
            )
            errors.append(np.linalg.norm(vectors[i] - gram[np.ix_(~others, others)] @ rest))
        found = qm9_regression.fit(gram, vectors, ridges=np.array([ridge]))
        assert found.cv_error == pytest.approx(np.mean(errors), rel=1e-8)
        solved = np.linalg.solve(gram + unit * np.eye(90), vectors.reshape(-1))
        np.testing.assert_allclose(found.coefficients, solved, rtol=1e-6)


def test_sums_over_rotations_of_a_group_are_its_average_and_rules_are_as_exact_as_they_say():
    molecules, group = qm9(6), icosahedral()
    x = np.asarray(densities(molecules["positions"], molecules["numbers"]), float)
    sums = sums_over_rotations(x, x[:4], group.matrices, np.full(60, 1 / 60), [60])[0]
    np.testing.assert_allclose(sums, averaged(group)(x, x[:4]).ntk, rtol=1e-5)
    for degree, nodes in [(5, 108), (7, 256), (9, 500)]:
        matrices, weights = product_rule(degree)
        assert len(matrices) == nodes and weights.sum() == pytest.approx(1)
        average = np.einsum("g,gab->ab", weights, wigner_matrices(matrices, degree))
        average[0, 0] -= 1
        assert np.abs(average).max() < 1e-12
    rotations = qm9_regression.random_rotations(np.random.default_rng(0), 4000)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    assert np.abs(wigner_matrices(rotations, 2).mean(0)[1:, 1:]).max() < 0.05


@pytest.mark.slow
def test_the_group_kernels_experiment_runs_and_goes_on_where_it_was_interrupted(tmp_path, refused):
    out = tmp_path / "group_kernels.npz"
    done = command("group_kernels", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["parts"].tolist() == ["lifting", "group convolution 1", "readout", "ntk", "nngp"]
    assert result["draws"].tolist() == [40, 20]
    assert result["mean"].shape == result["error"].shape == (2, 5, 2, 2)
    assert (result["error"] > 0).all()
    # the shares of the weights, and of the biases, which are small
    weights, whole = result["mean"][:, :3].sum(1), result["mean"][:, 3]
    assert (weights[:, 0, 0] < whole[:, 0, 0]).all() and (weights[:, 0, 0] > 0.9 * whole[:, 0, 0]).all()
    again = tmp_path / "again.npz"
    folder = again.with_suffix(".run")
    folder.mkdir()
    np.save(folder / "2-1-0-0.npy", np.ones((2, 5, 2, 2)))
    done = command("group_kernels", "--quick", "--out", again, "--resume")
    assert done.returncode == 0, done.stderr
    assert (np.load(again)["mean"][0] == 1 / 40).all()  # what was there is used
    assert (np.load(again)["mean"][1] == result["mean"][1]).all()
    said = refused("group_kernels", "--members", 100, "--out", tmp_path / "few.npz")
    assert "--members must be at least 128, two at the largest width" in said


@pytest.mark.slow
def test_the_quantum_circuits_experiment_runs_and_goes_on_where_it_was_interrupted(tmp_path, refused):
    out = tmp_path / "quantum_circuits.npz"
    done = command("quantum_circuits", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    kinds = result["kinds"].tolist()
    assert result["right"].shape == result["upright"].shape == result["spread"].shape == (len(kinds), 1, 2)
    invariant = [kind.startswith("equivariant") for kind in kinds]
    assert (result["spread"][invariant] < 1e-12).all()
    assert (result["spread"][np.logical_not(invariant)] > 1e-3).all()
    assert result["mean_spread"].shape == (3, 4) and (result["p"] > 0).all()
    again = tmp_path / "again.npz"
    again.with_suffix(".run").mkdir()
    np.save(again.with_suffix(".run") / "0-4.npy", np.ones((2, 6, 6)))
    done = command("quantum_circuits", "--quick", "--out", again, "--resume")
    assert done.returncode == 0, done.stderr
    assert (np.load(again)["right"][0] == 0.5).all()  # what was there is used
    assert (np.load(again)["right"][1:] == result["right"][1:]).all()
    said = refused("quantum_circuits", "--quick", "--train", 1, "--out", tmp_path / "one.npz")
    assert "argument --train: must be a whole number of at least 2, got '1'" in said


@pytest.mark.slow
def test_the_pipelines_experiment_tells_what_keeps_the_symmetry_from_what_breaks_it(tmp_path):
    out = tmp_path / "pipelines.npz"
    done = command("pipelines", "--quick", "--out", out)
    assert done.returncode == 0 and "NOT AS EXPECTED" not in done.stdout, done.stdout + done.stderr
    result = np.load(out)
    assert result["name"].tolist() == ["gaussian", "either-sign"]
    assert result["verdict"].tolist() == ["keeps", "breaks"]
    assert (result["p"][0] > 1e-4).all() and (result["p"][1] < 1e-15).all()
    other = tmp_path / "other.run"
    other.mkdir()
    np.savez(other / "gaussian-i.npz", z=np.zeros(64), p=1.0, members=7, seed=0)
    done = command("pipelines", "--quick", "--out", tmp_path / "other.npz", "--resume")
    assert "other --members" in message(done.returncode, done.stderr)


@pytest.mark.slow
def test_the_comparison_is_one_at_equal_work_and_can_be_interrupted(tmp_path):
    out = tmp_path / "comparison.npz"
    done = command("comparison", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["methods"].tolist() == ["learned position", "8 augmented", "infinite ensemble"]
    learned, ensemble, infinite = result["same"]
    assert (learned == 1).all() and (ensemble < 1).any() and (infinite == 1).all()
    for name in ("upright", "turned", "calibration_upright", "calibration_turned"):
        assert result[name].shape == (3, 1, 2) and (result[name] >= 0).all() and (result[name] <= 1).all()
    assert np.allclose(result["right"].mean(-1), result["turned"].mean(-1))
    again = tmp_path / "again.npz"
    interrupted = again.with_suffix(".run") / "rates" / "augmented-0.002"
    interrupted.mkdir(parents=True)
    refusal = command("comparison", "--quick", "--out", again)
    assert "holds an interrupted run" in message(refusal.returncode, refusal.stderr)
    done = command("comparison", "--quick", "--out", again, "--resume")
    assert done.returncode == 0, done.stderr
    for name in ("turned", "calibration_turned", "validation"):
        assert (np.load(again)[name] == result[name]).all()


def test_ways_of_equal_work_are_equal_to_a_tenth():
    work = {
        name: (TRAININGS[which], members, 4 if repeated else 1)
        for name, (which, members, repeated) in METHODS.items()
    }
    one = TRAININGS["plain"].work
    for name, (training, members, repeated) in work.items():
        in_training = training.work * training.steps * members / one
        in_answering = training.work * members * repeated / one
        for units in (in_training, in_answering):
            assert min(abs(units / league - 1) for league in (1, 4, 8, 32)) < 0.1, name


def test_the_calibration_error_is_that_of_a_table():
    # two bins: of four answers of confidence 0.9 two are right, of two of confidence 0.6 one is
    confidence = np.array([0.9] * 4 + [0.6] * 2)
    right = np.array([1, 1, 0, 0, 1, 0], bool)
    probabilities = np.stack([confidence, 1 - confidence], axis=-1)
    assert calibration_error(probabilities[None], right[None]) == pytest.approx((4 * 0.4 + 2 * 0.1) / 6)
    assert calibration_error(np.array([[[1.0, 0.0]]]), np.array([[True]])) == 0  # the last bin's end


def test_the_chosen_position_is_the_same_for_all_turns_and_its_gradient_is_that_of_the_softmax():
    network = canonicalised([3, 3, 3], [4, 4, 4])
    params = network.init(jax.random.key(0), (14, 14, 1))
    x = jax.random.normal(jax.random.key(1), (6, 14, 14, 1))
    turns = on_images(cyclic(4))
    answers = [network.apply(params, turns(g, x)) for g in range(4)]
    assert max(np.abs(answer - answers[0]).max() for answer in answers) < 1e-5
    slope = jax.grad(lambda p: network.apply(p, x).sum())(params)[0]
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slope))


@pytest.mark.slow
def test_the_infinite_ensemble_is_the_flow_on_the_images_written_out(tmp_path):
    out = tmp_path / "infinite.npz"
    done = command("infinite_ensemble", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["one"].shape == result["ensemble"].shape == result["infinite"].shape == (1, 1)
    with jax.enable_x64(True):
        x, y, x_test, y_test = fashion_mnist(32, 8)
        turns = on_images(cyclic(4))
        images = orbit(turns, x.astype(float)).reshape(-1, 28, 28, 1)
        labels = jax.nn.one_hot(np.tile(y, 4), 10, dtype=float) - 0.1
        mean = np.asarray(GradientFlow(network(2).kernel, images, labels).mean(x_test.astype(float), np.inf))
    path = tmp_path / "kernels.npz"
    for _ in range(2):  # the second time from the file
        gram, cross = averaged_kernels(network(2).kernel, x, x_test, path)
        assert np.abs(mean_prediction(gram, cross, np.asarray(y)) - mean).max() < 1e-8 * np.abs(mean).max()
    assert result["infinite"][0, 0] == (mean.argmax(-1) == np.asarray(y_test)).mean()


def test_every_pipeline_is_proved_in_a_line_and_measured_as_it_was_proved():
    rows = [row for part in TABLE.values() for row in part]
    stored = experiment("pipelines")
    assert len(rows) >= 35 and [row.name for row in rows] == stored["name"].tolist()
    assert int(stored["provenance"]["settings"]["members"]) >= 2000
    for i, row in enumerate(rows):
        assert row.why and "|" not in row.what + row.why  # cells of a Markdown table
        assert (row.what, row.why, row.verdict) == tuple(stored[key][i] for key in ("what", "why", "verdict"))
        for letter, p in zip(stored["problems"].tolist(), stored["p"][i], strict=True):
            if letter in row.keeps:
                assert p > 2 * norm.sf(4), row.name
            elif letter in row.breaks:
                assert p < 2 * norm.sf(8), row.name
            else:
                assert np.isnan(p), row.name
    assert {row.verdict for row in rows} == {
        "keeps",
        "keeps in law",
        "keeps for permutations only",
        "keeps for signed permutations only",
        "breaks",
    }


@pytest.mark.slow
def test_a_command_that_fails_on_the_way_says_why_and_does_not_mix_runs(tmp_path, refused):
    out = tmp_path / "fashion.npz"
    diverging = ("--quick", "--out", out, "--optimizer", "sgd", "--learning-rate", "1e20")
    done = command("fashion_mnist", *diverging)
    said = message(done.returncode, done.stderr)
    assert "the loss of member" in said and "is not finite at step" in said and "Reduce" in said
    assert "holds an interrupted run: give --resume" in refused("fashion_mnist", *diverging)
    done = command("fashion_mnist", "--quick", "--out", out, "--resume")
    assert "another configuration" in message(done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ising", ["--members", 0], "argument --members: must be a whole number of at least 1, got '0'"),
        ("ising", ["--width", 64, 0], "argument --width: must be a whole number of at least 1, got '0'"),
        ("ising", ["--train", "many"], "argument --train: must be a whole number"),
        ("ising", ["--group", "C5"], "argument --group: invalid choice: 'C5'"),
        ("ising", ["--out", "result.txt"], "--out must end in .npz, got result.txt"),
        ("cross_product", ["--group", "T"], "argument --group: invalid choice: 'T'"),
        ("group_convolutions", ["--kinds", "p6"], "argument --kinds: invalid choice: 'p6'"),
        ("canonical_coordinates", ["--kinds", "polar"], "argument --kinds: invalid choice: 'polar'"),
        ("group_kernels", ["--layers", 0], "argument --layers: must be a whole number of at least 1"),
        ("quantum_circuits", ["--test", 1], "argument --test: must be a whole number of at least 2"),
        ("fashion_mnist", ["--optimizer", "adamw"], "argument --optimizer: invalid choice: 'adamw'"),
        ("fashion_mnist", ["--group", "D4"], "argument --group: invalid choice: 'D4'"),
        ("fashion_mnist", ["--test", 1798, "--train", 10], "--test must be at most 1797"),
        ("qm9", ["--test", 0], "argument --test: must be a whole number of at least 1, got '0'"),
        ("qm9", ["--quick", "--train", 50], "50 molecules to train on and 20 to test on are more than 60"),
        ("qm9", ["--quick", "--train", 20], "--spread-train must be at most 20 here, got 30"),
        ("qm9", ["--molecules", 2001], "python -m experiments.qm9_molecules --count 2001 --out FILE"),
        ("qm9_soap", ["--test", 0], "--molecules, --train, --test and --draws must be at least 1"),
        ("qm9_soap", ["--out", "result.txt"], "--out must end in .npz, got result.txt"),
        ("qm9_molecules", ["--count", 0], "--count must be from 1 to 130811, got 0"),
        ("qm9_molecules", ["--out", "result.txt"], "--out must end in .npz, got result.txt"),
    ],
)
def test_bad_input_is_named_without_a_traceback(refused, name, arguments, message, tmp_path):
    assert message in refused(name, "--out", tmp_path / "x.npz", *arguments)


def test_the_stored_ising_result_follows_the_theory():
    result = experiment("ising")
    sizes, rsd, error = result["sizes"], result["rsd"], result["rsd_error"]
    assert sizes[-1] >= 1000 and {64, 128, 256, 512} <= set(result["widths"].tolist())
    full = result["trainings"] == "full orbit"
    several = sizes <= 256  # at least four ensembles of that size
    for curve in rsd[full].reshape(-1, len(sizes)):
        slope = np.polyfit(np.log(sizes[several]), np.log(curve[several]), 1)[0]
        assert abs(slope + 0.5) < 0.05
    assert (result["infinite_rsd"][0] < 1e-9).all()
    # the controls level off where the infinite ensemble of such networks does, or nearly so
    for control, limit in zip(rsd[~full], result["infinite_rsd"][1:], strict=True):
        assert (control[:, -1] > 3 * rsd[0, :, -1]).all() and (control[:, -1] > 0.7 * limit).all()
    # the wider the networks, the nearer to the curve of infinite width
    order = np.argsort(result["widths"][full])
    apart = np.abs(np.log(rsd[full][order] / result["theory_rsd"][0]))[..., several].mean((1, 2))
    assert (np.diff(apart) < 0).all() and apart[-1] < 0.15
    assert (error > 0).all()
    # and the networks have learned something
    assert (result["ensemble_error"] < 0.15 * result["energy_variance"]).all()


def test_the_stored_fashion_mnist_result_shows_ensembles_that_agree_with_themselves():
    result = experiment("fashion_mnist")
    sizes, osp, error = result["sizes"], result["osp"], result["osp_error"]
    assert sizes[-1] >= 100 and result["groups"].tolist() == ["C4", "C8", "C16"]
    single, ensemble = osp[..., 0], osp[..., -1]
    # quarter turns act exactly: on all four kinds of images the ensemble is nearer to 1 than its members
    assert (ensemble[0] > single[0] + 4 * (error[0, :, 0] + error[0, :, -1])).all()
    assert (ensemble[0] > 0.9).all()
    # finer turns interpolate, which blurs what is rough; near the data that matters little
    assert (ensemble[:, 0] > single[:, 0]).all() and (ensemble[:, 0] > 0.9).all()
    assert (result["ensemble_accuracy"] > result["member_accuracy"].mean(1)).all()
    assert (result["member_accuracy"].mean(1) > 0.6).all()


def test_the_stored_cross_product_result_follows_the_theory():
    result = experiment("cross_product")
    sizes, error, spread = result["sizes"], result["error"], result["error_error"]
    assert sizes[-1] >= 1000 and {64, 128, 256} <= set(result["widths"].tolist())
    full = result["trainings"] == "full orbit"
    several = sizes <= 256  # at least three ensembles of that size
    for curve in error[full].reshape(-1, len(sizes)):
        slope = np.polyfit(np.log(sizes[several]), np.log(curve[several]), 1)[0]
        assert abs(slope + 0.5) < 0.05
    assert (result["infinite_error"][0] < 1e-9).all()
    # the controls level off where the infinite ensemble of such networks does, or nearly so
    for control, limit in zip(error[~full], result["infinite_error"][1:], strict=True):
        assert (control[:, -1] > 5 * error[0, :, -1]).all() and (control[:, -1] > 0.7 * limit).all()
    # the wider the networks, the nearer to the curve of infinite width
    order = np.argsort(result["widths"][full])
    apart = np.abs(np.log(error[full][order] / result["theory_error"][0]))[..., several].mean((1, 2))
    assert (np.diff(apart) < 0).all() and apart[-1] < 0.15
    assert (spread > 0).all()
    # and the networks have learned something, if they were shown the orbits
    assert (result["ensemble_error"][full] < 0.15 * result["label_variance"]).all()
    assert result["ensemble_error"][-1] > 0.5 * result["label_variance"]


def test_the_stored_group_convolutions_result_is_of_equal_networks_and_shows_what_is_built_in():
    result = experiment("group_convolutions")
    assert result["kinds"].tolist() == ["plain", "augmented", "p4", "p4m"]
    sizes = (len(result["steps"]), 4, len(result["train"]), 6, 1)
    assert result["accuracy"].shape == result["same"].shape == sizes
    assert result["parameters"].max() < 1.06 * result["parameters"].min()
    plain, augmented, p4, p4m = result["same"].mean((2, 3, 4)).T
    assert (p4m == 1).all() and (p4m > p4).all() and (p4 > augmented).all() and (augmented > plain).all()
    # every symmetry that is known helps, with every training set
    assert (result["accuracy"][:, 2] > result["accuracy"][:, 0]).all()


def test_the_stored_canonical_coordinates_result_is_of_equal_networks_and_shows_what_is_built_in():
    result = experiment("canonical_coordinates")
    kinds = result["kinds"].tolist()
    steps = result["steps"].tolist()
    assert result["accuracy"].shape == (5, len(result["train"]), 5, len(steps), 3)
    assert steps == sorted(steps) and steps[-1] >= 3000
    assert np.ptp(result["parameters"]) < 0.01 * result["parameters"].min()
    early, *_, late = result["accuracy"][:, -1].mean(1).swapaxes(0, 1)  # after the fewest and the most steps
    upright, turned, scaled = late.T
    plain, turns, window, rule, transformer = range(5)
    assert kinds[transformer] == "transformer" and turned[transformer] > 0.9 and scaled[transformer] > 0.9
    assert upright[plain] > 0.95 and turned[plain] < 0.35
    # both of which the chapter says: augmentation takes longer and goes further
    assert early[turns, 1] < early[transformer, 1] - 0.1 and turned[turns] > turned[transformer]
    assert (result["same"][[rule, transformer], ..., 0] == 1).all()
    at = result["at_scale"].mean(2)[:, -1]
    assert (at[transformer, :2] > at[window, :2] + 0.4).all()
    assert result["nearest"].mean(1)[-1, 1] > turned[:-1].max()  # and this
    # ensembles trained with eight turns: the spread over these falls as one over the root
    sizes, spread = result["sizes"][:5], result["spread_8"][:5]
    assert abs(np.polyfit(np.log(sizes), np.log(spread), 1)[0] + 0.5) < 0.1


def test_the_stored_jets_result_is_lorentz_invariant_and_shows_what_that_is_worth():
    result = experiment("jets")
    assert result["kinds"].tolist() == ["lorentz", "euclid", "plain", "augmented", "deep set"]
    assert not result["provenance"]["resumed"] and result["provenance"]["seconds"] > 60
    draws, boosts = result["accuracy"].shape[2:]
    assert draws >= 5 and boosts == len(result["rapidities"])
    assert result["parameters"].tolist() == 4 * [4197] + [4177]
    np.testing.assert_array_equal(result["right"].mean(-1), result["accuracy"][..., 0])
    assert result["validation"].shape == (5, 3, len(result["learning_rates"]), draws)
    lorentz, euclid, plain, augmented, deep_set = result["accuracy"]
    assert np.ptp(lorentz, axis=-1).max() < 1e-3  # the same for all observers
    assert (lorentz.mean(1) > 0.89).all()
    for other in (euclid, plain, augmented, deep_set):
        assert (lorentz[..., 0].mean(1) > other[..., 0].mean(1)).all()
        assert (other[..., -1].mean(1) < 0.7).all()
    members = result["answers"].astype(float)  # quarter turns and boosts, members, moves, jets
    assert np.isfinite(members).all() and members.shape[:2] == (2, 32)


def test_the_stored_quantum_circuits_result_shows_what_is_built_in_and_what_augmentation_reaches():
    result = experiment("quantum_circuits")
    kinds = result["kinds"].tolist()
    assert dict(zip(kinds, result["parameters"].tolist(), strict=True)) == {
        "equivariant": 8, "equivariant, deep": 56, "untwirled": 8, "untwirled, turned": 8,
        "general": 56, "general, turned once": 56, "general, turned": 56,
    }  # fmt: skip
    assert result["right"].shape == (7, 3, 20)
    right, spread = (dict(zip(kinds, result[what].mean(-1), strict=True)) for what in ("right", "spread"))
    assert (spread["equivariant"] < 1e-12).all() and (spread["equivariant, deep"] < 1e-12).all()
    # invariant answers are as good upright as turned
    same = np.isclose(result["right"], result["upright"])
    assert same[:2].mean() > 0.99 and not same[2:].all((1, 2)).any()
    for worse, better in [
        ("general", "general, turned once"),
        ("general, turned once", "general, turned"),
        ("untwirled", "untwirled, turned"),
        ("untwirled", "equivariant"),
    ]:
        assert (right[worse] < right[better]).all()
    # the mean of circuits that saw enough directions becomes invariant like one over the square root of M
    members, curves = result["members"], result["mean_spread"]
    slopes = [np.polyfit(np.log(members[:5]), np.log(curve[:5]), 1)[0] for curve in curves]
    assert np.abs(np.array(slopes[:2]) + 0.5).max() < 0.05 and slopes[2] > -0.1
    assert (result["p"][:2] > 1e-3).all() and result["p"][2] < 1e-20


def test_the_stored_protein_complexes_result_is_of_equal_networks_and_beats_one_number():
    result = experiment("protein_complexes")
    kinds = result["kinds"].tolist()
    assert kinds == ["vectors", "scalars", "raw", "augmented"]
    assert result["auc"].shape == result["error"].shape == (4, len(result["train"]), 5, 3)
    assert result["parameters"].max() < 1.06 * result["parameters"].min()
    # the same answers for poses as given and turned, to single precision, if the symmetry is built in
    for name in ("auc", "error"):
        as_given, turned = result[name][..., 0], result[name][..., 1]
        np.testing.assert_allclose(as_given[:2], turned[:2], rtol=1e-3)
        assert np.abs(as_given[2:] - turned[2:]).max() > 1e-3
    assert (result["spread"][:2] < 1e-4).all() and (result["spread"][2:] > 1e-2).all()
    # no test pose was trained on, nor a complex that counts as unseen
    assert not set(result["test"]) & set(result["unseen"])
    assert (result["auc"][:2, -1, :, 1] > 0.7).all()


def test_the_stored_qm9_result_shows_what_rotations_are_worth():
    result = experiment("qm9")
    made = result["provenance"]
    assert made["command"] == "python -m experiments.qm9 --data qm9-5000.npz"
    assert str(result["data"]) == "python -m experiments.qm9_molecules --count 5000 --seed 0"
    np.testing.assert_array_equal(result["index"][:2000], qm9()["index"])
    train, test = qm9_regression.draws(len(result["index"]), 2000, 1000, 5, 0)
    np.testing.assert_array_equal(result["train_rows"], train)
    np.testing.assert_array_equal(result["test_rows"], test)
    kinds = result["kinds"].tolist()
    error = dict(zip(kinds, result["error"], strict=True))  # (sizes, draws)
    n = result["train"].tolist()
    assert n == [50, 100, 200, 500, 1000, 2000] and error["plain"].shape == (6, 5)
    assert all((np.diff(one.mean(1)) < 0).all() for one in error.values())
    thousand = {kind: one[n.index(1000)] for kind, one in error.items()}  # with every training set:
    assert (thousand["plain"] > 2.8 * thousand["icosahedral"]).all()
    assert (thousand["octahedral"] > thousand["icosahedral"]).all()
    assert (thousand["icosahedral"] > thousand["closed form"]).all()
    assert (thousand["closed form"] > thousand["closed form, finer"]).all()
    assert (thousand["plain, as given"] < thousand["plain"]).all()  # it cheats
    assert thousand["icosahedral"].mean() < 125 and thousand["closed form"].mean() < 95
    assert thousand["closed form, finer"].mean() < 80
    chosen = result["choices"].tolist().index(result["chosen"])
    assert chosen == result["choices_cv_error"].argmin()
    # the larger the group, the less a turn changes; nothing where the average is exact
    relu, square = result["spread"].mean(-1)
    assert result["spread_orders"].tolist() == [1, 12, 24, 60]
    assert (np.diff(relu) < 0).all() and relu[-1] < 0.2 * relu[0]
    assert result["spread"][1, 3].max() < 1e-4 and result["spread_closed"].max() < 1e-4
    assert square[:3].min() > 1
    # a rule that is no group
    smallest = result["rule_eigenvalues"][..., 0]
    assert (smallest[:, 0] < -1e-6).all() and result["group_eigenvalues"][0] > 0
    assert result["rule_asymmetry"][0].max() < 1e-10 and result["rule_asymmetry"][1].min() > 1e-4


def test_the_stored_qm9_result_of_dipoles():
    result = experiment("qm9")
    kinds = result["dipole_kinds"].tolist()
    assert kinds[0] == "plain" and kinds[-1] == "icosahedral and inversion"
    shape = (5, len(result["dipole_train"]), 5)
    assert result["dipole_error"].shape == result["dipole_energy_error"].shape == shape
    plain, octahedral, icosahedral = result["dipole_error"][:3, -1]
    assert (plain > 1.5 * icosahedral).all() and (octahedral > icosahedral).all()
    defect = dict(zip(kinds, result["dipole_defect"][:, -1].mean(-1), strict=True))
    assert defect["icosahedral, square"] < 1e-6
    assert defect["icosahedral"] < defect["octahedral"] < 0.5 * defect["plain"]
    # parity helps, in every draw, as it does energies
    of_energies = result["dipole_energy_error"]
    assert (result["dipole_error"][4, -1] < icosahedral).all() and (
        of_energies[4, -1] < of_energies[2, -1]
    ).all()


def test_soap_was_given_the_same_molecules_and_training_sets():
    ours, soap = experiment("qm9"), experiment("qm9_soap")
    for name in ("data", "index", "train", "train_rows", "test_rows"):
        np.testing.assert_array_equal(ours[name], soap[name])
    assert soap["error"].shape == ours["error"].shape[1:]
    best = soap["cv_error"] == soap["cv_error"].min()
    assert best.any() and (np.diff(soap["error"].mean(1)) < 0).all()


def test_the_stored_group_kernels_come_to_the_limit_like_one_over_the_width():
    result = experiment("group_kernels")
    x, m = np.asarray(result["x"], float), result["widths"]
    limit = gcnn([1] * 3, padding="SAME", W_std=2**0.5, b_std=0.1).kernel(x, x)
    parts = result["parts"].tolist()
    for name, expected in [("ntk", limit.ntk), ("nngp", limit.nngp)]:
        mean, error = (result[what][:, parts.index(name)] for what in ("mean", "error"))
        z = (mean - expected) / error
        assert np.abs(z[-1]).max() < 4
        if name == "ntk":
            assert z[0].min() > 20
            bias = (mean / expected - 1).mean((1, 2))
            assert abs(np.polyfit(np.log(m[:5]), np.log(bias[:5]), 1)[0] + 0.9) < 0.15
    # the biases' share is what is left, and small
    rest = result["mean"][:, parts.index("ntk")] - result["mean"][:, : parts.index("ntk")].sum(1)
    assert (rest > 0).all() and rest.max() < 0.2 * np.asarray(limit.ntk).max()


@pytest.mark.slow
def test_the_rotations_experiment_runs(tmp_path, refused):
    out = tmp_path / "rotations.npz"
    done = command("rotations", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["groups"].tolist() == ["C4"] * 4
    assert result["methods"].tolist() == [
        "as trained",
        "symmetrised",
        "canonicalised",
        "trained canonicalised",
    ]
    assert result["same"].shape == result["ensemble_same"].shape == (4, 5, 64)
    assert result["classes"].shape == (2, 2, 64, 6 + 4 * 2) and result["ends"][-1] == 14
    assert result["member_accuracy"].shape == (4, 2, 64) and result["osp"].shape == (4, 5, 2)
    assert (result["same"][:, :, 0] == 1).all()  # upright, with itself
    assert (result["same"][1:, :, ::16] == 1).all()  # three ways to be invariant under quarter turns
    assert provenance(result)["settings"]["canonical"] == "['C4']"
    assert "argument --canonical: invalid choice" in refused("rotations", "--canonical", "C3", "--out", out)


@pytest.mark.parametrize("order", [4, 8])
def test_canonical_images_have_their_centre_of_mass_in_the_direction(order):
    action = on_images(cyclic(order))
    x = in_a_disc(smooth(jax.random.uniform(jax.random.key(0), (30, 12, 12, 1))))
    images, turned_by = canonical(action, x)
    position = np.arange(12) - 5.5
    mass = np.asarray(images).sum((1, 2, 3))
    right, down = (np.einsum(f"nrcx,{axis}->n", images, position) / mass for axis in "cr")
    angle = np.angle((right - 1j * down) * np.exp(-1j * DIRECTION))
    # interpolation moves the centre of mass a little
    assert (np.abs(angle) < np.pi / order + (0 if action.exact else 0.1)).all()
    for g, image, before in zip(turned_by, images, x, strict=True):
        assert (action(int(g), before[None])[0] == image).all()
    if action.exact:  # a standard position is the same for the whole orbit
        assert (canonical(action, action(1, x))[0] == images).all()


@pytest.mark.slow
def test_answers_at_64_angles_contain_the_symmetrised_and_the_canonicalised_network():
    network, turn, quarter = cnn([4], 4, 2, outputs=3), on_images(cyclic(64)), on_images(cyclic(4))
    x = jax.random.uniform(jax.random.key(0), (5, 28, 28, 1))
    params = network.init(jax.random.key(1), (28, 28, 1))
    asked = [turn(a, x) for a in range(64)]
    logits = np.stack([network.apply(params, images) for images in asked])[None]
    turned = np.stack([canonical(quarter, images)[1] for images in asked])
    answers = at_angles(logits, turned)
    for a in (0, 3, 16, 40, 63):
        mean = sum(network.apply(params, quarter(q, asked[a])) for q in range(4)) / 4
        np.testing.assert_allclose(answers["symmetrised"][0, a], mean, atol=1e-5)
        standing = network.apply(params, canonical(quarter, asked[a])[0])
        np.testing.assert_allclose(answers["canonicalised"][0, a], standing, atol=1e-5)


def test_smooth_noise_has_the_same_pixels_and_less_contrast_between_neighbours():
    x = jax.random.uniform(jax.random.key(0), (3, 28, 28, 1))
    smoothed = smooth(x)
    assert (np.sort(smoothed.reshape(3, -1)) == np.sort(x.reshape(3, -1))).all()
    roughness = lambda images: float(np.abs(np.diff(images, axis=1)).mean())
    assert roughness(smoothed) < 0.4 * roughness(x)
    disc = in_a_disc(x)
    assert (disc[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).all() and (disc[:, 14] == x[:, 14]).all()


def test_the_stored_rotations_result_shows_what_the_chapter_says():
    result = experiment("rotations")
    other = experiment("fashion_mnist")
    groups, methods, same = result["groups"], result["methods"], result["ensemble_same"]
    row = lambda group, method="as trained": np.flatnonzero((groups == group) & (methods == method))[0]
    assert result["sizes"][-1] >= 24
    # the same networks as in the other experiment
    members = result["member_accuracy"][[row(g) for g in other["groups"]], :, 0]
    assert (members == other["member_accuracy"][:, : members.shape[1]]).all()
    # more turns in training, more angles with the same class
    ladder = result["osp"][[row(f"C{k}") for k in (1, 2, 4, 8, 16)]]
    for kind in (0, 4):  # test images, smooth noise in a disc
        assert (np.diff(ladder[:, kind], axis=0) > 0).all()
        assert (ladder[:, kind, 1] > ladder[:, kind, 0]).all()
    # under C8 the corners and the grains decide whether 45 degrees are like 0
    quarter, odd = same[row("C8")][:, ::16].mean(1), same[row("C8")][:, 8::16].mean(1)
    assert (quarter > 0.85).all() and odd[1] < 0.1 and odd[0] > 0.9 and (odd[2:] > 0.5).all()
    # exactly invariant, one by one
    for method in ("symmetrised", "canonicalised", "trained canonicalised"):
        assert (result["same"][row("C4", method)][:, ::16] == 1).all()
    accuracy = lambda method: result["member_accuracy"][row("C4", method), :, 0].mean()
    ensemble = result["ensemble_accuracy"][row("C4"), 0]
    assert ensemble > accuracy("symmetrised") > accuracy("as trained") > accuracy("trained canonicalised")
