"""Strategies at equal true evaluations on a trained supernet; see README.md beside this file.

python experiments/search-supernet/run.py --work DIR [PART ...]
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from figure import draw

from experiments.study import ConfiguredStudy, Parts, Rows, draws, nas, provenance, run_parts, save_table, say
from nas.budget import parse_budget
from nas.devices import parse_device
from nas.engine.pareto import front_rows, hypervolume
from nas.evaluate import SubnetEvaluator
from nas.finalists import Evaluated
from nas.goal import Goal, Target, latency_on, parse_goal
from nas.ledger import Genes
from nas.memory import keep_freed_memory
from nas.run import Run
from nas.search_plan import SearchSettings
from nas.subnet_search import search_subnets
from predictors.latency import LatencyPredictor

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
save = functools.partial(save_table, RESULTS)
Values = npt.NDArray[np.float64]


class Study(ConfiguredStudy):
    """The settings, and the run of the supernet."""

    @functools.cached_property
    def run(self) -> Run:
        """A trained run with tables; makes what is missing."""
        path = self.work / "run"
        if not (path / "supernet" / "training.json").exists():
            nas("train", "--run", path, "--space", self.config["space"], "--data", self.config["data"])
        run = Run.existing(path, first="nas train")
        for device in (self.config["device"], self.config["second_device"]):
            if not run.lut_path(parse_device(device)).exists():
                nas("build-lut", "--run", path, "--device", device)
        return run

    @functools.cached_property
    def evaluator(self) -> SubnetEvaluator:
        """Of that run. What one search has evaluated is looked up by the others, which do not learn from it."""
        keep_freed_memory()
        return self.run.evaluator()

    @functools.cached_property
    def before(self) -> dict[Genes, float]:
        """What the training has evaluated for its summary: a user's first search starts from that."""
        rows = self.once(
            "before",
            lambda: [{"genes": genes, "accuracy": value} for genes, value in self.run.known_accuracies().items()],
        )
        return {tuple(row["genes"]): row["accuracy"] for row in rows}

    def latency(self, device: str) -> LatencyPredictor:
        """Return a device's predictions."""
        return LatencyPredictor(self.run.space, self.run.latency_table(parse_device(device)))

    def goal(self, objectives: list[str]) -> Goal:
        """Return what is searched for: the budget, and other costs to trade off."""
        second = self.config["second_device"]
        devices = [self.config["device"], *[second] * (latency_on(second) in objectives)]
        latencies = [self.latency(device) for device in devices]
        targets = [Target(latency, parse_budget(self.config["budget"], latency)) for latency in latencies]
        return parse_goal(targets, objectives=objectives)

    def searched(
        self, strategy: str, seed: int, evaluations: int, objectives: list[str], *, informed: bool = False
    ) -> Rows:
        """Return the networks of a search in the order in which they were asked for, those it started from left out."""
        known = self.before  # before any search

        def search() -> Rows:
            goal = self.goal(objectives)
            settings = SearchSettings(evaluations=evaluations, strategy=strategy, seed=seed)
            found = search_subnets(self.evaluator, goal, settings, before=known if informed else None).found
            return [
                {"genes": genome.tolist(), "objectives": row.tolist()}
                for genome, row in zip(found.genomes, found.objectives, strict=True)
            ]

        name = [strategy, str(seed), str(evaluations), *objectives, *["informed"] * informed]
        return self.once("-".join(name).replace(":", "-"), search)


def _objectives(rows: Rows) -> Values:
    return np.array([row["objectives"] for row in rows])


def _shares(searches: dict[tuple[str, int], Rows], at: list[int]) -> pd.DataFrame:
    """Return, per search and number of evaluations, the share of the hypervolume of everything that any has found."""
    everything = np.concatenate([_objectives(rows) for rows in searches.values()])
    # Costs differ by orders of magnitude: relative to the worst that any has seen.
    worst = everything.max(axis=0)
    reference = np.ones(everything.shape[1])
    best = hypervolume(everything[front_rows(everything)] / worst, reference)
    return pd.DataFrame(
        {
            "strategy": strategy,
            "seed": seed,
            "evaluations": n,
            "hypervolume_share": hypervolume(_objectives(rows)[:n] / worst, reference) / best,
            "best_accuracy": 1.0 - float(_objectives(rows)[:n, 0].min()),
        }
        for (strategy, seed), rows in searches.items()
        for n in at
        if n <= len(rows)
    )


