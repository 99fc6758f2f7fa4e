"""The study in one picture: hypervolume against evaluations, what is found on NAS-Bench-Macro, learning curves."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from common import RESULTS, Study

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_COLOURS = {
    "predictor": "#0b5fa5",
    "random-predictor": "#59a5d8",
    "linas": "#d9822b",
    "nsga2": "#7a3e9d",
    "local": "#3d8b37",
    "regularized-evolution": "#b5379b",
    "tpe": "#8c6d31",
    "gp": "#c23b22",
    "random": "0.5",
}
_MARKERS = dict(zip(_COLOURS, "osD^vPX*.", strict=True))


def draw(study: Study) -> None:
    """Draw ``results/search-strategies.png`` from the tables."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 9.8), layout="constrained")
    _hypervolumes(axes[0, 0])
    _macro(axes[0, 1])
    _curves(axes[1, 0], "ofa-mbv3", "kendall_tau", "OFA-MobileNetV3: Kendall τ on held-out networks")
    _curves(axes[1, 1], "ofa-mbv3", "kendall_tau_in_bands", "the same among networks of one cost (ten MACs bands)")
    figure.savefig(RESULTS / "search-strategies.png", dpi=120)
    plt.close(figure)


def _legend(axes: Axes) -> None:
    """Write the legend below the axes, where it hides nothing."""
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4, frameon=False)


def _plot(axes: Axes, table: pd.DataFrame, middle: str, low: str, high: str) -> None:
    """Draw a figure against evaluations, a line and a band per strategy."""
    for name, part in table.groupby("strategy", sort=False):
        colour, marker = _COLOURS[str(name)], _MARKERS[str(name)]
        axes.plot(part["evaluations"], part[middle], color=colour, marker=marker, markersize=4, label=name)
        axes.fill_between(part["evaluations"], part[low], part[high], color=colour, alpha=0.15, linewidth=0)


def _hypervolumes(axes: Axes) -> None:
    table = pd.read_csv(RESULTS / "ofa_hypervolume.csv").query("strategy in @_COLOURS")
    _plot(axes, table, "median", "quartile_1", "quartile_3")
    trace = pd.read_csv(RESULTS / "ofa_published.csv").query("strategy == 'linas' and evaluations >= 50")
    axes.plot(trace["evaluations"], trace["hypervolume"], "k--", linewidth=1, label="linas, published trace")
    axes.set(
        xlabel="evaluated networks",
        ylabel="hypervolume, %·M MACs",
        title="OFA-MobileNetV3 oracle (medians, quartiles)",
        ylim=(1750, None),
    )
    _legend(axes)


def _macro(axes: Axes) -> None:
    table = pd.read_csv(RESULTS / "macro.csv")
    covered = "front_covered_percent"
    _plot(axes, table, covered, f"{covered}_low_95", f"{covered}_high_95")
    known = pd.read_csv(RESULTS / "macro_known.csv").set_index("what")["value"]
    limit = known["front_covered_percent_by_whoever_evaluates_all"]
    axes.axhline(limit, color="k", linestyle="--", linewidth=1, label="whoever evaluates all 3,969")
    axes.set(
        xlabel="evaluated networks",
        ylabel="of the exact front, %",
        title="NAS-Bench-Macro, within 0.09 points (medians, 95 %)",
    )
    _legend(axes)


def _curves(axes: Axes, name: str, figure: str, title: str) -> None:
    table = pd.read_csv(RESULTS / "curves.csv").query("table == @name")
    for predictor, part in table[table["rows"] > 0].groupby("predictor", sort=False):
        axes.plot(part["rows"], part[figure], marker="o", markersize=4, label=predictor)
    alone = float(table.loc[table["rows"] == 0, figure].iloc[0])
    axes.axhline(alone, color="k", linestyle="--", linewidth=1, label="MACs alone")
    if figure == "kendall_tau":
        published = {25: 0.755, 50: 0.801, 100: 0.855, 200: 0.890, 400: 0.908, 800: 0.915, 1500: 0.921}
        axes.plot(list(published), list(published.values()), "k:x", label="ridge on one-hots, published")
    axes.set(xscale="log", xlabel="evaluated networks known", title=title)
    axes.set_xticks(ticks := sorted(set(table["rows"]) - {0}), [str(tick) for tick in ticks])
    axes.minorticks_off()
    _legend(axes)
