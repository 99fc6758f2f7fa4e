"""What a search is about: one costly objective to learn, cheap ones to compute, constraints to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from search_spaces.space import Genomes, SearchSpace

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Everything is minimised; column 0 of F is the costly objective.

    Attributes:
        space: what is searched.
        cheap: the other objectives in bulk, ``float64[n, m - 1]``.
        violation: constraints in bulk, ``float64[n, c]``, kept where at most 0.
        anchors: known feasible genomes ``int16[k, n_genes]``, such as the cheapest network: where feasible networks
            are rare, the search starts from here.
    """

    space: SearchSpace
    cheap: Callable[[Genomes], Values]
    violation: Callable[[Genomes], Values]
    anchors: Genomes

    def feasible(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        """Return which genomes keep every constraint, ``bool[n]``."""
        kept: npt.NDArray[np.bool_] = np.all(self.violation(genomes) <= 0.0, axis=1)
        return kept


class Strategy(Protocol):
    """Decides which networks to evaluate next."""

    def ask(self, n: int) -> Genomes:
        """Return at most `n` canonical genomes, none of them asked or told before; empty when there are no more."""

    def tell(self, genomes: Genomes, objectives: Values) -> None:
        """Take the true objectives ``float64[n, m]``, minimised, of canonical genomes ``int16[n, n_genes]``."""


class Archive:
    """The networks a strategy knows: evaluated ones with their objectives, and ones that are out for evaluation."""

    def __init__(self, n_genes: int) -> None:
        self.genomes: Genomes = np.empty((0, n_genes), dtype=np.int16)
        self.objectives: Values = np.empty((0, 0))
        self._seen: set[bytes] = set()

    def add(self, genomes: Genomes, objectives: Values) -> None:
        """Keep evaluated networks."""
        first = len(self.genomes) == 0
        self.genomes = np.concatenate([self.genomes, genomes])
        self.objectives = objectives.copy() if first else np.concatenate([self.objectives, objectives])
        self.mark(genomes)

    def mark(self, genomes: Genomes) -> None:
        """Remember networks as taken."""
        self._seen.update(row.tobytes() for row in genomes)

    def unseen(self, genomes: Genomes) -> Genomes:
        """Return the distinct rows that are not taken yet."""
        fresh = [row for row in genomes if row.tobytes() not in self._seen]
        distinct = list({row.tobytes(): row for row in fresh}.values())
        return np.array(distinct, dtype=np.int16).reshape(-1, genomes.shape[1])


_POOL_ROUNDS = 24
_POOL_DRAW = 2048


def feasible_pool(problem: Problem, size: int, rng: np.random.Generator) -> Genomes:
    """Return up to about `size` distinct feasible genomes, in bounded time however rare they are.

    Rounds of random draws alternate with mutations of what is feasible already (EEEA-Net's early exit,
    arXiv:2108.06156, without its unbounded loop); the anchors are always in it.
    """
    space = problem.space
    pool = problem.anchors
    for turn in range(_POOL_ROUNDS):
        if turn % 2 == 0 or not len(pool):
            drawn = space.sample(_POOL_DRAW, rng)
        else:
            parents = pool[rng.integers(0, len(pool), size=_POOL_DRAW)]
            drawn = space.mutate(parents, rng, probability=2.0 / space.n_genes)
        pool = space.unique(np.concatenate([pool, drawn[problem.feasible(drawn)]]))
        if len(pool) >= size:
            break
    return pool
