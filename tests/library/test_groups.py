import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nteq.groups import (
    FiniteGroup,
    cyclic,
    dihedral,
    direct_product,
    generated_by,
    icosahedral,
    octahedral,
    symmetric,
    tetrahedral,
    with_inversion,
)

GROUPS = [
    cyclic(5),
    dihedral(4),
    dihedral(5),
    symmetric(4),
    octahedral(),
    icosahedral(),
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
        (tetrahedral(), 12, 4),
        (icosahedral(), 60, 5),
        (with_inversion(icosahedral()), 120, 10),
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


def test_icosahedral_is_all_rotations_of_the_icosahedron_and_tetrahedral_is_among_them():
    matrices, golden = icosahedral().matrices, (1 + 5**0.5) / 2
    np.testing.assert_allclose(np.linalg.det(matrices), 1, rtol=1e-14)
    corners = [
        np.roll([0, a, b * golden], k) for k in range(3) for a, b in itertools.product([1, -1], repeat=2)
    ]
    corners = np.array(corners)
    apart = np.linalg.norm((matrices @ corners.T).swapaxes(1, 2)[:, :, None] - corners, axis=-1)
    assert (np.sort(apart, -1)[..., 0] < 1e-14).all()  # every corner lands on a corner
    angles = np.degrees(np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1))).round()
    assert sorted(angles.tolist()) == [0] + [72] * 12 + [120] * 20 + [144] * 12 + [180] * 15
    for inner, outer in [(tetrahedral(), icosahedral()), (tetrahedral(), octahedral())]:
        assert {m.tobytes() for m in inner.matrices + 0.0} <= {m.tobytes() for m in outer.matrices + 0.0}


def test_inversion_doubles_a_group_of_rotations():
    group = with_inversion(octahedral())
    np.testing.assert_array_equal(group.matrices[24:], -octahedral().matrices)
    assert group == direct_product(cyclic(2), octahedral())
    for wrong, message in [(group, "contains −1 already"), (symmetric(3), "with matrices"), (3, "got 3")]:
        with pytest.raises(ValueError, match=message):
            with_inversion(wrong)


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


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_products_of_generated_permutations_are_their_compositions(p, q):
    group = generated_by([p, q])
    composed = group.permutations[:, group.permutations]
    np.testing.assert_array_equal(composed, group.permutations[group.table])
    assert group.identity == 0 and len(np.unique(group.permutations, axis=0)) == group.order


def is_associative(table):
    return (table[table] == np.array([row[table] for row in table])).all()


def test_one_wrong_square_anywhere_in_the_table_is_found_though_only_generators_are_tried():
    group = direct_product(cyclic(2), dihedral(3))
    tried = 0
    for g, h in itertools.combinations(range(1, 12), 2):
        for a, b in itertools.combinations(range(1, 12), 2):
            table = group.table.copy()
            if table[g, a] != table[h, b] or table[g, b] != table[h, a] or 0 in (table[g, a], table[g, b]):
                continue
            table[[g, h], a], table[[g, h], b] = table[[h, g], a], table[[h, g], b]
            assert (np.sort(table, axis=0) == np.arange(12)[:, None]).all()  # still each once in a column
            assert not is_associative(table)
            with pytest.raises(ValueError, match="not associative"):
                FiniteGroup(table)
            tried += 1
    assert tried > 50


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_generators_are_few_and_generate(group):
    assert 2 ** len(group.generators) <= group.order
    assert len(group.closure(group.generators)) == group.order


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_subgroup_multiplies_as_its_elements_in_the_whole_group_do(group, count):
    chosen = np.random.default_rng(count).integers(group.order, size=count).tolist()
    subgroup, kept = group.subgroup(chosen), group.closure(chosen)
    np.testing.assert_array_equal(kept[subgroup.table], group.table[np.ix_(kept, kept)])
    assert set(chosen) <= set(kept.tolist()) and group.order % subgroup.order == 0
    for field in ("matrices", "permutations"):
        whole, part = getattr(group, field), getattr(subgroup, field)
        assert (whole is None) == (part is None)
        if whole is not None:
            np.testing.assert_array_equal(part, whole[kept])
    # nothing smaller will do: all elements are products of the chosen ones
    words = {group.identity}
    while True:
        longer = words | {group.multiply(w, c) for w in words for c in chosen}
        if longer == words:
            break
        words = longer
    assert words == set(kept.tolist())


def test_textbook_subgroups():
    assert symmetric(4).subgroup([7, 16]).order == 4  # two double transpositions
    even = symmetric(4).subgroup([3, 8], name="A4")
    assert even.order == 12 and [len(c) for c in even.conjugacy_classes] == [1, 4, 4, 3]
    assert octahedral().subgroup([]).order == 1
    assert repr(even) == "<A4: group of order 12>"


REVERSED = FiniteGroup(cyclic(3).table, "C3", cyclic(3).matrices[[0, 2, 1]])


