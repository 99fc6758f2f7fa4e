"""How well figures that are cheap to get rank networks by the accuracy that they reach alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from common import RESULTS, Study, Values, save

from experiments.study import Rows, draws

Groups = npt.NDArray[np.intp]
_COSTS = ("predicted_ms", "macs", "params")


def pooled_tau(first: Values, second: Values, groups: Groups) -> float:
    """Return Kendall's τ-b over all pairs of networks of one group, ``float64[n]`` and ``intp[n]``."""
    rows, columns = np.triu_indices(len(first), 1)
    same = groups[rows] == groups[columns]
    one, two = (np.sign(values[rows] - values[columns])[same] for values in (first, second))
    return float((one * two).sum() / np.sqrt(np.abs(one).sum() * np.abs(two).sum()))


def rank(study: Study) -> None:
    """Compare what ranks networks: supernets of every recipe, and costs that need none."""
    networks = study.networks
    bands = networks["band"].astype("category").cat.codes.to_numpy().astype(np.intp)
    inside = np.flatnonzero(networks["band"] != "elsewhere").astype(np.intp)
    truths = _by_seed(pd.read_csv(RESULTS / "scratch.csv"), networks["id"], "test")
    within = [truth for truth in truths.values() if not np.isnan(truth[inside]).any()]
    everywhere = [truth for truth in truths.values() if not np.isnan(truth).any()]
    rankers: dict[str, list[Values]] = {cost: [networks[cost].to_numpy(dtype=np.float64)] for cost in _COSTS}
    inherited = pd.read_csv(RESULTS / "inherited.csv")
    for recipe, table in inherited.groupby("recipe", sort=False):
        rankers[str(recipe)] = list(_by_seed(table, networks["id"], "validation").values())
    one = np.zeros(len(networks), dtype=np.intp)
    rows: Rows = [
        {"ranker": name}
        | _interval("within_bands", figures, within, bands, inside)
        | _interval("everywhere", figures, everywhere, one, np.arange(len(networks)))
        for name, figures in rankers.items()
    ]
    ceiling = _interval("within_bands", within[:1], within[1:], bands, inside)
    save(pd.DataFrame([*rows, {"ranker": "another seed of the training alone"} | ceiling]), "ranking")


def _by_seed(table: pd.DataFrame, ids: pd.Series[str], column: str) -> Mapping[int, Values]:
    """Return a column in the order of some ids, by seed; NaN for those that have no row."""
    return {
        int(str(seed)): part.set_index("id")[column].reindex(ids).to_numpy(dtype=np.float64)
        for seed, part in table.groupby("seed")
    }


def _interval(
    name: str, figures: Sequence[Values], truths: Sequence[Values], groups: Groups, of: Groups
) -> dict[str, float]:
    """Return the mean τ over all pairs of figures and truths, and its 95 % interval over draws of networks."""

    def mean_tau(rows: Groups) -> float:
        return float(np.mean([pooled_tau(x[rows], y[rows], groups[rows]) for x in figures for y in truths]))

    drawn = [mean_tau(of[rows]) for rows in draws(len(of))[:500]]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {name: mean_tau(of), f"{name}_low": float(low), f"{name}_high": float(high)}


def compare_recipes(study: Study) -> None:
    """Put recipes side by side: accuracies, gaps to training alone, what operators gain by sharing."""
    inherited, alone = pd.read_csv(RESULTS / "inherited.csv"), pd.read_csv(RESULTS / "scratch.csv")
    truth = alone.groupby("id")["validation"].mean().reindex(study.networks["id"]).to_numpy()
    shares = _operator_shares(study)
    rows: Rows = []
    for recipe, table in inherited.groupby("recipe", sort=False):
        seeds = table.groupby("seed")[["seconds", "largest", "random", "smallest"]].first()
        gaps = np.stack([values - truth for values in _by_seed(table, study.networks["id"], "validation").values()])
        # The gap of a network that had one operator alone, were gaps sums over blocks, against that of the average one.
        bias = np.stack([np.linalg.lstsq(shares.to_numpy(), gap, rcond=None)[0] for gap in gaps])
        bias -= bias.mean(axis=1, keepdims=True)
        rows.append(
            {"recipe": recipe}
            | {str(name): float(seeds[name].mean()) for name in seeds}
            | {f"{name}_seeds_sd": seeds[name].std() for name in ("largest", "random", "smallest")}
            | {"gap": gaps.mean(), "gap_networks_sd": gaps.mean(axis=0).std()}
            | {f"{name}_bias": value for name, value in zip(shares, bias.mean(axis=0), strict=True)}
        )
    save(pd.DataFrame(rows), "recipes")


def _operator_shares(study: Study) -> pd.DataFrame:
    """Return the share of each operator in the blocks of every network."""
    chosen = [[placed.block.family for placed in study.space.lower(genome)] for genome in study.genomes]
    operators = sorted({operator.family for stage in study.space.layout.stages for operator in stage.operators})
    counts = pd.DataFrame([{name: families.count(name) for name in operators} for families in chosen])
    return counts.div(counts.sum(axis=1), axis=0)