def _compared(shares: pd.DataFrame, figure: str) -> pd.DataFrame:
    """Return means over seeds, and how far the first strategy is ahead of each: mean and 95 % interval over seeds."""
    rows: Rows = []
    first = shares.strategy.iloc[0]
    for n, part in shares.groupby("evaluations", sort=False):
        table = part.pivot_table(index="seed", columns="strategy", values=figure)
        for strategy in dict.fromkeys(part.strategy):
            ahead = (table[first] - table[strategy]).to_numpy()
            low, high = np.quantile(ahead[draws(len(ahead))].mean(axis=1), [0.025, 0.975])
            rows.append(
                {
                    "evaluations": n,
                    "strategy": strategy,
                    "figure": figure,
                    "seeds": len(ahead),
                    "mean": table[strategy].mean(),
                    "first_is_ahead": ahead.mean(),
                    "low_95": low,
                    "high_95": high,
                    "first_wins": int((ahead > 0).sum()),
                }
            )
    return pd.DataFrame(rows)


def _strategies(study: Study) -> None:
    config = study.config
    searches = {}
    for seed in config["seeds"]:
        for strategy in config["strategies"]:
            say(f"{strategy} {seed}")
            searches[strategy, seed] = study.searched(strategy, seed, config["evaluations"], ["latency_ms"])
    shares = _shares(searches, config["at"])
    save(shares, "strategies_by_seed")
    save(pd.concat([_compared(shares, name) for name in ("hypervolume_share", "best_accuracy")]), "strategies")
    fronts: Rows = []
    for (strategy, seed), rows in searches.items():
        values = _objectives(rows)
        fronts += [
            {"strategy": strategy, "seed": seed, "accuracy": 1.0 - error, "latency_ms": ms}
            for error, ms in values[front_rows(values)].tolist()
        ]
    save(pd.DataFrame(fronts), "fronts")
    draw(RESULTS)
    _provenance(study)


def _longer(study: Study) -> None:
    config = study.config["longer"]
    searches = {
        (config["strategy"], seed): study.searched(config["strategy"], seed, config["evaluations"], ["latency_ms"])
        for seed in config["seeds"]
    }
    shares = _shares(searches, config["at"])
    told = shares.groupby("evaluations")[["hypervolume_share", "best_accuracy"]].agg(["mean", "min"])
    told.columns = pd.Index(["_".join(column) for column in told.columns])
    save(told.reset_index(), "longer")
    _provenance(study)


def _start(study: Study) -> None:
    """Compare starts from nothing and from the training's networks; those networks count on both sides."""
    config = study.config["start"]
    trained = Evaluated.inside(study.before, study.goal(["latency_ms"]), lambda target: target.search_limit_ms)
    known = [{"objectives": row} for row in trained.objectives.tolist()]
    searches = {}
    for seed in config["seeds"]:
        for start, informed in (("informed", True), ("empty", False)):
            found = study.searched("predictor", seed, config["evaluations"], ["latency_ms"], informed=informed)
            searches[start, seed] = known + found
    shares = _shares(searches, [len(known) + n for n in config["at"]])
    shares["evaluations"] -= len(known)
    save(pd.concat([_compared(shares, name) for name in ("hypervolume_share", "best_accuracy")]), "start")
    _provenance(study)


def _three(study: Study) -> None:
    config = study.config["three"]
    tables = []
    for objectives in config["objectives"]:
        searches = {}
        for seed in config["seeds"]:
            for strategy in config["strategies"]:
                say(f"{strategy} {seed} {objectives}")
                searches[strategy, seed] = study.searched(strategy, seed, config["evaluations"], objectives)
        shares = _shares(searches, [config["evaluations"]])
        tables.append(_compared(shares, "hypervolume_share").assign(objectives=" ".join(objectives)))
        if objectives == config["objectives"][0]:
            values = _objectives(searches["nsga2", config["seeds"][0]])
            shown = pd.DataFrame(values, columns=["error", *objectives])
            shown["front"] = np.isin(np.arange(len(values)), front_rows(values))
            save(shown, "three_example")
    save(pd.concat(tables), "three")
    draw(RESULTS)
    _provenance(study)


def _provenance(study: Study) -> None:
    record = study.run.require_supernet()
    save(provenance(["torch", "pymoo", "scikit-learn", "onnxruntime"], supernet=record.supernet_hash), "provenance")


PARTS: Parts[Study] = {
    "strategies": ("strategies.csv", _strategies),
    "longer": ("longer.csv", _longer),
    "start": ("start.csv", _start),
    "three": ("three.csv", _three),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True, help="folder for the run, kept for a study started again")
    run_parts(PARTS, RESULTS, parser, lambda arguments: Study.load(HERE, arguments.work))
