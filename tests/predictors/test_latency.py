from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from predictors.additive import AdditiveCost
from predictors.calibration import Calibration, Waiting
from predictors.footprint import SizeFit, fit_size
from predictors.latency import (
    BlockLatency,
    LatencyPredictor,
    LatencyTable,
    MeasuredNetwork,
    SustainedRatio,
    block_times,
    sustained_ratio,
)
from predictors.quality import latency_error
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
    strength=0.1,
    waiting=None,
    factors={"time": 1.0},
    cross_validated_mape_percent={"scale": 1.0, "affine": 2.0, "families": 3.0},
)


def synthetic_values(seed: int = 0) -> Values:
    return np.random.default_rng(seed).uniform(0.05, 0.5, len(SPACE.blocks))


def networks(n: int, seed: int) -> Genomes:
    return SPACE.sample(n, np.random.default_rng(seed))


def table(space: NetworkSpace = SPACE, **changes: Any) -> LatencyTable:
    """Return a table of a device that is 10 % slower on networks 0 to 8 than the table says, and 30 % on network 9."""
    values = synthetic_values()
    held_out = networks(10, seed=3)
    predicted = AdditiveCost(SPACE, values).predict(held_out)
    measured = predicted * np.array([1.1] * 9 + [1.3])
    error = latency_error(predicted, measured, measured, measured)
    complete = LatencyTable(
        format_version=LatencyTable.CURRENT_VERSION,
        device="cpu",
        precision="fp32",
        batch=1,
        fingerprint={"cpu": "made up", "threads": 1, "flags": ["a", "b"], "nested": {"x": None}},
        fingerprint_hash="0123",
        conditions={"load": 0.5},
        space_hash=space.hash,
        statistic="lower quartile of steady rounds",
        exporter="none",
        created="2026-01-01T00:00:00Z",
        seed=0,
        blocks=tuple(
            BlockLatency(
                block=block_key(block),
                latency_ms=value,
                cold_ms=value + 0.2,
                in_context_ms=value + 0.1,
                noise_percent=0.5,
                rounds_ms=(value,),
                first_ms=(value + 0.3,),
            )
            for block, value in zip(SPACE.blocks, values.tolist(), strict=True)
        ),
        calibration=PLAIN,
        calibration_networks=(MeasuredNetwork(genes=(0,) * SPACE.n_genes, measured_ms=1.0, repeated_ms=1.1),),
        held_out=tuple(
            MeasuredNetwork(genes=tuple(genome), measured_ms=ms, repeated_ms=ms)
            for genome, ms in zip(held_out.tolist(), measured.tolist(), strict=True)
        ),
        sustained={"p90": SustainedRatio(ratio=1.5, mape_percent=2.0)},
        sizes={"file_mb": SizeFit(constant_mb=1.0, per_block_mb=0.0, per_weight_mb=1.5, mape_percent=0.0)},
        error=error,
        plain_error=error,
        macs_error=error,
    )
    return dataclasses.replace(complete, **changes)


def test_block_times_stand_in_the_order_of_the_space() -> None:
    entries = table().blocks
    another = dataclasses.replace(entries[0], block="another space's block")
    times = block_times(SPACE, [another, *reversed(entries)])
    assert times.latency_ms.tolist() == [entry.latency_ms for entry in entries]
    assert times.cold_ms.tolist() == [entry.cold_ms for entry in entries]


def test_missing_blocks_are_counted_and_one_is_named() -> None:
    with pytest.raises(InputError) as caught:
        block_times(SPACE, table().blocks[2:])
    assert "lacks 2 of the space's blocks" in str(caught.value)
    assert block_key(SPACE.blocks[0]) in str(caught.value)


def test_a_table_predicts_what_its_calibration_says() -> None:
    genomes = networks(20, seed=1)
    calibration = dataclasses.replace(PLAIN, factors={"time": 1.5, "constant": 0.25})
    predicted = LatencyPredictor(SPACE, table(calibration=calibration)).predict(genomes)
    assert predicted == pytest.approx(0.25 + 1.5 * AdditiveCost(SPACE, synthetic_values()).predict(genomes))


def test_a_table_of_another_space_is_refused() -> None:
    other = tiny(3, 10)
    with pytest.raises(InputError) as caught:
        LatencyPredictor(other, table())
    for part in ("cpu", SPACE.hash, other.hash, "measure one for this space"):
        assert part in str(caught.value)


def test_a_table_that_lacks_a_block_is_refused() -> None:
    with pytest.raises(InputError, match="lacks 1 of the space's blocks"):
        LatencyPredictor(SPACE, table(blocks=table().blocks[1:]))


def test_a_table_that_counts_on_an_unknown_feature_is_refused() -> None:
    unknown = dataclasses.replace(PLAIN, factors={"time": 1.0, "colour": 1.0})
    with pytest.raises(InputError, match="'colour'"):
        LatencyPredictor(SPACE, table(calibration=unknown))


@pytest.mark.parametrize("factors", [{}, {"constant": 1.0}, {"time": 0.0, "constant": 1.0}, {"time": -1.0}])
def test_a_table_that_does_not_count_time_is_refused(factors: dict[str, float]) -> None:
    # Waiting for memory and constants alone may look like latencies.
    waiting = Waiting(touched_mb=(1.0, 2.0), share=(0.5, 0.5))
    odd = dataclasses.replace(PLAIN, factors=factors, waiting=waiting)
    with pytest.raises(InputError, match="does not count the time of blocks"):
        LatencyPredictor(SPACE, table(calibration=odd))


