"""Validating what a search found on the device: what is measured, what is kept, what is dropped and said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas.block_cache import BlockCache
from nas.budget import parse_budget
from nas.finalists import FINALISTS
from nas.front import Front
from nas.goal import Target
from nas.ledger import Ledger
from nas.subnet_search import Place, search_subnets, validate_front
from predictors.latency import LatencyPredictor
from predictors.quality import standard_error
from search_spaces.errors import CheckError, InputError
from tests.nas.synthetic_latency import ChosenDevice, at_the_pace_of, genomes_by_id, hollow_cache
from tests.nas.synthetic_search import (
    IMAGES,
    LATENCY,
    OTHER,
    SETTINGS,
    SPACE,
    Search,
    SyntheticEvaluator,
    Values,
    goal_of,
    search,
    synthetic_accuracy,
)

ELSEWHERE = LatencyPredictor(SPACE, dataclasses.replace(OTHER.table, device="kit:target=pi"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search with a comparison, from an empty ledger; for reading only."""
    return search(tmp_path_factory.mktemp("searched"))


@dataclasses.dataclass(frozen=True)
class Validation:
    """A front, and the ids of what its device was asked to measure."""

    front: Front
    asked: list[str]


@dataclasses.dataclass(frozen=True)
class Validator:
    """Validates a search on a device that reports latencies as a function of the model's id."""

    search: Search
    evaluator: SyntheticEvaluator
    cache: BlockCache

    @property
    def predicted_ms(self) -> dict[str, float]:
        """Predicted latency of everything in the ledger, by id."""
        known = np.array(list(self.evaluator.values), dtype=np.int16)
        by_id = genomes_by_id(SPACE, known)
        return dict(zip(by_id, LATENCY.predict(np.stack(list(by_id.values()))).tolist(), strict=True))

    def run(self, latency_ms: Callable[[str], float], *, pace: float = 1.0) -> Validation:
        """Validate where the table's own networks are slower than in the table by a factor."""
        device = ChosenDevice(at_the_pace_of(LATENCY.table, latency_ms, pace=pace), [])
        places = {"cpu": Place(device, self.cache)}
        front = validate_front(self.search.outcome, self.evaluator, self.search.goal, SETTINGS, places=places)
        return Validation(front, [name for name in device.asked if not name.startswith("table-")])


@pytest.fixture
def validator(searched: Search, tmp_path: Path) -> Validator:
    """A validator of the shared search with a ledger of its own."""
    evaluator = SyntheticEvaluator(Ledger(tmp_path / "ledger.db"))
    evaluator.values = dict(searched.evaluator.values)
    return Validator(searched, evaluator, hollow_cache(SPACE, tmp_path / "blocks"))


def non_dominated(values: dict[tuple[int, ...], float]) -> set[str]:
    """Return the ids of networks, given with their accuracy, that none is both as fast and as accurate as."""
    genomes = np.array(list(values), dtype=np.int16)
    objectives = np.stack([-np.array(list(values.values())), LATENCY.predict(genomes)], axis=1)
    alone = [not any((row >= o).all() and (row > o).any() for o in objectives) for row in objectives]
    return set(genomes_by_id(SPACE, genomes[alone]))


def test_the_front_is_sorted_non_dominated_and_inside_the_budget(validator: Validator) -> None:
    rng = np.random.default_rng(0)
    measured = {name: latency * float(rng.uniform(0.95, 1.05)) for name, latency in validator.predicted_ms.items()}
    front = validator.run(measured.__getitem__).front
    assert len(front.candidates) > 3
    latencies = [candidate.latency_ms for candidate in front.candidates]
    assert all(candidate.measured_latency_ms == candidate.latency_ms for candidate in front.candidates)
    accuracies = [candidate.validation_accuracy for candidate in front.candidates]
    assert latencies == sorted(set(latencies))
    assert accuracies == sorted(set(accuracies))
    assert latencies[-1] <= validator.search.limit_ms == front.budget_ms
    assert front.best == front.candidates[-1]