def test_groups_are_equal_if_their_tables_are():
    assert cyclic(4) == cyclic(4) and hash(cyclic(4)) == hash(cyclic(4))
    renamed = FiniteGroup(cyclic(4).table.tolist(), name="another name, no matrices")
    assert renamed == cyclic(4) and {renamed: 1}[cyclic(4)] == 1
    assert generated_by([[1, 2, 3, 0]]) == cyclic(4)
    assert REVERSED == cyclic(3)
    different = [cyclic(4), dihedral(2), cyclic(3), symmetric(3), dihedral(3), cyclic(6)]
    assert len(set(different)) == 6 and cyclic(4) != 4


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_a_group_survives_pickling(group):
    hash(group), group.conjugacy_classes
    again = pickle.loads(pickle.dumps(group))
    assert "conjugacy_classes" not in vars(again)  # nothing derived travels
    assert again == group and again.contents == group.contents and again.name == group.name
    with pytest.raises(ValueError, match="read-only"):
        again.table[0, 0] = 1


@pytest.mark.parametrize("field", ["table", "inverses", "matrices", "permutations"])
def test_what_a_group_holds_cannot_be_changed(field):
    given = np.array([[0, 1], [1, 0]])
    group = FiniteGroup(given, matrices=[[[1]], [[-1]]], permutations=given)
    with pytest.raises(ValueError, match="read-only"):
        getattr(group, field)[0] = 0
    given[0] = 0  # what it was made of belongs to the caller
    assert group.permutations[0].tolist() == group.table[0].tolist() == [0, 1]


def test_as_an_argument_of_jit_equal_groups_share_a_program_and_other_matrices_do_not():
    traced = []

    @jax.jit
    def turn(group, x):
        traced.append(group)
        return jnp.asarray(group.matrices)[1] @ x

    x = jnp.array([1.0, 0.0])
    np.testing.assert_allclose(turn(cyclic(3), x), cyclic(3).matrices[1] @ x, atol=1e-15)
    turn(cyclic(3), x)
    assert len(traced) == 1
    np.testing.assert_allclose(turn(REVERSED, x), cyclic(3).matrices[2] @ x, atol=1e-15)


def test_direct_product_multiplies_separately():
    group = direct_product(symmetric(3), cyclic(4))
    for g, h in itertools.product(range(24), repeat=2):
        product = group.multiply(g, h)
        assert product // 4 == symmetric(3).multiply(g // 4, h // 4) and product % 4 == (g + h) % 4
    assert direct_product(cyclic(4), octahedral()).matrices.shape == (96, 5, 5)
    assert group.matrices is None and group.permutations is None


def test_direct_product_permutes_the_points_of_the_second_group_behind_those_of_the_first():
    first, second = symmetric(2), symmetric(3)
    group = direct_product(first, second)
    for g, h in itertools.product(range(2), range(6)):
        expected = [*first.permutations[g], *(2 + second.permutations[h])]
        assert group.permutations[6 * g + h].tolist() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dihedral(0), "dihedral: n must be an integer of at least 1, got 0"),
        (lambda: symmetric(7), "symmetric: n must be at most 6, got 7"),
        (lambda: symmetric(2.5), "symmetric: n must be an integer of at least 1, got 2.5"),
        (lambda: direct_product(cyclic(4), 4), "expected two FiniteGroup, got 4"),
        (lambda: direct_product(symmetric(6), symmetric(4)), "has 17280 elements, more than 4096"),
        (lambda: cyclic(5000), "cyclic: n must be at most 4096, got 5000"),
        (lambda: FiniteGroup([[0, 1], [1]]), "rows of table differ in length"),
        (
            lambda: FiniteGroup([[0, 1], [1, 0]], matrices=[["a"], ["b"]]),
            "matrices must be an array of real numbers",
        ),
        (lambda: FiniteGroup([[0]], matrices=[[[0.0]]]), "matrix 0 is not orthogonal.* by 1.0"),
        (
            lambda: FiniteGroup([[0, 1], [1, 0]], matrices=[np.eye(2), [[1, 1], [0, -1]]]),
            "matrix 1 is not orthogonal",
        ),
        (
            lambda: FiniteGroup([[0, 1], [1, 0]], permutations=[[0, 1], [1, 1]]),
            r"permutations\[1\] is \[1, 1\], which is not a permutation of 0 … 1",
        ),
        (
            lambda: FiniteGroup([[0, 1], [1, 0]], permutations=[[0.0, 1.0], [1.0, 0.0]]),
            "permutations must hold integers, got dtype float64",
        ),
        (lambda: cyclic(4).subgroup([4]), "elements are the integers 0 … 3, got 4"),
        (lambda: cyclic(4).subgroup(2), "a sequence of elements, got 2"),
        (lambda: generated_by([[0.0, 1.0]]), "not a permutation"),
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
