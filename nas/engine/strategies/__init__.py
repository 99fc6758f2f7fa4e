"""Strategies by name, loaded when they are asked for. To add one: a file, and its line here."""

from __future__ import annotations

import importlib

from nas.engine.problem import Problem
from nas.engine.strategy import Strategy
from search_spaces.errors import unknown_name

STRATEGIES = {
    "predictor": "nas.engine.strategies.predictor:PredictorSearch",
    "random-predictor": "nas.engine.strategies.random_predictor:random_predictor",
    "linas": "nas.engine.strategies.linas:Linas",
    "nsga2": "nas.engine.strategies.nsga2:EvolutionarySearch",
    "regularized-evolution": "nas.engine.strategies.regularized_evolution:RegularizedEvolution",
    "local": "nas.engine.strategies.local:LocalSearch",
    "tpe": "nas.engine.strategies.optuna_samplers:tpe",
    "gp": "nas.engine.strategies.optuna_samplers:gp",
    "random": "nas.engine.strategies.random:RandomSearch",
}
"""Name to module and factory; yours too, once its line is here."""


def check_strategy(name: str) -> None:
    """Raise `InputError` for a name that is not known."""
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)


def make_strategy(name: str, problem: Problem, seed: int) -> Strategy:
    """Return a new strategy; raises `InputError` for a name that is not known."""
    check_strategy(name)
    module, _, factory = STRATEGIES[name].partition(":")
    strategy: Strategy = getattr(importlib.import_module(module), factory)(problem, seed)
    return strategy
