"""Which figure of many runs repeats best: estimators and orders of measuring, on the same networks and sessions.

    python experiments/latency-estimators/run.py [PART...]

Needs an idle machine for about ten minutes. A part whose table is there is left as it is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd

mpl.use("agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parents[1]))  # studies are scripts; what they share is a package that is never installed

from experiments.study import provenance, run_parts, save_table, say  # noqa: E402
from nas.block_cache import BlockCache  # noqa: E402
from nas.devices.drift import slowness  # noqa: E402
from nas.lut_plan import NETWORK_VISIT_MS, ROUNDS  # noqa: E402
from nas.runtime import open_session, random_inputs  # noqa: E402
from search_spaces.catalogue import find_space  # noqa: E402

SPACES = ("tiny", "mobile")
NETWORKS, PASSES, SEED = 24, 4, 0
CHANNELS, CLASSES = 3, 10

Rounds = npt.NDArray[np.int64]
"""Times of the runs of one session in one pass, ns, ``int64[rounds, runs]``."""

ESTIMATORS: Mapping[str, Callable[[Rounds], float]] = {
    "minimum": lambda rounds: rounds.min(),
    "p10 of all runs": lambda rounds: np.quantile(rounds, 0.1),
    "median of all runs": lambda rounds: np.median(rounds),
    "mean of all runs": lambda rounds: rounds.mean(),
    "lower quartile of rounds' minima": lambda rounds: np.quantile(rounds.min(axis=1), 0.25),
    "median of rounds' minima": lambda rounds: np.median(rounds.min(axis=1)),
}
STEADY = "lower quartile of steady rounds"
"""The tool's own: what neighbouring visits share of the machine's ups and downs is divided out of rounds' minima."""


def sessions(space_name: str, folder: Path) -> list[tuple[Any, dict[str, Any]]]:
    """Open random networks of a space, each twice: the two are independent measurements of the same file."""
    space = find_space(space_name, channels=CHANNELS, classes=CLASSES)
    specs = [space.lower(genome) for genome in space.sample(NETWORKS, np.random.default_rng(SEED))]
    cache = BlockCache(folder)
    cache.fill(list({placed.block: None for spec in specs for placed in spec}))
    opened = []
    for spec in specs:
        content = cache.network(spec).SerializeToString()
        for _ in range(2):
            session = open_session(content)
            opened.append((session, random_inputs(session, np.random.default_rng(SEED))))
    return opened


def timed(session: Any, inputs: Mapping[str, Any], runs: int) -> list[int]:
    """Return how long some runs take, ns."""
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        session.run(None, inputs)
        times.append(time.perf_counter_ns() - start)
    return times


def one_pass(
    opened: Sequence[tuple[Any, dict[str, Any]]], runs: Sequence[int], order: str, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Run every session equally often, and return its figure by every estimator.

    All rounds of one session come after the other, or one round of each session in turn.
    """
    visited: list[int] = []
    times: list[list[int]] = []
    rounds = 1 if order == "sequential" else ROUNDS
    for _ in range(rounds):
        for number in rng.permutation(len(opened)).tolist():
            session, inputs = opened[number]
            for _ in range(ROUNDS // rounds):
                visited.append(number)
                times.append(timed(session, inputs, runs[number]))
    numbers = np.array(visited)
    minima = np.array([min(each) for each in times], dtype=np.float64)
    steady = minima / slowness(numbers, minima)
    by_session = [np.array([times[visit] for visit in np.flatnonzero(numbers == each)]) for each in range(len(opened))]
    figures = {name: [float(estimator(each)) for each in by_session] for name, estimator in ESTIMATORS.items()}
    return figures | {STEADY: [float(np.quantile(steady[numbers == each], 0.25)) for each in range(len(opened))]}


def estimators(study: None) -> None:
    """Measure all sessions in both orders, several times in turn, and compare the figures of each estimator."""
    del study
    rng = np.random.default_rng(SEED)
    rows = []
    for space_name in SPACES:
        with tempfile.TemporaryDirectory() as folder:
            opened = sessions(space_name, Path(folder))
        fastest_ns = [min(timed(session, inputs, 20)) for session, inputs in opened]
        runs = [max(3, int(NETWORK_VISIT_MS * 1e6 / fastest)) for fastest in fastest_ns]
        passes: dict[str, list[dict[str, list[float]]]] = {"interleaved": [], "sequential": []}
        for number in range(PASSES):
            for order, done in passes.items():
                say(f"{space_name}: pass {number + 1} of {PASSES}, {order}")
                done.append(one_pass(opened, runs, order, rng))
        for order, done in passes.items():
            for name in (*ESTIMATORS, STEADY):
                figures = np.array([each[name] for each in done])
                first, second = figures[:, 0::2], figures[:, 1::2]
                rows.append(
                    {
                        "space": space_name,
                        "order": order,
                        "estimator": name,
                        "two_sessions_percent": 100.0 * np.abs(second / first - 1.0).mean(),
                        "two_passes_percent": 100.0 * np.abs(figures[1:] / figures[:-1] - 1.0).mean(),
                    }
                )
    frame = pd.DataFrame(rows)
    save_table(RESULTS, frame, "estimators")
    save_table(RESULTS, provenance(["onnxruntime", "numpy"]), "provenance")
    print(frame.to_string(index=False), flush=True)


def draw(study: None) -> None:
    """Draw how far two sessions of the same network are apart, by estimator and order."""
    del study
    frame = pd.read_csv(RESULTS / "estimators.csv")
    figure, axes = plt.subplots(1, len(SPACES), figsize=(11, 3.6), layout="constrained", sharey=True)
    for axis, (space_name, rows) in zip(axes, frame.groupby("space", sort=False), strict=True):
        for offset, (order, colour) in enumerate((("interleaved", "#0b5fa5"), ("sequential", "#d08a2e"))):
            values = rows[rows["order"] == order]["two_sessions_percent"]
            axis.barh(np.arange(len(values)) + 0.4 * offset, values, height=0.38, color=colour, label=order)
        axis.set_yticks(np.arange(len(ESTIMATORS) + 1) + 0.2, [*ESTIMATORS, STEADY])
        axis.set(title=str(space_name), xlabel="two sessions of a network differ by, %")
    axes[0].invert_yaxis()
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(RESULTS / "estimators.png", dpi=130)
    plt.close(figure)


PARTS: dict[str, tuple[str, Callable[[None], None]]] = {
    "estimators": ("provenance.csv", estimators),
    "figure": ("estimators.png", draw),
}


def main() -> None:
    """Run the parts that the command line names."""
    run_parts(
        PARTS,
        RESULTS,
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter),
        lambda arguments: None,
    )


if __name__ == "__main__":
    main()
