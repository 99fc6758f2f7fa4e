"""A few networks of a new device: which are worth measuring, and what is learned of them."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from predictors.additive import AdditiveCost
from predictors.block_features import BlockTimes, feature
from predictors.calibration import CalibratedCost, Calibration, Waiting
from predictors.transfer import fit_transfer, informative
from search_spaces.space import Genomes
from search_spaces.tiny import tiny

Values = npt.NDArray[np.float64]

SPACE = tiny(1, 10)
NETWORKS = 10
OF_FAMILY = {"attention": 1.8, "convnext": 1.3, "downsample": 0.9, "head": 1.5, "mbconv": 1.0, "stem": 2.1}
DEVICES = ("slower", "families", "steps", "depthwise")


def known_times(seed: int = 0) -> BlockTimes:
    """Return times on the known device, which grow with a block's work and scatter."""
    macs = np.array([block.macs() for block in SPACE.blocks]) / 1e6
    hot_ms = (0.01 + 0.02 * macs) * np.random.default_rng(seed).uniform(0.7, 1.4, len(SPACE.blocks))
    return BlockTimes(hot_ms, 1.5 * hot_ms)


def there(known: BlockTimes, genomes: Genomes, device: str) -> Values:
    """Return the latency of networks on another device."""
    times = {
        "slower": 20.0 * known.latency_ms,
        "families": known.latency_ms * np.array([OF_FAMILY[block.family] for block in SPACE.blocks]),
        "steps": 0.5 * known.latency_ms + 0.01 * feature("norm_layers", SPACE.blocks, known, "fp32"),
        "depthwise": 0.5 * known.latency_ms + 0.3 * feature("grouped_mmacs", SPACE.blocks, known, "fp32"),
    }[device]
    return AdditiveCost(SPACE, times).predict(genomes)


def pool(seed: int) -> Genomes:
    return SPACE.unique(SPACE.sample(400, np.random.default_rng(seed)))


def errors_of(chosen: Genomes, device: str, *, noise: float, seed: int) -> Values:
    """Return the relative errors on other networks, after a fit on some that were measured with noise."""
    known, others = known_times(seed), SPACE.sample(1000, np.random.default_rng([seed, 1]))
    noisy = 1 + noise * np.random.default_rng([seed, 2]).standard_normal(len(chosen))
    fitted = fit_transfer(SPACE, known, None, chosen, there(known, chosen, device) * noisy)
    return CalibratedCost(SPACE, known, fitted, "fp32").predict(others) / there(known, others, device) - 1


@pytest.mark.parametrize("device", DEVICES)
def test_other_networks_of_the_new_device_are_predicted(device: str) -> None:
    for seed in range(3):
        candidates = pool(seed)
        chosen = candidates[informative(SPACE, known_times(seed), None, candidates, NETWORKS, "fp32")]
        errors = errors_of(chosen, device, noise=0.01, seed=seed)
        assert np.mean(np.abs(errors) <= 0.1) >= 0.95


def test_what_blocks_wait_on_the_known_device_they_wait_on_a_like_one() -> None:
    known, others = known_times(), SPACE.sample(1000, np.random.default_rng(1))
    waiting = Waiting(touched_mb=(0.3, 1.5), share=(0.0, 0.9))
    source = Calibration(
        model="scale", strength=0.1, waiting=waiting, factors={"time": 1.0}, cross_validated_mape_percent={"scale": 1.0}
    )
    twice_as_slow = CalibratedCost(SPACE, known, source, "fp32")
    for seed in range(3):
        candidates = pool(seed)
        chosen = candidates[informative(SPACE, known, waiting, candidates, NETWORKS, "fp32")]
        noisy = 2.0 * (1 + 0.01 * np.random.default_rng(seed).standard_normal(NETWORKS))
        fitted = fit_transfer(SPACE, known, waiting, chosen, twice_as_slow.predict(chosen) * noisy)
        errors = (
            CalibratedCost(SPACE, known, fitted, "fp32").predict(others) / (2.0 * twice_as_slow.predict(others)) - 1
        )
        assert np.abs(errors).mean() < 0.015


def test_a_device_that_only_differs_by_a_factor_gets_next_to_no_corrections() -> None:
    for seed in range(3):
        candidates = pool(seed)
        chosen = candidates[informative(SPACE, known_times(seed), None, candidates, NETWORKS, "fp32")]
        assert np.abs(errors_of(chosen, "slower", noise=0.01, seed=seed)).mean() < 0.015


def test_chosen_networks_tell_more_than_random_ones() -> None:
    chosen_errors, random_errors = [], []
    for seed, device in itertools.product(range(4), DEVICES):
        candidates = pool(seed)
        positions = informative(SPACE, known_times(seed), None, candidates, NETWORKS, "fp32")
        assert positions == sorted(set(positions))
        assert len(positions) == NETWORKS
        random = np.random.default_rng([seed, 3]).choice(len(candidates), NETWORKS, replace=False)
        chosen_errors.append(np.abs(errors_of(candidates[positions], device, noise=0.01, seed=seed)).mean())
        random_errors.append(np.abs(errors_of(candidates[random], device, noise=0.01, seed=seed)).mean())
    assert np.mean(chosen_errors) < 0.8 * np.mean(random_errors)


def test_networks_are_chosen_once_and_all_if_there_are_no_more() -> None:
    few = pool(0)[:NETWORKS]
    assert informative(SPACE, known_times(), None, few, NETWORKS, "fp32") == list(range(NETWORKS))


@pytest.mark.parametrize("noise", [0.05, 0.1])
def test_noise_makes_no_network_take_no_time(noise: float) -> None:
    for seed in range(10):
        candidates = pool(seed)
        chosen = candidates[informative(SPACE, known_times(seed), None, candidates, NETWORKS, "fp32")]
        known = known_times(seed)
        noisy = 1 + noise * np.random.default_rng(seed).standard_normal(NETWORKS)
        fitted = fit_transfer(SPACE, known, None, chosen, there(known, chosen, "families") * np.maximum(0.3, noisy))
        assert CalibratedCost(SPACE, known, fitted, "fp32").cheapest()[0] > 0.0


def test_the_error_told_is_that_of_networks_left_out() -> None:
    told, true, inside = [], [], []
    for seed in range(8):
        known, genomes = known_times(seed), SPACE.sample(20, np.random.default_rng(seed))
        exact = there(known, genomes, "families")
        noisy = exact * (1 + 0.03 * np.random.default_rng([seed, 2]).standard_normal(len(genomes)))
        fitted = fit_transfer(SPACE, known, None, genomes, noisy)
        told.append(fitted.cross_validated_mape_percent["transfer"])
        cost = CalibratedCost(SPACE, known, fitted, "fp32")
        inside.append(100 * np.abs(cost.predict(genomes) / noisy - 1).mean())
        true.append(100 * np.mean(np.abs(errors_of(genomes, "families", noise=0.03, seed=seed))))
    assert np.mean(inside) < np.mean(told)
    assert 0.7 < np.mean(told) / np.hypot(np.mean(true), 3 * np.sqrt(2 / np.pi)) < 1.4
