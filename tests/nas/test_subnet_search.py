"""Searching inside a budget: what it spends, what it learns from, and what it keeps to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pymoo.indicators.hv import HV

from nas.search_plan import SearchSettings
from nas.subnet_search import search_subnets
from search_spaces.errors import InputError
from tests.nas.synthetic_search import LATENCY, SETTINGS, SPACE, Search, search, synthetic_accuracy, tuples


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search with a comparison, from an empty ledger; for reading only."""
    return search(tmp_path_factory.mktemp("searched"))


def test_both_arms_share_the_first_sample_and_spend_as_much_as_was_said(searched: Search) -> None:
    found, compared = searched.arms
    assert len(found.genomes) == len(compared.genomes) == 44
    np.testing.assert_array_equal(found.genomes[:20], compared.genomes[:20])
    assert tuples(found.genomes[20:]) != tuples(compared.genomes[20:])
    for arm in searched.arms:
        assert len(set(tuples(arm.genomes))) == 44
    both = {*tuples(found.genomes), *tuples(compared.genomes)}
    assert len(searched.evaluator.truly_evaluated) == len(both)
    assert set(searched.evaluator.truly_evaluated) == both


def test_every_row_is_true_and_inside_the_predicted_limit(searched: Search) -> None:
    for arm in searched.arms:
        np.testing.assert_array_equal(SPACE.check(arm.genomes), arm.genomes)
        np.testing.assert_array_equal(arm.accuracy, synthetic_accuracy(arm.genomes))
        np.testing.assert_array_equal(arm.costs, LATENCY.predict(arm.genomes)[:, None])
        assert arm.costs.max() <= searched.budget.predicted_limit_ms < searched.limit_ms
        np.testing.assert_array_equal(arm.objectives, np.stack([1 - arm.accuracy, arm.costs[:, 0]], axis=1))
    assert LATENCY.cheapest()[1].tolist() in searched.outcome.found.genomes.tolist()


def test_the_budget_is_used_to_its_end(searched: Search) -> None:
    found = searched.outcome.found
    fastest = searched.budget.reachable_ms[0]
    used = (found.costs.max() - fastest) / (searched.budget.predicted_limit_ms - fastest)
    assert used > 0.9


@pytest.mark.slow
def test_the_same_seed_searches_the_same_genomes_and_another_seed_others(searched: Search, tmp_path: Path) -> None:
    again = search(tmp_path)
    for first, second in zip(searched.arms, again.arms, strict=True):
        np.testing.assert_array_equal(first.genomes, second.genomes)
    assert searched.evaluator.truly_evaluated == again.evaluator.truly_evaluated
    settings = dataclasses.replace(SETTINGS, seed=1, strategy="random", compare=None)
    other = search(tmp_path, settings=settings)
    assert other.evaluator.truly_evaluated[:20] != again.evaluator.truly_evaluated[:20]
    assert other.outcome.compared is None


@pytest.mark.slow
def test_the_comparison_does_not_change_the_search(searched: Search, tmp_path: Path) -> None:
    alone = search(tmp_path, settings=dataclasses.replace(SETTINGS, compare=None))
    np.testing.assert_array_equal(alone.outcome.found.genomes, searched.outcome.found.genomes)
    assert len(alone.evaluator.truly_evaluated) == 44


def test_the_search_finds_better_networks_than_its_first_sample(searched: Search) -> None:
    found = searched.outcome.found
    indicator = HV(ref_point=np.array([found.objectives[:, 0].max(), searched.limit_ms]))
    assert indicator(found.objectives) > 1.1 * indicator(found.objectives[:20])


