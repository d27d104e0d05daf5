import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nteq.actions import on_lattices
from nteq.fourier import Irrep, block_diagonalise, characters, irreps, isotypic_basis
from nteq.groups import (
    FiniteGroup,
    cyclic,
    dihedral,
    direct_product,
    generated_by,
    icosahedral,
    octahedral,
    symmetric,
)

sites = np.arange(16).reshape(4, 4)
quaternions = FiniteGroup(
    # elements ±1, ±i, ±j, ±k as 2·index + sign
    [
        [2 * (a ^ b) + (s ^ t ^ int((a, b) in {(1, 1), (2, 2), (3, 3), (1, 3), (2, 1), (3, 2)}))
         for b in range(4) for t in range(2)]
        for a in range(4) for s in range(2)
    ],
    "Q8",
)  # fmt: skip
GROUPS = [
    cyclic(1),
    cyclic(2),
    cyclic(7),
    cyclic(64),
    dihedral(4),
    dihedral(5),
    symmetric(4),
    octahedral(),
    quaternions,
    direct_product(cyclic(4), cyclic(4)),
    direct_product(quaternions, cyclic(3)),
    direct_product(quaternions, dihedral(4)),
    generated_by([np.roll(sites, 1, 0).ravel(), np.rot90(sites).ravel()], "p4 on 4 × 4"),
]
every_group = pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)


