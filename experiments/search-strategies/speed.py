"""The inner loop on one core: proposals per second by scorer and by size of the space, against pymoo's own loop."""

from __future__ import annotations

import cProfile
import itertools
import pstats
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from common import HERE, Study, Values, save
from oracle import ofa_space
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem as PymooProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from threadpoolctl import threadpool_limits

from experiments.study import say
from nas.engine.evolution import Evolution, evolve
from nas.engine.objectives import Constraint, Objective
from nas.engine.problem import Problem
from nas.engine.strategies.predictor import PredictorSearch
from predictors.regression.chosen import REGRESSIONS
from search_spaces.space import Genomes, SearchSpace

_KNOWN = 100
_POPULATION = 256


def toy_space(n_genes: int) -> SearchSpace:
    """Return blocks of an operator and a size that exists unless the block is skipped."""
    pairs = range(n_genes // 2)
    return SearchSpace.from_choices(
        {
            name: options
            for i in pairs
            for name, options in ((f"op{i}", ("a", "b", "skip")), (f"size{i}", (3, 4, 5, 6)))
        },
        when={f"size{i}": {f"op{i}": ("a", "b")} for i in pairs},
        name=f"toy-{n_genes}",
    )


class Scored:
    """What the inner loop of `predictor` asks of each generation: accuracy as predicted, an exact cost, a bound on it.

    Args:
        space: what is searched.
        regression: name of the one that predicts.

    Attributes:
        seen: how many networks were scored.
    """

    def __init__(self, space: SearchSpace, regression: str) -> None:
        rng = np.random.default_rng(0)
        weights = rng.random((2, int(space.n_options.sum())))

        def cost(genomes: Genomes) -> Values:
            return np.asarray(space.encode(genomes) @ weights[1], dtype=np.float64)

        self.space = space
        self.seen = 0
        genomes = space.unique(space.sample(_KNOWN, rng))
        upper = float(cost(genomes).max())
        objectives = [Objective("accuracy", maximize=True, costly=True), Objective("cost", cost)]
        problem = Problem(space, objectives, [Constraint("cost", upper=upper)])
        self._strategy = PredictorSearch(problem, 0, regressions=[regression])
        values = problem.cheap(genomes)
        values[:, 0] = np.sqrt(space.encode(genomes) @ weights[0] + rng.normal(0.0, 0.05, len(genomes)))
        self._strategy.tell(genomes, values)
        self._strategy.ask(1)  # fits

    def __call__(self, genomes: Genomes) -> tuple[Values, Values]:
        """Return what is minimised, and by how much bounds are broken."""
        self.seen += len(genomes)
        return self._strategy.score(genomes)


def measure_speed(study: Study) -> None:
    """Measure proposals per second, in rounds of all settings in turn, then where the time goes, then memory."""
    settings = study.config["speed"]
    spaces = [ofa_space(), *(toy_space(n) for n in settings["genes"])]
    loops: dict[tuple[str, int, str], Callable[[], float]] = {}
    with threadpool_limits(1):
        for space in spaces:
            for name in REGRESSIONS:
                scored = Scored(space, name)
                loops["ours", space.n_genes, name] = _timed(_ours, scored, settings["seconds"])
                if name == "ridge":
                    loops["pymoo, default operators", space.n_genes, name] = _timed(_pymoo, scored, settings["seconds"])
                    loops["pymoo, tuned", space.n_genes, name] = _timed(_pymoo_tuned, scored, settings["seconds"])
        rows = []
        for round_, (key, loop) in itertools.product(range(settings["rounds"]), loops.items()):
            say(f"speed: round {round_ + 1} of {settings['rounds']}: {key}")
            rows.append({"loop": key[0], "genes": key[1], "scorer": key[2], "proposals_per_s": loop()})
        rates = pd.DataFrame(rows).groupby(["loop", "genes", "scorer"], sort=False)["proposals_per_s"]
        save(rates.agg(["median", "min", "max"]).reset_index(), "speed")
        _profile(Scored(spaces[0], "ridge"))
    _memory(spaces)


def _timed(run: Callable[[Scored], None], scored: Scored, seconds: float) -> Callable[[], float]:
    def loop() -> float:
        scored.seen, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            run(scored)
        return scored.seen / (time.perf_counter() - start)

    return loop


def _ours(scored: Scored) -> None:
    rng = np.random.default_rng(0)
    evolve(scored.space, scored, scored.space.sample(_POPULATION, rng), Evolution(population=_POPULATION), rng)


def _pymoo(scored: Scored) -> None:
    _minimize(
        scored,
        crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=0.9, eta=20, vtype=float, repair=RoundingRepair()),
    )