def test_of_equally_fast_networks_the_most_accurate_is_kept(validator: Validator) -> None:
    front = validator.run(lambda name: 1.0).front
    assert [candidate.validation_accuracy for candidate in front.candidates] == [
        max(validator.evaluator.values.values())
    ]


def test_every_figure_of_a_candidate_is_its_own(validator: Validator) -> None:
    ms = validator.predicted_ms
    front = validator.run(lambda name: ms[name] * 1.01).front
    for candidate in (*front.candidates, *front.dropped):
        genome = np.array(candidate.genes, dtype=np.int16)
        spec = SPACE.lower(genome)
        assert candidate.id == SPACE.architecture(genome).id
        assert (candidate.params, candidate.macs) == (spec.params(), spec.macs())
        assert candidate.predicted_latency_ms == pytest.approx(ms[candidate.id])
        assert candidate.measured_latency_ms == pytest.approx(ms[candidate.id] * 1.01)
        assert candidate.validation_accuracy == synthetic_accuracy(genome[None])[0]
        assert candidate.validation_standard_error == standard_error(candidate.validation_accuracy, IMAGES)


def test_the_front_says_what_it_was_made_from(validator: Validator) -> None:
    front = validator.run(validator.predicted_ms.__getitem__).front
    budget = validator.search.budget
    assert (front.space_hash, front.supernet_hash, front.device) == (SPACE.hash, "5eed", "cpu")
    assert front.fingerprint_hash == LATENCY.table.fingerprint_hash
    assert (front.budget_ms, front.reachable_ms, front.margin) == (budget.limit_ms, budget.reachable_ms, budget.margin)
    assert (front.budget_at, front.bounds, front.objectives) == ("min", {}, ("latency_ms",))
    assert front.known == len(validator.evaluator.values)
    assert (front.seed, front.evaluations, front.validation_images) == (0, 44, IMAGES)
    assert front.budget_binds


def test_finalists_hold_the_true_front_of_all_that_is_known(validator: Validator, tmp_path: Path) -> None:
    ms = validator.predicted_ms
    validation = validator.run(lambda name: ms[name] * 0.99)
    assert len(validation.asked) == len(set(validation.asked)) == FINALISTS
    true_front = non_dominated(validator.evaluator.values)
    assert 3 < len(true_front) <= FINALISTS
    assert true_front <= set(validation.asked)
    assert {candidate.id for candidate in validation.front.candidates} == true_front
    rows = Ledger(tmp_path / "ledger.db").values(f"latency:{LATENCY.table.fingerprint_hash}", SPACE.hash)
    measured = {SPACE.architecture(np.array(genes, dtype=np.int16)).id: value for genes, value in rows.items()}
    assert measured == {name: ms[name] * 0.99 for name in validation.asked}


def test_older_networks_in_the_ledger_are_finalists_if_they_are_predicted_inside(validator: Validator) -> None:
    limit = validator.search.budget.predicted_limit_ms
    older = [row for row in SPACE.sample(200, np.random.default_rng(1)) if tuple(row) not in validator.evaluator.values]
    inside, outside = (
        next(row for row in older if bool(LATENCY.predict(row[None])[0] <= limit) == wanted) for wanted in (True, False)
    )
    validator.evaluator.values |= {tuple(inside.tolist()): 0.99, tuple(outside.tolist()): 1.0}
    validation = validator.run(validator.predicted_ms.__getitem__)
    assert validation.front.best.id == SPACE.architecture(inside).id
    assert SPACE.architecture(outside).id not in validation.asked
    assert validation.front.evaluations == 44


