"""Does the budget hold? Seeded budgets through `nas search`; all that is returned is measured again, elsewhere."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import Study, nas, save

from nas.lut import measure_networks


def keep_budgets(study: Study) -> None:
    """Search under budgets drawn uniformly over the reachable range, then measure what was returned."""
    settings = study.config["budgets"]
    run = study.copy(study.run(study.config["seeds"][0]), "budgets")
    latency = study.latency(run)
    low, high = latency.cheapest()[0], latency.dearest()[0]
    budgets = np.random.default_rng(settings["seed"]).uniform(low, high, settings["count"])
    rows = []
    for number, budget_ms in enumerate(np.sort(budgets)):
        front = nas("search", "--run", run.path, "--budget-ms", f"{budget_ms:.6f}", "--seed", number)
        for candidate in front["candidates"]:
            rows.append(
                {
                    "budget_ms": front["budget_ms"],
                    "share_of_range": (budget_ms - low) / (high - low),
                    "best": candidate["id"] == front["best"],
                    "dropped": len(front["dropped"]),
                    **{name: candidate[name] for name in ("id", "predicted_latency_ms", "measured_latency_ms")},
                    "validation": candidate["validation_accuracy"],
                    "genes": candidate["genes"],
                }
            )
    table = pd.DataFrame(rows)
    table["measured_again_ms"] = table["id"].map(_measure_again(study, table))
    table["inside"] = table["measured_again_ms"] <= table["budget_ms"]
    save(table.drop(columns=["genes"]), "budgets")


def _measure_again(study: Study, table: pd.DataFrame) -> dict[str, float]:
    """Return the latency of every distinct network, from a process that has measured nothing before."""
    run = study.run(study.config["seeds"][0])
    genes = dict(zip(table["id"], table["genes"], strict=True))
    networks = {name: run.space.lower(np.array(row, dtype=np.int16)) for name, row in genes.items()}
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_networks(run.block_cache, networks, study.device, work_dir=Path(folder), seed=99)
    return {measurement.id: measurement.min_ms for measurement in measured}
