"""Does the budget hold? Seeded budgets through `nas search`; all that is returned is measured again, elsewhere."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from common import Study, measured_ms, save

from experiments.study import Rows, nas


def keep_budgets(study: Study) -> None:
    """Search under budgets drawn uniformly over the reachable range, then measure what was returned."""
    settings = study.config["budgets"]
    run = study.run(study.config["seeds"][0])
    latency = study.latency(run)
    low, high = latency.cheapest()[0], latency.dearest()[0]
    budgets = np.sort(np.random.default_rng(settings["seed"]).uniform(low, high, settings["count"]))
    rows: Rows = []
    for number, budget_ms in enumerate(budgets):
        rows += study.once(f"budget-{number}", partial(_search, study, number, budget_ms))
    table = pd.DataFrame(rows)
    distinct = table.drop_duplicates("id")
    genomes = np.array(distinct["genes"].tolist(), dtype=np.int16)
    # A new process, and none of these measurements was used to select.
    again = dict(zip(distinct["id"], measured_ms(study, run, genomes), strict=True))
    table["measured_again_ms"] = table["id"].map(again)
    table["inside"] = table["measured_again_ms"] <= table["budget_ms"]
    table["used"] = table["measured_again_ms"] / table["budget_ms"]
    save(table.drop(columns=["genes"]), "budgets")
    best = table[table["best"]]
    summary = {
        "budgets": len(budgets),
        "budgets_with_a_front": len(best),
        "networks_returned": len(table),
        "networks_inside": int(table["inside"].sum()),
        "largest_share_used": table["used"].max(),
        "best_networks_inside": int(best["inside"].sum()),
        "median_share_used_by_best": best["used"].median(),
    }
    save(pd.DataFrame({"what": summary.keys(), "value": summary.values()}), "budgets_summary")


def _search(study: Study, number: int, budget_ms: float) -> Rows:
    """Run one search in a run of its own, so that no other budget's evaluations help."""
    run = study.copy(study.run(study.config["seeds"][0]), f"budget-{number}")
    evaluations = study.config["worth"]["evaluations"]
    options = ("--budget-ms", f"{budget_ms:.6f}", "--evaluations", evaluations, "--seed", number)
    front = nas("search", "--run", run.path, *options)
    low, high = front["reachable_ms"]
    return [
        {
            "budget_ms": front["budget_ms"],
            "share_of_range": (budget_ms - low) / (high - low),
            "best": candidate["id"] == front["best"],
            "dropped": len(front["dropped"]),
            **{name: candidate[name] for name in ("id", "predicted_latency_ms", "measured_latency_ms", "genes")},
            "validation": candidate["validation_accuracy"],
        }
        for candidate in front["candidates"]
    ]
