"""What a search is for: costs by name, bounds that are refused with what can be reached, several costs traded off."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from nas.budget import Budget, parse_budget
from nas.goal import Goal, Target, exact_costs
from nas.search_plan import SearchSettings
from predictors.latency import LatencyPredictor
from search_spaces.errors import InputError
from tests.nas.synthetic_search import LATENCY, OTHER, SETTINGS, SPACE, goal_of, search, tuples

GENOMES = SPACE.sample(300, np.random.default_rng(3))
PLAIN = dataclasses.replace(SETTINGS, compare=None)


def test_every_cost_is_that_of_the_network() -> None:
    goal = goal_of()
    specs = [SPACE.lower(genome) for genome in GENOMES[:20]]
    np.testing.assert_array_equal(goal.predict("params", GENOMES[:20]), [spec.params() for spec in specs])
    np.testing.assert_array_equal(goal.predict("macs", GENOMES[:20]), [spec.macs() for spec in specs])
    columns = LATENCY.columns(GENOMES)
    for name in ("latency_ms", "file_mb", "memory_mb"):
        np.testing.assert_allclose(goal.predict(name, GENOMES), columns[name])
    assert goal.costs.keys() == {"params", "macs", "latency_ms", "file_mb", "memory_mb"}


def test_the_ends_of_every_cost_are_inside_which_all_networks_are() -> None:
    for name, cost in exact_costs(LATENCY).items():
        values = cost.predict(GENOMES)
        assert cost.cheapest()[0] <= values.min() < values.max() <= cost.dearest()[0], name


def test_latency_is_counted_as_the_budget_counts_it() -> None:
    goal = goal_of("50%", at="p90")
    np.testing.assert_allclose(goal.predict("latency_ms", GENOMES), LATENCY.predict_percentile(GENOMES, "p90"))
    kept = goal.keeps(GENOMES, lambda target: target.budget.predicted_limit_ms)
    assert goal.budget.limit_ms is not None
    assert 0 < kept.sum() < len(kept)
    assert LATENCY.predict_percentile(GENOMES, "p90")[kept].max() <= goal.budget.limit_ms


@pytest.mark.parametrize(
    ("objectives", "expected"),
    [
        ((), ("latency_ms",)),
        (("accuracy",), ("latency_ms",)),
        (("params",), ("params",)),
        (("accuracy", "latency_ms", "params", "params"), ("latency_ms", "params")),
    ],
)
def test_accuracy_is_always_traded_off_and_latency_by_default(
    objectives: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    goal = goal_of("50%", objectives=objectives)
    assert goal.objectives == expected
    asked, constraints = goal.asked_of(lambda genomes: np.zeros(len(genomes)))
    assert [each.name for each in asked] == ["accuracy", *expected]
    assert [each.maximize for each in asked] == [True, *(False for _ in expected)]
    assert [each.name for each in constraints] == ["latency_ms"]


def test_without_a_budget_nothing_but_the_bounds_is_kept() -> None:
    limit = float(np.median(goal_of().predict("params", GENOMES)))
    goal = goal_of(bounds={"params": limit, "file_mb": None})
    assert goal.bounds == {"params": limit}
    kept = goal.keeps(GENOMES, lambda target: target.budget.predicted_limit_ms)
    np.testing.assert_array_equal(kept, goal.predict("params", GENOMES) <= limit)
    _, constraints = goal.asked_of(lambda genomes: np.zeros(len(genomes)))
    assert [(each.name, each.upper) for each in constraints] == [("params", limit)]


def test_the_search_starts_from_the_cheapest_networks_that_keep_everything() -> None:
    costs = exact_costs(LATENCY)
    fastest, fewest = costs["latency_ms"].cheapest()[1], costs["params"].cheapest()[1]
    both = goal_of("60%", bounds={"params": costs["params"].dearest()[0]}).cheapest()
    assert set(tuples(both)) == {tuple(fastest), tuple(fewest)}
    only = goal_of("60%", bounds={"params": costs["params"].cheapest()[0]}).cheapest()
    assert tuples(only) == [tuple(fewest)]


@pytest.mark.parametrize(("name", "nearest"), [("latency", "latency_ms"), ("param", "params"), ("memory", "memory_mb")])
def test_an_unknown_cost_is_refused_naming_the_nearest(name: str, nearest: str) -> None:
    for asked in ({"objectives": [name]}, {"bounds": {name: 1.0}}):
        with pytest.raises(InputError, match=f"unknown cost on device cpu {name!r}; did you mean {nearest!r}"):
            goal_of(**asked)


def test_a_size_that_the_table_does_not_tell_is_unknown() -> None:
    table = dataclasses.replace(LATENCY.table, sizes={})
    with pytest.raises(InputError, match="unknown cost on device cpu 'memory_mb'"):
        goal_of(latency=LatencyPredictor(SPACE, table), bounds={"memory_mb": 100.0})


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_no_network_keeps_is_refused_with_the_range(limit: float) -> None:
    with pytest.raises(InputError, match=f"params <= {limit:g}: it reaches from ") as refusal:
        goal_of("50%", bounds={"params": limit})
    # The smallest value that is told is accepted.
    least = float(str(refusal.value).split("from ")[1].split(" to ")[0])
    assert len(goal_of(bounds={"params": least}).cheapest())


def test_latency_is_bounded_by_the_budget_alone() -> None:
    with pytest.raises(InputError, match="latency_ms is bounded by the budget"):
        goal_of("50%", bounds={"latency_ms": 5.0})


def test_a_goal_can_be_typed_again() -> None:
    goal = goal_of("50%", at="p50", objectives=["params", "latency_ms"], bounds={"file_mb": 0.7})
    words = goal.options.split()
    assert words[0::2] == ["--budget-ms", "--budget-at", "--max-size-mb", "--objective", "--objective"]
    assert words[3::2] == ["p50", "0.7", "params", "latency_ms"]
    assert goal.budget.limit_ms is not None
    assert float(words[1]) == pytest.approx(goal.budget.limit_ms)
    assert goal_of().options == ""


def test_the_worst_that_is_compared_is_what_is_allowed_and_can_be_reached() -> None:
    costs = exact_costs(LATENCY)
    dearest = costs["params"].dearest()[0]
    goal = goal_of("50%", bounds={"params": dearest / 2})
    assert (goal.most("latency_ms"), goal.most("params")) == (goal.budget.limit_ms, dearest / 2)
    assert goal.most("macs") == costs["macs"].dearest()[0]
    assert goal_of("1000").most("latency_ms") == LATENCY.dearest()[0]


def test_bounds_that_only_contradict_each_other_are_refused_with_both_ranges(tmp_path: Path) -> None:
    # Small files take many cheap operators, fast networks few: no network has the least of both.
    costs = exact_costs(LATENCY)
    fastest, smallest = costs["latency_ms"].cheapest(), costs["params"].cheapest()
    assert costs["params"].predict(fastest[1][None])[0] > smallest[0]
    exact = Budget(
        limit_ms=fastest[0], reachable_ms=(fastest[0], LATENCY.dearest()[0]), margin=0.0, wide_margin=0.0, noise=0.0
    )
    goal = Goal((Target(LATENCY, exact),), ("latency_ms",), {"params": smallest[0]})
    assert not len(goal.cheapest())
    with pytest.raises(InputError, match=r"no network keeps all bounds at once: .*latency_ms.*reachable.*params"):
        goal_search(tmp_path, goal)


def goal_search(folder: Path, goal: Goal) -> None:
    from nas.ledger import Ledger
    from nas.subnet_search import search_subnets
    from tests.nas.synthetic_search import SyntheticEvaluator

    search_subnets(SyntheticEvaluator(Ledger(folder / "ledger.db")), goal, PLAIN)


def test_a_search_keeps_bounds_on_sizes(tmp_path: Path) -> None:
    low, high = exact_costs(LATENCY)["params"].cheapest()[0], exact_costs(LATENCY)["params"].dearest()[0]
    limit = low + 0.1 * (high - low)
    settings = dataclasses.replace(PLAIN, strategy="random")
    found = search(tmp_path, None, bounds={"params": limit}, settings=settings)
    assert len(found.outcome.found.genomes) == settings.evaluations
    assert found.goal.predict("params", found.outcome.found.genomes).max() <= limit


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "evaluations"), [("predictor", 44), ("nsga2", 300)])
def test_a_search_trades_off_three_figures(tmp_path: Path, strategy: str, evaluations: int) -> None:
    settings = SearchSettings(strategy=strategy, evaluations=evaluations, compare="random")
    found = search(tmp_path, "60%", objectives=["latency_ms", "params"], settings=settings)
    arm = found.outcome.found
    expected = np.stack([1 - arm.accuracy, LATENCY.predict(arm.genomes), found.goal.predict("params", arm.genomes)])
    np.testing.assert_array_equal(arm.objectives, expected.T)
    comparison = found.outcome.comparison(found.goal, settings)
    assert comparison is not None
    assert list(comparison.reference) == ["error", "latency_ms", "params"]
    assert comparison.reference["latency_ms"] == found.limit_ms
    assert comparison.hypervolume > comparison.against_hypervolume > 0


def test_a_search_ends_when_its_time_is_over(tmp_path: Path) -> None:
    settings = dataclasses.replace(PLAIN, strategy="random", time_limit_s=0.0)
    found = search(tmp_path, settings=settings)
    assert len(found.outcome.found.genomes) == len(found.evaluator.truly_evaluated) == 1
    assert found.outcome.cut_short
    with pytest.raises(InputError, match="leave the time limit out"):
        SearchSettings(compare="random", time_limit_s=1.0)


def test_one_network_for_several_devices_keeps_the_budget_of_each() -> None:
    other = Target(OTHER, parse_budget("30%", OTHER), here=False)
    goal = goal_of("50%", others=[other])
    assert goal.objectives == ("latency_ms", "latency_ms@cpu:threads=2")
    first = goal.targets[0]
    assert (first.search_limit_ms, other.search_limit_ms) == (
        goal.budget.predicted_limit_ms,
        other.budget.unmeasured_limit_ms,
    )
    kept = goal.keeps(GENOMES, lambda target: target.search_limit_ms)
    expected = LATENCY.predict(GENOMES) <= first.search_limit_ms
    expected &= OTHER.predict(GENOMES) <= other.budget.unmeasured_limit_ms
    np.testing.assert_array_equal(kept, expected)
    assert 0 < kept.sum() < (LATENCY.predict(GENOMES) <= first.search_limit_ms).sum()
    _, constraints = goal.asked_of(lambda genomes: np.zeros(len(genomes)))
    assert {each.name: each.upper for each in constraints} == {
        "latency_ms": first.search_limit_ms,
        "latency_ms@cpu:threads=2": other.search_limit_ms,
    }
    np.testing.assert_array_equal(goal.predicted(GENOMES)[:, 1], OTHER.predict(GENOMES))
    words = goal.options.split()
    assert words[:5] == ["--device", "cpu", "--device", "cpu:threads=2", "--joint"]
    assert words.count("--budget-ms") == 2
    assert "--objective" not in words


def test_devices_that_one_network_is_not_searched_for_are_refused() -> None:
    in_int8 = LatencyPredictor(SPACE, dataclasses.replace(OTHER.table, precision="int8", device="cpu:precision=int8"))
    for other, expected in (
        (in_int8, "of one precision and one batch"),
        (LATENCY, "named twice"),
    ):
        with pytest.raises(InputError, match=expected):
            goal_of("50%", others=[Target(other, parse_budget(None, other))])
