"""What a strategy is: it decides which networks to evaluate next, and learns what they were worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from nas.engine.problem import Problem, Values
from search_spaces.space import Genomes


class Proposal(NamedTuple):
    """What a strategy asks for.

    Attributes:
        genomes: canonical, distinct, ``int16[n, n_genes]``.
        why: for each of them, in a word or two, for the history.
        gain: expected gain in hypervolume by one of them relative to the front's, if the strategy predicts any.
    """

    genomes: Genomes
    why: tuple[str, ...]
    gain: float | None = None

    @classmethod
    def of(cls, genomes: Genomes, why: str) -> Proposal:
        """Return a proposal with one reason for all."""
        return cls(genomes, (why,) * len(genomes))


class Strategy(Protocol):
    """Decides which networks to evaluate next.

    A strategy may ask for fewer networks than it is allowed, such as one generation, but never for none before it has
    exhausted what it can find. It may be told networks that it did not ask for, at any time.
    """

    def ask(self, n: int) -> Proposal:
        """Return at most `n` genomes that keep the cheap constraints, none of them asked or told before."""

    def tell(self, genomes: Genomes, values: Values) -> None:
        """Take true metrics ``float64[n, n_metrics]`` of canonical genomes ``int16[n, n_genes]``.

        Networks whose evaluation failed are not told here (see `LearnsFromFailures`); they were asked for, and are not
        asked for again.
        """


@runtime_checkable
class LearnsFromFailures(Protocol):
    """What a strategy also has that avoids networks which cannot be evaluated."""

    def tell_failed(self, genomes: Genomes) -> None:
        """Take canonical genomes ``int16[n, n_genes]`` whose evaluation failed, asked for or not."""


StrategyFactory = Callable[[Problem, int], Strategy]
"""Called as ``factory(problem, seed)``."""


class Archive:
    """The networks a strategy knows: evaluated ones with their metrics, and ones that are out for evaluation."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.genomes: Genomes = np.empty((0, problem.space.n_genes), dtype=np.int16)
        self.values: Values = np.empty((0, len(problem.metrics)))
        self.taken: set[bytes] = set()

    def __len__(self) -> int:
        """Return the number of evaluated networks."""
        return len(self.genomes)

    def add(self, genomes: Genomes, values: Values) -> None:
        """Keep evaluated networks."""
        self.genomes = np.concatenate([self.genomes, genomes])
        self.values = np.concatenate([self.values, values])
        self.take(genomes)

    def take(self, genomes: Genomes) -> None:
        """Remember networks as taken."""
        self.taken.update(row.tobytes() for row in genomes)

    def fresh(self, genomes: Genomes) -> Genomes:
        """Return the distinct rows that are not taken, in their order."""
        distinct = {row.tobytes(): row for row in genomes}
        rows = [row for key, row in distinct.items() if key not in self.taken]
        return np.array(rows, dtype=np.int16).reshape(-1, self._problem.space.n_genes)

    @property
    def minimised(self) -> Values:
        """Objectives of the evaluated networks, all minimised, ``float64[n, m]``."""
        return self._problem.minimised(self.values)

    @property
    def violation(self) -> Values:
        """By how much each evaluated network breaks the constraints in all, ``float64[n]``."""
        total: Values = self._problem.violations(self.values).sum(axis=1)
        return total
