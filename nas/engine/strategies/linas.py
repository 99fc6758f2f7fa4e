"""``linas``: lightweight iterative NAS (Cummings et al. 2022, arXiv:2205.10358), as published: the bar.

Every objective is predicted, cheap ones too; the better of a ridge regression and a support vector machine, by
cross-validated error, is searched with pymoo's default operators; the last population is evaluated; and again. What
differs from the public code: genomes are canonical, no network is evaluated twice, cheap bounds are kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.algorithms.moo.unsga3 import UNSGA3
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize

from nas.engine.problem import Problem, Values
from nas.engine.strategies.nsga2 import reference_directions
from nas.engine.strategies.random import random_networks
from nas.engine.strategy import Archive, Proposal
from search_spaces.space import Genomes

_POPULATION = 50
_INNER_EVALUATIONS = 20_000
_FOLDS = 5
# The published grids are finer in steps and equal in range.
_RIDGE_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
_SVR_COSTS = (1.0, 3.0, 10.0, 30.0, 100.0)


class Linas:
    """The published loop.

    Args:
        problem: what is searched.
        seed: of all draws.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem = problem
        self._archive = Archive(problem)
        self._rng = np.random.default_rng(seed)
        self._waiting = self._archive.genomes

    def ask(self, n: int) -> Proposal:
        """Return random networks first, then what is left of the last inner population."""
        missing = _POPULATION - len(self._archive.taken)
        if missing > 0 or len(self._archive) < _FOLDS:
            chosen = random_networks(self._problem, self._archive, min(n, max(missing, 1)), self._rng)
            return Proposal.of(chosen, "first population")
        self._waiting = self._archive.fresh(self._waiting)  # some may have been told meanwhile
        if not len(self._waiting):
            self._waiting = self._last_population()
        chosen, self._waiting = self._waiting[:n], self._waiting[n:]
        self._archive.take(chosen)
        if len(chosen):
            return Proposal.of(chosen, "last inner population")
        return Proposal.of(random_networks(self._problem, self._archive, min(n, _POPULATION), self._rng), "random")

    def tell(self, genomes: Genomes, values: Values) -> None:
        """Fit to these as well from now on."""
        self._archive.add(genomes, values)

    def _mutation(self) -> PM:
        # As the published code names it. pymoo has once taken this as a share of genes and now takes it as a share of
        # networks.
        return PM(prob=0.02, eta=20, vtype=float, repair=RoundingRepair())

    def _last_population(self) -> Genomes:
        problem, space = self._problem, self._problem.space
        x = space.encode(self._archive.genomes).astype(np.float64)
        models = [_fit(x, column) for column in self._archive.minimised.T]
        inner = _Inner(problem, models)
        operators = {
            "pop_size": _POPULATION,
            "sampling": IntegerRandomSampling(),
            "crossover": SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
            "mutation": self._mutation(),
            "eliminate_duplicates": True,
        }
        m = problem.n_objectives
        if m == 1:
            algorithm = GA(**operators)
        elif m == 2:
            algorithm = NSGA2(**operators)
        else:
            algorithm = UNSGA3(reference_directions(m, _POPULATION), **operators)
        result = minimize(inner, algorithm, ("n_eval", _INNER_EVALUATIONS), seed=int(self._rng.integers(2**31)))
        found = self._archive.fresh(space.canonical(result.pop.get("X").astype(np.int16)))
        kept: Genomes = found[problem.keeps_bounds(found)]
        return kept


class _Inner(PymooProblem):  # type: ignore[misc]
    """All objectives as predicted; bounds on cheap metrics as they are."""

    def __init__(self, problem: Problem, models: list[Any]) -> None:
        super().__init__(
            n_var=problem.space.n_genes,
            n_obj=problem.n_objectives,
            n_ieq_constr=len(problem.constraints),
            xl=0,
            xu=problem.space.n_options - 1,
            vtype=int,
        )
        self._search, self._models = problem, models

    def _evaluate(self, x: Any, out: dict[str, Any], *args: object, **kwargs: object) -> None:
        genomes = self._search.space.canonical(x.astype(np.int16))
        encoded = self._search.space.encode(genomes).astype(np.float64)
        out["F"] = np.stack([model(encoded) for model in self._models], axis=1)
        if self._search.constraints:
            out["G"] = self._search.violations(self._search.cheap(genomes))


def _fit(x: Values, y: Values) -> Any:
    """Return the better of both regressions, as a function of encoded genomes."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVR

    # Labels of two digits before the point, as published: the grid of the support vector machine is made for them.
    scale = 10.0 ** (math.floor(math.log10(max(float(np.abs(y).max()), 1e-300))) - 1)
    searches = [
        GridSearchCV(model, grid, scoring="neg_mean_absolute_percentage_error", cv=_FOLDS).fit(x, y / scale)
        for model, grid in (
            (Ridge(), {"alpha": _RIDGE_PENALTIES}),
            (SVR(kernel="rbf", gamma="auto", epsilon=0.0), {"C": _SVR_COSTS}),
        )
    ]
    best = max(searches, key=lambda search: float(search.best_score_)).best_estimator_
    return lambda encoded: scale * best.predict(encoded)
