"""Runs strategies on a problem, many seeds at once, and keeps the history of each run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from common import Study, Values, save
from variants import add_variants

from experiments.study import commit, say
from nas import Objective, search
from nas.files import make_folder, write_atomic
from search_spaces.space import Genomes, SearchSpace


@dataclass(frozen=True)
class RaceProblem:
    """Accuracy, costly, against a cost that is cheap."""

    space: SearchSpace
    accuracy: Callable[[Genomes], Values]
    cost: Callable[[Genomes], Values]


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        genomes: evaluated ones in order, ``int16[n, n_genes]``.
        accuracy, cost: as the search saw them, ``float64[n]``.
        seconds: that the whole search took on one core.
        commit: of the code that ran it.
    """

    strategy: str
    seed: int
    genomes: Genomes
    accuracy: Values
    cost: Values
    seconds: float
    commit: str


Make = Callable[[Study], RaceProblem]
"""A function at the top level of a module, so that other processes find it."""


def race(study: Study, part: str, make: Make) -> list[Run]:
    """Return the runs of all strategies and seeds that a part's settings name; what is on disk is not repeated."""
    settings = study.config[part]
    tasks = [
        (strategy, seed, evaluations)
        for strategy, evaluations in settings["evaluations"].items()
        for seed in range(settings.get("fewer_seeds", {}).get(strategy, settings["seeds"]))
    ]
    folder = study.work / part
    make_folder(folder)
    missing = [task for task in tasks if not _path(folder, *task).exists()]
    with ProcessPoolExecutor(study.config["processes"]) as pool:
        futures = {pool.submit(_run, study, folder, make, *task): task for task in missing}
        for done, future in enumerate(as_completed(futures), 1):
            strategy, seed, _ = futures[future]
            say(f"{part}: {done} of {len(missing)}: {strategy}, seed {seed}, {future.result():.0f} s")
    return [_read(_path(folder, *task), task[0], task[1]) for task in tasks]


def _path(folder: Path, strategy: str, seed: int, evaluations: int) -> Path:
    return folder / f"{strategy}-{evaluations}-{seed}.csv"


def _run(study: Study, folder: Path, make: Make, strategy: str, seed: int, evaluations: int) -> float:
    import time

    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    add_variants()
    with threadpool_limits(1):
        problem = make(study)
        start = time.process_time()
        objectives = [
            Objective("accuracy", problem.accuracy, maximize=True, costly=True),
            Objective("cost", problem.cost),
        ]
        history = search(problem.space, objectives, evaluations=evaluations, strategy=strategy, seed=seed).history
        seconds = time.process_time() - start
    genomes = [" ".join(map(str, genome)) for genome in history["genome"]]
    table = history[["accuracy", "cost"]].assign(genome=genomes, seconds=seconds, commit=commit())
    write_atomic(_path(folder, strategy, seed, evaluations), table.to_csv(index=False))
    return seconds


def _read(path: Path, strategy: str, seed: int) -> Run:
    table = pd.read_csv(path)
    genomes = np.array([row.split() for row in table["genome"]], dtype=np.int16)
    first = table.iloc[0]
    return Run(
        strategy,
        seed,
        genomes,
        table["accuracy"].to_numpy(),
        table["cost"].to_numpy(),
        float(first["seconds"]),
        str(first["commit"]),
    )


def save_runs(runs: list[Run], name: str) -> None:
    """Write how long the runs took, and the commit that made them."""
    table = pd.DataFrame(
        {"strategy": run.strategy, "seconds": run.seconds, "commit": run.commit, "runs": 1} for run in runs
    )
    groups = table.groupby(["strategy", "commit"], sort=False)
    save(groups.agg({"seconds": "median", "runs": "sum"}).reset_index(), name)
