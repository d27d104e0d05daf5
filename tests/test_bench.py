"""The two sides of the benchmark compute the same; how fast they are is for `make bench` to say."""

import numpy as np
import pytest

from nteq.actions import on_lattices
from nteq.groups import cyclic, dihedral
from tools import bench


@pytest.mark.parametrize("group", [cyclic(4), dihedral(4)], ids=lambda g: g.name)
def test_both_sides_give_the_same_mean_and_covariance(group):
    problem = (on_lattices(group), *bench.lattices(6, 5))
    for ours, theirs in (
        (bench.engine_mean, bench.written_out_mean),
        (bench.engine_covariance, bench.written_out_covariance),
    ):
        np.testing.assert_allclose(ours(*problem), np.squeeze(theirs(*problem)), atol=1e-6)


def test_a_difference_is_an_error_and_ratios_are_of_medians():
    row = bench.compare("equal", lambda a: a, lambda a: a + 1e-12, (np.ones(3),), 1e-9)
    assert row["ratio"] == row["theirs"] / row["ours"] and row["apart"] == pytest.approx(1e-12, rel=1e-3)
    with pytest.raises(AssertionError, match="wrong: the two ways differ by"):
        bench.compare("wrong", lambda a: a, lambda a: a * 2, (np.ones(3),), 1e-9)


def test_exponent_is_the_slope_of_the_last_three_sizes():
    rows = [{"ours": 7.0 if n < 16 else 0.1 * n**2} for n in bench.SIZES]
    assert bench.exponent(rows, "ours") == pytest.approx(2)
