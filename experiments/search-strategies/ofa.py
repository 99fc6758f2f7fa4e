"""Strategies on the oracle of OFA-MobileNetV3: accuracy against MACs."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from common import Study, Values, median_interval, save, say
from oracle import Oracle, Trace, macs_function, ofa_space, read_all, read_trace
from race import RaceProblem, Run, race

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
    seconds = pd.DataFrame({"strategy": [run.strategy for run in runs], "seconds": [run.seconds for run in runs]})
    save(seconds.groupby("strategy", sort=False)["seconds"].median().reset_index(), "ofa_seconds")
    _stray(study, runs)


def _reach(volumes: dict[str, Values]) -> None:
    """Say after how many evaluations each strategy reaches the bars."""
    bars = {
        "linas, own median at 554": float(np.median(volumes["linas"][:, 553])),
        "linas, published trace at 554": 2340.5,
        "nsga2, own median at 540": float(np.median(volumes["nsga2"][:, 539])),
    }
    rows = []
    for bar, level in bars.items():
        for name, values in volumes.items():
            above = values >= level
            needed = np.where(above.any(axis=1), above.argmax(axis=1) + 1.0, np.inf)
            median, low, high = median_interval(needed)
            rows.append(
                {"bar": bar, "hypervolume": level, "strategy": name, "evaluations_median": median, "low_95": low}
                | {"high_95": high, "runs_that_reach_it": int(above.any(axis=1).sum()), "seeds": len(values)}
            )
    save(pd.DataFrame(rows), "ofa_reach")


def _stray(study: Study, runs: list[Run]) -> None:
    """Say how far the fronts found on the oracle are from the data that it was fitted to."""
    space, data = _data(study)
    judge = Oracle.load(_oracle_path(study), space)
    rows = []
    for run in runs:
        front = front_rows(np.stack([-run.accuracy, run.cost], axis=1))
        rows.append(
            {"strategy": run.strategy, "hypervolume": _hypervolume(study, run.accuracy, run.cost)}
            | _distance(judge, run.genomes[front], data.genomes)
        )
    found = pd.DataFrame(rows).groupby("strategy", sort=False).median().reset_index()
    real = data.genomes[front_rows(np.stack([-data.accuracy, data.macs], axis=1))]
    volume = _hypervolume(study, judge.accuracy(data.genomes), data.macs)
    row = {"strategy": "front of the data", "hypervolume": volume} | _distance(judge, real, data.genomes)
    save(pd.concat([found, pd.DataFrame([row])]), "ofa_stray")


def _distance(judge: Oracle, genomes: Genomes, data: Genomes) -> dict[str, float]:
    differing = (genomes[:, None] != data[None]).sum(axis=2)
    others = np.sort(differing, axis=1)
    # A network of the data is compared with the others.
    nearest = np.where(others[:, 0] == 0, others[:, 1], others[:, 0])
    return {
        "genes_from_nearest_row": float(nearest.mean()),
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
