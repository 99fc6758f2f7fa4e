"""``regularized-evolution``: mutate the best of a few, let the oldest die (Real et al. 2019, arXiv:1802.01548)."""

from __future__ import annotations

import numpy as np

from nas.engine.pareto import ranked
from nas.engine.problem import Problem, Values
from nas.engine.strategies.random import random_networks
from nas.engine.strategy import Archive, Proposal
from search_spaces.space import Genomes

_POPULATION = 50
_TOURNAMENT = 10
_TRIES = 32
_STEP = 5
"""How many children are made before any of them is known, as by so many workers of the published loop."""


class RegularizedEvolution:
    """The published loop; with several objectives, the better one is the one of the better place in NSGA-II's order."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self._archive = Archive(problem)
        self._rng = np.random.default_rng(seed)

    def ask(self, n: int) -> Proposal:
        """Return random networks until there is a population, then mutations of winners."""
        missing = _POPULATION - len(self._archive.taken)
        if missing > 0 or len(self._archive) < 2:
            chosen = random_networks(self._problem, self._archive, min(n, max(missing, 1)), self._rng)
            return Proposal.of(chosen, "first population")
        children = self._children(min(n, _STEP))
        if len(children):
            return Proposal.of(children, "mutation")
        return Proposal.of(random_networks(self._problem, self._archive, min(n, _STEP), self._rng), "random")

    def tell(self, genomes: Genomes, values: Values) -> None:
        """Add to the population; who is not among its youngest is dead."""
        self._archive.add(genomes, values)

    def _children(self, n: int) -> Genomes:
        """Take at most `n` new feasible mutations of winners, in bounded time."""
        archive, problem, rng = self._archive, self._problem, self._rng
        alive = slice(-_POPULATION, None)
        genomes = archive.genomes[alive]
        order, places = ranked(archive.minimised[alive], archive.violation[alive], n=len(genomes))
        genomes = genomes[order]
        children = genomes[:0]
        for _ in range(_TRIES):
            rivals = rng.integers(0, len(genomes), size=(n, _TOURNAMENT))
            winners = np.take_along_axis(rivals, places[rivals].argmin(axis=1)[:, None], axis=1)[:, 0]
            drawn = archive.fresh(problem.space.mutate(genomes[winners], rng, probability=0.0))
            drawn = drawn[problem.keeps_bounds(drawn)][: n - len(children)]
            archive.take(drawn)
            children = np.concatenate([children, drawn])
            if len(children) == n:
                break
        return children
