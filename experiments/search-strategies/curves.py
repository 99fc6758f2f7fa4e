"""How well accuracy is predicted from few networks: ranks overall and among networks of one cost, errors, intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from common import Study, Values, median_interval, save
from macro import read_table
from oracle import macs_function, ofa_space, read_all
from threadpoolctl import threadpool_limits

from experiments.study import say
from predictors.accuracy import LearnedPredictor
from predictors.quality import kendall_tau
from predictors.regression.chosen import REGRESSIONS
from search_spaces.space import Genomes, SearchSpace

_PREDICTORS = {name: (name,) for name in REGRESSIONS} | {"chosen": tuple(REGRESSIONS)}


def learn(study: Study) -> None:
    """Learn from more and more networks of both tables."""
    space = ofa_space()
    trace = read_all(study.data / "dynast_mbnv3", space)
    table = read_table(study.data)
    tables = {
        "ofa-mbv3": (space, trace.genomes, trace.accuracy, macs_function(trace, space)),
        "nas-bench-macro": (table.space, table.genomes, table.mean, _look_up(table.genomes, table.flops)),
    }
    rows = []
    with threadpool_limits(1):
        for name, (of, genomes, accuracy, macs) in tables.items():
            rows += _curve(study, name, of, genomes, accuracy, macs)
    frame = pd.DataFrame(rows)
    figures = ["kendall_tau", "kendall_tau_in_bands", "rmse", "within_2_std_percent", "fit_seconds"]
    rows = []
    for key, part in frame.groupby(["table", "predictor", "rows"], sort=False):
        row: dict[str, object] = dict(zip(("table", "predictor", "rows"), key, strict=True))
        for figure in [figure for figure in figures if part[figure].notna().any()]:
            median, low, high = median_interval(part[figure].to_numpy())
            row |= {figure: median, f"{figure}_low_95": low, f"{figure}_high_95": high}
        rows.append(row)
    save(pd.DataFrame(rows), "curves")


def _look_up(genomes: Genomes, values: Values) -> Callable[[Genomes], Values]:
    row = {genome.tobytes(): index for index, genome in enumerate(genomes)}
    return lambda asked: values[[row[genome.tobytes()] for genome in asked]]


def _curve(
    study: Study, name: str, space: SearchSpace, genomes: Genomes, accuracy: Values, macs: Callable[[Genomes], Values]
) -> list[dict[str, object]]:
    import time

    settings = study.config["curves"]
    rows: list[dict[str, object]] = []
    for repeat in range(settings["repeats"]):
        say(f"curves: {name}, {repeat + 1} of {settings['repeats']}")
        order = np.random.default_rng(repeat).permutation(len(genomes))
        held_out, others = order[: settings["held_out"]], order[settings["held_out"] :]
        true, cost = accuracy[held_out], macs(genomes[held_out])
        key = {"table": name, "repeat": repeat}
        rows.append(key | {"predictor": "MACs alone", "rows": 0} | _ranks(study, cost, true, cost))
        for n in settings["rows"]:
            known = others[:n]
            for predictor, regressions in _PREDICTORS.items():
                learned = LearnedPredictor(space, lambda asked: macs(asked)[:, None], regressions=regressions)
                start = time.process_time()
                learned.fit(genomes[known], accuracy[known])
                seconds = time.process_time() - start
                mean, std = learned.predict(genomes[held_out])
                figures = {
                    "rmse": float(np.sqrt(((mean - true) ** 2).mean())),
                    "within_2_std_percent": float(100.0 * (np.abs(mean - true) <= 2.0 * std).mean()),
                    "fit_seconds": seconds,
                }
                rows.append(key | {"predictor": predictor, "rows": n} | _ranks(study, mean, true, cost) | figures)
    return rows


def _ranks(study: Study, predicted: Values, true: Values, cost: Values) -> dict[str, float]:
    bands = np.array_split(np.argsort(cost, kind="stable"), study.config["curves"]["bands"])
    inside = [kendall_tau(predicted[band], true[band]) for band in bands]
    return {"kendall_tau": kendall_tau(predicted, true), "kendall_tau_in_bands": float(np.mean(inside))}
