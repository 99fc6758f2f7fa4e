"""Runs this study: ``python experiments/default-data/run.py [--work DIR] [PART...]``; see README.md.

Every part writes CSV files into results/. A part whose files are there is not run again, so a study that was stopped
goes on; delete results/ to start over.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from budgets import keep_budgets
from common import RESULTS, Study, interval, provenance, save, say
from figure import draw
from spread import measure_spread
from worth import compare


def worth(study: Study) -> None:
    """Compare contenders for every seed, then summarise over seeds."""
    frames = []
    for seed in study.config["seeds"]:
        path = RESULTS / f"worth_seed{seed}.csv"
        if not path.exists():
            save(compare(study, seed), path.stem)
        frames.append(pd.read_csv(path))
    table = pd.concat(frames)
    save(table, "worth")
    # Several networks of one seed count as one: their mean.
    by_seed = table.groupby(["contender", "weights", "equal", "seed"], sort=False)[["validation", "test"]].mean()
    groups = by_seed.groupby(level=[0, 1, 2], sort=False)
    summary = groups.mean().join(groups["test"].agg(test_min="min", test_max="max", seeds="count"))
    costs = table.groupby(["contender", "weights", "equal"], sort=False)[["measured_ms", "images_seen", "seconds"]]
    save(summary.join(costs.mean()).reset_index(), "worth_summary")


def curse(study: Study) -> None:
    """Compare validation minus test of fronts with the same of random networks, which nothing selected."""
    rows = []
    for seed in study.config["seeds"]:
        fronts = pd.read_csv(RESULTS / f"fronts_seed{seed}.csv")
        chance = pd.read_csv(RESULTS / f"random_architecture_seed{seed}.csv")
        for arm, part in fronts.groupby("arm", sort=False):
            for name, chosen in (("front", part), ("best", part[part["best"]])):
                lost = (chosen["validation"] - chosen["test"]).mean()
                usual = (chance["validation"] - chance["test"]).mean()
                rows.append(
                    {
                        "seed": seed,
                        "arm": arm,
                        "networks": name,
                        "count": len(chosen),
                        "validation_minus_test_points": 100 * lost,
                        "of_random_networks_points": 100 * usual,
                        "lost_by_selection_points": 100 * (lost - usual),
                    }
                )
    table = pd.DataFrame(rows)
    save(table, "curse")
    for keys, part in table.groupby(["arm", "networks"], sort=False):
        mean, low, high = interval(part["lost_by_selection_points"].to_numpy())
        say(f"lost by selection, {keys}: {mean:+.2f} points [{low:+.2f}, {high:+.2f}] over {len(part)} seeds")


def origin(study: Study) -> None:
    """Write what the figures depend on."""
    found = provenance(study.run(study.config["seeds"][0]).load_data())
    save(pd.DataFrame({"what": found.keys(), "value": found.values()}), "provenance")


PARTS: dict[str, tuple[str, Callable[[Study], None]]] = {
    "origin": ("provenance.csv", origin),
    "spread": ("spread_summary.csv", measure_spread),
    "worth": ("worth_summary.csv", worth),
    "curse": ("curse.csv", curse),
    "budgets": ("budgets.csv", keep_budgets),
    "figure": ("default-data.png", draw),
}


def main() -> None:
    """Run the parts that were asked for, all of them by default."""
    parser = argparse.ArgumentParser(description="The study of the default data set.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--work", type=Path, default=Path("runs/default-data"), help="where the runs are kept")
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    study = Study.load(arguments.work)
    for part in arguments.parts or PARTS:
        file, function = PARTS[part]
        if (RESULTS / file).exists():
            say(f"{part}: done, {os.path.relpath(RESULTS / file)} is there")
        else:
            function(study)


if __name__ == "__main__":
    main()