def test_a_table_with_networks_that_the_space_does_not_have_is_refused() -> None:
    first, *others = table().held_out
    with pytest.raises(InputError, match=r"gene 'stage1\.width' has index 99"):
        LatencyPredictor(SPACE, table(held_out=(dataclasses.replace(first, genes=(99, *first.genes[1:])), *others)))


def test_columns_hold_all_that_the_table_tells() -> None:
    predictor = LatencyPredictor(SPACE, table())
    genomes = networks(30, seed=2)
    columns = predictor.columns(genomes)
    assert list(columns) == [
        "latency_ms",
        "low_ms",
        "high_ms",
        *(f"{name}_ms" for name in table().sustained),
        "file_mb",
    ]
    assert columns["latency_ms"].tolist() == predictor.predict(genomes).tolist()
    assert (columns["low_ms"] < columns["latency_ms"]).all()
    assert (columns["latency_ms"] < columns["high_ms"]).all()
    weights_mb = [sum(placed.block.weight_bytes("fp32") for placed in SPACE.lower(each)) / 1e6 for each in genomes]
    assert columns["file_mb"].to_numpy() == pytest.approx(1.0 + 1.5 * np.array(weights_mb))


def test_sizes_are_a_line_through_blocks_and_weights() -> None:
    genomes = networks(30, seed=4)
    true = SizeFit(constant_mb=20.0, per_block_mb=0.02, per_weight_mb=3.0, mape_percent=0.0)
    for precision in ("fp32", "int8"):
        sizes_mb = true.cost(SPACE, precision).predict(genomes)
        found = fit_size(SPACE, genomes[:8], sizes_mb[:8], precision)
        assert found.cost(SPACE, precision).predict(genomes) == pytest.approx(sizes_mb)
        assert found.mape_percent == pytest.approx(0.0, abs=1e-6)


def test_nine_of_ten_held_out_networks_are_not_slower_than_the_margin_says() -> None:
    # Nine are 10 % slower than predicted, one 30 %; the quantile interpolates.
    assert LatencyPredictor(SPACE, table()).margin == pytest.approx(0.1 + 0.1 * 0.2)


def test_the_margin_of_a_table_that_is_too_slow_is_zero() -> None:
    twice = dataclasses.replace(PLAIN, factors={"time": 2.0})
    assert LatencyPredictor(SPACE, table(calibration=twice)).margin == 0.0


@pytest.mark.parametrize("largest", [(1.0, 1.06), (1.06, 1.0)], ids=["second", "first"])
def test_no_second_measurement_is_slower_than_the_repeat_margin_says(largest: tuple[float, float]) -> None:
    genes = table().held_out[0].genes
    pairs = [(1.0, 1.01), (2.0, 2.1), largest, (3.0, None)]
    networks = tuple(MeasuredNetwork(genes=genes, measured_ms=one, repeated_ms=other) for one, other in pairs)
    # What was slower the first time could be slower the next time.
    assert LatencyPredictor(SPACE, table(held_out=networks)).repeat_margin == pytest.approx(0.06)


def test_a_table_of_networks_measured_once_has_no_repeat_margin() -> None:
    networks = tuple(dataclasses.replace(each, repeated_ms=None) for each in table().held_out)
    assert LatencyPredictor(SPACE, table(held_out=networks)).repeat_margin == 0.0


def test_an_interval_holds_as_many_held_out_networks_as_it_says() -> None:
    latency = LatencyPredictor(SPACE, table())
    genomes = networks(10, seed=3)
    low, high = latency.interval(genomes, coverage=0.8)
    # Nine are 10 % slower than predicted: the conformal rank, ceil(11 * 0.8), is the ninth.
    assert high == pytest.approx(1.1 * latency.predict(genomes))
    assert low == pytest.approx(0.9 * latency.predict(genomes))
    with pytest.raises(InputError, match="10 held-out networks"):
        latency.interval(genomes, coverage=0.95)


def test_a_percentile_is_its_ratio_to_the_latency() -> None:
    latency, genomes = LatencyPredictor(SPACE, table()), networks(10, seed=3)
    assert latency.predict_percentile(genomes, "p90") == pytest.approx(1.5 * latency.predict(genomes))
    with pytest.raises(InputError, match="does not tell p50"):
        latency.predict_percentile(genomes, "p50")


def test_the_ratio_of_a_percentile_is_the_median_over_networks() -> None:
    ratio = sustained_ratio(np.array([1.0, 2.0, 4.0]), np.array([1.1, 2.4, 5.2]))
    assert ratio.ratio == pytest.approx(1.2)
    assert ratio.mape_percent == pytest.approx(100 * np.mean([0.1 / 1.1, 0.0, 0.4 / 5.2]))


def test_a_table_comes_back_from_json() -> None:
    assert decode(LatencyTable, pretty_json(table()), source="lut.json") == table()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("statistic",), "median"),
        (("calibration", "model"), "cubic"),
        (("calibration", "factors", "time"), "1.0"),
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
