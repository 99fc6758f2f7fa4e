"""Variants of strategies that answer doubts about the comparison."""

from __future__ import annotations

from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair

from nas.engine.problem import Problem
from nas.engine.strategies import STRATEGIES
from nas.engine.strategies.linas import Linas
from nas.engine.strategies.predictor import PredictorSearch
from predictors.regression.chosen import REGRESSIONS


def add_variants() -> None:
    """Make the variants known by name."""
    STRATEGIES["predictor, no networks"] = "variants:no_networks"
    STRATEGIES["linas, more mutation"] = "variants:MoreMutation"


def no_networks(problem: Problem, seed: int) -> PredictorSearch:
    """Return the default without neural networks, for an oracle that is made of them."""
    return PredictorSearch(problem, seed, regressions=[name for name in REGRESSIONS if name != "mlp-ensemble"])


class MoreMutation(Linas):
    """LINAS with the other reading of its mutation rate: every child, each gene with probability 0.02."""

    def _mutation(self) -> PM:
        return PM(prob=1.0, prob_var=0.02, eta=20, vtype=float, repair=RoundingRepair())
