"""Fronts of what is known: measured where it was measured, else safely inside by what the table was off at worst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas.budget import parse_budget
from nas.finalists import Source, known_front, latency_name
from nas.front import Front
from nas.goal import Goal, Target, exact_costs
from nas.ledger import Ledger, latency_evaluator
from tests.nas.synthetic_search import IMAGES, LATENCY, OTHER, SPACE, goal_of, synthetic_accuracy, tuples

GENOMES = SPACE.unique(SPACE.sample(400, np.random.default_rng(5)))
KNOWN = dict(zip(tuples(GENOMES), synthetic_accuracy(GENOMES).tolist(), strict=True))
PREDICTED = dict(zip(tuples(GENOMES), LATENCY.predict(GENOMES).tolist(), strict=True))
SOURCE = Source(supernet_hash="5eed", validation_images=IMAGES)


def front_of(goal: Goal, folder: Path, measured: dict[tuple[int, ...], float] | None = None) -> Front | None:
    ledger = Ledger(folder / "ledger.db")
    for genes, value in (measured or {}).items():
        ledger.record(latency_evaluator(goal.latency.table.fingerprint_hash, goal.budget.at), SPACE.hash, genes, value)
    return known_front(goal, KNOWN, ledger, SOURCE)


def test_the_front_of_unmeasured_networks_is_predicted_inside_with_the_wide_margin(tmp_path: Path) -> None:
    goal = goal_of("50%")
    front = front_of(goal, tmp_path)
    assert front is not None
    limit = goal.budget.unmeasured_limit_ms
    inside = {genes: ms for genes, ms in PREDICTED.items() if ms <= limit}
    assert front.known == len(inside) < sum(ms <= goal.budget.predicted_limit_ms for ms in PREDICTED.values())
    assert front.best.validation_accuracy == max(KNOWN[genes] for genes in inside)
    assert all(each.measured_latency_ms is None for each in front.candidates)
    assert (front.evaluations, front.validation_images, front.dropped) == (0, IMAGES, ())
    assert front.margin == goal.budget.wide_margin
    # Nothing that is inside beats a network of the front in both.
    for each in front.candidates:
        assert not any(
            KNOWN[genes] >= each.validation_accuracy and ms < each.predicted_latency_ms for genes, ms in inside.items()
        )


def test_what_was_measured_counts_as_it_was_measured(tmp_path: Path) -> None:
    goal = goal_of("50%")
    unmeasured = front_of(goal, tmp_path)
    assert unmeasured is not None
    best = unmeasured.best.genes
    beyond = max(KNOWN, key=lambda genes: KNOWN[genes])
    assert PREDICTED[beyond] > goal.budget.predicted_limit_ms
    # The best was measured outside, and one that is predicted outside was measured inside.
    limit = goal.budget.measured_limit_ms
    front = front_of(goal, tmp_path, {best: limit * 1.0001, beyond: limit})
    assert front is not None
    assert best not in {each.genes for each in front.candidates}
    assert (front.best.genes, front.best.measured_latency_ms) == (beyond, limit)
    assert front.best.latency_ms == limit


def test_the_newest_measurement_counts(tmp_path: Path) -> None:
    goal = goal_of("50%")
    unmeasured = front_of(goal, tmp_path)
    assert unmeasured is not None
    best, limit = unmeasured.best.genes, goal.budget.measured_limit_ms
    outside, again = front_of(goal, tmp_path, {best: 2 * limit}), front_of(goal, tmp_path, {best: limit / 2})
    assert outside is not None
    assert again is not None
    assert outside.best.genes != best == again.best.genes
    assert again.best.measured_latency_ms == limit / 2


def test_measurements_of_another_statistic_do_not_count(tmp_path: Path) -> None:
    plain = goal_of("50%")
    unmeasured = front_of(plain, tmp_path)
    assert unmeasured is not None
    assert front_of(plain, tmp_path, {unmeasured.best.genes: 1e6}) != unmeasured
    sustained = front_of(goal_of("50%", at="p50"), tmp_path)
    assert sustained is not None
    assert sustained.budget_at == "p50"
    assert all(each.measured_latency_ms is None for each in sustained.candidates)
    ratio = LATENCY.table.sustained["p50"].ratio
    for each in sustained.candidates:
        assert each.predicted_latency_ms == pytest.approx(PREDICTED[each.genes] * ratio)


def test_nothing_safely_inside_is_no_front(tmp_path: Path) -> None:
    assert front_of(goal_of("0%"), tmp_path) is None
    assert known_front(goal_of(), {}, Ledger(tmp_path / "none.db"), SOURCE) is None


def test_bounds_on_sizes_are_kept_and_told(tmp_path: Path) -> None:
    memory = exact_costs(LATENCY)["memory_mb"]
    limit = float(np.median(memory.predict(GENOMES)))
    front = front_of(goal_of(bounds={"memory_mb": limit}), tmp_path)
    assert front is not None
    assert (front.budget_ms, front.bounds, front.budget_binds) == (None, {"memory_mb": limit}, False)
    assert front.known == int((memory.predict(GENOMES) <= limit).sum())
    sizes = [each.memory_mb for each in front.candidates if each.memory_mb is not None]
    assert len(sizes) == len(front.candidates)
    assert max(sizes) <= limit


def test_a_front_of_sizes_keeps_what_no_other_beats_in_them(tmp_path: Path) -> None:
    front = front_of(goal_of("80%", objectives=["params"]), tmp_path)
    assert front is not None
    assert front.objectives == ("params",)
    by_params = sorted(front.candidates, key=lambda each: each.params)
    accuracies = [each.validation_accuracy for each in by_params]
    assert accuracies == sorted(set(accuracies))
    assert len(front.candidates) > 3
    both = front_of(goal_of("80%", objectives=["params", "latency_ms"]), tmp_path)
    assert both is not None
    assert {each.id for each in front.candidates} < {each.id for each in both.candidates}


def test_a_front_of_several_devices_keeps_each_budget_by_what_is_known_there(tmp_path: Path) -> None:
    other = Target(OTHER, parse_budget("40%", OTHER))
    goal = goal_of("50%", others=[other])
    elsewhere = dict(zip(tuples(GENOMES), OTHER.predict(GENOMES).tolist(), strict=True))
    front = front_of(goal, tmp_path)
    assert front is not None
    assert front.name == "cpu + cpu:threads=2"
    limits = goal.budget.unmeasured_limit_ms, other.budget.unmeasured_limit_ms
    inside = [genes for genes in KNOWN if PREDICTED[genes] <= limits[0] and elsewhere[genes] <= limits[1]]
    assert front.known == len(inside)
    for each in front.candidates:
        assert each.everywhere_ms == (PREDICTED[each.genes], elsewhere[each.genes])
        assert each.genes in inside
    # Measured on one of the two: there, the measurement counts.
    best = front.best.genes
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.record(latency_name(other), SPACE.hash, best, other.budget.measured_limit_ms * 1.001)
    without = known_front(goal, KNOWN, ledger, SOURCE)
    assert without is not None
    assert best not in {each.genes for each in without.candidates}
    ledger.record(latency_name(other), SPACE.hash, best, 0.5 * other.budget.measured_limit_ms)
    again = known_front(goal, KNOWN, ledger, SOURCE)
    assert again is not None
    assert again.best.measured_everywhere_ms == (None, 0.5 * other.budget.measured_limit_ms)
