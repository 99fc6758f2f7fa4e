from __future__ import annotations

import numpy as np
import pytest

from predictors.additive import AdditiveCost
from predictors.balanced import sample_balanced
from search_spaces.catalogue import find_space
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from tests.nas.micro_space import micro


def macs(space: NetworkSpace) -> AdditiveCost:
    return AdditiveCost.of(space, lambda block: block.macs())


@pytest.mark.parametrize("name", ["tiny", "mobile"])
def test_the_histogram_over_the_logarithm_of_the_cost_is_flat(name: str) -> None:
    space = find_space(name, channels=3, classes=10)
    cost = macs(space)
    genomes = sample_balanced(cost, 400, np.random.default_rng(0), bins=10)
    assert genomes.shape == (400, space.n_genes)
    assert np.array_equal(space.canonical(genomes), genomes)
    assert len(space.unique(genomes)) == 400
    edges = np.geomspace(cost.cheapest()[0], cost.dearest()[0], 11)
    counts, _ = np.histogram(cost.predict(genomes), bins=edges * [1 - 1e-9, *[1] * 9, 1 + 1e-9])
    assert counts.tolist() == [40] * 10
    # Random networks leave the ends nearly empty.
    random, _ = np.histogram(cost.predict(space.sample(400, np.random.default_rng(0))), bins=edges)
    assert random[[0, 1, -1]].max() < 15
    again = sample_balanced(cost, 400, np.random.default_rng(0), bins=10)
    assert np.array_equal(genomes, again)


def test_a_small_space_gives_what_it_has() -> None:
    space = micro()
    genomes = sample_balanced(macs(space), 500, np.random.default_rng(0))
    assert len(genomes) == len(space.unique(genomes)) == space.count() < 500


def test_costs_must_be_positive() -> None:
    space = micro()
    with pytest.raises(InputError, match="needs positive costs; the cheapest network has 0"):
        sample_balanced(AdditiveCost(space, np.zeros(len(space.blocks))), 10, np.random.default_rng(0))
