"""From block latencies to whole networks: devices of a known kind are recovered, noise is not fitted."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import numpy.typing as npt
import pytest

from predictors.additive import AdditiveCost
from predictors.balanced import sample_balanced
from predictors.block_features import LAYERS, BlockTimes, by_family, by_side, feature
from predictors.calibration import CalibratedCost, Calibration, Waiting, calibrate
from predictors.quality import mape_percent
from search_spaces.catalogue import find_space
from search_spaces.documents import decode
from search_spaces.errors import InputError
from search_spaces.space import Genomes
from search_spaces.tiny import tiny
from tests.nas.micro_space import micro

Values = npt.NDArray[np.float64]

SPACE = tiny(1, 10)
OF_FAMILY = {"attention": 1.3, "convnext": 1.0, "downsample": 1.0, "head": 1.0, "mbconv": 0.8, "stem": 1.0}
CACHES = Waiting(touched_mb=(0.4, 1.2), share=(0.0, 1.0))


def block_times(seed: int = 0) -> BlockTimes:
    """Return times that grow with a block's work and its memory, as real ones do, and scatter."""
    macs = np.array([block.macs() for block in SPACE.blocks]) / 1e6
    rng = np.random.default_rng(seed)
    hot_ms = (0.01 + 0.02 * macs) * rng.uniform(0.7, 1.4, len(SPACE.blocks))
    weights_mb = np.array([block.weight_bytes("fp32") for block in SPACE.blocks]) / 1e6
    return BlockTimes(hot_ms, hot_ms + (0.005 + 0.1 * weights_mb) * rng.uniform(0.7, 1.4, len(SPACE.blocks)))


def networks(n: int, seed: int) -> Genomes:
    return SPACE.sample(n, np.random.default_rng(seed))


def true_latency(times: BlockTimes, genomes: Genomes, kind: str) -> Values:
    """Return the latencies of a device that one explanation describes exactly."""
    total = AdditiveCost(SPACE, times.latency_ms).predict(genomes)
    if kind == "families":
        own = np.array([OF_FAMILY[block.family] for block in SPACE.blocks])
        return AdditiveCost(SPACE, times.latency_ms * own).predict(genomes)
    if kind == "caches":
        wait, touched = (
            AdditiveCost(SPACE, feature(name, SPACE.blocks, times, "fp32")).predict(genomes)
            for name in ("wait", "touched_mb")
        )
        return total + wait * CACHES.at(touched)
    factor, constant = {"scale": (0.9, 0.0), "affine": (1.2, 0.1)}[kind]
    return constant + factor * total


@pytest.mark.parametrize("kind", ["scale", "affine", "families", "caches"])
def test_a_device_of_a_known_kind_is_predicted_on_other_networks(kind: str) -> None:
    times, genomes, others = block_times(), networks(60, 1), networks(300, 2)
    fitted = calibrate(SPACE, times, genomes, true_latency(times, genomes, kind))
    predicted = CalibratedCost(SPACE, times, fitted, "fp32").predict(others)
    assert mape_percent(predicted, true_latency(times, others, kind)) < 0.6


def test_blocks_wait_for_memory_where_networks_do_and_nowhere_else() -> None:
    times, genomes = block_times(), networks(60, 1)
    waiting = calibrate(SPACE, times, genomes, true_latency(times, genomes, "caches"))
    assert waiting.waiting is not None
    # Not much in networks that the caches hold, and all where they hold nothing.
    assert waiting.waiting.at(np.array([0.3, 0.8, 2.0])) == pytest.approx([0.0, 0.5, 1.0], abs=0.2)
    # Networks that are the faster the more memory they touch: a price below zero is none.
    wait, touched = (
        AdditiveCost(SPACE, feature(name, SPACE.blocks, times, "fp32")).predict(genomes)
        for name in ("wait", "touched_mb")
    )
    faster = true_latency(times, genomes, "scale") - 0.2 * wait * CACHES.at(touched)
    never_faster = calibrate(SPACE, times, genomes, faster).waiting
    assert never_faster is None or np.max(never_faster.share) < 0.1


@pytest.mark.parametrize(
    ("touched_mb", "share"),
    [
        ([], []),
        ([1.0, 1.0], [0.0, 1.0]),
        ([2.0, 1.0], [0.0, 1.0]),
        ([1.0, 2.0], [1.0, 0.0]),
        ([1.0], [-1.0]),
        ([-1.0], [1.0]),
        ([1.0], [1e308]),
        ([1.0], [float("nan")]),
        ([1.0], []),
    ],
)
def test_waiting_that_cannot_be_is_refused(touched_mb: list[float], share: list[float]) -> None:
    with pytest.raises(InputError):
        decode(Waiting, json.dumps({"touched_mb": touched_mb, "share": share}), source="a table")


