from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from predictors.additive import AdditiveCost
from predictors.latency import (
    BlockLatency,
    Calibration,
    LatencyPredictor,
    LatencyTable,
    MeasuredNetwork,
    block_values,
    calibrate,
    calibrated_cost,
    family_sums,
)
from predictors.quality import latency_error, mape_percent
from search_spaces.blocks import FAMILIES
from search_spaces.documents import decode, pretty_json
from search_spaces.errors import InputError
from search_spaces.language import NetworkSpace
from search_spaces.space import Genomes
from search_spaces.spec import block_key
from search_spaces.tiny import tiny

Values = npt.NDArray[np.float64]

SPACE = tiny(1, 10)
PLAIN = Calibration(
    model="scale",
    constant_ms=0.0,
    factors=dict.fromkeys(sorted(FAMILIES), 1.0),
    cross_validated_mape_percent={"scale": 1.0, "affine": 2.0, "families": 3.0},
)
OF_FAMILY = {"attention": 1.6, "convnext": 1.0, "downsample": 1.0, "head": 1.0, "mbconv": 0.7, "stem": 1.0}


def synthetic_values(seed: int = 0) -> Values:
    return np.random.default_rng(seed).uniform(0.05, 0.5, len(SPACE.blocks))


def networks(n: int, seed: int) -> Genomes:
    return SPACE.sample(n, np.random.default_rng(seed))


def true_latency(values: Values, genomes: Genomes, model: str) -> Values:
    """Return whole-network latencies that one of the calibration models describes exactly."""
    if model == "families":
        values = values * np.array([OF_FAMILY[block.family] for block in SPACE.blocks])
        return AdditiveCost(SPACE, values).predict(genomes)
    factor, constant = {"scale": (0.9, 0.0), "affine": (1.2, 0.8)}[model]
    return constant + factor * AdditiveCost(SPACE, values).predict(genomes)


def table(space: NetworkSpace = SPACE, **changes: Any) -> LatencyTable:
    """Return a table of a device that is 10 % slower on networks 0 to 8 than the table says, and 30 % on network 9."""
    values = synthetic_values()
    held_out = networks(10, seed=3)
    predicted = AdditiveCost(SPACE, values).predict(held_out)
    measured = predicted * np.array([1.1] * 9 + [1.3])
    error = latency_error(predicted, measured, measured)
    complete = LatencyTable(
        format_version=LatencyTable.CURRENT_VERSION,
        device="cpu",
        fingerprint={"cpu": "made up", "threads": 1, "flags": ["a", "b"], "nested": {"x": None}},
        fingerprint_hash="0123",
        conditions={"load": 0.5},
        space_hash=space.hash,
        statistic="min",
        exporter="none",
        created="2026-01-01T00:00:00Z",
        seed=0,
        blocks=tuple(
            BlockLatency(block=block_key(block), latency_ms=value, in_context_ms=value + 0.1, noise_percent=0.5)
            for block, value in zip(SPACE.blocks, values.tolist(), strict=True)
        ),
        calibration=PLAIN,
        calibration_networks=(MeasuredNetwork(genes=(0,) * SPACE.n_genes, measured_ms=1.0, repeated_ms=1.1),),
        held_out=tuple(
            MeasuredNetwork(genes=tuple(genome), measured_ms=ms, repeated_ms=ms)
            for genome, ms in zip(held_out.tolist(), measured.tolist(), strict=True)
        ),
        error=error,
        plain_error=error,
    )
    return dataclasses.replace(complete, **changes)


def test_block_values_stand_in_the_order_of_the_space() -> None:
    latency_ms = {block_key(block): float(number) for number, block in enumerate(SPACE.blocks)}
    backwards = dict(reversed(latency_ms.items())) | {"another space's block": 1.0}
    assert block_values(SPACE, backwards).tolist() == list(range(len(SPACE.blocks)))


def test_missing_blocks_are_counted_and_one_is_named() -> None:
    latency_ms = {block_key(block): 1.0 for block in SPACE.blocks[2:]}
    with pytest.raises(InputError) as caught:
        block_values(SPACE, latency_ms)
    assert "lacks 2 of the space's blocks" in str(caught.value)
    assert block_key(SPACE.blocks[0]) in str(caught.value)