def _pymoo_tuned(scored: Scored) -> None:
    _minimize(
        scored,
        crossover=UniformCrossover(prob=0.7),
        mutation=PM(prob=0.9, eta=20, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=False,
    )


def _minimize(scored: Scored, **operators: object) -> None:
    algorithm = NSGA2(pop_size=_POPULATION, sampling=IntegerRandomSampling(), **operators)
    minimize(_Inner(scored), algorithm, ("n_gen", 1 + Evolution().generations), seed=0)


class _Inner(PymooProblem):  # type: ignore[misc]
    def __init__(self, scored: Scored) -> None:
        super().__init__(
            n_var=scored.space.n_genes, n_obj=2, n_ieq_constr=1, xl=0, xu=scored.space.n_options - 1, vtype=int
        )
        self._scored = scored

    def _evaluate(self, x: Values, out: dict[str, Values], *args: object, **kwargs: object) -> None:
        out["F"], out["G"] = self._scored(self._scored.space.canonical(x.astype(np.int16)))


def _profile(scored: Scored) -> None:
    """Say where the inner loop spends its time: by what `evolve` and what it calls are for."""
    with cProfile.Profile() as profile:
        for _ in range(6):
            _ours(scored)
    cumulative = {
        (file.rpartition("/")[2], name): row[3]
        for (file, _, name), row in pstats.Stats(profile).stats.items()  # type: ignore[attr-defined]
    }
    total = cumulative["speed.py", "_ours"]
    parts = {
        "scoring": ("speed.py", "__call__"),
        "  of that, features": ("features.py", "__call__"),
        "  of that, predicting the mean": ("chosen.py", "mean"),
        "  of that, predicting mean and deviation": ("chosen.py", "predict"),
        "selection and variation": ("evolution.py", "_children"),
        "sorting and crowding": ("pareto.py", "ranked"),
        "repeats": ("evolution.py", "_new_rows"),
        "first sample": ("space.py", "sample"),
    }
    rows = [{"part": part, "percent": 100.0 * cumulative.get(key, 0.0) / total} for part, key in parts.items()]
    save(pd.DataFrame(rows), "speed_profile")


def _memory(spaces: list[SearchSpace]) -> None:
    """Measure what one run of the loop allocates at most, and what its whole process holds."""
    rows = []
    for space in spaces:
        command = [sys.executable, "-c", f"import speed; speed.print_memory({space.n_genes})"]
        done = subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True)
        allocated, resident = map(float, done.stdout.split())
        rows.append({"genes": space.n_genes, "loop_allocates_mib": allocated, "process_mib": resident})
    save(pd.DataFrame(rows), "speed_memory")


def print_memory(n_genes: int) -> None:
    """Print both, in MiB; for a process of its own."""
    ofa = ofa_space()
    scored = Scored(ofa if ofa.n_genes == n_genes else toy_space(n_genes), "ridge")
    _ours(scored)
    # The peak of this process alone; that of getrusage is inherited from the parent.
    status = Path("/proc/self/status").read_text()
    resident_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    tracemalloc.start()
    _ours(scored)
    print(tracemalloc.get_traced_memory()[1] / 2**20, float(resident_kib) / 2**10)
