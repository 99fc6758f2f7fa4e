"""Does capacity matter on this data set, and does search-validation accuracy say what test accuracy will be?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import Study, Values, ids, save, say
from scipy.stats import spearmanr

from nas.run import Run
from predictors.additive import AdditiveCost
from predictors.latency import LatencyPredictor
from search_spaces.space import Genomes


def measure_spread(study: Study) -> None:
    """Evaluate random networks, and others in narrow bands of latency, on both splits."""
    settings = study.config["spread"]
    run = study.run(study.config["seeds"][0])
    latency = study.latency(run)
    groups = {"all": random_networks(run, settings["random_networks"], seed=1)}
    for middle in settings["bands"]:
        groups[f"{middle:.0%}"] = in_band(run, latency, middle, settings["band_width"], settings["band_networks"])
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
                    "test": evaluator.evaluate(genomes, split="test"),
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
    order = np.argsort(macs)
    fifth = max(1, len(part) // 5)
    ends = 100 * (test[order[-fifth:]].mean() - test[order[:fifth]].mean())
    rho, low, high = _spearman(validation, test)
    by_macs, macs_low, macs_high = _spearman(macs, test)
    return {
        "group": name,
        "networks": len(part),
        "latency_ms_min": part["predicted_ms"].min(),
        "latency_ms_max": part["predicted_ms"].max(),
        "test_min_percent": 100 * test.min(),
        "test_max_percent": 100 * test.max(),
        "largest_fifth_minus_smallest_fifth_points": ends,
        "spearman_validation_test": rho,
        "low": low,
        "high": high,
        "spearman_macs_test": by_macs,
        "macs_low": macs_low,
        "macs_high": macs_high,
    }


def _spearman(x: Values, y: Values) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    draws = rng.integers(len(x), size=(2000, len(x)))
    low, high = np.quantile([spearmanr(x[rows], y[rows]).statistic for rows in draws], [0.025, 0.975])
    return float(spearmanr(x, y).statistic), float(low), float(high)