def test_what_is_measured_outside_the_budget_is_dropped_and_said(validator: Validator) -> None:
    ms = validator.predicted_ms
    # The next measurement may be slower by the noise, and has to be inside too.
    limit = validator.search.budget.measured_limit_ms
    undisturbed = validator.run(ms.__getitem__).front
    best, other = undisturbed.best.id, undisturbed.candidates[0].id
    assert undisturbed.dropped == ()
    front = validator.run((ms | {best: limit * (1 + 1e-9), other: limit}).__getitem__).front
    assert [candidate.id for candidate in front.dropped] == [best]
    assert best not in {candidate.id for candidate in front.candidates}
    assert all(candidate.latency_ms <= limit for candidate in front.candidates)
    with pytest.raises(InputError):
        front.pick(best)
    alone = validator.run(lambda name: limit if name == other else 2 * limit).front
    assert [candidate.id for candidate in alone.candidates] == [other]
    assert len(alone.dropped) == FINALISTS - 1


def test_on_a_machine_that_is_faster_than_its_table_says_figures_are_those_of_the_table_s_time(
    validator: Validator,
) -> None:
    ms = validator.predicted_ms
    usual = validator.run(ms.__getitem__).front
    fast = validator.run(lambda name: 0.9 * ms[name], pace=0.9).front
    assert [each.id for each in fast.candidates] == [each.id for each in usual.candidates]
    for found, expected in zip(fast.candidates, usual.candidates, strict=True):
        assert found.measured_latency_ms == pytest.approx(expected.measured_latency_ms)


def test_on_a_machine_that_is_slower_than_its_table_says_figures_are_those_of_now(validator: Validator) -> None:
    ms = validator.predicted_ms
    slow = validator.run(lambda name: 1.3 * ms[name], pace=1.3).front
    limit = validator.search.budget.measured_limit_ms
    assert {each.measured_latency_ms for each in slow.candidates} <= {1.3 * value for value in ms.values()}
    assert slow.dropped
    assert all(each.latency_ms > limit for each in slow.dropped)


def test_what_is_recorded_tells_the_machine_s_pace(validator: Validator, tmp_path: Path) -> None:
    ms = validator.predicted_ms
    validator.run(lambda name: 0.98 * ms[name], pace=0.98)
    rows = Ledger(tmp_path / "ledger.db").rows(f"latency:{LATENCY.table.fingerprint_hash}", SPACE.hash)
    assert len(rows) == FINALISTS
    for row in rows:
        assert row.details == {"pace": pytest.approx(0.98)}
        assert row.value == pytest.approx(ms[SPACE.architecture(np.array(row.genes, dtype=np.int16)).id])


@pytest.mark.parametrize(("pace", "told"), [(0.9, "10 % faster"), (1.1, "10 % slower"), (0.96, None), (1.04, None)])
def test_a_machine_that_is_no_longer_what_the_table_was_measured_on_is_told(
    searched: Search, validator: Validator, pace: float, told: str | None
) -> None:
    ms, notices = validator.predicted_ms, list[str]()
    device = ChosenDevice(at_the_pace_of(LATENCY.table, lambda name: pace * ms[name], pace=pace), [])
    places = {"cpu": Place(device, validator.cache)}
    validate_front(searched.outcome, validator.evaluator, searched.goal, SETTINGS, places=places, notice=notices.append)
    assert len(device.asked) == FINALISTS + 16
    assert len(notices) == (0 if told is None else 1)
    assert told is None or told in notices[0]


def test_a_table_of_other_conditions_tells_nothing_of_the_machine_s_pace(
    searched: Search, validator: Validator
) -> None:
    foreign = LatencyPredictor(SPACE, dataclasses.replace(LATENCY.table, fingerprint_hash="elsewhere"))
    goal = dataclasses.replace(searched.goal, targets=(Target(foreign, searched.budget),))
    device = ChosenDevice(validator.predicted_ms.__getitem__, [])  # knows none of the table's networks
    places = {"cpu": Place(device, validator.cache)}
    front = validate_front(searched.outcome, validator.evaluator, goal, SETTINGS, places=places)
    for each in front.candidates:
        assert each.measured_latency_ms == validator.predicted_ms[each.id]


