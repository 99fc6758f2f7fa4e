"""A search without a supernet: accuracies are a function of genomes, so that a test can say what to expect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.budget import Budget, Statistic, parse_budget
from nas.data import SplitName
from nas.evaluate import SubnetEvaluator
from nas.finalists import Evaluated
from nas.goal import Goal, Target, parse_goal
from nas.ledger import Ledger
from nas.progress import Progress, no_progress
from nas.search_plan import SearchSettings
from nas.subnet_search import SearchOutcome, search_subnets
from predictors.latency import LatencyPredictor
from search_spaces.space import Genomes
from search_spaces.tiny import tiny
from tests.nas.synthetic_latency import synthetic_latency, synthetic_table

Values = npt.NDArray[np.float64]

SPACE = tiny(1, 10)
LATENCY = synthetic_latency(SPACE, noise=0.04)
"""Noisy, so that predictions have to keep a distance from the budget that a search would notice."""
OTHER = LatencyPredictor(
    SPACE, dataclasses.replace(synthetic_table(SPACE, noise=0.02, seed=1), device="cpu:threads=2", fingerprint_hash="2")
)
"""A second device, of which other networks were measured."""
IMAGES = 360
SETTINGS = SearchSettings(evaluations=44, compare="random-predictor")
_TERMS = np.random.default_rng(7).random((SPACE.n_genes, int(SPACE.n_options.max())))


def synthetic_accuracy(genomes: Genomes) -> Values:
    """Return a share of `IMAGES` that a sum over genes explains in most part."""
    worth = (_TERMS[np.arange(SPACE.n_genes), genomes] * SPACE.active(genomes)).sum(axis=1)
    unexplained = np.sin(37.0 * genomes @ np.arange(1, SPACE.n_genes + 1))
    values: Values = np.round(IMAGES * (0.3 + 0.02 * worth + 0.01 * unexplained)) / IMAGES
    return values


class SyntheticEvaluator(SubnetEvaluator):
    """Stands in for a trained supernet.

    Attributes:
        truly_evaluated: genomes that were not known yet, in the order in which they were evaluated.
    """

    def __init__(self, ledger: Ledger, accuracy: Callable[[Genomes], Values] = synthetic_accuracy) -> None:
        self.accuracy = accuracy
        self.space = SPACE
        self.supernet_hash = "5eed"
        self.precision = "fp32"
        self.ledger = ledger
        self.values: dict[tuple[int, ...], float] = {}
        self.truly_evaluated: list[tuple[int, ...]] = []

    @property
    def validation_images(self) -> int:
        return IMAGES

    def known(self, split: SplitName = "validation") -> dict[tuple[int, ...], float]:
        assert split == "validation"
        return dict(self.values)

    def upcoming(self, genomes: Genomes) -> None:
        """Nobody else evaluates."""

    def evaluate(
        self, genomes: Genomes, *, split: SplitName = "validation", progress: Progress = no_progress
    ) -> Values:
        assert split == "validation"
        for done, (genes, value) in enumerate(zip(tuples(genomes), self.accuracy(genomes), strict=True), start=1):
            if genes not in self.values:
                self.truly_evaluated.append(genes)
                self.values[genes] = float(value)
            progress(done, len(genomes))
        return np.array([self.values[genes] for genes in tuples(genomes)], dtype=np.float64)


def tuples(genomes: Genomes) -> list[tuple[int, ...]]:
    """Return genomes as values that can be compared and kept in sets."""
    return [tuple(row) for row in genomes.tolist()]


def goal_of(
    budget: str | None = None,
    *,
    latency: LatencyPredictor = LATENCY,
    at: Statistic = "min",
    objectives: Sequence[str] = (),
    bounds: Mapping[str, float | None] | None = None,
    others: Sequence[Target] = (),
) -> Goal:
    """Return what is asked for by a budget on the device of these tests, and on others beside it."""
    first = Target(latency, parse_budget(budget, latency, at=at))
    return parse_goal([first, *others], objectives=objectives, bounds=bounds)


@dataclasses.dataclass(frozen=True)
class Search:
    """A finished search and what it was made with."""

    evaluator: SyntheticEvaluator
    goal: Goal
    outcome: SearchOutcome

    @property
    def budget(self) -> Budget:
        """What latency had to keep."""
        return self.goal.budget

    @property
    def limit_ms(self) -> float:
        """The budget itself."""
        assert self.budget.limit_ms is not None
        return self.budget.limit_ms

    @property
    def arms(self) -> list[Evaluated]:
        """What the search found, and what the strategy found that it is compared with."""
        return [arm for arm in (self.outcome.found, self.outcome.compared) if arm is not None]


def search(
    folder: Path,
    budget: str | None = "50%",
    *,
    objectives: Sequence[str] = (),
    bounds: Mapping[str, float] | None = None,
    settings: SearchSettings = SETTINGS,
    known: Genomes | None = None,
    accuracy: Callable[[Genomes], Values] = synthetic_accuracy,
    progress: Progress = no_progress,
) -> Search:
    """Search the space of these tests with what the ledger is said to know."""
    evaluator = SyntheticEvaluator(Ledger(folder / "ledger.db"), accuracy)
    if known is not None:
        evaluator.evaluate(known)
        evaluator.truly_evaluated.clear()
    goal = goal_of(budget, objectives=objectives, bounds=bounds)
    return Search(evaluator, goal, search_subnets(evaluator, goal, settings, progress=progress))
