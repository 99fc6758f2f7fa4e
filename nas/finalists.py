"""From evaluated networks to a front: which come into question, what is known of them, what is kept. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.engine.pareto import best_rows, front_rows
from nas.front import Candidate, Comparison, DeviceBudget, DeviceLatency, Front
from nas.goal import LATENCY, Goal, Target, latency_on
from nas.ledger import Genes, Ledger, latency_evaluator
from predictors.quality import standard_error
from search_spaces.errors import CheckError
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]

FINALISTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Networks with their true accuracy.

    Attributes:
        genomes: canonical, ``int16[n, n_genes]``.
        accuracy: on search-validation, in 0..1, ``float64[n]``.
        costs: predicted, those that are traded off, ``float64[n, n_costs]``.
    """

    genomes: Genomes
    accuracy: Values
    costs: Values

    @classmethod
    def inside(cls, known: Mapping[Genes, float], goal: Goal, limit_ms: Callable[[Target], float]) -> Evaluated:
        """Return those of some networks with their accuracies that keep a goal's bounds and predicted latencies."""
        genomes = np.array(list(known), dtype=np.int16).reshape(-1, goal.space.n_genes)
        kept = goal.keeps(genomes, limit_ms)
        accuracy = np.array(list(known.values()), dtype=np.float64)
        return cls(genomes=genomes[kept], accuracy=accuracy[kept], costs=goal.predicted(genomes[kept]))

    @property
    def objectives(self) -> Values:
        """Error and costs, all minimised, ``float64[n, 1 + n_costs]``."""
        return np.column_stack([1.0 - self.accuracy, self.costs])

    @property
    def genes(self) -> tuple[Genes, ...]:
        """The genomes as plain values, in their order."""
        return tuple(tuple(row) for row in self.genomes.tolist())

    def rows(self, rows: npt.NDArray[np.int64]) -> Evaluated:
        """Return some of them, by their position."""
        return Evaluated(genomes=self.genomes[rows], accuracy=self.accuracy[rows], costs=self.costs[rows])

    def finalists(self) -> Evaluated:
        """Return at most `FINALISTS` networks, the non-dominated ones first and spread out, in their order."""
        return self.rows(np.sort(best_rows(self.objectives, n=FINALISTS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the figures of a front are of, beside its goal.

    Attributes:
        supernet_hash: of the weights.
        validation_images: how many images each accuracy was counted on.
        seed: of the search.
        evaluations: that the search has spent; 0 where it only looked at what was known.
        comparison: with another strategy.
        strategy: of the search; empty likewise.
        asked: genes of the networks that the search has spent them on, in its order.
    """

    supernet_hash: str
    validation_images: int
    seed: int = 0
    evaluations: int = 0
    comparison: Comparison | None = None
    strategy: str = ""
    asked: tuple[Genes, ...] = ()


def known_front(goal: Goal, known: Mapping[Genes, float], ledger: Ledger, source: Source) -> Front | None:
    """Return the front of what was evaluated before, or None where nothing of it is safely inside the budget.

    Networks that were measured on the device once have that figure; the others must be predicted inside the budget by
    more than any network was slower that the table was tested on.

    Args:
        goal: what is asked for.
        known: accuracies by genome.
        ledger: holds the measured latencies.
        source: of the accuracies.

    Raises:
        InputError, MachineError: the ledger cannot be read.
    """
    inside = Evaluated.inside(known, goal, lambda _: math.inf)
    genomes = inside.genes
    safe, is_measured = np.ones((2, len(genomes)), dtype=np.bool_)
    measured: dict[str, dict[Genes, float]] = {}
    for name, target in goal.latencies.items():
        # The newest figure of each: one that was disturbed is put right by measuring again.
        rows = ledger.rows(latency_name(target), goal.space.hash)
        measured[name] = {row.genes: row.value for row in rows}
        measured_ms = np.array([measured[name].get(genes, math.nan) for genes in genomes], dtype=np.float64)
        unmeasured = np.isnan(measured_ms)
        predicted_safe = goal.predict(name, inside.genomes) <= target.budget.unmeasured_limit_ms
        safe &= np.where(unmeasured, predicted_safe, measured_ms <= target.budget.measured_limit_ms)
        is_measured &= ~unmeasured
    if not safe.any():
        return None
    networks = inside.rows(np.flatnonzero(safe))
    # Those that were measured come into question by their measured latency, all of them; of the others the best.
    others = np.flatnonzero(~is_measured[safe])
    chosen = np.concatenate([np.flatnonzero(is_measured[safe]), others[front_rows(networks.objectives[others])]])
    candidates = candidates_of(goal, networks.rows(chosen), measured, source.validation_images)
    return make_front(goal, candidates, source, known=int(safe.sum()), margin=lambda target: target.budget.wide_margin)


def latency_name(target: Target) -> str:
    """Return the name, in the ledger, of what is measured under the conditions of a target's table."""
    table = target.latency.table
    return latency_evaluator(table.fingerprint_hash, target.budget.at, table.precision, table.batch)


def make_front(
    goal: Goal, candidates: list[Candidate], source: Source, *, known: int, margin: Callable[[Target], float]
) -> Front:
    """Return the non-dominated ones of candidates that are inside the budgets; the others are told as dropped.

    Args:
        goal: what was asked for.
        candidates: one at least.
        source: of their figures.
        known: how many evaluated networks they were chosen from.
        margin: that predictions kept from the budget of a device.

    Raises:
        CheckError: all of them were measured outside.
    """
    inside = [each for each in candidates if _is_inside(goal, each)]
    if not inside:
        limits = " and ".join(
            f"{each.budget.limit_ms:.3f} ms less {each.budget.noise:.1%}"
            for each in goal.targets
            if each.budget.limit_ms
        )
        fastest = min(each.latency_ms for each in candidates)
        raise CheckError(
            f"all {len(candidates)} finalists were measured outside {limits}, which the next measurement may add (the "
            f"fastest takes {fastest:.3f} ms on {goal.targets[0].device}); raise the budget, or build the table again "
            "if the machine has changed"
        )
    first, *others = [
        DeviceBudget(
            device=target.device,
            fingerprint_hash=target.latency.table.fingerprint_hash,
            budget_ms=target.budget.limit_ms,
            reachable_ms=target.budget.reachable_ms,
            budget_binds=target.budget.binds,
            margin=margin(target),
        )
        for target in goal.targets
    ]
    return Front(
        space_hash=goal.space.hash,
        supernet_hash=source.supernet_hash,
        device=first.device,
        fingerprint_hash=first.fingerprint_hash,
        budget_ms=first.budget_ms,
        budget_at=goal.budget.at,
        bounds=dict(goal.bounds),
        objectives=goal.objectives,
        reachable_ms=first.reachable_ms,
        budget_binds=first.budget_binds,
        margin=first.margin,
        others=tuple(others),
        seed=source.seed,
        evaluations=source.evaluations,
        known=known,
        validation_images=source.validation_images,
        candidates=tuple(_non_dominated(goal, inside)),
        dropped=tuple(each for each in candidates if each not in inside),
        comparison=source.comparison,
        strategy=source.strategy,
        asked=source.asked,
    )


def candidates_of(
    goal: Goal, networks: Evaluated, measured: Mapping[str, Mapping[Genes, float]], validation_images: int
) -> list[Candidate]:
    """Return evaluated networks with all that is known of them, fastest first.

    Args:
        goal: whose costs.
        networks: their accuracies.
        measured: latencies by genome, by the statistic of the budget; for each of the goal's latencies, by its name.
        validation_images: that each accuracy was counted on.
    """
    genomes = networks.genomes
    costs = {name: goal.predict(name, genomes) for name in goal.costs}
    candidates = []
    for row, genome in enumerate(genomes):
        genes, accuracy = tuple(genome.tolist()), float(networks.accuracy[row])
        sizes = {name: float(costs[name][row]) for name in ("file_mb", "memory_mb") if name in costs}
        candidates.append(
            Candidate(
                id=goal.space.architecture(genome).id,
                genes=genes,
                validation_accuracy=accuracy,
                validation_standard_error=standard_error(accuracy, validation_images),
                predicted_latency_ms=float(costs[LATENCY][row]),
                measured_latency_ms=measured[LATENCY].get(genes),
                params=int(costs["params"][row]),
                macs=int(costs["macs"][row]),
                others=tuple(
                    DeviceLatency(
                        device=target.device,
                        predicted_latency_ms=float(costs[name][row]),
                        measured_latency_ms=measured[name].get(genes),
                    )
                    for name, target in goal.latencies.items()
                    if name != LATENCY
                ),
                **sizes,
            )
        )
    return sorted(candidates, key=lambda each: (each.latency_ms, -each.validation_accuracy))


def _non_dominated(goal: Goal, candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates that none is better than in accuracy and in all costs that are traded off."""
    rows = [[1.0 - each.validation_accuracy, *(_cost(each, name) for name in goal.objectives)] for each in candidates]
    return [candidates[row] for row in front_rows(np.array(rows, dtype=np.float64))]


def _is_inside(goal: Goal, candidate: Candidate) -> bool:
    """Return whether no measured latency is beyond what it must not exceed."""
    limits = [target.budget.measured_limit_ms for target in goal.targets]
    return all((ms or 0.0) <= limit for ms, limit in zip(candidate.measured_everywhere_ms, limits, strict=True))


def _cost(candidate: Candidate, name: str) -> float:
    elsewhere = {latency_on(each.device): each.latency_ms for each in candidate.others}
    value = elsewhere.get(name, candidate.latency_ms) if name.startswith(LATENCY) else getattr(candidate, name)
    assert value is not None
    return float(value)
