"""``random``: networks that keep the cheap constraints, by chance."""

from __future__ import annotations

import numpy as np

from nas.engine.pool import feasible_pool
from nas.engine.problem import Problem, Values
from nas.engine.strategy import Archive, Proposal
from search_spaces.space import Genomes


class RandomSearch:
    """Draws each gene uniformly given its parent; where few draws are feasible, mutates those that are."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self._archive = Archive(problem)
        self._rng = np.random.default_rng(seed)

    def ask(self, n: int) -> Proposal:
        """Return `n` genomes, fewer only where no more are found."""
        return Proposal.of(random_networks(self._problem, self._archive, n, self._rng), "random")

    def tell(self, genomes: Genomes, values: Values) -> None:
        """Remember what is taken."""
        self._archive.add(genomes, values)


def random_networks(problem: Problem, archive: Archive, n: int, rng: np.random.Generator) -> Genomes:
    """Take at most `n` random feasible genomes that are new to an archive, in bounded time."""
    if problem.everything is not None:
        fresh = archive.fresh(problem.everything)
    else:
        fresh = archive.fresh(feasible_pool(problem, 4 * n, rng))
        if len(fresh) < n:
            # Most of the pool was taken already, or hardly anything is feasible but what was found before.
            fresh = archive.fresh(feasible_pool(problem, 4 * (n + len(archive)), rng, found=archive.genomes))
    chosen = fresh[rng.permutation(len(fresh))[:n]]
    archive.take(chosen)
    return chosen