@pytest.mark.parametrize(("known", "above_floor"), [(40, 1.6), (96, 1.35)])
@pytest.mark.parametrize("kind", ["scale", "affine", "families", "caches"])
def test_with_noise_other_networks_are_predicted_about_as_well_as_the_noise_allows(
    kind: str, known: int, above_floor: float
) -> None:
    noise_percent = 1.0
    # A normal distribution's mean absolute value is 0.80 of its standard deviation.
    floor = noise_percent * np.sqrt(2 / np.pi)
    errors = []
    for seed in range(4):
        times, genomes, others = block_times(seed), networks(known, seed), networks(400, seed + 100)
        noise = 1 + np.random.default_rng(seed).normal(0, noise_percent / 100, (2, 400))
        fitted = calibrate(SPACE, times, genomes, true_latency(times, genomes, kind) * noise[0, :known])
        predicted = CalibratedCost(SPACE, times, fitted, "fp32").predict(others)
        errors.append(mape_percent(predicted, true_latency(times, others, kind) * noise[1]))
        assert fitted.cross_validated_mape_percent[fitted.model] == min(fitted.cross_validated_mape_percent.values())
    assert np.mean(errors) < above_floor * floor


def test_the_cross_validated_error_is_that_of_networks_left_out() -> None:
    excess = []
    for seed in range(10):
        times, genomes = block_times(), networks(12, seed)
        noise = 1 + np.random.default_rng(seed).normal(0, 0.02, 12)
        measured = true_latency(times, genomes, "families") * noise
        fitted = calibrate(SPACE, times, genomes, measured)
        inside = mape_percent(CalibratedCost(SPACE, times, fitted, "fp32").predict(genomes), measured)
        excess.append(fitted.cross_validated_mape_percent[fitted.model] / inside)
    # An error on the fitted networks themselves would be this figure exactly.
    assert np.median(excess) > 1.05


@pytest.mark.parametrize("seed", range(8))
def test_the_reachable_range_is_found_where_blocks_wait_for_memory(seed: int) -> None:
    space = micro()
    rng = np.random.default_rng(seed)
    hot_ms = rng.uniform(0.05, 0.5, len(space.blocks))
    times = BlockTimes(hot_ms, hot_ms * rng.uniform(1.0, 3.0, len(space.blocks)))
    touched = AdditiveCost(space, feature("touched_mb", space.blocks, times, "fp32")).predict(space.enumerate())
    low, high = np.quantile(touched, np.sort(rng.uniform(0.1, 0.9, 2)))
    fitted = Calibration(
        model="affine",
        strength=0.1,
        waiting=Waiting(touched_mb=(float(low), float(high) + 0.01), share=(0.1, float(rng.uniform(0.2, 1.5)))),
        factors={"time": 1.1, "constant": 0.3},
        cross_validated_mape_percent={"affine": 1.0},
    )
    cost = CalibratedCost(space, times, fitted, "fp32")
    everything = cost.predict(space.enumerate())
    for (latency_ms, genome), extreme in ((cost.dearest(), everything.max()), (cost.cheapest(), everything.min())):
        assert latency_ms == pytest.approx(cost.predict(genome[None])[0])
        assert latency_ms == pytest.approx(extreme, rel=0.01)


@pytest.mark.parametrize("name", ["cifar", "mobile"])
def test_no_random_network_is_beyond_the_reachable_range(name: str) -> None:
    space = find_space(name, channels=3, classes=10)
    rng = np.random.default_rng(0)
    hot_ms = np.array([0.01 + block.macs() / 2e6 for block in space.blocks]) * rng.uniform(0.7, 1.4, len(space.blocks))
    times = BlockTimes(hot_ms, hot_ms * rng.uniform(1.0, 3.0, len(space.blocks)))
    touched = AdditiveCost(space, feature("touched_mb", space.blocks, times, "fp32"))
    low, high = np.quantile(touched.predict(space.sample(500, rng)), [0.1, 0.5])
    fitted = Calibration(
        model="affine",
        strength=0.1,
        waiting=Waiting(touched_mb=(float(low), float(high)), share=(0.0, 1.0)),
        factors={"time": 1.1, "constant": 0.3},
        cross_validated_mape_percent={"affine": 1.0},
    )
    cost = CalibratedCost(space, times, fitted, "fp32")
    hot = AdditiveCost(space, 1.1 * hot_ms, 0.3)
    spread = [space.sample_uniform(5000, rng), space.sample(5000, rng), sample_balanced(hot, 300, rng)]
    latency_ms = cost.predict(np.concatenate(spread))
    assert cost.cheapest()[0] <= latency_ms.min()
    assert cost.dearest()[0] >= latency_ms.max()


