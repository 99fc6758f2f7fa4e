"""Features of genomes that know the structure of their space."""

from __future__ import annotations

import numpy as np

from predictors.features import StructureFeatures
from search_spaces.space import SearchSpace

STAGED = SearchSpace.from_choices(
    {
        "depth1": (1, 2),
        "kernel1a": (3, 5),
        "kernel1b": (3, 5),
        "depth2": (1, 2),
        "kernel2a": (3, 5),
        "kernel2b": (3, 5),
        "op": ("x", "y", "z"),
    },
    when={
        "kernel1a": {"depth1": (1, 2)},
        "kernel1b": {"depth1": (2,)},
        "kernel2a": {"depth2": (1, 2)},
        "kernel2b": {"depth2": (2,)},
    },
)


def test_options_are_counted_among_genes_that_are_alike_in_all_and_by_stage() -> None:
    features = StructureFeatures(STAGED)
    #                    d1 k1a k1b d2 k2a k2b op
    genomes = np.array([[1, 1, 1, 1, 0, 1, 2], [0, 1, 0, 0, 0, 0, 0]], dtype=np.int16)
    counts = features(genomes)[:, STAGED.encode(genomes).shape[1] :]
    # Depths; kernels of all stages, of the first, of the second. The operator has no gene like it.
    expected = {
        (0, 2, 1, 3, 0, 2, 1, 1),
        (2, 0, 1, 1, 0, 1, 1, 0),
    }
    assert {tuple(row) for row in counts.astype(int).tolist()} == expected


def test_inactive_genes_count_for_nothing() -> None:
    genomes = STAGED.canonical(np.array([[0, 1, 1, 0, 1, 1, 1]], dtype=np.int16))
    np.testing.assert_array_equal(StructureFeatures(STAGED)(genomes), StructureFeatures(STAGED)(STAGED.check(genomes)))
    counts = StructureFeatures(STAGED)(genomes)[0, STAGED.encode(genomes).shape[1] :]
    assert counts[2:4].sum() == 2, "two kernels exist"


def test_known_figures_come_as_they_are_and_as_logarithms() -> None:
    genomes = STAGED.sample(4, np.random.default_rng(0))
    known = np.array([[1.0], [10.0], [0.0], [-3.0]])
    bare, full = StructureFeatures(STAGED)(genomes), StructureFeatures(STAGED)(genomes, known)
    assert full.dtype == np.float32
    np.testing.assert_array_equal(full[:, :-2], bare)
    np.testing.assert_array_equal(full[:, -2], known[:, 0])
    assert np.isfinite(full).all()
    np.testing.assert_allclose(full[:2, -1], [0.0, np.log(10.0)], rtol=1e-6)


def test_a_space_with_nothing_alike_has_one_hots_and_the_sizes_of_its_numbers() -> None:
    space = SearchSpace.from_choices({"a": (1, 2), "b": (1, 3, 8), "c": ("x", "y", "z", "w")})
    genomes = space.enumerate()
    features = StructureFeatures(space)(genomes)
    np.testing.assert_array_equal(features[:, :-1], space.encode(genomes))
    sizes = np.array([1.0, 3.0, 8.0])[genomes[:, 1]]
    np.testing.assert_allclose(features[:, -1], (sizes - 4.0) / np.std([1.0, 3.0, 8.0]), rtol=1e-6)


def test_groups_are_what_is_alike_side_by_side() -> None:
    features = StructureFeatures(STAGED)
    # One-hots of depths, kernels and the operator; counts of each in all, and by stage, where only kernels have some;
    # nothing known, or two figures and their logarithms.
    assert [group.width for group in features.groups()] == [4, 8, 3, 2, 0, 2, 4, 0, 0, 0]
    assert [group.width for group in features.groups(2)] == [4, 8, 3, 2, 0, 2, 4, 0, 0, 4]
    assert [group.coarse for group in features.groups(2)] == [False] * 3 + [True] * 7
    assert features.width == 23
    genomes = np.array([[1, 1, 1, 1, 0, 1, 2], [0, 1, 0, 0, 0, 0, 0]], dtype=np.int16)
    kernels = features(genomes)[:, 4:12]
    np.testing.assert_array_equal(kernels, [[0, 1, 0, 1, 1, 0, 0, 1], [0, 1, 0, 0, 1, 0, 0, 0]])
