"""Does capacity matter on this data set, and does search-validation accuracy say what test accuracy will be?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import Study, bootstrap, ids, save
from scipy.stats import spearmanr

from experiments.study import say
from nas.run import Run
from predictors.additive import AdditiveCost
from predictors.latency import LatencyPredictor
from search_spaces.space import Genomes


def measure_spread(study: Study) -> None:
    """Evaluate random networks, and others in narrow bands of latency, on both splits."""
    settings = study.config["spread"]
    run = study.copy(study.run(study.config["seeds"][0]), "spread")
    latency = study.latency(run)
    chosen = random_networks(run, settings["random_networks"], seed=1)
    ends = random_networks(run, settings["end_networks"], seed=4)
    groups = {
        "random": chosen,
        "smallest sizes": run.space.unique(run.space.resize(ends, largest=False)),
        "largest sizes": run.space.unique(run.space.resize(ends, largest=True)),
    }
    for middle in settings["bands"]:
        name = f"band at {middle:.0%}"
        groups[name] = in_band(run, latency, middle, settings["band_width"], settings["band_networks"])
    evaluator = run.evaluator()
    macs = AdditiveCost.of(run.space, lambda block: block.macs())
    frames = []
    for name, genomes in groups.items():
        say(f"spread: {len(genomes)} networks, {name}")
        frames.append(
            pd.DataFrame(
                {
                    "group": name,
                    "id": ids(run, genomes),
                    "predicted_ms": latency.predict(genomes),
                    "macs": macs.predict(genomes).astype(int),
                    "validation": evaluator.evaluate(genomes),
                    "test": evaluator.evaluate_on_test(genomes),
                }
            )
        )
    table = pd.concat(frames)
    save(table, "spread")
    save(pd.DataFrame([_summary(name, part) for name, part in table.groupby("group", sort=False)]), "spread_summary")


def random_networks(run: Run, count: int, *, seed: int) -> Genomes:
    """Return distinct networks, uniform over the genes."""
    return run.space.unique(run.space.sample(4 * count, np.random.default_rng(seed)))[:count]


def in_band(run: Run, latency: LatencyPredictor, middle: float, width: float, count: int) -> Genomes:
    """Return distinct random networks whose predicted latency lies in a band of the reachable range."""
    low, high = latency.cheapest()[0], latency.dearest()[0]
    pool = run.space.unique(run.space.sample(100_000, np.random.default_rng(2)))
    share = (latency.predict(pool) - low) / (high - low)
    return np.random.default_rng(3).permutation(pool[np.abs(share - middle) <= width / 2])[:count]


def _summary(name: object, part: pd.DataFrame) -> dict[str, object]:
    """Return the spread of a group and its rank correlations, with bootstrap intervals over networks."""
    validation, test = part["validation"].to_numpy(), part["test"].to_numpy()
    macs = part["macs"].to_numpy(dtype=np.float64)
    row: dict[str, object] = {
        "group": name,
        "networks": len(part),
        "latency_ms_min": part["predicted_ms"].min(),
        "latency_ms_max": part["predicted_ms"].max(),
        "test_min_percent": 100 * test.min(),
        "test_max_percent": 100 * test.max(),
    }
    for figure, statistic in (
        ("test_mean_percent", lambda rows: 100 * test[rows].mean()),
        ("spearman_validation_test", lambda rows: spearmanr(validation[rows], test[rows]).statistic),
        ("spearman_macs_test", lambda rows: spearmanr(macs[rows], test[rows]).statistic),
    ):
        value, low, high = bootstrap(len(part), statistic)
        row |= {figure: value, f"{figure}_low": low, f"{figure}_high": high}
    return row
