import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from nteq.interactive import Explorer, Pictures, Playground
from nteq.plotting import COLOURS, use_style


@pytest.fixture(autouse=True)
def close_figures():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


def explorer(**changes):
    arguments = dict(
        slider="t", values=["0", "1"], x=[1, 2, 3], curves={"mean": np.ones((2, 3)), "fixed": [1, 2, 3]},
        captions=["flat", "still flat"], xlabel="x", ylabel="f",
    )  # fmt: skip
    return Explorer(**(arguments | changes))


def test_explorer_carries_every_position_with_it():
    data = explorer(points=["fixed"], start=1).data
    mean, fixed = data["curves"]
    assert (fixed["name"], fixed["points"], fixed["y"]) == ("fixed", True, [[1, 2, 3], [1, 2, 3]])
    assert mean["colour"] == COLOURS["theory"] != fixed["colour"]
    assert explorer(start=1).index == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captions": ["one"]}, "as many captions"),
        ({"values": ["0"], "captions": ["a"]}, "at least two positions"),
        ({"start": 2}, "start must be at most 1, got 2"),
        ({"start": 0.5}, "start must be an integer"),
        ({"curves": {}}, "one to six curves"),
        ({"curves": {"m": np.ones((3, 3))}}, r"curve 'm' must have shape \(2, 3\) or \(3,\), got \(3, 3\)"),
        ({"points": ["other"]}, "not among the curves"),
        ({"x": [0, 1, 2], "xlog": True}, "positive on a logarithmic axis"),
        ({"curves": {"m": [1, np.nan, 2]}}, "must be finite"),
    ],
)
def test_explorer_names_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        explorer(**changes)


def pictures(**changes):
    figures = [plt.figure(figsize=(2, 1), dpi=50, facecolor=colour) for colour in ("red", "blue")]
    arguments = dict(slider="g", values=["e", "s"], figures=figures, captions=["red", "blue"])
    return Pictures(**(arguments | changes))


def pixels(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def test_pictures_carries_every_figure_and_closes_them():
    first, second = (pixels(text) for text in pictures().data["pictures"])
    assert first.shape == second.shape == (50, 100, 3)
    np.testing.assert_array_equal(np.unique(first.reshape(-1, 3), axis=0), [[255, 0, 0]])
    np.testing.assert_array_equal(np.unique(second.reshape(-1, 3), axis=0), [[0, 0, 255]])
    assert not plt.get_fignums()


def test_interactive_figures_show_a_still_picture_of_the_start_where_no_script_runs():
    bundle, _ = pictures(start=1)._repr_mimebundle_()
    np.testing.assert_array_equal(pixels(bundle["image/png"])[0, 0], [0, 0, 255])
    flat, rising = (
        pixels(explorer(curves={"mean": [[1, 1, 1], [1, 2, 3]]}, start=i)._repr_mimebundle_()[0]["image/png"])
        for i in (0, 1)
    )
    assert flat.shape == rising.shape and (flat != rising).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captions": ["one"]}, "Pictures: values needs at least two positions and as many captions"),
        ({"start": -1}, "start must be"),
        ({"figures": [plt.figure]}, "must be 2 Matplotlib figures"),
        ({"figures": [None, None]}, "must be 2 Matplotlib figures"),
    ],
)
def test_pictures_names_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        pictures(**changes)


def test_pictures_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        pictures(figures=[plt.figure(figsize=(2, 1)), plt.figure(figsize=(2, 2))])


def test_a_playground_carries_its_scene_and_all_presets():
    widget = Playground("Half the orbit", group="D3", points=[[0.12345, -1, 1]], networks=8)
    assert widget.scene["group"] == "D3" and widget.scene["augmentation"] == "half"
    assert widget.scene["points"] == [[0.123, -1.0, 1.0]] and widget.scene["networks"] == 8
    assert widget.data["captions"] == [
        preset["sentence"] for preset in widget.data["presets"] if preset["name"] == "Half the orbit"
    ]
    assert repr(widget) == "Playground('Half the orbit', D3, half, 8 networks)"
    for preset in widget.data["presets"]:
        Playground(preset["name"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "none"}, "preset"),
        ({"group": "C9"}, "group"),
        ({"augmentation": "quarter"}, "augmentation"),
        ({"networks": 48}, "networks must be a power of two, got 48"),
        ({"networks": 512}, "networks must be at most 256, got 512"),
        ({"width": 2}, "width"),
        ({"depth": 3}, "depth must be at most 2, got 3"),
        ({"points": [[0, 0]]}, r"points must be numbers from −1 to 1 of shape \(n, 3\)"),
        ({"points": [[0, 0, 2]]}, "points must be numbers from −1 to 1"),
        ({"asked": [0, np.nan]}, "asked must be numbers from −1 to 1"),
        ({"group": "D8", "points": np.zeros((9, 3))}, "at most 8 points fit with D8"),
    ],
)
def test_a_playground_names_bad_input(changes, message):
    with pytest.raises(ValueError, match=f"Playground: .*{message}"):
        Playground(**changes)


def test_a_playgrounds_still_picture_has_the_symmetry_of_its_data():
    def plane(preset):
        return np.asarray(Playground(preset)._still().axes[0].images[0].get_array())

    whole, half = plane("The mean of 64"), plane("Half the orbit")
    np.testing.assert_allclose(whole, np.rot90(whole), atol=1e-2)
    assert np.abs(half - np.rot90(half)).max() > 0.5
    picture = pixels(Playground()._repr_mimebundle_()[0]["image/png"])
    assert picture.std() > 20
