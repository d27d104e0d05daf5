import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nteq.groups import FiniteGroup, cyclic


@given(st.integers(1, 24))
def test_cyclic_is_addition_modulo_n(n):
    group = cyclic(n)
    assert group.order == n and group.identity == 0
    for g, h in itertools.product(range(n), repeat=2):
        assert group.multiply(g, h) == (g + h) % n
    assert all(group.multiply(g, group.inverse(g)) == 0 for g in range(n))


def test_a_group_that_does_not_commute_is_accepted():
    permutations = list(itertools.permutations(range(3)))
    product = [[permutations.index(tuple(p[i] for i in q)) for q in permutations] for p in permutations]
    s3 = FiniteGroup(product, name="S3")
    assert s3.order == 6 and (s3.table != s3.table.T).any()
    assert s3.multiply(s3.inverse(3), 3) == s3.identity


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[0, 1], [1, 2]], "not closed, the product of 1 and 1 is 2"),
        ([[0, 1], [0, 1]], "no identity"),
        ([[0, 1], [1, 1]], "element 1 has no inverse"),
        (
            [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]],
            r"not associative, \(1·1\)·2 = 2 but 1·\(1·2\) = 4",
        ),
        ([[0, 1]], r"square and not empty, got shape \(1, 2\)"),
        (np.zeros((0, 0), int), "not empty"),
        ([[0.0]], "integers, got dtype float64"),
    ],
)
def test_a_table_that_is_no_group_is_refused_with_the_place_where_it_fails(table, message):
    with pytest.raises(ValueError, match=message):
        FiniteGroup(table)


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "4"])
def test_cyclic_refuses_orders_that_are_not_positive_integers(n):
    with pytest.raises(ValueError, match="positive integer"):
        cyclic(n)


@pytest.mark.parametrize("g", [-1, 4, 1.0, True])
def test_elements_outside_the_group_are_refused(g):
    with pytest.raises(ValueError, match="elements are the integers 0 … 3"):
        cyclic(4).inverse(g)


def test_the_table_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="read-only"):
        cyclic(3).table[0, 0] = 1
