"""The commands at their quick size, and what they say when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def command(name, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def refused(name, *arguments):
    """The message, for a command that must fail in a way the user can act on."""
    done = command(name, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1] if "usage:" in done.stderr else done.stderr


def provenance(result):
    return json.loads(str(result["provenance"]))


def test_the_ising_experiment_shows_the_theorem(tmp_path):
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
    assert (
        made["command"].startswith("python -m experiments.ising --quick") and made["settings"]["seed"] == "0"
    )
    assert {"python", "jax", "nteq"} <= set(made["versions"]) and made["seconds"] > 0
    assert not out.with_suffix(".run").exists()

    before = out.read_bytes()
    assert "exists: give --resume" in refused("ising", "--quick", "--out", out)
    assert "--steps: 50 there, 3 now" in refused("ising", "--quick", "--out", out, "--resume", "--steps", 3)
    assert "is complete already" in command("ising", "--quick", "--out", out, "--resume").stdout
    assert out.read_bytes() == before


def test_the_fashion_mnist_experiment_runs(tmp_path):
    out = tmp_path / "fashion.npz"
    done = command("fashion_mnist", "--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    result = np.load(out)
    assert result["osp"].shape == (1, 4, 3) and (result["osp"] >= 1 / 8).all() and (result["osp"] <= 1).all()
    assert result["member_accuracy"].shape == (1, 4) and 0 <= result["ensemble_accuracy"][0] <= 1
    assert provenance(result)["settings"]["optimizer"] == "adam"


@pytest.mark.slow
def test_a_command_that_fails_on_the_way_says_why_and_does_not_mix_runs(tmp_path):
    out = tmp_path / "fashion.npz"
    diverging = ("--quick", "--out", out, "--optimizer", "sgd", "--learning-rate", "1e20")
    message = refused("fashion_mnist", *diverging)
    assert "the loss of member" in message and "is not finite at step" in message and "Reduce" in message
    assert "holds an interrupted run: give --resume" in refused("fashion_mnist", *diverging)
    assert "another configuration" in refused("fashion_mnist", "--quick", "--out", out, "--resume")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ising", ["--members", 0], "argument --members: must be a whole number of at least 1, got '0'"),
        ("ising", ["--width", 64, 0], "argument --width: must be a whole number of at least 1, got '0'"),
        ("ising", ["--train", "many"], "argument --train: must be a whole number"),
        ("ising", ["--group", "C5"], "argument --group: invalid choice: 'C5'"),
        ("ising", ["--out", "result.txt"], "--out must end in .npz, got result.txt"),
        ("fashion_mnist", ["--optimizer", "adamw"], "argument --optimizer: invalid choice: 'adamw'"),
        ("fashion_mnist", ["--group", "D4"], "argument --group: invalid choice: 'D4'"),
        ("fashion_mnist", ["--test", 1798, "--train", 10], "--test must be at most 1797"),
    ],
)
def test_bad_input_is_named_without_a_traceback(name, arguments, message, tmp_path):
    assert message in refused(name, "--out", tmp_path / "x.npz", *arguments)


def test_the_stored_ising_result_follows_the_theory():
    result = np.load(ROOT / "experiments" / "results" / "ising.npz")
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
    result = np.load(ROOT / "experiments" / "results" / "fashion_mnist.npz")
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
