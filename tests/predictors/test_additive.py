from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given

from predictors.additive import AdditiveCost, largest_over_blocks
from search_spaces.language import NetworkSpace
from search_spaces.layout import Head, ImageInput, Layout, Operator, Stage, Stem
from search_spaces.spec import BlockSpec
from search_spaces.tiny import tiny
from tests.search_spaces.reference import every_network
from tests.search_spaces.strategies import PROPERTY, layouts, seeds

# Cheap and dear networks differ in depth in one stage only, and stages share no gene but the widths beside them.
PLAIN = Layout(
    name="plain",
    input=ImageInput(channels=1, resolution=4, classes=2),
    stem=Stem(settings=(("kernel", 3), ("stride", 1))),
    stages=(
        Stage(
            width=(32, 16),
            depth=(2, 1),
            operators=(Operator(family="attention", sizes=(("expansion", (2, 1)),)),),
            stride=1,
        ),
        Stage(
            width=(16, 32),
            depth=(1,),
            operators=(
                Operator(family="mbconv", sizes=(("kernel", (5, 3)), ("expansion", (2,)))),
                Operator(family="convnext", sizes=(("kernel", (3,)), ("expansion", (1, 2, 4)))),
            ),
        ),
    ),
    head=Head(settings=(("features", 2),)),
)


def random_values(space: NetworkSpace, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a value per block, of either sign, many of them equal."""
    return np.random.default_rng(seed).integers(-3, 9, len(space.blocks)) / 4.0


@PROPERTY
@given(layouts(), seeds)
def test_a_cost_is_the_sum_over_the_blocks_of_the_network(layout: Layout, seed: int) -> None:
    space = NetworkSpace(layout)
    values = random_values(space, seed)
    of_block: dict[BlockSpec, float] = dict(zip(space.blocks, values.tolist(), strict=True))
    genomes = space.sample(24, np.random.default_rng(seed))
    predicted = AdditiveCost(space, values, constant=0.5).predict(genomes)
    assert predicted.dtype == np.float64
    expected = [0.5 + sum(of_block[placed.block] for placed in space.lower(genome)) for genome in genomes]
    assert predicted.tolist() == pytest.approx(expected, abs=1e-12)


@PROPERTY
@given(layouts(), seeds)
def test_a_peak_is_the_largest_over_the_blocks_of_the_network(layout: Layout, seed: int) -> None:
    space = NetworkSpace(layout)
    genomes = space.sample(24, np.random.default_rng(seed))
    peaks = largest_over_blocks(space, [block.peak_elements() for block in space.blocks], genomes)
    assert peaks.tolist() == [space.lower(genome).peak_elements() for genome in genomes]


@PROPERTY
@given(layouts(max_depth=2), seeds)
@example(PLAIN, 0)
def test_the_range_is_that_of_all_networks_and_attained(layout: Layout, seed: int) -> None:
    space = NetworkSpace(layout)
    cost = AdditiveCost(space, random_values(space, seed), constant=1.5)
    genomes = every_network(space)
    costs = cost.predict(genomes)
    everything = {genome.tobytes() for genome in genomes}
    for (value, genome), expected in ((cost.cheapest(), costs.min()), (cost.dearest(), costs.max())):
        assert value == pytest.approx(float(expected), abs=1e-12)
        assert genome.dtype == np.int16
        assert genome.tobytes() in everything, "not a canonical genome of the space"
        assert cost.predict(genome[None])[0] == value


def test_macs_and_parameters_of_tiny_are_those_of_its_networks() -> None:
    space = tiny(3, 10)
    genomes = space.sample(200, np.random.default_rng(0))
    networks = [space.lower(genome) for genome in genomes]
    macs = AdditiveCost.of(space, lambda block: block.macs())
    params = AdditiveCost.of(space, lambda block: block.params())
    assert macs.predict(genomes).tolist() == [network.macs() for network in networks]
    assert params.predict(genomes).tolist() == [network.params() for network in networks]
    assert macs.dearest()[0] == space.lower(space.resize(macs.dearest()[1][None], largest=True)[0]).macs()


@pytest.mark.parametrize("seed", range(5))
def test_no_network_of_tiny_is_outside_the_range(seed: int) -> None:
    space = tiny(1, 10)
    rng = np.random.default_rng(seed)
    cost = AdditiveCost(space, rng.normal(0.2, 0.3, len(space.blocks)))
    (low, cheapest), (high, dearest) = cost.cheapest(), cost.dearest()
    genomes = space.sample(20_000, rng)
    # Beside random networks, the neighbours of the ends: they would be the first to be cheaper or dearer.
    near = [space.mutate(np.repeat(end[None], 5_000, axis=0), rng, probability=0.05) for end in (cheapest, dearest)]
    costs = cost.predict(np.concatenate([genomes, *near]))
    assert low - 1e-12 <= costs.min() < costs.max() <= high + 1e-12
    assert (cost.predict(np.stack([cheapest, dearest])) == [low, high]).all()


def test_the_constant_may_be_a_whole_number() -> None:
    space = NetworkSpace(PLAIN)
    genomes = every_network(space)
    whole = AdditiveCost(space, [0.25] * len(space.blocks), constant=1)
    plain = AdditiveCost(space, [0.25] * len(space.blocks))
    assert np.array_equal(whole.predict(genomes), plain.predict(genomes) + 1)
