"""How a search is to spend its evaluations, and what it would look at and take. Loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nas.defaults import EVALUATIONS, STRATEGY
from nas.engine.pool import refuse_empty
from nas.engine.problem import Problem
from nas.engine.strategies import check_strategy
from nas.finalists import Evaluated
from nas.goal import Goal
from nas.ledger import accuracy_evaluator
from nas.run import Run
from search_spaces.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How a search spends its true evaluations.

    Attributes:
        evaluations: networks that each strategy has evaluated, beside those that were known before.
        strategy: how networks are chosen.
        compare: a second strategy at equal cost, or None.
        seed: of all draws.
        time_limit_s: how long the search may evaluate; it ends with the network that it is at.
    """

    evaluations: int = EVALUATIONS
    strategy: str = STRATEGY
    compare: str | None = None
    seed: int = 0
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.strategies:
            check_strategy(name)
        if self.evaluations < 1:
            raise InputError(f"evaluations must be at least 1, got {self.evaluations}")
        if self.compare and self.time_limit_s is not None:
            raise InputError("strategies are compared at an equal number of evaluations: leave the time limit out")

    @property
    def strategies(self) -> tuple[str, ...]:
        """Names of those that evaluate, each as many networks."""
        return (self.strategy,) if self.compare is None else (self.strategy, self.compare)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What can be asked for, and what a search would take.

    Attributes:
        devices: that networks are to be fast enough on.
        reachable: smallest and largest predicted value of every cost, by name.
        asked: upper bounds that were given, by name.
        known: evaluated networks that keep them.
        evaluations: that the search would make at most; 0 if it would make none.
        seconds_per_evaluation: as fast as earlier ones came one after the other; None if there were none.
    """

    devices: tuple[str, ...]
    reachable: dict[str, tuple[float, float]]
    asked: dict[str, float]
    known: int
    evaluations: int
    seconds_per_evaluation: float | None


def plan_search(run: Run, goal: Goal, settings: SearchSettings | None) -> SearchPlan:
    """Return what a search for a goal would take; without settings, what is known would be looked at alone.

    Raises:
        InputError, MachineError: the ledger cannot be read.
    """
    limits_ms = {name: target.budget.limit_ms for name, target in goal.latencies.items()}
    asked_ms = {name: limit_ms for name, limit_ms in limits_ms.items() if limit_ms is not None}
    precision = goal.latency.table.precision
    inside = Evaluated.inside(
        run.known_accuracies(precision),
        goal,
        lambda target: math.inf if target.budget.limit_ms is None else target.budget.limit_ms,
    )
    name = accuracy_evaluator(run.require_supernet().supernet_hash, "validation", precision)
    return SearchPlan(
        devices=tuple(target.device for target in goal.targets),
        reachable={cost: goal.reachable(cost) for cost in goal.costs},
        asked=dict(goal.bounds) | asked_ms,
        known=len(inside.genomes),
        evaluations=settings.evaluations * len(settings.strategies) if settings else 0,
        seconds_per_evaluation=run.ledger.median_interval_s(name),
    )


def require_networks(goal: Goal) -> None:
    """Raise `InputError` naming what can be reached if no network is found that keeps all bounds of a goal at once."""
    objectives, constraints = goal.asked_of(lambda genomes: np.zeros(len(genomes)))
    refuse_empty(Problem(goal.space, objectives, constraints, known=goal.cheapest()), np.random.default_rng(0))
