"""Runs this study: ``python experiments/supernet-ranking/run.py [--work DIR] [PART...]``; see README.md.

Every part writes CSV files into results/. A part whose files are there is not run again, so a study that was stopped
goes on; delete results/ and the folder of --work to start over.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from common import HERE, RESULTS, Study, save
from networks import choose, scratch
from ranking import compare_recipes, rank
from recipes import inherited

from experiments.study import provenance, run_parts

mpl.use("agg")
from matplotlib import pyplot as plt

_USUAL = "sandwich"


def train_alone(study: Study) -> None:
    """Train every network alone."""
    save(scratch(study), "scratch")


def train_supernets(study: Study) -> None:
    """Train supernets by every recipe, and evaluate the networks in them."""
    save(inherited(study), "inherited")


def draw(study: Study) -> None:
    """Draw accuracies alone against inherited ones, and what ranks how well."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    alone = pd.read_csv(RESULTS / "scratch.csv").groupby("id")["test"].mean()
    table = pd.read_csv(RESULTS / "inherited.csv").query("recipe == @_USUAL").groupby("id")["validation"].mean()
    for band, part in study.networks.groupby("band", sort=False):
        left.plot(100 * table.reindex(part["id"]), 100 * alone.reindex(part["id"]), "o", ms=4, label=band)
    left.set(xlabel="inherited, search-validation accuracy, %", ylabel="trained alone, test accuracy, %")
    left.legend(title="latency", fontsize=8)
    ranks = pd.read_csv(RESULTS / "ranking.csv")
    places = np.arange(len(ranks))[::-1]
    error = [ranks["within_bands"] - ranks["within_bands_low"], ranks["within_bands_high"] - ranks["within_bands"]]
    right.errorbar(ranks["within_bands"], places, xerr=error, fmt="o", color="#0b5fa5", capsize=2)
    right.axvline(0, color="#9aa5b1", lw=0.8)
    right.set_yticks(places, ranks["ranker"])
    right.set(xlabel="Kendall's τ within bands of latency, 95 % interval")
    figure.savefig(RESULTS / "supernet-ranking.png", dpi=130)
    plt.close(figure)


def origin(study: Study) -> None:
    """Say what made the figures."""
    del study
    save(provenance(["torch", "numpy", "onnxruntime"]), "provenance")


PARTS: dict[str, tuple[str, Callable[[Study], None]]] = {
    "provenance": ("provenance.csv", origin),
    "networks": ("networks.csv", choose),
    "scratch": ("scratch.csv", train_alone),
    "supernets": ("inherited.csv", train_supernets),
    "ranking": ("ranking.csv", rank),
    "recipes": ("recipes.csv", compare_recipes),
    "figure": ("supernet-ranking.png", draw),
}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/supernet-ranking"), help="Where trainings are kept.")
    run_parts(PARTS, RESULTS, parser, lambda arguments: Study.load(HERE, arguments.work))


if __name__ == "__main__":
    main()
