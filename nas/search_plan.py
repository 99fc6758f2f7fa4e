"""What a search would look at and take, before it is run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nas.finalists import Evaluated
from nas.goal import LATENCY, Goal
from nas.ledger import accuracy_evaluator
from nas.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What can be asked for, and what a search would take.

    Attributes:
        reachable: smallest and largest predicted value of every cost, by name.
        asked: upper bounds that were given, by name.
        known: evaluated networks that keep them.
        evaluations: that the search would make, those included that it finds in the ledger; 0 if it would make none.
        seconds_per_evaluation: as fast as earlier ones came one after the other; None if there were none.
    """

    reachable: dict[str, tuple[float, float]]
    asked: dict[str, float]
    known: int
    evaluations: int
    seconds_per_evaluation: float | None


def plan_search(run: Run, goal: Goal, evaluations: int) -> SearchPlan:
    """Return what a search for a goal would take.

    Raises:
        InputError, MachineError: the ledger cannot be read.
    """
    limit_ms = math.inf if goal.budget.limit_ms is None else goal.budget.limit_ms
    inside = Evaluated.inside(run.known_accuracies(), goal, limit_ms=limit_ms)
    name = accuracy_evaluator(run.require_supernet().supernet_hash, "validation")
    return SearchPlan(
        reachable={cost: goal.reachable(cost) for cost in goal.costs},
        asked=dict(goal.bounds) | ({} if goal.budget.limit_ms is None else {LATENCY: goal.budget.limit_ms}),
        known=len(inside.genomes),
        evaluations=evaluations,
        seconds_per_evaluation=run.ledger.median_interval_s(name),
    )
