"""The study in one picture: fronts and random networks on the left, all contenders on the right."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from common import RESULTS, Study

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_MARKERS = {"inherited": "o", "images": "s", "seconds": "^"}
_COLOURS = {"inherited": "#0b5fa5", "images": "#d9822b", "seconds": "#7a3e9d"}
_TICKS_MS = (0.03, 0.05, 0.1, 0.2, 0.4)
_LABELS = {
    "inherited": "weights inherited from the supernet",
    "images": "from scratch, as many images",
    "seconds": "from scratch, as many seconds",
}


def draw(study: Study) -> None:
    """Draw ``results/default-data.png`` from the tables."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    _fronts(left, study)
    _contenders(right, pd.read_csv(RESULTS / "contenders.csv"))
    figure.savefig(RESULTS / "default-data.png", dpi=130)
    plt.close(figure)


def _fronts(axes: Axes, study: Study) -> None:
    spread = pd.read_csv(RESULTS / "spread.csv").query("group == 'random'")
    axes.scatter(
        spread["predicted_ms"],
        100 * spread["test"],
        s=14,
        color="0.65",
        label=f"random networks (predicted ms), seed {study.config['seeds'][0]}",
    )
    fronts = pd.read_csv(RESULTS / "fronts.csv")
    for (arm, seed), front in fronts.groupby(["arm", "seed"], sort=False):
        ordered = front.sort_values("measured_ms")
        axes.plot(
            ordered["measured_ms"],
            100 * ordered["test"],
            "-" if arm == "search" else ":",
            marker=".",
            color=f"C{seed}",
            label=f"{arm} (one colour per seed)" if seed == study.config["seeds"][0] else None,
        )
    axes.set(xlabel="latency, ms (ONNX Runtime, one thread)", ylabel="test accuracy, %", xscale="log")
    axes.set_title("Networks of the supernet", loc="left")
    axes.set_xticks(_TICKS_MS, [f"{tick:g}" for tick in _TICKS_MS])
    axes.minorticks_off()
    axes.set_ylim(bottom=55)
    axes.legend(fontsize=8, loc="lower left")


def _contenders(axes: Axes, worth: pd.DataFrame) -> None:
    worth = worth.assign(kind=worth["equal"].replace({"-": "inherited"}))
    names = worth.groupby("contender")["test"].mean().sort_values().index
    for key, part in worth.groupby("kind", sort=False):
        kind = str(key)
        offset = list(_MARKERS).index(kind) * 0.2 - 0.2
        rows = [list(names).index(name) + offset for name in part["contender"]]
        axes.scatter(
            100 * part["test"],
            rows,
            s=26,
            marker=_MARKERS[kind],
            color=_COLOURS[kind],
            label=_LABELS[kind],
        )
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", alpha=0.3)
    axes.set(xlabel="test accuracy, % (one mark per seed)")
    axes.set_title("Inside one budget", loc="left")
    axes.legend(fontsize=8, loc="lower right")
