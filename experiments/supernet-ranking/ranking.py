"""How well figures that are cheap to get rank networks by the accuracy that they reach alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from common import RESULTS, Study, Values, save

from experiments.study import Rows, draws

Groups = npt.NDArray[np.intp]
_USUAL = "sandwich"
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
    scratch = pd.read_csv(RESULTS / "scratch.csv")
    validation, test = (_by_seed(scratch, networks["id"], split) for split in ("validation", "test"))
    rankers: dict[str, list[Values]] = {cost: [networks[cost].to_numpy(dtype=np.float64)] for cost in _COSTS}
    inherited = pd.read_csv(RESULTS / "inherited.csv")
    for recipe, table in inherited.groupby("recipe", sort=False):
        rankers[str(recipe)] = list(_by_seed(table, networks["id"], "validation").values())
    truths = list(test.values())
    within = {name: _Ranking(figures, truths, bands, inside) for name, figures in rankers.items()}
    everywhere = {
        name: _Ranking(figures, truths[:1], np.zeros_like(bands), np.arange(len(bands)))
        for name, figures in rankers.items()
    }
    # What one training alone tells of another, as a ranker would: by other images.
    (first, second), (one, two) = validation.values(), truths
    ceiling = np.array(
        [_Ranking([first], [two], bands, inside).drawn(), _Ranking([second], [one], bands, inside).drawn()]
    )
    usual, macs = within[_USUAL].drawn(), within["macs"].drawn()
    rows: Rows = [
        {"ranker": name}
        | _interval("within_bands", within[name].drawn())
        | _interval("lead_on_sandwich", within[name].drawn() - usual)
        | _interval("lead_on_macs", within[name].drawn() - macs)
        | _interval("share_of_ceiling", within[name].drawn() / ceiling.mean(axis=0))
        | _interval("everywhere", everywhere[name].drawn())
        for name in rankers
    ]
    rows.append({"ranker": "another training alone"} | _interval("within_bands", ceiling.mean(axis=0)))
    save(pd.DataFrame(rows), "ranking")
    by_seed = [
        {"ranker": name, "seed": seed, "within_bands": _Ranking([values], truths, bands, inside).drawn()[0]}
        for name, figures in rankers.items()
        for seed, values in enumerate(figures)
    ]
    save(pd.DataFrame(by_seed), "ranking_seeds")


@dataclass(frozen=True)
class _Ranking:
    """What ranks networks, one figure per seed; what it is to rank, one truth per seed; groups to rank in; of whom."""

    figures: Sequence[Values]
    truths: Sequence[Values]
    groups: Groups
    of: Groups

    def drawn(self) -> Values:
        """Return the mean τ over seeds, then those of 500 draws of networks and of figures' seeds, ``float64[501]``."""
        return np.array([self._tau(rows, seeds) for seeds, rows in _redrawn(len(self.figures), len(self.of))])

    def _tau(self, rows: npt.NDArray[np.integer], seeds: npt.NDArray[np.integer]) -> float:
        chosen = self.of[rows]
        figures = [self.figures[seed][chosen] for seed in seeds]
        return float(np.mean([pooled_tau(x, y[chosen], self.groups[chosen]) for x in figures for y in self.truths]))


def _interval(name: str, drawn: Values) -> dict[str, float]:
    """Return a figure, and its 95 % interval."""
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return {name: float(drawn[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def _by_seed(table: pd.DataFrame, ids: pd.Series[str], column: str) -> Mapping[int, Values]:
    """Return a column in the order of some ids, by seed; NaN for those that have no row."""
    return {
        int(str(seed)): part.set_index("id")[column].reindex(ids).to_numpy(dtype=np.float64)
        for seed, part in table.groupby("seed")
    }


def compare_recipes(study: Study) -> None:
    """Put recipes side by side: accuracies, gaps to training alone, what operators gain by sharing."""
    inherited, alone = pd.read_csv(RESULTS / "inherited.csv"), pd.read_csv(RESULTS / "scratch.csv")
    truth = alone.groupby("id")["validation"].mean().reindex(study.networks["id"]).to_numpy()
    shares = _operator_shares(study)
    rows: Rows = []
    for recipe, table in inherited.groupby("recipe", sort=False):
        seeds = table.groupby("seed")[["seconds", "largest", "random", "smallest"]].first()
        gaps = np.stack([values - truth for values in _by_seed(table, study.networks["id"], "validation").values()])
        gap, *bias = np.array([_gap_and_bias(gaps, shares.to_numpy(), *some) for some in _redrawn(*gaps.shape)]).T
        row = {"recipe": recipe, "images_per_network_alone": alone["images_seen"].iloc[0]}
        row |= {str(name): float(seeds[name].mean()) for name in seeds}
        row |= {f"{name}_seeds_sd": seeds[name].std() for name in ("largest", "random", "smallest")}
        for name, drawn in (("gap", gap), *zip(shares.columns, bias, strict=True)):
            row |= _interval(str(name), drawn)
        rows.append(row)
    save(pd.DataFrame(rows), "recipes")


def _redrawn(n_seeds: int, n_networks: int) -> list[tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]]:
    """Return all seeds and networks, then 500 draws of them."""
    rng = np.random.default_rng(0)
    some = [(rng.integers(n_seeds, size=n_seeds), rows) for rows in draws(n_networks)[:500]]
    return [(np.arange(n_seeds), np.arange(n_networks)), *some]


def _gap_and_bias(
    gaps: Values, shares: Values, seeds: npt.NDArray[np.integer], networks: npt.NDArray[np.integer]
) -> list[float]:
    """Return the mean gap, and what one operator alone adds to it, were gaps sums over blocks, less the average."""
    chosen = gaps[np.ix_(seeds, networks)].mean(axis=0)
    bias = np.linalg.lstsq(shares[networks], chosen, rcond=None)[0]
    return [float(chosen.mean()), *(bias - bias.mean())]


def _operator_shares(study: Study) -> pd.DataFrame:
    """Return the share of each operator in the blocks of every network."""
    chosen = [[placed.block.family for placed in study.space.lower(genome)] for genome in study.genomes]
    operators = sorted({operator.family for stage in study.space.layout.stages for operator in stage.operators})
    counts = pd.DataFrame([{name: families.count(name) for name in operators} for families in chosen])
    return counts.div(counts.sum(axis=1), axis=0)
