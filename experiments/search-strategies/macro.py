"""Strategies on NAS-Bench-Macro (Su et al. 2021, arXiv:2103.11922), of which every network is known."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from common import Study, Values, median_interval, save
from race import RaceProblem, Run, race, save_runs

from nas.engine.pareto import front_rows
from search_spaces.space import Genomes, SearchSpace

_MARKS = (50, 100, 150, 200, 400)
_STAGES = (2, 3, 3)
_LAYERS = ("mb3_k3", "mb6_k5")


@dataclass(frozen=True)
class Table:
    """All distinct networks.

    Attributes:
        genomes: canonical, ``int16[3969, 11]``.
        seen: accuracy of the first of three trainings, percent; what the search is told.
        mean: that of all three; what it is judged by.
        flops: in millions.
    """

    space: SearchSpace
    genomes: Genomes
    seen: Values
    mean: Values
    flops: Values


def macro_space() -> SearchSpace:
    """Return the space of 9 · 21 · 21 networks.

    The first layer of a stage changes the resolution, so it always is one of three operators; of the others an identity
    is no layer, so what is left is how many there are, and what they are.
    """
    choices: dict[str, tuple[str | int, ...]] = {}
    when: dict[str, dict[str, tuple[int, ...]]] = {}
    for stage, layers in enumerate(_STAGES):
        choices[f"first{stage}"] = ("identity", *_LAYERS)
        choices[f"depth{stage}"] = tuple(range(layers))
        for layer in range(1, layers):
            choices[f"layer{stage}.{layer}"] = _LAYERS
            when[f"layer{stage}.{layer}"] = {f"depth{stage}": tuple(range(layer, layers))}
    return SearchSpace.from_choices(choices, when=when, name="nas-bench-macro")


@functools.cache
def read_table(data: Path) -> Table:
    """Read the benchmark; of several codes of one network, which were trained once each, the first."""
    space = macro_space()
    rows: dict[tuple[int, ...], tuple[float, float, float]] = {}
    with (data / "nas_bench_macro" / "nas_bench_macro_flat.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            genes = _genes(row["arch"])
            genome = tuple(genes[name] for name in space.names)
            rows.setdefault(genome, (float(row["acc0"]), float(row["mean"]), float(row["flops"]) / 1e6))
    genomes = space.check(list(rows))
    if not len(genomes) == space.count() == len(space.unique(genomes)):
        raise ValueError(f"{len(genomes)} networks read, {space.count()} expected")
    return Table(space, genomes, *np.array(list(rows.values())).T)


def _genes(code: str) -> dict[str, int]:
    genes: dict[str, int] = {}
    start = 0
    for stage, layers in enumerate(_STAGES):
        first, *others = (int(digit) for digit in code[start : start + layers])
        present = [digit for digit in others if digit]
        genes[f"first{stage}"] = first
        genes[f"depth{stage}"] = len(present)
        for layer in range(1, layers):
            genes[f"layer{stage}.{layer}"] = present[layer - 1] - 1 if layer <= len(present) else 0
        start += layers
    return genes


def problem(study: Study) -> RaceProblem:
    """Return the search problem."""
    return _problem(study.data)


@functools.cache
def _problem(data: Path) -> RaceProblem:
    table = read_table(data)
    row = {genome.tobytes(): index for index, genome in enumerate(table.genomes)}

    def look_up(values: Values, genomes: Genomes) -> Values:
        found: Values = values[[row[genome.tobytes()] for genome in genomes]]
        return found

    return RaceProblem(table.space, functools.partial(look_up, table.seen), functools.partial(look_up, table.flops))


def search_macro(study: Study) -> None:
    """Run all strategies, and judge what each would hand back after some evaluations."""
    table = read_table(study.data)
    exact = front_rows(np.stack([-table.mean, table.flops], axis=1))
    runs = race(study, "macro", problem)
    save_runs(runs, "macro_runs")
    rows = [
        {"strategy": run.strategy, "evaluations": n} | _judged(study, table, run, n, exact)
        for run in runs
        for n in _MARKS
        if n <= len(run.accuracy)
    ]
    summary = []
    for (strategy, n), part in pd.DataFrame(rows).groupby(["strategy", "evaluations"], sort=False):
        row = {"strategy": strategy, "evaluations": n, "seeds": len(part)}
        for figure in ("regret_points", "front_covered_percent"):
            median, low, high = median_interval(part[figure].to_numpy())
            row |= {figure: median, f"{figure}_low_95": low, f"{figure}_high_95": high}
        summary.append(row)
    save(pd.DataFrame(summary), "macro")
    best, seen = table.mean.max(), table.mean[table.seen.argmax()]
    handed = front_rows(np.stack([-table.seen, table.flops], axis=1))
    known = {
        "networks": len(table.genomes),
        "exact_front": len(exact),
        "best_mean_accuracy": best,
        "regret_points_of_whoever_evaluates_all": best - seen,
        "front_covered_percent_by_whoever_evaluates_all": _covered(study, table, handed, exact),
    }
    save(pd.DataFrame({"what": known.keys(), "value": known.values()}), "macro_known")


def _judged(study: Study, table: Table, run: Run, n: int, exact: np.ndarray) -> dict[str, float]:
    """Return regret and coverage of what the search would return after `n` evaluations, by mean accuracy."""
    index = {genome.tobytes(): row for row, genome in enumerate(table.genomes)}
    evaluated = np.array([index[genome.tobytes()] for genome in run.genomes[:n]])
    front = evaluated[front_rows(np.stack([-run.accuracy[:n], run.cost[:n]], axis=1))]
    best = evaluated[run.accuracy[:n].argmax()]
    return {
        "regret_points": float(table.mean.max() - table.mean[best]),
        "front_covered_percent": _covered(study, table, front, exact),
    }


def _covered(study: Study, table: Table, front: np.ndarray, exact: np.ndarray) -> float:
    """Return for how many networks of the exact front another has one as cheap and at most ε worse, in percent."""
    epsilon = study.config["macro"]["epsilon"]
    cheap = table.flops[front] <= table.flops[exact][:, None]
    good = table.mean[front] >= table.mean[exact][:, None] - epsilon
    return float(100.0 * (cheap & good).any(axis=1).mean())
