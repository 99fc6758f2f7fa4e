"""Runs this study: ``python experiments/default-data/run.py [--work DIR] [PART...]``; see README.md.

Every part writes CSV files into results/. A part whose files are there is not run again, so a study that was stopped
goes on; delete results/ and the folder of --work to start over.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import worth
from budgets import keep_budgets
from common import HERE, RESULTS, Study, save
from figure import draw
from scipy import stats
from spread import measure_spread

from experiments.study import provenance, run_parts
from nas.run import Run


def search(study: Study) -> None:
    """Search with both strategies and sample random architectures, for every seed."""
    for name, make in (("fronts", worth.fronts), ("chance", worth.chance)):
        table = pd.concat([make(study, seed) for seed in study.config["seeds"]])
        save(table.drop(columns=["genes"]), name)


def images(study: Study) -> None:
    """Train contenders from scratch on as many images as the supernet saw."""
    save(pd.concat([worth.contenders(study, seed, "images") for seed in study.config["seeds"]]), "images")


def seconds(study: Study) -> None:
    """Train contenders from scratch for as many seconds as supernet and search took together."""
    save(pd.concat([worth.contenders(study, seed, "seconds") for seed in study.config["seconds_seeds"]]), "seconds")


def verdict(study: Study) -> None:
    """Put all contenders into one table, by seed, and the searched network's lead over each."""
    fronts, chance = pd.read_csv(RESULTS / "fronts.csv"), pd.read_csv(RESULTS / "chance.csv")
    inherited = fronts[fronts["best"]].rename(columns={"arm": "contender"})
    average = chance.assign(
        contender=chance["near"].map({False: "average random architecture", True: "average random, near the budget"})
    )
    scratch = [pd.read_csv(RESULTS / f"{equal}.csv") for equal in ("images", "seconds")]
    table = pd.concat([inherited.assign(weights="inherited"), average.assign(weights="inherited"), *scratch])
    # "-": those that were not trained apart have no cost of their own.
    keys = ["contender", "weights", "equal"]
    figures = ["validation", "test", "measured_ms", "params", "macs", "images_seen", "seconds"]
    by_seed = table.fillna({"equal": "-"}).groupby([*keys, "seed"], sort=False)[figures].mean().reset_index()
    save(by_seed, "contenders")
    rows = []
    for weights, equal, name in (
        ("inherited", "-", "search"),
        ("own", "images", "searched architecture"),
        ("own", "seconds", "searched architecture"),
    ):
        of_searched = by_seed.query("contender == @name and weights == @weights and equal == @equal").set_index("seed")
        for key, part in by_seed.groupby(keys, sort=False):
            if key != (name, weights, equal) and (weights == "inherited" or key[1:] == (weights, equal)):
                lead = 100 * (of_searched["test"] - part.set_index("seed")["test"])
                rows.append(
                    {"searched": f"{name} ({weights}, {equal})", "against": " / ".join(map(str, key))}
                    | {f"seed_{seed}_points": value for seed, value in lead.items()}
                    | {"mean_points": lead.mean(), "half_width_95_points": _half_width(lead)}
                )
    save(pd.DataFrame(rows), "leads")


def _half_width(values: pd.Series[float]) -> float:
    """Return half of the 95 % interval of a mean by Student's t: few seeds make it wide."""
    known = values.dropna()
    return float(stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))


def curse(study: Study) -> None:
    """Compare validation minus test of fronts with the same of random networks, which nothing selected."""
    fronts, chance = pd.read_csv(RESULTS / "fronts.csv"), pd.read_csv(RESULTS / "chance.csv")
    rows = []
    for (arm, seed), part in fronts.groupby(["arm", "seed"], sort=False):
        random = chance[chance["seed"] == seed]
        usual = (random["validation"] - random["test"]).mean()
        for name, chosen in (("front", part), ("best", part[part["best"]])):
            gap = (chosen["validation"] - chosen["test"]).mean()
            rows.append(
                {
                    "arm": arm,
                    "networks": name,
                    "seed": seed,
                    "count": len(chosen),
                    "validation_minus_test_points": 100 * gap,
                    "of_random_networks_points": 100 * usual,
                    "lost_by_selection_points": 100 * (gap - usual),
                }
            )
    save(pd.DataFrame(rows), "curse")


def reads(study: Study) -> None:
    """Count how many networks were evaluated on the test split."""
    rows = []
    for path in sorted(study.work.glob("seed-*")):
        run = Run.existing(path, first="nas train")
        record = run.require_supernet()
        rows.append({"where": path.name, "networks": run.ledger.count(f"accuracy:{record.supernet_hash}:test:fp32")})
    scratch = len(list((study.work / "rows").glob("*, equal *.json")))
    rows.append({"where": "trained from scratch", "networks": scratch})
    save(pd.DataFrame(rows).query("networks > 0"), "test_reads")


def origin(study: Study) -> None:
    """Write what the figures depend on."""
    data = study.run(study.config["seeds"][0]).load_data()
    packages = ("torch", "onnxruntime", "numpy", "scikit-learn", "pymoo", "pillow")
    save(provenance(packages, data_hash=data.content_hash), "provenance")


PARTS: dict[str, tuple[str, Callable[[Study], None]]] = {
    "origin": ("provenance.csv", origin),
    "spread": ("spread_summary.csv", measure_spread),
    "search": ("chance.csv", search),
    "images": ("images.csv", images),
    "curse": ("curse.csv", curse),
    "budgets": ("budgets_summary.csv", keep_budgets),
    "seconds": ("seconds.csv", seconds),
    "verdict": ("leads.csv", verdict),
    "reads": ("test_reads.csv", reads),
    "figure": ("default-data.png", draw),
}


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description="The study of the default data set.")
    parser.add_argument("--work", type=Path, default=Path("runs/default-data"), help="where the runs are kept")
    run_parts(PARTS, RESULTS, parser, lambda arguments: Study.load(HERE, arguments.work))


if __name__ == "__main__":
    main()
