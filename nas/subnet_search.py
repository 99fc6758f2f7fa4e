"""Searching a trained supernet inside a latency budget, and validating what was found."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nas.block_cache import BlockCache
from nas.budget import Budget
from nas.defaults import STRATEGY
from nas.devices import Device
from nas.engine.objectives import Constraint, Objective
from nas.engine.pareto import best_rows, hypervolume
from nas.engine.search import search
from nas.engine.strategies import check_strategy
from nas.evaluate import SubnetEvaluator, standard_error
from nas.front import Candidate, Comparison, Front
from nas.lut import measure_networks
from nas.progress import Progress, no_progress
from predictors.accuracy import network_costs
from predictors.additive import AdditiveCost
from predictors.latency import LatencyPredictor
from search_spaces.errors import CheckError, InputError
from search_spaces.space import Genomes

Values = npt.NDArray[np.float64]

FINALISTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How a search spends its true evaluations.

    Attributes:
        evaluations: networks that each strategy has evaluated.
        strategy: how networks are chosen.
        compare: a second strategy at equal cost, or None.
        seed: of all draws.
    """

    evaluations: int = 96
    strategy: str = STRATEGY
    compare: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (self.strategy, *([self.compare] if self.compare else [])):
            check_strategy(name)
        if self.evaluations < 1:
            raise InputError(f"evaluations must be at least 1, got {self.evaluations}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What one strategy found: every row is a true evaluation inside the predicted budget.

    Attributes:
        genomes: ``int16[n, n_genes]``, in the order of evaluation.
        accuracy: on search-validation, ``float64[n]``.
        latency_ms: predicted, ``float64[n]``.
    """

    genomes: Genomes
    accuracy: Values
    latency_ms: Values

    @property
    def objectives(self) -> Values:
        """Error and latency, both minimised, ``float64[n, 2]``."""
        return np.stack([1.0 - self.accuracy, self.latency_ms], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """A finished search, before validation on the device.

    Attributes:
        found: the strategy's own rows.
        compared: the other strategy's rows, or None.
    """

    found: Arm
    compared: Arm | None


def search_subnets(
    evaluator: SubnetEvaluator,
    latency: LatencyPredictor,
    budget: Budget,
    settings: SearchSettings,
    *,
    progress: Progress = no_progress,
) -> SearchOutcome:
    """Search the supernet for accurate networks inside the budget.

    What is searched depends on seed, table and weights alone. What the ledger already holds is looked up instead of
    evaluated, so a search that was killed goes over the same networks again, free as far as it had come.

    Args:
        evaluator: gives true accuracy and holds the ledger.
        latency: calibrated predictions.
        budget: what predictions must keep.
        settings: how to spend evaluations.
        progress: told of true evaluations.
    """
    names = [settings.strategy, *([settings.compare] if settings.compare else [])]
    total = settings.evaluations * len(names)
    accuracy = Objective("accuracy", evaluator.evaluate, maximize=True, costly=True)
    arms = []
    for position, name in enumerate(names):
        before = position * settings.evaluations
        result = search(
            latency.space,
            [accuracy, Objective("latency_ms", latency.predict)],
            [Constraint("latency_ms", upper=budget.predicted_limit_ms)],
            evaluations=settings.evaluations,
            strategy=name,
            seed=settings.seed,
            known=latency.cheapest()[1][None],
            features=network_costs(latency.space),
            progress=lambda done, _, before=before: progress(before + done, total),  # type: ignore[misc]
        )
        rows = result.history[result.history["failure"].isna()]
        if not len(rows):
            raise CheckError(f"no network could be evaluated: {result.history['failure'].iloc[-1]}")
        arms.append(
            Arm(
                genomes=np.array(rows["genome"].tolist(), dtype=np.int16),
                accuracy=rows["accuracy"].to_numpy(),
                latency_ms=rows["latency_ms"].to_numpy(),
            )
        )
    return SearchOutcome(found=arms[0], compared=arms[1] if len(arms) > 1 else None)


def validate_front(
    outcome: SearchOutcome,
    evaluator: SubnetEvaluator,
    latency: LatencyPredictor,
    budget: Budget,
    settings: SearchSettings,
    *,
    device: Device,
    cache: BlockCache,
    progress: Progress = no_progress,
) -> Front:
    """Measure the finalists as whole networks and keep the non-dominated ones that are really inside the budget.

    Finalists come from everything that the ledger holds inside the predicted budget, this search's networks and older
    ones alike. A measurement must clear the budget by the noise floor of the table, so that the next one does too.

    Raises:
        CheckError: every finalist was measured outside the budget.
        InputError, MachineError: as ``device.measure``.
    """
    known = _known(evaluator, latency, budget)
    chosen = np.sort(best_rows(known.objectives, n=FINALISTS))
    genomes = known.genomes[chosen]
    with tempfile.TemporaryDirectory(prefix="nas-search-") as folder:
        measured = measure_networks(
            cache,
            {latency.space.architecture(genome).id: latency.space.lower(genome) for genome in genomes},
            device,
            work_dir=Path(folder),
            seed=settings.seed,
            progress=progress,
        )
    for genome, network in zip(genomes, measured, strict=True):
        genes = tuple(int(gene) for gene in genome)
        evaluator.ledger.record(
            f"latency:{latency.table.fingerprint_hash}", latency.space.hash, genes, network.latency_ms
        )
    candidates = _candidates(
        evaluator, genomes, known.accuracy[chosen], latency, [network.latency_ms for network in measured]
    )
    inside = [candidate for candidate in candidates if candidate.measured_latency_ms <= budget.measured_limit_ms]
    if not inside:
        fastest = min(candidate.measured_latency_ms for candidate in candidates)
        raise CheckError(
            f"all {len(candidates)} finalists were measured outside {budget.limit_ms:.3f} ms (fastest {fastest:.3f} ms)"
            "; raise the budget, or build the table again if the machine has changed"
        )
    return Front(
        format_version=Front.CURRENT_VERSION,
        space_hash=latency.space.hash,
        supernet_hash=evaluator.supernet_hash,
        device=device.name,
        fingerprint_hash=latency.table.fingerprint_hash,
        budget_ms=budget.limit_ms,
        reachable_ms=budget.reachable_ms,
        budget_binds=budget.binds,
        margin=budget.margin,
        seed=settings.seed,
        evaluations=len(outcome.found.genomes),
        validation_images=evaluator.validation_images,
        candidates=tuple(_non_dominated(inside)),
        dropped=tuple(candidate for candidate in candidates if candidate not in inside),
        comparison=_comparison(outcome, budget, settings),
    )


def _known(evaluator: SubnetEvaluator, latency: LatencyPredictor, budget: Budget) -> Arm:
    """Return what the ledger holds inside the predicted budget."""
    known = evaluator.known()
    genomes = np.array(list(known), dtype=np.int16).reshape(-1, latency.space.n_genes)
    latency_ms = latency.predict(genomes)
    inside = latency_ms <= budget.predicted_limit_ms
    accuracy = np.array(list(known.values()), dtype=np.float64)[inside]
    return Arm(genomes=genomes[inside], accuracy=accuracy, latency_ms=latency_ms[inside])


def _candidates(
    evaluator: SubnetEvaluator,
    genomes: Genomes,
    accuracy: Values,
    latency: LatencyPredictor,
    measured_ms: Sequence[float],
) -> list[Candidate]:
    """Return the finalists with all their figures, fastest first."""
    space = latency.space
    params = AdditiveCost.of(space, lambda block: block.params()).predict(genomes)
    macs = AdditiveCost.of(space, lambda block: block.macs()).predict(genomes)
    predicted = latency.predict(genomes)
    candidates = [
        Candidate(
            id=space.architecture(genome).id,
            genes=tuple(int(gene) for gene in genome),
            validation_accuracy=float(accuracy[row]),
            validation_standard_error=standard_error(float(accuracy[row]), evaluator.validation_images),
            predicted_latency_ms=float(predicted[row]),
            measured_latency_ms=measured_ms[row],
            params=int(params[row]),
            macs=int(macs[row]),
        )
        for row, genome in enumerate(genomes)
    ]
    return sorted(candidates, key=lambda candidate: (candidate.measured_latency_ms, -candidate.validation_accuracy))


def _non_dominated(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Keep, of candidates that are sorted fastest first, each one that is more accurate than all before it."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if not kept or candidate.validation_accuracy > kept[-1].validation_accuracy:
            kept.append(candidate)
    return kept


def _comparison(outcome: SearchOutcome, budget: Budget, settings: SearchSettings) -> Comparison | None:
    """Return both arms' hypervolumes against the worst error that either has seen and the budget."""
    if outcome.compared is None or settings.compare is None:
        return None
    both = np.concatenate([outcome.found.objectives, outcome.compared.objectives])
    reference = np.array([both[:, 0].max(), min(budget.limit_ms, budget.reachable_ms[1])])
    return Comparison(
        strategy=settings.strategy,
        evaluations=len(outcome.found.genomes),
        hypervolume=hypervolume(outcome.found.objectives, reference),
        against=settings.compare,
        against_evaluations=len(outcome.compared.genomes),
        against_hypervolume=hypervolume(outcome.compared.objectives, reference),
        reference_error=float(reference[0]),
        reference_latency_ms=float(reference[1]),
    )