def test_features_of_blocks_add_up_over_families_and_sides() -> None:
    times = block_times()
    values = times.latency_ms
    families = sorted({block.family for block in SPACE.blocks})
    assert sum(feature(f"time:{each}", SPACE.blocks, times, "fp32") for each in families) == pytest.approx(values)
    assert sum(feature(f"time@{2**k}", SPACE.blocks, times, "fp32") for k in range(8)) == pytest.approx(values)
    small, large = (feature("weights_mb", SPACE.blocks, times, precision) for precision in ("int8", "fp32"))
    assert (small <= large).all()
    assert small.sum() < 0.5 * large.sum()


@pytest.mark.parametrize("name", ["cifar", "mobile"])
def test_every_block_belongs_to_one_family_and_one_side(name: str) -> None:
    blocks = find_space(name, channels=3, classes=10).blocks
    values = np.random.default_rng(0).uniform(0.1, 1.0, len(blocks))
    times = BlockTimes(values, values)
    for names in (by_family(blocks), by_side(blocks)):
        assert sum(feature(each, blocks, times, "fp32") for each in names) == pytest.approx(values)


def test_layers_are_counted_by_kind() -> None:
    times = block_times()
    figures = {name: feature(name, SPACE.blocks, times, "fp32") for name in LAYERS}
    macs = sum(figures[f"{kind}_mmacs"] for kind in ("dense", "grouped", "product"))
    assert macs == pytest.approx([block.macs() / 1e6 for block in SPACE.blocks])
    families = np.array([block.family for block in SPACE.blocks])
    assert (figures["product_layers"][families == "attention"] > 0).all()
    assert not figures["product_layers"][families == "mbconv"].any()
    assert (figures["grouped_layers"][families == "mbconv"] == 1).all()


def test_blocks_are_told_apart_by_the_images_that_their_networks_take() -> None:
    space = find_space("mobile", channels=3, classes=10)
    values = np.random.default_rng(0).uniform(0.1, 1.0, len(space.blocks))
    times = BlockTimes(values, values)
    split = {size: feature(f"time%{size}", space.blocks, times, "fp32") for size in (128, 160, 192, 224)}
    assert sum(split.values()) == pytest.approx(values)
    for genome in space.sample(20, np.random.default_rng(1)):
        spec = space.lower(genome)
        of_network = np.isin(np.arange(len(values)), [space.blocks.index(placed.block) for placed in spec])
        for size, each in split.items():
            stems = feature(f"networks%{size}", space.blocks, times, "fp32")[of_network]
            assert stems.sum() == (size == spec.input_shape[-1])
            assert np.array_equal(
                each[of_network], values[of_network] if size == spec.input_shape[-1] else 0 * values[of_network]
            )


def test_a_device_that_likes_some_sizes_of_images_is_predicted() -> None:
    space = find_space("mobile", channels=3, classes=10)
    values = np.random.default_rng(0).uniform(0.1, 1.0, len(space.blocks))
    times = BlockTimes(values, values)
    liked = {128: 1.3, 160: 1.2, 192: 1.1, 224: 1.0}
    there = sum(factor * feature(f"time%{size}", space.blocks, times, "fp32") for size, factor in liked.items())
    genomes = space.sample(200, np.random.default_rng(1))
    measured = AdditiveCost(space, there).predict(genomes)
    fitted = calibrate(space, times, genomes[:64], measured[:64])
    assert fitted.model in ("inputs", "all")
    predicted = CalibratedCost(space, times, fitted, "fp32").predict(genomes[64:])
    assert mape_percent(predicted, measured[64:]) < 0.5


@pytest.mark.parametrize("name", ["", "colour", "time%", "time:", "time@x", "__import__"])
def test_an_unknown_feature_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no feature"):
        feature(name, SPACE.blocks, block_times(), "fp32")


def test_factors_count_what_they_name() -> None:
    times, genomes = block_times(), networks(20, 3)
    plain = Calibration(
        model="all", strength=0.1, waiting=None, factors={"time": 1.0}, cross_validated_mape_percent={"all": 1.0}
    )
    base = CalibratedCost(SPACE, times, plain, "fp32").predict(genomes)
    for name, extra in itertools.product(("blocks", "dense_mmacs", "product_layers", "weights_mb"), (0.5, 0.25)):
        more = dataclasses.replace(plain, factors={"time": 1.0, name: extra})
        added = AdditiveCost(SPACE, feature(name, SPACE.blocks, times, "fp32")).predict(genomes)
        assert CalibratedCost(SPACE, times, more, "fp32").predict(genomes) == pytest.approx(base + extra * added)
