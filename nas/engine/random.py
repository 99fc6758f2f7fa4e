"""``random``: random feasible networks, ranked by the same predictor: what a search has to beat."""

from __future__ import annotations

import numpy as np

from nas.engine.predicted import PredictedSearch, Score
from nas.engine.problem import Archive, Problem, feasible_pool
from predictors.accuracy import AccuracyPredictor
from search_spaces.space import Genomes

# As many candidates as the evolutionary proposer scores, so that only the way they are found differs.
_POOL = 4000


def random_search(problem: Problem, predictor: AccuracyPredictor, *, seed: int) -> PredictedSearch:
    """Return the strategy."""
    return PredictedSearch(problem, predictor, _random_pool, seed=seed)


def _random_pool(problem: Problem, score: Score, archive: Archive, rng: np.random.Generator) -> Genomes:
    return feasible_pool(problem, _POOL, rng)
