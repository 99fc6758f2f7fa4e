"""``local``: one-exchange neighbours of the front (Paquete et al. 2004; White et al. 2020, arXiv:2005.02960)."""

from __future__ import annotations

import numpy as np

from nas.engine.pareto import front_rows
from nas.engine.problem import Problem, Values
from nas.engine.strategies.random import random_networks
from nas.engine.strategy import Archive, Proposal
from search_spaces.space import Genomes

_FIRST = 10
_STEP = 8


class LocalSearch:
    """Pareto local search; from a random network where the whole neighbourhood of the front is known."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self._archive = Archive(problem)
        self._rng = np.random.default_rng(seed)

    def ask(self, n: int) -> Proposal:
        """Return random networks first, then a few neighbours, so that a better front has better neighbours soon."""
        missing = _FIRST - len(self._archive.taken)
        if missing > 0 or not len(self._archive):
            chosen = random_networks(self._problem, self._archive, min(n, max(missing, 1)), self._rng)
            return Proposal.of(chosen, "first sample")
        neighbours = self._neighbours()
        if not len(neighbours):
            chosen = random_networks(self._problem, self._archive, min(n, _STEP), self._rng)
            return Proposal.of(chosen, "random restart")
        chosen = neighbours[self._rng.permutation(len(neighbours))[: min(n, _STEP)]]
        self._archive.take(chosen)
        return Proposal.of(chosen, "neighbour of the front")

    def tell(self, genomes: Genomes, values: Values) -> None:
        """Move the front."""
        self._archive.add(genomes, values)

    def _neighbours(self) -> Genomes:
        """Return what is feasible, new, and one gene away from the front, or from the network nearest to feasible."""
        archive, space = self._archive, self._problem.space
        feasible = np.flatnonzero(archive.violation <= 0.0)
        best = feasible[front_rows(archive.minimised[feasible])]
        if not len(best):
            best = archive.violation.argsort()[:1]
        near = archive.fresh(np.concatenate([space.neighbours(genome) for genome in archive.genomes[best]]))
        kept: Genomes = near[self._problem.keeps_bounds(near)]
        return kept
