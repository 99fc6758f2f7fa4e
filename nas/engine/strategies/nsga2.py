"""``nsga2``: NSGA-II on true evaluations (Deb et al. 2002); beyond two objectives U-NSGA-III (Seada & Deb 2016).

Both are pymoo's. Only how children are made is ours: uniform crossover and redrawn genes suit categorical choices, and
a child that repeats a network or breaks a cheap bound is replaced before it costs an evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.unsga3 import UNSGA3
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.evaluator import Evaluator
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.core.termination import NoTermination
from pymoo.problems.static import StaticProblem
from pymoo.util.ref_dirs import get_reference_directions

from nas.engine.problem import Problem, Values
from nas.engine.strategies.random import random_networks
from nas.engine.strategy import Archive, Proposal
from search_spaces.space import Genomes, SearchSpace

_POPULATION = 50


class EvolutionarySearch:
    """pymoo's algorithm, asked and told; a generation is handed out in as many parts as one likes."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self._archive = Archive(problem)
        self._rng = np.random.default_rng(seed)
        self._seed = seed
        self._algorithm: Any = None
        self._waiting = self._archive.genomes
        self._untold: list[tuple[Genomes, Values]] = []

    def ask(self, n: int) -> Proposal:
        """Return random networks for the first generation, then what is left of the present one."""
        first = _POPULATION - len(self._archive.taken)
        if self._algorithm is None and (first > 0 or not self._untold):
            chosen = random_networks(self._problem, self._archive, min(n, max(first, 1)), self._rng)
            return Proposal.of(chosen, "first population")
        self._waiting = self._archive.fresh(self._waiting)  # some may have been told meanwhile
        if not len(self._waiting):
            self._waiting = self._next_generation()
        chosen, self._waiting = self._waiting[:n], self._waiting[n:]
        self._archive.take(chosen)
        if len(chosen):
            return Proposal.of(chosen, "crossover and mutation")
        return Proposal.of(random_networks(self._problem, self._archive, min(n, _POPULATION), self._rng), "random")

    def tell(self, genomes: Genomes, values: Values) -> None:
        """Keep for the next generation's survival."""
        self._archive.add(genomes, values)
        self._untold.append((genomes, values))

    def _next_generation(self) -> Genomes:
        """Tell the algorithm what has arrived, and return its children that are still new."""
        problem = self._problem
        if self._algorithm is None:
            self._algorithm = self._begin()
        if self._untold:
            genomes = np.concatenate([genomes for genomes, _ in self._untold])
            values = np.concatenate([values for _, values in self._untold])
            self._untold = []
            bounds = {"G": problem.violations(values)} if problem.constraints else {}
            arrived = Population.new("X", genomes)
            known = StaticProblem(self._algorithm.problem, F=problem.minimised(values), **bounds)
            Evaluator().eval(known, arrived)
            self._algorithm.tell(infills=arrived)
        children = self._algorithm.ask()
        if children is None or not len(children):
            return self._archive.genomes[:0]
        return self._archive.fresh(children.get("X").astype(np.int16))

    def _begin(self) -> Any:
        space, m = self._problem.space, self._problem.n_objectives
        # pymoo's default operators are shared mutable objects: these are made for this search alone.
        operators = {
            "pop_size": _POPULATION,
            "crossover": UniformCrossover(space, self._rng),
            "mutation": RedrawMutation(space, self._rng),
            "eliminate_duplicates": _NewAndAllowed(self._problem, self._archive),
        }
        algorithm = NSGA2(**operators) if m <= 2 else UNSGA3(reference_directions(m, _POPULATION), **operators)
        blank = PymooProblem(n_var=space.n_genes, n_obj=m, n_ieq_constr=len(self._problem.constraints), vtype=int)
        algorithm.setup(blank, seed=self._seed, termination=NoTermination())
        return algorithm


def reference_directions(n_objectives: int, at_most: int) -> Values:
    """Return evenly spread directions (Das & Dennis 1998), ``float64[k, m]``, as many as fit."""
    partitions = 1
    while math.comb(partitions + n_objectives, n_objectives - 1) <= at_most:
        partitions += 1
    directions: Values = get_reference_directions("das-dennis", n_objectives, n_partitions=partitions)
    return directions


class UniformCrossover(Crossover):  # type: ignore[misc]
    """Each gene of the child from either parent; the child is canonical."""

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        super().__init__(n_parents=2, n_offsprings=1)
        self._space, self._rng = space, rng

    def _do(self, problem: object, X: Any, *args: object, **kwargs: object) -> Any:  # noqa: N803 - pymoo's signature
        first, second = X.astype(np.int16)
        return self._space.crossover(first, second, self._rng)[None]


class RedrawMutation(Mutation):  # type: ignore[misc]
    """On average one more gene redrawn than the one that always is; the child is canonical."""

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        super().__init__()
        self._space, self._rng = space, rng

    def _do(self, problem: object, X: Any, *args: object, **kwargs: object) -> Any:  # noqa: N803 - pymoo's signature
        return self._space.mutate(X.astype(np.int16), self._rng, probability=1.0 / self._space.n_genes)


class _NewAndAllowed(DuplicateElimination):  # type: ignore[misc]
    """Calls a duplicate what is one, what is taken, and what breaks a cheap bound: pymoo then mates again."""

    def __init__(self, problem: Problem, archive: Archive) -> None:
        super().__init__()
        self._problem, self._archive = problem, archive

    def _do(self, pop: Population, other: Population | None, is_duplicate: npt.NDArray[np.bool_]) -> Any:
        genomes = pop.get("X").astype(np.int16)
        seen = set(_keys(other.get("X").astype(np.int16))) if other is not None else set()
        if other is None:
            is_duplicate |= ~self._problem.keeps_bounds(genomes)
        for position, key in enumerate(_keys(genomes)):
            is_duplicate[position] |= key in seen or key in self._archive.taken
            if other is None:
                seen.add(key)
        return is_duplicate


def _keys(genomes: Genomes) -> Sequence[bytes]:
    return [row.tobytes() for row in genomes]
