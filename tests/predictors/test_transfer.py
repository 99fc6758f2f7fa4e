"""A known device's table and ten networks of a new one."""

from __future__ import annotations

import numpy as np
import pytest

from predictors.additive import AdditiveCost
from predictors.latency import LatencyPredictor
from predictors.transfer import spread_over, transferred
from search_spaces.errors import InputError
from search_spaces.tiny import tiny
from tests.nas.synthetic_latency import synthetic_table

SPACE = tiny(1, 10)
SLOWER = {"attention": 2.6, "convnext": 2.2, "downsample": 1.8, "head": 2.0, "mbconv": 1.6, "stem": 2.0}


def test_ten_networks_carry_a_table_to_a_device_that_likes_other_blocks() -> None:
    source = LatencyPredictor(SPACE, synthetic_table(SPACE))
    factors = np.array([SLOWER[block.family] for block in SPACE.blocks])
    there = AdditiveCost(SPACE, factors * source.block_values, constant=0.1)
    rng = np.random.default_rng(0)
    chosen = spread_over(source, SPACE.unique(SPACE.sample(500, rng)), 10)
    assert len(SPACE.unique(chosen)) == 10
    noisy = there.predict(chosen) * (1 + 0.01 * rng.standard_normal(10))
    others = SPACE.sample(1000, rng)
    error = transferred(source, chosen, noisy, "fp32").predict(others) / there.predict(others) - 1
    assert np.mean(np.abs(error) <= 0.1) >= 0.95
    plain = source.predict(others) / there.predict(others) - 1
    assert np.mean(np.abs(plain) <= 0.1) < 0.05, "the devices are not alike"


def test_too_few_networks_are_refused() -> None:
    source = LatencyPredictor(SPACE, synthetic_table(SPACE))
    genomes = SPACE.sample(7, np.random.default_rng(0))
    with pytest.raises(InputError, match="8 networks at least, got 7"):
        transferred(source, genomes, source.predict(genomes), "fp32")


def test_networks_for_a_transfer_span_the_latency_of_a_pool() -> None:
    source = LatencyPredictor(SPACE, synthetic_table(SPACE))
    pool = SPACE.unique(SPACE.sample(300, np.random.default_rng(0)))
    latency_ms = source.predict(spread_over(source, pool, 12))
    assert latency_ms.min() == source.predict(pool).min()
    assert latency_ms.max() == source.predict(pool).max()
