"""Prices between neighbours: counted as in the networks themselves, found where a device has them."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictors.additive import AdditiveCost
from predictors.block_features import BlockTimes
from predictors.calibration import CalibratedCost, Calibration, calibrate
from predictors.neighbours import NeighbourCost, by_neighbours
from predictors.quality import mape_percent
from search_spaces.catalogue import find_space
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from tests.nas.micro_space import micro

SPACES = {name: find_space(name, channels=3, classes=10) for name in ("tiny", "cifar", "mobile")}


def passed(space: NetworkSpace, genome: Genomes) -> dict[str, float]:
    """Return how many million elements blocks of one kind pass to blocks of another, from the network itself."""
    count: dict[str, float] = defaultdict(float)
    for first, second in itertools.pairwise(placed.block for placed in space.lower(genome)):
        if first.family != second.family:
            count[f"{first.family}>{second.family}"] += first.out_channels * first.out_resolution**2 / 1e6
    return count


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SPACES)), st.integers(0, 2**32 - 1))
def test_what_neighbours_pass_is_counted_as_in_the_network(name: str, seed: int) -> None:
    space, rng = SPACES[name], np.random.default_rng(seed)
    genomes = np.concatenate([space.sample(3, rng), space.sample_uniform(3, rng)])
    prices = {name: float(price) for name, price in zip(by_neighbours(space), rng.normal(size=99), strict=False)}
    expected = [sum(prices[pair] * much for pair, much in passed(space, genome).items()) for genome in genomes]
    assert NeighbourCost(space, prices).predict(genomes) == pytest.approx(expected)


def test_the_pairs_are_those_that_networks_have() -> None:
    space = micro()
    found = {pair for genome in space.enumerate() for pair in passed(space, genome)}
    assert by_neighbours(space) == sorted(found)


def test_many_networks_cost_what_each_costs() -> None:
    space = SPACES["tiny"]
    genomes = space.sample(20_000, np.random.default_rng(0))
    cost = NeighbourCost(space, dict.fromkeys(by_neighbours(space), 1.0))
    together = cost.predict(genomes)
    assert together[::997] == pytest.approx([cost.predict(genome[None])[0] for genome in genomes[::997]])


@pytest.mark.parametrize("name", ["mbconv>colour", "colour>mbconv", ">", "mbconv>", "a>b>c"])
def test_kinds_that_the_space_does_not_have_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="no two kinds of blocks"):
        NeighbourCost(SPACES["tiny"], {name: 1.0})


def test_a_device_on_which_neighbours_matter_is_predicted() -> None:
    space = SPACES["tiny"]
    hot_ms = np.array([0.01 + 0.02 * block.macs() / 1e6 for block in space.blocks])
    rng = np.random.default_rng(0)
    times = BlockTimes(hot_ms * rng.uniform(0.7, 1.4, len(hot_ms)), 2.0 * hot_ms)
    prices = {"convnext>mbconv": 5.0, "attention>mbconv": 5.0, "downsample>convnext": 2.0}
    genomes = space.sample(396, rng)
    measured = AdditiveCost(space, times.latency_ms, 0.01).predict(genomes)
    plain = calibrate(space, times, genomes[:96], measured[:96])
    assert not any(">" in name for name in plain.factors)
    measured += NeighbourCost(space, prices).predict(genomes)
    fitted = calibrate(space, times, genomes[:96], measured[:96])
    assert fitted.model in ("neighbours", "all")
    predicted = CalibratedCost(space, times, fitted, "fp32").predict(genomes[96:])
    assert mape_percent(predicted, measured[96:]) < 0.5
    assert CalibratedCost(space, times, plain, "fp32").predict(genomes[96:]) != pytest.approx(measured[96:], rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_the_reachable_range_is_found_where_neighbours_matter(seed: int) -> None:
    space, rng = micro(), np.random.default_rng(seed)
    hot_ms = rng.uniform(0.05, 0.5, len(space.blocks))
    fitted = Calibration(
        model="neighbours",
        strength=0.1,
        waiting=None,
        factors={"time": 1.0} | {name: float(rng.uniform(-50.0, 50.0)) for name in by_neighbours(space)},
        cross_validated_mape_percent={"neighbours": 1.0},
    )
    cost = CalibratedCost(space, BlockTimes(hot_ms, hot_ms), fitted, "fp32")
    everything = cost.predict(space.enumerate())
    for (latency_ms, genome), extreme in ((cost.dearest(), everything.max()), (cost.cheapest(), everything.min())):
        assert latency_ms == pytest.approx(cost.predict(genome[None])[0])
        assert latency_ms == pytest.approx(extreme, rel=0.01)
