"""Strategies on the oracle of OFA-MobileNetV3: accuracy against MACs."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from common import Study, Values, median_interval, save
from oracle import Oracle, Trace, macs_function, ofa_space, read_all, read_trace
from race import RaceProblem, Run, race, save_runs

from experiments.study import draws, say
from nas.engine.pareto import front_rows, hypervolume
from predictors.quality import kendall_tau
from search_spaces.space import Genomes, SearchSpace

_MARKS = (30, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 540, 554)
_TRACES = {"nsga2": "mbnv3w10_evonsga2_acc_macs.csv", "linas": "mbnv3w10_linasnsga2_acc_macs.csv"}


def published(study: Study) -> None:
    """Reproduce the hypervolumes of the published traces."""
    space = ofa_space()
    rows = []
    for strategy, file in _TRACES.items():
        trace = read_trace(study.data / "dynast_mbnv3" / file, space)
        for n in [mark for mark in _MARKS if mark < len(trace.macs)] + [len(trace.macs)]:
            volume = _hypervolume(study, trace.accuracy[:n], trace.macs[:n])
            rows.append({"strategy": strategy, "evaluations": n, "hypervolume": volume})
    save(pd.DataFrame(rows), "ofa_published")


def oracle(study: Study) -> None:
    """Fit the oracle, and state its error on networks it was not fitted to."""
    import torch

    settings = dict(study.config["ofa"]["oracle"])
    folds = settings.pop("folds")
    space, data = _data(study)
    torch.set_num_threads(study.config["processes"])
    say(f"oracle: fitting {folds + 1} ensembles")
    Oracle.fit(space, data.genomes, data.accuracy, **settings).save(_oracle_path(study))
    fold = np.random.default_rng(0).permutation(len(data.genomes)) % folds
    predicted, spread = np.empty(len(fold)), np.empty(len(fold))
    for f in range(folds):
        part = Oracle.fit(space, data.genomes[fold != f], data.accuracy[fold != f], **settings)
        each = part.each(data.genomes[fold == f])
        predicted[fold == f], spread[fold == f] = each.mean(axis=0), each.std(axis=0, ddof=1)
    figures = {
        "networks": len(fold),
        "held_out_rmse": float(np.sqrt(((predicted - data.accuracy) ** 2).mean())),
        "held_out_kendall_tau": kendall_tau(predicted, data.accuracy),
        "held_out_disagreement": float(spread.mean()),
        "hypervolume_of_all_rows": _hypervolume(study, data.accuracy, data.macs),
        "hypervolume_of_all_rows_by_the_oracle": _hypervolume(
            study, Oracle.load(_oracle_path(study), space).accuracy(data.genomes), data.macs
        ),
    }
    save(pd.DataFrame({"what": figures.keys(), "value": figures.values()}), "ofa_oracle")


def problem(study: Study) -> RaceProblem:
    """Return the search problem."""
    return _problem(study.data, study.work)


def search_ofa(study: Study) -> None:
    """Run all strategies, and say how soon they are how far."""
    if not _oracle_path(study).exists():
        oracle(study)
    runs = race(study, "ofa", problem)
    volumes = {(run.strategy, run.seed): _volumes(study, run) for run in runs}
    strategies = list(study.config["ofa"]["evaluations"])
    by_strategy = {name: np.stack([v for (s, _), v in volumes.items() if s == name]) for name in strategies}
    rows = []
    for name, values in by_strategy.items():
        for n in [mark for mark in _MARKS if mark <= values.shape[1]]:
            median, low, high = median_interval(values[:, n - 1])
            quartiles = np.quantile(values[:, n - 1], [0.25, 0.75])
            rows.append(
                {"strategy": name, "evaluations": n, "median": median, "low_95": low, "high_95": high}
                | {"quartile_1": quartiles[0], "quartile_3": quartiles[1], "seeds": len(values)}
            )
    save(pd.DataFrame(rows), "ofa_hypervolume")
    _reach(by_strategy)
    save_runs(runs, "ofa_runs")
    _stray(study, runs)


def _reach(volumes: dict[str, Values]) -> None:
    """Say after how many evaluations each strategy reaches the bars, and how many more others need than the default.

    Of 20 runs the median is the tenth, of hypervolumes and of evaluations alike: so a strategy reaches its own bar just
    when it was defined, and runs that never reach one need no number. Intervals are bootstrapped over the runs of the
    strategy, and those that define the bar.
    """
    bars: dict[str, tuple[str, int] | float] = {
        "linas, own median at 554": ("linas", 554),
        "linas, published trace at 554": 2340.5,
        "nsga2, own median at 540": ("nsga2", 540),
        "nsga2, published trace at 540": 2260.6,
    }
    rows, ratios = [], []
    for bar, of in bars.items():
        level = of if isinstance(of, float) else float(_tenth(volumes[of[0]][:, of[1] - 1]))
        levels = np.full(2000, level)
        if not isinstance(of, float):
            runs = volumes[of[0]][:, of[1] - 1]
            levels = np.array([_tenth(runs[rows_]) for rows_ in draws(len(runs), seed=1)])
        drawn: dict[str, Values] = {}
        for name, values in volumes.items():
            needed = _needed(values, level)
            drawn[name] = np.array(
                [
                    _tenth(_needed(values[rows_], each))
                    for rows_, each in zip(draws(len(values), seed=2), levels, strict=True)
                ]
            )
            low, high = np.quantile(drawn[name], [0.025, 0.975], method="nearest")
            rows.append(
                {
                    "bar": bar,
                    "hypervolume": level,
                    "strategy": name,
                    "evaluations_median": _tenth(needed),
                    "low_95": low,
                }
                | {"high_95": high, "runs_that_reach_it": int(np.isfinite(needed).sum()), "seeds": len(values)}
            )
            if name != "predictor":
                ratio = drawn[name] / drawn["predictor"]
                low, high = np.quantile(ratio, [0.025, 0.975], method="nearest")
                middle = _tenth(needed) / _tenth(_needed(volumes["predictor"], level))
                ratios.append({"bar": bar, "strategy": name, "times_predictor": middle, "low_95": low, "high_95": high})
    save(pd.DataFrame(rows), "ofa_reach")
    save(pd.DataFrame(ratios), "ofa_ratio")


def _tenth(values: Values) -> float:
    """Return the lower of the two middle values, so that infinity is never averaged."""
    return float(np.quantile(values, 0.5, method="lower"))


def _needed(volumes: Values, level: float) -> Values:
    """Return after how many evaluations each run ``float64[runs, n]`` is at a level; infinity if it never is."""
    above = volumes >= level
    needed: Values = np.where(above.any(axis=1), above.argmax(axis=1) + 1.0, np.inf)
    return needed


def _stray(study: Study, runs: list[Run]) -> None:
    """Say how far the fronts found on the oracle are from the data that it was fitted to."""
    space, data = _data(study)
    judge = Oracle.load(_oracle_path(study), space)
    rows = []
    for run in runs:
        front = front_rows(np.stack([-run.accuracy, run.cost], axis=1))
        rows.append(
            {"strategy": run.strategy, "evaluations": len(run.accuracy)}
            | {"hypervolume": _hypervolume(study, run.accuracy, run.cost)}
            | _distance(judge, run.genomes[front], data.genomes, rank=0)
        )
    found = pd.DataFrame(rows).groupby("strategy", sort=False).median().reset_index()
    real = data.genomes[front_rows(np.stack([-data.accuracy, data.macs], axis=1))]
    volume = _hypervolume(study, judge.accuracy(data.genomes), data.macs)
    row = {"strategy": "front of the data", "evaluations": len(data.genomes), "hypervolume": volume}
    row |= _distance(judge, real, data.genomes, rank=1)
    save(pd.concat([found, pd.DataFrame([row])]), "ofa_stray")


def _distance(judge: Oracle, genomes: Genomes, data: Genomes, *, rank: int) -> dict[str, float]:
    """Return the mean distance to the nearest row of the data, or the next nearest of what is among them itself."""
    differing = np.sort((genomes[:, None] != data[None]).sum(axis=2), axis=1)
    return {
        "genes_from_nearest_row": float(differing[:, rank].mean()),
        "disagreement_of_members": float(judge.each(genomes).std(axis=0, ddof=1).mean()),
    }


def _volumes(study: Study, run: Run) -> Values:
    """Return the hypervolume after each evaluation, ``float64[n]``."""
    volumes = np.empty(len(run.accuracy))
    points = np.empty((0, 2))
    for n, point in enumerate(np.stack([-run.accuracy, run.cost], axis=1)):
        points = np.concatenate([points, point[None]])
        points = points[front_rows(points)]
        volumes[n] = hypervolume(points, _reference(study))
    return volumes


def _hypervolume(study: Study, accuracy: Values, macs: Values) -> float:
    return hypervolume(np.stack([-accuracy, macs], axis=1), _reference(study))


def _reference(study: Study) -> Values:
    accuracy, macs = study.config["ofa"]["reference"]
    return np.array([-accuracy, macs])


def _data(study: Study) -> tuple[SearchSpace, Trace]:
    space = ofa_space()
    return space, read_all(study.data / "dynast_mbnv3", space)


def _oracle_path(study: Study) -> Path:
    return study.work / "oracle.npz"


@functools.cache
def _problem(data: Path, work: Path) -> RaceProblem:
    study = Study({}, data, work)
    space, rows = _data(study)
    return RaceProblem(space, Oracle.load(_oracle_path(study), space).accuracy, macs_function(rows, space))
