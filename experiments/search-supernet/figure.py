"""The study in one picture: hypervolume against evaluations, fronts, and a front of three figures."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_COLOURS = {"predictor": "#0b5fa5", "random-predictor": "#59a5d8", "linas": "#d9822b", "nsga2": "#7a3e9d"}
_MARKERS = dict(zip(_COLOURS, "osD^", strict=True))


def draw(results: Path) -> None:
    """Draw ``search-supernet.png`` from the tables, those that are there."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    _hypervolumes(axes[0], pd.read_csv(results / "strategies_by_seed.csv"))
    _fronts(axes[1], pd.read_csv(results / "fronts.csv"))
    if (results / "three_example.csv").exists():
        _three(axes[2], pd.read_csv(results / "three_example.csv"))
    figure.savefig(results / "search-supernet.png", dpi=110)
    plt.close(figure)


def _hypervolumes(axes: Axes, shares: pd.DataFrame) -> None:
    for name, part in shares.groupby("strategy", sort=False):
        by_number = part.groupby("evaluations").hypervolume_share
        middle, low, high = 100 * by_number.mean(), 100 * by_number.min(), 100 * by_number.max()
        colour = _COLOURS[str(name)]
        axes.plot(middle.index, middle, color=colour, marker=_MARKERS[str(name)], markersize=5, label=name)
        axes.fill_between(middle.index, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set(
        xlabel="evaluated networks",
        ylabel="% of the hypervolume of all that was found",
        title="Equal true evaluations: means, smallest and largest",
    )
    axes.legend(frameon=False)


def _fronts(axes: Axes, fronts: pd.DataFrame) -> None:
    for name, part in fronts.groupby("strategy", sort=False):
        colour = _COLOURS[str(name)]
        axes.scatter(
            part.latency_ms,
            100 * part.accuracy,
            s=16,
            color=colour,
            marker=_MARKERS[str(name)],
            alpha=0.6,
            linewidths=0,
            label=name,
        )
    axes.set(xlabel="predicted latency, ms", ylabel="search-validation accuracy, %", title="Their fronts, all seeds")
    axes.legend(frameon=False)


def _three(axes: Axes, shown: pd.DataFrame) -> None:
    others, front = shown[~shown.front], shown[shown.front]
    axes.scatter(others.latency_ms, 100 * (1 - others.error), s=14, color="0.8", label="evaluated")
    points = axes.scatter(
        front.latency_ms, 100 * (1 - front.error), s=40, c=front.params / 1e3, cmap="viridis", label="front"
    )
    axes.figure.colorbar(points, ax=axes, label="thousand parameters")
    axes.set(
        xlabel="predicted latency, ms",
        ylabel="search-validation accuracy, %",
        title="Accuracy, latency and parameters by U-NSGA-III (one seed)",
    )
    axes.legend(frameon=False)