@pytest.mark.parametrize("strategy", ["nsga2", "random"])
def test_a_large_number_of_evaluations_is_exact_and_equal_in_both_arms(tmp_path: Path, strategy: str) -> None:
    evaluations = 300
    settings = SearchSettings(evaluations=evaluations, strategy=strategy, compare="random")
    outcome = search(tmp_path, settings=settings).outcome
    assert outcome.compared is not None
    assert (len(outcome.found.genomes), len(outcome.compared.genomes)) == (evaluations, evaluations)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_over_the_same_networks_and_evaluates_only_the_rest(
    searched: Search, tmp_path: Path
) -> None:
    order = searched.evaluator.truly_evaluated
    again = search(tmp_path, known=np.array(order[:30], dtype=np.int16))
    assert again.evaluator.truly_evaluated == order[30:]
    for ours, theirs in zip(again.arms, searched.arms, strict=True):
        np.testing.assert_array_equal(ours.genomes, theirs.genomes)
        np.testing.assert_array_equal(ours.accuracy, theirs.accuracy)


@pytest.mark.slow
def test_what_the_ledger_holds_is_not_evaluated_again_and_does_not_change_the_search(
    searched: Search, tmp_path: Path
) -> None:
    # A training leaves a few rows in the ledger. Would the search start from them, its first sample would be the guess
    # of one strategy, and the comparison would share it.
    others = SPACE.unique(SPACE.sample(30, np.random.default_rng(0)))
    settings = dataclasses.replace(SETTINGS, compare=None)
    warm = search(tmp_path, known=np.concatenate([others, searched.outcome.found.genomes[::2]]), settings=settings)
    np.testing.assert_array_equal(warm.outcome.found.genomes, searched.outcome.found.genomes)
    assert warm.evaluator.truly_evaluated == tuples(searched.outcome.found.genomes[1::2])


def test_the_first_sample_is_spread_over_the_budget(searched: Search) -> None:
    # The first sample of the default strategy, 27 networks of a space with 54 genes; few are slow by chance.
    latency_ms = searched.outcome.found.costs[:27, 0]
    slices = np.linspace(searched.budget.reachable_ms[0], latency_ms.max(), 6)
    assert np.histogram(latency_ms, slices)[0].min() > 1


def test_a_budget_that_only_the_fastest_network_keeps_ends_with_it(tmp_path: Path) -> None:
    for arm in search(tmp_path, "0%").arms:
        np.testing.assert_array_equal(arm.genomes, LATENCY.cheapest()[1][None])


def test_accuracies_that_are_all_equal_stop_no_search(tmp_path: Path) -> None:
    # As after a training of one step.
    settings = dataclasses.replace(SETTINGS, compare=None)
    equal = search(tmp_path, settings=settings, accuracy=lambda genomes: np.full(len(genomes), 0.1))
    assert len(equal.outcome.found.genomes) == 44


@pytest.mark.parametrize("budget", ["50%", "0%"])
def test_progress_counts_true_evaluations_up_to_their_number(tmp_path: Path, budget: str) -> None:
    told: list[tuple[int, int]] = []
    settings = dataclasses.replace(SETTINGS, strategy="random")
    search(tmp_path, budget, settings=settings, progress=lambda *each: told.append(each))
    expected = range(89) if budget == "50%" else (0, 1, 44, 45, 88)
    assert list(dict.fromkeys(told)) == [(done, 88) for done in expected]


def test_no_evaluations_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1, got 0"):
        SearchSettings(evaluations=0)


@pytest.mark.parametrize("name", ["strategy", "compare"])
def test_an_unknown_strategy_is_refused_naming_the_nearest(name: str) -> None:
    with pytest.raises(InputError, match="did you mean 'nsga2'"):
        SearchSettings(**{name: "nsga3"})  # type: ignore[arg-type]


def test_a_search_that_starts_from_what_is_known_evaluates_as_many_more(tmp_path: Path) -> None:
    first = search(tmp_path, settings=dataclasses.replace(SETTINGS, evaluations=20, compare=None))
    known = dict(first.evaluator.values)
    settings = dataclasses.replace(SETTINGS, evaluations=12, compare=None)
    outcome = search_subnets(first.evaluator, first.goal, settings, before=known)
    assert len(outcome.found.genomes) == 12
    assert not set(tuples(outcome.found.genomes)) & set(known)
    assert len(first.evaluator.values) == len(known) + 12
