import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nteq.groups import FiniteGroup, cyclic, dihedral, direct_product, generated_by, octahedral, symmetric

GROUPS = [
    cyclic(5),
    dihedral(4),
    dihedral(5),
    symmetric(4),
    octahedral(),
    direct_product(cyclic(2), dihedral(3)),
]


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
    with pytest.raises(ValueError, match="cyclic: n must be an integer of at least 1"):
        cyclic(n)


@pytest.mark.parametrize("g", [-1, 4, 1.0, True])
def test_elements_outside_the_group_are_refused(g):
    with pytest.raises(ValueError, match="elements are the integers 0 … 3"):
        cyclic(4).inverse(g)


def test_the_table_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="read-only"):
        cyclic(3).table[0, 0] = 1


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_conjugacy_classes_are_the_orbits_of_conjugation(group):
    classes = {frozenset(c.tolist()) for c in group.conjugacy_classes}
    elements = range(group.order)
    expected = {
        frozenset(group.multiply(group.multiply(h, g), group.inverse(h)) for h in elements) for g in elements
    }
    assert classes == expected and sum(len(c) for c in classes) == group.order


@pytest.mark.parametrize(
    ("group", "order", "classes"),
    [
        (dihedral(4), 8, 5),
        (dihedral(5), 10, 4),
        (symmetric(4), 24, 5),
        (octahedral(), 24, 5),
        (symmetric(5), 120, 7),
    ],
)
def test_orders_and_numbers_of_classes_are_those_of_the_textbooks(group, order, classes):
    assert group.order == order and len(group.conjugacy_classes) == classes and group.identity == 0


def test_dihedral_matrices_are_rotations_and_reflections_of_the_plane():
    group = dihedral(4)
    np.testing.assert_array_equal(group.matrices[1] @ [1, 0], [0, 1])  # a quarter turn, counterclockwise
    np.testing.assert_array_equal(group.matrices[4] @ [1, 2], [-1, 2])  # left into right
    np.testing.assert_allclose(np.linalg.det(dihedral(5).matrices), [1] * 5 + [-1] * 5)


def test_octahedral_is_all_rotations_of_the_cube():
    matrices = octahedral().matrices
    assert len({m.tobytes() for m in matrices + 0.0}) == 24
    np.testing.assert_allclose(np.linalg.det(matrices), 1)
    np.testing.assert_array_equal(np.abs(matrices).sum(1), np.ones((24, 3)))
    # the same group as S4: equally many elements of each order
    order_of = lambda group, g: next(
        k for k in range(1, 9) if (np.linalg.matrix_power(group.matrices[g], k) == np.eye(3)).all()
    )
    assert sorted(order_of(octahedral(), g) for g in range(24)) == [1] + [2] * 9 + [3] * 8 + [4] * 6


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_permutations_generate_a_group_whose_order_divides_that_of_all(p, q):
    group = generated_by([p, q])
    assert 120 % group.order == 0
    found = {tuple(a) for a in group.permutations.tolist()}
    assert tuple(p) in found and tuple(q) in found and len(found) == group.order


def test_translations_and_quarter_turns_of_a_periodic_lattice_generate_their_semidirect_product():
    sites = np.arange(9).reshape(3, 3)
    group = generated_by([np.roll(sites, 1, 0).ravel(), np.rot90(sites).ravel()])
    assert group.order == 9 * 4


def test_direct_product_multiplies_separately():
    group = direct_product(symmetric(3), cyclic(4))
    for g, h in itertools.product(range(24), repeat=2):
        product = group.multiply(g, h)
        assert product // 4 == symmetric(3).multiply(g // 4, h // 4) and product % 4 == (g + h) % 4
    assert direct_product(cyclic(4), octahedral()).matrices.shape == (96, 5, 5)
    assert group.matrices is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dihedral(0), "dihedral: n must be an integer of at least 1, got 0"),
        (lambda: symmetric(7), "symmetric: n must be at most 6, got 7"),
        (lambda: symmetric(2.5), "symmetric: n must be an integer of at least 1, got 2.5"),
        (lambda: direct_product(cyclic(4), 4), "expected two FiniteGroup, got 4"),
        (lambda: direct_product(symmetric(6), symmetric(4)), "has 17280 elements, more than 4096"),
        (lambda: generated_by([]), "at least one"),
        (lambda: generated_by([[0, 0, 1]]), r"\[0, 0, 1\] is not a permutation of 0 … 2"),
        (lambda: generated_by([[0, 1], [2, 1, 0]]), r"\[2, 1, 0\] is not a permutation of 0 … 1"),
        (lambda: generated_by([[*range(1, 8), 0], [1, 0, *range(2, 8)]], "S8"), "S8 has more than 4096"),
        (
            lambda: FiniteGroup([[0, 1], [1, 0]], matrices=np.ones((2, 1))),
            r"matrices must have shape \(2, d, d\)",
        ),
        (
            lambda: FiniteGroup([[0, 1], [1, 0]], matrices=[[[1.0]], [[2.0]]]),
            "matrices of 1 and 1.* differ by 3",
        ),
        (
            lambda: FiniteGroup([[0, 1], [1, 0]], permutations=[[0, 1, 2], [1, 2, 0]]),
            "permutations of 1 and 1",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
