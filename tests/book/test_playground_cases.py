"""What is stored of the playground is today's: the cases it is tested with, and its source in chapters."""

import json

import numpy as np
import pytest

from tools import places
from tools.site import cases

STORED = json.loads(cases.TARGET.read_text())


def flat(value):
    """What is in a list of lists, and in theirs."""
    return [inner for part in value for inner in flat(part)] if isinstance(value, list) else [value]


@pytest.mark.parametrize(("kind", "number"), [("kernels", 1), ("kernels", 6), ("scenes", 0), ("networks", 7)])
def test_a_stored_case_is_what_the_command_makes(kind, number):
    made, stored = cases.case(kind, number), STORED[kind][number]
    assert made.keys() == stored.keys()
    for name, value in made.items():
        ours, theirs = flat(value), flat(stored[name])
        if isinstance(ours[0], float):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)
        else:
            assert ours == theirs


def test_every_kind_is_stored_in_full():
    assert {kind: len(found) for kind, found in STORED.items()} == {k: n for k, (_, n) in cases.KINDS.items()}


@pytest.mark.parametrize("name", ["augmentation_at_infinite_width", "mean_is_ensemble"])
def test_a_chapters_stored_playground_has_todays_source(name):
    notebook = json.loads((places.NOTEBOOKS / f"{name}.ipynb").read_text())
    widgets = notebook["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    sources = [one["state"]["_esm"] for one in widgets.values() if "scene" in one["state"]]
    assert sources == [(places.ROOT / "nteq" / "playground.js").read_text()]