def test_sums_by_family_add_up() -> None:
    values, genomes = synthetic_values(), networks(50, seed=1)
    families = sorted(FAMILIES)
    sums = family_sums(SPACE, values, genomes, families)
    assert sums.shape == (50, len(families))
    assert sums.sum(axis=1) == pytest.approx(AdditiveCost(SPACE, values).predict(genomes))
    of_block = dict(zip(SPACE.blocks, values.tolist(), strict=True))
    for genome, row in zip(genomes[:10], sums, strict=False):
        for family, total in zip(families, row.tolist(), strict=True):
            blocks = [placed.block for placed in SPACE.lower(genome)]
            assert total == pytest.approx(sum(of_block[block] for block in blocks if block.family == family))


def test_an_affine_device_is_recovered() -> None:
    values, genomes = synthetic_values(), networks(16, seed=1)
    calibration = calibrate(SPACE, values, genomes, true_latency(values, genomes, "affine"))
    assert calibration.model == "affine"
    assert calibration.constant_ms == pytest.approx(0.8)
    assert calibration.factors == pytest.approx(dict.fromkeys(FAMILIES, 1.2))
    assert calibration.cross_validated_mape_percent["affine"] < 1e-6
    assert calibration.cross_validated_mape_percent["scale"] > 1.0


def test_a_device_that_is_slower_by_a_factor_is_recovered() -> None:
    values, genomes = synthetic_values(), networks(16, seed=1)
    calibration = calibrate(SPACE, values, genomes, true_latency(values, genomes, "scale"))
    assert calibration.constant_ms == pytest.approx(0.0, abs=1e-9)
    assert calibration.factors == pytest.approx(dict.fromkeys(FAMILIES, 0.9))


def test_a_device_with_a_factor_per_family_is_recovered() -> None:
    values, genomes = synthetic_values(), networks(40, seed=1)
    calibration = calibrate(SPACE, values, genomes, true_latency(values, genomes, "families"))
    assert calibration.model == "families"
    assert calibration.constant_ms == 0.0
    for family in ("attention", "convnext", "mbconv"):
        assert calibration.factors[family] == pytest.approx(OF_FAMILY[family], rel=0.05)


@pytest.mark.parametrize("model", ["scale", "affine", "families"])
def test_calibration_with_noise_predicts_other_networks_as_well_as_the_noise_allows(model: str) -> None:
    noise_percent = 1.0
    # A normal distribution's mean absolute value is 0.80 of its standard deviation.
    floor = noise_percent * np.sqrt(2 / np.pi)
    errors = []
    for seed in range(5):
        values, genomes, others = synthetic_values(seed), networks(24, seed), networks(400, seed + 100)
        rng = np.random.default_rng(seed)
        noise = 1 + rng.normal(0, noise_percent / 100, (2, 400))
        measured = true_latency(values, genomes, model) * noise[0, :24]
        calibration = calibrate(SPACE, values, genomes, measured)
        predicted = calibrated_cost(SPACE, values, calibration).predict(others)
        errors.append(mape_percent(predicted, true_latency(values, others, model) * noise[1]))
        figures = calibration.cross_validated_mape_percent
        assert figures[calibration.model] == min(figures.values())
    assert np.mean(errors) < 1.3 * floor


def test_the_cross_validated_error_is_that_of_networks_left_out() -> None:
    excess = []
    for seed in range(10):
        values, genomes = synthetic_values(), networks(12, seed)
        noise = 1 + np.random.default_rng(seed).normal(0, 0.02, 12)
        measured = true_latency(values, genomes, "families") * noise
        calibration = calibrate(SPACE, values, genomes, measured)
        fitted = calibrated_cost(SPACE, values, calibration).predict(genomes)
        excess.append(calibration.cross_validated_mape_percent[calibration.model] / mape_percent(fitted, measured))
    # Six factors on twelve networks: an error on the fitted networks themselves would look far too good.
    assert np.median(excess) > 1.3


