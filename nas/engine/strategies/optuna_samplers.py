"""``tpe`` and ``gp``: Optuna's samplers, the baselines people know (Bergstra et al. 2011; Optuna's GPSampler)."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from nas.engine.problem import Problem, Values
from nas.engine.strategies.random import random_networks
from nas.engine.strategy import Archive, Proposal
from search_spaces.space import Genomes

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

_TRIES = 8


class OptunaSearch:
    """One network at a time, from a sampler over all genes; bounds are told as Optuna's constraints.

    Inactive genes have values too, which canonical form drops: the samplers then know one fixed set of parameters.
    """

    def __init__(self, problem: Problem, seed: int, sampler: Callable[[int], BaseSampler]) -> None:
        from optuna import create_study

        self._problem = problem
        self._distributions = _distributions(problem)
        self._archive = Archive(problem)
        self._rng = np.random.default_rng(seed)
        self._trials: dict[bytes, Trial] = {}
        self._told: dict[bytes, tuple[list[float], dict[str, float]]] = {}
        with _quiet():
            self._study: Study = create_study(sampler=sampler(seed), directions=["minimize"] * problem.n_objectives)

    def ask(self, n: int) -> Proposal:
        """Return one network: the sampler's, or a random one where it finds nothing new in a bounded time."""
        with _quiet():
            for _ in range(_TRIES):
                trial = self._study.ask(self._distributions)
                options = np.array([[trial.params[name] for name in self._problem.space.names]], dtype=np.int16)
                genomes = self._archive.fresh(self._problem.space.canonical(options))
                if not len(genomes):
                    self._repeat(trial, self._problem.space.canonical(options)[0])
                elif self._problem.keeps_bounds(genomes)[0]:
                    self._archive.take(genomes)
                    self._trials[genomes[0].tobytes()] = trial
                    return Proposal.of(genomes, "sampler")
                else:
                    self._refuse(trial, genomes)
        return Proposal.of(random_networks(self._problem, self._archive, min(n, 1), self._rng), "random")

    def tell(self, genomes: Genomes, values: Values) -> None:
        """Finish trials, or add them if they were not asked for."""
        from optuna.trial import create_trial

        self._archive.add(genomes, values)
        minimised, bounds = self._problem.minimised(values).tolist(), self._bounds(values)
        with _quiet():
            for genome, figures, broken in zip(genomes, minimised, bounds, strict=True):
                self._told[genome.tobytes()] = figures, broken
                trial = self._trials.pop(genome.tobytes(), None)
                if trial is not None:
                    self._finish(trial, figures, broken)
                else:
                    params = dict(zip(self._problem.space.names, genome.tolist(), strict=True))
                    self._study.add_trial(
                        create_trial(
                            values=figures, params=params, distributions=self._distributions, constraints=broken
                        )
                    )

    def _repeat(self, trial: Trial, genome: Genomes) -> None:
        """Tell what is known of a network already, as other settings of genes that it does not have."""
        from optuna.trial import TrialState

        known = self._told.get(genome.tobytes())
        if known is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._finish(trial, *known)

    def _refuse(self, trial: Trial, genomes: Genomes) -> None:
        """Tell by how much a network breaks the cheap bounds, without evaluating it: it is as bad as the worst."""
        from optuna.trial import TrialState

        broken = self._bounds(self._problem.cheap(genomes))[0]
        if len(self._archive) and all(math.isfinite(value) for value in broken.values()):
            self._finish(trial, self._archive.minimised.max(axis=0).tolist(), broken)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _finish(self, trial: Trial, figures: list[float], broken: dict[str, float]) -> None:
        for name, value in broken.items():
            trial.set_constraint(name, value)
        self._study.tell(trial, figures)

    def _bounds(self, values: Values) -> list[dict[str, float]]:
        """Return violations by constraint for each row of metrics."""
        violations = self._problem.violations(values).tolist()
        return [{str(position): value for position, value in enumerate(row)} for row in violations]


def tpe(problem: Problem, seed: int) -> OptunaSearch:
    """Return the strategy with the tree-structured Parzen estimator."""
    from optuna.samplers import TPESampler

    return OptunaSearch(problem, seed, lambda seed: TPESampler(seed=seed))


def gp(problem: Problem, seed: int) -> OptunaSearch:
    """Return the strategy with a Gaussian process."""
    from optuna.samplers import GPSampler

    return OptunaSearch(problem, seed, lambda seed: GPSampler(seed=seed))


def _distributions(problem: Problem) -> dict[str, BaseDistribution]:
    """Return a distribution over option indices per gene: ordered for sizes, not for kinds."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        gene.name: IntDistribution(0, len(gene.options) - 1)
        if gene.ordinal
        else CategoricalDistribution(tuple(range(len(gene.options))))
        for gene in problem.space.genes
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from announcing studies, experimental samplers and failed trials, for this block alone."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
