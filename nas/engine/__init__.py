"""The search engine: strategies that decide which networks to evaluate. To add one: a file, and its line here."""

from __future__ import annotations

from collections.abc import Callable

from nas.engine.nsga2 import predicted_nsga2
from nas.engine.problem import Archive, Problem, Strategy, feasible_pool
from nas.engine.random import random_search
from predictors.accuracy import AccuracyPredictor

StrategyFactory = Callable[..., Strategy]
"""Called as ``factory(problem, predictor, seed=seed)``."""

STRATEGIES: dict[str, StrategyFactory] = {
    "nsga2": predicted_nsga2,
    "random": random_search,
}

__all__ = ["STRATEGIES", "AccuracyPredictor", "Archive", "Problem", "Strategy", "StrategyFactory", "feasible_pool"]