@every_group
def test_irreps_are_orthogonal_representations_of_the_whole_group(group):
    for s in irreps(group):
        d = s.matrices
        np.testing.assert_allclose(
            d @ d.transpose(0, 2, 1), np.broadcast_to(np.eye(s.dimension), d.shape), atol=1e-11
        )
        for g in range(0, group.order, max(1, group.order // 8)):
            np.testing.assert_allclose(d[g] @ d, d[group.table[g]], atol=1e-11)


@every_group
def test_characters_obey_the_orthogonality_relations(group):
    found, chi = irreps(group), characters(group)
    expected = np.diag([s.dimension / s.multiplicity for s in found])
    np.testing.assert_allclose(chi @ chi.T / group.order, expected, atol=1e-10)
    assert sum(s.dimension * s.multiplicity for s in found) == group.order
    # as many as there are classes, if a class and that of the inverses count as one
    classes = {
        frozenset({*c, *group.inverses[c]}) for c in map(lambda c: c.tolist(), group.conjugacy_classes)
    }
    assert len(found) == len(classes)
    np.testing.assert_allclose(chi[0], 1, atol=1e-12)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (cyclic(4), {(1, "real"): 2, (2, "complex"): 1}),
        (dihedral(5), {(1, "real"): 2, (2, "real"): 2}),
        (octahedral(), {(1, "real"): 2, (2, "real"): 1, (3, "real"): 2}),
        (icosahedral(), {(1, "real"): 1, (3, "real"): 2, (4, "real"): 1, (5, "real"): 1}),
        (quaternions, {(1, "real"): 4, (4, "quaternionic"): 1}),
        (
            direct_product(quaternions, dihedral(4)),
            {(1, "real"): 16, (2, "real"): 4, (4, "quaternionic"): 4, (8, "quaternionic"): 1},
        ),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_dimensions_and_kinds_are_those_of_the_textbooks(group, expected):
    kinds = [(s.dimension, s.kind) for s in irreps(group)]
    assert {k: kinds.count(k) for k in kinds} == expected


@every_group
def test_unitary_form_is_half_of_a_complex_or_quaternionic_irrep(group):
    for s in irreps(group):
        sigma, basis = s.unitary
        halves = 1 if s.kind == "real" else 2
        assert sigma.shape[1] == s.dimension / halves and np.iscomplexobj(sigma) == (halves == 2)
        for u in range(0, group.order, max(1, group.order // 8)):
            np.testing.assert_allclose(sigma[u] @ sigma, sigma[group.table[u]], atol=1e-11)
            np.testing.assert_allclose(basis[group.table[:, u]], basis @ sigma[u], atol=1e-11)
        # twice the real part of the character and of the projection is that of the whole
        np.testing.assert_allclose(halves * np.trace(sigma, axis1=1, axis2=2).real, s.character, atol=1e-11)
        flat, whole = basis.reshape(group.order, -1), s.basis.reshape(group.order, -1)
        np.testing.assert_allclose(halves * (flat @ flat.conj().T).real, whole @ whole.T, atol=1e-11)


@every_group
def test_isotypic_basis_is_orthogonal_and_right_translation_acts_by_the_irreps(group):
    q = isotypic_basis(group)
    np.testing.assert_allclose(q.T @ q, np.eye(group.order), atol=1e-11)
    for s in irreps(group):
        for u in range(0, group.order, max(1, group.order // 8)):
            np.testing.assert_allclose(s.basis[group.table[:, u]], s.basis @ s.matrices[u], atol=1e-11)


def test_of_a_cyclic_group_it_is_the_discrete_fourier_transform():
    f = np.random.default_rng(0).normal(size=7)
    power = np.abs(np.fft.rfft(f, norm="ortho")) ** 2
    power[1:] *= 2  # a frequency and its negative
    q = [s.basis.reshape(7, -1) for s in irreps(cyclic(7))]
    np.testing.assert_allclose(sorted((b.T @ f) @ (b.T @ f) for b in q), sorted(power), rtol=1e-10)


def invariant_gram(group, n, seed=0):
    """κ and the Gram matrix that it is the first block row of."""
    rng = np.random.default_rng(seed)
    kappa = rng.normal(size=(group.order, n, n))
    kappa = (kappa + kappa[group.inverses].transpose(0, 2, 1)) / 2
    whole = kappa[group.table[group.inverses]]  # (g, h) → κ(g⁻¹h)
    return kappa, whole.transpose(0, 2, 1, 3).reshape(group.order * n, -1)


@every_group
def test_blocks_together_are_the_gram_matrix(group):
    n = 2
    kappa, gram = invariant_gram(group, n)
    blocks = block_diagonalise(group, kappa)
    np.testing.assert_allclose(gram, gram.T, atol=1e-13)
    q = np.kron(isotypic_basis(group), np.eye(n))
    transformed, at = q.T @ gram @ q, 0
    for s, block in zip(irreps(group), blocks):
        for _ in range(s.multiplicity):
            rows = slice(at, at + len(block))
            np.testing.assert_allclose(transformed[rows, rows], block, atol=1e-9)
            transformed[rows, rows] = 0
            at += len(block)
    assert np.abs(transformed).max() < 1e-10 * np.linalg.norm(gram)


def test_irreps_are_found_once_for_all_groups_of_one_table():
    first = irreps(dihedral(5))
    assert irreps(dihedral(5)) is first
    assert irreps(FiniteGroup(dihedral(5).table, "without matrices")) is first
    assert irreps(cyclic(10)) is not first


def test_an_irrep_is_a_value():
    rotation = irreps(cyclic(4))[2]
    rotation.unitary
    again = pickle.loads(pickle.dumps(rotation))
    assert again == rotation and hash(again) == hash(rotation) and again is not rotation
    other = Irrep(rotation.matrices[[0, 3, 2, 1]], rotation.basis)
    assert other != rotation and rotation != 4 and len({rotation, again, other}) == 2
    for array in (again.matrices, again.basis, *again.unitary):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    traced = []

    @jax.jit
    def character(irrep, x):
        traced.append(irrep)
        return x * irrep.character[1:2]

    np.testing.assert_allclose(character(rotation, jnp.ones(1)), 0, atol=1e-14)
    character(again, jnp.ones(1))
    assert len(traced) == 1
    assert character(irreps(cyclic(4))[0], jnp.ones(1)) == 1


def test_irreps_of_512_elements_are_complete_and_those_of_the_textbook():
    group = on_lattices(dihedral(4), translations=8).group
    found = irreps(group)
    assert group.order == 512 == sum(s.dimension * s.multiplicity for s in found)
    # induced from the wave vectors: stars of 1, 1, 2, 4 or 8 with the irreps of what leaves them alone
    dimensions = [s.dimension for s in found]
    stars = {1: 2 * 4, 2: 2 * 1 + 1 * 4, 4: 3 * 3 * 2, 8: 3}
    assert {d: dimensions.count(d) for d in stars} == stars


@pytest.mark.parametrize(("slack", "accepted"), [(1e-9, True), (1e-3, False)])
def test_how_far_the_first_block_row_may_be_from_that_of_an_invariant_kernel(slack, accepted):
    kappa, _ = invariant_gram(cyclic(4), 2)
    kappa[1, 0, 1] += slack * np.abs(kappa).max()
    if accepted:
        block_diagonalise(cyclic(4), kappa)
    else:
        with pytest.raises(ValueError, match="not the Gram matrix"):
            block_diagonalise(cyclic(4), kappa)


def test_blocks_of_known_values_under_jit_of_traced_ones_and_of_integers():
    kappa = np.array([[[3, 1], [1, 2]], [[1, 0], [0, 1]]])
    expected = block_diagonalise(cyclic(2), kappa.astype(float))
    for blocks in (
        jax.jit(lambda s: [s * b for b in block_diagonalise(cyclic(2), kappa)])(1.0),
        jax.jit(lambda k: block_diagonalise(cyclic(2), k))(kappa),
        block_diagonalise(cyclic(2), jnp.asarray(kappa, jnp.int8)),
        block_diagonalise(cyclic(2), jnp.asarray(kappa, jnp.bfloat16)),
    ):
        for block, b in zip(blocks, expected, strict=True):
            np.testing.assert_array_equal(block, b)
            assert jnp.issubdtype(block.dtype, jnp.floating) and block.dtype.itemsize >= 4
    kappa[1, 0, 1] = 1
    with pytest.raises(ValueError, match="not the Gram matrix"):
        jax.jit(lambda s: [s * b for b in block_diagonalise(cyclic(2), kappa)])(1.0)


@pytest.mark.parametrize("x64", [True, False])
def test_blocks_need_no_promotion_of_types_or_ranks_and_hold_no_nan(x64):
    kappa = np.array([[[3.0]], [[1.0]]])
    with (
        jax.enable_x64(x64),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
    ):
        blocks = block_diagonalise(cyclic(2), kappa)
    np.testing.assert_allclose(np.ravel(blocks), [4, 2], rtol=1e-6)


def test_blocks_keep_single_precision():
    kappa, _ = invariant_gram(cyclic(4), 2)
    assert {b.dtype for b in block_diagonalise(cyclic(4), jnp.asarray(kappa, jnp.float32))} == {
        jnp.dtype("float32")
    }


def test_a_matrix_without_the_symmetry_does_not_fall_into_blocks():
    _, gram = invariant_gram(cyclic(4), 2)
    gram[0, 5] += 1
    gram[5, 0] += 1
    q = np.kron(isotypic_basis(cyclic(4)), np.eye(2))
    transformed = q.T @ gram @ q
    assert np.abs(transformed[:2, 2:]).max() > 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: irreps(4), "expected a FiniteGroup"),
        (lambda: irreps([0]), "expected a FiniteGroup"),
        (lambda: block_diagonalise(4, np.ones((3, 2, 2))), "expected a FiniteGroup"),
        (lambda: block_diagonalise(cyclic(4), np.ones((4, 0, 0))), r"\|G\| = 4, got \(4, 0, 0\)"),
        (lambda: block_diagonalise(cyclic(1), [[[1j]]]), "real numbers"),
        (lambda: block_diagonalise(cyclic(4), np.ones((3, 2, 2))), r"\|G\| = 4, got \(3, 2, 2\)"),
        (lambda: block_diagonalise(cyclic(2), np.full((2, 1, 1), np.inf)), "not finite"),
        (lambda: block_diagonalise(cyclic(2), [[[1, 2], [0, 1]], [[0, 0], [0, 0]]]), "differ by up to 2.0e"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