def test_a_family_that_no_network_has_keeps_the_common_factor() -> None:
    values, genomes = synthetic_values(), networks(2000, seed=1)
    sums = family_sums(SPACE, values, genomes, ["attention"])[:, 0]
    without = genomes[sums == 0][:40]
    assert len(without) == 40
    measured = true_latency(values, without, "families")
    calibration = calibrate(SPACE, values, without, measured)
    ratio = AdditiveCost(SPACE, values).predict(without) / measured
    assert calibration.model == "families"
    # The factor that minimises the squared relative error.
    assert calibration.factors["attention"] == pytest.approx(float(ratio.sum() / (ratio**2).sum()))


def test_a_calibrated_cost_scales_blocks_by_family_and_adds_the_constant_once() -> None:
    values, genomes = synthetic_values(), networks(20, seed=1)
    calibration = dataclasses.replace(PLAIN, constant_ms=0.25, factors=OF_FAMILY)
    predicted = calibrated_cost(SPACE, values, calibration).predict(genomes)
    assert predicted == pytest.approx(0.25 + true_latency(values, genomes, "families"))


def test_a_table_predicts_what_its_calibration_says() -> None:
    genomes = networks(20, seed=1)
    calibration = dataclasses.replace(PLAIN, constant_ms=0.25, factors=OF_FAMILY)
    predicted = LatencyPredictor(SPACE, table(calibration=calibration)).predict(genomes)
    assert predicted == pytest.approx(0.25 + true_latency(synthetic_values(), genomes, "families"))


def test_a_table_of_another_space_is_refused() -> None:
    other = tiny(3, 10)
    with pytest.raises(InputError) as caught:
        LatencyPredictor(other, table())
    for part in ("cpu", SPACE.hash, other.hash, "nas build-lut --device cpu"):
        assert part in str(caught.value)


def test_a_table_that_lacks_a_block_is_refused() -> None:
    with pytest.raises(InputError, match="lacks 1 of the space's blocks"):
        LatencyPredictor(SPACE, table(blocks=table().blocks[1:]))


def test_a_table_that_does_not_calibrate_a_family_is_refused() -> None:
    factors = {family: 1.0 for family in FAMILIES if family not in {"mbconv", "head"}}
    with pytest.raises(InputError, match="no calibration for head, mbconv"):
        LatencyPredictor(SPACE, table(calibration=dataclasses.replace(PLAIN, factors=factors)))


def test_a_table_with_networks_that_the_space_does_not_have_is_refused() -> None:
    first, *others = table().held_out
    with pytest.raises(InputError, match=r"gene 'stage1\.width' has index 99"):
        LatencyPredictor(SPACE, table(held_out=(dataclasses.replace(first, genes=(99, *first.genes[1:])), *others)))


def test_nine_of_ten_held_out_networks_are_not_slower_than_the_margin_says() -> None:
    # Nine are 10 % slower than predicted, one 30 %; the quantile interpolates.
    assert LatencyPredictor(SPACE, table()).margin == pytest.approx(0.1 + 0.1 * 0.2)


def test_the_margin_of_a_table_that_is_too_slow_is_zero() -> None:
    twice = dataclasses.replace(PLAIN, factors=dict.fromkeys(FAMILIES, 2.0))
    assert LatencyPredictor(SPACE, table(calibration=twice)).margin == 0.0


def test_a_table_comes_back_from_json() -> None:
    assert decode(LatencyTable, pretty_json(table()), source="lut.json") == table()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("statistic",), "median"),
        (("calibration", "model"), "cubic"),
        (("calibration", "factors", "stem"), "1.0"),
        (("calibration", "cross_validated_mape_percent", "affine"), float("nan")),
        (("blocks", 0, "latency_ms"), float("inf")),
        (("blocks", 0, "colour"), "red"),
        (("held_out", 0, "genes", 0), 0.5),
        (("held_out", 0, "measured_ms"), 0.0),
        (("calibration_networks", 0, "repeated_ms"), -1.0),
        (("held_out",), []),
        (("error", "spearman"), None),
        (("seed",), True),
    ],
)
def test_a_table_that_was_tampered_with_is_refused(path: tuple[str | int, ...], value: object) -> None:
    plain = json.loads(pretty_json(table()))
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(InputError, match=r"^lut\.json: " + r"\.".join(map(str, path))):
        decode(LatencyTable, json.dumps(plain), source="lut.json")
