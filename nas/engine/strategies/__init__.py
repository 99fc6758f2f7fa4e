"""Strategies by name, loaded when they are asked for. To add one: a file, and its line here."""

from __future__ import annotations

import importlib

from nas.engine.problem import Problem
from nas.engine.strategy import Strategy
from search_spaces.errors import unknown_name

STRATEGIES = {
    "predictor": "predictor:PredictorSearch",
    "random-predictor": "random_predictor:random_predictor",
    "linas": "linas:Linas",
    "nsga2": "nsga2:EvolutionarySearch",
    "regularized-evolution": "regularized_evolution:RegularizedEvolution",
    "local": "local:LocalSearch",
    "tpe": "optuna_samplers:tpe",
    "gp": "optuna_samplers:gp",
    "random": "random:RandomSearch",
}
"""Name to module and factory."""


def check_strategy(name: str) -> None:
    """Raise `InputError` for a name that is not known."""
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)


def make_strategy(name: str, problem: Problem, seed: int) -> Strategy:
    """Return a new strategy; raises `InputError` for a name that is not known."""
    check_strategy(name)
    module, _, factory = STRATEGIES[name].partition(":")
    strategy: Strategy = getattr(importlib.import_module(f"nas.engine.strategies.{module}"), factory)(problem, seed)
    return strategy
