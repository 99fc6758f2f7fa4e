"""``predictor``: fit what is costly, evolve on fits and exact figures, evaluate what promises most, repeat.

The alternation is that of LINAS (arXiv:2205.10358). What differs: cheap metrics are exact; the regression is chosen by
its held-out ranks; and instead of the last population of the inner search, those networks of it are evaluated that add
the most hypervolume in expectation over what the fits leave open, each counted beside the ones already chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg  # noqa: F401 - what the fits compute with is there before the engine limits its threads

from nas.engine.acquisition import choose_batch
from nas.engine.evolution import Evolution, evolve
from nas.engine.pareto import best_rows, front_rows
from nas.engine.pool import feasible_pool
from nas.engine.problem import Problem, Values
from nas.engine.strategies.random import random_networks
from nas.engine.strategy import Archive, Proposal
from predictors.features import StructureFeatures
from predictors.regression.base import FeatureGroup, Scaling
from predictors.regression.base import Values as Matrix
from predictors.regression.chosen import REGRESSIONS, ChosenRegression
from predictors.regression.ridge import fit_ridge
from search_spaces.space import Genomes

Chance = Callable[[Matrix], Values]
"""From features ``float64[n, k]`` to probabilities ``float64[n]``."""

_FIRST_POOL = 4000
_RANDOM_POOL = 20_000
_DRAWS = 24
_CANDIDATES = 600
_FAILURES_TO_LEARN_FROM = 3
_LEAST_CHANCE = 0.05
"""That any network can be evaluated: also where all seem to fail, those that promise most come first."""


class PredictorSearch:
    """The default strategy.

    Args:
        problem: what is searched.
        seed: of all draws.
        evolution: settings of the inner search; None takes the candidates at random, as a baseline.
        regressions: names to choose among.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        evolution: Evolution | None = Evolution(),  # noqa: B008 - frozen
        regressions: Sequence[str] = tuple(REGRESSIONS),
    ) -> None:
        self._problem = problem
        self._archive = Archive(problem)
        self._rng = np.random.default_rng(seed)
        self._evolution = evolution
        self._encode = StructureFeatures(problem.space)
        self._failed: Genomes = np.empty((0, problem.space.n_genes), dtype=np.int16)
        self._success: Chance | None = None
        self._fits = {int(metric): ChosenRegression(regressions, seed=seed) for metric in problem.costly.nonzero()[0]}
        self._first = _first_sample(problem)

    def ask(self, n: int) -> Proposal:
        """Return a spread sample first, then rounds of an eighth of what is known."""
        if len(self._archive) < min(2, self._first) or len(self._archive.taken) < self._first:
            left = max(self._first - len(self._archive.taken), 1)
            return Proposal.of(self._spread(min(n, left)), "first sample")
        n = min(n, max(4, len(self._archive) // 8))
        candidates = self._candidates()
        if not len(candidates):
            return Proposal.of(random_networks(self._problem, self._archive, n, self._rng), "random")
        return self._best(candidates, n)

    def tell(self, genomes: Genomes, values: Values) -> None:
        """Fit to these as well from now on."""
        self._archive.add(genomes, values)

    def tell_failed(self, genomes: Genomes) -> None:
        """Keep away from networks like these from now on."""
        self._failed = np.concatenate([self._failed, genomes])
        self._archive.take(genomes)

    def _candidates(self) -> Genomes:
        """Fit all costly metrics, and return networks that may be worth an evaluation, none of them taken."""
        known = self._archive
        figures = self._problem.known_figures(known.genomes, known.values)
        x = self._encode(known.genomes, figures).astype(np.float64)
        groups = self._encode.groups(figures.shape[1])
        for metric, fit in self._fits.items():
            fit.fit(x, known.values[:, metric], groups)
        self._success = self._fit_success(x, groups)
        problem = self._problem
        if problem.everything is not None:
            return known.fresh(problem.everything)
        if self._evolution is None:
            # Twice as many as the inner search would look at.
            return known.fresh(feasible_pool(problem, _RANDOM_POOL, self._rng, found=known.genomes))
        pool = feasible_pool(problem, _FIRST_POOL, self._rng, found=known.genomes)
        feasible = known.genomes[problem.feasible(known.values)]
        start = problem.space.unique(np.concatenate([feasible, pool]))[: len(feasible) + self._evolution.population]
        if not len(start):
            return start
        # By expectation alone (experiments/search-supernet); what is uncertain counts where the batch is chosen.
        last, _, violation = evolve(problem.space, self.score, start, self._evolution, self._rng)
        # Where nothing is predicted to keep the costly bounds, what is nearest to them is worth knowing.
        kept = violation <= 0.0
        chosen = last[kept] if kept.any() else last
        return known.fresh(chosen[problem.keeps_bounds(chosen)])

    def _best(self, candidates: Genomes, n: int) -> Proposal:
        """Choose by expected gain; by how little the bounds are broken, where no draw keeps them."""
        problem, known = self._problem, self._archive
        feasible = problem.feasible(known.values)
        values = problem.cheap(candidates)
        x = self._features(candidates, values)
        if len(candidates) > _CANDIDATES:
            values, x, candidates = self._thinned(candidates, values, x)
        drawn = np.repeat(values[None], _DRAWS if self._fits else 1, axis=0)
        for metric, fit in self._fits.items():
            drawn[:, :, metric] = fit.draw(x, len(drawn), self._rng)
        shape = drawn.shape[:2]
        flat = drawn.reshape(-1, drawn.shape[2])
        minimised = problem.minimised(flat).reshape(*shape, -1)
        possible = problem.feasible(flat).reshape(shape)
        if not possible.any():
            broken = problem.violations(flat).sum(axis=1).reshape(shape).mean(axis=0)
            nearest = candidates[np.argsort(broken, kind="stable")[:n]]
            known.take(nearest)
            return Proposal.of(nearest, "nearest to the bounds")
        if self._success is not None:
            possible &= self._rng.random(shape) < np.maximum(self._success(x), _LEAST_CHANCE)
        true = problem.minimised(known.values[feasible])
        chosen = choose_batch(
            minimised,
            possible.astype(np.float64),
            true[front_rows(true)],
            minimised.mean(axis=0),
            min(n, len(candidates)),
            self._rng,
        )
        genomes = candidates[chosen.rows]
        known.take(genomes)
        return Proposal(genomes, ("expected gain",) * len(genomes), chosen.gain)

    def _thinned(self, candidates: Genomes, values: Values, x: Matrix) -> tuple[Values, Matrix, Genomes]:
        """Return the candidates whose optimistic predictions stand out: joint draws are quadratic in their number."""
        minimised, violation = self.score(candidates, optimism=1.0)
        rows = best_rows(minimised, violation, n=_CANDIDATES)
        return values[rows], x[rows], candidates[rows]

    def score(self, genomes: Genomes, *, optimism: float = 0.0) -> tuple[Values, Values]:
        """Return objectives and violations, costly metrics taken so many standard deviations better than expected."""
        values = self._problem.cheap(genomes)
        x = self._features(genomes, values)
        for metric, fit in self._fits.items():
            if optimism:
                mean, std = fit.predict(x)
                values[:, metric] = mean - self._problem.sign(metric) * optimism * std
            else:
                values[:, metric] = fit.mean(x)
        violation = self._problem.violations(values).sum(axis=1)
        if self._success is not None:
            success = self._success(x)
            # Like a broken bound, where failing is more likely than not.
            violation += np.where(success < 0.5, 1.0 - success, 0.0)
        minimised = self._problem.minimised(values)
        unknown = ~np.isfinite(values).all(axis=1)
        minimised[unknown], violation[unknown] = 0.0, np.inf
        return minimised, violation

    def _fit_success(self, x: Matrix, groups: Sequence[FeatureGroup]) -> Chance | None:
        """Return how likely networks are to be evaluated, by least squares on those that were and those that failed.

        None before some have failed: from one or two, nothing is learned of a kind of networks.
        """
        if len(self._failed) < _FAILURES_TO_LEARN_FROM:
            return None
        failed = self._features(self._failed, self._problem.cheap(self._failed))
        rows = np.concatenate([x, failed])
        scaling = Scaling.of(rows, groups)
        fitted = fit_ridge(scaling(rows), np.repeat([1.0, 0.0], [len(x), len(failed)]), scaling, 0)
        return lambda raw: np.clip(fitted.mean(scaling(raw)), 0.0, 1.0)

    def _features(self, genomes: Genomes, values: Values) -> Matrix:
        return self._encode(genomes, self._problem.known_figures(genomes, values)).astype(np.float64)

    def _spread(self, n: int) -> Genomes:
        """Return feasible networks evenly spaced along the first cheap metric, known ones first."""
        problem, taken = self._problem, self._archive
        cheap = (~problem.costly).nonzero()[0]
        pool = taken.fresh(feasible_pool(problem, _FIRST_POOL, self._rng))
        n_known = min(n, len(taken.fresh(problem.known[problem.keeps_bounds(problem.known)])))
        if not len(cheap) or not len(pool):
            chosen = pool[:n]
        else:
            known, rest = pool[:n_known], pool[n_known:]
            cost = problem.cheap(rest)[:, cheap[0]]
            order = np.argsort(cost, kind="stable")
            chosen = np.concatenate([known, rest[order[_spaced(cost[order], n - n_known, self._rng)]]])
        taken.take(chosen)
        # Not in the order of cost: should the small ones fail, others have their turn before the search gives up.
        shuffled: Genomes = np.concatenate([chosen[:n_known], self._rng.permutation(chosen[n_known:])])
        return shuffled


def _first_sample(problem: Problem) -> int:
    """Return how many networks are evaluated before the first fit."""
    return int(np.clip(problem.space.n_genes // 2, 12, 32))


def _spaced(cost: Values, n: int, rng: np.random.Generator) -> list[int]:
    """Return at most `n` positions in sorted costs: one in each of `n` slices of equal range, the rest from anywhere.

    Of equal range, not of equal count: random networks crowd around the middle, and a fit there is lost at the ends.
    """
    n = min(n, len(cost))
    if not n:
        return []
    inner = np.linspace(cost[0], cost[-1], n + 1)[1:-1]
    bounds = [0, *np.searchsorted(cost, inner).tolist(), len(cost)]
    picked = [int(rng.integers(low, high)) for low, high in itertools.pairwise(bounds) if high > low]
    left = np.setdiff1d(np.arange(len(cost)), picked)
    return sorted([*picked, *rng.choice(left, size=n - len(picked), replace=False).tolist()])
