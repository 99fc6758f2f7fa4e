"""What a budget means: what is read, what is refused with the reachable range, what does not bind."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from nas.budget import Budget, parse_budget, parse_statistic
from predictors.latency import LatencyPredictor
from search_spaces.errors import InputError
from search_spaces.tiny import tiny
from tests.nas.synthetic_latency import synthetic_latency, synthetic_table


@pytest.fixture(scope="module")
def latency() -> LatencyPredictor:
    return synthetic_latency(tiny(1, 10))


@pytest.fixture(scope="module")
def reachable(latency: LatencyPredictor) -> tuple[float, float]:
    fastest, slowest = latency.cheapest()[0], latency.dearest()[0]
    assert 0.2 < fastest < slowest < 100
    return fastest, slowest


@pytest.mark.parametrize(("text", "share"), [("0%", 0.0), ("25%", 0.25), ("50%", 0.5), ("12.5%", 0.125), ("100%", 1.0)])
def test_a_share_is_one_of_the_reachable_range(
    latency: LatencyPredictor, reachable: tuple[float, float], text: str, share: float
) -> None:
    budget = parse_budget(text, latency)
    fastest, slowest = reachable
    assert budget.limit_ms == pytest.approx(fastest + share * (slowest - fastest))
    assert budget.reachable_ms == reachable


def test_milliseconds_are_taken_as_they_are(latency: LatencyPredictor, reachable: tuple[float, float]) -> None:
    middle = sum(reachable) / 2
    budget = parse_budget(repr(middle), latency)
    assert (budget.limit_ms, budget.binds) == (middle, True)
    assert parse_budget("1e2", latency).limit_ms == 100


@pytest.mark.parametrize(
    "text", ["-1", "abc", "nan", "inf", "-inf", "120%", "100.1%", "-5%", "nan%", "inf%", "abc%", "", "%", "5 ms", "1,5"]
)
def test_what_is_no_budget_is_refused_with_examples(latency: LatencyPredictor, text: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_budget(text, latency)
    message = str(refusal.value)
    assert repr(text) in message
    assert "milliseconds, such as 10" in message
    assert "100%" in message


@pytest.mark.parametrize("text", ["0.2", "0", "1e-9"])
def test_below_the_cheapest_network_the_reachable_range_is_told(
    latency: LatencyPredictor, reachable: tuple[float, float], text: str
) -> None:
    with pytest.raises(InputError) as refusal:
        parse_budget(text, latency)
    message = str(refusal.value)
    assert f"{float(text):g} ms" in message
    assert "cpu" in message
    figures = [float(figure) for figure in re.findall(r"([\d.]+) ms", message.partition("reaches")[2])]
    assert figures == pytest.approx(reachable, rel=0.001)
    assert "\n" not in message


def test_the_fastest_network_itself_is_a_budget(latency: LatencyPredictor, reachable: tuple[float, float]) -> None:
    fastest = reachable[0]
    budget = parse_budget(repr(fastest), latency)
    assert budget.limit_ms == fastest
    assert (latency.predict(latency.cheapest()[1][None]) <= budget.predicted_limit_ms).all()
    with pytest.raises(InputError, match="no network"):
        parse_budget(repr(fastest * (1 - 1e-9)), latency)


@pytest.mark.parametrize("seed", range(6))
def test_the_least_budget_that_a_refusal_names_is_accepted(seed: int) -> None:
    space = tiny(1, 10)
    latency = LatencyPredictor(space, synthetic_table(space, seed=seed))
    with pytest.raises(InputError, match="raise --budget-ms to at least") as refusal:
        parse_budget("0.2", latency)
    budget = parse_budget(str(refusal.value).rsplit(" ", 1)[1], latency)
    # If it is as fast as predicted, the fastest network is measured far enough inside to be returned.
    assert latency.cheapest()[0] <= budget.measured_limit_ms
    assert budget.measured_limit_ms == pytest.approx(latency.cheapest()[0], rel=0.001)


def test_a_budget_binds_as_long_as_it_keeps_a_network_out(
    latency: LatencyPredictor, reachable: tuple[float, float]
) -> None:
    # Predictions keep a margin: a budget must be above the slowest network by as much to let it in.
    enough = reachable[1] * (1 + parse_budget(None, latency).margin)
    for text, binds in ((enough * 0.999, True), (enough * 1.001, False), (1e6, False), (reachable[0], True)):
        budget = parse_budget(repr(text), latency)
        assert budget.binds is binds
        assert (latency.predict(latency.dearest()[1][None])[0] > budget.predicted_limit_ms) is np.bool_(binds)


def test_predictions_keep_the_margin_of_the_table_and_measurements_its_noise(
    latency: LatencyPredictor, reachable: tuple[float, float]
) -> None:
    budget = parse_budget("50%", latency)
    assert budget.margin == latency.margin
    assert budget.noise < budget.margin < 0.1
    assert budget.limit_ms is not None
    assert budget.predicted_limit_ms * (1 + budget.margin) == pytest.approx(budget.limit_ms)
    assert reachable[0] < budget.predicted_limit_ms < budget.limit_ms
    assert budget.noise == latency.repeat_margin > latency.table.error.noise_floor_percent / 100
    assert budget.measured_limit_ms * (1 + budget.noise) == pytest.approx(budget.limit_ms)
    assert budget.measured_limit_ms < budget.limit_ms


def test_where_measurements_differ_by_more_than_predictions_err_all_margins_are_as_wide(
    latency: LatencyPredictor,
) -> None:
    disturbed, *rest = latency.table.held_out
    twice = dataclasses.replace(disturbed, repeated_ms=1.2 * disturbed.measured_ms)
    noisy = LatencyPredictor(latency.space, dataclasses.replace(latency.table, held_out=(twice, *rest)))
    budget = parse_budget("50%", noisy)
    assert budget.noise == budget.margin == budget.wide_margin == pytest.approx(0.2)


def test_the_margin_never_excludes_the_fastest_network() -> None:
    budget = Budget(limit_ms=1.001, reachable_ms=(1.0, 9.0), margin=0.05, wide_margin=0.1, noise=0.0)
    assert budget.predicted_limit_ms == 1.0


def test_where_nobody_measures_the_margin_is_that_of_the_worst_prediction(latency: LatencyPredictor) -> None:
    budget = parse_budget("50%", latency)
    assert budget.limit_ms is not None
    assert budget.wide_margin == latency.held_out_ratios().max() - 1.0 > budget.margin
    assert budget.unmeasured_limit_ms * (1 + budget.wide_margin) == pytest.approx(budget.limit_ms)


def test_no_budget_bounds_nothing(latency: LatencyPredictor, reachable: tuple[float, float]) -> None:
    budget = parse_budget(None, latency)
    assert (budget.limit_ms, budget.binds, budget.reachable_ms) == (None, False, reachable)
    assert budget.predicted_limit_ms == budget.measured_limit_ms == budget.unmeasured_limit_ms == math.inf


def test_a_budget_at_a_percentile_is_one_of_running_back_to_back(latency: LatencyPredictor) -> None:
    plain, sustained = parse_budget("50%", latency), parse_budget("50%", latency, at="p90")
    told = latency.table.sustained["p90"]
    assert told.ratio > 1.01
    assert sustained.reachable_ms == pytest.approx([end * told.ratio for end in plain.reachable_ms])
    assert plain.limit_ms is not None
    assert sustained.limit_ms == pytest.approx(plain.limit_ms * told.ratio)
    # What a percentile varies by comes to what the table's predictions err by.
    assert told.mape_percent > 0
    error = told.mape_percent / 100
    assert sustained.noise == max(plain.noise, 2 * error)
    # Twice the error is more than that of a prediction and the error once.
    assert sustained.margin == sustained.noise == 2 * error > (1 + plain.margin) * (1 + error) - 1
    assert sustained.wide_margin == pytest.approx((1 + plain.wide_margin) * (1 + 2 * error) - 1)


def test_a_percentile_that_the_table_does_not_tell_is_refused(latency: LatencyPredictor) -> None:
    table = dataclasses.replace(latency.table, sustained={})
    with pytest.raises(InputError, match="does not tell p50"):
        parse_budget("50%", LatencyPredictor(latency.space, table), at="p50")


def test_an_unknown_statistic_is_refused_naming_those_there_are() -> None:
    assert [parse_statistic(name) for name in ("min", "p50", "p90")] == ["min", "p50", "p90"]
    with pytest.raises(InputError, match="--budget-at is min, p50 or p90, not 'p99'"):
        parse_statistic("p99")
