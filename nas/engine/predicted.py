"""Predictor-assisted search: fit on all true evaluations, propose on predictions, evaluate the best, repeat.

The alternation is that of LINAS (arXiv:2205.10358), with exact cheap objectives in place of predicted ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from nas.engine.problem import Archive, Problem, Values, feasible_pool
from predictors.accuracy import AccuracyPredictor
from search_spaces.space import Genomes

Score = Callable[[Genomes], Values]
Proposer = Callable[[Problem, Score, Archive, np.random.Generator], Genomes]
"""Returns genomes worth looking at, given the problem, predicted objectives in bulk and what is known."""

_INITIAL_POOL = 4000
_TOP_UP = 4  # random candidates per network that the proposer fell short of


class PredictedSearch:
    """A strategy from a predictor and a proposer; a strategy file of its own supplies the proposer.

    Args:
        problem: what is searched.
        predictor: of the costly objective; fitted anew from all rows at every ask.
        propose: where candidates come from.
        seed: of all draws.
    """

    def __init__(self, problem: Problem, predictor: AccuracyPredictor, propose: Proposer, *, seed: int) -> None:
        self._problem = problem
        self._predictor = predictor
        self._propose = propose
        self._rng = np.random.default_rng(seed)
        self._archive = Archive(problem.space.n_genes)

    def ask(self, n: int) -> Genomes:
        """Return at most `n` new genomes: a spread sample first, then the best of what the proposer finds."""
        if len(self._archive.genomes) < 2:
            chosen = self._spread(n)
        else:
            self._predictor.fit(self._archive.genomes, self._archive.objectives[:, 0])
            pool = self._archive.unseen(self._propose(self._problem, self._score, self._archive, self._rng))
            pool = pool[self._problem.feasible(pool)]
            if len(pool) < n:
                more = feasible_pool(self._problem, _TOP_UP * n + len(self._archive.genomes), self._rng)
                pool = self._archive.unseen(np.concatenate([pool, more]))
            chosen = pool if len(pool) <= n else pool[best_rows(self._score(pool), n)]
        self._archive.mark(chosen)
        return chosen

    def tell(self, genomes: Genomes, objectives: Values) -> None:
        """Add true evaluations to what the predictor learns from."""
        self._archive.add(genomes, objectives)

    def _score(self, genomes: Genomes) -> Values:
        mean, _ = self._predictor.predict(genomes)
        return np.concatenate([mean[:, None], self._problem.cheap(genomes)], axis=1)

    def _spread(self, n: int) -> Genomes:
        """Return feasible genomes evenly spaced along the first cheap objective, anchors included."""
        pool = feasible_pool(self._problem, _INITIAL_POOL, self._rng)
        anchors = self._archive.unseen(self._problem.anchors)[:n]
        self._archive.mark(anchors)
        rest = self._archive.unseen(pool)
        cost = self._problem.cheap(rest)[:, 0]
        by_cost = rest[np.argsort(cost, kind="stable")]
        wanted = min(n - len(anchors), len(by_cost))
        # One draw from each of `wanted` slices of equal cost range, not of equal count: random networks crowd around
        # the middle, and a predictor fitted there is lost at the ends.
        edges = np.linspace(cost.min(), cost.max(), wanted + 1)[1:-1] if wanted else np.empty(0)
        picked = _one_per_slice(np.sort(cost), edges, self._rng, wanted)
        return np.concatenate([anchors, by_cost[picked]])


def best_rows(objectives: Values, n: int) -> list[int]:
    """Return `n` rows by non-dominated rank, then by crowding distance (NSGA-II's survival)."""
    from pymoo.core.population import Population
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

    population = Population.new("F", objectives, "index", np.arange(len(objectives)))
    blank = PymooProblem(n_var=1, n_obj=objectives.shape[1])
    # The ends of a front tie at infinite distance; pymoo breaks ties at random, here always the same way.
    survivors = RankAndCrowding().do(blank, population, n_survive=n, random_state=np.random.default_rng(0))
    return sorted(int(index) for index in survivors.get("index"))


def _one_per_slice(cost: Values, edges: Values, rng: np.random.Generator, wanted: int) -> list[int]:
    """Return `wanted` distinct positions in sorted costs: one per slice, the remainder from anywhere."""
    bounds = [0, *np.searchsorted(cost, edges).tolist(), len(cost)]
    picked = [int(rng.integers(low, high)) for low, high in itertools.pairwise(bounds) if high > low][:wanted]
    left = np.setdiff1d(np.arange(len(cost)), picked)
    return sorted([*picked, *rng.choice(left, size=wanted - len(picked), replace=False).tolist()])
