"""The two sides of the benchmark compute the same; how fast they are is for `make bench` to say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import bench, convolutions, training
from nteq.actions import on_lattices
from nteq.groups import cyclic, dihedral


@pytest.mark.slow
@pytest.mark.parametrize("group", [cyclic(4), dihedral(4)], ids=lambda g: g.name)
def test_both_sides_give_the_same_mean_and_covariance(group):
    problem = (on_lattices(group), *bench.lattices(6, 5))
    for ours, theirs in (
        (bench.engine_mean, bench.written_out_mean),
        (bench.engine_covariance, bench.written_out_covariance),
    ):
        np.testing.assert_allclose(ours(*problem), np.squeeze(theirs(*problem)), atol=1e-6)


@pytest.mark.slow
def test_both_sides_give_the_same_kernel_of_molecules():
    x = bench.molecules(6)
    np.testing.assert_allclose(bench.engine_molecules(x), bench.written_out_molecules(x), rtol=1e-6)


def test_a_difference_is_an_error_and_ratios_are_of_medians():
    row = bench.compare("equal", lambda a: a, lambda a: a + 1e-12, (np.ones(3),), 1e-9)
    assert row["ratio"] == row["theirs"] / row["ours"] and row["apart"] == pytest.approx(1e-12, rel=1e-3)
    with pytest.raises(AssertionError, match="wrong: the two ways differ by"):
        bench.compare("wrong", lambda a: a, lambda a: a * 2, (np.ones(3),), 1e-9)


def test_exponent_is_the_slope_of_the_last_three_sizes():
    rows = [{"ours": 7.0 if n < 16 else 0.1 * n**2} for n in bench.SIZES]
    assert bench.exponent(rows, "ours") == pytest.approx(2)


def test_operations_are_those_of_the_products_in_a_gradient():
    x = jnp.ones((training.LATTICES, training.SIZE, training.SIZE))
    for width in (3, 32):
        network = training.network(width)
        params = network.init(jax.random.key(0), x.shape[1:])
        gradient = jax.make_jaxpr(jax.grad(lambda p, apply=network.apply: (apply(p, x) ** 2).sum()))(params)
        counted = 0
        for equation in gradient.jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (summed, _), _ = equation.params["dimension_numbers"]
                terms = np.prod([equation.invars[0].aval.shape[axis] for axis in summed])
                counted += 2 * terms * equation.outvars[0].aval.size
        assert training.operations(width) == counted


def test_training_table_has_the_ratios_and_leaves_out_what_was_not_measured():
    rows = [dict(width=32, ours=150.0, bare=200.0, loop=50.0, torch=None)]
    table = bench.training_table(
        {"training": {"rows": rows, "peak": {"64": 1e6, "1024": 2e6}, "spin updates": 8e7}}
    )
    assert "| 32 | 150 | 200 | 0.75 | 50 | 3.0 | – | – |" in table
    assert "1 MB for 64 networks of width 128, 2 MB for 1024" in table and "80 million spins" in table


def test_kernels_of_convolutional_networks_are_compared_in_ratios_and_nanoseconds():
    x = convolutions.images(2, 4, 1, "float64")
    row = convolutions.compare("small", convolutions.ours("flatten"), convolutions.theirs("flatten"), x, 1)
    assert row["apart"] < 1e-7 and row["ours processor"] > 0
    with pytest.raises(AssertionError, match="small: the two ways differ"):
        convolutions.compare("small", convolutions.ours("flatten"), convolutions.theirs("average"), x, 1)
    assert convolutions.nanoseconds({"ours processor": 3e-9 * 10 * 4**4}, 4, 4, "average") == pytest.approx(1)
    made = {"name": "k", "ours wall": 1e-3, "ours processor": 2e-3, "theirs wall": 8e-3}
    made |= {"theirs processor": 1e-2, "ns": 5.0, "limit": 2.0}
    others = {"cores": [2.0, 1.0], "peak": {"16": 1e6}, "compilation": 1.5, "growth": {"1": 1.0, "4": 4.0}}
    table = bench.convolutions_table({"convolutions": {"rows": [made], **others}})
    assert "| k | 1.0 / 2.0 | 8.0 / 10 | 8.0 / 5.0 | 5.0 (2.0) |" in table
    assert "2.0 times as fast as one" in table and "power 1.0 of" in table and "1 MB for 16 images" in table