def test_finalists_that_are_all_outside_are_a_failed_check_naming_the_fastest(validator: Validator) -> None:
    limit = validator.search.limit_ms
    ms = validator.predicted_ms
    with pytest.raises(CheckError) as failure:
        validator.run(lambda name: limit + ms[name])
    assert f"{limit:.3f} ms" in str(failure.value)
    assert f"the fastest takes {limit + LATENCY.cheapest()[0]:.3f} ms on cpu" in str(failure.value)
    assert f"all {FINALISTS} finalists" in str(failure.value)


def test_the_comparison_holds_both_hypervolumes_at_one_reference(validator: Validator) -> None:
    comparison = validator.run(validator.predicted_ms.__getitem__).front.comparison
    assert comparison is not None
    limit = validator.search.limit_ms
    worst = max(arm.objectives[:, 0].max() for arm in validator.search.arms)
    assert comparison.reference == {"error": worst, "latency_ms": limit}
    assert (comparison.strategy, comparison.against) == ("predictor", "random-predictor")
    assert comparison.evaluations == comparison.against_evaluations == 44
    stated = (comparison.hypervolume, comparison.against_hypervolume)
    expected = [staircase(arm.objectives, worst, limit) for arm in validator.search.arms]
    assert stated == pytest.approx(expected)


def staircase(objectives: Values, worst_error: float, limit_ms: float) -> float:
    """Return the area under the reference point that is dominated, summed slice by slice."""
    area, error = 0.0, worst_error
    for row_error, latency_ms in objectives[np.argsort(objectives[:, 1], kind="stable")]:
        if row_error < error:
            area += (error - row_error) * (limit_ms - latency_ms)
            error = row_error
    return area


@pytest.mark.slow
def test_a_budget_that_does_not_bind_is_compared_inside_the_reachable_range(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, strategy="random")
    found = search(tmp_path, "1000", settings=settings)
    validator = Validator(found, found.evaluator, hollow_cache(SPACE, tmp_path / "blocks"))
    front = validator.run(validator.predicted_ms.__getitem__).front
    assert not front.budget_binds
    assert front.dropped == ()
    assert front.comparison is not None
    assert front.comparison.reference["latency_ms"] == LATENCY.dearest()[0]
    assert front.comparison.hypervolume > 0


@pytest.mark.slow
def test_finalists_for_several_devices_are_measured_on_those_that_are_here(tmp_path: Path) -> None:
    evaluator = SyntheticEvaluator(Ledger(tmp_path / "ledger.db"))
    others = [Target(OTHER, parse_budget("60%", OTHER)), Target(ELSEWHERE, parse_budget("60%", ELSEWHERE), here=False)]
    goal = goal_of("60%", others=others)
    settings = dataclasses.replace(SETTINGS, compare=None)
    outcome = search_subnets(evaluator, goal, settings)
    cache = hollow_cache(SPACE, tmp_path / "blocks")
    devices = {
        name: ChosenDevice(at_the_pace_of(latency.table, lambda _, ms=ms: ms), [])  # type: ignore[misc]
        for name, latency, ms in (("cpu", LATENCY, 0.02), ("cpu:threads=2", OTHER, 0.03))
    }
    places = {name: Place(device, cache) for name, device in devices.items()}
    front = validate_front(outcome, evaluator, goal, settings, places=places)
    assert front.name == "cpu + cpu:threads=2 + kit:target=pi"
    for each in front.candidates:
        assert each.measured_everywhere_ms == (0.02, 0.03, None)
        assert each.everywhere_ms[2] <= others[1].budget.unmeasured_limit_ms
    slow = {**places, "cpu:threads=2": Place(ChosenDevice(lambda _: 1e6, []), cache)}
    with pytest.raises(CheckError, match="finalists were measured outside"):
        validate_front(outcome, evaluator, goal, settings, places=slow)
