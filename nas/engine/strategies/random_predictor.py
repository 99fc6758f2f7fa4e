"""``random-predictor``: the default strategy without its inner search, which shows what that search is worth."""

from __future__ import annotations

from nas.engine.problem import Problem
from nas.engine.strategies.predictor import PredictorSearch


def random_predictor(problem: Problem, seed: int) -> PredictorSearch:
    """Return the strategy: random candidates, chosen by the same fits and the same expected gain."""
    return PredictorSearch(problem, seed, evolution=None)
