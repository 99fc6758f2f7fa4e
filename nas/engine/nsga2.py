"""``nsga2``: NSGA-II (Deb et al. 2002, through pymoo) on predicted objectives, the budget as a pymoo constraint."""

from __future__ import annotations

from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem as PymooProblem
from pymoo.optimize import minimize

from nas.engine.predicted import PredictedSearch, Score, best_rows
from nas.engine.problem import Archive, Problem, feasible_pool
from predictors.accuracy import AccuracyPredictor
from search_spaces.space import Genomes, SearchSpace

POPULATION = 100
GENERATIONS = 40


def predicted_nsga2(problem: Problem, predictor: AccuracyPredictor, *, seed: int) -> PredictedSearch:
    """Return the strategy."""
    return PredictedSearch(problem, predictor, _evolve, seed=seed)


def _evolve(problem: Problem, score: Score, archive: Archive, rng: np.random.Generator) -> Genomes:
    """Return the last population of NSGA-II, started from the best known networks and random feasible ones."""
    known = archive.genomes[problem.feasible(archive.genomes)]
    if len(known) > POPULATION // 2:
        known = known[best_rows(score(known), POPULATION // 2)]
    start = problem.space.unique(np.concatenate([known, feasible_pool(problem, POPULATION, rng)]))[:POPULATION]
    # pymoo's default operators are shared mutable objects: these are made for this call alone.
    algorithm = NSGA2(
        pop_size=POPULATION,
        sampling=start,
        crossover=_UniformCrossover(problem.space, rng),
        mutation=_RedrawMutation(problem.space, rng),
        eliminate_duplicates=_SameGenome(),
    )
    result = minimize(
        _PredictedProblem(problem, score), algorithm, ("n_gen", GENERATIONS), seed=int(rng.integers(2**31))
    )
    found: Genomes = result.pop.get("X").astype(np.int16)
    return found


class _PredictedProblem(PymooProblem):  # type: ignore[misc]
    """The search problem with predictions in place of the costly objective; evaluated in bulk."""

    def __init__(self, problem: Problem, score: Score) -> None:
        objectives = score(problem.anchors).shape[1]
        constraints = problem.violation(problem.anchors).shape[1]
        super().__init__(
            n_var=problem.space.n_genes,
            n_obj=objectives,
            n_ieq_constr=constraints,
            xl=0,
            xu=problem.space.n_options - 1,
            vtype=int,
        )
        self._problem, self._score = problem, score

    def _evaluate(self, x: Any, out: dict[str, Any], *args: object, **kwargs: object) -> None:
        genomes = x.astype(np.int16)
        out["F"] = self._score(genomes)
        out["G"] = self._problem.violation(genomes)


class _UniformCrossover(Crossover):  # type: ignore[misc]
    """Each gene of the child from either parent; the child is canonical."""

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        super().__init__(n_parents=2, n_offsprings=1)
        self._space, self._rng = space, rng

    def _do(self, problem: object, X: Any, *args: object, **kwargs: object) -> Any:  # noqa: N803 - pymoo's signature
        first, second = X.astype(np.int16)
        return self._space.crossover(first, second, self._rng)[None]


class _RedrawMutation(Mutation):  # type: ignore[misc]
    """On average one more gene redrawn than the one that always is; the child is canonical."""

    def __init__(self, space: SearchSpace, rng: np.random.Generator) -> None:
        super().__init__()
        self._space, self._rng = space, rng

    def _do(self, problem: object, X: Any, *args: object, **kwargs: object) -> Any:  # noqa: N803 - pymoo's signature
        return self._space.mutate(X.astype(np.int16), self._rng, probability=1.0 / self._space.n_genes)


class _SameGenome(DuplicateElimination):  # type: ignore[misc]
    """Finds equal canonical genomes by hash instead of by pairwise distance."""

    def _do(self, pop: Population, other: Population | None, is_duplicate: Any) -> Any:
        taken = set() if other is None else {row.tobytes() for row in other.get("X").astype(np.int16)}
        for position, row in enumerate(pop.get("X").astype(np.int16)):
            key = row.tobytes()
            if key in taken:
                is_duplicate[position] = True
            elif other is None:
                taken.add(key)
        return is_duplicate
